"""Weights that stay in their files, and models that run part by part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_upscale
from build import Net
from command import refused
from external import data_of, places, result_of, save, wide
from onnx_upscale import main_job, mapped, storage
from onnx_upscale.optimizer.apply import apply
from onnx_upscale.optimizer.load.model import read_files, read_model
from onnx_upscale.running import Session, parts

SAMPLE = Path(__file__).parents[2] / "models" / "digits.onnx"


@pytest.mark.usefixtures("here")
class TestMapped:
    """Weights that stay in their files, and models that run part by part."""

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mapped, "LEAST", 128)
        monkeypatch.setattr(parts, "MOST", 3000)

    def test_what_is_mapped(self) -> None:
        save(wide())
        whole, read = read_model("big.onnx"), read_files("big.onnx", mapped=True)
        slim = read.model
        assert read.sources == {Path("w")}
        for tensor, wanted in zip(slim.graph.initializer, whole.graph.initializer, strict=True):
            place = mapped.place_of(tensor)
            assert place is not None
            assert place.path == str(Path("w").absolute())
            assert not tensor.raw_data
            np.testing.assert_array_equal(mapped.array_of(tensor), numpy_helper.to_array(wanted))
            assert b"".join(mapped.blocks_of(tensor)) == wanted.raw_data
            assert mapped.size_of(tensor) == len(wanted.raw_data)
        again = mapped.embedded(slim).graph.initializer
        assert [t.raw_data for t in again] == [t.raw_data for t in whole.graph.initializer]
        assert not any(t.external_data or t.HasField("data_location") for t in again)

    def test_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mapped, "_BLOCK", 4)
        Path("w").write_bytes(b"0123456789")
        assert list(mapped.Place("w", 1, 9).blocks()) == [b"1234", b"5678", b"9"]
        with pytest.raises(OSError, match="shorter than it was"):
            list(mapped.Place("w", 1, 10).blocks())

    def test_types_that_numpy_lacks_are_read(self) -> None:
        net = Net(17, x=["n", 8])
        packed = helper.make_tensor("t", TensorProto.BFLOAT16, [8], bytes(range(16)), raw=True)
        net.initializers.append(packed)
        net("Add", "x", net("Cast", "t", to=1), name="last")
        save(net.model("last.0"))
        slim = read_files("big.onnx", mapped=True).model
        assert slim.graph.initializer[0].raw_data == bytes(range(16))

    @pytest.mark.parametrize("strategy", ["auto", "gather", "constrained"])
    @pytest.mark.parametrize("fraction", [0.3, 0.6])
    def test_it_gives_the_same_bytes(self, strategy: str, fraction: float) -> None:
        model = onnx.load(SAMPLE)
        rng = np.random.default_rng(0)
        masks: dict[str, Any] = {}
        for node in model.graph.node:
            if node.op_type == "Conv":
                weight = next(t for t in model.graph.initializer if t.name == node.input[1])
                gone = rng.permutation(weight.dims[0])[: int(fraction * weight.dims[0])]
                masks[node.name] = {"output": sorted(gone.tolist())}
        stated = {"version": 1, "masks": masks}
        plain = onnx_upscale.optimize(model, stated, strategy=strategy)
        save(model)
        result = onnx_upscale.optimize("big.onnx", stated, strategy=strategy)
        assert result.content == plain.content
        assert result.report["segments"] == plain.report["segments"]
        assert result.report["verify"]["ok"]
        result.save("two.onnx")
        onnx_upscale.verify("big.onnx", stated, "two.onnx", strategy=strategy)
        result.save("one.onnx", external_data="never")
        assert Path("one.onnx").read_bytes() == plain.content

    def test_a_wrong_result_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*arguments: Any) -> Any:
            emitted = emit(*arguments)
            (weight,) = (t for t in emitted.model.graph.initializer if t.name == "second.weight")
            weight.raw_data = b"\0\0\0\0" + weight.raw_data[4:]
            return emitted

        emit = apply
        monkeypatch.setattr(main_job, "apply", broken)
        save(wide())
        refused("big.onnx", "-", "out.onnx", saying="verification failed", status=3)

    def test_a_model_above_the_limit_stays_mapped(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(storage, "_MOST", 1000)
        net = Net(17, seed=1, x=["n", 8])
        net("MatMul", "x", net.random(8, 64), name="second")
        save(net.model("second.0"))
        result = onnx_upscale.optimize("big.onnx")
        assert mapped.is_mapped(result.model)
        result.save("out.onnx")
        assert places("out.onnx") == {"c0": data_of("out.onnx")[0].name}
        assert result_of("out.onnx").shape == (3, 64)


class TestParts:
    def test_they_hold_what_they_may(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mapped, "LEAST", 1)
        net = Net(17, x=["n", 8])
        tied, last = net.constant(net.random(8, 8), "tied"), "x"
        for _ in range(3):
            last = net("Add", net("MatMul", net("MatMul", last, tied), net.random(8, 8)), "x")
        model = net.model("n0.0", last)
        save(model, str(tmp_path / "big.onnx"))
        slim = read_files(tmp_path / "big.onnx", mapped=True).model
        assert parts.mapped_bytes(slim) == 4 * 256
        cut = parts.parts_of(slim, 512)
        assert cut is not None
        assert [[node.name for node in part.nodes] for part in cut] == [
            ["n0", "n1", "n2", "n3"],
            ["n4", "n5", "n6"],
            ["n7", "n8"],
        ]
        assert [part.gives for part in cut] == [("n0.0", "n3.0"), ("n6.0",), ("n8.0",)]
        x = np.random.default_rng(0).standard_normal((2, 8), np.float32)
        monkeypatch.setattr(parts, "MOST", 512)
        wanted, session = Session(model, optimized=False).run({"x": x}), Session(slim)
        found = session.run({"x": x})
        assert list(found) == list(wanted)
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4)
        assert list(session.run({"x": x}, [last])) == [last]
        assert session.output_types == Session(model).output_types
        assert session.task({"x": x})() is not None

    def test_an_output_that_no_node_makes(self) -> None:
        net = Net(17, x=["n", 8])
        net("MatMul", "x", net.random(8, 8), name="last")
        assert parts.parts_of(net.model("last.0", "c0"), 1) is None

    def test_what_has_to_pass_a_sequence_runs_as_a_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mapped, "LEAST", 1)
        net = Net(17, x=["n", 8])
        pair = net("SequenceConstruct", net("MatMul", "x", net.random(8, 8)), name="pair")
        first = net("SequenceAt", pair, np.int64(0), name="first")
        net("MatMul", first, net.random(8, 8), name="last")
        save(net.model("last.0"), str(tmp_path / "big.onnx"))
        slim = read_files(tmp_path / "big.onnx", mapped=True).model
        x = {"x": np.ones((1, 8), np.float32)}
        wanted = Session(slim).run(x)["last.0"]
        monkeypatch.setattr(parts, "MOST", 256)
        np.testing.assert_array_equal(Session(slim).run(x)["last.0"], wanted)
        assert Session(slim).output_types == {"last.0": np.float32}
