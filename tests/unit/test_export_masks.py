"""What the exporter does without torch: masks from zeros, names of weights, and doing without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import onnx_upscale
from build import Net, input_values, run
from onnx_upscale import extras
from onnx_upscale.cli import main
from onnx_upscale.exporter.weights import name_weights
from onnx_upscale.exporter.zeros import found_masks
from onnx_upscale.optimizer.apply import masked_model
from onnx_upscale.optimizer.load import load


def masks_of(net: Net, *outputs: str) -> dict[str, dict[str, list[int]]]:
    """The masks found, which must leave the function as it is."""
    model = net.model(*outputs)
    content = found_masks(load(model))
    inputs = input_values(model)
    masked = masked_model(load(model, content).graph)
    for before, after in zip(run(model, inputs), run(masked, inputs), strict=True):
        np.testing.assert_array_equal(before, after)
    assert content["version"] == 1
    found: dict[str, dict[str, list[int]]] = content["masks"]
    return found


class TestMasksFromZeros:
    def test_whole_slices_on_either_side(self) -> None:
        net = Net(17, x=[1, 6, 5, 5])
        weight = net.random(4, 6, 3, 3)
        weight[:, [1, 5]] = 0
        weight[2] = 0
        weight[0, 0] = 0  # no whole slice
        y = net("Conv", "x", net.constant(weight, "w"), name="conv")
        assert masks_of(net, y) == {"w": {"input": [1, 5], "output": [2]}}

    def test_nothing(self) -> None:
        net = Net(17, x=[1, 6, 5, 5])
        assert masks_of(net, net("Conv", "x", net.random(4, 6, 3, 3))) == {}

    def test_a_bias_that_stays_is_no_output_mask(self) -> None:
        net = Net(17, x=[1, 6, 5, 5])
        weight, bias = net.random(4, 6, 3, 3), net.random(4)
        weight[[1, 2]] = 0
        bias[2] = 0
        y = net("Conv", "x", net.constant(weight, "w"), bias)
        assert masks_of(net, y) == {"w": {"output": [2]}}

    def test_what_stands_behind_the_layer_counts(self) -> None:
        net = Net(17, x=[1, 6, 5, 5])
        weight, shift = net.random(4, 6, 3, 3), net.random(1, 4, 1, 1)
        weight[[0, 1, 2]] = 0
        shift[0, 2] = 0
        y = net("Conv", "x", net.constant(weight, "w"))
        y = net("Add", net("Mul", y, np.float32(2)), shift)
        assert masks_of(net, net("Relu", y)) == {"w": {"output": [2]}}

    def test_behind_batch_normalization(self) -> None:
        net = Net(17, x=[1, 3, 5, 5])
        weight, scale, shift, mean = (net.random(*s) for s in ((4, 3, 3, 3), (4,), (4,), (4,)))
        weight[[0, 1, 2, 3]] = 0
        shift[[0, 1, 2]] = 0
        mean[0] = 0
        scale[1] = 0
        y = net("Conv", "x", net.constant(weight, "w"))
        y = net("BatchNormalization", y, scale, shift, mean, np.abs(net.random(4)))
        assert masks_of(net, y) == {"w": {"input": [0, 1, 2], "output": [0, 1]}}

    def test_groups(self) -> None:
        net = Net(17, x=[1, 6, 5, 5])
        weight = net.random(4, 3, 3, 3)
        weight[:2, 1] = 0  # channel 1 of the first group
        weight[2:, 0] = 0  # channel 0 of the second
        y = net("Conv", "x", net.constant(weight, "w"), group=2)
        assert masks_of(net, y) == {"w": {"input": [1, 3]}}

    def test_transposed_convolution_and_linear_layers(self) -> None:
        net = Net(17, x=[1, 6, 5, 5])
        weight = net.random(6, 4, 2, 2)
        weight[3] = 0
        weight[:, 1] = 0
        y = net("ConvTranspose", "x", net.constant(weight, "up"))
        y = net("Relu", net("GlobalAveragePool", y))
        linear = net.random(3, 4)
        linear[:, 2] = 0
        y = net("Gemm", net("Flatten", y), net.constant(linear, "fc"), net.random(3), transB=1)
        product = net.random(3, 5)
        product[0] = 0
        y = net("MatMul", y, net.constant(product, "last"))
        assert masks_of(net, y) == {
            "up": {"input": [3], "output": [1]},
            "fc": {"input": [2]},
            "last": {"input": [0]},
        }

    def test_a_shared_weight_is_named_by_its_nodes(self) -> None:
        net = Net(17, x=[1, 4, 5, 5])
        weight = net.random(4, 4, 1, 1)
        weight[:, 3] = 0
        weight[0] = 0
        shared = net.constant(weight, "w")
        y = net("Conv", "x", shared, name="one")
        y = net("Conv", net("Relu", y), shared, net.random(4), name="two")
        assert masks_of(net, y) == {
            "one": {"input": [3], "output": [0]},
            "two": {"input": [3]},
        }

    def test_masks_of_the_user_are_added(self) -> None:
        net = Net(17, x=[1, 4, 5, 5])
        weight = net.random(4, 4, 1, 1)
        weight[:, 3] = 0
        y = net("Conv", "x", net.constant(weight, "w"), net.random(4), name="conv")
        given = {"version": 1, "masks": {"conv": {"input": {"keep": [0, 1]}, "output": [2]}}}
        content = found_masks(load(net.model(y), given))
        assert content["masks"] == {"w": {"input": [2, 3], "output": [2]}}


class TestNames:
    def test_a_transposed_weight(self) -> None:
        net = Net(17, x=[2, 4])
        weight = net.random(3, 4)
        y = net("MatMul", "x", net.constant(weight.T.copy(), "val_1"))
        model = net.model(y)
        name_weights(model, {"fc.bias": net.random(3), "fc.weight": weight})
        assert [tensor.name for tensor in model.graph.initializer] == ["fc.weight"]
        assert list(model.graph.node[0].input) == ["x", "fc.weight"]

    def test_equal_weights_that_are_stored_once_go_to_their_modules(self) -> None:
        net = Net(17, x=[2, 4])
        weight = net.random(4, 4)
        shared = net.constant(weight, "a.weight")
        y = net("Gemm", "x", shared, name="/a/Gemm", transB=1)
        y = net("Gemm", y, shared, name="node_2", transB=1)
        model = net.model(y)
        scopes = "['', 'b', 'linear']"
        model.graph.node[1].metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
        name_weights(model, {"a.weight": weight, "b.inner.weight": weight})
        assert [node.input[1] for node in model.graph.node] == ["a.weight", "b.inner.weight"]
        onnx.checker.check_model(model, full_check=True)

    def test_weights_behind_identities(self) -> None:
        net = Net(17, x=[2, 4])
        first = net.constant(net.random(4, 4), "a.weight")
        again = net("Identity", first, name="again")
        y = net("Gemm", net("Gemm", "x", first), again, name="second")
        model = net.model(y)
        name_weights(model, {})
        assert [node.op_type for node in model.graph.node] == ["Gemm", "Gemm"]
        assert model.graph.node[1].input[1] == "again.0"
        assert masks_are_accepted(model, "again.0")

    def test_two_layouts_of_one_parameter(self) -> None:
        net = Net(17, x=[2, 4])
        weight = net.random(4, 4)
        y = net("MatMul", "x", net.constant(weight.T.copy(), "val_1"))
        y = net("MatMul", y, net.constant(weight, "val_2"))
        model = net.model(y)
        expected = run(model, inputs := input_values(model))
        name_weights(model, {"weight": weight})
        assert "weight" in {tensor.name for tensor in model.graph.initializer}
        np.testing.assert_array_equal(run(model, inputs)[0], expected[0])

    def test_what_is_no_parameter_keeps_its_name(self) -> None:
        net = Net(17, x=[2, 4])
        y = net("MatMul", "x", net.constant(net.random(4, 4), "folded"))
        model = net.model(y)
        name_weights(model, {"other": net.random(4, 4)})
        assert model.graph.node[0].input[1] == "folded"


def masks_are_accepted(model: onnx.ModelProto, key: str) -> bool:
    return len(load(model, {"version": 1, "masks": {key: {"input": [0]}}}).masks) == 1


class TestWithoutTorch:
    def test_importing_does_not_import_torch(self) -> None:
        code = (
            "import sys, onnx_upscale, onnx_upscale.cli\n"
            "print(*sorted(name for name in sys.modules if name.partition('.')[0] == 'torch'))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == ""

    def test_what_to_install(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(extras, "find_spec", lambda name: None)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(onnx_upscale.UsageError, match=r"onnx-upscale\[export\]"):
            onnx_upscale.export(None, (), "out.onnx")
        result = CliRunner().invoke(main, ["export", "nets:net", "out.onnx"])
        assert result.exit_code == 2
        assert result.stderr.startswith("onnx-upscale: error: exporting needs PyTorch")
        assert "pip install 'onnx-upscale[export]'" in result.stderr
        assert list(tmp_path.iterdir()) == []
