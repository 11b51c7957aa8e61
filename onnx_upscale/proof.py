"""The proof that an emitted model equals the masked model, from what load and plan know of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import onnx

from onnx_upscale.optimizer.apply import masked_model
from onnx_upscale.optimizer.load import Loaded
from onnx_upscale.optimizer.load.masking import LayerMask
from onnx_upscale.optimizer.load.masks import Mask
from onnx_upscale.optimizer.plan import Plan
from onnx_upscale.optimizer.verify import (
    NodeMask,
    Tolerance,
    Verification,
    View,
    reference_model,
    unchanged,
    verify,
)
from onnx_upscale.running import input_sizes, random_inputs

Sizes: TypeAlias = "Mapping[str, tuple[int, ...]]"


@dataclass(frozen=True)
class Proof:
    """How to compare.

    Attributes:
        samples: How many random inputs to run.
        seed: Seed of the inputs.
        tolerance: How much may differ.
        sizes: Shapes of inputs with symbolic dimensions.
        at: Tensors to compare at as well.
    """

    samples: int
    seed: int
    tolerance: Tolerance
    sizes: Sizes | None
    at: Sequence[str]

    def of(
        self,
        loaded: Loaded,
        grown: Sequence[LayerMask],
        emitted: onnx.ModelProto,
        planned: Plan,
    ) -> Verification:
        """Compares an emitted model with a reference that is made from the original alone.

        Args:
            loaded: The original model and its masks.
            grown: The masks that the strategy added.
            emitted: The emitted model.
            planned: Its plan, which says where its channels are.

        Returns:
            What was found.
        """
        original = loaded.graph.model
        inputs = random_inputs(original, input_sizes(original, self.sizes), self.seed)
        added = [
            NodeMask(each.layer.node.index, Mask("", each.side, "prune", each.pruned))
            for each in grown
        ]
        reference = reference_model(original, loaded.stated, added, inputs)
        matter = bool(loaded.masks) and not _only_zeros(loaded)
        found = self._compare(reference, emitted, original, planned.view, matter)
        if found.ok or reference is original:
            return found
        # Whose fault is it? The optimizer zeroes weights where the reference multiplies.
        zeroed = masked_model(planned.analysis.graph)
        readings = self._compare(reference, zeroed, original, unchanged)
        if readings.ok:
            return found
        failure = f"the masks themselves can be read in two ways: {readings.failure}"
        return replace(found, failure=failure)

    def _compare(
        self,
        reference: onnx.ModelProto,
        emitted: onnx.ModelProto,
        original: onnx.ModelProto,
        view: View,
        masks_matter: bool = False,
    ) -> Verification:
        return verify(
            reference,
            emitted,
            original=original,
            masks_matter=masks_matter,
            samples=self.samples,
            seed=self.seed,
            tolerance=self.tolerance,
            sizes=self.sizes,
            at=self.at,
            view=view,
        )


def _only_zeros(loaded: Loaded) -> bool:
    """Whether masks name just what is zero in the weights already, as those of an export do."""
    return any(len(mask.pruned) for mask in loaded.masks) and all(
        np.array_equal(override.original, override.values)
        for override in loaded.graph.overrides.values()
    )
