"""The two sides of a layer."""

from __future__ import annotations

from onnx_upscale.words import Word


class Side(Word):
    """What a mask is about: the channels that a layer reads, or those that it makes."""

    INPUT = "input"
    OUTPUT = "output"
