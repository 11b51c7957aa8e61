"""A small vision transformer (Dosovitskiy et al., 2021) for images of 16 x 16 pixels.

Two convolutions make its tokens, as a plain cut into patches takes many times the training (Xiao et
al., 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 96
HEADS = 4
BLOCKS = 3
SIDE = 16


class Attention(nn.Module):
    """Every token looks at all of them, in several ways at once (Vaswani et al., 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        split = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = split.unbind(0)
        found = functional.scaled_dot_product_attention(query, key, value)
        result: Tensor = self.project(found.transpose(1, 2).flatten(2))
        return result


class Block(nn.Module):
    """Attention, then two layers on each token, each normalized before and added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        inner: Tensor = self.narrow(functional.gelu(self.widen(self.norm2(x))))
        return x + inner


class Tokens(nn.Module):
    """Overlapping patches, 4 pixels apart, that know where they are: (batch, tokens, width)."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(1, width // 2, 3, 2, 1, bias=False), nn.BatchNorm2d(width // 2), nn.ReLU()
        )
        self.embed = nn.Conv2d(width // 2, width, 3, 2, 1)
        self.place = nn.Parameter(0.02 * torch.randn((side // 4) ** 2, width))

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.embed(self.inner(x)).flatten(2).transpose(1, 2)
        return tokens + self.place


class Mean(nn.Module):
    """The mean of all tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


def vit(classes: int) -> nn.Module:
    return nn.Sequential(
        Tokens(WIDTH, SIDE),
        *(Block(WIDTH, HEADS) for _ in range(BLOCKS)),
        nn.LayerNorm(WIDTH),
        Mean(),
        nn.Linear(WIDTH, classes),
    )
