"""What to say of masks before anybody uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from onnx_upscale.errors import UsageError
from onnx_upscale.making.predict import Prediction
from onnx_upscale.optimizer.load.masking import LayerMask
from onnx_upscale.recovery.fidelity import Fidelity

_FASTER = 0.99  # By less than that nobody needs to hear of it.
_AGREEING, _ERROR = 0.95, 0.1  # A model that is no nearer to the original is far from it.


def nothing_pruned(masks: Sequence[LayerMask]) -> Iterator[str]:
    """Says why masks prune nothing, if they do not."""
    if any(len(mask.pruned) for mask in masks):
        return
    most = max((mask.layer.channels(mask.side) for mask in masks), default=0)
    yield (
        f"no channel is pruned: of a layer's channels that share is less than one (the widest of "
        f"{len(masks)} has {most}), or all of them must stay: 'onnx-upscale analyze' says why"
    )


def faster_together(
    prediction: Prediction, share: float, together: Callable[[], Sequence[LayerMask]]
) -> Iterator[str]:
    """Says where layers that agree would be faster than those that are free.

    Args:
        prediction: Predicts latencies.
        share: That of the free masks.
        together: Gives the masks for the same amount where coupled layers agree.
    """
    try:
        agreed = prediction.share(together())
    except UsageError:  # No channel could go.
        return
    if agreed < _FASTER * share:
        yield (
            f"where layers share channels these masks differ, and copies cost more than they save: "
            f"the predicted latency is {share:.2f} of the unpruned model's, with `constrained` it "
            f"would be {agreed:.2f}"
        )


def far(found: Mapping[str, Fidelity], count: int) -> Iterator[str]:
    """Says how far a masked model is from the original, if it is far.

    Args:
        found: By output, how near it is.
        count: On how many samples.
    """
    agreements = [each.agreement for each in found.values() if each.agreement is not None]
    if agreements and min(agreements) < _AGREEING:
        what = f"only {min(agreements):.1%} of the answers stay the same"
    elif not agreements and any(each.error > _ERROR for each in found.values()):
        what = f"outputs are off by {max(each.error for each in found.values()):.0%}"
    else:
        return
    yield (
        f"the masked model is far from the original: on {count} samples {what}; 'onnx-upscale "
        "recover' gives what is left new weights, 'onnx-upscale prune' chooses for that as well"
    )
