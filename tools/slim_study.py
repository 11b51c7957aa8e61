"""Prune the experiment's networks, go back to torch, fine-tune for one epoch: for docs/slim.md.

    python tools/slim_study.py [--data glyphs] [--networks resnet] [--amounts 0.3 0.5] > table.md
    python tools/slim_study.py --steps 70       # a try: networks that were trained less

Each network is exported and pruned without constraints by the L1 norm of what its layers read,
`onnx_upscale.torch.slim` makes a module of the result, and this is trained for an epoch like the
network was, without dropout, and exported again by `torch.onnx.export` alone. With `--steps`,
networks are trained for so many steps and not kept, and an epoch is the images that these see, each
once. Needs the `experiment` extra.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

import onnx_upscale
from experiment.cells import accuracy
from experiment.glyphs import SEEN, glyphs
from experiment.networks import CONVOLUTIONAL, set_dropout
from experiment.sources import TRAINED, Digits, Glyphs
from experiment.training import BATCH, DIGITS, Recipe, train
from onnx_upscale.running import Session
from onnx_upscale.torch import slim
from onnx_upscale.torch.selection import NAME

ROOT = Path(__file__).resolve().parent.parent
HEAD = [
    "data",
    "network",
    "pruned",
    "weights",
    "macs",
    "layers that pick",
    "unpruned",
    "result",
    "slim",
    "fine-tuned",
    "exported again",
    "difference",
    "CPU seconds",
]
_RATE = 4e-3


@dataclass(frozen=True)
class Trained:
    """A network, and the images that it was trained on."""

    model: nn.Module
    images: Tensor
    labels: Tensor


def row(
    source: Digits | Glyphs, network: Trained, exported: onnx_upscale.Exported, amount: float
) -> list[str]:
    model, images, labels = network.model, network.images, network.labels
    seed = source.seeds[0]
    masks = onnx_upscale.mask(exported.model, "l1", amount, layers=["*"])
    result = onnx_upscale.optimize(exported.model, masks, samples=1)
    small = slim(model, result)
    picks = sum(name.endswith(NAME) for name, _ in small.named_buffers())
    before = share_right(small, source, seed)
    started = time.process_time()
    set_dropout(small, 0)
    train(small, images, labels, seed, Recipe(epochs=1, rate=_RATE))
    seconds = time.process_time() - started
    again = exported_again(small, images[:2])
    report = result.report
    return [
        f"{amount:.0%}",
        f"{report.output.params / report.input.params:.2f}",
        f"{report.output.macs / report.input.macs:.2f}",
        str(picks),
        percent(accuracy(exported.model, source, seed)),
        percent(accuracy(result.model, source, seed)),
        percent(before),
        percent(share_right(small, source, seed)),
        percent(accuracy(again, source, seed)),
        f"{difference(small, again, source, seed):.1e}",
        f"{seconds:.0f}",
    ]


def trained(source: Digits | Glyphs, network: str, steps: int | None) -> Trained:
    """A network that was trained as those of the experiment are, or for some steps."""
    seed = source.seeds[0]
    if steps is None:
        return Trained(source.model(network, seed), *source.training(seed))
    torch.manual_seed(seed)
    if isinstance(source, Glyphs):
        made = glyphs(steps * BATCH, [0, seed], SEEN)
        images, labels = (torch.from_numpy(each) for each in made)
    else:
        images, labels = source.training(seed)
    model = CONVOLUTIONAL[network](int(labels.max()) + 1)
    set_dropout(model, 0)
    epochs = max(steps * BATCH // len(images), 1)
    train(model, images, labels, seed, Recipe(epochs, DIGITS.rate))
    return Trained(model, images, labels)


def share_right(module: nn.Module, source: Digits | Glyphs, seed: int) -> float:
    """Share of the held-out images that a module classifies right."""
    right = total = 0
    module.eval()
    with torch.no_grad():
        for images, labels in source.batches(seed):
            found: Tensor = module(torch.from_numpy(images)).argmax(1)
            right += int((found == torch.from_numpy(labels)).sum())
            total += len(labels)
    return right / total


def exported_again(small: nn.Module, images: Tensor) -> onnx.ModelProto:
    """What torch makes of a module, for any count of images."""
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.onnx.export(small, (images,), dynamic_shapes=shapes, dynamo=True, verbose=False)
    assert program is not None
    made: onnx.ModelProto = program.model_proto
    return made


def difference(
    module: nn.Module, model: onnx.ModelProto, source: Digits | Glyphs, seed: int
) -> float:
    """The largest between a module and a model, as a share of the largest output."""
    session, name = Session(model, threads=1), model.graph.input[0].name
    largest = apart = 0.0
    for images, _ in source.batches(seed):
        with torch.no_grad():
            wanted = module(torch.from_numpy(images)).numpy()
        (found,) = session.run({name: images}).values()
        largest = max(largest, float(np.abs(wanted).max()))
        apart = max(apart, float(np.abs(wanted - found).max()))
    return apart / largest


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=tuple(TRAINED), default="digits")
    parser.add_argument("--networks", nargs="+", default=list(CONVOLUTIONAL))
    parser.add_argument("--amounts", type=float, nargs="+", default=[0.3, 0.5])
    parser.add_argument("--steps", type=int, help="train networks for so many steps, and anew")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    source = TRAINED[args.data](ROOT / "build" / args.data, 1)
    print(f"| {' | '.join(HEAD)} |\n{'| --- ' * len(HEAD)}|", flush=True)
    for name in args.networks:
        network = trained(source, name, args.steps)
        exported = onnx_upscale.export(network.model, network.images[:2], None)
        for amount in args.amounts:
            cells = row(source, network, exported, amount)
            print(f"| {args.data} | {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
