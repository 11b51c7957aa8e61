"""Back to torch: modules as small as their ONNX models, equal to them, which train and export."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

import onnx_upscale
from onnx_upscale import export

pytest.importorskip("torch")

import torch
from torch import nn

from onnx_upscale.exporter.witness import isolated
from onnx_upscale.optimizer.verify import Tolerance
from onnx_upscale.running import Session
from onnx_upscale.torch import slim
from onnx_upscale.torch.comparison import Comparison
from slim_models import MODELS, Several, Shy, Tied, hooked, made
from slimming import (
    STRATEGIES,
    assert_counts_are_right,
    assert_equal,
    check,
    optimized,
    selections,
    weights,
)
from torch_models import image, onnx_says, torch_says


def initializers(pruned: Any) -> Any:
    """The weights of the repaired model, of the original's shapes."""
    return pruned.recovered.model.graph.initializer


@pytest.mark.usefixtures("fast")
class TestEqualToTheResult:
    @pytest.mark.parametrize("strategy", STRATEGIES)
    @pytest.mark.parametrize("dim", [0, 1])
    @pytest.mark.parametrize("name", MODELS)
    def test_with_batch_normalization_of_its_own(self, name: str, dim: int, strategy: str) -> None:
        model = made(name, dim)
        small = check(model, optimized(model, strategy))
        # The last is so narrow that `auto` keeps its blocks whole.
        assert weights(small) < weights(model) or name in ("attentive", "linked")

    def test_branches_that_disagree_pick_channels(self) -> None:
        model = made("residual")
        result = optimized(model)
        chosen = selections(slim(model, result))
        rows = {row.weight: row for row in result.report.layers}
        copying = [
            reader.node
            for segment in result.report.segments
            for reader in segment.readers
            if reader.realization in ("slice", "gather")
        ]
        assert len(chosen) == len(copying) > 0
        for path, places in chosen.items():
            assert len(places) == rows[f"{path}.weight"].read

    def test_a_constrained_result_needs_none(self) -> None:
        model = made("residual")
        result = optimized(model, "constrained")
        small = slim(model, result)
        assert_equal(small, result)
        assert not selections(small)

    def test_masks_that_the_module_does_not_know(self) -> None:
        model = made("dense", amount=0)
        exported = export(model, image(), None)
        own = {"head.weight": {"input": [1, 2, 3, 30]}, "inner.weight": {"output": [0, 5]}}
        masks = {"version": 1, "masks": own}
        check(model, onnx_upscale.optimize(exported.model, masks, strategy="gather"))

    def test_hooks_of_torch_become_parameters(self) -> None:
        model: Any = hooked("inverted")
        model.excite.weight_orig.requires_grad_(False)
        result = optimized(model)
        small = slim(model, result)
        assert_equal(small, result)
        assert not any("_orig" in name for name, _ in small.named_parameters())
        trained = {name for name, each in small.named_parameters() if each.requires_grad}
        assert trained == {name for name, _ in small.named_parameters()} - {"excite.weight"}
        assert "excite.weight_orig" in model.state_dict()

    def test_repaired_weights(self) -> None:
        model = made("dense", amount=0)
        exported = export(model, image(), None)
        masks = {"version": 1, "masks": {"head.weight": {"input": list(range(12))}}}
        samples = [{"image": image(8, seed=at).numpy()} for at in range(8)]
        result = onnx_upscale.optimize(exported.model, masks, recover=samples)
        check(model, result)

    def test_repaired_weights_of_prune(self) -> None:
        model = made("inverted", amount=0)
        exported = export(model, image(), None)
        samples = [{"image": image(8, seed=at).numpy()} for at in range(8)]
        options: dict[str, Any] = {"target": "cpu-avx512", "runs": 2}
        pruned = onnx_upscale.prune(exported.model, samples, macs=0.6, **options)
        small: Any = check(model, pruned.result)
        assert_equal(slim(model, pruned), pruned.result)
        assert weights(small) < 0.8 * weights(model)
        stored = {each.name: numpy_helper.to_array(each) for each in initializers(pruned)}
        rows = {row.weight: row for row in pruned.result.report.layers}
        repaired = 0
        for name in ("first.weight", "second.weight", "squeeze.weight", "excite.weight"):
            row, weight = rows[name], small.get_parameter(name).detach().numpy()
            own = model.get_parameter(name).detach().numpy()
            made_channels = range(row.outputs) if row.made_channels is None else row.made_channels
            here = np.ix_(made_channels, row.read_channels or range(row.inputs))
            cut, wanted = own[here], stored[name][here]
            np.testing.assert_allclose(weight, wanted, atol=1e-6)
            repaired += not np.allclose(weight, cut, atol=1e-3)
        assert repaired

    def test_all_channels_of_a_layer(self) -> None:
        model = made("residual", amount=0)
        exported = export(model, image(), None)
        masks = {"version": 1, "masks": {"inner.weight": {"input": list(range(48))}}}
        small = check(model, onnx_upscale.optimize(exported.model, masks))
        assert all(each.numel() for each in small.parameters())

    def test_parts_that_count_keep_what_they_count(self) -> None:
        model = made("counting", dim=0)
        result = optimized(model)
        small: Any = check(model, result)
        assert small.parts[0].inner.out_channels == 8
        assert small.free[0].weight.shape[0] < 24

    def test_what_counts_only_where_nobody_watches(self) -> None:
        model = Shy().eval()
        with torch.no_grad():
            model.head.weight[:, :3] = 0
        small: Any = check(model, optimized(model))
        assert small.inner.out_channels == 16

    def test_several_inputs_and_outputs_and_a_layer_whose_input_is_named(self) -> None:
        torch.manual_seed(0)
        model: Any = Several().eval()
        with torch.no_grad():
            model.plain.weight[:, :3] = 0
            model.named.weight[:, 2:6] = 0
        given = (image(2), torch.randn(2, 4))
        exported = export(model, given, None)
        result = onnx_upscale.optimize(exported.model, exported.masks, strategy="gather")
        small: Any = slim(model, result, given)
        assert set(selections(small)) == {"plain"}
        assert small.named.in_features == small.image.out_channels == 15
        with torch.no_grad():
            found = small(*given)
        session = Session(result.model, threads=1)
        wanted = session.run({"image": given[0].numpy(), "vector": given[1].numpy()})
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5)

    def test_a_weight_given_to_a_function_stays_whole(self) -> None:
        model = made("functional")
        small: Any = check(model, optimized(model))
        assert set(selections(small)) == {"right", "head"}
        assert small.left.weight.shape[:2] == (16, 16)
        assert not small.left.weight.any((0, 2, 3)).all()
        assert small.right.in_channels < 16

    def test_it_is_proved_at_several_batch_sizes(self) -> None:
        model = made("dense")
        found = Comparison.of(model, optimized(model), None, None, 0, Tolerance())
        assert [len(tensors[0]) for tensors, _ in found.samples] == [2, 2, 3]

    @pytest.mark.slow
    def test_a_compiled_module(self) -> None:
        model = made("dense")
        result = optimized(model)
        compiled: Any = torch.compile(model)
        small = slim(compiled, result)
        assert type(small) is type(model)
        assert_equal(small, result)

    def test_shared_weights_stay_shared_and_get_smaller(self) -> None:
        model = made("shared", dim=0)
        small: Any = check(model, optimized(model))
        assert small.one.weight is small.two.weight
        assert len(small.one.weight) == len(small.one.bias) == len(small.two.bias) == 8
        assert not torch.equal(small.one.bias, small.two.bias)

    def test_shared_weights_that_read_other_channels_stay_whole(self) -> None:
        model = made("shared", amount=0)
        exported = export(model, image(), None)
        own = {"stem.weight": {"output": [1, 2]}, "head.weight": {"input": [0]}}
        masks = {"version": 1, "masks": own}
        small: Any = check(model, onnx_upscale.optimize(exported.model, masks, strategy="gather"))
        assert small.twice.in_channels == 16
        assert small.head.in_features == 11

    def test_grouped_layers_lose_channels_of_every_group(self) -> None:
        model: Any = made("inverted")
        small: Any = check(model, optimized(model))
        assert small.depthwise[0].groups == small.depthwise[0].in_channels < 32
        assert small.grouped.groups == 4
        assert small.grouped.in_channels < 32

    def test_groups_that_are_normalized_leave_as_a_whole(self) -> None:
        model: Any = made("odd", amount=0)
        with torch.no_grad():
            model.mid.weight[:4] = 0
            model.mid.bias[:4] = 0
        small: Any = check(model, optimized(model))
        assert small.mid.out_channels == small.groups.num_channels == 8
        assert small.groups.num_groups == 2

    def test_transposed_layers(self) -> None:
        model: Any = made("odd", dim=1)
        small: Any = check(model, optimized(model))
        assert small.up.weight.shape[0] == small.up.in_channels == 16
        assert small.up.weight.shape[1] == small.up.out_channels < 12

    def test_embeddings_that_are_read_as_layers_as_well(self) -> None:
        model: Any = Tied().eval()
        with torch.no_grad():
            model.inner.weight[:, [2, 7]] = 0.0
            model.outer.weight[[2, 7]] = 0.0
            model.outer.bias[[2, 7]] = 0.0
            model.tokens.weight[:, [2, 7]] = 0.0
        given = torch.randint(0, 20, (2, 7), generator=torch.Generator().manual_seed(0))
        exported = export(model, given, None)
        result = onnx_upscale.optimize(exported.model, exported.masks, strategy="gather")
        small: Any = slim(model, result, given)
        assert small.head.weight is small.tokens.weight
        assert small.tokens.embedding_dim == small.head.in_features == 14
        assert_counts_are_right(small)
        np.testing.assert_allclose(
            torch_says(small, given), onnx_says(result.model, given), atol=1e-5
        )


@pytest.mark.usefixtures("fast")
class TestTrainable:
    @pytest.mark.parametrize("name", MODELS)
    def test_finite_gradients_everywhere(self, name: str) -> None:
        model = made(name)
        small = slim(model, optimized(model)).train()
        loss = nn.functional.cross_entropy(small(image(8)), torch.arange(8) % 5)
        loss.backward()
        for key, parameter in small.named_parameters():
            assert parameter.grad is not None, key
            assert bool(parameter.grad.isfinite().all()), key
            assert parameter.grad.shape == parameter.shape

    def test_the_loss_falls_and_selections_stay(self) -> None:
        model = made("inverted")
        small = slim(model, optimized(model)).train()
        before = {name: value.clone() for name, value in selections(small).items()}
        optimizer = torch.optim.AdamW(small.parameters(), 1e-2)
        x, y, losses = image(32), torch.arange(32) % 5, []
        for _ in range(20):
            loss = nn.functional.cross_entropy(small(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.8 * losses[0]
        assert before and all(torch.equal(before[name], v) for name, v in selections(small).items())

    def test_frozen_parameters_stay_frozen_and_modes_as_they_were(self) -> None:
        model: Any = made("dense").train()
        model.norm.eval()
        model.stem.weight.requires_grad_(False)
        small: Any = slim(model, optimized(model))
        assert small.training and not small.norm.training
        assert model.training and not model.norm.training
        assert not small.stem.weight.requires_grad
        assert small.grow.weight.requires_grad


@pytest.mark.usefixtures("fast")
class TestGoesOn:
    def test_saved_and_copied(self) -> None:
        model = made("residual")
        result = optimized(model)
        small = slim(model, result)
        content = io.BytesIO()
        torch.save(small, content)
        content.seek(0)
        again = torch.load(content, weights_only=False)
        assert selections(again)
        for each in (again, copy.deepcopy(small)):
            assert_equal(each, result)
        fresh = slim(model, result)
        for parameter in fresh.parameters():
            parameter.data.zero_()
        fresh.load_state_dict(small.state_dict())
        assert_equal(fresh, result)

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore::FutureWarning")  # Torch's own, of its own code.
    @pytest.mark.parametrize("name", ["residual", "inverted"])
    def test_exported_by_torch_alone(self, name: str) -> None:
        model = made(name)
        result = optimized(model)
        small = slim(model, result).eval()
        with isolated():  # Torch warns of itself.
            program = torch.onnx.export(small, (image(2),), dynamo=True, verbose=False)
        assert program is not None
        x = image(2, seed=7)
        np.testing.assert_allclose(
            onnx_says(program.model_proto, x), torch_says(small, x), atol=1e-5
        )
        shapes = {tuple(tensor.dims) for tensor in program.model_proto.graph.initializer}
        assert {tuple(each.shape) for each in small.parameters() if each.dim() == 4} <= shapes

    def test_pruned_again(self) -> None:
        model = made("residual")
        small: Any = slim(model, optimized(model))
        first = selections(small)
        with torch.no_grad():
            for layer in (small.inner, small.left):
                layer.weight[:, ::3] = 0
        result = optimized(small)
        smaller = check(small, result)
        assert weights(smaller) < weights(small)
        assert first and set(selections(smaller)) >= set(first)
