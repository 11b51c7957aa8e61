"""Prices: which machine they are for, and what they make `auto` decide."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Net
from onnx_upscale.prices import CopyWork, LayerWork, load_prices, target_warnings
from onnx_upscale.prices.machine import cpu_kind

CPUS = ("cpu-avx512", "cpu-avx2", "cpu-arm64")


def masks_of(sides: dict[str, list[int]]) -> dict[str, Any]:
    return {"version": 1, "masks": {key: {"input": pruned} for key, pruned in sides.items()}}


def segments(model: onnx.ModelProto, masks: dict[str, Any], target: str) -> list[dict[str, Any]]:
    report = onnx_upscale.optimize(model, masks, target=target, verify=False).report
    found: list[dict[str, Any]] = report["segments"]
    return found


def attention(width: int, outputs: int) -> onnx.ModelProto:
    """One normalized tensor of 197 rows, read by three products as in a transformer."""
    net = Net(17, x=[1, 197, width])
    made = net("MatMul", "x", net.random(width, width))
    normal = net("LayerNormalization", made, net.random(width), net.random(width), axis=-1)
    heads = [
        net("MatMul", normal, net.constant(net.random(width, outputs), f"r{reader}"))
        for reader in range(3)
    ]
    return net.model(*heads)


def pruned(width: int, share: float, readers: int) -> dict[str, list[int]]:
    """A random part of the channels for each reader, a different one for each."""
    rng = np.random.default_rng(0)
    count = int(width * share)
    return {f"r{r}": sorted(rng.permutation(width)[:count].tolist()) for r in range(readers)}


@pytest.mark.parametrize("target", CPUS)
def test_no_gather_of_single_elements_before_a_small_product(target: str) -> None:
    """Along the last axis a Gather moves elements one by one: more than such a layer saves."""
    found = segments(attention(192, 192), masks_of(pruned(192, 0.3, 3)), target)
    ways = [r["realization"] for s in found for r in s["readers"]]
    assert len(ways) == 3 and "gather" not in ways


@pytest.mark.parametrize("target", CPUS)
def test_a_copy_before_a_wide_product(target: str) -> None:
    """The same copy pays where each element that goes saves thousands of multiply-adds."""
    found = segments(attention(192, 3072), masks_of(pruned(192, 0.7, 3)), target)
    copies = [r["realization"] for s in found for r in s["readers"]]
    assert len(copies) == 3 and set(copies) <= {"gather", "slice"}


@pytest.mark.parametrize("target", CPUS)
def test_products_keep_odd_counts(target: str) -> None:
    """Matrix products have no blocks, so nothing is kept beyond what is needed."""
    net = Net(17, x=[1, 50, 16])
    made = net("Relu", net("MatMul", "x", net.random(16, 64)))
    model = net.model(net("MatMul", made, net.constant(net.random(64, 8), "w")))
    found = segments(model, masks_of({"w": list(range(0, 62, 2))}), target)
    assert [s["kept"] for s in found if s["channels"] == 64] == [33]


@pytest.mark.parametrize("target", CPUS)
def test_groups_are_not_counted_as_channels(target: str) -> None:
    """A root of a grouped convolution is a whole group: one of two is 64 channels already."""
    net = Net(17, x=[1, 3, 14, 14])
    made = net("Relu", net("Conv", "x", net.random(128, 3, 1, 1)))
    weights = net.random(128, 64, 3, 3)
    grouped = net("Relu", net("Conv", made, weights, group=2, pads=[1, 1, 1, 1]))
    model = net.model(net("Conv", grouped, net.constant(net.random(16, 128, 1, 1), "w")))
    found = segments(model, masks_of({"w": list(range(64))}), target)
    assert [w["channels"] for s in found for w in s["writers"]][:2] == [64, 64]


@pytest.mark.parametrize(
    ("machine", "flags", "kind"),
    [
        ("x86_64", {"avx2", "avx512f"}, "cpu-avx512"),
        ("AMD64", {"avx2"}, "cpu-avx2"),
        ("x86_64", set(), "cpu-avx2"),
        ("aarch64", set(), "cpu-arm64"),
        ("arm64", {"avx512f"}, "cpu-arm64"),
    ],
)
def test_kinds_of_cpu(machine: str, flags: set[str], kind: str) -> None:
    assert cpu_kind(machine, frozenset(flags)) == kind


def test_the_report_names_the_profile() -> None:
    model = attention(8, 8)
    report = onnx_upscale.optimize(model, verify=False).report
    assert (report["target"], report["profile"]) == ("cpu", cpu_kind())
    assert report["warnings"] == []
    other = next(kind for kind in CPUS if kind != cpu_kind())
    report = onnx_upscale.optimize(model, target=other).report
    assert (report["target"], report["profile"]) == (other, other)
    (warning,) = report["warnings"]
    assert other in warning and cpu_kind() in warning


def test_only_other_kinds_of_cpu_are_warned_about() -> None:
    assert not target_warnings("cpu") and not target_warnings("cuda")
    assert not target_warnings(cpu_kind()) and not target_warnings("cpu-mine.json")


def test_copies_can_be_made_dearer_without_knowing_the_fields() -> None:
    prices = load_prices("cpu-avx2")
    dear = prices.with_copies_costing(10.0)
    layer = LayerWork(False, 32, 32, 100, 9, 4)
    assert dear.layer(layer) == prices.layer(layer)
    for last in (False, True):
        for contiguous in (False, True):
            copy = CopyWork(32, 16, 100, contiguous, last, 4)
            assert dear.copy(copy) == pytest.approx(10 * prices.copy(copy))
