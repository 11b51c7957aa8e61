"""Letting `auto` measure: each choice on a small model cut out around it, then whole models."""

from __future__ import annotations

from onnx_upscale.benchmark.providers import execution_providers
from onnx_upscale.errors import UsageError
from onnx_upscale.optimizer.analyze import Analysis
from onnx_upscale.optimizer.plan import Plan, Preferred, keep_all, plan
from onnx_upscale.optimizer.plan.cost import Costs
from onnx_upscale.options import Sizes
from onnx_upscale.prices import Prices
from onnx_upscale.tuning.budget import Budget, Progress
from onnx_upscale.tuning.choosing import choose
from onnx_upscale.tuning.racing import fastest
from onnx_upscale.tuning.runtime import Runtime
from onnx_upscale.tuning.together import plan_together

__all__ = ["tuned_plan"]

# Prices of copies to try, as multiples of the target's: from never mind them to never copy.
_COPY_PRICES = (0.3, 3.0, 1e9)
# How much of the time goes to counts that are chosen together; what is left of it, to the choices.
_SEARCH = 0.2


def tuned_plan(
    analysis: Analysis,
    prices: Prices,
    sizes: Sizes,
    seconds: float,
    progress: Progress | None = None,
) -> Plan:
    """The fastest of several plans on this machine.

    Args:
        analysis: The analysis.
        prices: The prices to start from.
        sizes: Shapes of the inputs to time with.
        seconds: About how long it may take.
        progress: Called now and then.

    Returns:
        The plan whose model had the lowest median latency, paired by rounds, on one thread and the
        provider of the target. Among those that ran are what `auto`, `upscale` and `gather` make,
        and a model of which nothing leaves.

    Raises:
        UsageError: onnxruntime has not got that provider here.
    """
    runtime = Runtime(_providers(prices), sizes, Budget(seconds, progress))
    costs = Costs(analysis.structure, prices)
    planned = plan(analysis, "auto", costs)
    together = plan_together(planned, costs, lambda: runtime.budget.left(_SEARCH) > 0)
    preferred = choose(planned, costs, runtime)
    plans = [planned] if together is planned else [planned, together]
    if preferred != Preferred():
        plans.append(plan(analysis, "auto", costs, preferred))
    plans += [plan(analysis, "auto", prices.with_copies_costing(factor)) for factor in _COPY_PRICES]
    plans += [plan(analysis, strategy, costs) for strategy in ("upscale", "gather")]
    plans.append(keep_all(analysis, costs))
    return fastest(plans, runtime)


def _providers(prices: Prices) -> tuple[str, ...]:
    """The providers of onnxruntime to measure with: those of the target."""
    try:
        return execution_providers(prices.provider)
    except UsageError as error:
        said = str(error).removeprefix("`provider` ")
        raise UsageError(f"`tune` measures where the target is: {said}") from None
