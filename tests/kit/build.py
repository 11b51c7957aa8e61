"""Small models, tersely: a `Net` names its tensors by itself and turns arrays into initializers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Operand = str | Array | np.generic


class Net:
    """A graph under construction.

    Args:
        opset: Its operator set.
        inputs: Shapes of its float inputs, by name; a name in place of a size is symbolic.
        seed: Of the weights.
    """

    def __init__(self, opset: int, seed: int = 0, **inputs: Sequence[int | str]) -> None:
        self.opset = opset
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.value_info: list[onnx.ValueInfoProto] = []
        self.inputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in inputs.items()
        ]

    def random(self, *shape: int) -> Floats:
        """Random weights, none of them near zero, so that what matters shows."""
        sign = self.rng.choice([-1.0, 1.0], shape)
        return (sign * self.rng.uniform(0.2, 1.0, shape)).astype(np.float32)

    def constant(self, value: Array | np.generic, name: str = "") -> str:
        """A new initializer."""
        name = name or f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def ints(self, *values: int) -> str:
        """A new initializer of int64."""
        return self.constant(np.array(values, np.int64))

    def nodes_of(
        self, op: str, *inputs: Operand, name: str = "", outputs: int = 1, **attributes: Any
    ) -> list[str]:
        """A new node; gives the names of its outputs."""
        name = name or f"n{len(self.nodes)}"
        made = [f"{name}.{index}" for index in range(outputs)]
        read = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        self.nodes.append(helper.make_node(op, read, made, name, **attributes))
        return made

    def __call__(self, op: str, *inputs: Operand, name: str = "", **attributes: Any) -> str:
        """A new node with one output; gives its name."""
        return self.nodes_of(op, *inputs, name=name, **attributes)[0]

    def declare(self, tensor: str, shape: Sequence[int]) -> str:
        """Records the shape of a tensor that shape inference does not find."""
        self.value_info.append(helper.make_tensor_value_info(tensor, TensorProto.FLOAT, shape))
        return tensor

    def model(self, *outputs: str) -> onnx.ModelProto:
        """The model so far, with shapes inferred for its outputs."""
        graph = helper.make_graph(self.nodes, "net", self.inputs, [], self.initializers)
        graph.value_info.extend(self.value_info)
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        domains = dict.fromkeys(node.domain for node in self.nodes if node.domain)
        imports = [helper.make_opsetid("", self.opset)]
        imports += [helper.make_opsetid(domain, 1) for domain in domains]
        model = helper.make_model(graph, opset_imports=imports, ir_version=10)
        inferred = shape_inference.infer_shapes(model, data_prop=True)
        for value, found in zip(graph.output, inferred.graph.output, strict=True):
            value.CopyFrom(found)
        del model.graph.output[:]
        model.graph.output.extend(graph.output)
        return model

    def shape(self, tensor: str) -> tuple[int, ...]:
        """The inferred shape of a tensor; all its sizes must be known."""
        given = next((v for v in (*self.inputs, *self.value_info) if v.name == tensor), None)
        return shape_of(given if given is not None else self.model(tensor).graph.output[0])


def shape_of(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """The sizes in a value's type."""
    assert value.type.tensor_type.HasField("shape"), f"no shape was inferred for {value.name}"
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def run(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    """Runs a model in onnxruntime, with its own optimizations off, so that it stays a witness.

    Where onnxruntime has no kernel, ONNX's reference implementation runs it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises classes of its own that share no base.
        if "NOT_IMPLEMENTED" not in str(error):
            raise
        return [np.asarray(each) for each in ReferenceEvaluator(model).run(None, dict(inputs))]
    results: list[Array] = session.run(None, dict(inputs))
    return results


def assert_close(
    wanted: Sequence[Array], got: Sequence[Array], what: str = "", share: float = 1e-4
) -> None:
    """Outputs are equal up to rounding.

    Args:
        wanted: The outputs of one model.
        got: Those of the other.
        what: Says which, where they are not.
        share: How far they may be apart, as a part of the largest value of each output.
    """
    for one, other in zip(wanted, got, strict=True):
        assert other.shape == one.shape, what
        finite = np.abs(one[np.isfinite(one)]).max(initial=0) if one.dtype.kind == "f" else 0
        np.testing.assert_allclose(
            other, one, rtol=0, atol=1e-5 + share * float(finite), err_msg=what
        )


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto | None:
    """The node of a name, if it is there."""
    return next((each for each in model.graph.node if each.name == name), None)


def weight_shape(model: onnx.ModelProto, name: str, slot: int = 1) -> tuple[int, ...]:
    """The shape of the initializer that a node reads; without the node, one of no size."""
    found = node(model, name)
    if found is None:
        return ()
    stored = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return stored[found.input[slot]]


def input_values(model: onnx.ModelProto, seed: int = 0, batch: int = 2) -> dict[str, Floats]:
    """Random values for all inputs; sizes that are not known become `batch`."""
    rng = np.random.default_rng(seed)
    shapes = {value.name: shape_of(value) for value in model.graph.input}
    return {
        name: rng.standard_normal([size or batch for size in shape]).astype(np.float32)
        for name, shape in shapes.items()
    }


def named_outputs(model: onnx.ModelProto, seed: int = 0, batch: int = 2) -> dict[str, Array]:
    """What a model makes of random inputs, by name."""
    names = [value.name for value in model.graph.output]
    return dict(zip(names, run(model, input_values(model, seed, batch)), strict=True))


def bare(
    net: Net, *outputs: str, declared: Mapping[str, Sequence[int | str | None]] | None = None
) -> onnx.ModelProto:
    """A model that says nothing of what its nodes make, but for its outputs' type."""
    graph = helper.make_graph(net.nodes, "net", net.inputs, [], net.initializers)
    for name in outputs:
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    for name, shape in (declared or {}).items():
        graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    imports = [helper.make_opsetid("", net.opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)
