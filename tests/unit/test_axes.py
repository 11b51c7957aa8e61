"""An axis is known by its labels: rules may copy arrays as they like."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnx_upscale
from build import Net
from case import Case
from onnx_upscale.optimizer.analyze.context import Context
from onnx_upscale.optimizer.analyze.facts import Facts
from onnx_upscale.optimizer.load.graph import Node
from onnx_upscale.optimizer.load.layers import Layer
from strategies import cases
from targets import TARGETS


def _copied(value: Any) -> Any:
    """The same, with every array in it copied wherever it stands."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, tuple):
        return tuple(map(_copied, value))
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, (type, Node, Layer)):
        fields = {f.name: _copied(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


@pytest.fixture
def copying() -> Iterator[Any]:
    """A context in which all that goes into a rule and comes out of it is a copy."""
    facts, axes, unbound = Context.facts, Context.axes, Context.unbound

    def copied_facts(self: Context) -> Facts:
        copied = _copied(facts(self))
        assert isinstance(copied, Facts)
        return copied

    yield mock.patch.multiple(
        Context,
        facts=copied_facts,
        axes=lambda self, slot=0: _copied(axes(self, slot)),
        unbound=lambda self, channels: unbound(self, channels).copy(),
    )


def _emitted(model: onnx.ModelProto, masks: Mapping[str, Any], target: str) -> bytes:
    strategy: Any = "auto"
    return onnx_upscale.optimize(
        model, masks, strategy=strategy, target=target, verify=False
    ).content


@settings(max_examples=40)
@given(case=cases(), target=st.sampled_from(["as built in", "copies free", "blocks of 8"]))
def test_rules_may_copy_arrays(case: Case, target: str, copying: Any) -> None:
    shared = _emitted(case.model, case.document, TARGETS[target])
    with copying:
        assert _emitted(case.model, case.document, TARGETS[target]) == shared


def test_a_padded_writer_knows_its_own_bias_from_a_copy(copying: Any) -> None:
    net = Net(17, x=(1, 4, 5, 5))
    one = net("Conv", "x", net.random(8, 4, 1, 1), net.random(8), name="one")
    other = net("Conv", "x", net.random(8, 4, 1, 1), net.random(8), name="other")
    joined = net("Add", one, other)
    model = net.model(net("Conv", net("Relu", joined), net.random(2, 8, 1, 1)))
    masks = {"version": 1, "masks": {"one": {"output": [0, 1, 2, 6, 7]}}}
    shared = _emitted(model, masks, TARGETS["copies free, blocks of 1"])
    assert "Pad" in {node.op_type for node in onnx.load_from_string(shared).graph.node}
    with copying:
        assert _emitted(model, masks, TARGETS["copies free, blocks of 1"]) == shared


def test_a_tensor_added_to_itself_is_one_axis_whether_copied_or_not(copying: Any) -> None:
    net = Net(17, x=(1, 4, 5, 5))
    made = net("Conv", "x", net.random(8, 4, 1, 1), name="made")
    model = net.model(net("Conv", net("Add", made, made), net.random(2, 8, 1, 1), name="reader"))
    masks = {"version": 1, "masks": {"reader": {"input": [1, 2]}}}
    shared = _emitted(model, masks, TARGETS["as built in"])
    with copying:
        assert _emitted(model, masks, TARGETS["as built in"]) == shared
