"""doctor: whether the package can do its work here, and what would mend it if not.

Nothing but this package itself is imported at the top, for anything else may be what is ill.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_upscale
from onnx_upscale.report import VERSION, Document, Section

_NEEDED = ("numpy", "onnx", "onnxruntime")
# What to install for an optional part, by the module that shows that it is there.
_OPTIONAL = {
    **{"torch": "export", "onnxscript": "export", "PIL": "images"},
    **{"matplotlib": "plot", "ray": "ray", "onnx_ir": "ir", "olive": "olive"},
}
_CALLED = {"PIL": "pillow", "onnx_ir": "onnx-ir", "olive": "olive-ai"}
# Folders in front of the name of a file: between quotes, with spaces in them; and anywhere.
_PATHS = (
    re.compile(r"(?<=['\"])(?:[A-Za-z]:)?[/\\][^'\"]*[/\\](?=[^'\"]*['\"])"),
    re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[/\\](?:[^\s'\",;:()/\\]+[/\\])*"),
)
_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class Cores(Section):
    """Cores of the CPU.

    Attributes:
        there: How many the machine has.
        usable: How many this process may use.
    """

    there: int | None
    usable: int | None


@dataclass(frozen=True)
class ProfileFit(Section):
    """Whether a profile is of this machine.

    Attributes:
        name: What reports call it.
        fits: Whether it is; None for one that was not measured, so that nobody knows.
        doubts: Why it is not, or may not be.
    """

    name: str
    fits: bool | None
    doubts: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class DoctorReport(Document):
    """What was found.

    Attributes:
        package: The version of this package.
        python: The interpreter.
        system: The system and its processor.
        packages: Versions of what is needed; None for what cannot be imported.
        optional: Versions of what some commands need; None for what is not installed.
        providers: Where onnxruntime can run models.
        target: The built-in target that `cpu` stands for here.
        cores: Of the CPU.
        profile: Whether the profile that was asked about is of this machine.
        works: Whether a small model went through the main job.
        problems: What is wrong, and what would mend it.
    """

    package: str
    python: str
    system: str
    packages: Mapping[str, str | None]
    optional: Mapping[str, str | None]
    providers: tuple[str, ...]
    target: str | None
    cores: Cores
    profile: ProfileFit | None
    works: bool
    problems: tuple[str, ...]


def examine(profile: str | None = None) -> DoctorReport:
    """Looks at what is installed, and puts a small model through the main job.

    Args:
        profile: The path of a profile to look at as well.

    Returns:
        What was found.

    Raises:
        UsageError: The profile cannot be read.
    """
    packages: dict[str, str | None] = {}
    problems = list[str]()
    for name in _NEEDED:
        version, problem = _imported(name)
        packages[name] = version
        problems += problem
    problems += _too_old()
    providers: tuple[str, ...] = ()
    if packages["onnxruntime"] is not None:
        providers = tuple(importlib.import_module("onnxruntime").get_available_providers())
    works = False
    if None not in packages.values():
        failed = list(_failing_sample())
        works = not failed
        problems += failed
    return DoctorReport(
        version=VERSION,
        package=onnx_upscale.__version__,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=f"{platform.system()} {platform.machine()}",
        packages=packages,
        optional={_CALLED.get(name, name): _version(name) for name in _OPTIONAL},
        providers=providers,
        target=None if packages["numpy"] is None else _target(),
        cores=Cores(os.cpu_count(), _usable()),
        profile=None if profile is None else _profile(profile, providers),
        works=works,
        problems=tuple(problems),
    )


def without_paths(text: str) -> str:
    """A message in which files have no folders: these say who somebody is, and nothing is lost."""
    for folder in {str(Path.cwd()), str(Path.home())}:
        text = text.replace(folder, "") if len(folder) > 1 else text
    for path in _PATHS:
        text = path.sub("", text)
    return text


def _imported(name: str) -> tuple[str | None, list[str]]:
    """The version of a package that is needed, or None, and what is wrong."""
    mend = f"pip uninstall {name}, then pip install {name}"
    try:
        module = importlib.import_module(name)
        return str(module.__version__), []
    except ModuleNotFoundError as error:
        if error.name == name:
            return None, [f"{name} is not installed: pip install {name}"]
        return None, [f"{name} cannot be imported, {error.name} is missing: {mend}"]
    except Exception as error:  # Whatever is broken in it.
        said = without_paths(" ".join(f"{type(error).__name__}: {error}".split()))
        return None, [f"{name} cannot be imported, {said}: {mend}"]


def _version(module: str) -> str | None:
    """The version of an optional package, without importing it, which may take seconds."""
    if importlib.util.find_spec(module) is None:
        return None
    try:
        return importlib.metadata.version(_CALLED.get(module, module))
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def _too_old() -> Iterator[str]:
    """What is installed in a version below those that are known to do."""
    try:
        required = importlib.metadata.requires("onnx-upscale") or []
    except importlib.metadata.PackageNotFoundError:
        return  # It runs from a folder.
    for requirement in required:
        match = re.fullmatch(r"([\w.-]+)>=([0-9.]+)(?:,.*)?", requirement)
        if match is None:  # One of an extra.
            continue
        name, least = match[1], match[2]
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name not in _NEEDED:  # onnxruntime has several names, and these were imported.
                yield f"{name} is not installed: pip install '{name}>={least}'"
            continue
        if _numbers(found) < _numbers(least):
            yield f"{name} {found} is older than {least}: pip install '{name}>={least}'"


def _numbers(version: str) -> list[int]:
    return [int(number) for number in _NUMBER.findall(version)][:3]


def _usable() -> int | None:
    allowed = getattr(os, "sched_getaffinity", None)
    return os.cpu_count() if allowed is None else len(allowed(0))


def _target() -> str:
    from onnx_upscale.prices.machine import cpu_kind

    return cpu_kind()


def _profile(path: str, providers: tuple[str, ...]) -> ProfileFit:
    from onnx_upscale.prices import load_prices

    prices = load_prices(path)
    machine = json.loads(Path(path).read_text("utf-8")).get("machine")
    if not isinstance(machine, dict):
        return ProfileFit(prices.name, None, ("it does not say what it was measured on",))
    wrong, doubts = list(_others(machine, providers)), []
    installed = importlib.import_module("onnxruntime").__version__
    if machine.get("onnxruntime") != installed:
        doubts.append(
            f"it was measured with onnxruntime {machine.get('onnxruntime')}, {installed} is here: "
            "'onnx-upscale price' measures again"
        )
    return ProfileFit(prices.name, not wrong, (*wrong, *doubts))


def _others(machine: Mapping[str, Any], providers: tuple[str, ...]) -> Iterator[str]:
    """Where a profile is of another machine."""
    here = {
        "kind": _target() if machine.get("provider") == "cpu" else machine.get("kind"),
        "system": f"{platform.system()} {platform.machine()}",
    }
    for field, value in here.items():
        if machine.get(field) != value:
            yield f"it was measured on {machine.get(field)}, this is {value}"
    if machine.get("provider") == "cuda" and "CUDAExecutionProvider" not in providers:
        yield "it was measured on a GPU, and the installed onnxruntime runs none"


def _failing_sample() -> Iterator[str]:
    """Puts a small model through the main job; says what goes wrong."""
    try:
        import numpy as np
        from onnx import TensorProto, helper, numpy_helper

        rng = np.random.default_rng(0)
        weights = [
            numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
            for name, shape in (("first", (8, 3, 3, 3)), ("second", (5, 8, 1, 1)))
        ]
        nodes = [
            helper.make_node("Conv", ["x", "first"], ["made"]),
            helper.make_node("Relu", ["made"], ["active"]),
            helper.make_node("Conv", ["active", "second"], ["y"]),
        ]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 6, 6))
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 5, 4, 4))
        graph = helper.make_graph(nodes, "sample", [x], [y], weights)
        opset = helper.make_opsetid("", 17)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
        masks = {"version": 1, "masks": {"second": {"input": [0, 3, 5, 6]}}}
        report = onnx_upscale.optimize(model, masks).report
        if not report.verify.ok or not report.output.params < report.input.params:
            yield "a small model came out of the main job with all its channels"
    except Exception as error:  # Whatever is broken.
        said = without_paths(" ".join(f"{type(error).__name__}: {error}".split()))
        yield (
            f"a small model did not come through the main job, {said}: "
            "pip install -U onnx-upscale, or report it with all of this"
        )
