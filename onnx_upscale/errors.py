"""The errors of the package: each message is the one line that a user needs.

Messages name parameters in backticks (`verify_at`, `verify=False`); the command line shows its
options in their place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx_upscale.report import Report, Verified


class UpscaleError(Exception):
    """Base of every error this package raises on purpose."""


class UsageError(UpscaleError):
    """Options or paths that cannot be meant, such as an output equal to the input."""


class ModelError(UpscaleError):
    """A file that is no readable ONNX model, or a model this package cannot handle."""


class MaskError(UpscaleError):
    """A mask file, or a mask in it, that does not fit the model."""


class DataError(UpscaleError):
    """Calibration data that cannot be read or does not fit the model."""


class OutputError(UpscaleError):
    """A result that cannot be written."""


class VerifyError(UpscaleError):
    """The emitted model differs from the masked model.

    Attributes:
        report: The report of the run that failed, where it has one.
        verified: What the comparison found, where it is all that was done.
    """

    def __init__(
        self, message: str, report: Report | None = None, verified: Verified | None = None
    ) -> None:
        super().__init__(message)
        self.report, self.verified = report, verified


class VerifySetupError(UpscaleError):
    """onnxruntime cannot run one of the models, so nothing can be compared."""


class WorkerError(UpscaleError):
    """A process that took part in the work ended before it was done."""
