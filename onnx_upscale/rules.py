"""The rule table, for those who teach the package operators of their own (docs/rules.md).

A rule is a function of a `Context`: it says what becomes of the channels that its node reads. Rules
are looked up by domain and operator type; an operator that has none keeps its channels.

An operator with a weight that masks can name is a layer: `layer_operator` registers the function
that tells how it uses its weight, and its rule says `contract`.
"""

from onnx_upscale.optimizer.analyze.context import Context, UnclearError
from onnx_upscale.optimizer.analyze.facts import Carry, How
from onnx_upscale.optimizer.analyze.rules import RULES
from onnx_upscale.optimizer.analyze.rules.layers import contract
from onnx_upscale.optimizer.analyze.rules.table import Rule, rule
from onnx_upscale.optimizer.load.layers import LAYER_OPERATORS, Layer, layer_of, layer_operator

__all__ = [
    "LAYER_OPERATORS",
    "RULES",
    "Carry",
    "Context",
    "How",
    "Layer",
    "Rule",
    "UnclearError",
    "contract",
    "layer_of",
    "layer_operator",
    "rule",
]
