"""Making masks: with a pruning criterion, or from the result of another tool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

import onnx_upscale
from onnx_upscale.choices import CRITERIA, FORMATS, SCOPES, SIDES, TARGETS
from onnx_upscale.cli.command import command
from onnx_upscale.cli.data import data_source, images
from onnx_upscale.cli.options import PATH, is_typed, layers, target
from onnx_upscale.cli.outcome import Outcome, reporting
from onnx_upscale.cli.paths import check_paths
from onnx_upscale.cli.progress import progress_bar
from onnx_upscale.errors import UsageError
from onnx_upscale.files import write_file
from onnx_upscale.modules import module_file
from onnx_upscale.words import some

if TYPE_CHECKING:
    from onnx_upscale.making import Masks
    from onnx_upscale.making.report import MaskReport
    from onnx_upscale.storage import Stored


_OF_CRITERIA = (
    *("criterion", "amount", "budget", "constrained", "layers", "skip"),
    *("data", "mean", "std", "size"),
)
"""Options that have no meaning with --from."""
_OF_CRITERIA_BY_DEFAULT = ("side", "scope", "seed", "batch_size", "target")
"""More of these, which always have a value."""


@dataclass(frozen=True, kw_only=True)
class _Options:
    """What the command line says of the masks to make; None where it says nothing."""

    criterion: str | None
    amount: float | None
    budget: float | None
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
    target: str


@command(rivals=[({"amount"}, {"budget"}), (_OF_CRITERIA, {"source"})])
@click.argument("model", metavar="IN.onnx", type=PATH)
@click.argument("out", metavar="MASKS_OUT", type=PATH)
@click.option("--criterion", type=click.Choice(CRITERIA), help="Which channels go first.")
@click.option("--amount", type=float, help="Share of the channels to prune, from 0 to 1.")
@click.option(
    "--budget",
    type=float,
    help="In its place, the predicted latency to meet, as a share of the unpruned model's.",
)
@target
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
@layers
@click.option("--skip", metavar="PATTERN", multiple=True, help="Leave layers alone; repeatable.")
@click.option(
    "--data",
    metavar="SAMPLES",
    type=PATH,
    help="Inputs, for hrank and reconstruction and to see what masks do: .npz, .npy, a folder of "
    "images, or MODULE:FUNCTION that yields dictionaries.",
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
@reporting
def mask(model: str, out: str, source: tuple[str, str] | None, **given: Any) -> Outcome:
    """Make masks: with a pruning criterion, or from the result of another tool."""
    from onnx_upscale.making.report import mask_report
    from onnx_upscale.optimizer.load.graph import build_graph
    from onnx_upscale.optimizer.load.mask_files import check_suffix, mask_file
    from onnx_upscale.optimizer.load.masking import resolve_masks
    from onnx_upscale.optimizer.load.masks import read_masks
    from onnx_upscale.optimizer.load.model import read_files

    options = _Options(**given)
    check_suffix(out)
    check_paths(
        sources={
            "the input model": model,
            "the calibration data": options.data and (module_file(options.data) or options.data),
            "the file to import": source[1] if source is not None else None,
            "the profile": None if options.target in TARGETS else options.target,
        },
        results={"MASKS_OUT": out},
    )
    read = read_files(model, mapped=True)
    made: Masks | None = None
    warnings: tuple[str, ...] = ()
    masks: dict[str, Any]
    if source is None:
        masks = made = _made(read, options)
        warnings = made.warnings
    else:
        masks, warnings = _imported(read, source, options)
    graph = build_graph(read.model)
    write_file(out, mask_file(out, masks, graph))
    resolved = resolve_masks(graph, read_masks(masks))
    if made is None and not any(len(each.pruned) for each in resolved):
        warnings = (
            *warnings,
            "no channel is pruned: the file names none that could be pruned as a whole",
        )
    report = mask_report(out, resolved, made, warnings)
    notes = () if made is None else _notes(report)
    return Outcome(report, _lines(report), report.warnings, notes)


def _notes(report: MaskReport) -> list[str]:
    """What was left alone, and what nobody knows yet."""
    notes = []
    if report.left:
        listed = "; ".join(f"{reason}: {some(keys)}" for reason, keys in report.left.items())
        notes.append(f"left alone unless --layers names them: {listed}")
    if not report.compared:
        notes.append(
            "criteria look at weights only; --data SAMPLES says how far the result will be"
        )
    return notes


def _lines(report: MaskReport) -> list[str]:
    """How many channels of how many layers are pruned, and what the masks are worth."""
    counts = [f"{each.pruned} of {each.of} {side}" for side, each in report.channels.items()]
    pruned = " and ".join(f"{count} channels" for count in counts) or "no channels"
    plural = "" if report.layers == 1 else "s"
    lines = [f"{report.path}: {report.layers} layer{plural}, {pruned} pruned"]
    if report.predicted_share is not None:
        lines.append(f"predicted latency: {report.predicted_share:.2f} of the unpruned model's")
    for each in report.outputs:
        same = "" if each.agreement is None else f"same top-1 {each.agreement:.1%}, "
        error = "that is no number" if each.error is None else f"{each.error:.1%}"
        lines.append(f"{each.name}: {same}error {error} on {report.compared} samples")
    return lines


def _made(model: Stored, options: _Options) -> Masks:
    criterion, data = options.criterion, options.data
    if criterion is None:
        raise UsageError("give a --criterion to make masks with, or --from to import some")
    if options.amount is None and options.budget is None:
        raise UsageError("give the --amount of channels to prune, from 0 to 1, or a --budget")
    source = data_source(data, options.mean, options.std, options.size)
    with progress_bar(f"Scoring channels ({criterion})") as progress:
        return onnx_upscale.mask(
            model,
            criterion,
            options.amount,
            budget=options.budget,
            side=options.side,
            scope=options.scope,
            constrained=options.constrained,
            layers=options.layers,
            skip=options.skip,
            data=source,
            batch_size=options.batch_size,
            seed=options.seed,
            target=options.target,
            progress=progress,
        )


def _imported(
    model: Stored, source: tuple[str, str], options: _Options
) -> tuple[dict[str, Any], tuple[str, ...]]:
    from onnx_upscale.importers import read_imported

    chosen = [
        *(name for name in _OF_CRITERIA if getattr(options, name) not in (None, False, ())),
        *(name for name in _OF_CRITERIA_BY_DEFAULT if is_typed(name)),
    ]
    if chosen:
        option = chosen[0].replace("_", "-")
        raise UsageError(f"--{option}: has no meaning with --from, which takes masks as they are")
    imported = read_imported(*source, model)
    return imported.document, imported.warnings
