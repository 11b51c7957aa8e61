"""The paper's experiment: post-training pruning with and without constraints.

    python tools/reproduce.py digits [--seeds 3]           # trains small networks first
    python tools/reproduce.py glyphs [--seeds 3]           # the same on harder images
    python tools/reproduce.py imagenet --images FOLDER     # validation images, a folder per class

For every network, criterion, side and amount: accuracy with unconstrained and with constrained
masks, and the latency in onnxruntime of the unpruned network and of the exports of each strategy.
Results go to --out: results.csv, tables.md and plots. An interrupted run goes on where it stopped;
`--report` only writes the tables and plots of what is there. Needs the `experiment` extra.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from experiment import results
from experiment.cells import AMOUNTS, CRITERIA, accuracy, all_cells, measure
from experiment.exporting import exported
from experiment.plots import draw
from experiment.tables import report

if TYPE_CHECKING:
    from experiment.sources import Source

ROOT = Path(__file__).resolve().parent.parent


def open_source(args: argparse.Namespace) -> Source:
    from experiment.sources import TRAINED, ImageNet

    if args.source in TRAINED:
        return TRAINED[args.source](args.cache, args.seeds)
    if args.images is None or not args.images.is_dir():
        raise SystemExit("imagenet: give the folder of validation images with --images")
    return ImageNet(args.images, pretrained=not args.random_weights)


def run(source: Source, args: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(1)
    table = args.out / "results.csv"
    rows = results.read(table)
    results.write(table, rows)
    finished = {row.cell for row in rows}
    cells = [
        cell
        for cell in all_cells(source, args.criteria, args.amounts)
        if args.networks is None or cell.network in args.networks
    ]
    waiting = [cell for cell in cells if cell not in finished]
    unpruned: dict[Path, float] = {}
    started = time.monotonic()
    for number, cell in enumerate(waiting):
        path = exported(source, cell.network, cell.seed, args.cache)
        if path not in unpruned:
            unpruned[path] = accuracy(path, source, cell.seed)
        results.append(table, measure(cell, path, unpruned[path], source, args.runs))
        left = (time.monotonic() - started) / (number + 1) * (len(waiting) - number - 1)
        print(
            f"{len(cells) - len(waiting) + number + 1}/{len(cells)}  {cell.network} {cell.seed} "
            f"{cell.criterion} {cell.side} {cell.amount}  about {left / 60:.0f} min left",
            file=sys.stderr,
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", choices=("digits", "glyphs", "imagenet"))
    parser.add_argument("--seeds", type=int, default=3, help="networks trained per family")
    parser.add_argument("--images", type=Path, help="folder of ImageNet's validation images")
    parser.add_argument("--random-weights", action="store_true", help="to try the tool out")
    parser.add_argument("--networks", nargs="+", help="only these")
    parser.add_argument("--criteria", nargs="+", default=CRITERIA, choices=CRITERIA)
    parser.add_argument("--amounts", nargs="+", type=float, default=AMOUNTS)
    parser.add_argument("--runs", type=int, default=30, help="timed runs per export")
    parser.add_argument("--cache", type=Path, help="where networks are kept")
    parser.add_argument("--out", type=Path, help="where results go")
    parser.add_argument("--report", action="store_true", help="no new measurements")
    args = parser.parse_args()
    args.cache = args.cache or ROOT / "build" / args.source
    args.out = args.out or ROOT / "docs" / "experiment" / args.source
    if not args.report:
        run(open_source(args), args)
    rows = results.read(args.out / "results.csv")
    if not rows:
        raise SystemExit(f"{args.out}: no results yet")
    (args.out / "tables.md").write_text(report(rows))
    for path in draw(rows, args.out):
        print(path)
    print(args.out / "tables.md")


if __name__ == "__main__":
    main()
