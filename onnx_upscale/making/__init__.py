"""making: masks for a model, by a criterion, for an amount or a budget."""

from onnx_upscale.making.make import CRITERIA, Masks, mask

__all__ = ["CRITERIA", "Masks", "mask"]
