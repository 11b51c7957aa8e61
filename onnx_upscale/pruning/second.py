"""Second moments of what readers read, a few readers in one pass over the samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from onnx_upscale.activations import up_to
from onnx_upscale.activations.columns import (
    POSITIONS,
    TOGETHER,
    Reals,
    centred,
    check_finite,
    columns,
    count_positions,
    draw,
)
from onnx_upscale.optimizer.load.graph import Graph, build_graph
from onnx_upscale.optimizer.load.layers import Layer, layers
from onnx_upscale.optimizer.load.model import read_model
from onnx_upscale.pruning.removal import Floats
from onnx_upscale.running import Session
from onnx_upscale.samples import Batch, Share
from onnx_upscale.workers import Team

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
        team: Looks at the samples in place of this process.
    """

    def __init__(
        self,
        graph: Graph,
        layers: Sequence[Layer],
        samples: Callable[[], Iterable[Batch]],
        seed: int,
        progress: Callable[[int], None] = lambda done: None,
        team: Team | None = None,
    ) -> None:
        self._graph, self._layers, self._samples = graph, tuple(layers), samples
        self._seed, self._progress, self._team = seed, progress, team
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
        most = _MOST_BYTES if self._team is None else _MOST_BYTES // self._team.size
        for layer in self._layers[start + 1 :]:
            size += _bytes(layer)
            if size > most:
                break
            together.append(layer)
        if self._team is None:
            sums = collect(self._graph, together, self._samples(), self._seed)
        else:
            sums = _sums(together)
            nodes = [each.layer for each in sums]
            for found in self._team.ask(collect_share, nodes, self._seed):
                for each, more in zip(sums, found, strict=True):
                    each.merge(more)
        self._known.update({each.layer: each.finished() for each in sums})


def collect(
    graph: Graph, together: Sequence[Layer], samples: Iterable[Batch], seed: int, first: int = 0
) -> list[Sum]:
    """What some layers read, in one pass over samples.

    Args:
        graph: The graph of the model.
        together: The layers.
        samples: The samples.
        seed: Seed of the positions that are looked at.
        first: Number of the first batch.

    Returns:
        Sums in the order of the layers.
    """
    sums = _sums(together)
    inputs = tuple(value.name for value in graph.model.graph.input)
    model = up_to(graph.model, [_data(layer) for layer in together], inputs, graph)
    names = {value.name for value in model.graph.input}
    session = Session(model) if model.graph.output else None
    for number, batch in enumerate(samples, first):
        made = dict(batch.inputs)
        if session is not None:
            made |= session.run({n: v for n, v in batch.inputs.items() if n in names})
        for layer, each in zip(together, sums, strict=True):
            data = made[_data(layer)]
            rng = np.random.default_rng([seed, layer.node.index, number])
            places = draw(count_positions(layer, data.shape), POSITIONS * batch.present, rng)
            seen = columns(layer, data, places)[0]
            check_finite(layer, seen)
            each.add(seen)
    for each in sums:
        each.settle()
    return sums


def collect_share(share: Share, nodes: Sequence[int], seed: int) -> list[Sum]:
    """The same of a share, whose graph is kept; layers by the indices of their nodes."""
    if "graph" not in share.held:
        share.held["graph"] = build_graph(read_model(share.model))
    graph = share.held["graph"]
    known = {layer.node.index: layer for layer in layers(graph)}
    return collect(graph, [known[node] for node in nodes], share.batches(), seed, share.first)


def _sums(together: Sequence[Layer]) -> list[Sum]:
    return [Sum(layer.node.index, _columns(layer)) for layer in together]


class Sum:
    """The moments of what one layer reads so far.

    Args:
        layer: Index of its node.
        columns: How many columns it reads.
    """

    def __init__(self, layer: int, columns: int) -> None:
        self.layer = layer
        self._count = 0
        self._mean = np.zeros(columns)
        self._second = np.zeros(columns if columns > _MOST_COLUMNS else (columns, columns))
        self._waiting: list[Reals] = []

    def add(self, seen: Reals) -> None:
        """Adds columns at some positions, shape (columns, positions)."""
        self._waiting.append(seen)
        if sum(each.shape[1] for each in self._waiting) >= TOGETHER:
            self.settle()

    def settle(self) -> None:
        """Adds what waits: many positions at once, for that is much faster."""
        if any(each.shape[1] for each in self._waiting):
            seen, mean = centred(np.concatenate(self._waiting, 1))
            if self._second.ndim == 1:
                self._merge(seen.shape[1], mean, np.square(seen).sum(1))
            else:  # Products in single precision, see `Moments.of`.
                self._merge(seen.shape[1], mean, seen @ seen.T)
        self._waiting.clear()

    def merge(self, other: Sum) -> None:
        """Adds what another one has of the same layer; neither has anything that waits."""
        if other._count:
            self._merge(other._count, other._mean, other._second)

    def _merge(self, count: int, mean: Floats, second: Reals) -> None:
        apart = mean - self._mean
        weight = self._count * count / (self._count + count)
        self._second += second
        self._second += weight * (
            np.square(apart) if self._second.ndim == 1 else np.outer(apart, apart)
        )
        self._count += count
        self._mean += apart * (count / self._count)

    def finished(self) -> Floats:
        """The second moment per position; nothing can be added any more."""
        self._second /= max(self._count, 1)
        return self._second


def _columns(layer: Layer) -> int:
    return layer.inputs * (1 if layer.product or layer.transposed else layer.window)


def _bytes(layer: Layer) -> int:
    count = _columns(layer)
    return 8 * count * (count if count <= _MOST_COLUMNS else 1)


def _data(layer: Layer) -> str:
    return layer.node.inputs[layer.data_slot]
