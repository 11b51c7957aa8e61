"""The strategies, by what they change."""

from __future__ import annotations

from onnx_upscale.words import Word


class Strategy(Word):
    """How order and realizations are chosen.

    Attributes:
        AUTO: Both by the prices of the target.
        UPSCALE: The order by the paper's paths; a Slice where a reader's channels are a range.
        GATHER: The order of the model; a Gather for every reader that needs less than there is.
        CONSTRAINED: The order of the model; masks are grown until no reader needs a copy.
    """

    AUTO = "auto"
    UPSCALE = "upscale"
    GATHER = "gather"
    CONSTRAINED = "constrained"
