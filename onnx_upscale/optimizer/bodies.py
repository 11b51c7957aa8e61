"""The bodies of If, Loop and Scan between load and apply: each a model of its own with a plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onnx_upscale.optimizer.analyze import Analysis
from onnx_upscale.optimizer.analyze import analyze as analyze_graph
from onnx_upscale.optimizer.load.bodies import Body
from onnx_upscale.optimizer.load.masking import LayerMask, mask_graph
from onnx_upscale.optimizer.plan import Plan, grow_masks, plan
from onnx_upscale.prices import Prices


@dataclass(frozen=True)
class PlannedBody:
    """A body and what becomes of it.

    Attributes:
        body: The body, seen through its masks.
        plan: Its plan.
        grown: The masks that the strategy added.
    """

    body: Body
    plan: Plan
    grown: tuple[LayerMask, ...]


def grown_analysis(analysis: Analysis, strategy: str) -> tuple[Analysis, tuple[LayerMask, ...]]:
    """What a strategy must equal: the analysis under its masks, and those that it adds."""
    if strategy != "constrained":
        return analysis, ()
    grown = grow_masks(analysis)
    return analysis.masked(mask_graph(analysis.graph, grown)), grown


def plan_bodies(bodies: Iterable[Body], strategy: str, prices: Prices) -> tuple[PlannedBody, ...]:
    """Plans bodies, as if each ran once.

    Args:
        bodies: The bodies.
        strategy: The strategy.
        prices: What work costs.
    """
    found = []
    for body in bodies:
        analysis, grown = grown_analysis(analyze_graph(body.graph), strategy)
        found.append(PlannedBody(body, plan(analysis, strategy, prices), grown))
    return tuple(found)
