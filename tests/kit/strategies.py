"""Random models and masks for hypothesis.

The structure of a model is drawn, so that counterexamples shrink; its numbers come from one drawn
seed.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from builder import Builder, Part
from case import Case, Dims, Masks
from parts import (
    bodies,
    compounds,
    fused,
    heads,
    layers,
    movement,
    parted,
    recurrent,
    space,
    values,
)


def chain(b: Builder, *parts: Part) -> None:
    """A layer, an activation, something else, and a layer that reads it.

    Channels of known value pass through all of it, if the first layer is masked.
    """
    data = b.pick(4)
    if data is None:
        return
    channels = b.draw(st.integers(2, 8))
    made = layers.conv(b, data, channels)
    if parts and b.chance(0.5):  # Some channels certainly hold a value that is not zero.
        b.given[made] = {"output": np.flatnonzero(b.some(channels)).tolist()}
        made = b.one(b.draw(st.sampled_from(values.NOT_ZERO_AT_ZERO)), [made], b.shapes[made])
    else:
        made = values.activation(b, made) or made
    drawn = b.draw(st.lists(st.sampled_from(_ONE_TO_ONE), max_size=0 if parts else 2))
    for part in (*parts, *drawn):
        made = b.through(made, part)
    b.through(made, reader(b, made))


def reader(b: Builder, data: str) -> Part:
    """A layer that can read a tensor."""
    readers: dict[int, Part] = {
        4: layers.some_conv,
        3: layers.matmul,
        2: layers.gemm,
    }
    return readers[len(b.shapes[data])]


_PARTS: tuple[Part, ...] = (
    layers.some_conv, compounds.conv_bn, layers.grouped_conv, layers.conv_transpose,
    compounds.residual, compounds.join, compounds.concat, movement.split, movement.slice_,
    movement.gather, values.activation, values.affine, values.batch_norm, values.norm,
    compounds.gate, values.foreign, values.subgraph, space.pool, space.pad, space.reduce,
    movement.flatten, movement.sequence, compounds.image, movement.shuffle, movement.pixels,
    space.resize, movement.expand, movement.tile, heads.attention, layers.gemm, layers.matmul,
    layers.left_matmul, compounds.products, layers.twins, compounds.transition, bodies.branch,
    bodies.loop,
)  # fmt: skip
_COMMON = (
    layers.some_conv, compounds.conv_bn, compounds.residual, compounds.join, compounds.concat,
    *[chain] * 12,
)  # fmt: skip
# What a chain may lead through.
_ONE_TO_ONE: tuple[Part, ...] = (
    values.batch_norm, values.norm, values.affine, space.pool, space.pad, space.reduce,
    movement.flatten, movement.split, movement.slice_, movement.gather, movement.pixels,
    space.resize, movement.shuffle, layers.grouped_conv, values.activation, movement.sequence,
)  # fmt: skip
_ANY = st.lists(st.sampled_from([*_COMMON, *_PARTS]), min_size=3, max_size=16)


def _chain_of(*parts: Part) -> Part:
    return lambda builder: chain(builder, *parts)


def everything() -> st.SearchStrategy[list[Part]]:
    """Everything that can go wrong, once, in any order."""
    chains = [_chain_of(part) for part in _ONE_TO_ONE]
    often = [values.norm, space.pool, layers.grouped_conv, movement.flatten, movement.slice_]
    chains += [_chain_of(part) for part in often for _ in range(3)]
    others = [heads.attention, compounds.residual, movement.tile]
    often = [
        layers.some_conv,
        compounds.concat,
        compounds.conv_bn,
        compounds.products,
        layers.twins,
    ]
    others += [part for part in often for _ in range(3)]
    return st.permutations([*chains, *others, _chain_of(), _chain_of()])


def with_split_attention() -> st.SearchStrategy[list[Part]]:
    """Paths of grouped convolutions that are added up, with other parts around them."""
    around = (layers.some_conv, layers.grouped_conv, compounds.residual, movement.split, chain)
    own = st.lists(st.sampled_from(around), max_size=3)
    return st.tuples(own, own).map(lambda both: [*both[0], compounds.split_attention, *both[1]])


def with_readers_apart() -> st.SearchStrategy[list[Part]]:
    """Readers of one tensor behind nodes of their own, with other parts around them."""
    around: tuple[Part, ...] = (layers.some_conv, compounds.concat, values.activation, chain)
    own = st.lists(st.sampled_from(around), max_size=1)
    return own.map(lambda parts: [compounds.apart, *parts, compounds.apart])


def with_windows() -> st.SearchStrategy[list[Part]]:
    """Convolutions with windows that read one tensor, with other parts around them."""
    around: tuple[Part, ...] = (layers.some_conv, compounds.concat, compounds.residual, chain)
    own = st.lists(st.sampled_from(around), max_size=2)
    return own.map(lambda parts: [compounds.windows, *parts, compounds.windows])


def with_fused() -> st.SearchStrategy[list[Part]]:
    """Many of what onnxruntime's own tools write, with other parts around them."""
    around = (layers.some_conv, values.activation, movement.sequence, compounds.residual, chain)
    return st.lists(st.sampled_from([*fused.PARTS * 2, *around]), min_size=4, max_size=14)


def with_heads() -> st.SearchStrategy[list[Part]]:
    """Attention in a row and side by side, with other parts around it."""
    around = (layers.matmul, values.activation, compounds.products, values.norm, movement.slice_)
    return st.lists(st.sampled_from([*[heads.attention] * 4, *around]), min_size=2, max_size=6)


def with_parted_axes() -> st.SearchStrategy[list[Part]]:
    """Axes that are split, shuffled and picked from, while the others lose channels as well."""
    around: tuple[Part, ...] = (layers.some_conv, values.activation, movement.sequence)
    own = st.lists(st.sampled_from(around), max_size=2)
    return own.map(lambda parts: [*parts, parted.between_layers])


def with_recurrent() -> st.SearchStrategy[list[Part]]:
    """Recurrent layers in a row and side by side, with other parts around them."""
    around = (layers.matmul, layers.gemm, values.activation, compounds.products, compounds.join)
    return st.lists(st.sampled_from([*recurrent.PARTS * 4, *around]), min_size=2, max_size=8)


@st.composite
def cases(draw: st.DrawFn, parts: st.SearchStrategy[list[Part]] = _ANY) -> Case:
    """A model of these parts, and masks for it."""
    opset = draw(st.sampled_from([17, 11, 13, 21]))
    batches: list[int | str] = [1, 2, "N"]
    batch = draw(st.sampled_from(batches))
    builder = Builder(draw, opset, batch)
    given: dict[str, Dims] = {"x": (batch, draw(st.integers(1, 4)), 4, 3)}
    builder.shapes.update(given)
    layers.some_conv(builder)
    for part in draw(parts):
        part(builder)
    if builder.pick(4) and draw(st.booleans()):
        layers.some_conv(builder)
    model = builder.finish(given)
    masks: Masks = {}
    ops = {node.name: node.op_type for node in model.graph.node}
    for layer in builder.layers:
        if builder.undeclared and ops.get(layer.node) == "MatMul":
            continue  # Its axes cannot be told without the rank of what it reads.
        if layer.result[0] in builder.given:
            sides = builder.given[layer.result[0]]
            if any(sides.values()):
                masks[layer.result[0]] = sides
            continue
        key = draw(st.sampled_from(layer.keys))
        sides = {}
        for side, (_, _, channels) in (("input", layer.data), ("output", layer.result)):
            pruned = np.flatnonzero(builder.some(channels))
            if len(pruned):
                sides[side] = pruned.tolist()
        if sides:
            masks[key] = sides
    return Case(model, masks, tuple(builder.layers))
