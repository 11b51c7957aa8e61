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

_COMMANDS = {  # And what each says of itself, so that a list of them imports none.
    "optimize": "Remove masked channels: the same function as the masked model, less work.",
    "analyze": "Show what is coupled to what, what is pinned and why, and what it costs.",
    "verify": "Check an earlier result again.",
    "mask": "Make masks: with a pruning criterion, or from the result of another tool.",
    "bench": "Compare models in onnxruntime, run in turn; ratios are to the first.",
    "export": "Export a torch model and the masks of what is pruned in it.",
    "prune": "Make a model faster without masks, labels or training.",
    "recover": "Give readers that lose channels new weights, so that the model does what it did "
    "before.",
    "price": "Measure what layers, copies and other nodes cost on this machine, for use as "
    "--target.",
    "doctor": "Say what is installed, and whether the main job works here.",
}


@click.group(
    cls=Commands,
    helps=_COMMANDS,
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
