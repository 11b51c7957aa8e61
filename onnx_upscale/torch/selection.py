"""A layer that picks the channels that it reads.

This file needs nothing but torch: a module that was saved finds its hook here again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

NAME = "kept_inputs"
"""The buffer of a layer that holds the channels that it reads, as places in what it is given."""


def select_inputs(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """A forward pre-hook: of its input, a layer sees the channels in `kept_inputs`.

    Args:
        module: A convolution or a linear layer.
        args: What it is called with.

    Returns:
        What it goes on with.
    """
    weight: Any = module.weight
    kept: Any = getattr(module, NAME)
    # Counted from the end, so that it does not matter whether there is a batch.
    return (args[0].index_select(1 - weight.dim(), kept), *args[1:])


def add_selection(layer: nn.Module, chosen: Tensor) -> None:
    """Lets a layer pick channels; where it does so already, of those.

    Args:
        layer: A convolution or a linear layer.
        chosen: Places in what it is given, int64 of shape (channels,).
    """
    held = layer._buffers.get(NAME)
    if held is not None:
        layer._buffers[NAME] = torch.take(held, chosen)
        return
    layer.register_buffer(NAME, chosen)
    layer.register_forward_pre_hook(select_inputs)
