"""Constants that nodes make of constants: only what is certain, and no larger than the model."""

from __future__ import annotations

import resource
import tracemalloc
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import onnx_upscale
from build import Array, Net, assert_close, input_values, node, run, weight_shape
from onnx_upscale.optimizer.load import folding
from onnx_upscale.optimizer.load.graph import build_graph

MANY = 10**6  # On each of two axes: 10^12 elements.


def finish(net: Net, constant: str) -> onnx.ModelProto:
    """A model with something to prune, and the constant beside it, so that analysis meets both."""
    weight = net.random(8, 4, 1, 1)
    weight[[2, 5]] = 0
    hidden = net("Relu", net("Conv", "x", weight, name="first"))
    net("Conv", hidden, net.random(3, 8, 1, 1), name="second")
    return net.model("second.0", net("ReduceMax", constant, name="most", keepdims=0))


def pruned(model: onnx.ModelProto, verify: bool = False) -> onnx.ModelProto:
    emitted = onnx_upscale.optimize(model, strategy="gather", verify=verify).model
    assert weight_shape(emitted, "first") == (6, 4, 1, 1)
    return emitted


def absent(model: onnx.ModelProto, *names: str) -> None:
    """Each is no constant, however one asks."""
    constants = build_graph(model).constants
    for name in names:
        assert constants.get(name) is None
        assert name not in constants
        assert name not in list(constants)
        with pytest.raises(KeyError):
            constants[name]
    assert len(constants) == len(list(constants))


def test_what_the_reference_cannot_run_is_no_constant() -> None:
    """What the newer torch exporter makes of BERT's token types; the message came from numpy."""
    net = Net(17, x=[1, 4, 5, 5])
    data, places = np.zeros((1, 64), np.int64), np.arange(16, dtype=np.int64)[None]
    picked = net("GatherElements", data, places, name="picked", axis=1)
    behind = net("Cast", picked, name="behind", to=TensorProto.FLOAT)
    model = finish(net, behind)
    # If this fails, the reference implementation was mended, and another example is needed.
    inputs = dict(zip(model.graph.node[0].input, (data, places), strict=True))
    assert folding.evaluate(model.graph.node[0], inputs, model.opset_import) is None
    absent(model, picked, behind)
    values = input_values(model)
    assert_close(run(model, values), run(pruned(model, True), values))


@pytest.mark.parametrize("wrong", [np.zeros((2, 3)), np.zeros((3, 2), np.float32), MemoryError()])
def test_a_result_of_another_type_or_shape_is_not_believed(
    wrong: Array | Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Net(17, x=[1, 4, 5, 5])
    negative = net("Neg", net.random(2, 3), name="negative")
    model = finish(net, net("Add", negative, np.float32(1), name="behind"))
    assert negative in build_graph(model).constants

    def made(*_: Any) -> list[Array]:
        if isinstance(wrong, Exception):
            raise wrong
        return [wrong]

    monkeypatch.setattr(ReferenceEvaluator, "run", made)
    absent(model, negative, "behind.0")


def test_sequences_and_texts_are_no_constants() -> None:
    net = Net(20, x=[1, 4, 5, 5])
    both = net("SequenceConstruct", net.random(2), net.random(2), name="both")
    one = net("SequenceAt", both, net.constant(np.int64(0)), name="one")
    text = net.constant(np.array(["ab"], object))
    for number in range(40):  # Each is twice as long as the one before.
        text = net("StringConcat", text, text, name=f"text{number}")
    model = finish(net, one)
    model.graph.output.append(helper.make_tensor_value_info(text, TensorProto.STRING, [1]))
    absent(model, both, one, "text0.0", text)
    pruned(model)


def test_an_optional_output_that_is_left_out() -> None:
    net = Net(17, x=[1, 4, 5, 5])
    net("TopK", np.array([3.0, 1.0, 2.0], np.float32), net.ints(2), name="top")
    net.nodes[-1].output[:] = ["", "places"]
    model = finish(net, "places")
    assert build_graph(model).constants["places"].tolist() == [0, 2]


def test_a_chain_longer_than_pythons_stack() -> None:
    net = Net(17, x=[1, 4, 5, 5])
    tensor = net.constant(np.float32(1))
    for number in range(2000):
        tensor = net("Neg", tensor, name=f"n{number}")
    assert build_graph(finish(net, tensor)).constants[tensor] == 1


def grown(net: Net, op: str) -> str:
    """A constant of 10^12 elements that a few bytes describe."""
    small = net.constant(np.ones((1, 1), np.float32))
    column, row = net.ints(MANY, 1), net.ints(1, MANY)
    if op == "ConstantOfShape":
        return net(op, net.ints(MANY, MANY), name="huge")
    if op == "Range":
        return net(op, *(np.int64(v) for v in (0, MANY**2, 1)), name="huge")
    if op in ("Expand", "Tile"):
        return net(op, small, net.ints(MANY, MANY), name="huge")
    if op == "Pad":
        return net(op, small, net.ints(0, 0, MANY, MANY), name="huge")
    if op == "Resize":
        return net(op, small, "", "", net.ints(MANY, MANY), name="huge", mode="nearest")
    if op == "EyeLike":
        return net(op, net("ConstantOfShape", net.ints(MANY, MANY)), name="huge")
    if op == "OneHot":
        places = net("Expand", np.int64(1), net.ints(MANY))
        return net(op, places, np.int64(MANY), np.array([0, 1], np.float32), name="huge")
    if op == "Gather":
        return net(op, net("Expand", small, row), net("Expand", np.int64(0), column), name="huge")
    if op == "Constant":
        none = numpy_helper.from_array(np.zeros(0, np.float32), "none")
        where = numpy_helper.from_array(np.zeros((0, 2), np.int64), "where")
        empty = helper.make_sparse_tensor(none, where, [MANY, MANY])
        return net(op, name="huge", sparse_value=empty)
    one, other = net("Expand", small, column), net("Expand", small, row)
    return net(op, one, other, name="huge")


GROWING = (
    "Add", "Constant", "ConstantOfShape", "Expand", "EyeLike", "Gather", "MatMul", "OneHot", "Pad",
    "Range", "Resize", "Tile",
)  # fmt: skip


@pytest.mark.parametrize("op", GROWING)
def test_nothing_huge_is_folded(op: str) -> None:
    net = Net(17, x=[1, 4, 5, 5])
    model = finish(net, net("Neg", grown(net, op)))
    tracemalloc.start()
    try:
        absent(model, "huge.0")
        pruned(model)
        assert tracemalloc.get_traced_memory()[1] < 2**28
    finally:
        tracemalloc.stop()


def test_long_vectors_are_not_followed_by_shape_inference() -> None:
    """onnx would keep a record of some hundred bytes for each element of what Range makes."""
    net = Net(17, x=[1, 4, 5, 5])
    model = finish(net, "x")
    numbers = net("Range", *(np.int64(value) for value in (0, 10**7, 1)))
    net("Cast", numbers, name="cast", to=TensorProto.FLOAT)
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(net.nodes)
    model.graph.initializer.extend(net.initializers)
    model.graph.output.append(helper.make_tensor_value_info("cast.0", TensorProto.FLOAT, [None]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pruned(model)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**19  # In kB: 512 MB.


@pytest.mark.parametrize("op", ["Tile", "Concat"])
def test_an_axis_that_is_too_long_is_pinned(op: str) -> None:
    net = Net(17, x=[1, 4, 5, 5])
    hidden = net("Conv", "x", net.random(8, 4, 1, 1), name="first")
    if op == "Tile":
        net("Tile", hidden, net.ints(1, MANY**2, 1, 1), name="long")
    else:
        part = net("Expand", np.float32(0), net.ints(1, MANY**2, 5, 5))
        net("Concat", hidden, part, name="long", axis=1)
    (segment,) = onnx_upscale.analyze(net.model("long.0")).analysis.structure.segments
    assert "too long" in " ".join(demand.reason for demand in segment.demands)


def test_a_stored_tensor_that_lies_about_its_size_allows_nothing() -> None:
    net = Net(17, x=[1, 4, 5, 5])
    model = finish(net, net("Expand", np.float32(1), net.ints(MANY, 100), name="huge"))
    model.graph.initializer.append(
        onnx.TensorProto(name="liar", data_type=TensorProto.FLOAT, dims=[MANY, MANY])
    )
    assert "huge.0" not in build_graph(model).constants


def test_many_large_constants_are_too_much_as_well() -> None:
    net = Net(17, x=[1, 4, 5, 5])
    each = [net("Expand", np.float32(1), net.ints(2**22), name=f"e{n}") for n in range(40)]
    model = finish(net, net("Sum", *each))
    constants = build_graph(model).constants
    assert sum(name in constants for name in each) == 16


def test_what_a_model_stores_may_be_folded_whatever_its_size() -> None:
    """A weight in 8 bits has four times as many bytes once it is dequantized."""
    net = Net(17, x=[1, 4, 5, 5])
    stored = net.constant(np.zeros((5000, 1000), np.int8))
    weight = net("DequantizeLinear", stored, np.float32(0.5), np.int8(0), name="weight")
    model = finish(net, net("Transpose", weight, name="turned"))
    assert build_graph(model).constants["turned.0"].shape == (1000, 5000)


def test_a_fill_takes_no_memory() -> None:
    """The weights of models that come without theirs: 400 MB here, of a single element."""
    net = Net(17, x=[1, 4, 5, 5])
    value = numpy_helper.from_array(np.array([0.5], np.float32))
    weight = net("ConstantOfShape", net.ints(25088, 4096), name="weight", value=value)
    constants = build_graph(finish(net, weight)).constants
    tracemalloc.start()
    try:
        assert constants[weight].shape == (25088, 4096)
        assert constants[weight].dtype == np.float32
        assert constants[weight][-1, -1] == 0.5
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_a_layer_whose_weight_is_a_fill_is_pruned() -> None:
    net = Net(17, x=[1, 4, 5, 5])
    hidden = net("Conv", "x", net("ConstantOfShape", net.ints(8, 4, 1, 1)), name="first")
    net("Conv", hidden, net.random(3, 8, 1, 1), name="second")
    masks = {"version": 1, "masks": {"second": {"input": [1, 2, 3]}}}
    emitted = onnx_upscale.optimize(net.model("second.0"), masks).model
    assert node(emitted, "second") is not None


def held(tensor: onnx.TensorProto) -> Any:
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    return folding.fold(node, {}, [helper.make_opsetid("", 17)], largest=8)


@pytest.mark.parametrize("kind", ["float32", "float16", "int64", "int8", "uint8", "bool"])
def test_numbers_in_a_constant_are_read_and_not_run(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "evaluate", None)
    value = np.arange(6).reshape(2, 3).astype(kind)
    found = held(numpy_helper.from_array(value))
    assert list(found) == ["c"]
    assert found["c"].dtype == value.dtype
    np.testing.assert_array_equal(found["c"], value)


def test_a_constant_that_is_too_large_is_none() -> None:
    assert held(numpy_helper.from_array(np.zeros(8, np.int64))) is not None
    assert held(numpy_helper.from_array(np.zeros(9, np.int64))) is None


def test_a_broken_constant_is_none() -> None:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32))
    tensor.raw_data = tensor.raw_data[:7]
    assert held(tensor) is None
    tensor.data_type = 99
    assert held(tensor) is None


def test_a_constant_of_texts_is_none() -> None:
    assert held(numpy_helper.from_array(np.array(["a"], object))) is None


def test_a_constant_in_other_words_is_run() -> None:
    node = helper.make_node("Constant", [], ["c"], value_ints=[3, 4])
    found = folding.fold(node, {}, [helper.make_opsetid("", 17)], 8)
    assert found is not None
    np.testing.assert_array_equal(found["c"], [3, 4])
