"""Models and masks that the command line refuses, each in one line."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from build import Net
from command import SMALL, refused, run
from onnx_upscale import planning

IN, OUT = "'input'", "'output'"


@pytest.mark.usefixtures("here")
class TestBadModels:
    @pytest.mark.parametrize(
        ("content", "saying"),
        [
            (b"", "not an ONNX model"),
            (np.random.default_rng(0).bytes(5000), "not an ONNX model"),
            (b"\x08\x0a", "not an ONNX model"),  # an IR version and nothing else
            (b'{"irVersion": 8}', "not an ONNX model"),
        ],
    )
    def test_no_model(self, content: bytes, saying: str) -> None:
        Path("bad.onnx").write_bytes(content)
        refused("bad.onnx", "-", "out.onnx", saying=["bad.onnx", saying])
        Path("bad.json").write_bytes(content)
        refused("bad.json", "-", "out.onnx", saying=["bad.json", saying])

    def test_truncated(self) -> None:
        whole = Path("in.onnx").read_bytes()
        for end in range(1, len(whole), 97):
            Path("bad.onnx").write_bytes(whole[:end])
            result = run("bad.onnx", "masks.json", "out.onnx")
            assert result.exit_code == 2, end
            assert result.stderr.count("\n") == 1
        assert not Path("out.onnx").exists()

    def test_no_file(self) -> None:
        refused("none.onnx", "masks.json", "out.onnx", saying="none.onnx: no such file")
        refused("in.onnx/x.onnx", "masks.json", "out.onnx", saying="cannot be read")
        refused("n" * 300, "masks.json", "out.onnx", saying="name too long")
        refused("../" + "x/" * 3, "masks.json", "out.onnx", saying="no such file")

    def test_directory(self) -> None:
        refused(".", "masks.json", "out.onnx", saying="is a directory, not an ONNX file")

    def test_arguments_swapped(self) -> None:
        refused("masks.json", "in.onnx", "out.onnx", saying="masks.json: not an ONNX model")

    def test_external_weights(self) -> None:
        model = onnx.load("in.onnx")
        onnx.save(model, "big.onnx", save_as_external_data=True, location="w", size_threshold=0)
        assert run("big.onnx", "masks.json", "out.onnx").exit_code == 0
        weights = Path("w").read_bytes()
        Path("w").write_bytes(weights[:-4])
        refused("big.onnx", "masks.json", "out.onnx", saying=["big.onnx", "weight", "bytes"])
        Path("w").unlink()
        refused("big.onnx", "masks.json", "out.onnx", saying="external weights cannot be read")

    def test_broken_graph(self) -> None:
        model = onnx.load("in.onnx")
        model.graph.node[1].input[0] = "lost"
        onnx.save(model, "bad.onnx")
        refused("bad.onnx", "masks.json", "out.onnx", saying=["'active'", "'lost'"])

    def test_names_that_are_no_text(self) -> None:
        broken = Path("in.onnx").read_bytes().replace(b"active", b"\xff" * 6)
        Path("bad.onnx").write_bytes(broken)
        refused("bad.onnx", "-", "out.onnx", saying=["bad.onnx: is not valid ONNX", "utf-8"])

    def test_what_fails_on_an_invalid_model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(*_: Any) -> None:
            raise KeyError("axis")

        monkeypatch.setattr(planning, "analyze_graph", fails)
        model = onnx.load("in.onnx")
        assert run("in.onnx", "masks.json", "out.onnx").exit_code == 1
        model.graph.node.add(op_type="Concat", name="c", input=["x"], output=["c"])
        onnx.save(model, "bad.onnx")
        refused("bad.onnx", "-", "out.onnx", saying=["bad.onnx: is not valid ONNX", "'axis'"])

    @pytest.mark.parametrize(
        "command",
        [
            "in.onnx masks.json out.onnx",
            "in.onnx masks.json out.onnx --dry-run",
            "analyze in.onnx masks.json",
            "verify in.onnx masks.json good.onnx",
            "mask in.onnx out.json --criterion l1 --amount 0.5",
            "recover in.onnx masks.json out.onnx --data data.npy",
            "prune in.onnx out.onnx --data data.npy --macs 0.9",
        ],
    )
    def test_no_command_blames_itself_for_a_broken_model(self, command: str) -> None:
        Path("in.onnx").rename("good.onnx")
        np.save("data.npy", np.ones((4, 3, 6, 6), np.float32))
        short, idle = onnx.load("good.onnx"), onnx.load("good.onnx")
        (weight,) = [t for t in short.graph.initializer if t.name == "second.weight"]
        weight.ClearField("raw_data")
        weight.float_data.append(1.0)
        idle.graph.node.add(op_type="Relu", input=["second.0"])
        for broken in (short, idle):
            onnx.save(broken, "in.onnx")
            refused(*command.split(), saying="is not valid ONNX: ")

    def test_a_pipe(self) -> None:
        content = Path("in.onnx").read_bytes()
        for command in ("{} masks.json out.onnx", "bench {}"):
            end, start = os.pipe()
            os.write(start, content)
            os.close(start)
            path = f"/dev/fd/{end}"
            result = run(*command.format(path).split())
            os.close(end)
            assert result.exit_code == 2, result.output
            assert result.stderr == (
                f"onnx-upscale: error: {path}: can be read only once: write the model to a file "
                "first\n"
            )

    def test_a_model_that_onnxruntime_cannot_load(self) -> None:
        model = onnx.load("in.onnx")
        model.graph.node.add(
            op_type="Mystery", domain="example", name="m", input=["second.0"], output=["y"]
        )
        model.opset_import.add(domain="example", version=1)
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
        onnx.save(model, "custom.onnx")
        arguments = ["custom.onnx", "masks.json", "out.onnx"]
        refused(*arguments, saying=["onnxruntime cannot load it", "example", "--no-verify"])
        result = run(*arguments, "--no-verify")
        assert result.exit_code == 0, result.output
        assert [n.op_type for n in onnx.load("out.onnx").graph.node][-1] == "Mystery"


def masks_of(layer: Any, **more: Any) -> str:
    return json.dumps({"version": 1, "masks": {"second": layer}, **more})


@pytest.mark.usefixtures("here")
class TestBadMasks:
    @pytest.mark.parametrize(
        ("content", "saying"),
        [
            (masks_of({"input": [8]}), ["'second'", IN, "channel 8 is out of range", "0 to 7"]),
            (masks_of({"input": {"keep": [17]}}), ["'second'", IN, "channel 17 is out of"]),
            (masks_of({"output": [0, -1]}), ["'second'", OUT, "channel -1 is negative"]),
            (masks_of({"output": [2**70]}), ["'second'", OUT, "out of range"]),
            (masks_of({"input": {"mask": [1, 0, 1]}}), ["'second'", IN, "has 3", "8 channels"]),
            (masks_of({"input": {"mask": [0, 1, 2]}}), ["'second'", IN, "0 or 1", "found 2"]),
            (masks_of({"input": ["0"]}), ["'second'", IN, "whole numbers, found '0'"]),
            (masks_of({"input": [1.0]}), ["'second'", IN, "whole numbers, found 1.0"]),
            (masks_of({"input": [True]}), ["'second'", IN, "whole numbers, found True"]),
            (masks_of({"input": [None]}), ["'second'", IN, "whole numbers, found None"]),
            (masks_of({"input": "0"}), ["'second'", IN, "a list of whole numbers, found '0'"]),
            (masks_of({"input": 0}), ["'second'", IN, "a list of whole numbers, found 0"]),
            (masks_of({"input": {}}), ["'second'", IN, "exactly one of prune, keep, mask"]),
            (
                masks_of({"input": {"keep": [0], "prune": [1]}}),
                ["'second'", IN, "exactly one", "found keep, prune"],
            ),
            (masks_of({"input": {"drop": [0]}}), ["'second'", IN, "unknown field 'drop'"]),
            (masks_of({"inputs": [0]}), ["'second'", "unknown field 'inputs'", "input, output"]),
            (masks_of([0]), ["'second'", "expected an object with 'input' and/or 'output'"]),
            (masks_of({}, extra=1), ["masks.json", "unknown field 'extra'"]),
            ('{"version": 2, "masks": {}}', ["masks.json", "unknown version 2", "version 1"]),
            ('{"version": "1", "masks": {}}', ["masks.json", "unknown version '1'"]),
            ('{"version": true, "masks": {}}', ["masks.json", "unknown version True"]),
            ('{"masks": {}}', ["masks.json", "unknown version none"]),
            ('{"version": 1}', ["masks.json", "'masks'", "expected an object"]),
            ("[]", ["masks.json", "expected an object with 'version' and/or 'masks'"]),
            ('{"version": 1,\n "masks": {,}}', ["masks.json", "bad JSON at line 2, column 12"]),
            ("", ["masks.json", "bad JSON at line 1, column 1"]),
            ("[" * 200_000, ["masks.json", "bad JSON"]),
            ('{"version": ' + "1" * 5000 + "}", ["masks.json", "bad JSON"]),
            ('{"version": 1, "version": 1, "masks": {}}', ["masks.json", "duplicate"]),
            (
                '{"version": 1, "masks": {"a": {}, "second": {}, "a": {}}}',
                ["masks.json", "duplicate key 'a'"],
            ),
            (
                '{"version": 1, "masks": {"second": {"input": [], "input": []}}}',
                ["'second'", "duplicate key 'input'"],
            ),
            (
                '{"version": 1, "masks": {"second": {"input": {"keep": [], "keep": []}}}}',
                ["'second'", IN, "duplicate key 'keep'"],
            ),
        ],
    )  # fmt: skip
    def test_json(self, content: str, saying: list[str]) -> None:
        Path("masks.json").write_text(content)
        refused("in.onnx", "masks.json", "out.onnx", saying=saying)

    def test_not_text(self) -> None:
        Path("masks.json").write_bytes(b"\xff\xfe{}")
        refused("in.onnx", "masks.json", "out.onnx", saying=["masks.json", "not UTF-8 text"])

    def test_a_byte_order_mark_is_fine(self) -> None:
        Path("masks.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(SMALL).encode())
        assert run("in.onnx", "masks.json", "out.onnx").exit_code == 0

    def test_no_file(self) -> None:
        refused("in.onnx", "none.json", "out.onnx", saying="none.json: no such mask file (use '-'")
        refused("in.onnx", ".", "out.onnx", saying="is a directory, not a mask file")
        refused("in.onnx", "m" * 300, "out.onnx", saying="name too long")

    def test_unknown_layer(self) -> None:
        for key in ("secnd", "second.wieght"):
            Path("masks.json").write_text(json.dumps({"version": 1, "masks": {key: {"input": []}}}))
            arguments = ["in.onnx", "masks.json", "out.onnx"]
            refused(*arguments, saying=[f"mask '{key}'", "no such layer", "closest: second"])

    def test_no_such_side(self) -> None:
        for key in ("active", "active.0"):
            Path("masks.json").write_text(json.dumps({"version": 1, "masks": {key: {"input": []}}}))
            arguments = ["in.onnx", "masks.json", "out.onnx"]
            refused(*arguments, saying=[f"mask '{key}', side 'input'", "Relu", "no channels"])

    def test_matmul_with_a_vector_has_no_output_side(self) -> None:
        net = Net(17, x=[2, 4])
        onnx.save(net.model(net("MatMul", "x", net.random(4), name="second")), "in.onnx")
        Path("masks.json").write_text(masks_of({"output": [0]}))
        saying = ["'second'", "'output'", "no output channels"]
        refused("in.onnx", "masks.json", "out.onnx", saying=saying)

    def test_weight_that_is_not_constant(self) -> None:
        net = Net(17, x=[1, 3, 6, 6], w=[5, 3, 1, 1])
        onnx.save(net.model(net("Conv", "x", "w", name="second")), "in.onnx")
        Path("masks.json").write_text(masks_of({"input": [0]}))
        saying = ["'second'", "'input'", "not constant"]
        refused("in.onnx", "masks.json", "out.onnx", saying=saying)

    @pytest.mark.parametrize(
        ("arrays", "saying"),
        [
            ({"second": np.ones(4, bool)}, ["masks.npz", "'second'", "KEY.input or KEY.output"]),
            ({".input": np.ones(4, bool)}, ["masks.npz", "'.input'", "KEY.input or KEY.output"]),
            ({"second.inputs": np.ones(4, bool)}, ["masks.npz", "'second.inputs'"]),
            ({"second.input": np.ones(3, bool)}, ["'second'", IN, "3 entries", "8 channels"]),
            ({"second.input": np.ones(4, np.float32)}, ["'second'", "'input'", "float32"]),
            ({"second.input": np.ones((4, 1), bool)}, ["'second'", "'input'", "(4, 1)"]),
            ({"second.input": np.array([0, 1, 2, 1])}, ["'second'", "'input'", "0/1"]),
            ({"second.input": np.array([None])}, ["masks.npz", "not a readable .npz"]),
            ({"third.input": np.ones(4, bool)}, ["'third'", "no such layer"]),
        ],
    )  # fmt: skip
    def test_npz(self, arrays: dict[str, Any], saying: list[str]) -> None:
        np.savez("masks.npz", **arrays)
        refused("in.onnx", "masks.npz", "out.onnx", saying=saying)

    def test_broken_npz(self) -> None:
        arrays: Any = {"second.input": np.ones(4, bool)}
        np.savez_compressed("good.npz", **arrays)
        good = Path("good.npz").read_bytes()
        flipped = bytearray(good)
        flipped[70:90] = bytes(20)
        array = io.BytesIO()
        np.save(array, np.ones(4, bool))
        for bad in (b"", b"PK", good[:-30], bytes(flipped), array.getvalue()):
            Path("masks.npz").write_bytes(bad)
            refused("in.onnx", "masks.npz", "out.onnx", saying="masks.npz: not a")

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_odd_archives(self) -> None:
        array = io.BytesIO()
        np.save(array, np.ones(4, bool))
        with zipfile.ZipFile("masks.npz", "w") as archive:
            archive.writestr("second.input.npy", array.getvalue())
            archive.writestr("second.input.npy", array.getvalue())
        refused("in.onnx", "masks.npz", "out.onnx", saying="duplicate key 'second.input'")
        with zipfile.ZipFile("masks.npz", "w") as archive:
            archive.writestr("second.input", "hello")
        refused("in.onnx", "masks.npz", "out.onnx", saying=["'second'", "0/1 vector"])
