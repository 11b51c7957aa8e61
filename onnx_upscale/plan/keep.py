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
        step = profile.block if roots.tobytes() in in_blocks else profile.align
        members = roots.tolist()
        missing = -sum(root in kept for root in members) % step
        if missing == 0 or missing == step:
            continue
        if _better_as_it_is(analysis, segment, costs, len(members), missing):
            continue
        spare = [root for root in members if root not in kept]
        kept.update(spare[:missing])
    return np.array(sorted(kept - before), np.int64)


def _better_as_it_is(
    analysis: Analysis, segment: Segment, costs: Costs, channels: int, missing: int
) -> bool:
    """Whether a segment is faster in kernels that compute just the channels there are.

    Only where the layers of the segment are all there is to it: a depthwise convolution or a
    Concat that has to leave the fast layout costs more than any layer gains.
    """
    layers = [writer.write.layer for writer in segment.writers]
    if segment.joins or segment.demands or channels < len(segment.roots):
        return False
    if any(layer is None or layer.groups > 1 for layer in layers):
        return False
    count = int(analysis.needed[segment.roots].sum())

    def other(labels: IntArray | None, otherwise: int) -> int:
        """The channels on a layer's other side, which will be aligned if they can be."""
        if labels is None:
            return otherwise
        kept, step = int(analysis.needed[labels].sum()), costs.profile.align
        return min(-(-kept // step) * step, len(labels))

    def seconds(count: int) -> float:
        total = 0.0
        for writer in segment.writers:
            layer = writer.write.layer
            assert layer is not None
            total += costs.layer(layer, other(writer.write.inputs, layer.inputs), count)
        for read in segment.readers:
            total += costs.layer(read.layer, count, other(read.outputs, read.layer.outputs))
        return total

    return seconds(count) < seconds(count + missing)
