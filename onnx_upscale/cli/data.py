"""Options that say what samples are, shared by the commands that look at some."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnx_upscale.choices import STRENGTH
from onnx_upscale.cli.options import LISTED, PATH, options
from onnx_upscale.errors import UsageError

if TYPE_CHECKING:
    from onnx_upscale.samples import Images

Data = TypeVar("Data", bound="str | None")


def _numbers(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    """Numbers from `0.485,0.456,0.406`."""
    try:
        return None if value is None else tuple(float(number) for number in value.split(","))
    except ValueError:
        raise click.BadParameter(f"'{value}' is not of the form 0.5 or 0.5,0.5,0.5") from None


def _given(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
    if value is None:
        raise click.UsageError("give inputs of the model with --data")
    return value


images = options(
    click.option(
        "--mean",
        type=LISTED,
        metavar="X[,Y,Z]",
        callback=_numbers,
        help="Of images, RGB.  [default: 0]",
    ),
    click.option(
        "--std",
        type=LISTED,
        metavar="X[,Y,Z]",
        callback=_numbers,
        help="Of images, RGB.  [default: 1]",
    ),
    click.option(
        "--size",
        type=click.IntRange(1),
        help="Shorter side of images, before the center is cropped.",
    ),
)


def fitting(least: int, most: int) -> Callable[..., Any]:
    """Options of how weights are fitted to samples.

    Args:
        least: How many samples there must be.
        most: How many are used unless somebody says otherwise.

    Returns:
        A decorator.
    """
    return options(
        click.option(
            "--data",
            metavar="SAMPLES",
            type=PATH,
            callback=_given,
            help="Inputs: .npz, .npy, a folder of images, or MODULE:FUNCTION that yields "
            "dictionaries.",
        ),
        images,
        click.option(
            "--samples",
            "count",
            type=click.IntRange(least),
            default=most,
            show_default=True,
            help="Samples to use at most; a fifth of them is held out.",
        ),
        click.option(
            "--lambda",
            "strength",
            type=click.FloatRange(0),
            default=STRENGTH,
            show_default=True,
            help="How much weights are pulled to what they were.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(0),
            default=0,
            show_default=True,
            help="Which samples are used, and which positions of them.",
        ),
    )


workers = options(
    click.option(
        "--workers",
        type=click.IntRange(1),
        help="Processes to divide the samples over.  [default: 1; with --ray, the CPUs there]",
    ),
    click.option(
        "--ray",
        metavar="HOST:PORT|auto|local",
        help="A Ray cluster to do that on; local starts one.",
    ),
)


def data_source(
    data: Data,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    size: int | None,
) -> Data | Images:
    """What --data names, with what the other options say of images.

    Raises:
        UsageError: They say something, but it is no folder.
    """
    if data is not None and os.path.isdir(data):
        from onnx_upscale.samples import Images

        return Images(data, mean or Images.mean, std or Images.std, size)
    if (mean, std, size) != (None, None, None):
        raise UsageError("--mean, --std and --size: are for a folder of images given with --data")
    return data
