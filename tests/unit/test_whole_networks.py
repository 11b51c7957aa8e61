"""Prices are brought to what whole networks take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from onnx_upscale import pricing
from onnx_upscale.prices import Kernel, load_prices
from onnx_upscale.pricing import price, whole
from onnx_upscale.pricing.networks import networks
from onnx_upscale.running import Session, input_sizes, random_inputs

PRICES = load_prices("cpu-avx512")


def test_networks_run_and_are_no_larger_than_they_need_be() -> None:
    models = list(networks())
    for model in models:
        (made,) = Session(model).run(random_inputs(model, input_sizes(model), seed=0)).values()
        assert np.isfinite(made).all()
        assert model.ByteSize() < 25e6
    assert len({model.SerializeToString() for model in models}) == len(models)


@pytest.mark.parametrize(("longer", "factor"), [(1.1, 1.1), (0.5, 0.8), (3.0, 1.5)])
def test_the_factor_is_the_median_over_networks(
    monkeypatch: pytest.MonkeyPatch, longer: float, factor: float
) -> None:
    predicted = np.array([whole._predicted(model, PRICES) for model in networks()])
    several = np.array([2.0, 1.0, 1.0, 1.0, 1.0, 0.5])  # Two are far off, one each way.

    def interleave(tasks: Sequence[Any], rounds: int, **_: Any) -> Any:
        undisturbed = longer * several * predicted
        return np.stack([undisturbed] * (rounds - 1) + [5 * undisturbed])

    monkeypatch.setattr(whole, "interleave", interleave)
    found = whole.whole_factor(PRICES, ("CPUExecutionProvider",), 1)
    assert found == pytest.approx(factor)


def test_all_prices_are_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(kernels: Sequence[Kernel], *_: Any) -> dict[Kernel, float]:
        return dict.fromkeys(kernels, 1e-5)

    found = []
    for factor in (1.0, 1.25):
        monkeypatch.setattr(pricing, "measure_by_profile", measured)
        monkeypatch.setattr(pricing, "whole_factor", lambda *_, factor=factor: factor)
        found.append(price(share=0.1))
    one, more = found
    assert more.to_json()["machine"]["whole_networks"] == 1.25
    assert one.errors == more.errors
    for family, each in one.prices.families.items():
        for kernel in each.kernels:
            assert more.prices.kernel(kernel) == pytest.approx(1.25 * one.prices.kernel(kernel))
        assert more.prices.families[family].seconds == pytest.approx([1.25e-5] * len(each.kernels))
