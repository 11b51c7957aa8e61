"""HRank: the rank of the feature maps of each channel, over calibration data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from onnx_upscale.criteria.neighbours import follow
from onnx_upscale.criteria.scores import Scores
from onnx_upscale.criteria.sites import Site
from onnx_upscale.errors import DataError, UsageError, VerifySetupError
from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.sides import Side
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.running import Session
from onnx_upscale.samples import Samples, fixed_batch

Progress = Callable[[int, int], None]
"""Called with how much is done, of how much."""

# Feature maps of a batch take about so many bytes at most, unless one sample takes more.
_MOST_BYTES = 2**28


@dataclass(frozen=True)
class _Maps:
    """The tensor that holds the feature maps of a site, and the axis of their channels."""

    tensor: str
    axis: int
    key: str = field(compare=False)  # For messages: several layers may read the same tensor.


def feature_ranks(
    graph: Graph,
    sites: Sequence[Site],
    samples: Samples,
    batch_size: int,
    progress: Progress | None = None,
) -> list[Scores]:
    """The mean rank of a channel's feature maps (Lin et al., HRank, CVPR 2020).

    On the input side the maps are those that the layer reads. On the output side they are those
    that it makes, behind the normalization and the activation that work on it alone, as the paper
    takes them; where another tensor is added first, those in front of the Add. The map of a
    channel is the matrix of its last axes; where it has more than two axes all but the first are
    taken as one, and where it has one or none it is a matrix of one column, of rank 0 or 1.

    Args:
        graph: The graph.
        sites: What to score.
        samples: Calibration data.
        batch_size: How many samples to run at once at most.
        progress: Called after each batch.

    Returns:
        Scores per site.

    Raises:
        DataError: The model does not run on the data, or its feature maps are not finite.
        UsageError: No tensor holds the feature maps of a layer.
    """
    maps = [_maps(graph, site) for site in sites]
    wanted = tuple(dict.fromkeys(maps))
    session = Session(_exposing(graph, [each.tensor for each in wanted]))
    fixed = fixed_batch(graph.model)
    totals: dict[_Maps, Scores] = {each: np.zeros(()) for each in wanted}
    counts = dict.fromkeys(wanted, 0)
    start, size = 0, fixed or 1
    while start < samples.count:
        inputs = samples.read(start, start + size)
        present = min(size, samples.count - start)
        values = _run(session, inputs, fixed)
        for each in wanted:
            ranks = _ranks(values[each.tensor], each)
            # Where the batch must be full, it was filled up with samples that do not count.
            ranks = ranks[: len(ranks) * present // (fixed or present)]
            totals[each] = np.add(totals[each], ranks.sum(0))
            counts[each] += len(ranks)
        if start == 0 and not fixed:
            size = _batch_size(sum(value.nbytes for value in values.values()), batch_size)
        start += present
        del values
        if progress is not None:
            progress(start, samples.count)
    return [totals[each] / counts[each] for each in maps]


def _maps(graph: Graph, site: Site) -> _Maps:
    layer = site.layer
    if site.side is Side.INPUT:
        return _Maps(layer.node.input(layer.data_slot), layer.data_axis, site.key)
    if layer.is_inside:
        raise UsageError(
            f"criterion hrank: what layer '{site.key}' makes stays inside node "
            f"'{layer.node.title}' ({layer.node.op}), so that nobody sees its feature maps: leave "
            "the layer out with `skip`, or use another criterion"
        )
    tensor = layer.node.outputs[0]
    for node in follow(graph, layer):
        tensor = node.outputs[0]
    assert layer.output_axis is not None
    return _Maps(tensor, layer.output_axis, site.key)


def _exposing(graph: Graph, tensors: Sequence[str]) -> onnx.ModelProto:
    """A copy of the model whose only outputs are some of its tensors."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    given = {value.name for value in model.graph.input}
    del model.graph.output[:]
    for name in dict.fromkeys(tensors):
        if name not in given:
            kind = graph.types.get(name, onnx.TensorProto.FLOAT)
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    return model


def _batch_size(bytes_per_sample: int, most: int) -> int:
    return max(1, min(most, _MOST_BYTES // max(bytes_per_sample, 1)))


def _run(session: Session, inputs: Mapping[str, Array], fixed: int | None) -> Mapping[str, Array]:
    if fixed is not None:
        inputs = {
            name: np.resize(array, (fixed, *array.shape[1:])) for name, array in inputs.items()
        }
    try:
        return {**inputs, **session.run(inputs)}
    except VerifySetupError as error:
        raise DataError(f"the model does not run on the calibration data: {error}") from None


def _ranks(values: Array, maps: _Maps) -> Scores:
    """Ranks of all feature maps, shape (maps of a channel, channels)."""
    if maps.axis == 0:  # There is no axis of samples: one map per channel.
        values = values[np.newaxis]
    moved = np.moveaxis(values, max(maps.axis, 1), 1)
    if not np.isfinite(moved).all():
        raise DataError(
            f"the feature maps of layer '{maps.key}' hold infinities or NaNs on the calibration "
            "data: is it scaled as the model expects?"
        )
    samples, channels, *rest = moved.shape
    if len(rest) < 2:
        return np.asarray(moved.reshape(samples, channels, -1).any(-1)).astype(np.float64)
    matrices = moved.reshape(samples, channels, rest[0], -1)
    exact = np.float64 if matrices.dtype == np.float64 else np.float32
    ranks = np.asarray(np.linalg.matrix_rank(matrices.astype(exact, copy=False)))
    return ranks.astype(np.float64)
