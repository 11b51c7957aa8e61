"""The command line: parses, prints, and turns errors into exit statuses."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import click

# onnxruntime reports usage to its vendor unless told not to; a build tool should not.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from onnx_upscale.cli.bench import bench
from onnx_upscale.cli.console import BAD_INPUT, fail, one_line
from onnx_upscale.cli.export import export
from onnx_upscale.cli.mask import mask
from onnx_upscale.cli.optimize import analyze, optimize, verify
from onnx_upscale.cli.options import version
from onnx_upscale.cli.price import price
from onnx_upscale.cli.prune import prune
from onnx_upscale.cli.recover import recover
from onnx_upscale.cli.signals import interrupted_by_signals

_MAIN_JOB = "optimize"
_OURS = {"prog_name": "onnx-upscale", "standalone_mode": False}


class _MainJobFirst(click.Group):
    """A group whose main job needs no name: `onnx-upscale IN MASKS OUT`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, "--help", "-h", "--version"):
            args = [_MAIN_JOB, *args]
        return super().parse_args(ctx, args)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Runs the command line; what click would say in several lines is said in one."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # File names are not always text.
                stream.reconfigure(errors="backslashreplace")
        try:
            with interrupted_by_signals():
                status = super().main(*args, **{**extra, **_OURS})
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "onnx-upscale"
            message = one_line(error.format_message()).rstrip(".")
            fail(f"{message} (see '{command} --help')", BAD_INPUT)
        except click.ClickException as error:
            fail(one_line(error.format_message()), error.exit_code)
        except click.Abort:
            fail("interrupted")
        sys.exit(status)


@click.group(cls=_MainJobFirst, context_settings={"help_option_names": ["-h", "--help"]})
@version
def main() -> None:
    """Channel pruning for ONNX: masks in, an equal and faster model out.

    The main job needs no name: onnx-upscale IN.onnx MASKS OUT.onnx. MASKS is a .json or .npz file,
    or '-' to use only the zeros that the weights already contain. Its options: onnx-upscale
    optimize --help.
    """


for command in (optimize, analyze, verify, mask, bench, export, prune, recover, price):
    main.add_command(command)
