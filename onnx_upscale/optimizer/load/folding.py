"""Folding: what a node makes of constants alone, where that is certain and not too large.

1. Shape inference, given the values of the inputs, says what a node will make before it runs. Where
   it does not, or names more elements than allowed, the node is not run.
2. ONNX's reference implementation runs the node. Where it fails, or its result has another type or
   shape than was inferred, there is no result: better no constant than a wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from onnx_upscale.declared import shape_of
from onnx_upscale.optimizer.load.pointwise import MICROSOFT, evaluate_pointwise

Array = npt.NDArray[Any]

# Folding these would freeze a random draw, or evaluate what has no fixed value.
_NO_FIXED_VALUE = {
    "Bernoulli",
    "Dropout",
    "If",
    "ImageDecoder",
    "Loop",
    "Multinomial",
    "Optional",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Scan",
    "SequenceEmpty",
    "SequenceMap",
}
# Their reference implementations hold far more than they are given and make.
_HUNGRY = {
    "Attention",
    "AveragePool",
    "Col2Im",
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "DeformConv",
    "GRU",
    "LSTM",
    "LpPool",
    "MaxPool",
    "QLinearConv",
    "RNN",
    "STFT",
}
_NEVER_FOLDED = frozenset(_NO_FIXED_VALUE | _HUNGRY)
# How many these make depends on values, but each is one of those they are given.
_SELECTING = frozenset({"Compress", "NonZero", "Unique"})
# A fill takes no memory before somebody changes it; this much (1 GiB of float32) lets in the
# weights of models that come without theirs.
_LARGEST_FILL = 1 << 28
# Shapes, axes, pads and the like, whose values shape inference needs.
_FEW = 1024

# The reference implementation has these right from this operator set on (the older
# BatchNormalization mixes the batch's own statistics in); their meaning did not change.
_RIGHT_SINCE = {"BatchNormalization": 14, "DequantizeLinear": 19, "QuantizeLinear": 19}

OperatorSets = Sequence[onnx.OperatorSetIdProto]


@dataclass(frozen=True)
class _Outcome:
    """What shape inference says of an output.

    Attributes:
        kind: Its element type (`TensorProto.DataType`).
        shape: Its shape; None for a size that depends on values.
        most: The most elements it can have.
    """

    kind: int
    shape: tuple[int | None, ...]
    most: int

    def agrees(self, made: Array) -> bool:
        """Whether a value is what was to be expected."""
        sizes = zip(self.shape, made.shape, strict=False)
        return (
            helper.np_dtype_to_tensor_dtype(made.dtype) == self.kind
            and len(made.shape) == len(self.shape)
            and all(size in (None, real) for size, real in sizes)
        )


def may_fold(node: onnx.NodeProto) -> bool:
    """Whether a node's operator is one that can be folded at all."""
    return (
        node.domain in ("", "ai.onnx")
        and node.op_type not in _NEVER_FOLDED
        and not any(attribute.ref_attr_name for attribute in node.attribute)
    )


def fold(
    node: onnx.NodeProto, inputs: Mapping[str, Array], opset_imports: OperatorSets, largest: int
) -> dict[str, Array] | None:
    """Runs a node on constants.

    Args:
        node: The node.
        inputs: A value for each of its input names.
        opset_imports: The operator sets the node is written in.
        largest: How many elements each input and output may have. Only a ConstantOfShape may make
            more, as it makes a view of one element.

    Returns:
        Its outputs by name, perhaps not all of them; None where they are not certain, or too large.
    """
    held = _held(node)
    if held is not None:
        return {node.output[0]: held} if held.size <= largest else None
    node = _in_training(node, opset_imports)
    outcomes = _infer(node, inputs, opset_imports)
    if outcomes is None:
        return None
    fills = node.op_type == "ConstantOfShape"
    if any(outcome.most > (_LARGEST_FILL if fills else largest) for outcome in outcomes):
        return None
    if any(value.size > largest for value in inputs.values()):
        return None
    if fills:
        made = _fill(node, opset_imports, outcomes[0])
    else:
        made = evaluate(node, inputs, opset_imports)
    if made is None or not all(map(_Outcome.agrees, outcomes, made)):
        return None
    return dict(zip(filter(None, node.output), made, strict=True))


def _held(node: onnx.NodeProto) -> Array | None:
    """The numbers that a Constant holds, which nobody needs to run."""
    if node.op_type != "Constant" or [each.name for each in node.attribute] != ["value"]:
        return None
    try:
        held = numpy_helper.to_array(node.attribute[0].t)
    except Exception:  # A broken one, in a way of its own.
        return None
    return held if held.dtype.isbuiltin == 1 and held.dtype.kind in "biufc" else None


def _in_training(node: onnx.NodeProto, opset_imports: OperatorSets) -> onnx.NodeProto:
    """A BatchNormalization in training, as operator sets say it from 14 on: more outputs meant it.

    Exporters standardize weights with one. What it makes beside the result gets names that nobody
    reads, as it is no longer quite the same.
    """
    version = next((each.version for each in opset_imports if each.domain in ("", "ai.onnx")), 0)
    old = 9 <= version < _RIGHT_SINCE["BatchNormalization"]
    if not old or node.op_type != "BatchNormalization" or not any(node.output[1:]):
        return node
    newer = onnx.NodeProto()
    newer.CopyFrom(node)
    newer.output[:] = [node.output[0], *(f"{node.output[0]}.{kind}" for kind in ("mean", "var"))]
    newer.attribute.append(helper.make_attribute("training_mode", 1))
    return newer


def evaluate(
    node: onnx.NodeProto, inputs: Mapping[str, Array], opset_imports: OperatorSets
) -> list[Array] | None:
    """Runs one node on given values with ONNX's reference implementation, or with numpy.

    Args:
        node: The node to run.
        inputs: A value for each of its input names.
        opset_imports: The operator sets the node is written in.

    Returns:
        Its named outputs, in order; None where the reference implementation fails.
    """
    if node.domain == MICROSOFT:
        own = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        made = evaluate_pointwise(node.op_type, [inputs[name] for name in node.input if name], own)
        return None if made is None else [made]
    from onnx.reference import ReferenceEvaluator  # Takes long, and most models need it nowhere.

    model = _one_node(node, opset_imports)
    model.graph.input.extend(onnx.ValueInfoProto(name=name) for name in inputs)
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, dict(inputs))
            return [np.asarray(value) for value in results]
    except Exception:  # Whatever hundreds of small implementations raise.
        return None


def _one_node(node: onnx.NodeProto, opset_imports: OperatorSets) -> onnx.ModelProto:
    graph = onnx.GraphProto(name="one_node", node=[node])
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name)
    model = onnx.ModelProto(ir_version=8, graph=graph, opset_import=opset_imports)
    oldest = _RIGHT_SINCE.get(node.op_type, 0)
    if node.op_type == "BatchNormalization":
        # Operator sets 7 and 8 say what later ones take for granted, and refuse to be told.
        kept = [each for each in node.attribute if (each.name, each.i) != ("spatial", 1)]
        del model.graph.node[0].attribute[:]
        model.graph.node[0].attribute.extend(kept)
    for imported in model.opset_import:
        if imported.domain in ("", "ai.onnx"):
            imported.version = max(imported.version, oldest)
    return model


def _infer(
    node: onnx.NodeProto, inputs: Mapping[str, Array], opset_imports: OperatorSets
) -> list[_Outcome] | None:
    """The outcome of each named output; None where not all of them are known."""
    model = _one_node(node, opset_imports)
    try:
        for name, value in inputs.items():
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            model.graph.input.append(helper.make_tensor_value_info(name, kind, value.shape))
            if value.size <= _FEW:
                model.graph.initializer.append(numpy_helper.from_array(value, name))
        inferred = shape_inference.infer_shapes(model).graph.output
    except Exception:  # Types and operators that onnx does not know, each in a way of its own.
        return None
    given = sum(value.size for value in inputs.values())
    outcomes = []
    for output in inferred:
        tensor = output.type.tensor_type
        shape = tuple(size if isinstance(size, int) else None for size in shape_of(output))
        unknown = not tensor.HasField("shape") or (None in shape and node.op_type not in _SELECTING)
        # A string can be of any length, so that to count them says nothing.
        if unknown or tensor.elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
            return None
        most = math.prod(given if size is None else size for size in shape)
        outcomes.append(_Outcome(tensor.elem_type, shape, most))
    return outcomes


def _fill(
    node: onnx.NodeProto, opset_imports: OperatorSets, outcome: _Outcome
) -> list[Array] | None:
    """What a ConstantOfShape makes, as a view of a single element."""
    made = evaluate(node, {node.input[0]: np.ones(1, np.int64)}, opset_imports)
    if made is None or made[0].size != 1:
        return None
    return [np.broadcast_to(made[0].reshape(()), [size or 0 for size in outcome.shape])]
