"""`onnx-upscale doctor`: what is installed, what is ill, and what would mend it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

import onnx_upscale
from command import refused, run
from onnx_upscale.doctor import without_paths
from onnx_upscale.prices import AnalyticPrices, load_prices
from onnx_upscale.prices.files import table_json
from onnx_upscale.prices.machine import cpu_kind
from onnx_upscale.prices.table import TablePrices


def found(*arguments: str, status: int = 0) -> dict[str, Any]:
    result = run("doctor", *arguments, "--json")
    assert result.exit_code == status, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def test_it_says_what_is_installed() -> None:
    report = found()
    assert report["package"] == onnx_upscale.__version__
    assert report["python"].endswith(".".join(map(str, sys.version_info[:3])))
    assert report["packages"]["onnx"] == onnx.__version__
    assert report["providers"] == onnxruntime.get_available_providers()
    assert report["target"] == cpu_kind()
    assert 1 <= report["cores"]["usable"] <= report["cores"]["there"]
    assert report["optional"]["pillow"] == importlib.metadata.version("pillow")
    assert (report["works"], report["problems"], report["profile"]) == (True, [], None)


def test_it_names_no_folder() -> None:
    result = run("doctor")
    assert result.exit_code == 0
    assert "main job      works" in result.stdout
    assert os.sep not in result.stdout
    assert str(Path.home()) not in result.stdout


def test_an_optional_part_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert found()["optional"]["pillow"] is None
    assert "pillow        not installed" in run("doctor").stdout


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    report = found(status=1)
    assert report["packages"]["onnxruntime"] is None
    assert report["problems"] == ["onnxruntime is not installed: pip install onnxruntime"]
    result = run("doctor", "-q")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "onnx-upscale: error: the main job does not work here: onnxruntime is not installed: "
        "pip install onnxruntime\n"
    )


def test_packages_that_are_broken(tmp_path: Path) -> None:
    """In a process of its own, in which nothing was imported before."""
    for name in ("numpy", "onnxruntime"):
        (tmp_path / name).mkdir()
        said = f"{Path.home()}/somewhere/lib{name}.so: cannot open shared object file"
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError({said!r})")
    before = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join([str(tmp_path), str(Path(onnx_upscale.__file__).parents[1]), before])
    done = subprocess.run(
        [sys.executable, "-m", "onnx_upscale", "doctor"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "onnxruntime   missing" in done.stdout
    for name in ("numpy", "onnxruntime"):
        assert (
            f"{name} cannot be imported, ImportError: lib{name}.so: cannot open shared object "
            f"file: pip uninstall {name}, then pip install {name}"
        ) in done.stdout
    assert "somewhere" not in done.stdout + done.stderr
    assert done.stderr.count("\n") == 1


def test_a_main_job_that_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(f"{Path.cwd()}/cache: no space left")

    monkeypatch.setattr(onnx_upscale, "optimize", fail)
    (problem,) = found(status=1)["problems"]
    assert "did not come through the main job, OSError: cache: no space left: pip" in problem


def test_a_package_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["numpy>=99.1", "x>=1; extra"])
    report = found()
    version = importlib.metadata.version("numpy")
    assert report["problems"] == [f"numpy {version} is older than 99.1: pip install 'numpy>=99.1'"]


@pytest.mark.usefixtures("here")
class TestProfiles:
    @pytest.fixture(autouse=True)
    def profile(self, here: Path) -> None:
        self.machine = {
            "provider": "cpu",
            "kind": cpu_kind(),
            "system": found()["system"],
            "onnxruntime": onnxruntime.__version__,
        }

    def looked_at(self, **machine: Any) -> dict[str, Any]:
        fallback = load_prices("cuda")
        assert isinstance(fallback, AnalyticPrices)
        written = {**self.machine, **machine}
        document = table_json(TablePrices("mine", fallback, {}), written, {})
        Path("p.json").write_text(json.dumps(document))
        looked: dict[str, Any] = found("p.json")["profile"]
        return looked

    def test_of_this_machine(self) -> None:
        assert self.looked_at() == {"name": "mine", "fits": True, "doubts": []}
        assert "mine: of this machine\n" in run("doctor", "p.json").stdout

    def test_of_another(self) -> None:
        looked = self.looked_at(kind="cpu-z80")
        assert looked["fits"] is False
        assert looked["doubts"] == [f"it was measured on cpu-z80, this is {cpu_kind()}"]
        assert "mine: of another machine; it was" in run("doctor", "p.json").stdout

    def test_of_a_gpu(self) -> None:
        looked = self.looked_at(kind="cuda", provider="cuda")
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            assert looked["fits"] is False

    def test_with_another_onnxruntime(self) -> None:
        looked = self.looked_at(onnxruntime="0.1")
        assert looked["fits"] is True
        assert "measured with onnxruntime 0.1" in looked["doubts"][0]

    def test_that_was_not_measured(self) -> None:
        built_in = Path(onnx_upscale.__file__).parent / "prices/profiles/cuda.json"
        assert found(str(built_in))["profile"]["fits"] is None

    def test_that_is_none(self) -> None:
        refused("doctor", "none.json", saying="target 'none.json': no such profile")
        Path("p.json").write_text("{")
        refused("doctor", "p.json", saying="bad JSON")


@given(
    st.lists(st.from_regex(r"[a-z_][a-z0-9_.-]{0,8}", fullmatch=True), min_size=1, max_size=5),
    st.sampled_from(["{}", "'{}'", "x: {}: y", "({})", "a={}", '"{}", line 3']),
)
def test_paths_lose_their_folders(parts: list[str], form: str) -> None:
    for path in ("/" + "/".join(parts), "C:\\" + "\\".join(parts)):
        assert without_paths(form.format(path)) == form.format(parts[-1])


def test_what_is_no_path_stays() -> None:
    text = "expected and/or 1/2 of N/A: 'a.b' (c)"
    assert without_paths(text) == text
    assert without_paths("no such file: '/home/me/My Models/x.onnx', 'y'") == (
        "no such file: 'x.onnx', 'y'"
    )
