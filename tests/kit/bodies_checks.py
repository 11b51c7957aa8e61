"""What tests of bodies ask of a model: its graphs, their weights, and whether two are equal."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto

from build import Array, assert_close, run

YES, NO = "choice/then_branch", "choice/else_branch"
"""Paths of the branches of `choice` and `lent`."""


def inputs(model: onnx.ModelProto) -> Iterator[dict[str, Array]]:
    """Inputs that take both branches."""
    for seed in range(2):
        rng, values = np.random.default_rng(seed), {}
        for value in model.graph.input:
            shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            flag = value.type.tensor_type.elem_type == TensorProto.BOOL
            values[value.name] = (
                np.array(seed == 1) if flag else rng.standard_normal(shape).astype(np.float32)
            )
        yield values


def assert_equal(wanted: onnx.ModelProto, got: onnx.ModelProto) -> None:
    onnx.checker.check_model(got, full_check=True)
    assert_nothing_is_hidden(got.graph, frozenset())
    for values in inputs(wanted):
        assert_close(run(wanted, values), run(got, values))


def assert_nothing_is_hidden(graph: onnx.GraphProto, around: frozenset[str]) -> None:
    """No graph makes a name that it can read from outside."""
    own = [value.name for value in graph.input] + [tensor.name for tensor in graph.initializer]
    own += [name for node in graph.node for name in node.output if name]
    assert len(set(own)) == len(own)
    assert around.isdisjoint(own)
    for each in bodies(graph):
        assert_nothing_is_hidden(each, around.union(own))


def bodies(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    return (a.g for node in graph.node for a in node.attribute if a.HasField("g"))


def weights(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """The shapes of all initializers, wherever they are."""
    found = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for each in bodies(graph):
        found.update(weights(each))
    return found


def all_names(graph: onnx.GraphProto) -> set[str]:
    names = {tensor.name for tensor in graph.initializer}
    names |= {name for node in graph.node for name in (node.name, *node.output)}
    return names.union(*map(all_names, bodies(graph)))
