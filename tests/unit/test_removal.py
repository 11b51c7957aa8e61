"""What removing channels costs, against removing them and solving by least squares."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from onnx_upscale.pruning import removal
from onnx_upscale.pruning.removal import Problem, factored, remove, remove_together

Floats = npt.NDArray[np.float64]


def reader(
    seed: int, rows: int = 4, units: int = 6, block: int = 2, samples: int = 40
) -> tuple[Floats, Floats]:
    """A weight and the second moment of correlated columns."""
    rng = np.random.default_rng(seed)
    size = units * block
    mixed = rng.standard_normal((size, size)) @ rng.standard_normal((size, samples))
    return rng.standard_normal((rows, units, block)), mixed @ mixed.T


def ridge_of(second: Floats, ridge: float) -> float:
    return ridge * float(np.trace(second)) / len(second)


def refitted(weight: Floats, second: Floats, gone: list[int], ridge: float) -> float:
    """The least |W X - W' X|^2 + lambda |W' - W|^2 with some units at zero, by least squares."""
    rows, units, block = weight.shape
    pull = ridge_of(second, ridge)
    root = np.linalg.cholesky(second + pull * np.eye(len(second)))  # |(W - W') root|^2
    kept = np.repeat(~np.isin(np.arange(units), gone), block)
    flat = weight.reshape(rows, -1)
    fitted = np.linalg.lstsq(root[kept].T, (flat @ root).T, rcond=None)[0].T
    return float(((flat @ root - fitted @ root[kept]) ** 2).sum())


@pytest.mark.parametrize(("rows", "block"), [(4, 1), (3, 3), (40, 2)])
def test_errors_are_those_of_removing_and_solving(rows: int, block: int) -> None:
    weight, second = reader(1, rows, 6, block)
    found = remove(Problem.of(weight, second, 1e-2))
    wanted = [refitted(weight, second, found.order[:k].tolist(), 1e-2) for k in range(7)]
    np.testing.assert_allclose(found.errors[0], wanted, rtol=1e-8, atol=1e-8)
    assert sorted(found.order) == list(range(6))


def test_the_next_unit_is_always_the_cheapest() -> None:
    weight, second = reader(2, block=3)
    order = remove(Problem.of(weight, second)).order.tolist()
    for step in range(6):
        costs = {
            unit: refitted(weight, second, [*order[:step], unit], removal.RIDGE)
            for unit in range(6)
            if unit not in order[:step]
        }
        assert order[step] == min(costs, key=lambda unit: costs[unit])


def test_dropping_what_is_gone_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, second = reader(10, rows=9, units=16)
    whole = remove(Problem.of(weight, second))
    monkeypatch.setattr(removal, "_SMALL", 1)
    reduced = remove(Problem.of(weight, second))
    assert reduced.order.tolist() == whole.order.tolist()
    np.testing.assert_allclose(reduced.errors, whole.errors, rtol=1e-9)


def test_a_copy_of_a_channel_leaves_first_and_costs_next_to_nothing() -> None:
    rng = np.random.default_rng(3)
    columns = rng.standard_normal((5, 50))
    columns[3] = columns[1]
    found = remove(Problem.of(np.ones((2, 5, 1)), columns @ columns.T, 1e-6))
    assert found.order[0] in (1, 3)
    assert found.errors[0, 1] < 1e-3 * found.errors[0, 2]


def test_readers_that_agree_pay_the_weighted_sum() -> None:
    readers = [reader(seed) for seed in (4, 5)]
    weights = [1.0, 7.0]
    found = remove_together([Problem.of(*each) for each in readers], weights)
    gone: list[int] = []
    for step, unit in enumerate(found.order.tolist()):
        left = [each for each in range(6) if each not in gone]
        sums = [
            sum(
                weight * refitted(*each, [*gone, other], removal.RIDGE)
                for weight, each in zip(weights, readers, strict=True)
            )
            for other in left
        ]
        assert unit == left[int(np.argmin(sums))]
        gone.append(unit)
        wanted = [refitted(*each, gone, removal.RIDGE) for each in readers]
        np.testing.assert_allclose(found.errors[:, step + 1], wanted, rtol=1e-8)


def test_units_that_must_stay_are_fitted_all_the_same() -> None:
    weight, second = reader(6)
    chosen = np.array([1, 2, 5])
    found = remove(Problem.of(weight, second).of_units(chosen))
    for count, gone in enumerate(itertools.accumulate([[int(u)] for u in chosen[found.order]])):
        wanted = refitted(weight, second, gone, removal.RIDGE)
        assert found.errors[0, count + 1] == pytest.approx(wanted)


def test_moments_that_are_products_are_factored_exactly() -> None:
    rng = np.random.default_rng(7)
    units, block = 5, 3
    over_units, over_places = (
        (lambda part: part @ part.T)(rng.standard_normal((size, size + 4)))
        for size in (units, block)
    )
    weight = rng.standard_normal((4, units, block))
    second = np.asarray(np.kron(over_units, over_places), np.float64)
    whole = remove(Problem.of(weight, second, 1e-9))
    small_weight, small_second = factored(weight, second)
    assert small_weight.shape == (12, 5, 1)
    small = remove(Problem.of(small_weight, small_second, 1e-9))
    assert small.order.tolist() == whole.order.tolist()
    np.testing.assert_allclose(small.errors, whole.errors, rtol=1e-4)


def test_large_readers_are_factored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "MOST_COLUMNS", 11)
    assert Problem.of(*reader(8)).inverse.shape == (6, 6)


def test_independent_columns_only_add_up() -> None:
    weight, second = reader(9)
    diagonal = np.diagonal(second).copy()
    found = remove(Problem.of(weight, diagonal))
    wanted = remove(Problem.of(weight, np.diag(diagonal)))
    assert found.order.tolist() == wanted.order.tolist()
    np.testing.assert_allclose(found.errors, wanted.errors)


def test_dead_columns_are_no_failure() -> None:
    found = remove(Problem.of(np.ones((2, 3, 2)), np.zeros((6, 6))))
    assert np.isfinite(found.errors).all()
