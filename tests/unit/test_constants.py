"""Known values: each computed by hand, and each that must not be taken for one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from build import Net
from onnx_upscale.optimizer.analyze import analyze
from onnx_upscale.optimizer.load import load

Rows = list[list[float]]
Known = list[Any]  # Numbers, and None for what is not known.


def net() -> Net:
    return Net(17, x=(1, 2, 4, 4))


def floats(values: Any) -> Any:
    return np.array(values, np.float32)


def conv(
    net: Net, data: str, rows: Rows, *bias: list[float], kernel: int = 1, **attributes: Any
) -> str:
    """A convolution with the same weight at each place of its window."""
    weight = np.tile(floats(rows)[..., np.newaxis, np.newaxis], (kernel, kernel))
    return net("Conv", data, weight, *map(floats, bias), **attributes)


def writer(net: Net, *values: float | None) -> str:
    """Channels of given values; None for those that depend on the input."""
    rows = [[1.0, 2.0] if value is None else [0.0, 0.0] for value in values]
    return conv(net, "x", rows, [value or 0.0 for value in values])


def known(net: Net, tensor: str, axis: int = 1, **masks: dict[str, list[int]]) -> Known:
    """The known value of each channel of a tensor, or None."""
    document = {"version": 1, "masks": masks}
    analysis = analyze(load(net.model(tensor), document).graph)
    values = analysis.values[analysis.structure.axes[tensor][axis]]
    return [None if math.isnan(value) else pytest.approx(value, abs=1e-6) for value in values]


class TestLayers:
    def test_what_a_row_of_zeros_makes_is_its_bias(self) -> None:
        made = net()
        assert known(made, conv(made, "x", [[0, 0], [0, 1], [0, 0]], [7, 8, -2])) == [7, None, -2]

    def test_without_a_bias_it_is_zero(self) -> None:
        made = net()
        assert known(made, conv(made, "x", [[1, 0], [0, 0]])) == [None, 0]

    def test_what_a_mask_prunes_is_zero_bias_and_all(self) -> None:
        made = net()
        out = conv(made, "x", [[1, 2], [3, 4], [5, 6]], [1, 2, 3], name="layer")
        assert known(made, out, layer={"output": [1]}) == [None, 0, None]

    def test_a_layer_that_reads_nothing_any_more_makes_its_bias(self) -> None:
        made = net()
        out = conv(made, "x", [[1, 0], [0, 1], [1, 1]], [1, 2, 3], name="layer")
        assert known(made, out, layer={"input": [1]}) == [None, 2, None]
        assert known(made, out, layer={"input": [0, 1]}) == [1, 2, 3]

    def test_known_inputs_add_up_with_the_bias(self) -> None:
        made = net()
        data = writer(made, 7, None, -2)
        rows: Rows = [[1, 0, 3], [1, 1, 0], [0, 0, 0], [0, 0, -0.5]]
        assert known(made, conv(made, data, rows, [10, 20, 30, 40])) == [11, None, 30, 41]

    def test_what_a_mask_prunes_adds_nothing(self) -> None:
        made = net()
        out = conv(made, writer(made, 7, None, -2), [[1, 0, 3]], [10], name="layer")
        assert known(made, out, layer={"input": [0]}) == [10 - 6]
        assert known(made, out, layer={"input": [0, 2]}) == [10]

    def test_all_places_of_a_window_count(self) -> None:
        made = net()
        data = writer(made, 7, None, -2)
        assert known(made, conv(made, data, [[1, 0, 3]], [10], kernel=3)) == [10 + 9 * (7 - 6)]

    def test_padding_mixes_zeros_in(self) -> None:
        """A zero is the same at the border, and so is what reads nothing; other values are not."""
        made = net()
        data = writer(made, 7, None, 0)
        rows: Rows = [[1, 0, 0], [0, 0, 5], [0, 0, 0], [1, 0, 5]]
        out = conv(made, data, rows, [1, 2, 3, 4], kernel=3, pads=[1, 1, 1, 1])
        assert known(made, out) == [None, 2, 3, None]

    def test_groups_see_their_own_inputs_only(self) -> None:
        made = net()
        data = writer(made, 7, 1, None, 3)
        out = conv(made, data, [[1, 2], [1, 0], [0, 2], [1, 0]], [0, 1, 2, 3], group=2)
        assert known(made, out) == [9, 8, 8, None]

    def test_of_weights_without_a_zero_too(self) -> None:
        rows: Rows = [[1, 2], [3, 4]]
        made = net()
        assert known(made, conv(made, "x", rows, [5, 6])) == [None, None]
        made = net()
        out = conv(made, "x", rows, [5, 6], name="layer")
        assert known(made, out, layer={"input": [0, 1]}) == [5, 6]
        made = net()
        out = conv(made, "x", rows, [5, 6], name="layer")
        assert known(made, out, layer={"output": [1]}) == [None, 0]
        made = net()
        assert known(made, conv(made, writer(made, 7, 1), rows, [5, 6])) == [5 + 9, 6 + 25]

    def test_of_groups_without_a_zero_too(self) -> None:
        made = net()
        data = conv(made, "x", [[1, 2], [3, 4], [5, 6], [7, 8]])
        out = conv(made, data, [[1, 2], [3, 4], [5, 6]] * 2, [1, 2, 3] * 2, group=2, name="layer")
        assert known(made, out, layer={"input": [2, 3]}) == [None, None, None, 1, 2, 3]

    def test_a_hidden_unit_whose_gates_alone_read_is_zero(self) -> None:
        made = Net(17, x=(3, 1, 2))
        read, between = np.ones((1, 8, 2), np.float32), np.ones((1, 8, 2), np.float32)
        read[:, 7] = between[:, 7] = 0  # What the second unit takes in, behind three gates.
        out = made("LSTM", "x", read, between, hidden_size=2)
        assert known(made, out, axis=3) == [None, 0]

    def test_a_scaled_product(self) -> None:
        made = Net(17, x=(5, 2))
        data = made("Gemm", "x", floats([[0, 1, 0], [0, 1, 0]]), floats([7, 0, -2]))
        matrix = floats([[1, 1, 1], [0, 1, 0], [3, 0, 0]])
        out = made("Gemm", data, matrix, floats([10, 20, 30]), alpha=0.5, beta=2.0)
        assert known(made, out) == [20.5, None, 63.5]

    @pytest.mark.parametrize(
        ("bias", "values"),
        [
            (4, [4, 4]),
            ([4], [4, 4]),
            ([[4], [4], [4]], [4, 4]),
            ([[4, 5]], [4, 5]),
            ([[4, 5], [4, 5], [4, 6]], [4, None]),
            ([[4], [4], [5]], [None, None]),
        ],
    )
    def test_a_bias_is_one_value_per_channel_or_not_known(self, bias: Any, values: Known) -> None:
        made = Net(17, x=(3, 2))
        out = made("Gemm", "x", floats([[0, 0], [0, 0]]), floats(bias))
        assert known(made, out) == values


class TestElements:
    @pytest.mark.parametrize(
        ("op", "attributes", "values"),
        [
            ("Relu", {}, [0, None, 3, 0]),
            ("Neg", {}, [0, None, -3, 2]),
            ("Sigmoid", {}, [0.5, None, 1 / (1 + math.exp(-3)), 1 / (1 + math.exp(2))]),
            ("Cos", {}, [1, None, math.cos(3), math.cos(2)]),
            ("Softplus", {}, [math.log(2), None, math.log1p(math.e**3), math.log1p(math.e**-2)]),
            ("HardSigmoid", {"alpha": 0.1, "beta": 0.4}, [0.4, None, 0.7, 0.2]),
        ],
    )
    def test_functions_are_run_on_each_value(
        self, op: str, attributes: dict[str, Any], values: Known
    ) -> None:
        made = net()
        out = made(op, writer(made, 0, None, 3, -2), **attributes)
        assert known(made, out) == values

    def test_what_is_not_finite_is_not_known(self) -> None:
        made = net()
        assert known(made, made("Log", writer(made, 1, 0, None))) == [0, None, None]

    def test_operands_keep_their_order(self) -> None:
        made = net()
        one, other = writer(made, 7, 7, None, None), writer(made, 3, None, 3, None)
        assert known(made, made("Sub", one, other)) == [4, None, None, None]
        assert known(made, made("Sub", other, one)) == [-4, None, None, None]

    def test_nothing_is_known_of_what_depends_on_the_input(self) -> None:
        """Though these would make a number of whatever stands for an unknown value."""
        made = net()
        one, other = writer(made, 0, None, 0, None), writer(made, 0, 0, None, None)
        assert known(made, made("Pow", one, other)) == [1, None, None, None]
        assert known(made, made("Pow", other, one)) == [1, None, None, None]
        equal = made("Cast", made("Equal", one, other), to=1)
        assert known(made, equal) == [1, None, None, None]
        assert known(made, made("Cast", made("IsNaN", one), to=1)) == [0, None, 0, None]

    def test_zero_times_anything_is_zero_and_zero_plus_anything_is_not(self) -> None:
        made = net()
        one, other = writer(made, 0, 0, 2, 2, None), writer(made, None, 5, 5, None, 0)
        assert known(made, made("Mul", one, other)) == [0, 0, 10, None, 0]
        assert known(made, made("Add", one, other)) == [None, 5, 7, None, None]
        assert known(made, made("Sub", one, other)) == [None, -5, -3, None, None]

    @pytest.mark.parametrize(
        ("shape", "values"),
        [
            ((), [11, None, 8]),
            ((1,), [11, None, 8]),
            ((1, 1, 1), [11, None, 8]),
        ],
    )
    def test_one_constant_for_all_channels(self, shape: tuple[int, ...], values: Known) -> None:
        made = net()
        assert known(
            made, made("Add", writer(made, 7, None, 4), np.full(shape, 4, np.float32))
        ) == (values)

    def test_a_constant_per_channel(self) -> None:
        made = net()
        constant = floats([1, 2, 3]).reshape(3, 1, 1)
        assert known(made, made("Add", writer(made, 7, None, 4), constant)) == [8, None, 7]
        assert known(made, made("Sub", constant, writer(made, 7, None, 4))) == [-6, None, -1]

    def test_a_constant_that_varies_within_a_channel(self) -> None:
        made = net()
        constant = floats(np.arange(16)).reshape(4, 4)
        assert known(made, made("Add", writer(made, 7, None), constant)) == [None, None]

    def test_batch_normalization_has_parameters_per_channel(self) -> None:
        made = net()
        scale, bias, mean, variance = map(floats, ([2, 1, 5], [1, 0, 4], [3, 0, 2], [4, 1, 9]))
        data = writer(made, 7, None, -1)
        out = made("BatchNormalization", data, scale, bias, mean, variance, epsilon=0.0)
        assert known(made, out) == [(7 - 3) / 2 * 2 + 1, None, (-1 - 2) / 3 * 5 + 4]


class TestMovement:
    def test_values_stay_with_their_channels(self) -> None:
        made = net()
        one, other = writer(made, 1, None), writer(made, None, 4, 5)
        whole = made("Concat", other, one, axis=1)
        assert known(made, whole) == [None, 4, 5, 1, None]
        turned = made("Transpose", whole, perm=[0, 2, 3, 1])
        assert known(made, turned, axis=3) == [None, 4, 5, 1, None]
        assert known(made, made("Gather", whole, made.ints(3, 2, 3), axis=1)) == [1, 5, 1]

    @pytest.mark.parametrize(
        ("op", "attributes", "passes"),
        [
            ("MaxPool", {"kernel_shape": [2, 2]}, True),
            ("MaxPool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, True),
            ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, True),
            (
                "AveragePool",
                {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
                False,
            ),
            ("AveragePool", {"kernel_shape": [3, 3], "count_include_pad": 1}, True),
            ("GlobalAveragePool", {}, True),
            ("ReduceMean", {"axes": [2, 3]}, True),
            ("ReduceMax", {"axes": [2, 3]}, True),
            ("ReduceL2", {"axes": [2, 3]}, False),
            ("ReduceProd", {"axes": [2, 3]}, None),
        ],
    )
    def test_pooling_passes_all_values_or_zeros_only(
        self, op: str, attributes: dict[str, Any], passes: bool | None
    ) -> None:
        made = net()
        values = known(made, made(op, writer(made, 0, None, 3), **attributes))
        assert values == [None if passes is None else 0, None, 3 if passes else None]

    def test_a_product_of_activations_passes_zeros_only(self) -> None:
        made = net()
        one = made("Reshape", writer(made, 0, None, 3), made.ints(1, 3, 16))
        out = made("MatMul", one, made("Reshape", "x", made.ints(1, 16, 2)))
        assert known(made, out) == [0, None, None]


def test_known_values_pass_through_a_chain_of_everything() -> None:
    """(sigmoid(0) x 2 + 4) - 5 = 0 leaves the last layer its bias."""
    made = net()
    first = made("Sigmoid", writer(made, 0, None))
    second = conv(made, first, [[2, 0], [0, 1]], [4, 0])
    shifted = made("Sub", second, floats([[[5]], [[0]]]))
    out = conv(made, shifted, [[3, 0], [3, 1]], [8, 9], kernel=3, pads=[1, 1, 1, 1])
    assert known(made, shifted) == [0, None]
    assert known(made, out) == [8, None]
