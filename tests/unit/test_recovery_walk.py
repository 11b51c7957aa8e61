"""Running both models from level to level."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_upscale
from build import Array, Net, run
from onnx_upscale.activations import shelf, up_to
from onnx_upscale.recovery import fit, walk
from onnx_upscale.recovery.repair import SURE

MASKS = {"version": 1, "masks": {f"w{index}": {"input": [index, 3]} for index in range(1, 4)}}


def residual(ir_version: int = 10) -> onnx.ModelProto:
    """Blocks whose result is added to what they read, and a constant that is made on the way."""
    net = Net(17, x=["batch", 3, 5, 5])
    tensor = net("Conv", "x", net.constant(net.random(6, 3, 1, 1), "w0"))
    shape = net("Shape", tensor)
    for index in range(1, 4):
        weight = net.constant(net.random(6, 6, 3, 3) / 4, f"w{index}")
        made = net("Conv", net("Relu", tensor), weight, pads=[1, 1, 1, 1])
        tensor = net("Add", tensor, made)
    model = net.model(net("Reshape", net("Relu", tensor), shape))
    model.ir_version = ir_version
    if ir_version < 4:
        model.graph.input.extend(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in model.graph.initializer
        )
    return model


def samples() -> Array:
    return np.random.default_rng(1).standard_normal((20, 3, 5, 5)).astype(np.float32)


def weights(model: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("disk", [0.0, 1e-6, 0.5])
@pytest.mark.parametrize("most", [0, 5000, 30000])
def test_going_on_and_starting_again_give_the_same(
    monkeypatch: pytest.MonkeyPatch, most: int, disk: float
) -> None:
    """In memory, in files, and where neither has room."""
    wanted = weights(onnx_upscale.recover(residual(), MASKS, samples()).model)
    monkeypatch.setattr(shelf, "MOST_BYTES", most)
    monkeypatch.setattr(shelf, "_SHARE", disk)
    got = weights(onnx_upscale.recover(residual(), MASKS, samples()).model)
    assert got.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(got[name], values, atol=1e-4, err_msg=name)


def test_samples_are_read_once_and_nodes_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[list[str]] = []
    cut = up_to

    def recorded(*args: object) -> onnx.ModelProto:
        part = cut(*args)  # type: ignore[arg-type]
        parts.append([node.name for node in part.graph.node])
        return part

    monkeypatch.setattr(walk, "up_to", recorded)
    onnx_upscale.recover(residual(), MASKS, samples())
    dense = [name for part in parts[::2] for name in part]
    assert len(parts) == 6
    assert len(set(dense)) == len(dense) == 8  # Without Shape, the last Conv and what follows.


def test_single_precision_gives_the_same_model(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, made = samples() + 10, []
    for sure in (SURE, np.inf):
        monkeypatch.setattr(fit, "SURE", sure)
        made += run(onnx_upscale.recover(residual(), MASKS, inputs).model, {"x": inputs})
    single, double = made
    assert not np.array_equal(single, double)
    np.testing.assert_allclose(single, double, atol=1e-4 * double.std())


def test_what_did_not_change_is_not_put_aside_again(monkeypatch: pytest.MonkeyPatch) -> None:
    put: list[object] = []
    original = shelf.Shelf.put

    def recorded(self: shelf.Shelf, name: object, array: Array) -> bool:
        put.append(name)
        return original(self, name, array)

    monkeypatch.setattr(shelf.Shelf, "put", recorded)
    onnx_upscale.recover(residual(), MASKS, samples())
    assert {put.count(name) for name in put} == {2}  # Once per batch.


def test_a_level_that_does_not_fit_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    before: list[int] = []
    original = shelf.Shelf.put

    def refusing(self: shelf.Shelf, name: object, array: Array) -> bool:
        before.append(len(self._rows))
        return len(before) != 2 and original(self, name, array)

    monkeypatch.setattr(shelf.Shelf, "put", refusing)
    onnx_upscale.recover(residual(), MASKS, samples())
    assert before[:4] == [0, 1, 0, 1]


def test_initializers_that_are_listed_as_inputs() -> None:
    old, new = (
        onnx_upscale.recover(residual(version), MASKS, samples()).model for version in (3, 10)
    )
    assert {value.name for value in old.graph.input} == {"x", *weights(old)}
    for name, values in weights(new).items():
        np.testing.assert_array_equal(weights(old)[name], values)


def test_progress_comes_to_its_end() -> None:
    calls: list[tuple[int, int]] = []
    onnx_upscale.recover(
        residual(), MASKS, samples(), progress=lambda done, of: calls.append((done, of))
    )
    assert calls[-1] == (48, 48)  # Three levels of 16 samples.
    assert sorted(calls) == calls
