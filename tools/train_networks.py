"""Train the experiment's networks and write them with their images, for tools that need no torch.

    python tools/train_networks.py [FOLDER] --data glyphs     # by default build/DATA

Writes, for every network and seed, NAME.SEED.onnx; and test.npz (`input`, `labels`) and
calibration.npz (`input`). Each seed of the digits holds out other images: test.SEED.npz and
calibration.SEED.npz. Networks that are there already stay. `tools/reproduce.py` finds its
networks in build/DATA. Needs the `experiment` extra.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from experiment.cells import accuracy
from experiment.exporting import exported, onnx_path, write_images
from experiment.sources import TRAINED

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", help="where the files go")
    parser.add_argument("--data", choices=tuple(TRAINED), default="digits")
    parser.add_argument("--seeds", type=int, default=3, help="networks trained per family")
    parser.add_argument("--networks", nargs="+", help="only these")
    args = parser.parse_args()
    folder = args.folder or ROOT / "build" / args.data
    torch.set_num_threads(1)
    source = TRAINED[args.data](folder, args.seeds)
    unknown = sorted(set(args.networks or ()) - set(source.networks))
    if unknown:
        parser.error(f"--networks {unknown[0]}: {args.data} has {', '.join(source.networks)}")
    for seed in source.seeds if source.splits else (0,):
        write_images(source, seed, folder, f".{seed}" if source.splits else "")
    for seed in source.seeds:
        for network in args.networks or source.networks:
            started = time.process_time()
            path = onnx_path(folder, network, seed)
            if not path.exists():
                exported(source, network, seed, folder)
            seconds = time.process_time() - started
            print(
                f"{path}  accuracy {accuracy(path, source, seed):.4f}  {seconds:.0f} s", flush=True
            )


if __name__ == "__main__":
    main()
