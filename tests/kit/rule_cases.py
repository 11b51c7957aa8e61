"""Every rule, by execution: Conv -> operator -> Conv, masked at random, against numpy's zeros.

The expected model is built anew with zeros written into its weights, so that nothing of the package
takes part in what is compared with. Each case also says how many channels must be gone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Floats, Net, assert_close, input_values, run, weight_shape
from mask_document import Masks, document
from several import Way, emitted

STRATEGIES = ("auto", "upscale", "gather", "constrained")
WAYS: tuple[Way, ...] = tuple((strategy, "as built in") for strategy in STRATEGIES)


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
        return net.model(last_layer(net, self.build(net, first), self.axis, padded=bool(seed % 2)))

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


def last_layer(net: MaskedNet, tensor: str, axis: int, padded: bool) -> str:
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


def pinned(name: str, build: Build, **how: Any) -> Case:
    """A case in which no channel may go, whatever the last layer reads."""
    return Case(name, build, kept=CHANNELS, **how)


def mixing(name: str, build: Build, kept: int = CHANNELS, **how: Any) -> Case:
    """A case that mixes channels into one: only the first layer can be masked by channel."""
    return Case(name, build, follows=(99,), kept=kept, at="first.output", grows=False, **how)


UNKNOWN = 99  # Operators that are newer than the onnx at hand.
SINCE: dict[str, int] = {}
for schema in onnx.defs.get_all_schemas_with_history():
    if not schema.domain:
        SINCE[schema.name] = min(SINCE.get(schema.name, UNKNOWN), schema.since_version)


def of_sigmoid(op: str) -> Build:
    return lambda n, x: n(op, n("Sigmoid", x))


def operand(n: MaskedNet, kind: str) -> str | Floats:
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


def runs(cases: Iterable[Case], few: bool = False) -> list[Any]:
    """Cases with their operator sets; if `few`, only the first of each case, 13 and the newest."""
    found = []
    for case in cases:
        opsets = [opset for opset in OPSETS if case.since <= opset <= case.until]
        if few:
            opsets = [o for o in opsets if o in (opsets[0], 13, opsets[-1])]
        found += [pytest.param(case, o, id=f"{case.name}-{o}") for o in opsets]
    return found


def assert_same(expected: onnx.ModelProto, made: onnx.ModelProto, what: str) -> None:
    """Two models with the same outputs, in what they declare and in what they give."""
    assert_all_same(expected, {what: made})


def assert_all_same(
    expected: onnx.ModelProto, made: Mapping[Any, onnx.ModelProto], what: str = ""
) -> None:
    """The same of several models, which are named by what they came from."""
    inputs = input_values(expected)
    wanted = run(expected, inputs)
    for name, model in made.items():
        onnx.checker.check_model(model, full_check=True)
        assert [v.SerializeToString() for v in model.graph.output] == [
            v.SerializeToString() for v in expected.graph.output
        ]
        assert_close(wanted, run(model, inputs), f"{name} {what}")


def _left(model: onnx.ModelProto) -> int:
    return (weight_shape(model, "first") or (0,))[0]


def check_random_masks(case: Case, opset: int) -> None:
    """Whatever is masked, the result computes what the masked model does."""
    rng = np.random.default_rng(zlib.crc32(f"{case.name}.{opset}".encode()))
    masks = case.random_masks(rng)
    original, expected = case.model(opset, {}), case.model(opset, masks)
    made = emitted(original, document(masks), WAYS)
    grown = made.pop(("constrained", "as built in"))
    assert_all_same(expected, made, str(masks))
    if case.grows:
        assert_same(case.model(opset, case.grown(masks)), grown, f"constrained, {masks}")
    else:
        onnx_upscale.optimize(original, document(masks), strategy="constrained")


def check_counts(case: Case, opset: int) -> None:
    """Under the simple mask as many channels are left as the case says."""
    masks = case.simple_masks()
    original, expected = case.model(opset, {}), case.model(opset, masks)
    result = onnx_upscale.optimize(original, document(masks), strategy="upscale", verify=False)
    gathered = emitted(original, document(masks), WAYS[2:3])
    made: dict[Any, onnx.ModelProto] = {"upscale": result.model, **gathered}
    assert_all_same(expected, made, str(masks))
    for way, model in made.items():
        assert _left(model) == case.kept, way
