"""torchvision beside a torch that it was not compiled for, as far as recipes need it."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

_KEPT: list[torch.library.Library] = []  # A library's operators go when it does.


def declare_operators() -> None:
    """Gives the operators of torchvision names, and the one for boxes a meaning."""
    if find_spec("torchvision") is None or hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    _KEPT.append(library)
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.impl("nms", _nms, "CPU")
    import torchvision.extension

    torchvision.extension._HAS_OPS = True
    torchvision.extension._has_ops = lambda: True


def _nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """The boxes of which no better one covers too much, the best first."""
    order = torch.argsort(scores, descending=True, stable=True)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    taken = []
    while len(order):
        best, rest = order[0], order[1:]
        taken.append(best)
        corner = torch.maximum(boxes[best, :2], boxes[rest, :2])
        common = (torch.minimum(boxes[best, 2:], boxes[rest, 2:]) - corner).clamp(min=0).prod(1)
        order = rest[common / (area[best] + area[rest] - common) <= threshold]
    return torch.stack(taken) if taken else order
