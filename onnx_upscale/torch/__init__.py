"""Back to torch: the module that was exported, with the smaller layers of an optimized model.

Torch is an optional extra, and slow to import. So this module does not import it, and imports those
beside it, which do, only in `slim`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from onnx_upscale.errors import UsageError
from onnx_upscale.exporter import require_torch
from onnx_upscale.optimizer.verify import Tolerance
from onnx_upscale.pruning.results import Pruned
from onnx_upscale.result import Result

if TYPE_CHECKING:
    from torch import nn

__all__ = ["slim"]


def slim(
    module: Any,
    result: Result | Pruned,
    args: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
    rtol: float = Tolerance.rtol,
    atol: float = Tolerance.atol,
) -> nn.Module:
    """Makes a torch module smaller, as its ONNX model became: to fine-tune, and to export again.

    It is a copy of the module: the same classes, the same `forward`, the same names of parameters.
    Layers have the channels that the optimized model computes; those that read fewer than their
    tensor holds pick them first (`kept_inputs`, a buffer). BatchNormalization is a layer again.

    Args:
        module: The module that `onnx_upscale.export` exported; it is left as it is.
        result: What `optimize` or `prune` made of the exported model.
        args: Example arguments as for `export`; None makes them up from the inputs of the model.
        kwargs: Named arguments beside those in a tuple.
        seed: Seed of the inputs that are compared.
        rtol: Largest difference from the result, as a share of the largest value of an output.
        atol: Largest difference in addition.

    Returns:
        A module that computes what the result computes, on the device and in the mode (training or
        evaluation) of the one given.

    Raises:
        UsageError: The module is not the one that was exported, or cannot follow; the message names
            the layer.
        UpscaleError: One of its subclasses says what else is wrong.
    """
    require_torch("slim")
    from onnx_upscale.torch.attempts import slimmed
    from onnx_upscale.torch.comparison import Comparison

    made = result.result if isinstance(result, Pruned) else result
    if not isinstance(made, Result):
        raise UsageError(
            f"expected what optimize or prune gave, found {type(made).__name__}: "
            "slim(module, onnx_upscale.optimize(model, masks))"
        )
    if made.plan is None:
        raise UsageError("this result does not say how it was planned: optimize the model again")
    comparison = Comparison.of(module, made, args, kwargs, seed, Tolerance(rtol, atol))
    return slimmed(module, made.plan, comparison)
