"""The scale of the BatchNormalization next to a layer, per channel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_upscale.criteria.neighbours import follow
from onnx_upscale.criteria.scores import Scores
from onnx_upscale.criteria.sites import Site
from onnx_upscale.errors import UsageError
from onnx_upscale.optimizer.analyze import Structure
from onnx_upscale.optimizer.analyze.facts import Facts, same_axis
from onnx_upscale.optimizer.load.graph import Graph, IntArray, Node
from onnx_upscale.optimizer.load.sides import Side


def batch_norm_scales(structure: Structure, sites: Sequence[Site]) -> list[Scores]:
    """|gamma| (Liu et al., Network Slimming, ICCV 2017).

    On the output side that of the BatchNormalization that reads what the layer makes. On the
    input side that of the last one on the way to the layer; where several ways meet (an Add), the
    mean of theirs.

    Args:
        structure: The structure of the model.
        sites: What to score.

    Returns:
        Scores per site.

    Raises:
        UsageError: A layer has no BatchNormalization next to it.
    """
    before = _before(structure) if sites[0].side is Side.INPUT else np.empty(0)
    found = []
    for site in sites:
        if site.side is Side.OUTPUT:
            scales = _behind(structure.graph, site)
        else:
            scales = None if site.labels is None else before[site.labels]
        if scales is None or np.isnan(scales).any():
            where = "in front of" if site.side is Side.INPUT else "behind"
            raise UsageError(
                f"criterion bn: layer '{site.key}' has no BatchNormalization {where} it (exporters "
                "often fold it into the weights): export without folding, leave the layer out "
                "with `skip`, or use another criterion"
            )
        found.append(scales)
    return found


def _gamma(graph: Graph, node: Node) -> Scores | None:
    if node.domain or node.op != "BatchNormalization":
        return None
    gamma = graph.value(node, 1)
    return None if gamma is None else np.abs(gamma).astype(np.float64)


def _behind(graph: Graph, site: Site) -> Scores | None:
    for node in follow(graph, site.layer):
        gamma = _gamma(graph, node)
        if gamma is not None:
            return gamma
    return None


def _before(structure: Structure) -> Scores:
    """Per label, the scale of the last BatchNormalization on the way to it, or NaN."""
    scales = np.full(len(structure.roots), np.nan)
    for facts in structure.facts:
        gamma = _gamma(structure.graph, facts.node)
        made = facts.outputs.get(0, {}).get(1)
        if gamma is not None and made is not None:
            scales[made] = gamma
            continue
        for axes in facts.outputs.values():
            for axis in axes.values():
                rows = _arriving(facts, axis, scales)
                if rows:
                    scales[axis] = _mean(np.stack(rows))
    return scales


def _arriving(facts: Facts, axis: IntArray, scales: Scores) -> list[Scores]:
    """The scales of what a node makes an axis of, one row per input or block of it."""
    carried = [
        scales[labels]
        for carry in facts.carries
        if same_axis(carry.outputs, axis)
        for labels in carry.inputs.values()
        if labels is not None
    ]
    if carried:
        return carried
    rows: list[Scores] = []
    for tie in facts.ties:
        grid = (tie.outer, len(tie.part), tie.inner)
        if same_axis(tie.flat, axis):
            spread = np.broadcast_to(scales[tie.part][np.newaxis, :, np.newaxis], grid)
            rows.append(spread.ravel())
        elif same_axis(tie.part, axis):
            blocks = np.moveaxis(scales[tie.flat].reshape(grid), 1, 2)
            rows += list(blocks.reshape(-1, len(axis)))
    return rows


def _mean(rows: Scores) -> Scores:
    """The mean of what is known."""
    known = ~np.isnan(rows)
    mean: Scores = np.where(known, rows, 0).sum(0) / np.maximum(known.sum(0), 1)
    return np.where(known.any(0), mean, np.nan)
