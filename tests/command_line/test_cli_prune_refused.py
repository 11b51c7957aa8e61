"""onnx-upscale prune: bad input ends in one clear line, and nothing is written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from build import Net
from command import BEFORE, refused, run
from onnx_upscale.choices import STRENGTH

FUNCTIONS = """
import os
def one(path): return 1.0
def raises(path): raise ValueError("no labels")
def nothing(path): return None
def infinite(path): return float("inf")
def falls(path): return os.path.getsize(path)
def samples():
    import numpy
    yield {"y": numpy.zeros((1, 64), numpy.float32)}
def broken():
    yield {}["x"]
"""


def sample(mixed: bool = False) -> onnx.ModelProto:
    net = Net(17, x=["n", 64])
    hidden = net("Relu", net("MatMul", "x", net.constant(net.random(64, 512), "w")))
    if mixed:
        hidden = net("Softmax", hidden)
    return net.model(net("MatMul", hidden, net.random(512, 64)))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    data = rng.standard_normal((40, 64)).astype(np.float32)
    onnx.save(sample(), "in.onnx")
    broken = sample()
    for tensor in broken.graph.initializer:
        if tensor.name == "w":
            values = numpy_helper.to_array(tensor).copy()
            values[3, 5] = np.nan
            tensor.CopyFrom(numpy_helper.from_array(values, "w"))
    onnx.save(broken, "nan.onnx")
    onnx.save(sample(mixed=True), "mixed.onnx")
    np.save("data.npy", data)
    np.save("wide.npy", data[:, :60])
    np.save("whole.npy", data.astype(np.int64))
    np.save("none.npy", data[:0])
    np.save("one.npy", data[:1])
    np.save("nan.npy", np.where(data > 2, np.float32("nan"), data))
    np.savez("names.npz", a=data, b=data)
    Path("text.npy").write_text("no numbers")
    Path("images").mkdir()
    Path("mine.py").write_text(FUNCTIONS)


GOAL = ["--macs", "0.6"]


@pytest.mark.parametrize(
    ("arguments", "saying"),
    [
        # Samples.
        (["--data", "wide.npy", *GOAL], "input 'x': expected shape Nx64, found 40x60"),
        (["--data", "whole.npy", *GOAL], "input 'x': expected float32, found int64"),
        (["--data", "names.npz", *GOAL], "expected one array per input (x), found a, b"),
        (["--data", "mine.py:samples", *GOAL], "expected one array per input (x), found y"),
        (["--data", "mine.py:broken", *GOAL], "failed: KeyError: 'x'"),
        (["--data", "mine.py:absent", *GOAL], "has no 'absent'"),
        (["--data", "none.npy", *GOAL], "there are no samples in it"),
        (["--data", "one.npy", *GOAL], "one sample is not enough: give at least 2"),
        (["--data", "nan.npy", *GOAL], "input 'x' holds infinities or NaNs"),
        (["--data", "text.npy", *GOAL], "not a readable .npy file"),
        (["--data", "lost.npz", *GOAL], "lost.npz: no such file"),
        (["--data", "images", *GOAL], "images: there are no images in it"),
        (GOAL, "give inputs of the model with --data"),
        # Layers.
        (
            ["--data", "data.npy", *GOAL, "--layers", "v"],
            "--layers v: matches no layer; closest: w",
        ),
        (["--data", "data.npy", *GOAL, "--layers", "w"], "no channel is left to prune: each is"),
        # Goals.
        (["--data", "data.npy"], "give exactly one goal of --latency, --macs"),
        (["--data", "data.npy", *GOAL, "--params", "0.5"], "found --macs, --params"),
        (["--data", "data.npy", "--macs", "half"], "--macs half: is no number"),
        (["--data", "data.npy", "--macs", "1.5"], "--macs 1.5: must be a share between 0 and 1"),
        (["--data", "data.npy", "--latency", "0"], "--latency 0: must be a share"),
        (["--data", "data.npy", "--latency", "0.5,5ms"], "give shares or times, not both"),
        (["--data", "data.npy", "--latency", "9s"], "--latency 9000ms: the model takes"),
        (["--data", "data.npy", "--agreement", "-1"], "--agreement -1: must be a share"),
        (["--data", "data.npy", "--score", "nan"], "--score nan: must be a finite number"),
        # Goals out of reach say what can be reached.
        (["--data", "data.npy", "--macs", "0.0001"], "of the unpruned model is left; give that"),
        (["--data", "data.npy", "--latency", "0.0001"], "of the latency is left; give that"),
        (["--data", "data.npy", "--error", "0"], "--error 0: cannot be reached: the nearest"),
        # Evaluations.
        (["--data", "data.npy", "--score", "1"], "--score 1: needs --evaluate"),
        (["--data", "data.npy", *GOAL, "--evaluate", "mine.py:raises"], "ValueError: no labels"),
        (["--data", "data.npy", *GOAL, "--evaluate", "mine.py:nothing"], "of type NoneType"),
        (["--data", "data.npy", *GOAL, "--evaluate", "mine.py:infinite"], "number, found inf"),
        (["--data", "data.npy", *GOAL, "--evaluate", "mine.py:other"], "has no 'other'"),
        (["--data", "data.npy", *GOAL, "--evaluate", "mine"], "is not of the form MODULE:FUNCTION"),
        (
            ["--data", "data.npy", "--score", "2", "--evaluate", "mine.py:one"],
            "--score 2: cannot be reached: the original has 1; give that or less",
        ),
        # Results.
        (["--data", "data.npy", *GOAL, "--masks-out", "no/m.json"], "there is no directory"),
        (["--data", "data.npy", *GOAL, "--masks-out", "m.txt"], "written as .json or .npz"),
        (["--data", "data.npy", *GOAL, "--recovered-out", "images"], "is a directory"),
        (["--data", "data.npy", *GOAL, "--report", "no/r.json"], "there is no directory"),
        (["--data", "data.npy", *GOAL, "--report", "out.onnx"], "is OUT as well"),
        (["--data", "data.npy", *GOAL, "--report", "data.npy"], "is the samples"),
        (["--data", "data.npy", *GOAL, "--plot", "p.pdf"], "ends in .svg or .png"),
        (["--data", "data.npy", *GOAL, "--plot", "no/p.svg"], "there is no directory"),
        (
            ["--data", "data.npy", *GOAL, "--evaluate", "mine.py:one", "--report", "mine.py"],
            "is the evaluation",
        ),
        (
            ["--data", "data.npy", *GOAL, "--target", "prices.json", "--masks-out", "prices.json"],
            "is the profile",
        ),
        (["--data", "data.npy", "--latency", "0.9,0.8"], "is no folder, which several goals need"),
        (["--data", "data.npy", "--latency", "0.9,0.8", "--masks-out", "m"], "are for one goal"),
        # Anything else.
        (["--data", "data.npy", *GOAL, "--workers", "0"], "--workers"),
        (["--data", "data.npy", *GOAL, "--samples", "1"], "--samples"),
        (["--data", "data.npy", *GOAL, "--lambda", "nan"], "--lambda nan: must be 0 or more"),
        (["--data", "data.npy", *GOAL, "--target", "gpu"], "no such profile"),
    ],
)
def test_one_clear_line(arguments: list[str], saying: str) -> None:
    before = sorted(Path().iterdir())
    Path("out.onnx").write_bytes(BEFORE)
    result = run("prune", "in.onnx", "out.onnx", *arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("onnx-upscale: error: ")
    assert saying in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert Path("out.onnx").read_bytes() == BEFORE
    Path("out.onnx").unlink()
    assert [path for path in sorted(Path().iterdir()) if path.name != "__pycache__"] == before


@pytest.mark.parametrize(
    ("model", "saying"),
    [
        ("nan.onnx", "weight 'w' of layer"),
        ("mixed.onnx", "the model has no layer whose channels can leave"),
        ("lost.onnx", "lost.onnx: no such file"),
        ("data.npy", "not an ONNX model"),
    ],
)
def test_models(model: str, saying: str) -> None:
    refused("prune", model, "out.onnx", "--data", "data.npy", *GOAL, saying=saying)


def test_a_ray_address_that_does_not_answer() -> None:
    pytest.importorskip("ray")
    saying = "--ray 127.0.0.1:1: no cluster answers there: Connection refused"
    options = ["--data", "data.npy", *GOAL, "--ray", "127.0.0.1:1"]
    refused("prune", "in.onnx", "out.onnx", *options, saying=saying)


def test_what_cannot_be_written_is_said_before_the_work() -> None:
    """Even where OUT is a folder: what is in the way of a model in it."""
    Path("out/0.9.onnx").mkdir(parents=True)
    Path("mine.py").write_text("def one(path): open('worked', 'w').close(); return 1.0\n")
    options = ["--data", "data.npy", "--latency", "0.9,0.8", "--evaluate", "mine.py:one"]
    for out, saying in (("out", "out/0.9.onnx: is a directory"), ("no/out", "no directory")):
        result = run("prune", "in.onnx", out, *options)
        assert result.exit_code == 2
        assert saying in result.stderr
    assert not Path("worked").exists()


@pytest.mark.parametrize("strength", ["0", str(STRENGTH)])
@pytest.mark.parametrize("constant", ["zeros", "ones", "some"])
def test_constant_inputs_work(constant: str, strength: str) -> None:
    """Second moments are singular then: what is constant is what the biases take."""
    data = np.load("data.npy")
    data[:, slice(None) if constant != "some" else slice(20)] = constant != "zeros"
    np.save("data.npy", data)
    options = ["--data", "data.npy", *GOAL, "--lambda", strength, "-q"]
    result = run("prune", "in.onnx", "out.onnx", *options)
    assert result.exit_code == 0, result.output
    for tensor in onnx.load("out.onnx").graph.initializer:
        assert np.isfinite(numpy_helper.to_array(tensor)).all()


SLEEPS = """
import multiprocessing, time
def score(path):
    open("called", "a").write(f"{[p.pid for p in multiprocessing.active_children()]}\\n")
    if open("called").read().count("\\n") > 1:
        time.sleep(60)
    return 1.0
"""


# A shell has what it starts in the background ignore the signal.
COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from onnx_upscale.cli import main
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
@pytest.mark.parametrize("more", [[], ["--workers", "2"]])
def test_ctrl_c_leaves_nothing_half_written(more: list[str]) -> None:
    Path("mine.py").write_text(SLEEPS)
    Path("out.onnx").write_bytes(BEFORE)
    before = {path.name for path in Path().iterdir()}
    options = ["--data", "data.npy", *GOAL, "--evaluate", "mine.py:score", *more]
    options += ["--masks-out", "m.json", "--report", "r.json"]
    command = [sys.executable, "-c", COMMAND, "prune", "in.onnx", "out.onnx", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 120
        while not Path("called").exists() or Path("called").read_text().count("\n") < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # As a terminal does: all processes get it.
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert error == "onnx-upscale: error: interrupted\n"
    assert Path("out.onnx").read_bytes() == BEFORE
    assert {path.name for path in Path().iterdir()} - {"called", "__pycache__"} == before
    workers = eval(Path("called").read_text().splitlines()[1])
    assert len(workers) == (2 if more else 0)
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
