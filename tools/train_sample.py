"""Train the sample network of models/ on scikit-learn's digits, export it and write its masks.

Needs the `export` and `dev` extras. The network is small, but has the structures that make pruning
hard: residual stages, a dense block, squeeze-and-excite and a depthwise convolution.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

from demo import accuracy, masked_model

MODELS = Path(__file__).resolve().parent.parent / "models"
SEED = 2023
EPOCHS = 12
BATCH = 64
PRUNED = 0.35  # of the channels of every layer
FADING = 0.98  # per step
PIXEL_MAX = 16  # the digits are 4-bit images

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint8]
Masks = dict[str, dict[str, list[int]]]


def conv_bn(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.expand(functional.relu(self.reduce(pooled))))


class ResidualBlock(nn.Module):
    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.conv1 = conv_bn(channels, inner, 3)
        self.conv2 = conv_bn(inner, channels, 3)
        self.excite = SqueezeExcite(channels, channels // 4)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.excite(self.conv2(functional.relu(self.conv1(x)))))


class DepthwiseBlock(nn.Module):
    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.expand = conv_bn(channels, inner, 1)
        self.depthwise = conv_bn(inner, inner, 3, groups=inner)
        self.project = conv_bn(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.expand(x))
        result: Tensor = x + self.project(functional.relu(self.depthwise(inner)))
        return result


class DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(functional.relu(self.norm(x)))], dim=1)


class DigitsNet(nn.Module):
    def __init__(self, channels: int = 64, growth: int = 24, classes: int = 10) -> None:
        super().__init__()
        dense = channels + 4 * growth
        self.stem = conv_bn(1, 32, 3)
        self.widen = conv_bn(32, channels, 1)
        self.residual = nn.Sequential(*(ResidualBlock(channels, 48) for _ in range(3)))
        self.depthwise = DepthwiseBlock(channels, 96)
        self.dense = nn.Sequential(
            *(DenseLayer(width, growth) for width in range(channels, dense, growth))
        )
        self.transition = conv_bn(dense, 64, 1)
        self.head = conv_bn(64, 96, 3)
        self.classifier = nn.Linear(96, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = functional.interpolate(image, scale_factor=2.0, mode="bilinear")
        x = functional.relu(self.stem(x))
        x = self.residual(functional.relu(self.widen(x)))
        x = self.dense(self.depthwise(x))
        x = functional.max_pool2d(functional.relu(self.transition(x)), 2)
        x = functional.relu(self.head(x)).mean(dim=(2, 3))
        logits: Tensor = self.classifier(x)
        return logits


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move the whole batch by at most one pixel each way."""
    dy, dx = (int(step) for step in torch.randint(0, 3, (2,), generator=generator))
    return functional.pad(images, (1, 1, 1, 1))[:, :, dy : dy + 8, dx : dx + 8]


def fade(model: DigitsNet) -> None:
    """Shrink what magnitude pruning would remove, so that removing it is mild."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)) and prunable(module.weight):
                module.weight[:, weakest(module.weight, 1)] *= FADING
            if isinstance(module, ResidualBlock):
                norm: Any = module.conv2[1]
                channels = weakest(norm.weight, 0)
                norm.weight[channels] *= FADING
                norm.bias[channels] *= FADING


def weakest(weight: Tensor, axis: int) -> list[int]:
    """Pick the channels with the smallest L1 norm."""
    norms = weight.abs().transpose(0, axis).reshape(weight.shape[axis], -1).sum(dim=1)
    count = int(len(norms) * PRUNED)
    return sorted(int(channel) for channel in norms.argsort(stable=True)[:count])


def prunable(weight: Any) -> bool:
    """Leave alone what has few channels: the stem, depthwise and expanding convolutions."""
    return weight.ndim >= 2 and int(weight.shape[1]) >= 32


def train(images: Tensor, labels: Tensor) -> DigitsNet:
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model = DigitsNet()
    steps = -(-len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=EPOCHS * steps)
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in torch.randperm(len(images), generator=generator).split(BATCH):
            logits = model(shifted(images[batch], generator))
            loss = functional.cross_entropy(logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if epoch >= EPOCHS // 2:
                fade(model)
            total += loss.item()
        print(f"epoch {epoch + 1:2d}/{EPOCHS}  loss {total / steps:.4f}", flush=True)
    model.eval()
    return model


def export(model: DigitsNet) -> onnx.ModelProto:
    program = torch.onnx.export(
        model,
        (torch.zeros(2, 1, 8, 8),),
        dynamo=True,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
        verbose=False,
    )
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    # Stack traces of the exporter name files of the machine that ran it.
    for node in [*proto.graph.node, *proto.graph.input, *proto.graph.output]:
        drop_metadata(node, keep=("namespace", "pkg.torch.onnx.name_scopes"))
    drop_metadata(proto.graph)
    drop_metadata(proto)
    onnx.helper.set_model_props(
        proto,
        {
            "classes": ",".join(str(digit) for digit in range(10)),
            "dataset": "scikit-learn load_digits",
            "input_scaling": f"pixel / {PIXEL_MAX}",
        },
    )
    onnx.checker.check_model(proto, full_check=True)
    return proto


def drop_metadata(proto: Any, keep: tuple[str, ...] = ()) -> None:
    kept = [entry for entry in proto.metadata_props if entry.key in keep]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)


def make_masks(model: onnx.ModelProto) -> Masks:
    """Prune every layer on its own, whatever its neighbours keep."""
    masks: Masks = {}
    for tensor in model.graph.initializer:
        weight = torch.from_numpy(numpy_helper.to_array(tensor).copy())
        if not prunable(weight):
            continue
        masks[tensor.name] = {"input": weakest(weight, 1)}
        if tensor.name.endswith("conv2.0.weight"):
            masks[tensor.name]["output"] = weakest(weight, 0)
    return masks


def main() -> None:
    torch.set_num_threads(1)
    digits = load_digits()
    images: Images = digits.images.astype(np.uint8)[:, None]
    labels: Labels = digits.target.astype(np.uint8)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels, test_size=0.2, random_state=SEED, stratify=labels
    )
    started = time.perf_counter()
    network = train(torch.tensor(train_x / np.float32(PIXEL_MAX)), torch.tensor(train_y).long())
    print(f"trained in {time.perf_counter() - started:.0f} s")

    model = export(network)
    masks = make_masks(model)
    MODELS.mkdir(exist_ok=True)
    onnx.save(model, MODELS / "digits.onnx")
    contents = {"version": 1, "masks": masks}
    (MODELS / "digits.masks.json").write_text(json.dumps(contents) + "\n")
    np.savez_compressed(MODELS / "digits.npz", images=test_x, labels=test_y)
    print(f"accuracy          {accuracy(model, test_x, test_y):.2%}")
    print(f"accuracy, masked  {accuracy(masked_model(model, masks), test_x, test_y):.2%}")


if __name__ == "__main__":
    main()
