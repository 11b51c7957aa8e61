"""Why nothing leaves a model, whatever masks say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_upscale.optimizer.analyze.facts import Facts, Read
from onnx_upscale.optimizer.bodies import PlannedBody
from onnx_upscale.optimizer.load import Loaded
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.masking import LayerMask
from onnx_upscale.optimizer.load.sides import Side
from onnx_upscale.optimizer.load.unmaskable import why_no_layers
from onnx_upscale.optimizer.plan import Plan

_SHOWN = 3
_GROUPED = "only whole groups can leave, or as many channels of every group"


def why_nothing_leaves(
    loaded: Loaded, plan: Plan, bodies: Sequence[PlannedBody] = ()
) -> tuple[str, ...]:
    """Says why a plan removes nothing, layer by layer.

    Args:
        loaded: The model and its masks.
        plan: The plan.
        bodies: The plans of its bodies.

    Returns:
        One warning if masks were given and nothing leaves, or if callers may override all weights.
    """
    scopes = [("", plan, loaded.masks)]
    scopes += [(f"{each.body.path}/", each.plan, each.body.masks) for each in bodies]
    if not all(_is_idle(each) for _, each, _ in scopes):
        return ()
    layers = any(each.analysis.structure.layers for _, each, _ in scopes)
    none = None if layers else why_no_layers(plan.analysis.structure.graph)
    if none is not None:
        return (f"nothing is removed: {none}",)
    if not loaded.given:
        return ()
    if not any(masks for _, _, masks in scopes):
        return ("the masks name no layer, so nothing is removed",)
    why = [
        f"{path}{mask.layer.node.title} ({mask.side}): {_reason(each, mask)}"
        for path, each, masks in scopes
        for mask in masks
        if len(mask.pruned)
    ]
    if not why:
        return ("the masks prune no channel of any layer they name, so nothing is removed",)
    more = f"; and {len(why) - _SHOWN} more" if why[_SHOWN:] else ""
    return (f"nothing that is masked leaves the model: {'; '.join(why[:_SHOWN])}{more}",)


def _is_idle(plan: Plan) -> bool:
    """Whether every layer reads and makes all that it did."""
    reads = [facts.read for facts in plan.analysis.structure.facts if facts.read is not None]
    readings = [plan.readers.get(read.layer.node.index) for read in reads]
    return bool(plan.kept.labels.all()) and all(
        reading is not None and len(reading.positions) == read.layer.inputs
        for read, reading in zip(reads, readings, strict=True)
    )


def _reason(plan: Plan, mask: LayerMask) -> str:
    structure = plan.analysis.structure
    facts = structure.facts[mask.layer.node.index]
    labels = _labels(facts, mask.side)
    if labels is None:
        if mask.layer.groups > 1:
            return _GROUPED
        said = dict.fromkeys(demand.reason for demand in facts.demands)
        return next(iter(said), "it reads an input of the model, or its channels are not traced")
    pruned = structure.roots[labels[mask.pruned]]
    whole = dict.fromkeys(
        demand.reason
        for demand in structure.demands
        if np.isin(structure.roots[demand.labels], pruned).any()
    )
    if whole:
        return f"needed whole: {', '.join(list(whole)[:2])}"
    if mask.layer.groups > 1:
        return _GROUPED
    others = [
        each.node.title
        for each in structure.facts
        if each.read is not None
        and np.isin(structure.roots[_needed(plan, each.read)], pruned).any()
    ]
    within = [
        each.recurrence.layer.node.title
        for each in structure.facts
        if each.recurrence is not None
        and np.isin(structure.roots[each.recurrence.inputs], pruned).any()
    ]
    if within:
        return f"other hidden units of {within[0]} read these at the next step"
    if others:
        return f"{others[0]} reads these channels, and a copy without them costs more than it saves"
    return "they fill up a block of channels that the target computes as a whole"


def _needed(plan: Plan, read: Read) -> IntArray:
    """Labels of the channels that a reader takes to compute what is kept."""
    needed = plan.kept.reads.get(read.layer.node.index)
    return read.inputs[:0] if needed is None else read.inputs[needed]


def _labels(facts: Facts, side: Side) -> IntArray | None:
    if side is Side.INPUT:
        return None if facts.read is None else facts.read.inputs
    return None if facts.write is None else facts.write.outputs
