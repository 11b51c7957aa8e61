"""The report of mask, in version 1 of its form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from onnx_upscale.choices import SIDES
from onnx_upscale.making.make import Masks
from onnx_upscale.optimizer.load.masking import LayerMask
from onnx_upscale.report import VERSION, Document, Section
from onnx_upscale.reporting import finite


@dataclass(frozen=True)
class Counted(Section):
    """Channels of one side of the layers that masks name.

    Attributes:
        pruned: How many are pruned.
        of: How many there are.
    """

    pruned: int
    of: int


@dataclass(frozen=True)
class Near(Section):
    """How near an output of the masked model is to the original's.

    Attributes:
        name: The output.
        error: The norm of the difference, as a share of the norm of the output; None where that
            is no number.
        agreement: The share of rows whose largest value is at the same place; None where the output
            ranks nothing.
    """

    name: str
    error: float | None
    agreement: float | None


@dataclass(frozen=True, eq=False)
class MaskReport(Document):
    """What masks were made.

    Attributes:
        path: The mask file.
        layers: How many layers are masked.
        channels: By side, how many of their channels are pruned.
        predicted_share: The predicted latency, as a share of the unpruned model's; None for masks
            that were taken over.
        left: What layers are called that were left alone although nobody asked for it, by reason.
        outputs: How near each is to the original; none without data.
        compared: On how many samples.
        warnings: What to mind.
    """

    path: str
    layers: int
    channels: Mapping[str, Counted]
    predicted_share: float | None
    left: Mapping[str, tuple[str, ...]]
    outputs: tuple[Near, ...]
    compared: int
    warnings: tuple[str, ...]


def mask_report(
    path: str, masks: Iterable[LayerMask], made: Masks | None, warnings: Sequence[str]
) -> MaskReport:
    """The report of a mask file.

    Args:
        path: The file.
        masks: What it means for the layers of the model.
        made: How they came about; None where they were taken over.
        warnings: What to mind.
    """
    pruned, total, layers = dict.fromkeys(SIDES, 0), dict.fromkeys(SIDES, 0), set()
    for each in masks:
        pruned[each.side] += len(each.pruned)
        total[each.side] += each.layer.channels(each.side)
        layers.add(each.layer.node.index)
    fidelity = {} if made is None else made.fidelity
    return MaskReport(
        version=VERSION,
        path=path,
        layers=len(layers),
        channels={side: Counted(pruned[side], total[side]) for side in SIDES if total[side]},
        predicted_share=None if made is None else made.share,
        left={} if made is None else made.left,
        outputs=tuple(
            Near(name, finite(each.error), each.agreement) for name, each in fidelity.items()
        ),
        compared=0 if made is None else made.compared,
        warnings=tuple(warnings),
    )
