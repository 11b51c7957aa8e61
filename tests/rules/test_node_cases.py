"""ONNX's own node tests, inputs that nobody here invented, through the optimizer.

Each case's node is put between layers that write and read an axis of its inputs and outputs, with
some weights zero. All that is not data (indices, scales, shapes) is a constant. At most
`CASES_PER_OPERATOR` cases of an operator run, spread over its list: Cast alone has hundreds.
"""

from __future__ import annotations

import collections
import functools
import itertools
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from build import Array, Net, assert_close, run, weight_shape
from onnx_upscale.optimizer.analyze.rules import RULES, elementwise
from several import emitted

CASES_PER_OPERATOR = 6
FLOATS = (np.float32, np.float64, np.float16)
# Their other data types are data as well, not indices or shapes.
TYPED: frozenset[str] = frozenset(f"{elementwise.UNARY} {elementwise.BINARY} CastLike".split())
RANDOM = frozenset({"Bernoulli", "Dropout"})
DIVIDING = frozenset({"Div", "Mod"})
_WAYS = (("auto", "as built in"), ("gather", "as built in"))


@dataclass(frozen=True)
class Wrapped:
    """A node between layers, and what is fed to them."""

    model: onnx.ModelProto
    inputs: dict[str, Array]
    writers: tuple[str, ...]


@functools.cache
def _cases() -> dict[str, list[Any]]:
    """The cases by operator; they are computed as they are made, which takes ten seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Its reference values overflow on purpose.
        from onnx.backend.test.case.node import collect_testcases

        found: dict[str, list[Any]] = collections.defaultdict(list)
        for case in collect_testcases(None):
            nodes = list(case.model.graph.node) if case.model is not None else []
            # The expanded bodies of functions are of several nodes.
            if len(nodes) == 1 and case.data_sets and not nodes[0].domain:
                found[nodes[0].op_type].append(case)
    return found


def _some(cases: list[Any]) -> list[Any]:
    chosen = np.linspace(0, len(cases) - 1, min(len(cases), CASES_PER_OPERATOR))
    return [cases[int(index)] for index in chosen]


# Their names must be known before, in every process that collects tests.
OPERATORS = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain} - RANDOM


def _along(net: Net, tensor: str, name: str, weight: Array, rank: int, axis: int) -> str:
    """Contracts one axis of a tensor with a matrix."""
    order = [place for place in range(rank) if place != axis] + [axis]
    back = np.argsort(order).tolist()
    moved = net("Transpose", tensor, perm=order)
    return net("Transpose", net("MatMul", moved, weight, name=name), perm=back)


def _type_of(value: Array) -> int:
    return int(helper.np_dtype_to_tensor_dtype(value.dtype))


def _is_data(op: str, slot: int, value: Any, everything: bool) -> bool:
    if not isinstance(value, np.ndarray) or value.ndim < 2 or (slot and not everything):
        return False
    return value.dtype in FLOATS or (op in TYPED and value.dtype.kind in "iub")


def wrap(case: Any, axis: int, everything: bool) -> Wrapped | None:
    """Puts a case's node between layers.

    Args:
        case: A node test.
        axis: Which axis of each tensor is written and read.
        everything: Whether every input is data that is computed; if not, the first alone.

    Returns:
        The model, or None where nothing in it can be wrapped.
    """
    (node,) = case.model.graph.node
    values, expected = case.data_sets[0]
    names = [name for name in node.input if name]
    arrays = all(isinstance(value, np.ndarray) for value in (*values, *expected))
    if len(values) != len(names) or not arrays:
        return None
    given = dict(zip(names, values, strict=True))
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    opset = next(o.version for o in case.model.opset_import if not o.domain)
    data = {
        name: value.astype(np.float32)
        for slot, (name, value) in enumerate(given.items())
        if _is_data(node.op_type, slot, value, everything)
    }
    if any(not value.size for value in expected):
        return None  # A layer that reads nothing is no model.
    if node.op_type in DIVIDING and everything and values[1].dtype.kind in "iu":
        return None  # Integers divided by a masked zero end the process in onnxruntime before 1.25.
    if not data or any(max(value.shape) < 2 or not value.size for value in data.values()):
        return None
    net = Net(opset, **{name: value.shape for name, value in data.items()})
    read, writers = [], []
    for name in node.input:
        if not name or name not in data:
            read.append(net.constant(given[name], name) if name else "")
            continue
        place = axis % data[name].ndim
        size = data[name].shape[place]
        weight = np.eye(size, dtype=np.float32)
        weight[:, rng.random(size) < 0.3] = 0
        made = _along(net, name, f"writer.{name}", weight, data[name].ndim, place)
        writers.append(f"writer.{name}")
        if given[name].dtype != np.float32:
            made = net("Cast", made, to=_type_of(given[name]))
        read.append(made)
    inner = onnx.NodeProto()
    inner.CopyFrom(node)
    inner.name = "inner"
    inner.input[:] = read
    net.nodes.append(inner)
    results = []
    made_names = [name for name in node.output if name]
    for index, (name, value) in enumerate(zip(made_names, expected, strict=False)):
        if value.dtype != np.float32 and value.dtype.kind not in "fiub":
            return None
        tensor = name if value.dtype == np.float32 else net("Cast", name, to=TensorProto.FLOAT)
        if value.ndim < 2:
            results.append(net("Identity", tensor))
            continue
        place = axis % value.ndim
        weight = rng.standard_normal((value.shape[place], 3)).astype(np.float32)
        weight[::2] = 0
        results.append(_along(net, tensor, f"reader.{index}", weight, value.ndim, place))
    return Wrapped(net.model(*results), data, tuple(writers))


def _columns(model: onnx.ModelProto, wrapped: Wrapped) -> int:
    return sum(shape[1] for shape in (weight_shape(model, w) for w in wrapped.writers) if shape)


def _check(wrapped: Wrapped, what: str) -> bool | None:
    """Compares; tells whether channels are gone, or None where nothing can run the model."""
    try:
        wanted = run(wrapped.model, wrapped.inputs)
    except Exception:  # Whatever onnxruntime or the reference says about its own test case.
        return None
    if any(one.dtype.kind == "f" and np.isnan(one).any() for one in wanted):
        return None  # A zero weight times infinity: a channel that goes takes its NaN along.
    removed = False
    for way, model in emitted(wrapped.model, None, _WAYS).items():
        assert_close(wanted, run(model, wrapped.inputs), f"{what}, {way}")
        removed |= _columns(model, wrapped) < _columns(wrapped.model, wrapped)
    return removed


@dataclass
class Tally:
    ran: int = 0
    unwrapped: int = 0
    unrunnable: int = 0


def _variants(case: Any) -> Iterator[tuple[str, Wrapped | None]]:
    seen = set()
    for axis, everything in itertools.product((1, -1), (False, True)):
        wrapped = wrap(case, axis, everything)
        content = wrapped.model.SerializeToString() if wrapped is not None else b""
        if content not in seen:
            seen.add(content)
            yield f"{case.name}, axis {axis}, {'all' if everything else 'first'}", wrapped


TALLY: dict[str, Tally] = collections.defaultdict(Tally)
REMOVED: set[str] = set()


@pytest.mark.parametrize("operator", sorted(OPERATORS))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_cases_of_an_operator_compute_the_same(operator: str) -> None:
    if operator not in _cases():
        pytest.skip("there are no cases")
    tally = TALLY[operator]
    for case in _some(_cases()[operator]):
        for what, wrapped in _variants(case):
            if wrapped is None:
                tally.unwrapped += 1
                continue
            removed = _check(wrapped, what)
            if removed is None:
                tally.unrunnable += 1
                continue
            tally.ran += 1
            if removed:
                REMOVED.add(operator)
    if not tally.ran:
        pytest.skip(f"{tally.unwrapped} cannot be wrapped, {tally.unrunnable} cannot be run")


def test_enough_ran_and_lost_channels() -> None:
    """Counts what the tests above did, where they ran in this process."""
    if not TALLY or len(TALLY) < len(_cases().keys() - RANDOM):
        pytest.skip("not all operators ran in this process")
    assert _cases().keys() <= OPERATORS | RANDOM
    ruled = {op for _, op in RULES}
    ran = {operator for operator, tally in TALLY.items() if tally.ran}
    assert sum(tally.ran for tally in TALLY.values()) >= 900
    assert len(ran & ruled) >= 85
    assert len(REMOVED) >= 80, sorted((ran & ruled) - REMOVED)
    # An operator without a rule loses nothing.
    assert ruled >= REMOVED
