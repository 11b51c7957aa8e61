"""Who makes and who reads each tensor of a graph: which layers a mask means, what follows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx

from onnx_upscale.optimizer.verify.scopes import Scope

_MICROSOFT = "com.microsoft"
CONVOLUTIONS = {
    ("", "Conv"),
    ("", "ConvInteger"),
    ("", "ConvTranspose"),
    ("", "QLinearConv"),
    (_MICROSOFT, "FusedConv"),
}
"""Operators, by domain and type, that read and make channels on the second axis."""
PRODUCTS = {
    ("", "Gemm"),
    ("", "MatMul"),
    ("", "MatMulInteger"),
    ("", "QLinearMatMul"),
    (_MICROSOFT, "FusedGemm"),
    (_MICROSOFT, "FusedMatMul"),
    (_MICROSOFT, "MatMulNBits"),
    (_MICROSOFT, "QGemm"),
}
"""Operators that multiply matrices; a `transA` of theirs transposes the first."""
EINSUM = ("", "Einsum")
ATTENTION = (_MICROSOFT, "Attention")
"""It makes queries, keys and values with a weight of its own, and goes on with them."""
RECURRENT = {("", "GRU"), ("", "LSTM"), ("", "RNN")}
"""Operators whose output channels are hidden units."""
QUANTIZED = {
    ("", "ConvInteger"): (1, 2, -1),
    ("", "MatMulInteger"): (1, 2, -1),
    ("", "QLinearConv"): (3, 2, 7),
    ("", "QLinearMatMul"): (3, 2, 7),
    (_MICROSOFT, "QGemm"): (3, 2, 8),
}
"""Where those that compute with whole numbers have their weight, and the zero points of what they
read first and of what they make."""
QUANTIZED_AFFINE = {(_MICROSOFT, "QLinearAdd"), (_MICROSOFT, "QLinearMul")}
"""A sum and a product of whole numbers that stand for real ones."""
_EITHER_WAY = {("", "MatMul"), (_MICROSOFT, "FusedMatMul"), EINSUM}
"""Those whose weight may come first."""
_SUMS = {("", "ConvInteger"), ("", "MatMulInteger")}
_BIASED = {
    (_MICROSOFT, "BiasGelu"): (1, 1),
    (_MICROSOFT, "BiasSplitGelu"): (1, 1),
    (_MICROSOFT, "FastGelu"): (1, 1),
    (_MICROSOFT, "MultiHeadAttention"): (3, 3),
}
"""Operators that add a bias over the last axis first: its slot, and to how many inputs; it holds
those of all of them, one after the other, of which the first two are alike."""
_NOT_CONSTANT = ("Random", "Bernoulli", "Multinomial", "Dropout")


class Wiring:
    """Who makes and who reads each tensor, and which are constant.

    Args:
        scope: The graph; what runs before it counts as well, and positions of nodes are those of
            both.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.nodes: Sequence[onnx.NodeProto] = scope.nodes
        stored = (tensor.name for graph in scope.graphs for tensor in graph.initializer)
        self.initializers = set(stored) - scope.defaults
        self.outputs = {value.name for value in scope.graphs[-1].output}
        self.readers: dict[str, list[int]] = {}
        self.constants = set(self.initializers)
        self.makers = {name: node for node in self.nodes for name in node.output}
        self._own_by_name: dict[str, list[int]] = {}
        self._own_by_output: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            if index >= scope.first:
                self._own_by_name.setdefault(node.name, []).append(index)
                for name in node.output:
                    self._own_by_output.setdefault(name, []).append(index)
            for name in reads(node):
                self.readers.setdefault(name, []).append(index)
            if (
                node.domain in ("", "ai.onnx")
                and not node.op_type.startswith(_NOT_CONSTANT)
                and not any(a.HasField("g") for a in node.attribute)
                and all(name in self.constants for name in reads(node))
            ):
                self.constants.update(node.output)

    def slots(self, node: onnx.NodeProto) -> tuple[int, int]:
        """Where a layer reads its weight, and where what it is multiplied with."""
        if operator_of(node) in QUANTIZED:
            return QUANTIZED[operator_of(node)][0], 0
        left = operator_of(node) in _EITHER_WAY and node.input[1] not in self.constants
        return (0, 1) if left else (1, 0)

    def knows(self, name: str) -> bool:
        """Whether a name means anything here."""
        return name in self.initializers or bool(self.named(name))

    def named(self, name: str) -> list[int]:
        """The nodes of the graph itself that a name means."""
        if name in self.initializers:
            return self._using(name)
        return self._own_by_name.get(name) or self._own_by_output.get(name, [])

    def _using(self, weight: str) -> list[int]:
        """The layers whose weight is an initializer, or is made from it and other constants.

        If there are none, the products of constants of which it is the second.
        """
        found: list[int] = []
        tables: list[int] = []
        made = {weight}
        for index, node in enumerate(self.nodes):
            if not made.intersection(node.input):
                continue
            if all(name in self.constants for name in node.output):
                if operator_of(node) in PRODUCTS and node.input[1] in made:
                    tables.append(index)
                made.update(node.output)
            elif (
                operator_of(node) in CONVOLUTIONS | PRODUCTS | RECURRENT | {EINSUM, ATTENTION}
                and node.input[self.slots(node)[0]] in made
            ):
                found.append(index)
        first = self.scope.first
        return [at for at in found if at >= first] or [at for at in tables if at >= first]

    def affine(self, tensor: str) -> Iterator[tuple[onnx.NodeProto, list[str]]]:
        """The operations by constants in a row behind a tensor, with their constants."""
        while tensor not in self.outputs and len(self.readers.get(tensor, ())) == 1:
            node = self.nodes[self.readers[tensor][0]]
            others = [name for name in node.input if name != tensor]
            if operator_of(node) in QUANTIZED_AFFINE and tensor in (node.input[0], node.input[3]):
                if not self.constants.issuperset(filter(None, others)):
                    return
                yield node, [node.input[3 if tensor == node.input[0] else 0]]
                tensor = node.output[0]
                continue
            if node.op_type == "Cast" and operator_of(self.makers[tensor]) in _SUMS:
                scaling = self._scaling(node.output[0])
                if scaling is None:
                    return
                yield node, []
                yield scaling
                tensor = scaling[0].output[0]
                continue
            if node.domain not in ("", "ai.onnx") or not self.constants.issuperset(others):
                return
            if node.op_type not in ("Add", "Mul", "BatchNormalization"):
                return
            yield node, others
            tensor = node.output[0]

    def ends(self, tensor: str) -> Iterator[tuple[str, list[str]]]:
        """A tensor, and what each of the operations of `affine` makes with which constants."""
        yield tensor, []
        for node, others in self.affine(tensor):
            yield node.output[0], others

    def bias_behind(self, tensor: str) -> tuple[int, int, str, int] | None:
        """The node, slot and name of a constant bias that the only reader of a tensor adds first.

        And which of its inputs the tensor is.
        """
        if tensor in self.outputs or len(self.readers.get(tensor, ())) != 1:
            return None
        index = self.readers[tensor][0]
        node = self.nodes[index]
        slot, count = _BIASED.get(operator_of(node), (0, 0))
        if tensor not in node.input[:count] or len(node.input) <= slot:
            return None
        place = list(node.input).index(tensor)
        if node.input[slot] not in self.constants:
            return None
        return index, slot, node.input[slot], place

    def _scaling(self, tensor: str) -> tuple[onnx.NodeProto, list[str]] | None:
        """The Mul that alone reads sums, by a scale found at run time, and its constant."""
        if tensor in self.outputs or len(self.readers.get(tensor, ())) != 1:
            return None
        node = self.nodes[self.readers[tensor][0]]
        if operator_of(node) != ("", "Mul"):
            return None
        (other,) = (name for name in node.input if name != tensor)
        if self._is_scale(other):
            return node, []
        maker = self.makers.get(other)
        if maker is None or operator_of(maker) != ("", "Mul"):
            return None
        constants = [name for name in maker.input if name in self.constants]
        scales = [name for name in maker.input if self._is_scale(name)]
        return (node, constants) if len(constants) == len(scales) == 1 else None

    def _is_scale(self, name: str) -> bool:
        maker = self.makers.get(name)
        dynamic = maker is not None and operator_of(maker) == ("", "DynamicQuantizeLinear")
        return maker is not None and dynamic and maker.output[1] == name


def reads(node: onnx.NodeProto) -> list[str]:
    """Every tensor that a node reads, in its subgraphs as well."""
    inner = [
        name
        for attribute in node.attribute
        for graph in (attribute.g, *attribute.graphs)
        for each in graph.node
        for name in reads(each)
    ]
    inner += [v.name for a in node.attribute for g in (a.g, *a.graphs) for v in g.output]
    return [name for name in (*node.input, *inner) if name]


def operator_of(node: onnx.NodeProto) -> tuple[str, str]:
    """Domain and type."""
    return node.domain.removeprefix("ai.onnx"), node.op_type


def is_closed(node: onnx.NodeProto) -> bool:
    """Whether a layer goes on with what its weights add up to."""
    if operator_of(node) == ATTENTION:
        return True
    if operator_of(node) not in {(_MICROSOFT, "FusedConv"), (_MICROSOFT, "FusedGemm")}:
        return False
    activated = any(a.name == "activation" and a.s for a in node.attribute)
    added = node.op_type == "FusedConv" and len(node.input) > 3 and bool(node.input[3])
    return activated or added


def integer_attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """The value of an attribute that is a whole number."""
    return next((a.i for a in node.attribute if a.name == name), default)
