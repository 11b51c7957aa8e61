"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

import onnx_upscale
from onnx_upscale.choices import ATOL, EXTERNAL_DATA, RTOL, STRATEGIES, TARGETS

PATH = click.Path(readable=False)
"""A file, for completion; what must hold of it is for those to say who read or write it."""
LISTED = click.types.StringParamType()
"""A text such as `0.7` or `0.9,0.7`; in a file, it may as well be a number or a list of them."""


def _targets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    known = [CompletionItem(each) for each in TARGETS if each.startswith(incomplete)]
    return known or [CompletionItem(incomplete, type="file")]


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


def is_typed(name: str) -> bool:
    """Whether a parameter of the command that is running was typed, even as its default."""
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


def options(*options: Callable[..., Any]) -> Callable[..., Any]:
    """Several options as one decorator, in the order of the help text."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


files = options(
    click.argument("model", metavar="IN.onnx", type=PATH),
    click.argument("masks", metavar="MASKS", type=PATH),
    click.argument("out", metavar="OUT.onnx", type=PATH),
)
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
    metavar=f"{'|'.join(TARGETS)}|PROFILE.json",
    shell_complete=_targets,
    help="Whose costs 'auto' plans for; cpu is the kind of CPU at hand.",
)
external_data = click.option(
    "--external-data",
    type=click.Choice(EXTERNAL_DATA),
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
        default=RTOL,
        show_default=True,
        help="Largest difference, as a share of the largest output.",
    ),
    click.option(
        "--atol",
        type=float,
        default=ATOL,
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
report_file = click.option(
    "--report", metavar="FILE.json", type=PATH, help="Write the report as JSON."
)
html = click.option("--html", metavar="FILE", type=PATH, help="Write a page for a browser.")
version = click.version_option(onnx_upscale.__version__, prog_name="onnx-upscale")
