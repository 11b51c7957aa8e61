"""Arrays that are put aside, in memory and in files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from build import Array
from onnx_upscale.activations import Shelf


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def arrays() -> Iterator[Array]:
    rng = np.random.default_rng(0)
    yield rng.standard_normal((2, 3, 4)).astype(np.float32)
    yield rng.standard_normal((4, 3)).astype(np.float16).T
    yield np.array(7, np.int64)
    yield np.zeros((0, 3), np.float32)
    yield rng.random((3, 5)) > 0.5


def files() -> int:
    """How many open files of this process have no name any more."""
    links = [Path("/proc/self/fd", name) for name in os.listdir("/proc/self/fd")]
    return sum("(deleted)" in os.readlink(link) for link in links if link.is_symlink())


@pytest.mark.parametrize("memory", [0, 100, 1 << 20])
def test_what_comes_back_is_what_was_put_aside(memory: int, folder: Path) -> None:
    with Shelf(memory) as shelf:
        for array in arrays():
            assert shelf.put("a", array)
            assert shelf.put("b", array[..., :1] if array.ndim else array)
        for place, array in reversed(list(enumerate(arrays()))):
            got = shelf.get("a", place)
            np.testing.assert_array_equal(got, array)
            assert (got.dtype, got.shape) == (array.dtype, array.shape)
        shelf.keep({"a"})
        np.testing.assert_array_equal(shelf.get("a", 0), next(arrays()))
        with pytest.raises(KeyError):
            shelf.get("b", 0)


def test_room_comes_back_with_what_is_thrown_away(folder: Path) -> None:
    eight = np.ones(8, np.uint8)
    with Shelf(8, 16) as shelf:
        for _ in range(3):
            assert [shelf.put(name, eight) for name in "abcd"] == [True, True, True, False]
            shelf.keep(())
        assert [shelf.put(name, eight) for name in "aab"] == [True, True, True]
        shelf.keep("b")
        assert [shelf.put(name, eight) for name in "cccc"] == [True, True, False, False]


def test_a_full_disk_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, *_: object, **__: object) -> None: ...
        def seek(self, *_: object) -> int:
            return 0

        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

        def close(self) -> None: ...

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    with Shelf(0, 1 << 20) as shelf:
        assert not shelf.put("a", np.ones(8))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at open files")
def test_files_are_gone_after_an_error(folder: Path) -> None:
    before = files()
    with pytest.raises(RuntimeError, match="on the way"), Shelf(0) as shelf:
        shelf.put("a", np.ones(8))
        assert files() == before + 1
        assert not list(folder.iterdir())  # Not even a process that is killed leaves one.
        raise RuntimeError("on the way")
    assert files() == before
