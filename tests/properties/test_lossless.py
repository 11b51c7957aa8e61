"""Whatever the optimizer has no reason to touch is the same afterwards, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_upscale
from build import Net, weight_shape

MASKS: dict[str, Any] = {"version": 1, "masks": {"read": {"input": [0, 2, 5]}}}
LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))
# Optimized but not run: making and running their weights takes a build too long.
TOO_LARGE = {"light_vgg19", "light_bvlc_alexnet", "light_zfnet512", "light_densenet121"}


def small() -> onnx.ModelProto:
    """Two Convs that the masks cut, and a branch that they do not touch."""
    net = Net(17, x=("batch", 4, "height", "width"))
    made = net("Relu", net("Conv", "x", net.constant(net.random(8, 4, 1, 1), "cut"), name="write"))
    read = net("Conv", made, net.constant(net.random(3, 8, 1, 1), "cut2"), name="read")
    other = net("Conv", "x", net.constant(net.random(2, 4, 1, 1), "kept"), name="other")
    return net.model(read, other)


def optimized(model: onnx.ModelProto, **how: Any) -> onnx.ModelProto:
    emitted = onnx_upscale.optimize(model, MASKS, strategy="gather", verify=False, **how).model
    assert weight_shape(emitted, "read")[1] == 5
    return emitted


def named(items: Any) -> dict[str, Any]:
    return {item.name: item for item in items}


def test_metadata_and_doc_strings() -> None:
    model = small()
    graph = model.graph
    model.producer_name, model.producer_version, model.domain = "maker", "1.2", "net.example"
    model.model_version = 7
    graph.name = "a graph"
    graph.value_info.append(helper.make_tensor_value_info("n1.0", 1, ("batch", 8, None, None)))
    things: list[Any] = [model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer]
    things += list(graph.value_info)
    for index, thing in enumerate(things):
        thing.doc_string = f"doc {index}"
        thing.metadata_props.add(key="key", value=f"value {index}")
    emitted = optimized(model)
    for field in ("producer_name", "producer_version", "domain", "model_version", "ir_version"):
        assert getattr(emitted, field) == getattr(model, field)
    pairs: list[tuple[Any, Any]] = [(model, emitted), (graph, emitted.graph)]
    for field in ("node", "input", "output", "initializer", "value_info"):
        after = named(getattr(emitted.graph, field))
        pairs += [(thing, after[thing.name]) for thing in getattr(graph, field)]
    assert len(pairs) == len(things)
    for before, after in pairs:
        assert after.doc_string == before.doc_string
        assert list(after.metadata_props) == list(before.metadata_props)
    assert list(emitted.graph.input) == list(graph.input)
    assert list(emitted.graph.output) == list(graph.output)
    assert list(emitted.opset_import) == list(model.opset_import)


def test_value_info_is_refreshed_where_stale_and_kept_elsewhere() -> None:
    model = small()
    for name, sizes in (("n1.0", ("batch", 8, "a", "b")), ("other.0", ("batch", 2, "a", "b"))):
        model.graph.value_info.append(helper.make_tensor_value_info(name, 1, sizes))
    emitted = named(optimized(model).graph.value_info)
    assert emitted["n1.0"].type.tensor_type.shape.dim[1].dim_value == 5
    assert emitted["other.0"] == named(model.graph.value_info)["other.0"]


def test_untouched_nodes_and_initializers_are_the_same_bytes() -> None:
    model = small()
    before, after = model.graph, optimized(model).graph
    for name in ("other", "write", "read"):
        assert (
            named(after.node)[name].SerializeToString()
            == named(before.node)[name].SerializeToString()
        )
    kept = named(before.initializer)["kept"].SerializeToString()
    assert named(after.initializer)["kept"].SerializeToString() == kept


def test_unused_and_sparse_initializers_quantization_and_functions() -> None:
    model = small()
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.arange(3.0), "unused"))
    values = numpy_helper.from_array(np.ones(2, np.float32), "sparse")
    indices = numpy_helper.from_array(np.array([1, 3]), "sparse.indices")
    graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [5]))
    graph.node.append(helper.make_node("Identity", ["sparse"], ["dense"], "dense"))
    graph.output.append(helper.make_tensor_value_info("dense", TensorProto.FLOAT, (5,)))
    note = graph.quantization_annotation.add(tensor_name="n1.0")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="unused")
    body = helper.make_node("Neg", ["a"], ["b"])
    model.functions.append(
        helper.make_function("local", "Minus", ["a"], ["b"], [body], [helper.make_opsetid("", 17)])
    )
    model.opset_import.append(helper.make_opsetid("local", 1))
    emitted = optimized(model)
    assert named(emitted.graph.initializer)["unused"] == named(graph.initializer)["unused"]
    for field in ("sparse_initializer", "quantization_annotation"):
        assert list(getattr(emitted.graph, field)) == list(getattr(graph, field))
    assert emitted.functions == model.functions
    assert emitted.opset_import == model.opset_import


def test_nodes_of_other_domains_with_exotic_attributes() -> None:
    model = small()
    inner = helper.make_graph([helper.make_node("Neg", ["a"], ["b"])], "inner", [], [])
    tensor = numpy_helper.from_array(np.ones(2), "t")
    node = helper.make_node("Odd", ["x"], ["odd"], "odd", domain="net.example", overload="v")
    node.attribute.extend([
        helper.make_attribute("binary", b"\xff\x00\xfe"),
        helper.make_attribute("binaries", [b"\xff", b"\x00"]),
        helper.make_attribute("graphs", [inner, inner]),
        helper.make_attribute("tensors", [tensor, tensor]),
        helper.make_attribute("type", helper.make_tensor_type_proto(1, ("n", 2))),
        onnx.AttributeProto(name="empty", type=onnx.AttributeProto.INTS),
    ])  # fmt: skip
    model.graph.node.append(node)
    model.graph.output.append(helper.make_tensor_value_info("odd", TensorProto.FLOAT, None))
    model.opset_import.append(helper.make_opsetid("net.example", 3))
    after = named(optimized(model).graph.node)["odd"]
    assert after.SerializeToString() == node.SerializeToString()


def test_external_data(tmp_path: Path) -> None:
    model = small()
    wanted = optimized(model)
    path = tmp_path / "model.onnx"
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    onnx.save(copy, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    emitted = onnx_upscale.optimize(
        path, MASKS, strategy="gather", inputs={"x": (1, 4, 3, 3)}
    ).model
    for before, after in zip(wanted.graph.initializer, emitted.graph.initializer, strict=True):
        assert after.data_location == TensorProto.DEFAULT
        np.testing.assert_array_equal(numpy_helper.to_array(before), numpy_helper.to_array(after))


def test_old_models_list_their_weights_as_inputs() -> None:
    model = small()
    model.ir_version = 3
    listed = [
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in model.graph.initializer
    ]
    model.graph.input.extend(listed)
    emitted = optimized(model)
    dims = {tensor.name: list(tensor.dims) for tensor in emitted.graph.initializer}
    assert emitted.graph.input[0] == model.graph.input[0]
    assert named(emitted.graph.input)["kept"] == named(listed)["kept"]
    for value in list(emitted.graph.input)[1:]:
        assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == dims[value.name]


def random_masks(model: onnx.ModelProto, seed: int) -> dict[str, Any]:
    """A third of the input channels of every second ungrouped Conv."""
    rng, masks = np.random.default_rng(seed), {}
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape" and node.input[0] in shapes:
            sizes = named(model.graph.initializer)[node.input[0]]
            shapes[node.output[0]] = numpy_helper.to_array(sizes).tolist()
    for node in model.graph.node:
        grouped = any(a.name == "group" and a.i > 1 for a in node.attribute)
        if node.op_type == "Conv" and not grouped and rng.random() < 0.5:
            count = int(shapes[node.input[1]][1])
            gone = np.flatnonzero(rng.random(count) < 0.3).tolist()
            if count > 4:
                masks[node.output[0]] = {"input": gone}
    return {"version": 1, "masks": masks}


@pytest.mark.parametrize("masked", [False, True], ids=["zeros", "masks"])
@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in LIGHT])
def test_real_models(path: Path, masked: bool) -> None:
    model = onnx.load(path)
    masks = random_masks(model, 1) if masked else None
    strategy = "gather" if masked else "auto"
    verify = path.stem not in TOO_LARGE
    result = onnx_upscale.optimize(path, masks, strategy=strategy, samples=1, verify=verify)
    onnx.checker.check_model(result.model)
    names = {tensor.name for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in names]
    assert [v for v in result.model.graph.input if v in given] == given
    assert list(result.model.graph.output) == list(model.graph.output)
    if masks and masks["masks"]:
        assert result.report["output"]["macs"] < result.report["input"]["macs"]
