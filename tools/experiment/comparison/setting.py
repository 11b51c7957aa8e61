"""What all methods share that work on one network: images, a judge, a clock."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

import onnx_upscale
from experiment.cells import accuracy
from experiment.comparison.rows import Cell, Row
from experiment.comparison.turns import Turns
from experiment.exporting import exported
from experiment.sources import Digits, Glyphs, ImageNet

NAN = float("nan")
FEW_RUNS = 9


@dataclass(frozen=True)
class Setting:
    """One trained network, and how what becomes of it is judged.

    Attributes:
        network: Its name.
        seed: Of its training.
        source: Its images.
        model: The network as ONNX.
        images: Unlabelled images, (count, 1, side, side).
        dense: Accuracy of the network as it is.
        turns: Who else computes on this machine.
        runs: How often latencies are timed.
        folder: Where masks of `prune` are kept for training.
    """

    network: str
    seed: int
    source: Digits | Glyphs | ImageNet
    model: onnx.ModelProto
    images: Any = field(repr=False)
    dense: float
    turns: Turns
    runs: int
    folder: Path

    @classmethod
    def of(
        cls,
        source: Digits | Glyphs | ImageNet,
        network: str,
        seed: int,
        samples: int,
        turns: Turns,
        runs: int,
        cache: Path,
        folder: Path,
    ) -> Setting:
        """Trains and exports the network if that was not done."""
        path = exported(source, network, seed, cache)
        images = source.calibration(seed, samples)
        model, dense = onnx.load(path), accuracy(path, source, seed)
        return cls(network, seed, source, model, images, dense, turns, runs, folder)

    @property
    def samples(self) -> dict[str, Any]:
        """The unlabelled images as inputs of the model."""
        return {self.model.graph.input[0].name: self.images}

    def ratio(self, emitted: onnx.ModelProto) -> float:
        """Measured latency, one thread and one image, as a share of the network's as it is."""
        return self.ratios([emitted], self.runs)[0]

    def ratios(self, emitted: Sequence[onnx.ModelProto], runs: int = FEW_RUNS) -> list[float]:
        """The same for several, roughly."""
        models = [self.model, *emitted]
        names = [str(number) for number in range(len(models))]
        with self.turns.measuring():
            timed = onnx_upscale.bench(models, names=names, runs=runs, batch=1, memory=False)
        return [each.ratio.median for each in timed.models[1:]]

    def predicted(self, model: onnx.ModelProto, masks: Any = None) -> float:
        """Predicted latency of what `optimize` would make, as a share likewise."""
        self.turns.share()
        seconds = onnx_upscale.analyze(model, masks).plan("auto").seconds
        return seconds / self._seconds

    def masks_path(self, wanted: float) -> Path:
        """Where the masks of `prune` for a wanted latency are kept."""
        return self.folder / f"{self.network}.{self.seed}.{wanted}.json"

    def row(
        self,
        cell: Cell,
        emitted: onnx.ModelProto,
        predicted: float,
        ratio: float,
        seconds: float,
    ) -> Row:
        """What came of a cell."""
        self.turns.share()
        right = accuracy(emitted, self.source, self.seed)
        return self._row(cell, predicted, ratio, right, seconds, "")

    def nothing(self, cell: Cell, why: str) -> Row:
        """Why nothing came of it."""
        return self._row(cell, NAN, NAN, NAN, NAN, why)

    def _row(
        self, cell: Cell, predicted: float, ratio: float, right: float, seconds: float, note: str
    ) -> Row:
        return Row(
            cell.data, cell.network, cell.seed, cell.method, cell.samples, cell.wanted,
            predicted, ratio, right, self.dense, seconds, note,
        )  # fmt: skip

    @functools.cached_property
    def _seconds(self) -> float:
        return onnx_upscale.analyze(self.model).plan("auto").seconds


class Clock:
    """CPU time, which waiting for others does not count to."""

    def __init__(self) -> None:
        self._started = time.process_time()

    def lap(self) -> float:
        """Seconds since the last lap."""
        last, self._started = self._started, time.process_time()
        return self._started - last


@contextmanager
def quiet() -> Iterator[None]:
    """Other people's warnings are not our results."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
