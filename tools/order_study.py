"""Compare orders of channels on random segments, as Markdown tables.

python tools/order_study.py > tables.md
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from onnx_upscale.optimizer.plan.order import contiguous, perfect_order
from onnx_upscale.optimizer.plan.paths import path_order

IntArray = npt.NDArray[np.int64]
Masks = Callable[[np.random.Generator, int, int, float], list[IntArray]]

KEEPS = (0.3, 0.5, 0.7, 0.9)

SHARE_HEADER = ("masks", "keep", "gather", "upscale", "PQ-tree", "PQ better", "PQ worse")
EXACT_HEADER = (
    "masks",
    "perfect exists",
    "upscale finds it",
    "PQ finds it",
    "upscale is best",
    "PQ is best",
    "upscale loses",
    "PQ loses",
)


def independent(rng: np.random.Generator, size: int, count: int, keep: float) -> list[IntArray]:
    """Every reader chooses for itself."""
    return [rng.permutation(size)[: round(keep * size)] for _ in range(count)]


def similar(rng: np.random.Generator, size: int, count: int, keep: float) -> list[IntArray]:
    """Readers agree on what matters, up to some noise of their own."""
    shared = rng.random(size)
    scores = shared + 0.1 * rng.standard_normal((count, size))
    return [np.argsort(-row)[: round(keep * size)] for row in scores]


def nested(rng: np.random.Generator, size: int, count: int, keep: float) -> list[IntArray]:
    """Readers agree on what matters, not on how much they need."""
    hidden = rng.permutation(size)
    return [hidden[:length] for length in lengths(rng, size, count, keep)]


def interval(rng: np.random.Generator, size: int, count: int, keep: float) -> list[IntArray]:
    """Readers need intervals of a hidden order."""
    hidden = rng.permutation(size)
    takes = lengths(rng, size, count, keep)
    starts = [int(rng.integers(0, size - take + 1)) for take in takes]
    return [hidden[start : start + take] for start, take in zip(starts, takes, strict=True)]


def mixed(rng: np.random.Generator, size: int, count: int, keep: float) -> list[IntArray]:
    """Every second reader needs an interval of a hidden order, the others choose freely."""
    half = count // 2
    return interval(rng, size, count - half, keep) + independent(rng, size, half, keep)


KINDS: dict[str, Masks] = {
    mask.__name__: mask for mask in (independent, similar, nested, interval, mixed)
}


def lengths(rng: np.random.Generator, size: int, count: int, keep: float) -> list[int]:
    """Numbers of channels that are kept, around `keep` of all."""
    shares = np.clip(keep * rng.uniform(0.6, 1.4, count), 0, 1)
    return [max(1, round(share * size)) for share in shares]


def reached(order: IntArray, readers: list[IntArray]) -> int:
    """How many channels, summed over readers, need no Gather."""
    return sum(reader.size for reader in readers if contiguous(order, reader))


def orders(size: int, readers: list[IntArray]) -> tuple[IntArray, IntArray, IntArray]:
    """The orders compared: original, upscale, PQ-tree."""
    by_tree, _ = perfect_order(size, [], readers, [reader.size for reader in readers])
    return np.arange(size), path_order(size, readers), by_tree


def share_rows(seed: int, segments: int) -> Iterator[tuple[str, ...]]:
    """Shares of channels that still need a Gather, per kind of masks."""
    for kind, keep in itertools.product(KINDS, KEEPS):
        rng = np.random.default_rng([seed, list(KINDS).index(kind), round(keep * 10)])
        counts = []
        for _ in range(segments):
            size, count = int(rng.integers(8, 257)), int(rng.integers(2, 13))
            readers = KINDS[kind](rng, size, count, keep)
            total = sum(reader.size for reader in readers)
            counts.append([total, *(reached(one, readers) for one in orders(size, readers))])
        table = np.array(counts)
        shares = 1 - table[:, 1:].sum(axis=0) / table[:, 0].sum()
        better, worse = table[:, 3] > table[:, 2], table[:, 3] < table[:, 2]
        cells = [f"{keep}", *(f"{share:.1%}" for share in shares)]
        yield (kind, *cells, f"{better.sum()}", f"{worse.sum()}")


def optimum(readers: list[IntArray], everything: IntArray) -> int:
    """What the best of all orders reaches."""
    total = np.zeros(len(everything), dtype=np.int64)
    for reader in readers:
        inside = np.isin(everything, reader)
        starts = inside[:, 0] + (inside[:, 1:] & ~inside[:, :-1]).sum(axis=1)
        total += reader.size * (starts <= 1)
    return int(total.max())


def exact_rows(seed: int, segments: int) -> Iterator[tuple[str, ...]]:
    """How often small segments get a perfect order, and how often the best one."""
    permutations = {
        size: np.array(list(itertools.permutations(range(size)))) for size in range(4, 8)
    }
    for number, kind in enumerate(KINDS):
        rng = np.random.default_rng([seed, 100 + number])
        hits = np.zeros(5, dtype=np.int64)
        lost = np.zeros(2)
        for _ in range(segments):
            size, count = int(rng.integers(4, 8)), int(rng.integers(2, 7))
            readers = KINDS[kind](rng, size, count, float(rng.choice(KEEPS)))
            total = sum(reader.size for reader in readers)
            best = optimum(readers, permutations[size])
            got = np.array([reached(one, readers) for one in orders(size, readers)[1:]])
            hits += [best == total, *(got == total), *(got == best)]
            lost += 1 - got / best
        yield (kind, *(str(hit) for hit in hits), *(f"{share / segments:.1%}" for share in lost))


def print_table(header: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> None:
    """Print rows as Markdown."""
    for row in (header, ("---",) + ("---:",) * (len(header) - 1), *rows):
        print(f"| {' | '.join(row)} |")


def main() -> None:
    """Parse the command line and print both tables."""
    parser = argparse.ArgumentParser(description="Compare orders of channels.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--segments", type=int, default=50, help="per row of the first table")
    parser.add_argument("--small", type=int, default=200, help="per row of the second table")
    options = parser.parse_args()
    print_table(SHARE_HEADER, share_rows(options.seed, options.segments))
    print()
    print_table(EXACT_HEADER, exact_rows(options.seed, options.small))


if __name__ == "__main__":
    main()
