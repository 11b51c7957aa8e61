"""Sites: the sides of layers that can be pruned, and which of them are chosen."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from onnx_upscale.criteria.left_alone import before_outputs, computes
from onnx_upscale.errors import UsageError
from onnx_upscale.optimizer.analyze import Structure
from onnx_upscale.optimizer.load.formats import made_for_a_machine
from onnx_upscale.optimizer.load.graph import Graph, IntArray, Node
from onnx_upscale.optimizer.load.keys import layer_key
from onnx_upscale.optimizer.load.layers import Layer, layers
from onnx_upscale.optimizer.load.names import names_of
from onnx_upscale.optimizer.load.sides import Side
from onnx_upscale.optimizer.load.unmaskable import why_no_layers
from onnx_upscale.optimizer.load.values import Array


@dataclass(frozen=True)
class Site:
    """One side of one layer.

    Attributes:
        layer: The layer.
        side: The side.
        key: What a mask file calls the layer.
        labels: Labels of its channels, or None where the axis is opaque.
    """

    layer: Layer
    side: Side
    key: str
    labels: IntArray | None

    @property
    def channels(self) -> int:
        """How many channels the side has."""
        return self.layer.channels(self.side)

    def weight(self, graph: Graph) -> Array:
        """The weights of each channel, shape (channels, everything else).

        Args:
            graph: The graph.

        Returns:
            A view of the weight where numpy can make one.
        """
        value = graph.value(self.layer.node, self.layer.weight_slot)
        assert value is not None
        (grouped,) = self.layer.by_group(self.layer.real(value))
        rows: Array = np.moveaxis(grouped, 1 if self.side is Side.INPUT else 0, 0)
        return rows.reshape(self.channels, -1)


@dataclass(frozen=True)
class Sites:
    """What to prune, and what not.

    Attributes:
        chosen: The sites, in the order of the model.
        left: What layers are called that are left alone although nobody asked for that, by reason.
    """

    chosen: tuple[Site, ...]
    left: Mapping[str, tuple[str, ...]]


def find_sites(
    structure: Structure,
    side: str,
    chosen: Sequence[str] = (),
    skipped: Sequence[str] = (),
    repaired: bool = False,
) -> Sites:
    """Finds what to prune.

    1. Of all layers, those are taken that a pattern of `chosen` names (all if it is empty) and no
       pattern of `skipped` does.
    2. Of these, some are left alone: see `_REASONS`.

    Args:
        structure: The structure of the model.
        side: `input` or `output`.
        chosen: Patterns of layers, matched with all their names.
        skipped: Patterns of layers to leave alone.
        repaired: Whether what is pruned will get new weights: then those right before an output
            are no worse off than others.

    Returns:
        The sites, and what is left alone.

    Raises:
        UsageError: A pattern matches no layer, or no layer is left.
    """
    graph, side = structure.graph, Side(side)
    every = list(_sides(structure, side))
    names = [names_of(graph, site.layer) for site in every]
    _check_patterns("layers", chosen, names)
    _check_patterns("skip", skipped, names)
    outside = _made_of_inputs(graph) if side is Side.INPUT else _becoming_outputs(graph)
    last = frozenset[int]() if repaired else before_outputs(structure)
    sites: list[Site] = []
    left: dict[str, list[str]] = {}
    for site, called in zip(every, names, strict=True):
        matched = any(_matches(pattern, called) for pattern in chosen)
        if (chosen and not matched) or any(_matches(pattern, called) for pattern in skipped):
            continue
        named = any(pattern in called for pattern in chosen)
        layer = site.layer
        tensor = layer.node.outputs[0]
        if side is Side.INPUT:
            tensor = layer.node.input(layer.data_slot)
        holds = (
            layer.groups > 1,
            not named and computes(graph, layer),
            not named and tensor in outside,
            not matched and layer.node.index in last,
        )
        if any(holds):
            left.setdefault(_REASONS[side][holds.index(True)], []).append(site.key)
        else:
            sites.append(site)
    if not sites:
        why = made_for_a_machine(graph.model.graph.node)
        hint = f"; {why}" if why else ""
        if not every:
            none = why_no_layers(graph)
            if none is not None:
                raise UsageError(f"the model has no layer to prune: {none}")
            raise UsageError(f"the model has no layer that could lose channels{hint}")
        reasons = ", ".join(f"{len(keys)} {reason}" for reason, keys in left.items())
        others = len(every) - sum(map(len, left.values()))
        counts = ", ".join([*filter(None, [reasons]), *([f"{others} not chosen"] * (others > 0))])
        raise UsageError(
            f"no layer is left to prune on the {side} side: of {len(every)} layers {counts}; "
            f"`layers` chooses by name{hint}"
        )
    return Sites(tuple(sites), {reason: tuple(keys) for reason, keys in left.items()})


_BOTH = ("grouped", "arithmetic")
# Why layers are left alone. Only whole groups of a grouped one could go; what others are there to
# do is not to be pruned. All but the grouped are pruned where `layers` names them exactly, those
# right before an output where any pattern of it matches.
_REASONS: Mapping[Side, tuple[str, ...]] = {
    Side.INPUT: (*_BOTH, "at a model input", "right before an output"),
    Side.OUTPUT: (*_BOTH, "at a model output", "right before an output"),
}


def _sides(structure: Structure, side: Side) -> Iterator[Site]:
    graph, facts = structure.graph, {facts.node.index: facts for facts in structure.facts}
    for layer in layers(graph):
        if layer.node.input(layer.data_slot) in graph.constants:
            continue
        if side is Side.OUTPUT and (layer.weight_output_axis is None or not layer.node.outputs[0]):
            continue  # A recurrent layer may make nothing but what it ends as.
        read, write = facts[layer.node.index].read, facts[layer.node.index].write
        if side is Side.INPUT:
            labels = None if read is None else read.inputs
        else:
            labels = None if write is None else write.outputs
        yield Site(layer, side, layer_key(graph, layer), labels)


def _matches(pattern: str, names: Sequence[str]) -> bool:
    return any(pattern == name or fnmatchcase(name, pattern) for name in names)


def _check_patterns(option: str, patterns: Sequence[str], names: Sequence[Sequence[str]]) -> None:
    for pattern in patterns:
        if not any(_matches(pattern, called) for called in names):
            known = list(dict.fromkeys(name for called in names for name in called))
            close = _close(pattern, known) or known[:3]
            raise UsageError(
                f"`{option}` {pattern}: matches no layer; closest: {', '.join(close) or 'none'}"
            )


def _close(pattern: str, known: Sequence[str]) -> list[str]:
    """Names near a pattern, as a whole or in one of their parts."""
    wanted = pattern.strip("*")
    part_of: dict[str, str] = {}
    for name in known:
        for part in (name, *re.split(r"[./:]+", name)):
            part_of.setdefault(part, name)
    near = difflib.get_close_matches(wanted, part_of, n=6, cutoff=0.5)
    return list(dict.fromkeys(part_of[part] for part in near))[:3]


def _made_of_inputs(graph: Graph) -> set[str]:
    """Tensors that hold graph inputs, at most shifted, scaled, cut or moved by vectors."""
    inputs = (value.name for value in graph.model.graph.input)
    made = {name for name in inputs if name not in graph.constants}
    for node in graph.nodes:
        if _moves_only(graph, node) and any(name in made for name in node.inputs):
            made.update(name for name in node.outputs if name)
    return made


def _becoming_outputs(graph: Graph) -> set[str]:
    """Tensors that become graph outputs, at most shifted, scaled, cut or moved by vectors."""
    becoming = set(graph.outputs)
    for node in reversed(graph.nodes):
        if _moves_only(graph, node) and any(name in becoming for name in node.outputs):
            becoming.update(name for name in node.inputs if name and name not in graph.constants)
    return becoming


def _moves_only(graph: Graph, node: Node) -> bool:
    """Whether a node has no weights of its own: its constants are vectors at most."""
    return all(
        sum(size != 1 for size in graph.shapes.get(name, ())) <= 1
        for name in node.inputs
        if name in graph.constants
    )
