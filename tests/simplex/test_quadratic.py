"""Quadratics on the simplex: no point of a grid is better, the certificate is tight, flat directions do no harm."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import minimize

from mixtura.contracts import InputError
from mixtura.simplex.polytope import Polytope
from mixtura.simplex.quadratic import minimise_quadratic
from mixtura.simplex.sparse import minimise_sparse


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
    assert minimise_quadratic(Q, Q @ truth).weights == pytest.approx(truth, abs=1e-9)


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
    assert other.weights == pytest.approx(np.array(found.weights)[order], abs=1e-8)
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


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_what_float32_leaves_of_symmetry_is_taken_as_rounding(scale):
    """Relative to the largest entry, as the rounding of sums is: the optimum is that of the mean of both."""
    for seed in range(5):
        Q, linear = problem("full rank", seed, 6)
        rough = scale * Q.astype(np.float32) * (1 + 1e-6 * np.random.default_rng(seed).normal(size=Q.shape))
        found = minimise_quadratic(rough, scale * linear)
        assert found == minimise_quadratic((rough + rough.T) / 2, scale * linear)
        assert minimise_sparse(rough, scale * linear, 6).weights == pytest.approx(found.weights)
        for size in (1e-4, -1e-4):  # on either side of the diagonal
            with pytest.raises(InputError, match="symmetric"):
                minimise_quadratic(Q + size * np.abs(Q).max() * (np.eye(6, k=1)), linear)


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


# ------------------------------------------------------------------------------------------------ a start, and psd


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("k", [1, 7, 40])
def test_any_start_ends_at_the_optimum(name, k):
    rng = np.random.default_rng(0)
    Q, linear = problem(name, 0, k)
    largest = max(np.abs(Q).max(), np.abs(linear).max()) or 1.0
    cold = minimise_quadratic(Q, linear)
    corner, sparse = np.eye(k)[k - 1], rng.dirichlet(np.full(k, 0.2))
    for start in (np.array(cold.weights), np.ones(k), corner, 100 * sparse):
        for psd in (False, True):
            found = minimise_quadratic(Q, linear, start=start, psd=psd)
            assert found.gap <= 1e-12 * largest
            assert found.value == pytest.approx(cold.value, abs=2e-12 * largest)


def test_the_optimum_as_a_start_stays():
    Q, linear = problem("full rank", 2, 9)
    cold = minimise_quadratic(Q, linear)
    assert minimise_quadratic(Q, linear, start=cold.weights, psd=True).weights == pytest.approx(cold.weights, abs=1e-12)


def test_psd_leaves_an_indefinite_matrix_as_it_is():
    """w'Qw with Q = diag(1, −1): the best of the repaired form, that of a flat line, is elsewhere."""
    Q = np.diag([1.0, -1.0])
    assert minimise_quadratic(Q, np.zeros(2), psd=True).weights == (0.0, 1.0)
    indefinite = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert minimise_quadratic(indefinite, np.zeros(2)).value > 0 == minimise_quadratic(indefinite, np.zeros(2), psd=True).value


# ------------------------------------------------------------------------------------------------------- polytopes


def slsqp(Q, linear, lower, upper, A, b):
    k = len(linear)
    constraints = [{"type": "eq", "fun": lambda w: w.sum() - 1}, {"type": "ineq", "fun": lambda w: b - A @ w}]
    found = minimize(
        lambda w: objective(Q, linear, w), np.full(k, 1 / k), jac=lambda w: 2 * (Q @ w - linear),
        bounds=list(zip(lower, upper, strict=True)), constraints=constraints, options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    return found.fun if found.success and np.all(A @ found.x <= b + 1e-9) else None


@pytest.mark.parametrize("kind", ["caps and floors", "budget", "two budgets and caps"])
@pytest.mark.parametrize("name", ["full rank", "copies", "rank two, free slope", "wide Gaussian kernel"])
def test_within_a_polytope_as_slsqp(kind, name):
    compared = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        k = 6
        Q, linear = problem(name, seed, k)
        lower, upper, A, b = np.zeros(k), np.ones(k), np.zeros((0, k)), np.zeros(0)
        if kind != "budget":
            lower, upper = rng.uniform(0, 0.1, k), rng.uniform(0.2, 0.6, k)
        if kind != "caps and floors":
            A = rng.uniform(size=(1 + (kind != "budget"), k))
            b = A.mean(1) + 0.02
        within = Polytope(lower, upper, *((A, b) if len(b) else ()))
        found = minimise_quadratic(Q, linear, within=within)
        w, largest = np.array(found.weights), max(np.abs(Q).max(), np.abs(linear).max())
        assert w.sum() == pytest.approx(1, abs=1e-9) and within.holds(w)
        assert np.all(w >= lower - 1e-9) and np.all(w <= upper + 1e-9) and np.all(A @ w <= b + 1e-9)
        assert found.gap <= 1e-9 * largest
        again = minimise_quadratic(Q, linear, within=within, start=w)
        assert again.value == pytest.approx(found.value, abs=2e-9 * largest)
        if (peer := slsqp(Q, linear, lower, upper, A, b)) is not None:
            assert found.value <= peer + 1e-9 * largest
            compared += found.value == pytest.approx(peer, abs=1e-5 * largest)
    assert compared >= 2


def test_a_cap_by_hand():
    """min Σ w_i² / s_i, w ∝ s = (1, 2, 5): with the third at most ½ the others share the rest 1 : 2."""
    found = minimise_quadratic(np.diag(1 / np.array([1.0, 2.0, 5.0])), np.zeros(3), within=Polytope(upper=[1, 1, 0.5]))
    assert found.weights == pytest.approx((1 / 6, 1 / 3, 1 / 2), abs=1e-12)


@pytest.mark.parametrize(
    "within, says",
    [
        (Polytope(upper=0.2), "caps: they add up to 0.6, expected 1 at least"),
        (Polytope(lower=0.4), "floors: they add up to 1.2, expected 1 at most"),
        (Polytope(lower=[0.5, 0, 0], upper=[0.4, 1, 1]), "that of model 0 is 0.5, above its cap 0.4"),
        (Polytope(lower=[0, 0]), "floors: expected one number, or one for each of 3 models"),
        (Polytope(A=[[1, 2, 3]], b=[0.5]), "no weights that add up to one obey"),
        (Polytope(A=[[1, 2]], b=[0.5]), r"A and b: expected finite numbers of shapes \(r, 3\)"),
        (Polytope(A=[[1, 2, 3]]), "A and b: expected finite numbers"),
    ],
)
def test_polytopes_that_are_refused(within, says):
    with pytest.raises(InputError, match=says):
        minimise_quadratic(np.eye(3), np.zeros(3), within=within)


# ------------------------------------------------------------------------------------------------------ few models


@pytest.mark.parametrize("name", ["full rank", "optimum inside", "copies", "rank one", "wide Gaussian kernel"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_few_models_by_enumeration(name, size):
    for seed in range(3):
        Q, linear = problem(name, seed, 6)
        found = minimise_sparse(Q, linear, size)
        supports = [list(c) for c in combinations(range(6), size)]
        best = min(minimise_quadratic(Q[np.ix_(c, c)], linear[c]).value for c in supports)
        assert found.exact and sum(w > 0 for w in found.weights) <= size
        assert found.value == pytest.approx(best, abs=1e-12 * max(np.abs(Q).max(), np.abs(linear).max()))


def test_the_best_two_on_a_ring_are_opposite():
    """Eight equal models around a circle: of all pairs, those across it differ most."""
    angle = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    means = np.column_stack([np.cos(angle), np.sin(angle)]) * 3
    Q = np.exp(-np.square(means[:, None] - means).sum(2) / 4)
    found = minimise_sparse(Q, np.zeros(8), 2)
    assert found.weights == pytest.approx(0.5 * np.isin(np.arange(8), np.flatnonzero(found.weights)))
    first, second = np.flatnonzero(found.weights)
    assert second - first == 4


def test_a_search_says_that_it_is_one(monkeypatch):
    """The same problems, too many supports to try: never better than the truth, never further from it than the gap says."""
    exact = 0
    for seed in range(6):
        Q, linear = problem("optimum inside", seed, 10)
        truth = minimise_sparse(Q, linear, 3)
        with monkeypatch.context() as patch:
            patch.setattr("mixtura.simplex.sparse.SUPPORTS", 0)
            found = minimise_sparse(Q, linear, 3)
        assert truth.exact and not found.exact and sum(w > 0 for w in found.weights) <= 3
        assert truth.value - 1e-12 <= found.value <= truth.value + found.gap
        assert found.gap == pytest.approx(found.value - minimise_quadratic(Q, linear).value, abs=1e-10)
        exact += found.value == pytest.approx(truth.value)
    assert exact >= 4


def test_all_models_are_enough_where_the_optimum_is_sparse():
    Q, linear = problem("copies, free slope", 0, 60)
    whole = minimise_quadratic(Q, linear)
    found = minimise_sparse(Q, linear, 30)
    assert found.exact and found.value == pytest.approx(whole.value, abs=1e-12 * np.abs(Q).max())


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: minimise_sparse(np.eye(2), np.zeros(2), 0), "size: expected a whole number of models, 1 or more, got 0"),
        (lambda: minimise_sparse(np.eye(2), np.zeros(2), True), "size: expected a whole number"),
        (lambda: minimise_quadratic(np.eye(2), np.zeros(2), start=[1.0]), "start: expected 2 weights"),
        (lambda: minimise_quadratic(np.eye(2), np.zeros(2), start=[1.5, -0.5]), "start: expected 2 weights ≥ 0"),
        (lambda: minimise_quadratic(np.eye(2), np.zeros(2), start=[0.0, 0.0]), "start: expected 2 weights ≥ 0"),
        (lambda: minimise_quadratic(np.eye(2), np.zeros(2), start=[np.nan, 1]), "start: expected 2 weights ≥ 0"),
    ],
)
def test_more_refusals(call, says):
    with pytest.raises(InputError, match=says):
        call()
