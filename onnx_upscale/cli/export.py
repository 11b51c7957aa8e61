"""A torch model becomes an ONNX model and masks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

import onnx_upscale
from onnx_upscale.cli.command import command
from onnx_upscale.cli.options import PATH
from onnx_upscale.cli.outcome import Outcome, reporting
from onnx_upscale.cli.paths import check_paths
from onnx_upscale.modules import importable, module_file

if TYPE_CHECKING:
    from onnx_upscale.exporter.report import ExportReport

_TYPES = (
    "float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool",
)  # fmt: skip
_FORM = re.compile(
    r"((?P<name>[^=:]+)=)?(?P<shape>([0-9]{1,18}(x[0-9]{1,18})*)?)(:(?P<dtype>\w+))?"
)


@dataclass(frozen=True)
class _Example:
    """An example argument of which only shape and type are given; without a name, positional."""

    name: str | None
    shape: tuple[int, ...]
    dtype: str


def _examples(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[_Example, ...]:
    """Example arguments from `1x3x224x224` or `NAME=1x16:int64`; a scalar has no sizes."""
    examples: list[_Example] = []
    for value in values:
        match = _FORM.fullmatch(value)
        if match is None or not value or not (match["shape"] or match["name"]):
            raise click.BadParameter(f"'{value}' is not of the form [NAME=]1x3x224x224[:TYPE]")
        name, dtype = match["name"], match["dtype"] or "float32"
        if dtype not in _TYPES:
            raise click.BadParameter(f"'{value}': unknown type (known: {', '.join(_TYPES)})")
        if name is not None and name in (each.name for each in examples):
            raise click.BadParameter(f"'{name}' is given twice")
        sizes = tuple(int(size) for size in match["shape"].split("x") if size)
        if 0 in sizes:
            raise click.BadParameter(f"'{value}': an example of size 0 shows nothing")
        examples.append(_Example(name, sizes, dtype))
    return tuple(examples)


@command()
@click.argument("factory", metavar="MODULE:FACTORY")
@click.argument("out", metavar="OUT.onnx", type=PATH)
@click.option(
    "--input",
    "examples",
    metavar="[NAME=]1x3x224x224[:TYPE]",
    multiple=True,
    callback=_examples,
    help="An example argument of the model, float32 unless said; repeatable. By default FACTORY "
    "returns them beside the module.",
)
@click.option(
    "--masks",
    metavar="FILE",
    type=PATH,
    help="Where the masks go, .json or .npz; else OUT.masks.json.",
)
@click.option("--opset", type=click.IntRange(7), help="Version of the ONNX operator set.")
@click.option(
    "--batch",
    default="batch",
    show_default=True,
    metavar="NAME",
    help="Name of the symbolic batch size, on axis 0 of the inputs.",
)
@click.option("--fixed-batch", is_flag=True, help="Keep the batch size of the example.")
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Compare the exported model with the torch model in onnxruntime.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the inputs."
)
@reporting
def export(
    factory: str,
    out: str,
    examples: tuple[_Example, ...],
    masks: str | None,
    opset: int | None,
    batch: str,
    fixed_batch: bool,
    verify: bool,
    seed: int,
) -> Outcome:
    """Export a torch model and the masks of what is pruned in it.

    MODULE is an importable name or a .py file; FACTORY is called without arguments and returns a
    torch module, or (module, example arguments). Parameter names become mask keys, and pruned
    weights zeros: onnx-upscale OUT.onnx - SMALL.onnx is the next step.
    """
    from onnx_upscale.exporter import default_masks_path, require_torch
    from onnx_upscale.exporter.factory import make_model

    masks = str(default_masks_path(out)) if masks is None else masks
    results = {"OUT": out, "--masks": masks}
    check_paths(sources={"the module": module_file(factory)}, results=results)
    require_torch()
    with importable(factory):
        made = make_model(factory)
        check_paths(sources={"the module": made.file}, results=results)
        args: Any = made.args
        kwargs: dict[str, Any] = {}
        if examples or args is None:
            args, kwargs = _made_up(examples, seed)
        exported = onnx_upscale.export(
            made.model,
            args,
            out,
            kwargs=kwargs,
            masks_path=masks,
            batch=None if fixed_batch else batch,
            opset=opset,
            verify=verify,
            seed=seed,
        )
    return Outcome(exported.report, _summary(exported.report), exported.warnings)


def _made_up(examples: tuple[_Example, ...], seed: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    import torch

    from onnx_upscale.exporter.call import made_up

    args, kwargs = [], {}
    for number, example in enumerate(examples):
        values = made_up(example.shape, getattr(torch, example.dtype), seed + number)
        if example.name is None:
            args.append(values)
        else:
            kwargs[example.name] = values
    return tuple(args), kwargs


def _summary(report: ExportReport) -> list[str]:
    size = f"symbolic batch '{report.batch}'" if report.batch else "fixed batch"
    lines = [
        f"{report.path}: {report.nodes} nodes, {size}, {report.exporter} exporter",
        f"{report.masks_path}: {report.masks.targets} layers, {report.masks.pruned_inputs} input "
        f"and {report.masks.pruned_outputs} output channels pruned",
    ]
    if report.samples:
        lines.append(
            f"equal to the torch model on {report.samples} inputs: largest difference "
            f"{report.max_abs:.2g} ({report.max_rel:.1g} of the largest output)"
        )
    else:
        lines.append("not compared with the torch model")
    return lines
