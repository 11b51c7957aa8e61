"""docs/recipes/timm.md: a network from timm, exported by torch, pruned, and run.

    PYTHONPATH=tools python tools/recipes/image_classifier.py FOLDER [--model resnet10t]

Needs timm and pillow. Trains the network on the digits of models/, for which nothing has to be
fetched.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image
from torch import nn

from recipes.operators import declare_operators
from recipes.scenes import DIGITS
from recipes.shell import run, show_versions

SIZE = 64
_TRAIN = 240
_SIGMA = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="resnet10t")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--macs", default="0.5")
    args = parser.parse_args()
    declare_operators()
    import timm

    folder: Path = args.folder.resolve()
    (folder / "images").mkdir(parents=True, exist_ok=True)
    show_versions("timm", "torch", "onnx", "onnxruntime")
    torch.manual_seed(0)
    model = timm.create_model(args.model, pretrained=False, num_classes=10)
    config = timm.data.resolve_model_data_config(model)
    mean, std = (tuple(map(float, config[name])) for name in ("mean", "std"))
    pictures, labels = _pictures()
    prepared = (pictures / 255 - np.array(mean)) / np.array(std)
    images = torch.from_numpy(prepared.transpose(0, 3, 1, 2).astype(np.float32))
    _train(model, images[:_TRAIN], torch.from_numpy(labels[:_TRAIN]), args.epochs)
    for number, picture in enumerate(pictures[:_TRAIN]):
        Image.fromarray(picture).save(folder / "images" / f"{number:03}.png")

    path = folder / "model.onnx"
    torch.onnx.export(
        model.eval(),
        (images[:2],),
        path,
        input_names=["image"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )
    listed = [",".join(f"{value:g}" for value in values) for values in (mean, std)]
    run(
        f"onnx-upscale prune model.onnx pruned.onnx --data images --mean {listed[0]} "
        f"--std {listed[1]} --macs {args.macs}",
        folder,
    )
    run("onnx-upscale bench model.onnx pruned.onnx --no-memory", folder)
    held = images[_TRAIN:].numpy()
    for name in ("model", "pruned"):
        session = onnxruntime.InferenceSession(
            str(folder / f"{name}.onnx"), providers=["CPUExecutionProvider"]
        )
        (logits,) = session.run(None, {"image": held})
        print(f"{name:6} {(logits.argmax(1) == labels[_TRAIN:]).mean():.1%}")


def _pictures() -> tuple[np.ndarray, np.ndarray]:
    """Digits as pictures in color, and what they are."""
    digits = np.load(DIGITS)
    large = np.kron(digits["images"][:, 0] / 16, np.ones((SIZE // 8, SIZE // 8)))
    chance = np.random.default_rng(0)
    noisy = large[..., None] + chance.normal(0, _SIGMA, (*large.shape, 3))
    return (noisy.clip(0, 1) * 255).astype(np.uint8), digits["labels"].astype(np.int64)


def _train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(24):
            loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


if __name__ == "__main__":
    main()
