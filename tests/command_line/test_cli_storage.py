"""How models lie on disk: in one file, or with their weights beside it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_upscale
from build import Net
from command import refused, run
from external import data_of, places, result_of, save, values, wide
from onnx_upscale import mapped, storage
from onnx_upscale.running import Session, parts

SAMPLE = Path(__file__).parents[2] / "models" / "digits.onnx"


@pytest.fixture(params=["read", "mapped"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Weights are read, or stay in their files while models run part by part."""
    if request.param == "mapped":
        monkeypatch.setattr(mapped, "LEAST", 128)
        monkeypatch.setattr(parts, "MOST", 2000)
    return str(request.param)


@pytest.mark.usefixtures("here", "either_way")
class TestLayout:
    def test_external_in_external_out(self) -> None:
        onnx.save(wide(), "small.onnx")
        save(wide())
        assert run("small.onnx", "-", "one.onnx").exit_code == 0
        assert data_of("one.onnx") == []
        done = run("big.onnx", "-", "two.onnx", "--report", "r.json")
        assert done.exit_code == 0, done.output
        (data,) = data_of("two.onnx")
        assert places("two.onnx") == {"second.weight": data.name}
        one, two = values("one.onnx"), values("two.onnx")
        assert one["second.weight"].shape == (32, 32)
        for name, value in one.items():
            np.testing.assert_array_equal(value, two[name])
        np.testing.assert_array_equal(result_of("one.onnx"), result_of("two.onnx"))
        onnx.checker.check_model("two.onnx", full_check=True)
        output = json.loads(Path("r.json").read_text())["output"]
        content = Path("two.onnx").read_bytes()
        assert output["sha256"] == hashlib.sha256(content).hexdigest()
        assert output["bytes"] == len(content) + data.stat().st_size
        before = json.loads(Path("r.json").read_text())["input"]
        assert before["bytes"] == Path("big.onnx").stat().st_size + Path("w").stat().st_size

    def test_embedded_out(self) -> None:
        save(wide())
        assert run("big.onnx", "-", "out.onnx", "--external-data", "never").exit_code == 0
        Path("w").unlink()
        assert data_of("out.onnx") == []
        assert places("out.onnx") == {}
        assert result_of("out.onnx").shape == (3, 32)

    def test_embedded_in_external_out(self) -> None:
        onnx.save(wide(), "small.onnx")
        assert run("small.onnx", "-", "out.onnx", "--external-data=always").exit_code == 0
        (data,) = data_of("out.onnx")
        assert set(places("out.onnx").values()) == {data.name}
        assert Path("out.onnx").stat().st_size < Path("small.onnx").stat().st_size / 4
        assert run("small.onnx", "-", "one.onnx").exit_code == 0
        np.testing.assert_array_equal(result_of("out.onnx"), result_of("one.onnx"))

    def test_the_same_call_gives_the_same_bytes(self) -> None:
        save(wide())
        Path("a").mkdir()
        Path("b").mkdir()
        for folder in "ab":
            assert run("big.onnx", "-", f"{folder}/out.onnx").exit_code == 0
        (one,), (other,) = data_of("a/out.onnx"), data_of("b/out.onnx")
        assert (one.name, one.read_bytes()) == (other.name, other.read_bytes())
        assert Path("a/out.onnx").read_bytes() == Path("b/out.onnx").read_bytes()

    def test_too_large_for_one_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(storage, "_MOST", 4000)
        onnx.save(wide(), "small.onnx")
        assert run("small.onnx", "-", "out.onnx").exit_code == 0
        assert len(data_of("out.onnx")) == 1
        Path("out.onnx").unlink()
        data_of("out.onnx")[0].unlink()
        arguments = ["small.onnx", "-", "out.onnx", "--external-data", "never"]
        refused(*arguments, saying=["out.onnx: would be larger", "--external-data"])

    def test_weights_that_are_listed_as_inputs(self) -> None:
        model = wide()
        model.ir_version = 3
        model.graph.input.extend(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in model.graph.initializer
        )
        save(model)
        assert run("big.onnx", "-", "out.onnx").exit_code == 0
        listed = {value.name for value in onnx.load("out.onnx").graph.input}
        assert {"x", "b", "second.weight"} < listed
        assert len(data_of("out.onnx")) == 1
        assert result_of("out.onnx").shape == (3, 32)

    def test_tied_weights(self) -> None:
        net = Net(17, x=["n", 32])
        weight = net.random(32, 32)
        weight[::2] = weight[:, ::2] = 0
        tied = net.constant(weight, "tied")
        net("MatMul", net("Relu", net("MatMul", "x", tied)), tied, name="last")
        save(net.model("last.0"))
        assert run("big.onnx", "-", "out.onnx").exit_code == 0
        assert len(data_of("out.onnx")) == 1
        x = np.random.default_rng(0).standard_normal((3, 32), np.float32)
        before, after = (Session(path).run({"x": x}) for path in ("big.onnx", "out.onnx"))
        np.testing.assert_allclose(after["last.0"], before["last.0"], rtol=1e-4, atol=1e-4)

    def test_tensors_of_subgraphs(self) -> None:
        net = Net(17, x=["n", 8])
        weight = numpy_helper.from_array(net.random(8, 300), "inner")

        def branch(op: str) -> onnx.GraphProto:
            nodes = [
                helper.make_node("MatMul", ["x", "inner"], [f"{op}.m"]),
                helper.make_node(op, [f"{op}.m"], [f"{op}.y"]),
            ]
            made = helper.make_tensor_value_info(f"{op}.y", TensorProto.FLOAT, None)
            return helper.make_graph(nodes, op, [], [made], [weight])

        yes = net.constant(np.array(True), "yes")
        net("If", yes, then_branch=branch("Relu"), else_branch=branch("Neg"), name="if")
        save(net.model("if.0"))
        slim = onnx.load("big.onnx", load_external_data=False)
        assert slim.graph.node[0].attribute[0].g.initializer[0].external_data
        assert run("big.onnx", "-", "out.onnx").exit_code == 0
        x = np.ones((2, 8), np.float32)
        before, after = (Session(path).run({"x": x}) for path in ("big.onnx", "out.onnx"))
        np.testing.assert_array_equal(before["if.0"], after["if.0"])

    def test_python(self) -> None:
        save(wide())
        result = onnx_upscale.optimize("big.onnx")
        assert all(t.data_location == TensorProto.DEFAULT for t in result.model.graph.initializer)
        result.save("two.onnx")
        assert len(data_of("two.onnx")) == 1
        result.save("one.onnx", external_data="never")
        assert data_of("one.onnx") == []
        assert Path("one.onnx").read_bytes() == result.content
        np.testing.assert_array_equal(result_of("one.onnx"), result_of("two.onnx"))
        with pytest.raises(onnx_upscale.UsageError, match="`external_data` 'some'"):
            result.save("one.onnx", external_data="some")


@pytest.mark.usefixtures("here", "either_way")
class TestBrokenData:
    def test_truncated(self) -> None:
        save(wide())
        for size in (0, 100, Path("w").stat().st_size - 1):
            os.truncate("w", size)
            refused("big.onnx", "-", "out.onnx", saying="big.onnx: ")

    @pytest.mark.parametrize("location", ["/etc/passwd", "../w", "none", ""])
    def test_elsewhere(self, location: str) -> None:
        save(wide())
        model = onnx.load("big.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                entry.value = location if entry.key == "location" else entry.value
        Path("bad.onnx").write_bytes(model.SerializeToString())
        refused("bad.onnx", "-", "out.onnx", saying="bad.onnx: its external weights cannot be read")

    def test_absolute_locations_in_a_file_are_no_mapped_weights(self) -> None:
        save(wide())
        model = onnx.load("big.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                entry.value = str(Path("w").absolute()) if entry.key == "location" else entry.value
        Path("bad.onnx").write_bytes(model.SerializeToString())
        refused("bad.onnx", "-", "out.onnx", saying="bad.onnx: its external weights cannot be read")
        with pytest.raises(onnx_upscale.ModelError, match=r"not loaded; give its path"):
            onnx_upscale.optimize(model)
