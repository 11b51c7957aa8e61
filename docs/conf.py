"""How the documentation site is built: `make docs`."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

import onnx_upscale

project = "onnx-upscale"
release = version = onnx_upscale.__version__
project_copyright = "the onnx-upscale authors"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
]
smartquotes = False  # Options have two dashes.
html_theme = "furo"
html_title = "onnx-upscale"
html_copy_source = False
html_show_sphinx = False

highlight_language = "none"
default_role = "code"
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
copybutton_prompt_text = "$ "

# Pages of the repository's root, by their names here.
_ROOT = {
    "index": "README.md",
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "security": "SECURITY.md",
}


def _with_root_pages(app: Sphinx, name: str, source: list[str]) -> None:
    """Puts pages of the root in their places, and lets links lead there."""
    text = source[0]
    if name in _ROOT:
        page = Path(__file__).parents[1] / _ROOT[name]
        own = text if name == "index" else ""  # The table of contents.
        text = page.read_text(encoding="utf-8").replace("](docs/", "](") + own
        app.env.note_dependency(str(page))
    for here, page_name in _ROOT.items():
        text = re.sub(rf"\]\((\.\./)?{page_name}\)", f"]({here}.md)", text)
    source[0] = text


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _with_root_pages)
