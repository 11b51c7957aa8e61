"""Makes the models of `slim_models` smaller, and checks what holds for every module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import onnx_upscale
from onnx_upscale import Result, export
from onnx_upscale.torch import slim
from onnx_upscale.torch.selection import NAME
from torch_models import image, onnx_says, torch_says

STRATEGIES = ("auto", "gather")


def optimized(model: nn.Module, strategy: str = "gather", **options: Any) -> Result:
    """The result for one kind of CPU, as others keep all that some of these layers have."""
    exported = export(model, image(), None)
    return onnx_upscale.optimize(
        exported.model, exported.masks, strategy=strategy, target="cpu-avx2", **options
    )


def check(model: nn.Module, result: Result) -> nn.Module:
    """Slims, and checks what holds for every module."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    small = slim(model, result)
    assert_equal(small, result)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert set(small.state_dict()) >= set(before)
    assert type(small) is type(model)
    assert_counts_are_right(small)
    return small


COUNTED: Mapping[type[nn.Module], Callable[[Any], tuple[int, ...]]] = {
    nn.modules.conv._ConvTransposeNd: lambda part: (
        part.in_channels,
        part.out_channels // part.groups,
    ),
    nn.modules.conv._ConvNd: lambda part: (part.out_channels, part.in_channels // part.groups),
    nn.Linear: lambda part: (part.out_features, part.in_features),
    nn.modules.batchnorm._NormBase: lambda part: (part.num_features,),
    nn.GroupNorm: lambda part: (part.num_channels // part.num_groups * part.num_groups,),
    nn.PReLU: lambda part: (part.num_parameters,),
    nn.Embedding: lambda part: (part.num_embeddings, part.embedding_dim),
}


def assert_counts_are_right(module: nn.Module) -> None:
    """Modules say of themselves what their weights say."""
    for path, part in module.named_modules():
        weight = getattr(part, "weight", None)
        said = next((said for kind, said in COUNTED.items() if isinstance(part, kind)), None)
        if weight is not None and said is not None:
            assert tuple(weight.shape[:2]) == said(part), path


def assert_equal(module: nn.Module, result: Result) -> None:
    for batch in (1, 3):
        x = image(batch, seed=5)
        np.testing.assert_allclose(torch_says(module, x), onnx_says(result.model, x), atol=1e-4)


def weights(model: nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())


def selections(model: nn.Module) -> dict[str, Tensor]:
    found = model.named_buffers()
    return {name.rpartition(".")[0]: value for name, value in found if name.endswith(NAME)}
