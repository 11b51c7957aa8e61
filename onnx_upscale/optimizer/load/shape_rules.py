"""Shapes that some operators make of shapes, where onnx leaves sizes with names open."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from onnx_upscale.declared import Shape
from onnx_upscale.optimizer.load.arithmetic import Value, quotient, sizes_of
from onnx_upscale.optimizer.load.polynomials import Polynomial, number, polynomial, product_of

Size: TypeAlias = "int | str | None"
_END = (1 << 31) - 1
"""Where an end of a Slice starts to mean that of the axis."""


@dataclass(frozen=True)
class Use:
    """A node as shapes see it.

    Attributes:
        shapes: The shape of each input; a size that is not known is None.
        values: The value of each input where that is known.
        attributes: The attributes.
    """

    shapes: Sequence[Shape | None]
    values: Sequence[Value | None]
    attributes: Mapping[str, Any]

    def shape(self, slot: int = 0) -> Shape | None:
        """The shape of an input that may be left out."""
        return self.shapes[slot] if slot < len(self.shapes) else None

    def sizes(self, slot: int, attribute: str = "") -> list[Size] | None:
        """A list of sizes, which is an attribute in older operator sets."""
        if attribute in self.attributes:
            return list(self.attributes[attribute])
        value = self.values[slot] if slot < len(self.values) else None
        return None if value is None or value.dtype.kind not in "Oiu" else sizes_of(value)


ShapeRule: TypeAlias = "Callable[[Use], Shape | None]"

SHAPE_RULES: dict[str, ShapeRule] = {}
"""By operator: the shape of what it makes first. What a rule leaves open, onnx may know."""


def _rule(operators: str) -> Callable[[ShapeRule], ShapeRule]:
    def register(function: ShapeRule) -> ShapeRule:
        SHAPE_RULES.update(dict.fromkeys(operators.split(), function))
        return function

    return register


@_rule("Reshape")
def _reshaped(use: Use) -> Shape | None:
    before, sizes = use.shape(), use.sizes(1)
    if sizes is None:
        return None
    if not use.attributes.get("allowzero", 0):
        for axis, size in enumerate(sizes):
            if size == 0:
                sizes[axis] = before[axis] if before is not None and axis < len(before) else None
    if -1 in sizes:
        axis = sizes.index(-1)
        sizes[axis] = _remaining(before, sizes[:axis] + sizes[axis + 1 :])
    return tuple(sizes)


def _remaining(before: Shape | None, others: Sequence[Size]) -> Size:
    """What is left of a shape for one more axis beside others."""
    if before is None or None in before or None in others:
        return None
    whole, part = (product_of(s for s in sizes if s is not None) for sizes in (before, others))
    found = whole.over(part)
    return None if found is None else found.size


@_rule("Expand")
def _expanded(use: Use) -> Shape | None:
    before, wanted = use.shape(), use.sizes(1)
    if before is None or wanted is None:
        return None
    rank = max(len(before), len(wanted))
    one, other = ((1,) * (rank - len(sizes)) + tuple(sizes) for sizes in (before, wanted))
    return tuple(map(broadcast, one, other))


def broadcast(one: Size, other: Size) -> Size:
    """The size of an axis that two operands make together, or None where that is not certain."""
    if other == 1 or one == other:
        return one
    if one == 1:
        return other
    # A number that is not 1 is not repeated; of two names either may stand for 1.
    return next((size for size in (one, other) if isinstance(size, int)), None)


@_rule("ConstantOfShape")
def _filled(use: Use) -> Shape | None:
    sizes = use.sizes(0)
    return None if sizes is None else tuple(sizes)


@_rule("Range")
def _ranged(use: Use) -> Shape | None:
    start, limit, step = (use.sizes(slot) for slot in range(3))
    if start is None or limit is None or step != [1] or None in (start[0], limit[0]):
        return (None,)
    return (_not_negative(polynomial(limit[0] or 0) - polynomial(start[0] or 0)),)


def _not_negative(size: Polynomial) -> Size:
    """A difference, unless it could be less than nothing."""
    return size.size if all(factor > 0 for _, factor in size.terms) else None


@_rule("Concat")
def _concatenated(use: Use) -> Shape | None:
    known = [shape for shape in use.shapes if shape is not None]
    if len(known) < len(use.shapes) or len({len(shape) for shape in known}) != 1:
        return None
    along = use.attributes["axis"] % len(known[0])
    columns = list(zip(*known, strict=True))
    sizes = [
        next((size for size in column if isinstance(size, int)), column[0]) for column in columns
    ]
    parts = [polynomial(size) for size in columns[along] if size is not None]
    whole = functools.reduce(operator.add, parts, number(0))
    sizes[along] = whole.size if len(parts) == len(known) else None
    return tuple(sizes)


@_rule("Slice")
def _sliced(use: Use) -> Shape | None:
    before, starts, ends = use.shape(), use.sizes(1, "starts"), use.sizes(2, "ends")
    if before is None:
        return None
    has_axes = "axes" in use.attributes or len(use.shapes) > 3
    axes = use.sizes(3, "axes") if has_axes else list(range(len(starts or ())))
    steps = use.sizes(4) if len(use.shapes) > 4 else [1] * len(axes or ())
    if axes is None or not all(isinstance(axis, int) for axis in axes):
        return (None,) * len(before)
    sizes = list(before)
    for place, axis in enumerate(int(axis or 0) % len(before) for axis in axes):
        start, end, step = (
            None if bounds is None or place >= len(bounds) else bounds[place]
            for bounds in (starts, ends, steps)
        )
        sizes[axis] = _cut(before[axis], start, end, step)
    return tuple(sizes)


def _cut(size: Size, start: Size, end: Size, step: Size) -> Size:
    """What a Slice leaves of an axis with a name, if it takes something off its ends."""
    numbers = isinstance(start, int) and isinstance(end, int)
    if not numbers or step != 1 or not isinstance(size, str):
        return None
    assert isinstance(start, int) and isinstance(end, int)
    if start < 0 or 0 <= end < _END:
        return None
    return _not_negative(polynomial(size) + number(min(end, 0) - start))


@_rule("Pad")
def _padded(use: Use) -> Shape | None:
    before, pads = use.shape(), use.sizes(1, "pads")
    if before is None:
        return None
    if pads is None or len(pads) != 2 * len(before) or len(use.shapes) > 3:
        return (None,) * len(before)
    return tuple(
        None
        if None in parts
        else functools.reduce(operator.add, (polynomial(part or 0) for part in parts)).size
        for parts in zip(before, pads[: len(before)], pads[len(before) :], strict=True)
    )


@_rule("Resize Upsample")
def _resized(use: Use) -> Shape | None:
    before, sizes = use.shape(), use.sizes(3)
    policy = use.attributes.get("keep_aspect_ratio_policy", b"stretch")
    cropped = use.attributes.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
    if before is None or use.attributes.get("axes") or policy != b"stretch" or cropped:
        return None
    if sizes is not None and len(sizes) == len(before):
        return tuple(sizes)
    slot = min(2, len(use.values) - 1)
    scales = use.attributes.get("scales", use.values[slot] if slot else None)
    if scales is None or len(scales) != len(before) or isinstance(scales[0], Polynomial):
        return None
    return tuple(
        (polynomial(size) * number(int(scale))).size
        if size is not None and scale == int(scale)
        else None
        for size, scale in zip(before, scales, strict=True)
    )


@_rule("Conv MaxPool AveragePool LpPool")
def _windowed(use: Use) -> Shape | None:
    window = _window(use, len(use.shapes) > 1)
    if window is None or use.attributes.get("ceil_mode", 0):
        return None
    before, kernel, strides, dilations, pads = window
    sizes = []
    for axis, size in enumerate(before[2:]):
        around = pads[axis] + pads[axis + len(kernel)] - dilations[axis] * (kernel[axis] - 1) - 1
        steps = None
        if size is not None:
            steps = quotient(polynomial(size) + number(around), number(strides[axis]))
        sizes.append(None if steps is None else (steps + number(1)).size)
    return (before[0], None, *sizes)


@_rule("ConvTranspose")
def _spread(use: Use) -> Shape | None:
    window = _window(use, weighted=True)
    if window is None or use.attributes.get("output_shape"):
        return None
    before, kernel, strides, dilations, pads = window
    more = use.attributes.get("output_padding") or (0,) * len(kernel)
    sizes = []
    for axis, size in enumerate(before[2:]):
        around = dilations[axis] * (kernel[axis] - 1) + 1 + more[axis] - strides[axis]
        around -= pads[axis] + pads[axis + len(kernel)]
        spread = None if size is None else polynomial(size) * number(strides[axis])
        sizes.append(None if spread is None else (spread + number(around)).size)
    return (before[0], None, *sizes)


_Window: TypeAlias = (
    "tuple[Shape, Sequence[int], Sequence[int], Sequence[int], Sequence[int]] | None"
)


def _window(use: Use, weighted: bool) -> _Window:
    """The shape before a window moves over it, and its kernel, strides, dilations and pads."""
    before, weight = use.shape(), use.shape(1)
    sides = use.attributes.get("kernel_shape") or (weight[2:] if weighted and weight else ())
    kernel = [side for side in sides if isinstance(side, int)]
    if before is None or len(sides) != len(before) - 2 or len(kernel) < len(sides):
        return None
    if use.attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return None
    ones = (1,) * len(kernel)
    pads = use.attributes.get("pads") or (0,) * (2 * len(kernel))
    strides, dilations = (use.attributes.get(name) or ones for name in ("strides", "dilations"))
    return before, kernel, strides, dilations, pads
