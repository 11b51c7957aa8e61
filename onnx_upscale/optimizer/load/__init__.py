"""load: read a model and masks, check them, and lay the masks over the weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnx_upscale.optimizer.load import (
    contractions,
    einsum,
    few_bits,
    fused,
    quantized,
    recurrent,
)
from onnx_upscale.optimizer.load.bodies import Body
from onnx_upscale.optimizer.load.graph import Graph, build_graph
from onnx_upscale.optimizer.load.masking import LayerMask
from onnx_upscale.optimizer.load.masks import Mask, MaskSource, read_masks
from onnx_upscale.optimizer.load.model import ModelSource, read_files, read_model
from onnx_upscale.optimizer.load.scopes import lay_masks
from onnx_upscale.optimizer.load.witness import Sizes

__all__ = [
    "Loaded",
    "MaskSource",
    "ModelSource",
    "contractions",
    "einsum",
    "few_bits",
    "fused",
    "load",
    "quantized",
    "read_model",
    "recurrent",
]


@dataclass(frozen=True)
class Loaded:
    """A model and what is to be pruned from it.

    Attributes:
        graph: The model seen through its masks: the masked model.
        masks: The masks on layers of the main graph, by layer and side.
        stated: The same as they were read, before anybody looked up what their keys mean.
        given: Whether anybody gave masks, be they empty.
        files: The external files in which weights of the model lie.
        bodies: The bodies of If, Loop and Scan that have layers, seen through masks of their own.
    """

    graph: Graph
    masks: tuple[LayerMask, ...]
    stated: tuple[Mask, ...]
    given: bool = True
    files: frozenset[Path] = frozenset()
    bodies: tuple[Body, ...] = ()


def load(
    model: ModelSource,
    masks: MaskSource = None,
    sizes: Sizes | None = None,
    runs: bool = True,
    mapped: bool = False,
) -> Loaded:
    """Reads a model and its masks.

    Args:
        model: A path or a `ModelProto`, or what `read_files` gave.
        masks: A path, a dictionary, or None (or `-`) to use only the zeros in the weights.
        sizes: Shapes of inputs with symbolic dimensions, at which the model may run where nothing
            but a run shows its shapes.
        runs: Whether the model may run for that at all.
        mapped: Whether large weights stay in external files (`onnx_upscale.mapped`).

    Returns:
        The model seen through its masks.

    Raises:
        ModelError: The model cannot be read.
        MaskError: The masks cannot be read or do not fit the model.
    """
    read = read_files(model, mapped)
    graph = build_graph(read.model, sizes, runs)
    stated = read_masks(masks)
    seen, resolved, bodies = lay_masks(graph, stated)
    given = masks is not None and masks != "-"
    return Loaded(seen, resolved, stated, given, read.sources, bodies)
