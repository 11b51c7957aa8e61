"""Which channels to keep beyond those that are needed, so that counts suit the target."""

from __future__ import annotations

import numpy as np

from onnx_upscale.analyze import Analysis, Segment
from onnx_upscale.load.graph import IntArray
from onnx_upscale.plan.cost import Costs
from onnx_upscale.plan.profile import Profile

# Keeping a channel can make others needed before it; few rounds settle that, and any is correct.
_ROUNDS = 4
# Besides Concat: what runs in the blocked layout, but on whole blocks only.
_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"})


def align(analysis: Analysis, profile: Profile) -> Analysis:
    """Keeps some channels that nobody needs, up to counts that the target's kernels like.

    Args:
        analysis: The analysis.
        profile: The target.

    Returns:
        The analysis with more channels needed.
    """
    wanted, costs = np.zeros(0, np.int64), Costs(analysis.graph, profile)
    in_blocks = _in_blocks(analysis)
    for _ in range(_ROUNDS):
        extra = [_extra(analysis, segment, costs, in_blocks) for segment in analysis.segments]
        more = np.concatenate([*extra, np.zeros(0, np.int64)])
        if not more.size:
            break
        wanted = np.concatenate([wanted, more])
        analysis = analysis.keeping(wanted)
    return analysis


def _in_blocks(analysis: Analysis) -> frozenset[bytes]:
    """The sets of channels (roots, as bytes) that are joined or pooled."""
    axes: list[IntArray] = []
    for facts in analysis.trace.facts:
        if facts.join is not None:
            axes += facts.join.parts
        if facts.node.op in _POOLS and 1 in facts.inputs.get(0, {}):
            axes.append(facts.inputs[0][1])
    return frozenset(np.unique(analysis.trace.roots[axis]).tobytes() for axis in axes)


def _extra(
    analysis: Analysis, segment: Segment, costs: Costs, in_blocks: frozenset[bytes]
) -> IntArray:
    needed, profile = analysis.needed, costs.profile
    kept = set(segment.roots[needed[segment.roots]].tolist())
    if len(kept) == len(segment.roots):
        return np.zeros(0, np.int64)
    before = set(kept)
    for roots in segment.sets:
        members = roots.tolist()
        count = sum(root in kept for root in members)
        if roots.tobytes() in in_blocks:
            wanted = -(-count // profile.block) * profile.block
        else:
            wanted = _fastest(analysis, segment, costs, len(members), count)
        spare = [root for root in members if root not in kept]
        kept.update(spare[: wanted - count])
    return np.array(sorted(kept - before), np.int64)


def _fastest(analysis: Analysis, segment: Segment, costs: Costs, channels: int, count: int) -> int:
    """How many channels of a set to keep: those needed, or more for faster kernels."""
    profile = costs.profile
    aligned, blocks = (-(-count // step) * step for step in (profile.align, profile.block))
    if channels < len(segment.roots):
        return aligned
    candidates = [aligned, blocks] if blocks <= channels else [aligned]
    if _only_layers(segment):
        candidates.insert(0, count)
    return min(candidates, key=lambda kept: _seconds(analysis, segment, costs, kept))


def _only_layers(segment: Segment) -> bool:
    """Whether the layers of a segment are all there is to it.

    Only then may its counts be odd: a depthwise convolution or a Concat that has to leave the fast
    layout costs more than any layer gains.
    """
    layers = [writer.write.layer for writer in segment.writers]
    if segment.joins or segment.demands:
        return False
    return all(layer is not None and layer.groups == 1 for layer in layers)


def _seconds(analysis: Analysis, segment: Segment, costs: Costs, count: int) -> float:
    """What the layers of a segment cost with a count of channels between them."""

    def other(labels: IntArray | None, otherwise: int) -> int:
        """The channels on a layer's other side, which will be aligned if they can be."""
        if labels is None:
            return otherwise
        kept, step = int(analysis.needed[labels].sum()), costs.profile.align
        return min(-(-kept // step) * step, len(labels))

    total = 0.0
    for writer in segment.writers:
        layer = writer.write.layer
        if layer is not None and layer.groups == 1:
            total += costs.layer(layer, other(writer.write.inputs, layer.inputs), count)
    for read in segment.readers:
        total += costs.layer(read.layer, count, other(read.outputs, read.layer.outputs))
    return total
