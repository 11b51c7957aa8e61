"""Running the dense model and the one under repair side by side, up to what readers read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import onnx

from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.recovery.fit import Fit
from onnx_upscale.recovery.model import Repaired, up_to
from onnx_upscale.running import Session
from onnx_upscale.samples import Batch

_POSITIONS = 64  # Of each sample: more add little, for neighbours are alike.


def collect(
    fits: Sequence[Fit], graph: Graph, repaired: Repaired, fitting: Iterable[Batch]
) -> Iterator[int]:
    """Adds the moments of some samples to readers of which none lies behind another.

    Args:
        fits: The readers.
        graph: The dense model's graph.
        repaired: The model under repair.
        fitting: The samples.

    Yields:
        After each batch, how many samples it had.

    Raises:
        DataError: A reader reads infinities or NaNs.
        VerifySetupError: onnxruntime does not run a model on the samples.
    """
    tensors = [fit.reader.data for fit in fits]
    dense, seen = (_Part(model, tensors, graph) for model in (graph.model, repaired.model))
    for batch in fitting:
        wanted, got = dense.run(batch), seen.run(batch)
        for fit in fits:
            name = fit.reader.data
            fit.add(wanted[name], got[name], _POSITIONS * batch.present)
        yield batch.present


class _Part:
    """The part of a model that computes some tensors."""

    def __init__(self, model: onnx.ModelProto, tensors: Sequence[str], graph: Graph) -> None:
        part = up_to(model, tensors, graph)
        self._session = Session(part) if part.graph.output else None

    def run(self, batch: Batch) -> dict[str, Array]:
        """The tensors by name, and the inputs of the model among them."""
        made = {} if self._session is None else self._session.run(batch.inputs)
        return {**batch.inputs, **made}
