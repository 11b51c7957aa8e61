"""From masks of single weights to masks of channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onnx_upscale.errors import MaskError
from onnx_upscale.optimizer.load.layers import Layer, split_groups
from onnx_upscale.optimizer.load.masks import document
from onnx_upscale.optimizer.load.sides import Side
from onnx_upscale.optimizer.load.values import Array

BoolArray: TypeAlias = "npt.NDArray[np.bool_]"


@dataclass(frozen=True)
class Imported:
    """Masks, and what could not be said as one.

    Attributes:
        masks: Pruned channels by layer and side.
        warnings: One line each.
    """

    masks: Mapping[str, Mapping[str, list[int]]]
    warnings: tuple[str, ...] = ()

    @property
    def document(self) -> dict[str, Any]:
        """The masks in the form of a mask file."""
        masks = {
            key: {side: sorted(set(channels)) for side, channels in sides.items()}
            for key, sides in self.masks.items()
        }
        return document(masks)


@dataclass(frozen=True)
class Channels:
    """The channels of a layer whose weights are all masked.

    Attributes:
        sides: Pruned channels by side; a side without any is missing.
        ignored: How many masked weights are in no such channel.
    """

    sides: Mapping[str, list[int]]
    ignored: int


def masked_channels(mask: Array, layer: Layer | None, where: str) -> Channels:
    """The channels that a mask over the weight of a torch layer prunes.

    A channel is pruned when all of its weights are masked, on whichever side it is.

    Args:
        mask: Zero where a weight is masked, in the layout of torch: (outputs, inputs per group,
            ...), or (inputs, outputs per group, ...) for a transposed convolution.
        layer: The layer in the exported model; None stands for an ordinary, ungrouped one.
        where: What messages call the mask.

    Returns:
        The channels.

    Raises:
        MaskError: The mask does not fit the layer.
    """
    groups = 1 if layer is None else layer.groups
    transposed = layer is not None and layer.transposed
    if layer is not None:
        outs, ins = layer.outputs // groups, layer.inputs // groups
        wanted = (layer.inputs, outs) if transposed else (layer.outputs, ins)
        if mask.shape[:2] != wanted:
            expected, found = ("x".join(map(str, shape)) for shape in (wanted, mask.shape))
            raise MaskError(f"{where}: expected a mask of shape {expected}[x...], found {found}")
    weights: BoolArray = split_groups(mask.astype(bool), groups, transposed)
    kept = np.asarray(weights.any(-1))
    outputs, inputs = np.asarray(~kept.any(2)), np.asarray(~kept.any(1))
    covered = outputs[:, :, np.newaxis] | inputs[:, np.newaxis, :]
    pruned = {Side.INPUT: inputs.ravel(), Side.OUTPUT: outputs.ravel()}
    return Channels(
        {side.value: np.flatnonzero(gone).tolist() for side, gone in pruned.items() if gone.any()},
        int((~weights & ~covered[..., np.newaxis]).sum()),
    )
