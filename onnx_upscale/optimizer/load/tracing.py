"""Sizes that follow from names: one walk through a model, node by node, with its shape arithmetic.

1. Sizes that nothing fixes are names: those that the inputs declare, and a new one wherever onnx
   does not say how large an axis is.
2. Values of small vectors follow (`arithmetic`), so that what a Reshape makes is known as a
   polynomial of names. The names of an axis and of a size that was read from it are the same.
3. What an operator makes of shapes is onnx's to say. A few rules (`shape_rules`) are for operators
   whose result depends on values, or that onnx leaves open.
4. What a weight is multiplied with has its size: a model whose sizes do not fit it does not run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper, shape_inference

from onnx_upscale.declared import Shape, shape_in
from onnx_upscale.optimizer.load.arithmetic import FEW, MOST_TERMS, Value, compute, vector
from onnx_upscale.optimizer.load.attention import MAKES_OPERANDS
from onnx_upscale.optimizer.load.fused_shapes import FUSED_SHAPE_RULES, TYPED_BY
from onnx_upscale.optimizer.load.known import NO_NAMES, is_known, names_in
from onnx_upscale.optimizer.load.pointwise import MICROSOFT
from onnx_upscale.optimizer.load.polynomials import polynomial, product_of
from onnx_upscale.optimizer.load.shape_rules import SHAPE_RULES, Use


@dataclass(frozen=True)
class Found:
    """What is known of tensors, by name.

    Attributes:
        shapes: Shapes; a size is a number, a text that stands for one, or None.
        types: Element types (`TensorProto.DataType`).
        values: Values that follow from shapes, whatever the sizes that are open. Where some of
            their entries depend on these, they are arrays of objects.
    """

    shapes: Mapping[str, Shape]
    types: Mapping[str, int]
    values: Mapping[str, Value] = field(default_factory=dict)


# Outputs that have the shape of the first input, whatever else is read.
_KEEPS_SHAPE = {
    ("", "GroupNormalization"): (0,),
    ("", "SimplifiedLayerNormalization"): (0,),  # onnxruntime keeps it among the standard ones.
    ("com.microsoft", "BiasAdd"): (0,),
    ("com.microsoft", "BiasGelu"): (0,),
    ("com.microsoft", "FastGelu"): (0,),
    ("com.microsoft", "Gelu"): (0,),
    ("com.microsoft", "QLinearLeakyRelu"): (0,),
    ("com.microsoft", "QLinearSigmoid"): (0,),
    ("com.microsoft", "QLinearSoftmax"): (0,),
    ("com.microsoft", "QuickGelu"): (0,),
    ("com.microsoft", "RotaryEmbedding"): (0,),
    ("com.microsoft", "SkipLayerNormalization"): (0, 3),
    ("com.microsoft", "SkipSimplifiedLayerNormalization"): (0, 3),
}


def trace(slim: onnx.ModelProto, overridable: frozenset[str], found: Found) -> Found:
    """Finds the shapes that onnx's own inference leaves open.

    Args:
        slim: The model without large weights.
        overridable: Initializers that a caller may override.
        found: What is known already; it stays, but for sizes without a name.

    Returns:
        All that is known of shapes and types: every size is a number or a polynomial.
    """
    walk = _Walk(slim, overridable, found)
    for node in slim.graph.node:
        walk.visit(node)
    return Found(walk.shapes, walk.types, walk.derived)


class _Walk:
    def __init__(self, slim: onnx.ModelProto, overridable: frozenset[str], found: Found) -> None:
        self.shapes, self.types = dict(found.shapes), dict(found.types)
        self._opset_imports = list(slim.opset_import)
        self._versions = {
            "" if each.domain == "ai.onnx" else each.domain: each.version
            for each in slim.opset_import
        }
        self._fresh = (f"~{count}" for count in itertools.count())
        self._fits = _fitting(slim.graph.node, self.shapes)
        self.derived: dict[str, Value] = {}
        self._measured: set[str] = set()
        self._values: dict[str, Value] = {}
        self._stored = {
            tensor.name: tensor
            for tensor in slim.graph.initializer
            if tensor.name not in overridable and math.prod(tensor.dims) <= FEW
        }
        made = {name for node in slim.graph.node for name in node.output}
        for name in [name for name in self.shapes if name not in made]:
            self._settle(name, self.shapes[name])
        self._outputs = {value.name for value in slim.graph.output}
        self._given = names_in(self.shapes.get(value.name, ()) for value in slim.graph.input)

    def visit(self, node: onnx.NodeProto) -> None:
        """Takes the next node."""
        value = self._value(node)
        outputs = [name for name in node.output if name]
        if value is not None:
            self._keep(node, value)
        open_ = [name for name in outputs if not self._is_settled(name)]
        if not open_:
            return
        made = dict(zip(node.output, self._shapes_made(node, value), strict=False))
        for name in open_:
            shape = _agreed(self.shapes.get(name), made.get(name))
            if shape is not None:
                self._settle(name, shape)

    def _is_settled(self, name: str) -> bool:
        """Whether nothing can be added to what is known of a shape.

        The names of inputs are believed as numbers are, but where callers may have written them.
        """
        shape = self.shapes.get(name)
        if shape is None or name in self._outputs:
            return is_known(shape)
        fitted = tuple(
            shape[axis] for axis in self._fits.get(name, ()) if -len(shape) <= axis < len(shape)
        )
        return is_known(fitted) and is_known(shape, self._given)

    def _keep(self, node: onnx.NodeProto, value: Value) -> None:
        """Takes down a value, and whether it follows from shapes, as constants alone do not."""
        name = node.output[0]
        self._values[name] = value
        if node.op_type in ("Shape", "Size") or not self._measured.isdisjoint(node.input):
            self._measured.add(name)
            kind = self.types.get(name)
            if value.dtype != object and kind:
                value = value.astype(helper.tensor_dtype_to_np_dtype(kind))
            self.derived[name] = value

    def _settle(self, name: str, shape: Shape) -> None:
        """Takes down a shape; every size that is open gets a name."""
        sizes = [self._named(size) for size in shape]
        for axis, size in self._fits.get(name, {}).items():
            if -len(sizes) <= axis < len(sizes):
                sizes[axis] = size
        self.shapes[name] = tuple(sizes)

    def _named(self, size: int | str | None) -> int | str:
        if isinstance(size, int):
            return size
        known = None if size is None or size in NO_NAMES else polynomial(size)
        return next(self._fresh) if known is None or len(known.terms) > MOST_TERMS else known.size

    def _value(self, node: onnx.NodeProto) -> Value | None:
        if node.op_type == "Constant" and not node.domain:
            attributes = _attributes(node)
            tensor = attributes.get("value")
            if isinstance(tensor, TensorProto):
                return numpy_helper.to_array(tensor) if math.prod(tensor.dims) <= FEW else None
            return compute(node, attributes, [], self._opset_imports)
        if node.op_type in ("Shape", "Size") and not node.domain:
            shape = self.shapes.get(node.input[0])
            if shape is None:
                return None
            if node.op_type == "Size":
                total = product_of(size for size in shape if size is not None)
                return vector([total.size]).reshape(())
            attributes = _attributes(node)
            return vector(shape[attributes.get("start", 0) : attributes.get("end")])
        read = self._part if node.op_type == "Concat" else self._known
        inputs = list(itertools.takewhile(lambda value: value is not None, map(read, node.input)))
        if len(inputs) < len(node.input):
            return None
        return compute(node, _attributes(node), inputs, self._opset_imports)

    def _known(self, name: str) -> Value | None:
        """A value; one that is stored is read when somebody asks for it, as of most nobody does."""
        if name in self._stored:
            self._values[name] = numpy_helper.to_array(self._stored.pop(name))
        return self._values.get(name)

    def _part(self, name: str) -> Value | None:
        """A part of a vector, of which nothing but the length may be known."""
        shape = self.shapes.get(name, ())
        length = shape[0] if len(shape) == 1 else None
        value = self._known(name)
        if value is not None or not isinstance(length, int) or length > FEW:
            return value
        integers = self.types.get(name) == TensorProto.INT64
        return np.full(length, None, object) if integers else None

    def _shapes_made(self, node: onnx.NodeProto, value: Value | None) -> Sequence[Shape | None]:
        if value is not None:
            if not self.types.get(node.output[0]):
                self._inferred(node)
            return [value.shape]
        first = self.shapes.get(node.input[0]) if node.input else None
        kind = (node.domain, node.op_type)
        kept, fused = _KEEPS_SHAPE.get(kind), FUSED_SHAPE_RULES.get(kind)
        if kept is not None:
            self._take_types(node, {})
            return [first if output in kept else None for output in range(len(node.output))]
        values = [self._known(name) for name in node.input]
        shapes = [self.shapes.get(name) for name in node.input]
        use = Use(shapes, values, _attributes(node))
        if fused is not None:
            self.types.setdefault(
                node.output[0], self.types.get(node.input[TYPED_BY.get(kind, 0)], 0)
            )
            return [fused(use)]
        rule = SHAPE_RULES.get(node.op_type) if not node.domain else None
        inferred = self._inferred(node)
        if rule is None:
            return inferred
        own = rule(use)
        return [_agreed(own, inferred[0] if inferred else None), *inferred[1:]]

    def _inferred(self, node: onnx.NodeProto) -> Sequence[Shape | None]:
        """What onnx makes of the shapes and the values that are numbers."""
        version = self._versions.get(node.domain)
        inputs = [name for name in node.input if name]
        if version is None or any(not self.types.get(name) for name in inputs):
            return []
        try:
            schema = defs.get_schema(node.op_type, version, node.domain)
            made = shape_inference.infer_node_outputs(
                schema,
                node,
                {name: self._type(name) for name in inputs},
                {name: number for name in inputs if (number := self._number(name)) is not None},
                None,
                self._opset_imports,
                8,
            )
        except Exception:  # Unknown operators, and whatever hundreds of functions raise.
            return []
        self._take_types(node, made)
        return [_declared(made[name]) if name in made else None for name in node.output]

    def _take_types(self, node: onnx.NodeProto, made: Mapping[str, onnx.TypeProto]) -> None:
        first = self.types.get(node.input[0], 0) if node.input else 0
        for name in node.output:
            kind = made[name].tensor_type.elem_type if name in made else 0
            if name and not self.types.get(name):
                self.types[name] = kind or first

    def _type(self, name: str) -> onnx.TypeProto:
        shape = self.shapes.get(name)
        return helper.make_tensor_type_proto(self.types[name], shape)

    def _number(self, name: str) -> TensorProto | None:
        value = self._known(name)
        if value is None or value.dtype == object:
            return None
        kind = helper.tensor_dtype_to_np_dtype(self.types[name])
        return numpy_helper.from_array(value.astype(kind), name)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {
        each.name: helper.get_attribute_value(each)
        for each in node.attribute
        if not each.ref_attr_name
    }


def _declared(found: onnx.TypeProto) -> Shape | None:
    known = found.HasField("tensor_type") and found.tensor_type.HasField("shape")
    return shape_in(found) if known else None


def _agreed(said: Shape | None, found: Shape | None) -> Shape | None:
    """What two sources know together.

    A number comes before a name, a name that was found before one that was declared; where they
    contradict each other, what was said stays.
    """
    if said is None or found is None or len(said) != len(found):
        return found if said is None else said
    return tuple(
        one if isinstance(one, int) or other is None else other
        for one, other in zip(said, found, strict=True)
    )


def _fitting(
    nodes: Sequence[onnx.NodeProto], shapes: Mapping[str, Shape]
) -> dict[str, dict[int, int]]:
    """Sizes, by tensor and axis, without which a layer would not run."""
    fits: dict[str, dict[int, int]] = {}

    def need(tensor: str, axis: int, weight: str, place: int, times: int = 1) -> None:
        shape = shapes.get(weight, ())
        size = shape[place] if -len(shape) <= place < len(shape) else None
        if isinstance(size, int):
            fits.setdefault(tensor, {})[axis] = size * times

    for node in nodes:
        if node.domain not in ("", "ai.onnx", MICROSOFT) or len(node.input) < 2:
            continue
        flags = {each.name: each.i for each in node.attribute}
        one, other = node.input[:2]
        if node.op_type in ("Conv", "FusedConv"):
            need(one, 1, other, 1, flags.get("group", 1))
        elif node.op_type == "ConvTranspose":
            need(one, 1, other, 0)
        elif node.op_type in ("Gemm", "FusedGemm"):
            need(one, 0 if flags.get("transA") else 1, other, 1 if flags.get("transB") else 0)
        elif node.op_type == "MatMul" and len(shapes.get(other, ())) >= 2:
            need(one, -1, other, -2)
        elif node.op_type == "FusedMatMul" and len(shapes.get(other, ())) >= 2:
            if not any(flags.get(name) for name in ("transBatchA", "transBatchB")):
                need(
                    one, -2 if flags.get("transA") else -1, other, -1 if flags.get("transB") else -2
                )
        elif node.op_type in ("BatchNormalization", "InstanceNormalization"):
            need(one, 1, other, 0)
        elif (node.domain, node.op_type) == MAKES_OPERANDS:
            need(one, 2, other, 0)
    return fits
