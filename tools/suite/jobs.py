"""What is measured: models, masks, batches, number formats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

EIGHT = (
    "resnet18",
    "resnet50",
    "densenet121",
    "mobilenet_v2",
    "mnasnet1_0",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "squeezenet1_1",
)
"""Those that the paper's implementation exports too, of which the geometric means are taken."""
SUITE = (
    *EIGHT,
    "mobilenet_v3_large",
    "shufflenet_v2_x1_0",
    "regnet_y_400mf",
    "convnext_tiny",
    "googlenet",
    "yolov8n",
    "vit_b_16",
    "unet",
)
MASKS = (("random", 0.3), ("random", 0.5), ("random", 0.7), ("l1", 0.5))


@dataclass(frozen=True)
class Kind:
    """What models are measured as.

    Attributes:
        provider: `cpu` or `cuda`.
        form: `float32`, `float16` or `int8` (QDQ).
        batch: How many images an inference takes.
        models: Which models.
    """

    provider: str
    form: str
    batch: int
    models: tuple[str, ...] = SUITE


_QUANTIZED = ("resnet18", "mobilenet_v2", "yolov8n", "vit_b_16")
KINDS = {
    "cpu": tuple(
        Kind("cpu", form, batch, models)
        for batch, (form, models) in product((1, 8), (("float32", SUITE), ("int8", _QUANTIZED)))
    ),
    "cuda": tuple(
        Kind("cuda", form, batch) for form, batch in product(("float32", "float16"), (1, 32))
    ),
}
"""The kinds of each provider, the most telling first."""


@dataclass(frozen=True)
class Job:
    """One model under one set of masks.

    Attributes:
        folder: Where models lie.
        model: Its name.
        criterion: `random` or `l1`.
        amount: The share of every layer's input channels that is masked.
        kind: What it is measured as.
    """

    folder: Path
    model: str
    criterion: str
    amount: float
    kind: Kind

    @property
    def name(self) -> str:
        """What results call it."""
        return f"{self.model} {setting(self.criterion, self.amount, self.kind)}"

    @property
    def path(self) -> Path:
        """The unpruned model, in float32."""
        return self.folder / f"{self.model}.onnx"

    def beside(self, suffix: str) -> Path:
        """A file that belongs to the model and the amount."""
        return self.folder / f"{self.model}.{self.amount}.{suffix}"


def setting(criterion: str, amount: float, kind: Kind) -> str:
    """What results call all jobs that differ by their model alone."""
    on = "" if kind.provider == "cpu" else f" {kind.provider}"
    return f"{criterion} {amount} batch {kind.batch} {kind.form}{on}"


def all_jobs(folder: Path, provider: str) -> Iterator[Job]:
    """All jobs on a provider whose model is there, the most telling first."""
    for kind, (criterion, amount) in product(KINDS[provider], MASKS):
        for model in kind.models:
            if (folder / f"{model}.onnx").exists():
                yield Job(folder, model, criterion, amount, kind)
