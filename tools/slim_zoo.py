"""Make torchvision's models smaller in torch: the evidence behind docs/slim.md.

    python tools/slim_zoo.py [--models NAME,...] [--pruned KIND,...] [--size 64] > table.md

Each model is pruned with `torch.nn.utils.prune`, in every convolution and linear layer: `random`
takes any channels on both sides, `inputs` and `outputs` those of the smallest norm on one. It is
exported, optimized, and given back by `onnx_upscale.torch.slim`. The smaller module is compared
with the optimized model, asked for gradients, and exported again by `torch.onnx.export` alone.
Needs the `export` extra and torchvision.
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import onnx_upscale
from export_zoo import make, prune_all
from onnx_upscale.running import Session
from onnx_upscale.torch import slim
from onnx_upscale.torch.selection import NAME

MODELS = (
    "resnet18",
    "resnet50",
    "densenet121",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mnasnet1_0",
    "efficientnet_b0",
    "squeezenet1_1",
    "googlenet",
    "shufflenet_v2_x1_0",
    "regnet_y_400mf",
    "convnext_tiny",
    "swin_t",
    "vit_b_16",
)
HEAD = [
    "model",
    "pruned",
    "weights",
    "of the result",
    "layers that pick",
    "copies of the result",
    "slim - result",
    "equal",
    "gradients",
    "exported again",
    "CPU seconds",
]
_EQUAL = 1e-4


def prune_randomly(model: nn.Module, amount: float) -> None:
    """The same share of the channels on both sides of every layer."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            for dim in (0, 1):
                prune.random_structured(module, "weight", amount, dim=dim)


PRUNED: Mapping[str, Callable[[nn.Module, float], None]] = {
    "random": prune_randomly,
    "inputs": lambda model, amount: prune_all(model, 1, amount),
    "outputs": lambda model, amount: prune_all(model, 0, amount),
}


def row(name: str, pruned: str, amount: float, size: int) -> list[str]:
    model, x = make(name, size)
    PRUNED[pruned](model, amount)
    exported = onnx_upscale.export(model, x, None)
    result = onnx_upscale.optimize(exported.model, exported.masks)
    started = time.process_time()
    small = slim(model, result).eval()
    seconds = time.process_time() - started
    images = torch.randn(3, *x.shape[1:], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        made = small(images).numpy()
    apart = distance(onnx_says(result.model, images), made)
    before = sum(each.numel() for each in model.parameters())
    after = sum(each.numel() for each in small.parameters())
    report = result.report
    return [
        name,
        pruned,
        f"{after / before:.3f}",
        f"{report.output.params / report.input.params:.3f}",
        str(sum(key.endswith(NAME) for key, _ in small.named_buffers())),
        str(report.copies.count),
        f"{apart:.1e}",
        "yes" if apart <= _EQUAL else "NO",
        "finite" if trains(small, images) else "NO",
        f"{distance(made, exported_again(small, images)):.1e}",
        f"{seconds:.1f}",
    ]


def trains(small: nn.Module, images: Tensor) -> bool:
    """Whether every parameter gets a gradient of numbers."""
    module = copy.deepcopy(small).train()
    made = module(images)
    logits = made[0] if isinstance(made, tuple) else made  # In training some give more.
    logits.logsumexp(1).sum().backward()
    gradients = [each.grad for each in module.parameters()]
    return all(each is not None and bool(each.isfinite().all()) for each in gradients)


def exported_again(small: nn.Module, images: Tensor) -> Any:
    """What it computes after `torch.onnx.export`."""
    program = torch.onnx.export(small, (images,), dynamo=True, verbose=False)
    assert program is not None
    return onnx_says(program.model_proto, images)


def onnx_says(model: Any, images: Tensor) -> Any:
    session = Session(model, threads=1)
    return next(iter(session.run({model.graph.input[0].name: images.numpy()}).values()))


def distance(wanted: Any, found: Any) -> float:
    return float(np.abs(wanted - found).max() / np.abs(wanted).max())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--pruned", default="random", help=", ".join(PRUNED))
    parser.add_argument("--amount", type=float, default=0.3)
    parser.add_argument("--size", type=int, default=64)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    print(f"| {' | '.join(HEAD)} |\n{'| --- ' * len(HEAD)}|", flush=True)
    for name in args.models.split(","):
        for pruned in args.pruned.split(","):
            try:
                cells = row(name, pruned, args.amount, args.size)
            except onnx_upscale.UpscaleError as error:
                cells = [name, pruned, f"NO: {error}", *[""] * (len(HEAD) - 3)]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
