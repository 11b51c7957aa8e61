"""Grouped convolutions: whole groups leave, and as many channels of every group, each its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Net, assert_close, input_values, run, weight_shape
from targets import TARGETS

GROUPS, READ, MADE, SIZE = 4, 6, 3, 5
INPUTS, OUTPUTS = GROUPS * READ, GROUPS * MADE
LAYERS = {"a": (INPUTS, 3), "b": (OUTPUTS, INPUTS), "c": (5, OUTPUTS)}
AROUND = ("nothing", "norms", "squeezed", "residual", "depthwise")
TRAPS = ("concat", "shuffle", "flat", "output", "split", "twice", "finer", "own-sizes", "ranked")
Masks = Mapping[str, Sequence[int]]


def build(around: str, masks: Masks) -> onnx.ModelProto:
    """Conv a, grouped Conv b, Conv c, and something that touches what b reads or makes."""
    net = Net(17, x=(2, 3, SIZE, SIZE))

    def gone(key: str) -> list[int]:
        return list(masks.get(key, ()))

    def conv(tensor: str, name: str, groups: int = 1) -> str:
        outputs, inputs = LAYERS[name]
        weight, bias = net.random(groups, outputs // groups, inputs // groups, 3, 3), None
        for channel in gone(f"{name}.input"):
            weight[channel // (inputs // groups), :, channel % (inputs // groups)] = 0
        weight, bias = weight.reshape(outputs, -1, 3, 3), net.random(outputs)
        weight[gone(f"{name}.output")] = 0
        bias[gone(f"{name}.output")] = 0
        return net("Conv", tensor, weight, bias, name=name, group=groups, pads=[1, 1, 1, 1])

    extra: list[str] = []
    tensor = net("Relu", conv("x", "a"))
    if around == "norms":
        parameters = (net.random(INPUTS) for _ in range(3))
        tensor = net("BatchNormalization", tensor, *parameters, np.abs(net.random(INPUTS)))
        tensor = net("Relu", net("Add", tensor, net.random(INPUTS, 1, 1)))
    elif around == "residual":
        tensor = net("Add", tensor, net("Conv", "x", net.random(INPUTS, 3, 1, 1)))
    elif around == "finer":
        tensor = net("Conv", tensor, net.random(INPUTS, 3, 1, 1), group=GROUPS * 2)
    elif around == "split":
        first, second = net.nodes_of("Split", tensor, net.ints(8, 16), outputs=2, axis=1)
        tensor = net("Concat", net("Relu", first), net("Sigmoid", second), axis=1)
    elif around == "ranked":
        tensor = net("Add", tensor, net("Cast", net("ArgMax", tensor, axis=1), to=1))
    tensor = net("Sigmoid", conv(tensor, "b", GROUPS))
    if around == "squeezed":
        mean = net("GlobalAveragePool", tensor)
        less = net("Relu", net("Conv", mean, net.random(4, OUTPUTS, 1, 1)))
        tensor = net("Mul", tensor, net("Sigmoid", net("Conv", less, net.random(OUTPUTS, 4, 1, 1))))
    elif around == "depthwise":
        tensor = net("Conv", tensor, net.random(OUTPUTS, 1, 3, 3), group=OUTPUTS, pads=[1] * 4)
        tensor = net("MaxPool", tensor, kernel_shape=[3, 3], pads=[1] * 4)
    elif around == "concat":
        both = net("Concat", tensor, net("Conv", "x", net.random(4, 3, 1, 1)), axis=1)
        extra.append(net("Conv", both, net.random(2, OUTPUTS + 4, 1, 1)))
    elif around == "shuffle":
        parts = net("Reshape", tensor, net.ints(2, GROUPS, MADE, SIZE, SIZE))
        turned = net("Transpose", parts, perm=[0, 2, 1, 3, 4])
        tensor = net("Reshape", turned, net.ints(2, OUTPUTS, SIZE, SIZE))
    elif around == "flat":
        extra.append(net("MatMul", net("Flatten", tensor), net.random(OUTPUTS * SIZE**2, 3)))
    elif around == "output":
        extra.append(tensor)
    elif around == "twice":
        extra.append(net("Conv", tensor, net.random(8, MADE, 1, 1), group=GROUPS))
    elif around == "own-sizes":
        count = net("Gather", net("Shape", tensor), net.ints(1))
        extra.append(net("Mul", tensor, net("Cast", count, to=1)))
    return net.model(conv(tensor, "c"), *extra)


def of_each(size: int, *places: Sequence[int]) -> list[int]:
    """Channels of one group after the other."""
    return [size * group + place for group, own in enumerate(places) for place in own]


def check(around: str, masks: Masks, strategy: str = "gather", target: str = "cpu") -> list[int]:
    """How many channels a, b and c make and read in the end."""
    sides: dict[str, dict[str, list[int]]] = {}
    for key, pruned in masks.items():
        name, side = key.split(".")
        sides.setdefault(name, {})[side] = list(pruned)
    model, document = build(around, {}), {"version": 1, "masks": sides}
    emitted = onnx_upscale.optimize(
        model, document, strategy=strategy, target=target, verify=False
    ).model
    onnx.checker.check_model(emitted, full_check=True)
    inputs = input_values(model)
    assert_close(run(build(around, masks), inputs), run(emitted, inputs), f"{masks}")
    shapes = [weight_shape(emitted, name) for name in "abc"]
    if around not in ("split", "finer"):  # There more stands between a and b.
        assert shapes[0][0] == 0 or shapes[0][0] % max(shapes[1][1], 1) == 0
    return [shapes[0][0], shapes[1][1], shapes[1][0], shapes[2][1]]


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("strategy", ["auto", "upscale", "gather"])
def test_each_group_loses_channels_of_its_own(around: str, strategy: str) -> None:
    read = of_each(READ, [0, 1], [4, 5], [0, 5], [2, 3])
    made = of_each(MADE, [2], [0], [1], [0])
    masks = {"b.input": read, "c.input": made}
    found = check(around, masks, strategy, TARGETS["blocks of 1"])
    if around == "squeezed":  # The squeezed branch reads all of them.
        assert found[:3] == [GROUPS * 4, 4, OUTPUTS]
    else:
        assert found == [GROUPS * 4, 4, GROUPS * 2, GROUPS * 2]


@pytest.mark.parametrize("around", ["nothing", "norms", "residual", "depthwise"])
def test_groups_of_different_counts_go_down_to_the_largest(around: str) -> None:
    read = of_each(READ, [0, 1, 2], [4, 5], [0, 5, 1, 2], [2, 3])
    made = of_each(MADE, [2, 1], [0], [1], [0, 2])
    found = check(around, {"b.input": read, "c.input": made})
    assert found == [GROUPS * 4, 4, GROUPS * 2, GROUPS * 2 - 2]


@pytest.mark.parametrize("around", ["nothing", "norms", "residual", "depthwise"])
def test_whole_groups_leave_with_channels_of_others(around: str) -> None:
    made = of_each(MADE, [2], [0, 1, 2], [1], [0])
    read = of_each(READ, [1], [], [2], [3])
    found = check(around, {"c.input": made, "b.input": read})
    assert found == [3 * 5, 5, 3 * 2, 3 * 2]


def test_what_the_layer_before_does_not_make_leaves() -> None:
    masks = {"a.output": of_each(READ, [0, 1], [4, 5], [0, 5], [2, 3])}
    assert check("nothing", masks) == [GROUPS * 4, 4, OUTPUTS, OUTPUTS]


def random_masks(
    seed: int, layers: Mapping[str, tuple[int, int]] = LAYERS, groups: int = GROUPS
) -> Masks:
    rng = np.random.default_rng(seed)
    masks: dict[str, list[int]] = {}
    for name, (outputs, inputs) in layers.items():
        for side, size in (("input", inputs), ("output", outputs)):
            gone = rng.random(size) < rng.choice([0, 0.3, 0.7])
            if size % groups == 0 and rng.random() < 0.5:
                gone |= (rng.random(groups) < 0.3).repeat(size // groups)
            masks[f"{name}.{side}"] = np.flatnonzero(gone)[: size - 1].tolist()
    return masks


@pytest.mark.parametrize("around", AROUND + TRAPS)
@pytest.mark.parametrize("strategy", ["auto", "upscale", "gather"])
def test_random_masks(around: str, strategy: str) -> None:
    for seed in range(6):
        check(around, random_masks(seed), strategy)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("around", ["norms", "squeezed", "split"])
def test_random_masks_at_any_price(around: str, target: str) -> None:
    for seed in range(3):
        check(around, random_masks(10 + seed), "auto", TARGETS[target])


@pytest.mark.parametrize("around", ["split", "finer"])
def test_groups_leave_whole_where_others_want_their_order(around: str) -> None:
    read = of_each(READ, [0, 1], [4, 5], [0, 5], [2, 3])
    assert check(around, {"b.input": read})[1] == READ


@pytest.mark.parametrize("around", ["shuffle", "twice", "concat"])
def test_what_others_want_of_the_results_does_not_matter_to_what_is_read(around: str) -> None:
    read = of_each(READ, [0, 1], [4, 5], [0, 5], [2, 3])
    made = of_each(MADE, [2], [0], [1], [0])
    found = check(around, {"b.input": read, "b.output": made})
    assert found[:3] == [GROUPS * 4, 4, OUTPUTS]


def test_groups_of_blocks_stay_whole_blocks() -> None:
    net = Net(17, x=(1, 3, SIZE, SIZE))
    made = net("Conv", "x", net.random(64, 3, 1, 1), name="a")
    made = net("Conv", net("Relu", made), net.random(64, 32, 3, 3), name="b", group=2)
    model = net.model(net("Conv", net("Relu", made), net.random(5, 64, 1, 1), name="c"))
    masks = {
        "b": {"input": [*range(10), *range(40, 50)]},
        "c": {"input": [*range(20), *range(40, 60)]},
    }
    result = onnx_upscale.optimize(
        model, {"version": 1, "masks": masks}, target=TARGETS["blocks of 8"]
    )
    assert result.report["verify"]["ok"]
    assert weight_shape(result.model, "b")[:2] == (32, 24)
