"""What masks mean, without zeroing a weight: channels of tensors multiplied by 0 or 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import onnx_upscale
from build import assert_close, input_values, run
from onnx_upscale.optimizer.apply import masked_model
from onnx_upscale.optimizer.load import load

STRATEGIES = ("gather", "upscale", "auto")


def masks_of(**sides: Any) -> dict[str, Any]:
    """The mask file for one layer that is called `layer`."""
    return {"version": 1, "masks": {"layer": sides}}


def gate(
    model: onnx.ModelProto, tensor: str, axis: int, pruned: Iterable[int], *readers: str
) -> onnx.ModelProto:
    """Makes channels of a tensor zero, for some of the nodes that read it or for all."""
    gated = onnx.ModelProto()
    gated.CopyFrom(model)
    graph = gated.graph
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    shape = next(value.type.tensor_type.shape for value in values if value.name == tensor)
    ones = np.ones([d.dim_value if i == axis else 1 for i, d in enumerate(shape.dim)], np.float32)
    np.moveaxis(ones, axis, 0)[list(pruned)] = 0
    stem = ".".join([tensor, "gate", *readers])
    graph.initializer.append(numpy_helper.from_array(ones, f"{stem}.ones"))
    if readers:  # The gate stands before them, and the tensor keeps its name.
        source, result = tensor, f"{stem}.result"
        at = min(index for index, node in enumerate(graph.node) if node.name in readers)
        for node in graph.node:
            if node.name in readers:
                node.input[:] = [result if name == tensor else name for name in node.input]
    else:  # The gate stands behind the node that makes the tensor, and takes over its name.
        source, result = f"{stem}.source", tensor
        at = 1 + next(index for index, node in enumerate(graph.node) if tensor in node.output)
        graph.node[at - 1].output[:] = [source]
    graph.node.insert(at, helper.make_node("Mul", [source, f"{stem}.ones"], [result]))
    return gated


def check(model: onnx.ModelProto, masks: Mapping[str, Any], witness: onnx.ModelProto) -> None:
    """The masked model and all that is emitted compute what the witness computes."""
    onnx.checker.check_model(witness, full_check=True)
    inputs = input_values(model)
    expected = run(witness, inputs)
    models = [masked_model(load(model, masks).graph)]
    models += [
        onnx_upscale.optimize(model, masks, strategy=strategy, verify=False).model
        for strategy in STRATEGIES
    ]
    for each in models:
        onnx.checker.check_model(each, full_check=True)
        assert_close(expected, run(each, inputs))
