"""Quantized forms of float models, as onnxruntime's quantizer writes them."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy.typing as npt
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from onnx_upscale.running import input_sizes, random_inputs

Values: TypeAlias = "Mapping[str, npt.NDArray[Any]]"
Quantizer: TypeAlias = "Callable[[Path, Path, Sequence[Values]], None]"

CALIBRATION = 4
"""How many random inputs it is calibrated with."""


class _Samples(CalibrationDataReader):  # type: ignore[misc]  # It has no types.
    def __init__(self, samples: Sequence[Values]) -> None:
        self._left: Iterator[Values] = iter(samples)

    def get_next(self) -> Values | None:
        return next(self._left, None)


def _static(form: Any, per_channel: bool) -> Quantizer:
    def quantize(source: Path, made: Path, samples: Sequence[Values]) -> None:
        quantize_static(
            source,
            made,
            _Samples(samples),
            quant_format=form,
            per_channel=per_channel,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
        )

    return quantize


def _dynamic(source: Path, made: Path, samples: Sequence[Values]) -> None:
    # onnxruntime's ConvInteger takes no signed weights.
    quantize_dynamic(source, made, weight_type=QuantType.QUInt8)


def _not(source: Path, made: Path, samples: Sequence[Values]) -> None:
    shutil.copy(source, made)


FORMS: Mapping[str, Quantizer] = {
    "float": _not,
    "QDQ": _static(QuantFormat.QDQ, False),
    "QDQ per channel": _static(QuantFormat.QDQ, True),
    "QOperator": _static(QuantFormat.QOperator, False),
    "QOperator per channel": _static(QuantFormat.QOperator, True),
    "dynamic": _dynamic,
}


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """The quantizer logs advice, to the root of all loggers."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)


def quantized(source: Path, form: str, folder: Path) -> Path:
    """The path of a quantized form of a model, which is made where it is not there yet."""
    made = folder / f"{source.stem}.{form.replace(' ', '_')}.onnx"
    if not made.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with _without_warnings(), tempfile.TemporaryDirectory() as scratch:
            prepared = Path(scratch) / "prepared.onnx"
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            model = onnx.load(prepared)
            sizes = input_sizes(model)
            samples = [random_inputs(model, sizes, seed) for seed in range(CALIBRATION)]
            FORMS[form](prepared, made, samples)
    return made
