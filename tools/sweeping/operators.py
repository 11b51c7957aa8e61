"""What operators mean for `Flow`s, as far as the models of the sweep have them.

Each function gets a `Call` and gives the flags of the first output. What is not here is taken to
ask for all it reads, and to make what varies everywhere: that makes the bound smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sweeping.flags import Flow, binary, join, product


@dataclass(frozen=True)
class Call:
    """One node: its operator, its attributes, and what it reads.

    Attributes:
        op: The operator.
        attributes: By name.
        flows: Flags of what is real, by slot; None for what is not.
        values: Values of what is whole, or constant, by slot; None where nobody knows.
        shape: Shape of the first output.
        outputs: Count of outputs.
    """

    op: str
    attributes: dict[str, Any]
    flows: list[Flow | None]
    values: list[Tensor | None]
    shape: tuple[int, ...]
    outputs: int

    @property
    def x(self) -> Flow:
        flow = self.flows[0]
        assert flow is not None
        return flow

    @property
    def real(self) -> list[Flow]:
        return [each for each in self.flows if each is not None]

    def value(self, slot: int) -> Tensor | None:
        return self.values[slot] if slot < len(self.values) else None

    def whole(self, slot: int, name: str) -> list[int] | None:
        """Whole numbers from an input or an attribute."""
        value = self.value(slot)
        if value is not None:
            return [int(each) for each in value.reshape(-1).tolist()]
        given = self.attributes.get(name)
        return [given] if isinstance(given, int) else given


Rule = Callable[[Call], "Flow | list[Flow]"]

KEEP_ZERO = (
    "Relu", "LeakyRelu", "Tanh", "Abs", "Neg", "Sqrt", "Sin", "Erf", "Elu", "Selu", "Celu", "Gelu",
    "HardSwish", "Mish", "Softsign", "Sign", "Floor", "Ceil", "Round", "Identity", "Cast",
    "Dropout", "ThresholdedRelu", "Swish", "PRelu",
)  # fmt: skip
FROM_ZERO = ("Sigmoid", "HardSigmoid", "Softplus", "Exp", "Cos", "Log", "Reciprocal")
SUMS = ("Add", "Sub", "Max", "Min", "Sum", "Mean")
REDUCTIONS = (
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare",
)  # fmt: skip


def spread(x: Tensor, axes: list[int]) -> Tensor:
    return x.mean(axes, keepdim=True).expand(x.shape) if axes else x


def _clip(call: Call) -> Flow:
    least, most = call.value(1), call.value(2)
    low = call.attributes.get("min", -math.inf) if least is None else float(least)
    high = call.attributes.get("max", math.inf) if most is None else float(most)
    flow = call.x.map(lambda x: x)
    return flow if low <= 0 <= high else flow.full()


def _mul(call: Call) -> Flow:
    one, other = call.real
    return product(one, other, torch.mul)


def _div(call: Call) -> Flow:
    if len(call.real) == 1:
        return call.x
    return product(call.real[0], call.real[1].full(), torch.mul)


def _pow(call: Call) -> Flow:
    return call.x.map(lambda x: x)


def _where(call: Call) -> Flow:
    _, one, other = call.flows
    assert one is not None and other is not None
    made = join(*(_broad(each, call.shape) for each in (one, other)))
    return Flow(made.some, made.varies)


def _broad(flow: Flow, shape: tuple[int, ...]) -> Flow:
    return flow.map(lambda x: x.expand(shape))


def _reduce(call: Call) -> Flow:
    axes = call.whole(1, "axes") or list(range(call.x.some.dim()))
    keep = bool(call.attributes.get("keepdims", 1))
    return call.x.map(lambda x: x.mean(axes, keepdim=keep))


def _softmax(call: Call) -> Flow:
    axis = call.attributes.get("axis", -1)
    return call.x.map(lambda x: spread(x, [axis])).full()


def _batch(call: Call) -> Flow:
    scale, bias, mean, _ = (value for value in call.values[1:5])
    assert scale is not None and bias is not None and mean is not None
    shape = [1, -1, *[1] * (call.x.some.dim() - 2)]
    factor = (scale != 0).float().reshape(shape)
    added = ((bias != 0) | ((mean != 0) & (scale != 0))).float().reshape(shape)
    flow = call.x.map(lambda x: x * factor)
    return Flow(binary(flow.some + added), flow.varies)


def _layer_norm(call: Call) -> Flow:
    rank = call.x.some.dim()
    axis = call.attributes.get("axis", -1) % rank
    return call.x.map(lambda x: spread(x, list(range(axis, rank)))).full()


def _rms_norm(call: Call) -> Flow:
    return Flow(call.x.some, _layer_norm(call).varies)


def _instance(call: Call) -> Flow:
    axes = list(range(2, call.x.some.dim()))
    return call.x.map(lambda x: spread(x, axes)).full()


def _group_norm(call: Call) -> Flow:
    groups = call.attributes["num_groups"]

    def mix(x: Tensor) -> Tensor:
        parts = x.reshape(x.shape[0], groups, -1)
        return spread(parts, [2]).reshape(x.shape)

    return call.x.map(mix).full()


def _pool(call: Call) -> Flow:
    kernel = call.attributes["kernel_shape"]
    size = len(kernel)
    pads = call.attributes.get("pads", [0] * 2 * size)
    strides = call.attributes.get("strides", [1] * size)
    dilations = call.attributes.get("dilations", [1] * size)
    average = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}[size]
    wide = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    around = [p for low, high in reversed(list(zip(pads[:size], pads[size:], strict=True)))
              for p in (low, high)]  # fmt: skip

    def pool(x: Tensor) -> Tensor:
        x = functional.pad(x, around)
        missing = []
        for axis in range(size):
            need = (call.shape[2 + axis] - 1) * strides[axis] + wide[axis] - x.shape[2 + axis]
            missing.append(max(need, 0))
        x = functional.pad(x, [p for extra in reversed(missing) for p in (0, extra)])
        return average(x, wide, strides)

    return call.x.map(pool)


def _resize(call: Call) -> Flow:
    if list(call.shape[:2]) != list(call.x.some.shape[:2]):
        raise NotImplementedError
    return call.x.map(lambda x: functional.interpolate(x, size=call.shape[2:], mode="nearest"))


def _sample(call: Call) -> Flow:
    axes = list(range(2, call.x.some.dim()))
    return call.x.map(lambda x: x.mean(axes, keepdim=True).expand(call.shape))


def _regions(call: Call) -> Flow:
    return call.x.map(lambda x: x.mean((0, 2, 3))[None, :, None, None].expand(call.shape))


def _reshape(call: Call) -> Flow:
    return call.x.map(lambda x: x.reshape(call.shape))


def _transpose(call: Call) -> Flow:
    order = call.attributes.get("perm") or list(range(call.x.some.dim()))[::-1]
    return call.x.map(lambda x: x.permute(order))


def _expand(call: Call) -> Flow:
    return call.x.map(lambda x: x.expand(call.shape))


def _concat(call: Call) -> Flow:
    axis = call.attributes["axis"]
    with torch.no_grad():
        some = torch.cat([each.some for each in call.real], axis)
    return Flow(some, torch.cat([each.varies for each in call.real], axis))


def _split(call: Call) -> list[Flow]:
    axis = call.attributes.get("axis", 0)
    size = call.x.some.shape[axis]
    parts = call.whole(1, "split")
    if parts is None:
        each = -(-size // call.outputs)
        parts = [min(each, size - start) for start in range(0, size, each)]
    some, varies = (flags.split(parts, axis) for flags in (call.x.some, call.x.varies))
    return [Flow(*both) for both in zip(some, varies, strict=True)]


def _slice(call: Call) -> Flow:
    shape = call.x.some.shape
    starts, ends = call.whole(1, "starts"), call.whole(2, "ends")
    assert starts is not None and ends is not None
    axes = call.whole(3, "axes") or list(range(len(starts)))
    steps = call.whole(4, "steps") or [1] * len(starts)
    flow = call.x
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = shape[axis]
        if step > 0:
            taken = list(range(size))[slice(start, end, step)]
        else:
            bounds = slice(start, None if end < -size else end, step)
            taken = list(range(size))[bounds]
        index = torch.tensor(taken, dtype=torch.long)
        flow = flow.map(partial(torch.index_select, dim=axis, index=index))
    return flow


def _gather(call: Call) -> Flow:
    axis = call.attributes.get("axis", 0) % call.x.some.dim()
    index = call.value(1)
    assert index is not None
    size = call.x.some.shape[axis]
    flat = (index.reshape(-1).long() + size) % size
    return call.x.map(lambda x: x.index_select(axis, flat).reshape(call.shape))


def _gather_elements(call: Call) -> Flow:
    axis = call.attributes.get("axis", 0)
    index = call.value(1)
    assert index is not None
    size = call.x.some.shape[axis]
    return call.x.map(lambda x: x.gather(axis, (index.long() + size) % size))


def _gather_nd(call: Call) -> Flow:
    index = call.value(1)
    if index is None or call.attributes.get("batch_dims", 0):
        raise NotImplementedError
    places = tuple(index.long().unbind(-1))
    return call.x.map(lambda x: x[places])


def _scatter_nd(call: Call) -> Flow:
    index, updates = call.value(1), call.flows[2]
    if index is None or updates is None:
        raise NotImplementedError
    places = tuple(index.long().unbind(-1))

    def put(x: Tensor, new: Tensor) -> Tensor:
        return x.index_put(places, new)

    return Flow(put(call.x.some, updates.some).detach(), binary(put(call.x.varies, updates.varies)))


def _pad(call: Call) -> Flow:
    pads = call.whole(1, "pads")
    assert pads is not None
    rank = call.x.some.dim()
    axes = call.whole(3, "none") or list(range(rank))
    around = [0] * 2 * rank
    for place, axis in enumerate(axes):
        at = 2 * (rank - 1 - axis % rank)
        around[at], around[at + 1] = pads[place], pads[place + len(axes)]
    if call.attributes.get("mode", b"constant") in (b"constant", "constant"):
        value = call.value(2)
        filled = value is not None and bool((value != 0).any())
        flow = call.x.map(lambda x: functional.pad(x, around))
        return flow.full() if filled else flow
    spatial = around[: 2 * (rank - 2)]
    return call.x.map(lambda x: functional.pad(x, spatial, mode="replicate"))


def _tile(call: Call) -> Flow:
    times = call.whole(1, "repeats")
    assert times is not None
    return call.x.map(lambda x: x.repeat(times))


def _space(call: Call) -> Flow:
    size = call.attributes["blocksize"]
    if call.op == "SpaceToDepth":
        n, c, h, w = call.x.some.shape
        cut = (n, c, h // size, size, w // size, size)
        return call.x.map(lambda x: x.reshape(cut).permute(0, 3, 5, 1, 2, 4).reshape(call.shape))
    if call.attributes.get("mode", b"DCR") in (b"CRD", "CRD"):
        return call.x.map(lambda x: functional.pixel_shuffle(x, size))
    n, c, h, w = call.x.some.shape
    cut = (n, size, size, c // size**2, h, w)
    return call.x.map(lambda x: x.reshape(cut).permute(0, 3, 4, 1, 5, 2).reshape(call.shape))


def _along(call: Call) -> Flow:
    axis = int(call.attributes.get("axis", -1))
    return call.x.map(lambda x: spread(x, [axis]))


def _cumulated(call: Call) -> Flow:
    (axis,) = call.whole(1, "axis") or [0]
    return call.x.map(lambda x: spread(x, [axis]))


def _same(call: Call) -> Flow:
    return call.x.map(lambda x: x)


RULES: dict[str, Rule] = {
    **dict.fromkeys(KEEP_ZERO, _same),
    **dict.fromkeys(FROM_ZERO, lambda call: _same(call).full()),
    **dict.fromkeys(SUMS, lambda call: join(*call.real)),
    **dict.fromkeys(REDUCTIONS, _reduce),
    "Mul": _mul, "Div": _div, "Pow": _pow, "Clip": _clip, "Where": _where,
    "Softmax": _softmax, "LogSoftmax": _softmax, "BatchNormalization": _batch,
    "LayerNormalization": _layer_norm, "RMSNormalization": _rms_norm,
    "InstanceNormalization": _instance, "GroupNormalization": _group_norm,
    "MaxPool": _pool, "AveragePool": _pool, "Resize": _resize, "Upsample": _resize,
    "GlobalAveragePool": lambda call: call.x.map(
        lambda x: x.mean(list(range(2, x.dim())), keepdim=True)
    ),
    "GlobalMaxPool": lambda call: call.x.map(
        lambda x: x.mean(list(range(2, x.dim())), keepdim=True)
    ),
    "GridSample": _sample, "RoiAlign": _regions, "LpNormalization": _along, "CumSum": _cumulated,
    "Reshape": _reshape, "Flatten": _reshape, "Squeeze": _reshape, "Unsqueeze": _reshape,
    "Transpose": _transpose, "Expand": _expand, "Concat": _concat, "Split": _split,
    "Slice": _slice, "Gather": _gather, "GatherElements": _gather_elements,
    "GatherND": _gather_nd, "ScatterND": _scatter_nd, "Pad": _pad, "Tile": _tile,
    "DepthToSpace": _space, "SpaceToDepth": _space,
}  # fmt: skip
