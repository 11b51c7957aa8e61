"""Which way each site takes, by what its cuttings take in onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from onnx_upscale.benchmark import interleave
from onnx_upscale.benchmark.statistics import median_interval
from onnx_upscale.errors import VerifySetupError
from onnx_upscale.optimizer.apply import apply
from onnx_upscale.optimizer.load.witness import shapes_at
from onnx_upscale.optimizer.plan import Plan, Preferred, Way, plan
from onnx_upscale.optimizer.plan.cost import Costs
from onnx_upscale.options import Sizes
from onnx_upscale.running import input_sizes, random_inputs
from onnx_upscale.tuning.cuttings import Form, cutting, form_of
from onnx_upscale.tuning.runtime import Runtime
from onnx_upscale.tuning.sites import Site, find_sites

SHARE = 0.5
"""How much of the time goes to the choices; the rest is for whole models."""
_ROUNDS, _FEWEST = 30, 6
_MOST_SHARE = 0.05
"""How much of the time for all sites one of them gets at most."""


def choose(planned: Plan, costs: Costs, runtime: Runtime) -> Preferred:
    """Measures what each site can do.

    Args:
        planned: The plan that `auto` made.
        costs: The prices that it went by.
        runtime: How models run.

    Returns:
        The ways that are faster than what was planned, as far as time allowed to find out.
    """
    sites = find_sites(planned, costs)
    readers, writers = dict[int, Way](), dict[int, Way]()
    if not sites:
        return Preferred()
    variants = _Variants(planned, costs, sites, runtime.sizes)
    clock = _Stopwatch(runtime)
    for site in sites:
        if not runtime.budget.left(SHARE):
            break
        parts = [variants.cutting(site, number) for number in range(len(site.ways))]
        best = clock.fastest([part for part in parts if part is not None])
        runtime.budget.tell()
        if best and len(parts) == sum(part is not None for part in parts):
            (readers if site.reads else writers)[site.index] = site.ways[best]
    return Preferred(readers, writers)


class _Variants:
    """Emitted models in which every site takes its first way, its second, and so on."""

    def __init__(self, planned: Plan, costs: Costs, sites: Sequence[Site], sizes: Sizes) -> None:
        self._planned, self._costs, self._sites, self._sizes = planned, costs, sites, sizes
        self._graph = planned.analysis.structure.graph
        self._made: dict[tuple[bool, int], tuple[onnx.ModelProto, Sizes]] = {}

    def cutting(self, site: Site, number: int) -> onnx.ModelProto | None:
        """The surroundings of a site that takes one of its ways."""
        key = site.reads and number > 0, number
        if key not in self._made:
            self._made[key] = self._model(*key)
        model, shapes = self._made[key]
        return cutting(model, site, self._graph, shapes, self._is_blocked)

    def _model(self, reads: bool, number: int) -> tuple[onnx.ModelProto, Sizes]:
        """Readers and writers change in turn: what one changes is around the other."""
        taken = {
            site.index: site.ways[number]
            for site in self._sites
            if site.reads == reads and number < len(site.ways)
        }
        preferred = Preferred(taken, {}) if reads else Preferred({}, taken)
        varied = self._planned
        if number:
            varied = plan(self._planned.analysis, "auto", self._costs, preferred)
        model = apply(varied).model
        wanted = {name for site in self._sites for name in (*site.begins, site.ends)}
        made = {name for node in model.graph.node for name in node.output}
        shapes = shapes_at(model, sorted(wanted & made), self._sizes)
        return model, {**shapes, **self._sizes}

    def _is_blocked(self, tensor: str) -> bool:
        return self._costs.reorders(tensor) and not self._costs.is_plain(tensor)


class _Stopwatch:
    """Times cuttings, those that are alike once."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known: dict[tuple[Form, ...], int] = {}

    def fastest(self, parts: Sequence[onnx.ModelProto]) -> int:
        """Which of some cuttings is surely faster than the first, and fastest; 0 for none."""
        forms = tuple(form_of(part) for part in parts)
        if len(set(forms)) < 2:
            return 0
        if forms not in self._known:
            self._known[forms] = self._timed(parts)
        return self._known[forms]

    def _timed(self, parts: Sequence[onnx.ModelProto]) -> int:
        try:
            tasks = [
                self._runtime.task(part, random_inputs(part, input_sizes(part), seed=0))
                for part in parts
            ]
        except VerifySetupError:  # Made-up inputs may be no index, no length.
            return 0
        limit = _MOST_SHARE * self._runtime.budget.left(SHARE)
        seconds = interleave(tasks, _ROUNDS, limit=limit, fewest=_FEWEST)
        ratios = [median_interval(column) for column in (seconds / seconds[:, :1]).T]
        best = int(np.argmin([ratio.median for ratio in ratios]))
        return best if ratios[best].high < 1 else 0
