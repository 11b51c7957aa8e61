"""Pages for a browser: what commands found, as one file each that needs no network.

A page is plain values first (`parts`, `charts`, `network`); `render` makes HTML of them.
"""

from onnx_upscale.page.analyzed import analyzed_page
from onnx_upscale.page.benched import benched_page
from onnx_upscale.page.optimized import optimized_page
from onnx_upscale.page.parts import Page
from onnx_upscale.page.pruned import Outcome, pruned_page
from onnx_upscale.page.rendering import render

__all__ = [
    "Outcome",
    "Page",
    "analyzed_page",
    "benched_page",
    "optimized_page",
    "pruned_page",
    "render",
]
