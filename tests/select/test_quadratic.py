"""Quadratics on the simplex: no point of a grid is better, the certificate is tight, flat directions do no harm."""

from __future__ import annotations

import numpy as np
import pytest

from mixtura.contracts import InputError
from mixtura.select.simplex import minimise_quadratic


def objective(Q, linear, w):
    return w @ Q @ w - 2 * linear @ w



def simplex_grid(k, steps):
    heads = np.array(np.meshgrid(*[np.arange(steps + 1)] * (k - 1))).reshape(k - 1, -1).T
    heads = heads[heads.sum(1) <= steps]
    return np.column_stack([heads, steps - heads.sum(1)]) / steps


def wishart(seed, k, rank):
    A = np.random.default_rng(seed).normal(size=(rank, k))
    return A.T @ A


def problem(name, seed, k):
    """(Q, linear), Q positive semidefinite."""
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(k, k))
    copies = A[:, rng.integers(0, max(1, k // 2), size=k)]
    x, y = rng.normal(size=(k, 2)), rng.normal(size=(60, 2))
    gaussian = lambda u, v: np.exp(-np.square(u[:, None] - v[None]).sum(2) / 50)  # noqa: E731
    return {
        "full rank": (A.T @ A, rng.normal(size=k)),
        "optimum inside": (A.T @ A, A.T @ A @ rng.dirichlet(np.ones(k))),
        "rank one": (np.outer(A[0], A[0]), 0.1 * A[0]),
        "rank two, free slope": (A[:2].T @ A[:2], rng.normal(size=k)),
        "copies": (copies.T @ copies, copies.T @ rng.normal(size=k)),
        "nearly copies": ((c := copies + 1e-9 * A).T @ c, c.T @ c @ rng.dirichlet(np.ones(k))),
        "copies, free slope": (copies.T @ copies, rng.normal(size=k)),
        "zero": (np.zeros((k, k)), np.zeros(k)),
        "zero, free slope": (np.zeros((k, k)), rng.normal(size=k)),
        "ones": (np.ones((k, k)), np.ones(k)),
        "whole numbers": ((whole := np.round(A)).T @ whole, np.round(A[0])),
        "tiny": (1e-12 * A.T @ A, 1e-12 * rng.normal(size=k)),
        "wide Gaussian kernel": (gaussian(x, x), gaussian(x, y).mean(1)),
    }[name]


PROBLEMS = [
    "full rank", "optimum inside", "rank one", "rank two, free slope", "copies", "nearly copies", "copies, free slope", "zero",
    "zero, free slope", "ones", "whole numbers", "tiny", "wide Gaussian kernel",
]  # fmt: skip


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("k, steps", [(2, 200), (3, 60), (4, 20)])
def test_no_point_of_a_grid_is_better(name, k, steps):
    for seed in range(5):
        Q, linear = problem(name, seed, k)
        found, points = minimise_quadratic(Q, linear), simplex_grid(k, steps)
        w, largest = np.array(found.weights), max(np.abs(Q).max(), np.abs(linear).max())
        best = min(objective(Q, linear, p) for p in points)
        assert best >= found.value - found.gap - 1e-14 * largest
        # a grid point is within 1/steps of the optimum, where f is flat or the optimum is on the boundary
        assert best - found.value <= 4 * largest * k / steps
        assert found.value == pytest.approx(objective(Q, linear, w), rel=1e-9, abs=1e-12 * largest)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("k", [1, 2, 7, 60])
def test_the_gap_closes(name, k):
    """Frank & Wolfe's gap, by its definition, and with it the conditions of Karush, Kuhn & Tucker."""
    for seed in range(10):
        Q, linear = problem(name, seed, k)
        found = minimise_quadratic(Q, linear)
        w, largest = np.array(found.weights), max(np.abs(Q).max(), np.abs(linear).max())
        gradient = 2 * (Q @ w - linear)
        assert w.min() >= 0 and w.sum() == pytest.approx(1, abs=1e-14)
        assert max(gradient @ w - gradient.min(), 0) <= found.gap + 1e-15 * k * largest
        assert found.gap <= 1e-12 * largest
        assert np.all(gradient[w > 1e-6] - gradient.min() <= 1e-6 * largest)


@pytest.mark.parametrize("name", ["full rank", "optimum inside", "copies", "wide Gaussian kernel"])
def test_512_models(name):
    Q, linear = problem(name, 0, 512)
    found = minimise_quadratic(Q, linear)
    assert found.gap <= 1e-12 * max(np.abs(Q).max(), np.abs(linear).max())
    if name == "optimum inside":
        assert min(found.weights) > 0


def test_the_weights_of_a_known_mixture_come_back():
    truth = np.array([0.6, 0.0, 0.3, 0.1, 0.0])
    Q = wishart(0, 5, 9)
    assert minimise_quadratic(Q, Q @ truth).weights == pytest.approx(truth, abs=1e-12)


def test_orthogonal_models_are_weighed_by_hand():
    """min Σ q_i w_i²: w_i ∝ 1 / q_i, value 1 / Σ 1/q."""
    q = np.array([1.0, 2.0, 4.0])
    found = minimise_quadratic(np.diag(q), np.zeros(3))
    assert found.weights == pytest.approx((4 / 7, 2 / 7, 1 / 7))
    assert found.value == pytest.approx(4 / 7)


def test_a_better_copy_takes_all():
    """Two models with one law, the second a little nearer: a flat direction with a slope."""
    found = minimise_quadratic(np.ones((2, 2)), np.array([0.5, 0.5 + 1e-9]))
    assert found.weights == (0.0, 1.0)


def test_models_and_scale_can_be_changed():
    Q, linear = problem("full rank", 3, 6)
    order = np.random.default_rng(0).permutation(6)
    found, other = minimise_quadratic(Q, linear), minimise_quadratic(1e6 * Q[np.ix_(order, order)], 1e6 * linear[order])
    assert other.weights == pytest.approx(np.array(found.weights)[order], abs=1e-10)
    assert other.value == pytest.approx(1e6 * found.value)


def test_a_shift_along_one_is_only_a_number():
    """On the simplex (Q + 1a' + a1') and linear + a differ from Q, linear by nothing."""
    Q, linear = problem("full rank", 1, 5)
    a = 3 * np.random.default_rng(7).normal(size=5)
    found, other = minimise_quadratic(Q, linear), minimise_quadratic(Q + a + a[:, None], linear + a)
    assert other.weights == pytest.approx(found.weights, abs=1e-9) and other.value == pytest.approx(found.value, abs=1e-9)


@pytest.mark.parametrize("size", [1e-8, 1e-3, 1.0])
def test_an_indefinite_matrix_is_repaired_before_anything_is_certified(size):
    """The repair lifts f nowhere below what it was, by the negative part and no more, and what is certified is its optimum."""
    rng = np.random.default_rng(0)
    noise = size * rng.normal(size=(6, 6))
    Q, linear = wishart(0, 6, 3) + noise + noise.T, rng.normal(size=6)
    found = minimise_quadratic(Q, linear)
    P = np.eye(6) - 1 / 6
    values, vectors = np.linalg.eigh(P @ Q @ P)
    repaired = Q - vectors @ np.diag(np.minimum(values, 0)) @ vectors.T
    points = simplex_grid(6, 6)
    assert found.value == pytest.approx(objective(repaired, linear, np.array(found.weights)))
    assert min(objective(repaired, linear, p) for p in points) >= found.value - found.gap - 1e-12
    assert min(objective(repaired - Q, 0 * linear, p) for p in points) >= -1e-12
    assert found.gap <= 1e-12 * np.abs(Q).max()


def test_what_is_convex_on_the_simplex_is_left_as_it_is():
    """Minus distances have a negative eigenvalue, but not on differences of weights (energy distance)."""
    x, y = np.array([0.0, 1.0, 3.0]), np.array([0.5, 2.0])
    Q, linear = -np.abs(x[:, None] - x), -np.abs(x[:, None] - y).mean(1)
    found = minimise_quadratic(Q, linear)
    assert np.linalg.eigvalsh(Q).min() < -1
    assert found.value == pytest.approx(objective(Q, linear, np.array(found.weights)), abs=1e-12)
    assert found.value <= min(objective(Q, linear, p) for p in simplex_grid(3, 200)) + 1e-12


@pytest.mark.parametrize(
    "Q, linear, says",
    [
        (np.zeros((2, 3)), np.zeros(2), r"expected shapes \(K, K\) and \(K,\), got \(2, 3\) and \(2,\)"),
        (np.zeros((2, 2)), np.zeros(3), r"got \(2, 2\) and \(3,\)"),
        (np.zeros((0, 0)), np.zeros(0), r"got \(0, 0\)"),
        (np.array([[1, np.nan], [np.nan, 1]]), np.zeros(2), "Q: expected finite numbers, got nan"),
        (np.eye(2), np.array([0, np.inf]), "linear: expected finite numbers, got inf"),
        (np.array([[1.0, 0.5], [0.0, 1.0]]), np.zeros(2), "Q: expected a symmetric matrix"),
    ],
)
def test_refusals(Q, linear, says):
    with pytest.raises(InputError, match=says):
        minimise_quadratic(Q, linear)
