"""The proof that an emitted model equals the masked model, from what load and plan know of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx

from onnx_upscale.optimizer.apply import masked_model
from onnx_upscale.optimizer.load import Loaded
from onnx_upscale.optimizer.load.masking import LayerMask
from onnx_upscale.optimizer.load.masks import Mask
from onnx_upscale.optimizer.plan import Plan
from onnx_upscale.optimizer.verify import (
    NodeMask,
    Verification,
    View,
    reference_model,
    unchanged,
    verify,
)
from onnx_upscale.options import Options
from onnx_upscale.running import input_sizes, random_inputs


def prove(
    loaded: Loaded,
    grown: Sequence[LayerMask],
    emitted: onnx.ModelProto,
    planned: Plan,
    options: Options,
) -> Verification:
    """Compares an emitted model with a reference that is made from the original alone.

    Args:
        loaded: The original model and its masks.
        grown: The masks that the strategy added.
        emitted: The emitted model.
        planned: Its plan, which says where its channels are.
        options: How to compare.

    Returns:
        What was found.
    """
    original = loaded.graph.model
    inputs = random_inputs(original, input_sizes(original, options.inputs), options.seed)
    added = [
        NodeMask(each.layer.node.index, Mask("", each.side, "prune", each.pruned)) for each in grown
    ]
    reference = reference_model(original, loaded.stated, added, inputs)

    def compare(other: onnx.ModelProto, view: View, masks_matter: bool) -> Verification:
        return verify(
            reference,
            other,
            original=original,
            masks_matter=masks_matter,
            samples=options.samples,
            seed=options.seed,
            tolerance=options.tolerance,
            sizes=options.inputs,
            at=options.verify_at,
            view=view,
        )

    found = compare(emitted, planned.view, bool(loaded.masks) and not _only_zeros(loaded))
    if found.ok or reference is original:
        return found
    # Whose fault is it? The optimizer zeroes weights where the reference multiplies.
    readings = compare(masked_model(planned.analysis.graph), unchanged, masks_matter=False)
    if readings.ok:
        return found
    failure = f"the masks themselves can be read in two ways: {readings.failure}"
    return replace(found, failure=failure)


def _only_zeros(loaded: Loaded) -> bool:
    """Whether masks name just what is zero in the weights already, as those of an export do."""
    return any(len(mask.pruned) for mask in loaded.masks) and all(
        np.array_equal(override.original, override.values)
        for override in loaded.graph.overrides.values()
    )
