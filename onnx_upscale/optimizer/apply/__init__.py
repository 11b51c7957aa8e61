"""apply: carry out a plan on the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import onnx

from onnx_upscale.optimizer.analyze.facts import Facts
from onnx_upscale.optimizer.apply.bodies import Shared, as_body, give_back_names
from onnx_upscale.optimizer.apply.convolve import convolve
from onnx_upscale.optimizer.apply.copies import Copies
from onnx_upscale.optimizer.apply.editor import NodeEditor
from onnx_upscale.optimizer.apply.emit import Emitted, emit
from onnx_upscale.optimizer.apply.generated import rename_generated
from onnx_upscale.optimizer.apply.parts import read_in_parts
from onnx_upscale.optimizer.apply.pool import pool_first
from onnx_upscale.optimizer.apply.surgery import Surgery
from onnx_upscale.optimizer.apply.weights import Cut, cut_weights, write_constants
from onnx_upscale.optimizer.bodies import PlannedBody
from onnx_upscale.optimizer.load.bodies import Body, Place
from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.subgraphs import all_names
from onnx_upscale.optimizer.plan import (
    Convolve,
    Plan,
    PoolFirst,
    Select,
    SelectParts,
    Unblock,
    Widen,
    check_plan,
    is_empty,
)

__all__ = ["Emitted", "apply", "masked_model"]


def masked_model(graph: Graph, bodies: Iterable[tuple[Body, Graph]] = ()) -> onnx.ModelProto:
    """The original model with the masked weights zeroed, and nothing else changed.

    Args:
        graph: The graph seen through its masks.
        bodies: Its bodies, each with its graph seen through its masks.

    Returns:
        A new model.
    """

    def mask(surgery: Surgery) -> tuple[str, ...]:
        write_constants(surgery, {use: Cut() for use in surgery.graph.overrides})
        return ()

    return _emitted(graph, mask, [(body, seen, mask) for body, seen in bodies]).model


def apply(plan: Plan, bodies: Iterable[PlannedBody] = ()) -> Emitted:
    """Emits the model that a plan describes.

    Args:
        plan: The plan.
        bodies: The plans of bodies in it; others stay as they are.

    Returns:
        A new model; the one that was read is left as it is.

    Raises:
        PlanError: A plan contradicts itself.
    """
    inside = [(each.body, each.plan.analysis.graph, _carry_out(each.plan)) for each in bodies]
    return _emitted(plan.analysis.graph, _carry_out(plan), inside)


_Change: TypeAlias = "Callable[[Surgery], Iterable[str]]"
"""Changes a graph; gives the tensors whose shape is no longer the original one."""


def _emitted(
    graph: Graph, change: _Change, bodies: Sequence[tuple[Body, Graph, _Change]]
) -> Emitted:
    """Emits a graph, the innermost bodies first, so that it is known what they still read."""
    # Before version 4 initializers are inputs, which bodies have no place for.
    old = graph.model.ir_version < 4
    shared = Shared(all_names(graph.model.graph), only_main=old)

    def emit_at(place: Place, offset: int, graph: Graph, change: _Change) -> Emitted:
        surgery = Surgery(graph, shared.taken)
        below = list[Emitted]()
        for body, inner, own_change in bodies:
            if body.place[:-1] == place:
                made = emit_at(body.place, body.offset, inner, own_change)
                index, attribute = body.place[-1]
                placed = surgery.bodies.setdefault(offset + index, {})
                placed[attribute] = as_body(body, made.model.graph, shared)
                below.append(made)
        if not place:
            surgery.constants += shared.constants.values()
        own = emit(surgery, change(surgery))
        return Emitted(
            own.model,
            added=tuple(name for each in (*below, own) for name in each.added),
            gone=tuple(op for each in (*below, own) for op in each.gone),
        )

    emitted = emit_at((), 0, graph, change)
    give_back_names(emitted.model.graph, shared)
    rename_generated(emitted.model.graph)
    return emitted


def _carry_out(plan: Plan) -> _Change:
    check_plan(plan)

    def change(surgery: Surgery) -> list[str]:
        structure, layout = plan.analysis.structure, plan.layout
        copies = Copies(surgery)
        surgery.removed |= {
            facts.node.index for facts in structure.facts if is_empty(facts, layout)
        }
        live = [facts for facts in structure.facts if facts.node.index not in surgery.removed]
        cut_weights(surgery, plan, (facts.node.index for facts in live))
        for facts in live:
            _fit(surgery, copies, facts, plan)
        return [
            name
            for name, axes in structure.axes.items()
            if any(len(layout.positions(labels)) != len(labels) for labels in axes.values())
        ]

    return change


def _fit(surgery: Surgery, copies: Copies, facts: Facts, plan: Plan) -> None:
    editor = NodeEditor(surgery, facts.node)
    for rewrite in facts.rewrites:
        rewrite(editor, plan.layout.positions)
    for edit in plan.edits.get(facts.node.index, ()):
        if isinstance(edit, SelectParts):
            read_in_parts(surgery, copies, edit)
        elif isinstance(edit, Select):
            copies.select(edit)
        elif isinstance(edit, Widen):
            copies.widen(edit)
        elif isinstance(edit, Unblock):
            editor.set_attribute("axis", int(facts.node.attributes["axis"]) - edit.rank)
        elif isinstance(edit, Convolve):
            convolve(surgery, facts, plan)
        elif isinstance(edit, PoolFirst):
            pool_first(surgery, edit)
