"""Whether the package can do its work here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from onnx_upscale.cli.command import command
from onnx_upscale.cli.options import PATH
from onnx_upscale.cli.outcome import Outcome, reporting
from onnx_upscale.text import Line, Table

if TYPE_CHECKING:
    from onnx_upscale.doctor import DoctorReport


@command()
@click.argument("profile", metavar="[PROFILE.json]", type=PATH, required=False)
@reporting
def doctor(profile: str | None) -> Outcome:
    """Say what is installed, and whether the main job works here.

    What it prints names no folders, so that it can go into a report of an error. With a profile it
    says whether that is of this machine. Ends with status 1 if the main job does not work.
    """
    from onnx_upscale.doctor import examine

    report = examine(profile)
    failure = None
    if not report.works:
        failure = f"the main job does not work here: {'; '.join(report.problems)}"
    return Outcome(report, _lines(report), failure=failure)


def _lines(report: DoctorReport) -> list[Line]:
    rows = [
        ["onnx-upscale", report.package],
        ["python", report.python],
        ["system", report.system],
        *([name, version or "missing"] for name, version in report.packages.items()),
        ["providers", ", ".join(report.providers) or "none"],
        ["target cpu", report.target or "unknown"],
        ["cores", f"{report.cores.there}, of which {report.cores.usable} may be used"],
        *([name, version or "not installed"] for name, version in report.optional.items()),
        ["main job", "works" if report.works else "does not work"],
    ]
    if report.profile is not None:
        fits = {True: "of this machine", False: "of another machine", None: "of no known machine"}
        doubts = "; ".join(report.profile.doubts)
        said = f"{report.profile.name}: {fits[report.profile.fits]}"
        rows.append(["profile", f"{said}; {doubts}" if doubts else said])
    return [Table(rows, headed=False), *(f"problem: {problem}" for problem in report.problems)]
