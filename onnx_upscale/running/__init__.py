"""Running models in onnxruntime, on inputs that are made up.

Verification, benchmarks, criteria, the exporter and the pricing run models; none of them needs
another to do so.
"""

from onnx_upscale.running.inputs import (
    Draw,
    input_sizes,
    model_inputs,
    on_first_draw,
    random_inputs,
    run_on_random,
)
from onnx_upscale.running.session import Session

__all__ = [
    "Draw",
    "Session",
    "input_sizes",
    "model_inputs",
    "on_first_draw",
    "random_inputs",
    "run_on_random",
]
