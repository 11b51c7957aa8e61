"""Hashes of what is emitted for the models of tools/zoo.py, to compare two states of the code.

    python tools/hashes.py FOLDER [--models NAME,...] [--targets cpu-avx512,cpu-avx2] > hashes.tsv

FOLDER is that of tools/zoo.py. One line for each model, masks, strategy and, for `auto`, target.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import onnx_upscale
from zoo import MODELS, STRATEGIES, output_masks

AMOUNTS = ("0.3", "0.5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--targets", default="cpu-avx512,cpu-avx2")
    args = parser.parse_args()
    targets = args.targets.split(",")
    ways = [("auto", target) for target in targets]
    ways += [(strategy, targets[0]) for strategy in STRATEGIES if strategy != "auto"]
    for name in args.models.split(","):
        path = args.folder / f"{name}.onnx"
        for amount in AMOUNTS:
            inputs = json.loads((args.folder / f"{name}.{amount}.json").read_text())
            for side, masks in (("input", inputs), ("output", output_masks(path, float(amount)))):
                for strategy, target in ways:
                    result = onnx_upscale.optimize(
                        path, masks, strategy=strategy, target=target, verify=False
                    )
                    digest = hashlib.sha256(result.content).hexdigest()
                    print(name, amount, side, strategy, target, digest, sep="\t", flush=True)


if __name__ == "__main__":
    main()
