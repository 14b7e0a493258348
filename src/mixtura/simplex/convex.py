"""The best weights under any convex, differentiable objective, by sequential quadratic programming."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mixtura.contracts import InputError
from mixtura.simplex.polytope import Polytope
from mixtura.simplex.quadratic import minimise_quadratic
from mixtura.simplex.weights import Array, Weights, on_the_simplex

#: gap, relative to the scale of the objective, at which the problem counts as solved if it has a polytope or is not quadratic
CONVEX_GAP = 1e-9
#: steps at most
MAX_CONVEX_STEPS = 200


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
    start, unless rounding or the limit of 200 steps stops the solver first; ``gap`` then says what was reached.

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
    weights = on_the_simplex(start, m)
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
    """The first of the steps 1, ½, ¼ … that lowers f enough and where f and its gradient are finite; None if none does."""
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
