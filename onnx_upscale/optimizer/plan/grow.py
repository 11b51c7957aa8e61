"""`constrained`: masks grown until everybody who is coupled agrees."""

from __future__ import annotations

import numpy as np

from onnx_upscale.optimizer.analyze import Analysis, Structure
from onnx_upscale.optimizer.analyze.weights import BoolArray
from onnx_upscale.optimizer.load.masking import LayerMask
from onnx_upscale.optimizer.load.sides import Side


def grow_masks(analysis: Analysis) -> tuple[LayerMask, ...]:
    """Prunes at every reader what any coupled reader or writer has pruned.

    Channels that somebody else needs whole (a graph output, a norm over channels) are left alone:
    they cannot go, whatever the readers agree on.

    Args:
        analysis: The analysis of the model as masked so far.

    Returns:
        Input masks for all readers, which make them agree.
    """
    structure, values = analysis.structure, analysis.values
    roots = structure.roots
    pruned = np.zeros(len(roots), bool)
    fixed = np.zeros(len(roots), bool)
    for segment in structure.segments:
        for read in segment.readers:
            everything = np.ones(read.layer.outputs, bool)
            unused = ~analysis.weights.reaching(read.layer, everything)
            pruned[roots[read.inputs[unused]]] = True
        for writer in segment.writers:
            pruned[roots[writer.write.outputs[values[writer.write.outputs] == 0]]] = True
        for demand in segment.demands:
            fixed[roots[demand.labels]] = True
    pruned, fixed = (_across_permutations(structure, flags) for flags in (pruned, fixed))
    gone = (pruned & ~fixed)[roots]
    return tuple(
        LayerMask(read.layer, Side.INPUT, np.flatnonzero(gone[read.inputs]))
        for segment in structure.segments
        for read in segment.readers
        if gone[read.inputs].any()
    )


def _across_permutations(structure: Structure, flags: BoolArray) -> BoolArray:
    """Flags of roots, and of those that hold the same channels in another order."""
    permutations = [grid for grid in structure.grids if not grid.ordered]
    flags = flags.copy()
    for _ in permutations:  # What the last hears from the first comes through all of them.
        for grid in permutations:
            (factor,) = grid.factors
            flags[grid.flat] = flags[factor] = flags[grid.flat] | flags[factor]
    return flags
