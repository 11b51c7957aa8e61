"""How much the outputs of a model change with what a layer makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from onnx_upscale.activations import Shelf, up_to
from onnx_upscale.errors import DataError
from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.optimizer.load.subgraphs import reads
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.pruning.noise import channel_noise
from onnx_upscale.running import Session

Inputs = Mapping[str, npt.NDArray[Any]]

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_SIZE = 0.05
"""Of the noise, as a share of the root mean square of what the layer makes."""


def sensitivities(
    graph: Graph,
    layers: Sequence[Layer],
    samples: Iterable[Inputs],
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[int, float]:
    """s_r = |change of the outputs|^2 / |noise|^2, with a little noise added to what a layer makes.

    Changes are relative: to the squared size of each output, added up over outputs. A squared error
    times s_r is what the outputs lose by it, to first order, whatever their scales.

    Args:
        graph: The graph of the model.
        layers: Layers of it.
        samples: Values of the model's inputs. Each is run once, and once per layer through what
            lies behind that.
        seed: Seed of the noise.
        progress: Called with how many layers are done.

    Returns:
        s_r by node index; 0 for a layer that nothing depends on, or that makes no floats.

    Raises:
        DataError: There is no room on the disk for what the layers make of one sample.
        VerifySetupError: onnxruntime does not run the model on the samples.
    """
    skeleton = _skeleton(graph.model)
    cuts = [_Cut.behind(graph, skeleton, layer) for layer in layers]
    with Shelf() as shelf:
        count = _run(graph, cuts, samples, shelf)
        found = {}
        for done, cut in enumerate(cuts):
            found[cut.layer.node.index] = _sensitivity(graph, cut, shelf, count, [seed, done])
            progress(done + 1)
    return found


@dataclass(frozen=True)
class _Cut:
    """The part of a model behind what a layer makes.

    Attributes:
        layer: The layer.
        data: What it reads, if that can be run again.
        made: What it makes.
        ends: Outputs of the model that depend on it.
        reads: What the part reads.
    """

    layer: Layer
    data: str | None
    made: str
    ends: tuple[str, ...]
    reads: tuple[str, ...]

    @classmethod
    def behind(cls, graph: Graph, skeleton: onnx.ModelProto, layer: Layer) -> _Cut:
        """The part behind a layer; `skeleton` is the model without its weights."""
        made = layer.node.outputs[0]
        there = {value.name for value in skeleton.graph.input}.difference(graph.constants)
        reached = {made}
        for node in skeleton.graph.node:
            if reached.isdisjoint(reads(node)):
                there.update(node.output)
            else:
                reached.update(node.output)
        ends = tuple(
            value.name
            for value in skeleton.graph.output
            if value.name in reached and graph.types.get(value.name) in _FLOATS
        )
        if graph.types.get(made) not in _FLOATS:
            return cls(layer, None, made, (), ())
        known = {name for name in there if name in graph.types and name not in graph.constants}
        part = up_to(skeleton, ends, known | {made}, graph)
        given = [value.name for value in part.graph.input if value.name not in graph.constants]
        data = layer.node.inputs[layer.data_slot]
        return cls(
            layer,
            data if data in known else None,
            made,
            ends,
            tuple(dict.fromkeys([*given, made])),
        )


def _skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model without its weights."""
    graph = onnx.GraphProto(node=model.graph.node, input=model.graph.input)
    graph.output.extend(model.graph.output)
    return onnx.ModelProto(graph=graph)


def _run(graph: Graph, cuts: Sequence[_Cut], samples: Iterable[Inputs], shelf: Shelf) -> int:
    """Runs the model and puts aside what cuts read, and the outputs.

    Returns:
        On how many samples.
    """
    outputs = [value.name for value in graph.model.graph.output]
    of_cuts = (name for cut in cuts for name in (*cut.reads, *cut.ends, cut.data))
    names = [name for name in dict.fromkeys((*outputs, *of_cuts)) if name is not None]
    inputs = frozenset(value.name for value in graph.model.graph.input)
    model = up_to(graph.model, names, inputs, graph)
    session, read = Session(model), {value.name for value in model.graph.input}
    count = 0
    for sample in samples:
        made = {**sample, **session.run({n: v for n, v in sample.items() if n in read})}
        made |= {name: _whole(made, name) for name in outputs}
        if not all(shelf.put(name, made[name]) for name in names if name in made):
            break
        count += 1
    if not count:
        raise DataError("no room for temporary files: what layers make of one sample does not fit")
    return count


def _sensitivity(graph: Graph, cut: _Cut, shelf: Shelf, count: int, seed: Sequence[int]) -> float:
    if not cut.ends:
        return 0.0
    model = up_to(graph.model, cut.ends, cut.reads, graph)
    session = Session(model) if model.graph.output else None
    read = {value.name for value in model.graph.input}
    noises = _noises(graph, cut, shelf, count, np.random.default_rng(seed))
    changes = amount = 0.0
    for number, noise in enumerate(noises):
        given = {name: shelf.get(name, number) for name in cut.reads}
        clean = given[cut.made].astype(np.float64)
        given[cut.made] = (clean + noise).astype(given[cut.made].dtype)
        moved = {cut.made: given[cut.made]}
        if session is not None:
            moved |= session.run({name: given[name] for name in cut.reads if name in read})
        amount += _power(given[cut.made].astype(np.float64) - clean)
        changes += sum(_change(shelf.get(name, number), _whole(moved, name)) for name in cut.ends)
    return changes / amount if amount else 0.0


def _noises(
    graph: Graph, cut: _Cut, shelf: Shelf, count: int, rng: np.random.Generator
) -> list[Array]:
    """A little noise for each sample."""
    made = [shelf.get(cut.made, number) for number in range(count)]
    noises = None
    if cut.data is not None:
        seen = (shelf.get(cut.data, number) for number in range(count))
        noises = channel_noise(graph, cut.layer, seen, rng)
    if noises is None:
        noises = [rng.standard_normal(values.shape) for values in made]
    wanted, power = (sum(_power(v.astype(np.float64)) for v in each) for each in (made, noises))
    size = _SIZE * np.sqrt(wanted / power) if power else 0.0
    return [size * noise for noise in noises]


def _whole(made: Mapping[str, Array], name: str) -> Array:
    """An output as one array; the tensors of a sequence one after the other."""
    if name in made:
        return made[name]
    parts = [value.ravel() for part, value in made.items() if part.startswith(f"{name}[")]
    return np.concatenate(parts) if parts else np.zeros(0)


def _change(clean: Array, moved: Array) -> float:
    if clean.shape != moved.shape:
        return 1.0  # As many boxes as pass a threshold: something else came out.
    finite = np.isfinite(clean) & np.isfinite(moved)
    before = clean[finite].astype(np.float64)
    power = _power(before)
    return _power(moved[finite] - before) / power if power else 0.0


def _power(values: Array) -> float:
    """The sum of squares."""
    flat = values.ravel()
    return float(flat @ flat)
