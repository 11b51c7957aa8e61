"""What is held in memory while a model is written."""

from __future__ import annotations

from typing import Any

import onnx_graphsurgeon as gs
import pytest

import onnx_upscale
from build import Net, weight_shape
from mask_document import document
from onnx_upscale.optimizer.apply.surgery import Surgery


def test_what_is_written_is_not_held_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    made, constant = list[gs.Constant](), Surgery.constant

    def noted(surgery: Surgery, name: str, values: Any) -> gs.Constant:
        made.append(constant(surgery, name, values))
        return made[-1]

    monkeypatch.setattr(Surgery, "constant", noted)
    net = Net(17, x=(1, 4, 8, 8))
    hidden = net("Conv", "x", net.random(8, 4, 3, 3), net.random(8), name="first")
    model = net.model(net("Conv", hidden, net.random(6, 8, 3, 3), name="second"))
    masks = document({"second.input": [2, 5]})
    found = onnx_upscale.optimize(model, masks, strategy="gather", verify=False)
    assert weight_shape(found.model, "first") == (6, 4, 3, 3)
    assert len(made) >= 3
    assert all(each.values.size == 0 for each in made)
