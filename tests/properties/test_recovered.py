"""Random models, random masks: recovering leaves all that masks say, and nothing else is lost."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import assume, given

import onnx_upscale
from build import input_values, named_outputs
from case import Case
from onnx_upscale.optimizer.analyze import analyze
from onnx_upscale.optimizer.load import load
from strategies import cases


@pytest.mark.slow
@given(cases())
def test_recovered(case: Case) -> None:
    inside = (layer for layer in case.layers if layer.path)
    assume(not any(key in case.masks for layer in inside for key in layer.keys))
    content = case.model.SerializeToString(deterministic=True)
    samples = [input_values(case.model, seed) for seed in range(5)]
    done = onnx_upscale.recover(case.model, case.document, samples)
    assert case.model.SerializeToString(deterministic=True) == content
    onnx.checker.check_model(done.model, full_check=True)
    assert list(done.model.graph.input) == list(case.model.graph.input)
    assert list(done.model.graph.output) == list(case.model.graph.output)
    for value in named_outputs(done.model).values():
        assert value.dtype.kind != "f" or not np.isnan(value).any()
    for row in done.report["readers"]:
        assert row["error_after"] <= row["error_before"] + 1e-6, row
    before = analyze(load(case.model, case.document).graph)
    after = analyze(load(done.model).graph)
    for index, needed in before.needs.reads.items():
        title = before.graph.nodes[index].title
        own = [node.index for node in after.graph.nodes if node.title == title]
        assert len(own) == 1
        assert not (after.needs.reads[own[0]] & ~needed).any(), title
