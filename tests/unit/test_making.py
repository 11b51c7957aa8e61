"""Masks for a budget, by what is lost after repair, and what is said of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Array, Net
from onnx_upscale import DataError, UsageError
from onnx_upscale.making.predict import Prediction
from onnx_upscale.optimizer.analyze import find_structure
from onnx_upscale.optimizer.load import load
from onnx_upscale.prices import load_prices
from pruning import pruned, square

CPU: dict[str, Any] = {"target": "cpu-avx512"}


def residual(width: int = 64) -> onnx.ModelProto:
    """Two blocks on one stream: readers of it can agree or not."""
    net = Net(17, x=["batch", 3, 14, 14])
    stream = net("Relu", square(net.random(width, 3), net, "x", "stem"))
    for block in ("one", "two"):
        inner = net("Relu", square(net.random(width, width), net, stream, f"{block}.a"))
        stream = net("Add", stream, square(net.random(width, width), net, inner, f"{block}.b"))
    square(net.random(4, width), net, net("Relu", stream), "head")
    return net.model("head.0")


def inputs(count: int = 24) -> Array:
    return np.random.default_rng(0).standard_normal((count, 3, 14, 14)).astype(np.float32)


def share(model: onnx.ModelProto, masks: onnx_upscale.Masks) -> float:
    loaded = load(model, dict(masks))
    prediction = Prediction(find_structure(loaded.graph), load_prices("cpu-avx512"))
    return prediction.share(loaded.masks)


@pytest.mark.parametrize("constrained", [False, True])
def test_a_budget_is_met_by_the_smallest_amount(constrained: bool) -> None:
    model = residual()
    options: dict[str, Any] = {**CPU, "constrained": constrained, "layers": ["*"]}
    made = onnx_upscale.mask(model, "l1", budget=0.7, **options)
    assert made.share == pytest.approx(share(model, made))
    assert made.share <= 0.7
    every = {
        step: onnx_upscale.mask(model, "l1", step / 100, **options) for step in range(0, 100, 1)
    }
    met = [step for step, masks in every.items() if masks == made]
    assert met
    assert every[met[0] - 1].share > 0.7
    assert made == onnx_upscale.mask(model, "l1", budget=0.7, **options)


@pytest.mark.parametrize("criterion", ["l1", "reconstruction"])
@pytest.mark.parametrize("goal", ["amount", "budget"])
def test_progress_goes_from_start_to_end(criterion: str, goal: str) -> None:
    told: list[tuple[int, int]] = []
    onnx_upscale.mask(
        residual(),
        criterion,
        data=inputs(),
        progress=lambda done, of: told.append((done, of)),
        **{goal: 0.6, **CPU},
    )
    assert len({of for _, of in told}) == 1
    assert sorted(told) == told
    assert told[-1][0] == told[-1][1]


def test_a_budget_out_of_reach_says_what_can_be_met() -> None:
    for criterion in ("l1", "reconstruction"):
        with pytest.raises(UsageError, match=r"`budget` 0\.01: cannot be .*0\.\d+ of the"):
            onnx_upscale.mask(residual(), criterion, budget=0.01, data=inputs(), **CPU)


@pytest.mark.parametrize(
    ("options", "saying"),
    [
        ({}, "either `amount`, .* or `budget`"),
        ({"amount": 0.5, "budget": 0.5}, "either `amount`, .* or `budget`"),
        ({"budget": 0.0}, r"`budget` 0\.0: must be a share between 0 and 1"),
        ({"budget": 1.0}, r"`budget` 1\.0: must be a share between 0 and 1"),
        ({"budget": float("nan")}, "`budget` nan: must be a share between 0 and 1"),
        ({"amount": 0.5, "target": "abacus"}, "abacus"),
        ({"amount": 0.5, "criterion": "reconstruction"}, "give some with `data`"),
        ({"amount": 0.5, "criterion": "reconstruction", "side": "output"}, "`side` output"),
        ({"amount": 0.5, "criterion": "reconstruction", "scope": "global"}, "`scope` global"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], saying: str) -> None:
    criterion = options.pop("criterion", "l1")
    with pytest.raises(UsageError, match=saying):
        onnx_upscale.mask(residual(8), criterion, **options)


def test_data_must_fit_and_suffice() -> None:
    with pytest.raises(DataError, match="one sample is not enough"):
        onnx_upscale.mask(residual(8), "reconstruction", 0.5, data=inputs(1))
    with pytest.raises(DataError, match="expected shape"):
        onnx_upscale.mask(residual(8), "l1", 0.5, data=inputs()[:, :2])
    bad = inputs()
    bad[3] = np.nan
    for criterion in ("l1", "reconstruction"):
        with pytest.raises(DataError, match=r"sample 3: .*NaN"):
            onnx_upscale.mask(residual(8), criterion, 0.5, data=bad)


def doubled() -> onnx.ModelProto:
    """A reader of six channels, of which 1 is twice 0, and 2 never changes."""
    net = Net(17, x=["batch", 5, 4, 4])
    rows = np.zeros((6, 5))
    rows[[0, 1, 3, 4, 5], [0, 0, 1, 2, 3]] = [1, 2, 1, 1, 1]
    hidden = net("Add", square(rows, net, "x", "stem"), net.constant(np.float32(3.0)))
    weight = np.array([[5, 9, 3, 3, 1.5, 4], [5, 9, 3, 2, 1.5, 4]])
    return net.model(square(weight, net, hidden, "reader"))


def test_reconstruction_takes_what_others_replace_first() -> None:
    data = np.random.default_rng(0).standard_normal((64, 5, 4, 4)).astype(np.float32)
    model = doubled()
    for amount, gone in ((0.2, [2]), (0.34, [0, 2]), (0.5, [0, 2, 4])):
        made = onnx_upscale.mask(model, "reconstruction", amount, data=data)
        assert pruned(made) == {"reader.weight": gone}
    # By their weights others go first.
    assert pruned(onnx_upscale.mask(model, "l1", 0.34, layers=["*"])) == {"reader.weight": [3, 4]}


def test_reconstruction_takes_that_share_of_every_layer() -> None:
    model, width = residual(16), 16
    free = pruned(onnx_upscale.mask(model, "reconstruction", 0.4, data=inputs()))
    assert {key: len(gone) for key, gone in free.items()} == {
        key: int(0.4 * width)
        for key in ("one.a.weight", "one.b.weight", "two.a.weight", "two.b.weight", "head.weight")
    }
    assert free["one.a.weight"] != free["two.a.weight"]
    agreed = pruned(
        onnx_upscale.mask(model, "reconstruction", 0.4, data=inputs(), constrained=True)
    )
    assert agreed["one.a.weight"] == agreed["two.a.weight"] == agreed["head.weight"]
    assert len(agreed["head.weight"]) == len(agreed["one.b.weight"]) == int(0.4 * width)
    fewer: dict[str, Any] = {**CPU, "data": inputs(), "skip": ["two.a", "head"]}
    some = pruned(onnx_upscale.mask(model, "reconstruction", 0.4, **fewer))
    assert some == {key: free[key] for key in ("one.a.weight", "one.b.weight", "two.b.weight")}
    # What must be given up together, those that are left alone keep.
    kept = pruned(onnx_upscale.mask(model, "reconstruction", 0.4, constrained=True, **fewer))
    assert kept["one.a.weight"] == [] != kept["one.b.weight"]


def torn() -> onnx.ModelProto:
    """Of two readers one hardly needs half of the channels, and has most of the work."""
    net = Net(17, x=["batch", 3, 14, 14])
    hidden = net("Relu", square(net.random(64, 3), net, "x", "stem"))
    weight = net.random(512, 64)
    weight[:, ::2] *= 1e-3
    wide = net("Relu", square(weight, net, hidden, "wide"))
    return net.model(
        square(net.random(4, 512), net, wide, "head"),
        square(net.random(32, 64), net, hidden, "other"),
    )


def test_reconstruction_meets_a_budget() -> None:
    agreeing = []
    for constrained in (False, True):
        options: dict[str, Any] = {**CPU, "data": inputs(), "constrained": constrained}
        made = onnx_upscale.mask(torn(), "reconstruction", budget=0.8, **options)
        assert made.share == pytest.approx(share(torn(), made))
        assert 0.6 < made.share <= 0.8
        assert made == onnx_upscale.mask(torn(), "reconstruction", budget=0.8, **options)
        chosen = pruned(made)
        agreeing.append(chosen["wide.weight"] == chosen["other.weight"])
    assert agreeing == [False, True]
    spared = onnx_upscale.mask(torn(), "reconstruction", budget=0.8, skip=["other"], **options)
    assert pruned(spared).keys() == {"head.weight"}


def test_masks_that_are_slower_than_agreeing_say_so() -> None:
    made = onnx_upscale.mask(residual(), "random", 0.5, layers=["*"], **CPU)
    agreed = onnx_upscale.mask(residual(), "random", 0.5, layers=["*"], constrained=True, **CPU)
    assert agreed.share < made.share
    (warning,) = made.warnings
    assert f"is {made.share:.2f} of" in warning
    assert f"with `constrained` it would be {agreed.share:.2f}" in warning
    assert agreed.warnings == ()
    # Nobody shares a channel: nothing to gain.
    alone = onnx_upscale.mask(residual(), "l1", 0.5, layers=["*.b"], **CPU)
    assert alone.warnings == ()


def test_masks_of_nothing_say_so() -> None:
    made = onnx_upscale.mask(residual(8), "l1", 0.1, **CPU)
    (warning,) = made.warnings
    assert "no channel is pruned" in warning
    assert "(the widest of 4 has 8)" in warning
    assert made.share == 1.0


def test_a_masked_model_that_is_far_off_says_so() -> None:
    made = onnx_upscale.mask(residual(8), "l1", 0.5, layers=["*.b"], data=inputs(), **CPU)
    assert made.compared == 24
    assert made.fidelity["head.0"].agreement is None
    assert made.fidelity["head.0"].error > 0.1
    (warning,) = made.warnings
    assert f"on 24 samples outputs are off by {made.fidelity['head.0'].error:.0%}" in warning
    many = onnx_upscale.mask(residual(8), "l1", 0.5, layers=["*.b"], data=inputs(200), **CPU)
    assert many.compared == 64


def test_a_masked_model_that_is_near_is_not_warned_of() -> None:
    net = Net(17, x=["batch", 4])
    hidden = net("MatMul", "x", net.constant(net.random(4, 6), "up"), name="up.node")
    weight = net.random(6, 3) * np.array([[1], [1], [1], [1], [1e-4], [1e-4]], np.float32)
    down = net("MatMul", hidden, net.constant(weight, "down"), name="down.node")
    data = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    model = net.model(down)
    made = onnx_upscale.mask(model, "l1", 0.34, layers=["*"], data=data)
    assert pruned(made) == {"down": [4, 5]}
    assert made.warnings == ()
    assert made.fidelity[down].agreement == 1.0
    worse = onnx_upscale.mask(model, "l1", 0.9, layers=["*"], data=data)
    (warning,) = worse.warnings
    agreement = worse.fidelity[down].agreement
    assert agreement is not None
    assert agreement < 0.95
    assert f"only {agreement:.1%} of the answers stay the same" in warning
