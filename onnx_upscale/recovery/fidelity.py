"""How close a model's outputs are to the dense model's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.running import Session
from onnx_upscale.samples import Batch


@dataclass(frozen=True)
class Fidelity:
    """How close one output is.

    Attributes:
        error: The norm of the difference, as a share of the norm of the output.
        agreement: The share of rows whose largest value is at the same place; None where the output
            is no matrix of several columns.
    """

    error: float
    agreement: float | None


def compare_outputs(
    dense: onnx.ModelProto, others: Iterable[onnx.ModelProto], held_out: Iterable[Batch]
) -> list[dict[str, Fidelity]]:
    """Compares models with the dense one.

    Args:
        dense: The dense model.
        others: Models with the same inputs and outputs.
        held_out: Samples that nothing was fitted on.

    Returns:
        Per model, by name of each output of floats, how close it is.

    Raises:
        VerifySetupError: onnxruntime does not run a model.
    """
    reference = Session(dense)
    sessions = [Session(model) for model in others]
    sums: list[dict[str, _Sums]] = [{} for _ in sessions]
    for batch in held_out:
        wanted = reference.run(batch.inputs)
        for session, found in zip(sessions, sums, strict=True):
            for name, value in session.run(batch.inputs).items():
                same_shape = name in wanted and value.shape == wanted[name].shape
                if value.dtype.kind == "f" and same_shape:
                    more = _Sums.of(_present(wanted[name], batch), _present(value, batch))
                    found[name] = found[name] + more if name in found else more
    return [_fidelities(found) for found in sums]


def _present(value: Array, batch: Batch) -> Array:
    """Leaves out what only fills a batch up."""
    size = len(next(iter(batch.inputs.values())))
    if value.ndim and len(value) % size == 0:
        value = value[: len(value) // size * batch.present]
    return value.astype(np.float64)


@dataclass(frozen=True)
class _Sums:
    difference: float
    power: float
    agreeing: int
    rows: int

    @classmethod
    def of(cls, wanted: Array, got: Array) -> _Sums:
        comparable = wanted.ndim == 2 and wanted.shape[1] > 1
        finite = np.isfinite(wanted) & np.isfinite(got)  # Scores that are masked are not.
        agreeing = int((wanted.argmax(1) == got.argmax(1)).sum()) if comparable else 0
        return cls(
            float(np.square(got[finite] - wanted[finite]).sum()),
            float(np.square(wanted[finite]).sum()),
            agreeing,
            len(wanted) if comparable else 0,
        )

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.difference + other.difference,
            self.power + other.power,
            self.agreeing + other.agreeing,
            self.rows + other.rows,
        )


def _fidelities(sums: Mapping[str, _Sums]) -> dict[str, Fidelity]:
    return {
        name: Fidelity(
            float(np.sqrt(each.difference / each.power)) if each.power else 0.0,
            each.agreeing / each.rows if each.rows else None,
        )
        for name, each in sums.items()
    }
