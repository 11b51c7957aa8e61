"""Torch modules that are hard to make smaller, each in its own way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from torch_models import Residual


class Dense(nn.Module):
    """Concatenations, with BatchNorm in front of convolutions and behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 20, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(20)
        self.inner = nn.Conv2d(20, 24, 1, bias=False)
        self.behind = nn.BatchNorm2d(24)
        self.grow = nn.Conv2d(24, 12, 3, padding=1)
        self.last = nn.BatchNorm2d(32)
        self.head = nn.Conv2d(32, 5, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        y = self.grow(torch.relu(self.behind(self.inner(torch.relu(self.norm(x))))))
        x = torch.cat([x, y], 1)
        return functional.adaptive_avg_pool2d(self.head(torch.relu(self.last(x))), 1).flatten(1)


class Inverted(nn.Module):
    """Depthwise and grouped convolutions, squeeze-and-excite, a residual, a flattened head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.expand = nn.Sequential(nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32))
        self.depthwise = nn.Sequential(
            nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False),
            nn.BatchNorm2d(32),
            nn.Hardswish(),
        )
        self.squeeze = nn.Conv2d(32, 8, 1)
        self.excite = nn.Conv2d(8, 32, 1)
        self.grouped = nn.Conv2d(32, 16, 3, padding=1, groups=4)
        self.first = nn.Linear(16 * 16, 24)
        self.norm = nn.BatchNorm1d(24)
        self.second = nn.Linear(24, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        y = self.depthwise(functional.relu6(self.expand(x)))
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        x = x + self.grouped(y * gate)
        x = torch.flatten(functional.max_pool2d(x, 2), 1)
        logits: Tensor = self.second(torch.relu(self.norm(self.first(x))))
        return logits


class Shared(nn.Module):
    """One layer called twice, and two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.twice = nn.Conv2d(16, 16, 3, padding=1)
        self.one = nn.Linear(16, 12)
        self.two = nn.Linear(16, 12)
        self.two.weight = self.one.weight
        self.head = nn.Linear(12, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.stem(image))
        x = torch.relu(self.twice(torch.relu(self.twice(x)))).mean((2, 3))
        logits: Tensor = self.head(torch.relu(self.one(x)) * torch.sigmoid(self.two(x)))
        return logits


class Half(nn.Module):
    """A part that counts channels as it runs."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(channels // 2, channels // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, two = x.chunk(2, dim=1)
        x = torch.cat([one, torch.relu(self.inner(two))], dim=1)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2)
        return x.reshape(batch, channels, height, width)


class Rows(nn.Module):
    """A part that asks how many channels there are."""

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        return x.reshape(batch, channels, height * width).view(batch, channels, height, width)


class Counting(nn.Module):
    """Channels are counted in some parts, and not in others."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.parts = nn.Sequential(Half(16), Half(16))
        self.free = nn.Sequential(nn.Conv2d(16, 24, 1), Rows(), nn.ReLU(), nn.Conv2d(24, 16, 1))
        self.head = nn.Linear(16, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.free(self.parts(torch.relu(self.stem(image)))).mean((2, 3))
        logits: Tensor = self.head(x.view(x.shape[0], 16))
        return logits


class Odd(nn.Module):
    """Parameters that exporters rename or reshape, and ones of the module's own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.act = nn.PReLU(16)
        self.up = nn.ConvTranspose2d(16, 12, 2, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.scale = nn.Parameter(torch.rand(12, 1, 1))
        self.per = nn.InstanceNorm2d(12, affine=True)
        self.mid = nn.Conv2d(12, 12, 1)
        self.groups = nn.GroupNorm(3, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.up(self.act(self.stem(image)))) * self.scale
        x = self.groups(self.mid(self.per(x)))
        logits: Tensor = self.head(x.amax((2, 3)))
        return logits


class Attentive(nn.Module):
    """Attention, whose heads torch counts, between layers that nobody counts."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = self.block(self.patches(image).flatten(2).transpose(1, 2))
        logits: Tensor = self.head(x.mean(1))
        return logits


class Normed(nn.Module):
    """Normalizations behind layers without a bias: alone, beside another reader, twice the same."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.only = nn.Conv2d(16, 16, 1, bias=False)
        self.behind_only = nn.BatchNorm2d(16)
        self.also = nn.Conv2d(16, 16, 1, bias=False)
        self.behind_also = nn.BatchNorm2d(16)
        self.first = nn.Conv2d(16, 16, 1, bias=False)
        self.second = nn.Conv2d(16, 16, 1, bias=False)
        self.behind_both = nn.BatchNorm2d(16)
        self.rectified = nn.Conv2d(16, 16, 1, bias=False)
        self.in_place = nn.ReLU(inplace=True)
        self.behind_in_place = nn.BatchNorm2d(16)
        self.head = nn.Linear(5 * 16, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.sigmoid(self.stem(image))
        also = self.also(x)
        parts = [
            self.behind_only(self.only(x)),
            self.behind_also(also) + also,
            self.behind_both(self.first(x)),
            self.behind_both(self.second(x)),
            self.behind_in_place(self.in_place(self.rectified(x))),
        ]
        logits: Tensor = self.head(torch.sigmoid(torch.cat(parts, 1)).mean((2, 3)))
        return logits


class Linked(nn.Module):
    """What a normalization makes is read twice as it is, as between inverted residuals."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.inner = nn.Conv2d(16, 8, 1)
        self.outer = nn.Conv2d(8, 16, 1)
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.project(image))
        x = x + self.outer(torch.relu(self.inner(x)))
        logits: Tensor = self.head(x).mean((2, 3))
        return logits


class Styled(nn.Module):
    """A normalization that holds nothing, and borders that are reflected."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.per = nn.InstanceNorm2d(16)
        self.mid = nn.Conv2d(16, 12, 3, padding=1, padding_mode="reflect")
        self.head = nn.Linear(12, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.per(self.stem(image)))
        x = torch.relu(self.mid(x))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class Shy(nn.Module):
    """Counts channels unless somebody watches its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 16, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.inner(image))
        if not self.inner._forward_hooks:
            x = x.view(x.shape[0], 16, 8, 8)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class Functional(nn.Module):
    """A layer that is never called: its weight is given to a function."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 1)
        self.left = nn.Conv2d(16, 16, 1)
        self.right = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 5)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.stem(image))
        y = functional.conv2d(x, self.left.weight, self.left.bias)
        logits: Tensor = self.head((torch.relu(y) * torch.sigmoid(self.right(x))).mean((2, 3)))
        return logits


class Several(nn.Module):
    """Two inputs, and outputs in a dictionary; a layer whose input is named, beside one."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(3, 16, 1)
        self.vector = nn.Linear(4, 16)
        self.plain = nn.Linear(16, 5)
        self.named = nn.Linear(16, 2)

    def forward(self, image: Tensor, vector: Tensor) -> dict[str, Tensor]:
        x = torch.relu(self.image(image)).mean((2, 3)) * torch.sigmoid(self.vector(vector))
        return {"plain": self.plain(x), "named": self.named(input=x)}


class Tied(nn.Module):
    """A language model: tokens are told by the weight that embeds them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens = nn.Embedding(20, 16)
        self.inner = nn.Linear(16, 24)
        self.outer = nn.Linear(24, 16)
        self.head = nn.Linear(16, 20, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens)
        logits: Tensor = self.head(x + self.outer(torch.relu(self.inner(x))))
        return logits


MODELS: Mapping[str, Callable[[], nn.Module]] = {
    "residual": Residual,
    "dense": Dense,
    "inverted": Inverted,
    "shared": Shared,
    "counting": Counting,
    "odd": Odd,
    "attentive": Attentive,
    "functional": Functional,
    "normed": Normed,
    "linked": Linked,
    "styled": Styled,
}


def made(name: str, dim: int = 1, amount: float = 0.4) -> nn.Module:
    """A module with weights and statistics that all show, pruned without constraints."""
    torch.manual_seed(1)
    model = MODELS[name]()
    for key, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.is_floating_point() and value.dim() < 2:
            low, high = (0.5, 1.5) if key.endswith(("weight", "var")) else (-0.5, 0.5)
            value.data.uniform_(low, high)
    pruned: set[int] = set()
    for module in model.modules():
        weight: Any = getattr(module, "weight", None)
        kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
        if isinstance(module, kinds) and id(weight) not in pruned and min(weight.shape[:2]) > 1:
            pruned.add(id(weight))
            with torch.no_grad():  # No hook, as modules may share it.
                least = weight.detach().abs().sum([at for at in range(weight.dim()) if at != dim])
                gone = least.argsort()[: int(amount * len(least))]
                weight.index_fill_(dim, gone, 0.0)
    return model.eval()


def hooked(name: str) -> nn.Module:
    """The same, pruned by torch's hooks."""
    model = made(name, amount=0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            prune.ln_structured(module, "weight", 0.4, n=2, dim=1)
    return model
