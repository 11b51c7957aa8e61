"""Export, optimize and compare pruned torch models: the evidence behind docs/export.md.

    python tools/export_zoo.py [--models NAME,...] [--size 224] [--amount 0.3] > table.md

Each model is pruned with `torch.nn.utils.prune.ln_structured`, once over dim 0 and once over dim 1
of every convolution and linear layer, exported with `onnx_upscale.export`, optimized with no more
than what the export wrote, and compared with the torch model while its pruning hooks are active.
Needs the `export` extra and torchvision.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import onnx_upscale
from onnx_upscale.optimizer.verify import Tolerance, difference
from onnx_upscale.running import Session

MODELS = (
    "resnet18",
    "resnet50",
    "densenet121",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "googlenet",
    "squeezenet1_1",
    "convnext_tiny",
    "shufflenet_v2_x1_0",
    "regnet_y_400mf",
    "vit_b_16",
    "transformer_encoder",
)
# An image and a sequence that leave nothing to the batch size of the export.
BATCH = 2
TOLERANCE = Tolerance(rtol=1e-3, atol=1e-5)
HEAD = [
    "model",
    "dim",
    "exporter",
    "batch",
    "exported - torch",
    "optimized - torch",
    "equal",
    "masked layers",
    "input",
    "output",
    "macs",
    "weights",
    "copies",
    "seconds",
]


def image_model(name: str) -> nn.Module:
    # A CPU torch has no compiled part of torchvision; its operators need to have names.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    KEPT.append(library)
    import torchvision

    model: nn.Module = torchvision.models.get_model(name)
    for auxiliary in ("aux1", "aux2"):  # No part of inference.
        if hasattr(model, auxiliary):
            setattr(model, auxiliary, None)
    return model


KEPT: list[Any] = []  # A library's operators go when it does.


def make(name: str, size: int) -> tuple[nn.Module, Tensor]:
    """A model with seeded random weights and statistics, and an input for it."""
    torch.manual_seed(0)
    if name == "transformer_encoder":
        layer = nn.TransformerEncoderLayer(128, 4, 512, batch_first=True)
        return nn.TransformerEncoder(layer, 4).eval(), torch.randn(1, 32, 128)
    side = 224 if name.startswith("vit") else size
    model = image_model(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            state: Any = module  # Its statistics may be None by type.
            nn.init.uniform_(state.weight, 0.5, 1.5)
            nn.init.normal_(state.bias, std=0.2)
            nn.init.normal_(state.running_mean, std=0.2)
            nn.init.uniform_(state.running_var, 0.5, 1.5)
        elif isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.02)
            if not module.weight.any():  # As the head of vit: what is behind it would not show.
                nn.init.normal_(module.weight, std=0.02)
    return model.eval(), torch.rand(1, 3, side, side)


def prune_all(model: nn.Module, dim: int, amount: float) -> None:
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            prune.ln_structured(module, "in_proj_weight", amount, n=2, dim=dim)
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            prune.ln_structured(module, "weight", amount, n=2, dim=dim)


def row(name: str, dim: int, amount: float, size: int, folder: Path) -> list[str]:
    model, x = make(name, size)
    prune_all(model, dim, amount)
    path = folder / "out.onnx"
    started = time.perf_counter()
    exported = onnx_upscale.export(model, x, path)
    seconds = time.perf_counter() - started
    doubts = onnx_upscale.verify(exported.model, None, exported.model).warnings
    for warning in [*exported.warnings, *doubts]:
        print(f"<!-- {name} dim {dim}: {warning} -->")
    optimized = onnx_upscale.optimize(path, exported.masks_path)
    report = optimized.report
    x = torch.cat([x, torch.rand_like(x)])[: BATCH if exported.batch else 1]
    with torch.no_grad():
        expected = model(x).numpy()
    (value,) = optimized.model.graph.input
    (got,) = Session(optimized.model, threads=1).run({value.name: x.numpy()}).values()
    found = difference("output", expected, got, TOLERANCE)
    masks = json.loads(path.with_suffix(".masks.json").read_text())["masks"]
    counts = {
        side: sum(len(sides.get(side, ())) for sides in masks.values())
        for side in ("input", "output")
    }
    shares = [report["output"][key] / report["input"][key] for key in ("macs", "params")]
    return [
        name,
        str(dim),
        exported.exporter,
        exported.batch or "fixed",
        f"{exported.max_rel:.1e}",
        f"{found.relative:.1e}",
        "yes" if found.failure is None else f"NO: {found.failure}",
        str(len(masks)),
        str(counts["input"]),
        str(counts["output"]),
        *(f"{share:.2f}" for share in shares),
        str(report["copies"]["count"]),
        f"{seconds:.1f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--amount", type=float, default=0.3)
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    print(f"| {' | '.join(HEAD)} |\n{'| --- ' * len(HEAD)}|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, dim in itertools.product(args.models.split(","), (0, 1)):
            try:
                cells = row(name, dim, args.amount, args.size, Path(folder))
            except onnx_upscale.UpscaleError as error:
                cells = [name, str(dim), f"NO: {error}", *[""] * (len(HEAD) - 3)]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
