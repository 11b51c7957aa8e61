"""The table of rules: what each operator means for channels.

A rule is a function of a `Context`. It is looked up by (domain, operator type); an operator that is
not in the table pins its axes. To teach the package an operator, register one here or, if it
behaves like its neighbours, add its name to the list above theirs.
"""

from __future__ import annotations

from collections.abc import Callable

from onnx_upscale.optimizer.analyze.context import Context
from onnx_upscale.optimizer.load.inlining import SPARED
from onnx_upscale.optimizer.load.pointwise import MICROSOFT

Rule = Callable[[Context], None]

RULES: dict[tuple[str, str], Rule] = {}


def rule(operators: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Registers a rule.

    Args:
        operators: Names of operator types, separated by spaces.
        domain: Their domain.

    Returns:
        A decorator that leaves the function as it is.
    """

    def register(function: Rule) -> Rule:
        RULES.update({(domain, operator): function for operator in operators.split()})
        if domain not in ("", MICROSOFT):
            SPARED.update((domain, operator) for operator in operators.split())
        return function

    return register
