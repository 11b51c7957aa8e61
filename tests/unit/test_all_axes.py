"""All axes laid out at once are what each is by itself."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from case import Case
from onnx_upscale.optimizer.analyze import find_structure
from onnx_upscale.optimizer.analyze.all_axes import find_all_axes
from onnx_upscale.optimizer.load import load
from strategies import cases


@settings(max_examples=40)
@given(cases())
def test_each_axis_is_in_the_order_of_its_segment(case: Case) -> None:
    structure = find_structure(load(case.model).graph)
    rng, roots = np.random.default_rng(0), structure.roots
    kept = (rng.random(len(roots)) < 0.7)[roots]
    rank, frozen = np.zeros(len(roots), np.int64), np.zeros(len(roots), bool)
    for segment in structure.segments:
        rank[segment.roots] = rng.permutation(len(segment.roots))
        if segment.id % 3 == 1:
            frozen[segment.roots] = kept[segment.roots] = True
    kept, frozen = kept[roots], frozen[roots]
    laid = structure.all_axes.laid_out(kept, rank, frozen)
    for axes in structure.axes.values():
        for labels in axes.values():
            own = roots[labels].tolist()
            if not own or len(set(own)) < len(own):
                assert labels.tobytes() not in laid
                continue
            wanted = [place for place, root in enumerate(own) if kept[root]]
            if not frozen[own[0]]:
                wanted.sort(key=lambda place: rank[own[place]])
            assert laid[labels.tobytes()].tolist() == wanted


def test_no_axes() -> None:
    none = np.zeros(0, np.int64)
    assert not find_all_axes(none, (), ()).laid_out(none > 0, none, none > 0)
