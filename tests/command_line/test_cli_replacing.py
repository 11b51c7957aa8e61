"""What becomes of the files that were there before, and of those of runs that were ended."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from build import Net
from command import refused, run
from external import data_of, result_of, save, wide
from onnx_upscale import atomic
from onnx_upscale.files import write_files
from onnx_upscale.storage import weight_files

SAMPLE = Path(__file__).parents[2] / "models" / "digits.onnx"


@pytest.mark.usefixtures("here")
class TestReplacing:
    """The old model with its old data, or the new one with its new."""

    def test_old_data_goes(self) -> None:
        save(wide())
        assert run("big.onnx", "-", "out.onnx", "--strategy", "gather").exit_code == 0
        (old,) = data_of("out.onnx")
        other = wide()
        save(other, "other.onnx", "w2")
        assert run("other.onnx", "-", "out.onnx.1.onnx").exit_code == 0
        net = Net(17, seed=1, x=["n", 8])
        net("MatMul", "x", net.random(8, 64), name="second")
        save(net.model("second.0"), "third.onnx", "w3")
        assert run("third.onnx", "-", "out.onnx").exit_code == 0
        (new,) = data_of("out.onnx")
        assert new != old
        assert len(data_of("out.onnx.1.onnx")) == 1
        assert result_of("out.onnx").shape == (3, 64)
        assert run("third.onnx", "-", "out.onnx").exit_code == 0  # The same name once more.
        assert data_of("out.onnx") == [new]
        assert run("third.onnx", "-", "out.onnx", "--external-data", "never").exit_code == 0
        assert data_of("out.onnx") == []

    def test_what_is_read_stays(self) -> None:
        save(wide())
        assert run("big.onnx", "-", "out.onnx").exit_code == 0
        Path("out.onnx").rename("in.onnx")  # Its data keeps its name.
        (data,) = data_of("out.onnx")
        for _ in range(2):
            done = run("in.onnx", "-", "out.onnx", "--external-data", "never")
            assert done.exit_code == 0, done.output
            assert data_of("out.onnx") == [data]
        np.testing.assert_array_equal(result_of("in.onnx"), result_of("out.onnx"))
        write_files({"out.onnx": b"another model"})
        assert data_of("out.onnx") == [data]  # Who reads it is not known here.
        before = Path("w").read_bytes()
        done = run("big.onnx", "-", "./w")
        assert done.exit_code == 2
        assert "./w: holds weights of the input model, which would be lost" in done.stderr
        assert Path("w").read_bytes() == before

    @pytest.mark.parametrize(
        "words",
        [
            ("big.onnx", "-", "out.onnx", "--report", "w"),
            ("big.onnx", "-", "out.onnx", "--html", "w"),
            ("analyze", "big.onnx", "--html", "w"),
            ("bench", "in.onnx", "big.onnx", "--runs", "1", "--report", "w"),
        ],
    )
    def test_reports_do_not_replace_weights(self, words: Sequence[str]) -> None:
        save(wide())
        before = Path("w").read_bytes()
        done = run(*words)
        assert done.exit_code == 2
        name = "model 2" if words[0] == "bench" else "the input model"
        assert f"w: holds weights of {name}, which would be lost" in done.stderr
        assert Path("w").read_bytes() == before
        assert not Path("out.onnx").exists()

    def test_a_link_to_itself_is_no_place(self) -> None:
        Path("loop.onnx").symlink_to("loop.onnx")
        result = run("in.onnx", "masks.json", "loop.onnx")
        assert result.exit_code == 2
        assert "loop.onnx: is a symbolic link that leads back to itself" in result.stderr
        assert Path("loop.onnx").is_symlink()

    def test_a_pipe_is_left_to_whoever_reads_the_model(self) -> None:
        end, start = os.pipe()
        os.write(start, b"a model")
        os.close(start)
        assert not weight_files(Path(f"/dev/fd/{end}"))
        assert os.read(end, 100) == b"a model"
        os.close(end)

    @pytest.mark.parametrize("step", ["data", "model"])
    def test_what_fails_leaves_the_old_set(
        self, step: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save(wide())
        assert run("big.onnx", "-", "out.onnx").exit_code == 0
        before = {path: path.read_bytes() for path in Path().glob("out.onnx*")}
        replace = os.replace

        def fails(source: Path, target: Path) -> None:
            if target.name.endswith(".data") == (step == "data"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            replace(source, target)

        net = Net(17, seed=1, x=["n", 8])
        net("MatMul", "x", net.random(8, 64), name="second")
        save(net.model("second.0"), "third.onnx", "w3")
        monkeypatch.setattr(os, "replace", fails)
        assert run("third.onnx", "-", "out.onnx").exit_code == 2
        assert run("big.onnx", "-", "out.onnx").exit_code == 2  # Data of the very same name.
        assert {path: path.read_bytes() for path in Path().glob("out.onnx*")} == before

    def test_an_interrupt_behind_the_last_step(self, monkeypatch: pytest.MonkeyPatch) -> None:
        save(wide())
        replace = os.replace

        def interrupted(source: Path, target: Path) -> None:
            replace(source, target)
            if target.name == "out.onnx":
                raise KeyboardInterrupt

        monkeypatch.setattr(os, "replace", interrupted)
        assert run("big.onnx", "-", "out.onnx").exit_code == 1
        assert len(data_of("out.onnx")) == 1
        assert result_of("out.onnx").shape == (3, 32)

    def test_interrupted_cleaning_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clean, calls = atomic.Waiting.clean, list[int]()

        def interrupted(self: atomic.Waiting) -> None:
            calls.append(1)
            if len(calls) == 1:
                raise KeyboardInterrupt
            clean(self)

        monkeypatch.setattr(atomic.Waiting, "clean", interrupted)
        monkeypatch.setattr(os, "fsync", lambda _: os.kill(os.getpid(), signal.SIGTERM))
        refused("in.onnx", "masks.json", "new.onnx", saying="interrupted", status=1)
        # And no temporary file, which the fixture looks for.


@pytest.mark.usefixtures("here")
class TestLeftovers:
    @pytest.mark.parametrize("out", ["out.onnx", f"{'o' * 250}.onnx", "[a]*?.onnx"])
    def test_those_of_a_killed_run_are_cleared(self, out: str) -> None:
        killed, alive, other = atomic.Waiting(out), atomic.Waiting(out), atomic.Waiting("b.onnx")
        short = len(out) < 200  # Long names leave no room for those of data.
        data = atomic.Waiting(f"{out}.{'1' * 16}.data" if short else out)
        for each in (killed, data, alive, other):
            each.write(b"half")
        orphan = atomic.data_path(Path(out), "0" * 16) if short else None
        if orphan is not None:
            orphan.write_bytes(b"half")
        for each in (killed, data, other):  # The system takes the locks of a process with it.
            assert each._file is not None
            each._file.close()
        assert run("in.onnx", "masks.json", out).exit_code == 0
        assert not killed.beside.exists()
        assert not data.beside.exists()
        assert alive.beside.exists()
        assert other.beside.exists()
        assert orphan is None or not orphan.exists()
        alive.clean()
        other.clean()

    def test_files_that_only_look_alike_stay(self) -> None:
        alike = [Path(name) for name in ("out.onnx.data", "out.onnx.x.data", "b.onnx.0.data")]
        alike += [Path(f"b.onnx.{'0' * 16}.data"), Path(f"out.onnx.{'g' * 16}.data")]
        for path in alike:
            path.write_bytes(b"mine")
        assert run("in.onnx", "masks.json", "out.onnx").exit_code == 0
        assert all(path.exists() for path in alike)

    def test_without_locks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(atomic, "fcntl", None)
        left = atomic.Waiting("out.onnx")
        left.write(b"half")
        assert run("in.onnx", "masks.json", "out.onnx").exit_code == 0
        assert left.beside.exists()  # Nobody knows whether its process still runs.
        left.clean()
