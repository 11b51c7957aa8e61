"""Who catches which planted error, as a table for docs/verification.md.

    PYTHONPATH=tests/kit python tools/who_catches.py

Each error of `tests/kit/planted` is planted by itself, and generated models are optimized until
the result is refused: by verification, whose reference shares nothing with the optimizer, and by a
comparison with the model whose masked weights are zeroed, which shares the reading of masks.
"""

from __future__ import annotations

from planted import ERRORS
from planting import caught_by_the_masked_weights, caught_by_us, first_caught


def main() -> None:
    print("| planted error | verification, after models | masked weights, after models |")
    print("| --- | --- | --- |")
    for error in ERRORS:
        found = [
            first_caught(error, catch) for catch in (caught_by_us, caught_by_the_masked_weights)
        ]
        print(f"| {error} | {' | '.join(str(each or 'never') for each in found)} |", flush=True)


if __name__ == "__main__":
    main()
