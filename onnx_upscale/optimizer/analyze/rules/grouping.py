"""Which axes a Reshape merges and splits: groups of axes before and behind it.

Both sides of a group have the same count of positions, in the same order. A group ends where that
is certain: where both products of sizes so far are the same number, or the same polynomial.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from onnx_upscale.declared import Shape
from onnx_upscale.optimizer.analyze.context import UnclearError
from onnx_upscale.optimizer.load.polynomials import Polynomial, polynomial, product_of

Group: TypeAlias = "tuple[list[int], list[int]]"
"""Axes of the input, and the axes of the output that hold the same positions."""


def matching_groups(before: Shape, after: Shape) -> list[Group] | None:
    """Groups the axes of a tensor and of what a Reshape makes of it.

    Args:
        before: The shape of the tensor.
        after: The shape that it gets.

    Returns:
        The groups in order; None where nothing is certain.
    """
    groups, i, j = _matched(before, after)
    behind, end, last = _matched(before[i:][::-1], after[j:][::-1])
    end, last = len(before) - end, len(after) - last
    back = [
        (
            sorted(len(before) - 1 - axis for axis in sources),
            sorted(len(after) - 1 - axis for axis in targets),
        )
        for sources, targets in reversed(behind)
    ]
    if (i, j) == (end, last):
        return [*groups, *back]
    if 0 in before or 0 in after:
        return None
    if i == end or j == last:  # What has nothing to match has size one.
        if not groups:
            return None
        sources, targets = groups.pop()
        i, j = sources[0], targets[0]
    # What lies between holds the same positions too.
    return [*groups, (list(range(i, end)), list(range(j, last))), *back]


def _matched(before: Shape, after: Shape) -> tuple[list[Group], int, int]:
    """Groups from the first axes on, as far as they are certain, and how many axes they take."""
    groups: list[Group] = []
    i = j = 0
    while i < len(before) or j < len(after):
        if i < len(before) and j < len(after) and before[i] is not None and before[i] == after[j]:
            group: Group | None = [i], [j]
        else:
            group = _next_group(before, after, i, j)
        if group is None:
            break
        groups.append(group)
        i, j = i + len(group[0]), j + len(group[1])
    return groups, i, j


def _next_group(before: Shape, after: Shape, i: int, j: int) -> Group | None:
    sources: list[int] = []
    targets: list[int] = []
    left = right = polynomial(1)
    while not sources or not targets or left != right:
        grow_left = _grows_left(left, right) if sources and targets else not sources
        if grow_left is None:
            return None
        if grow_left and i + len(sources) == len(before):
            grow_left = False
        if not grow_left and j + len(targets) == len(after):
            grow_left = True
            if i + len(sources) == len(before):
                return (sources, targets) if left == right else None
        size = before[i + len(sources)] if grow_left else after[j + len(targets)]
        if size is None or size == 0:
            return None
        if grow_left:
            sources.append(i + len(sources))
            left *= polynomial(size)
        else:
            targets.append(j + len(targets))
            right *= polynomial(size)
    return sources, targets


def _grows_left(left: Polynomial, right: Polynomial) -> bool | None:
    """Whether the left side lacks a factor, or None where that is not certain."""
    if left.constant is not None and right.constant is not None:
        return left.constant <= right.constant
    if right.over(left) is not None:
        return True
    return False if left.over(right) is not None else None


def factors_around(
    sources: Sequence[int | str | None], place: int, targets: Sequence[int | str | None]
) -> tuple[int, int]:
    """How many positions of a group lie around each of those of one axis.

    Args:
        sources: Sizes of the axes of a group.
        place: Which of them is meant; its size is known.
        targets: Sizes of the axes that hold the same positions. Together with all others but one
            they tell a size that is not known.

    Returns:
        How often the axis is repeated as a whole, and each of its places.

    Raises:
        UnclearError: That is not known.
    """
    outer, inner = _count(sources[:place]), _count(sources[place + 1 :])
    channels, total = _count(sources[place : place + 1]), _count(targets)
    if channels and total and inner and outer is None:
        outer = total // (channels * inner)
    elif channels and total and outer and inner is None:
        inner = total // (channels * outer)
    if outer is None or inner is None:
        raise UnclearError("it merges or splits an axis of unknown size")
    return outer, inner


def _count(sizes: Sequence[int | str | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return product_of(known).constant if len(known) == len(sizes) else None
