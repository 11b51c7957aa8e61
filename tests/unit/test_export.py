"""Exporting torch models: equal to torch with its pruning hooks active, and torch left alone."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_upscale
from onnx_upscale import Exported, export
from onnx_upscale.running import Session

pytest.importorskip("torch")

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from onnx_upscale.exporter import torch_exporters
from onnx_upscale.exporter.torch_exporters import EXPORTERS, Request


class Residual(nn.Module):
    """Layers with and without bias and BatchNorm, one grouped, joined by an addition."""

    def __init__(self, channels: int = 48) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.left = nn.Conv2d(channels, channels, 1, bias=False)
        self.right = nn.Conv2d(channels, channels, 1, groups=2)
        self.inner = nn.Conv2d(channels, channels, 1)
        self.head = nn.Linear(channels, 5)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)
        nn.init.normal_(self.norm.bias)
        statistics: Any = self.norm.running_mean  # None by type where it is not tracked.
        nn.init.normal_(statistics)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(image)))
        x = torch.relu(self.left(x)) + torch.sigmoid(self.right(x))
        logits: Tensor = self.head(torch.relu(self.inner(x)).mean((2, 3)))
        return logits


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.conv(x).mean((2, 3)))
        return y


def pruned(dim: int, amount: float = 0.4) -> Residual:
    torch.manual_seed(dim)
    model = Residual()
    for module in (model.left, model.right, model.inner, model.head):
        prune.ln_structured(module, "weight", amount, n=2, dim=dim)
    return model


def image(batch: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def torch_says(model: nn.Module, x: Tensor) -> Any:
    """What the user's model gives in evaluation mode, its hooks active."""
    witness = copy.copy(model).eval()
    with torch.no_grad():
        result = witness(x).numpy()
    return result


def onnx_says(model: onnx.ModelProto, x: Tensor) -> Any:
    (value,) = model.graph.input
    (result,) = Session(model, threads=1).run({value.name: x.numpy()}).values()
    return result


def fails(request: Request) -> onnx.ModelProto:
    raise RuntimeError("it did not like it\nand more that nobody wants to read")


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the newer exporter fail."""
    monkeypatch.setitem(EXPORTERS, "dynamo", fails)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uses the older exporter, which is faster, in place of the newer one."""
    monkeypatch.setitem(EXPORTERS, "dynamo", EXPORTERS["torchscript"])


class TestEqualToTheTorchModel:
    @pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
    @pytest.mark.parametrize("dim", [0, 1])
    def test_pruned_exported_and_optimized(
        self, dim: int, exporter: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if exporter == "torchscript":
            monkeypatch.setitem(EXPORTERS, "dynamo", fails)
        model = pruned(dim).eval()
        exported = export(model, image(), None)
        assert exported.exporter == exporter
        assert exported.samples == 3
        result = onnx_upscale.optimize(exported.model, exported.masks)
        smaller = onnx_upscale.optimize(exported.model, exported.masks, strategy="gather")
        for batch in (1, 3):
            x = image(batch, seed=9)
            expected = torch_says(model, x)
            np.testing.assert_allclose(onnx_says(exported.model, x), expected, atol=1e-5)
            for each in (result, smaller):
                np.testing.assert_allclose(onnx_says(each.model, x), expected, atol=1e-5)
        report = smaller.report
        assert report["output"]["params"] < 0.9 * report["input"]["params"]

    def test_input_masks_are_those_of_torch(self) -> None:
        model = pruned(1)
        masks = export(model, image(), None).masks["masks"]
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
        masks = export(model, image(), None).masks["masks"]
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

    @pytest.mark.usefixtures("older")
    def test_the_older_exporter_does_not_fold_names_away(self) -> None:
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


class TestFallbacks:
    @pytest.mark.usefixtures("older")
    def test_the_older_exporter_and_why(self) -> None:
        exported = export(Tiny(), image(), None)
        assert (exported.exporter, exported.batch) == ("torchscript", "batch")
        (warning,) = exported.warnings
        assert "torchscript exporter with symbolic batch" in warning
        assert "RuntimeError: it did not like it" in warning
        assert "\n" not in warning
        assert "nobody" not in warning

    @pytest.mark.usefixtures("fast")
    def test_a_batch_that_the_torch_model_fixes(self) -> None:
        class Fixed(Tiny):
            def forward(self, x: Tensor) -> Tensor:
                y: Tensor = self.fc(self.conv(x).reshape(1, 4, 6, 6).mean((2, 3)))
                return y

        exported = export(Fixed(), image(), None)
        assert exported.batch is None
        assert exported.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
        assert (
            "the batch size is fixed at 1: the torch model takes no other" in exported.warnings[0]
        )

    @pytest.mark.usefixtures("older")
    def test_a_batch_that_the_exporter_turns_into_a_constant(self) -> None:
        class Baked(Tiny):
            def forward(self, x: Tensor) -> Tensor:
                y: Tensor = self.conv(x)
                y = self.fc(y.reshape(int(np.prod(x.shape[:1])), 4, -1).mean(2))
                return y

        exported = export(Baked(), image(2), None)  # Two, so that only another batch size shows it.
        assert (exported.exporter, exported.batch) == ("torchscript", None)
        assert "torchscript exporter with symbolic batch" in exported.warnings[0]

    @pytest.mark.usefixtures("fast")
    def test_fixed_on_request(self) -> None:
        exported = export(Tiny(), image(2), None, batch=None)
        assert (exported.batch, exported.samples, exported.warnings) == (None, 2, ())
        assert exported.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2

    @pytest.mark.usefixtures("fast")
    def test_inputs_without_the_batch_stay_as_they_are(self) -> None:
        class Masked(nn.Module):
            def forward(self, x: Tensor, mask: Tensor) -> Tensor:
                return x * mask

        exported = export(Masked(), (torch.randn(2, 5), torch.ones(5)), None)
        sizes = [v.type.tensor_type.shape.dim[0] for v in exported.model.graph.input]
        assert [size.dim_param or size.dim_value for size in sizes] == ["batch", 5]

    def test_opset(self) -> None:
        exported = export(Tiny(), image(), None, opset=13)
        assert exported.model.opset_import[0].version == 13
        with pytest.raises(onnx_upscale.ModelError, match=r"cannot be exported.*opset"):
            export(Tiny(), image(), None, opset=99)


def spoiled(request: Request) -> onnx.ModelProto:
    """An exporter with a bug: one weight is off by a tenth."""
    model = torch_exporters.torchscript(request)
    tensor = next(each for each in model.graph.initializer if each.name == "fc.weight")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.1, "fc.weight"))
    return model


class TestVerification:
    def test_a_difference_is_an_error(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for name in EXPORTERS:
            monkeypatch.setitem(EXPORTERS, name, spoiled)
        with pytest.raises(onnx_upscale.VerifyError, match="differs from the torch model: output"):
            export(Tiny(), image(), tmp_path / "out.onnx")
        assert list(tmp_path.iterdir()) == []
        assert export(Tiny(), image(), None, verify=False).samples == 0

    def test_an_exporter_that_differs_is_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(EXPORTERS, "dynamo", spoiled)
        exported = export(Tiny(), image(), None)
        assert exported.exporter == "torchscript"
        assert "differs by" in exported.warnings[0]

    @pytest.mark.usefixtures("fast")
    def test_random_numbers_in_the_model(self) -> None:
        class Noisy(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x + torch.rand_like(x)

        state = torch.get_rng_state()
        with pytest.raises(onnx_upscale.VerifyError):
            export(Noisy(), image(), None)
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.usefixtures("fast")
    def test_a_model_that_takes_no_random_values(self) -> None:
        class Picky(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                if not bool((x.round() == x).all()):
                    raise ValueError("whole numbers, please")
                return x * 2

        exported = export(Picky(), torch.arange(3.0), None, batch=None)
        assert exported.samples == 1
        assert "fails on random ones (ValueError: whole numbers, please)" in exported.warnings[0]

    @pytest.mark.usefixtures("fast")
    def test_the_branch_that_the_example_did_not_take(self) -> None:
        class Branching(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x * 2 if x.mean() > 0.0 else x * 3

        example = torch.cat([torch.full((1, 50), 0.01), torch.full((1, 1), -0.4)], dim=1)
        with pytest.raises(onnx_upscale.VerifyError):
            export(Branching(), example, None, batch=None, seed=1)


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
