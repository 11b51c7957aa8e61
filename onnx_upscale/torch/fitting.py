"""A copy of a module, given new values: its layers become as small as these are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.torch.matching import Match
from onnx_upscale.torch.norms import unfold
from onnx_upscale.torch.seen import Seen
from onnx_upscale.torch.selection import add_selection
from onnx_upscale.torch.values import NewLayer, Values


def fit(module: nn.Module, match: Match, seen: Seen, values: Values) -> None:
    """Gives a module its new values.

    Args:
        module: A copy of the module that `match` and `seen` speak of; it is changed.
        match: Where its parameters are.
        seen: What its modules did.
        values: The values.
    """
    parts = dict(module.named_modules())
    new: dict[str, Array] = dict(values.others)
    for name, layer in values.layers.items():
        path = match.path(name)
        norm_path = seen.norms.get(path)
        norm: Any = None if norm_path is None else parts[norm_path]
        old_bias: Any = parts[path].bias
        bias = None if old_bias is None else old_bias.detach().numpy()
        folded = norm is not None and _is_folded(match, f"{norm_path}.")
        if folded and norm.running_mean is not None:
            both = unfold(layer, bias, norm)
            new[name] = both.weight
            held = {
                f"{path}.bias": both.bias,
                f"{norm_path}.weight": both.gamma,
                f"{norm_path}.bias": both.shift,
                f"{norm_path}.running_mean": both.mean,
                f"{norm_path}.running_var": both.variance,
            }
            new.update({key: value for key, value in held.items() if value is not None})
            continue
        new[name] = layer.weight
        behind = f"{norm_path}.running_mean"
        added = new.get(f"{path}.bias") if _has_own_add(match, path) else None
        total = _sum(layer.bias, added)
        if bias is not None:
            new[f"{path}.bias"] = np.zeros(len(layer.made)) if total is None else total
        elif total is not None and total.any() and behind in new:
            new[behind] = new[behind] - total
        elif total is not None and total.any():
            for owner in match.owners[name]:
                part: Any = parts[owner]
                data = torch.from_numpy(np.array(total)).to(part.weight.dtype)
                part.bias = nn.Parameter(data, part.weight.requires_grad)
    _replace(parts, match, new)
    for name, layer in values.layers.items():
        for owner in match.owners[name]:
            _resize_layer(parts[owner], layer)
            if layer.chosen is not None:
                add_selection(parts[owner], torch.from_numpy(np.array(layer.chosen, np.int64)))
    for part in parts.values():
        for kind, resize in _RESIZE.items():
            if isinstance(part, kind):
                resize(part)


def _is_folded(match: Match, prefix: str) -> bool:
    return not any(name.startswith(prefix) for name in match.uses)


def _has_own_add(match: Match, path: str) -> bool:
    """Whether the bias of a layer is no input of its node, but is added behind it."""
    uses = match.uses.get(f"{path}.bias", ())
    inside = {layer.node.index for layer in match.layers[f"{path}.weight"]}
    return any(index not in inside for index, _ in uses)


def _sum(one: Array | None, other: Array | None) -> Array | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def _replace(parts: Mapping[str, nn.Module], match: Match, new: Mapping[str, Array]) -> None:
    for name, value in new.items():
        old = match.tensors.get(name)
        if old is None:
            continue
        own = name.rpartition(".")[2]
        data = torch.from_numpy(np.array(value)).to(old.dtype)
        owners = match.owners[name]
        here: Tensor = getattr(parts[owners[0]], own)
        made = nn.Parameter(data, here.requires_grad) if isinstance(here, nn.Parameter) else data
        for owner in owners:
            part = parts[owner]
            stores: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
            for held in stores:
                held.update({key: made for key, tensor in held.items() if tensor is here})


def _resize_layer(part: nn.Module, layer: NewLayer) -> None:
    changed: Any = part
    rows, columns = layer.weight.shape[:2]
    if isinstance(part, _ConvNd):
        changed.groups = layer.groups
        inputs, outputs = (columns * layer.groups, rows)
        if isinstance(part, _ConvTransposeNd):
            inputs, outputs = rows, columns * layer.groups
        changed.in_channels, changed.out_channels = inputs, outputs
    else:
        changed.in_features, changed.out_features = columns, rows


def _resize_norm(part: Any) -> None:
    held = part.weight if part.weight is not None else part.running_mean
    if held is not None:
        part.num_features = len(held)


def _resize_group_norm(part: Any) -> None:
    if part.weight is not None and len(part.weight) != part.num_channels:
        each = part.num_channels // part.num_groups
        part.num_channels = len(part.weight)
        part.num_groups = max(math.ceil(part.num_channels / each), 1)


def _resize_prelu(part: Any) -> None:
    part.num_parameters = len(part.weight)


def _resize_embedding(part: Any) -> None:
    part.num_embeddings, part.embedding_dim = part.weight.shape


_RESIZE: Mapping[type[nn.Module], Callable[[Any], None]] = {
    _NormBase: _resize_norm,
    nn.GroupNorm: _resize_group_norm,
    nn.PReLU: _resize_prelu,
    nn.Embedding: _resize_embedding,
}
