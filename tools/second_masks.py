"""How long it takes to plan one more set of masks of a model that is loaded.

    python tools/second_masks.py FOLDER [--models resnet50,densenet121] [--amount 0.3] [--sets 70]

FOLDER is that of tools/zoo.py. Random input masks on every ungrouped layer, another set each time,
from their dictionary to the predicted latency of the plan that `auto` makes of them. As in a search
for masks, the structure and the prices are kept, and everything else is done anew.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from onnx_upscale.optimizer.analyze import analyze
from onnx_upscale.optimizer.analyze.structure import find_structure
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.masking import mask_graph, resolve_masks
from onnx_upscale.optimizer.load.masks import read_masks
from onnx_upscale.optimizer.plan import plan
from onnx_upscale.optimizer.plan.cost import Costs
from onnx_upscale.prices import load_prices
from zoo import random_input_masks

FIRST = 5  # Sets that fill what prices remember, and count for nothing.


def milliseconds(path: Path, amount: float, sets: int, target: str) -> Iterator[float]:
    """Of each set of masks, from the dictionary to the predicted latency."""
    graph = load(path).graph
    structure = find_structure(graph)
    costs = Costs(structure, load_prices(target))
    drawn = [random_input_masks(graph, amount, seed) for seed in range(FIRST + sets)]
    gc.collect()
    for masks in drawn:
        started = time.perf_counter()
        masked = mask_graph(graph, resolve_masks(graph, read_masks(masks)))
        assert plan(analyze(masked, structure), "auto", costs).seconds > 0
        yield (time.perf_counter() - started) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default="resnet50,densenet121")
    parser.add_argument("--amount", type=float, default=0.3)
    parser.add_argument("--sets", type=int, default=70)
    parser.add_argument("--target", default="cpu")
    args = parser.parse_args()
    print("| model | fastest, ms | median, ms | 90th percentile, ms |\n| --- | --- | --- | --- |")
    for name in args.models.split(","):
        path = args.folder / f"{name}.onnx"
        found = list(milliseconds(path, args.amount, args.sets, args.target))[FIRST:]
        cells = (f"{value:.1f}" for value in np.quantile(found, (0, 0.5, 0.9)))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
