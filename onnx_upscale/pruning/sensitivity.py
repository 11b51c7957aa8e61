"""How much the outputs of a model change with what a layer makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.running import Session

Inputs = Mapping[str, npt.NDArray[Any]]

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_SIZE = 0.05
"""Of the noise, as a share of the root mean square of what the layer makes."""


def sensitivities(
    graph: Graph, layers: Sequence[Layer], samples: Iterable[Inputs], seed: int = 0
) -> dict[int, float]:
    """s_r = |change of the outputs|^2 / |noise|^2, with a little noise added to what a layer makes.

    Changes are relative: to the squared size of each output, added up over outputs. A squared error
    times s_r is what the outputs lose by it, to first order, whatever their scales.

    Args:
        graph: The graph of the model.
        layers: Layers of it.
        samples: Values of the model's inputs; each is run once per layer, and twice besides.
        seed: Seed of the noise.

    Returns:
        s_r by node index; 0 for a layer that nothing depends on, or that makes no floats.

    Raises:
        VerifySetupError: onnxruntime does not run the model on the samples.
    """
    named = {layer.node.index: layer.node.outputs[0] for layer in layers}
    model, noise_of = _noisy(graph, list(dict.fromkeys(named.values())))
    session = Session(model)
    outputs = [value.name for value in graph.model.graph.output]
    changes = dict.fromkeys(noise_of, 0.0)
    amounts = dict.fromkeys(noise_of, 0.0)
    for number, sample in enumerate(samples):
        # Adding nothing: a scalar zero everywhere. What is added in earnest has the shape of what
        # it is added to.
        nothing = {noise: np.zeros((), dtype) for noise, dtype in noise_of.values()}
        made = session.run({**sample, **nothing}, list(dict.fromkeys([*outputs, *noise_of])))
        clean = {name: made[name].astype(np.float64) for name in outputs if _floats(made[name])}
        for place, (tensor, (noise, dtype)) in enumerate(noise_of.items()):
            rng = np.random.default_rng([seed, number, place])
            values = made[tensor].astype(np.float64)
            size = _SIZE * float(np.sqrt(np.mean(values**2))) if values.size else 0.0
            if not size:
                continue
            added = (size * rng.standard_normal(values.shape)).astype(dtype)
            moved = session.run({**sample, **nothing, noise: added}, list(clean))
            amounts[tensor] += float((added.astype(np.float64) ** 2).sum())
            changes[tensor] += sum(_change(clean[name], moved[name]) for name in clean)
    return {
        index: changes[tensor] / amounts[tensor] if amounts.get(tensor) else 0.0
        for index, tensor in named.items()
    }


def _change(clean: npt.NDArray[np.float64], moved: npt.NDArray[Any]) -> float:
    if clean.shape != moved.shape:
        return 1.0  # As many boxes as pass a threshold: something else came out.
    finite = np.isfinite(clean) & np.isfinite(moved)
    power = float((clean[finite] ** 2).sum())
    apart = float(((moved.astype(np.float64) - clean)[finite] ** 2).sum())
    return apart / power if power else 0.0


def _floats(values: npt.NDArray[Any]) -> bool:
    return values.dtype.kind == "f"


def _noisy(
    graph: Graph, tensors: Sequence[str]
) -> tuple[onnx.ModelProto, dict[str, tuple[str, Any]]]:
    """A copy of a model that adds an input to each of some tensors, and gives them as outputs.

    Returns:
        The copy, and by tensor the name of the input and its type.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(graph.model)
    have = graph.outputs
    used = {name for node in copy.graph.node for name in (*node.input, *node.output)}
    nodes, noise_of = list(copy.graph.node), dict[str, tuple[str, Any]]()
    del copy.graph.node[:]
    for node in nodes:
        copy.graph.node.append(node)
        for place, name in enumerate(node.output):
            kind = graph.types.get(name, 0)
            if name not in tensors or kind not in _FLOATS:
                continue
            noise, before = _fresh(f"{name}.noise", used), _fresh(f"{name}.clean", used)
            noise_of[name] = noise, helper.tensor_dtype_to_np_dtype(kind)
            copy.graph.node[-1].output[place] = before
            copy.graph.node.append(helper.make_node("Add", [before, noise], [name]))
            copy.graph.input.append(helper.make_tensor_value_info(noise, kind, None))
            if name not in have:
                copy.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    return copy, noise_of


def _fresh(name: str, used: set[str]) -> str:
    while name in used:
        name += "_"
    used.add(name)
    return name
