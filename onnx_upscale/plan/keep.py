"""Which channels to keep beyond those that are needed, so that counts suit the target."""

from __future__ import annotations

import numpy as np

from onnx_upscale.analyze import Analysis, Segment
from onnx_upscale.load.graph import IntArray
from onnx_upscale.plan.profile import Profile

# Keeping a channel can make others needed before it; few rounds settle that, and any is correct.
_ROUNDS = 4


def align(analysis: Analysis, profile: Profile) -> Analysis:
    """Keeps some channels that nobody needs, up to counts that the target's kernels like.

    Args:
        analysis: The analysis.
        profile: The target.

    Returns:
        The analysis with more channels needed.
    """
    wanted = np.zeros(0, np.int64)
    for _ in range(_ROUNDS):
        extra = [_extra(analysis, segment, profile) for segment in analysis.segments]
        more = np.concatenate([*extra, np.zeros(0, np.int64)])
        if not more.size:
            break
        wanted = np.concatenate([wanted, more])
        analysis = analysis.keeping(wanted)
    return analysis


def _extra(analysis: Analysis, segment: Segment, profile: Profile) -> IntArray:
    needed = analysis.needed
    kept = set(segment.roots[needed[segment.roots]].tolist())
    if len(kept) == len(segment.roots):
        return np.zeros(0, np.int64)
    before = set(kept)
    joined = {part.tobytes() for join in segment.joins for part in _parts_of(analysis, join.parts)}
    for roots in segment.sets:
        step = profile.join_align if roots.tobytes() in joined else profile.align
        members = roots.tolist()
        missing = -sum(root in kept for root in members) % step
        if missing == 0 or missing == step:
            continue
        spare = [root for root in members if root not in kept]
        kept.update(spare[:missing])
    return np.array(sorted(kept - before), np.int64)


def _parts_of(analysis: Analysis, parts: tuple[IntArray, ...]) -> list[IntArray]:
    return [np.unique(analysis.trace.roots[part]) for part in parts]
