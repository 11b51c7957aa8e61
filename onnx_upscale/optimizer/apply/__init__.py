"""apply: carry out a plan on the model."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from onnx_upscale.optimizer.analyze.facts import Facts
from onnx_upscale.optimizer.apply.convolve import convolve
from onnx_upscale.optimizer.apply.copies import Copies
from onnx_upscale.optimizer.apply.editor import NodeEditor
from onnx_upscale.optimizer.apply.emit import emit
from onnx_upscale.optimizer.apply.pool import pool_first
from onnx_upscale.optimizer.apply.surgery import Surgery
from onnx_upscale.optimizer.apply.weights import Cut, cut_weights, write_constants
from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.plan import (
    Convolve,
    Plan,
    PoolFirst,
    Select,
    Unblock,
    Widen,
    check_plan,
    is_empty,
)

__all__ = ["Emitted", "apply", "masked_model"]


@dataclass(frozen=True)
class Emitted:
    """The model that a plan describes.

    Attributes:
        model: The model.
        added: Names of the nodes in it that the original does not have.
    """

    model: onnx.ModelProto
    added: tuple[str, ...]


def masked_model(graph: Graph) -> onnx.ModelProto:
    """The original model with the masked weights zeroed, and nothing else changed.

    Args:
        graph: The graph seen through its masks.

    Returns:
        A new model.
    """
    surgery = Surgery(graph)
    write_constants(surgery, {use: Cut() for use in graph.overrides})
    model, _ = emit(surgery, ())
    return model


def apply(plan: Plan) -> Emitted:
    """Emits the model that a plan describes.

    Args:
        plan: The plan.

    Returns:
        A new model; the one that was read is left as it is.

    Raises:
        PlanError: The plan contradicts itself.
    """
    check_plan(plan)
    structure, layout = plan.analysis.structure, plan.layout
    surgery = Surgery(plan.analysis.graph)
    copies = Copies(surgery)
    surgery.removed |= {facts.node.index for facts in structure.facts if is_empty(facts, layout)}
    live = [facts for facts in structure.facts if facts.node.index not in surgery.removed]
    cut_weights(surgery, plan, (facts.node.index for facts in live))
    for facts in live:
        _fit(surgery, copies, facts, plan)
    reshaped = [
        name
        for name, axes in structure.axes.items()
        if any(len(layout.positions(labels)) != len(labels) for labels in axes.values())
    ]
    return Emitted(*emit(surgery, reshaped))


def _fit(surgery: Surgery, copies: Copies, facts: Facts, plan: Plan) -> None:
    editor = NodeEditor(surgery, facts.node)
    for rewrite in facts.rewrites:
        rewrite(editor, plan.layout.positions)
    for edit in plan.edits.get(facts.node.index, ()):
        if isinstance(edit, Select):
            copies.select(edit)
        elif isinstance(edit, Widen):
            copies.widen(edit)
        elif isinstance(edit, Unblock):
            editor.set_attribute("axis", int(facts.node.attributes["axis"]) - edit.rank)
        elif isinstance(edit, Convolve):
            convolve(surgery, facts, plan)
        elif isinstance(edit, PoolFirst):
            pool_first(surgery, edit)
