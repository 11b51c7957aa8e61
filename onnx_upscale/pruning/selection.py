"""Which layers may lose channels: those that a user names, or all that were learned."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from onnx_upscale.criteria.left_alone import computes
from onnx_upscale.criteria.sites import find_sites
from onnx_upscale.errors import UsageError
from onnx_upscale.optimizer.analyze import Structure
from onnx_upscale.optimizer.load.formats import made_for_a_machine
from onnx_upscale.optimizer.load.keys import layer_key
from onnx_upscale.pruning.families import Family, find_families


@dataclass(frozen=True)
class Selection:
    """What may leave.

    Attributes:
        families: The channels.
        layers: By node index, the layers that may give up some that they read; None for all.
        arithmetic: What the layers are called that are left alone, as nothing in them was learned.
    """

    families: tuple[Family, ...]
    layers: frozenset[int] | None
    arithmetic: tuple[str, ...]


def select(structure: Structure, patterns: Sequence[str], agreeing: bool) -> Selection:
    """Finds what may leave.

    Args:
        structure: The structure of the model.
        patterns: Of the layers to prune, as for `mask`; none for all.
        agreeing: Whether all readers of a channel must give it up together.

    Returns:
        It.

    Raises:
        UsageError: Nothing may leave, or a pattern matches no layer.
    """
    computing = {
        layer_key(structure.graph, layer): layer.node.title
        for layer in structure.layers.values()
        if computes(structure.graph, layer)
    }
    if not patterns:
        return Selection(families_of(structure, None, agreeing), None, tuple(computing.values()))
    sites = find_sites(structure, "input", patterns)
    layers = frozenset(site.layer.node.index for site in sites.chosen)
    left = tuple(computing[key] for key in sites.left.get("arithmetic", ()))
    return Selection(families_of(structure, layers, agreeing), layers, left)


def families_of(
    structure: Structure, layers: Collection[int] | None, agreeing: bool
) -> tuple[Family, ...]:
    """The families of which some layers may give up channels.

    Args:
        structure: The structure of the model.
        layers: By node index, the layers; None for all that were learned.
        agreeing: Whether all readers of a channel must give it up together: then those that other
            layers read stay.

    Returns:
        Some of what `find_families` finds.

    Raises:
        UsageError: There are none.
    """
    families = find_families(structure, named=layers or ())
    if layers is None:
        if not families:
            why = made_for_a_machine(structure.graph.model.graph.node)
            why = why or "'onnx-upscale analyze' says what keeps them"
            raise UsageError(f"the model has no layer whose channels can leave: {why}")
        return families
    enough = all if agreeing else any
    found = tuple(
        family
        for family in families
        if enough(party.layer.node.index in layers for party in family.readers)
    )
    if not found:
        raise UsageError(
            "no channel is left to prune: each is needed whole, or read by a layer that is left "
            "alone: 'onnx-upscale analyze' says what keeps them"
        )
    return found
