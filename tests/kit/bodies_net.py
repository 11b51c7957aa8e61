"""Models with layers in the bodies of If, Loop and Scan, masked as they are built.

Where masks say so, weights are zero; masks go by the keys of mask files, each with a side: such as
`choice/then_branch/second.input`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from build import Array, Floats
from mask_document import Masks

Shape = Sequence[int | str]


class Part:
    """A graph under construction.

    Args:
        masks: The masks.
        path: What keys of masks in it begin with.
        around: The graph around it.
    """

    def __init__(self, masks: Masks, path: str = "", around: Part | None = None) -> None:
        self.masks, self.path, self.around = masks, path, around
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(len(path))

    def body(self, path: str) -> Part:
        """A body in it, such as `choice/then_branch`."""
        return Part(self.masks, f"{self.path}{path}/", self)

    def __call__(self, op: str, *inputs: str, name: str, **attributes: Any) -> str:
        """A node; gives the name of what it makes."""
        made = f"{name}.out"
        self.nodes.append(helper.make_node(op, inputs, [made], name, **attributes))
        return made

    def store(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        """An initializer."""
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def zeroed(self, key: str, value: Array, into: int, out: int | None) -> Floats:
        """A value with zeros where a mask of some key says so."""
        for side, axis in (("input", into), ("output", out)):
            if axis is not None:
                gone = list(self.masks.get(f"{key}.{side}", ()))
                np.moveaxis(value, axis, 0)[gone] = 0
        return value

    def values(self, *shape: int) -> Floats:
        """Random numbers; the same shape in the same graph comes out otherwise each time."""
        return (self.rng.standard_normal(shape) / max(shape[-1], 1)).astype(np.float32)

    def conv(self, data: str, name: str, ins: int, outs: int, kernel: int = 1) -> str:
        """A convolution with weights of its own."""
        key, pad = self.path + name, [kernel // 2] * 4
        weight = self.zeroed(key, self.values(outs, ins, kernel, kernel), 1, 0)
        bias = self.values(outs)
        bias[list(self.masks.get(f"{key}.output", ()))] = 0
        stored = self.store(f"{name}.weight", weight), self.store(f"{name}.bias", bias)
        return self("Conv", data, *stored, name=name, pads=pad)

    def matmul(self, data: str, name: str, ins: int, outs: int) -> str:
        """A product with a weight of its own."""
        weight = self.zeroed(self.path + name, self.values(ins, outs), 0, 1)
        return self("MatMul", data, self.store(f"{name}.weight", weight), name=name)

    def graph(self, name: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        """It, with inputs and outputs given by their shapes, or by type and shape."""
        return helper.make_graph(
            self.nodes,
            name,
            [_info(each, given) for each, given in inputs.items()],
            [_info(each, given) for each, given in outputs.items()],
            self.weights,
        )

    def model(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> onnx.ModelProto:
        """It as a model."""
        graph = self.graph("main", inputs, outputs)
        imports = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8)


FLAG = (TensorProto.BOOL, ())
COUNT = (TensorProto.INT64, ())
IMAGE = (1, 3, 6, 6)


def _info(name: str, given: Any) -> onnx.ValueInfoProto:
    typed = len(given) == 2 and isinstance(given[1], tuple)
    kind, shape = given if typed else (TensorProto.FLOAT, given)
    return helper.make_tensor_value_info(name, kind, shape)


def two_readers(part: Part, data: str, name: str) -> str:
    """Two layers that read what one made, and may want other channels of it."""
    made = part("Relu", part.conv(data, f"{name}1", 3, 12, 3), name=f"{name}.act")
    one, other = (part.conv(made, f"{name}{at}", 12, 4) for at in (2, 3))
    return part("Add", one, other, name=f"{name}.sum")


def chain(part: Part, data: str, name: str, outs: int) -> str:
    """Two layers in a row; what the first makes is not zero where it is masked."""
    inner = part("Sigmoid", part.conv(data, f"{name}1", 3, 10, 3), name=f"{name}.act")
    return part.conv(inner, f"{name}2", 10, outs)


def choice(masks: Masks) -> onnx.ModelProto:
    """An If with layers in both branches, one of which reads a layer from outside."""
    main = Part(masks)
    data = main.conv("x", "stem", 3, 3)
    yes, no = main.body("choice/then_branch"), main.body("choice/else_branch")
    graphs = {
        "then_branch": yes.graph("yes", {}, {two_readers(yes, data, "y"): (1, 4, 6, 6)}),
        "else_branch": no.graph("no", {}, {chain(no, "x", "n", 4): (1, 4, 6, 6)}),
    }
    made = main("If", "flag", name="choice", **graphs)
    last = main.conv(main("Relu", made, name="relu"), "last", 4, 2)
    return main.model({"flag": FLAG, "x": IMAGE}, {last: (1, 2, 6, 6)})


def looped(masks: Masks, shape: Shape | None = IMAGE) -> onnx.ModelProto:
    """A Loop that carries a tensor through two layers, and gives another one each time."""
    main = Part(masks)
    body = main.body("loop/body")
    state = chain(body, "state", "l", 3)
    seen = two_readers(body, "state", "s")
    go = body("Identity", "go_in", name="go")
    graph = body.graph(
        "body",
        {"count": COUNT, "go_in": FLAG, "state": shape or IMAGE},
        {go: FLAG, state: shape or IMAGE, seen: (1, 4, 6, 6)},
    )
    if shape is None:
        for value in (graph.input[2], *graph.output[1:]):
            value.type.tensor_type.ClearField("shape")
    times, going = main.store("times", 3, np.int64), main.store("going", True, np.bool_)
    main.nodes.append(
        helper.make_node("Loop", [times, going, "x"], ["end", "all"], "loop", body=graph)
    )
    return main.model({"x": IMAGE}, {"end": IMAGE, "all": (3, 1, 4, 6, 6)})


def scanned(masks: Masks) -> onnx.ModelProto:
    """A Scan with an MLP, whose result it adds to a state."""
    main = Part(masks)
    body = main.body("scan/body")
    inner = body("Tanh", body.matmul("step", "up", 5, 16), name="tanh")
    made = body.matmul(inner, "down", 16, 5)
    state = body("Add", "before", made, name="add")
    out = body("Identity", made, name="given")
    shape = (2, 5)
    graph = body.graph("body", {"before": shape, "step": shape}, {state: shape, out: shape})
    main.nodes.append(
        helper.make_node(
            "Scan", ["x", "steps"], ["sum", "all"], "scan", body=graph, num_scan_inputs=1
        )
    )
    return main.model({"x": shape, "steps": (4, 2, 5)}, {"sum": shape, "all": (4, 2, 5)})


def recalled(masks: Masks) -> onnx.ModelProto:
    """An If with an LSTM in a branch."""
    main = Part(masks)
    yes, no = main.body("choice/then_branch"), main.body("choice/else_branch")
    key, units, gates = f"{yes.path}lstm", 6, 4
    rows = [unit + gate * units for unit in masks.get(f"{key}.output", ()) for gate in range(gates)]
    weight = yes.values(1, gates * units, 5)
    weight[..., list(masks.get(f"{key}.input", ()))] = 0
    between, bias = yes.values(1, gates * units, units), yes.values(1, 2 * gates * units)
    for each in (weight, between, bias[:, : gates * units], bias[:, gates * units :]):
        each[:, rows] = 0
    stored = [yes.store(name, v) for name, v in (("w", weight), ("r", between), ("b", bias))]
    made = yes("LSTM", "x", *stored, name="lstm", hidden_size=units)
    flat = yes("Squeeze", made, yes.store("axes", [1], np.int64), name="flat")
    graphs = {
        "then_branch": yes.graph("yes", {}, {yes.matmul(flat, "of_units", units, 3): (4, 2, 3)}),
        "else_branch": no.graph("no", {}, {no.matmul("x", "of_steps", 5, 3): (4, 2, 3)}),
    }
    last = main("If", "flag", name="choice", **graphs)
    return main.model({"flag": FLAG, "x": (4, 2, 5)}, {last: (4, 2, 3)})


def nested(masks: Masks) -> onnx.ModelProto:
    """An If in a Loop: layers in both, and weights from the main graph in the innermost."""
    main = Part(masks)
    key = "loop/body/inner/then_branch/deep"
    main.store("deep.weight", main.zeroed(key, main.values(3, 10, 1, 1), 1, 0))
    body = main.body("loop/body")
    wide = body("Relu", body.conv("state", "wide", 3, 10), name="act")
    flag = body("Equal", "count", body.store("one", 1, np.int64), name="is_one")
    yes, no = body.body("inner/then_branch"), body.body("inner/else_branch")
    inner = yes("Relu", yes.conv("state", "up", 3, 10), name="up.act")
    deep = yes("Conv", inner, "deep.weight", name="deep")
    graphs = {
        "then_branch": yes.graph("yes", {}, {deep: IMAGE}),
        "else_branch": no.graph("no", {}, {no.conv(wide, "of_wide", 10, 3): IMAGE}),
    }
    made = body("If", flag, name="inner", **graphs)
    state = body("Add", made, body.conv(wide, "narrow", 10, 3), name="add")
    go = body("Identity", "go_in", name="go")
    graph = body.graph(
        "body", {"count": COUNT, "go_in": FLAG, "state": IMAGE}, {go: FLAG, state: IMAGE}
    )
    times, going = main.store("times", 3, np.int64), main.store("going", True, np.bool_)
    made = main("Loop", times, going, "x", name="loop", body=graph)
    return main.model({"x": IMAGE}, {made: IMAGE})


def lent(masks: Masks) -> onnx.ModelProto:
    """An If whose layers have weights from outside.

    `alone` is read by one layer, `both` by one in each branch, `main` by one in a branch and one of
    the main graph, `turned` is stored transposed, and `shift` is made by a Constant. Masks on the
    name of a weight are about all its layers; one with masks of its own has a weight of its own.
    """
    main = Part(masks)
    sizes = {"alone": (10, 3), "both": (4, 10), "main": (10, 3)}
    stored = {
        name: main.zeroed(name, main.values(*size, 1, 1), 1, 0) for name, size in sizes.items()
    }
    for name, value in stored.items():
        main.store(name, value)
    shift = main.values(10, 1, 1)
    tensor = numpy_helper.from_array(shift)
    main.nodes.append(helper.make_node("Constant", [], ["shift"], "shifting", value=tensor))
    rows = main.store("turned", main.zeroed("turned", main.values(5, 6), 1, 0))
    turned = main("Transpose", rows, name="turn", perm=[1, 0])

    def layer(part: Part, data: str, name: str, weight: str) -> str:
        key = part.path + name
        if any(f"{key}.{side}" in masks for side in ("input", "output")):
            value = main.zeroed(key, stored[weight].copy(), 1, 0)
            weight = main.store(f"{weight}.of.{name}", value)
        return part("Conv", data, weight, name=name)

    yes, no = main.body("choice/then_branch"), main.body("choice/else_branch")
    added, gone = "shift", [*masks.get("alone.output", ()), *masks.get(f"{yes.path}a.output", ())]
    if gone:
        shift = shift.copy()
        shift[gone] = 0
        added = main.store("shift.of.a", shift)
    inner = yes("Add", layer(yes, "x", "a", "alone"), added, name="add")
    inner = layer(yes, yes("Sigmoid", inner, name="yes.act"), "b", "both")
    wide = yes("MatMul", inner, turned, name="wide")
    outer = no("Relu", layer(no, "x", "c", "main"), name="no.act")
    outer = layer(no, outer, "d", "both")
    flat = no("MatMul", outer, no.store("flat", no.values(6, 5)), name="flatten")
    graphs = {
        "then_branch": yes.graph("yes", {}, {wide: (1, 4, 6, 5)}),
        "else_branch": no.graph("no", {}, {flat: (1, 4, 6, 5)}),
    }
    made = main("If", "flag", name="choice", **graphs)
    beside = main("Relu", layer(main, "x", "e", "main"), name="main.act")
    last = main.conv(beside, "last", 10, 2)
    return main.model({"flag": FLAG, "x": IMAGE}, {made: (1, 4, 6, 5), last: (1, 2, 6, 6)})
