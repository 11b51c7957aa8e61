"""Nodes that move channels, fitted to new layouts: Concat, Split, Slice, Gather, and shapes."""

from __future__ import annotations

import numpy as np

from onnx_upscale.optimizer.analyze.facts import Facts, Selection
from onnx_upscale.optimizer.apply.copies import select_node
from onnx_upscale.optimizer.apply.surgery import Surgery
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.plan import Layout, join_order

_SLICE_INPUTS_SINCE = 10
_SPLIT_INPUT_SINCE = 13
_END = np.iinfo(np.int64).max


def fit_join(surgery: Surgery, facts: Facts, layout: Layout) -> None:
    """Takes the parts of a Concat in the order of its layout; a single part needs no Concat."""
    assert facts.join is not None
    order = join_order(layout, facts.join)
    assert order is not None
    index, node = facts.node.index, surgery.nodes[facts.node.index]
    slots = [facts.join.slots[part] for part in order]
    if slots != list(facts.join.slots):
        node.inputs = [node.inputs[slot] for slot in slots]
    name = facts.node.outputs[0]
    graph = surgery.graph
    if len(slots) == 1 and name not in graph.outputs and name not in graph.captured:
        source, output = node.inputs[0], node.outputs[0]
        if source.name not in graph.constants:
            surgery.removed.add(index)
            for reader in list(output.outputs):
                reader.inputs = [source if tensor is output else tensor for tensor in reader.inputs]


def fit_sizes(surgery: Surgery, facts: Facts, layout: Layout) -> None:
    """Rewrites the shape that a Reshape or its like is told, if a channel axis changes."""
    assert facts.resized is not None
    sizes = list(facts.resized.template)
    changed = False
    for axis, labels in facts.outputs.get(0, {}).items():
        count = len(layout.positions(labels))
        changed |= count != len(labels)
        sizes[axis] = count
    if changed:
        stem = f"{facts.node.outputs[0]}.sizes"
        surgery.replace_tensor(facts.node.index, facts.resized.slot, surgery.integers(stem, sizes))


def fit_selection(surgery: Surgery, facts: Facts, selection: Selection, layout: Layout) -> None:
    """Makes a Split, Slice or Gather pick the same channels from the new layout."""
    source = layout.positions(selection.source)
    place = np.full(len(selection.source), -1, np.int64)
    place[source] = np.arange(len(source))
    picks: list[IntArray] = []
    for output, pick in enumerate(selection.picks):
        labels = facts.outputs[output][selection.axis]
        picks.append(place[pick[layout.positions(labels)]])
    same = len(source) == len(selection.source) and all(
        np.array_equal(new, old) for new, old in zip(picks, selection.picks, strict=True)
    )
    if not same:
        _FITS[facts.node.op](surgery, facts, selection.axis, picks, len(source))


def _fit_gather(
    surgery: Surgery, facts: Facts, axis: int, picks: list[IntArray], size: int
) -> None:
    stem = f"{facts.node.outputs[0]}.indices"
    surgery.replace_tensor(facts.node.index, 1, surgery.integers(stem, picks[0]))


def _fit_split(surgery: Surgery, facts: Facts, axis: int, picks: list[IntArray], size: int) -> None:
    index, node = facts.node.index, surgery.nodes[facts.node.index]
    present = [output for output, pick in enumerate(picks) if len(pick)]
    present.sort(key=lambda output: int(picks[output].min()))
    laid = np.concatenate([picks[output] for output in present])
    if np.array_equal(laid, np.arange(size)):
        sizes = [len(picks[output]) for output in present]
        node.outputs = [node.outputs[output] for output in present]
        node.attrs["num_outputs"] = None
        if surgery.graph.opset >= _SPLIT_INPUT_SINCE:
            surgery.replace_tensor(
                index, 1, surgery.integers(f"{node.outputs[0].name}.split", sizes)
            )
        else:
            node.attrs["split"] = sizes
        return
    surgery.removed.add(index)
    targets = [node.outputs[output] for output in present]
    source = node.inputs[0]
    node.outputs.clear()
    for output, target in zip(present, targets, strict=True):
        copy = select_node(surgery, source, axis, picks[output], target)
        surgery.after.setdefault(index, []).append(copy)


def _fit_slice(surgery: Surgery, facts: Facts, axis: int, picks: list[IntArray], size: int) -> None:
    (pick,) = picks
    start, end, step = 0, _END, 1
    if np.array_equal(pick, np.arange(pick[0], pick[0] + len(pick))):
        start, end = int(pick[0]), int(pick[0]) + len(pick)
    else:
        indices = surgery.integers(f"{facts.node.outputs[0]}.indices", pick)
        stem = f"{facts.node.outputs[0]}.gather_node"
        surgery.insert_after(facts.node.index, "Gather", stem, [indices], axis=axis)
    _set_bounds(surgery, facts, axis, (start, end, step))


def _set_bounds(surgery: Surgery, facts: Facts, axis: int, bounds: tuple[int, int, int]) -> None:
    graph, node = surgery.graph, surgery.nodes[facts.node.index]
    rank = len(graph.shapes[facts.node.inputs[0]])
    names = ("starts", "ends", "axes", "steps")
    if graph.opset < _SLICE_INPUTS_SINCE:
        known = {name: list(facts.node.attributes.get(name, ())) for name in names}
        known |= {name: node.attrs[name] for name in names if name in node.attrs}
    else:
        known = {
            name: _input_list(surgery, facts, slot) for slot, name in enumerate(names, start=1)
        }
    axes = [value % rank for value in known["axes"] or range(len(known["starts"]))]
    steps = known["steps"] or [1] * len(axes)
    at = axes.index(axis)
    known["starts"][at], known["ends"][at], steps[at] = bounds
    if graph.opset < _SLICE_INPUTS_SINCE:
        node.attrs.update(starts=known["starts"], ends=known["ends"])
        return
    for slot, values in enumerate((known["starts"], known["ends"], axes, steps), start=1):
        stem = f"{facts.node.outputs[0]}.{names[slot - 1]}"
        surgery.replace_tensor(facts.node.index, slot, surgery.integers(stem, values))


def _input_list(surgery: Surgery, facts: Facts, slot: int) -> list[int]:
    """A list input as it is now: rewritten for another axis of this node, or the original."""
    inputs = surgery.nodes[facts.node.index].inputs
    if slot < len(inputs) and isinstance(getattr(inputs[slot], "values", None), np.ndarray):
        return [int(value) for value in inputs[slot].values]
    value = surgery.graph.value(facts.node, slot)
    return [] if value is None else [int(entry) for entry in value.ravel()]


_FITS = {"Gather": _fit_gather, "Split": _fit_split, "Slice": _fit_slice}
