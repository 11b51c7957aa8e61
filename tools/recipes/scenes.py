"""Pictures with digits in them, as a data set for ultralytics: nothing has to be fetched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

DIGITS = Path(__file__).parents[2] / "models" / "digits.npz"
SIZE = 96
HALF = SIZE // 2
_YAML = """\
path: {folder}
train: images/train
val: images/val
names: [digit]
"""


def write_scenes(folder: Path, train: int, val: int, seed: int = 0) -> Path:
    """Writes pictures and where the digits in them are.

    Args:
        folder: Where to.
        train: How many to train on.
        val: How many to judge by; other digits are in them.
        seed: Of the pictures.

    Returns:
        The file that describes the data set.
    """
    images = np.load(DIGITS)["images"][:, 0]
    chance = np.random.default_rng(seed)
    cut = 2 * len(images) // 3
    for part, count, own in (
        ("train", train, slice(cut)),
        ("val", val, slice(cut, None)),
    ):
        (folder / "images" / part).mkdir(parents=True)
        (folder / "labels" / part).mkdir(parents=True)
        for number in range(count):
            picture, boxes = _scene(images[own], chance)
            Image.fromarray(picture).save(folder / "images" / part / f"{number:04}.png")
            lines = "".join(" ".join(map(str, box)) + "\n" for box in boxes)
            (folder / "labels" / part / f"{number:04}.txt").write_text(lines)
    path = folder / "digits.yaml"
    path.write_text(_YAML.format(folder=folder.resolve()))
    return path


def _scene(
    images: np.ndarray, chance: np.random.Generator
) -> tuple[np.ndarray, list[tuple[float, ...]]]:
    """One picture, and per digit 0 for the one label, center, width and height as shares."""
    picture = chance.integers(0, 90, (SIZE, SIZE, 3))
    boxes: list[tuple[float, ...]] = []
    for row, column in chance.permutation([(r, c) for r in (0, 1) for c in (0, 1)])[
        : chance.integers(1, 5)
    ]:
        scale = int(chance.integers(3, 7))
        side = 8 * scale
        top, left = (
            int(HALF * place + chance.integers(0, HALF - side + 1)) for place in (row, column)
        )
        shape = np.kron(chance.choice(images) / 16, np.ones((scale, scale)))[..., None]
        color = chance.integers(120, 256, 3)
        under = picture[top : top + side, left : left + side]
        picture[top : top + side, left : left + side] = under * (1 - shape) + color * shape
        center = ((left + side / 2) / SIZE, (top + side / 2) / SIZE)
        boxes.append((0, *center, side / SIZE, side / SIZE))
    return picture.astype(np.uint8), boxes
