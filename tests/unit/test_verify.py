"""Verification: it must see what is wrong, and say when it could not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import onnx_upscale
from build import Array, Net
from compared import sample, typed
from onnx_upscale import UsageError, VerifyError, VerifySetupError
from onnx_upscale.optimizer.verify import Tolerance, verify
from onnx_upscale.running import Session


def changed(name: str, change: Callable[[Array], None]) -> onnx.ModelProto:
    model = sample()
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    change(values)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return model


class TestDifferences:
    def test_equal(self) -> None:
        found = verify(sample(), sample(), samples=3)
        assert found.ok
        assert found.samples == 3
        assert found.max_rel < 1e-6
        assert found.failure is None
        assert found.warnings == ()

    def test_one_changed_weight(self) -> None:
        def change(values: Array) -> None:
            values[2, 1, 0, 0] += 0.01

        found = verify(sample(), changed("first", change))
        assert not found.ok
        assert 0 < found.max_rel < 1
        assert found.failure is not None and "differs by" in found.failure

    def test_two_swapped_channels(self) -> None:
        def swap(values: Array) -> None:
            values[:, [1, 2]] = values[:, [2, 1]]

        assert not verify(sample(), changed("second", swap)).ok

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, value: float) -> None:
        def spoil(values: Array) -> None:
            values[0, 0] = value

        spoiled = changed("second", spoil)
        for one, other in ((sample(), spoiled), (spoiled, sample())):
            found = verify(one, other)
            assert not found.ok
            assert found.max_abs == np.inf
            assert found.failure is not None and "infinities or NaNs" in found.failure
        assert verify(spoiled, spoiled).ok

    def test_tolerance(self) -> None:
        def scale(values: Array) -> None:
            values *= 1.001

        other = changed("second", scale)
        assert not verify(sample(), other).ok
        assert verify(sample(), other, tolerance=Tolerance(rtol=2e-3)).ok
        assert verify(sample(), other, tolerance=Tolerance(rtol=0, atol=1e3)).ok

    @pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
    def test_tolerance_that_cannot_be_meant(self, value: float) -> None:
        with pytest.raises(UsageError, match="`rtol`"):
            Tolerance(rtol=value)
        with pytest.raises(UsageError, match="`atol`"):
            Tolerance(atol=value)

    def test_other_outputs(self) -> None:
        renamed, more = sample(), sample()
        renamed.graph.node[-1].output[0] = renamed.graph.output[0].name = "other"
        found = verify(sample(), renamed)
        assert found.failure is not None and "is missing" in found.failure
        more.graph.output.append(onnx.ValueInfoProto(name=more.graph.node[0].output[0]))
        found = verify(sample(), more)
        assert found.failure is not None and "is new" in found.failure

    def test_other_shape_or_type(self) -> None:
        net = Net(17, x=[2, 3, 5, 5])
        inner = net("Relu", net("Conv", "x", net.random(4, 3, 3, 3)))
        smaller = net.model(net("Conv", inner, net.random(4, 4, 1, 1)))
        found = verify(sample(), smaller)
        assert found.failure is not None and "(2, 4, 3, 3) instead of" in found.failure
        found = verify(typed(TensorProto.FLOAT, [2]), typed(TensorProto.FLOAT, [2], "Cast", 11))
        assert found.failure is not None and "float64" in found.failure

    def test_an_emitted_model_that_does_not_load(self) -> None:
        found = verify(sample(), typed(TensorProto.FLOAT, [2], "NoSuchOperator"))
        assert not found.ok
        assert found.failure is not None and "emitted model: onnxruntime cannot" in found.failure

    def test_an_original_that_does_not_load(self) -> None:
        broken = typed(TensorProto.FLOAT, [2], "NoSuchOperator")
        with pytest.raises(VerifySetupError, match="NoSuchOperator"):
            verify(broken, broken)

    def test_through_the_interface(self) -> None:
        masks = {"version": 1, "masks": {"second": {"input": [0]}}}
        emitted = onnx_upscale.optimize(sample(), masks).model
        assert onnx_upscale.verify(sample(), masks, emitted).ok
        with pytest.raises(VerifyError, match="verification failed: output"):
            onnx_upscale.verify(sample(), masks, sample())


class TestDoubts:
    def test_outputs_that_ignore_the_inputs(self) -> None:
        def clear(values: Array) -> None:
            values[:] = 0

        blind = changed("second", clear)
        (warning,) = verify(blind, blind).warnings
        assert "do not change with the inputs" in warning
        assert verify(blind, blind, samples=1).warnings == ()  # nothing to compare with

    def test_masks_that_change_nothing(self) -> None:
        (warning,) = verify(sample(), sample(), original=sample()).warnings
        assert "masks do not change the outputs" in warning

        def prune(values: Array) -> None:
            values[:, 0] = 0

        masked = changed("second", prune)
        assert verify(masked, masked, original=sample()).warnings == ()

    @pytest.mark.parametrize(("masked", "runs"), [(True, 1), (False, 3)])
    def test_the_original_runs_until_the_masks_show(
        self, masked: bool, runs: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def prune(values: Array) -> None:
            values[:, 0] = 0

        original = sample()
        original.graph.name = "original"
        run, opened = Session.run, Session.__init__
        originals, ran = list[Session](), list[Session]()

        def opening(session: Session, model: onnx.ModelProto, *given: Any, **named: Any) -> None:
            opened(session, model, *given, **named)
            if model.graph.name == original.graph.name:
                originals.append(session)

        def running(session: Session, *given: Any) -> Any:
            ran.append(session)
            return run(session, *given)

        monkeypatch.setattr(Session, "__init__", opening)
        monkeypatch.setattr(Session, "run", running)
        other = changed("second", prune) if masked else sample()
        assert verify(other, other, original=original, samples=3).ok
        assert sum(each in originals for each in ran) == runs

    def test_in_the_report(self) -> None:
        masks = {"version": 1, "masks": {"second": {"input": []}}}
        warnings = onnx_upscale.optimize(sample(), masks).report["verify"]["warnings"]
        assert ["masks" in warning for warning in warnings] == [True]
        assert onnx_upscale.optimize(sample()).report["verify"]["warnings"] == []


class TestSecondOpinion:
    """onnxruntime's optimizations are not always right; here they are wrong on purpose."""

    factor: float = 2
    added: float = 0

    @pytest.fixture
    def wrong_for(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Names of graphs that optimizations get wrong."""
        wrong: list[str] = []
        test = self

        class Optimizing(Session):
            def __init__(self, model: Any, *, optimized: bool = True) -> None:
                super().__init__(model, optimized=optimized)
                is_wrong = optimized and model.graph.name in wrong
                self.factor = test.factor if is_wrong else 1
                self.added = np.float32(test.added if is_wrong else 0)

            def run(self, inputs: Any, wanted: Any = None) -> Any:
                found = super().run(inputs, wanted)
                return {name: self.factor * v + self.added for name, v in found.items()}

        for module in ("", ".noise", ".pieces"):
            monkeypatch.setattr(
                sys.modules[f"onnx_upscale.optimizer.verify{module}"], "Session", Optimizing
            )
        return wrong

    def named(self, name: str) -> onnx.ModelProto:
        model = sample()
        model.graph.name = name
        return model

    def test_the_masked_model_alone_is_wrong(self, wrong_for: list[str]) -> None:
        wrong_for.append("masked")
        found = verify(self.named("masked"), self.named("emitted"))
        assert found.ok
        assert found.max_rel < 1e-5
        assert found.warnings == ()  # It is run without them in any case.

    def test_the_emitted_model_is_wrong(self, wrong_for: list[str]) -> None:
        wrong_for.append("emitted")
        found = verify(self.named("masked"), self.named("emitted"))
        assert not found.ok
        assert found.failure is not None
        assert "optimizations" in found.failure

    def test_both_are_wrong_in_the_same_way(self, wrong_for: list[str]) -> None:
        wrong_for.extend(("masked", "emitted"))
        found = verify(self.named("masked"), self.named("emitted"))
        assert found.ok
        assert "differs from itself by 1 of its output" in found.warnings[0]

    def test_the_original_and_the_emitted_model_are_wrong(self, wrong_for: list[str]) -> None:
        """As where quantization is fused, which the multiplications of the reference prevent."""
        wrong_for.extend(("original", "emitted"))
        models = [self.named(name) for name in ("masked", "emitted", "original")]
        assert verify(models[0], models[1], original=models[2], masks_matter=False).ok
        assert not verify(models[0], models[1]).ok

    def test_quantized_weights_may_be_computed_coarsely(
        self, wrong_for: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """onnxruntime's product with eight-bit weights rounds what it multiplies them with."""
        wrong_for.append("emitted")

        def model(name: str, quantized: bool) -> onnx.ModelProto:
            net: Any = Net(17, x=[2, 3, 8])
            weight = net.random(8, 4)
            if quantized:
                stored = (weight * 100).astype(np.int8)
                weight = net("DequantizeLinear", stored, np.float32(0.01), np.int8(0))
            made: onnx.ModelProto = net.model(net("MatMul", "x", weight))
            made.graph.name = name
            return made

        for factor, quantized, ok in ((1.02, True, True), (1.02, False, False), (2, True, False)):
            monkeypatch.setattr(self, "factor", factor)
            found = verify(model("masked", quantized), model("emitted", quantized))
            assert found.ok == ok

    def test_what_is_zero_under_masks_may_be_rounded_as_before(
        self, wrong_for: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A fused product takes the zero point off its sum at last, which leaves a rounding."""
        wrong_for.append("emitted")

        def model(name: str, scale: float) -> onnx.ModelProto:
            net: Any = Net(17, x=[2, 3, 8])
            stored = net.random(8, 4).astype(np.int8)
            weight = net("DequantizeLinear", stored + np.int8(1), np.float32(scale), np.int8(0))
            made: onnx.ModelProto = net.model(net("MatMul", "x", weight))
            made.graph.name = name
            return made

        zero = [model(name, 0) for name in ("masked", "emitted")]
        original = model("original", 1)
        for added, ok in ((1e-5, True), (1e-2, True), (10, False)):
            monkeypatch.setattr(self, "added", added)
            assert verify(*zero, original=original, masks_matter=False).ok == ok
            assert not verify(*zero).ok

    @pytest.mark.parametrize(("behind", "ok"), [("LpNormalization", True), ("Sigmoid", False)])
    def test_rounding_of_what_masks_make_zero_may_be_normalized(
        self, wrong_for: list[str], monkeypatch: pytest.MonkeyPatch, behind: str, ok: bool
    ) -> None:
        """A vector of rounding noise divided by its own norm is as large as any other."""
        wrong_for.append("emitted")
        monkeypatch.setattr(self, "factor", 1)
        monkeypatch.setattr(self, "added", 0.25)

        def model(name: str, leak: float = 0) -> onnx.ModelProto:
            net: Any = Net(17, x=[1, 12, 2])
            made = net("Mul", net("MatMul", "x", net.random(2, 1)), np.float32(leak))
            normalized: onnx.ModelProto = net.model(net(behind, made))
            normalized.graph.name = name
            return normalized

        masked, emitted = model("masked"), model("emitted")
        found = verify(masked, emitted, leaking=lambda: model("leaking", 1e-6))
        assert found.ok == ok
        assert not ok or "rounding leaves" in found.warnings[-1]
        assert not verify(masked, emitted).ok

    def test_a_real_difference_stays_one(self, wrong_for: list[str]) -> None:
        def change(values: Array) -> None:
            values[2, 1, 0, 0] += 0.01

        wrong_for.append("masked")
        other = changed("first", change)
        other.graph.name = "emitted"
        found = verify(self.named("masked"), other)
        assert not found.ok
        assert found.failure is not None
        assert "optimizations" not in found.failure
