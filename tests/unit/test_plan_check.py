"""A plan that contradicts itself is refused before anything is applied."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onnx_upscale
from build import Net
from onnx_upscale.optimizer.plan import Plan, PlanError, Select, Shift, Widen, check_plan
from targets import TARGETS


@pytest.fixture(scope="module")
def plan() -> Plan:
    """A plan with a Gather, and a product that absorbs constants and is padded."""
    net: Any = Net(17, x=(1, 6, 16))
    names = {name: net.constant(net.random(16, 16), name) for name in "ABCDE"}
    few = net("MatMul", net("Sigmoid", net("MatMul", "x", names["A"])), names["B"])
    total = net("Relu", net("Add", few, net("MatMul", "x", names["C"])))
    model = net.model(net("MatMul", total, names["D"]), net("MatMul", total, names["E"]))
    masks = {
        "A": {"output": list(range(0, 16, 2))},
        "B": {"output": list(range(5, 16))},
        "D": {"input": [1, 2, 7]},
    }
    analyzed = onnx_upscale.analyze(model, {"version": 1, "masks": masks})
    planned = analyzed.plan("auto", TARGETS["copies free, blocks of 1"])
    kinds = {type(edit) for edits in planned.edits.values() for edit in edits}
    assert kinds == {Select, Shift, Widen}
    return planned


def changed(plan: Plan, kind: type, change: Callable[[Any], Any]) -> Plan:
    edits = {
        index: tuple(change(each) if isinstance(each, kind) else each for each in own)
        for index, own in plan.edits.items()
    }
    return dataclasses.replace(plan, edits=edits)


def test_a_plan_as_it_is_made_is_consistent(plan: Plan) -> None:
    check_plan(plan)


@pytest.mark.parametrize(
    ("kind", "change", "saying"),
    [
        (Select, {"chosen": lambda c: c[::-1]}, "gets other channels than its weight"),
        (Select, {"chosen": lambda c: c + 1}, "gets other channels|does not have"),
        (Select, {"chosen": lambda c: c[1:]}, "gets other channels"),
        (Shift, {"positions": lambda p: p[::-1]}, "is shifted where it has other channels"),
        (Shift, {"positions": lambda p: p[1:]}, "is shifted where it has other channels"),
        (Widen, {"before": lambda b: b + 1}, "does not fill its layout"),
        (Widen, {"after": lambda a: a - 1}, "does not fill its layout"),
    ],
)
def test_edges_that_do_not_fit(
    plan: Plan, kind: type, change: dict[str, Callable[[Any], Any]], saying: str
) -> None:
    def apply(edit: Any) -> Any:
        new = {name: how(getattr(edit, name)) for name, how in change.items()}
        return dataclasses.replace(edit, **new)

    with pytest.raises(PlanError, match=saying):
        check_plan(changed(plan, kind, apply))


@pytest.mark.parametrize(
    ("change", "saying"),
    [
        ({"chosen": lambda c: c[::-1]}, "gets other channels than it makes"),
        ({"chosen": lambda c: c[1:]}, "gets other channels than it makes"),
        ({"chosen": lambda c: c + 5}, "does not have"),
        ({"slot": lambda _: 9}, "gets other channels than it makes"),
    ],
)
def test_a_moved_copy_that_does_not_fit_what_stands_behind_it(
    change: dict[str, Callable[[Any], Any]], saying: str
) -> None:
    net: Any = Net(17, x=(1, 3, 4, 4))
    made = net("MaxPool", net("Conv", "x", net.random(8, 3, 1, 1)), kernel_shape=[1, 1])
    names = {name: net.constant(net.random(4, 8, 1, 1), name) for name in "ab"}
    alone = net("Conv", net("Exp", made), names["a"])
    model = net.model(alone, net("Conv", made, names["b"]))
    masks = {"version": 1, "masks": {"a": {"input": [0, 3, 5]}}}
    target = TARGETS["multiply-adds dear, blocks of 1"]
    planned = onnx_upscale.analyze(model, masks).plan("auto", target)
    assert "moved" in {reading.name for reading in planned.readers.values()}
    check_plan(planned)

    def apply(edit: Any) -> Any:
        new = {name: how(getattr(edit, name)) for name, how in change.items()}
        return dataclasses.replace(edit, **new)

    with pytest.raises(PlanError, match=saying):
        check_plan(changed(planned, Select, apply))


def test_zeros_before_what_is_absorbed(plan: Plan) -> None:
    """The Add of a product without bias has the width of what is computed, not of the Pad."""
    turned = {index: edits[::-1] for index, edits in plan.edits.items()}
    with pytest.raises(PlanError, match="is shifted where it has other channels"):
        check_plan(dataclasses.replace(plan, edits=turned))


def test_a_reader_that_lacks_what_it_needs(plan: Plan) -> None:
    index = next(i for i, own in plan.edits.items() if isinstance(own[0], Select))
    (select,), reading = plan.edits[index], plan.readers[index]
    assert isinstance(select, Select)
    short = dataclasses.replace(
        plan,
        readers={**plan.readers, index: dataclasses.replace(reading, chosen=reading.chosen[1:])},
        edits={**plan.edits, index: (dataclasses.replace(select, chosen=select.chosen[1:]),)},
    )
    with pytest.raises(PlanError, match="lacks a channel"):
        check_plan(short)


def test_zeros_where_something_else_is_known(plan: Plan) -> None:
    values = np.full_like(plan.analysis.values, 0.5)
    wrong = dataclasses.replace(plan, analysis=dataclasses.replace(plan.analysis, values=values))
    with pytest.raises(PlanError, match="something else is known"):
        check_plan(wrong)
