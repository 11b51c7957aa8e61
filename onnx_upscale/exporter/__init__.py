"""export: a torch model becomes an ONNX model and masks, proved equal to the torch model.

Torch is an optional extra, and slow to import. So this module does not import it, and imports those
beside it that do (`attempts`, `call`, `copying`, `torch_exporters`, `witness`) only in `export`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from onnx_upscale.choices import SIDES
from onnx_upscale.errors import UsageError
from onnx_upscale.exporter.report import ExportReport
from onnx_upscale.exporter.zeros import found_masks
from onnx_upscale.extras import require
from onnx_upscale.files import check_writable, same_file, write_files
from onnx_upscale.optimizer.load import MaskSource, load
from onnx_upscale.optimizer.load.mask_files import check_suffix, mask_file
from onnx_upscale.optimizer.verify import Tolerance
from onnx_upscale.report import VERSION, MaskCounts

__all__ = ["Exported", "default_masks_path", "export", "require_torch"]

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Exported:
    """An exported model.

    Attributes:
        model: The model.
        masks: Its masks, in the form of a mask file.
        path: Where the model was written, or None.
        masks_path: Where the masks were written, or None.
        exporter: `dynamo` or `torchscript`: which of torch's exporters made it.
        batch: The name of its symbolic batch size, or None where all sizes are fixed.
        warnings: What did not go as asked for.
        samples: On how many inputs it was compared with the torch model.
        max_abs: Largest absolute difference from the torch model.
        max_rel: Largest difference as a share of the largest value of its output.
    """

    model: onnx.ModelProto
    masks: dict[str, Any]
    path: Path | None
    masks_path: Path | None
    exporter: str
    batch: str | None
    warnings: tuple[str, ...]
    samples: int
    max_abs: float
    max_rel: float

    @property
    def report(self) -> ExportReport:
        """What was exported, as JSON has it."""
        masks = self.masks["masks"]
        pruned = {side: sum(len(sides.get(side, ())) for sides in masks.values()) for side in SIDES}
        return ExportReport(
            version=VERSION,
            path=None if self.path is None else str(self.path),
            masks_path=None if self.masks_path is None else str(self.masks_path),
            nodes=len(self.model.graph.node),
            exporter=self.exporter,
            batch=self.batch,
            masks=MaskCounts(len(masks), pruned["input"], pruned["output"]),
            samples=self.samples,
            max_abs=self.max_abs if self.samples else None,
            max_rel=self.max_rel if self.samples else None,
            warnings=self.warnings,
        )


def export(
    model: Any,
    args: Any,
    path: PathLike | None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    masks: MaskSource = None,
    masks_path: PathLike | None = None,
    batch: str | None = "batch",
    opset: int | None = None,
    verify: bool = True,
    seed: int = 0,
    rtol: float = Tolerance.rtol,
    atol: float = Tolerance.atol,
) -> Exported:
    """Exports a torch model as it computes in evaluation mode, pruning hooks active.

    Pruned weights are written as zeros, so the result equals the torch model with no mask applied.
    The masks say which channels these zeros prune; of `output` masks only those are written that
    leave the function as it is (docs/export.md says why).

    Args:
        model: A `torch.nn.Module`; it is left as it is, training mode and hooks included.
        args: Example arguments: a tensor, a tuple, or a dictionary of named ones.
        path: Where the model goes; None to write nothing.
        kwargs: Named arguments beside those in a tuple.
        masks: More masks, as for `optimize`, which are checked and added to those found.
        masks_path: Where the masks go; by default `path` with the suffix `.masks.json`.
        batch: Name of the symbolic size of axis 0 of every input; None for fixed sizes.
        opset: Version of the ONNX operator set; None leaves it to the exporter.
        verify: Compare the exported model with the torch model in onnxruntime.
        seed: Seed of the inputs that are compared.
        rtol: Largest difference, as a share of the largest value of an output.
        atol: Largest difference in addition.

    Returns:
        The model, the masks, and how they came about.

    Raises:
        UpscaleError: One of its subclasses says what is wrong with model, arguments or masks.
        VerifyError: The exported model computes something else than the torch model.
    """
    require_torch()
    from onnx_upscale.exporter.attempts import Options, first_good
    from onnx_upscale.exporter.call import Call
    from onnx_upscale.exporter.copying import copy_of, make_pruning_permanent
    from onnx_upscale.exporter.witness import observe

    tolerance = Tolerance(rtol, atol)
    if batch is not None and not batch.isidentifier():
        raise UsageError(f"batch '{batch}': the name of a dimension is letters, digits and '_'")
    targets = _targets(path, masks_path)
    copy = copy_of(model)
    call = Call.of(copy, args, kwargs)
    witness = observe(copy, call, batch is not None, seed)
    make_pruning_permanent(copy)
    found = first_good(copy, call, witness, Options(batch, opset, verify, tolerance))
    loaded = load(found.model, masks)
    content = found_masks(loaded)
    if targets is not None:
        out, beside = targets
        data: bytes = found.model.SerializeToString(deterministic=True)
        # The model last: it is there only if its masks are.
        files: dict[PathLike, bytes] = {beside: mask_file(beside, content, loaded.graph), out: data}
        write_files(files)
    return Exported(
        model=found.model,
        masks=content,
        path=targets[0] if targets else None,
        masks_path=targets[1] if targets else None,
        exporter=found.exporter,
        batch=found.batch,
        warnings=(*witness.warnings, *found.warnings),
        samples=found.samples,
        max_abs=found.max_abs,
        max_rel=found.max_rel,
    )


def require_torch(what: str = "exporting") -> None:
    """Finds out that torch is there, without importing it.

    Args:
        what: What it is needed for.

    Raises:
        UsageError: It is not; the message says how to install it.
    """
    require("torch", "PyTorch", "export", what)


def default_masks_path(path: PathLike) -> Path:
    """Where the masks of a model go when nobody says: beside it, as `NAME.masks.json`."""
    return Path(path).with_suffix(".masks.json")


def _targets(path: PathLike | None, masks_path: PathLike | None) -> tuple[Path, Path] | None:
    if path is None:
        if masks_path is not None:
            raise UsageError(f"masks path '{masks_path}': give a path for the model as well")
        return None
    out = Path(path)
    beside = default_masks_path(out) if masks_path is None else Path(masks_path)
    check_suffix(beside)
    if same_file(out, beside):
        raise UsageError(f"{beside}: is the model as well, choose another file for the masks")
    for each in (out, beside):
        check_writable(each)
    return out, beside
