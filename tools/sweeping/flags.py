"""Flags that flow through a model, and what asks for them on the way back.

A `Flow` of a tensor says of each element whether it may be other than zero, and whether it varies
with the inputs. The second is differentiable: its gradient says what somebody asks for. Both are 0
or 1 at all times, so that nothing fades in a deep model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from build import Array


class _Binary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, asked: Tensor) -> Tensor:
        return (asked > 0).to(asked.dtype)


class _Gate(torch.autograd.Function):
    """Asks for nothing that is known, and tells who listens what is left."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, lets: Callable[[], Tensor], told: Callable[[Tensor], Tensor]
    ) -> Tensor:
        ctx.lets, ctx.told = lets, told
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, asked: Tensor) -> tuple[Tensor, None, None]:
        return ctx.told((asked > 0).to(asked.dtype) * ctx.lets()), None, None


class _Masked(torch.autograd.Function):
    """Zeros where masks say so; whether they are asked for is for the caller to say."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, cuts: Callable[[], bool]) -> Tensor:
        ctx.mask, ctx.cuts = mask, cuts
        return x * mask

    @staticmethod
    def backward(ctx: Any, asked: Tensor) -> tuple[Tensor, None, None]:
        return (asked * ctx.mask if ctx.cuts() else asked), None, None


def binary(x: Tensor) -> Tensor:
    """1 where it is more than 0, back and forth."""
    made: Tensor = _Binary.apply(x)
    return made


def gate(
    x: Tensor, lets: Tensor | Callable[[], Tensor], told: Callable[[Tensor], Tensor]
) -> Tensor:
    """The same; `told` hears what is asked for, where `lets` lets it, and may ask for more."""
    if isinstance(lets, Tensor):
        fixed = lets
        return gate(x, lambda: fixed, told)
    made: Tensor = _Gate.apply(x, lets, told)
    return made


@dataclass(frozen=True)
class Flow:
    """Flags of a tensor.

    Attributes:
        some: 1 where it may be other than zero.
        varies: 1 where it may change with the inputs.
    """

    some: Tensor
    varies: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Flow:
        """Both, moved or mixed in the same way."""
        with torch.no_grad():
            some = binary(function(self.some))
        return Flow(some, binary(function(self.varies)))

    def masked(self, mask: Tensor, cuts: Callable[[], bool]) -> Flow:
        """Both, where a mask keeps them."""
        return Flow(self.some * mask, _Masked.apply(self.varies, mask, cuts))

    def full(self) -> Flow:
        """The same, but that nothing is zero."""
        return Flow(torch.ones_like(self.some), self.varies)

    @staticmethod
    def of(value: Tensor) -> Flow:
        """The flags of a constant."""
        return Flow((value != 0).float(), torch.zeros(value.shape))


def join(*flows: Flow) -> Flow:
    """Of a sum of some: what any of them is."""
    some = sum(each.some for each in flows)
    varies = sum(each.varies for each in flows)
    return Flow(binary(torch.as_tensor(some)), binary(torch.as_tensor(varies)))


def product(one: Flow, other: Flow, times: Callable[[Tensor, Tensor], Tensor]) -> Flow:
    """Of a product, perhaps summed: nothing where one factor is zero."""
    with torch.no_grad():
        some = binary(times(one.some, other.some))
    terms = []
    if one.varies.requires_grad:
        terms.append(times(one.varies, other.some))
    if other.varies.requires_grad:
        terms.append(times(one.some, other.varies))
    return Flow(some, binary(torch.as_tensor(sum(terms, torch.zeros_like(some)))))


def not_absorbed(flow: Flow, value: Array, axis: int) -> Tensor:
    """What a reader asks for that adds known channels to its bias: all without one known value.

    Args:
        flow: Flags of a tensor.
        value: The tensor in a run.
        axis: The axis of its channels.
    """
    channels = torch.from_numpy(np.asarray(value, np.float32)).movedim(axis, 0)
    rows = channels.reshape(len(channels), -1)
    apart = (rows - rows[:, :1]).abs().amax(1) > 1e-5 * rows.abs().amax(1)
    places = apart.reshape(-1, *[1] * (channels.dim() - 1)).expand(channels.shape)
    return torch.maximum(flow.varies.detach(), flow.some * places.movedim(0, axis))


def rectangle(asked: Tensor, axes: tuple[int, ...], lead: int) -> Tensor:
    """As much of each part as of the fullest: parts lie beside each other in one tensor.

    Args:
        asked: Flags.
        axes: Those along which all parts have the same count.
        lead: How many leading axes tell the parts.
    """
    for axis in axes:
        axis %= asked.dim()
        others = [each for each in range(lead, asked.dim()) if each != axis]
        used = asked.amax(others) if others else asked
        used = used.reshape(-1, asked.shape[axis]) > 0
        counts = used.sum(1)
        more = torch.where(counts > 0, counts.max() - counts, 0)
        spare = (~used).cumsum(1)
        filled = used | (~used & (spare <= more[:, None]))
        shape = [1] * asked.dim()
        shape[:lead] = asked.shape[:lead]
        shape[axis] = asked.shape[axis]
        alive = (asked.amax(axis, keepdim=True) > 0).to(asked.dtype)
        asked = torch.maximum(asked, filled.reshape(shape).to(asked.dtype) * alive)
    return asked
