"""New weights for the readers that lose channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_upscale
from onnx_upscale.choices import RECOVERED
from onnx_upscale.cli.command import command
from onnx_upscale.cli.data import data_source, fitting, workers
from onnx_upscale.cli.options import external_data as where_weights_go
from onnx_upscale.cli.options import files, report_file
from onnx_upscale.cli.outcome import Outcome, reporting
from onnx_upscale.cli.paths import check_paths
from onnx_upscale.cli.progress import progress_bar
from onnx_upscale.files import json_file, write_files
from onnx_upscale.modules import module_file
from onnx_upscale.text import Line, Table

if TYPE_CHECKING:
    from onnx_upscale.recovery.report import RecoverReport


@command()
@files
@fitting(least=1, most=RECOVERED)
@workers
@where_weights_go
@report_file
@reporting
def recover(
    model: str,
    masks: str,
    out: str,
    data: str,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    size: int | None,
    external_data: str,
    report: str | None,
    **options: Any,
) -> Outcome:
    """Give readers that lose channels new weights, so that the model does what it did before.

    OUT has the shapes of IN, and zeros where MASKS want them: onnx-upscale OUT.onnx - SMALL.onnx is
    the next step.
    """
    check_paths(
        sources={
            "the input model": model,
            "the mask file": None if masks == "-" else masks,
            "the samples": module_file(data) or data,
        },
        results={"OUT": out, "--report": report},
    )
    source = data_source(data, mean, std, size)
    with progress_bar("Recovering") as progress:
        recovered = onnx_upscale.recover(model, masks, source, progress=progress, **options)
    contents = recovered.stored.files(out, external_data)
    if report is not None:  # First, as OUT must be as it was if anything goes wrong.
        contents = {report: json_file(recovered.report), **contents}
    write_files(contents, keep=recovered.sources)
    return Outcome(recovered.report, _summary(out, recovered.report), recovered.warnings)


def _summary(out: str, report: RecoverReport) -> list[Line]:
    used, readers = report.samples, len(report.readers)
    rows = [["held-out samples", "masked", "recovered"]]
    for output in report.outputs:
        errors = (output.error_before, output.error_after)
        rows.append([f"{output.name}: error", *(f"{error:.2%}" for error in errors)])
        if output.agreement_before is not None and output.agreement_after is not None:
            shares = (output.agreement_before, output.agreement_after)
            rows.append([f"{output.name}: same top-1", *(f"{share:.2%}" for share in shares)])
    plural = "" if readers == 1 else "s"
    return [
        f"{out}: {readers} reader{plural} repaired on {used.fitted} samples, "
        f"{used.held_out} held out",
        Table(rows),
    ]
