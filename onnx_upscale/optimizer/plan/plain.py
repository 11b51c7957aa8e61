"""A plan that programs can follow whose wiring nobody rewrites, such as a torch module.

1. It keeps what another plan keeps, and whatever has to stay in addition, in the order of the
   model, so that the parts of a Concat stay where they are.
2. Every reader reads the channels that it reads there; those that cannot take a copy read all.
3. Copies stand right before readers, and nowhere else: none behind a writer, none before the nodes
   that lead to a reader. Averages stay where they are.
4. Every node has a channel left, as there are no tensors of width zero.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from onnx_upscale.optimizer.analyze import Needs, Structure
from onnx_upscale.optimizer.analyze.facts import Facts, Read
from onnx_upscale.optimizer.analyze.labels import distinct
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.plan import Plan, edits_of, is_empty, lay_out
from onnx_upscale.optimizer.plan.layout import Layout
from onnx_upscale.optimizer.plan.readings import Reading, Whole, ZeroFill, copied
from onnx_upscale.optimizer.plan.strategy import Strategy
from onnx_upscale.optimizer.plan.writings import WriteWhole, WriteZeros, Writing


def plain_plan(plan: Plan, stays: IntArray, copying: Collection[int]) -> Plan:
    """The decisions of a plan, with nothing but copies right before readers.

    Args:
        plan: The plan.
        stays: Roots of channels that stay in any case, beside those that the plan keeps.
        copying: Indices of the readers that can take a copy.

    Returns:
        The plan that comes nearest; it keeps at least what the other does.
    """
    analysis = plan.analysis
    kept, layout = plan.kept, plan.layout
    wanted = distinct(np.concatenate([stays, analysis.structure.roots[kept.labels]]))
    while True:
        structure = analysis.structure
        if not np.isin(wanted, structure.roots[kept.labels]).all():
            kept = analysis.keeping(wanted)
        kept, layout, failed = lay_out(analysis, kept, Strategy.GATHER)
        if failed:
            analysis = analysis.with_heads_in_step(failed)
            kept = analysis.keeping(wanted)
            continue
        empty = [facts for facts in structure.facts if is_empty(facts, layout)]
        if not empty:
            break
        firsts = np.array([root for facts in empty for root in _firsts(structure, facts)])
        wanted = distinct(np.concatenate([structure.roots[kept.labels], firsts]))
    readers: dict[int, Reading] = {}
    writers: dict[int, Writing] = {}
    for segment in structure.segments:
        for read in segment.readers:
            readers[read.layer.node.index] = _reading(plan, kept, layout, read, copying)
        for writer in segment.writers:
            here = layout.positions(writer.write.outputs)
            zero = (analysis.values[writer.write.outputs[here]] == 0).any()
            kind = WriteZeros if zero else WriteWhole
            writers[writer.node.index] = kind(writer.write, here)
    edits = edits_of(analysis, readers, writers)
    return Plan(analysis, kept, layout, readers, writers, edits, plan.prices)


def _firsts(structure: Structure, facts: Facts) -> Iterator[int]:
    for axes in facts.outputs.values():
        for labels in axes.values():
            yield int(structure.roots[labels[0]])


def _reading(
    plan: Plan, kept: Needs, layout: Layout, read: Read, copying: Collection[int]
) -> Reading:
    index, here = read.layer.node.index, layout.positions(read.inputs)
    needs = kept.reads[index][here]
    if needs.all():
        return Whole(read, here, needs, np.arange(len(here)))
    earlier = plan.readers.get(index)
    taken = np.zeros(len(read.inputs), bool)
    taken[[] if earlier is None else earlier.positions] = True
    chosen = np.flatnonzero(taken[here] | needs)
    if index not in copying or len(chosen) in (0, len(here)):
        return ZeroFill(read, here, needs, np.arange(len(here)))
    return copied(read, here, needs, chosen)
