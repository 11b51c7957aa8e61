"""Sizes that are open: at which of them work is counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Net
from onnx_upscale.optimizer.load import load
from onnx_upscale.running import Session
from targets import TARGETS

WIDTH = 32
MASKS = {
    "version": 1,
    "masks": {"a": {"input": [*range(0, WIDTH, 2)]}, "b": {"input": [*range(9)]}},
}
_ONE = onnx.helper.make_tensor("", onnx.TensorProto.INT64, [1], [1])


def tokens(*, batch: int | str = "n", length: int | str = "s") -> onnx.ModelProto:
    """Tokens through two layers, and one more for the first of them; `second` reads 32 channels."""
    net = Net(17, x=[batch, length, 8])
    made = net("Relu", net("MatMul", "x", net.constant(net.random(8, WIDTH), "first")))
    made = net("Relu", net("MatMul", made, net.constant(net.random(WIDTH, WIDTH), "second")))
    flat = net("Reshape", made, net.ints(-1, WIDTH))
    one = net("Gather", made, np.int64(0), axis=1)
    return net.model(flat, net("MatMul", one, net.constant(net.random(WIDTH, 64), "last")))


def selected() -> onnx.ModelProto:
    """A layer on tokens of which nothing but a run shows how many there are: all of them."""
    net = Net(17, x=["n", "s", 8])
    lengths = net("Slice", net("Shape", "x"), net.ints(1), net.ints(2))
    places = net("NonZero", net("ConstantOfShape", lengths, value=_ONE))
    chosen = net("Gather", "x", net("Reshape", places, net.ints(-1)), axis=1)
    made = net("MatMul", chosen, net.constant(net.random(8, WIDTH), "first"))
    return net.model(net("MatMul", net("Relu", made), net.random(WIDTH, 4)))


def images(*sizes: int | str) -> onnx.ModelProto:
    """One tensor, two readers."""
    net = Net(17, x=[1, 3, *sizes])
    made = net("Relu", net("Conv", "x", net.constant(net.random(WIDTH, 3, 1, 1), "w")))
    ends = [net("Conv", made, net.constant(net.random(64, WIDTH, 3, 3), name)) for name in "ab"]
    return net.model(*ends)


def counted(model: onnx.ModelProto, *, runs: bool = True, **sizes: tuple[int, ...]) -> Any:
    graph = load(model, sizes=sizes or None, runs=runs).graph
    return {name: graph.counted.get(name) for node in graph.nodes for name in node.outputs}


class TestShapes:
    def test_nobody_says(self) -> None:
        found = counted(tokens())
        assert (1, 16, WIDTH) in found.values()  # As where a model is verified.
        assert (16, WIDTH) in found.values()
        assert (1, 64) in found.values()

    def test_sizes_are_given(self) -> None:
        found = counted(tokens(), x=(2, 24, 8))
        assert (2, 24, WIDTH) in found.values()
        assert (48, WIDTH) in found.values()

    def test_what_is_fixed_stays(self) -> None:
        model = tokens(batch=2, length=24)
        graph = load(model).graph
        assert all(graph.counted[name] == shape for name, shape in graph.shapes.items())
        assert [*counted(model).values()] == [*counted(tokens(), x=(2, 24, 8)).values()]

    def test_a_run_shows_what_names_do_not_say(self) -> None:
        found = counted(selected(), x=(2, 24, 8))
        assert (2, 24, WIDTH) in found.values()

    def test_no_run_where_none_is_allowed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise AssertionError

        monkeypatch.setattr(Session, "run", refuse)
        found = counted(selected(), runs=False, x=(2, 24, 8))
        assert (2, 1, WIDTH) in found.values()

    def test_an_input_of_no_known_rank_says_nothing(self) -> None:
        model = tokens()
        model.graph.input[0].type.tensor_type.ClearField("shape")
        assert counted(model, runs=False)


class TestPlans:
    @pytest.mark.parametrize("side", [3, 8, 64])
    def test_as_if_the_sizes_were_fixed(self, side: int) -> None:
        how: dict[str, Any] = {"target": "cpu-avx512", "verify": False}
        fixed = onnx_upscale.optimize(images(side, side), MASKS, **how).report
        sizes = {"x": (1, 3, side, side)}
        found = onnx_upscale.optimize(images("h", "w"), MASKS, inputs=sizes, **how).report
        assert found.predicted_seconds == fixed.predicted_seconds
        assert found.segments == fixed.segments
        assert found.input.macs == fixed.input.macs

    def test_large_images_are_worth_a_copy_that_small_ones_are_not(self) -> None:
        found = {
            side: onnx_upscale.optimize(
                images("h", "w"), MASKS, target="cpu-avx512", inputs={"x": (1, 3, side, side)}
            ).report.copies.count
            for side in (3, 64)
        }
        assert found[3] == 0 < found[64]


@pytest.mark.slow
def test_prune_counts_at_the_sizes_of_its_samples() -> None:
    samples = np.random.default_rng(0).standard_normal((40, 24, 8)).astype(np.float32)
    target = TARGETS["blocks of 1"]
    pruned = onnx_upscale.prune(tokens(), samples, macs=0.7, target=target, runs=2)
    macs = pruned.report.macs
    assert macs.before == 24 * (8 * WIDTH + WIDTH * WIDTH) + WIDTH * 64
    assert pruned.report.predicted.share == macs.after / macs.before <= 0.7
    wider = onnx_upscale.prune(
        tokens(), samples, macs=0.7, target=target, runs=2, inputs={"x": (1, 48, 8)}
    )
    assert wider.report.macs.before == 48 * (8 * WIDTH + WIDTH * WIDTH) + WIDTH * 64


@pytest.mark.slow
def test_prune_counts_products_of_activations() -> None:
    net = Net(17, x=["n", 24, 8])
    made = net("Relu", net("MatMul", "x", net.constant(net.random(8, WIDTH), "first")))
    made = net("MatMul", made, net.constant(net.random(WIDTH, 8), "second"))
    scores = net("MatMul", made, net("Transpose", made, perm=[0, 2, 1]))
    samples = np.random.default_rng(0).standard_normal((40, 24, 8)).astype(np.float32)
    target = TARGETS["blocks of 1"]
    pruned = onnx_upscale.prune(net.model(scores), samples, macs=0.8, target=target, runs=2)
    macs = pruned.report.macs
    assert macs.before == 24 * 8 * WIDTH * 2 + 24 * 24 * 8
    assert pruned.report.predicted.share == macs.after / macs.before <= 0.8
