"""Running models in onnxruntime, on inputs that are made up.

Verification, benchmarks, criteria, the exporter and the pricing run models; none of them needs
another to do so.
"""

from onnx_upscale.running.inputs import (
    input_sizes,
    model_inputs,
    random_inputs,
    run_on_random,
)
from onnx_upscale.running.session import Session

__all__ = ["Session", "input_sizes", "model_inputs", "random_inputs", "run_on_random"]
