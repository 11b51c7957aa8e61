"""What a model computes on samples: parts of it, what its readers see there, kept for later."""

from onnx_upscale.activations.parts import up_to
from onnx_upscale.activations.shelf import Shelf

__all__ = ["Shelf", "up_to"]
