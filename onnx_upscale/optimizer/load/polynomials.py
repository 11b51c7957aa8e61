"""Sizes that only a run shows, as sums of products of names with whole coefficients.

`n*s+n` is n images of s patches and one more token each. Two sizes that are equal as polynomials
are equal at every run; nothing is said of the others. A name stands for a size, so it is never
negative.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

Product: TypeAlias = "tuple[str, ...]"
"""Names in ascending order, each as often as it is multiplied; none at all stands for 1."""

# Names that start with a tilde are made here, and hold neither sign.
_FACTOR = re.compile(r"(?P<number>-?\d+)|(?P<name>[A-Za-z_][\w.]*|~[^+*]*)")


@dataclass(frozen=True)
class Polynomial:
    """A sum of products of sizes.

    Attributes:
        terms: Products with their coefficients, none of them 0, in ascending order.
    """

    terms: tuple[tuple[Product, int], ...]

    @property
    def constant(self) -> int | None:
        """Its value, where that depends on no name."""
        if not self.terms:
            return 0
        ((product, coefficient),) = self.terms[:1]
        return coefficient if len(self.terms) == 1 and not product else None

    @property
    def size(self) -> int | str:
        """How shapes write it: a number, or a text that `polynomial` reads."""
        constant = self.constant
        return self.text if constant is None else constant

    @property
    def text(self) -> str:
        """A text that is the same for equal polynomials only."""
        return "+".join(
            "*".join((*(() if factor == 1 and product else (str(factor),)), *product))
            for product, factor in self.terms or (((), 0),)
        )

    @property
    def is_positive(self) -> bool:
        """Whether it is more than 0 whatever its names stand for; False where that depends."""
        return all(factor > 0 for _, factor in self.terms) and not (
            self.terms[:1] == () or self.terms[0][0]
        )

    def __add__(self, other: Polynomial) -> Polynomial:
        """The sum."""
        terms = Counter(dict(self.terms))
        for product, factor in other.terms:
            terms[product] += factor
        return _collected(terms)

    def __sub__(self, other: Polynomial) -> Polynomial:
        """The difference."""
        return self + other * number(-1)

    def __mul__(self, other: Polynomial) -> Polynomial:
        """The product."""
        terms: Counter[Product] = Counter()
        for one, factor in self.terms:
            for two, times in other.terms:
                terms[tuple(sorted(one + two))] += factor * times
        return _collected(terms)

    def over(self, other: Polynomial) -> Polynomial | None:
        """The quotient, where the division leaves nothing; None otherwise.

        Division by leading terms, in the graded lexicographic order of monomials.
        """
        names = sorted({name for product, _ in (*self.terms, *other.terms) for name in product})

        def leading(each: Polynomial) -> tuple[Product, int]:
            return max(each.terms, key=lambda term: (len(term[0]), *map(term[0].count, names)))

        found, rest = number(0), self
        while rest.terms:
            part = _ratio(leading(rest), leading(other)) if other.terms else None
            if part is None:
                return None
            found, rest = found + part, rest - part * other
        return found

    def at(self, values: Mapping[str, int]) -> int | None:
        """Its value, given one for each of its names; None where one is missing."""
        total = 0
        for product, factor in self.terms:
            for name in product:
                if name not in values:
                    return None
                factor *= values[name]
            total += factor
        return total


def _collected(terms: Mapping[Product, int]) -> Polynomial:
    return Polynomial(
        tuple(sorted((product, factor) for product, factor in terms.items() if factor))
    )


def _ratio(one: tuple[Product, int], other: tuple[Product, int]) -> Polynomial | None:
    left = Counter(one[0])
    left.subtract(other[0])
    if one[1] % other[1] or min(left.values(), default=0) < 0:
        return None
    return Polynomial(((tuple(sorted(left.elements())), one[1] // other[1]),))


def number(value: int) -> Polynomial:
    """A polynomial without names."""
    return Polynomial((((), value),) if value else ())


@lru_cache(maxsize=1 << 12)
def polynomial(size: int | str) -> Polynomial:
    """Reads a size.

    Args:
        size: A number, or a text. A text that is no sum of products of names is one name.

    Returns:
        The polynomial.
    """
    if isinstance(size, int):
        return number(size)
    total = number(0)
    for term in size.replace(" ", "").split("+"):
        product = number(1)
        for factor in term.split("*"):
            found = _FACTOR.fullmatch(factor)
            if found is None:
                return Polynomial((((size,), 1),))
            value = found["number"]
            product *= number(int(value)) if value else Polynomial((((factor,), 1),))
        total += product
    return total


def product_of(sizes: Iterable[int | str]) -> Polynomial:
    """The product of some sizes."""
    total = number(1)
    for size in sizes:
        total *= polynomial(size)
    return total
