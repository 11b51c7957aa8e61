"""Small torch models to export, and what they and their exports say."""

from __future__ import annotations

import copy
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from onnx_upscale.exporter.torch_exporters import Request
from onnx_upscale.running import Session


class Residual(nn.Module):
    """Layers with and without bias and BatchNorm, one grouped, joined by an addition."""

    def __init__(self, channels: int = 48) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.left = nn.Conv2d(channels, channels, 1, bias=False)
        self.right = nn.Conv2d(channels, channels, 1, groups=2)
        self.inner = nn.Conv2d(channels, channels, 1)
        self.head = nn.Linear(channels, 5)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)
        nn.init.normal_(self.norm.bias)
        statistics: Any = self.norm.running_mean  # None by type where it is not tracked.
        nn.init.normal_(statistics)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(image)))
        x = torch.relu(self.left(x)) + torch.sigmoid(self.right(x))
        logits: Tensor = self.head(torch.relu(self.inner(x)).mean((2, 3)))
        return logits


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.conv(x).mean((2, 3)))
        return y


def pruned(dim: int, amount: float = 0.4) -> Residual:
    torch.manual_seed(dim)
    model = Residual()
    for module in (model.left, model.right, model.inner, model.head):
        prune.ln_structured(module, "weight", amount, n=2, dim=dim)
    return model


def image(batch: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def torch_says(model: nn.Module, x: Tensor) -> Any:
    """What the user's model gives in evaluation mode, its hooks active."""
    witness = copy.copy(model).eval()
    with torch.no_grad():
        result = witness(x).numpy()
    return result


def onnx_says(model: onnx.ModelProto, x: Tensor) -> Any:
    (value,) = model.graph.input
    (result,) = Session(model, threads=1).run({value.name: x.numpy()}).values()
    return result


def fails(request: Request) -> onnx.ModelProto:
    raise RuntimeError("it did not like it\nand more that nobody wants to read")
