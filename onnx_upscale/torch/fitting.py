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
from onnx_upscale.torch.matching import Match, Norm
from onnx_upscale.torch.norms import unfold, unfold_beside
from onnx_upscale.torch.seen import Seen
from onnx_upscale.torch.selection import add_selection
from onnx_upscale.torch.values import NewLayer, Values


def fit(module: nn.Module, match: Match, values: Values) -> None:
    """Gives a module its new values.

    Args:
        module: A copy of the module that `match` speaks of; it is changed.
        match: Where its parameters are.
        values: The values.
    """
    parts = dict(module.named_modules())
    new: dict[str, Array] = dict(values.others)
    for name, layer in values.layers.items():
        norm = match.norms.get(name)
        if norm is None or not norm.folded:
            new[name] = layer.weight
            added = {path: _added(match, values, new, name, path) for path in match.callers[name]}
        elif norm.apart:
            new.update(_unfolded(parts, name, layer, norm.path))
            continue
        else:
            behind: Any = parts[norm.path]
            new[name], bias = unfold_beside(layer, behind)
            added = dict.fromkeys(match.callers[name], bias)
        for path, bias in added.items():
            _add(parts[path], path, bias, norm, new)
    _replace(parts, match, new)
    for name, layer in values.layers.items():
        for owner in match.callers[name]:
            _resize_layer(parts[owner], layer)
            if layer.chosen is not None:
                add_selection(parts[owner], torch.from_numpy(np.array(layer.chosen, np.int64)))
    for part in parts.values():
        for kind, resize in _RESIZE.items():
            if isinstance(part, kind):
                resize(part)


def count_channels(module: nn.Module, seen: Seen) -> None:
    """Lets normalizations that hold nothing expect the channels that they read.

    Args:
        module: The module; it is changed.
        seen: What its modules did.
    """
    for path, count in seen.channels.items():
        part: Any = module.get_submodule(path)
        part.num_features = count


def _unfolded(
    parts: Mapping[str, nn.Module], name: str, layer: NewLayer, behind: str
) -> dict[str, Array]:
    """The values of a layer and of the normalization that was folded into it."""
    path = name.rpartition(".")[0]
    norm: Any = parts[behind]
    bias: Any = parts[path].bias
    both = unfold(layer, None if bias is None else bias.detach().numpy(), norm)
    held = {
        name: both.weight,
        f"{path}.bias": both.bias,
        f"{behind}.weight": both.gamma,
        f"{behind}.bias": both.shift,
        f"{behind}.running_mean": both.mean,
        f"{behind}.running_var": both.variance,
    }
    return {key: value for key, value in held.items() if value is not None}


def _added(match: Match, values: Values, new: Mapping[str, Array], name: str, path: str) -> Array:
    """What a layer adds, in its node and in one behind it."""
    inside = {layer.node.index for layer in match.layers[name]}
    behind = any(index not in inside for index, _ in match.uses.get(f"{path}.bias", ()))
    found = (values.biases[path], new.get(f"{path}.bias") if behind else None)
    total: Array = np.zeros(len(values.layers[name].made))
    for each in found:
        total = total if each is None else total + each
    return total


def _add(part: Any, path: str, bias: Array, norm: Norm | None, new: dict[str, Array]) -> None:
    """Lets a layer add something: by its bias, by the mean behind it, or by a bias that it gets."""
    mean = "" if norm is None or not norm.apart else f"{norm.path}.running_mean"
    if part.bias is not None:
        new[f"{path}.bias"] = bias
    elif not bias.any():
        return
    elif mean in new:
        new[mean] = new[mean] - bias
    else:
        data = torch.from_numpy(np.array(bias)).to(part.weight.dtype)
        part.bias = nn.Parameter(data, part.weight.requires_grad)


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
