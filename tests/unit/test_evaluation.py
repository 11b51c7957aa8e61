"""The user's own measure: what it is given, and what it must return."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Net
from onnx_upscale.errors import UsageError
from onnx_upscale.pruning.evaluation import Evaluation


def sample() -> onnx.ModelProto:
    """Two layers with channels between them that can leave."""
    net = Net(17, x=["n", 64])
    hidden = net("Relu", net("MatMul", "x", net.random(64, 512)))
    return net.model(net("MatMul", hidden, net.random(512, 64)))


def weights(path: str) -> float:
    return float(sum(np.prod(tensor.dims) for tensor in onnx.load(path).graph.initializer))


def fails(path: str) -> float:
    raise ValueError("no\nlabels")


def leaves(path: str) -> float:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("function", "saying"),
    [
        (fails, "`evaluate` on it: failed: ValueError: no labels"),
        (leaves, "failed: SystemExit: 3"),
        (lambda path: None, "expected a finite number, found something of type NoneType"),
        (lambda path: "0.5", "something of type str"),
        (lambda path: float("nan"), "found nan"),
        (lambda path: np.float64("inf"), "found inf"),
        (lambda path: np.zeros(3), "something of type ndarray"),
        (lambda: 1.0, "failed: TypeError"),
    ],
)
def test_what_it_must_not_do(function: Callable[..., Any], saying: str) -> None:
    with pytest.raises(UsageError, match=saying) as raised:
        Evaluation.of(function).score(sample(), "it")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("given", [1, 0.5, np.float32(0.5), np.array(0.25), True, -3])
def test_what_it_may_return(given: Any) -> None:
    assert Evaluation.of(lambda path: given).score(sample(), "it") == float(given)


def test_it_reads_the_model(tmp_path: Path) -> None:
    onnx.save(sample(), tmp_path / "it.onnx")
    (tmp_path / "beside.py").write_text("SIGN = 1.0\n")
    (tmp_path / "mine.py").write_text(
        "import onnx\ndef nodes(path):\n    import beside\n"
        "    return beside.SIGN * len(onnx.load(path).graph.node)\n"
    )
    named = Evaluation.of(f"{tmp_path / 'mine.py'}:nodes")
    assert named.score(tmp_path / "it.onnx", "it") == named.score(sample(), "it") == 3.0


@pytest.mark.parametrize(
    ("evaluate", "saying"),
    [
        (3, "expected a function, found int"),
        ("mine", "is not of the form MODULE:FUNCTION"),
        (":f", "is not of the form MODULE:FUNCTION"),
        ("math:tau", "is no function, but of type float"),
        ("math:sine", "module 'math' has no 'sine'; closest: sin"),
        ("nowhere.py:f", "nowhere.py: no such file"),
    ],
)
def test_what_is_no_measure(evaluate: Any, saying: str) -> None:
    with pytest.raises(UsageError, match=saying):
        Evaluation.of(evaluate)


SAMPLES = np.random.default_rng(0).standard_normal((40, 64)).astype(np.float32)


def test_scores_are_in_the_report() -> None:
    made = onnx_upscale.prune_all(
        sample(), SAMPLES, [onnx_upscale.pruning.goals.Goal("macs", 0.6)], evaluate=weights, runs=2
    )
    assert made[0].report["score"]["before"] == 2 * 64 * 512
    assert made.table[0]["score"] == made[0].report["score"]["after"] <= 40000
    assert made.report["table"] == made.table


def test_a_score_as_the_goal() -> None:
    made = onnx_upscale.prune(sample(), SAMPLES, score=30000, evaluate=weights, runs=2)
    assert 30000 <= made.report["score"]["after"] <= 36000
    assert made.report["goal"]["name"] == "score"


@pytest.mark.parametrize(
    ("options", "saying"),
    [
        ({"score": 1.0}, "`score` 1: needs `evaluate`"),
        (
            {"score": 65537.0, "evaluate": weights},
            "`score` 65537: cannot be reached: the original has 65536; give that or less",
        ),
        (
            {"score": 65536.0, "evaluate": weights},
            r"`score` 65536: cannot be reached: the nearest model that was tried has .* at 0.\d+",
        ),
        (
            {"agreement": 0.5, "score": 1.0, "evaluate": weights},
            "exactly one goal of .*; found `agreement`, `score`",
        ),
        ({"macs": 0.5, "evaluate": fails}, "`evaluate` on the original: failed"),
    ],
)
def test_what_cannot_be_reached(options: dict[str, Any], saying: str) -> None:
    with pytest.raises(UsageError, match=saying):
        onnx_upscale.prune(sample(), SAMPLES, runs=2, **options)
