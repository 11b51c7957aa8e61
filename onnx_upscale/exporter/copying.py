"""A copy of the user's module that may be changed: evaluation mode, pruning made permanent."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from onnx_upscale.errors import ModelError, UsageError

# The largest message protobuf can write, and so the largest model in one file.
_LARGEST = 2**31 - 1


def copy_of(model: Any) -> nn.Module:
    """Copies a module to the CPU, in evaluation mode; hooks are copied with it.

    Args:
        model: What should be a module.

    Returns:
        The copy.

    Raises:
        UsageError: It is no module.
        ModelError: It cannot be copied, or is too large for one ONNX file.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"expected a torch.nn.Module to export, found {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise UsageError(
            "TorchScript modules cannot be exported here: give the module that it was made from"
        )
    model = getattr(model, "_orig_mod", model)  # What torch.compile wraps: names have no prefix.
    size = sum(each.numel() * each.element_size() for each in _tensors(model))
    if size > _LARGEST:
        raise ModelError(
            f"the model has {size / 1e9:.1f} GB of weights: models above 2 GB are not supported, "
            "as ONNX files hold no more"
        )
    # Tensors that were computed, as pruning hooks and weight norm leave them, refuse to be copied.
    memo = {id(each): each.detach().clone() for each in _computed(_attributes(model))}
    try:
        copied = copy.deepcopy(model, memo).cpu()
    except Exception as error:  # Whatever the user's classes raise.
        reason = f"{type(error).__name__}: {error}"
        raise ModelError(f"the model cannot be copied: {reason}") from None
    copied.eval()
    return copied


def _attributes(model: nn.Module) -> Iterator[Any]:
    """The plain attributes of all modules in a module."""
    for module in model.modules():
        yield from vars(module).values()


def make_pruning_permanent(model: nn.Module) -> None:
    """Replaces what the hooks of `torch.nn.utils.prune` compute by parameters of those values.

    `prune.remove` is not used: it writes the masked values into the original parameter, which would
    prune other modules too where the parameter is shared.

    Args:
        model: A module, which is changed.
    """
    for module in model.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if not isinstance(hook, prune.BasePruningMethod):
                continue
            name = hook._tensor_name
            values = hook.apply_mask(module).detach()
            del module._forward_pre_hooks[key]
            del module._parameters[f"{name}_orig"]
            del module._buffers[f"{name}_mask"]
            delattr(module, name)
            setattr(module, name, nn.Parameter(values, requires_grad=False))


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _computed(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            if value.grad_fn is not None:
                yield value
        elif isinstance(value, (list, tuple)):
            yield from _computed(value)
        elif isinstance(value, dict):
            yield from _computed(value.values())
