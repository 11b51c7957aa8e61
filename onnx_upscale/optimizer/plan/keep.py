"""Which channels to keep beyond those that are needed, so that counts suit the target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnx_upscale.optimizer.analyze import Analysis, Needs, Segment, Structure
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.plan.cost import Costs
from onnx_upscale.prices import Counts, Prices

# Keeping a channel can make others needed before it; few rounds settle that, and any is correct.
_ROUNDS = 4
# Besides Concat: what runs in the blocked layout, but on whole blocks only.
_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"})


@dataclass(frozen=True)
class _Axes:
    """The axes of tensors that hold each set of channels; sets are roots as bytes.

    Attributes:
        in_blocks: The sets that are concatenated or pooled.
        times: How many channels of a tensor each root of a set stands for, where that is not one:
            a root of a grouped convolution is a whole group.
    """

    in_blocks: frozenset[bytes]
    times: Mapping[bytes, int]


def align(analysis: Analysis, prices: Prices) -> Needs:
    """Keeps some channels that nobody needs, up to counts that the target's kernels like.

    Args:
        analysis: The analysis.
        prices: What work costs on the target.

    Returns:
        What is needed, and more.
    """
    structure, kept = analysis.structure, analysis.needs
    wanted, costs = np.zeros(0, np.int64), Costs(analysis.graph, prices)
    axes = _axes(structure)
    for _ in range(_ROUNDS):
        extra = [_extra(kept, segment, costs, axes) for segment in structure.segments]
        more = np.concatenate([*extra, np.zeros(0, np.int64)])
        if not more.size:
            break
        wanted = np.concatenate([wanted, more])
        kept = analysis.keeping(wanted)
    return kept


def _axes(structure: Structure) -> _Axes:
    roots = structure.roots
    blocked: list[IntArray] = []
    tied = np.zeros(len(roots), bool)
    for facts in structure.facts:
        for tie in facts.ties:
            tied[roots[tie.part]] = True
        if facts.concatenation is not None:
            blocked += facts.concatenation.parts
        if facts.node.op in _POOLS and 1 in facts.inputs.get(0, {}):
            blocked.append(facts.inputs[0][1])
    times: dict[bytes, int] = {}
    for labels in (labels for axes in structure.axes.values() for labels in axes.values()):
        if not len(labels) or not tied[roots[labels[0]]]:
            continue  # Elsewhere every root is one channel.
        own = np.unique(roots[labels])
        known = times.setdefault(own.tobytes(), len(labels) // len(own))
        times[own.tobytes()] = min(known, len(labels) // len(own))
    in_blocks = frozenset(np.unique(roots[axis]).tobytes() for axis in blocked)
    return _Axes(in_blocks, {own: count for own, count in times.items() if count > 1})


def _extra(kept: Needs, segment: Segment, costs: Costs, axes: _Axes) -> IntArray:
    before = set(segment.roots[kept.labels[segment.roots]].tolist())
    if len(before) == len(segment.roots):
        return np.zeros(0, np.int64)
    after = set(before)
    product = _only_products(segment)
    for roots in segment.sets:
        members = roots.tolist()
        count = sum(root in after for root in members)
        times = axes.times.get(roots.tobytes(), 1)
        counts = costs.prices.counts(count * times, product)
        if roots.tobytes() in axes.in_blocks:
            wanted = counts.whole
        elif len(members) < len(segment.roots):
            wanted = counts.aligned
        else:
            wanted = _fastest(kept, segment, costs, len(members) * times, counts)
        spare = [root for root in members if root not in after]
        after.update(spare[: -(-wanted // times) - count])
    return np.array(sorted(after - before), np.int64)


def _fastest(kept: Needs, segment: Segment, costs: Costs, channels: int, counts: Counts) -> int:
    """How many channels of a segment to keep: those needed, or more for faster kernels."""
    candidates = [counts.aligned]
    if counts.whole <= channels:
        candidates.append(counts.whole)
    if _only_layers(segment):
        candidates.insert(0, counts.least)
    return min(candidates, key=lambda count: _seconds(kept, segment, costs, count))


def _only_products(segment: Segment) -> bool:
    """Whether no convolution has to do with a segment."""
    layers = [writer.write.layer for writer in segment.writers]
    layers += [read.layer for read in segment.readers]
    return all(layer is None or layer.product for layer in layers)


def _only_layers(segment: Segment) -> bool:
    """Whether the layers of a segment are all there is to it.

    Only then may its counts be odd: a depthwise convolution or a Concat that has to leave the fast
    layout costs more than any layer gains.
    """
    layers = [writer.write.layer for writer in segment.writers]
    if segment.concatenations or segment.demands:
        return False
    return all(layer is not None and layer.groups == 1 for layer in layers)


def _seconds(kept: Needs, segment: Segment, costs: Costs, count: int) -> float:
    """What the layers of a segment cost with a count of channels between them."""

    def other(labels: IntArray | None, otherwise: int, product: bool) -> int:
        """The channels on a layer's other side, which will be aligned if they can be."""
        if labels is None:
            return otherwise
        there = int(kept.labels[labels].sum())
        return min(costs.prices.counts(there, product).aligned, len(labels))

    total = 0.0
    for writer in segment.writers:
        layer = writer.write.layer
        if layer is not None and layer.groups == 1:
            inputs = other(writer.write.inputs, layer.inputs, layer.product)
            total += costs.layer(layer, inputs, count)
    for read in segment.readers:
        made = other(read.outputs, read.layer.outputs, read.layer.product)
        total += costs.layer(read.layer, count, made)
    return total
