"""Samples of any kind: what is read, in which batches, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from build import Array, Net
from onnx_upscale import DataError, UpscaleError, UsageError
from onnx_upscale.samples import batches, open_source, split
from onnx_upscale.samples.streams import is_spec


def model(batch: int | str = "batch", length: int | str = 3) -> onnx.ModelProto:
    net = Net(17, x=[batch, length])
    return net.model(net("Relu", "x"))


def rows(count: int, width: int = 3) -> Array:
    return np.arange(count * width, dtype=np.float32).reshape(count, width)


class Reader:
    """As onnxruntime's CalibrationDataReader."""

    def __init__(self, items: list[dict[str, Array]]) -> None:
        self._items = iter(items)

    def get_next(self) -> dict[str, Array] | None:
        return next(self._items, None)


def test_all_kinds_of_sources_hold_the_same_samples(tmp_path: Path) -> None:
    data = rows(5)
    np.save(tmp_path / "a.npy", data)
    np.savez(tmp_path / "a.npz", x=data)
    np.savez(tmp_path / "b.npz", anything=data)
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def samples():\n"
        "    for row in np.arange(15, dtype=np.float32).reshape(5, 1, 3):\n"
        "        yield {'x': row}\n"
        "several = [{'x': np.arange(15, dtype=np.float32).reshape(5, 3)}]\n"
    )
    for source in (
        data,
        {"x": data},
        tmp_path / "a.npy",
        str(tmp_path / "a.npz"),
        tmp_path / "b.npz",
        f"{tmp_path / 'mine.py'}:samples",
        f"{tmp_path / 'mine.py'}:several",
        [{"x": data[:2]}, {"x": data[2:]}],
        ({"x": row[np.newaxis]} for row in data),
        Reader([{"x": data[:4]}, {"x": data[4:]}]),
    ):
        found = open_source(source, model(), 10)
        assert found.count == 5
        np.testing.assert_array_equal(found.at([3, 0])["x"], data[[3, 0]])
        np.testing.assert_array_equal(found.read(1, 3)["x"], data[1:3])


def test_no_more_is_read_of_a_stream_than_is_wanted() -> None:
    asked = []

    def many() -> Iterator[dict[str, Array]]:
        for _ in range(50):
            asked.append(1)
            yield {"x": rows(2)}

    assert open_source(many(), model(), 5).count == 5
    assert len(asked) == 3


def test_a_stream_may_use_its_arrays_again() -> None:
    def stream() -> Iterator[dict[str, Array]]:
        array = np.zeros((1, 3), np.float32)
        for number in range(3):
            array[:] = number
            yield {"x": array}

    np.testing.assert_array_equal(
        open_source(stream(), model(), 9).read(0, 3)["x"][:, 0], [0, 1, 2]
    )


def test_batches_are_as_the_model_wants_them() -> None:
    found = open_source(rows(20), model(), 20)
    chosen = np.array([1, 4, 7, 8, 9, 11, 12, 15, 17])
    made = list(batches(found, chosen, model()))
    assert [batch.present for batch in made] == [8, 1]
    np.testing.assert_array_equal(
        np.concatenate([batch.inputs["x"] for batch in made]), rows(20)[chosen]
    )
    fixed = model(4)
    made = list(batches(open_source([{"x": rows(3)}] * 3, fixed, 9), np.arange(9), fixed))
    assert [batch.present for batch in made] == [4, 4, 1]
    assert {batch.inputs["x"].shape for batch in made} == {(4, 3)}


def test_samples_of_different_shapes_run_one_by_one() -> None:
    lengths = model(length="length")
    found = open_source([{"x": rows(2, 3)}, {"x": rows(1, 5)}], lengths, 9)
    made = list(batches(found, np.arange(3), lengths))
    assert [batch.inputs["x"].shape for batch in made] == [(1, 3), (1, 3), (1, 5)]


def test_the_split_is_the_same_every_time_and_disjoint() -> None:
    fitted, held = split(100, 30, seed=3)
    assert (len(fitted), len(held)) == (24, 6)
    assert not set(fitted) & set(held)
    np.testing.assert_array_equal(fitted, split(100, 30, seed=3)[0])
    assert not np.array_equal(fitted, split(100, 30, seed=4)[0])
    assert [len(part) for part in split(2, 30, 0)] == [1, 1]
    assert [len(part) for part in split(1, 30, 0)] == [1, 1]


def says(source: Any, of: onnx.ModelProto | None = None) -> str:
    with pytest.raises(UpscaleError) as caught:
        open_source(source, of or model(), 9)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    assert "dictionary 1: input 'x': expected shape Nx3, found 1x4" in says(
        [{"x": rows(1)}, {"x": rows(1, 4)}]
    )
    assert "expected float32, found int64" in says([{"x": rows(1).astype(np.int64)}])
    assert "expected one array per input (x), found y" in says([{"y": rows(1)}])
    assert "dictionary 0: expected a dictionary" in says([rows(1)])
    assert "there are no samples" in says([])
    assert "there are no samples" in says([{"x": rows(0)}])
    assert "make a new one" not in says([])
    assert "samples of type int" in says(3)
    assert "no such file" in says(tmp_path / "none.npy")
    assert "does not exist" in says(str(tmp_path / "none"))
    assert "there is no module 'nowhere'" in says("nowhere:samples")
    two = Net(17, x=["n", 3], y=["n", 3])
    both = two.model(two("Add", "x", "y"))
    assert "differ in how many samples they have: x 1, y 2" in says(
        [{"x": rows(1), "y": rows(2)}], both
    )


@pytest.mark.parametrize(
    ("function", "error", "saying"),
    [
        ("def samples(): return 3", UsageError, "samples() is of type int"),
        ("def samples(): raise KeyError('gone')", DataError, "samples(): failed: KeyError: 'gone'"),
        ("def samples():\n    yield 1 / 0", DataError, "failed: ZeroDivisionError"),
        ("def sample(): pass", UsageError, "has no 'samples'; closest: sample"),
    ],
)
def test_what_a_function_does_wrong_is_said(
    tmp_path: Path, function: str, error: type[UpscaleError], saying: str
) -> None:
    (tmp_path / "mine.py").write_text(f"{function}\n")
    with pytest.raises(error) as caught:
        open_source(f"{tmp_path / 'mine.py'}:samples", model(), 9)
    assert saying in str(caught.value)


def test_infinities_are_refused_with_their_place() -> None:
    data = rows(20)
    data[13, 1] = np.nan
    found = open_source(data, model(), 20)
    with pytest.raises(DataError, match="sample 13: input 'x' holds infinities or NaNs"):
        list(batches(found, np.arange(4, 20), model()))


def test_paths_are_no_specs() -> None:
    assert is_spec("pkg.data:samples")
    assert is_spec("some/data.py:samples")
    assert not any(map(is_spec, ("data.npy", "C:\\data", "a/b:c", ":samples", "data:")))
