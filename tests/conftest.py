"""What must be said before any test is read.

How many random examples tests look at, as `--hypothesis-profile=long` is read first: `build`, the
same every time, or `long`. And which modules of the kit assert, so that they tell the values, or
have fixtures.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("bodies_checks", "build", "rule_cases")
pytest_plugins = ["command", "exporting"]

_COMMON: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "print_blob": True,
}
settings.register_profile("build", max_examples=100, derandomize=True, database=None, **_COMMON)
settings.register_profile("long", max_examples=5000, **_COMMON)
settings.load_profile("build")
