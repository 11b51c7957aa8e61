"""Take a quarter of the heads and half of the features out of transformers, in every form.

    python tools/heads.py FOLDER [--models bert,vit] > table.md

FOLDER holds what `tools/export_heads.py` writes. Masks are those of the projection and of the last
layer of each perceptron (`read`), or those of the layers that make queries, keys, values and
features (`made`). What is emitted is compared by verification, and here with the model in whose
weights and biases the same is zero.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

import onnx_upscale
from onnx_upscale.running import Session, input_sizes, random_inputs

Array: TypeAlias = "npt.NDArray[Any]"

WIDTH, HEADS, FEATURES = 256, 8, 512
BLOCKS = 4
ROLES = {
    "q": r"\.(query|q_proj)$",
    "k": r"\.(key|k_proj)$",
    "v": r"\.(value|v_proj)$",
    "qkv": r"\.c_attn$|qkv$",
    "o": r"attention\.output\.dense$|\.o_proj$|attn\.c_proj$",
    "up": r"intermediate\.dense$|\.(fc1|c_fc|gate_proj|up_proj)$",
    "down": r"\d\.output\.dense$|\.(fc2|down_proj)$|mlp\.c_proj$",
}
MADE = {"read": ("o", "down"), "made": ("q", "k", "v", "qkv", "up")}
SHARES = {"q": 0.75, "k": 0.75, "v": 0.75, "qkv": 0.75, "o": 0.75, "up": 0.5, "down": 0.5}
COUNTS = ("num_heads", "kv_num_heads", "q_num_heads")
ATTENTIONS = ("Attention", "GroupQueryAttention", "MultiHeadAttention")
LARGEST_DIFFERENCE = 1e-5


@dataclass(frozen=True)
class Layer:
    """A layer of a transformer, and what it is in it."""

    node: str
    role: str
    block: int


def layers(model: onnx.ModelProto) -> Iterator[Layer]:
    """The layers that masks are about, by the torch module or the name of the weight."""
    for node in model.graph.node:
        if node.op_type not in ("Gemm", "MatMul", "Attention"):
            continue
        module = re.sub(r"[._](weight|MatMul)$", "", node.input[1])
        for entry in node.metadata_props:
            if entry.key == "pkg.torch.onnx.name_scopes":
                module = str(ast.literal_eval(entry.value)[-2])
        number = re.search(r"\d+", module)
        for role, pattern in ROLES.items():
            if number and re.search(pattern, re.sub(r"_weight$", "", module)):
                yield Layer(node.name, role, int(number.group()))


def gone(role: str, block: int, widths: Sequence[int]) -> list[int]:
    """A quarter of the heads, of each that lie on an axis, or half of the features."""
    if role in ("up", "down"):
        drawn = np.random.default_rng(block).permutation(FEATURES)
        return sorted(drawn[: FEATURES // 2].tolist())
    start = 0
    pruned: list[int] = []
    for width in widths:  # A pair of heads, or the one that both of them share.
        each = width // 4
        pruned += range(start + block * each, start + (block + 1) * each)
        start += width
    return pruned


def shape_of(model: onnx.ModelProto, name: str) -> list[int]:
    return next(list(tensor.dims) for tensor in model.graph.initializer if tensor.name == name)


def channels(layer: Layer, columns: int) -> list[int]:
    return gone(layer.role, layer.block, [columns // 3] * 3 if layer.role == "qkv" else [columns])


def zeroed(model: onnx.ModelProto, pruned: Mapping[str, tuple[str, list[int]]]) -> onnx.ModelProto:
    """The model with zeros in weights and in what is added behind them."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in made.graph.initializer}

    def zero(name: str, axis: int, indices: Sequence[int]) -> None:
        value = numpy_helper.to_array(stored[name]).copy()
        np.moveaxis(value, axis, 0)[list(indices)] = 0
        stored[name].CopyFrom(numpy_helper.from_array(value, name))

    for node in made.graph.node:
        side, indices = pruned.get(node.name, ("", []))
        if side == "input":
            zero(node.input[1], 0, indices)
        if side != "output":
            continue
        zero(node.input[1], 1, indices)
        if len(node.input) > 2:
            zero(node.input[2], 0, indices)
        for reader in made.graph.node:
            if node.output[0] not in reader.input:
                continue
            if reader.op_type in ("Add", "BiasGelu", "FastGelu"):
                (name,) = (each for each in reader.input if each in stored)
                zero(name, 0, indices)
            if reader.op_type == "MultiHeadAttention":
                start = list(reader.input).index(node.output[0]) * WIDTH
                zero(reader.input[3], 0, [start + each for each in indices])
    return made


def difference(one: onnx.ModelProto, other: onnx.ModelProto) -> float:
    """How far two models are apart, as a share of the largest result."""
    sizes, found = input_sizes(one), 0.0
    sessions = Session(one, optimized=False), Session(other)
    for seed in range(3):
        values = random_inputs(one, sizes, 100 + seed)
        (expected,), (got,) = (session.run(values).values() for session in sessions)
        found = max(found, float(np.abs(expected - got).max() / np.abs(expected).max()))
    return found


def shares(model: onnx.ModelProto, result: onnx.ModelProto) -> dict[str, set[float]]:
    """What is left of the weights, by role."""
    emitted = {node.name: node for node in result.graph.node}
    found: dict[str, set[float]] = {}
    originals = {node.name: node for node in model.graph.node}
    for layer in layers(model):
        sizes = [
            np.prod(shape_of(m, nodes[layer.node].input[1]))
            for m, nodes in ((result, emitted), (model, originals))
        ]
        found.setdefault(layer.role, set()).add(float(sizes[0] / sizes[1]))
    return found


def counts(model: onnx.ModelProto) -> set[tuple[int, ...]]:
    """How many heads the operators of a model say that they have."""
    return {
        tuple(a.i for name in COUNTS for a in node.attribute if a.name == name)
        for node in model.graph.node
        if node.op_type in ATTENTIONS
    } - {()}


def rows(path: Path) -> Iterator[list[str]]:
    model = onnx.load(path)
    name, form, _ = path.name.split(".")
    for kind, roles in MADE.items():
        pruned = {}
        for layer in layers(model):
            node = next(node for node in model.graph.node if node.name == layer.node)
            if layer.role in roles:
                side = "input" if kind == "read" else "output"
                size = shape_of(model, node.input[1])[0 if kind == "read" else 1]
                pruned[layer.node] = side, channels(layer, size)
        try:
            yield [name, form, kind, str(len(pruned)), *row(model, pruned)]
        except onnx_upscale.UpscaleError as error:
            yield [name, form, kind, f"NO: {error}"]


def row(model: onnx.ModelProto, pruned: Mapping[str, tuple[str, list[int]]]) -> list[str]:
    """What both strategies leave."""
    masks = {"version": 1, "masks": {key: {side: at} for key, (side, at) in pruned.items()}}
    made = [onnx_upscale.optimize(model, masks, strategy=each) for each in ("auto", "gather")]
    wanted = zeroed(model, pruned)
    apart = max(difference(wanted, each.model) for each in made)
    left = [shares(model, each.model) for each in made]
    exact = all(left[0][role] == left[1][role] == {SHARES[role]} for role in left[0])
    told = ", ".join(
        f"{role} {'/'.join(f'{share:.3g}' for share in sorted(found | left[1][role]))}"
        for role, found in left[0].items()
    )
    before, after = counts(model), counts(made[0].model)
    equal = apart <= LARGEST_DIFFERENCE and all(each.report.verify.ok for each in made)
    macs = made[0].report.output.macs / made[0].report.input.macs
    heads = " to ".join(_counted(each) for each in (before, after)) if before else ""
    return [
        told,
        "yes" if exact else "NO",
        heads,
        "yes" if equal else "NO",
        f"{apart:.0e}",
        f"{macs:.3f}",
    ]


def _counted(found: set[tuple[int, ...]]) -> str:
    return ", ".join("/".join(map(str, each)) for each in sorted(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default="*")
    args = parser.parse_args()
    head = ["model", "form", "masks", "masked layers", "weights left", "exactly"]
    head += ["heads", "equal", "largest difference", "multiply-adds left"]
    print(f"| {' | '.join(head)} |\n{'| --- ' * len(head)}|", flush=True)
    for path in sorted(args.folder.glob(f"{args.models}.onnx")):
        for row in rows(path):
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
