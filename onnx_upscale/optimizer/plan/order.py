"""Choose an order of channels in which sets are contiguous: some must be, others should be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from onnx_upscale.optimizer.plan.paths import as_bits, membership, order_of
from onnx_upscale.optimizer.plan.pq_tree import PQTree

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def contiguous(order: IntArray, channels: IntArray) -> bool:
    """Return whether channels stand side by side, so that a slice can read them.

    Args:
        order: Position -> channel, shape (size,).
        channels: Distinct channels, shape (n,), in any order.
    """
    inside = np.isin(order, channels)
    return np.count_nonzero(inside) == channels.size and _adjoin(inside)


def _adjoin(inside: BoolArray) -> bool:
    """Return whether positions stand side by side."""
    at = inside.nonzero()[0]
    return at.size == 0 or int(at[-1] - at[0]) + 1 == at.size


def perfect_order(
    size: int,
    mandatory: Sequence[IntArray],
    wanted: Sequence[IntArray],
    value: Sequence[float],
) -> tuple[IntArray, list[bool]]:
    """Return an order that keeps mandatory sets contiguous and wanted ones where it can.

    A PQ-tree (Booth and Lueker, 1976) takes the mandatory sets, then the wanted ones, most
    valuable first, and skips those that contradict what it took. That finds a perfect order
    whenever there is one. Where there is none, a valuable set may shut out several that are
    worth more together, so the choice of `path_order` is tried first as well, and the better
    result returned: without mandatory sets never less than what `path_order` alone reaches.

    Args:
        size: Number of channels.
        mandatory: Channels of each mandatory set, shapes (n,), in any order.
        wanted: Channels of each wanted set, likewise.
        value: What each wanted set is worth when contiguous, at least 0.

    Returns:
        Position -> channel, shape (size,), and for each wanted set whether it is contiguous.

    Raises:
        IndexError: If a channel is not in 0..size-1.
        ValueError: If no order keeps all mandatory sets contiguous, or if `value` and `wanted`
            differ in length.
    """
    if len(value) != len(wanted):
        raise ValueError(f"{len(wanted)} wanted sets, but {len(value)} values")
    return perfect_order_of(membership(size, mandatory), membership(size, wanted), value)


def perfect_order_of(
    mandatory: BoolArray, wanted: BoolArray, value: Sequence[float]
) -> tuple[IntArray, list[bool]]:
    """Return the same of sets whose `membership` is known."""
    member = np.concatenate([mandatory, wanted])
    if len(member) < 2:
        return first_alike(np.any(member, axis=0)), [True] * len(wanted)
    part, parts = _parts(member)
    must, want = parts[: len(mandatory)], parts[len(mandatory) :]
    hopeless = _hopeless(mandatory, wanted)
    ranking = sorted(range(len(wanted)), key=lambda index: -value[index])
    ranking = [index for index in ranking if not hopeless[index]]
    frontier, taken = _take(part, must, want, ranking)
    if sum(taken) < len(ranking):
        by_path = order_of(wanted)
        laid = [_adjoin(inside[by_path]) for inside in wanted]
        ranking.sort(key=lambda index: not laid[index])
        other = _take(part, must, want, ranking)
        if _total(value, other[1]) > _total(value, taken):
            frontier, taken = other
    rank = np.empty_like(frontier)
    rank[frontier] = np.arange(len(frontier))
    return np.argsort(rank[part], kind="stable"), taken


def first_alike(inside: BoolArray) -> IntArray:
    """Return the order for one set: it or the others, whichever have the first channel.

    Args:
        inside: Whether the set holds a channel, shape (size,).
    """
    return np.argsort(inside != inside[:1], kind="stable")


def _hopeless(mandatory: BoolArray, wanted: BoolArray) -> list[bool]:
    """Return which wanted sets hold parts of three mandatory ones that have nothing in common.

    A set that is contiguous has two ends, so it can cut through two others at most. Sparing the
    tree such sets saves most of its time: it looks at each of their channels to find out.

    Args:
        mandatory: Which mandatory set holds which channel, shape (sets, size).
        wanted: Which wanted set holds which channel, likewise.
    """
    if not len(mandatory):
        return [False] * len(wanted)
    apart: list[int] = []
    held = 0
    for each in sorted(as_bits(mandatory), key=int.bit_count):
        if not each & held:
            apart.append(each)
            held |= each
    return [sum((own & each) not in (0, each) for each in apart) > 2 for own in as_bits(wanted)]


def _total(value: Sequence[float], taken: Sequence[bool]) -> float:
    """Return what the sets taken are worth."""
    return sum(worth for worth, was_taken in zip(value, taken, strict=True) if was_taken)


def _parts(member: BoolArray) -> tuple[IntArray, list[IntArray]]:
    """Merge channels that are in exactly the same sets: side by side they are in nobody's way.

    Args:
        member: Which set holds which channel, shape (sets, size).

    Returns:
        Channel -> part, shape (size,), parts numbered by their first channel; the parts of each
        set, in ascending order.
    """
    sets, size = member.shape
    bits = np.zeros((size, -(-sets // 64) * 64), np.bool_)
    bits[:, :sets] = member.T
    words = np.packbits(bits, axis=1).view(np.uint64)
    order = np.lexsort(words.T)
    ranked = words[order]
    new = np.ones(size, np.bool_)
    new[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    first = np.empty(size, np.int64)
    first[order] = order[new][np.cumsum(new) - 1]
    firsts = first == np.arange(size)
    number = np.cumsum(firsts) - 1
    return number[first], [row.nonzero()[0] for row in member[:, firsts]]


def _take(
    part: IntArray, must: Sequence[IntArray], want: Sequence[IntArray], ranking: Iterable[int]
) -> tuple[IntArray, list[bool]]:
    """Reduce a PQ-tree of parts by all mandatory sets, then by wanted ones in turn.

    Returns:
        Position -> part, and for each wanted set whether it could be taken.

    Raises:
        ValueError: If a mandatory set cannot be taken.
    """
    tree = PQTree(int(part.max(initial=-1)) + 1)
    known: dict[bytes, bool] = {}

    def take(parts: IntArray) -> bool:
        key = parts.tobytes()
        if key not in known:
            known[key] = tree.reduce(parts)
        return known[key]

    for index, parts in enumerate(must):
        if not take(parts):
            raise ValueError(
                f"mandatory set {index} cannot be contiguous together with those before it"
            )
    taken = {index: take(want[index]) for index in ranking}
    return tree.frontier(), [taken.get(index, False) for index in range(len(want))]
