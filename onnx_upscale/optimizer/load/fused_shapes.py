"""Shapes that onnxruntime's operators make, which onnx does not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from onnx_upscale.declared import Shape
from onnx_upscale.optimizer.load.pointwise import MICROSOFT
from onnx_upscale.optimizer.load.shape_rules import SHAPE_RULES, ShapeRule, Size, Use, broadcast

Fused: TypeAlias = "tuple[str, str]"


def _convolved(use: Use) -> Shape | None:
    made, weight = SHAPE_RULES["Conv"](use), use.shape(1)
    if weight is None or use.shape() is None:
        return None
    return None if made is None else (made[0], weight[0], *made[2:])


def _gemm(use: Use) -> Shape | None:
    sizes = _operands(use)
    return None if sizes is None else (sizes[0][-2], sizes[1][-1])


def _product(use: Use) -> Shape | None:
    sizes = _operands(use)
    if sizes is None or any(use.attributes.get(f"transBatch{each}", 0) for each in "AB"):
        return None
    one, other = sizes
    rank = max(len(one), len(other))
    batches = [
        broadcast(a, b)
        for a, b in zip(
            (1,) * (rank - len(one)) + one[:-2],
            (1,) * (rank - len(other)) + other[:-2],
            strict=True,
        )
    ]
    return (*batches, one[-2], other[-1])


def _quantized_gemm(use: Use) -> Shape | None:
    sizes = _operands(use, (0, 3))
    if sizes is None or use.shape(7) is None:  # Without a scale it makes real numbers.
        return None
    return sizes[0][-2], sizes[1][-1]


def _operands(
    use: Use, slots: tuple[int, int] = (0, 1)
) -> tuple[tuple[Size, ...], tuple[Size, ...]] | None:
    """The shapes of two matrices as they are multiplied."""
    found = []
    for slot, name in zip(slots, ("transA", "transB"), strict=True):
        shape = use.shape(slot)
        if shape is None or len(shape) < 2:
            return None
        *batches, rows, columns = shape
        turned = use.attributes.get(name, 0)
        found.append((*batches, columns, rows) if turned else (*batches, rows, columns))
    return found[0], found[1]


def _product_of_bits(use: Use) -> Shape | None:
    before = use.shape()
    return None if before is None else (*before[:-1], use.attributes.get("N"))


def _half(use: Use) -> Shape | None:
    shape = use.shape()
    if shape is None or not isinstance(shape[-1], int):
        return None
    return (*shape[:-1], shape[-1] // 2)


def _embedded(use: Use) -> Shape | None:
    indices, table = use.shape(), use.shape(2)
    if indices is None or table is None:
        return None
    return (*indices, table[-1])


def _attended(use: Use) -> Shape | None:
    data, weight = use.shape(), use.shape(1)
    sizes = use.attributes.get("qkv_hidden_sizes")
    if data is None or weight is None or len(data) != 3 or len(weight) != 2:
        return None
    third = weight[1] // 3 if isinstance(weight[1], int) else None
    return (*data[:2], sizes[2] if sizes else third)


def _attended_by_heads(use: Use) -> Shape | None:
    queries, values = use.shape(), use.shape(2)
    if queries is None or values is None or len(queries) != 3 or len(values) != 3:
        return None
    return (*queries[:2], values[2])


def _attended_in_groups(use: Use) -> Shape | None:
    queries, keys = use.shape(), use.shape(1)
    if queries is None or len(queries) != 3:
        return None
    return queries if keys is not None else (*queries[:2], None)  # They may be packed.


def _broadcast_quantized(use: Use) -> Shape | None:
    one, other = use.shape(0), use.shape(3)
    if one is None or other is None:
        return None
    rank = max(len(one), len(other))
    padded = ((1,) * (rank - len(sizes)) + tuple(sizes) for sizes in (one, other))
    return tuple(map(broadcast, *padded))


def _concatenated_quantized(use: Use) -> Shape | None:
    parts = [use.shape(slot) for slot in range(2, len(use.shapes), 3)]
    return SHAPE_RULES["Concat"](Use(parts, [None] * len(parts), use.attributes))


def _pooled_whole(use: Use) -> Shape | None:
    before = use.shape()
    if before is None or use.attributes.get("channels_last", 0):
        return None
    return (*before[:2], *(1,) * (len(before) - 2))


FUSED_SHAPE_RULES: Mapping[Fused, ShapeRule] = {
    (MICROSOFT, "BiasSplitGelu"): _half,
    (MICROSOFT, "Attention"): _attended,
    (MICROSOFT, "EmbedLayerNormalization"): _embedded,
    (MICROSOFT, "FusedConv"): _convolved,
    (MICROSOFT, "FusedGemm"): _gemm,
    (MICROSOFT, "FusedMatMul"): _product,
    (MICROSOFT, "GroupQueryAttention"): _attended_in_groups,
    (MICROSOFT, "MultiHeadAttention"): _attended_by_heads,
    (MICROSOFT, "MatMulNBits"): _product_of_bits,
    (MICROSOFT, "QGemm"): _quantized_gemm,
    (MICROSOFT, "QLinearAdd"): _broadcast_quantized,
    (MICROSOFT, "QLinearConcat"): _concatenated_quantized,
    (MICROSOFT, "QLinearGlobalAveragePool"): _pooled_whole,
    (MICROSOFT, "QLinearMul"): _broadcast_quantized,
}
"""By domain and operator: the shape of what it makes first."""

TYPED_BY = {(MICROSOFT, "EmbedLayerNormalization"): 2, (MICROSOFT, "QLinearConcat"): 1}
"""By domain and operator: the input that gives the first output its type, if not the first one."""
