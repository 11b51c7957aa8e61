"""From a page to the file of it: one that needs nothing else, and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

from onnx_upscale.page.parts import Page
from onnx_upscale.words import printable

if TYPE_CHECKING:
    from jinja2 import Environment


def render(page: Page) -> bytes:
    """A page as the content of a file; the same page gives the same bytes.

    Args:
        page: The page. Whatever it holds is shown as text, never taken for markup.

    Returns:
        HTML in UTF-8, with its style and script inside.
    """
    templates = _environment()
    script = _source(templates, "page.js")
    # Should a name ever get past the templates as markup, a browser still runs no other script
    # than this one, and loads nothing.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        templates.get_template("page.html")
        .render(page=page, style=_source(templates, "page.css"), script=script, policy=policy)
        .encode()
    )


def _environment() -> Environment:
    # Imported by those who want a page, for it takes a while.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("onnx_upscale.page"),
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )


def _source(templates: Environment, name: str) -> str:
    assert templates.loader is not None
    return templates.loader.get_source(templates, name)[0]


def _shown(value: Any) -> Any:
    # Markup is what templates made, and has line breaks.
    return printable(value) if type(value) is str else value
