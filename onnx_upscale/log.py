"""What `-v` shows goes to the logger `onnx_upscale`, at level INFO; who listens decides."""

from __future__ import annotations

import logging

from onnx_upscale.report import Report

LOGGER = logging.getLogger("onnx_upscale")


def log_details(report: Report) -> None:
    """Says how many seconds each stage took, and what was pinned by whom."""
    LOGGER.info(", ".join(f"{stage} {seconds:.3f} s" for stage, seconds in report.seconds.items()))
    LOGGER.info("pinned:")
    pinned = [
        f"segment {segment.id} ({segment.channels} channels): {reason}"
        for segment in report.segments
        for reason in segment.pinned
    ]
    for line in pinned or ["nothing"]:
        LOGGER.info("  %s", line)
