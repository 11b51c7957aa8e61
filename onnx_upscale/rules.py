"""The rule table, for those who teach the package operators of their own (docs/rules.md).

A rule is a function of a `Context`: it says what becomes of the channels that its node reads. Rules
are looked up by domain and operator type; an operator that has none keeps its channels.
"""

from onnx_upscale.optimizer.analyze.context import Context, UnclearError
from onnx_upscale.optimizer.analyze.facts import Carry
from onnx_upscale.optimizer.analyze.rules import RULES
from onnx_upscale.optimizer.analyze.rules.table import Rule, rule

__all__ = ["RULES", "Carry", "Context", "Rule", "UnclearError", "rule"]
