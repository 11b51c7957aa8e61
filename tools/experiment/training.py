"""Training the small networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

BATCH = 64


@dataclass(frozen=True)
class Recipe:
    """How long to train, and the largest step of it."""

    epochs: int
    rate: float


DIGITS = Recipe(epochs=30, rate=4e-3)


def train(
    model: nn.Module, images: Tensor, labels: Tensor, seed: int, recipe: Recipe = DIGITS
) -> nn.Module:
    """Train in place, on images of (count, 1, side, side); the same every time."""
    generator = torch.Generator().manual_seed(seed)
    steps = -(-len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.rate, total_steps=recipe.epochs * steps
    )
    model.train()
    for _ in range(recipe.epochs):
        for batch in torch.randperm(len(images), generator=generator).split(BATCH):
            logits = model(_shifted(images[batch], generator))
            loss = functional.cross_entropy(logits, labels[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def _shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """The whole batch, moved by at most two pixels each way."""
    height, width = images.shape[2:]
    dy, dx = (int(step) for step in torch.randint(0, 5, (2,), generator=generator))
    return functional.pad(images, (2, 2, 2, 2))[:, :, dy : dy + height, dx : dx + width]
