"""Making masks: with a pruning criterion, or from the result of another tool."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import click
import onnx

import onnx_upscale
from onnx_upscale.cli.console import exit_statuses, show, warn
from onnx_upscale.cli.data import data_source, images
from onnx_upscale.cli.options import quiet, version
from onnx_upscale.cli.paths import check_paths
from onnx_upscale.cli.progress import progress_bar
from onnx_upscale.criteria import CRITERIA, SCOPES
from onnx_upscale.errors import UsageError
from onnx_upscale.files import write_file
from onnx_upscale.importers import FORMATS, read_imported
from onnx_upscale.optimizer.load.graph import build_graph
from onnx_upscale.optimizer.load.mask_files import channels, check_suffix, mask_file
from onnx_upscale.optimizer.load.masking import LayerMask, resolve_masks
from onnx_upscale.optimizer.load.masks import SIDES, read_masks
from onnx_upscale.optimizer.load.model import read_model


@dataclass(frozen=True, kw_only=True)
class _Options:
    """What the command line says of the masks to make; None where it says nothing."""

    criterion: str | None
    amount: float | None
    side: str
    scope: str
    constrained: bool
    layers: tuple[str, ...]
    skip: tuple[str, ...]
    data: str | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    size: int | None
    batch_size: int
    seed: int


@click.command()
@click.argument("model", metavar="IN.onnx")
@click.argument("out", metavar="MASKS_OUT")
@click.option("--criterion", type=click.Choice(list(CRITERIA)), help="Which channels go first.")
@click.option("--amount", type=float, help="Share of the channels to prune, from 0 to 1.")
@click.option(
    "--side",
    type=click.Choice(SIDES),
    default="input",
    show_default=True,
    help="Channels that layers read, or those that they make.",
)
@click.option(
    "--scope",
    type=click.Choice(SCOPES),
    default="local",
    show_default=True,
    help="Prune that share of each layer, or of all of them together.",
)
@click.option("--constrained", is_flag=True, help="One decision for layers that are coupled.")
@click.option(
    "--layers", metavar="PATTERN", multiple=True, help="Prune only these layers; repeatable."
)
@click.option("--skip", metavar="PATTERN", multiple=True, help="Leave layers alone; repeatable.")
@click.option(
    "--data", metavar="PATH", help="Calibration data for hrank: .npz, .npy or a folder of images."
)
@images
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Samples to run at once at most.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of random.")
@click.option(
    "--from",
    "source",
    metavar="FORMAT FILE",
    nargs=2,
    help=f"Take over the result of another tool instead: {', '.join(FORMATS)}.",
)
@quiet
@version
@exit_statuses
def mask(model: str, out: str, source: tuple[str, str] | None, quiet: bool, **given: Any) -> None:
    """Make masks: with a pruning criterion, or from the result of another tool."""
    options = _Options(**given)
    check_suffix(out)
    check_paths(
        sources={
            "the input model": model,
            "the calibration data": options.data,
            "the file to import": source[1] if source is not None else None,
        },
        results={"MASKS_OUT": out},
    )
    read = read_model(model)
    warnings: tuple[str, ...] = ()
    if source is None:
        masks = _made(read, options)
    else:
        masks, warnings = _imported(read, source, options)
    graph = build_graph(read)
    write_file(out, mask_file(out, masks, graph))
    if not quiet:
        warn(warnings)
        show(f"{out}: {_summary(resolve_masks(graph, read_masks(masks)))}")


def _made(model: onnx.ModelProto, options: _Options) -> dict[str, Any]:
    criterion, data = options.criterion, options.data
    if criterion is None:
        raise UsageError("give a --criterion to make masks with, or --from to import some")
    if options.amount is None:
        raise UsageError("give the --amount of channels to prune, from 0 to 1")
    if data is not None and criterion != "hrank":
        raise UsageError(f"--data {data}: only criterion hrank looks at data")
    source = data_source(data, options.mean, options.std, options.size)
    with progress_bar(f"Scoring channels ({criterion})") as progress:
        return onnx_upscale.mask(
            model,
            criterion,
            options.amount,
            side=options.side,
            scope=options.scope,
            constrained=options.constrained,
            layers=options.layers,
            skip=options.skip,
            data=source,
            batch_size=options.batch_size,
            seed=options.seed,
            progress=progress,
        )


def _imported(
    model: onnx.ModelProto, source: tuple[str, str], options: _Options
) -> tuple[dict[str, Any], tuple[str, ...]]:
    own = ("criterion", "amount", "constrained", "layers", "skip", "data", "mean", "std", "size")
    chosen = next((name for name in own if getattr(options, name) not in (None, False, ())), None)
    if chosen is not None:
        raise UsageError(f"--{chosen}: has no meaning with --from, which takes masks as they are")
    imported = read_imported(*source, model)
    return imported.document, imported.warnings


def _summary(masks: Iterable[LayerMask]) -> str:
    """How many channels of how many layers are pruned."""
    pruned, total, layers = dict.fromkeys(SIDES, 0), dict.fromkeys(SIDES, 0), set()
    for each in masks:
        pruned[each.side] += len(each.pruned)
        total[each.side] += channels(each)
        layers.add(each.layer.node.index)
    counts = [f"{pruned[side]} of {total[side]} {side} channels" for side in SIDES if total[side]]
    plural = "" if len(layers) == 1 else "s"
    return f"{len(layers)} layer{plural}, {' and '.join(counts) or 'no channels'} pruned"
