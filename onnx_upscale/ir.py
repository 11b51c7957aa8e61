"""A pass for onnx_ir, which stands behind onnxscript and torch.onnx: `optimize` on its models.

onnx_ir is an optional extra, and this module alone imports it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from onnx_upscale.errors import UpscaleError, VerifyError
from onnx_upscale.extras import require
from onnx_upscale.main_job import optimize_with
from onnx_upscale.modules import said
from onnx_upscale.optimizer.load.masks import MaskSource, as_document
from onnx_upscale.optimizer.load.model import adopt
from onnx_upscale.options import Options
from onnx_upscale.protobuf import copy_fields
from onnx_upscale.report import Report
from onnx_upscale.storage import Stored

# Before it is imported, so that one line says how to install it.
require("onnx_ir", "onnx-ir", "ir", "onnx_upscale.ir")
import onnx_ir as ir  # noqa: E402

__all__ = ["PostconditionError", "PreconditionError", "UpscalePass", "UpscaleResult"]

_APPLIED = "onnx_upscale.applied"
"""Where `meta` of a graph says which masks it has lost channels to."""


class PreconditionError(UpscaleError, ir.passes.PreconditionError):
    """A model, masks or samples that do not fit; `__cause__` is the error that says so."""


class PostconditionError(UpscaleError, ir.passes.PostconditionError):
    """The emitted model differs from the masked model; `__cause__` holds the report."""


@dataclass
class UpscaleResult(ir.passes.PassResult):
    """What the pass made.

    Attributes:
        model: A new model.
        modified: Whether it differs from the one given.
        report: What was done; None where these masks were applied before.
    """

    report: Report | None = None


class UpscalePass(ir.passes.FunctionalPass):
    """Removes masked channels from a model: the same function as the masked model, less work.

    The model given stays as it is. The new one shares the tensors that did not change with it, and
    has its names, metadata and doc strings; functions are inlined.

    1. Weights in external files stay there unless they are cut.
    2. What `meta` of the model, its graph and nodes holds is there again; that of values is not,
       for it may no longer be true of them.
    3. A model that has lost channels to the same masks is given back as it is, so that a
       `PassManager` may take several steps: indices count channels of the original.

    Args:
        masks: As for `onnx_upscale.optimize`.
        **options: The other arguments of `onnx_upscale.optimize`.

    Raises:
        UpscaleError: Masks or options that cannot be read or meant.
    """

    def __init__(self, masks: MaskSource = None, **options: Any) -> None:
        super().__init__()
        self.masks = as_document(masks)
        self.options = Options(**options)

    def __call__(self, model_or_result: ir.Model | ir.passes.PassResult, /) -> UpscaleResult:
        """Checks a model and does the main job.

        Args:
            model_or_result: A model, which is not changed, or what another pass made.

        Returns:
            A new model, and the report.

        Raises:
            PreconditionError: Something is wrong with the model, the masks or the samples.
            PostconditionError: The emitted model differs from the masked one.
        """
        result = super().__call__(model_or_result)
        assert isinstance(result, UpscaleResult)
        return result

    def requires(self, model: ir.Model) -> None:
        """Checks what can be told before anything is done.

        Args:
            model: The model.

        Raises:
            PreconditionError: It is no model of onnx_ir, or lacks weights.
        """
        if not isinstance(model, ir.Model):
            raise PreconditionError(
                f"expected an onnx_ir.Model, found {type(model).__name__}: onnx_ir.load(path) and "
                "onnx_ir.from_proto(model) make one"
            )
        for name, value in model.graph.initializers.items():
            if value.const_value is None:
                raise PreconditionError(f"weight '{name}' has no value: load the weights first")

    def call(self, model: ir.Model) -> UpscaleResult:
        """What `__call__` does between its checks.

        Args:
            model: The model.

        Returns:
            As `__call__`.
        """
        applied = model.graph.meta.get(_APPLIED, ())
        digest = _digest(self.masks)
        if digest in applied:
            return UpscaleResult(model.clone(), False)
        try:
            stored = adopt(_serialized(model), _folder(model), mapped=True)
            result = optimize_with(stored, self.masks, self.options)
        except VerifyError as error:
            raise PostconditionError(str(error)) from error
        except PreconditionError:
            raise
        except UpscaleError as error:
            raise PreconditionError(str(error)) from error
        modified = bool(model.functions) or result.emitted != stored.model
        emitted = _deserialized(result.emitted, model, stored)
        if digest is not None:
            emitted.graph.meta[_APPLIED] = (*applied, digest)
        return UpscaleResult(emitted, modified, result.report)


def _digest(masks: Any) -> str | None:
    """What stands for some masks; None for none, which may be applied again."""
    if masks is None:
        return None
    return hashlib.sha256(json.dumps(masks, sort_keys=True).encode()).hexdigest()


def _serialized(model: ir.Model) -> onnx.ModelProto:
    try:
        return ir.to_proto(model)
    except ir.serde.SerdeError as error:
        reason: BaseException = error
        while reason.__cause__ is not None:
            reason = reason.__cause__
        raise PreconditionError(f"the model cannot be serialized: {said(reason)}") from error


def _folder(model: ir.Model) -> Path:
    """The folder that locations of external weights are relative to."""
    found = {
        os.path.abspath(tensor.base_dir)
        for tensor in _tensors(model)
        if isinstance(tensor, ir.ExternalTensor)
    }
    if len(found) > 1:
        listed = ", ".join(sorted(found))
        raise PreconditionError(
            f"weights lie in files of several folders ({listed}): load them first with "
            "onnx_ir.external_data.load_to_model(model)"
        )
    return Path(*found)


def _tensors(model: ir.Model) -> Iterator[Any]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            yield value.const_value
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for attribute in node.attributes.values():
            if attribute.is_ref():
                continue
            if attribute.type == ir.AttributeType.TENSOR:
                yield attribute.value
            elif attribute.type == ir.AttributeType.TENSORS:
                yield from attribute.value


def _deserialized(emitted: onnx.ModelProto, given: ir.Model, before: Stored) -> ir.Model:
    """The emitted model; what is as it was before is not copied but shared."""
    light = onnx.ModelProto()
    copy_fields(emitted, light, leave={"graph"})
    copy_fields(emitted.graph, light.graph, leave={"initializer"})
    kept = _copy_changed(emitted, light, given, before.model)
    model = ir.from_proto(light)
    for name in kept:
        model.graph.initializers[name].const_value = given.graph.initializers[name].const_value
    model.meta.update(given.meta)
    model.graph.meta.update(given.graph.meta)
    nodes = {node.name: node for node in given.graph if node.name}
    for node in model.graph:
        if node.name in nodes:
            node.meta.update(nodes[node.name].meta)
    return model


def _copy_changed(
    emitted: onnx.ModelProto,
    light: onnx.ModelProto,
    given: ir.Model,
    before: onnx.ModelProto,
) -> Collection[str]:
    """Copies weights that changed; of the others, whose names it gives, no content."""
    held = {tensor.name: tensor for tensor in before.graph.initializer}
    kept = []
    for tensor in emitted.graph.initializer:
        copied = light.graph.initializer.add()
        if tensor.name in given.graph.initializers and held.get(tensor.name) == tensor:
            copied.name, copied.data_type = tensor.name, tensor.data_type
            copied.dims.extend(tensor.dims)
            kept.append(tensor.name)
        else:
            copied.CopyFrom(tensor)
    return kept
