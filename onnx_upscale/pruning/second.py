"""Second moments of what readers read, a few readers in one pass over the samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.pruning.removal import Floats
from onnx_upscale.recovery.columns import (
    POSITIONS,
    TOGETHER,
    check_finite,
    columns,
    count_positions,
    draw,
)
from onnx_upscale.recovery.moments import Reals, centred
from onnx_upscale.recovery.walk import up_to
from onnx_upscale.running import Session
from onnx_upscale.samples import Batch

_MOST_BYTES = 1 << 30  # What is collected in one pass.
_MOST_COLUMNS = 8192  # Beyond, columns are taken as independent.


class SecondMoments:
    """The centred second moments of what some layers read, each asked for once.

    They are collected when they are asked for, together with those of the next layers as far as
    memory allows. So memory is flat in the number of samples and of layers.

    Args:
        graph: The graph of the model.
        layers: Ungrouped layers, in the order in which they will be asked for.
        samples: Gives the samples, anew each time.
        seed: Seed of the positions that are looked at.
        progress: Called with how many layers are done.
    """

    def __init__(
        self,
        graph: Graph,
        layers: Sequence[Layer],
        samples: Callable[[], Iterable[Batch]],
        seed: int,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        self._graph, self._layers, self._samples = graph, tuple(layers), samples
        self._seed, self._progress = seed, progress
        self._known: dict[int, Floats] = {}
        self._done = 0

    def __call__(self, layer: Layer) -> Floats:
        """The second moment of one layer, per position.

        Args:
            layer: One of the layers.

        Returns:
            Shape (columns, columns), in the order of its weight; the diagonal alone where there are
            very many columns.

        Raises:
            DataError: There are infinities or NaNs.
            VerifySetupError: onnxruntime does not run the model.
        """
        if layer.node.index not in self._known:
            self._collect(layer)
        self._done += 1
        self._progress(self._done)
        return self._known.pop(layer.node.index)

    def _collect(self, first: Layer) -> None:
        start = [layer.node.index for layer in self._layers].index(first.node.index)
        together, size = [first], _bytes(first)
        for layer in self._layers[start + 1 :]:
            size += _bytes(layer)
            if size > _MOST_BYTES:
                break
            together.append(layer)
        sums = {layer.node.index: _Sum(layer, self._seed) for layer in together}
        inputs = tuple(value.name for value in self._graph.model.graph.input)
        tensors = [_data(layer) for layer in together]
        model = up_to(self._graph.model, tensors, inputs, self._graph)
        session = Session(model) if model.graph.output else None
        for batch in self._samples():
            made = dict(batch.inputs)
            if session is not None:
                names = {value.name for value in model.graph.input}
                made |= session.run({n: v for n, v in batch.inputs.items() if n in names})
            for each in sums.values():
                each.add(made[_data(each.layer)], batch.present)
        self._known.update({index: each.finished() for index, each in sums.items()})


class _Sum:
    def __init__(self, layer: Layer, seed: int) -> None:
        self.layer = layer
        self._rng = np.random.default_rng([seed, layer.node.index])
        count = _columns(layer)
        self._count = 0
        self._mean = np.zeros(count)
        self._second = np.zeros(count if count > _MOST_COLUMNS else (count, count))
        self._waiting: list[Reals] = []

    def add(self, data: Array, present: int) -> None:
        total = count_positions(self.layer, data.shape)
        seen = columns(self.layer, data, draw(total, POSITIONS * present, self._rng))[0]
        check_finite(self.layer, seen)
        self._waiting.append(seen)
        if sum(each.shape[1] for each in self._waiting) >= TOGETHER:
            self._sum()

    def _sum(self) -> None:
        """Adds what waits: many positions at once, for that is much faster."""
        seen, mean = centred(np.concatenate(self._waiting, 1))
        self._waiting.clear()
        count = seen.shape[1]
        apart = mean - self._mean
        weight = self._count * count / (self._count + count)
        if self._second.ndim == 1:
            self._second += np.square(seen).sum(1) + weight * np.square(apart)
        else:  # Products in single precision, see `Moments.of`.
            self._second += seen @ seen.T
            self._second += weight * np.outer(apart, apart)
        self._count += count
        self._mean += apart * (count / self._count)

    def finished(self) -> Floats:
        if any(each.shape[1] for each in self._waiting):
            self._sum()
        self._second /= max(self._count, 1)
        return self._second


def _columns(layer: Layer) -> int:
    return layer.inputs * (1 if layer.product or layer.transposed else layer.window)


def _bytes(layer: Layer) -> int:
    count = _columns(layer)
    return 8 * count * (count if count <= _MOST_COLUMNS else 1)


def _data(layer: Layer) -> str:
    return layer.node.inputs[layer.data_slot]
