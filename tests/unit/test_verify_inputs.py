"""What models are compared on: inputs of every type and size, made up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import onnx_upscale
from build import Net
from compared import Shape, picky, sample, typed
from onnx_upscale import UsageError, VerifySetupError
from onnx_upscale.optimizer.verify import Tolerance, verify
from onnx_upscale.running import Draw, input_sizes, random_inputs

KINDS = [
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.DOUBLE,
    TensorProto.INT64,
    TensorProto.INT32,
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.BOOL,
    TensorProto.STRING,
]


class TestInputs:
    @pytest.mark.parametrize("kind", KINDS)
    def test_types(self, kind: int) -> None:
        model = typed(kind, [2, 30])
        values = random_inputs(model, {"x": (2, 30)}, 0)["x"]
        assert values.shape == (2, 30)
        assert values.dtype == helper.tensor_dtype_to_np_dtype(kind)
        if kind != TensorProto.STRING:
            assert len(np.unique(values)) > 1
            assert not np.array_equal(values, random_inputs(model, {"x": (2, 30)}, 1)["x"])
        assert np.array_equal(values, random_inputs(model, {"x": (2, 30)}, 0)["x"])
        assert verify(model, model).ok

    @pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT16])
    def test_types_that_differ(self, kind: int) -> None:
        model = typed(kind, [2, 30], "Cast", TensorProto.FLOAT)
        other = typed(kind, [2, 30], "Cast", TensorProto.FLOAT)
        other.graph.node[0].output[0] = "z"
        other.graph.node.add(op_type="Exp", input=["z"], output=["y"])
        assert not verify(model, other).ok

    def test_half_precision_may_round(self) -> None:
        half = Tolerance().allowed(np.dtype(np.float16), 1.0)
        assert 1e-3 < half < 1e-2
        assert Tolerance().allowed(np.dtype(np.float32), 1.0) == pytest.approx(1e-4, rel=0.1)
        assert Tolerance().allowed(np.dtype(np.int64), 1e6) == 0

    @pytest.mark.parametrize(
        ("shape", "chosen", "expected"),
        [
            ([2, 3], None, (2, 3)),
            ([], None, ()),
            (["n", 3, 8, 8], None, (1, 3, 8, 8)),
            (["n", 3, "h", "w"], None, (1, 3, 224, 224)),
            (["n", "t", 8], None, (1, 16, 8)),
            ([None, 3], None, (1, 3)),
            (["n", 3, "h", "w"], (2, 3, 5, 7), (2, 3, 5, 7)),
            (["n", 3, "s", "s"], (2, 3, 5, 5), (2, 3, 5, 5)),
            (None, (2, 3), (2, 3)),
            ([], (), ()),
        ],
    )
    def test_sizes(
        self, shape: Shape, chosen: tuple[int, ...] | None, expected: tuple[int, ...]
    ) -> None:
        model = typed(TensorProto.FLOAT, shape)
        sizes = None if chosen is None else {"x": chosen}
        assert input_sizes(model, sizes) == {"x": expected}
        assert verify(model, model, sizes=sizes).ok

    @pytest.mark.parametrize(
        ("shape", "chosen", "saying"),
        [
            ([2, 3], (2, 4), "`inputs` x=2x4: does not fit its shape 2x3"),
            ([2, 3], (2,), "`inputs` x=2: does not fit its shape 2x3"),
            (["n", "n"], (2, 3), "`inputs` x=2x3: does not fit its shape nxn"),
            ([None, 3], (2, 2), r"does not fit its shape \?x3"),
        ],
    )
    def test_sizes_that_do_not_fit(
        self, shape: Shape, chosen: tuple[int, ...], saying: str
    ) -> None:
        with pytest.raises(UsageError, match=saying):
            input_sizes(typed(TensorProto.FLOAT, shape), {"x": chosen})

    def test_unknown_input(self) -> None:
        with pytest.raises(UsageError, match=r"`inputs` y: the model has no such input .*: x"):
            input_sizes(typed(TensorProto.FLOAT, [1]), {"y": (1,)})

    def test_inputs_share_symbolic_sizes(self) -> None:
        net = Net(17, a=["n", 3], b=["n", "m"], c=["m", 2])
        net("MatMul", net("MatMul", net("Transpose", "a", perm=[1, 0]), "b"), "c", name="out")
        model = net.model("out.0")
        sizes = input_sizes(model, {"b": (4, 5)})
        assert sizes == {"a": (4, 3), "b": (4, 5), "c": (5, 2)}
        assert verify(model, model, sizes={"b": (4, 5)}).ok
        with pytest.raises(UsageError, match="`inputs` c=6x2"):
            input_sizes(model, {"b": (4, 5), "c": (6, 2)})

    def test_initializers_that_are_listed_as_inputs(self) -> None:
        model = sample()
        weight = model.graph.initializer[0]
        model.graph.input.append(
            helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        )
        assert list(input_sizes(model)) == ["x"]
        assert verify(model, model).ok

    def test_no_shape(self) -> None:
        with pytest.raises(VerifySetupError, match="'x' has no shape: give one with `inputs`"):
            input_sizes(typed(TensorProto.FLOAT, None))

    def test_no_tensor(self) -> None:
        model = typed(TensorProto.FLOAT, [1])
        kind = helper.make_sequence_type_proto(
            helper.make_tensor_type_proto(TensorProto.FLOAT, [1])
        )
        model.graph.input[0].type.CopyFrom(kind)
        with pytest.raises(VerifySetupError, match="'x'"):
            input_sizes(model)
        with pytest.raises(VerifySetupError, match="'x' is no tensor"):
            random_inputs(model, {"x": (1,)}, 0)

    @pytest.mark.parametrize("sizes", [(10**18, 4), (10**6, 10**6, 10**6), (10**17,)])
    def test_too_large(self, sizes: tuple[int, ...]) -> None:
        model: Any = typed(TensorProto.FLOAT, None)
        with pytest.raises(VerifySetupError, match="give smaller sizes with `inputs`"):
            verify(model, model, sizes={"x": sizes})


class TestInputsItRunsOn:
    """A detector may run only where it finds as many things as its export assumed."""

    def test_what_is_timed_is_timed_on_them(self) -> None:
        assert onnx_upscale.bench([picky(), picky()], runs=2, memory=False).runs == 2
        with pytest.raises(VerifySetupError, match=r"model 1: onnxruntime cannot run it"):
            onnx_upscale.bench([picky(bound=2.0)], runs=2, memory=False)
        masks = {"second": {"input": {"prune": [1, 3]}}}
        document = {"version": 1, "masks": masks}
        result = onnx_upscale.optimize(picky(), document, tune=True, tune_seconds=1)
        assert result.report.verify.ok

    def test_what_is_masked_is_compared_on_them(self) -> None:
        masks = {"second": {"input": {"prune": [1, 3]}}, "first": {"output": {"prune": [0]}}}
        document = {"version": 1, "masks": masks}
        result = onnx_upscale.optimize(picky(), document)
        assert result.report.verify.ok
        assert result.report.verify.warnings == ()
        assert onnx_upscale.verify(picky(), document, result.model).ok

    def test_what_runs_with_masks_alone_is_compared(self) -> None:
        """Nothing is known then of what the original makes."""
        original = picky(bound=2.0)
        for at in ((), [picky().graph.output[0].name]):
            found = verify(picky(), picky(), original=original, at=at)
            assert found.ok
            assert found.warnings == ()
            assert not verify(picky(), picky(change=0.1), original=original, at=at).ok

    def test_what_differs_is_found_on_them(self) -> None:
        assert verify(picky(), picky()).ok
        found = verify(picky(), picky(change=0.1))
        assert "differs by" in (found.failure or "")

    def test_what_runs_on_none_says_why(self) -> None:
        with pytest.raises(VerifySetupError, match=r"onnxruntime cannot run it: .*Reshape"):
            verify(picky(bound=2.0), picky(bound=2.0))

    def test_a_short_table_is_looked_up(self) -> None:
        net = Net(17, x=(1, 3))
        indices = net("Cast", "x", to=TensorProto.INT64)
        rows = net("Gather", net.constant(net.random(2, 4), "table"), indices)
        model = net.model(net("MatMul", rows, net.random(4, 3), name="read"))
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT32
        masks = {"version": 1, "masks": {"read": {"input": [1]}}}
        assert onnx_upscale.optimize(model, masks).report.verify.ok

    def test_numbers_are_drawn_otherwise(self) -> None:
        for kind in KINDS:
            model = typed(kind, [2, 30])
            one, other = (random_inputs(model, {"x": (2, 30)}, 3, draw)["x"] for draw in Draw)
            if one.dtype.kind == "f":
                assert one.min() < 0 <= other.min() < other.max() <= 1
            elif one.dtype.kind in "iu":
                assert one.max() > 1 == other.max()
            else:
                assert np.array_equal(one, other)
