"""Sizes as polynomials of names: what is equal is written the same way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_upscale.optimizer.load.polynomials import Polynomial, number, polynomial, product_of


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("n*s", "s*n"),
        ("n + 1", "1+n"),
        ("2*n+3*n", "5*n"),
        ("n*n", "n*n"),
        ("n+-1*n", 0),
        ("2*3", 6),
        ("n*0", 0),
        ("-1*n+n+4", 4),
    ],
)
def test_equal_sizes_are_written_the_same_way(text: str, same: int | str) -> None:
    assert polynomial(text).size == polynomial(same).size


@pytest.mark.parametrize("text", ["floor(n/2)", "(a+b)*c", "n-1", "a//b*3", "a b*", "n/2", "a:0"])
def test_a_text_that_is_no_sum_of_products_is_one_name(text: str) -> None:
    assert polynomial(text).size == text
    assert polynomial(text) != polynomial("n")


def test_sums_and_products() -> None:
    n, s = polynomial("n"), polynomial("s")
    assert (n * (s + number(1))).size == "n+n*s"
    assert (n * s - s * n).size == 0
    assert product_of(["n", 4, "s", 2]).size == "8*n*s"


@pytest.mark.parametrize(
    ("one", "other", "quotient"),
    [
        ("12*n*s", "4*n", "3*s"),
        ("n*s+n", "n", "s+1"),
        ("n*s+n", "s+1", "n"),
        ("a*b+a+b+1", "b+1", "a+1"),
        ("n*n+-1", "n+1", "n+-1"),
        ("n*s", "s*n", 1),
        (0, "n", 0),
        ("3*n", 2, None),
        ("n*s+1", "n", None),
        ("n", "n+1", None),
        ("n", 0, None),
        (24, 8, 3),
    ],
)
def test_division_without_a_remainder(
    one: int | str, other: int | str, quotient: int | str | None
) -> None:
    found = polynomial(one).over(polynomial(other))
    assert found == (None if quotient is None else polynomial(quotient))


@pytest.mark.parametrize(
    ("text", "positive"),
    [("n+1", True), ("n", False), (1, True), (0, False), ("n+-1", False), ("n*s+n+2", True)],
)
def test_a_name_may_stand_for_nothing(text: int | str, positive: bool) -> None:
    assert polynomial(text).is_positive is positive


_SIZES = st.lists(
    st.tuples(st.lists(st.sampled_from("abc"), max_size=2), st.integers(-3, 3)), max_size=3
).map(
    lambda terms: sum(
        (number(factor) * product_of(names) for names, factor in terms), start=number(0)
    )
)


@given(_SIZES, _SIZES, st.tuples(*[st.integers(0, 5)] * 3))
def test_arithmetic_agrees_with_that_of_numbers(
    one: Polynomial, other: Polynomial, at: tuple[int, int, int]
) -> None:
    values = dict(zip("abc", at, strict=True))
    first, second = one.at(values), other.at(values)
    assert first is not None and second is not None
    assert (one + other).at(values) == first + second
    assert (one - other).at(values) == first - second
    assert (one * other).at(values) == first * second
    assert polynomial(one.size) == one
    if other.terms:
        assert (one * other).over(other) == one


def test_a_value_needs_all_names() -> None:
    assert polynomial("n*s+2").at({"n": 3, "s": 4}) == 14
    assert polynomial("n*s+2").at({"n": 3}) is None
