"""A body that was emitted as a model of its own, put back into its node."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx

from onnx_upscale.optimizer.apply.renaming import rename_constants
from onnx_upscale.optimizer.apply.surgery import fresh_name
from onnx_upscale.optimizer.load.bodies import Body
from onnx_upscale.optimizer.load.subgraphs import names_captured
from onnx_upscale.protobuf import copy_fields


@dataclass(frozen=True)
class Shared:
    """What the graphs of a model share.

    Attributes:
        taken: Names that something in the model has; new ones are added.
        only_main: Whether new initializers must go to the main graph.
        constants: What bodies made of constants that are lent to them, by the names of these and
            the content. It belongs to the main graph, so that bodies that make the same share it.
    """

    taken: set[str]
    only_main: bool = False
    constants: dict[tuple[str, bytes], onnx.TensorProto] = field(default_factory=dict)


def as_body(body: Body, emitted: onnx.GraphProto, shared: Shared) -> onnx.GraphProto:
    """A graph for the attribute of a node.

    What the graphs around it lent is theirs and stays there; what was made of it under its name
    gets another, for no name may hide one from outside.

    Args:
        body: The body as it was read.
        emitted: The body as it was emitted.
        shared: What the graphs of the model share, to which it adds.

    Returns:
        A new graph.
    """
    made, outside = onnx.GraphProto(), body.lent | names_captured(body.own)
    copy_fields(emitted, made, leave={"node", "initializer", "input", "value_info"})
    made.input.extend(body.own.input)
    made.value_info.extend(value for value in emitted.value_info if value.name not in outside)
    lent = {t.name: t for t in body.graph.model.graph.initializer if t.name in body.lent}
    own = {tensor.name for tensor in body.own.initializer}
    renamed: dict[str, str] = {}
    for tensor in emitted.initializer:
        if tensor.name in own or not (shared.only_main or tensor.name in lent):
            made.initializer.append(tensor)
        elif tensor.name not in lent:
            shared.constants[tensor.name, b""] = tensor
        elif tensor != lent[tensor.name]:
            renamed[tensor.name] = _share(tensor, shared)
    for node in emitted.node:
        if body.lent.isdisjoint(node.output):
            made.node.append(node)
            # What bodies in it read never changes under its name.
            for slot, name in enumerate(node.input):
                made.node[-1].input[slot] = renamed.get(name, name)
    return made


def _share(tensor: onnx.TensorProto, shared: Shared) -> str:
    key = tensor.name, tensor.SerializeToString(deterministic=True)
    if key not in shared.constants:
        name = fresh_name(f"{tensor.name}.cut", shared.taken)
        shared.constants[key] = onnx.TensorProto()
        shared.constants[key].CopyFrom(tensor)
        shared.constants[key].name = name
    return shared.constants[key].name


def give_back_names(graph: onnx.GraphProto, shared: Shared) -> None:
    """Lets what bodies made of a constant have its name, where nobody reads that one any more.

    Args:
        graph: The main graph as it was emitted; it is changed.
        shared: What the graphs of the model share.
    """
    stored = {tensor.name for tensor in graph.initializer}
    made: dict[str, list[str]] = {}
    for (name, content), tensor in shared.constants.items():
        if content and name not in stored and tensor.name in stored:
            made.setdefault(name, []).append(tensor.name)
    renamed = {names[0]: name for name, names in made.items() if len(names) == 1}
    rename_constants(graph, renamed)
