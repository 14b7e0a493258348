"""Stacking: the weights under which held-out rows are likeliest."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from mixtura.contracts import InputError
from mixtura.simplex.weights import Array, Weights

#: the most nats that may be lost by setting a small weight to zero, and the gap at which the problem counts as solved
ALLOWED_GAP = 1e-6
#: the solver goes on to this gap: the last Newton step costs little and makes weights repeat to many digits
SOLVED_GAP = 1e-10
#: the solver tries to set weights below this to zero
TINY_WEIGHT = 1e-3
#: most Newton steps
MAX_STEPS = 100


def stack(log_probs: ArrayLike) -> Weights:
    """Weights that maximise mean_i log Σ_k w_k exp(log_probs[i, k]): stacking of densities
    (Smyth & Wolpert 1998; Yao, Vehtari, Simpson & Gelman 2018).

    log_probs: (n, K) nats of held-out row i under model k; −inf is allowed, but not in all of a row.

    The objective f is concave, so f(v) ≤ f(w) + ∇f(w)·(v − w) for every v. Its gradient is
    g_k = mean_i exp(log_probs[i, k]) / p_i with p = exp(log_probs) w, hence g·w = 1, and the right side is
    largest at a corner: f(v) − f(w) ≤ max_k g_k − 1. That is ``gap``, in nats. It is at most 1e-6 unless
    rounding or the limit of 100 steps stops the solver first; ``gap`` then says what was reached. A weight
    below 1e-3 becomes an exact zero if the others, solved again, still have a gap of at most 1e-6.

    Raises InputError on an empty or misshapen array, on NaN or +inf, and on a row that is all −inf.
    """
    log_probs = _check(log_probs)
    top = log_probs.max(1)
    # Scaling a row only adds a constant to f. Underflow here does no harm: g ≤ 1 at the optimum means that
    # p_i ≥ 1/n there, so a term of e^-700 never matters.
    likelihoods = np.exp(log_probs - top[:, None])
    weights = _newton(likelihoods, np.full(log_probs.shape[1], 1 / log_probs.shape[1]))
    weights = _without_tiny(likelihoods, weights)
    value = float(np.mean(np.log(likelihoods @ weights) + top))
    return Weights(tuple(weights.tolist()), value, _gap(likelihoods, weights))


def _check(log_probs: ArrayLike) -> Array:
    array = np.asarray(log_probs, dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        raise InputError(
            f"log_probs: expected shape (rows, models) with one of each or more, got {array.shape}; stack one column per model"
        )
    bad = np.argwhere(np.isnan(array) | (array == np.inf))
    if len(bad):
        row, column = bad[0]
        raise InputError(
            f"log_probs: row {row}, column {column} is {array[row, column]}, "
            "expected a log-density or -inf; leave the model out or repair it"
        )
    dead = np.flatnonzero((array == -np.inf).all(1))
    if len(dead):
        raise InputError(
            f"log_probs: row {dead[0]} is -inf under every model, "
            "expected one finite value in each row; add a model with a smoothed floor"
        )
    return array


def _gradient(likelihoods: Array, weights: Array) -> Array:
    """(K,) g_k = mean_i L_ik / p_i."""
    return (1 / (likelihoods @ weights)) @ likelihoods / len(likelihoods)


def _gap(likelihoods: Array, weights: Array) -> float:
    return max(0.0, float(_gradient(likelihoods, weights).max()) - 1)


def _newton(likelihoods: Array, weights: Array) -> Array:
    """Projected Newton from ``weights``, under which every row has some likelihood.

    On w ≥ 0, Σ w − f(w) has the same optimum as the constrained problem (at the optimum Σ w = 1). Its
    second-order model around w is ½ x'Hx − x'(2g − 1), with H = mean of a_i a_i', a_i = L_i / p_i: a
    non-negative least-squares problem in K numbers (Kim, Carbonetto, Stephens & Anitescu 2020). An EM step
    first (w ← w g, which never lowers f) brings even a poor start into the region where Newton's method converges quadratically.
    """
    for _ in range(MAX_STEPS):
        weights = weights * _gradient(likelihoods, weights)
        weights /= weights.sum()
        scaled = likelihoods / (likelihoods @ weights)[:, None]
        gradient = scaled.mean(0)
        if gradient.max() - 1 <= SOLVED_GAP:
            break
        target = _least_on_the_orthant(scaled.T @ scaled / len(scaled), gradient, weights)
        moved = _line_search(likelihoods, weights, target - weights, slope=float((gradient - 1) @ (target - weights)))
        if moved is None:
            break
        weights = moved
    return weights


def _least_on_the_orthant(hessian: Array, gradient: Array, weights: Array) -> Array:
    """argmin over x ≥ 0 of the second-order model. A proximal term keeps duplicated models from making it
    singular; it is centred at ``weights``, so it leaves the optimum where it is."""
    ridge = 1e-10 * float(np.trace(hessian))
    root = np.linalg.cholesky(hessian + ridge * np.eye(len(hessian)))
    linear = 2 * gradient - 1 + ridge * weights
    return nnls(root.T, np.linalg.solve(root, linear), maxiter=30 * len(hessian))[0]


def _line_search(likelihoods: Array, weights: Array, direction: Array, slope: float) -> Array | None:
    """The first of the steps 1, ½, ¼ … that raises f, projected onto the simplex; None if rounding hides every increase."""
    start, along = likelihoods @ weights, likelihoods @ direction
    step = 1.0
    while step > 1e-12:
        density = start + step * along
        if density.min() > 0:
            gain = float(np.mean(np.log(density / start))) - step * float(direction.sum())
            if gain >= 1e-4 * step * slope:
                moved = np.maximum(weights + step * direction, 0)
                return moved / moved.sum()
        step /= 2
    return None


def _without_tiny(likelihoods: Array, weights: Array) -> Array:
    """``weights`` with the smallest ones set to zero and the rest solved again, as long as the gap stays small enough."""
    used = np.flatnonzero(weights)
    smallest = used[np.argmin(weights[used])]
    rest = used[used != smallest]
    if weights[smallest] > TINY_WEIGHT or not likelihoods[:, rest].any(1).all():
        return weights
    polished = np.zeros_like(weights)
    polished[rest] = _newton(likelihoods[:, rest], weights[rest] / weights[rest].sum())
    if _gap(likelihoods, polished) > ALLOWED_GAP:
        return weights
    return _without_tiny(likelihoods, polished)
