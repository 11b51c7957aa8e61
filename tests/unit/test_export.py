"""Exporting torch models: equal to torch with its pruning hooks active, and torch left alone."""

from __future__ import annotations

import functools
import json
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from onnx_upscale import Exported, export

pytest.importorskip("torch")

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from onnx_upscale.exporter.torch_exporters import EXPORTERS
from torch_models import Residual, Tiny, fails, image, onnx_says, pruned, torch_says


@functools.cache
def exported(dim: int) -> Exported:
    """A pruned model as the newer exporter writes it, which takes seconds."""
    return export(pruned(dim).eval(), image(), None)


class TestEqualToTheTorchModel:
    @pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
    @pytest.mark.parametrize("dim", [0, 1])
    def test_pruned_exported_and_optimized(
        self, dim: int, exporter: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = pruned(dim).eval()
        if exporter == "torchscript":
            monkeypatch.setitem(EXPORTERS, "dynamo", fails)
            made = export(model, image(), None)
        else:
            made = exported(dim)
        assert made.exporter == exporter
        assert made.samples == 3
        result = onnx_upscale.optimize(made.model, made.masks)
        smaller = onnx_upscale.optimize(made.model, made.masks, strategy="gather")
        for batch in (1, 3):
            x = image(batch, seed=9)
            expected = torch_says(model, x)
            np.testing.assert_allclose(onnx_says(made.model, x), expected, atol=1e-5)
            for each in (result, smaller):
                np.testing.assert_allclose(onnx_says(each.model, x), expected, atol=1e-5)
        report = smaller.report
        assert report["output"]["params"] < 0.9 * report["input"]["params"]

    def test_input_masks_are_those_of_torch(self) -> None:
        model = pruned(1)
        masks = exported(1).masks["masks"]
        assert set(masks) == {f"{name}.weight" for name in ("left", "right", "inner", "head")}
        for name in ("left", "inner", "head"):
            kept = getattr(model, name).weight_mask.reshape(-1, 48).amax(0)
            assert masks[f"{name}.weight"] == {"input": (kept == 0).nonzero().flatten().tolist()}
        mask: Any = model.right.weight_mask
        of_a_group = (mask.amax((0, 2, 3)) == 0).nonzero().flatten().tolist()
        both = [*of_a_group, *(channel + 24 for channel in of_a_group)]
        assert masks["right.weight"] == {"input": both}

    def test_output_masks_only_where_nothing_is_added(self) -> None:
        model = pruned(0)
        masks = exported(0).masks["masks"]
        mask: Any = model.left.weight_mask
        gone = (mask.amax((1, 2, 3)) == 0).nonzero().flatten().tolist()
        assert masks == {"left.weight": {"output": gone}}

    @pytest.mark.usefixtures("fast")
    def test_zeros_without_hooks(self) -> None:
        model = Tiny()
        with torch.no_grad():
            model.fc.weight[:, [1, 2]] = 0
        assert export(model, image(), None).masks["masks"] == {"fc.weight": {"input": [1, 2]}}

    @pytest.mark.usefixtures("fast")
    def test_a_shared_parameter_is_pruned_where_it_was(self) -> None:
        model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
        model[2].weight = model[0].weight
        prune.ln_structured(model[2], "weight", 0.5, n=2, dim=1)
        exported = export(model, torch.randn(1, 6), None)
        assert list(exported.masks["masks"]) == ["2.weight"]
        x = torch.randn(4, 6)
        np.testing.assert_allclose(onnx_says(exported.model, x), torch_says(model, x), atol=1e-6)

    @pytest.mark.usefixtures("fast")
    def test_recurrent_layers_with_pruned_weights(self) -> None:
        class Recurrent(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.lstm = nn.LSTM(4, 6, batch_first=True)

            def forward(self, x: Tensor) -> Tensor:
                y: Tensor = self.lstm(x)[0]
                return y

        model = Recurrent()
        prune.ln_structured(model.lstm, "weight_ih_l0", 0.3, n=2, dim=0)
        x = torch.randn(2, 5, 4)
        exported = export(model, x, None)
        np.testing.assert_allclose(onnx_says(exported.model, x), torch_says(model, x), atol=1e-5)


class TestTheUsersModel:
    @pytest.mark.usefixtures("fast")
    @pytest.mark.parametrize("dim", [0, 1])
    def test_is_left_as_it_is(self, dim: int) -> None:
        model = pruned(dim).train()
        model.norm.eval()
        model.left.weight.sum()
        state = {name: values.clone() for name, values in model.state_dict().items()}
        modes = [module.training for module in model.modules()]
        hooks = {id(module): dict(module._forward_pre_hooks) for module in model.modules()}
        attributes = {name: id(vars(model.left)[name]) for name in vars(model.left)}
        random = torch.get_rng_state()
        export(model, image(), None)
        assert list(model.state_dict()) == list(state)
        assert all(torch.equal(model.state_dict()[name], state[name]) for name in state)
        assert [module.training for module in model.modules()] == modes
        assert {id(m): dict(m._forward_pre_hooks) for m in model.modules()} == hooks
        assert {name: id(vars(model.left)[name]) for name in vars(model.left)} == attributes
        assert torch.equal(torch.get_rng_state(), random)
        model(image(4)).sum().backward()
        assert model.left.weight_orig.grad is not None

    @pytest.mark.usefixtures("fast")
    def test_dropout_and_statistics_are_those_of_evaluation(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
        exported = export(model, image(4), None)
        assert "Dropout" not in {node.op_type for node in exported.model.graph.node}
        assert model[1].num_batches_tracked == 0


class TestNames:
    @pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
    def test_every_weight_of_a_transformer(
        self, exporter: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if exporter == "torchscript":
            monkeypatch.setitem(EXPORTERS, "dynamo", fails)
        # The copies in it start with equal weights, which exporters store once.
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        exported = export(model, torch.randn(1, 4, 8), None)
        weights = [name for name, each in model.named_parameters() if each.ndim > 1]
        masks = {"version": 1, "masks": {name: {"input": [0]} for name in weights}}
        assert onnx_upscale.optimize(exported.model, masks).report["masks"]["targets"] == 8

    def test_the_older_exporter_does_not_fold_names_away(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(EXPORTERS, "dynamo", fails)
        exported = export(Residual(), image(), None)
        names = {tensor.name for tensor in exported.model.graph.initializer}
        assert {"stem.weight", "left.weight", "right.weight", "head.weight"} <= names

    @pytest.mark.usefixtures("fast")
    def test_a_compiled_module(self) -> None:
        exported = export(torch.compile(Tiny()), image(), None)
        assert "fc.weight" in {tensor.name for tensor in exported.model.graph.initializer}

    @pytest.mark.usefixtures("fast")
    def test_inputs_and_outputs(self) -> None:
        class Several(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(3, 3)

            def forward(self, one: Tensor, two: list[Tensor], scale: float = 1.0) -> Any:
                return {"sum": self.fc(one + two[0]) * scale, "parts": (one, two[1] * 2)}

        a, b, c = torch.randn(3, 1, 3)
        exported = export(Several(), (a, [b, c]), None, kwargs={"scale": 3.0})
        assert [v.name for v in exported.model.graph.input] == ["one", "two_0", "two_1"]
        assert [v.name for v in exported.model.graph.output] == ["sum", "parts_0", "parts_1"]
        by_name = export(Several(), {"one": a, "two": [b, c]}, None)
        assert [v.name for v in by_name.model.graph.input] == ["one", "two_0", "two_1"]

    def test_the_batch_has_its_name_wherever_it_stands(self) -> None:
        class Doubled(nn.Module):
            def forward(self, x: Tensor, scale: float) -> Tensor:
                return torch.cat([x, x * scale])

        exported = export(Doubled(), (torch.randn(1, 3), 2.0), None, batch="many")
        (value,), (result,) = exported.model.graph.input, exported.model.graph.output
        assert value.type.tensor_type.shape.dim[0].dim_param == "many"
        assert "many" in result.type.tensor_type.shape.dim[0].dim_param

    @pytest.mark.parametrize("exporter", list(EXPORTERS))
    def test_nothing_about_the_machine_is_in_the_model(
        self, exporter: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(EXPORTERS, "dynamo", EXPORTERS[exporter])
        model = Tiny()
        one, two = (
            export(model, image(), None).model.SerializeToString(deterministic=True)
            for _ in range(2)
        )
        for unwanted in (b"stack_trace", b".py", str(Path(__file__).parent).encode()):
            assert unwanted not in one
        assert one == two


class TestFiles:
    @pytest.mark.usefixtures("fast")
    def test_model_and_masks(self, tmp_path: Path) -> None:
        exported = export(pruned(1), image(), tmp_path / "net.v1.onnx")
        assert isinstance(exported, Exported)
        assert exported.masks_path == tmp_path / "net.v1.masks.json"
        assert json.loads(exported.masks_path.read_text()) == exported.masks
        assert onnx.load(str(exported.path)) == exported.model
        onnx.checker.check_model(exported.model, full_check=True)
        result = onnx_upscale.optimize(str(exported.path), exported.masks_path)
        assert result.report["masks"]["targets"] == 4

    @pytest.mark.usefixtures("fast")
    def test_all_or_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "out.onnx").write_bytes(b"before")
        monkeypatch.chdir(tmp_path)
        for path, masks_path, saying in (
            ("out.onnx", "no/m.json", "there is no directory"),
            ("out.onnx", "out.onnx", "written as .json or .npz"),
            ("a.json", "a.json", "is the model as well"),
        ):
            with pytest.raises(onnx_upscale.UpscaleError, match=saying):
                export(Tiny(), image(), path, masks_path=masks_path)
        assert [each.name for each in tmp_path.iterdir()] == ["out.onnx"]
        assert (tmp_path / "out.onnx").read_bytes() == b"before"

    @pytest.mark.usefixtures("fast")
    def test_masks_of_the_user(self, tmp_path: Path) -> None:
        masks = {"version": 1, "masks": {"fc.weight": {"input": [3]}}}
        exported = export(Tiny(), image(), None, masks=masks)
        assert exported.masks == masks
        for bad, saying in (
            ({"fc.weight": {"input": {"mask": [1, 0]}}}, "mask has 2 entries.*4 channels"),
            ({"fc.weigth": {"input": [0]}}, "closest: fc.weight"),
            ({"fc.weight": {"output": [2]}}, "'fc.weight', side 'output': channel 2 is out of"),
        ):
            with pytest.raises(onnx_upscale.MaskError, match=saying):
                contents = {"version": 1, "masks": bad}
                export(Tiny(), image(), tmp_path / "out.onnx", masks=contents)
        assert list(tmp_path.iterdir()) == []


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("no such thing\nsecond line")


class Textual(nn.Module):
    def forward(self, x: Tensor) -> str:
        return "no tensor"


class Decomposing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svd(x)[1]


def huge() -> nn.Module:
    model = Tiny()
    model.large = nn.Parameter(torch.zeros(1).expand(2**29, 2))
    return model


def locked() -> nn.Module:
    model: Any = Tiny()
    model.lock = threading.Lock()
    return model


class TestBadInput:
    @pytest.mark.parametrize(
        ("make", "args", "saying"),
        [
            (Tiny, (), "no example arguments.*forward takes x"),
            (Tiny, (3,), "hold no tensor"),
            (Tiny, {"y": image()}, "does not take these arguments.*'x'"),
            (Tiny, (image(), image()), "does not take these arguments: too many"),
            (Tiny, torch.zeros(1, 4, 8, 8), r"fails on .*\(x: 1x4x8x8 float32\): RuntimeError"),
            (Failing, image(), "fails on the example arguments.*ValueError: no such thing$"),
            (Textual, image(), "returns str without any tensor"),
            (lambda: 3, image(), "expected a torch.nn.Module to export, found int"),
            (huge, image(), "4.3 GB of weights: models above 2 GB are not supported"),
            (locked, image(), "cannot be copied: TypeError"),
        ],
    )
    def test_one_line(self, make: Callable[[], Any], args: Any, saying: str) -> None:
        with pytest.raises(onnx_upscale.UpscaleError, match=saying) as caught:
            export(make(), args, None)
        assert "\n" not in str(caught.value)

    def test_no_exporter_can(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(onnx_upscale.ModelError, match="cannot be exported") as caught:
            export(Decomposing(), image(), tmp_path / "out.onnx")
        for part in ("dynamo exporter", "torchscript exporter", "svd"):
            assert part in str(caught.value)
        assert "\n" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []
        captured = capfd.readouterr()
        assert (captured.out, captured.err) == ("", "")

    def test_torchscript_modules(self) -> None:
        with pytest.raises(onnx_upscale.UsageError, match="TorchScript"):
            export(torch.jit.trace(nn.Linear(2, 2), torch.randn(1, 2)), torch.randn(1, 2), None)

    def test_batch_names(self) -> None:
        with pytest.raises(onnx_upscale.UsageError, match="batch '2x': the name of"):
            export(Tiny(), image(), None, batch="2x")


@pytest.mark.slow
def test_a_program_of_torch_takes_the_pass_of_onnx_ir() -> None:
    """What `torch.onnx.export` gives, without our own `export`."""
    pytest.importorskip("onnx_ir")
    from onnx_upscale.ir import UpscalePass

    last = nn.Conv2d(16, 8, 3)
    module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), last).eval()
    with torch.no_grad():
        last.weight[:, :5] = 0
    example = torch.from_numpy(np.ones((2, 3, 8, 8), np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Torch has some about itself.
        program: Any = torch.onnx.export(module, (example,), dynamo=True, verbose=False)
    masks = {"version": 1, "masks": {"2.weight": {"input": list(range(5))}}}
    program.model = UpscalePass(masks, strategy="gather")(program.model).model
    assert tuple(program.model.graph.initializers["2.weight"].shape) == (8, 11, 3, 3)
    found = onnx_says(program.model_proto, example)
    np.testing.assert_allclose(found, torch_says(module, example), rtol=1e-4, atol=1e-5)
