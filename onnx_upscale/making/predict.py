"""What masks do to the predicted latency, and the amount that meets a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnx_upscale.errors import UsageError
from onnx_upscale.optimizer.analyze import Structure, analyze
from onnx_upscale.optimizer.load.masking import LayerMask, mask_graph
from onnx_upscale.optimizer.plan import Costs, plan
from onnx_upscale.prices import Prices

_STEPS = 100


class Prediction:
    """Predicts the latency of a model under masks.

    Args:
        structure: The structure of the model.
        prices: What work costs on the target.
    """

    def __init__(self, structure: Structure, prices: Prices) -> None:
        self._structure, self._costs = structure, Costs(structure, prices)
        self._whole = self._seconds(())

    def share(self, masks: Sequence[LayerMask]) -> float:
        """What is left of the predicted latency of the unpruned model."""
        return self._seconds(masks) / self._whole if self._whole else 1.0

    def _seconds(self, masks: Sequence[LayerMask]) -> float:
        graph = mask_graph(self._structure.graph, masks)
        return plan(analyze(graph, self._structure), "auto", self._costs).seconds

    def meeting(
        self,
        budget: float,
        masks: Callable[[float], Sequence[LayerMask]],
        progress: Callable[[int, int], None],
    ) -> float:
        """The smallest amount that meets a budget, in hundredths, by bisection.

        Latency falls in steps and now and then rises with what is pruned, so that an amount below
        may meet the budget as well.

        Args:
            budget: Share of the predicted latency.
            masks: Gives the masks for an amount.
            progress: Called with how many amounts were tried, of about how many.

        Returns:
            The amount.

        Raises:
            UsageError: No amount below 1 meets it.
        """
        low, high = 0, _STEPS - 1
        least = self.share(masks(high / _STEPS))
        if least > budget:
            raise UsageError(
                f"`budget` {budget:g}: cannot be met: with {high / _STEPS:.0%} of the channels "
                f"gone, {least:.3f} of the predicted latency is left"
            )
        tries = _STEPS.bit_length()
        while high - low > 1:
            progress(tries - (high - low).bit_length(), tries)
            middle = (low + high) // 2
            if self.share(masks(middle / _STEPS)) <= budget:
                high = middle
            else:
                low = middle
        progress(tries, tries)
        return high / _STEPS
