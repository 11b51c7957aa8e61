"""Every rule, by execution: Conv -> operator -> Conv, masked at random, against numpy's zeros.

The expected model is built anew with zeros written into its weights, so that nothing of the package
takes part in what is compared with. Each case also says how many channels must be gone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_upscale
from build import Floats, Net, input_values, run, weight_shape

STRATEGIES = ("auto", "upscale", "gather", "constrained")


def _loads(opset: int) -> bool:
    net = Net(opset, x=(1,))
    try:
        run(net.model(net("Identity", "x")), {"x": np.zeros(1, np.float32)})
    except Exception:  # onnxruntime raises classes of its own that share no base.
        return False
    return True


# onnx knows operator sets that onnxruntime does not load yet.
NEWEST = next(opset for opset in range(onnx.defs.onnx_opset_version(), 18, -1) if _loads(opset))
OPSETS = (7, 9, 11, 13, 18, NEWEST)
CHANNELS = 8
SIZE = 6
PRUNED = (1, 4, 5)
IDENTITY = tuple(range(CHANNELS))

Masks = Mapping[str, Sequence[int]]


class MaskedNet(Net):
    """A net that zeroes its weights as it is built, where masks say so."""

    def __init__(self, opset: int, seed: int, masks: Masks) -> None:
        super().__init__(opset, seed, x=(2, 3, SIZE, SIZE))
        self.masks = masks

    def gone(self, key: str) -> list[int]:
        return list(self.masks.get(key, ()))

    def weight(
        self, name: str, *shape: int, into: int | None = None, out: int | None = None
    ) -> Floats:
        """Random weights, zero where the masks of a layer say so."""
        made = self.random(*shape)
        for side, axis in (("input", into), ("output", out)):
            if axis is not None:
                np.moveaxis(made, axis, 0)[self.gone(f"{name}.{side}")] = 0
        return made

    def affine(self, values: Any, name: str = "first") -> Floats:
        """A parameter right behind a layer: zero for the channels that its output mask prunes."""
        made = np.asarray(values, np.float32).copy()
        gone = self.gone(f"{name}.output")
        if gone and made.size == 1:
            made = np.full((CHANNELS, 1, 1), made.item(), np.float32)
        if gone:
            made[gone] = 0
        return made

    def conv(self, tensor: str, name: str, outputs: int, kernel: int = 3, **attributes: Any) -> str:
        inputs = self.shape(tensor)[1]
        weight = self.weight(name, outputs, inputs, kernel, kernel, into=1, out=0)
        bias = self.weight(name, outputs, out=0)
        return self("Conv", tensor, weight, bias, name=name, **attributes)

    def listed(
        self, op: str, tensor: str, key: str, values: Sequence[int], since: int, **attributes: Any
    ) -> str:
        """A node whose list of integers is an attribute in old operator sets."""
        if self.opset >= since:
            return self(op, tensor, self.ints(*values), **attributes)
        attributes[key] = list(values)
        return self(op, tensor, **attributes)

    def reduce(self, op: str, tensor: str, axes: Sequence[int], **attributes: Any) -> str:
        return self.listed(op, tensor, "axes", axes, 13 if op == "ReduceSum" else 18, **attributes)

    def shaped(self, tensor: str, *sizes: int) -> str:
        return self("Reshape", tensor, self.ints(*sizes))


Build = Callable[[MaskedNet, str], str]


@dataclass(frozen=True)
class Case:
    """An operator between two layers.

    Attributes:
        name: What it is called.
        build: Puts it behind a tensor of shape (2, 8, 6, 6).
        roots: Per channel of the first layer, a number that coupled channels share.
        follows: Per channel that the last layer reads, the number of the channel it comes from.
        prune: The numbers that the simple mask prunes.
        kept: How many channels the first layer must have left under the simple mask.
        since: First operator set.
        until: Last operator set.
        axis: Which axis the last layer reads.
        at: What the simple mask masks.
        layer: Whether the operator is a layer itself, named `op`, with masks of its own.
        inner: Output channels of that layer.
        grows: Whether this test can say what `constrained` prunes.
    """

    name: str
    build: Build
    roots: tuple[int, ...] = IDENTITY
    follows: tuple[int, ...] = IDENTITY
    prune: tuple[int, ...] = PRUNED
    kept: int = CHANNELS - len(PRUNED)
    since: int = 7
    until: int = NEWEST
    axis: int = 1
    at: str = "last.input"
    layer: bool = False
    inner: int = CHANNELS
    grows: bool = True

    def model(self, opset: int, masks: Masks) -> onnx.ModelProto:
        """Conv, the operator, and a layer that reads its result."""
        seed = zlib.crc32(f"{self.name}/{opset}".encode())
        net = MaskedNet(opset, seed, masks)
        first = net.conv("x", "first", CHANNELS, pads=[1, 1, 1, 1])
        return net.model(_last(net, self.build(net, first), self.axis, padded=bool(seed % 2)))

    def simple_masks(self) -> Masks:
        if self.at != "last.input":
            return {self.at: self.prune}
        return {self.at: [i for i, root in enumerate(self.follows) if root in self.prune]}

    def random_masks(self, rng: np.random.Generator) -> Masks:
        sizes = {"first.output": CHANNELS, "last.input": len(self.follows)}
        if self.layer:
            sizes |= {"op.input": CHANNELS, "op.output": self.inner, "last.input": self.inner}
        # At least one channel is left on each side: the empty model would equal anything.
        return {
            key: sorted(rng.choice(size, rng.integers(0, max(size * 2 // 3, 1)), replace=False))
            for key, size in sizes.items()
            if size > 1
        }

    def grown(self, masks: Masks) -> Masks:
        """What `constrained` must prune: at each reader what anybody coupled has pruned."""
        if self.layer:
            into = {*masks["first.output"], *masks["op.input"]}
            out = {*masks["op.output"], *masks["last.input"]}
            return {**masks, "op.input": sorted(into), "last.input": sorted(out)}
        if self.kept == CHANNELS:
            return masks  # Somebody needs all channels: nothing grows.
        last = masks.get("last.input", ())
        gone = {self.roots[channel] for channel in masks["first.output"]}
        gone |= {self.follows[channel] for channel in last}
        grown = [channel for channel, root in enumerate(self.follows) if root in gone]
        return {**masks, "last.input": grown}


def _last(net: MaskedNet, tensor: str, axis: int, padded: bool) -> str:
    """Reads all channels of an axis into two."""
    shape = net.shape(tensor)
    if len(shape) == 4 and axis == 1:
        kernel = 3 if padded or min(shape[2:]) >= 3 else 1
        pads = {"pads": [1, 1, 1, 1]} if padded else {}
        return net.conv(tensor, "last", 2, kernel, **pads)
    order = [place for place in range(len(shape)) if place != axis] + [axis]
    tensor = net("Transpose", tensor, perm=order)
    weight = net.weight("last", shape[axis], 2, into=0, out=1)
    return net("MatMul", tensor, weight, name="last")


def _pinned(name: str, build: Build, **how: Any) -> Case:
    """A case in which no channel may go, whatever the last layer reads."""
    return Case(name, build, kept=CHANNELS, **how)


def _mixing(name: str, build: Build, kept: int = CHANNELS, **how: Any) -> Case:
    """A case that mixes channels into one: only the first layer can be masked by channel."""
    return Case(name, build, follows=(99,), kept=kept, at="first.output", grows=False, **how)


UNKNOWN = 99  # Operators that are newer than the onnx at hand.
SINCE: dict[str, int] = {}
for schema in onnx.defs.get_all_schemas_with_history():
    if not schema.domain:
        SINCE[schema.name] = min(SINCE.get(schema.name, UNKNOWN), schema.since_version)

_UNARY = (
    "Abs Atan Asinh Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity "
    "LeakyRelu Mish Neg Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Swish Tan "
    "Tanh ThresholdedRelu"
)
_UNARY_OF_SIGMOID = "Acos Asin Atanh Log Reciprocal Sqrt"
_REDUCTIONS = (
    "ReduceMean ReduceMax ReduceMin ReduceSum ReduceL1 ReduceL2 ReduceSumSquare ReduceProd "
    "ReduceLogSum ReduceLogSumExp"
)


def _unary(op: str) -> Build:
    return lambda n, x: n(op, x)


def _of_sigmoid(op: str) -> Build:
    return lambda n, x: n(op, n("Sigmoid", x))


def _decided(op: str) -> Build:
    """An operator with a result of booleans."""

    def build(n: MaskedNet, x: str) -> str:
        made = n(op, x) if op.startswith("Is") else n(op, x, np.float32(0.1))
        return n("Cast", n("Not", made), to=TensorProto.FLOAT)

    return build


def _logical(op: str) -> Build:
    def build(n: MaskedNet, x: str) -> str:
        pair = [n("Greater", n("Neg", x) if swap else x, np.float32(0.1)) for swap in (0, 1)]
        return n("Cast", n(op, *pair), to=TensorProto.FLOAT)

    return build


def _bitwise(op: str) -> Build:
    def build(n: MaskedNet, x: str) -> str:
        whole = n("Cast", n("Relu", x), to=TensorProto.UINT8)
        other: tuple[Any, ...] = () if op == "BitwiseNot" else (np.array([3], np.uint8),)
        how = {"direction": "LEFT"} if op == "BitShift" else {}
        return n("Cast", n(op, whole, *other, **how), to=TensorProto.FLOAT)

    return build


def _other(n: MaskedNet, kind: str) -> str | Floats:
    """The second operand of a binary operator."""
    if kind == "activations":
        return n.conv("x", "other", CHANNELS, pads=[1, 1, 1, 1])
    if kind == "plane":
        return n.conv("x", "other", 1, pads=[1, 1, 1, 1])
    if kind == "squeezed":
        return n.conv(n("GlobalAveragePool", "x"), "other", CHANNELS, 1)
    shapes = {
        "channel": (CHANNELS, 1, 1),
        "scalar": (),
        "row": (SIZE,),
        "full": (1, CHANNELS, 6, 6),
    }
    return np.abs(n.random(*shapes[kind]))


def _positive(n: MaskedNet, kind: str) -> str | Floats:
    """The same, above zero, so that every power is defined."""
    other = _other(n, kind)
    return n("Exp", other) if isinstance(other, str) else other


_KINDS = ("activations", "plane", "squeezed", "channel", "scalar", "row", "full")


def _binary(op: str, kind: str, swapped: bool) -> Build:
    def build(n: MaskedNet, x: str) -> str:
        # A Sigmoid in between, so that constants are no part of the layer, and powers are defined.
        one, other = n("Sigmoid", x), _positive(n, kind)
        return n(op, other, one) if swapped else n(op, one, other)

    return build


def _elementwise() -> Iterator[Case]:
    for op in _UNARY.split():
        yield Case(op, _unary(op), since=SINCE.get(op, UNKNOWN))
    for op in _UNARY_OF_SIGMOID.split():
        yield Case(op, _of_sigmoid(op), since=SINCE[op])
    yield Case("Acosh", lambda n, x: n("Acosh", n("Exp", n("Sigmoid", x))), since=9)
    for op, since in (("Greater", 9), ("Less", 9), ("LessOrEqual", 12), ("GreaterOrEqual", 12)):
        yield Case(op, _decided(op), since=since)
    yield Case("Equal", _decided("Equal"), since=11)
    yield Case("IsNaN", _decided("IsNaN"), since=9)
    yield Case("IsInf", _decided("IsInf"), since=10)
    for op in ("And", "Or", "Xor"):
        yield Case(op, _logical(op), since=9)
    for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"):
        yield Case(op, _bitwise(op), since=18)
    yield Case("BitShift", _bitwise("BitShift"), since=11)
    for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum", "Pow"):
        for kind in _KINDS:
            # A plane of unknown values is joined with every channel, which no rule claims to know.
            case = _pinned if kind == "plane" else Case
            since = 8 if op in ("Max", "Min", "Mean", "Sum") else 7
            for swapped in (False, True) if op in ("Sub", "Div", "Pow") else (False,):
                name = f"{op}-{kind}{'-swapped' * swapped}"
                yield case(name, _binary(op, kind, swapped), since=since)
    for kind in ("channel", "scalar", "full"):
        yield Case(
            f"PRelu-{kind}",
            lambda n, x, kind=kind: n("PRelu", x, _other(n, kind)),  # type: ignore[misc]
        )
    yield Case("Mod", lambda n, x: n("Mod", x, np.float32(0.7), fmod=1), since=10)
    yield Case("Add-itself", lambda n, x: n("Add", x, x))
    yield Case("Swish-by-hand", lambda n, x: n("Mul", x, n("Sigmoid", x)))
    yield Case("Clip-attributes", lambda n, x: n("Clip", x, min=0.2, max=0.9), until=10)
    yield Case("Clip-inputs", lambda n, x: n("Clip", x, np.float32(0.2), np.float32(0.9)), since=11)
    yield Case("Clip-maximum", lambda n, x: n("Clip", x, "", np.float32(0.3)), since=11)
    yield Case("Dropout", lambda n, x: n("Dropout", x))
    yield Case(
        "Dropout-inputs",
        lambda n, x: n("Dropout", x, np.float32(0.4), np.array(False)),
        since=12,
    )
    yield Case(
        "Dropout-mask",
        lambda n, x: n("Mul", x, n("Cast", n.nodes_of("Dropout", x, outputs=2)[1], to=1)),
        since=12,
    )
    yield Case(
        "Cast", lambda n, x: n("Cast", n("Cast", x, to=TensorProto.INT32), to=TensorProto.FLOAT)
    )
    yield Case("CastLike", lambda n, x: n("CastLike", x, np.float32(1)), since=15)
    for shape in ((CHANNELS, 1, 1), (1,), (2, 1, SIZE, SIZE), (1, CHANNELS, SIZE, SIZE)):
        yield Case(
            f"Where-{len(shape)}-{np.prod(shape)}",
            lambda n, x, shape=shape: n("Where", n.random(*shape) > 0, x, np.float32(0.3)),  # type: ignore[misc]
            since=9,
        )
    yield Case(
        "Where-computed", lambda n, x: n("Where", n("Less", x, np.float32(0)), x, x), since=9
    )


def _quantized(axis: bool, zero: int) -> Build:
    def build(n: MaskedNet, x: str) -> str:
        scale = np.abs(n.random(CHANNELS)) if axis else np.float32(0.1)
        point = np.full(np.shape(scale), zero, np.uint8)
        how: dict[str, Any] = {"axis": 1} if axis else {}
        made = n("QuantizeLinear", x, scale, point, **how)
        return n("DequantizeLinear", made, scale, point, **how)

    return build


def _normalizations() -> Iterator[Case]:
    def batch(n: MaskedNet, x: str) -> str:
        scale, bias = n.affine(n.random(CHANNELS)), n.affine(n.random(CHANNELS))
        mean, variance = n.random(CHANNELS), np.abs(n.random(CHANNELS))
        # The mean is of no matter where the scale is zero.
        return n("BatchNormalization", x, scale, bias, mean, variance)

    def batch_behind(n: MaskedNet, x: str) -> str:
        parameters = [n.random(CHANNELS), n.random(CHANNELS), n.random(CHANNELS)]
        return n("BatchNormalization", n("Relu", x), *parameters, np.abs(n.random(CHANNELS)))

    def layer(n: MaskedNet, x: str) -> str:
        moved = n("Transpose", x, perm=[0, 2, 3, 1])
        return n("LayerNormalization", moved, n.random(CHANNELS), n.random(CHANNELS))

    def root_mean_square(n: MaskedNet, x: str) -> str:
        return n("RMSNormalization", n("Transpose", x, perm=[0, 2, 3, 1]), n.random(CHANNELS))

    def group(n: MaskedNet, x: str) -> str:
        made = n("GroupNormalization", x, n.random(CHANNELS), n.random(CHANNELS), num_groups=4)
        return n.declare(made, n.shape(x))

    def mean_variance(**how: Any) -> Build:
        def build(n: MaskedNet, x: str) -> str:
            # No channel is constant here: onnxruntime makes NaN of those.
            source = n("Add", x, n.conv("x", "other", CHANNELS, pads=[1, 1, 1, 1]))
            return n.declare(n("MeanVarianceNormalization", source, **how), n.shape(x))

        return build

    yield Case("BatchNormalization", batch)
    yield Case("BatchNormalization-behind-Relu", batch_behind)
    yield Case(
        "InstanceNormalization",
        lambda n, x: n("InstanceNormalization", x, n.random(CHANNELS), n.random(CHANNELS)),
    )
    yield _pinned("LayerNormalization", layer, since=17, axis=3)
    yield Case(
        "LayerNormalization-over-space",
        lambda n, x: n("LayerNormalization", x, n.random(6, 6), n.random(6, 6), axis=2),
        since=17,
    )
    yield _pinned(
        "LayerNormalization-over-all",
        lambda n, x: n(
            "LayerNormalization", x, n.random(CHANNELS, 6, 6), n.random(CHANNELS, 6, 6), axis=1
        ),
        since=17,
    )
    yield _pinned("RMSNormalization", root_mean_square, since=23, axis=3)
    yield _pinned("GroupNormalization", group, since=21)  # Deprecated before.
    yield _pinned("LRN", lambda n, x: n("LRN", x, size=3))
    for op in ("Softmax", "LogSoftmax"):
        yield _pinned(op, lambda n, x, op=op: n(op, x, axis=1))  # type: ignore[misc]
        yield Case(f"{op}-over-space", lambda n, x, op=op: n(op, x, axis=3))  # type: ignore[misc]
        yield _pinned(f"{op}-default-old", lambda n, x, op=op: n(op, x), until=12)  # type: ignore[misc]
        yield Case(f"{op}-default", lambda n, x, op=op: n(op, x), since=13)  # type: ignore[misc]
    yield _pinned("Hardmax", lambda n, x: n("Hardmax", x, axis=1))
    yield _pinned("LpNormalization", lambda n, x: n("LpNormalization", x, axis=1))
    # Newer operator sets have no kernel in older onnxruntimes, and the reference divides by zero.
    yield Case("LpNormalization-over-space", lambda n, x: n("LpNormalization", x, axis=2), until=18)
    # Shape inference of onnx 1.23 fails on its function in newer operator sets.
    yield Case("MeanVarianceNormalization", mean_variance(), since=9, until=12)
    yield _pinned(
        "MeanVarianceNormalization-over-channels",
        mean_variance(axes=[1, 2, 3]),
        since=9,
        until=12,
    )
    for zero in (0, 130):
        yield Case(f"QuantizeLinear-{zero}", _quantized(False, zero), since=10)
        yield Case(f"QuantizeLinear-per-channel-{zero}", _quantized(True, zero), since=13)


def _pools() -> Iterator[Case]:
    window: Mapping[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}

    def argument(axis: int) -> Build:
        return lambda n, x: n("Cast", n("ArgMax", x, axis=axis), to=TensorProto.FLOAT)

    def with_indices(n: MaskedNet, x: str) -> str:
        values, indices = n.nodes_of("MaxPool", x, outputs=2, **window)
        return n("Add", values, n("Cast", indices, to=TensorProto.FLOAT))

    def padded_constant(op: str, **more: Any) -> Build:
        return lambda n, x: n(op, n("Sigmoid", x), **window, **more)

    def reduced(op: str, axes: Sequence[int], **how: Any) -> Build:
        return lambda n, x: n.reduce(op, n("Sigmoid", x), axes, **how)

    def zeros_reduced(op: str) -> Build:
        return lambda n, x: n.reduce(op, n("Relu", x), [1])

    for op in ("MaxPool", "AveragePool"):
        yield Case(op, padded_constant(op))
        yield Case(f"{op}-ceil", padded_constant(op, ceil_mode=1), since=10)
    yield Case("AveragePool-counting-pads", padded_constant("AveragePool", count_include_pad=1))
    yield Case(
        "AveragePool-same",
        lambda n, x: n(
            "AveragePool",
            n("Sigmoid", x),
            kernel_shape=[3, 3],
            auto_pad="SAME_UPPER",
            count_include_pad=1,
        ),
    )
    yield Case("LpPool", padded_constant("LpPool"))
    yield _pinned("MaxPool-indices", with_indices, since=8)
    for op in ("GlobalAveragePool", "GlobalMaxPool"):
        yield Case(op, _of_sigmoid(op))
    # Its newest version has a kernel nowhere.
    yield Case("GlobalLpPool", _of_sigmoid("GlobalLpPool"), until=21)
    for op in _REDUCTIONS.split():
        yield Case(f"{op}-over-space", reduced(op, [2, -1]))
        yield Case(f"{op}-dropping-axes", reduced(op, [2, 3], keepdims=0))
        yield _mixing(f"{op}-over-channels", reduced(op, [1]))
        drops = op in ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")
        kept = CHANNELS - len(PRUNED) if drops else CHANNELS
        if op not in ("ReduceLogSum", "ReduceProd"):  # Logarithms and products of zeros say little.
            yield _mixing(f"{op}-over-zeros", zeros_reduced(op), kept=kept)
    yield _mixing("ArgMax-over-channels", argument(1))
    yield Case("ArgMax-over-space", argument(2))
    yield _mixing(
        "ReduceMean-over-all",
        lambda n, x: n.shaped(n("ReduceMean", x), 1, 1, 1, 1),
    )
    for axis in (1, 2):
        case = _pinned if axis == 1 else Case
        yield case(
            f"CumSum-{axis}",
            lambda n, x, axis=axis: n("CumSum", x, np.int64(axis)),  # type: ignore[misc]
            since=11,
        )


def _cut(n: MaskedNet, x: str, sizes: Sequence[int]) -> list[str]:
    if n.opset >= 13:
        return n.nodes_of("Split", x, n.ints(*sizes), outputs=len(sizes), axis=1)
    return n.nodes_of("Split", x, outputs=len(sizes), axis=1, split=list(sizes))


def _sliced(
    starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], steps: Sequence[int] = ()
) -> Build:
    def build(n: MaskedNet, x: str) -> str:
        if n.opset < 10:
            return n("Slice", x, starts=list(starts), ends=list(ends), axes=list(axes))
        more = [n.ints(*steps)] if steps else []
        return n("Slice", x, n.ints(*starts), n.ints(*ends), n.ints(*axes), *more)

    return build


def _movements() -> Iterator[Case]:
    eight, others = range(CHANNELS), tuple(range(100, 100 + CHANNELS))

    def there_and_back(n: MaskedNet, x: str) -> str:
        return n("Transpose", n("Relu", n("Transpose", x)))

    def squeezed(n: MaskedNet, x: str) -> str:
        wide = n.listed("Unsqueeze", x, "axes", [-3 if n.opset >= 11 else 2], 13)
        axis = 2 if len(n.shape(wide)) == 5 and n.shape(wide)[2] == 1 else 1
        return n.listed("Squeeze", n("Relu", wide), "axes", [axis], 13)

    def squeezed_all(n: MaskedNet, x: str) -> str:
        return n("Squeeze", n("GlobalMaxPool", x))

    def split_even(n: MaskedNet, x: str) -> str:
        if n.opset >= 18:
            parts = n.nodes_of("Split", x, outputs=3, axis=1, num_outputs=3)
        else:
            parts = _cut(n, x, (3, 3, 2))
        return n("Concat", *reversed(parts), axis=1)

    def split_space(n: MaskedNet, x: str) -> str:
        parts = n.nodes_of(
            "Split", x, *([n.ints(3, 3)] if n.opset >= 13 else []), outputs=2, axis=2
        )
        return n("Concat", parts[1], parts[0], axis=3)

    yield Case("Transpose", lambda n, x: n("Transpose", x, perm=[1, 0, 3, 2]), axis=0)
    yield Case("Transpose-default", there_and_back)
    yield Case("Squeeze-Unsqueeze", squeezed)
    yield Case("Squeeze-all", squeezed_all)
    yield Case(
        "Concat-other",
        lambda n, x: n("Concat", _other(n, "activations"), n("Relu", x), axis=1),
        follows=(*others, *eight),
    )
    yield Case("Concat-itself", lambda n, x: n("Concat", x, x, axis=-3 if n.opset >= 11 else 1),
               follows=(*eight, *eight))  # fmt: skip
    yield Case(
        "Concat-constant",
        lambda n, x: n("Concat", x, n.random(2, 3, 6, 6), axis=1),
        follows=(*eight, *others[:3]),
    )
    yield Case(
        "Concat-input", lambda n, x: n("Concat", "x", x, axis=1), follows=(*others[:3], *eight)
    )
    yield Case("Concat-space", lambda n, x: n("Concat", x, n("Sigmoid", x), axis=2))
    yield Case(
        "Concat-space-constant", lambda n, x: n("Concat", x, n.random(2, CHANNELS, 2, 6), axis=2)
    )
    yield Case(
        "Split-swapped",
        lambda n, x: n("Concat", *reversed(_cut(n, x, (3, 5))), axis=1),
        follows=(3, 4, 5, 6, 7, 0, 1, 2),
    )
    yield Case("Split-one", lambda n, x: _cut(n, x, (3, 5))[1], follows=(3, 4, 5, 6, 7), kept=3)
    yield Case(
        "Split-gone",
        lambda n, x: n("Concat", *_cut(n, x, (1, 3, 2, 2)), axis=1),
    )
    yield Case("Split-thirds", split_even, follows=(6, 7, 3, 4, 5, 0, 1, 2))
    yield Case(
        "Split-added",
        lambda n, x: n("Add", *_cut(n, x, (4, 4))),
        roots=(0, 1, 2, 3) * 2,
        follows=(0, 1, 2, 3),
        prune=(1,),
        kept=6,
    )
    yield Case("Split-space", split_space)
    yield Case("Slice", _sliced([2], [7], [1]), follows=(2, 3, 4, 5, 6), kept=3)
    yield Case("Slice-space", _sliced([1, -5], [99, -1], [2, 3]))
    yield Case("Slice-ends", _sliced([-6, 0], [-1, 4], [1, 2]), follows=(2, 3, 4, 5, 6), kept=3)
    yield Case("Slice-steps", _sliced([1], [7], [1], [2]), follows=(1, 3, 5), kept=1, since=10)
    yield Case(
        "Slice-reversed",
        _sliced([-1], [-999], [1], [-1]),
        follows=IDENTITY[::-1],
        since=10,
    )
    yield Case("Slice-back", _sliced([6, 4], [0, 1], [1, 2], [-2, -1]),
               follows=(6, 4, 2), kept=2, since=10)  # fmt: skip
    yield Case(
        "Slice-default-axes",
        lambda n, x: n("Slice", x, n.ints(0, 1), n.ints(2, 7)),
        follows=(1, 2, 3, 4, 5, 6),
        kept=3,
        since=10,
    )
    picks = (7, 2, 2, -8, 5)
    yield Case(
        "Gather",
        lambda n, x: n("Gather", x, n.ints(*(p % 8 if n.opset < 11 else p for p in picks)), axis=1),
        follows=(7, 2, 2, 0, 5),
        prune=(2, 5),
        kept=2,
    )
    yield Case("Gather-space", lambda n, x: n("Gather", x, n.ints(3, 0, 0), axis=2))
    yield Case("Gather-scalar-space", lambda n, x: n("Gather", x, np.int64(1), axis=2))
    yield _pinned(
        "Gather-matrix",
        lambda n, x: n.shaped(n("Gather", x, np.array([[0, 3], [1, 6]]), axis=1), 2, 4, SIZE, SIZE),
        follows=(0, 3, 1, 6),
    )
    yield Case(
        "Tile-channels",
        lambda n, x: n("Tile", x, n.ints(1, 2, 1, 1)),
        follows=(*eight, *eight),
    )
    yield Case("Tile-space", lambda n, x: n("Tile", x, n.ints(1, 1, 2, 1)))
    yield Case(
        "Expand",
        lambda n, x: n("Expand", n("GlobalMaxPool", x), n.ints(2, CHANNELS, 4, 4)),
        since=8,
    )
    yield Case("Expand-ones", lambda n, x: n("Expand", x, n.ints(3, 1, 1, 1, 1)), since=8, axis=2)


def _regrouping() -> Iterator[Case]:
    area = SIZE * SIZE
    per_pixel = tuple(channel for channel in range(CHANNELS) for _ in range(area))
    pairs, quarters = (0, 0, 1, 1, 2, 2, 3, 3), (0, 0, 0, 0, 1, 1, 1, 1)

    def heads(n: MaskedNet, x: str) -> str:
        tokens = n("Transpose", n.shaped(x, 2, CHANNELS, area), perm=[0, 2, 1])
        split = n("Transpose", n.shaped(tokens, 2, area, 4, 2), perm=[0, 2, 1, 3])
        scores = n.shaped(n.conv("x", "other", 4, pads=[1, 1, 1, 1]), 2, 4, area, 1)
        scores = n("MatMul", scores, n("Transpose", scores, perm=[0, 1, 3, 2]))
        mixed = n("MatMul", n("Softmax", scores, axis=3), split)
        return n.shaped(n("Transpose", mixed, perm=[0, 2, 1, 3]), 2, area, CHANNELS)

    def pixel_shuffle(n: MaskedNet, x: str) -> str:
        split = n("Transpose", n.shaped(x, 2, 2, 2, 2, 6, 6), perm=[0, 1, 4, 2, 5, 3])
        return n.shaped(split, 2, 2, 12, 12)

    def channel_shuffle(n: MaskedNet, x: str) -> str:
        return n.shaped(
            n("Transpose", n.shaped(x, 2, 2, 4, 6, 6), perm=[0, 2, 1, 3, 4]), 2, 8, 6, 6
        )

    def group_norm_by_hand(n: MaskedNet, x: str) -> str:
        grouped = n.shaped(x, 0, 4, -1)
        normed = n("InstanceNormalization", grouped, np.ones(4, np.float32), n.random(4))
        return n.shaped(normed, 2, CHANNELS, SIZE, SIZE)

    yield Case("Flatten", lambda n, x: n("Flatten", n("Sigmoid", x)), follows=per_pixel)
    yield Case("Flatten-pooled", lambda n, x: n("Flatten", n("GlobalAveragePool", x), axis=1))
    yield Case("Flatten-2", lambda n, x: n("Flatten", x, axis=2), axis=0, follows=(*range(8),) * 2)
    yield Case("Reshape", lambda n, x: n.shaped(n("Sigmoid", x), 0, -1), follows=per_pixel)
    yield Case("Reshape-space", lambda n, x: n.shaped(x, 0, 0, -1))
    yield Case("Reshape-unit-axes", lambda n, x: n.shaped(x, 2, 1, 8, 6, 1, 6), axis=2)
    yield Case("Reshape-batch", lambda n, x: n.shaped(x, 1, -1, 6, 6), follows=(*range(8),) * 2)
    yield Case(
        "Reshape-heads", heads, roots=pairs, follows=pairs, prune=(1,), kept=6, axis=2, grows=False
    )
    yield Case("pixel-shuffle", pixel_shuffle, roots=quarters, follows=(0, 1), prune=(0,), kept=4)
    yield Case(
        "channel-shuffle",
        channel_shuffle,
        roots=(0, 1, 2, 3) * 2,
        follows=pairs,
        prune=(1, 3),
        kept=4,
    )
    yield Case(
        "group-norm-by-hand",
        group_norm_by_hand,
        roots=pairs,
        follows=pairs,
        prune=(2,),
        kept=CHANNELS,
        grows=False,
    )
    for mode, roots in ((b"DCR", (0, 1) * 4), (b"CRD", quarters)):
        yield Case(
            f"DepthToSpace-{mode.decode()}",
            lambda n, x, mode=mode: n(  # type: ignore[misc]
                "DepthToSpace", x, blocksize=2, **({"mode": mode} if n.opset >= 11 else {})
            ),
            roots=roots,
            follows=(0, 1),
            prune=(0,),
            kept=4,
            since=7 if mode == b"DCR" else 11,
        )
    yield Case(
        "SpaceToDepth",
        lambda n, x: n("SpaceToDepth", x, blocksize=2),
        follows=(*range(CHANNELS),) * 4,
    )
    yield Case(
        "SpaceToDepth-CRD",
        lambda n, x: n("SpaceToDepth", x, blocksize=2, mode="CRD"),
        follows=tuple(np.repeat(range(CHANNELS), 4).tolist()),
        since=28,
    )


def _spatial() -> Iterator[Case]:
    def padded(mode: str, value: float, pads: Sequence[int]) -> Build:
        def build(n: MaskedNet, x: str) -> str:
            source = n("Sigmoid", x) if value else n("Relu", x)
            if n.opset >= 11:
                return n("Pad", source, n.ints(*pads), np.float32(value), mode=mode)
            return n("Pad", source, pads=list(pads), mode=mode, value=value)

        return build

    def resized(**how: Any) -> Build:
        scales = np.array([1, 1, 2, 1.5], np.float32)

        def build(n: MaskedNet, x: str) -> str:
            source = n("Sigmoid", x)
            # A region of interest is required in one operator set, and optional in the next.
            roi = {10: [], 11: [np.zeros(0, np.float32)]}.get(min(n.opset, 13), [""])
            return n("Resize", source, *roi, scales, **how)

        return build

    def cropped(n: MaskedNet, x: str) -> str:
        roi = np.array([0, 0, 0.2, 0.2, 1, 1, 1.4, 0.9], np.float32)
        return n(
            "Resize",
            n("Sigmoid", x),
            roi,
            "",
            n.ints(2, CHANNELS, 7, 7),
            mode="linear",
            coordinate_transformation_mode="tf_crop_and_resize",
            extrapolation_value=3.0,
        )

    around = [0, 0, 1, 2, 0, 0, 0, 1]
    for mode in ("constant", "reflect", "edge"):
        yield Case(f"Pad-{mode}", padded(mode, 0.0, around))
    yield Case("Pad-value", padded("constant", 0.7, around))
    yield _pinned(
        "Pad-channels",
        padded("constant", 0.0, [0, 1, 0, 0, 0, 0, 0, 0]),
        follows=(100, *IDENTITY),
    )
    yield Case("Pad-cropping", padded("constant", 0.7, [0, 0, -1, -2, 0, 0, 0, 0]))
    yield Case(
        "Pad-axes",
        lambda n, x: n("Pad", n("Exp", x), n.ints(1, 2), np.float32(0.5), n.ints(-1)),
        since=18,
    )
    yield Case("Resize-nearest", resized(mode="nearest"), since=10)
    yield Case("Resize-linear", resized(mode="linear"), since=10)
    yield Case("Resize-cubic", resized(mode="cubic"), since=11)
    yield Case(
        "Resize-sizes",
        lambda n, x: n("Resize", x, "", "", n.ints(2, CHANNELS, 9, 8)),
        since=13,
    )
    yield Case(
        "Resize-axes",
        lambda n, x: n("Resize", x, "", "", n.ints(9, 8), axes=[2, 3]),
        since=18,
    )
    yield Case("Resize-crop", cropped, since=13)
    yield Case(
        "Upsample-attribute", lambda n, x: n("Upsample", x, scales=[1.0, 1.0, 2.0, 2.0]), until=8
    )
    yield Case(
        "Upsample-input",
        lambda n, x: n("Upsample", x, np.array([1, 1, 2, 2], np.float32)),
        since=9,
        until=9,
    )


def _grouped(op: str, groups: int, each: int) -> Build:
    """A grouped layer of 8 inputs and `each` outputs per group, with its masks."""

    def build(n: MaskedNet, x: str) -> str:
        ins = CHANNELS // groups
        # (group, output, input), the same for both operators.
        weight = n.random(groups, each, ins, 3, 3)
        for channel in n.gone("op.input"):
            weight[channel // ins, :, channel % ins] = 0
        for channel in n.gone("op.output"):
            weight[channel // each, channel % each] = 0
        stored = (
            weight.reshape(groups * each, ins, 3, 3)
            if op == "Conv"
            else weight.swapaxes(1, 2).reshape(CHANNELS, each, 3, 3)
        )
        bias = n.weight("op", groups * each, out=0)
        made = n(op, n("Sigmoid", x), stored, bias, name="op", group=groups, pads=[1, 1, 1, 1])
        return n("Sigmoid", made)

    return build


def _gemm(**how: Any) -> Build:
    def build(n: MaskedNet, x: str) -> str:
        attributes = dict(how)
        kind = attributes.pop("bias", "vector")
        data = n("Flatten", n("GlobalMaxPool", n("Sigmoid", x)))
        if attributes.get("transA"):
            data = n("Transpose", data)
        back = bool(attributes.get("transB"))
        shape, into, out = ((5, 8), 1, 0) if back else ((8, 5), 0, 1)
        read: list[Any] = [data, n.weight("op", *shape, into=into, out=out)]
        if kind == "vector":
            read.append(n.weight("op", 5, out=0))
        elif kind == "matrix":
            read.append(n.weight("op", 2, 5, out=1))
        elif kind == "row":
            read.append(n.weight("op", 1, 5, out=1))
        elif kind in ("scalar", "column"):
            values = n.random(*((1,) if kind == "scalar" else (2, 1)))
            if n.gone("op.output"):
                values = np.broadcast_to(values, (values.shape[0], 5)).copy()
                values[:, n.gone("op.output")] = 0
                values = values[0] if kind == "scalar" else values
            read.append(values)
        return n("Sigmoid", n("Gemm", *read, name="op", **attributes))

    return build


def _tokens(n: MaskedNet, x: str) -> str:
    """(batch, place, channel)

    The Sigmoid stands between Transpose and MatMul, since onnxruntime 1.32 fuses these two wrongly
    where the other operand is a vector.
    """
    return n("Sigmoid", n("Transpose", n.shaped(x, 2, CHANNELS, SIZE * SIZE), perm=[0, 2, 1]))


def _matmul(kind: str) -> Build:
    def build(n: MaskedNet, x: str) -> str:
        if kind == "right":
            return n("MatMul", _tokens(n, x), n.weight("op", 8, 5, into=0, out=1), name="op")
        if kind == "right-biased":
            made = n("MatMul", _tokens(n, x), n.weight("op", 8, 5, into=0, out=1), name="op")
            return n("Relu", n("Add", made, n.affine(n.random(5), "op")))
        if kind == "left":
            turned = n("Transpose", _tokens(n, x), perm=[0, 2, 1])
            return n("MatMul", n.weight("op", 5, 8, into=1, out=0), turned, name="op")
        if kind == "batched":
            weight = n.weight("op", 2, 8, 5, into=1, out=2)
            return n("Sigmoid", n("MatMul", _tokens(n, x), weight, name="op"))
        return n("MatMul", _tokens(n, x), n.weight("op", 8, into=0), name="op")

    return build


def _stored(how: str) -> Build:
    """A 1x1 Conv whose weight comes from somewhere else than an initializer."""

    def build(n: MaskedNet, x: str) -> str:
        weight = n.weight("op", 5, CHANNELS, 1, 1, into=1, out=0)
        bias = n.weight("op", 5, out=0)
        source: str
        if how == "Constant":
            source = n("Constant", value=numpy_helper.from_array(weight))
        elif how == "Transpose":
            source = n("Transpose", np.ascontiguousarray(weight.T))
        elif how == "Reshape":
            source = n.shaped(n.constant(weight.ravel()), 5, CHANNELS, 1, 1)
        elif how == "Identity-Cast":
            source = n("Cast", n("Identity", weight.astype(np.float64)), to=TensorProto.FLOAT)
        elif how == "DequantizeLinear":
            scale, zero = np.abs(n.random(5)), np.zeros(5, np.int8)
            quantized = np.round(weight * 100).astype(np.int8)
            quantized[(weight != 0) & (quantized == 0)] = 1
            source = n("DequantizeLinear", quantized, scale, zero, axis=0)
        else:
            value = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.3])
            source = n("ConstantOfShape", n.ints(5, CHANNELS, 1, 1), value=value)
            # Its masked form can only be written down in full.
            if n.masks:
                full = np.where(weight != 0, np.float32(0.3), np.float32(0))
                source = n.constant(full)
        return n("Conv", n("Sigmoid", x), source, bias, name="op")

    return build


def _layers() -> Iterator[Case]:
    def layer(name: str, build: Build, inner: int = 5, **how: Any) -> Case:
        return Case(name, build, at=how.pop("at", "op.input"), layer=True, inner=inner, **how)

    def conv(**how: Any) -> Build:
        return lambda n, x: n("Sigmoid", n.conv(n("Sigmoid", x), "op", 5, **how))

    def transposed(n: MaskedNet, x: str) -> str:
        weight, bias = n.weight("op", 8, 5, 3, 3, into=0, out=1), n.weight("op", 5, out=0)
        return n("ConvTranspose", n("Sigmoid", x), weight, bias, name="op", strides=[2, 2])

    def without_bias(n: MaskedNet, x: str) -> str:
        weight = n.weight("op", 5, 8, 1, 1, into=1, out=0)
        return n("Conv", n("Sigmoid", x), weight, name="op")

    yield layer("Conv", conv())
    yield layer("Conv-padded", conv(pads=[1, 0, 1, 0]))
    yield layer("Conv-same", conv(auto_pad="SAME_LOWER"))
    yield layer("Conv-strided", conv(strides=[2, 2], dilations=[2, 2]))
    yield layer("Conv-without-bias", without_bias)
    yield layer("ConvTranspose", transposed)
    for op in ("Conv", "ConvTranspose"):
        yield layer(f"{op}-depthwise", _grouped(op, 8, 1), 8, grows=False, at="last.input")
        yield layer(
            f"{op}-multiplied", _grouped(op, 8, 2), 16, grows=False, at="last.input",
            follows=tuple(np.repeat(range(8), 2).tolist()),
        )  # fmt: skip
        yield layer(
            f"{op}-grouped", _grouped(op, 4, 3), 12, grows=False, at="last.input",
            roots=(0, 0, 1, 1, 2, 2, 3, 3), follows=tuple(np.repeat(range(4), 3).tolist()),
            prune=(0, 2), kept=4,
        )  # fmt: skip
    for a in (0, 1):
        for b in (0, 1):
            yield layer(f"Gemm-{a}{b}", _gemm(transA=a, transB=b))
    yield layer("Gemm-scaled", _gemm(alpha=0.5, beta=2.0))
    yield layer("Gemm-beta-0", _gemm(beta=0.0))
    yield layer("Gemm-row", _gemm(bias="row", beta=-0.5))
    yield layer("Gemm-scalar", _gemm(bias="scalar"))
    yield layer("Gemm-matrix", _gemm(bias="matrix"))
    yield layer("Gemm-column", _gemm(bias="column"))
    yield layer("Gemm-without-bias", _gemm(bias="none", alpha=1.5, beta=3.0), since=11)
    for kind in ("right", "right-biased", "batched"):
        yield layer(f"MatMul-{kind}", _matmul(kind), axis=2)
    yield layer("MatMul-left", _matmul("left"))
    yield Case(
        "MatMul-vector",
        _matmul("vector"),
        at="op.input",
        axis=1,
        follows=(*range(36),),
        grows=False,
    )
    for how in ("Constant", "Transpose", "Reshape", "Identity-Cast"):
        yield layer(f"weight-behind-{how}", _stored(how))
    yield layer("weight-behind-ConstantOfShape", _stored("ConstantOfShape"), since=9)
    yield layer("weight-behind-DequantizeLinear", _stored("DequantizeLinear"), since=13)

    def activations(n: MaskedNet, x: str) -> str:
        """Attention: two activations are multiplied, and so is their product."""
        tokens = n("Relu", _tokens(n, x))
        keys = n("MatMul", tokens, n.random(CHANNELS, 4))
        queries = n("MatMul", tokens, n.random(CHANNELS, 4))
        scores = n("MatMul", queries, n("Transpose", keys, perm=[0, 2, 1]))
        return n("MatMul", n("Softmax", scores, axis=2), tokens)

    # Keys and queries read all channels, so that they stay, whatever the last layer reads.
    yield Case("MatMul-activations", activations, axis=2, kept=CHANNELS, grows=False)
    yield Case("MatMul-rows", lambda n, x: n("MatMul", x, n.random(SIZE, 4), name="rows"))
    yield Case("MatMul-columns", lambda n, x: n("MatMul", n.random(4, SIZE), x, name="columns"))
    yield Case("Add-attached", lambda n, x: n("Relu", n("Add", x, n.affine(n.random(8, 1, 1)))))
    yield Case("Add-attached-scalar", lambda n, x: n("Exp", n("Add", x, n.affine(0.3))))
    yield Case(
        "Mul-Add-attached",
        lambda n, x: n(
            "Cos", n("Add", n("Mul", x, n.random(8, 1, 1)), n.affine(n.random(8, 1, 1)))
        ),
    )


FAMILIES = (_elementwise, _normalizations, _pools, _movements, _regrouping, _spatial, _layers)
CASES = {family: [case for case in family() if case.since <= NEWEST] for family in FAMILIES}


def _runs(few: Sequence[Any]) -> list[Any]:
    """Cases with their operator sets: of some families only the first, 13 and the newest."""
    runs = []
    for family, cases in CASES.items():
        for case in cases:
            opsets = [opset for opset in OPSETS if case.since <= opset <= case.until]
            if family in few:
                opsets = [o for o in opsets if o in (opsets[0], 13, opsets[-1])]
            runs += [pytest.param(case, o, id=f"{case.name}-{o}") for o in opsets]
    return runs


def _as_dict(masks: Masks) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, channels in masks.items():
        name, side = key.split(".")
        result.setdefault(name, {})[side] = [int(channel) for channel in channels]
    return {"version": 1, "masks": result}


def _assert_equal(expected: onnx.ModelProto, emitted: onnx.ModelProto, what: str) -> None:
    onnx.checker.check_model(emitted, full_check=True)
    assert [v.SerializeToString() for v in emitted.graph.output] == [
        v.SerializeToString() for v in expected.graph.output
    ]
    inputs = input_values(expected)
    for wanted, got in zip(run(expected, inputs), run(emitted, inputs), strict=True):
        tolerance = 1e-5 + 1e-4 * float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0))
        np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance, err_msg=what)


def _left(model: onnx.ModelProto) -> int:
    return (weight_shape(model, "first") or (0,))[0]


@pytest.mark.parametrize(("case", "opset"), _runs(few=[_elementwise]))
def test_random_masks_leave_the_function_of_the_masked_model(case: Case, opset: int) -> None:
    rng = np.random.default_rng(zlib.crc32(f"{case.name}.{opset}".encode()))
    masks = case.random_masks(rng)
    original, expected = case.model(opset, {}), case.model(opset, masks)
    for strategy in STRATEGIES:
        own = strategy == "constrained" and not case.grows
        result = onnx_upscale.optimize(original, _as_dict(masks), strategy=strategy, verify=own)
        if strategy == "constrained":
            expected = case.model(opset, case.grown(masks)) if case.grows else expected
        if not own:
            _assert_equal(expected, result.model, f"{strategy}, {masks}")


@pytest.mark.parametrize(("case", "opset"), _runs(few=FAMILIES))
def test_channels_that_nobody_reads_go_and_pinned_ones_stay(case: Case, opset: int) -> None:
    masks = case.simple_masks()
    original, expected = case.model(opset, {}), case.model(opset, masks)
    for strategy in ("upscale", "gather"):
        result = onnx_upscale.optimize(original, _as_dict(masks), strategy=strategy, verify=False)
        _assert_equal(expected, result.model, f"{strategy}, {masks}")
        assert _left(result.model) == case.kept, strategy


def test_the_table_names_every_rule() -> None:
    """A rule that is added without a case here is found out."""
    from onnx_upscale.optimizer.analyze.rules import RULES

    seen = {
        node.op_type
        for cases in CASES.values()
        for case in cases
        for opset in [max(o for o in OPSETS if o <= case.until)]
        for node in case.model(opset, {}).graph.node
    }
    known = {op for _, op in RULES if SINCE.get(op, UNKNOWN) <= NEWEST}
    assert known - seen == {"ArgMin", "Shape"}
