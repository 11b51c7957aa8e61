"""Einsum as a contraction: which letters of its equation mean what.

It is a layer if one operand is constant, and one letter is contracted: it stands in both operands
and not in the result. Letters of the weight that the result has as well, and the data has not, are
output channels; of several at once nobody knows which would leave, so that they stay.
"""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx_upscale.optimizer.load.graph import Graph, Node
from onnx_upscale.optimizer.load.layers import Layer, Sizes, layer_operator


@dataclass(frozen=True)
class Equation:
    """The equation of an Einsum, with a letter for every axis.

    Attributes:
        terms: The letters of each operand.
        result: The letters of what it makes.
    """

    terms: tuple[str, ...]
    result: str

    @property
    def contracted(self) -> str:
        """The letters that several operands have, and the result has not."""
        letters = dict.fromkeys("".join(self.terms))
        return "".join(
            letter
            for letter in letters
            if letter not in self.result and sum(letter in term for term in self.terms) > 1
        )


def equation_of(text: str, ranks: Sequence[int]) -> Equation | None:
    """Reads an equation.

    Args:
        text: The equation; "..." stands for as many axes as an operand has beside its letters.
        ranks: How many axes each operand has.

    Returns:
        The equation without "..."; None where it has no "->", takes a diagonal, or does not fit.
    """
    left, arrow, right = text.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or len(terms) != len(ranks):
        return None
    spare = [letter for letter in string.ascii_letters if letter not in text]
    rests = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    if any(rest < 0 or (rest and "..." not in t) for t, rest in zip(terms, rests, strict=True)):
        return None
    widest = max((rest for t, rest in zip(terms, rests, strict=True) if "..." in t), default=0)
    if widest > len(spare):
        return None
    rest_letters = "".join(spare[:widest])
    full = tuple(
        term.replace("...", rest_letters[widest - rest :])
        for term, rest in zip(terms, rests, strict=True)
    )
    result = right.replace("...", rest_letters)
    whole = [*full, result]
    if any(len(set(each)) != len(each) or not each.isalpha() for each in whole if each):
        return None
    return None if set(result) - set("".join(full)) else Equation(full, result)


def equation_text(attributes: Mapping[str, Any]) -> str:
    """The equation that a node has as its attribute."""
    return bytes(attributes.get("equation", b"")).decode("utf-8", "replace")


def _work(attributes: Mapping[str, Any], data: Sizes, weight: Sizes, made: Sizes) -> int:
    """One for every choice of a position for each letter."""
    equation = equation_of(equation_text(attributes), (len(data), len(weight)))
    if equation is None:
        return 0
    sizes: dict[str, int] = {}
    for term, shape in zip(equation.terms, (data, weight), strict=True):
        for letter, size in zip(term, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return math.prod(sizes.values())


@layer_operator("Einsum", _work, weight_slots=(0, 1))
def _einsum(graph: Graph, node: Node, slot: int, shape: tuple[int, ...]) -> Layer | None:
    data = graph.shapes.get(node.input(1 - slot))
    if data is None or len(node.inputs) != 2:
        return None
    ranks = (len(data), len(shape)) if slot else (len(shape), len(data))
    equation = equation_of(equation_text(node.attributes), ranks)
    if equation is None or len(equation.contracted) != 1:
        return None
    letter, result = equation.contracted, equation.result
    weight, other = equation.terms[slot], equation.terms[1 - slot]
    if set(weight + other) - {letter} - set(result):
        return None  # It sums over an axis of one operand alone.
    own = [each for each in weight if each in result and each not in other]
    at, out = (result.index(own[0]), weight.index(own[0])) if len(own) == 1 else (None, None)
    return Layer(
        node, shape, 1 - slot, slot, None, other.index(letter), at, len(result),
        weight.index(letter), out,
    )  # fmt: skip
