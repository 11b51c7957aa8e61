"""Planting errors: generated models, ways to optimize them, and who catches what is wrong."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cache
from typing import Any

import onnx
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.internal.conjecture.providers import AVAILABLE_PROVIDERS, HypothesisProvider
from hypothesis.strategies import SearchStrategy

import onnx_upscale
from builder import Part
from case import Case
from onnx_upscale.errors import VerifyError, VerifySetupError
from onnx_upscale.optimizer.analyze import analyze
from onnx_upscale.optimizer.apply import apply, masked_model
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.plan import plan
from onnx_upscale.optimizer.verify import verify
from onnx_upscale.prices import load_prices
from onnx_upscale.running import Session, input_sizes, random_inputs
from planted import ERRORS
from strategies import cases, everything, with_readers_apart, with_windows
from targets import TARGETS

# Another release of hypothesis draws other models, so that some errors show later than here.
MODELS = 50
# Between them every realization occurs on small models. Real prices would round nearly all counts
# of channels up to what they were.
WAYS = (
    ("auto", "copies free, blocks of 1"),
    ("gather", "as built in"),
    ("auto", "copies free, align 2"),
    ("upscale", "as built in"),
    ("auto", "multiply-adds free"),
    ("auto", "multiply-adds dear, blocks of 1"),
)


class _Steady(HypothesisProvider):
    """Draws the same whatever this project's modules contain.

    Hypothesis tries constants that it finds in their source, so that any change of any module would
    change which models are generated.
    """

    def _maybe_draw_constant(self, *args: Any, **kwargs: Any) -> None:
        return None


AVAILABLE_PROVIDERS["steady"] = f"{__name__}._Steady"


def _runs(model: onnx.ModelProto) -> bool:
    """Whether onnxruntime runs a model; older ones break some with their optimizations."""
    try:
        Session(model).run(random_inputs(model, input_sizes(model), 0))
    except VerifySetupError:
        return False
    return True


@cache
def generated(
    count: int = MODELS, everything: Callable[[], SearchStrategy[list[Part]]] = everything
) -> tuple[Case, ...]:
    """The same models every time, as long as the text of `collect` is the same: it is the seed."""
    found: list[Case] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        backend="steady",
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(everything()))
    def collect(case: Case) -> None:
        if _runs(case.model):
            found.append(case)

    collect()
    return tuple(found)


def attempts(case: Case, number: int) -> Iterator[tuple[str, str]]:
    """Two ways to optimize a model; which ones depends on its number."""
    for offset in (0, 1):
        yield WAYS[(2 * number + offset) % len(WAYS)]


def caught_by_us(case: Case, strategy: str, target: str) -> bool:
    """Whether the verification of the package refuses the result."""
    try:
        onnx_upscale.optimize(
            case.model, case.document, strategy=strategy, target=TARGETS[target], samples=1
        )
    except VerifyError:
        return True
    return False


def caught_by_the_masked_weights(case: Case, strategy: str, target: str) -> bool:
    """Whether a comparison with the model whose masked weights are zeroed sees it.

    That model comes from the same reading of masks as the emitted one.
    """
    graph = load(case.model, case.document).graph
    emitted = apply(plan(analyze(graph), strategy, load_prices(TARGETS[target]))).model
    return not verify(masked_model(graph), emitted, samples=1).ok


def _models_for(error: str | None) -> tuple[Case, ...]:
    """Models in which an error can show: some realizations are rare where readers do not differ."""
    if error is not None and error.startswith("realizations: a copy moves"):
        return generated(MODELS // 2, with_readers_apart)
    if error is not None and error.startswith("realizations: each part"):
        return generated(MODELS // 2, with_windows)
    return generated()


Catch = Callable[[Case, str, str], bool]


def first_caught(
    error: str | None, catch: Catch, models: int = MODELS, likely: int = 1
) -> int | None:
    """How many models it takes until an error is caught; None if all of them are not enough.

    Args:
        error: The error; None for the package as it is.
        catch: Who is to catch it.
        models: How many models there are.
        likely: Which of them to begin with; those before it come last.
    """
    with ERRORS[error]() if error is not None else nullcontext(), warnings.catch_warnings():
        if error is not None:
            warnings.simplefilter("ignore")  # Nobody would have seen them.
        numbered = list(enumerate(_models_for(error)[:models]))
        for number, case in numbered[likely - 1 :] + numbered[: likely - 1]:
            for way in attempts(case, number):
                try:
                    if catch(case, *way):
                        return number + 1
                except Exception:  # A planted error may make something fail: no wrong result.
                    if error is None:
                        raise
    return None
