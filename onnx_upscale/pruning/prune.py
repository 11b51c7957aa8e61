"""prune: choose, repair, optimize, verify and measure, from a model and a few samples."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx

from onnx_upscale.api import Result, optimize
from onnx_upscale.benchmark import Comparison, bench
from onnx_upscale.errors import DataError, UsageError, VerifySetupError
from onnx_upscale.files import write_file
from onnx_upscale.optimizer.analyze import find_structure
from onnx_upscale.optimizer.load import ModelSource, load
from onnx_upscale.options import Sizes
from onnx_upscale.prices import load_prices
from onnx_upscale.pruning.curves import Curves, find_curves
from onnx_upscale.pruning.families import find_families
from onnx_upscale.pruning.goals import LIMITS, Asked, Goal, read_goals
from onnx_upscale.pruning.search import Choice, search
from onnx_upscale.pruning.second import SecondMoments
from onnx_upscale.pruning.sensitivity import sensitivities
from onnx_upscale.recovery import STRENGTH, Recovered, recover
from onnx_upscale.samples import SampleSource, batches, open_source, split

COUNT = 512
"""How many samples are used unless somebody says otherwise."""

Progress = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and of how much."""

_PROBED = 8  # Samples on which the sensitivity of every reader is found.
_CORRECTIONS = 7
_UNSURE = 0.06  # A measured share whose interval is wider is measured again.
_NEAR, _OVER = 0.95, 1.02  # A measured latency within these shares of the goal will do.
_ROUNDS = 6  # Of bisection, where the goal is how near the model stays.
_FASTEST = 0.15  # Nobody is offered less of a model than this.


@dataclass(frozen=True)
class Pruned:
    """A pruned model, with what lies between.

    Attributes:
        result: The emitted model and the report of the optimizer.
        recovered: The repaired model of the original's shapes that it equals.
        masks: What was chosen, in the form of a mask file.
        report: What was done, as JSON has it.
        warnings: What could not be done.
    """

    result: Result
    recovered: Recovered
    masks: dict[str, Any]
    report: dict[str, Any]
    warnings: tuple[str, ...] = field(default=())

    @property
    def model(self) -> onnx.ModelProto:
        """The emitted model."""
        return self.result.model

    @property
    def content(self) -> bytes:
        """The emitted model as a file's content."""
        return self.result.content

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the emitted model, in full or not at all.

        Args:
            path: Where to.

        Raises:
            OutputError: It cannot be written.
        """
        write_file(path, self.content)


def prune(
    model: ModelSource,
    samples: SampleSource,
    *,
    latency: float | str | None = None,
    macs: float | None = None,
    params: float | None = None,
    agreement: float | None = None,
    error: float | None = None,
    **options: Any,
) -> Pruned:
    """Makes a model smaller and faster without masks, labels or training.

    It chooses the channels whose loss costs least for what it saves, gives their readers new
    weights in closed form, and optimizes the result exactly. Exactly one goal is given.

    Args:
        model: A path or a `ModelProto`, which is not changed.
        samples: Inputs of the model, without labels, as `recover` takes them.
        latency: Measured latency: a share of the original's, such as 0.7, or a time, such as "5ms".
        macs: Multiply-adds, as a share.
        params: Weights, as a share.
        agreement: As fast as possible while this share of the held-out samples gets the same top-1
            answer as from the original.
        error: As fast as possible while the outputs differ by no more than this share.
        **options: As for `prune_all`.

    Returns:
        The model, with what lies between and a report.

    Raises:
        UpscaleError: One of its subclasses says what is wrong with the input.
    """
    asked: dict[str, Asked] = {
        "latency": latency,
        "macs": macs,
        "params": params,
        "agreement": agreement,
        "error": error,
    }
    goals = read_goals(asked)
    if len(goals) > 1:
        raise UsageError("`latency`: give one value; several values are for prune_all")
    (pruned,) = prune_all(model, samples, goals, **options)
    return pruned


def prune_all(
    model: ModelSource,
    samples: SampleSource,
    goals: Sequence[Goal],
    *,
    target: str | os.PathLike[str] = "cpu",
    mode: str = "joint",
    count: int = COUNT,
    strength: float = STRENGTH,
    seed: int = 0,
    inputs: Sizes | None = None,
    runs: int = 30,
    progress: Progress | None = None,
) -> tuple[Pruned, ...]:
    """Prunes one model to several goals, for the price of the statistics once.

    Args:
        model: As for `prune`.
        samples: As for `prune`.
        goals: What is asked for, from `read_goals`.
        target: A built-in target or a profile: whose costs are planned for.
        mode: `joint`, or `agreement` where all readers of a channel must give it up together, or
            `freedom` where each does by itself.
        count: How many samples to use at most; a fifth of them is held out.
        strength: As for `recover`.
        seed: Which samples are used.
        inputs: Shapes of model inputs by name, where dimensions are symbolic.
        runs: How often each model is timed.
        progress: Called now and then.

    Returns:
        A result per goal.

    Raises:
        UpscaleError: One of its subclasses says what is wrong with the input.
    """
    if count < 2:
        raise UsageError(f"`count` {count}: must be at least 2")
    pruner = _Pruner(model, samples, target, mode, count, strength, seed, inputs, runs, progress)
    return tuple(pruner.reach(goal) for goal in goals)


class _Pruner:
    """One model and all that is found out about it once."""

    def __init__(
        self,
        model: ModelSource,
        samples: SampleSource,
        target: str | os.PathLike[str],
        mode: str,
        count: int,
        strength: float,
        seed: int,
        inputs: Sizes | None,
        runs: int,
        progress: Progress | None,
    ) -> None:
        self._graph = load(model).graph
        self._model = self._graph.model
        self._target, self._mode, self._count = target, mode, count
        self._strength, self._seed, self._inputs, self._runs = strength, seed, inputs, runs
        self._tell = progress or (lambda what, done, of: None)
        self._prices = load_prices(target)
        self._structure = find_structure(self._graph)
        self._families = find_families(self._structure)
        if not self._families:
            raise UsageError(
                "the model has no layer whose channels can leave: "
                "'onnx-upscale analyze' says what keeps them"
            )
        self._samples = open_source(samples, self._model, count)
        if self._samples.count < 2:
            raise DataError("one sample is not enough: give at least 2, better some hundreds")
        try:
            self._curves = self._find_curves()
        except VerifySetupError as error:
            raise DataError(f"the model does not run on the samples: {error}") from None

    def _find_curves(self) -> dict[int, Curves]:
        fitting, _ = split(self._samples.count, self._count, self._seed)
        readers = [party.layer for family in self._families for party in family.readers]
        wanted = {layer.node.index for layer in readers}
        ordered = [
            read.layer
            for segment in self._structure.segments
            for read in segment.readers
            if read.layer.node.index in wanted
        ]
        probes = [b.inputs for b in batches(self._samples, fitting[:_PROBED], self._model)]
        moved = sensitivities(
            self._graph,
            ordered,
            probes,
            self._seed,
            lambda done: self._tell("Looking at what layers matter", done, len(ordered)),
        )
        moments = SecondMoments(
            self._graph,
            ordered,
            lambda: batches(self._samples, fitting, self._model),
            self._seed,
            lambda done: self._tell("Looking at what channels matter", done, len(ordered)),
        )
        return find_curves(
            self._structure, self._families, moments, moved, alone=self._mode != "agreement"
        )

    def reach(self, goal: Goal) -> Pruned:
        """The model for one goal."""
        if goal.name in LIMITS:
            return self._nearest(goal)
        if goal.name == "latency":
            return self._finished(goal, self._measured_choice(goal))
        return self._finished(goal, self._chosen(goal.value, goal.name))

    def _chosen(self, share: float, measure: str = "latency") -> Choice:
        self._tell(f"Choosing for {share:.2f}", 0, 1)
        (choice,) = search(
            self._structure,
            self._families,
            self._curves,
            self._prices,
            [share],
            measure,
            self._mode,
        )
        return choice

    def _measured_choice(self, goal: Goal) -> Choice:
        """A choice whose latency is what was asked for when it is measured."""
        wanted = goal.value
        if goal.absolute:
            seconds = self._bench([self._model, self._model]).models[0].latency.median
            wanted = goal.value / seconds
            if wanted >= 1:
                raise UsageError(f"{goal}: the model takes {seconds * 1e3:.3g}ms already")
        asked, tried = wanted, list[tuple[float, Choice]]()
        # What is asked of the search, and what was measured then: too fast and too slow.
        below, above, lost = (0.0, 0.0), (1.0, 1.0), None
        for _ in range(_CORRECTIONS):
            try:
                choice = self._chosen(asked)
            except UsageError as error:  # By the prices, which need not be right.
                lost, below = error, (asked, below[1])
                asked = (asked + above[0]) / 2
                continue
            emitted = optimize(
                self._model, choice.masks, target=self._target, inputs=self._inputs, verify=False
            )
            measured = self._ratio(emitted.model)
            tried.append((measured, choice))
            if _NEAR * wanted <= measured <= _OVER * wanted:
                break
            if measured < wanted:
                below = asked, measured
            else:
                above = asked, max(measured, wanted)
            slope = (above[0] - below[0]) / max(above[1] - below[1], 1e-6)
            asked = below[0] + (wanted - below[1]) * slope
            if not below[0] < asked < above[0]:
                asked = (below[0] + above[0]) / 2
        if not tried:
            assert lost is not None
            raise lost
        measured, choice = min(tried, key=lambda e: (e[0] > 1.05 * wanted, abs(e[0] - wanted)))
        if measured > 1.05 * wanted and lost is not None:
            raise UsageError(f"{goal}: cannot be reached: {measured:.2f} of the latency is left")
        return choice

    def _ratio(self, emitted: onnx.ModelProto) -> float:
        """The latency of a model as a share of the original's, measured again if unsure."""
        found = self._bench([self._model, emitted]).models[1].ratio
        if found.high - found.low > _UNSURE * found.median:
            found = self._bench([self._model, emitted], times=4).models[1].ratio
        return found.median

    def _nearest(self, goal: Goal) -> Pruned:
        """The fastest of some models that stay near enough, by bisection."""
        low, high, best = _FASTEST, 1.0, None
        for _ in range(_ROUNDS):
            share = (low + high) / 2
            try:
                choice = self._chosen(share)
            except UsageError:
                low = share
                continue
            recovered = self._recovered(choice)
            if _satisfies(goal, recovered):
                best, high = (choice, recovered), min(share, choice.share)
            else:
                low = share
        if best is None:
            raise UsageError(f"{goal}: no model that was tried stays so near; ask for less")
        return self._finished(goal, *best)

    def _recovered(self, choice: Choice) -> Recovered:
        return recover(
            self._model,
            choice.masks,
            self._samples,
            count=self._count,
            strength=self._strength,
            seed=self._seed,
            progress=lambda done, of: self._tell("Repairing", done, of),
        )

    def _finished(self, goal: Goal, choice: Choice, recovered: Recovered | None = None) -> Pruned:
        recovered = recovered or self._recovered(choice)
        self._tell("Optimizing and verifying", 0, 1)
        result = optimize(recovered.model, None, target=self._target, inputs=self._inputs)
        measured = self._bench([self._model, result.model])
        before = result.report.input
        report = {
            "version": 1,
            "goal": {"name": goal.name, "value": goal.value, "seconds": goal.absolute},
            "target": str(self._target),
            "mode": self._mode,
            "predicted": {"before": choice.before, "after": choice.after, "share": choice.share},
            "latency": [each.to_json() for each in measured.models],
            "macs": {"before": before.macs, "after": result.report.output.macs},
            "params": {"before": before.params, "after": result.report.output.params},
            "kept": {key: list(counts) for key, counts in choice.kept.items()},
            "recovered": dict(recovered.report),
            "verify": result.report.verify.to_json(),
        }
        warnings = (*recovered.warnings, *measured.warnings)
        return Pruned(result, recovered, choice.masks, report, warnings)

    def _bench(self, models: list[onnx.ModelProto], times: int = 1) -> Comparison:
        self._tell("Measuring", 0, 1)
        names, runs = ["original", "pruned"], times * self._runs
        return bench(models, names=names, runs=runs, inputs=self._inputs, memory=False)


def _satisfies(goal: Goal, recovered: Recovered) -> bool:
    outputs = recovered.report["outputs"]
    if goal.name == "error":
        return all(output["error_after"] <= goal.value for output in outputs)
    shares = [output["agreement_after"] for output in outputs]
    if not shares or all(share is None for share in shares):
        raise UsageError(f"{goal}: no output ranks answers; give `error` in its place")
    return all(share is None or share >= goal.value for share in shares)
