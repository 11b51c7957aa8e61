"""From a model and a few samples to a faster model."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from onnx_upscale.atomic import Content, PathLike
from onnx_upscale.choices import GOALS, MODES, PRUNED, TARGETS
from onnx_upscale.cli.again import command_line
from onnx_upscale.cli.command import command
from onnx_upscale.cli.data import data_source, fitting, workers
from onnx_upscale.cli.options import LISTED, PATH, html, report_file, target
from onnx_upscale.cli.options import external_data as where_weights_go
from onnx_upscale.cli.options import inputs as input_sizes
from onnx_upscale.cli.options import layers as chosen_layers
from onnx_upscale.cli.outcome import Outcome, reporting
from onnx_upscale.cli.paths import check_paths
from onnx_upscale.cli.progress import progress_bars
from onnx_upscale.errors import OutputError, UsageError
from onnx_upscale.files import json_file, write_files
from onnx_upscale.modules import module_file
from onnx_upscale.text import Line, Table

if TYPE_CHECKING:
    from onnx_upscale.pruning.goals import Goal
    from onnx_upscale.pruning.results import Pruned, Sweep


def _no_dry_run(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        raise click.UsageError(
            "--dry-run: what prune would remove is what it finds out by doing it: run it with "
            "--masks-out, and look at these masks with onnx-upscale analyze",
            ctx,
        )


@command(rivals=[[{goal} for goal in GOALS]])
@click.argument("model", metavar="IN.onnx", type=PATH)
@click.argument("out", metavar="OUT.onnx", type=PATH)
@fitting(least=2, most=PRUNED)
@click.option(
    "--latency",
    type=LISTED,
    metavar="SHARE|5ms[,...]",
    help="Measured latency to reach; with several, OUT is a folder.",
)
@click.option("--macs", type=LISTED, metavar="SHARE", help="Multiply-adds to leave.")
@click.option("--params", type=LISTED, metavar="SHARE", help="Weights to leave.")
@click.option(
    "--agreement",
    type=LISTED,
    metavar="SHARE",
    help="As fast as possible with so many top-1 answers the same.",
)
@click.option(
    "--error",
    type=LISTED,
    metavar="X",
    help="As fast as possible with outputs within this share of theirs.",
)
@click.option(
    "--score",
    type=LISTED,
    metavar="X",
    help="As fast as possible with at least this by --evaluate.",
)
@click.option(
    "--evaluate",
    metavar="MODULE:FUNCTION",
    help="Your own measure: a function from the path of a model to a number; more is better.",
)
@target
@click.option(
    "--mode",
    type=click.Choice(MODES),
    default=MODES[0],
    show_default=True,
    help="Whether layers that read the same channels must agree on those to remove.",
)
@chosen_layers
@input_sizes
@workers
@click.option("--masks-out", metavar="FILE.json|npz", type=PATH, help="Write what was chosen.")
@click.option(
    "--recovered-out", metavar="FILE.onnx", type=PATH, help="Write the repaired model of full size."
)
@click.option(
    "--plot",
    metavar="FILE.svg|png",
    type=PATH,
    help="Draw how near the models stay against their latency.",
)
@where_weights_go
@click.option("--dry-run", is_flag=True, hidden=True, expose_value=False, callback=_no_dry_run)
@report_file
@html
@reporting
def prune(
    model: str,
    out: str,
    data: str,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    size: int | None,
    evaluate: str | None,
    masks_out: str | None,
    recovered_out: str | None,
    plot: str | None,
    external_data: str,
    report: str | None,
    html: str | None,
    **options: Any,
) -> Outcome:
    """Make a model faster without masks, labels or training.

    Chooses the channels whose loss costs least for what it saves on the target, gives the layers
    that read them new weights, optimizes the result exactly, verifies and measures it. Give exactly
    one of --latency, --macs, --params, --agreement, --error and --score.
    """
    from onnx_upscale import page
    from onnx_upscale.cli.pages import page_file
    from onnx_upscale.optimizer.load.mask_files import check_suffix
    from onnx_upscale.pruning.goals import read_goals
    from onnx_upscale.pruning.plot import plot_format
    from onnx_upscale.pruning.prune import prune_all

    goals = read_goals({name: options.pop(name) for name in GOALS})
    several = len(goals) > 1
    if several and (masks_out or recovered_out):
        raise UsageError("--masks-out and --recovered-out: are for one goal")
    paths = [os.path.join(out, f"{goal.value:.12g}.onnx") for goal in goals] if several else [out]
    in_folder = several and os.path.isdir(out)
    results: dict[str, str | None] = {
        **({f"OUT {os.path.basename(p)}": p for p in paths} if in_folder else {"OUT": out}),
        "--masks-out": masks_out,
        "--recovered-out": recovered_out,
        "--plot": plot,
        "--report": report,
        "--html": html,
    }
    sources = {
        "the input model": model,
        "the samples": module_file(data) or data,
        "the evaluation": evaluate and module_file(evaluate),
        "the profile": None if options["target"] in TARGETS else options["target"],
    }
    if several and os.path.exists(out) and not os.path.isdir(out):
        raise UsageError(f"OUT {out}: is no folder, which several goals need")
    if masks_out is not None:
        check_suffix(masks_out)
    if plot is not None:
        plot_format(plot)
    check_paths(sources=sources, results=results)
    source = data_source(data, mean, std, size)
    with progress_bars() as progress:
        made = prune_all(model, source, goals, evaluate=evaluate, progress=progress, **options)
    # The models last, as they must be as they were if anything goes wrong.
    contents: dict[PathLike, Content] = {}
    if masks_out is not None:
        contents[masks_out] = _masks(masks_out, made[0])
    if recovered_out is not None:
        contents |= made[0].recovered.stored.files(recovered_out, external_data)
    if plot is not None:
        contents[plot] = made.plot(plot_format(plot))
    told = made.report if several else made[0].report
    if report is not None:
        contents[report] = json_file(told)
    if html is not None:
        commands = [_again(path, goal) for path, goal in zip(paths, goals, strict=True)]
        outcomes = [page.Outcome(*each) for each in zip(paths, made, commands, strict=True)]
        contents[html] = page_file(page.pruned_page(model, outcomes))
    for path, each in zip(paths, made, strict=True):
        contents |= each.result.stored.files(path, external_data)
    with _folder(out) if several else contextlib.nullcontext():
        write_files(contents, keep=made[0].result.sources)
    warnings = dict.fromkeys(warning for each in made for warning in each.warnings)
    return Outcome(told, _summary(paths, model, made), tuple(warnings))


def _masks(path: str, made: Pruned) -> bytes:
    """The content of a file of what was chosen."""
    from onnx_upscale.optimizer.load.graph import build_graph
    from onnx_upscale.optimizer.load.mask_files import mask_file

    return mask_file(path, made.masks, build_graph(made.recovered.stored.model))


def _again(out: str, goal: Goal) -> str:
    """The command that makes one of the models again."""
    value = f"{goal.value * 1e3:.12g}ms" if goal.absolute else f"{goal.value:.12g}"
    left_out = dict.fromkeys(("html", "plot", "report", "as_json", "as_markdown", "quiet"))
    return command_line(click.get_current_context(), {"out": out, goal.name: value, **left_out})


@contextlib.contextmanager
def _folder(path: str) -> Iterator[None]:
    """A folder, which is there afterwards only if it was there before or something is in it."""
    there = os.path.isdir(path)
    try:
        os.makedirs(path, exist_ok=True)
        yield
    except BaseException as error:  # Also when interrupted.
        if not there:
            with contextlib.suppress(OSError):
                os.rmdir(path)
        if isinstance(error, OSError):
            raise OutputError(f"{path}: cannot be made: {error.strerror or error}") from None
        raise


def _summary(paths: Sequence[str], original: str, made: Sweep) -> list[Line]:
    score = made[0].report.score
    header = ["model", "latency", "predicted", "multiply-adds", "weights", "same top-1", "error"]
    rows = [header]
    if score is not None:
        header.append("score")
        rows.append([original, *["1.000"] * 4, "", "", f"{score.before:.6g}"])
    for path, row in zip(paths, made.table, strict=True):
        rows.append(
            [
                path,
                *(f"{row[key]:.3f}" for key in ("latency", "predicted", "macs", "params")),
                "" if row["agreement"] is None else f"{row['agreement']:.2%}",
                f"{row['error']:.2%}",
                *([] if row["score"] is None else [f"{row['score']:.6g}"]),
            ]
        )
    used = made[0].report.recovered.samples
    return [
        Table(rows),
        f"shares of the original; fidelity on {used.held_out} samples that nothing was fitted "
        f"on, {used.fitted} were used",
    ]
