"""Back to torch: what cannot be made smaller is told in a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import onnx_upscale
from onnx_upscale import Result, UsageError, export

pytest.importorskip("torch")

import torch
from torch import Tensor, nn

from onnx_upscale.torch import slim
from slim_models import Shared, Tied, made
from slimming import optimized
from torch_models import Residual, Tiny, image


@pytest.mark.usefixtures("fast")
class TestRefused:
    @pytest.fixture
    def result(self) -> Result:
        return optimized(made("residual"))

    def says(self, job: Callable[[], object]) -> str:
        with pytest.raises(UsageError) as error:
            job()
        message = str(error.value)
        assert "\n" not in message
        return message

    def test_no_module(self, result: Result) -> None:
        assert "expected a torch.nn.Module" in self.says(lambda: slim("net.pt", result))

    def test_no_result(self) -> None:
        model: Any = "out.onnx"
        assert "expected what optimize or prune gave" in self.says(lambda: slim(Tiny(), model))

    def test_another_module(self, result: Result) -> None:
        message = self.says(lambda: slim(made("dense"), result))
        assert message.startswith("layer 'stem' has a weight of 20x3x3x3 in the module, and of 48x")

    def test_a_module_without_a_layer(self, result: Result) -> None:
        model: Any = made("residual")
        del model.inner
        model.forward = lambda image: model.head(model.left(model.stem(image)).mean((2, 3)))
        message = self.says(lambda: slim(model, result, image()))
        assert message.startswith("layer 'inner' of the result is not in the module")

    def test_other_inputs(self, result: Result) -> None:
        assert "the result reads image, and the module x" in self.says(
            lambda: slim(Tiny(), result, image())
        )

    def test_a_layer_of_another_shape(self, result: Result) -> None:
        model: Any = made("residual")
        model.head = nn.Linear(48, 7)
        message = self.says(lambda: slim(model, result))
        assert message.startswith("layer 'head' has a weight of 7x48 in the module, and of 5x48")

    def test_trained_since(self, result: Result) -> None:
        model: Any = made("residual")
        for parameter in model.parameters():
            parameter.data += 0.1
        message = self.says(lambda: slim(model, result))
        assert "have other weights than were exported" in message

    def test_a_module_that_computes_something_else(self, result: Result) -> None:
        model: Any = made("residual")
        model.norm.eps = 1.0
        message = self.says(lambda: slim(model, result))
        assert "does not compute what the result computes" in message

    def test_another_count_of_outputs(self, result: Result) -> None:
        class Twice(Residual):
            def forward(self, image: Tensor) -> Any:
                return super().forward(image), image

        model = made("residual")
        model.__class__ = Twice
        message = self.says(lambda: slim(model, result))
        assert "the module has 2 outputs where the result gives 1" in message

    def test_a_layer_that_cannot_be_found_again(self) -> None:
        class Folded(nn.Module):
            """Its second weight is computed, so that nothing in the model has its name."""

            def __init__(self) -> None:
                super().__init__()
                self.one = nn.Linear(8, 6)
                self.two = nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))
                self.three = nn.Linear(6, 5)

            def forward(self, x: Tensor) -> Tensor:
                y: Tensor = self.three(torch.relu(self.two(torch.relu(self.one(x)))))
                return y

        torch.manual_seed(0)
        model: Any = Folded()
        exported = export(model, torch.randn(2, 8), None)
        keys = [node.name for node in exported.model.graph.node if node.op_type == "Gemm"]
        masks = {"version": 1, "masks": {keys[1]: {"input": [0, 1, 2]}}}
        result = onnx_upscale.optimize(exported.model, masks)
        message = self.says(lambda: slim(model, result))
        assert "layer 'two'" in message, message

    def test_one_layer_that_is_masked_in_one_of_its_calls(self) -> None:
        model = made("shared", amount=0)
        exported = export(model, image(), None)
        names = [node.name for node in exported.model.graph.node if node.op_type == "Conv"]
        masks = {"version": 1, "masks": {names[2]: {"input": [1, 2]}}}
        result = onnx_upscale.optimize(exported.model, masks)
        message = self.says(lambda: slim(model, result))
        assert message.startswith("layer 'twice' has one weight, and the result several"), message

    def test_an_embedding_that_is_masked_as_a_layer_alone(self) -> None:
        model = Tied().eval()
        given = torch.randint(0, 20, (2, 7))
        exported = export(model, given, None)
        *_, head = (node.name for node in exported.model.graph.node if node.op_type == "MatMul")
        masks = {"version": 1, "masks": {head: {"input": [1, 2]}}}
        result = onnx_upscale.optimize(exported.model, masks)
        message = self.says(lambda: slim(model, result, given))
        assert message.startswith("layer 'tokens' has one weight, and the result several"), message

    def test_arguments_that_cannot_be_made_up(self) -> None:
        model = Shared()
        result = optimized(model.eval())

        class Wrapped(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = model

            def forward(self, pair: list[Tensor]) -> Tensor:
                y: Tensor = self.inner(pair[0])
                return y

        assert "give `args`" in self.says(lambda: slim(Wrapped(), result))
