"""Attention in one operator: whole heads leave, and channels of every head where sizes are free.

What the heads and the channels of each are is not said by axes but by attributes, so that a flat
axis is a grid of both, as behind the Reshape of an attention that is written out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from onnx_upscale.optimizer.analyze.context import Context, UnclearError
from onnx_upscale.optimizer.analyze.facts import Carry, Concatenation, How
from onnx_upscale.optimizer.analyze.rewrites import Count, Editor, Positions, changed
from onnx_upscale.optimizer.analyze.rules.layers import contract, need_constant_bias
from onnx_upscale.optimizer.analyze.rules.table import rule
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.layers import layer_of
from onnx_upscale.optimizer.load.pointwise import MICROSOFT

_TOKENS = "batches and tokens stay"

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Operand:
    """Queries, keys, values, or a result.

    Attributes:
        heads: Its heads.
        channels: The channels of each.
    """

    heads: IntArray
    channels: IntArray


@dataclass(frozen=True)
class _Attention:
    """How a node attends.

    Attributes:
        queries: The queries.
        keys: The keys; of fewer heads, each for as many queries in a row.
        values: The values, of as many heads as the keys.
        mask: Input slot of what is added to scores, with an axis of heads in some models.
        caches: Input slots of keys and values of earlier calls.
        presents: Outputs for those of later calls.
        scores: The output for scores.
        fixed: Whether all heads keep their channels.
    """

    queries: _Operand
    keys: _Operand
    values: _Operand
    mask: int
    caches: tuple[int, ...]
    presents: tuple[int, ...]
    scores: int
    fixed: bool = False


def _size(node: Context, slot: int, axis: int) -> int:
    size = node.shape(slot)[axis]
    if not isinstance(size, int):
        raise UnclearError("it is not known how many channels it has")
    return size


def _axis(node: Context, slot: int, axis: int) -> IntArray:
    """The channels of an input's axis; of one that nothing is known of, all are needed."""
    labels = node.axes(slot).get(axis)
    if labels is None:
        labels = node.unbound(_size(node, slot, axis))
        node.pin_part(slot, axis, labels, "made by what cannot change")
    return labels


def _parted(node: Context, flat: IntArray, heads: int) -> _Operand:
    """Takes heads and their channels apart."""
    if heads < 1 or len(flat) % heads:
        raise UnclearError("its channels are no whole heads")
    parted = _Operand(node.unbound(heads), node.unbound(len(flat) // heads))
    node.grid(flat, (parted.heads, parted.channels), splits=True)
    return parted


def _merge(node: Context, axis: int, made: _Operand) -> None:
    """Lays heads side by side."""
    flat = node.make(axis, len(made.heads) * len(made.channels))
    node.grid(flat, (made.heads, made.channels), splits=False)


def _attend(node: Context, how: _Attention) -> _Operand:
    """Couples heads and channels, and makes those of the result."""
    if node.used(how.scores):
        raise UnclearError("its scores are read")
    queries, keys, values = how.queries, how.keys, how.values
    if len(queries.channels) != len(keys.channels) or len(keys.heads) != len(values.heads):
        raise UnclearError("its queries, keys and values do not fit each other")
    each, rest = divmod(len(queries.heads), len(keys.heads))
    if rest:
        raise UnclearError("its heads do not share keys evenly")
    made = _Operand(node.unbound(len(queries.heads)), node.unbound(len(values.channels)))
    node.tie(made.heads, queries.heads)
    node.tie(made.channels, values.channels)
    node.tie(values.heads, keys.heads)
    if each == 1:
        node.tie(keys.heads, queries.heads)
    else:
        _share(node, keys.heads, queries.heads)
    cached = node.used(how.presents[0]) or node.used(how.presents[1])
    if cached or any(node.has(slot) for slot in how.caches):
        for labels in (keys.heads, keys.channels, values.channels):
            node.pin_part(0, 0, labels, "its caches hold all heads, with all of their channels")
    else:  # Behind earlier values that are not zero, no result would be.
        _zeros(node, values.heads.repeat(each), made.heads)
        _zeros(node, values.channels, made.channels)
    for slot in how.caches:
        node.pin_others(slot, set(), "what was cached before")
    if how.fixed:
        node.tie(queries.channels, keys.channels)
        for channels in (queries.channels, values.channels):
            node.pin_part(0, 0, channels, "it rotates pairs of channels, of heads of one size")
    else:
        node.contracts_pairs(queries.channels, keys.channels, 0)
        node.rewrite(partial(_keep_scale, queries.channels))
    _mask(node, how.mask, made.heads)
    return made


def _share(node: Context, shared: IntArray, heads: IntArray) -> None:
    """Of every group that shares a head the same places leave, or a group leaves as a whole."""
    groups, own = node.unbound(len(shared)), node.unbound(len(heads))
    node.tie(groups, shared)
    node.tie(own, heads)
    node.grid(own, (groups, node.unbound(len(heads) // len(shared))), splits=False)


def _zeros(node: Context, source: IntArray, made: IntArray) -> None:
    """What is zero among the values is zero in the result."""
    node.carry(Carry(How.ZERO, {2: source}, 0, made))


def _keep_scale(channels: IntArray, editor: Editor, positions: Positions) -> None:
    """Scores are scaled by the count of channels that there was, unless an attribute says how."""
    said = editor.attribute("scale")
    if len(positions(channels)) != len(channels) and (said is None or _is_default(editor, said)):
        editor.set_attribute("scale", 1 / math.sqrt(len(channels)))


def _is_default(editor: Editor, scale: float) -> bool:
    return scale == 0 and editor.node.domain == MICROSOFT


def _mask(node: Context, slot: int, heads: IntArray) -> None:
    """A mask may differ from head to head."""
    if not node.has(slot):
        return
    place = len(node.shape(slot)) - 3
    node.pin_others(slot, {place}, _TOKENS)
    if place < 0 or node.shape(slot)[place] == 1:
        node.pin_others(slot, set(), "the same for all heads")
        return
    if _size(node, slot, place) != len(heads):
        raise UnclearError("its mask does not fit its heads")
    if node.constant(slot) is not None:
        node.param(slot, place, heads)
    else:
        node.tie(_axis(node, slot, place), heads)


def _flat(node: Context, slot: int) -> IntArray:
    """The channels of an operand of the shape (batch, tokens, channels)."""
    if not node.has(slot) or len(node.shape(slot)) != 3:
        raise UnclearError("its queries, keys and values are packed in another way")
    node.pin_others(slot, {2}, _TOKENS)
    return _axis(node, slot, 2)


@rule("MultiHeadAttention", MICROSOFT)
def multi_head_attention(node: Context) -> None:
    """Heads of queries, keys and values leave together, and channels of every head."""
    heads = int(node.attribute("num_heads", 0))
    flats = [_flat(node, slot) for slot in (0, 1, 2)]
    if node.has(3):
        flats = _biased(node, 3, flats)
    queries, keys, values = (_parted(node, flat, heads) for flat in flats)
    for slot in (4, 8, 9):
        node.pin_others(slot, set(), _TOKENS)
    made = _attend(node, _Attention(queries, keys, values, 5, (6, 7), (1, 2), 3))
    _count(node, "num_heads", made.heads)
    _merge(node, 2, made)


def _biased(node: Context, slot: int, flats: Sequence[IntArray]) -> list[IntArray]:
    """Adds a bias that lies in one piece."""
    bias = node.constant(slot)
    if bias is None or bias.shape != (sum(map(len, flats)),):
        raise UnclearError("its bias is not constant")
    made = []
    for place, flat in enumerate(flats):
        labels = node.unbound(len(flat))
        node.tie(labels, flat)
        known = {place: flat, slot: None}
        node.carry(Carry(How.EVALUATE, known, 0, labels, function=_plus))
        made.append(labels)
    node.param_of_parts(slot, 0, made)
    return made


def _plus(operands: Sequence[Values]) -> Values:
    return operands[0] + operands[1]


@rule("GroupQueryAttention", MICROSOFT)
def group_query_attention(node: Context) -> None:
    """Whole heads leave, as many of every group that shares keys, and whole groups."""
    if node.has(12) or node.has(13):
        raise UnclearError("its caches are quantized")
    counts = [int(node.attribute(name, 0)) for name in ("num_heads", "kv_num_heads")]
    counts.append(counts[1])
    flats = [_flat(node, slot) for slot in (0, 1, 2)] if node.has(1) else _unpacked(node, counts)
    queries, keys, values = map(partial(_parted, node), flats, counts)
    for slot in (5, 6, 7, 8, 9):
        node.pin_others(slot, set(), _TOKENS)
    made = _attend(node, _Attention(queries, keys, values, 10, (3, 4), (1, 2), 3, fixed=True))
    if node.has(11):
        if node.constant(11) is None or node.shape(11) != (len(made.heads),):
            raise UnclearError("its sinks are not constant")
        node.param(11, 0, made.heads)
    _count(node, "num_heads", made.heads)
    node.rewrite(Count("kv_num_heads", keys.heads))
    _merge(node, 2, made)


def _unpacked(node: Context, counts: Sequence[int]) -> list[IntArray]:
    """Queries, keys and values that lie on one axis, in this order."""
    whole = _flat(node, 0)
    if sum(counts) < 1 or len(whole) % sum(counts):
        raise UnclearError("its channels are no whole heads")
    ends = np.cumsum(counts) * (len(whole) // sum(counts))
    parts = np.split(whole, ends[:-1])
    node.concatenates(Concatenation(tuple(parts), whole, fixed=True))
    return parts


@rule("Attention", MICROSOFT)
def packed_attention(node: Context) -> None:
    """Makes queries, keys and values with a weight of its own; whole heads leave from that."""
    layer = layer_of(node.graph, node.node)
    if layer is None:
        raise UnclearError("its weight is not constant")
    need_constant_bias(node, layer)
    if len(node.shape()) != 3 or node.shape()[2] != layer.inputs:
        raise UnclearError("its weight does not fit its input")
    each = layer.outputs // 3
    sizes = [int(size) for size in node.attribute("qkv_hidden_sizes", ()) or [each] * 3]
    if len(sizes) != 3 or sum(sizes) != layer.outputs:
        raise UnclearError("its weight does not fit its heads")
    node.pin_others(0, {2}, _TOKENS)
    packed = contract(node, layer, padded=False)
    assert packed is not None
    flats = np.split(packed, np.cumsum(sizes)[:-1])
    for slot in (3, 6):
        node.pin_others(slot, set(), _TOKENS)
    heads = int(node.attribute("num_heads", 0))
    queries, keys, values = (_parted(node, flat, heads) for flat in flats)
    fixed = bool(node.attribute("do_rotary", 0))
    made = _attend(node, _Attention(queries, keys, values, 5, (4,), (1, 1), 2, fixed))
    _count(node, "num_heads", made.heads)
    node.rewrite(partial(_count_hidden, flats))
    _merge(node, 2, made)


def _count_hidden(flats: Sequence[IntArray], editor: Editor, positions: Positions) -> None:
    """Says how many columns of the weight each of the three has."""
    if any(changed(flat, positions) for flat in flats):
        editor.set_attribute("qkv_hidden_sizes", [len(positions(flat)) for flat in flats])


@rule("Attention")
def attention(node: Context) -> None:
    """Heads leave together, of shared keys whole groups, and channels of every head."""
    names = ("q_num_heads", "kv_num_heads", "kv_num_heads")
    ranks = {len(node.shape(slot)) for slot in (0, 1, 2)}
    flat = ranks == {3}
    if flat:
        queries, keys, values = (
            _parted(node, _flat(node, slot), int(node.attribute(name, 0)))
            for slot, name in enumerate(names)
        )
    elif ranks == {4}:
        for slot in (0, 1, 2):
            node.pin_others(slot, {1, 3}, _TOKENS)
        queries, keys, values = (
            _Operand(_axis(node, slot, 1), _axis(node, slot, 3)) for slot in (0, 1, 2)
        )
    else:
        raise UnclearError("its operands are of different ranks")
    node.pin_others(6, set(), _TOKENS)
    made = _attend(node, _Attention(queries, keys, values, 3, (4, 5), (1, 2), 3))
    _count(node, "q_num_heads", made.heads)
    _count(node, "kv_num_heads", keys.heads)
    if flat:
        _merge(node, 2, made)
    else:
        node.move(1, made.heads)
        node.move(3, made.channels)


@rule("RotaryEmbedding")
def rotary_embedding(node: Context) -> None:
    """Rotates pairs of the channels of each head by its position: whole heads leave."""
    _rotate(node, int(node.attribute("num_heads", 0)))


@rule("RotaryEmbedding", MICROSOFT)
def rotary_embedding_of_onnxruntime(node: Context) -> None:
    """Rotates pairs of the channels of each head by its position: whole heads leave."""
    heads = int(node.attribute("num_heads", 0))
    if node.attribute("is_packed_batching", 0):
        raise UnclearError("its batches are packed")
    if len(node.shape()) == 3 and not node.attribute("rotary_embedding_dim", 0):
        # The caches tell how large a head is.
        width = 2 * _size(node, 2, 1)
        if heads and heads * width != node.shape()[2]:
            raise UnclearError("its caches do not fit its heads")
        heads = _size(node, 0, 2) // max(width, 1)
    _rotate(node, heads)


def _rotate(node: Context, heads: int) -> None:
    for slot in range(1, len(node.node.inputs)):
        node.pin_others(slot, set(), _TOKENS)
    rank = len(node.shape())
    if rank not in (3, 4):
        raise UnclearError("it rotates neither three axes nor four")
    node.pin_others(0, {1, 3} if rank == 4 else {2}, _TOKENS)
    if rank == 3 and 2 in node.axes(0):
        read = _parted(node, node.axes(0)[2], heads)
        made = _Operand(node.unbound(heads), node.unbound(len(read.channels)))
        node.tie(made.heads, read.heads)
        node.tie(made.channels, read.channels)
        node.carry(Carry(How.ZERO, {0: read.heads}, 2, made.heads))
        node.pin_part(0, 2, read.channels, "it rotates pairs of channels")
        _merge(node, 2, made)
        _count(node, "num_heads", made.heads)
    if rank == 4 and 1 in node.axes(0):
        _count(node, "num_heads", node.pass_on(1, node.axes(0)[1], How.ZERO))
    if rank == 4 and 3 in node.axes(0):
        node.pin(0, 3, "it rotates pairs of channels")
        node.pass_on(3, node.axes(0)[3])


def _count(node: Context, name: str, heads: IntArray) -> None:
    """An attribute counts heads, if it is there."""
    if node.attribute(name, 0):
        node.rewrite(Count(name, heads))
