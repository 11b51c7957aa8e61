"""samples: inputs of a model from wherever the user has them, checked and in batches."""

from __future__ import annotations

from onnx_upscale.samples.arrays import DataSource, Samples, open_samples
from onnx_upscale.samples.batches import Batch, batches, divide, fixed_batch, split
from onnx_upscale.samples.images import Images
from onnx_upscale.samples.parts import Share, Ticket, tickets_for
from onnx_upscale.samples.source import SampleSource, open_source

__all__ = [
    "Batch",
    "DataSource",
    "Images",
    "SampleSource",
    "Samples",
    "Share",
    "Ticket",
    "batches",
    "divide",
    "fixed_batch",
    "open_samples",
    "open_source",
    "split",
    "tickets_for",
]
