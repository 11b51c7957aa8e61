"""The history of a Torch-Pruning pruner, replayed on the labels of the exported model."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnx_upscale.errors import MaskError
from onnx_upscale.importers.elements import Imported
from onnx_upscale.optimizer.analyze import Structure, find_structure
from onnx_upscale.optimizer.load.graph import Graph, IntArray
from onnx_upscale.optimizer.load.keys import layer_key, layers_of
from onnx_upscale.optimizer.load.sides import Side


def from_history(entries: Sequence[Any], where: str, graph: Graph) -> Imported:
    """Prunes what each entry names, and all that is coupled with it.

    Torch-Pruning removes a channel from every layer that is coupled through it. To the function
    that is the same as letting all readers of the channel ignore it.

    Args:
        entries: `[layer, is_output, indices]` each; indices count the channels that are left.
        where: What messages call the history.
        graph: The exported model, not pruned.

    Returns:
        Input masks for all readers of what was pruned.

    Raises:
        MaskError: An entry does not fit the model.
    """
    structure = find_structure(graph)
    roots = structure.roots
    gone = np.zeros(len(roots), bool)
    for number, entry in enumerate(entries):
        place = f"{where}: entry {number}"
        name, is_output, indices = _parsed(entry, place)
        own = roots[_labels(structure, name, is_output, place)]
        left = own[~gone[own]]
        wrong = next((index for index in indices if not 0 <= index < len(left)), None)
        if wrong is not None:
            raise MaskError(f"{place}: '{name}' has {len(left)} channels left, but not {wrong}")
        gone[left[np.array(indices, np.int64)]] = True
    masks = {}
    for facts in structure.facts:
        if facts.read is not None and gone[roots[facts.read.inputs]].any():
            pruned = np.flatnonzero(gone[roots[facts.read.inputs]])
            masks[layer_key(graph, facts.read.layer)] = {Side.INPUT.value: pruned.tolist()}
    return Imported(masks, _mixed(structure, gone))


def _parsed(entry: Any, place: str) -> tuple[str, bool, list[int]]:
    match entry:
        case [str(name), bool(is_output), [*indices]] if all(type(i) is int for i in indices):
            return name, is_output, indices
    raise MaskError(f"{place}: expected [layer, is_output, indices], found {reprlib.repr(entry)}")


def _labels(structure: Structure, name: str, is_output: bool, place: str) -> IntArray:
    (layer, *_) = layers_of(structure.graph, f"{name}.weight")
    facts = next(each for each in structure.facts if each.node.index == layer.node.index)
    if is_output and facts.write is not None:
        return facts.write.outputs
    if facts.read is not None and not is_output:
        return facts.read.inputs
    if facts.write is not None and facts.write.inputs is not None:
        return facts.write.inputs  # Of a grouped convolution.
    side = Side.OUTPUT if is_output else Side.INPUT
    raise MaskError(f"{place}: the {side} channels of '{name}' cannot be followed in the model")


def _mixed(structure: Structure, gone: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[str, ...]:
    reasons = [
        f"{demand.tensor} ({demand.reason})"
        for demand in structure.demands
        if gone[structure.roots[demand.labels]].any()
    ]
    if not reasons:
        return ()
    more = f" and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    return (
        f"some pruned channels are needed whole by other operators, where Torch-Pruning computes "
        f"with fewer: the result differs from its model there: {reasons[0]}{more}",
    )
