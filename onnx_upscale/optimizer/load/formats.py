"""Formats in which a model stays as it is, since it was made for one machine already."""

from __future__ import annotations

from collections.abc import Iterable

from onnx import NodeProto

_BLOCKED = "com.microsoft.nchwc"


def made_for_a_machine(nodes: Iterable[NodeProto]) -> str:
    """Says of nodes that they are in a format from which nothing leaves, and what would do.

    Args:
        nodes: The nodes of a model.

    Returns:
        A sentence without its full stop; an empty text where all is well.
    """
    count = sum(node.domain == _BLOCKED for node in nodes)
    if not count:
        return ""
    return (
        f"what is in onnxruntime's NCHWc format ({count} of the nodes, {_BLOCKED}), made for one "
        "machine, stays as it is: start from the model before that step (what onnxruntime saves at "
        "ORT_ENABLE_EXTENDED or below)"
    )


def format_warnings(nodes: Iterable[NodeProto]) -> tuple[str, ...]:
    """What `made_for_a_machine` says, as warnings: one or none."""
    why = made_for_a_machine(nodes)
    return (why,) if why else ()
