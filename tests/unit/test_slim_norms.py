"""Back to torch: where normalizations stay beside their layers, and how they come out again."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from onnx_upscale.exporter.torch_exporters import EXPORTERS
from onnx_upscale.torch.norms import unfold
from onnx_upscale.torch.values import NewLayer
from slim_models import made
from slimming import STRATEGIES, check, optimized, selections
from torch_models import fails


@pytest.mark.usefixtures("fast")
class TestNormalization:
    @pytest.fixture
    def both(self) -> tuple[Any, Any]:
        model = made("normed", dim=0)
        return model, check(model, optimized(model))

    def test_a_constant_goes_into_the_mean(self, both: tuple[Any, Any]) -> None:
        model, small = both
        assert small.only.bias is None
        kept = model.behind_only.running_mean[:, None] == small.behind_only.running_mean
        assert small.behind_only.num_features < 16 and not kept.any()

    def test_but_not_where_something_else_reads_the_layer(self, both: tuple[Any, Any]) -> None:
        model, small = both
        assert small.also.bias is not None
        assert torch.isin(small.behind_also.running_mean, model.behind_also.running_mean).all()

    def test_nor_where_it_is_behind_several_layers(self, both: tuple[Any, Any]) -> None:
        _, small = both
        assert small.first.bias is not None

    def test_nor_where_something_is_done_in_place(self, both: tuple[Any, Any]) -> None:
        _, small = both
        assert small.rectified.bias is not None

    @pytest.mark.filterwarnings("error")
    def test_one_that_holds_nothing_expects_what_it_reads(self) -> None:
        model = made("styled", dim=0)
        small: Any = check(model, optimized(model))
        assert small.per.num_features == small.stem.out_channels < 16


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense", "inverted", "odd"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_folded_batch_normalization_is_taken_out_again(
    name: str, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXPORTERS, "torchscript", fails)
    model = made(name)
    result = optimized(model, strategy)
    folded = {node.op_type for node in result.model.graph.node}
    assert name == "dense" or "BatchNormalization" not in folded
    small = check(model, result)
    norms = [part for part in small.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    assert norms
    for norm in norms:
        assert norm.running_var is not None
        assert norm.num_features == len(norm.weight) == len(norm.running_var)


@pytest.mark.slow
@pytest.mark.parametrize("dim", [0, 1])
def test_normalization_folded_into_several_layers(
    dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXPORTERS, "torchscript", fails)
    model: Any = made("normed", dim)
    result = optimized(model)
    small: Any = check(model, result)
    assert small.behind_both.num_features == 16
    assert small.behind_only.num_features < 16 or dim == 1


@pytest.mark.slow
def test_what_a_folded_normalization_makes_may_be_read_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(EXPORTERS, "torchscript", fails)
    model = made("linked")
    result = optimized(model, "constrained")
    small: Any = check(model, result)
    assert small.norm.num_features == small.project.out_channels < 16
    assert not selections(small)


class TestUnfolded:
    """A normalization that comes out of a layer again."""

    def layer(self, seed: int, kind: str) -> tuple[NewLayer, nn.Module]:
        rng = np.random.default_rng(seed)
        shape = {"plain": (6, 4, 3, 3), "grouped": (6, 2, 3, 3), "transposed": (4, 3, 3, 3)}[kind]
        groups = 1 if kind == "plain" else 2
        weight = rng.standard_normal(shape)
        new = NewLayer(
            weight, rng.standard_normal(6), np.arange(6), None, groups, kind == "transposed"
        )
        make = nn.ConvTranspose2d if kind == "transposed" else nn.Conv2d
        return new, make(4, 6, 3, groups=groups).double()

    @pytest.mark.parametrize("kind", ["plain", "grouped", "transposed"])
    @pytest.mark.parametrize("affine", [True, False])
    @pytest.mark.parametrize("biased", [True, False])
    def test_both_compute_what_was_folded(self, kind: str, affine: bool, biased: bool) -> None:
        for seed in range(5):
            new, conv = self.layer(seed, kind)
            torch.manual_seed(seed)
            norm: Any = nn.BatchNorm2d(6, affine=affine).double().eval()
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            if affine:
                norm.weight.data.normal_()
                norm.weight.data[seed % 6] = 0.0
                norm.bias.data.normal_()
            if kind != "transposed":
                new.weight[(seed + 1) % 6] = 0.0
            bias = np.random.default_rng(seed).standard_normal(6) if biased else None
            both = unfold(new, bias, norm)
            wanted, found = copy.deepcopy(conv), conv
            assert found.bias is not None and wanted.bias is not None
            wanted.weight.data = torch.from_numpy(new.weight)
            wanted.bias.data = torch.from_numpy(np.asarray(new.bias))
            found.weight.data = torch.from_numpy(both.weight)
            own = np.zeros(6) if both.bias is None else both.bias
            found.bias.data = torch.from_numpy(np.asarray(own))
            norm.running_mean = torch.from_numpy(both.mean)
            if affine:
                norm.weight.data = torch.from_numpy(np.asarray(both.gamma))
                norm.bias.data = torch.from_numpy(np.asarray(both.shift))
            assert (both.bias is None) == (bias is None)
            x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
            with torch.no_grad():
                np.testing.assert_allclose(norm(found(x)), wanted(x), atol=1e-9)

    def test_a_channel_that_reads_nothing_is_the_same_in_training(self) -> None:
        new, conv = self.layer(0, "plain")
        new.weight[2] = 0.0
        norm: Any = nn.BatchNorm2d(6).double()
        both = unfold(new, None, norm)
        assert new.bias is not None and both.shift is not None
        assert both.shift[2] == new.bias[2]
        assert both.mean[2] == 0.0
        assert conv is not None
