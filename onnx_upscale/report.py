"""The report: what was done, in version 1 of its form (docs/report.md).

Each section is a frozen dataclass whose fields are, in their order, those of the JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

VERSION = 1


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    def to_json(self) -> dict[str, Any]:
        """As it is written to a file: dictionaries, lists, and what JSON has."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


@dataclass(frozen=True)
class Size(Section):
    """What a model weighs.

    Attributes:
        path: Its file, or None for a model in memory.
        sha256: Of the file.
        bytes: Size of the file, weights in files beside it included.
        nodes: Count of nodes.
        params: Count of weights.
        macs: Multiply-adds per inference.
    """

    path: str | None
    sha256: str
    bytes: int
    nodes: int
    params: int
    macs: int


@dataclass(frozen=True)
class MaskCounts(Section):
    """How much the masks prune.

    Attributes:
        targets: Layers that masks name.
        pruned_inputs: Channels they prune on input sides.
        pruned_outputs: Channels they prune on output sides.
    """

    targets: int
    pruned_inputs: int
    pruned_outputs: int


@dataclass(frozen=True)
class WriterReport(Section):
    """How one writer fills a segment.

    Attributes:
        node: The node.
        channels: How many it computes.
        realization: How.
    """

    node: str
    channels: int
    realization: str


@dataclass(frozen=True)
class ReaderReport(Section):
    """How one reader gets its channels.

    Attributes:
        node: The node.
        needed: For how many channels it has weights that are not zero.
        read: How many it reads.
        realization: How.
        bytes_copied: Per inference.
        seconds_copying: What that takes, as predicted.
    """

    node: str
    needed: int
    read: int
    realization: str
    bytes_copied: int
    seconds_copying: float = 0.0


@dataclass(frozen=True)
class SegmentReport(Section):
    """A segment with its writers and readers.

    Attributes:
        id: Its number, from 0.
        channels: How many it has in the original model.
        needed: For how many of them anybody has a use.
        kept: How many the emitted model computes.
        writers: Its writers.
        readers: Its readers, but for those that are not computed at all.
        pinned: Why channels have to stay, all and in their order.
        needed_whole: Why channels have to stay, in any order.
    """

    id: int
    channels: int
    needed: int
    kept: int
    writers: tuple[WriterReport, ...]
    readers: tuple[ReaderReport, ...]
    pinned: tuple[str, ...]
    needed_whole: tuple[str, ...]


@dataclass(frozen=True)
class LayerReport(Section):
    """How wide a layer was and is.

    Attributes:
        node: The node.
        operator: Its type.
        inputs: Input channels that it had.
        kept: How many of them the tensor that it reads still holds.
        read: How many it reads.
        outputs: Output channels that it had.
        made: How many it computes.
        reads: The segment that it reads; None where nothing can leave there.
        makes: The segment that it makes; None where nothing can leave there.
        weight: The tensor that holds its weight.
        read_channels: The input channels that it reads, as the original model counts them, in
            their order; None for all as they were.
        made_channels: Likewise the output channels that it computes.
    """

    node: str
    operator: str
    inputs: int
    kept: int
    read: int
    outputs: int
    made: int
    reads: int | None
    makes: int | None
    weight: str = ""
    read_channels: tuple[int, ...] | None = None
    made_channels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Copies(Section):
    """What the nodes that the optimizer added copy.

    Attributes:
        count: How many of them there are.
        bytes: What they write per inference.
        replaced: How many nodes that copy were in the original and are no longer.
    """

    count: int
    bytes: int
    replaced: int = 0


@dataclass(frozen=True)
class Times(Section):
    """Where predicted latencies go: seconds for `compute`, `copies` and `reorders`.

    Attributes:
        before: Of the original model.
        after: Of the emitted model.
    """

    before: Mapping[str, float]
    after: Mapping[str, float]


@dataclass(frozen=True)
class VerifyReport(Section):
    """What the comparison found; JSON has no infinity, so what cannot be compared is None.

    Attributes:
        ran: Whether there was one.
        samples: Random inputs.
        max_abs: Largest difference.
        max_rel: The same as a share of the largest value of its output.
        ok: Whether the models are equal.
        warnings: Why the comparison could not have failed, or proves little.
        noise: How far the model is from itself, as a share; None where nobody had to ask.
        pieces: At how many tensors the models were cut.
    """

    ran: bool = False
    samples: int = 0
    max_abs: float | None = None
    max_rel: float | None = None
    ok: bool | None = None
    warnings: tuple[str, ...] = ()
    noise: float | None = None
    pieces: int = 0

    def to_json(self) -> dict[str, Any]:
        """As it is written to a file; most say nothing if it did not run."""
        full = super().to_json()
        return full if self.ran else {name: full[name] for name in list(full)[:5]}


@dataclass(frozen=True, eq=False)
class Document(Section, dict[str, Any]):
    """A whole report. It is also the dictionary that `to_json` makes: `report["verify"]["ok"]`.

    Attributes:
        version: Of the form of the report, which every one of them begins with.
    """

    version: int

    def __post_init__(self) -> None:
        self.update(self.to_json())


@dataclass(frozen=True, eq=False)
class Report(Document):
    """What was done by the optimizer.

    Attributes:
        input: The original model.
        output: The emitted model.
        masks: How much the masks prune.
        strategy: The strategy.
        target: The target as given.
        profile: The prices that were used.
        predicted_seconds: Latency of the emitted model by these prices.
        predicted: The same by what it goes to, and that of the original model.
        warnings: Doubts about the target and its prices.
        segments: Every segment and how its nodes get along.
        layers: Every layer, in the order of the model, and how wide it is.
        copies: What is copied.
        verify: What the comparison with the masked model found.
        seconds: By stage.
        recovered: What `recover` did first; None where nobody asked for it.
    """

    input: Size
    output: Size
    masks: MaskCounts
    strategy: str
    target: str
    profile: str
    predicted_seconds: float
    predicted: Times
    warnings: tuple[str, ...]
    segments: tuple[SegmentReport, ...]
    layers: tuple[LayerReport, ...]
    copies: Copies
    verify: VerifyReport
    seconds: Mapping[str, float]
    recovered: Mapping[str, Any] | None = None

    def written_to(self, path: str | None, sha256: str, size: int) -> Report:
        """The report of a result that was written to a file.

        Args:
            path: The file, or None for a model in memory.
            sha256: Of the file.
            size: Bytes of the file, weights in files beside it included.
        """
        output = replace(self.output, path=path, sha256=sha256, bytes=size)
        return replace(self, output=output)


@dataclass(frozen=True, eq=False)
class Verified(Document):
    """What comparing an earlier result with the masked model again found.

    Attributes:
        verify: What it found.
    """

    verify: VerifyReport


@dataclass(frozen=True)
class Coupled(Section):
    """A segment, before anything is done.

    Attributes:
        id: Its number, from 0.
        channels: How many it has.
        needed: For how many of them anybody has a use.
        writers: The nodes that write it.
        readers: For how many of its channels each node that reads it has weights that are not zero.
        pinned: Why channels have to stay, all and in their order.
        needed_whole: Why channels have to stay, in any order.
        bytes_copied: What each strategy would copy per inference.
    """

    id: int
    channels: int
    needed: int
    writers: tuple[str, ...]
    readers: Mapping[str, int]
    pinned: tuple[str, ...]
    needed_whole: tuple[str, ...]
    bytes_copied: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class AnalyzeReport(Document):
    """What is coupled to what, and what each strategy would do.

    Attributes:
        path: The file of the model, or None for a model in memory.
        target: The target as given.
        profile: The prices that were used.
        masks: How much the masks prune.
        predicted_seconds: Latency that is predicted of each strategy.
        warnings: What to mind.
        segments: Every segment.
    """

    path: str | None
    target: str
    profile: str
    masks: MaskCounts
    predicted_seconds: Mapping[str, float]
    warnings: tuple[str, ...]
    segments: tuple[Coupled, ...]


def _plain(value: Any) -> Any:
    if isinstance(value, (int, str, float)):
        return value
    if isinstance(value, Section):
        return value.to_json()
    if isinstance(value, tuple) and value and isinstance(value[0], int):
        return list(value)  # Channels, of which there are thousands.
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return value
