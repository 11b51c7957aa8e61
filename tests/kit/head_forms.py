"""Attention in which channels of a head are in bands, or that grouped convolutions make.

Layers are noted as the independent reference takes them, so that masks may be any.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from build import Net, Operand
from case import Case, Layer, Masks

HEADS, WIDTH, TURNED, TOKENS, CHANNELS = 4, 6, 4, 3, 8
FLAT = HEADS * WIDTH
PACKED = ("beside", "beside, slices", "axis", "channels", "beside, turned")
SEPARATE = ("plain", "turned", "all turned", "shared")
GROUPED = {"groups": HEADS, "few groups": HEADS // 2, "many groups": HEADS * 2}
FORMS = (*PACKED, *SEPARATE, *GROUPED)
BODIES = ("", "if", "loop")


class Heads(Net):
    """Attention on a residual stream.

    Args:
        form: How queries, keys and values come about.
        prefix: What names begin with, as no name of a body may hide one around it.
        path: What keys of masks begin with.
    """

    def __init__(self, form: str, prefix: str = "", path: str = "") -> None:
        super().__init__(18, x=(1, TOKENS, CHANNELS))
        self.form, self.prefix, self.path = form, prefix, path
        self.layers: list[Layer] = []

    def nodes_of(
        self, op: str, *inputs: Operand, name: str = "", outputs: int = 1, **attributes: object
    ) -> list[str]:
        name = name or f"{self.prefix}n{len(self.nodes)}"
        return super().nodes_of(op, *inputs, name=name, outputs=outputs, **attributes)

    def constant(self, value: object, name: str = "") -> str:
        return super().constant(
            np.asarray(value), name or f"{self.prefix}c{len(self.initializers)}"
        )

    def linear(self, tensor: str, name: str, inputs: int, outputs: int) -> str:
        made = self("MatMul", tensor, self.random(inputs, outputs), name=name)
        data, result = (tensor, -1, inputs), (made, -1, outputs)
        self.layers.append(Layer(name, None, data, result, 3, self.path))
        return self("Add", made, self.random(outputs))

    def conv(self, tensor: str, name: str, inputs: int, outputs: int, groups: int = 1) -> str:
        weight = self.random(outputs, inputs // groups, 1)
        made = self("Conv", tensor, weight, self.random(outputs), name=name, group=groups)
        data, result = (tensor, -2, inputs), (made, -2, outputs)
        self.layers.append(Layer(name, None, data, result, 3, self.path))
        return made

    def by_heads(self, tensor: str, heads: int = HEADS) -> str:
        cut = self("Reshape", tensor, self.ints(1, TOKENS, heads, WIDTH))
        return self("Transpose", cut, perm=[0, 2, 1, 3])

    def turn(self, tensor: str, channels: int) -> str:
        """A rotary embedding of the first channels of every head."""
        axis, end = self.ints(3), self.ints(2**62)
        first, rest = tensor, None
        if channels < WIDTH:
            first = self("Slice", tensor, self.ints(0), self.ints(channels), axis)
            rest = self("Slice", tensor, self.ints(channels), end, axis)
        half = self.ints(channels // 2)
        one = self("Slice", first, self.ints(0), half, axis)
        other = self("Slice", first, half, end, axis)
        swapped = self("Concat", self("Neg", other), one, axis=-1)
        cosines, sines = (np.tile(self.random(TOKENS, channels // 2), 2) for _ in range(2))
        turned = self("Add", self("Mul", first, cosines), self("Mul", swapped, sines))
        return turned if rest is None else self("Concat", turned, rest, axis=-1)

    def packed(self, stream: str) -> Sequence[str]:
        flat = self.linear(stream, "qkv", CHANNELS, 3 * FLAT)
        if self.form.startswith("beside"):
            cut = self("Reshape", flat, self.ints(1, TOKENS, HEADS, 3 * WIDTH))
            cut = self("Transpose", cut, perm=[0, 2, 1, 3])
            if self.form == "beside, slices":
                ends = [(WIDTH * place, WIDTH * (place + 1)) for place in range(3)]
                return [
                    self("Slice", cut, self.ints(start), self.ints(end), self.ints(3))
                    for start, end in ends
                ]
            return self.nodes_of("Split", cut, self.ints(*[WIDTH] * 3), outputs=3, axis=-1)
        kinds = (3, WIDTH) if self.form == "axis" else (WIDTH, 3)
        cut = self("Reshape", flat, self.ints(1, TOKENS, HEADS, *kinds))
        axis = 3 + (self.form == "channels")
        parts = [self("Gather", cut, np.array(place), axis=axis) for place in range(3)]
        return [self("Transpose", part, perm=[0, 2, 1, 3]) for part in parts]

    def operands(self, stream: str) -> Sequence[str]:
        """Queries, keys and values, by heads."""
        if self.form in PACKED:
            queries, keys, values = self.packed(stream)
        else:
            counts = [HEADS] + [HEADS // 2 if self.form == "shared" else HEADS] * 2
            queries, keys, values = (
                self.by_heads(self.linear(stream, name, CHANNELS, count * WIDTH), count)
                for name, count in zip("qkv", counts, strict=True)
            )
        turned = {"beside, turned": TURNED, "turned": TURNED, "shared": TURNED}
        channels = WIDTH if self.form == "all turned" else turned.get(self.form, 0)
        if channels:
            queries, keys = self.turn(queries, channels), self.turn(keys, channels)
        if self.form == "shared":
            keys, values = self.repeated(keys), self.repeated(values)
        return queries, keys, values

    def repeated(self, tensor: str) -> str:
        """Each head twice."""
        alone = self("Unsqueeze", tensor, self.ints(2))
        wide = self("Expand", alone, self.ints(1, HEADS // 2, 2, TOKENS, WIDTH))
        return self("Reshape", wide, self.ints(1, HEADS, TOKENS, WIDTH))

    def block(self, stream: str) -> str:
        """Attention, added to what it reads, and normalized."""
        if self.form in GROUPED:
            return self.grouped_block(stream)
        queries, keys, values = self.operands(stream)
        scores = self("MatMul", queries, self("Transpose", keys, perm=[0, 1, 3, 2]))
        mixed = self("MatMul", self("Softmax", scores, axis=-1), values)
        turned = self("Transpose", mixed, perm=[0, 2, 1, 3])
        flat = self("Reshape", turned, self.ints(1, TOKENS, FLAT))
        return self.normalized(self("Add", stream, self.linear(flat, "o", FLAT, CHANNELS)))

    def normalized(self, stream: str) -> str:
        scale, bias = self.random(CHANNELS), self.random(CHANNELS)
        return self("LayerNormalization", stream, scale, bias, axis=-1)

    def grouped_block(self, stream: str) -> str:
        """As SqueezeBERT writes it, with a residual stream that grouped convolutions read."""
        groups = GROUPED[self.form]
        stream = self.normalized(self.linear(stream, "e", CHANNELS, CHANNELS))
        turned = self("Transpose", stream, perm=[0, 2, 1])
        sizes = self.ints(1, HEADS, WIDTH, TOKENS)
        queries, keys, values = (
            self("Reshape", self.conv(turned, name, CHANNELS, FLAT, groups), sizes)
            for name in "qkv"
        )
        scores = self("MatMul", self("Transpose", queries, perm=[0, 1, 3, 2]), keys)
        values = self("Transpose", values, perm=[0, 1, 3, 2])
        mixed = self("MatMul", self("Softmax", scores, axis=-1), values)
        flat = self("Transpose", mixed, perm=[0, 1, 3, 2])
        flat = self("Reshape", flat, self.ints(1, FLAT, TOKENS))
        made = self("Add", self.conv(flat, "o", FLAT, CHANNELS), turned)
        inner = self("Relu", self.conv(made, "i", CHANNELS, FLAT, groups // 2))
        made = self("Add", self.conv(inner, "j", FLAT, CHANNELS, groups // 2), made)
        return self.normalized(self("Transpose", made, perm=[0, 2, 1]))


def case(form: str, masks: Masks, body: str = "") -> Case:
    """A model with one block, in a body if that is asked for, and its masks.

    Args:
        form: The form of the attention.
        masks: By layer (`q`, `k`, `v` or `qkv`, and `o`; `e` before grouped ones, `i` and `j`
            behind them) and side.
        body: "if" or "loop" for a block in a body.
    """
    if not body:
        net = Heads(form)
        return Case(net.model(net.block("x")), masks, tuple(net.layers))
    path = {"if": "choice/then_branch/", "loop": "again/body/"}[body]
    inner, outer = Heads(form, "inner.", path), Net(18, x=(1, TOKENS, CHANNELS))
    carried = "x" if body == "if" else "state"
    made = inner.block(carried)
    shape = [1, TOKENS, CHANNELS]

    def info(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    if body == "if":
        graph = helper.make_graph(inner.nodes, "then", [], [info(made)], inner.initializers)
        other = helper.make_node("Neg", ["x"], ["neg"], "neg")
        branch = helper.make_graph([other], "else", [], [info("neg")])
        total = outer("ReduceSum", outer("Abs", "x"), keepdims=0)
        flag = outer("Greater", total, np.float32(0))
        result = outer("If", flag, name="choice", then_branch=graph, else_branch=branch)
    else:
        inner.nodes.append(helper.make_node("Identity", ["going"], ["on"], "on"))
        scalars = [
            helper.make_tensor_value_info(name, kind, [])
            for name, kind in (("turn", TensorProto.INT64), ("going", TensorProto.BOOL))
        ]
        goes_on = helper.make_tensor_value_info("on", TensorProto.BOOL, [])
        inputs, outputs = [*scalars, info("state")], [goes_on, info(made)]
        graph = helper.make_graph(inner.nodes, "body", inputs, outputs, inner.initializers)
        result = outer("Loop", np.int64(2), np.bool_(True), "x", name="again", body=graph)
    keyed = {path + key: sides for key, sides in masks.items()}
    return Case(outer.model(outer.declare(result, shape)), keyed, tuple(inner.layers))


def layer_sizes(form: str) -> dict[str, tuple[int, int]]:
    """The input and output channels of the layers of a block, by name."""
    net = Heads(form)
    net.block("x")
    return {each.node: (each.data[2], each.result[2]) for each in net.layers}


def random_masks(form: str, seed: int) -> Masks:
    """Masks of some layers of a block, of single channels and of whole heads."""
    rng = np.random.default_rng(seed)
    masks: Masks = {}
    for name, sizes in layer_sizes(form).items():
        for side, size in zip(("input", "output"), sizes, strict=True):
            gone = rng.random(size) < rng.choice([0, 0, 0.1, 0.4, 0.7])
            if size % WIDTH == 0 and rng.random() < 0.3:
                gone |= (rng.random(size // WIDTH) < 0.3).repeat(WIDTH)
            if gone.any():
                masks.setdefault(name, {})[side] = np.flatnonzero(gone).tolist()
    return masks
