"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

import onnx_upscale
from onnx_upscale.optimizer.plan import STRATEGIES
from onnx_upscale.optimizer.verify import Tolerance
from onnx_upscale.storage import CHOICES


def _sizes(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, tuple[int, ...]]:
    """Shapes by input name, from `NAME=1x3x224x224`; a scalar has no sizes."""
    sizes: dict[str, tuple[int, ...]] = {}
    for value in values:
        name, _, shape = value.rpartition("=")
        if not name or not re.fullmatch(r"([0-9]{1,18}(x[0-9]{1,18})*)?", shape):
            raise click.BadParameter(f"'{value}' is not of the form NAME=1x3x224x224")
        if name in sizes:
            raise click.BadParameter(f"'{name}' is given twice")
        sizes[name] = tuple(int(size) for size in shape.split("x") if size)
    return sizes


def options(*options: Callable[..., Any]) -> Callable[..., Any]:
    """Several options as one decorator, in the order of the help text."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


strategy = click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default="auto",
    show_default=True,
    help="How readers that want different channels get along.",
)
target = click.option(
    "--target",
    default="cpu",
    show_default=True,
    metavar="cpu|cpu-avx512|cpu-avx2|cpu-arm64|cuda|PROFILE.json",
    help="Whose costs 'auto' plans for; cpu is the kind of CPU at hand.",
)
external_data = click.option(
    "--external-data",
    type=click.Choice(CHOICES),
    default="auto",
    show_default=True,
    help="Whether weights go to a file beside OUT; auto: as those of IN, and where one file is too "
    "small.",
)
inputs = click.option(
    "--input",
    "inputs",
    metavar="NAME=1x3x224x224",
    multiple=True,
    callback=_sizes,
    help="Sizes for symbolic dimensions; repeatable.",
)
layers = click.option(
    "--layers", metavar="PATTERN", multiple=True, help="Prune only these layers; repeatable."
)
comparison = options(
    click.option(
        "--samples",
        type=click.IntRange(1),
        default=2,
        show_default=True,
        help="Random inputs to compare on.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Seed of the inputs.",
    ),
    click.option(
        "--rtol",
        type=float,
        default=Tolerance.rtol,
        show_default=True,
        help="Largest difference, as a share of the largest output.",
    ),
    click.option(
        "--atol",
        type=float,
        default=Tolerance.atol,
        show_default=True,
        help="Largest difference in addition.",
    ),
    click.option(
        "--verify-at",
        metavar="TENSOR",
        multiple=True,
        help="Compare at a tensor as well, such as one in front of a selection; repeatable.",
    ),
    inputs,
)
html = click.option("--html", metavar="FILE", help="Write a page for a browser.")
quiet = click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
version = click.version_option(onnx_upscale.__version__, prog_name="onnx-upscale")
