"""Pages in the words of the command line."""

from __future__ import annotations

from dataclasses import replace

from onnx_upscale.cli.messages import as_options
from onnx_upscale.page import Page, render
from onnx_upscale.page.parts import Notes


def page_file(page: Page) -> bytes:
    """A page as the content of a file; its remarks name options in place of parameters."""
    parts = (
        replace(part, lines=tuple(map(as_options, part.lines))) if isinstance(part, Notes) else part
        for part in page.parts
    )
    return render(replace(page, parts=tuple(parts)))
