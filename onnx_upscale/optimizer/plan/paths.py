"""Order of channels by the path heuristic of UPSCALE (Wan et al., ICML 2023).

Readers are vertices, two of them linked where they need a channel in common. A path on which
only neighbours are linked is laid out as [only A][A and B][only B][B and C][only C]..., and every
reader on it is contiguous. The heaviest path, by channels covered, is laid out, then the heaviest
among the readers that share nothing with it, and so on; all others have to gather. A reader that
is a subset of another one is no vertex: it takes part in the order inside of that one, which is
found in the same way. So it is contiguous as long as a block boundary does not cut it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

# The heaviest such path is NP-hard to find. Partial paths of one length that are followed up;
# up to this many the search is exhaustive.
_BEAM = 1024
# Sets from whose count on a product finds quicker what they share.
_MANY = 128
# Readers that are compared with each other, which takes the square of their count.
_COMPARED = 512


def membership(size: int, sets: Sequence[IntArray]) -> npt.NDArray[np.bool_]:
    """Return which set holds which channel, shape (len(sets), size).

    Args:
        size: Number of channels.
        sets: Channels of each set, shapes (n,), in any order.

    Raises:
        IndexError: If a channel is not in 0..size-1.
    """
    member = np.zeros((len(sets), size), dtype=np.bool_)
    for row, channels in zip(member, sets, strict=True):
        if channels.size and channels.min() < 0:
            raise IndexError(f"channel {channels.min()} of {size}")
        row[channels] = True
    return member


def path_order(size: int, readers: Sequence[IntArray]) -> IntArray:
    """Return an order of channels that spares the readers on a path their copy.

    Args:
        size: Number of channels.
        readers: Channels that each reader needs, shapes (n,), in any order.

    Returns:
        Position -> channel, shape (size,). A permutation; what nobody asks for keeps its order.

    Raises:
        IndexError: If a channel is not in 0..size-1.
    """
    return order_of(membership(size, readers))


def order_of(member: npt.NDArray[np.bool_]) -> IntArray:
    """Return the same of readers whose `membership` is known.

    Of very many, those that need the most channels are laid out, and the others gather.
    """
    if len(member) > _COMPARED:
        largest = np.argsort(-member.sum(axis=1), kind="stable")[:_COMPARED]
        member = member[np.sort(largest)]
    shared = overlap(member)
    sizes = shared.diagonal()
    # Subsets are smaller, so their order is there when a reader asks for it.
    inner: dict[int, IntArray] = {}
    for reader in np.argsort(sizes, kind="stable").tolist():
        subsets = np.flatnonzero((shared[reader] == sizes) & (sizes < sizes[reader]))
        inner[reader] = _lay_out(member, shared, subsets, np.flatnonzero(member[reader]), inner)
    everything = np.arange(member.shape[1])
    return _lay_out(member, shared, np.arange(len(sizes)), everything, inner)


def as_bits(member: npt.NDArray[np.bool_]) -> list[int]:
    """Return sets as integers with one bit per channel, shape (sets, size) before.

    A few are quicker to intersect than by a product without BLAS, steadier than by one with it.
    """
    return [int.from_bytes(row.tobytes(), "big") for row in np.packbits(member, axis=1)]


def overlap(member: npt.NDArray[np.bool_]) -> IntArray:
    """Return how many channels two sets share, shape (sets, sets); sizes on the diagonal.

    Args:
        member: Which set holds which channel, shape (sets, size).
    """
    if len(member) > _MANY:
        ones = member.astype(np.float32)  # Exact: no set has 2 to the 24 channels.
        return (ones @ ones.T).astype(np.int64)
    bits = as_bits(member)
    shared = [[(one & other).bit_count() for other in bits] for one in bits]
    return np.array(shared, dtype=np.int64).reshape(len(bits), len(bits))


def _lay_out(
    member: npt.NDArray[np.bool_],
    shared: IntArray,
    readers: IntArray,
    channels: IntArray,
    inner: dict[int, IntArray],
) -> IntArray:
    """Return `channels`, those of disjoint paths of readers first.

    Args:
        member: Which reader needs which channel, shape (readers, size).
        shared: Channels shared by two readers, shape (readers, readers).
        readers: Readers to lay out, shape (n,). They need nothing but `channels`.
        channels: Channels in ascending order, shape (m,).
        inner: Order of the channels of each reader.
    """
    readers = readers[shared.diagonal()[readers] > 0]
    laid: list[IntArray] = []
    while readers.size:
        largest = readers[_largest(shared[np.ix_(readers, readers)])]
        path = largest[_heaviest_path(shared[np.ix_(largest, largest)])]
        laid += _blocks(member, path.tolist(), inner)
        readers = readers[~shared[np.ix_(readers, path)].any(axis=1)]
    rest = np.ones(member.shape[1], dtype=np.bool_)
    for block in laid:
        rest[block] = False
    return np.concatenate([*laid, channels[rest[channels]]])


def _largest(shared: IntArray) -> npt.NDArray[np.bool_]:
    """Return which readers are no proper subsets of others."""
    subset = shared == shared.diagonal()[:, None]
    outdone: npt.NDArray[np.bool_] = (subset & ~subset.T).any(axis=1)
    return ~outdone


def _heaviest_path(shared: IntArray) -> IntArray:
    """Return the vertices of a path that covers the most channels.

    Vertices of the path are linked only if neighbours on it, which is why sizes less overlaps
    of neighbours count its channels. All paths of a length are extended at once.

    Args:
        shared: Channels shared by two readers, shape (n, n). None is a proper subset.
    """
    linked = shared > 0
    sizes = shared.diagonal()
    paths = np.arange(len(sizes))[:, None]
    weight = sizes
    free = ~np.eye(len(sizes), dtype=np.bool_)
    best, most = np.zeros(0, dtype=np.int64), 0
    while len(paths):
        top = int(weight.argmax())
        if weight[top] > most:
            best, most = paths[top], int(weight[top])
        last = paths[:, -1]
        at, reader = np.nonzero(free & linked[last])
        longer = weight[at] + sizes[reader] - shared[last[at], reader]
        keep = np.argsort(-longer, kind="stable")[:_BEAM]
        at, reader, weight = at[keep], reader[keep], longer[keep]
        free = free[at] & ~linked[last[at]]
        paths = np.column_stack([paths[at], reader])
    return best


def _blocks(
    member: npt.NDArray[np.bool_], path: list[int], inner: dict[int, IntArray]
) -> list[IntArray]:
    """Return the channels of a path, block after block.

    A block that two readers share comes in the order of the first one, since it ends that one.
    """
    blocks: list[IntArray] = []
    for at, reader in enumerate(path):
        own = inner[reader]
        for before in path[max(at - 1, 0) : at]:
            own = own[~member[before, own]]
        for after in path[at + 1 : at + 2]:
            blocks.append(own[~member[after, own]])
            own = own[member[after, own]]
        blocks.append(own)
    return blocks
