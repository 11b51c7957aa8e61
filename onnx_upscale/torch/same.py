"""Whether a module has the weights that were exported.

After `recover` and `prune`, readers have others than the module. But layers that lost nothing stay
as they are, the first of a network among them, so one layer that has kept its weight is enough.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from onnx_upscale.errors import UsageError
from onnx_upscale.torch.matching import Match
from onnx_upscale.torch.norms import folded_weight
from onnx_upscale.torch.values import NewLayer

_CLOSE = 1e-3
"""As a share of the largest weight; exporters round where they fold."""


def check_same(module: nn.Module, match: Match) -> None:
    """Refuses a module of which no layer has the weight that was exported.

    Args:
        module: The module, pruning made permanent.
        match: Where its layers are.

    Raises:
        UsageError: There is no layer with its weight.
    """
    if not match.layers:
        raise UsageError(
            "no layer of the module is in the result: is it the module that was exported?"
        )
    parts = dict(module.named_modules())
    for name, (layer, *_) in match.layers.items():
        stored = match.graph.constants.get(layer.node.inputs[layer.weight_slot])
        own = match.tensors[name].detach().numpy()
        if stored is None:
            continue
        stored = stored.T if stored.ndim == 2 and layer.weight_output_axis == 1 else stored
        new = NewLayer(own, None, np.arange(layer.outputs), None, layer.groups, layer.transposed)
        candidates = [own]
        if name in match.norms:
            norm: Any = parts[match.norms[name].path]
            if norm.running_var is not None:
                candidates.append(folded_weight(own, new, norm))
        for each in candidates:
            largest = np.abs(stored).max(initial=0.0)
            if each.shape == stored.shape and np.abs(each - stored).max() <= _CLOSE * largest:
                return
    first = match.path(next(iter(match.layers)))
    raise UsageError(
        f"layer '{first}', and all others, have other weights than were exported: the module was "
        "changed since, so export it again"
    )
