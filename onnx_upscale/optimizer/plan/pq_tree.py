"""PQ-tree: every order of channels that keeps a family of sets contiguous.

After Booth and Lueker, "Testing for the consecutive ones property, interval graphs, and graph
planarity using PQ-tree algorithms", JCSS 13 (1976). The children of a P-node may stand in any
order, those of a Q-node in the one given or its reverse. Their templates are applied here not
bottom-up, one node after another, but in three steps:

1. *full*: which nodes hold only channels of the set, and which partial nodes hold full ones.
2. *check*: the partial nodes must form at most two chains that hang from the lowest node which
   holds the whole set. A node of a chain is torn in two, full side and empty side. A Q-node must
   have its full children at one end, the next node of the chain right beside them; the node all
   hangs from must have them side by side, with the chains outside.
3. *restructure*: each chain becomes one line of children of a Q-node: full parts from top to
   bottom, empty parts from bottom to top.

The tree is not changed before step 3, which cannot fail, so there is nothing to undo.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

# First and last node of a line of children.
_Part = tuple[int, int]

_NONE = -1


class _Tear(NamedTuple):
    """How one node of a chain falls apart.

    `full` holds its full children (of a Q-node: from its end inwards), `child` the next node of
    the chain, `empty` (Q-node only) the first child behind both. `_NONE` where there is none.
    """

    node: int
    full: list[int]
    child: int
    empty: int


class _Check(NamedTuple):
    """A set that can be made contiguous: where, and what has to be torn.

    `root` is the lowest node that holds the set, `full` its full children, `chains` the partial
    nodes below it from top to bottom, each with the neighbour outside of its topmost node.
    """

    root: int
    full: list[int]
    chains: list[tuple[list[_Tear], int]]


class PQTree:
    """All orders of channels 0..size-1 that keep the sets reduced so far contiguous.

    Nodes are numbers: below `size` a channel, `size` the root, above whatever reductions add.
    """

    def __init__(self, size: int) -> None:
        """Start with every order allowed.

        Args:
            size: Number of channels, at least 0.

        Raises:
            ValueError: If `size` is negative.
        """
        if size < 0:
            raise ValueError(f"a PQ-tree needs a size of at least 0, not {size}")
        self._size = size
        self._parent = [size] * size + [_NONE]
        self._count = [1] * size + [size]
        # The children of a P-node. A dict, since it deletes in O(1) and keeps the order.
        self._kids: dict[int, dict[int, None]] = {size: dict.fromkeys(range(size))}
        # The children of a Q-node are a line: each knows its neighbours and the Q-node the two
        # ends, without left or right. So parts are turned around and joined in O(1).
        self._near: dict[int, list[int]] = {}
        self._ends: dict[int, list[int]] = {}
        # A Q-node that was dissolved in another one. Its children keep it as their parent, and
        # look up here (union-find) whose they are now.
        self._merged = list(range(size + 1))

    def reduce(self, channels: IntArray) -> bool:
        """Keep only the orders in which `channels` stand side by side.

        Amortized O(len(channels) + nodes that hold some but not all of them), up to a logarithm.

        Args:
            channels: Channels of the set, shape (n,), in any order.

        Returns:
            Whether there are such orders. If not, the tree stays as it was.

        Raises:
            IndexError: If a channel is not in 0..size-1.
        """
        chosen = set(channels.tolist())
        wanted = sorted(chosen)
        if wanted and not 0 <= wanted[0] <= wanted[-1] < self._size:
            raise IndexError(f"channels {wanted[0]}..{wanted[-1]} in a tree of {self._size}")
        if len(wanted) in (0, 1, self._size):
            return True
        if self._kids[self._size].keys() >= chosen:  # As sets without anything in common are.
            self._bring_together(_Check(self._size, wanted, []))
            return True
        check = self._check(self._full(wanted))
        if check is None:
            return False
        self._restructure(check)
        return True

    def frontier(self) -> IntArray:
        """Return one of the orders (position -> channel), shape (size,)."""
        order: list[int] = []
        stack = [self._size]
        while stack:
            node = stack.pop()
            if node < self._size:
                order.append(node)
            elif self._kids[node]:
                stack.extend(reversed(self._kids[node]))
            elif self._size:
                stack.extend(self._walk(_NONE, self._ends[node][1]))
        return np.array(order, dtype=np.int64)

    # Step 1: full.

    def _full(self, channels: list[int]) -> dict[int, list[int]]:
        """Return the partial nodes that have full children, and these."""
        full: dict[int, list[int]] = {}
        covered: dict[int, int] = {}
        count, parents, merged = self._count, self._parent, self._merged
        nodes = channels.copy()
        for node in nodes:  # which grows: a node joins when its last child turns out full
            parent = parents[node]
            if merged[parent] != parent:
                parent = self._parent_of(node)
            if parent not in covered:
                covered[parent], full[parent] = count[node], [node]
            else:
                covered[parent] += count[node]
                full[parent].append(node)
            if covered[parent] == count[parent]:
                del full[parent]
                nodes.append(parent)
        return full

    # Step 2: check.

    def _check(self, full: dict[int, list[int]]) -> _Check | None:
        """Return what to tear, or None if the set cannot be made contiguous."""
        climbed = self._climb(full)
        if climbed is None:
            return None
        root, partial = climbed
        while root not in full and len(partial[root]) == 1:  # climbed further than necessary
            root = partial[root][0]
        tops = partial.get(root, [])
        outside = [_NONE] * len(tops)
        if not self._kids[root]:
            line = self._line(full.get(root, []) + tops)
            if line is None or any(top not in (line[0], line[-1]) for top in tops):
                return None
            outside = [self._beyond(line if top == line[-1] else line[::-1]) for top in tops]
        chains = [self._chain(top, full, partial) for top in tops]
        found = [(chain, out) for chain, out in zip(chains, outside, strict=True) if chain]
        return _Check(root, full.get(root, []), found) if len(found) == len(tops) else None

    def _climb(self, full: dict[int, list[int]]) -> tuple[int, dict[int, list[int]]] | None:
        """Find a node that holds the set, and the partial children of the nodes below it.

        All climb in turn, one step each, so that none gets further above the lowest such node
        than the others have come below it. None if there are more than two chains.
        """
        partial: dict[int, list[int]] = {}
        active = deque(full)
        at_root = fork = False
        while len(active) + at_root > 1:
            node = active.popleft()
            if node == self._size:
                at_root = True
                continue
            parent = self._parent_of(node)
            siblings = partial.setdefault(parent, [])
            if siblings and fork:
                return None
            fork = fork or bool(siblings)
            if not siblings and parent not in full:
                active.append(parent)
            siblings.append(node)
        return (active[0] if active else self._size), partial

    def _chain(
        self, node: int, full: dict[int, list[int]], partial: dict[int, list[int]]
    ) -> list[_Tear] | None:
        """Return how to tear the partial nodes from `node` down, or None if one cannot be."""
        chain: list[_Tear] = []
        while node != _NONE:
            below = partial.get(node, [_NONE])
            tear = self._tear(node, full.get(node, []), below[0]) if len(below) == 1 else None
            if tear is None:
                return None
            chain.append(tear)
            node = tear.child
        return chain

    def _tear(self, node: int, full: list[int], child: int) -> _Tear | None:
        """Return how to tear one node that is not the root of the set, or None."""
        if self._kids[node]:
            return _Tear(node, full, child, _NONE)
        line = self._line(full if child == _NONE else [*full, child])
        for side in () if line is None else (line, line[::-1]):
            if _NONE in self._near[side[0]] and child in (_NONE, side[-1]):
                rest = side if child == _NONE else side[:-1]
                return _Tear(node, rest, child, self._beyond(side))
        return None

    def _line(self, nodes: list[int]) -> list[int] | None:
        """Return children of one Q-node in their order, or None if others stand between them."""
        marked = set(nodes)
        start = nodes[0]
        left, right = (self._walk(start, neighbour, marked) for neighbour in self._near[start])
        line = [*reversed(left), start, *right]
        return line if len(line) == len(nodes) else None

    # Step 3: restructure.

    def _restructure(self, check: _Check) -> None:
        """Make the set contiguous as `check` says."""
        root = check.root
        if self._kids[root]:
            if not check.chains and len(check.full) == 1:
                return
            root = self._bring_together(check)
        for chain, outside in check.chains:
            self._splice(root, chain, outside)

    def _bring_together(self, check: _Check) -> int:
        """Give the full and partial children of a P-node a node of their own; return it."""
        root = check.root
        tops = [chain[0].node for chain, _ in check.chains]
        self._remove(root, check.full + tops)
        group = [self._group(check.full)] if check.full else []
        if not tops:
            self._adopt(root, group)
            return group[0]
        line = [*tops[:1], *group, *tops[1:]]
        node = root
        if self._kids[root]:
            node = self._new(sum(self._count[kid] for kid in line))
            self._adopt(root, [node])
        for kid in line:
            self._detach(kid, node)
        self._ends[node] = [line[0], line[-1]]
        for one, other in pairwise(line):
            self._swap(self._near[one], _NONE, other)
            self._swap(self._near[other], _NONE, one)
        return node

    def _splice(self, owner: int, chain: list[_Tear], outside: int) -> None:
        """Put the parts of a chain in the place of its topmost node among `owner`'s children."""
        top = chain[0].node
        inside = _other(self._near[top], outside)
        full: list[_Part] = []
        empty: list[_Part] = []
        for tear in chain:
            pull = self._pull_p if self._kids[tear.node] else self._pull_q
            full_parts, empty_parts = pull(tear, owner)
            full += full_parts
            empty += empty_parts
        parts = [*full, *reversed(empty)]
        self._swap(self._ends[owner] if inside == _NONE else self._near[inside], top, parts[0][0])
        self._swap(
            self._ends[owner] if outside == _NONE else self._near[outside], top, parts[-1][1]
        )
        befores = [inside, *(last for _, last in parts[:-1])]
        afters = [*(first for first, _ in parts[1:]), outside]
        for (first, last), before, after in zip(parts, befores, afters, strict=True):
            self._swap(self._near[first], _NONE, before)
            self._swap(self._near[last], _NONE, after)

    def _pull_p(self, tear: _Tear, owner: int) -> tuple[list[_Part], list[_Part]]:
        """Tear a P-node: full children in a node of their own, the rest stays where it is."""
        node = tear.node
        full: list[_Part] = []
        empty: list[_Part] = []
        gone = tear.full if tear.child == _NONE else [*tear.full, tear.child]
        self._count[node] -= sum(self._count[kid] for kid in gone)
        self._remove(node, gone)
        if tear.full:
            group = self._group(tear.full)
            self._detach(group, owner)
            full.append((group, group))
        if self._kids[node]:
            rest = next(iter(self._kids[node])) if len(self._kids[node]) == 1 else node
            self._detach(rest, owner)
            empty.append((rest, rest))
        return full, empty

    def _pull_q(self, tear: _Tear, owner: int) -> tuple[list[_Part], list[_Part]]:
        """Tear a Q-node: cut its line before and behind the next node of the chain."""
        node, _, child, behind = tear
        full: list[_Part] = []
        empty: list[_Part] = []
        line = tear.full if child == _NONE else [*tear.full, child]
        self._merged[node] = owner
        if tear.full:
            last = tear.full[-1]
            self._swap(self._near[last], behind if child == _NONE else child, _NONE)
            full.append((line[0], last))
        if behind != _NONE:
            self._swap(self._near[behind], line[-1], _NONE)
            empty.append((behind, _other(self._ends[node], line[0])))
        return full, empty

    # Nodes and lines.

    def _parent_of(self, node: int) -> int:
        """Return the P-node or Q-node above a node that is not the root."""
        merged = self._merged
        at = self._parent[node]
        while merged[at] != at:
            merged[at] = merged[merged[at]]
            at = merged[at]
        return at

    def _new(self, count: int) -> int:
        """Return a new node that holds `count` channels."""
        node = len(self._parent)
        self._parent.append(_NONE)
        self._count.append(count)
        self._kids[node] = {}
        self._merged.append(node)
        return node

    def _group(self, nodes: list[int]) -> int:
        """Return one node for all: themselves if single, else below a new P-node."""
        if len(nodes) == 1:
            return nodes[0]
        group = self._new(sum(map(self._count.__getitem__, nodes)))
        self._adopt(group, nodes)
        return group

    def _adopt(self, parent: int, nodes: list[int]) -> None:
        """Hang nodes below a P-node."""
        self._kids[parent].update(dict.fromkeys(nodes))
        for node in nodes:
            self._parent[node] = parent

    def _remove(self, parent: int, nodes: list[int]) -> None:
        """Take children away from a P-node."""
        kids = self._kids[parent]
        for node in nodes:
            del kids[node]

    def _detach(self, node: int, owner: int) -> None:
        """Make `node` a line of one among the children of Q-node `owner`."""
        self._parent[node] = owner
        self._near[node] = [_NONE, _NONE]

    def _walk(self, before: int, node: int, marked: set[int] | None = None) -> list[int]:
        """Return a line from `node` on, away from `before`, as far as it is marked."""
        line: list[int] = []
        while node != _NONE and (marked is None or node in marked):
            line.append(node)
            before, node = node, _other(self._near[node], before)
        return line

    def _beyond(self, line: list[int]) -> int:
        """Return the neighbour behind a part of a line. One of a single child starts the line."""
        return _other(self._near[line[-1]], line[-2] if len(line) > 1 else _NONE)

    @staticmethod
    def _swap(pair: list[int], old: int, new: int) -> None:
        """Replace one of two neighbours or ends."""
        pair[pair.index(old)] = new


def _other(pair: list[int], one: int) -> int:
    """Return the one of two that is not `one`."""
    return pair[1] if pair[0] == one else pair[0]
