"""The planned set of shapes: what is measured, the same on every machine with the same blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from onnx_upscale.grain import Grain
from onnx_upscale.prices import AnalyticPrices, Kernel, byte_convolution
from onnx_upscale.prices.kernels import BLOCKED, BYTES, PLAIN


@dataclass(frozen=True)
class _Scale:
    """How large kernels are.

    Attributes:
        macs: The most multiply-adds.
        elements: The most elements of a tensor.
        images: How many there may be at a time.
    """

    macs: float
    elements: float
    images: tuple[int, ...]


# On a CPU none takes much longer than some milliseconds, and no tensor more than the caches; what
# takes a GPU longer than to be started needs many images.
_SCALES = {"cpu": _Scale(1.5e8, 1.2e6, (1,)), "cuda": _Scale(5e9, 1.3e7, (1, 1, 8, 32))}
# Of maps of networks for 224 pixels, and for powers of two.
_SIDES = (4, 7, 8, 14, 16, 28, 32, 56, 112)
_TRIES = 400


@dataclass(frozen=True)
class _Range:
    """Where the shapes of a family are drawn from.

    Attributes:
        count: How many.
        windows: Positions of the window.
        strides: Input positions per output position.
        sides: Height and width of the result.
        fewest: The smallest count of channels.
    """

    count: int
    windows: tuple[int, ...] = (1,)
    strides: tuple[int, ...] = (1,)
    sides: tuple[int, ...] = _SIDES
    fewest: int = 8


_RANGES = {
    "direct": _Range(90, (9, 9, 9, 25), (1, 1, 4)),
    "pointwise": _Range(120, (1,), (1, 1, 1, 4), (1, *_SIDES)),
    "few": _Range(24, (9, 9, 49), (1, 4), (14, 28, 56, 112), 1),
    "few_pointwise": _Range(12, (1,), (1,), (1, *_SIDES), 1),
    "depthwise": _Range(70, (9, 25), (1, 1, 4)),
    "grouped": _Range(16, (9,), (1, 1, 4)),
    "unrolled": _Range(30, (9, 9, 25), (1, 1, 4)),
    "unrolled_pointwise": _Range(40, (1,), (1,), (1, *_SIDES)),
    "depthwise_plain": _Range(60, (9, 25), (1, 1, 4)),
    "grouped_plain": _Range(20, (9,), (1, 1, 4)),
    "bytes": _Range(40, (9, 9, 9, 25), (1, 1, 4)),
    "bytes_pointwise": _Range(50, (1,), (1, 1, 1, 4), (1, *_SIDES)),
    "bytes_depthwise": _Range(30, (9, 25), (1, 1, 4)),
    "bytes_grouped": _Range(12, (9,), (1, 1, 4)),
    "ragged": _Range(30, (9, 9, 9, 25), (1, 1, 4)),
    "ragged_pointwise": _Range(40, (1,), (1, 1, 1, 4), (1, *_SIDES)),
    "ragged_depthwise": _Range(30, (9, 25), (1, 1, 4)),
    "bytes_product": _Range(20),
    "product": _Range(40),
    "reorder_in": _Range(30, sides=(1, *_SIDES)),
    "fused": _Range(24),
    "gather": _Range(30, sides=(1, *_SIDES)),
    "slice": _Range(30, sides=(1, *_SIDES)),
    "gather_last": _Range(16),
    "slice_last": _Range(16),
    "concat": _Range(30),
    "pool": _Range(16, (4, 9), (1, 4)),
    "pool_plain": _Range(16, (4, 9), (1, 4)),
    "reduce": _Range(16, sides=(1,)),
    "simple": _Range(16),
    "binary": _Range(24),
    "scale": _Range(24),
    "costly": _Range(30, sides=(1, *_SIDES)),
    "overhead": _Range(6, sides=(1,)),
}
_ROWS = (1, 4, 16, 64, 128, 197)


def planned(prices: AnalyticPrices, share: float = 1.0) -> list[Kernel]:
    """The kernels to measure.

    Args:
        prices: Those of the kind of machine, which know the counts that its kernels like.
        share: How large a part of the whole set, for trying things out.

    Returns:
        Distinct kernels, families mixed, so that none is measured in one go.
    """
    rng = np.random.default_rng(0)
    found: dict[Kernel, None] = {}
    for family, limits in _RANGES.items():
        if family.startswith("reorder") and prices.layouts == 1:
            continue
        if family in BYTES and not prices.has_byte_kernels:
            continue
        draw = _DRAWS.get(family, _plain)
        for _ in range(max(2, round(limits.count * share))):
            found.update(dict.fromkeys(_one(rng, family, limits, draw, prices)))
    kernels = list(found)
    return [kernels[index] for index in rng.permutation(len(kernels))]


_Draw = Callable[[np.random.Generator, str, _Range, AnalyticPrices], Kernel]


def _one(
    rng: np.random.Generator, family: str, limits: _Range, draw: _Draw, prices: AnalyticPrices
) -> Iterator[Kernel]:
    """A kernel of a family that is neither too large nor of another family by its counts."""
    for _ in range(_TRIES):
        kernel = draw(rng, family, limits, prices)
        elements = max(kernel.inputs * kernel.stride, kernel.outputs) * kernel.places
        macs = kernel.inputs * kernel.outputs // kernel.groups * kernel.places * kernel.window
        layer = family in (*BLOCKED, *PLAIN, *BYTES, "product")
        scale = _SCALES[prices.provider]
        small = elements <= scale.elements and (not layer or macs <= scale.macs)
        if kernel.family == family and small:
            yield kernel
            return


def _channels(rng: np.random.Generator, least: int, side: int) -> int:
    """A count of channels as networks have them: the fewer, the larger their maps."""
    most = max(min(2048, 14336 // side), 2 * least)
    return int(np.exp(rng.uniform(np.log(least), np.log(most))))


def _convolution(
    rng: np.random.Generator, family: str, limits: _Range, prices: AnalyticPrices
) -> Kernel:
    side, window, stride = _window(rng, limits)
    inputs, outputs = (_channels(rng, limits.fewest, side) for _ in range(2))
    if family.startswith("few"):
        inputs = int(rng.integers(1, prices.counts(1, Grain.BLOCK).whole))
    # Round counts are what networks have; others are what pruning leaves.
    pick = int(rng.integers(3))
    if not family.startswith("few"):
        inputs = prices.counts(inputs, Grain.BLOCK)[pick]
    outputs = prices.counts(outputs, Grain.BLOCK)[pick]
    inputs, outputs, groups = _grouped(rng, family, inputs, outputs)
    places = _places(rng, side, prices)
    return prices.convolution(inputs, outputs, places, window, stride, groups)


def _byte_convolution(
    rng: np.random.Generator, family: str, limits: _Range, prices: AnalyticPrices
) -> Kernel:
    side, window, stride = _window(rng, limits)
    inputs, outputs = (
        prices.counts(_channels(rng, limits.fewest, side), Grain.BYTES)[int(rng.integers(3))]
        for _ in range(2)
    )
    inputs, outputs, groups = _grouped(rng, family, inputs, outputs)
    return byte_convolution(inputs, outputs, side * side, window, stride, groups)


def _window(rng: np.random.Generator, limits: _Range) -> tuple[int, int, int]:
    """A side, the positions of a window, and the stride."""
    side, window, stride = (
        int(rng.choice(each)) for each in (limits.sides, limits.windows, limits.strides)
    )
    return side, window, stride


def _places(rng: np.random.Generator, side: int, prices: AnalyticPrices) -> int:
    """The positions of maps of a side, of all images together."""
    return side * side * _images(rng, prices)


def _images(rng: np.random.Generator, prices: AnalyticPrices) -> int:
    images = _SCALES[prices.provider].images
    return int(rng.choice(images)) if len(images) > 1 else images[0]


def _grouped(
    rng: np.random.Generator, family: str, inputs: int, outputs: int
) -> tuple[int, int, int]:
    """Counts of inputs and outputs as the groups of a family let them be, and the groups."""
    if "depthwise" in family:
        return inputs, inputs, inputs
    if "grouped" not in family:
        return inputs, outputs, 1
    width = int(rng.choice((4, 8, 12, 16, 24, 32, 64)))
    groups = max(2, inputs // width)
    return groups * width, groups * width, groups


def _product(
    rng: np.random.Generator, family: str, limits: _Range, prices: AnalyticPrices
) -> Kernel:
    inputs, outputs = (_channels(rng, 32, 7) for _ in range(2))
    return Kernel(family, inputs, outputs, _rows(rng, prices))


def _part(rng: np.random.Generator, family: str, limits: _Range, prices: AnalyticPrices) -> Kernel:
    """A copy of some of the channels."""
    side = int(rng.choice(limits.sides))
    source = _channels(rng, 16, side)
    wanted = int(source * rng.uniform(0.4, 0.9))
    return Kernel(family, source, wanted, _places(rng, side, prices))


def _part_of_rows(
    rng: np.random.Generator, family: str, limits: _Range, prices: AnalyticPrices
) -> Kernel:
    source = _channels(rng, 16, 7)
    return Kernel(family, source, int(source * rng.uniform(0.4, 0.9)), _rows(rng, prices))


def _rows(rng: np.random.Generator, prices: AnalyticPrices) -> int:
    return int(rng.choice(_ROWS)) * _images(rng, prices)


def _plain(rng: np.random.Generator, family: str, limits: _Range, prices: AnalyticPrices) -> Kernel:
    side, window, stride = _window(rng, limits)
    channels = _channels(rng, limits.fewest, side)
    if family == "reorder_in":
        channels = prices.counts(channels, Grain.BLOCK).aligned
    if family in ("pool", "scale", "concat", "fused"):
        channels = 2 * prices.counts(-(-channels // 2), Grain.BLOCK).whole
    if family == "pool_plain":
        channels = prices.counts(channels, Grain.BLOCK).whole + 1
    if family == "reduce":
        window = int(rng.choice(_SIDES)) ** 2
        channels = _channels(rng, limits.fewest, int(np.sqrt(window)))
    return Kernel(family, channels, channels, _places(rng, side, prices), window, stride)


_DRAWS: dict[str, _Draw] = {
    **dict.fromkeys((*BLOCKED, *PLAIN), _convolution),
    **dict.fromkeys(BYTES, _byte_convolution),
    "bytes_product": _product,
    "product": _product,
    "gather": _part,
    "slice": _part,
    "gather_last": _part_of_rows,
    "slice_last": _part_of_rows,
}
