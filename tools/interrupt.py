"""Ends runs of the optimizer at random moments, and looks at what is left.

Whatever the signal, OUT must be the old model or the new one, whole, with the weights beside it.
After SIGTERM and SIGINT no other file may be there; what SIGKILL leaves, the next run must clear.

Usage: python tools/interrupt.py FOLDER [--runs 200] [--seed 0] [--megabytes 60]
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ENDS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SCRIPT = """
import sys
from onnx_upscale.cli import main
print("started", flush=True)
main(sys.argv[1:])
"""


def write_model(path: Path, seed: int, megabytes: int) -> None:
    """A model of two layers, with its weights in a file beside it."""
    rng = np.random.default_rng(seed)
    width = int((megabytes * 125_000) ** 0.5)
    weights = [rng.standard_normal((width, width), np.float32) for _ in range(2)]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("MatMul", ["h", "b"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name in ("x", "y")
    ]
    named = [numpy_helper.from_array(w, name) for w, name in zip(weights, "ab", strict=True)]
    graph = helper.make_graph(nodes, "stack", ends[:1], ends[1:], named)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.weights")


def content(out: Path) -> bytes | None:
    """The model at a path with all its weights, or None if there is none; it must be whole."""
    if not out.exists():
        return None
    model = onnx.load(out)
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def files(out: Path) -> set[str]:
    """All files that a run wrote."""
    return {path.name for path in out.parent.iterdir()}


def wanted(out: Path) -> set[str]:
    """The files that make up the model at a path."""
    if not out.exists():
        return set()
    slim = onnx.load(out, load_external_data=False)
    tensors = slim.graph.initializer
    beside = {e.value for t in tensors for e in t.external_data if e.key == "location"}
    return {out.name, *beside}


def run(model: Path, out: Path, after: float | None, end: signal.Signals) -> tuple[int, float]:
    """One run; it is ended so many seconds after it started to work."""
    command = [sys.executable, "-c", SCRIPT, str(model), "-", str(out), "-q", "--no-verify"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        started = time.monotonic()
        if after is not None:
            time.sleep(after)
            process.send_signal(end)
        process.communicate()
        return process.returncode, time.monotonic() - started


def main() -> None:
    """Runs, ends, and checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--megabytes", type=int, default=60)
    given = parser.parse_args()
    # What a shell starts in the background ignores SIGINT, and so would the runs.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = given.folder
    (folder / "out").mkdir(parents=True)
    out = folder / "out" / "out.onnx"
    models = [folder / f"in{seed}.onnx" for seed in range(2)]
    results, longest = [], 0.0
    for seed, model in enumerate(models):
        write_model(model, seed, given.megabytes)
        status, seconds = run(model, out, None, signal.SIGTERM)
        assert status == 0
        results.append(content(out))
        longest = max(longest, seconds)
    rng = random.Random(given.seed)
    seen: Counter[str] = Counter()
    current = 1
    for number in range(given.runs):
        end = ENDS[number % len(ENDS)]
        status, _ = run(models[1 - current], out, rng.uniform(0, 1.05 * longest), end)
        left = content(out)
        assert left in results, f"run {number}: OUT is neither the old nor the new model"
        is_new = left == results[1 - current]
        assert is_new or status != 0, f"run {number}: status 0, but OUT is the old model"
        current = 1 - current if is_new else current
        others = files(out) - wanted(out)
        if end is not signal.SIGKILL:
            assert not others, f"run {number}: {end.name} left {sorted(others)}"
        kinds = {re.sub(r"[0-9a-f]{16}", "*", name) for name in others}
        left_over = f", {sorted(kinds)} cleared by the next run" if kinds else ""
        seen[f"{end.name}: {'new' if is_new else 'old'} model{left_over}"] += 1
        if others:
            assert run(models[current], out, None, end)[0] == 0
            assert files(out) == wanted(out), f"run {number}: the next run cleared not all"
            assert content(out) == results[current]
    for kind, count in sorted(seen.items()):
        print(f"{count:4} {kind}")
    print(f"{given.runs} runs of {longest:.2f} s: OUT was always the old or the new model, whole")


if __name__ == "__main__":
    main()
