"""Stacking: the optimum by brute force, and a certificate that bounds what is left."""

import numpy as np
import pytest

from mixtura.contracts import InputError
from mixtura.simplex import stacking
from mixtura.simplex.stacking import stack
from mixtura.simplex.weights import on_the_simplex


def random_scores(seed, n=200, k=3, scale=1.0):
    return np.random.default_rng(seed).normal(scale=scale, size=(n, k))


def objective(log_probs, weights):
    with np.errstate(divide="ignore"):
        return float(np.logaddexp.reduce(log_probs + np.log(weights), axis=1).mean())


def long_em(log_probs, steps=20_000):
    likelihoods = np.exp(log_probs - log_probs.max(1, keepdims=True))
    weights = np.full(log_probs.shape[1], 1 / log_probs.shape[1])
    for _ in range(steps):
        weights = weights * (likelihoods / (likelihoods @ weights)[:, None]).mean(0)
    return weights


def simplex_grid(k, steps):
    if k == 2:
        return [(i / steps, 1 - i / steps) for i in range(steps + 1)]
    return [(i / steps, j / steps, (steps - i - j) / steps) for i in range(steps + 1) for j in range(steps + 1 - i)]


@pytest.mark.parametrize("k, steps", [(2, 400), (3, 60)])
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_point_of_a_grid_is_better(k, steps, scale, seed):
    log_probs = random_scores(seed, k=k, scale=scale)
    found = stack(log_probs)
    best = max(objective(log_probs, np.array(w)) for w in simplex_grid(k, steps))
    assert best <= found.value + found.gap + 1e-12
    assert found.gap <= 1e-6
    assert found.value == pytest.approx(objective(log_probs, np.array(found.weights)), abs=1e-12)
    assert sum(found.weights) == pytest.approx(1, abs=1e-12) and min(found.weights) >= 0


@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_a_long_reference_solve(seed):
    log_probs = random_scores(seed, n=50, k=5, scale=2.0)
    found, reference = stack(log_probs), objective(log_probs, long_em(log_probs))
    assert reference - found.value <= found.gap + 1e-12
    assert abs(reference - found.value) < 1e-6


@pytest.mark.parametrize("steps, seed", [(1, 0), (1, 1), (2, 2), (3, 3)])
def test_gap_bounds_what_an_early_stop_leaves(steps, seed, monkeypatch):
    log_probs = random_scores(seed, n=60, k=6, scale=3.0)
    best = stack(log_probs).value
    monkeypatch.setattr("mixtura.simplex.stacking._newton", lambda likelihoods, start: em(likelihoods, start, steps))
    early = stack(log_probs)
    assert early.gap > 1e-4
    assert 0 < best - early.value <= early.gap


def em(likelihoods, weights, steps):
    for _ in range(steps):
        weights = weights * (likelihoods / (likelihoods @ weights)[:, None]).mean(0)
    return weights


def test_recovers_the_proportions_of_a_known_mixture():
    rng = np.random.default_rng(0)
    truth, means = np.array([0.6, 0.3, 0.1]), np.array([-4.0, 0.0, 4.0])
    x = rng.normal(means[rng.choice(3, size=20_000, p=truth)])[:, None]
    found = stack(-0.5 * (x - means) ** 2)
    np.testing.assert_allclose(found.weights, truth, atol=0.015)


@pytest.mark.parametrize("copies", [2, 5])
def test_duplicated_columns_change_nothing_that_matters(copies):
    log_probs = random_scores(0)
    found, doubled = stack(log_probs), stack(np.repeat(log_probs, copies, axis=1))
    assert doubled.gap <= 1e-6
    assert doubled.value == pytest.approx(found.value, abs=1e-6)
    assert np.reshape(doubled.weights, (3, copies)).sum(1) == pytest.approx(found.weights, abs=1e-4)


def test_minus_infinity_is_a_score():
    """Model 0 is right on 99 rows of 100 and gives the last one nothing: the optimum is (0.99, 0.01)."""
    log_probs = np.zeros((100, 2))
    log_probs[:99, 1] = -np.inf
    log_probs[99, 0] = -np.inf
    found = stack(log_probs)
    assert found.weights == pytest.approx((0.99, 0.01), abs=1e-9)
    assert found.value == pytest.approx(0.99 * np.log(0.99) + 0.01 * np.log(0.01), abs=1e-12)


@pytest.mark.parametrize("shift", [-1e5, 1e5])
def test_a_shift_of_each_row_moves_only_the_value(shift):
    log_probs = random_scores(3)
    shifts = shift * np.random.default_rng(0).random((len(log_probs), 1))
    found, moved = stack(log_probs), stack(log_probs + shifts)
    assert moved.weights == pytest.approx(found.weights, abs=1e-6)
    assert moved.value - shifts.mean() == pytest.approx(found.value, abs=1e-8)


def test_a_permutation_of_models_and_rows_permutes_the_weights():
    log_probs = random_scores(4, k=6, scale=2.0)
    order, rows = np.random.default_rng(0).permutation(6), np.random.default_rng(1).permutation(200)
    found, permuted = stack(log_probs), stack(log_probs[rows][:, order])
    assert permuted.weights == pytest.approx(np.array(found.weights)[order], abs=1e-8)


def test_useless_models_have_an_exact_zero():
    x = np.random.default_rng(0).normal(size=(2000, 1))
    log_probs = -0.5 * (x - np.array([0.0, 1e-6, 3.0, 50.0])) ** 2 - np.array([0.0, 1e-9, 0.0, 0.0])
    found = stack(log_probs)
    assert found.weights[2:] == (0.0, 0.0)
    assert sorted(found.weights)[:3] == [0.0, 0.0, 0.0]
    assert found.gap <= 1e-6


@pytest.mark.parametrize("size, expected", [(1e-2, 0.0), (1e-1, 5e-4)])
def test_a_tiny_weight_is_dropped_only_where_the_certificate_allows_it(size, expected):
    """Model 1 is better by a factor 1 + size · r, r = ±1 + bias: its best weight is bias / size = 5e-4, worth a
    gap of bias · size = 5e-8 in one case and 5e-6 in the other."""
    bias = 5e-4 * size
    r = np.where(np.arange(1000) % 2 == 0, 1.0, -1.0) + bias
    found = stack(np.stack([np.zeros(1000), np.log1p(size * r)], 1))
    assert found.weights[1] == pytest.approx(expected, rel=1e-3, abs=0)
    assert found.gap <= 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_specialists_for_single_rows_are_weighed_exactly(seed):
    """Curvatures span ten powers of ten: two broad models, and two that share a few rows of 100,000."""
    rng = np.random.default_rng(seed)
    log_probs = rng.normal(size=(100_000, 4)) * rng.choice([0.01, 1, 5], size=(1, 4))
    own = rng.integers(0, 20, size=2)
    log_probs[:, 2:] -= 40
    log_probs[own, 2:] = rng.normal(size=(2, 2))
    log_probs[own, :2] = -800
    found = stack(log_probs)
    assert found.gap <= 1e-9
    assert sum(found.weights[2:]) == pytest.approx(len(set(own)) / 100_000, rel=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (5, 20)])
def test_few_rows(shape):
    log_probs = random_scores(5, *shape, scale=10.0)
    found = stack(log_probs)
    assert found.gap <= 1e-6
    assert found.value >= log_probs.mean(0).max() - 1e-6


def test_a_hundred_thousand_rows_take_few_steps(monkeypatch):
    """Newton's method: each step goes through the rows a fixed number of times."""
    seen, gradient = [], stacking._gradient
    monkeypatch.setattr(stacking, "_gradient", lambda likelihoods, weights: seen.append(1) or gradient(likelihoods, weights))
    assert stack(random_scores(6, n=100_000, k=8, scale=3.0)).gap <= 1e-6
    assert 1 <= len(seen) <= 20


@pytest.mark.parametrize(
    "log_probs, says",
    [
        (np.zeros(3), r"shape \(rows, models\)"),
        (np.zeros((0, 3)), r"got \(0, 3\)"),
        (np.array([[0.0, 1.0], [0.0, np.nan]]), "row 1, column 1 is nan"),
        (np.array([[0.0, 1.0], [np.inf, 0.0]]), "row 1, column 0 is inf"),
        (np.array([[0.0, -np.inf], [0.0, 0.0], [-np.inf, -np.inf]]), "row 2 is -inf under every model"),
    ],
)
def test_refusals(log_probs, says):
    with pytest.raises(InputError, match=says):
        stack(log_probs)


def test_weights_to_start_from_are_scaled_to_add_up_to_one():
    assert on_the_simplex([2, 0, 6], 3).tolist() == [0.25, 0.0, 0.75]
