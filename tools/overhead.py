"""What the optimizer itself takes, beside reading and writing the model with onnx.

    python tools/overhead.py FOLDER [--models resnet50,densenet121] [--amount 0.3] [--runs 15]

FOLDER is that of tools/zoo.py. In turn: `onnx.load` and `onnx.save`, and `optimize` without
verification and `onnx.save`. Memory is what the command holds at most, files that it maps included,
with verification and without.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnx

import onnx_upscale

# Linux says of a process what its memory was at most; `ru_maxrss` would be that of who began it.
_PEAK = (
    "import re, runpy, sys\n"
    "try: runpy.run_module('onnx_upscale', run_name='__main__')\n"
    "finally:\n"
    "    status = open('/proc/self/status').read()\n"
    "    print(re.search(r'VmHWM:\\s+(\\d+)', status)[1], file=sys.stderr)\n"
)


def seconds(model: Path, masks: Path, runs: int, target: str, folder: Path) -> tuple[float, float]:
    """Medians of loading and saving, and of optimizing and saving."""
    plain, optimized = list[float](), list[float]()
    for _ in range(runs):
        started = time.perf_counter()
        onnx.save(onnx.load(model), folder / "plain.onnx")
        plain.append(time.perf_counter() - started)
        started = time.perf_counter()
        found = onnx_upscale.optimize(model, masks, target=target, verify=False)
        onnx.save(found.model, folder / "optimized.onnx")
        optimized.append(time.perf_counter() - started)
    return statistics.median(plain), statistics.median(optimized)


def peak(model: Path, masks: Path, target: str, folder: Path, *options: str) -> int:
    """Bytes that the command holds at most."""
    arguments = [str(model), str(masks), str(folder / "out.onnx"), "--target", target, *options]
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, *arguments], capture_output=True, text=True, check=True
    )
    return int(done.stderr.split()[-1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default="resnet50,densenet121")
    parser.add_argument("--amount", default="0.3")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--target", default="cpu")
    args = parser.parse_args()
    print(
        "| model | MB | load and save, s | optimize and save, s | ratio | peak / model | verified |"
    )
    print("| --- " * 7 + "|")
    for name in args.models.split(","):
        model = args.folder / f"{name}.onnx"
        masks = args.folder / f"{name}.{args.amount}.json"
        size = model.stat().st_size
        with tempfile.TemporaryDirectory(prefix="onnx-upscale-") as scratch:
            folder = Path(scratch)
            plain, optimized = seconds(model, masks, args.runs, args.target, folder)
            lean = peak(model, masks, args.target, folder, "--no-verify") / size
            proved = peak(model, masks, args.target, folder) / size
        ratios = f"{optimized / plain:.2f} | {lean:.2f} | {proved:.2f}"
        print(
            f"| {name} | {size / 1e6:.0f} | {plain:.3f} | {optimized:.3f} | {ratios} |", flush=True
        )


if __name__ == "__main__":
    main()
