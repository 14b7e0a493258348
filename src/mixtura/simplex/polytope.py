"""Constraints on weights: caps, floors and budgets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linprog

from mixtura.contracts import InputError
from mixtura.simplex.weights import Array

#: the most by which the solution of a linear program may violate a constraint
LP_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Polytope:
    """The weights that satisfy lower ≤ w ≤ upper and A w ≤ b, on the simplex: floors and caps (one number, or K), and r more
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
