"""A convolution in two parts, which read a copy each and whose sums are added."""

from __future__ import annotations

from onnx_upscale.optimizer.apply.copies import Copies
from onnx_upscale.optimizer.apply.surgery import Surgery
from onnx_upscale.optimizer.plan import SelectParts

_DATA, _WEIGHT = 0, 1


def read_in_parts(surgery: Surgery, copies: Copies, edit: SelectParts) -> None:
    """Puts another convolution beside one, and their sum behind both; a bias is added once.

    Args:
        surgery: The graph; the weight of the convolution is cut to all that both read.
        copies: The copies so far.
        edit: The copies to read.
    """
    index, node = edit.node.index, surgery.nodes[edit.node.index]
    weight, result = node.inputs[_WEIGHT], node.outputs[0]
    first, second = map(copies.made, edit.parts)
    own, other = (
        surgery.constant(surgery.fresh_name(f"{weight.name}.part"), values)
        for values in (weight.values[:, : edit.first], weight.values[:, edit.first :])
    )
    surgery.replace_tensor(index, _DATA, first)
    surgery.replace_tensor(index, _WEIGHT, own)
    one, added = (surgery.variable(f"{result.name}.part") for _ in range(2))
    node.outputs[0] = one
    attributes = {**edit.node.attributes, **node.attrs}
    title = f"{edit.node.title}.part"
    beside = surgery.node("Conv", title, [second, other], [added], **attributes)
    total = surgery.node("Add", f"{title}_sum", [one, added], [result])
    surgery.after.setdefault(index, [])[:0] = [beside, total]
