"""Idioms: several nodes that exporters write for what is one step to a channel.

The node that ends an idiom gets a rule which says what the whole does with the tensor at its start;
nothing is said of the nodes between, which labels would not get through. Where channels leave,
others take the place of all; where none do, they stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx_upscale.optimizer.analyze.idioms.ends import find_ends
from onnx_upscale.optimizer.analyze.idioms.packing import find_packings
from onnx_upscale.optimizer.analyze.idioms.partition import find_partitions
from onnx_upscale.optimizer.analyze.idioms.shuffle import find_shuffles
from onnx_upscale.optimizer.analyze.idioms.transposition import find_transpositions
from onnx_upscale.optimizer.analyze.rules.table import Rule
from onnx_upscale.optimizer.analyze.sizes import Sizes
from onnx_upscale.optimizer.load.graph import Graph


@dataclass(frozen=True)
class Idioms:
    """All idioms of a graph.

    Attributes:
        rules: By the index of the node that ends one, what it does.
        inside: The indices of the nodes between.
    """

    rules: Mapping[int, Rule]
    inside: frozenset[int]


def find_idioms(graph: Graph, sizes: Mapping[str, Sizes]) -> Idioms:
    """Finds them.

    Args:
        graph: The graph.
        sizes: Which sizes the entries of shape vectors are.

    Returns:
        The idioms.
    """
    rules: dict[int, Rule] = {}
    inside: set[int] = set()
    for transposition in find_transpositions(graph, sizes):
        rules[transposition.last.index] = transposition
        inside |= {transposition.first.index, transposition.between.index}
    for shuffle in find_shuffles(graph):
        rules[shuffle.last.index] = shuffle
        inside |= {shuffle.first.index, shuffle.between.index}
    for packing in (*find_packings(graph), *find_partitions(graph)):
        rules.update({part.last.index: part for part in packing.parts})
        inside |= {node.index for node in packing.inside}
    for end in find_ends(graph):
        rules[end.last.index] = end
        inside.add(end.concat.index)
    return Idioms(rules, frozenset(inside))
