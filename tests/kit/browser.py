"""A headless Chromium, spoken to through a pipe, so that no more than it has to be installed."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)
"""Where a Chromium is, or None if there is none."""

_PATIENCE = 120.0
_SWITCHES = (
    *("--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"),
    *("--no-first-run", "--disable-dev-shm-usage", "--disable-extensions", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
# Becomes the browser, with the pipes where it looks for them.
_PLACE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """A browser, and one tab of it. Use as a context manager.

    Args:
        folder: Where it may leave what it likes.
    """

    def __init__(self, folder: Path) -> None:
        assert PROGRAM is not None
        # It reads commands from descriptor 3 and writes answers to 4.
        theirs, self._to = (_high(number) for number in os.pipe())
        self._from, answers = (_high(number) for number in os.pipe())

        command = [PROGRAM, *_SWITCHES, f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PLACE, str(theirs), str(answers), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs, answers),
        )
        os.close(theirs)
        os.close(answers)
        self._buffer, self._count, self._session = b"", 0, ""
        self.problems: list[str] = []
        """What it complained of since the page was opened."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def open(self, path: Path, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Opens a file, on a screen of some size."""
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self.problems.clear()
        self._call("Page.navigate", url=path.resolve().as_uri())
        self._read(lambda message: message.get("method") == "Page.loadEventFired")

    def resize(self, width: int, height: int = 900) -> None:
        """Gives the screen another size."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )

    def ask(self, script: str) -> Any:
        """The value of an expression of JavaScript."""
        answer = self._call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Presses a key, such as `Tab` or `Enter`."""
        text = {"text": "\r"} if key == "Enter" else {}
        code = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowRight": 39}[key]
        for kind in ("keyDown", "keyUp"):
            more = text if kind == "keyDown" else {}
            self._call(
                "Input.dispatchKeyEvent",
                **{"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, **more},
            )

    def point(self, selector: str, click: bool = False) -> None:
        """Moves the mouse to the middle of an element, and may click there."""
        x, y = self.ask(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center', inline: 'center'});"
            "const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mouseMoved", *["mousePressed", "mouseReleased"] * click):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self._call("Input.dispatchMouseEvent", **{"type": kind, "x": x, "y": y, **button})

    def picture(self, path: Path, whole: bool = True) -> None:
        """Writes a screenshot as PNG, of the whole page or of what is on the screen."""
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        number = self._count
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        answer = self._read(lambda message: message.get("id") == number)
        assert "error" not in answer, (method, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self, wanted: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
        """What it says next that is wanted; its complaints are noted on the way."""
        end = time.monotonic() + _PATIENCE
        while True:
            while b"\0" not in self._buffer:
                ready, _, _ = select.select([self._from], [], [], max(end - time.monotonic(), 0))
                assert ready, "the browser does not answer"
                read = os.read(self._from, 1 << 20)
                assert read, "the browser ended"
                self._buffer += read
            line, self._buffer = self._buffer.split(b"\0", 1)
            message: dict[str, Any] = json.loads(line)
            self._note(message)
            if wanted(message):
                return message

    def _note(self, message: Mapping[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.problems.append(f"{params['entry']['level']}: {params['entry']['text']}")
        elif method == "Runtime.consoleAPICalled":
            self.problems.append(f"console.{params['type']}: {params['args']}")


def _high(number: int) -> int:
    """The same descriptor under a number that nobody else wants."""
    other = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(number)
    return other
