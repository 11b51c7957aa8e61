"""Exporters that fail or err: the next one is tried, and what it makes is compared with torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_upscale
from onnx_upscale import export

pytest.importorskip("torch")

import torch
from torch import Tensor, nn

from onnx_upscale.exporter import torch_exporters
from onnx_upscale.exporter.torch_exporters import EXPORTERS, Request
from torch_models import Tiny, fails, image


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the newer exporter fail."""
    monkeypatch.setitem(EXPORTERS, "dynamo", fails)


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
