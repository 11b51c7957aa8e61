"""Distorted letters and digits on noise, from the fonts that matplotlib ships: harder than digits.

1. Every character of every font is drawn once, large (`masters`).
2. An image is a sample of one of them through a random affine map and a random smooth displacement,
   after Simard et al. (2003), with random contrast and noise.
3. Values are multiples of 1/255, so that the last bits of other machines' sums do not show.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.ft2font import FT2Font

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CHARACTERS = string.ascii_uppercase + string.digits
SIDE = 16
TRAINING, TEST, CALIBRATION = 40_000, 3_600, 512
# From each family one font that no network is trained on.
UNSEEN = ("DejaVuSans-Bold", "DejaVuSerif-Italic", "DejaVuSansMono", "STIXGeneralBol", "cmss10")
SEEN = (
    "DejaVuSans", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique",
    "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-BoldItalic",
    "STIXGeneral", "STIXGeneralItalic", "STIXGeneralBolIta",
    "cmb10", "cmr10", "cmti10", "cmtt10",
)  # fmt: skip

_EM = 96  # The size of a font in the pixels that it is drawn with.
_CANVAS = 128
_MASTER = 32
_ROTATION = 0.15  # standard deviations from here on: radians,
_SHEAR = 0.1
_STRETCH = 0.1  # of the logarithms of both scales,
_SHIFT = 0.8  # pixels,
_BEND = 0.6  # pixels, at 4 x 4 knots.
_KNOTS = 4
_STEP = 1.5  # pixels of a master for one of an image
_NOISE = (0.03, 0.12)  # from, to
_CONTRAST = (0.5, 0.9)
_AT_ONCE = 2048


def glyphs(count: int, seed: int | Sequence[int], fonts: Sequence[str]) -> tuple[Images, Labels]:
    """Draws images of random characters.

    Args:
        count: How many; every class gets its share, give or take one.
        seed: Of numpy's generator; the same seed gives the same images.
        fonts: Which fonts, by the names of their files.

    Returns:
        Images of shape (count, 1, 16, 16) with values from 0 to 1, and their classes: positions in
        `CHARACTERS`.
    """
    rng = np.random.default_rng(seed)
    drawn = masters(fonts)
    labels = rng.permutation(np.arange(count) % len(CHARACTERS))
    font = rng.integers(len(fonts), size=count)
    images = np.empty((count, 1, SIDE, SIDE), np.float32)
    for start in range(0, count, _AT_ONCE):
        part = slice(start, min(start + _AT_ONCE, count))
        places = _places(rng, part.stop - start)
        ink = _sample(drawn, font[part], labels[part], places)
        images[part, 0] = _exposed(rng, ink)
    return images, labels


def training_images(seed: int) -> tuple[Images, Labels]:
    """What a network is trained on; no other set has any of them."""
    return glyphs(TRAINING, [0, seed], SEEN)


def test_images() -> tuple[Images, Labels]:
    """What all networks are judged by, in all fonts."""
    return glyphs(TEST, [1], SEEN + UNSEEN)


def calibration_images() -> Images:
    """Images without their classes, in the fonts to train on."""
    return glyphs(CALIBRATION, [2], SEEN)[0]


def missing_fonts() -> list[str]:
    """Those that this release of matplotlib does not have."""
    return [name for name in (*SEEN, *UNSEEN) if not _font_file(name).exists()]


def _font_file(name: str) -> Path:
    return Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"


def masters(fonts: Sequence[str]) -> Floats:
    """Every character in every font: (fonts, characters, 32, 32), from 0 to 1, upright, centred."""
    found = np.zeros((len(fonts), len(CHARACTERS), _CANVAS, _CANVAS))
    for number, name in enumerate(fonts):
        font = FT2Font(str(_font_file(name)))
        font.set_size(_EM, 72)
        for label, character in enumerate(CHARACTERS):
            font.set_text(character)
            font.draw_glyphs_to_bitmap()
            bitmap = np.asarray(font.get_image())
            height, width = bitmap.shape
            top, left = (_CANVAS - height) // 2, (_CANVAS - width) // 2
            found[number, label, top : top + height, left : left + width] = bitmap / 255
    blocks = _CANVAS // _MASTER
    return found.reshape(*found.shape[:2], _MASTER, blocks, _MASTER, blocks).mean(axis=(3, 5))


def _places(rng: np.random.Generator, count: int) -> Floats:
    """Where in its master each pixel of each image is: (count, 2, 16, 16), vertical first."""
    angle = rng.normal(0, _ROTATION, count)
    shear = rng.normal(0, _SHEAR, count)
    scale = _STEP * np.exp(rng.normal(0, _STRETCH, (2, count)))
    shift = rng.normal(0, _SHIFT, (count, 2, 1, 1))
    knots = rng.normal(0, _BEND, (count, 2, _KNOTS, _KNOTS))
    sine, cosine = np.sin(angle), np.cos(angle)
    turn = np.stack([cosine, -sine, sine, cosine]).reshape(2, 2, count)
    lean = np.stack([np.ones(count), np.zeros(count), shear, np.ones(count)]).reshape(2, 2, count)
    affine = np.einsum("in,ijn,jkn->nik", scale, lean, turn)
    centred = np.arange(SIDE) - (SIDE - 1) / 2
    grid = np.stack(np.meshgrid(centred, centred, indexing="ij"))
    between = np.linspace(0, _KNOTS - 1, SIDE)
    weights = np.clip(1 - np.abs(between[:, None] - np.arange(_KNOTS)), 0, None)
    bent = np.einsum("hi,nkij,wj->nkhw", weights, knots, weights, optimize=True)
    moved = np.einsum("nik,nkhw->nihw", affine, grid + shift + bent)
    return np.clip(moved + (_MASTER - 1) / 2, 0, _MASTER - 1.001)


def _sample(drawn: Floats, font: Labels, label: Labels, places: Floats) -> Floats:
    """The ink at each place, linear between the pixels of a master: (count, 16, 16)."""
    whole = places.astype(np.int64)
    row, column = whole[:, 0], whole[:, 1]
    down, right = np.moveaxis(places - whole, 1, 0)
    font, label = font[:, None, None], label[:, None, None]
    upper = drawn[font, label, row, column] * (1 - right)
    upper += drawn[font, label, row, column + 1] * right
    lower = drawn[font, label, row + 1, column] * (1 - right)
    lower += drawn[font, label, row + 1, column + 1] * right
    return upper * (1 - down) + lower * down


def _exposed(rng: np.random.Generator, ink: Floats) -> Images:
    """Ink on noise, in 256 greys."""
    noise, contrast = (rng.uniform(*limits, (len(ink), 1, 1)) for limits in (_NOISE, _CONTRAST))
    level = rng.uniform(0, 1 - contrast)
    grey = level + contrast * ink + noise * rng.standard_normal(ink.shape)
    return (np.rint(255 * np.clip(grey, 0, 1)) / 255).astype(np.float32)
