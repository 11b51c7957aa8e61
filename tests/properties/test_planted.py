"""Errors planted on purpose: verification must find each of them on generated models."""

from __future__ import annotations

import pytest

from planted import ERRORS
from planting import MODELS, caught_by_us, first_caught


def test_there_are_enough_of_them() -> None:
    assert len(ERRORS) >= 25
    areas = {name.partition(":")[0] for name in ERRORS}
    assert {"masks", "rules", "constants", "needs", "order"} < areas
    assert {"realizations", "weights", "biases", "emit"} < areas


@pytest.mark.slow
def test_nothing_is_caught_where_nothing_is_wrong() -> None:
    assert first_caught(None, caught_by_us, models=30) is None


@pytest.mark.slow
@pytest.mark.parametrize("error", ERRORS)
def test_verification_catches(error: str) -> None:
    assert first_caught(error, caught_by_us) is not None, f"not within {MODELS} models"
