"""Every rule has a case in one of the families."""

from __future__ import annotations

import test_dynamic
import test_einsum
import test_elementwise
import test_few_bits
import test_fused
import test_layers
import test_movement
import test_normalization
import test_pooling
import test_quantized
import test_reshaping
import test_spatial

import fused_attention
import recurrent_cases
from onnx_upscale.optimizer.analyze.rules import RULES
from rule_cases import NEWEST, OPSETS, SINCE, UNKNOWN

FAMILIES = (
    test_einsum,
    test_elementwise,
    test_fused,
    test_layers,
    test_movement,
    test_normalization,
    test_pooling,
    test_reshaping,
    test_spatial,
)


def test_the_table_names_every_rule() -> None:
    """A rule that is added without a case here is found out."""
    seen = {
        (node.domain, node.op_type)
        for family in FAMILIES
        for case in family.CASES
        if case.since <= NEWEST
        for opset in [max(o for o in OPSETS if o <= case.until)]
        for node in case.model(opset, {}).graph.node
    }
    models = [case.model(name, {}) for name, case in test_quantized.CASES.items()]
    models += [case.model(name, {}) for name, case in test_dynamic.CASES.items()]
    models += [test_few_bits.build(form, {}, False) for form in test_few_bits.FORMS.values()]
    models += [case.model(name, {}) for name, case in recurrent_cases.CASES.items()]
    models += [form.model({}) for form in fused_attention.FORMS.values()]
    seen |= {(node.domain, node.op_type) for model in models for node in model.graph.node}
    known = {(domain, op) for domain, op in RULES if domain or SINCE.get(op, UNKNOWN) <= NEWEST}
    # What has no kernel on a CPU, or reads integers, is tested by itself.
    others = {
        ("com.microsoft", op) for op in ("BiasAdd", "BiasSplitGelu", "EmbedLayerNormalization")
    }
    assert known - seen == {("", "ArgMin")} | others
