"""A second look at a result."""

from __future__ import annotations

from typing import Any

from onnx_upscale.cli.command import command
from onnx_upscale.cli.options import comparison, files, strategy, target
from onnx_upscale.cli.outcome import Outcome, reporting


@command()
@files
@strategy
@target
@comparison
@reporting
def verify(
    model: str,
    masks: str,
    out: str,
    **options: Any,
) -> Outcome:
    """Check an earlier result again."""
    from onnx_upscale import tables
    from onnx_upscale.api import verify_with
    from onnx_upscale.optimizer.load.model import InPlace
    from onnx_upscale.options import Options
    from onnx_upscale.reporting import verified

    found = verify_with(InPlace(model), masks, InPlace(out), Options(**options))
    line = tables.equality(found.samples, found.max_abs, found.max_rel)
    return Outcome(verified(found), [line], found.warnings)
