"""The parts that pages of several commands have: what a plan did, from its report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from onnx_upscale.figures import change, in_bytes, in_milliseconds, in_short
from onnx_upscale.page.network import readings_of
from onnx_upscale.page.parts import NOTHING, Card, Cell, Column, Notes, Table, number
from onnx_upscale.report import Copies, LayerReport, Report, SegmentReport

_UNFOLDED = 40  # Rows that a table shows before anybody asks for it.


def share(part: float, whole: float) -> float:
    """A share in percent, for a bar, which what became more than the whole fills."""
    return min(round(100 * part / whole, 1), 100.0) if whole else 100.0


def changed(label: str, text: Callable[[float], str], before: float, after: float) -> Card:
    """A card of what is smaller than it was."""
    was = f"from {text(before)}"
    return Card(label, text(after), was, change(before, after), share(after, before))


def size_cards(report: Report) -> Iterator[Card]:
    """What a model weighs and computes, before and after; what it has none of is left out."""
    before, after = report.input, report.output
    yield changed("size", in_bytes, before.bytes, after.bytes)
    if before.params:
        yield changed("weights", in_short, before.params, after.params)
    if before.macs:
        yield changed("multiply-adds", in_short, before.macs, after.macs)


def copies_card(copies: Copies) -> Iterator[Card]:
    """What all added nodes copy, if there are any."""
    if copies.count:
        nodes = f"{copies.count:,} node{'' if copies.count == 1 else 's'}"
        instead = f" in place of {copies.replaced:,}" if copies.replaced else ""
        detail = f"per inference, by {nodes} added{instead}"
        yield Card("copies", in_bytes(copies.bytes), detail=detail)


def remarks(lines: Sequence[str]) -> Notes | None:
    """What to mind, if there is anything."""
    return Notes(title="To keep in mind", lines=tuple(dict.fromkeys(lines))) if lines else None


def layers_table(layers: Sequence[LayerReport], segments: Sequence[SegmentReport]) -> Table | None:
    """Every layer with its channels."""
    readings = readings_of(segments)
    rows = []
    for place, layer in enumerate(layers, 1):
        reading = readings.get((layer.reads, layer.node))
        copied = 0 if reading is None else reading.bytes_copied
        rows.append(
            (
                number(place),
                Cell(names=(layer.node,)),
                Cell(layer.operator),
                number(layer.inputs),
                number(layer.kept),
                number(layer.read, share(layer.read, layer.inputs)),
                number(layer.outputs),
                number(layer.made, share(layer.made, layer.outputs)),
                NOTHING if reading is None else Cell(reading.realization),
                Cell(in_bytes(copied), copied) if copied else NOTHING,
            )
        )
    heads = ("inputs", "kept", "read", "outputs", "made")
    return long_table(
        "Layer by layer",
        (
            *(Column("#", True), Column("layer"), Column("operator")),
            *(Column(head, True) for head in heads),
            *(Column("reads as"), Column("copied", True)),
        ),
        rows,
        "Channels that each layer had on its input side, those of them that are still there and "
        "that it reads; those that it had on its output side, and that it makes.",
    )


def copies_table(report: Report) -> Table | None:
    """Where copies were placed, and what they move."""
    rows: list[tuple[Cell, ...]] = []
    for segment in report.segments:
        for reader in segment.readers:
            if copied := reader.bytes_copied:
                moved = Cell(in_bytes(copied), copied, share(copied, report.copies.bytes))
                takes = Cell(in_milliseconds(reader.seconds_copying), reader.seconds_copying)
                counts = number(segment.id), number(reader.needed), number(reader.read)
                rows.append(
                    (Cell(names=(reader.node,)), Cell(reader.realization), *counts, takes, moved)
                )
        for writer in segment.writers:
            if writer.realization == "pad":
                counts = number(segment.id), NOTHING, number(writer.channels)
                rows.append(
                    (Cell(names=(writer.node,)), Cell(writer.realization), *counts, *[NOTHING] * 2)
                )
    rows.sort(key=lambda row: -(row[-1].value or 0))
    return long_table(
        "Copies",
        (
            *(Column("layer"), Column("by"), Column("segment", True)),
            *(Column("needed", True), Column("channels", True)),
            *(Column("takes, predicted", True), Column("per inference", True)),
        ),
        rows,
        "Where a layer reads fewer channels than are there, because that costs less than to "
        "compute with all of them; or makes fewer, to which zeros are added.",
    )


def stays_table(segments: Sequence[SegmentReport]) -> Table | None:
    """Why channels stay that masks would let go."""
    reasons: dict[tuple[str, str], list[SegmentReport]] = {}
    for segment in segments:
        for reason in segment.pinned:
            reasons.setdefault((reason, "all, in their order"), []).append(segment)
        for reason in segment.needed_whole:
            reasons.setdefault((reason, "all, in any order"), []).append(segment)
    rows = [
        _reason(reason, what, found, sum(segment.channels for segment in found))
        for (reason, what), found in reasons.items()
    ]
    wider = [segment for segment in segments if segment.kept > segment.needed]
    if wider:
        more = sum(segment.kept - segment.needed for segment in wider)
        rows.append(_reason("kernels are faster with such a count", "a few more", wider, more))
    rows.sort(key=lambda row: -(row[-1].value or 0))
    return long_table(
        "Why channels stay",
        (
            *(Column("because"), Column("what stays"), Column("segments")),
            *(Column("count", True), Column("channels", True)),
        ),
        rows,
        "What pins channels, or needs all of them, whatever masks say; and what alignment adds.",
    )


def _reason(
    reason: str, what: str, segments: Sequence[SegmentReport], channels: int
) -> tuple[Cell, ...]:
    shown = ", ".join(str(segment.id) for segment in segments[:6])
    more = f" and {len(segments) - 6} more" if segments[6:] else ""
    return Cell(reason), Cell(what), Cell(f"{shown}{more}"), number(len(segments)), number(channels)


def segments_table(segments: Sequence[SegmentReport]) -> Table | None:
    """What is coupled with what."""
    shared = sum(len(segment.writers) > 1 for segment in segments)
    rows = []
    for segment in segments:
        rows.append(
            (
                number(segment.id),
                number(segment.channels),
                number(segment.needed),
                number(segment.kept, share(segment.kept, segment.channels)),
                Cell(names=tuple(writer.node for writer in segment.writers)),
                Cell(names=tuple(f"{each.node} ({each.read:,})" for each in segment.readers)),
            )
        )
    return long_table(
        "What is coupled",
        (
            *(Column(head, True) for head in ("segment", "channels", "needed", "kept")),
            *(Column("made by"), Column("read by (channels read)")),
        ),
        rows,
        "The layers of one segment share its channels and their order. "
        f"{shared} of {len(segments)} are made by several layers.",
    )


def long_table(
    title: str, columns: tuple[Column, ...], rows: Sequence[tuple[Cell, ...]], note: str
) -> Table | None:
    """A table that is folded where it is long; none without rows."""
    if not rows:
        return None
    return Table(
        title=title, note=note, columns=columns, rows=tuple(rows), folded=len(rows) > _UNFOLDED
    )
