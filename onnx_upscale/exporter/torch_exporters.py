"""Torch's two exporters behind one signature: a module in, a model without bookkeeping out."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from onnx_upscale.errors import ModelError
from onnx_upscale.exporter.call import Call, Tensors

# What the newer exporter says about nodes that masks and messages can use. The rest is bookkeeping,
# and stack traces that name files of the machine.
_KEPT_METADATA = frozenset({"namespace", "pkg.torch.onnx.name_scopes"})


@dataclass(frozen=True)
class Request:
    """What an exporter is to make.

    Attributes:
        model: The module, in evaluation mode and without pruning hooks.
        call: Its example arguments, for everything about them but their values.
        tensors: The values.
        outputs: Names of the outputs.
        batch: Name of the symbolic batch size, or None for fixed sizes.
        opset: Version of the operator set, or None for the exporter's own choice.
    """

    model: nn.Module
    call: Call
    tensors: Tensors
    outputs: tuple[str, ...]
    batch: str | None
    opset: int | None

    @property
    def options(self) -> dict[str, Any]:
        """What both exporters take alike."""
        args, kwargs = self.call.arguments(self.tensors)
        return {
            "args": args,
            "kwargs": kwargs,
            "output_names": list(self.outputs),
            "opset_version": self.opset,
            "verbose": False,
        }


def dynamo(request: Request) -> onnx.ModelProto:
    """Exports with the newer exporter, which keeps the names of parameters."""
    shapes = request.call.dynamic_shapes(request.batch) if request.batch else None
    program = torch.onnx.export(
        request.model,
        dynamo=True,
        dynamic_shapes=shapes,
        input_names=list(request.call.names),
        **request.options,
    )
    assert program is not None
    return _cleaned(program.model_proto, request)


def torchscript(request: Request) -> onnx.ModelProto:
    """Exports with the older exporter.

    In training mode as the module has it, which is none, so that BatchNormalization stays a node of
    its own: folded, it would leave weights without the names of their parameters.
    """
    content: Any = io.BytesIO()  # Torch takes a file too, which its types do not say.
    request = dataclasses.replace(request, call=request.call.with_defaults())
    axes = request.call.dynamic_axes(request.batch) if request.batch else None
    with _silent_descriptors():
        torch.onnx.export(
            request.model,
            f=content,
            dynamo=False,
            dynamic_axes=axes,
            input_names=list(request.call.all_names),
            training=torch.onnx.TrainingMode.PRESERVE,
            **request.options,
        )
    model = onnx.load_from_string(content.getvalue())
    _fix_constants(model.graph, request.call)
    return _cleaned(model, request)


EXPORTERS: dict[str, Callable[[Request], onnx.ModelProto]] = {
    "dynamo": dynamo,
    "torchscript": torchscript,
}


def _cleaned(model: onnx.ModelProto, request: Request) -> onnx.ModelProto:
    opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if request.opset not in (None, opset):
        raise ModelError(f"gives opset {opset} where {request.opset} was asked for")
    if request.batch:
        _name_batch(model.graph, request)
    graph = model.graph
    parts: list[Any] = [*graph.node, *graph.input, *graph.output, *graph.value_info]
    for part in [*parts, *graph.initializer]:
        _keep_metadata(part, _KEPT_METADATA)
        part.doc_string = ""
    for whole in (model, graph):
        _keep_metadata(whole, frozenset())
        whole.doc_string = ""
    return model


def _name_batch(graph: onnx.GraphProto, request: Request) -> None:
    """Gives the batch its name, for which the newer exporter often takes one of its own."""
    first = request.call.names[request.call.batched.index(True)]
    found = next((value for value in graph.input if value.name == first), None)
    symbol = found.type.tensor_type.shape.dim[0].dim_param if found is not None else ""
    if not symbol:
        raise ModelError("the batch did not stay symbolic")
    whole_name = re.compile(rf"\b{re.escape(symbol)}\b")  # Sizes may be terms, such as 2*s77.
    for value in [*graph.input, *graph.output, *graph.value_info]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = whole_name.sub(str(request.batch), dim.dim_param)


def _fix_constants(graph: onnx.GraphProto, call: Call) -> None:
    """Stores the numbers that the older exporter made inputs."""
    for value in [value for value in graph.input if value.name in call.constants]:
        dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        number = np.array(call.constants[value.name], dtype)
        graph.initializer.append(numpy_helper.from_array(number, value.name))
        graph.input.remove(value)


@contextlib.contextmanager
def _silent_descriptors() -> Iterator[None]:
    """Keeps code outside Python from printing, as the older exporter does when it fails."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [(target, os.dup(target)) for target in (1, 2)]
    with open(os.devnull, "wb") as nowhere:
        for target, _ in saved:
            os.dup2(nowhere.fileno(), target)
    try:
        yield
    finally:
        for target, copy in saved:
            os.dup2(copy, target)
            os.close(copy)


def _keep_metadata(part: Any, names: frozenset[str]) -> None:
    kept = {entry.key: entry.value for entry in part.metadata_props if entry.key in names}
    del part.metadata_props[:]
    helper.set_model_props(part, kept)
