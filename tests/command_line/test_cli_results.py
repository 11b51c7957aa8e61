"""What the command line leaves behind, however it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

import onnx_upscale
from command import BEFORE, refused, run
from onnx_upscale import main_job
from onnx_upscale.optimizer.apply import apply


@contextlib.contextmanager
def started_writing(
    also: str = "", ignoring: signal.Signals | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process of the command line that waits for a line of input while it writes OUT."""
    script = f"""
import os, sys
from pathlib import Path
from onnx_upscale.cli import main
def fsync(_):
    print("writing", file=sys.__stdout__, flush=True)  # sys.stdout is for results.
    sys.stdin.readline()
os.fsync = fsync
{also}
main(["in.onnx", "masks.json", "out.onnx", "--no-verify"])
"""

    def prepare() -> None:  # Whatever ran these tests may ignore some.
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN if each is ignoring else signal.SIG_DFL)

    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            assert list(Path().glob("*.tmp"))
            yield process
        finally:
            process.kill()


@pytest.mark.usefixtures("here")
class TestResults:
    """Files that must not be lost, and files that cannot be written."""

    @pytest.mark.parametrize(
        "out", ["in.onnx", "./in.onnx", "link.onnx", "hard.onnx", "sub/../in.onnx"]
    )
    def test_out_is_in(self, out: str) -> None:
        Path("link.onnx").symlink_to("in.onnx")
        Path("hard.onnx").hardlink_to("in.onnx")
        Path("sub").mkdir()
        before = Path("in.onnx").read_bytes()
        for arguments in ([out], [str(Path(out).absolute())], ["out.onnx", "--report", out]):
            result = run("in.onnx", "masks.json", *arguments)
            assert result.exit_code == 2
            assert "is the input model, which would be lost" in result.stderr
        assert Path("in.onnx").read_bytes() == before
        assert not Path("out.onnx").exists()

    def test_other_sources_and_results(self) -> None:
        before = Path("masks.json").read_bytes()
        for arguments, saying in (
            (["masks.json"], "OUT masks.json: is the mask file"),
            (["out.onnx", "--report", "masks.json"], "--report masks.json: is the mask file"),
            (["out.onnx", "--report", "./out.onnx"], "--report ./out.onnx: is OUT as well"),
            (["p.json", "--target", "p.json"], "OUT p.json: is the profile"),
        ):
            result = run("in.onnx", "masks.json", *arguments)
            assert result.exit_code == 2
            assert saying in result.stderr
        assert Path("masks.json").read_bytes() == before
        assert not Path("out.onnx").exists()

    @pytest.mark.parametrize(
        ("out", "saying"),
        [
            ("none/out.onnx", "there is no directory"),
            ("sub", "is a directory, give the name of a file"),
            ("masks.json/out.onnx", "there is no directory"),
            ("/dev/null", "not a regular file"),
            ("/proc/out.onnx", "cannot be written"),
            ("o" * 300, "name too long"),
        ],
    )
    def test_unwritable(self, out: str, saying: str) -> None:
        Path("sub").mkdir()
        for arguments in ([out], ["out.onnx", "--report", out]):
            result = run("in.onnx", "masks.json", *arguments)
            assert result.exit_code == 2, result.output
            assert result.stderr.startswith(f"onnx-upscale: error: {out}: ")
            assert saying in result.stderr
            assert result.stderr.count("\n") == 1
            assert not Path("out.onnx").exists()

    def test_no_permission(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda *_: False)
        refused("in.onnx", "masks.json", "out.onnx", saying="out.onnx: no permission to write in")

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_full_disk(self, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, call, full)
        arguments = ["in.onnx", "masks.json", "out.onnx", "--report", "r.json"]
        refused(*arguments, saying="No space left on device")
        assert not Path("r.json").exists()

    def test_a_disk_that_is_really_full(self, here: Path) -> None:
        disk = here / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=4k,mode=777", "tmpfs", str(disk)]
        if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("mounting is not allowed here")
        try:
            (disk / "out.onnx").write_bytes(BEFORE)
            result = run("in.onnx", "masks.json", str(disk / "out.onnx"))
            assert result.exit_code == 2
            assert "No space left on device" in result.stderr
            assert [path.name for path in disk.iterdir()] == ["out.onnx"]
            assert (disk / "out.onnx").read_bytes() == BEFORE
        finally:
            subprocess.run(["umount", str(disk)], check=True)

    def test_out_is_replaced_last(self, monkeypatch: pytest.MonkeyPatch) -> None:
        replaced: list[str] = []
        monkeypatch.setattr(os, "replace", lambda _, target: replaced.append(target.name))
        assert run("in.onnx", "masks.json", "out.onnx", "--report", "r.json").exit_code == 0
        assert replaced == ["r.json", "out.onnx"]

    @pytest.mark.parametrize("where", [(main_job, "apply"), (os, "fsync")])
    def test_interrupted(self, where: tuple[Any, str], monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(*where, interrupt)
        refused("in.onnx", "masks.json", "out.onnx", saying="interrupted", status=1)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_ended_by_a_signal(self, number: signal.Signals) -> None:
        Path("out.onnx").write_bytes(BEFORE)
        with started_writing() as process:
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert errors == "onnx-upscale: error: interrupted\n"
        assert Path("out.onnx").read_bytes() == BEFORE
        # And no temporary file, which the fixture looks for.

    def test_a_second_signal_does_not_cut_the_cleaning_short(self) -> None:
        second = f"""
def unlink(path, missing_ok=False, remove=Path.unlink):
    os.kill(os.getpid(), {signal.SIGHUP:d})
    remove(path, missing_ok)
Path.unlink = unlink
"""
        with started_writing(second) as process:
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert errors == "onnx-upscale: error: interrupted\n"

    def test_what_ignores_a_signal_goes_on(self) -> None:
        with started_writing(ignoring=signal.SIGHUP) as process:  # As nohup does.
            process.send_signal(signal.SIGHUP)
            _, errors = process.communicate("go on\n", timeout=60)
        assert process.returncode == 0, errors
        onnx.load("out.onnx")

    def test_only_the_command_line_handles_signals(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[Any] = []

        def look(*_: Any) -> None:
            seen.append(signal.getsignal(signal.SIGTERM))
            raise MemoryError

        monkeypatch.setattr(main_job, "apply", look)
        before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            run("in.onnx", "masks.json", "out.onnx")
            with pytest.raises(MemoryError):
                onnx_upscale.optimize("in.onnx", "masks.json")
        finally:
            signal.signal(signal.SIGTERM, before)
        assert callable(seen[0])
        assert seen[1] is signal.SIG_DFL

    @pytest.mark.parametrize(
        ("error", "saying"), [(MemoryError, "out of memory"), (KeyError, "report")]
    )
    def test_anything_else(
        self, error: type[Exception], saying: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> None:
            raise error("oops")

        monkeypatch.setattr(main_job, "apply", fail)
        refused("in.onnx", "masks.json", "out.onnx", saying=saying, status=1)

    def test_different(self, monkeypatch: pytest.MonkeyPatch) -> None:
        emit = apply

        def broken(*arguments: Any) -> Any:
            emitted = emit(*arguments)
            weight = emitted.model.graph.initializer[0]
            weight.raw_data = b"\0\0\0\0" + weight.raw_data[4:]
            return dataclasses.replace(emitted)

        monkeypatch.setattr(main_job, "apply", broken)
        refused("in.onnx", "masks.json", "out.onnx", saying="verification failed", status=3)
        result = run("in.onnx", "masks.json", "new.onnx", "--report", "r.json")
        assert result.exit_code == 3
        assert not Path("new.onnx").exists()
        verified = json.loads(Path("r.json").read_text())["verify"]
        assert verified["ran"] and not verified["ok"]
        assert run("in.onnx", "masks.json", "new.onnx", "--no-verify").exit_code == 0
