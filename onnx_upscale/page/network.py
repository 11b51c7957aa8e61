"""The picture of a network: what every layer reads and makes, and which layers are coupled."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx_upscale.figures import in_bytes
from onnx_upscale.page.parts import Part
from onnx_upscale.report import LayerReport, ReaderReport, SegmentReport

_PITCH, _WIDTH = 10, 8  # Of a layer, and of its bars.
_ARCS, _SIDE, _GAP, _TICK = 56, 80, 4, 8  # Heights: for the arcs, for either side, between, below.
_ABOVE = _ARCS + _SIDE + _GAP  # Where bars start that grow upwards.
_BELOW = _ABOVE + _GAP
_NOTE = (
    "Each column is a layer: above the line the channels that it makes, below those that it reads. "
    "Heights go by the square root of the count, so that narrow layers show. Arcs join layers "
    "whose channels are coupled."
)


@dataclass(frozen=True)
class Place:
    """Where a layer is in the picture, and what is said of it.

    Attributes:
        x: Where it begins.
        text: What is said.
        segments: The numbers of its segments.
    """

    x: int
    text: str
    segments: str


@dataclass(frozen=True)
class Arc:
    """A curve between layers that write the same segment.

    Attributes:
        path: As SVG has it.
        segment: The segment.
    """

    path: str
    segment: int


@dataclass(frozen=True, kw_only=True)
class Network(Part):
    """Layers from left to right: what they make grows upwards, what they read downwards.

    Attributes:
        count: How many layers.
        width: Of the drawing.
        top: Where the drawing begins.
        height: Of the drawing.
        pitch: From one layer to the next.
        widest: The channels of the highest bar.
        were: The bars of channels that there were, as an SVG path.
        kept: The bars of channels that are still there.
        used: The bars of channels that are read and made.
        copies: Marks below the layers that read a copy.
        arcs: What is coupled.
        places: The layers.
    """

    template = "network.html"

    count: int
    width: int
    top: int
    height: int
    pitch: int
    widest: int
    were: str
    kept: str
    used: str
    copies: str
    arcs: tuple[Arc, ...]
    places: tuple[Place, ...]


def network(
    layers: Sequence[LayerReport], segments: Sequence[SegmentReport], explained: bool = True
) -> Network | None:
    """The picture of some layers; none where there are none.

    Args:
        layers: All layers, in order.
        segments: All segments.
        explained: Whether it has a heading and says how to read it.
    """
    if not layers:
        return None
    widest = max(max(layer.inputs, layer.outputs) for layer in layers)
    readings = readings_of(segments)
    copied = [readings.get((layer.reads, layer.node)) for layer in layers]
    marks = [n for n, reading in enumerate(copied) if reading is not None and reading.bytes_copied]
    arcs = tuple(_arcs(layers))
    top, bottom = (0 if arcs else _ARCS), _BELOW + _SIDE + _GAP + _TICK
    return Network(
        title="The network" if explained else "",
        note=_NOTE if explained else "",
        count=len(layers),
        width=_PITCH * len(layers),
        top=top,
        height=bottom - top,
        pitch=_PITCH,
        widest=widest,
        were=_bars(widest, (layer.outputs for layer in layers), (layer.inputs for layer in layers)),
        kept=_bars(widest, (), (layer.kept for layer in layers)),
        used=_bars(widest, (layer.made for layer in layers), (layer.read for layer in layers)),
        copies="".join(
            f"M{_PITCH * n + 1} {bottom - _TICK}h{_WIDTH}v{_TICK - 2}h-{_WIDTH}z" for n in marks
        ),
        arcs=arcs,
        places=tuple(
            Place(_PITCH * n, _said(layer, reading), " ".join(map(str, _segments(layer))))
            for n, (layer, reading) in enumerate(zip(layers, copied, strict=True))
        ),
    )


def readings_of(
    segments: Iterable[SegmentReport],
) -> Mapping[tuple[int | None, str], ReaderReport]:
    """How readers get their channels, by segment and node."""
    return {(segment.id, reader.node): reader for segment in segments for reader in segment.readers}


def _bars(widest: int, upwards: Iterable[int], downwards: Iterable[int]) -> str:
    """Bars of channels on either side of the line, as one path."""
    path = []
    for start, sign, counts in ((_ABOVE, "-", upwards), (_BELOW, "", downwards)):
        for place, count in enumerate(counts):
            if count:
                size = f"{max(_SIDE * math.sqrt(count / widest), 1):.3g}"
                path.append(f"M{_PITCH * place + 1} {start}v{sign}{size}h{_WIDTH}V{start}z")
    return "".join(path)


def _arcs(layers: Sequence[LayerReport]) -> Iterator[Arc]:
    makers: dict[int, list[int]] = {}
    for place, layer in enumerate(layers):
        if layer.makes is not None:
            makers.setdefault(layer.makes, []).append(place)
    for segment, places in makers.items():
        curves = [_arc(one, other, len(layers)) for one, other in itertools.pairwise(places)]
        if curves:
            yield Arc("".join(curves), segment)


def _arc(one: int, other: int, count: int) -> str:
    high = _ARCS - 2 - round((_ARCS - 10) * math.sqrt((other - one) / count))
    left, right = (_PITCH * place + _PITCH // 2 for place in (one, other))
    # A curve of two handles comes three quarters as high as these.
    top = _ARCS - round((_ARCS - high) * 4 / 3)
    return f"M{left} {_ARCS}C{left} {top} {right} {top} {right} {_ARCS}"


def _segments(layer: LayerReport) -> list[int]:
    return sorted({segment for segment in (layer.reads, layer.makes) if segment is not None})


def _said(layer: LayerReport, reading: ReaderReport | None) -> str:
    read = f"reads {layer.read:,} of {layer.inputs:,}"
    if layer.kept != layer.read:
        read = f"{read} ({layer.kept:,} are there)"
    copy = ""
    if reading is not None and reading.bytes_copied:
        copy = f"; {reading.realization} copies {in_bytes(reading.bytes_copied)}"
    made = f"makes {layer.made:,} of {layer.outputs:,}"
    return f"{layer.node} ({layer.operator}) {read}; {made}{copy}"
