"""The criterion `reconstruction`: what is lost when new weights are fitted, as `prune` counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from onnx_upscale.criteria.sites import Site
from onnx_upscale.errors import DataError, UsageError, VerifySetupError
from onnx_upscale.optimizer.analyze import Structure
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.masking import LayerMask, resolve_masks
from onnx_upscale.optimizer.load.masks import read_masks
from onnx_upscale.optimizer.load.sides import Side
from onnx_upscale.prices import Prices
from onnx_upscale.pruning import find_curves, search, sensitivities
from onnx_upscale.pruning.second import SecondMoments
from onnx_upscale.pruning.selection import families_of
from onnx_upscale.samples import Samples, batches, split

_PROBED = 8  # Samples on which the sensitivity of every reader is found.


class Reconstruction:
    """The orders in which channels leave, and what their leaving costs.

    Args:
        structure: The structure of the model.
        sites: The sides of layers that may be pruned.
        samples: Inputs of the model.
        count: How many samples to use at most; a fifth of them is held out.
        seed: Which samples are used.
        constrained: Whether readers of a channel must give it up together.
        progress: Called with how many readers were looked at, of how many.

    Raises:
        UsageError: No channel may leave.
        DataError: The model does not run on the samples.
    """

    def __init__(
        self,
        structure: Structure,
        sites: Sequence[Site],
        samples: Samples,
        count: int,
        seed: int,
        constrained: bool,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._structure, self._sites, self._constrained = structure, sites, constrained
        self._layers = frozenset(site.layer.node.index for site in sites)
        self._families = families_of(structure, self._layers, constrained)
        if samples.count < 2:
            raise DataError("one sample is not enough: give at least 2, better some hundreds")
        graph = structure.graph
        wanted = {p.layer.node.index for family in self._families for p in family.readers}
        readers = [
            read.layer
            for segment in structure.segments
            for read in segment.readers
            if read.layer.node.index in wanted
        ]
        fitting, _ = split(samples.count, count, seed)
        tell = progress or (lambda done, of: None)
        try:
            probes = [b.inputs for b in batches(samples, fitting[:_PROBED], graph.model)]
            moved = sensitivities(graph, readers, probes, seed)
            moments = SecondMoments(
                graph,
                readers,
                lambda: batches(samples, fitting, graph.model),
                seed,
                lambda done: tell(done, len(readers)),
            )
            self._curves = find_curves(
                structure, self._families, moments, moved, alone=not constrained
            )
        except VerifySetupError as error:
            raise DataError(f"the model does not run on the samples: {error}") from None

    def masks(self, amount: float) -> tuple[LayerMask, ...]:
        """The same share of every layer: the channels that leave first.

        Args:
            amount: The share, from 0 to 1, of the channels that may leave.

        Returns:
            A mask per site.
        """
        gone: dict[int, list[IntArray]] = {}
        for family in self._families:
            curves, count = self._curves[family.id], int(amount * family.units)
            for party, own in zip(family.readers, curves.own, strict=True):
                taken = gone.setdefault(party.layer.node.index, [])
                taken.append(family.roots[own.order[:count]])  # The common one, if constrained.
        return tuple(self._mask(site, gone.get(site.layer.node.index, [])) for site in self._sites)

    def _mask(self, site: Site, gone: Sequence[IntArray]) -> LayerMask:
        pruned = np.empty(0, np.int64)
        if gone and site.labels is not None:
            inputs = self._structure.roots[site.labels]
            pruned = np.flatnonzero(np.isin(inputs, np.concatenate(gone)))
        return LayerMask(site.layer, Side.INPUT, pruned)

    def within(self, budget: float, prices: Prices) -> tuple[LayerMask, ...]:
        """What `prune` chooses for a predicted latency.

        Args:
            budget: The latency, as a share of the unpruned model's.
            prices: What work costs on the target.

        Returns:
            A mask per layer that was considered.

        Raises:
            UsageError: The budget cannot be met.
        """
        mode = "agreement" if self._constrained else "joint"
        try:
            (choice,) = search(
                self._structure,
                self._families,
                self._curves,
                prices,
                [budget],
                "latency",
                mode,
                self._layers,
            )
        except UsageError as error:
            raise UsageError(str(error).replace("`latency`", "`budget`", 1)) from None
        return resolve_masks(self._structure.graph, read_masks(choice.masks))
