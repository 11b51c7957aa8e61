"""Where the parameters of a module are in the graph that was exported from it.

1. A constant has the name of its parameter, or comes from one that has, through nodes that only
   move values.
2. Where an exporter gave it another name, it is the constant of the same values that a node of its
   own module reads.
3. A layer is found if the weight of a convolution or a linear layer is, as often as that was
   called.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from onnx_upscale.errors import UsageError
from onnx_upscale.exporter.weights import modules_around
from onnx_upscale.optimizer.load.graph import Graph, Node, Use
from onnx_upscale.optimizer.load.layers import Layer, layers
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.torch.seen import LAYERS, Seen

_MOVERS = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


@dataclass(frozen=True)
class Norm:
    """The BatchNormalization that reads all that a layer makes.

    Attributes:
        path: Where it is in the module.
        folded: Whether an exporter folded it into the layer.
        apart: Whether it reads nothing else, and nothing else reads the layer.
    """

    path: str
    folded: bool
    apart: bool


@dataclass(frozen=True)
class Match:
    """What of a module is where in a graph.

    Attributes:
        graph: The graph that was exported.
        tensors: Parameters and buffers by name, those that are shared once.
        owners: By the name of a parameter or buffer, the paths of all modules that hold it.
        uses: By that name, where nodes read it.
        layers: The layers of the graph by the name of their weight, where modules compute them.
        callers: The paths of these modules, by the same name.
        norms: What normalizes what they make, by the same name.
        scopes: Per node, the path of the innermost module around it.
        lost: Convolutions and linear layers that were called and not found.
    """

    graph: Graph
    tensors: Mapping[str, Tensor]
    owners: Mapping[str, tuple[str, ...]]
    uses: Mapping[str, tuple[Use, ...]]
    layers: Mapping[str, tuple[Layer, ...]]
    callers: Mapping[str, tuple[str, ...]]
    norms: Mapping[str, Norm]
    scopes: tuple[str, ...]
    lost: tuple[str, ...]

    def path(self, name: str) -> str:
        """The module that a parameter belongs to."""
        return name.rpartition(".")[0]


def match(module: nn.Module, graph: Graph, seen: Seen) -> Match:
    """Finds the parameters of a module in the graph that was exported from it.

    Args:
        module: The module, pruning made permanent.
        graph: The graph.
        seen: What its modules did.

    Returns:
        What is where.

    Raises:
        UsageError: A layer of the graph is not in the module, or of another shape; it is named.
    """
    parts = dict(module.named_modules())
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    names = {id(tensor): name for name, tensor in tensors.items()}
    owners: dict[str, tuple[str, ...]] = {}
    for path, part in parts.items():
        for held in (*part._parameters.values(), *part._buffers.values()):
            if held is not None and id(held) in names:
                name = names[id(held)]
                owners[name] = (*owners.get(name, ()), path)
    scopes = tuple(_scope(node, parts) for node in graph.nodes)
    # What an exporter folds a normalization into may have the values of one of its parameters.
    norms = {path for path, part in parts.items() if isinstance(part, _BatchNorm)}
    uses = _uses(graph, tensors, owners, scopes, norms)
    read = {use: name for name, mine in uses.items() for use in mine}
    found: dict[str, tuple[Layer, ...]] = {}
    for layer in layers(graph):
        name = read.get(layer.weight, "")
        if not name:
            _check_known(_source(graph, layer.node, layer.weight_slot))
            continue
        _check_shape(name, tensors[name], layer)
        if all(isinstance(parts[path], (*LAYERS, nn.Embedding)) for path in owners[name]):
            found[name] = (*found.get(name, ()), layer)
    callers = {
        name: tuple(path for path in owners[name] if isinstance(parts[path], LAYERS))
        for name in found
    }
    # A weight that is read without a call, or that a call reads in another form, is not all there.
    found = {
        name: mine
        for name, mine in found.items()
        if len(mine) == sum(seen.calls[path] for path in callers[name])
    }
    whose = {path for name in found for path in callers[name]}
    called = {path for path, part in parts.items() if seen.calls[path] and isinstance(part, LAYERS)}
    lost = tuple(sorted(called - whose))
    behind = {
        name: _norm(graph, mine, path, seen, parts)
        for name, mine in found.items()
        for path in owners[name]
        if len(owners[name]) == 1 and path in seen.norms
    }
    return Match(graph, tensors, owners, uses, found, callers, behind, scopes, lost)


def _norm(
    graph: Graph, found: tuple[Layer, ...], path: str, seen: Seen, parts: Mapping[str, Any]
) -> Norm:
    made = [layer.node.outputs[0] for layer in found]
    norm = seen.norms[path]
    read = [graph.nodes[index].op for name in made for index, _ in graph.readers.get(name, ())]
    folded = "BatchNormalization" not in read and parts[norm].running_mean is not None
    # What is folded makes what the normalization did, which anybody may read.
    alone = folded or all(graph.only_use(name) is not None for name in made)
    return Norm(norm, folded, alone and seen.calls[norm] == seen.calls[path])


def _scope(node: Node, parts: Mapping[str, nn.Module]) -> str:
    around = [path for path in modules_around(node.proto) if path in parts]
    return max(around, key=len, default="")


def _uses(
    graph: Graph,
    tensors: Mapping[str, Tensor],
    owners: Mapping[str, tuple[str, ...]],
    scopes: tuple[str, ...],
    by_name: Collection[str],
) -> dict[str, tuple[Use, ...]]:
    found: dict[str, tuple[Use, ...]] = {}
    unnamed: dict[str, list[Use]] = {}
    for node, scope in zip(graph.nodes, scopes, strict=True):
        for slot in _constant_slots(graph, node):
            name = _source(graph, node, slot)
            if name in tensors:
                found[name] = (*found.get(name, ()), (node.index, slot))
            elif scope:
                unnamed.setdefault(scope, []).append((node.index, slot))
    for name, tensor in tensors.items():
        values = tensor.detach().numpy()
        named = {scopes[index] for index, _ in found.get(name, ())}
        alone = len(owners[name]) == 1
        for path in owners[name] if tensor.is_floating_point() else ():
            if path in by_name or path in named or (alone and named):
                continue
            for index, slot in unnamed.get(path, ()):
                constant = graph.constants.get(graph.nodes[index].inputs[slot])
                if constant is not None and _same_values(constant, values):
                    found[name] = (*found.get(name, ()), (index, slot))
                    break
    return found


def _same_values(one: Array, other: Array) -> bool:
    if one.size != other.size or one.dtype != other.dtype:
        return False
    turned = one.shape == other.shape[::-1] and np.array_equal(one.T, other)
    return turned or np.array_equal(one.ravel(), other.ravel())


def _constant_slots(graph: Graph, node: Node) -> Iterator[int]:
    made = [name for name in node.outputs if name in graph.constants]
    for slot, name in enumerate(node.inputs if not made else ()):
        if name and name in graph.constants:
            yield slot


def _source(graph: Graph, node: Node, slot: int) -> str:
    """The stored tensor that an input is or is made of by moving values; empty if there is none."""
    name = node.input(slot)
    while name in graph.producers and name in graph.constants:
        maker = graph.producers[name]
        if maker.op not in _MOVERS:
            return ""
        name = maker.input(0)
    return name


def _check_known(name: str) -> None:
    """A weight with the name of a parameter that the module does not have."""
    path, _, kind = name.rpartition(".")
    if path and kind == "weight":
        raise UsageError(
            f"layer '{path}' of the result is not in the module: it must be the one that was "
            "exported, unchanged"
        )


def _check_shape(name: str, tensor: Tensor, layer: Layer) -> None:
    shape = tuple(tensor.shape)
    if sorted(shape) == sorted(layer.weight_shape):
        return
    sizes = ["x".join(map(str, each)) for each in (shape, layer.weight_shape)]
    raise UsageError(
        f"layer '{name.rpartition('.')[0]}' has a weight of {sizes[0]} in the module, and of "
        f"{sizes[1]} in what was exported: it must be the module that was exported, unchanged"
    )
