"""Weights and masks that nothing can be fitted with."""

from __future__ import annotations

import numpy as np

from onnx_upscale.errors import MaskError, ModelError
from onnx_upscale.optimizer.load import Loaded
from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.layers import layers


def check_weights(graph: Graph) -> None:
    """Refuses a model whose layers have weights that are no numbers.

    Args:
        graph: The graph of the model.

    Raises:
        ModelError: There are infinities or NaNs.
    """
    for layer in layers(graph):
        value = graph.value(layer.node, layer.weight_slot)
        if value is not None and value.dtype.kind == "f" and not np.isfinite(value).all():
            name = layer.node.inputs[layer.weight_slot]
            raise ModelError(
                f"weight '{name}' of layer '{layer.node.title}' holds infinities or NaNs: repair "
                "or train the model first"
            )


def check_masks(loaded: Loaded) -> None:
    """Refuses masks on layers that nobody repairs: those in the bodies of If, Loop and Scan.

    Args:
        loaded: The model and its masks.

    Raises:
        MaskError: There are such masks.
    """
    for body in loaded.bodies:
        for mask in body.masks:
            raise MaskError(
                f"mask on '{mask.layer.node.title}' in '{body.path}': what the bodies of If, Loop "
                "and Scan compute is not repaired; leave such masks out, and give them when the "
                "recovered model is optimized"
            )
