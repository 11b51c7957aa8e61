"""One model, all that is found out about it once, and what is made of it for one goal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from onnx_upscale.api import optimize
from onnx_upscale.benchmark import Comparison
from onnx_upscale.choices import LIMITS
from onnx_upscale.errors import DataError, UsageError, VerifySetupError
from onnx_upscale.optimizer.analyze import find_structure
from onnx_upscale.optimizer.load import ModelSource, load
from onnx_upscale.optimizer.load.formats import format_warnings
from onnx_upscale.optimizer.load.model import read_files
from onnx_upscale.options import Sizes
from onnx_upscale.planning import begin_digest, weight_of
from onnx_upscale.prices import load_prices
from onnx_upscale.pruning.aim import aim, fastest, good_enough
from onnx_upscale.pruning.candidates import Candidate, out_of_reach
from onnx_upscale.pruning.curves import Curves, find_curves
from onnx_upscale.pruning.goals import Goal, loosened, within
from onnx_upscale.pruning.report import Asked, Change, Predicted, PruneReport
from onnx_upscale.pruning.results import Pruned
from onnx_upscale.pruning.search import Choice, search
from onnx_upscale.pruning.second import SecondMoments
from onnx_upscale.pruning.selection import Scope, select
from onnx_upscale.pruning.sensitivity import sensitivities
from onnx_upscale.pruning.settings import Settings
from onnx_upscale.pruning.timing import Timer
from onnx_upscale.recovery import Recovered
from onnx_upscale.recovery.recover import repair_model, repair_share
from onnx_upscale.recovery.weights import check_weights
from onnx_upscale.report import VERSION
from onnx_upscale.result import Result
from onnx_upscale.samples import SampleSource, batches, open_source, split
from onnx_upscale.words import some
from onnx_upscale.workers import Team, gather

Progress = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and of how much."""

_CORRECTIONS = 4
_OVER = 1.001  # What is left of weights or multiply-adds within this share of the goal will do.
_PROBED = 8  # Samples on which the sensitivity of every reader is found.


class Pruner:
    """One model and all that is found out about it once. Use as a context manager.

    Args:
        model: The model.
        samples: Its samples.
        settings: How it is pruned.
        progress: Called now and then.
        least_score: The score that will be asked for: an original that has less is refused.

    Raises:
        UpscaleError: Something is wrong with the input.
    """

    def __init__(
        self,
        model: ModelSource,
        samples: SampleSource,
        settings: Settings,
        progress: Progress | None = None,
        least_score: Goal | None = None,
    ) -> None:
        self._set, self._given = settings, model
        self._model = read_files(model, mapped=True)
        self._tell = progress or (lambda what, done, of: None)
        self._samples = open_source(samples, self._model.model, settings.count)
        if self._samples.count < 2:
            raise DataError("one sample is not enough: give at least 2, better some hundreds")
        self._inputs = self._sizes()
        self._loaded = load(self._model, sizes=self._inputs, mapped=True)
        self._digest = begin_digest(model, self._loaded)
        self._graph = self._loaded.graph
        check_weights(self._graph)
        self._prices = load_prices(settings.target)
        self._structure = find_structure(self._graph).with_whole_heads
        self._selected = select(self._structure, settings.layers, settings.mode == "agreement")
        self._families = self._selected.families
        self._score = self._original_score(model, least_score)
        self._team: Team | None = None
        self._curves: dict[int, Curves] = {}
        self._timer = Timer(self._model, settings.runs, self._inputs)
        self._source, self._stack = samples, contextlib.ExitStack()

    def __enter__(self) -> Pruner:
        count, workers, ray = self._set.count, self._set.workers, self._set.ray
        fitting, held_out = split(self._samples.count, count, self._set.seed)
        everywhere = None if ray is None else np.concatenate((fitting, held_out))
        team = gather(
            self._source, self._samples, fitting, self._model, count, workers, ray, everywhere
        )
        with contextlib.ExitStack() as stack:
            self._team = stack.enter_context(team)
            try:
                self._curves = self._find_curves()
            except VerifySetupError as error:
                raise DataError(f"the model does not run on the samples: {error}") from None
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.__exit__(*exception)

    def _sizes(self) -> Sizes:
        """Shapes of inputs to count and time at: those of a sample, but for what was asked."""
        fitting, _ = split(self._samples.count, self._set.count, self._set.seed)
        first = next(batches(self._samples, fitting[:1], self._model.model)).inputs
        return {**{name: array.shape for name, array in first.items()}, **(self._set.inputs or {})}

    def _original_score(self, model: ModelSource, least: Goal | None) -> float | None:
        """The score of the original, found out before anything that takes long."""
        evaluation = self._set.evaluation
        if evaluation is None:
            return None
        self._tell("Evaluating", 0, 1)
        score = evaluation.score(model, "the original")
        if least is not None and score < least.value:
            raise UsageError(
                f"{least}: cannot be reached: the original has "
                f"{within(score, up=False, digits=6)}; give that or less"
            )
        return score

    def _find_curves(self) -> dict[int, Curves]:
        seed = self._set.seed
        fitting, _ = split(self._samples.count, self._set.count, seed)
        readers = [party.layer for family in self._families for party in family.readers]
        wanted = {layer.node.index for layer in readers}
        ordered = [
            read.layer
            for segment in self._structure.segments
            for read in segment.readers
            if read.layer.node.index in wanted
        ]
        probes = [b.inputs for b in batches(self._samples, fitting[:_PROBED], self._model.model)]
        moved = sensitivities(
            self._graph,
            ordered,
            probes,
            seed,
            lambda done: self._tell("Looking at what layers matter", done, len(ordered)),
        )
        moments = SecondMoments(
            self._graph,
            ordered,
            lambda: batches(self._samples, fitting, self._model.model),
            seed,
            lambda done: self._tell("Looking at what channels matter", done, len(ordered)),
            self._team,
        )
        return find_curves(
            self._structure, self._families, moments, moved, alone=self._set.mode != "agreement"
        )

    def reach_all(self, goals: Sequence[Goal]) -> Iterator[Pruned]:
        """The models for some goals.

        Choices are made first, for latencies are measured meanwhile. On a cluster, several models
        are then repaired at the same time; all are measured here, one after the other.

        Raises:
            UpscaleError: One cannot be reached.
        """
        if self._team is None or self._set.ray is None or len(goals) == 1:
            yield from map(self.reach, goals)
            return
        found = [self._candidate(goal) for goal in goals]
        self._tell("Repairing", 0, len(found))
        strength, seed, count = self._set.strength, self._set.seed, self._set.count
        waiting = [each for each in found if not each.repaired]
        items = [(each.choice.masks, count, strength, seed) for each in waiting]
        for number, (candidate, recovered) in enumerate(
            zip(waiting, self._team.spread(repair_share, items), strict=True), 1
        ):
            candidate.recovered = replace(recovered, sources=self._model.sources)
            self._tell("Repairing", number, len(found))
        for goal, candidate in zip(goals, found, strict=True):
            yield self._finished(goal, candidate)

    def reach(self, goal: Goal) -> Pruned:
        """The model for one goal.

        Raises:
            UpscaleError: It cannot be reached.
        """
        return self._finished(goal, self._candidate(goal))

    def _candidate(self, goal: Goal) -> Candidate:
        if goal.name in LIMITS:
            return self._nearest(goal)
        if goal.name == "latency":
            return Candidate(self, self._measured_choice(goal))
        return self._counted(goal)

    def _counted(self, goal: Goal) -> Candidate:
        """A choice of which as much is emitted as was asked for: readers that are repaired change.

        Raises:
            UsageError: None is found.
        """
        asked, left = goal.value, 1.0
        for _ in range(_CORRECTIONS):
            try:
                found = Candidate(self, self.chosen(asked, goal.name))
            except UsageError:
                if asked == goal.value:
                    raise
                break
            left = found.left(goal.name)
            if left <= _OVER * goal.value:
                return found
            asked *= goal.value / left
        raise UsageError(
            f"{goal}: cannot be reached: {within(left, up=True)} is left of the nearest model that "
            "was tried; give that or more"
        )

    def chosen(self, share: float, measure: str = "latency") -> Choice:
        """What leaves for a predicted share of the latency, the multiply-adds or the weights.

        Raises:
            UsageError: It cannot be reached.
        """
        self._tell(f"Choosing for {share:.2f}", 0, 1)
        *gentle, whole = self._selected.scopes
        for scope in gentle:
            with contextlib.suppress(UsageError):
                return self._searched(scope, share, measure)
        return self._searched(whole, share, measure)

    def _searched(self, scope: Scope, share: float, measure: str) -> Choice:
        (choice,) = search(
            self._structure,
            scope.families,
            self._curves,
            self._prices,
            [share],
            measure,
            self._set.mode,
            scope.layers,
        )
        return choice

    def _measured_choice(self, goal: Goal) -> Choice:
        """A choice whose latency is what was asked for when it is measured."""
        wanted = goal.value
        if goal.absolute:
            seconds = self._beside(self._model).models[0].latency.median
            wanted = goal.value / seconds
            if wanted >= 1:
                raise UsageError(f"{goal}: the model takes {seconds * 1e3:.3g}ms already")

        def measure(choice: Choice) -> float:
            made = self.optimized(self._model, choice.masks, verify=False)
            return self._share(made.stored)

        return aim(goal, wanted, self.chosen, measure)

    def _nearest(self, goal: Goal) -> Candidate:
        """The fastest that stays near enough, of those that a fine search tries."""
        kept: list[Candidate] = []
        _, held_out = split(self._samples.count, self._set.count, self._set.seed)
        loose = loosened(goal, len(held_out), self._score)

        def good(found: Candidate) -> bool:
            verdict = found.satisfies(goal)
            if verdict:
                kept.append(found)
            kept.sort(key=lambda each: each.choice.share)
            for each in (*kept[1:], *([] if verdict else [found])):
                each.forget()
            return verdict

        yes, no = good_enough(
            lambda share: Candidate(self, self.chosen(share)),
            lambda found: found.satisfies(loose),
            good,
            lambda one, other: one.choice.masks == other.choice.masks,
        )
        if not yes:
            raise UsageError(out_of_reach(goal, no))
        return fastest(
            yes,
            lambda each: each.choice.share,
            lambda each: self._share(self.optimized(self._model, each.choice.masks, False).stored),
        )

    def recovered(self, choice: Choice) -> Recovered:
        """The model repaired for a choice."""
        return repair_model(
            self._model,
            choice.masks,
            self._samples,
            self._team,
            count=self._set.count,
            strength=self._set.strength,
            seed=self._set.seed,
            progress=lambda done, of: self._tell("Repairing", done, of),
        )

    def optimized(self, model: ModelSource, masks: Any, verify: bool = True) -> Result:
        """What the optimizer makes of a model."""
        self._tell("Optimizing and verifying" if verify else "Optimizing", 0, 1)
        target = self._set.target
        return optimize(model, masks, target=target, inputs=self._inputs, verify=verify)

    def emitted(self, recovered: Recovered) -> Result:
        """What the optimizer makes of a repaired model, reported beside the model as it was."""
        result = self.optimized(recovered.stored, None)
        before = weight_of(
            self._given,
            self._loaded,
            self._inputs,
            True,
            lambda: recovered.stored.model,
            self._digest,
        )
        return replace(result, done=replace(result.done, input=before))

    def evaluated(self, model: ModelSource) -> float | None:
        """Its score, if there is a measure."""
        if self._set.evaluation is None:
            return None
        self._tell("Evaluating", 0, 1)
        return self._set.evaluation.score(model, "the pruned model")

    def _finished(self, goal: Goal, candidate: Candidate) -> Pruned:
        choice, recovered, result = candidate.choice, candidate.recovered, candidate.result
        score = candidate.score
        measured = self._beside(result.stored)
        before, after = result.report.input, result.report.output
        report = PruneReport(
            VERSION,
            Asked(goal.name, goal.value, goal.absolute),
            str(self._set.target),
            self._set.mode,
            Predicted(choice.before, choice.after, choice.share),
            measured.models,
            Change(before.macs, after.macs),
            Change(before.params, after.params),
            None if self._score is None or score is None else Change(self._score, score),
            choice.kept,
            recovered.report,
            result.report.verify,
        )
        warnings = (
            *format_warnings(self._graph.model.graph.node),
            *self._left_alone(choice),
            *recovered.warnings,
            *measured.warnings,
        )
        return Pruned(result, recovered, choice.masks, report, warnings)

    def _left_alone(self, choice: Choice) -> Iterator[str]:
        """What is said of layers that were not learned, and of those right before an output."""
        if self._selected.arithmetic:
            names = some(self._selected.arithmetic)
            yield f"left alone, as their weights are arithmetic rather than learned: {names}"
        last = self._selected.last
        losing = {key for key, (before, after) in choice.kept.items() if after < before}
        pruned = [name for key, name in last.items() if key in losing]
        if pruned:
            names = some(pruned)
            yield f"pruned right before an output, as the goal is out of reach without: {names}"
        elif last:
            names = some(tuple(last.values()))
            yield f"left alone, as right before an output unless `layers` names it: {names}"

    def _share(self, emitted: ModelSource) -> float:
        self._tell("Measuring", 0, 1)
        return self._timer.share(emitted)

    def _beside(self, emitted: ModelSource) -> Comparison:
        self._tell("Measuring", 0, 1)
        return self._timer.beside(emitted)
