"""Moments add up, and what they give is what least squares give."""

from __future__ import annotations

import functools
import operator

import numpy as np
import pytest

from onnx_upscale.activations.columns import Floats
from onnx_upscale.recovery import Moments, repair

RNG = np.random.default_rng(0)
FIELDS = ("mean_dense", "mean", "gram", "cross", "power")


def numbers(*shape: int) -> Floats:
    return RNG.standard_normal(shape) + 0.7


def assert_equal(one: Moments, other: Moments) -> None:
    assert one.count == other.count
    for name in FIELDS:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-9)


def test_moments_are_what_their_names_say() -> None:
    wanted, read = numbers(2, 3, 50), numbers(2, 4, 50)
    found = Moments.of(wanted, read)
    centred = wanted - wanted.mean(-1, keepdims=True)
    seen = read - read.mean(-1, keepdims=True)
    assert found.count == 50
    for group in range(2):
        np.testing.assert_allclose(found.gram[group], seen[group] @ seen[group].T)
        np.testing.assert_allclose(found.cross[group], centred[group] @ seen[group].T)
        np.testing.assert_allclose(found.power[group], (centred[group] ** 2).sum(1))
    about = found.about_zero
    np.testing.assert_allclose(about.gram, read @ read.swapaxes(1, 2))
    np.testing.assert_allclose(about.cross, wanted @ read.swapaxes(1, 2))
    np.testing.assert_allclose(about.power, (wanted**2).sum(-1))
    assert not about.mean.any()
    assert not about.mean_dense.any()


def test_moments_of_parts_add_up() -> None:
    wanted, read = numbers(2, 3, 60) * 3 + 100, numbers(2, 4, 60) - 50
    parts = [slice(0, 1), slice(1, 8), slice(8, 60)]
    added = [Moments.of(wanted[..., part], read[..., part]) for part in parts]
    whole = Moments.of(wanted, read)
    assert_equal(functools.reduce(operator.add, added), whole)
    assert_equal(functools.reduce(operator.add, added[::-1]), whole)


def test_single_precision_gives_the_same_weights() -> None:
    """Where means are large, scales of channels differ, and some are nearly the same."""
    wanted, read, weight = numbers(1, 5, 3000), numbers(1, 40, 3000), numbers(1, 5, 40)
    read[0, 20:] = read[0, :20] + 1e-3 * read[0, 20:]
    read *= np.logspace(-2, 2, 40)[:, np.newaxis]
    read += 30 * np.logspace(-2, 2, 40)[:, np.newaxis]
    wanted += (weight * np.logspace(2, -2, 40)) @ read
    exact = wanted.astype(np.float32), read.astype(np.float32)
    parts = [slice(0, 1000), slice(1000, 3000)]
    kinds: list[type[np.floating]] = [np.float32, np.float64]
    single, double = (
        functools.reduce(
            operator.add,
            [Moments.of(*(each[..., part].astype(kind) for each in exact)) for part in parts],
        )
        for kind in kinds
    )
    assert single.gram.dtype == single.cross.dtype == np.float64
    deviation = np.sqrt(np.diagonal(double.gram[0]))
    error = np.abs(single.gram - double.gram)[0] / np.outer(deviation, deviation)
    assert error.max() < 1e-5
    one, two = repair(single, weight, 1e-2), repair(double, weight, 1e-2)
    np.testing.assert_allclose(one.weight, two.weight, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(one.after, two.after, rtol=1e-3)


@pytest.mark.parametrize("shifting", [True, False])
def test_without_a_pull_it_is_least_squares(shifting: bool) -> None:
    wanted, read, weight = numbers(1, 3, 80), numbers(1, 5, 80), numbers(1, 3, 5)
    done = repair(Moments.of(wanted, read), weight, 0.0, shifting)
    design = np.vstack([read[0], np.ones((int(shifting), 80))]).T
    best, error, *_ = np.linalg.lstsq(design, wanted[0].T)
    np.testing.assert_allclose(done.weight[0], best[:5].T, atol=1e-9)
    np.testing.assert_allclose(done.shift[0], best[5] if shifting else 0, atol=1e-9)
    np.testing.assert_allclose(done.after[0], error)
    np.testing.assert_allclose(done.before[0], ((wanted[0] - weight[0] @ read[0]) ** 2).sum(1))


def test_the_pull_is_towards_the_weights_there_were() -> None:
    wanted, read, weight = numbers(1, 2, 40), numbers(1, 3, 40), numbers(1, 2, 3)
    centred, seen = (each[0] - each[0].mean(1, keepdims=True) for each in (wanted, read))
    pull = 0.3 * np.trace(seen @ seen.T) / 3
    # As least squares: more rows that want W' = W.
    design = np.vstack([seen.T, np.sqrt(pull) * np.eye(3)])
    target = np.vstack([centred.T, np.sqrt(pull) * weight[0].T])
    best, *_ = np.linalg.lstsq(design, target)
    done = repair(Moments.of(wanted, read), weight, 0.3)
    np.testing.assert_allclose(done.weight[0], best.T)
    np.testing.assert_allclose(done.after[0], ((centred - best.T @ seen) ** 2).sum(1))
    far = repair(Moments.of(wanted, read), weight, 1e9)
    np.testing.assert_allclose(far.weight, weight, atol=1e-6)


def test_groups_are_problems_of_their_own() -> None:
    wanted, read, weight = numbers(3, 2, 50), numbers(3, 4, 50), numbers(3, 2, 4)
    done = repair(Moments.of(wanted, read), weight, 0.1)
    for group in range(3):
        part = slice(group, group + 1)
        alone = repair(Moments.of(wanted[part], read[part]), weight[part], 0.1)
        np.testing.assert_allclose(done.weight[part], alone.weight)
        np.testing.assert_allclose(done.shift[part], alone.shift)


def test_columns_that_are_nearly_the_same_do_no_harm() -> None:
    wanted, read, weight = numbers(1, 2, 30), numbers(1, 3, 30), numbers(1, 2, 3)
    read[0, 2] = read[0, 1] + 1e-8 * read[0, 2]
    done = repair(Moments.of(wanted, read), weight, 0.0)
    assert np.abs(done.weight).max() < 100


@pytest.mark.parametrize("strength", [0.0, 1e-2])
def test_dead_and_repeated_columns_do_no_harm(strength: float) -> None:
    wanted, read, weight = numbers(1, 2, 30), numbers(1, 4, 30), numbers(1, 2, 4)
    read[0, 1], read[0, 3] = 0.5, read[0, 2]
    done = repair(Moments.of(wanted, read), weight, strength)
    assert np.isfinite(done.weight).all()
    assert np.abs(done.weight).max() < 100
    assert (done.after <= done.before + 1e-9).all()
    np.testing.assert_allclose(done.weight[..., 1], weight[..., 1])  # Nothing speaks for another.
    dead = repair(Moments.of(wanted, np.zeros((1, 4, 30))), weight, strength)
    np.testing.assert_allclose(dead.weight, weight)
    np.testing.assert_allclose(dead.shift[0], wanted[0].mean(1))
