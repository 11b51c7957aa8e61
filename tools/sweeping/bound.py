"""How many multiply-adds masks let leave at most, found without any code of the package.

Flags run through the masked model of `tests/kit/masked.py`: what may be other than zero, what
varies with the inputs, and, backwards, what anybody asks for. That asks nobody's rules: what is
asked for is the gradient of a model in which every operator only says what depends on what. A layer
then needs

    positions x window x (channels that it reads) x (channels of it that are asked for)

where it reads what its own mask keeps, what varies, and what its outputs that are asked for have
weights for. It is assumed that

- every reader gets just its channels, wherever they lie (what `gather` does with copies);
- a channel that has one value, whatever the input and the place, can be absorbed, unless it is not
  zero and its reader pads;
- who writes into a sum, or into anything else that works channel by channel, as convolutions of
  single channels do, computes all channels that are asked for behind it, also those that its own
  mask zeroes (`coupled`; without this assumption the bound is called `free`);
- tensors are rectangular: every head, and every group of a convolution, keeps as many channels as
  the fullest;
- what ranks, compares or rounds (a model that selects boxes) asks for all it reads, as do operators
  without a rule in `operators.py`, and bodies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional

from build import Array
from masked import reads
from sweeping.compare import giving, session
from sweeping.flags import Flow, gate, join, not_absorbed, product, rectangle
from sweeping.known import attributes, constants
from sweeping.operators import RULES, Call

_WORKING = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum")


@dataclass
class Work:
    """The multiply-adds of one node: all, and those that are asked for, told on the way back."""

    full: int
    op: str
    asked: dict[str, list[int]] = field(default_factory=dict)
    sizes: dict[str, list[int]] = field(default_factory=dict)
    of_two: bool = False

    def left(self) -> float:
        """What the masks leave of it."""
        share = 1.0
        for name, sizes in self.sizes.items():
            counts = self.asked.get(name, [0])
            share *= math.prod(counts) / math.prod(sizes)
        return self.full * share


@dataclass(frozen=True)
class Bound:
    """Multiply-adds of the whole model, and what masks leave of them at least, read in two ways."""

    full: int
    coupled: float
    free: float
    opaque: tuple[str, ...]
    by_node: tuple[tuple[str, int, float], ...]


def wanted(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> dict[str, Work]:
    """What is asked for of each product of two activations with no masks at all.

    Places that nobody reads, as in padded windows, are not for masks to take.

    Args:
        model: The model.
        inputs: As those of the bound.
    """
    found = _Pass(model, inputs)
    found.forward()
    found.asked_for(coupled=True)
    return {name: work for name, work in found.works.items() if work.of_two}


def bound(
    model: onnx.ModelProto, inputs: Mapping[str, Array], unmasked: Mapping[str, Work]
) -> Bound:
    """What masks leave of a model.

    Args:
        model: The masked model, as `tests/kit/masked.py` makes it.
        inputs: Any inputs of it; what is whole numbers is taken from a run.
        unmasked: What is wanted of the model as it was.
    """
    found = _Pass(model, inputs)
    found.forward()
    for name, work in unmasked.items():
        counts = {key: each for key, each in work.asked.items() if math.prod(each)}
        found.works[name].sizes.update(counts)
    free = sum(found.asked_for(coupled=False).values())
    works = found.asked_for(coupled=True)
    full = sum(work.full for work in found.works.values())
    by_node = tuple((name, found.works[name].full, left) for name, left in works.items())
    return Bound(full, sum(works.values()), free, tuple(sorted(found.opaque)), by_node)


class _Pass:
    def __init__(self, model: onnx.ModelProto, inputs: Mapping[str, Array]) -> None:
        self.graph, self.coupled = model.graph, False
        self.constant = constants(model.graph)
        self.values = _run(model, inputs, self.constant)
        self.shapes = {name: tuple(value.shape) for name, value in self.values.items()}
        self.flows: dict[str, Flow] = {}
        self.works: dict[str, Work] = {}
        self.opaque: set[str] = set()
        self.sinks: list[Tensor] = []
        self.varying = {value.name for value in model.graph.input} - self.constant

    def flow(self, name: str) -> Flow | None:
        """The flags of a tensor, if it is real."""
        if name in self.flows:
            return self.flows[name]
        value = self.values.get(name)
        if value is None or value.dtype.kind != "f":
            return None
        if name in self.constant:
            self.flows[name] = Flow.of(torch.from_numpy(value.astype(np.float32)))
        else:
            some = torch.ones(value.shape)
            self.flows[name] = Flow(some, torch.ones(value.shape, requires_grad=True))
        return self.flows[name]

    def forward(self) -> None:
        for node in self.graph.node:
            if all(name in self.constant for name in node.output if name):
                continue
            if node.op_type not in ("Shape", "Size") and self.varying.intersection(reads(node)):
                self.varying.update(node.output)
            if not self.varying.intersection(node.output):
                self.constant.update(node.output)
            elif self.values[node.output[0]].dtype.kind == "f":
                self._real(node)
            elif node.op_type not in ("Shape", "Size"):
                self._ask_all(node)

    def asked_for(self, coupled: bool) -> dict[str, float]:
        """The multiply-adds that are asked for, by node."""
        self.coupled = coupled
        for work in self.works.values():
            work.asked.clear()
        ends = [self.flow(value.name) for value in self.graph.output]
        asked = [each.varies for each in ends if each is not None] + self.sinks
        asked = [each for each in asked if each.requires_grad]
        ones = [torch.ones_like(each) for each in asked]
        torch.autograd.backward(asked, ones, retain_graph=not coupled)
        return {name: work.left() for name, work in self.works.items()}

    def _real(self, node: onnx.NodeProto) -> None:
        flows = [self.flow(name) if name else None for name in node.input]
        if not any(flows):
            return
        try:
            if node.op_type in _WORKING and not node.domain:
                made: Any = self._working(node, flows)
            else:
                known = [self._known(name) for name in node.input]
                shape, count = self.shapes[node.output[0]], len(node.output)
                call = Call(node.op_type, dict(attributes(node)), flows, known, shape, count)
                made = self._mask(node) or RULES[node.op_type](call)
            made = made if isinstance(made, list) else [made]
            for name, each in zip(node.output, made, strict=False):
                assert tuple(each.some.shape) == self.shapes[name], (node.op_type, name)
                picked = set(node.input[:1] if node.op_type == "Where" else node.input)
                whole = [self.flow(other) is None and other in self.varying for other in picked]
                each = self._varied(each) if any(whole) else each
                value = torch.from_numpy(np.asarray(self.values[name], np.float32))
                some = torch.where(each.varies > 0, each.some, (value != 0).to(each.some.dtype))
                self.flows[name] = Flow(torch.minimum(each.some, some), each.varies)
        except (KeyError, NotImplementedError, ValueError, RuntimeError, AssertionError):
            self.opaque.add(node.op_type)
            self._ask_all(node)

    def _varied(self, flow: Flow) -> Flow:
        """Flags of what whole numbers that vary have picked."""
        shape = flow.some.shape
        return join(flow, Flow(torch.ones(shape), torch.ones(shape, requires_grad=True)))

    def _ask_all(self, node: onnx.NodeProto) -> None:
        for name in reads(node):
            flow = self.flow(name) if name else None
            if flow is not None:
                self.sinks.append(flow.varies)

    def _known(self, name: str) -> Tensor | None:
        value = self.values.get(name) if name else None
        if value is None or (value.dtype.kind == "f" and name not in self.constant):
            return None
        return torch.from_numpy(np.array(value))

    def _mask(self, node: onnx.NodeProto) -> Flow | None:
        if node.op_type != "Mul" or not node.input[1].endswith(".mask"):
            return None
        flow, mask = self.flow(node.input[0]), self._known(node.input[1])
        assert flow is not None and mask is not None
        return flow.masked(mask.float(), lambda: not self.coupled)

    def _working(self, node: onnx.NodeProto, flows: list[Flow | None]) -> Flow:
        one, other = flows[:2]
        assert one is not None and other is not None
        given = dict(attributes(node))
        if node.op_type == "Einsum":
            return self._einsum(node, one, other, given["equation"])
        if node.op_type in ("Conv", "ConvTranspose"):
            made = self._convolution(node, one, other, given)
        else:
            made = self._product(node, one, other, given)
        bias = flows[2] if len(flows) > 2 else None
        if bias is None:
            return made
        if node.op_type in ("Conv", "ConvTranspose"):
            shape = [1, -1, *[1] * (made.some.dim() - 2)]
            bias = Flow(bias.some.reshape(shape), bias.varies.reshape(shape))
        return join(made, bias)

    def _listen(self, work: Work, name: str, axis: int, groups: int = 1) -> Any:
        """Notes how many channels are asked for, in groups that are all alike."""

        def told(asked: Tensor) -> Tensor:
            moved = asked.movedim(axis, 0).flatten(1).amax(1)
            parts = rectangle(moved.reshape(groups, -1), (1,), 1) if groups > 1 else moved[None]
            counts = (parts > 0).sum(1)
            work.asked[name] = [int(counts.max())]
            work.asked[f"groups of {name}"] = [int((counts > 0).sum())]
            if groups == 1:
                return asked
            shape = [1] * asked.dim()
            shape[axis] = -1
            more = parts.reshape(shape) * (asked.amax(axis, keepdim=True) > 0)
            return torch.maximum(asked, more.to(asked.dtype))

        return told

    def _convolution(
        self, node: onnx.NodeProto, x: Flow, weight: Flow, given: dict[str, Any]
    ) -> Flow:
        spread, groups = node.op_type == "ConvTranspose", int(given.get("group", 1))
        shape = weight.some.shape
        result = self.shapes[node.output[0]]
        counts = (x.some.shape[1] // groups, result[1] // groups)
        places = x.some.shape if spread else result
        full = places[0] * math.prod(places[2:]) * math.prod(shape[2:]) * math.prod(counts) * groups
        work = Work(full, node.op_type, sizes={"in": [counts[0]], "out": [counts[1]]})
        if groups > 1:
            work.sizes["groups of out"] = [groups]
        self.works[node.output[0]] = work
        pads = list(given.get("pads", [0]))
        value = self.values[node.input[0]]
        lets = x.some if any(pads) or spread else not_absorbed(x, value, 1)
        alone, whole = max(counts) == 1, torch.ones_like(x.some)
        varies = gate(
            x.varies,
            lambda: whole if alone and self.coupled else lets,
            self._listen(work, "in", 1, groups),
        )
        run = _transposed if spread else _convolved
        made = product(
            Flow(x.some, varies), weight, lambda one, other: run(one, other, given, result)
        )
        ones = torch.ones_like(made.some)
        return Flow(made.some, gate(made.varies, ones, self._listen(work, "out", 1, groups)))

    def _product(self, node: onnx.NodeProto, one: Flow, other: Flow, given: dict[str, Any]) -> Flow:
        if node.op_type == "Gemm":
            one = one.map(torch.t) if given.get("transA") else one
            other = other.map(torch.t) if given.get("transB") else other
        shape = self.shapes[node.output[0]]
        inner = one.some.shape[-1]
        work = Work(math.prod(shape) * inner, node.op_type, sizes={"in": [inner]})
        self.works[node.output[0]] = work
        slots = [slot for slot in (0, 1) if node.input[slot] in self.constant]
        if slots:
            axis = -1 if slots == [1] else -2
            data, value = (one if slots == [1] else other), self.values[node.input[1 - slots[0]]]
            turned = node.op_type == "Gemm" and given.get("transA" if slots == [1] else "transB")
            value = value.T if turned else value
            place = axis if data.some.dim() > 1 else 0
            lets = not_absorbed(data, value, place)
            gated = Flow(data.some, gate(data.varies, lets, self._listen(work, "in", place)))
            made = product(*((gated, other) if slots == [1] else (one, gated)), torch.matmul)
            axis = axis if made.some.dim() > 1 else 0
            work.sizes["out"] = [shape[axis]]
            listen = self._listen(work, "out", axis)
            return Flow(made.some, gate(made.varies, torch.ones_like(made.some), listen))
        work.of_two = True
        one = Flow(one.some, gate(one.varies, one.some, _box(work, "in", (-1,))))
        other = Flow(other.some, gate(other.varies, other.some, _box(work, "in", (-2, -1))))
        made = product(one, other, torch.matmul)
        lead = list(shape[:-2])
        work.sizes["out"] = [math.prod(lead), *shape[-2:]]
        listen = _box(work, "out", (-2, -1))
        return Flow(made.some, gate(made.varies, torch.ones_like(made.some), listen))

    def _einsum(self, node: onnx.NodeProto, one: Flow, other: Flow, equation: Any) -> Flow:
        text = (equation.decode() if isinstance(equation, bytes) else equation).replace(" ", "")
        letters = dict(
            pair
            for term, flow in zip(text.split("->")[0].split(","), (one, other), strict=True)
            for pair in zip(term, flow.some.shape, strict=True)
        )
        work = Work(math.prod(letters.values()), "Einsum")
        work.sizes = {letter: [size] for letter, size in letters.items()}
        self.works[node.output[0]] = work
        work.of_two = one.varies.requires_grad and other.varies.requires_grad
        gated = []
        for term, flow in zip(text.split("->")[0].split(","), (one, other), strict=True):

            def told(asked: Tensor, term: str = term) -> Tensor:
                for axis, letter in enumerate(term):
                    count = int((asked.movedim(axis, 0).flatten(1).amax(1) > 0).sum())
                    work.asked[letter] = [count]
                return asked

            lets = flow.varies.detach() if not flow.varies.requires_grad else flow.some
            if flow.varies.requires_grad:
                gated.append(Flow(flow.some, gate(flow.varies, lets, told)))
            else:
                gated.append(flow)
        return product(gated[0], gated[1], lambda a, b: torch.einsum(text, a, b))


def _box(work: Work, name: str, axes: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """Makes what is asked for of every head as large as that of the fullest, and notes it."""

    def told(asked: Tensor) -> Tensor:
        lead = max(asked.dim() - 2, 0)
        asked = rectangle(asked, axes, lead)
        parts = asked.reshape(-1, *asked.shape[lead:])
        counts = []
        for axis in axes:
            used = parts.movedim(axis, 1).flatten(2).amax(2) if parts.dim() > 2 else parts
            counts.append(int((used > 0).sum(1).max()))
        if name == "out":
            counts.insert(0, int((parts.flatten(1).amax(1) > 0).sum()))
        work.asked[name] = counts if name == "out" else counts[:1]
        return asked

    return told


def _convolved(x: Tensor, w: Tensor, given: dict[str, Any], _: tuple[int, ...]) -> Tensor:
    size = w.dim() - 2
    pads = list(given.get("pads", [0] * 2 * size))
    around = [p for axis in reversed(range(size)) for p in (pads[axis], pads[axis + size])]
    run = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[size]
    strides, dilations = given.get("strides", [1] * size), given.get("dilations", [1] * size)
    made: Tensor = run(
        functional.pad(x, around), w, None, strides, 0, dilations, given.get("group", 1)
    )
    return made


def _transposed(x: Tensor, w: Tensor, given: dict[str, Any], result: tuple[int, ...]) -> Tensor:
    size = w.dim() - 2
    pads = list(given.get("pads", [0] * 2 * size))
    run = [functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d]
    made: Tensor = run[size - 1](
        x,
        w,
        None,
        given.get("strides", [1] * size),
        0,
        0,
        given.get("group", 1),
        given.get("dilations", [1] * size),
    )
    for axis in range(size):
        missing = max(result[2 + axis] + pads[axis] - made.shape[2 + axis], 0)
        made = functional.pad(made, [0] * 2 * (size - 1 - axis) + [0, missing])
        made = made.narrow(2 + axis, pads[axis], result[2 + axis])
    return made


def _run(
    model: onnx.ModelProto, inputs: Mapping[str, Array], constant: set[str]
) -> dict[str, Array]:
    """Every value of a model: constants as they are, all else from a run."""
    found = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    found.update(inputs)
    wanted = [name for node in model.graph.node for name in node.output if name]
    values = session(giving(model, wanted)).run(None, dict(inputs))
    for name, value in zip(wanted, values, strict=True):
        found[name] = np.asarray(value)
    return found
