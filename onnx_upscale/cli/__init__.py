"""The command line: parses, prints, and turns errors into exit statuses.

To import numpy, onnx and onnxruntime takes longer than to say how a command is used. So what is
imported here at the top of a file needs none of them; a command imports what it runs when it runs.
"""

from __future__ import annotations

import os

import click

# onnxruntime reports usage to its vendor unless told not to; a build tool should not.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from onnx_upscale.cli.group import Commands
from onnx_upscale.cli.options import version

_COMMANDS = (
    "optimize", "analyze", "verify", "mask", "bench", "export", "prune", "recover", "price",
    "doctor"
)  # fmt: skip


@click.group(
    cls=Commands,
    names=_COMMANDS,
    default="optimize",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@version
def main() -> None:
    """Channel pruning for ONNX: masks in, an equal and faster model out.

    The main job needs no name: onnx-upscale IN.onnx MASKS OUT.onnx. MASKS is a .json or .npz file,
    or '-' to use only the zeros that the weights already contain. Its options: onnx-upscale
    optimize --help.
    """
