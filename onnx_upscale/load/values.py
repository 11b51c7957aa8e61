"""Constant tensors of a graph, decoded when asked for and remembered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

Array = npt.NDArray[Any]

# Folding these would freeze a random draw, or evaluate what has no fixed value.
_NEVER_FOLDED = frozenset(
    {
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
)


# The reference implementation has these from this operator set on; their meaning did not change.
_IMPLEMENTED_SINCE = {"DequantizeLinear": 19, "QuantizeLinear": 19}


class Constants(Mapping[str, Array]):
    """Tensors with a known value: initializers, Constant nodes, and what nodes make of these alone.

    Args:
        initializers: Initializer tensors by name (those a caller may override are left out).
        producers: The node that makes each tensor.
        opset_imports: The model's operator sets, to evaluate nodes in the right version.
    """

    def __init__(
        self,
        initializers: Mapping[str, onnx.TensorProto],
        producers: Mapping[str, onnx.NodeProto],
        opset_imports: list[onnx.OperatorSetIdProto],
    ) -> None:
        self._initializers = initializers
        self._producers = producers
        self._opset_imports = opset_imports
        self._decoded: dict[str, Array] = {}
        self._foldable = self._find_foldable()

    def _find_foldable(self) -> set[str]:
        """Names whose value follows from constants alone, in the order of the nodes."""
        known = set(self._initializers)
        seen: set[int] = set()
        can_run: dict[str, bool] = {}
        for node in self._producers.values():
            if id(node) in seen:
                continue
            seen.add(id(node))
            folds = (
                node.domain in ("", "ai.onnx")
                and node.op_type not in _NEVER_FOLDED
                and all(not name or name in known for name in node.input)
                and not any(attribute.ref_attr_name for attribute in node.attribute)
            )
            if folds and node.op_type not in can_run:
                can_run[node.op_type] = _is_implemented(node, self._opset_imports)
            if folds and can_run[node.op_type]:
                known.update(node.output)
        known.discard("")
        return known

    def is_initializer(self, name: str) -> bool:
        """Whether the tensor is stored in the model as an initializer."""
        return name in self._initializers

    def __contains__(self, name: object) -> bool:
        return name in self._foldable

    def __iter__(self) -> Any:
        return iter(self._foldable)

    def __len__(self) -> int:
        return len(self._foldable)

    def __getitem__(self, name: str) -> Array:
        if name not in self._decoded:
            if name in self._initializers:
                self._decoded[name] = numpy_helper.to_array(self._initializers[name])
            elif name in self._foldable:
                self._fold(self._producers[name])
            else:
                raise KeyError(name)
        return self._decoded[name]

    def _fold(self, node: onnx.NodeProto) -> None:
        inputs = {name: self[name] for name in node.input if name}
        outputs = evaluate(node, inputs, self._opset_imports)
        self._decoded.update(zip(node.output, outputs, strict=False))


def evaluate(
    node: onnx.NodeProto,
    inputs: Mapping[str, Array],
    opset_imports: list[onnx.OperatorSetIdProto],
) -> list[Array]:
    """Runs one node on given values with ONNX's reference implementation.

    Args:
        node: The node to run.
        inputs: A value for each of its input names.
        opset_imports: The operator sets the node is written in.

    Returns:
        Its outputs, in order.
    """
    evaluator = _evaluator(node, inputs, opset_imports)
    return [np.asarray(value) for value in evaluator.run(None, dict(inputs))]


def _evaluator(
    node: onnx.NodeProto,
    inputs: Iterable[str],
    opset_imports: list[onnx.OperatorSetIdProto],
) -> ReferenceEvaluator:
    graph = onnx.GraphProto(name="one_node", node=[node])
    graph.input.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(inputs))
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name)
    model = onnx.ModelProto(ir_version=8, graph=graph, opset_import=opset_imports)
    oldest = _IMPLEMENTED_SINCE.get(node.op_type, 0)
    for imported in model.opset_import:
        if imported.domain in ("", "ai.onnx"):
            imported.version = max(imported.version, oldest)
    return ReferenceEvaluator(model)


def _is_implemented(node: onnx.NodeProto, opset_imports: list[onnx.OperatorSetIdProto]) -> bool:
    try:
        _evaluator(node, [name for name in node.input if name], opset_imports)
    except (NotImplementedError, RuntimeError):
        return False
    return True
