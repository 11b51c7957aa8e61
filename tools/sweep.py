"""Sweep over architectures: export, mask at random, optimize, compare, and count what left.

    export PYTHONPATH=tests/kit
    python tools/sweep.py run FOLDER [--only WORD,...] [--exporter new|old|own] [--again]
    python tools/sweep.py table FOLDER > table.md
    python tools/sweep.py names FOLDER

Each model is exported and checked in a process of its own, with a limit of CPU time and of memory;
a line of JSON per model and exporter goes to FOLDER/results.jsonl at once, so that a run that was
stopped goes on where it was. Lines of another state of the package are measured again. Needs torch,
torchvision, timm, transformers and ultralytics.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from state import package_state

SECONDS, BYTES = 240, 10 << 30
EXPORTERS = ("new", "old", "own")
OPSET = 17


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "table", "names"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--exporter", choices=EXPORTERS)
    parser.add_argument("--again", action="store_true", help="check what there is a line for too")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.what == "table":
        from sweeping.table import summary

        planned = sum(1 for _ in _jobs(args.folder, []))
        print(summary(read(args.folder), planned))
        return
    if args.exporter == "old":  # It traces nothing that torchvision compiles on the way.
        os.environ["TORCHDYNAMO_DISABLE"] = "1"
    state = package_state()
    done = {
        (row["model"], row["exporter"])
        for row in read(args.folder)
        if not args.again and row.get("package") == state
    }
    if args.what == "run":
        _warm_up()
    for job in _jobs(args.folder, [word for word in args.only.split(",") if word]):
        if args.exporter in (None, job[1]) and (job[0], job[1]) not in done:
            if args.what == "names":
                print(*job[:2])
            else:
                _run(args.folder, state, *job)


def read(folder: Path) -> list[dict[str, Any]]:
    """The results, of each model and exporter the last."""
    path = folder / "results.jsonl"
    if not path.exists():
        return []
    found = {}
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):  # A line that was cut.
            row = json.loads(line)
            found[row["model"], row["exporter"]] = row
    return list(found.values())


def _jobs(folder: Path, only: list[str]) -> Iterator[tuple[str, str, Any]]:
    """Everything to do: small families with all exporters, then timm's with one after the other."""
    import sweeping.models as zoo

    known = list(zoo.architectures(folder))
    last = [each for each in known if each.family == "timm"]
    turns = [(each, exporter) for each in known if each not in last for exporter in EXPORTERS]
    turns += [(each, exporter) for exporter in EXPORTERS[:2] for each in last]
    for each, exporter in turns:
        name = f"{each.family}/{each.name}"
        wanted = not only or any(word in name for word in only)
        if wanted and (exporter != "own" or each.own is not None):
            yield name, exporter, each


def _warm_up() -> None:
    """Exports one layer, for what torch's newer exporter builds once takes seconds."""
    import torch

    layer = torch.nn.Conv2d(1, 1, 1)
    torch.onnx.export(layer, (torch.zeros(1, 1, 2, 2),), dynamo=True, verbose=False)


def _run(folder: Path, state: str, name: str, exporter: str, architecture: Any) -> None:
    """One model in a process of its own; what was imported here need not be again."""
    path = folder / f"{name.replace('/', '.')}.{exporter}.onnx"
    stage, log = folder / "stage", folder / "log"
    lines = folder / "results.jsonl"
    started = time.perf_counter()
    child = os.fork()
    if not child:
        _child(path, exporter, architecture, stage, log)
    _, status, used = os.wait4(child, 0)
    row: dict[str, Any] = {"model": name, "exporter": exporter, "package": state}
    try:
        row |= json.loads(stage.with_suffix(".json").read_text())
    except (OSError, ValueError):
        row |= {"stage": stage.read_text() if stage.exists() else "start"}
        signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        row["error"] = "takes too long" if signal in (9, 24) else f"ended with {status}"
    row["cpu"] = round(used.ru_utime + used.ru_stime, 1)
    row["peak"] = used.ru_maxrss << 10
    with lines.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(name, exporter, row.get("error", "checked"), f"{row['cpu']} s",
          f"{time.perf_counter() - started:.0f} s", flush=True)  # fmt: skip
    for left in folder.glob(f"{path.stem}*"):
        if left.suffix != ".keep":
            left.unlink()


def _child(path: Path, exporter: str, architecture: Any, stage: Path, log: Path) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 10))
    resource.setrlimit(resource.RLIMIT_DATA, (BYTES, BYTES))
    os.nice(0)
    result = stage.with_suffix(".json")
    result.unlink(missing_ok=True)
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        stage.write_text("export")
        row: dict[str, Any] = {}
        started = time.process_time()
        _export(path, exporter, architecture)
        row["export"] = round(time.process_time() - started, 1)
        stage.write_text("check")
        from sweeping.check import check

        row |= {"stage": "checked", **check(path)}
    except BaseException as error:
        text = str(error).rpartition("## Exception summary")[2].strip()  # torch.export explains.
        row = {"stage": stage.read_text(), "error": f"{type(error).__name__}: {text}"[:400]}
        traceback.print_exc()
        row["trace"] = traceback.format_exc()[-1500:]
    result.write_text(json.dumps(row))
    os._exit(0)


def _export(path: Path, exporter: str, architecture: Any) -> None:
    import torch

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if exporter == "own":
        architecture.own(path)
        return
    from sweeping.models import randomize

    model, inputs = architecture.make()
    randomize(model)
    with torch.no_grad():
        if exporter == "new":
            program = torch.onnx.export(model, inputs, dynamo=True, verbose=False)
            assert program is not None
            program.save(path)
        else:
            _mend_old_exporter()
            torch.onnx.export(model, inputs, path, dynamo=False, opset_version=OPSET)


def _mend_old_exporter() -> None:
    """Operators that torch's older exporter lacks, in terms of those that it has."""
    import torch

    torch.backends.mha.set_fastpath_enabled(False)
    add_up = torch.Tensor.cumsum
    torch.Tensor.cumsum = lambda x, axis, **given: add_up(  # type: ignore[method-assign]
        x.long() if x.dtype == torch.bool else x, axis, **given
    )

    def differences(
        x: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None
    ) -> Any:
        x = x if prepend is None else torch.cat([prepend, x], dim)
        return x[..., 1:] - x[..., :-1]

    torch.diff = differences  # type: ignore[assignment]
    torch.Tensor.diff = differences  # type: ignore[assignment,method-assign]


if __name__ == "__main__":
    sys.setrecursionlimit(10000)
    main()
