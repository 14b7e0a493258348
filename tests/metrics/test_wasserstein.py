"""Sliced Wasserstein distance: exact coupling of unequal sizes, closed forms, floor and error."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from mixtura.contracts import InputError
from mixtura.ground.rng import generator
from mixtura.metrics import sliced_wasserstein
from mixtura.metrics.wasserstein import coupling


@pytest.mark.parametrize("n, m", [(1, 1), (4, 4), (3, 5), (6, 4), (1, 7), (7, 1)])
def test_the_coupling_is_optimal(n, m):
    """Against an assignment of every row, repeated until both sets have n·m rows."""
    rng = np.random.default_rng(0)
    x, y = np.sort(rng.normal(size=n)), np.sort(rng.normal(size=m))
    cost = np.square(np.repeat(x, m)[:, None] - np.repeat(y, n))
    plan = coupling(n, m)
    assert np.square(x[plan.left] - y[plan.right]) @ plan.mass == pytest.approx(cost[linear_sum_assignment(cost)].mean())
    np.testing.assert_allclose(np.bincount(plan.left, plan.mass), np.full(n, 1 / n))
    np.testing.assert_allclose(np.bincount(plan.right, plan.mass), np.full(m, 1 / m))


def test_rows_repeated_are_no_difference_and_nothing_is_padded():
    """Padding the shorter set with rows of zeros, as one package does, moves it by the distance to the origin."""
    x = 100 + 3 * np.random.default_rng(0).normal(size=(50, 4))
    assert sliced_wasserstein(x, np.repeat(x, 3, 0), rng=generator(0), plain=True).value == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_shift_gives_its_square_over_d(dtype):
    x, move = np.random.default_rng(0).normal(size=(300, 5)), np.array([3.0, 0, 0, 4.0, 0])
    found = sliced_wasserstein(
        (x + 100).astype(dtype), (x + 100 + move).astype(dtype), rng=generator(0), projections=4000, plain=True
    )
    assert found.value == pytest.approx(25 / 5, rel=0.05)


def test_one_dimension_needs_no_directions():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 1)), rng.exponential(size=(80, 1))
    exact = np.square(np.sort(x, 0) - np.sort(y, 0)).mean()
    assert sliced_wasserstein(x, y, rng=generator(0), projections=3, plain=True).value == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(
    "scale, shift, truth, widest", [(1, 0.0, 0.0, 1.6), (1, 0.5, 0.25, 1.25), (2, 0.0, 1.0, 1.25), (1, 3.0, 9.0, 1.25)]
)
def test_no_floor_and_the_error_is_the_spread(scale, shift, truth, widest):
    """Laws N(0, 1) and N(shift, scale²) in every direction of d = 6: W₂² = (scale − 1)² + shift² (θ₁ + … )², mean shift²."""
    found = []
    for seed in range(80):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(200, 6)), scale * rng.normal(size=(300, 6)) + shift
        found.append(sliced_wasserstein(x, y, rng=generator(seed), projections=60))
    values = [e.value for e in found]
    assert abs(np.mean(values) - truth) < 0.4 * np.std(values)
    assert 0.8 < np.mean([e.error for e in found]) / np.std(values) < widest


def test_same_seed_same_bits():
    x, y = np.random.default_rng(0).normal(size=(2, 50, 3))
    before = torch.get_rng_state()
    first, again, other = (sliced_wasserstein(x, y, rng=generator(seed), projections=9) for seed in (0, 0, 1))
    assert first == again != other and first.n == 50
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "arrays, options, says",
    [
        ((np.zeros((3, 2)), np.zeros((4, 2))), {}, "real: expected 4 rows or more, got 3"),
        ((np.zeros((4, 2)), np.zeros((4, 2))), {"projections": 1}, "projections: expected a whole number, 2 or more, got 1"),
    ],
)
def test_refusals(arrays, options, says):
    with pytest.raises(InputError, match=says):
        sliced_wasserstein(*arrays, rng=generator(0), **options)
