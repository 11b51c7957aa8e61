"""From a model and a few samples to a smaller model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

import onnx_upscale
from build import Net, assert_close, run
from onnx_upscale import DataError, Pruned, Sweep, UsageError
from onnx_upscale.pruning.goals import Goal
from onnx_upscale.pruning.prune import prune_all

MODELS = Path(__file__).parents[2] / "models"
MODEL = MODELS / "digits.onnx"


@pytest.fixture(scope="module")
def samples() -> npt.NDArray[np.float32]:
    with np.load(MODELS / "digits.npz") as arrays:
        images: npt.NDArray[np.float32] = (arrays["images"][:120] / 16).astype(np.float32)
    return images


@pytest.fixture(scope="module")
def swept(samples: npt.NDArray[np.float32]) -> Sweep:
    goals = [Goal("macs", 0.5), Goal("params", 0.7), Goal("agreement", 0.9)]
    return prune_all(MODEL, samples, goals, target="cpu-avx512", runs=2)


@pytest.fixture(scope="module")
def half(swept: Sweep) -> Pruned:
    return swept[0]


@pytest.mark.slow
def test_half_the_work_and_the_same_answers(half: Pruned, samples: npt.NDArray[np.float32]) -> None:
    macs = half.report["macs"]
    assert 0.4 * macs["before"] < macs["after"] <= 0.52 * macs["before"]
    (fidelity,) = half.report["recovered"]["outputs"]
    assert fidelity["agreement_after"] >= 0.9
    assert fidelity["error_after"] < 0.1
    assert fidelity["error_after"] <= fidelity["error_before"]
    assert half.report["verify"]["ok"]


@pytest.mark.slow
def test_what_is_emitted_is_the_recovered_model(
    half: Pruned, samples: npt.NDArray[np.float32]
) -> None:
    inputs = {"image": samples[:3]}
    assert_close(run(half.recovered.model, inputs), run(half.model, inputs))
    shapes = [
        {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        for model in (onnx.load(MODEL), half.recovered.model)
    ]
    assert all(shapes[1][name] == shape for name, shape in shapes[0].items() if name in shapes[1])
    masked = onnx_upscale.optimize(MODEL, half.masks, target="cpu-avx512", verify=False)
    assert masked.report.output.params >= half.result.report.output.params * 0.98


@pytest.mark.slow
def test_several_goals_and_the_nearest_model(swept: Sweep) -> None:
    _, first, second = swept
    params = first.report["params"]
    assert params["after"] <= 0.72 * params["before"]
    assert second.report["recovered"]["outputs"][0]["agreement_after"] >= 0.9
    assert second.report["predicted"]["share"] < 0.6


@pytest.mark.slow
def test_what_loaders_read_beside_the_network_stays() -> None:
    net = Net(17, x=["batch", 3, 6, 6])
    made = net("Relu", net("Conv", "x", net.random(8, 3, 1, 1), name="stem"))
    made = net("Relu", net("Conv", made, net.random(8, 8, 1, 1), name="inner"))
    model = net.model(net("Conv", made, net.random(4, 8, 1, 1), name="head"))
    # As ultralytics says what its own loader needs.
    for key, value in {"names": "{0: 'person'}", "stride": "32", "imgsz": "[6, 6]"}.items():
        model.metadata_props.add(key=key, value=value)
    model.producer_name, model.graph.doc_string = "pytorch", "what it is for"
    samples = np.random.default_rng(0).standard_normal((40, 3, 6, 6)).astype(np.float32)
    pruned = onnx_upscale.prune(model, samples, macs=0.8, target="cpu-avx512", runs=2)
    for made_of in (pruned.model, pruned.recovered.model):
        assert made_of.metadata_props == model.metadata_props
        assert made_of.producer_name == model.producer_name
        assert made_of.graph.doc_string == model.graph.doc_string
        for side in ("input", "output"):
            assert getattr(made_of.graph, side) == getattr(model.graph, side)


@pytest.mark.slow
def test_what_was_not_learned_is_left_alone_and_named() -> None:
    net = Net(17, x=["batch", 3, 6, 6])
    made = net("Relu", net("Conv", "x", net.random(8, 3, 1, 1), name="stem"))
    bins = net("Softmax", net("Conv", made, net.random(8, 8, 1, 1), name="bins"), axis=1)
    steps = np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1)
    model = net.model(net("Conv", bins, net.constant(steps), name="decode"))
    samples = np.random.default_rng(0).standard_normal((40, 3, 6, 6)).astype(np.float32)
    pruned = onnx_upscale.prune(model, samples, macs=0.8, target="cpu-avx512", runs=2)
    (said,) = [each for each in pruned.warnings if each.startswith("left alone")]
    assert said.endswith(": decode")


@pytest.mark.parametrize(
    ("options", "saying"),
    [
        ({}, "exactly one goal"),
        ({"macs": 0.5, "latency": 0.5}, "exactly one goal"),
        ({"latency": "0.5,0.7"}, "several values"),
        ({"macs": 0.5, "count": 1}, "`count` 1: must be at least 2"),
        ({"macs": 0.5, "seed": -1}, "`seed` -1: must be at least 0"),
        ({"macs": 0.5, "runs": 0}, "`runs` 0: must be at least 1"),
    ],
)
def test_goals_that_cannot_be_meant(options: dict[str, Any], saying: str) -> None:
    with pytest.raises(UsageError, match=saying):
        onnx_upscale.prune(MODEL, np.zeros((4, 1, 8, 8), np.float32), **options)


def test_bad_samples(samples: npt.NDArray[np.float32]) -> None:
    for wrong, saying in (
        (samples[:1], "one sample is not enough"),
        (samples[:0], "no"),
        (samples[:4, :, :4], "expected shape"),
        (np.full((4, 1, 8, 8), np.nan, np.float32), "NaN"),
    ):
        with pytest.raises(DataError, match=saying):
            onnx_upscale.prune(MODEL, wrong, macs=0.5)


def test_a_model_without_channels_that_can_leave() -> None:
    net = Net(17, x=(1, 4))
    model = net.model(net("MatMul", "x", net.random(4, 3)))
    with pytest.raises(UsageError, match="no layer whose channels can leave"):
        onnx_upscale.prune(model, np.ones((4, 4), np.float32), macs=0.5)
