"""Attention in the forms that exporters write, with zeros where masks say so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from build import Net
from mask_document import Masks

HEADS, WIDTH, TOKENS, CHANNELS = 3, 4, 5, 8
FLAT = HEADS * WIDTH
FORMS = (
    "separate",
    "dynamic",
    "merged",
    "einsum",
    "einsum, tokens first",
    "split",
    "packed",
    "unbound",
    "sliced",
    "windows",
    "image",
    "torch",
    "torch, any batch",
)
_ANY_BATCH = ("dynamic", "windows", "torch, any batch")
_EINSUMS = {
    "einsum": ("B H I D, B H J D -> B H I J", "B H I J, B H J D -> B H I D"),
    "einsum, tokens first": ("bihd,bjhd->bhij", "bhij,bjhd->bihd"),
}
_SEPARATE = ("separate", "dynamic", "merged", *_EINSUMS)


def head(*heads: int) -> list[int]:
    """The channels of some heads."""
    return [number * WIDTH + each for number in heads for each in range(WIDTH)]


def of_each(*channels: int) -> list[int]:
    """Some channels of every head."""
    return [number * WIDTH + each for number in range(HEADS) for each in channels]


class Attention(Net):
    """Attention in one of the forms that exporters write, with zeros where masks say so."""

    def __init__(self, form: str, masks: Masks, opset: int = 18) -> None:
        batch: int | str = "batch" if form in _ANY_BATCH else 2
        super().__init__(opset, x=(batch, TOKENS, CHANNELS))
        self.masks, self.form = masks, form

    def linear(self, tensor: str, name: str, inputs: int, outputs: int) -> str:
        weight, bias = self.random(inputs, outputs), self.random(outputs)
        weight[list(self.masks.get(f"{name}.input", ()))] = 0
        gone = list(self.masks.get(f"{name}.output", ()))
        weight[:, gone] = 0
        bias[gone] = 0
        return self("Add", self("MatMul", tensor, weight, name=name), bias)

    def parted(self, tensor: str) -> str:
        """(batch, tokens, channels) to (batch, heads, tokens, channels of a head)."""
        return self.swapped(self("Reshape", tensor, self.ints(0, TOKENS, HEADS, WIDTH)))

    def swapped(self, tensor: str) -> str:
        """Heads before tokens, or tokens before heads again; an Einsum may do without."""
        if self.form == "einsum, tokens first":
            return tensor
        return self("Transpose", tensor, perm=[0, 2, 1, 3])

    def operands(self) -> list[str]:
        """Queries, keys and values, by heads."""
        if self.form in _SEPARATE:
            return [self.parted(self.linear("x", name, CHANNELS, FLAT)) for name in "qkv"]
        if self.form.startswith("torch"):
            return self.as_torch_does(self("Transpose", "x", perm=[1, 0, 2]))
        flat = self.linear("x", "qkv", CHANNELS, 3 * FLAT)
        if self.form == "split":
            sizes = self.ints(FLAT, FLAT, FLAT)
            parts = self.nodes_of("Split", flat, sizes, outputs=3, axis=2)
            return [self.parted(part) for part in parts]
        turned = self.cut(flat)
        if self.form in ("packed", "windows", "image"):
            return [self("Gather", turned, np.array(place), axis=0) for place in range(3)]
        if self.form == "unbound":
            parts = self.nodes_of("Split", turned, outputs=3, axis=0, num_outputs=3)
        else:
            parts = [
                self("Slice", turned, self.ints(place), self.ints(place + 1), self.ints(0))
                for place in range(3)
            ]
        return [self("Squeeze", part, self.ints(0)) for part in parts]

    def as_torch_does(self, tokens_first: str) -> list[str]:
        """As `torch.nn.MultiheadAttention`: kinds are taken out before there are heads."""
        flat = self.linear(tokens_first, "qkv", CHANNELS, 3 * FLAT)
        batch, of_both = (-1, -1) if self.form in _ANY_BATCH else (2, 2 * HEADS)
        kinds = self("Reshape", flat, self.ints(TOKENS, batch, 3, FLAT))
        turned = self("Transpose", self("Unsqueeze", kinds, self.ints(0)), perm=[3, 1, 2, 0, 4])
        turned = self("Squeeze", turned, self.ints(-2))
        found = []
        for place in range(3):
            own = self("Gather", turned, np.array(place), axis=0)
            merged = self("Reshape", own, self.ints(TOKENS, of_both, WIDTH))
            merged = self("Transpose", merged, perm=[1, 0, 2])
            found.append(self("Reshape", merged, self.ints(batch, HEADS, TOKENS, WIDTH)))
        return found

    def cut(self, flat: str) -> str:
        """(batch, tokens, channels of all) to (kinds, batch, heads, tokens, channels of a head)."""
        if self.form == "image":
            image = self("Unsqueeze", self("Transpose", flat, perm=[0, 2, 1]), self.ints(2))
            parted = self("Reshape", image, self.ints(2, 3, HEADS, WIDTH, TOKENS))
            return self("Transpose", parted, perm=[1, 0, 2, 4, 3])
        windows = 2
        if self.form == "windows":
            flat, windows = self("Unsqueeze", flat, self.ints(0)), -1
        parted = self("Reshape", flat, self.ints(windows, TOKENS, 3, HEADS, WIDTH))
        return self("Transpose", parted, perm=[2, 0, 3, 1, 4])

    def turned(self, keys: str) -> str:
        if self.form == "merged":
            flat = self("Reshape", keys, self.ints(2 * HEADS, TOKENS, WIDTH))
            turned = self("Transpose", flat, perm=[0, 2, 1])
            return self("Reshape", turned, self.ints(2, HEADS, WIDTH, TOKENS))
        if self.form != "dynamic":
            return self("Transpose", keys, perm=[0, 1, 3, 2])
        sizes = self("Shape", keys)
        batch, length, width = (
            self("Slice", sizes, self.ints(start), self.ints(end))
            for start, end in ((0, -2), (-2, -1), (-1, 2**62))
        )
        flat = self("Concat", self.ints(-1), length, width, axis=0)
        merged = self("Transpose", self("Reshape", keys, flat), perm=[0, 2, 1])
        return self("Reshape", merged, self("Concat", batch, width, length, axis=0))

    def scores(self, queries: str, keys: str) -> str:
        if self.form in _EINSUMS:
            return self("Einsum", queries, keys, equation=_EINSUMS[self.form][0])
        return self("MatMul", queries, self.turned(keys))

    def attention(self) -> onnx.ModelProto:
        queries, keys, values = self.operands()
        queries = self("Mul", queries, np.float32(0.5))
        scores = self.scores(queries, keys)
        scores = self("Add", scores, self.random(1, HEADS, TOKENS, TOKENS))
        scores = self("Softmax", scores, axis=-1)
        if self.form in _EINSUMS:
            mixed = self("Einsum", scores, values, equation=_EINSUMS[self.form][1])
        else:
            mixed = self("MatMul", scores, values)
        flat = self("Reshape", self.swapped(mixed), self.ints(0, TOKENS, FLAT))
        return self.model(self.linear(flat, "o", FLAT, CHANNELS))


def attention(form: str, masks: Masks) -> onnx.ModelProto:
    return Attention(form, masks).attention()


def writers(form: str) -> dict[str, tuple[str, int]]:
    """Which layer makes queries, keys and values, and from which of its channels on."""
    if form in _SEPARATE:
        return {name: (name, 0) for name in "qkv"}
    return {name: ("qkv", place * FLAT) for place, name in enumerate("qkv")}


def masked(form: str, parts: str, channels: Sequence[int]) -> Masks:
    """Output masks of queries, keys or values; `o` is the input mask of what reads the result."""
    found: dict[str, list[int]] = {}
    for part in parts:
        name, start = ("o", 0) if part == "o" else writers(form)[part]
        side = "input" if part == "o" else "output"
        found.setdefault(f"{name}.{side}", []).extend(start + each for each in channels)
    return found
