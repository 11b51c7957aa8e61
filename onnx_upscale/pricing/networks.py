"""Small networks of the kinds there are, whose kernels take what they take among others.

Measured one by one, a kernel finds its data and its code nearer than in a network, and every kernel
may have its luckiest moment; how much that is differs from machine to machine, and on shared ones
from day to day.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from onnx_upscale.pricing.probes import ProbeModel

_SIDE = 128


class _Network:
    """A network that grows layer by layer.

    Attributes:
        data: The last tensor.
        channels: Its channels.
    """

    def __init__(self, precision: str) -> None:
        self._model, self._count = ProbeModel(precision), 0
        self.data, self.channels = self._model.input(1, 3, _SIDE, _SIDE), 3

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        self._count += 1
        return self._model.node(op, *inputs, name=f"n{self._count}", **attributes)

    def conv(
        self, outputs: int, window: int = 1, stride: int = 1, groups: int = 1, data: str = ""
    ) -> str:
        """A convolution of the last tensor, or of another as wide; what it makes is the last."""
        weight = self._model.weight(outputs, self.channels // groups, window, window)
        bias = self._model.weight(outputs)
        self.data = self.node(
            "Conv", data or self.data, weight, bias,
            strides=[stride, stride], pads=[window // 2] * 4, group=groups,
        )  # fmt: skip
        self.channels = outputs
        return self.data

    def stem(self, outputs: int, window: int) -> None:
        """What an image comes in through: a quarter of each side is left."""
        self.conv(outputs, window, 2)
        self.relu()
        self.pool("MaxPool")

    def relu(self) -> None:
        self.data = self.node("Relu", self.data)

    def relu6(self) -> None:
        bounds = [self._model.numbers(bound) for bound in (0, 6)]
        self.data = self.node("Clip", self.data, *bounds)

    def silu(self) -> None:
        self.data = self.node("Mul", self.data, self.node("Sigmoid", self.data))

    def gate(self, channels: int) -> None:
        """Squeeze and excite."""
        data, whole = self.data, self.channels
        self.data = self.node("GlobalAveragePool", data)
        self.conv(channels)
        self.silu()
        self.data = self.node("Mul", data, self.node("Sigmoid", self.conv(whole)))

    def add(self, other: str) -> None:
        self.data = self.node("Add", self.data, other)

    def concat(self, parts: list[tuple[str, int]]) -> None:
        self.data = self.node("Concat", *(name for name, _ in parts), axis=1)
        self.channels = sum(channels for _, channels in parts)

    def pool(self, op: str) -> None:
        self.data = self.node(op, self.data, kernel_shape=[2, 2], strides=[2, 2])

    def finished(self) -> onnx.ModelProto:
        self._model.output(self.node("GlobalAveragePool", self.data))
        return self._model.finished()


def _inverted(precision: str, gated: bool) -> onnx.ModelProto:
    """Wide inside its blocks, with depthwise convolutions there."""
    net = _Network(precision)
    activate = net.silu if gated else net.relu6
    net.conv(32, 3, 2)
    activate()
    for width, window, stride in ((24, 3, 2), (40, 5, 2), (80, 3, 2), (112, 5, 1), (192, 5, 2)):
        for step in (stride, 1):
            before, data = net.channels, net.data
            inside = 6 * before
            net.conv(inside)
            activate()
            net.conv(inside, window, step, groups=inside)
            activate()
            if gated:
                net.gate(max(8, before // 4))
            net.conv(width)
            if step == 1 and before == width:
                net.add(data)
    return net.finished()


def _residual(precision: str, bottleneck: bool) -> onnx.ModelProto:
    net = _Network(precision)
    net.stem(32, 7)
    for width, stride in ((48, 1), (96, 2), (192, 2), (320, 2)):
        for step in (stride, 1):
            before, data = net.channels, net.data
            outputs = 2 * width if bottleneck else width
            if bottleneck:
                net.conv(width // 2)
                net.relu()
            net.conv(width // 2 if bottleneck else width, 3, step)
            net.relu()
            made = net.conv(outputs, 1 if bottleneck else 3)
            if before != outputs or step > 1:
                net.channels = before
                data = net.conv(outputs, 1, step, data=data)
            net.data = made
            net.add(data)
            net.relu()
    return net.finished()


def _dense(precision: str) -> onnx.ModelProto:
    """Every layer reads what all before it made."""
    net = _Network(precision)
    net.stem(32, 3)
    for _ in range(3):
        parts = [(net.data, net.channels)]
        for _ in range(4):
            net.conv(96)
            net.relu()
            parts.append((net.conv(32, 3), 32))
            net.concat(parts)
            net.relu()
        net.conv(net.channels // 2)
        net.pool("AveragePool")
    return net.finished()


def _squeezed(precision: str) -> onnx.ModelProto:
    net = _Network(precision)
    net.stem(64, 3)
    for squeeze, expand in ((16, 64), (32, 128), (48, 192), (64, 256)):
        net.conv(squeeze)
        net.relu()
        data = net.data
        parts = []
        for window in (1, 3):
            net.channels = squeeze
            net.conv(expand, window, data=data)
            net.relu()
            parts.append((net.data, expand))
        net.concat(parts)
        if squeeze < 48:
            net.pool("MaxPool")
    return net.finished()


def networks(precision: str = "float32") -> Iterator[onnx.ModelProto]:
    """The networks, of one to four milliseconds on a CPU.

    Args:
        precision: The type of their real numbers.
    """
    for either in (False, True):
        yield _inverted(precision, gated=either)
    for either in (False, True):
        yield _residual(precision, bottleneck=either)
    yield from (_dense(precision), _squeezed(precision))
