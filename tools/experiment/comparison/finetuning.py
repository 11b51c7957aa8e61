"""What training adds: the masks of `prune`, and two epochs on labelled images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import onnx_upscale
from experiment.comparison.jobs import Job
from experiment.comparison.rows import Row
from experiment.comparison.setting import NAN, Clock, Setting, quiet
from experiment.glyphs import training_images
from experiment.training import Recipe, train

RECIPE = Recipe(epochs=2, rate=2e-3)


def finetuned_rows(job: Job, setting: Setting) -> Iterator[Row]:
    """Training starts from the network's own weights; what `prune` masked stays zero."""
    images, labels = (torch.from_numpy(each) for each in training_images(setting.seed))
    example = torch.from_numpy(setting.images[:2])
    for wanted in job.wanted:
        clock = Clock()
        path = setting.masks_path(wanted)
        (cell,) = job.cells(wanted)
        if not path.exists():  # `prune` did not get there, or not yet.
            continue
        masks = json.loads(path.read_text())
        model = setting.source.model(setting.network, setting.seed)
        held = hold_zeros(model, masks["masks"])
        shared = model.register_forward_pre_hook(lambda *_: setting.turns.share())
        train(model, images, labels, setting.seed, RECIPE)
        shared.remove()
        for module in held:
            parametrize.remove_parametrizations(module, "weight")
        with quiet():
            exported = onnx_upscale.export(model, (example,), None).model
        emitted = onnx_upscale.optimize(exported, masks, samples=1).model
        yield setting.row(cell, emitted, NAN, setting.ratio(emitted), clock.lap())


class _Zeros(nn.Module):
    """A weight (outputs, inputs, ...) without some of its inputs."""

    def __init__(self, weight: Tensor, gone: list[int]) -> None:
        super().__init__()
        self.left = torch.ones_like(weight)
        self.left[:, gone] = 0

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.left


def hold_zeros(model: nn.Module, masks: Mapping[str, Any]) -> list[nn.Module]:
    """Keeps pruned input channels zero while a network is trained.

    Args:
        model: The network.
        masks: Of a mask file; names are those of its parameters.

    Returns:
        The modules whose `weight` is held.
    """
    held = []
    for key, sides in masks.items():
        module = model.get_submodule(key.removesuffix(".weight"))
        zeros = _Zeros(model.get_parameter(key), sides["input"])
        parametrize.register_parametrization(module, "weight", zeros)
        held.append(module)
    return held
