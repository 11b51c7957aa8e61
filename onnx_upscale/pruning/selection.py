"""Which layers may lose channels: those that a user names, or all that were learned."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from onnx_upscale.criteria.left_alone import before_outputs, computes
from onnx_upscale.criteria.sites import find_sites
from onnx_upscale.errors import UsageError
from onnx_upscale.optimizer.analyze import Structure
from onnx_upscale.optimizer.load.formats import made_for_a_machine
from onnx_upscale.optimizer.load.keys import layer_key
from onnx_upscale.optimizer.load.unmaskable import why_no_layers
from onnx_upscale.pruning.families import Family, find_families


@dataclass(frozen=True)
class Scope:
    """Channels that may leave, and for whom.

    Attributes:
        families: The channels.
        layers: By node index, the layers that may give up some that they read; None for all.
    """

    families: tuple[Family, ...]
    layers: frozenset[int] | None


@dataclass(frozen=True)
class Selection:
    """What may leave.

    Attributes:
        scopes: What is tried, each if the one before is not enough; the last holds all others.
        last: By key of their masks, what the layers are called that the first of several scopes
            leaves alone, as they are right before an output.
        arithmetic: What the layers are called that are left alone, as nothing in them was learned.
    """

    scopes: tuple[Scope, ...]
    last: Mapping[str, str]
    arithmetic: tuple[str, ...]

    @property
    def families(self) -> tuple[Family, ...]:
        """All channels that may leave at all."""
        return self.scopes[-1].families


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
    titles = {
        index: (layer_key(structure.graph, layer), layer.node.title)
        for index, layer in structure.layers.items()
    }
    computing = dict(
        titles[index]
        for index, layer in structure.layers.items()
        if computes(structure.graph, layer)
    )
    if patterns:
        sites = find_sites(structure, "input", patterns)
        named = frozenset(site.layer.node.index for site in sites.chosen)
        left = tuple(computing[key] for key in sites.left.get("arithmetic", ()))
        return Selection((_scope(structure, named, agreeing),), {}, left)
    scopes = [_scope(structure, None, agreeing)]
    reading = {party.layer.node.index for each in scopes[0].families for party in each.readers}
    last = before_outputs(structure) & reading
    if last:
        with contextlib.suppress(UsageError):  # Only they have something to lose.
            scopes.insert(0, _scope(structure, frozenset(reading - last), agreeing))
    names = dict(titles[index] for index in sorted(last)) if len(scopes) > 1 else {}
    return Selection(tuple(scopes), names, tuple(computing.values()))


def _scope(structure: Structure, layers: frozenset[int] | None, agreeing: bool) -> Scope:
    return Scope(families_of(structure, layers, agreeing), layers)


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
            none = None if structure.layers else why_no_layers(structure.graph)
            if none is not None:
                raise UsageError(f"the model has no layer to prune: {none}")
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
