"""The formats of other pruning tools: one function each, in a table.

Each takes what the file holds, what messages call it, and the exported model or None.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from onnx_upscale.criteria.neighbours import follow
from onnx_upscale.errors import MaskError
from onnx_upscale.importers.elements import BoolArray, Imported, masked_channels
from onnx_upscale.importers.history import from_history
from onnx_upscale.importers.sources import as_array
from onnx_upscale.optimizer.analyze.constants import layer_bias
from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.keys import layers_of
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.optimizer.load.sides import Side
from onnx_upscale.optimizer.load.values import Array

Importer: TypeAlias = Callable[[Any, str, "Graph | None"], Imported]

_WEIGHT, _MASK = ".weight", "_mask"


def from_torch(content: Any, where: str, graph: Graph | None) -> Imported:
    """`torch.nn.utils.prune`: a state dict with `NAME.weight_orig` and `NAME.weight_mask`.

    Saved with `torch.save(model.state_dict(), "pruned.pt")` before `prune.remove`, alone or as
    `state_dict` of a checkpoint; or with its arrays in an .npz file. Hooks prune weights only,
    while a pruned output channel loses its bias as well: a warning says where that makes a
    difference.
    """
    tensors = _object(content, where)
    if isinstance(tensors.get("state_dict"), Mapping):
        tensors = _object(tensors["state_dict"], where)
    masks = {
        name.removesuffix(_MASK): _mask(value, f"{where}: '{name}'")
        for name, value in tensors.items()
        if name.endswith(_WEIGHT + _MASK)
    }
    if not masks:
        raise MaskError(
            f"{where}: expected a state dict with NAME.weight_mask in it, found "
            f"{_listed(tensors)}: save it before prune.remove() makes the masks permanent, or use "
            "the zeros in the exported weights, without a mask file"
        )
    biases: dict[str, Array] = {}
    for weight in masks:
        name = weight.removesuffix(_WEIGHT) + ".bias"
        bias, kept = as_array(tensors.get(name)), as_array(tensors.get(name + _MASK))
        if bias is None and kept is not None:
            original = as_array(tensors.get(name + "_orig"))
            bias = kept if original is None else original * kept
        if bias is not None:
            biases[weight] = bias
    return _from_elements(masks, biases, where, graph)


def from_nni(content: Any, where: str, graph: Graph | None) -> Imported:
    """NNI: `{layer: {"weight": mask, "bias": mask or None}}`, as its pruners return and save it.

    Saved with `torch.save(masks, "masks.pth")`. Masks of normalizations, inputs and outputs follow
    from those of the weights and are left out.
    """
    masks: dict[str, Array] = {}
    biases: dict[str, Array] = {}
    for name, targets in _object(content, where).items():
        targets = _object(targets, f"{where}: '{name}'")
        if targets.get("weight") is None:
            continue
        key = name + _WEIGHT
        masks[key] = _mask(targets["weight"], f"{where}: '{name}', 'weight'")
        bias = as_array(targets.get("bias"))
        if bias is not None:
            biases[key] = bias
    if not masks:
        raise MaskError(f"{where}: there are no weight masks in it ({_listed(content)})")
    return _from_elements(masks, biases, where, graph)


def from_torch_pruning(content: Any, where: str, graph: Graph | None) -> Imported:
    """Torch-Pruning: the indices of its groups by layer, or a pruner's history; JSON.

    1. `{layer: {"out": [...], "in": [...]}}`: for each Conv and Linear of a group the indices of
       `prune_out_channels` and `prune_in_channels`, which count the channels before pruning: so
       collect all groups of `pruner.step(interactive=True)` before the first is pruned.
    2. `pruner.pruning_history()`: `[[layer, is_output, [...]], ...]`. It names one layer of each
       group, and counts the channels left by the entries before. What is coupled with them follows
       from the exported model (unpruned), which must be given.
    """
    if isinstance(content, Sequence) and not isinstance(content, str):
        if graph is None:
            raise MaskError(
                f"{where}: a pruning history names one layer per group: give the model to find "
                "the others"
            )
        return from_history(content, where, graph)
    masks: dict[str, dict[str, list[int]]] = {}
    for name, sides in _object(content, where).items():
        key, place = name.removesuffix(_WEIGHT) + _WEIGHT, f"{where}: '{name}'"
        for side, indices in _object(sides, place).items():
            if side not in ("in", "out"):
                raise MaskError(f"{place}: expected 'in' and/or 'out', found {reprlib.repr(side)}")
            if not isinstance(indices, Sequence) or not all(_is_index(each) for each in indices):
                found = reprlib.repr(indices)
                raise MaskError(f"{place}, '{side}': expected a list of channels, found {found}")
            masks.setdefault(key, {})[f"{side}put"] = [int(each) for each in indices]
    return Imported(masks)


def from_upscale(content: Any, where: str, graph: Graph | None) -> Imported:
    """UPSCALE (apple-upscale): `[(parameter, channel), ...]`, as `PruningManager.compute` takes it.

    As JSON: such a list stands for `pruned_inputs`; an object with `pruned_inputs` and/or
    `pruned_outputs` holds one list each.
    """
    lists = content if isinstance(content, Mapping) else {"pruned_inputs": content}
    masks: dict[str, dict[str, list[int]]] = {}
    for option, pairs in lists.items():
        place = f"{where}: '{option}'"
        if option not in ("pruned_inputs", "pruned_outputs"):
            raise MaskError(f"{place}: expected 'pruned_inputs' and/or 'pruned_outputs'")
        if not isinstance(pairs, Sequence) or isinstance(pairs, str):
            raise MaskError(f"{place}: expected a list of pairs, found {reprlib.repr(pairs)}")
        for pair in pairs:
            if not isinstance(pair, Sequence) or len(pair) != 2 or not _is_index(pair[1]):
                found = reprlib.repr(pair)
                raise MaskError(f"{place}: expected pairs (parameter, channel), found {found}")
            if not isinstance(pair[0], str):
                raise MaskError(
                    f"{place}: {reprlib.repr(pair[0])} is a tensor of a trace, which means nothing "
                    "outside it: give the name of the parameter"
                )
            side = option.removeprefix("pruned_").removesuffix("s")
            masks.setdefault(pair[0], {}).setdefault(side, []).append(int(pair[1]))
    return Imported(masks)


FORMATS: Mapping[str, Importer] = {
    "torch": from_torch,
    "torch-pruning": from_torch_pruning,
    "upscale": from_upscale,
    "nni": from_nni,
}


def _from_elements(
    masks: Mapping[str, Array], biases: Mapping[str, Array], where: str, graph: Graph | None
) -> Imported:
    """Masks by weight; `biases` are what is left of each layer's bias."""
    found: dict[str, Mapping[str, list[int]]] = {}
    warnings = []
    for key, mask in masks.items():
        if mask.ndim < 2:
            continue  # Of a normalization, whose channels are those of the layer before it.
        layer = None if graph is None else layers_of(graph, key)[0]
        channels = masked_channels(mask, layer, f"{where}: '{key}'")
        if channels.sides:
            found[key] = channels.sides
        if channels.ignored:
            warnings.append(
                f"{where}: '{key}': {channels.ignored} of {mask.size} weights are masked one by "
                "one, not by whole channels: that part is ignored"
            )
        outputs = channels.sides.get(Side.OUTPUT, [])
        if layer is None:
            shifted = biases.get(key, np.zeros(0)) != 0
        else:
            assert graph is not None
            shifted = _shifted(graph, layer)
        lost = np.count_nonzero(shifted[outputs]) if shifted.shape == mask.shape[:1] else 0
        if lost:
            warnings.append(
                f"{where}: '{key}': {lost} pruned output channels have a bias or normalization "
                "that is not masked; a pruned channel is zero all the same. To keep them, export "
                "the model with its masks applied and use its zeros, without a mask file"
            )
    return Imported(found, tuple(warnings))


def _shifted(graph: Graph, layer: Layer) -> BoolArray:
    """The output channels that are not zero where their weights are."""
    if any(node.op in ("Add", "BatchNormalization", "Sub") for node in follow(graph, layer)):
        return np.ones(layer.outputs, bool)
    bias = layer_bias(graph, layer)
    return np.ones(layer.outputs, bool) if bias is None else bias != 0


def _mask(value: Any, where: str) -> Array:
    mask = as_array(value)
    if mask is None or not np.isin(mask, (0, 1)).all():
        found = reprlib.repr(value) if mask is None else f"other numbers ({mask.dtype})"
        raise MaskError(f"{where}: expected a mask of zeros and ones, found {found}")
    return mask


def _object(content: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        kind = type(content).__name__
        raise MaskError(f"{where}: expected a dictionary by name, found {kind}")
    return content


def _is_index(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _listed(content: Mapping[str, Any]) -> str:
    return ", ".join(list(content)[:3]) or "nothing"
