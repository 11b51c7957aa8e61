"""What onnxruntime fuses into other nodes, as functions of arrays: activations, and biases."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

MICROSOFT = "com.microsoft"
"""The domain of operators that onnxruntime adds."""

Array: TypeAlias = "npt.NDArray[Any]"
Floats: TypeAlias = "npt.NDArray[np.float64]"
Activation: TypeAlias = "Callable[[Floats], Floats]"
"""From what a layer adds up to what it makes of that; NaN stays NaN."""

_error_function = np.vectorize(math.erf, otypes=[np.float64])


def activation(name: str, params: Sequence[float] = ()) -> Activation | None:
    """The function of a fused activation.

    Args:
        name: What the attribute `activation` of the node calls it.
        params: Its parameters, in onnxruntime's order; where there are fewer, those of ONNX.

    Returns:
        The function, or None for a name that is not known.
    """
    table = _ACTIVATIONS.get(name.lower())
    if table is None:
        return None
    function, defaults = table
    given = (*params, *defaults[len(params) :])[: len(defaults)]

    def apply(values: Floats) -> Floats:
        with np.errstate(all="ignore"):
            return function(values, *given)

    return apply


def _clip(values: Floats, low: float, high: float) -> Floats:
    return np.clip(values, low, high)


def _hard_sigmoid(values: Floats, alpha: float, beta: float) -> Floats:
    return np.clip(alpha * values + beta, 0.0, 1.0)


def _leaky(values: Floats, alpha: float) -> Floats:
    return np.where(values < 0, alpha * values, values)


def _relu(values: Floats) -> Floats:
    return np.maximum(values, 0.0)


def _sigmoid(values: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-values))


def _tanh(values: Floats) -> Floats:
    return np.tanh(values)


_INFINITE = math.inf
_ACTIVATIONS: Mapping[str, tuple[Callable[..., Floats], tuple[float, ...]]] = {
    "clip": (_clip, (-_INFINITE, _INFINITE)),
    "hardsigmoid": (_hard_sigmoid, (0.2, 0.5)),
    "leakyrelu": (_leaky, (0.01,)),
    "relu": (_relu, ()),
    "sigmoid": (_sigmoid, ()),
    "tanh": (_tanh, ()),
}


def _gelu(values: Floats) -> Floats:
    made: Floats = 0.5 * values * (1.0 + _error_function(values / math.sqrt(2.0)))
    return made


def _fast_gelu(values: Floats) -> Floats:
    inner = math.sqrt(2.0 / math.pi) * (values + 0.044715 * values**3)
    made: Floats = 0.5 * values * (1.0 + np.tanh(inner))
    return made


def _biased(function: Activation) -> Callable[[Sequence[Floats], Mapping[str, Any]], Floats]:
    """All inputs are added up first."""
    return lambda inputs, attributes: function(sum(inputs[1:], inputs[0]))


def _quick_gelu(inputs: Sequence[Floats], attributes: Mapping[str, Any]) -> Floats:
    (values,) = inputs
    return values * _sigmoid(attributes.get("alpha", 1.702) * values)


_POINTWISE: Mapping[str, Callable[[Sequence[Floats], Mapping[str, Any]], Floats]] = {
    "BiasAdd": _biased(lambda values: values),
    "BiasGelu": _biased(_gelu),
    "FastGelu": _biased(_fast_gelu),
    "Gelu": _biased(_gelu),
    "QuickGelu": _quick_gelu,
}
"""By operator of the domain `MICROSOFT`: what it makes of its inputs and attributes."""


def evaluate_pointwise(
    operator: str, inputs: Sequence[Array], attributes: Mapping[str, Any]
) -> Array | None:
    """What an operator of onnxruntime's domain makes, position by position.

    Args:
        operator: Name of its type.
        inputs: Its inputs; their shapes broadcast.
        attributes: Its attributes.

    Returns:
        The result in the type of the first input, or None where the operator is not known.
    """
    function = _POINTWISE.get(operator)
    if function is None:
        return None
    with np.errstate(all="ignore"):
        made = function([values.astype(np.float64) for values in inputs], attributes)
    return np.asarray(made).astype(inputs[0].dtype)
