"""Small networks for images of 16 x 16 pixels: the four families that the paper prunes, and one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from experiment.transformer import vit

# In training every convolution loses this share of the channels that it reads, unless
# `set_dropout` says otherwise. Networks this small, trained without it, are near chance as soon as
# 20% are pruned, and then all pruners are equal.
DROPPED = 0.3


def set_dropout(model: nn.Module, share: float) -> None:
    """How many of the channels that they read all convolutions lose in training."""
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = share


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = False) -> nn.Module:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)
    return nn.Sequential(nn.Dropout2d(DROPPED), layer) if inputs > 1 else layer


def conv_bn(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    if groups == 1:
        return nn.Sequential(conv(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs))
    depthwise = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(depthwise, nn.BatchNorm2d(outputs))


class Head(nn.Module):
    """Pool and classify."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits


class BasicBlock(nn.Module):
    """The residual block of ResNet-18 (He et al., 2016)."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_bn(inputs, channels, 3, stride)
        self.conv2 = conv_bn(channels, channels, 3)
        same = stride == 1 and inputs == channels
        self.shortcut = nn.Identity() if same else conv_bn(inputs, channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv2(functional.relu(self.conv1(x)))
        return functional.relu(inner + self.shortcut(x))


class DenseLayer(nn.Module):
    """The bottleneck layer of DenseNet-BC (Huang et al., 2017)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, 4 * growth, 1)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = conv(4 * growth, growth, 3)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(functional.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(functional.relu(self.norm2(inner)))], dim=1)


class SqueezeExcite(nn.Module):
    """Channel attention (Hu et al., 2018)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = conv(channels, squeezed, 1, bias=True)
        self.expand = conv(squeezed, channels, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.expand(functional.silu(self.reduce(pooled))))


class InvertedResidual(nn.Module):
    """The block of MobileNetV2 (Sandler et al., 2018); with attention, of EfficientNet."""

    def __init__(self, inputs: int, channels: int, stride: int, attentive: bool) -> None:
        super().__init__()
        inner = 4 * inputs
        self.expand = conv_bn(inputs, inner, 1)
        self.depthwise = conv_bn(inner, inner, 3, stride, groups=inner)
        self.excite = SqueezeExcite(inner, inputs // 2) if attentive else nn.Identity()
        self.project = conv_bn(inner, channels, 1)
        self.activation: nn.Module = nn.SiLU() if attentive else nn.ReLU6()
        self.residual = stride == 1 and inputs == channels

    def forward(self, x: Tensor) -> Tensor:
        inner = self.activation(self.depthwise(self.activation(self.expand(x))))
        result: Tensor = self.project(self.excite(inner))
        return x + result if self.residual else result


def resnet(classes: int) -> nn.Module:
    widths, blocks = (32, 64, 128), 2
    layers: list[nn.Module] = [conv_bn(1, widths[0], 3), nn.ReLU()]
    inputs = widths[0]
    for stage, channels in enumerate(widths):
        for block in range(blocks):
            layers.append(BasicBlock(inputs, channels, 2 if stage and not block else 1))
            inputs = channels
    return nn.Sequential(*layers, Head(inputs, classes))


def densenet(classes: int) -> nn.Module:
    growth, blocks = 16, (4, 4, 4)
    channels = 32
    layers: list[nn.Module] = [conv(1, channels, 3)]
    for number, depth in enumerate(blocks):
        for _ in range(depth):
            layers.append(DenseLayer(channels, growth))
            channels += growth
        layers += [nn.BatchNorm2d(channels), nn.ReLU()]
        if number < len(blocks) - 1:
            layers += [conv(channels, channels // 2, 1), nn.AvgPool2d(2)]
            channels //= 2
    return nn.Sequential(*layers, Head(channels, classes))


def _inverted(classes: int, attentive: bool) -> nn.Module:
    activation: nn.Module = nn.SiLU() if attentive else nn.ReLU6()
    inputs, last = 24, 192
    layers: list[nn.Module] = [conv_bn(1, inputs, 3), activation]
    for channels, depth, stride in ((24, 2, 1), (40, 3, 2), (72, 3, 2)):
        for block in range(depth):
            layers.append(InvertedResidual(inputs, channels, 1 if block else stride, attentive))
            inputs = channels
    return nn.Sequential(*layers, conv_bn(inputs, last, 1), activation, Head(last, classes))


def mobilenet(classes: int) -> nn.Module:
    return _inverted(classes, attentive=False)


def efficientnet(classes: int) -> nn.Module:
    return _inverted(classes, attentive=True)


CONVOLUTIONAL: Mapping[str, Callable[[int], nn.Module]] = {
    "resnet": resnet,
    "densenet": densenet,
    "mobilenet": mobilenet,
    "efficientnet": efficientnet,
}
# Each builds a network for a number of classes, whose one input is called "input".
NETWORKS = {**CONVOLUTIONAL, "vit": vit}
