"""Which kind of CPU this machine has, as onnxruntime's kernels tell them apart."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

# Windows' number for "has AVX-512 and the system keeps its registers".
_PF_AVX512F = 41


def cpu_kind(machine: str = "", flags: frozenset[str] | None = None) -> str:
    """The built-in profile for a CPU.

    Args:
        machine: The architecture as `platform.machine` says it; this machine's if empty.
        flags: What an x86 CPU can do, as Linux lists it; this machine's if None.

    Returns:
        `cpu-avx512`, `cpu-avx2` or `cpu-arm64`; older x86 CPUs and unknown ones count as
        `cpu-avx2`, whose blocks onnxruntime falls back to.
    """
    if (machine or platform.machine()).lower() in ("aarch64", "arm64"):
        return "cpu-arm64"
    # The one flag that onnxruntime goes by where it decides on blocks of 16.
    return "cpu-avx512" if "avx512f" in (_flags() if flags is None else flags) else "cpu-avx2"


def _flags() -> frozenset[str]:
    if sys.platform == "win32":
        found = ctypes.windll.kernel32.IsProcessorFeaturePresent(_PF_AVX512F)
        return frozenset({"avx512f"} if found else ())
    try:
        if sys.platform == "darwin":
            asked = ["sysctl", "-n", "hw.optional.avx512f"]
            answer = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
            return frozenset({"avx512f"} if answer.strip() == "1" else ())
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return frozenset()
    return next(
        (frozenset(line.split()) for line in text.splitlines() if line.startswith("flags")),
        frozenset(),
    )
