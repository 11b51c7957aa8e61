"""Errors planted on purpose: verification must find each of them on generated models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from planted import ERRORS
from planting import MODELS, caught_by_us, first_caught

PAGE = Path(__file__).parents[2] / "docs" / "verification.md"
# How many models each error took when it was last counted: to begin there saves minutes.
COUNTED = {
    name: int(count)
    for name, count in re.findall(r"^\| (\w+: .*?) \| (\d+) \|", PAGE.read_text("utf-8"), re.M)
}


def test_there_are_enough_of_them() -> None:
    assert len(ERRORS) >= 25
    areas = {name.partition(":")[0] for name in ERRORS}
    assert {"masks", "rules", "constants", "needs", "order"} < areas
    assert {"realizations", "weights", "biases", "emit"} < areas


@pytest.mark.slow
def test_nothing_is_caught_where_nothing_is_wrong() -> None:
    assert first_caught(None, caught_by_us, models=12) is None


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS)
def test_verification_catches(error: str) -> None:
    found = first_caught(error, caught_by_us, likely=COUNTED.get(error, 1))
    assert found is not None, f"not within {MODELS} models"


def test_the_page_has_all_of_them() -> None:
    assert COUNTED.keys() == ERRORS.keys()
