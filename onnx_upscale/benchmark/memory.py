"""Peak memory of one model, measured in a process of its own."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx

from onnx_upscale.files import write_files
from onnx_upscale.storage import Stored

_RUNS = 2
_STATUS = Path("/proc/self/status")
# The caller's module path, so that the child finds what the caller found; not `-m`, which would
# look in the current directory first.
_CHILD = (
    "import sys; sys.path[:] = sys.argv[1:]; "
    "from onnx_upscale.benchmark.memory import child; child()"
)


def peak_memory(
    model: onnx.ModelProto | str | os.PathLike[str],
    inputs: Mapping[str, npt.NDArray[Any]],
    *,
    threads: int,
    providers: Sequence[str],
) -> int | None:
    """How much memory it takes to load and run a model.

    Counted is resident memory of the host: its highest level while onnxruntime loads the model
    from its file and runs it twice, less the level just before, in a fresh process that has by then
    loaded Python, numpy and onnxruntime and made the inputs. So it holds weights (twice for a
    while, where onnxruntime packs them), activations, and what a provider's libraries take in the
    host. Memory of a GPU is not in it. A file that the operating system maps into memory counts as
    far as it is read.

    Args:
        model: The model, or the path of its file.
        inputs: A value for each input.
        threads: As for `Session`.
        providers: As for `Session`.

    Returns:
        Bytes, or None where the system does not tell (only Linux and macOS do) or the process did
        not get to its end.
    """
    if sys.platform not in ("linux", "darwin"):
        return None
    with tempfile.TemporaryDirectory(prefix="onnx-upscale-") as folder:
        if isinstance(model, onnx.ModelProto):
            path = os.path.join(folder, "model.onnx")
            write_files(Stored(model).files(path))
        else:
            path = os.fspath(model)
        order = pickle.dumps((path, dict(inputs), threads, tuple(providers)))
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, *sys.path],
            input=order,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    found = done.stdout.split()
    return int(found[-1]) if done.returncode == 0 and found else None


def child() -> None:
    """What the process does that `peak_memory` starts: an order on stdin, bytes on stdout."""
    from onnx_upscale.running import Session

    path, inputs, threads, providers = pickle.load(sys.stdin.buffer)
    before = _peak(fresh=True)
    session = Session(path, threads, providers)
    for _ in range(_RUNS):
        session.run(inputs)
    print(_peak() - before)


def _peak(fresh: bool = False) -> int:
    """Bytes of resident memory at its highest so far; `fresh` starts anew from what there is."""
    if not _STATUS.exists():  # macOS, which counts in bytes.
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not getrusage: on Linux that peak is inherited from the parent process, across fork and exec.
    if fresh:
        _start_anew()
    fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


def _start_anew() -> None:
    """Sets the kernel's peak to the present level, where the kernel lets us."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # The peak so far is a little above the present level: a little less is counted.
