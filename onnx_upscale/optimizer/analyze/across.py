"""What is on the other side of the layers around each segment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from onnx_upscale.optimizer.analyze.labels import Tally
from onnx_upscale.optimizer.analyze.segments import Segment
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.layers import Layer


class Far(NamedTuple):
    """The side of a layer that is not the segment's.

    Attributes:
        layer: The layer, without groups.
        channels: How many it has there.
        number: Which axis of the tally that is; -1 where its channels have no labels.
    """

    layer: Layer
    channels: int
    number: int


@dataclass(frozen=True)
class Across:
    """The layers around every segment, and what there is on their other sides.

    Attributes:
        writers: Of each segment, the layers that make its channels.
        readers: Of each segment, the layers that read them.
        tally: Of all axes on other sides.
    """

    writers: tuple[tuple[Far, ...], ...]
    readers: tuple[tuple[Far, ...], ...]
    tally: Tally


def find_across(segments: Sequence[Segment]) -> Across:
    """What is on the other side of the layers around each segment.

    Args:
        segments: The segments.
    """
    axes: list[IntArray] = []

    def far(sides: Iterable[tuple[Layer, IntArray | None, int]]) -> tuple[Far, ...]:
        found = []
        for layer, axis, channels in sides:
            found.append(Far(layer, channels, -1 if axis is None else len(axes)))
            axes.extend([] if axis is None else [axis])
        return tuple(found)

    writers = [
        far((layer, axis, layer.inputs) for layer, axis in each.writing_layers) for each in segments
    ]
    readers = [
        far((read.layer, read.outputs, read.layer.outputs) for read in each.readers)
        for each in segments
    ]
    return Across(tuple(writers), tuple(readers), Tally(axes))
