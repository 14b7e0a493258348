"""The best point of the simplex, and a certificate of how far from best it can be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import get_lapack_funcs
from scipy.optimize import linprog, nnls

from mixtura.contracts import InputError

Array = NDArray[np.float64]

cholesky_solve, pivoted_cholesky = get_lapack_funcs(("posv", "pstrf"), dtype=np.float64)

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
#: a negative eigenvalue under K times this, relative to the largest entry, is rounding
ROUNDING = 4e-16
#: what sums in float32 may leave between (i, j) and (j, i), relative to the largest entry
ASYMMETRY = 1e-5
#: curvature, relative to the largest coefficient, under which a first guess holds a direction to be flat
RIDGE = 1e-11
#: rounds of the first guess
EXCHANGES = 12
#: so many models are exchanged one by one as fast
FEW = 16
#: gap, relative to the scale of the objective, at which one in a polytope or one that is not quadratic counts as solved
CONVEX_GAP = 1e-9
#: what a linear program may leave of a constraint
LP_TOLERANCE = 1e-10
#: supports that are tried one after another
SUPPORTS = 3_000
MAX_CONVEX_STEPS = 200


def minimise_quadratic(
    Q: ArrayLike, linear: ArrayLike, *, start: ArrayLike | None = None, psd: bool = False, within: Polytope | None = None
) -> Weights:
    """Weights that minimise f(w) = w'Qw − 2 linear'w over the simplex: the least squared distance of a mixture, such as MMD².

    Q: (K, K) symmetric, up to the rounding of sums in float32. linear: (K,). start: (K,) weights of a problem like this one, from
    which its solution is a step or two. within: what else the weights must obey. The method is a primal active set (Wolfe 1976
    for nearest points; Nocedal & Wright 2006, section 16.5): models enter one at a time, the free weights are solved for exactly,
    and those that would be negative leave. Without a start, or from one with more than a few models to exchange, a guess
    exchanges many at once first. Duplicates and other flat directions end at the model where they meet the boundary.

    f is convex on the simplex where z'Qz ≥ 0 for every z with Σz = 0. A Q that is not (sums in float32, a U-form) is
    repaired there, since a gap certifies nothing otherwise: with P = I − 11'/K, the negative part of PQP is taken away, the
    smallest change in Frobenius norm (Higham 1988). ``value`` and ``gap`` speak of the repaired f. ``psd`` says that Q is known
    to need no repair, as a V-form is.

    ``gap`` is Frank & Wolfe's: f(w) − f(v) ≤ ∇f(w)·(w − v) ≤ ∇f(w)·w − min_k ∇f(w)_k. It is at most 1e-12 of the largest
    coefficient; ``within`` a polytope, where the minimum is over its corners, 1e-9.

    Raises InputError on shapes other than (K, K) and (K,), numbers that are not finite, a Q that is not symmetric, a start
    that is not (K,) numbers ≥ 0 with one above 0, or a polytope without weights.
    """
    Q, linear = _check_quadratic(Q, linear)
    if not psd:
        Q = convex_on_the_simplex(Q)
    first = None if start is None else _check_start(start, len(linear))
    largest = max(float(np.abs(Q).max()), float(np.abs(linear).max())) or 1.0
    if within is not None:
        found = _minimise_within(Q / largest, linear / largest, first, within)
        return Weights(found.weights, largest * found.value, largest * found.gap)
    weights = _active_set(Q / largest, linear / largest, first)
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
    if np.abs(matrix - matrix.T).max() > ASYMMETRY * np.abs(matrix).max():
        raise InputError("Q: expected a symmetric matrix, got one that is not; give (Q + Q') / 2")
    return (matrix + matrix.T) / 2, vector


def _check_start(start: ArrayLike, k: int) -> Array:
    weights = np.asarray(start, dtype=np.float64)
    if weights.shape != (k,) or not (weights.min() >= 0 and 0 < weights.sum() < np.inf):
        raise InputError(f"start: expected {k} weights ≥ 0, one for each model, got {start!r}; leave it out to start anew")
    return weights / weights.sum()


def convex_on_the_simplex(Q: Array) -> Array:
    """Q less the negative part of PQP, if that is more than rounding."""
    k = len(Q)
    mean = Q.mean(0)
    centred = Q - (mean - mean.mean() / 2)
    centred -= (mean - mean.mean() / 2)[:, None]
    rounding = ROUNDING * k * (float(np.abs(Q).max()) or 1.0)
    try:
        # along 11', which P took away, any number will do
        lifted = centred + rounding
        lifted.flat[:: k + 1] += rounding
        np.linalg.cholesky(lifted)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(centred)
        negative = vectors[:, values < 0]
        return Q - negative * values[values < 0] @ negative.T
    return Q


def _quadratic_gap(Q: Array, linear: Array, weights: Array) -> float:
    gradient = 2 * (Q @ weights - linear)
    return max(0.0, float(gradient @ weights - gradient.min()))


def _active_set(Q: Array, linear: Array, start: Array | None) -> Array:
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
    # a number added to all of Q changes nothing on the simplex, and leaves less of it that is not positive definite
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


# ------------------------------------------------------------------------------------- caps, floors, budgets


@dataclass(frozen=True)
class Polytope:
    """The weights that obey lower ≤ w ≤ upper and A w ≤ b, on the simplex: floors and caps (one number, or K), and r more
    inequalities such as a budget, A (r, K) the cost of each model and b (r,) what a sample may cost."""

    lower: ArrayLike = 0.0
    upper: ArrayLike = 1.0
    A: ArrayLike | None = None
    b: ArrayLike | None = None

    def least(self, gradient: ArrayLike) -> tuple[Array, float]:
        """A corner v (K,) at which gradient·v is least, and a number that it is proven nowhere to be below.

        Without A this is a fractional knapsack: after the floors, the steepest models are filled up to their caps. With A it is
        a linear program (HiGHS), and the number is that of its dual: for all y ≤ 0 and u, by r = gradient − A'y − u,
        gradient·v ≥ b'y + u + Σ_i min(r_i lower_i, r_i upper_i).

        Raises InputError where no weights obey, or shapes are not (K,), (r, K), (r,).
        """
        g = np.asarray(gradient, dtype=np.float64)
        lower, upper = self._bounds(len(g))
        A, b = self._inequalities(len(g))
        if len(b) == 0:
            order = np.argsort(g, kind="stable")
            room = (upper - lower)[order]
            before = np.cumsum(room) - room
            corner = lower.copy()
            corner[order] += np.clip(1 - lower.sum() - before, 0, room)
            return corner, float(g @ corner)
        shift, scale = float(g.min()), float(np.ptp(g)) or 1.0
        steep = (g - shift) / scale
        tolerances = {"primal_feasibility_tolerance": LP_TOLERANCE, "dual_feasibility_tolerance": LP_TOLERANCE}
        found = linprog(
            steep, A, b, np.ones((1, len(g))), np.ones(1), np.column_stack([lower, upper]), method="highs-ds", options=tolerances
        )
        if found.x is None:
            raise InputError("within: no weights that add up to one obey the inequalities, caps and floors together; loosen one")
        y, u = np.minimum(found.ineqlin.marginals, 0), float(found.eqlin.marginals[0])
        left = steep - A.T @ y - u
        bound = float(b @ y) + u + float(np.minimum(left * lower, left * upper).sum())
        return np.clip(found.x, lower, upper), shift + scale * bound

    def holds(self, weights: Array) -> bool:
        """Whether weights (K,) on the simplex obey, to rounding."""
        lower, upper = self._bounds(len(weights))
        A, b = self._inequalities(len(weights))
        slack = LP_TOLERANCE * (1 + np.abs(b))
        inside = (weights >= lower - LP_TOLERANCE) & (weights <= upper + LP_TOLERANCE)
        return bool(inside.all() and (A @ weights <= b + slack).all())

    def _bounds(self, k: int) -> tuple[Array, Array]:
        found = []
        for name, given, clip in (("floors", self.lower, np.maximum), ("caps", self.upper, np.minimum)):
            array = np.asarray(given, dtype=np.float64)
            if array.shape not in ((), (k,)) or np.isnan(array).any():
                raise InputError(f"{name}: expected one number, or one for each of {k} models, got {given!r}")
            found.append(clip(np.broadcast_to(array, k), 0.0 if name == "floors" else 1.0))
        lower, upper = found
        if lower.sum() > 1 + LP_TOLERANCE:
            raise InputError(f"floors: they add up to {lower.sum():g}, expected 1 at most; lower one")
        if upper.sum() < 1 - LP_TOLERANCE:
            raise InputError(f"caps: they add up to {upper.sum():g}, expected 1 at least; raise one")
        if (lower > upper).any():
            i = int(np.argmax(lower > upper))
            raise InputError(f"floors: that of model {i} is {lower[i]:g}, above its cap {upper[i]:g}; lower it")
        return lower, upper

    def _inequalities(self, k: int) -> tuple[Array, Array]:
        if self.A is None and self.b is None:
            return np.zeros((0, k)), np.zeros(0)
        A = np.atleast_2d(np.asarray(0.0 if self.A is None else self.A, dtype=np.float64))
        b = np.atleast_1d(np.asarray(np.nan if self.b is None else self.b, dtype=np.float64))
        if A.shape != (len(b), k) or not (np.isfinite(A).all() and np.isfinite(b).all()):
            raise InputError(
                f"A and b: expected finite numbers of shapes (r, {k}) and (r,), got {A.shape} and {b.shape}; give one row a limit"
            )
        return A, b


def _minimise_within(Q: Array, linear: Array, start: Array | None, within: Polytope) -> Weights:
    """Simplicial decomposition (Holloway 1974; von Hohenbalken 1977): the best mixture of the corners met so far is a quadratic
    on their own simplex; the corner that the gradient there points to is added, those without weight are dropped."""
    known = start if start is not None and within.holds(start) else within.least(2 * (Q.mean(1) - linear))[0]
    corners, mixture = known[None], np.ones(1)
    best = Weights((), math.inf, math.inf)
    for _ in range(MAX_STEPS * len(linear)):
        form = corners @ Q @ corners.T
        mixture = _active_set((form + form.T) / 2, corners @ linear, mixture)
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


# ------------------------------------------------------------------------------------------------ few models


@dataclass(frozen=True)
class SparseWeights(Weights):
    """:class:`Weights` with few that are not 0.

    exact: whether no other choice of so few models is better; if not, it is the best that a search met.
    gap:   bounds how far value is from the best possible with so few models; where not exact, with all models, which is further.
    """

    exact: bool


def minimise_sparse(Q: ArrayLike, linear: ArrayLike, size: int, *, psd: bool = False) -> SparseWeights:
    """The problem of :func:`minimise_quadratic` with at most ``size`` weights that are not 0.

    Where the best weights of all models are so few, they are it. Otherwise every support is solved if there are 3,000 or fewer.
    If there are more, models enter one by one, each the one that lowers f most, and are then exchanged one for one as long as
    that lowers f.

    Raises InputError as :func:`minimise_quadratic`, and on a size that is not a whole number ≥ 1.
    """
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise InputError(f"size: expected a whole number of models, 1 or more, got {size!r}")
    Q, linear = _check_quadratic(Q, linear)
    if not psd:
        Q = convex_on_the_simplex(Q)
    largest = max(float(np.abs(Q).max()), float(np.abs(linear).max())) or 1.0
    on = _Supports(Q / largest, linear / largest)
    whole, k = on.solved(range(len(linear))), len(linear)
    if sum(w > 0 for w in whole.weights) <= size:
        return SparseWeights(whole.weights, largest * whole.value, largest * whole.gap, exact=True)
    if math.comb(k, size) <= SUPPORTS:
        found = min((on.solved(support) for support in combinations(range(k), size)), key=lambda weights: weights.value)
        return SparseWeights(found.weights, largest * found.value, largest * found.gap, exact=True)
    found = on.searched(size)
    gap = max(found.gap, found.value - whole.value + whole.gap)
    return SparseWeights(found.weights, largest * found.value, largest * gap, exact=False)


@dataclass(frozen=True)
class _Supports:
    """One quadratic, on some of its models."""

    Q: Array
    linear: Array

    def solved(self, support: Iterable[int], start: Array | None = None) -> Weights:
        """The best weights of ``support``; the gap speaks of these models."""
        chosen = list(support)
        Q, linear = self.Q[chosen][:, chosen], self.linear[chosen]
        found = _active_set(Q, linear, start[chosen] if start is not None and start[chosen].any() else None)
        weights = np.zeros(len(self.linear))
        weights[chosen] = found
        value = float(found @ Q @ found - 2 * linear @ found)
        return Weights(tuple(weights.tolist()), value, _quadratic_gap(Q, linear, found))

    def searched(self, size: int) -> Weights:
        """Greedy, then swaps."""
        best = self._entered([], size)
        while True:
            support = [i for i, w in enumerate(best.weights) if w > 0]
            swapped = min((self._entered([i for i in support if i != out], size) for out in support), key=lambda w: w.value)
            if swapped.value >= best.value - QUADRATIC_GAP:
                return best
            best = swapped

    def _entered(self, support: list[int], size: int) -> Weights:
        """With the models that lower f most, one after another, up to ``size``."""
        best = Weights((), math.inf, math.inf)
        while len(support) < size:
            start = np.array(best.weights) if best.weights else None
            outside = [i for i in range(len(self.linear)) if i not in support]
            best = min((self.solved([*support, i], start) for i in outside), key=lambda weights: weights.value)
            grown = [i for i, w in enumerate(best.weights) if w > 0]
            if set(grown) <= set(support):
                break
            support = grown
        return best


# ------------------------------------------------------------------------------------------------ other convex objectives


def minimise_convex(
    value_and_gradient: Callable[[Array], tuple[float, Array]],
    m: int,
    *,
    start: ArrayLike | None = None,
    within: Polytope | None = None,
) -> Weights:
    """Weights (m,) that minimise a convex, differentiable f over the simplex, or ``within`` a polytope.

    value_and_gradient: w → f(w) and ∇f(w) (m,); a step to where they are not finite is halved. start: weights to start from, by
    default equal ones, or the nearest to those ``within``. Sequential quadratic programming: each step minimises a quadratic
    model with the Hessian of damped BFGS (Powell 1978; Nocedal & Wright 2006, procedure 18.2) by :func:`minimise_quadratic`, then
    halves until f has fallen by 1e-4 of what the slope says (Armijo) or, where rounding hides that, until the slope at the new
    point says so (Hager & Zhang 2005, section 2).

    ``gap`` is Frank & Wolfe's, as for the quadratic. It is at most 1e-9 of the scale of f, |f| + max ∇f − min ∇f at the
    start, except where rounding or 200 steps stop the solver first; then it says what was reached.

    Raises InputError on a start that is not on the simplex or outside ``within``, a polytope without weights, or values that are
    not finite at the start.
    """
    weights = _first_weights(m, start, within)
    value, gradient = value_and_gradient(weights)
    if not (math.isfinite(value) and np.isfinite(gradient).all()):
        raise InputError(f"value_and_gradient: expected finite numbers at the start, got {value} and {gradient}; start elsewhere")
    size = float(np.ptp(gradient)) or 1.0
    scale, hessian = abs(value) + size, size * np.eye(m)
    for step in range(MAX_CONVEX_STEPS):
        if _corner_gap(gradient, weights, within) <= CONVEX_GAP * scale:
            break
        model = minimise_quadratic(hessian / 2, (hessian @ weights - gradient) / 2, start=weights, psd=True, within=within)
        here = _Met(weights, value, gradient)
        moved = _descended(value_and_gradient, here, np.array(model.weights) - weights, rounding=1e-12 * scale)
        if moved is None:
            break
        weights, value, gradient = moved
        difference, bend = weights - here.weights, gradient - here.gradient
        bend -= bend.mean()
        if step == 0 and difference @ bend > 0:
            hessian = float(bend @ bend / (difference @ bend)) * np.eye(m)
        hessian = _damped_bfgs(hessian, difference, bend)
    return Weights(tuple(weights.tolist()), value, _corner_gap(gradient, weights, within))


def _first_weights(m: int, start: ArrayLike | None, within: Polytope | None) -> Array:
    equal = np.full(m, 1 / m)
    if start is None:
        return equal if within is None else np.array(minimise_quadratic(np.eye(m), equal, psd=True, within=within).weights)
    weights = _check_start(start, m)
    if within is not None and not within.holds(weights):
        raise InputError(f"start: {start!r} does not obey the caps, floors and inequalities; leave it out to start anew")
    return weights


def _corner_gap(gradient: Array, weights: Array, within: Polytope | None) -> float:
    least = float(gradient.min()) if within is None else within.least(gradient)[1]
    return max(0.0, float(gradient @ weights) - least)


class _Met(NamedTuple):
    weights: Array
    value: float
    gradient: Array


def _descended(
    value_and_gradient: Callable[[Array], tuple[float, Array]], here: _Met, direction: Array, rounding: float
) -> _Met | None:
    """The first of the steps 1, ½, ¼ … that is worth it, and where f and its gradient are finite; None where none is."""
    slope, step = float(here.gradient @ direction), 1.0
    while slope < 0 and step > 1e-12:
        weights = np.maximum(here.weights + step * direction, 0)
        weights /= weights.sum()
        value, gradient = value_and_gradient(weights)
        if math.isfinite(value) and np.isfinite(gradient).all():
            fallen = value <= here.value + 1e-4 * step * slope
            level = value <= here.value + rounding and float(gradient @ direction) <= -0.8 * slope
            if fallen or level:
                return _Met(weights, value, gradient)
        step /= 2
    return None


def _damped_bfgs(hessian: Array, difference: Array, bend: Array) -> Array:
    """Powell's update: the bend is drawn towards the one expected as far as keeps the matrix positive definite."""
    expected = hessian @ difference
    curvature, seen = float(difference @ expected), float(difference @ bend)
    share = 1.0 if seen >= 0.2 * curvature else 0.8 * curvature / (curvature - seen)
    drawn = share * bend + (1 - share) * expected
    return hessian - np.outer(expected, expected) / curvature + np.outer(drawn, drawn) / float(difference @ drawn)
