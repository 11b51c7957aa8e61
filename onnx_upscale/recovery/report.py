"""The report of a recovery, in version 1 of its form."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_upscale.report import Document, Section


@dataclass(frozen=True)
class Used(Section):
    """How many samples there were.

    Attributes:
        fitted: That weights were fitted to.
        held_out: That the result was compared on.
    """

    fitted: int
    held_out: int


@dataclass(frozen=True)
class Refitted(Section):
    """A reader; its errors are squares, as shares of the variance of what it should make.

    Attributes:
        node: The node.
        channels: How many it read.
        kept: How many of them it still reads.
        positions: At how many it was looked at.
        error_before: With the weights that it had.
        error_after: With the new ones.
    """

    node: str
    channels: int
    kept: int
    positions: int
    error_before: float
    error_after: float


@dataclass(frozen=True)
class Compared(Section):
    """An output, on the samples held out.

    Attributes:
        name: Its name.
        error_before: The norm of the error as a share of the norm of the output, masked.
        error_after: The same after repair.
        agreement_before: The share of rows with the same largest value, masked; None where the
            output ranks nothing.
        agreement_after: The same after repair.
    """

    name: str
    error_before: float
    error_after: float
    agreement_before: float | None
    agreement_after: float | None


@dataclass(frozen=True, eq=False)
class RecoverReport(Document):
    """What was done; also the dictionary of the report file.

    Attributes:
        samples: How many there were.
        strength: How much weights were pulled to what they were.
        seed: Which samples were used.
        readers: The readers that were repaired.
        outputs: The outputs.
        seconds: What it took.
    """

    samples: Used
    strength: float
    seed: int
    readers: tuple[Refitted, ...]
    outputs: tuple[Compared, ...]
    seconds: float

    @property
    def error(self) -> float:
        """The largest error of an output, after repair."""
        return max((output.error_after for output in self.outputs), default=0.0)

    @property
    def agreement(self) -> float | None:
        """The least agreement of an output that ranks answers, after repair."""
        shares = (output.agreement_after for output in self.outputs)
        return min((share for share in shares if share is not None), default=None)
