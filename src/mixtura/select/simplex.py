"""The best point of the simplex, and a certificate of how far from best it can be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from mixtura.contracts import InputError

Array = NDArray[np.float64]

#: nats a verdict may give up for a weight to read as an exact zero, and the gap that counts as solved
ALLOWED_GAP = 1e-6
#: the solver goes on to this gap: Newton's last step is nearly free, and then weights repeat to many digits
SOLVED_GAP = 1e-10
TINY_WEIGHT = 1e-3
MAX_STEPS = 100


@dataclass(frozen=True)
class Weights:
    """A point of the simplex.

    weights: K numbers ≥ 0 that add up to one; unused models have an exact 0.
    value:   the objective there (for stacking: mean nats; for a quadratic: w'Qw − 2 linear'w).
    gap:     proven upper bound on how far value is from the best possible, same unit.
    """

    weights: tuple[float, ...]
    value: float
    gap: float


def stack(log_probs: ArrayLike) -> Weights:
    """Weights that maximise mean_i log Σ_k w_k exp(log_probs[i, k]): stacking of densities
    (Smyth & Wolpert 1998; Yao, Vehtari, Simpson & Gelman 2018).

    log_probs: (n, K) nats of held-out row i under model k; −inf is allowed, but not in all of a row.

    The objective f is concave, so f(v) ≤ f(w) + ∇f(w)·(v − w) for every v. Its gradient is
    g_k = mean_i exp(log_probs[i, k]) / p_i with p = exp(log_probs) w, hence g·w = 1, and the right side is
    largest at a corner: f(v) − f(w) ≤ max_k g_k − 1. That is ``gap``, in nats. It is at most 1e-6 except
    where rounding or 100 steps stop the solver first; then it says what was reached. A weight under
    1e-3 becomes an exact zero where the others, solved anew, still have a gap of at most 1e-6.

    Raises InputError on an empty or misshapen array, on NaN or +inf, and on a row that is all −inf.
    """
    log_probs = _check(log_probs)
    top = log_probs.max(1)
    # A row's scale only shifts f. Where this underflows nothing is lost: g ≤ 1 at the optimum means that
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

    On w ≥ 0, Σ w − f(w) has the constrained optimum as its own (its best scale is Σ w = 1). Its
    second-order model around w is ½ x'Hx − x'(2g − 1), with H = mean of a_i a_i', a_i = L_i / p_i: a
    non-negative least-squares problem in K numbers (Kim, Carbonetto, Stephens & Anitescu 2020). An EM step
    first (w ← w g, never worse) brings even a lopsided start into the region where Newton is quadratic.
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
    """The first of the steps 1, ½, ¼ … that gains, back on the simplex; None where rounding hides every gain."""
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
    """``weights`` with the smallest ones exactly zero and the rest solved anew, as far as the gap allows."""
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


# ------------------------------------------------------------------------------------------------------ quadratics

#: gap at which a quadratic counts as solved, relative to its largest coefficient
QUADRATIC_GAP = 1e-13


def minimise_quadratic(Q: ArrayLike, linear: ArrayLike) -> Weights:
    """Weights that minimise f(w) = w'Qw − 2 linear'w over the simplex: the least squared distance of a mixture, such as MMD².

    Q: (K, K) symmetric. linear: (K,). The method is a primal active set (Wolfe 1976 for nearest points; Nocedal & Wright
    2006, section 16.5): models enter one at a time, the free weights are solved for exactly, and those that would be negative
    leave. Duplicates and other flat directions end at the model where they meet the boundary.

    f is convex on the simplex where z'Qz ≥ 0 for every z with Σz = 0. A Q that is not (sums in float32, a U-form) is
    repaired there, since a gap certifies nothing otherwise: with P = I − 11'/K, the negative part of PQP is taken away, the
    smallest change in Frobenius norm (Higham 1988). ``value`` and ``gap`` speak of the repaired f.

    ``gap`` is Frank & Wolfe's: f(w) − f(v) ≤ ∇f(w)·(w − v) ≤ ∇f(w)·w − min_k ∇f(w)_k. It is at most 1e-12 of the largest
    coefficient.

    Raises InputError on shapes other than (K, K) and (K,), numbers that are not finite, or a Q that is not symmetric.
    """
    Q, linear = _check_quadratic(Q, linear)
    Q = _convex_on_the_simplex(Q)
    largest = max(float(np.abs(Q).max()), float(np.abs(linear).max())) or 1.0
    weights = _active_set(Q / largest, linear / largest)
    value = float(weights @ Q @ weights - 2 * linear @ weights)
    return Weights(tuple(weights.tolist()), value, _quadratic_gap(Q, linear, weights))


def _check_quadratic(Q: ArrayLike, linear: ArrayLike) -> tuple[Array, Array]:
    matrix, vector = np.asarray(Q, dtype=np.float64), np.asarray(linear, dtype=np.float64)
    k = vector.size
    if vector.ndim != 1 or k == 0 or matrix.shape != (k, k):
        raise InputError(
            f"Q and linear: expected shapes (K, K) and (K,), got {matrix.shape} and {vector.shape}; "
            "give one row and one column for each model"
        )
    for name, array in (("Q", matrix), ("linear", vector)):
        if not np.isfinite(array).all():
            raise InputError(f"{name}: expected finite numbers, got {array[~np.isfinite(array)][0]}; leave that model out")
    if np.abs(matrix - matrix.T).max() > 1e-8 * np.abs(matrix).max():
        raise InputError("Q: expected a symmetric matrix, got one that is not; give (Q + Q') / 2")
    return (matrix + matrix.T) / 2, vector


def _convex_on_the_simplex(Q: Array) -> Array:
    """Q less the negative part of PQP."""
    centred = Q - Q.mean(0) - Q.mean(1)[:, None] + Q.mean()
    values, vectors = np.linalg.eigh(centred)
    negative = vectors[:, values < 0]
    return Q - negative * values[values < 0] @ negative.T


def _quadratic_gap(Q: Array, linear: Array, weights: Array) -> float:
    gradient = 2 * (Q @ weights - linear)
    return max(0.0, float(gradient @ weights - gradient.min()))


def _active_set(Q: Array, linear: Array) -> Array:
    """For coefficients of at most 1. The free weights are positive and optimal at the start of every round, and no direction
    among them is flat: the model that enters adds at most one, along which the round then goes to the boundary."""
    k = len(linear)
    weights = np.zeros(k)
    free = [int(np.argmin(Q.diagonal() - 2 * linear))]
    weights[free] = 1
    for _ in range(MAX_STEPS * k):
        gradient = 2 * (Q @ weights - linear)
        entering = int(np.argmin(gradient))
        if gradient @ weights - gradient[entering] <= QUADRATIC_GAP or entering in free:
            break
        along = _conjugate(Q, free, entering)
        slope, curvature = float(gradient @ along), float(along @ Q @ along)
        free.append(entering)
        if -slope >= 2 * curvature * _room(weights, along):
            weights, free = _to_boundary(weights, free, along)
        weights, free = _solve_free(Q, linear, weights, free)
    return weights


def _conjugate(Q: Array, free: list[int], entering: int) -> Array:
    """(K,) the direction that brings ``entering`` in, adds up to 0 and keeps the gradient equal over the free weights."""
    direction = np.zeros(len(Q))
    direction[free] = _bordered(Q, free, -Q[free, entering], -1.0)
    direction[entering] = 1
    return direction


def _bordered(Q: Array, free: list[int], right: Array, total: float) -> NDArray[np.floating]:
    """x with (Qx)_i = right_i + a common number for i in free, and Σx = total."""
    n = len(free)
    system = np.ones((n + 1, n + 1))
    system[:n, :n], system[n, n] = Q[np.ix_(free, free)], 0
    return np.linalg.solve(system, np.append(right, total))[:n]


def _room(weights: Array, direction: Array) -> float:
    """The longest step that keeps all weights ≥ 0, for a direction that lowers some."""
    falling = direction < 0
    return float((weights[falling] / -direction[falling]).min())


def _to_boundary(weights: Array, free: list[int], direction: Array) -> tuple[Array, list[int]]:
    """As far along ``direction`` as the simplex goes; weights that end at 0 leave."""
    falling = np.flatnonzero(direction < 0)
    ratios = weights[falling] / -direction[falling]
    moved = weights + float(ratios.min()) * direction
    moved[falling[ratios == ratios.min()]] = 0
    moved[moved < 0] = 0
    moved /= moved.sum()
    return moved, [i for i in free if moved[i] > 0]


def _solve_free(Q: Array, linear: Array, weights: Array, free: list[int]) -> tuple[Array, list[int]]:
    """The optimum of the free weights, those that reach 0 on the way leaving one after another."""
    while True:
        target = np.zeros_like(weights)
        target[free] = _bordered(Q, free, linear[free], 1.0)
        if target[free].min() > 0:
            target /= target.sum()
            return target, free
        weights, free = _to_boundary(weights, free, target - weights)
