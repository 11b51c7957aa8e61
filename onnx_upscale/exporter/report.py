"""The report of an export, in version 1 of its form."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_upscale.report import Document, MaskCounts


@dataclass(frozen=True, eq=False)
class ExportReport(Document):
    """What was exported.

    Attributes:
        path: Where the model was written, or None.
        masks_path: Where the masks were written, or None.
        nodes: How many the model has.
        exporter: `dynamo` or `torchscript`: which of torch's exporters made it.
        batch: The name of its symbolic batch size, or None where all sizes are fixed.
        masks: How much is pruned in it.
        samples: On how many inputs it was compared with the torch model.
        max_abs: Largest difference from the torch model; None where nothing was compared.
        max_rel: The same as a share of the largest value of its output.
        warnings: What did not go as asked for.
    """

    path: str | None
    masks_path: str | None
    nodes: int
    exporter: str
    batch: str | None
    masks: MaskCounts
    samples: int
    max_abs: float | None
    max_rel: float | None
    warnings: tuple[str, ...]
