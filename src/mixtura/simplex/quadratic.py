"""The best weights under a quadratic objective, on the simplex or in a polytope, with a proven gap."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import get_lapack_funcs

from mixtura.contracts import InputError
from mixtura.simplex.polytope import LP_TOLERANCE, Polytope
from mixtura.simplex.weights import Array, Weights, on_the_simplex

cholesky_solve, pivoted_cholesky = get_lapack_funcs(("posv", "pstrf"), dtype=np.float64)

#: gap at which a quadratic problem counts as solved, relative to its largest coefficient
QUADRATIC_GAP = 1e-13
#: a negative eigenvalue of absolute value below K times this, relative to the largest entry, is a rounding error
ROUNDING = 4e-16
#: largest difference between (i, j) and (j, i) that sums in float32 may leave, relative to the largest entry
ASYMMETRY = 1e-5
#: curvature, relative to the largest coefficient, below which the first guess treats a direction as flat
RIDGE = 1e-11
#: rounds of the first guess
EXCHANGES = 12
#: up to so many models, exchanging one by one is as fast
FEW = 16
#: rounds of the active set, or corners of a polytope, for each model
MAX_STEPS = 100


def minimise_quadratic(
    Q: ArrayLike, linear: ArrayLike, *, start: ArrayLike | None = None, psd: bool = False, within: Polytope | None = None
) -> Weights:
    """Weights that minimise f(w) = w'Qw − 2 linear'w over the simplex: the least squared distance of a mixture, such as MMD².

    Q: (K, K) symmetric, up to the rounding of sums in float32. linear: (K,). start: (K,) weights of a problem like this one, from
    which its solution is a step or two. within: what else the weights must obey. The method is a primal active set (Wolfe 1976
    for nearest points; Nocedal & Wright 2006, section 16.5): models enter one at a time, the free weights are solved for exactly,
    and those that would be negative leave. Without a start, or with one in which many models are wrong, a first guess
    exchanges many at once. Duplicates and other flat directions end at the model where they meet the boundary.

    f is convex on the simplex where z'Qz ≥ 0 for every z with Σz = 0. A Q that is not (sums in float32, a U-form) is
    repaired there, since a gap certifies nothing otherwise: with P = I − 11'/K, the negative part of PQP is taken away, the
    smallest change in Frobenius norm (Higham 1988). ``value`` and ``gap`` are those of the repaired f. ``psd`` says that Q needs
    no repair, as is true of a V-form.

    ``gap`` is Frank & Wolfe's: f(w) − f(v) ≤ ∇f(w)·(w − v) ≤ ∇f(w)·w − min_k ∇f(w)_k. It is at most 1e-12 of the largest
    coefficient; ``within`` a polytope, where the minimum is over its corners, 1e-9.

    Raises InputError on shapes other than (K, K) and (K,), numbers that are not finite, a Q that is not symmetric, a start
    that is not (K,) numbers ≥ 0 with one above 0, or a polytope without weights.
    """
    Q, linear = check_quadratic(Q, linear)
    if not psd:
        Q = convex_on_the_simplex(Q)
    first = None if start is None else on_the_simplex(start, len(linear))
    largest = max(float(np.abs(Q).max()), float(np.abs(linear).max())) or 1.0
    if within is not None:
        found = _minimise_within(Q / largest, linear / largest, first, within)
        return Weights(found.weights, largest * found.value, largest * found.gap)
    weights = active_set(Q / largest, linear / largest, first)
    value = float(weights @ Q @ weights - 2 * linear @ weights)
    return Weights(tuple(weights.tolist()), value, quadratic_gap(Q, linear, weights))


def check_quadratic(Q: ArrayLike, linear: ArrayLike) -> tuple[Array, Array]:
    """Q (K, K), made exactly symmetric, and linear (K,), float64. InputError on other shapes or numbers."""
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
    if np.abs(matrix - matrix.T).max() > ASYMMETRY * np.abs(matrix).max():
        raise InputError("Q: expected a symmetric matrix, got one that is not; give (Q + Q') / 2")
    return (matrix + matrix.T) / 2, vector


def convex_on_the_simplex(Q: Array) -> Array:
    """Q less the negative part of PQP, if that is more than rounding."""
    k = len(Q)
    mean = Q.mean(0)
    centred = Q - (mean - mean.mean() / 2)
    centred -= (mean - mean.mean() / 2)[:, None]
    rounding = ROUNDING * k * (float(np.abs(Q).max()) or 1.0)
    try:
        # along 11', which P removed, any number is allowed
        lifted = centred + rounding
        lifted.flat[:: k + 1] += rounding
        np.linalg.cholesky(lifted)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(centred)
        negative = vectors[:, values < 0]
        return Q - negative * values[values < 0] @ negative.T
    return Q


def quadratic_gap(Q: Array, linear: Array, weights: Array) -> float:
    """Frank & Wolfe's gap of w'Qw − 2 linear'w at ``weights`` (K,): no value on the simplex is further below."""
    gradient = 2 * (Q @ weights - linear)
    return max(0.0, float(gradient @ weights - gradient.min()))


def active_set(Q: Array, linear: Array, start: Array | None) -> Array:
    """For coefficients of at most 1. The free weights are positive and optimal at the start of every round, and no direction
    among them is flat: the model that enters adds at most one, along which the round then goes to the boundary."""
    k = len(linear)
    if start is None:
        start = _exchanged(Q, linear, np.ones(k, dtype=bool))
    elif k > FEW:
        start = _exchanged(Q, linear, start > 0)
    weights, free = _independent(Q, start)
    weights, free = _solve_free(Q, linear, weights, free)
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


def _exchanged(Q: Array, linear: Array, free: NDArray[np.bool_]) -> Array:
    """A guess to start from: from a set of free models, all that should leave or enter do so at once, a few times (block
    principal pivoting; Portugal, Júdice & Vicente 1994). It need not end, but on most problems it ends after a few of the solves
    of which the active set needs one for each model."""
    # adding one number to all entries of Q changes nothing on the simplex, and brings Q nearer to positive definite
    ridged = Q + 1
    ridged.flat[:: len(Q) + 1] += RIDGE
    target = np.zeros(len(Q))
    for _ in range(EXCHANGES):
        chosen = np.flatnonzero(free)
        sides = np.column_stack([linear[chosen], np.ones(len(chosen))])
        _, found, failed = cholesky_solve(ridged[chosen][:, chosen], sides)
        if failed:
            break
        target[:] = 0
        target[chosen] = found[:, 0] + (1 - found[:, 0].sum()) / found[:, 1].sum() * found[:, 1]
        gradient = Q @ target - linear
        wrong = np.where(free, target <= 0, gradient < gradient[free].mean() - QUADRATIC_GAP)
        if not wrong.any():
            break
        free = free ^ wrong
    positive = np.maximum(target, 0)
    if not positive.any():
        positive[np.argmin(Q.diagonal() - 2 * linear)] = 1
    return positive / positive.sum()


def _independent(Q: Array, weights: Array) -> tuple[Array, list[int]]:
    """``weights`` without models along whose difference from the others f is flat, and the models that stay: by a pivoted
    Cholesky factorisation of Q on the differences from the heaviest."""
    first = int(np.argmax(weights))
    free = [int(i) for i in np.flatnonzero(weights) if i != first]
    if free:
        column = Q[free, first]
        differences = Q[free][:, free] - column - column[:, None] + Q[first, first]
        _, order, rank, _ = pivoted_cholesky(differences, tol=RIDGE)
        free = [free[i - 1] for i in order[:rank]]
    free.append(first)
    kept = np.zeros_like(weights)
    kept[free] = weights[free]
    return kept / kept.sum(), free


def _conjugate(Q: Array, free: list[int], entering: int) -> Array:
    """(K,) the direction that brings ``entering`` in, adds up to 0 and keeps the gradient equal over the free weights."""
    direction = np.zeros(len(Q))
    direction[free] = _bordered(Q, free, -Q[free, entering], -1.0)
    direction[entering] = 1
    return direction


def _bordered(Q: Array, free: list[int], right: Array, total: float) -> NDArray[np.floating]:
    """x with (Qx)_i = right_i + a common number for i in free, and Σx = total."""
    n = len(free)
    system, sides = np.ones((n + 1, n + 1)), np.full(n + 1, total)
    system[:n, :n], system[n, n], sides[:n] = Q[free][:, free], 0, right
    return np.linalg.solve(system, sides)[:n]


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


def _minimise_within(Q: Array, linear: Array, start: Array | None, within: Polytope) -> Weights:
    """Simplicial decomposition (Holloway 1974; von Hohenbalken 1977): the best mixture of the corners met so far is a quadratic
    on their own simplex; the corner that the gradient there points to is added, those without weight are dropped."""
    known = start if start is not None and within.holds(start) else within.least(2 * (Q.mean(1) - linear))[0]
    corners, mixture = known[None], np.ones(1)
    best = Weights((), math.inf, math.inf)
    for _ in range(MAX_STEPS * len(linear)):
        form = corners @ Q @ corners.T
        mixture = active_set((form + form.T) / 2, corners @ linear, mixture)
        weights = mixture @ corners
        gradient = 2 * (Q @ weights - linear)
        corner, bound = within.least(gradient)
        gap = max(0.0, float(gradient @ weights) - bound)
        if gap < best.gap:
            best = Weights(tuple(weights.tolist()), float(weights @ Q @ weights - 2 * linear @ weights), gap)
        if gap <= QUADRATIC_GAP or np.abs(corners - corner).max(1).min() <= LP_TOLERANCE:
            break
        corners = np.vstack([corners[mixture > 0], corner])
        mixture = np.append(mixture[mixture > 0], 0.0)
    return best
