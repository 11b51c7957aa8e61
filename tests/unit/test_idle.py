"""Why nothing leaves a model."""

from __future__ import annotations

from typing import Any

import onnx
import pytest

import onnx_upscale
from build import Net
from pruning import square


def warnings(model: onnx.ModelProto, masks: dict[str, Any] | None) -> tuple[str, ...]:
    """What is said of the masks, whatever kind of CPU the tests run on."""
    document = None if masks is None else {"version": 1, "masks": masks}
    report = onnx_upscale.optimize(model, document, target="cpu-avx512").report
    return tuple(each for each in report.warnings if not each.startswith("planned for"))


def model(*, shown: bool = False, width: int = 16) -> onnx.ModelProto:
    """Two readers of one tensor, which may be an output itself."""
    net = Net(17, x=["batch", 3, 4, 4])
    hidden = net("Relu", square(net.random(width, 3), net, "x", "stem"))
    one = square(net.random(4, width), net, hidden, "one")
    two = square(net.random(4, width), net, hidden, "two")
    return net.model(*[hidden] * shown, one, two)


def test_masks_that_name_nothing() -> None:
    assert warnings(model(), {}) == ("the masks name no layer, so nothing is removed",)
    (warning,) = warnings(model(), {"one.weight": {"input": []}})
    assert warning == "the masks prune no channel of any layer they name, so nothing is removed"


@pytest.mark.parametrize(
    ("shown", "masks", "reason"),
    [
        (True, {"one.weight": {"input": [1]}}, "one (input): needed whole: graph output"),
        (True, {"stem.weight": {"input": [1]}}, "stem (input): it reads an input of the model, or"),
        (False, {"one.weight": {"input": [1]}}, "one (input): two reads these channels, and a cop"),
        (False, {"one.weight": {"output": [1]}}, "one (output): needed whole: graph output"),
        (
            False,
            {"one.weight": {"input": [1]}, "two.weight": {"input": [1]}},
            "one (input): they fill up a block of channels that the target computes as a whole; "
            "two (input): they fill up",
        ),
    ],
)
def test_each_layer_has_its_reason(shown: bool, masks: dict[str, Any], reason: str) -> None:
    (warning,) = warnings(model(shown=shown), masks)
    assert warning.startswith(f"nothing that is masked leaves the model: {reason}")


def test_many_layers_are_counted() -> None:
    net = Net(17, x=["batch", 3, 4, 4])
    outputs = [square(net.random(4, 3), net, "x", f"layer{number}") for number in range(5)]
    masks = {f"layer{number}.weight": {"input": [0]} for number in range(5)}
    (warning,) = warnings(net.model(*outputs), masks)
    assert warning.count("(input)") == 3
    assert warning.endswith("; and 2 more")


def test_grouped_layers_lose_whole_groups() -> None:
    net = Net(17, x=["batch", 3, 4, 4])
    hidden = square(net.random(4, 3), net, "x", "stem")
    grouped = net("Conv", hidden, net.constant(net.random(4, 2, 1, 1), "g"), name="g", group=2)
    last = square(net.random(2, 4), net, grouped, "last")
    (warning,) = warnings(net.model(last), {"g": {"input": [0]}})
    assert "g (input): only whole groups can leave, or" in warning


def test_nothing_is_said_where_something_leaves_or_nobody_gave_masks() -> None:
    half = {"input": list(range(32))}
    assert warnings(model(width=64), {"one.weight": half, "two.weight": half}) == ()
    assert warnings(model(), None) == ()
