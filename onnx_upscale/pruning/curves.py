"""Curves: per family the orders in which channels leave, and what that costs the outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_upscale.optimizer.analyze import Structure
from onnx_upscale.optimizer.analyze.facts import Read
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.optimizer.plan.cost import positions
from onnx_upscale.pruning.families import Family
from onnx_upscale.pruning.removal import RIDGE, Floats, Problem, Removal, remove, remove_together

SecondMoment = Callable[[Layer], Floats]
"""The centred second moment, per position, of what a layer reads, in the order of its weight
(inputs x window, or inputs alone); or its diagonal alone."""


@dataclass(frozen=True)
class Curves:
    """What the units of one family cost.

    Attributes:
        joint: The order in which all readers give up the same units; errors per reader.
        own: Per reader, the order in which it alone gives units up.
    """

    joint: Removal
    own: tuple[Removal, ...]


def find_curves(
    structure: Structure,
    families: Sequence[Family],
    second_moment: SecondMoment,
    sensitivity: Mapping[int, float],
    ridge: float = RIDGE,
    alone: bool = True,
) -> dict[int, Curves]:
    """Finds the curves of all families, one segment after the other.

    The error of a reader is per sample, over all its places, times its sensitivity.

    Args:
        structure: The structure of the model.
        families: Its families.
        second_moment: Gives second moments; called once per reader.
        sensitivity: s_r by node index.
        ridge: lambda, relative.
        alone: Whether orders of readers by themselves are wanted.

    Returns:
        Curves by family.
    """
    found: dict[int, Curves] = {}
    for segment in structure.segments:
        own = [family for family in families if family.segment == segment.id]
        taking: dict[int, list[Problem]] = {family.id: [] for family in own}
        for read in segment.readers:
            index = read.layer.node.index
            here = [f for f in own if any(p.layer.node.index == index for p in f.readers)]
            if here:
                units, problem = _problem(structure, read, second_moment(read.layer), ridge)
                for family in here:
                    chosen = np.searchsorted(units, family.roots)
                    whole = len(chosen) == len(units)
                    taking[family.id].append(problem if whole else problem.of_units(chosen))
        for family in own:
            found[family.id] = _curves(structure, family, taking.pop(family.id), sensitivity, alone)
    return found


def _curves(
    structure: Structure,
    family: Family,
    problems: Sequence[Problem],
    sensitivity: Mapping[int, float],
    alone: bool,
) -> Curves:
    graph = structure.graph
    scales = []
    for party in family.readers:
        tensor, axis = party.layer.stepping
        places = positions(graph, tensor, () if axis is None else (axis,))
        scales.append(places * sensitivity.get(party.layer.node.index, 0.0))
    joint = _scaled(remove_together(problems, scales), scales)
    if len(problems) == 1 or not alone:
        separate = [Removal(joint.order, joint.errors[[place]]) for place in range(len(scales))]
    else:
        separate = [
            _scaled(remove(problem), [scale])
            for problem, scale in zip(problems, scales, strict=True)
        ]
    return Curves(joint, tuple(separate))


def _scaled(removal: Removal, scales: Sequence[float]) -> Removal:
    return Removal(removal.order, removal.errors * np.asarray(scales)[:, np.newaxis])


def _problem(
    structure: Structure, read: Read, second: Floats, ridge: float
) -> tuple[IntArray, Problem]:
    """A reader's units (roots, ascending), and the problem of removing them."""
    layer, graph = read.layer, structure.graph
    value = graph.value(layer.node, layer.weight_slot)
    assert value is not None
    weight = layer.by_group(value)[0].astype(np.float64)
    if len(second) != weight.shape[1] * weight.shape[2]:
        # One column per channel, spread over a window: the window makes rows.
        weight = weight.transpose(0, 2, 1).reshape(-1, weight.shape[1], 1)
    window = weight.shape[2]
    inputs = structure.roots[read.inputs]
    units, counts = np.unique(inputs, return_counts=True)
    channels = np.argsort(inputs, kind="stable").reshape(len(units), counts[0])
    columns = (channels[..., np.newaxis] * window + np.arange(window)).reshape(-1)
    if not np.array_equal(columns, np.arange(len(columns))):
        second = second[columns] if second.ndim == 1 else second[np.ix_(columns, columns)]
    flat = weight.reshape(len(weight), -1)[:, columns]
    return units, Problem.of(flat.reshape(len(flat), len(units), -1), second, ridge)
