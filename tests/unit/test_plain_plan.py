"""Plans without wiring of their own: the same function, copies right before readers only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import run
from onnx_upscale.optimizer.apply import apply
from onnx_upscale.optimizer.plan import Plan, Select, Shift, check_plan
from onnx_upscale.optimizer.plan.plain import plain_plan

MODELS = Path(__file__).parents[2] / "models"
NOTHING = np.zeros(0, np.int64)


@pytest.fixture(scope="module", params=["auto", "upscale", "constrained"])
def planned(request: pytest.FixtureRequest) -> Plan:
    result = onnx_upscale.optimize(
        MODELS / "digits.onnx", MODELS / "digits.masks.json", strategy=request.param, verify=False
    )
    assert result.plan is not None
    return result.plan


def says(model: onnx.ModelProto) -> np.ndarray:
    image = np.random.default_rng(0).random((2, 1, 8, 8), np.float32)
    return np.asarray(run(model, {"image": image})[0])


def test_the_same_function(planned: Plan) -> None:
    wanted = says(apply(planned).model)
    everyone = set(planned.readers)
    for copying in (everyone, set()):
        plain = plain_plan(planned, NOTHING, copying)
        check_plan(plain)
        np.testing.assert_allclose(says(apply(plain).model), wanted, rtol=1e-4, atol=1e-5)


def test_copies_only_before_readers_that_can_take_one(planned: Plan) -> None:
    able = set(list(planned.readers)[::2])
    plain = plain_plan(planned, NOTHING, able)
    for index, edits in plain.edits.items():
        assert all(isinstance(edit, (Select, Shift)) for edit in edits)
        assert index in able or not any(isinstance(edit, Select) for edit in edits)


def test_the_order_of_the_model(planned: Plan) -> None:
    plain = plain_plan(planned, NOTHING, set(planned.readers))
    for writing in plain.writers.values():
        assert (np.diff(writing.positions) > 0).all()
    for facts in planned.analysis.structure.facts:
        if facts.concatenation is not None:
            order = facts.concatenation.order(plain.layout.positions)
            assert order == sorted(order or [])


def test_readers_read_what_they_read_before(planned: Plan) -> None:
    plain = plain_plan(planned, NOTHING, set(planned.readers))
    for index, reading in plain.readers.items():
        assert set(planned.readers[index].positions) == set(reading.positions)


def test_channels_that_have_to_stay(planned: Plan) -> None:
    segments = planned.analysis.structure.segments
    roots = next(each.roots for each in segments if not planned.kept.labels[each.roots].all())
    plain = plain_plan(planned, roots, set(planned.readers))
    assert plain.kept.labels[roots].all()
    wanted = says(apply(planned).model)
    np.testing.assert_allclose(says(apply(plain).model), wanted, rtol=1e-4, atol=1e-5)
