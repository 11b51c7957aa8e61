"""One reader: its moments, batch by batch, and what they make of its weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from onnx_upscale.activations.columns import (
    POSITIONS,
    TOGETHER,
    Floats,
    Reals,
    centred,
    check_finite,
    columns,
    count_positions,
    draw,
    laid_out,
    matrix,
)
from onnx_upscale.optimizer.analyze.weights import BoolArray
from onnx_upscale.optimizer.load.graph import Graph, IntArray
from onnx_upscale.recovery.model import Repaired, along_outputs
from onnx_upscale.recovery.moments import Moments
from onnx_upscale.recovery.readers import Reader
from onnx_upscale.recovery.repair import SURE, Repair, repair
from onnx_upscale.recovery.walk import Pair


@dataclass
class Fit:
    """Collects the moments of a reader and repairs it.

    Attributes:
        reader: The reader.
        dense: Its weight in the dense model, as matrices of all its columns.
        weight: Its weight in the masked model, as matrices of the columns that are fitted.
        fitted: Which columns these are: those that any group keeps.
        stays: Per group, which of these it keeps itself, shape (groups, fitted).
        seed: Seed of the positions that are looked at.
        batch: Number of the next batch: each draws its positions by itself, so that it does not
            matter which others the same process sees.
        single: Whether products are taken in single precision.
        moments: Those so far.
    """

    reader: Reader
    dense: Floats
    weight: Floats
    fitted: IntArray
    stays: BoolArray
    seed: int
    batch: int
    single: bool
    moments: Moments | None = field(default=None)
    _waiting: list[tuple[Reals, Reals]] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        reader: Reader,
        graph: Graph,
        repaired: Repaired,
        seed: int,
        strength: float,
        batch: int = 0,
    ) -> Fit:
        """A reader without moments.

        Args:
            reader: The reader.
            graph: The graph, seen through its masks.
            repaired: The model under repair.
            seed: Seed of the positions.
            strength: How much its weights will be pulled to what they are.
            batch: Number of the first batch.

        Returns:
            It.
        """
        layer = reader.layer
        dense = matrix(layer, graph.constants[layer.node.inputs[layer.weight_slot]])
        kept = _kept_columns(reader, dense.shape[-1])
        fitted = np.flatnonzero(kept.any(0))
        stays = kept[:, fitted]
        weight = matrix(layer, repaired.value(layer.weight))[..., fitted] * stays[:, np.newaxis]
        return cls(reader, dense, weight, fitted, stays, seed, batch, strength >= SURE)

    def add(self, pair: Pair) -> None:
        """Adds the moments of a batch.

        Args:
            pair: What the reader reads in both models, among other things.

        Raises:
            DataError: There are infinities or NaNs.
        """
        layer = self.reader.layer
        dense, seen = pair.dense[self.reader.data], pair.seen[self.reader.data]
        total = count_positions(layer, dense.shape)
        rng = np.random.default_rng([self.seed, layer.node.index, self.batch])
        self.batch += 1
        chosen = draw(total, POSITIONS * pair.present, rng)
        if not len(chosen):
            return
        whole = columns(layer, dense, chosen)
        read = columns(layer, seen, chosen)[:, self.fitted]
        check_finite(layer, whole, read)
        self._waiting.append((whole, read))
        if sum(each.shape[-1] for each, _ in self._waiting) >= TOGETHER:
            self._sum()

    def _sum(self) -> None:
        """Adds what waits to the moments: many positions at once, for that is much faster."""
        if not self._waiting:
            return
        kind: type[np.floating] = np.float32 if self.single else np.float64
        whole, read = (
            np.concatenate(each, -1).astype(kind, copy=False)
            for each in zip(*self._waiting, strict=True)
        )
        self._waiting.clear()
        # Before they are multiplied: what is left may be small beside the means.
        whole, mean = centred(whole)
        wanted = self.dense.astype(kind, copy=False) @ whole
        mean_wanted = (self.dense @ mean[..., np.newaxis])[..., 0]
        if len(self.stays) > 1:
            read *= self.stays[..., np.newaxis]
        if self.reader.scales_only:
            # One column per output: what the reader makes of its input so far.
            read = (self.weight.astype(kind, copy=False) @ read).reshape(-1, 1, read.shape[-1])
            wanted, mean_wanted = wanted.reshape(read.shape), mean_wanted.reshape(-1, 1)
        moments = Moments.of(wanted, read)
        moments = dataclasses.replace(moments, mean_dense=moments.mean_dense + mean_wanted)
        self.moments = moments if self.moments is None else self.moments + moments

    def total(self) -> Moments | None:
        """The moments of all batches; None where there was nothing to read."""
        self._sum()
        return self.moments

    def finish(self, repaired: Repaired, strength: float) -> Repair | None:
        """Repairs the reader and writes its weights.

        Args:
            repaired: The model to write them into.
            strength: How much they are pulled to what they are, relative to what is read.

        Returns:
            What was done; None where there was nothing to read.
        """
        moments = self.total()
        if moments is None:
            return None
        reader, layer = self.reader, self.reader.layer
        before = np.ones((layer.outputs, 1, 1)) if reader.scales_only else self.weight
        done = repair(moments, before, strength, shifting=reader.bias is not None)
        new = done.weight
        if reader.scales_only:
            new = self.weight * new.reshape(*self.weight.shape[:2], 1)
        whole = np.zeros_like(self.dense)
        whole[..., self.fitted] = new
        old = repaired.value(layer.weight)
        rows = layer.by_group(np.arange(old.size).reshape(old.shape))
        rows = rows.reshape(layer.outputs, -1)[reader.rows].ravel()
        values = old.copy()
        values.ravel()[rows] = laid_out(layer, whole, old.dtype).ravel()[rows]
        repaired.write(layer.weight, values)
        if reader.bias is not None:
            shift = done.shift.ravel() * reader.rows * layer.factor
            self._shift(repaired, shift)
        return dataclasses.replace(done, weight=new)

    def _shift(self, repaired: Repaired, shift: Floats) -> None:
        reader = self.reader
        assert reader.bias is not None
        bias = repaired.value(reader.bias)
        own = reader.bias == (reader.layer.node.index, reader.layer.bias_slot)
        factor = reader.layer.bias_factor if own and reader.layer.node.input(2) else 1.0
        along = shift[along_outputs(len(shift), reader)] / factor
        repaired.write(reader.bias, (bias + along).astype(bias.dtype))


def _kept_columns(reader: Reader, count: int) -> BoolArray:
    """Which columns of each group are of a kept channel, shape (groups, columns)."""
    channels = reader.kept.reshape(reader.layer.groups, -1)
    return np.repeat(channels, count // channels.shape[1], axis=1)
