"""Where trained networks and images come from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from experiment.networks import CONVOLUTIONAL, NETWORKS, set_dropout
from experiment.training import Recipe, train

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

CALIBRATION_IMAGES = 32
_BATCH = 64
_DIGITS = 10


class Source(Protocol):
    """Trained networks with the images to judge them by."""

    networks: tuple[str, ...]
    seeds: tuple[int, ...]

    def model(self, network: str, seed: int) -> nn.Module:
        """A trained network, ready for inference."""

    def calibration(self, seed: int) -> Images:
        """Some images like those that it was trained on, (count, channels, side, side)."""

    def batches(self, seed: int) -> Iterator[tuple[Images, Labels]]:
        """All images that it was not trained on, with their classes."""


class Digits:
    """scikit-learn's digits, 8 x 8 pixels enlarged to 16 x 16, with networks trained here.

    A seed decides the split (40% held out), the initial weights and the order of training. Trained
    networks are kept in `cache`. The transformer can be asked for, and is not in `networks`.
    """

    networks = tuple(CONVOLUTIONAL)
    splits = True  # Every seed holds out other images.

    def __init__(self, cache: Path, seeds: int) -> None:
        from sklearn.datasets import load_digits

        self.seeds = tuple(range(seeds))
        self._cache = cache
        digits = load_digits()
        pixels = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
        self._images = nn.functional.interpolate(pixels, scale_factor=2.0, mode="bilinear")
        self._labels = torch.tensor(digits.target).long()

    def model(self, network: str, seed: int) -> nn.Module:
        """A trained network, from the cache if it is there."""
        torch.manual_seed(seed)
        model = NETWORKS[network](_DIGITS)
        images, labels = self.training(seed)
        path = self._cache / f"{network}.{seed}.pt"
        return _kept(model, path, lambda: train(model, images, labels, seed))

    def training(self, seed: int) -> tuple[Tensor, Tensor]:
        """The images that networks are trained on, with their classes."""
        chosen, _ = self._split(seed)
        return self._images[chosen], self._labels[chosen]

    def calibration(self, seed: int, count: int = CALIBRATION_IMAGES) -> Images:
        """The first images of the training part."""
        chosen, _ = self._split(seed)
        return np.asarray(self._images[chosen[:count]])

    def batches(self, seed: int) -> Iterator[tuple[Images, Labels]]:
        """The held-out part."""
        _, held_out = self._split(seed)
        for start in range(0, len(held_out), _BATCH):
            part = held_out[start : start + _BATCH]
            yield np.asarray(self._images[part]), np.asarray(self._labels[part])

    def _split(self, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        from sklearn.model_selection import train_test_split

        chosen, held_out = train_test_split(
            np.arange(len(self._labels)),
            test_size=0.4,
            random_state=seed,
            stratify=self._labels.numpy(),
        )
        return chosen, held_out


class Glyphs:
    """Distorted letters and digits on noise (`experiment.glyphs`), with networks trained here.

    A seed decides the images to train on, the initial weights and the order. Those to judge and to
    calibrate by are always the same. No channels are dropped in training. Trained networks are kept
    in `cache`.
    """

    networks = tuple(NETWORKS)
    splits = False

    def __init__(self, cache: Path, seeds: int) -> None:
        self.seeds = tuple(range(seeds))
        self._cache = cache

    def model(self, network: str, seed: int) -> nn.Module:
        """A trained network, from the cache if it is there."""
        from experiment.glyphs import CHARACTERS

        torch.manual_seed(seed)
        model = NETWORKS[network](len(CHARACTERS))
        set_dropout(model, 0)

        def fit() -> None:
            images, labels = self.training(seed)
            train(model, images, labels, seed, _RECIPES.get(network, _RECIPE))

        return _kept(model, self._cache / f"{network}.{seed}.pt", fit)

    def training(self, seed: int) -> tuple[Tensor, Tensor]:
        """The images that networks are trained on, with their classes."""
        from experiment.glyphs import training_images

        images, labels = training_images(seed)
        return torch.from_numpy(images), torch.from_numpy(labels)

    def calibration(self, seed: int, count: int | None = None) -> Images:
        """Images that are nowhere else, in the fonts to train on."""
        from experiment.glyphs import calibration_images

        return calibration_images()[:count]

    def batches(self, seed: int) -> Iterator[tuple[Images, Labels]]:
        """Images in all fonts, also those that were not trained on."""
        images, labels = self._test
        for start in range(0, len(labels), _BATCH):
            yield images[start : start + _BATCH], labels[start : start + _BATCH]

    @functools.cached_property
    def _test(self) -> tuple[Images, Labels]:
        from experiment.glyphs import test_images

        return test_images()


TRAINED: Mapping[str, type[Digits] | type[Glyphs]] = {"digits": Digits, "glyphs": Glyphs}

_RECIPE = Recipe(epochs=1, rate=4e-3)
_RECIPES = {"vit": Recipe(epochs=4, rate=2e-3)}


def _kept(model: nn.Module, path: Path, fit: Callable[[], object]) -> nn.Module:
    """The network with the weights in a file, which are made once."""
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    fit()
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    torch.save(model.state_dict(), beside)
    beside.rename(path)
    return model.eval()


class ImageNet:
    """A folder of ImageNet validation images, one subfolder per class, and torchvision's networks.

    Weights, resizing and normalization are torchvision's default ones. Nothing is trained, so there
    is one seed. Calibration takes one image each of the first classes.
    """

    seeds: tuple[int, ...] = (0,)

    def __init__(
        self,
        folder: Path,
        networks: tuple[str, ...] = (
            "resnet18",
            "densenet121",
            "mobilenet_v2",
            "efficientnet_v2_s",
        ),
        batch: int = _BATCH,
        pretrained: bool = True,
    ) -> None:
        self.networks = networks
        self._batch = batch
        self._pretrained = pretrained
        self._files = _class_files(folder)
        self._transform: Callable[[Any], Tensor] | None = None

    def model(self, network: str, seed: int) -> nn.Module:
        """torchvision's network; its own way to prepare images is used from here on."""
        from torchvision import models

        weights = models.get_model_weights(network).DEFAULT
        self._transform = weights.transforms()
        model: nn.Module = models.get_model(network, weights=weights if self._pretrained else None)
        return model.eval()

    def calibration(self, seed: int, count: int = CALIBRATION_IMAGES) -> Images:
        """The first image of each of the first classes."""
        firsts: dict[int, Path] = {}
        for path, label in self._files:
            firsts.setdefault(label, path)
        return np.stack([self._read(path) for path in list(firsts.values())[:count]])

    def batches(self, seed: int) -> Iterator[tuple[Images, Labels]]:
        """All images of the folder."""
        for start in range(0, len(self._files), self._batch):
            part = self._files[start : start + self._batch]
            images = np.stack([self._read(path) for path, _ in part])
            yield images, np.array([label for _, label in part], np.int64)

    def _read(self, path: Path) -> Images:
        from PIL import Image

        assert self._transform is not None, "a network comes first: it says how to read images"
        with Image.open(path) as image:
            return np.asarray(self._transform(image.convert("RGB")))


_CLASSES = 1000
_SUFFIXES = {".jpeg", ".jpg", ".png"}


def _class_files(folder: Path) -> list[tuple[Path, int]]:
    """Images with their classes: the position of their folder's name in alphabetical order."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if len(names) != _CLASSES:
        raise SystemExit(
            f"{folder}: has {len(names)} class folders; the pretrained networks know the "
            f"{_CLASSES} of ImageNet, whose order is that of the folders' names"
        )
    found = [
        (path, label)
        for label, name in enumerate(names)
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in _SUFFIXES
    ]
    if not found:
        raise SystemExit(f"{folder}: no images in its class folders ({', '.join(_SUFFIXES)})")
    return found
