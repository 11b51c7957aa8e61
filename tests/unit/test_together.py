"""Counts of segments that are chosen together, beside all there are."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from build import Net, assert_close, named_outputs
from case import Masks
from onnx_upscale.optimizer.analyze import analyze
from onnx_upscale.optimizer.apply import apply
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.plan import Costs, Plan, check_plan, plan, plan_keeping
from onnx_upscale.prices import load_prices
from onnx_upscale.tuning import together
from onnx_upscale.tuning.together import plan_together
from targets import TARGETS

SIDE = 6


def parted(widths: tuple[int, int, int], opset: int = 17) -> onnx.ModelProto:
    """As in YOLO: half of what a layer makes goes through another, and all is concatenated."""
    first, inner, last = widths
    net = Net(opset, x=(1, 3, SIDE, SIDE))

    def layer(data: str, inputs: int, outputs: int, name: str) -> str:
        weight = net.constant(net.random(outputs, inputs, 1, 1), name)
        return str(net("Relu", net("Conv", data, weight, net.random(outputs))))

    made = layer("x", 3, 2 * first, "a")
    one, other = net.nodes_of("Split", made, net.ints(first, first), outputs=2, axis=1)
    found = layer(layer(other, first, inner, "b"), inner, first, "c")
    whole = net("Concat", one, other, found, axis=1)
    return net.model(layer(layer(whole, 3 * first, last, "d"), last, 4, "e"))


def random_masks(model: onnx.ModelProto, seed: int, share: float) -> Masks:
    rng, found = np.random.default_rng(seed), {}
    for tensor in model.graph.initializer:
        if tensor.name in tuple("bcde"):
            size = tensor.dims[1]
            found[tensor.name] = {"input": rng.permutation(size)[: int(share * size)].tolist()}
    return found


def without(model: onnx.ModelProto, masks: Masks) -> onnx.ModelProto:
    """The masked model: its weights are zero where channels are read that are pruned."""
    zeroed = onnx.ModelProto()
    zeroed.CopyFrom(model)
    for tensor in zeroed.graph.initializer:
        if tensor.name in masks:
            weight = numpy_helper.to_array(tensor).copy()
            weight[:, masks[tensor.name]["input"]] = 0.0
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    return zeroed


def planned(model: onnx.ModelProto, masks: Masks, target: str) -> tuple[Plan, Costs]:
    analysis = analyze(load(model, {"version": 1, "masks": masks}).graph)
    costs = Costs(analysis.structure, load_prices(TARGETS[target]))
    return plan(analysis, "auto", costs), costs


def least_of_all(made: Plan, costs: Costs) -> float:
    """The seconds of the fastest plan with counts that kernels like, first of what `auto` adds."""
    analysis, ways = made.analysis, []
    for segment in analysis.structure.segments:
        needed, kept = (
            set(segment.roots[each.labels[segment.roots]].tolist())
            for each in (analysis.needs, made.kept)
        )
        more = [*sorted(kept - needed), *sorted({*segment.roots.tolist()} - kept)]
        liked = costs.prices.counts(len(needed), segment.grain)
        sizes = {len(kept), *(min(count, len(segment.roots)) for count in liked)}
        ways.append([more[: size - len(needed)] for size in sizes])
    plans = (
        plan_keeping(analysis, analysis.keeping(np.array(wanted, np.int64)), costs)
        for wanted in ([*itertools.chain(*each)] for each in itertools.product(*ways))
    )
    return min(each.seconds for each in plans if each is not None)


def never_ends() -> bool:
    return True


@pytest.mark.parametrize(("few", "more"), [(10**6, 0.0), (0, 0.02)], ids=["all", "pairs"])
@settings(max_examples=12)
@given(
    widths=st.tuples(st.integers(3, 6), st.integers(3, 7), st.integers(3, 9)),
    seed=st.integers(0, 2**16),
    share=st.floats(0.2, 0.8),
    target=st.sampled_from(["blocks of 8", "copies free, align 2", "copies dear", "one layout"]),
)
def test_none_of_all_counts_is_faster(
    few: int, more: float, widths: tuple[int, int, int], seed: int, share: float, target: str
) -> None:
    model = parted(widths)
    masks = random_masks(model, seed, share)
    made, costs = planned(model, masks, target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "_FEW", few)
        found = plan_together(made, costs, never_ends)
    check_plan(found)
    assert found.seconds <= made.seconds
    assert found.seconds <= least_of_all(made, costs) * (1 + more + 1e-9)
    wanted = named_outputs(without(model, masks))
    got = named_outputs(apply(found).model)
    assert_close([*wanted.values()], [*got.values()], target)


def test_it_stops_when_it_is_told_to() -> None:
    model = parted((6, 7, 9))
    made, costs = planned(model, random_masks(model, 3, 0.5), "blocks of 8")
    assert plan_together(made, costs, lambda: False) is made
    asked = iter([True] * 3 + [False])
    plan_together(made, costs, lambda: next(asked))
    assert next(asked, None) is None
