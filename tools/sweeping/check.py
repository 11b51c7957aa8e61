"""One exported model, checked: masks, results, an independent comparison, and the bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

import onnx_upscale
from build import Array
from case import Masks
from masked import masked
from onnx_upscale.running import Session, input_sizes, run_on_random
from sweeping.bound import Bound, bound, wanted
from sweeping.compare import apart, before_choices, outputs, shaken
from sweeping.known import folded, named, shapes
from sweeping.layers import case, find, random_masks

AMOUNT = 0.3
STRATEGIES = ("gather", "auto")
LARGEST_DIFFERENCE = 1e-4


def check(path: Path) -> dict[str, Any]:
    """Masks a model on both sides, by both strategies, and compares.

    Args:
        path: The exported model.

    Returns:
        What was found, as it stands in the results of the sweep: one entry per side.
    """
    model = onnx.load(path)
    sizes = input_sizes(model, None)
    samples, _ = run_on_random(Session(model, optimized=False).run, model, sizes, (11, 12))
    names = folded(named(model))
    found = list(find(names, samples[0]))
    result: dict[str, Any] = {"nodes": len(model.graph.node), "layers": len(found)}
    known = shapes(names)
    runs = any(0 in known.get(node.output[0], (0,)) for node in names.graph.node)
    references = {}
    for side in ("input", "output"):
        masks = random_masks(found, side, AMOUNT, seed=0)
        references[side] = masked(case(names, found, masks))
        result[side] = _side(path, references[side], masks, samples, runs)
    try:
        unmasked = wanted(names, samples[0])
        for side, reference in references.items():
            _compare_with(bound(reference, samples[0], unmasked), result[side])
    except Exception as error:  # The bound is the tool's own: its failure says nothing of a result.
        result["bound_failed"] = f"{type(error).__name__}: {error}"[:300]
    return result


def _side(
    path: Path,
    reference: onnx.ModelProto,
    masks: Masks,
    samples: list[dict[str, Array]],
    runs: bool,
) -> dict[str, Any]:
    """What is found of masks on one side; `runs` is whether it takes a run to know all shapes.

    The package runs nothing where it is not to verify, and then leaves more than it has to.
    """
    result: dict[str, Any] = {"masked": len(masks)}
    expected = outputs(reference, samples)
    noise: float | None = None
    for strategy in STRATEGIES:
        row: dict[str, Any] = {}
        result[strategy] = row
        row["own"], made = _made(path, masks, strategy, strategy == "auto" or runs)
        if made is None:
            continue
        report = made.report
        row["left"] = 1 - report["output"]["macs"] / max(report["input"]["macs"], 1)
        row["macs"] = report["input"]["macs"]
        row["copies"] = report["copies"]["count"]
        row["pieces"] = report["verify"].get("pieces", 0)
        row["warnings"] = [each[:200] for each in report["verify"].get("warnings", ())]
        found = outputs(made.model, samples)
        row["apart"] = max(map(apart, expected, found))
        if row["apart"] > LARGEST_DIFFERENCE:
            if noise is None:
                noise = max(map(apart, expected, shaken(reference, samples)))
            row["noise"] = noise
            row["before"] = before_choices(reference, made.model, samples)
    return result


def _compare_with(limit: Bound, result: dict[str, Any]) -> None:
    """Puts beside what left what masks allow at most."""
    result["bound"] = 1 - limit.coupled / max(limit.full, 1)
    result["free"] = 1 - limit.free / max(limit.full, 1)
    result["macs"], result["opaque"] = limit.full, limit.opaque
    for strategy in STRATEGIES:
        if "left" in result[strategy] and result["bound"] > 0:
            result[strategy]["ratio"] = result[strategy]["left"] / result["bound"]


def _made(
    path: Path, masks: Masks, strategy: str, verify: bool
) -> tuple[str, onnx_upscale.Result | None]:
    """What the package says of its result, and the result, if it is not refused."""
    document = {"version": 1, "masks": masks}
    try:
        made = onnx_upscale.optimize(path, document, strategy=strategy, samples=1, verify=verify)
        return "equal" if verify else "not asked", made
    except onnx_upscale.VerifyError as error:
        made = onnx_upscale.optimize(path, document, strategy=strategy, verify=False)
        return f"differs: {error}", made
    except onnx_upscale.UpscaleError as error:
        return f"refused: {error}", None
