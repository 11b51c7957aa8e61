"""What there is to do: which methods for which networks, seeds and latencies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from experiment.cells import CRITERIA
from experiment.comparison.rows import Cell

_SMALL = ("resnet", "densenet", "mobilenet", "efficientnet", "vit")
_LARGE = ("resnet18", "densenet121", "mobilenet_v2", "efficientnet_v2_s")
NETWORKS = (*_SMALL, *_LARGE)
DATA = ("glyphs", "digits")
IMAGENET = "imagenet"  # Whose images somebody must have.
SEEDS = (0, 1, 2)
LATENCIES = (0.8, 0.7, 0.6, 0.5)
SAMPLES = 512
COUNTS = (32, 64, 128)
MODES = {"prune": "joint", "prune-agreement": "agreement", "prune-freedom": "freedom"}
TIED = "-constrained"
REPAIRED = "+recover"
FOREIGN = ("onnxsim", "torch-pruning")
TRAINED = "finetuned"
METHODS = (
    *MODES,
    *FOREIGN,
    *(criterion + tied for criterion in CRITERIA for tied in (TIED, "")),
    TRAINED,
)
# With fewer samples, with training, and where not everything is done.
FEWER_AT, TRAINED_AT, SOME_AT = (0.7, 0.5), (0.7, 0.5), (0.7, 0.5)
_SOME_CRITERIA = ("l1", "hrank")
_MORE = {("glyphs", 1), ("glyphs", 2), ("digits", 0)}


@dataclass(frozen=True)
class Job:
    """One method on one network, for several latencies: they share what is found out once."""

    data: str
    network: str
    seed: int
    method: str
    samples: int
    wanted: tuple[float, ...]

    @property
    def criterion(self) -> str | None:
        """The criterion whose masks this is about."""
        name = self.method.removesuffix(TIED)
        return name if name in CRITERIA else None

    @property
    def name(self) -> str:
        return ".".join(map(str, (self.data, self.network, self.seed, self.method, self.samples)))

    def cells(self, wanted: float) -> tuple[Cell, ...]:
        """What it does for one latency: masks of a criterion are judged with and without repair."""
        methods = [self.method]
        if self.criterion is not None:
            methods.append(self.method + REPAIRED)
        return tuple(
            Cell(self.data, self.network, self.seed, method, self.samples, wanted)
            for method in methods
        )


@dataclass(frozen=True)
class Wanted:
    """What a user wants of all that there is.

    Attributes:
        full: Every method with every seed at every latency, not a choice of them.
        counts: Fewer samples to try `prune` with.
        trained_at: Latencies to train at.
    """

    data: Sequence[str] = DATA
    networks: Sequence[str] = NETWORKS
    seeds: Sequence[int] = SEEDS
    methods: Sequence[str] = METHODS
    latencies: Sequence[float] = LATENCIES
    counts: Sequence[int] = COUNTS
    trained_at: Sequence[float] = TRAINED_AT
    full: bool = False


def all_jobs(asked: Wanted) -> list[Job]:
    """Every job, first those that most is learned from; training, which takes long, comes last."""
    return sorted(_jobs(asked), key=_rank)


def _rank(job: Job) -> int:
    if job.method in MODES:
        return 0 if job.method == "prune" and job.samples == SAMPLES else 2
    if job.method == TRAINED:
        return 4
    return 1 if job.method in FOREIGN or job.criterion in _SOME_CRITERIA else 3


def _jobs(asked: Wanted) -> Iterator[Job]:
    for seed in asked.seeds:
        for data in asked.data:
            known = _LARGE if data == IMAGENET else _SMALL
            if data == IMAGENET and seed:  # Its networks are trained already.
                continue
            for network in (name for name in known if name in asked.networks):
                for method in asked.methods:
                    wanted = tuple(
                        each
                        for each in sorted(asked.latencies, reverse=True)
                        if _worth_it(asked, data, seed, method, each)
                    )
                    if wanted:
                        yield Job(data, network, seed, method, SAMPLES, wanted)
                if "prune" in asked.methods and (asked.full or data == "glyphs"):
                    wanted = tuple(each for each in FEWER_AT if each in asked.latencies)
                    for count in asked.counts:
                        yield Job(data, network, seed, "prune", count, wanted)


def _worth_it(asked: Wanted, data: str, seed: int, method: str, wanted: float) -> bool:
    """Whether something is worth its time."""
    if method == TRAINED:  # Only glyphs have images enough.
        return data == "glyphs" and (asked.full or seed == 0) and wanted in asked.trained_at
    if asked.full or method in ("prune", "onnxsim"):
        return True
    if method in MODES:
        return data == "glyphs" or seed == 0
    if method == "torch-pruning":
        return seed == 0
    if method.removesuffix(TIED) not in _SOME_CRITERIA:
        return data == "glyphs" and seed == 0 and wanted in SOME_AT
    return (data == "glyphs" and seed == 0) or (wanted in SOME_AT and (data, seed) in _MORE)
