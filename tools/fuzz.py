"""Optimize random models under random prices until something is not equal.

    PYTHONPATH=tests/kit python tools/fuzz.py [--models 5000] [--seed 0] [--seconds 3600]

Each model of `tests/kit/strategies.py` is optimized by every strategy, `auto` under prices of
`tests/kit/targets.py` that bring about what real ones never do on small models. Verification
compares the result with its own reference; the masked model as the tests build it is a second one.
Prints what happened, and the first model that went wrong, as small as hypothesis can make it.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import onnx_upscale
from build import named_outputs
from case import Case
from masked import masked
from state import package_state
from strategies import (
    cases,
    with_fused,
    with_heads,
    with_parted_axes,
    with_readers_apart,
    with_recurrent,
    with_split_attention,
    with_windows,
)
from targets import TARGETS

_TARGETS_PER_MODEL = 3


class _Enough(BaseException):
    """The time is over."""


def realizations(report: onnx_upscale.Report, seen: Counter[str]) -> None:
    """Counts how readers and writers of a result get along."""
    for segment in report.segments:
        seen.update(f"reader {each.realization}" for each in segment.readers)
        seen.update(f"writer {each.realization}" for each in segment.writers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3600)
    args = parser.parse_args()
    end, seen = time.monotonic() + args.seconds, Counter[str]()

    @seed(args.seed)
    @settings(
        max_examples=args.models,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.one_of(
            cases(),
            cases(with_fused()),
            cases(with_recurrent()),
            cases(with_heads()),
            cases(with_split_attention()),
            cases(with_readers_apart()),
            cases(with_parted_axes()),
            cases(with_windows()),
        ),
        st.lists(
            st.sampled_from(list(TARGETS)),
            min_size=_TARGETS_PER_MODEL,
            max_size=_TARGETS_PER_MODEL,
            unique=True,
        ),
    )
    def check(case: Case, targets: list[str]) -> None:
        if time.monotonic() > end:
            raise _Enough
        wanted = named_outputs(masked(case))
        ways = [("auto", target) for target in targets]
        ways += [(strategy, "as built in") for strategy in ("upscale", "gather", "constrained")]
        for strategy, target in ways:
            result = onnx_upscale.optimize(
                case.model, case.document, strategy=strategy, target=TARGETS[target], samples=1
            )
            realizations(result.report, seen)
            seen["results"] += 1
            if strategy == "constrained":
                continue
            for name, value in named_outputs(result.model).items():
                scale = float(np.abs(wanted[name]).max(initial=0.0))
                np.testing.assert_allclose(value, wanted[name], rtol=0, atol=1e-5 + 1e-3 * scale)
        seen["models"] += 1

    try:
        check()
    except _Enough:
        print(f"stopped after {args.seconds:.0f} s")
    print(f"package in state {package_state()} (tools/state.py), seed {args.seed}")
    for name, count in sorted(seen.items()):
        print(f"{name}: {count}")


if __name__ == "__main__":
    main()
