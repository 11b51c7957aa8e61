"""making: masks for a model, by a criterion, for an amount or a budget."""

from onnx_upscale.making.make import Masks, mask

__all__ = ["Masks", "mask"]
