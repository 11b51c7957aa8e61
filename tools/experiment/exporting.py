"""Trained networks and their images as files, for what needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import onnx_upscale

if TYPE_CHECKING:
    from experiment.sources import Source


def onnx_path(folder: Path, network: str, seed: int) -> Path:
    """Where the ONNX file of a network is."""
    return folder / f"{network}.{seed}.onnx"


def exported(source: Source, network: str, seed: int, folder: Path) -> Path:
    """The ONNX file of a trained network, made once."""
    import torch

    model = source.model(network, seed)
    path = onnx_path(folder, network, seed)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        images, _ = next(iter(source.batches(seed)))
        onnx_upscale.export(model, (torch.from_numpy(images[:2]),), path)
    return path


def write_images(source: Source, seed: int, folder: Path, suffix: str = "") -> None:
    """Write the images to judge by with their classes, and those to calibrate by.

    `test.npz` has the arrays `input` and `labels`, `calibration.npz` has `input` alone, which
    makes it calibration data for `onnx-upscale`: `input` is what the networks trained here read.
    """
    images, labels = (np.concatenate(parts) for parts in zip(*source.batches(seed), strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f"test{suffix}.npz", input=images, labels=labels)
    np.savez_compressed(folder / f"calibration{suffix}.npz", input=source.calibration(seed))
