"""Attention in one operator: what it multiplies are activations.

Only that of `com.microsoft` has a weight inside, with which it makes queries, keys and values: in
so far it is a layer (`fused`), whose work is not counted here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from onnx_upscale.declared import Shape
from onnx_upscale.optimizer.load.known import is_known
from onnx_upscale.optimizer.load.pointwise import MICROSOFT


@dataclass(frozen=True)
class _Slots:
    """What tells how much an operator multiplies.

    Attributes:
        keys: Input slot of the keys, or of what they are made of.
        past: Input slot of the keys of earlier calls.
        past_axis: Their axis of tokens.
        weight: Input slot of a weight for queries, keys and values.
    """

    keys: int
    past: int
    past_axis: int = 2
    weight: int | None = None


_SLOTS = {
    ("", "Attention"): _Slots(keys=1, past=4),
    (MICROSOFT, "Attention"): _Slots(keys=0, past=4, past_axis=3, weight=1),
    (MICROSOFT, "GroupQueryAttention"): _Slots(keys=1, past=3),
    (MICROSOFT, "MultiHeadAttention"): _Slots(keys=1, past=6),
}

ATTENTIONS = frozenset(_SLOTS)
"""Operators that attend, by domain and type."""

MAKES_OPERANDS = (MICROSOFT, "Attention")
"""The one of them that makes queries, keys and values itself."""


def _slots(node: onnx.NodeProto) -> _Slots | None:
    return _SLOTS.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))


def attention_reads(node: onnx.NodeProto) -> tuple[str, ...]:
    """The tensors whose shapes tell the multiply-adds of attention; none for other nodes."""
    slots = _slots(node)
    if slots is None:
        return ()
    given = (0, slots.keys, slots.past, slots.weight)
    names = (node.input[slot] for slot in given if slot is not None and slot < len(node.input))
    return (*filter(None, names), node.output[0])


def attention_work(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    """The multiply-adds of attention: of every query with every key, and with every value.

    Args:
        node: Any node.
        shapes: Shapes by tensor name.

    Returns:
        How many; none for other nodes, or where a size is not known.
    """
    slots = _slots(node)
    if slots is None or not all(is_known(shapes.get(name)) for name in attention_reads(node)):
        return 0

    def sizes(slot: int) -> list[int]:
        name = node.input[slot] if slot < len(node.input) else ""
        return [size for size in shapes.get(name) or () if isinstance(size, int)]

    queries, keys, past = sizes(0), sizes(slots.keys), sizes(slots.past)
    made = [size for size in shapes[node.output[0]] if isinstance(size, int)]
    if not keys:  # They are packed with the queries.
        keys, queries = queries, made
    tokens = keys[-2] + (past[slots.past_axis] if past else 0)
    if slots.weight is None:
        return tokens * (math.prod(queries) + math.prod(made))
    columns = sizes(slots.weight)[-1]
    hidden = next(
        (each.ints[0] for each in node.attribute if each.name == "qkv_hidden_sizes" and each.ints),
        columns // 3,
    )
    return math.prod(queries[:-1]) * tokens * (hidden + made[-1])
