"""How large a model is and how much it computes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from onnx_upscale.copies import COPIES
from onnx_upscale.declared import Shape
from onnx_upscale.optimizer.load.attention import attention_reads, attention_work
from onnx_upscale.optimizer.load.known import is_known
from onnx_upscale.optimizer.load.layers import multiply_adds, work_reads
from onnx_upscale.optimizer.load.shapes import infer, skeleton
from onnx_upscale.optimizer.load.subgraphs import subgraphs
from onnx_upscale.optimizer.load.tensors import Tensors, derive
from onnx_upscale.optimizer.load.witness import shapes_at


@dataclass(frozen=True)
class Stats:
    """Size and work of a model, at given input sizes.

    Attributes:
        nodes: Count of nodes, those in bodies as well.
        params: Count of weights, those in bodies as well.
        macs: Multiply-adds of convolutions and matrix products per inference.
        copies: Count of the nodes asked about.
        copied_bytes: What they write per inference.
    """

    nodes: int
    params: int
    macs: int
    copies: int
    copied_bytes: int


def measure(
    model: onnx.ModelProto,
    sizes: Mapping[str, tuple[int, ...]],
    copies: Iterable[str] = (),
    runs: bool = True,
    shown_by: Callable[[], onnx.ModelProto] | None = None,
    known: Tensors | None = None,
) -> Stats:
    """Measures a model.

    Args:
        model: The model.
        sizes: Shapes of its inputs.
        copies: Names of nodes whose output is to be counted as copied.
        runs: Whether it may run where nothing else shows how large tensors are.
        shown_by: Gives what then runs in its place: a model of the same tensors, in which as much
            is found as in one that this one is to be compared with.
        known: The shapes of its tensors as they were found before. They do where no size is open.

    Returns:
        Its size and work. What cannot be known counts as nothing.
    """
    names = set(copies)
    graphs = list(_all_graphs(model.graph))
    nodes = [node for graph in graphs for node in graph.node]
    added = [node for node in nodes if node.name in names]
    copied = [node.output[0] for node in added if node.op_type in COPIES]
    wanted = list(copied)
    for node in model.graph.node:
        wanted += [*work_reads(node), *attention_reads(node)]
    if known is not None and not _lacking(wanted, known.shapes):
        shapes, types = known.shapes, known.types
    else:
        shapes, types = _shapes_at(model, sizes, wanted, runs, shown_by or (lambda: model))
    return Stats(
        nodes=len(nodes),
        params=_weights(graphs),
        macs=sum(
            multiply_adds(node, shapes) + attention_work(node, shapes) for node in model.graph.node
        ),
        copies=len(copied),
        copied_bytes=sum(_bytes(tensor, shapes, types) for tensor in copied),
    )


def count_weights(graph: onnx.GraphProto) -> int:
    """How many weights there are in a graph, and in those below."""
    return _weights(_all_graphs(graph))


def _weights(graphs: Iterable[onnx.GraphProto]) -> int:
    return sum(math.prod(tensor.dims) for graph in graphs for tensor in graph.initializer)


def _all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph, and those below."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from _all_graphs(inner)


def _shapes_at(
    model: onnx.ModelProto,
    sizes: Mapping[str, tuple[int, ...]],
    wanted: Sequence[str],
    runs: bool,
    shown_by: Callable[[], onnx.ModelProto],
) -> tuple[Mapping[str, Shape], Mapping[str, int]]:
    """Shapes and types at some sizes; what nothing else tells of them, a run does."""
    slim = skeleton(model)
    bound: dict[str, int] = {}
    for value in slim.graph.input:
        for dim, size in zip(
            value.type.tensor_type.shape.dim, sizes.get(value.name, ()), strict=False
        ):
            if dim.dim_param:
                bound[dim.dim_param] = size
            dim.dim_value = size
    del slim.graph.value_info[:]
    for value in slim.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in bound:
                dim.dim_value = bound[dim.dim_param]
    found = derive(infer(slim), model)
    lacking = _lacking(wanted, found.shapes)
    seen = shapes_at(shown_by(), lacking, sizes) if lacking and sizes and runs else {}
    return {**found.shapes, **seen}, found.types


def _lacking(wanted: Sequence[str], shapes: Mapping[str, Shape]) -> list[str]:
    return [name for name in wanted if not is_known(shapes.get(name))]


def _bytes(tensor: str, shapes: Mapping[str, Shape], types: Mapping[str, int]) -> int:
    elements = math.prod(size if isinstance(size, int) else 0 for size in shapes.get(tensor, (0,)))
    kind = types.get(tensor) or onnx.TensorProto.FLOAT
    return elements * int(helper.tensor_dtype_to_np_dtype(kind).itemsize)
