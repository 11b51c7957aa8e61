"""The sample model: what recovering brings, and that the zeros stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Array, run

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture(scope="module")
def images() -> Array:
    return np.asarray(np.load(MODELS / "digits.npz")["images"] / np.float32(16))


def agreement(one: onnx.ModelProto, other: onnx.ModelProto, images: Array) -> float:
    (wanted,), (got,) = (run(each, {"image": images}) for each in (one, other))
    return float((wanted.argmax(1) == got.argmax(1)).mean())


@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False])
def test_what_pruning_breaks_is_repaired(images: Array, own: bool) -> None:
    model = onnx.load(MODELS / "digits.onnx")
    masks = MODELS / "digits.masks.json" if own else onnx_upscale.mask(model, "l1", 0.5)
    done = onnx_upscale.recover(model, masks, images[:60])
    (output,) = done.report["outputs"]
    assert output["error_after"] < output["error_before"] / 5
    before = onnx_upscale.optimize(model, masks)
    after = onnx_upscale.optimize(done.model, None)
    assert after.report.verify.ok
    assert after.report.output.macs == before.report.output.macs
    assert after.report.output.nodes == before.report.output.nodes
    # Four layers without a bias got one.
    assert after.report.output.params == before.report.output.params + 4 * 24
    others = images[60:]
    assert agreement(model, after.model, others) > 0.97
    if not own:
        assert agreement(model, before.model, others) < 0.5
