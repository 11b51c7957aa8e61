"""What keeps heads in step: who treats the same channel of all heads alike, or wants an order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnx_upscale.optimizer.analyze.bands import Band, arrays_of, find_bands
from onnx_upscale.optimizer.analyze.batches import batch_axis
from onnx_upscale.optimizer.analyze.facts import Axes, Facts
from onnx_upscale.optimizer.analyze.labels import distinct
from onnx_upscale.optimizer.analyze.rules.elementwise import BINARY, UNARY
from onnx_upscale.optimizer.load.fused import runs_as
from onnx_upscale.optimizer.load.graph import IntArray

if TYPE_CHECKING:
    from onnx_upscale.optimizer.analyze.structure import Structure

# What does the same to every head, whatever the order of its channels.
_SAME_IN_ANY_ORDER = frozenset(
    {"Attention", "Concat", "DequantizeLinear", "Einsum", "Expand", "Gather", "MatMul"}
    | {"QuantizeLinear", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Reshape", "Shape"}
    | {"Slice", "Split", "Squeeze", "Transpose", "Unsqueeze", *UNARY.split(), *BINARY.split()}
)
_QUANTIZED = {"QLinearAdd": "Add", "QLinearMatMul": "MatMul", "QLinearMul": "Mul"}
_NONE = -1


def free_bands(structure: Structure) -> tuple[Band, ...]:
    """Finds the bands whose order may differ from head to head.

    1. Every tensor that has the band has its heads beside it, as one axis, and all of them.
    2. No layer makes or reads its channels without their heads, and nobody wants their order.
    3. No constant has a value for each of its channels.
    4. Every node that reads it does the same in any order; a product takes one head after the
       other.
    5. What stands in several places of an axis is taken apart in whole copies.
    6. No Concat holds the axis that is split into heads, and nobody wants the order of that.

    Args:
        structure: The structure, in which all heads have the same order.
    """
    bands = tuple(find_bands(structure))
    if not bands:
        return ()
    seen = _Seen(structure, bands)
    for check in (_beside_heads, _in_whole_runs, _in_any_order, _in_flat_axes):
        check(seen)
    return tuple(band for number, band in enumerate(bands) if number not in seen.barred)


class _Seen:
    """Where bands and heads stand, and the bands that were found to be in step."""

    def __init__(self, structure: Structure, bands: Sequence[Band]) -> None:
        self.structure, self.bands = structure, bands
        self.barred: set[int] = set()
        count = len(structure.roots)
        self.band_of, self.heads_of = np.full(count, _NONE), np.full(count, _NONE)
        for number, band in enumerate(bands):
            self.band_of[band.roots] = number
        self.families = list({id(band.family): band.family for band in bands}.values())
        number_of = {id(family): number for number, family in enumerate(self.families)}
        self.family_of = [number_of[id(band.family)] for band in bands]
        for number, family in enumerate(self.families):
            for heads in family.heads:
                self.heads_of[heads] = number
        self.places: dict[str, dict[int, tuple[int, bytes]]] = {}

    def on(self, labels: IntArray) -> list[int]:
        """The bands on an axis."""
        return _numbers(self.band_of[self.structure.roots[labels]])


def _numbers(found: IntArray) -> list[int]:
    """The different numbers among some, in ascending order, without those that stand for none."""
    some = found[found != _NONE]
    return distinct(some).tolist() if some.size else []


def _beside_heads(seen: _Seen) -> None:
    """Rule 1; notes the axis of the heads in each tensor, counted from the end."""
    structure = seen.structure
    for tensor, axes in structure.axes.items():
        heads = _heads_on(seen, axes)
        rank = len(structure.graph.shapes[tensor])
        found: dict[int, tuple[int, bytes]] = {}
        times: dict[int, int] = {}
        for labels in axes.values():
            for band in seen.on(labels):
                times[band] = times.get(band, 0) + 1
                beside = heads.get(seen.family_of[band])
                if beside is None or times[band] > 1:
                    seen.barred.add(band)
                else:
                    found[band] = (beside - rank, structure.roots[axes[beside]].tobytes())
        if found:
            seen.places[tensor] = found


def _heads_on(seen: _Seen, axes: Axes) -> Mapping[int, int]:
    """By family, the one axis of a tensor that is its heads, all of them, in their order."""
    roots, found, others = seen.structure.roots, dict[int, int](), set[int]()
    for axis, labels in axes.items():
        for family in _numbers(seen.heads_of[roots[labels]]):
            heads = seen.families[family].heads
            if family in found or not any(np.array_equal(roots[labels], own) for own in heads):
                others.add(family)
            found[family] = axis
    return {family: axis for family, axis in found.items() if family not in others}


def _in_whole_runs(seen: _Seen) -> None:
    """Rule 5: a label stands in one and the same copy of its band wherever it stands."""
    roots = seen.structure.roots
    runs: list[dict[bytes, IntArray]] = [{} for _ in seen.bands]
    for labels in arrays_of(seen.structure).values():
        for band in seen.on(labels):
            for places in seen.bands[band].columns(roots[labels]):
                run = labels[places]
                runs[band][run.tobytes()] = run
    for band, own in enumerate(runs):
        labels = np.concatenate(list(own.values()))
        if len(distinct(labels)) < len(labels):
            seen.barred.add(band)


def _in_any_order(seen: _Seen) -> None:
    """Rules 2, 3 and 4, node by node."""
    for demand in seen.structure.demands:
        if demand.ordered:
            seen.barred.update(seen.on(demand.labels))
    for facts in seen.structure.facts:
        for each in (facts.read, facts.write, facts.grouped, facts.recurrence):
            for side in () if each is None else (each.inputs, each.outputs):
                if side is not None:
                    seen.barred.update(seen.on(side))
        for param in facts.params:
            constant = seen.structure.graph.value(facts.node, param.slot)
            if constant is not None and param.place(constant) is not None:
                seen.barred.update(seen.on(param.labels))
        _read_in_any_order(seen, facts)


def _read_in_any_order(seen: _Seen, facts: Facts) -> None:
    read: dict[int, list[tuple[int, int, bytes]]] = {}
    for slot, name in enumerate(facts.node.inputs):
        for band, place in seen.places.get(name, {}).items():
            read.setdefault(band, []).append((slot, *place))
    if not read:
        return
    operator = _QUANTIZED.get(facts.node.op, runs_as(facts.node))
    other = operator == facts.node.op and facts.node.domain
    if other or operator not in _SAME_IN_ANY_ORDER:
        seen.barred.update(read)
    elif operator in ("Einsum", "MatMul"):
        graph = seen.structure.graph
        for band, places in read.items():
            apart = {(batch_axis(graph, facts.node, *at), heads) for *at, heads in places}
            if len(apart) > 1 or any(axis is None for axis, _ in apart):
                seen.barred.add(band)


def _in_flat_axes(seen: _Seen) -> None:
    """Rule 6."""
    roots = seen.structure.roots
    fixed = np.zeros(len(roots), bool)
    for segment in seen.structure.segments:
        if segment.concatenations or any(demand.ordered for demand in segment.demands):
            fixed[segment.roots] = True
    for family in seen.families:
        for member in family.members:
            if fixed[roots[member.grid.flat]].any():
                seen.barred.update(seen.on(member.grid.factors[-1]))
