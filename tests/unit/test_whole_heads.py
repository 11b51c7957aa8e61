"""What can leave only as one is one, for those who choose what leaves."""

from __future__ import annotations

import numpy as np
import pytest

from attention import FORMS, HEADS, WIDTH, attention, writers
from build import Net
from onnx_upscale import mask
from onnx_upscale.optimizer.analyze import Structure, find_structure
from onnx_upscale.optimizer.load import load
from onnx_upscale.pruning.families import find_families


def structure(form: str) -> Structure:
    return find_structure(load(attention(form, {})).graph)


@pytest.mark.parametrize("form", FORMS)
def test_the_channels_of_a_head_are_one_unit(form: str) -> None:
    whole = structure(form).with_whole_heads
    reader = next(f.read for f in whole.facts if f.read is not None and f.node.title == "o")
    units = whole.roots[reader.inputs].reshape(HEADS, WIDTH)
    assert (units == units[:, :1]).all()
    assert len(np.unique(units)) == HEADS


@pytest.mark.parametrize("form", FORMS)
def test_a_family_of_heads_has_all_that_leaves_with_one(form: str) -> None:
    (family,) = find_families(structure(form).with_whole_heads)
    assert family.units == HEADS
    assert [(party.layer.node.title, party.times) for party in family.readers] == [("o", WIDTH)]
    made = {party.layer.node.title: party.times for party in family.writers}
    wanted: dict[str, int] = {}
    for name, _ in writers(form).values():
        wanted[name] = wanted.get(name, 0) + WIDTH
    assert made == wanted


def test_without_heads_it_is_the_same() -> None:
    net = Net(18, x=(1, 3))
    plain = find_structure(load(net.model(net("MatMul", "x", net.random(3, 2)))).graph)
    assert plain.with_whole_heads is plain


@pytest.mark.parametrize("form", FORMS)
def test_masks_that_agree_take_whole_heads(form: str) -> None:
    made = mask(attention(form, {}), "l1", 0.4, constrained=True, layers=["o"])
    (entry,) = made["masks"].values()
    gone = np.array(entry["input"])
    assert len(gone) == WIDTH * int(0.4 * HEADS)
    assert len(np.unique(gone // WIDTH)) == int(0.4 * HEADS)
