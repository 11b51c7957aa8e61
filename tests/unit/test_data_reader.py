"""onnxruntime's own CalibrationDataReader, wherever samples are taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from onnxruntime.quantization import CalibrationDataReader

import onnx_upscale
from build import Array
from onnx_upscale import DataError
from pruning import network

IMAGES = np.random.default_rng(0).standard_normal((24, 3, 6, 6)).astype(np.float32)
MASKS: dict[str, Any] = {"version": 1, "masks": {"head.weight": {"input": [0, 2, 5]}}}
CPU: dict[str, Any] = {"target": "cpu-avx512"}


MODEL = network()


class Reader(CalibrationDataReader):  # type: ignore[misc]  # It has no types.
    """As the documentation of onnxruntime writes one."""

    def __init__(self, feeds: Iterable[Any]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Any:
        return next(self._feeds, None)


def reader(size: int = 8) -> Reader:
    return Reader({"x": IMAGES[start : start + size]} for start in range(0, len(IMAGES), size))


@pytest.mark.parametrize("size", [1, 5, 24])
def test_recover_sees_the_same_samples(size: int) -> None:
    found = onnx_upscale.recover(MODEL, MASKS, reader(size))
    assert found.content == onnx_upscale.recover(MODEL, MASKS, IMAGES).content


def test_the_main_job_repairs_by_it() -> None:
    found = onnx_upscale.optimize(MODEL, MASKS, recover=reader(), **CPU)
    assert found.content == onnx_upscale.optimize(MODEL, MASKS, recover=IMAGES, **CPU).content


@pytest.mark.parametrize("criterion", ["l1", "hrank", "reconstruction"])
def test_mask_looks_at_it(criterion: str) -> None:
    found = onnx_upscale.mask(MODEL, criterion, 0.25, data=reader(), layers=["*"], **CPU)
    same = onnx_upscale.mask(MODEL, criterion, 0.25, data=IMAGES, layers=["*"], **CPU)
    assert found == same
    assert found.fidelity == same.fidelity
    assert found.compared == len(IMAGES)


def test_prune_chooses_by_it() -> None:
    found = onnx_upscale.prune(MODEL, reader(), macs=0.7, runs=2, **CPU)
    same = onnx_upscale.prune(MODEL, IMAGES, macs=0.7, runs=2, **CPU)
    assert found.content == same.content
    assert found.report.macs.after < found.report.macs.before


def used_up() -> Reader:
    given = reader()
    while given.get_next() is not None:  # `list` would ask for its length, which it has none of.
        pass
    return given


def failing() -> Iterable[dict[str, Array]]:
    yield {"x": IMAGES[:2]}
    raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("make", "saying"),
    [
        (used_up, "the samples: there are no samples in it; a data reader gives each only once"),
        (lambda: Reader, "the samples: is the class Reader: give an object of it"),
        (lambda: Reader([IMAGES]), "dictionary 0: expected a dictionary from input name to array"),
        (lambda: Reader([{"x": IMAGES}, {}]), "dictionary 1: expected one array per input (x)"),
        (lambda: Reader([{"x": IMAGES, "label": 1}]), "per input (x), found x, label"),
        (lambda: Reader([{"x": IMAGES[0]}]), "input 'x': expected shape Nx3x6x6, found 3x6x6"),
        (lambda: Reader([{"x": IMAGES > 0}]), "input 'x': expected float32, found bool"),
        (lambda: Reader([{"x": None}]), "input 'x': expected shape Nx3x6x6"),
        (lambda: Reader(failing()), "the samples: failed: OSError: the disk is gone"),
    ],
)
def test_what_does_not_fit_is_one_line(make: Callable[[], Any], saying: str) -> None:
    for job in (
        lambda: onnx_upscale.recover(MODEL, MASKS, make()),
        lambda: onnx_upscale.optimize(MODEL, MASKS, recover=make(), **CPU),
        lambda: onnx_upscale.mask(MODEL, "hrank", 0.25, data=make(), layers=["*"], **CPU),
        lambda: onnx_upscale.prune(MODEL, make(), macs=0.7, **CPU),
    ):
        with pytest.raises(DataError) as caught:
            job()
        assert saying in str(caught.value)
        assert "\n" not in str(caught.value)
