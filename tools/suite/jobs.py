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
FORMS = {"float32": SUITE, "int8": ("resnet18", "mobilenet_v2", "yolov8n", "vit_b_16")}
MASKS = (("random", 0.3), ("random", 0.5), ("random", 0.7), ("l1", 0.5))
BATCHES = (1, 8)


@dataclass(frozen=True)
class Job:
    """One model under one set of masks.

    Attributes:
        folder: Where models lie.
        model: Its name.
        criterion: `random` or `l1`.
        amount: The share of every layer's input channels that is masked.
        batch: How many images an inference takes.
        form: `float32` or `int8` (QDQ).
    """

    folder: Path
    model: str
    criterion: str
    amount: float
    batch: int
    form: str

    @property
    def name(self) -> str:
        """What results call it."""
        return f"{self.model} {self.criterion} {self.amount} batch {self.batch} {self.form}"

    @property
    def path(self) -> Path:
        """The unpruned model, in float32."""
        return self.folder / f"{self.model}.onnx"

    def beside(self, suffix: str) -> Path:
        """A file that belongs to the model and the amount."""
        return self.folder / f"{self.model}.{self.amount}.{suffix}"


def all_jobs(folder: Path) -> Iterator[Job]:
    """All jobs whose model is there, the most telling first."""
    for batch, (form, models), (criterion, amount) in product(BATCHES, FORMS.items(), MASKS):
        for model in models:
            if (folder / f"{model}.onnx").exists():
                yield Job(folder, model, criterion, amount, batch, form)
