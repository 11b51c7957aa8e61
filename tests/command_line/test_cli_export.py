"""`onnx-upscale export`: what it prints where, what it leaves behind, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

import onnx_upscale
from onnx_upscale.cli import main

pytest.importorskip("torch")

BEFORE = b"what was there before"
NETS = """
import torch
from torch import nn
from torch.nn.utils import prune

print("chatter of the module")

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 5, 1)

    def forward(self, image):
        return self.second(self.first(image).relu())

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 6)
        self.last = nn.Linear(6, 3)

    def forward(self, ids, shift):
        return self.last(self.table(ids) + shift)

def pruned():
    print("chatter of the factory")
    net = Small()
    prune.ln_structured(net.second, "weight", 0.5, n=2, dim=1)
    return net

def with_tuple():
    return pruned(), (torch.rand(2, 3, 8, 8),)

def with_dictionary():
    return pruned(), {"image": torch.rand(2, 3, 8, 8)}

def fails():
    raise RuntimeError("no weights here\\nand more")

def leaves():
    raise SystemExit(5)

def number():
    return 3

def argument(name):
    return Small()

class Decomposing(nn.Module):
    def forward(self, x):
        return torch.linalg.svd(x)[1]

class Noisy(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)

net, three = Small(), 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with nets.py, in which no temporary file may be left."""
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(NETS)
    Path("broken.py").write_text("import a_module_that_is_not_there\n")
    Path("wrong.py").write_text("def\n")
    path = list(sys.path)
    yield tmp_path
    for name in ("nets", "broken", "wrong"):
        sys.modules.pop(name, None)
    assert sys.path == path
    assert not list(tmp_path.rglob("*.tmp"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["export", *arguments])


def refused(*arguments: str, saying: str | list[str], status: int = 2) -> None:
    """Runs what must fail in one clear line and leave OUT and the masks as they are."""
    for before in (None, BEFORE):
        for name in ("out.onnx", "out.masks.json"):
            Path(name).unlink(missing_ok=True)
            if before is not None:
                Path(name).write_bytes(before)
        result = run(*arguments)
        assert result.exit_code == status, result.output
        assert result.stdout == ""
        *chatter, line = result.stderr.splitlines()
        assert all("chatter of" in each for each in chatter), result.stderr
        assert line.startswith("onnx-upscale: error: ")
        for part in [saying] if isinstance(saying, str) else saying:
            assert part in line
        for name in ("out.onnx", "out.masks.json"):
            assert (Path(name).read_bytes() if Path(name).exists() else None) == before


@pytest.mark.usefixtures("here")
class TestExport:
    def test_a_module_and_its_masks(self) -> None:
        result = run("nets:pruned", "out.onnx", "--input", "1x3x8x8")
        assert result.exit_code == 0, result.output
        assert "out.onnx: 3 nodes, symbolic batch 'batch', dynamo exporter" in result.stdout
        assert "1 layers, 4 input and 0 output channels pruned" in result.stdout
        assert "equal to the torch model on 3 inputs" in result.stdout
        assert result.stderr == "chatter of the module\nchatter of the factory\n"
        onnx.checker.check_model("out.onnx", full_check=True)
        masks = json.loads(Path("out.masks.json").read_text())["masks"]
        assert len(masks["second.weight"]["input"]) == 4
        done = CliRunner().invoke(main, ["out.onnx", "out.masks.json", "small.onnx"])
        assert done.exit_code == 0, done.output

    @pytest.mark.usefixtures("fast")
    @pytest.mark.parametrize("factory", ["nets.py:with_tuple", "nets:with_dictionary"])
    def test_arguments_of_the_factory(self, factory: str) -> None:
        result = run(factory, "out.onnx", "-q", "--fixed-batch")
        assert result.exit_code == 0, result.output
        assert result.stdout == ""
        assert [d.dim_value for d in image_dims("out.onnx")] == [2, 3, 8, 8]

    @pytest.mark.usefixtures("fast")
    def test_given_arguments_come_first(self) -> None:
        arguments = ["nets:with_tuple", "out.onnx", "--input", "4x3x9x9", "--fixed-batch"]
        assert run(*arguments).exit_code == 0
        assert [d.dim_value for d in image_dims("out.onnx")] == [4, 3, 9, 9]

    @pytest.mark.usefixtures("fast")
    @pytest.mark.parametrize("factory", ["nets:Small", "nets:net"])
    def test_a_class_or_a_module(self, factory: str) -> None:
        assert run(factory, "out.onnx", "--input", "1x3x8x8").exit_code == 0

    @pytest.mark.usefixtures("fast")
    def test_types_and_names_of_arguments(self) -> None:
        inputs = ["--input", "1x4:int64", "--input", "shift=1x4x6"]
        result = run("nets:Words", "out.onnx", *inputs, "--batch", "many")
        assert result.exit_code == 0, result.output
        ids, shift = onnx.load("out.onnx").graph.input
        assert (ids.name, ids.type.tensor_type.elem_type) == ("ids", onnx.TensorProto.INT64)
        assert shift.name == "shift"
        assert image_dims("out.onnx")[0].dim_param == "many"

    @pytest.mark.usefixtures("fast")
    def test_where_the_masks_go(self) -> None:
        arguments = ["nets:with_tuple", "out.onnx", "--masks", "m.npz"]
        assert run(*arguments).exit_code == 0
        assert not Path("out.masks.json").exists()
        with np.load("m.npz") as masks:
            assert list(masks) == ["second.weight.input"]
            assert int(masks["second.weight.input"].sum()) == 4

    @pytest.mark.usefixtures("fast")
    def test_without_verification(self) -> None:
        result = run("nets:Noisy", "out.onnx", "--input", "1x3", "--no-verify")
        assert result.exit_code == 0, result.output
        assert "not compared with the torch model" in result.stdout

    def test_the_older_exporter_is_said_in_one_line(self) -> None:
        result = run("nets:with_tuple", "out.onnx", "--opset", "13")
        assert result.exit_code == 0, result.output
        (warning,) = [line for line in result.stderr.splitlines() if "chatter" not in line]
        assert warning.startswith("onnx-upscale: warning: exported by the torchscript exporter")
        assert "opset 13" in result.stdout or onnx.load("out.onnx").opset_import[0].version == 13

    @pytest.mark.slow
    def test_as_a_process(self) -> None:
        command = [sys.executable, "-m", "onnx_upscale", "export", "nets:with_tuple", "out.onnx"]
        env = os.environ | {"PYTHONPATH": str(Path(onnx_upscale.__file__).parents[1])}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)
        assert done.returncode == 0, done.stderr
        assert done.stderr == "chatter of the module\nchatter of the factory\n"
        assert "equal to the torch model" in done.stdout


def image_dims(path: str) -> list[onnx.TensorShapeProto.Dimension]:
    return list(onnx.load(path).graph.input[0].type.tensor_type.shape.dim)


@pytest.mark.usefixtures("here", "fast")
class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "saying"),
        [
            ("nets out.onnx", "not of the form MODULE:FACTORY"),
            (":net out.onnx", "not of the form MODULE:FACTORY"),
            ("nest:net out.onnx", "there is no module 'nest'"),
            ("none.py:net out.onnx", "none.py: no such file"),
            ("broken:net out.onnx", ["module 'broken' cannot be imported", "a_module_that_is"]),
            ("broken.py:net out.onnx", ["'broken.py' cannot be imported", "a_module_that_is"]),
            ("wrong:net out.onnx", ["module 'wrong' cannot be imported", "SyntaxError"]),
            ("nets:prund out.onnx", "module 'nets' has no 'prund'; closest: pruned"),
            ("nets:Small.no out.onnx", "module 'nets' has no 'Small.no'"),
            ("nets:three out.onnx", "nets:three: is no function, but of type int"),
            ("nets:fails out.onnx", "nets:fails() failed: RuntimeError: no weights here and more"),
            ("nets:leaves out.onnx", "nets:leaves() failed: SystemExit: 5"),
            ("nets:argument out.onnx", ["nets:argument() failed: TypeError", "'name'"]),
            ("nets:number out.onnx", "nets:number() returned int: expected a torch.nn.Module, or"),
            ("nets:net out.onnx", "no example arguments: give --input 1x3x224x224"),
            ("nets:net out.onnx --input 1x4x8x8", "fails on the example arguments (image: 1x4x8x8"),
            ("nets:net out.onnx --input 1x3x8x8:int64", ["image: 1x3x8x8 int64", "RuntimeError"]),
            ("nets:net out.onnx --input img=1x3x8x8", "does not take these arguments"),
            ("nets:net out.onnx --input 1x3x8x8 --input 1", "too many positional arguments"),
            ("nets:net out.onnx --input 1xx8", "not of the form [NAME=]1x3x224x224[:TYPE]"),
            ("nets:net out.onnx --input 1x3:float99", "unknown type (known: float32"),
            ("nets:net out.onnx --input 0x3", "an example of size 0 shows nothing"),
            ("nets:net out.onnx --input x=1 --input x=1", "'x' is given twice"),
            ("nets:net out.onnx --input 1x3x8x8 --batch 2x", "batch '2x'"),
            ("nets:net out.onnx --input 1x3x8x8 --opset 99", "the model cannot be exported"),
            ("nets:net out.onnx --opset 1", "--opset"),
            ("nets:with_tuple out.onnx --masks out.txt", "out.txt: masks are written as .json or"),
            ("nets:with_tuple out.onnx --masks out.onnx", "is OUT as well"),
            ("nets:with_tuple no/out.onnx", "there is no directory"),
            ("nets:Decomposing out.onnx --input 1x3x4", ["the model cannot be exported", "svd"]),
            ("nets:net", "Missing argument 'OUT.onnx'"),
        ],
    )
    def test_one_line(self, arguments: str, saying: str | list[str]) -> None:
        refused(*arguments.split(), saying=saying)

    @pytest.mark.parametrize("spec", ["nets.py:with_tuple", "nets:with_tuple"])
    def test_the_module_is_not_overwritten(self, spec: str) -> None:
        result = run(spec, "nets.py")
        assert result.exit_code == 2
        assert "nets.py: is the module, which would be lost" in result.stderr
        assert Path("nets.py").read_text() == NETS

    def test_a_difference(self) -> None:
        refused(
            "nets:Noisy", "out.onnx", "--input", "1x3",
            saying="the exported model differs from the torch model: output", status=3,
        )  # fmt: skip
