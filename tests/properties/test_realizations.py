"""Every realization is emitted, and right in combination with what else happens to its node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Net, assert_close, named_outputs
from masked import masked
from onnx_upscale.optimizer.apply import apply
from onnx_upscale.optimizer.plan import realize
from onnx_upscale.optimizer.plan.readings import READINGS, Gather, Reading
from onnx_upscale.reporting import segment_reports
from planting import WAYS, generated
from several import planned
from strategies import with_readers_apart, with_windows
from targets import TARGETS

OFTEN = 20


@pytest.mark.slow
def test_every_realization_is_emitted_on_generated_models_and_right() -> None:
    seen: Counter[str] = Counter()
    for case in (*generated(3), *generated(20, with_readers_apart), *generated(20, with_windows)):
        wanted = named_outputs(masked(case))
        for way, plan, bodies in planned(case.model, case.document, WAYS):
            for segment in segment_reports(plan, bodies):
                seen.update(f"reader {each.realization}" for each in segment.readers)
                seen.update(f"writer {each.realization}" for each in segment.writers)
            got = named_outputs(apply(plan, bodies).model)
            assert_close([*wanted.values()], [*got.values()], str(way), share=1e-3)
    assert {name for name, count in seen.items() if count >= OFTEN} == _REALIZATIONS, seen


_REALIZATIONS = {
    "reader whole",
    "reader zero-fill",
    "reader slice",
    "reader gather",
    "reader parts",
    "reader moved",
    "writer whole",
    "writer zero-fill",
    "writer pad",
}


class Backwards(Gather):
    """A copy of just what is needed, the other way round, for nothing."""

    name = "backwards"

    @classmethod
    def ways(cls, read: Any, here: Any, needs: Any, costs: Any) -> Iterator[Reading]:
        yield cls(read, here, needs, np.flatnonzero(needs)[::-1])

    def seconds(self, costs: Any, made: int) -> float:
        return 0.0


def test_a_new_realization_is_one_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realize, "READINGS", [*READINGS, Backwards])
    net: Any = Net(17, x=(1, 3, 6, 6))
    made = net("Relu", net("Conv", "x", net.random(12, 3, 1, 1)))
    ends = [net("Conv", made, net.constant(net.random(4, 12, 3, 3), name)) for name in "ab"]
    masks = {"a": {"input": [0, 3, 4]}, "b": {"input": [5, 6]}}
    report = onnx_upscale.optimize(net.model(*ends), {"version": 1, "masks": masks}).report
    readers = [reader for segment in report["segments"] for reader in segment["readers"]]
    assert [each["realization"] for each in readers if each["read"] < 12] == ["backwards"] * 2
    assert report["verify"]["ok"]


def absorbing(width: int, length: int, computed: int) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A product that absorbs constants, has no bias of its own, and is padded."""
    net = Net(17, x=(1, length, width))
    weights = {name: net.constant(net.random(width, width), name) for name in "ABCD"}
    constant = net("Sigmoid", net("MatMul", "x", weights["A"]))
    few = net("MatMul", constant, weights["B"])
    total = net("Relu", net("Add", few, net("MatMul", "x", weights["C"])))
    model = net.model(net("MatMul", total, weights["D"]))
    half, most = list(range(0, width, 2)), list(range(computed, width))
    return model, {"version": 1, "masks": {"A": {"output": half}, "B": {"output": most}}}


@pytest.mark.parametrize("target", ["copies free", "copies free, align 2"])
@pytest.mark.parametrize("computed", [1, 2, 5])
def test_a_padded_product_that_absorbs_constants(computed: int, target: str) -> None:
    """The Add of what it absorbs stands before the Pad."""
    model, masks = absorbing(16, 6, computed)
    report = onnx_upscale.optimize(model, masks, target=TARGETS[target]).report
    realizations = {
        writer["node"]: writer["realization"]
        for segment in report["segments"]
        for writer in segment["writers"]
    }
    assert "pad" in realizations.values()
    assert report["verify"]["ok"]


@pytest.mark.parametrize("shape", [(64, 512), (197, 768), (1024, 256), (4096, 64)])
def test_the_same_with_the_prices_that_first_showed_it(shape: tuple[int, int]) -> None:
    length, width = shape
    model, masks = absorbing(width, length, width // 16)
    assert onnx_upscale.optimize(model, masks, target="cpu-avx512").report["verify"]["ok"]
