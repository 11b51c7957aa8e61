"""Operators that change how positions are grouped into axes."""

from __future__ import annotations

import math

import numpy as np

from onnx_upscale.declared import Shape
from onnx_upscale.optimizer.analyze.context import Context, UnclearError
from onnx_upscale.optimizer.analyze.facts import Carry, How
from onnx_upscale.optimizer.analyze.rewrites import Template
from onnx_upscale.optimizer.analyze.rules.grouping import factors_around, matching_groups
from onnx_upscale.optimizer.analyze.rules.table import rule
from onnx_upscale.optimizer.load.graph import IntArray


@rule("Squeeze Unsqueeze")
def squeeze(node: Context) -> None:
    """Axes of size one come and go."""
    given = node.constant_list(1, "axes")
    before, after = node.shape(), node.output_shape()
    changed = max(len(before), len(after))
    if given is None:
        if None in before or any(isinstance(size, str) for size in before):
            raise UnclearError("it is not known which axes it removes")
        given = [axis for axis, size in enumerate(before) if size == 1]
    axes = {int(axis) % changed for axis in given}
    others = [axis for axis in range(changed) if axis not in axes]
    places = (
        {axis: place for place, axis in enumerate(others)}
        if node.node.op == "Squeeze"
        else dict(enumerate(others))
    )
    for axis, labels in node.axes(0).items():
        if axis in places:
            node.move(places[axis], labels)
        else:
            node.pin(0, axis, "squeezed away")


@rule("Reshape Flatten")
def reshape(node: Context) -> None:
    """Axes are merged and split; a labelled axis passes where its part in that is clear."""
    before, after = node.shape(), node.output_shape()
    groups = matching_groups(before, after)
    if groups is None:
        raise UnclearError("it is not known which axes it merges or splits")
    if node.node.op == "Reshape":
        node.resizes(1, _sizes_template(node, before, after))
    for sources, targets in groups:
        labelled = [axis for axis in sources if axis in node.axes(0)]
        wide = [target for target in targets if after[target] != 1]
        if len(labelled) > 1 and len(wide) == 1:
            _merge(node, sources, wide[0], before)
            continue
        for axis in labelled[:-1]:
            node.pin(0, axis, "merged with another axis of channels")
        if labelled:
            _regroup(node, labelled[-1], sources, targets, before, after)


def _merge(node: Context, sources: list[int], target: int, before: Shape) -> None:
    """Merges several axes of channels, all of which may lose some."""
    factors = []
    for axis in sources:
        factor = node.axes(0).get(axis)
        if factor is None and before[axis] == 1:
            continue  # It is no factor.
        if factor is None:
            factor = node.unbound(_known(before[axis]))
            node.pin_part(0, axis, factor, "merged with axes of channels")
        factors.append(factor)
    flat = node.make(target, math.prod(map(len, factors)))
    node.grid(flat, factors, splits=False)


def _regroup(
    node: Context, axis: int, sources: list[int], targets: list[int], before: Shape, after: Shape
) -> None:
    """Passes one labelled axis through a group of axes that hold the same positions."""
    labels = node.axes(0)[axis]
    place = sources.index(axis)
    wide = [target for target in targets if after[target] != 1]
    leads = all(before[source] == 1 for source in sources[:place])
    merges = any(before[source] != 1 for source in sources[place + 1 :])
    if leads and merges and len(wide) > 1 and _into_groups(node, labels, wide[0]):
        return
    outer, inner = factors_around(
        [before[source] for source in sources], place, [after[target] for target in targets]
    )
    if len(wide) == 1:
        made = node.make(wide[0], _known(after[wide[0]]))
        node.tie(made, labels, outer, inner)
        flat = np.tile(np.repeat(labels, inner), outer)
        node.carry(Carry(How.SAME, {0: flat}, wide[0], made))
        return
    if outer * inner > 1 or not wide:
        node.pin(0, axis, "merged and split again")
        return
    if node.in_heads:
        factors = [node.make(target, _known(after[target])) for target in wide]
        node.grid(labels, factors, splits=True)
        return
    # One axis is split in several. Its channels stay whole along one of them: that of which they
    # were merged with others, or the largest.
    sizes = [_known(after[target]) for target in targets]
    chosen = max(
        wide,
        key=lambda target: (
            _alike(node, labels, sizes, targets.index(target)),
            _known(after[target]),
            -target,
        ),
    )
    place = targets.index(chosen)
    made = node.make(chosen, _known(after[chosen]))
    outer, inner = math.prod(sizes[:place]), math.prod(sizes[place + 1 :])
    node.tie(labels, made, outer, inner)
    slices = labels.reshape(outer, len(made), inner).swapaxes(0, 1)
    node.carry(Carry(How.ALIKE, {0: slices.ravel()}, chosen, made))


def _alike(node: Context, labels: IntArray, sizes: list[int], place: int) -> bool:
    """Whether channels that are split stand along one axis alone, and alike beside all others."""
    roots = np.moveaxis(node.roots(labels).reshape(sizes), place, 0).reshape(sizes[place], -1)
    return bool((roots == roots[:, :1]).all())


def _into_groups(node: Context, labels: IntArray, target: int) -> bool:
    """Ties a leading axis to one that leads behind: whole groups of the longer one may leave.

    That is how exporters write a normalization in groups. What follows either axis merges with the
    rest of its channel, or of its group.
    """
    size = node.output_shape()[target]
    if not isinstance(size, int) or max(size, len(labels)) % min(size, len(labels)):
        return False
    made = node.make(target, size)
    if size <= len(labels):
        node.tie(labels, made, inner=len(labels) // size)
        node.carry(Carry(How.ALIKE, {0: labels}, target, made))
    else:
        times = size // len(labels)
        node.tie(made, labels, inner=times)
        node.carry(Carry(How.SAME, {0: labels.repeat(times)}, target, made))
    return True


def _known(size: int | str | None) -> int:
    if not isinstance(size, int):
        raise UnclearError("it merges or splits an axis of unknown size")
    return size


def _sizes_template(node: Context, before: Shape, after: Shape) -> Template:
    """What makes Reshape give `after`: 0 is "as in the input", one size may be -1.

    Raises:
        UnclearError: Nothing can be written that does.
    """
    unknown = [axis for axis, size in enumerate(after) if not isinstance(size, int)]
    sizes = [size if isinstance(size, int) else -1 for size in after]
    if len(unknown) > 1 and not node.attribute("allowzero", 0):
        for axis in unknown:
            if axis < len(before) and after[axis] is not None and before[axis] == after[axis]:
                sizes[axis] = 0
    if 0 in after:
        raise UnclearError("its shape cannot be written as a constant")
    if sizes.count(-1) > 1:
        return tuple(size if isinstance(size, int) else None for size in after)
    return tuple(sizes)


@rule("Expand")
def expand(node: Context) -> None:
    """Repeats axes of size one; the others pass."""
    before, after = node.shape(), node.output_shape()
    shift = len(after) - len(before)
    repeated = _repeated_heads(node, before, after)
    if repeated is None:
        node.resizes_in_place(1, after)
    else:
        node.make(repeated, _known(after[repeated]))
        # A size of one leaves an axis as it is, whatever its size.
        node.resizes(
            1, (*[1] * repeated, _known(after[repeated]), *[1] * (len(after) - repeated - 1))
        )
    if node.constant(0) is not None:
        _repeat(node, before, after)
    for axis, labels in node.axes(0).items():
        place = axis + shift
        if after[place] == len(labels):
            node.pass_on(place, labels, How.SAME)
        else:
            node.pin(0, axis, "expanded")


def _repeated_heads(node: Context, before: Shape, after: Shape) -> int | None:
    """The one axis that is repeated, if it stands behind heads: several of them share keys."""
    shift = len(after) - len(before)
    grown = [
        axis
        for axis, size in enumerate(after)
        if axis < shift or size is None or before[axis - shift] != size
    ]
    if not node.in_heads or len(grown) != 1 or grown[0] - shift - 1 not in node.axes(0):
        return None
    alone = before[grown[0] - shift] == 1 and isinstance(after[grown[0]], int)
    return grown[0] if alone else None


def _repeat(node: Context, before: Shape, after: Shape) -> None:
    """A constant that is repeated, such as a token: the entries of its last axis are channels."""
    wide = [axis for axis, size in enumerate(before) if size != 1]
    place = wide[-1] + len(after) - len(before) if wide else -1
    if wide and after[place] == before[wide[-1]]:
        made = node.make(place, _known(after[place]))
        node.param(0, wide[-1], made)
        node.embeds(made)


@rule("Shape")
def shape(node: Context) -> None:
    """Reads sizes, not values: an axis matters where its size is used (see `sizes`)."""
