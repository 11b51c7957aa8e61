"""The proof that an emitted model equals the masked model, from what load and plan know of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx

from onnx_upscale.optimizer.apply import masked_model
from onnx_upscale.optimizer.bodies import PlannedBody
from onnx_upscale.optimizer.load import Loaded
from onnx_upscale.optimizer.load.bodies import Place
from onnx_upscale.optimizer.load.masking import LayerMask
from onnx_upscale.optimizer.load.masks import Mask
from onnx_upscale.optimizer.plan import Plan
from onnx_upscale.optimizer.verify import (
    TINY,
    NodeMask,
    Verification,
    View,
    reference_model,
    unchanged,
    verify,
)
from onnx_upscale.options import Options
from onnx_upscale.running import input_sizes


def prove(
    loaded: Loaded,
    grown: Sequence[LayerMask],
    emitted: onnx.ModelProto,
    planned: Plan,
    bodies: Sequence[PlannedBody],
    options: Options,
) -> Verification:
    """Compares an emitted model with a reference that is made from the original alone.

    Args:
        loaded: The original model and its masks.
        grown: The masks that the strategy added.
        emitted: The emitted model.
        planned: Its plan, which says where its channels are.
        bodies: The plans of its bodies.
        options: How to compare.

    Returns:
        What was found.
    """
    original = loaded.graph.model
    sizes = input_sizes(original, options.inputs)
    added = [_node_mask(each) for each in grown]
    for inside in bodies:
        at, offset = inside.body.place, inside.body.offset
        added += [_node_mask(each, at, offset) for each in inside.grown]
    masked_by = (original, loaded.stated, added, sizes, options.seed)
    reference = reference_model(*masked_by)

    def compare(other: onnx.ModelProto, view: View, masks_matter: bool) -> Verification:
        return verify(
            reference,
            other,
            original=original,
            leaking=lambda: reference_model(*masked_by, leak=TINY),
            masks_matter=masks_matter,
            samples=options.samples,
            seed=options.seed,
            tolerance=options.tolerance,
            sizes=options.inputs,
            at=options.verify_at,
            view=view,
        )

    found = compare(emitted, planned.view, _masks_matter(loaded))
    if found.ok or reference is original:
        return found
    # Whose fault is it? The optimizer zeroes weights where the reference multiplies.
    seen = [(each.body, each.plan.analysis.graph) for each in bodies]
    masked = masked_model(planned.analysis.graph, seen)
    readings = compare(masked, unchanged, masks_matter=False)
    if readings.ok:
        return found
    failure = f"the masks themselves can be read in two ways: {readings.failure}"
    return replace(found, failure=failure)


def _node_mask(grown: LayerMask, place: Place = (), offset: int = 0) -> NodeMask:
    mask = Mask("", grown.side, "prune", grown.pruned)
    return NodeMask(grown.layer.node.index - offset, mask, place)


def _masks_matter(loaded: Loaded) -> bool:
    """Whether masks name more than is zero in the weights already, as those of an export do."""
    scopes = [(loaded.masks, loaded.graph), *((body.masks, body.graph) for body in loaded.bodies)]
    if not any(len(mask.pruned) for masks, _ in scopes for mask in masks):
        return any(masks for masks, _ in scopes)
    return not all(
        np.array_equal(override.original, override.values)
        for _, graph in scopes
        for override in graph.overrides.values()
    )
