"""The criteria, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from onnx_upscale.criteria.ranks import Progress, feature_ranks
from onnx_upscale.criteria.scales import batch_norm_scales
from onnx_upscale.criteria.scores import Scores, ScoreWeight, fpgm, l1, l2, lamp
from onnx_upscale.criteria.sites import Site
from onnx_upscale.errors import ModelError, UsageError
from onnx_upscale.optimizer.analyze import Structure
from onnx_upscale.samples import SampleSource, open_source

MOST_SAMPLES = 512
"""So many are read of what comes one after the other."""


@dataclass(frozen=True)
class Subject:
    """What a criterion is asked about.

    Attributes:
        structure: The structure of the model.
        sites: The sides of layers to score.
        data: Samples of the model's inputs, if there are any.
        batch_size: How many samples to run at once at most.
        seed: Seed of what is random.
        progress: Called with how much is done, of how much.
    """

    structure: Structure
    sites: tuple[Site, ...]
    data: SampleSource | None
    batch_size: int
    seed: int
    progress: Progress | None


@dataclass(frozen=True)
class Criterion:
    """How channels are scored.

    Attributes:
        score: Gives the scores of each site, one per channel; the lowest go first.
        comparable: Whether scores mean the same in every layer. Where they do not, those of a
            layer are divided by their mean before layers are compared or combined.
    """

    score: Callable[[Subject], list[Scores]]
    comparable: bool = False


def _of_weights(score: ScoreWeight) -> Callable[[Subject], list[Scores]]:
    """A criterion that looks at one weight at a time."""

    def scores(subject: Subject) -> list[Scores]:
        found = []
        for number, site in enumerate(subject.sites, start=1):
            weight = site.weight(subject.structure.graph)
            if not np.isfinite(weight).all():
                raise ModelError(f"layer '{site.key}': its weight holds infinities or NaNs")
            found.append(score(weight))
            if subject.progress is not None:
                subject.progress(number, len(subject.sites))
        return found

    return scores


def _hrank(subject: Subject) -> list[Scores]:
    if subject.data is None:
        raise UsageError(
            "criterion hrank ranks feature maps: give calibration data with `data` (an .npz or "
            ".npy file, a folder of images, or MODULE:FUNCTION)"
        )
    graph = subject.structure.graph
    samples = open_source(subject.data, graph.model, MOST_SAMPLES)
    size = subject.batch_size if samples.together else 1
    return feature_ranks(graph, subject.sites, samples, size, subject.progress)


def _bn(subject: Subject) -> list[Scores]:
    return batch_norm_scales(subject.structure, subject.sites)


def _random(subject: Subject) -> list[Scores]:
    rng = np.random.default_rng(subject.seed)
    return [rng.random(site.channels) for site in subject.sites]


CRITERIA: Mapping[str, Criterion] = {
    "l1": Criterion(_of_weights(l1)),
    "l2": Criterion(_of_weights(l2)),
    "lamp": Criterion(_of_weights(lamp), comparable=True),
    "fpgm": Criterion(_of_weights(fpgm)),
    "hrank": Criterion(_hrank),
    "bn": Criterion(_bn, comparable=True),
    "random": Criterion(_random, comparable=True),
}
