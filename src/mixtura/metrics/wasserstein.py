"""Sliced Wasserstein distance: optimal transport along lines.

In one dimension the optimal coupling is that of equal quantiles (Villani 2003, theorem 2.18). For n and m sorted rows it has at
most n + m − 1 cells, which depend only on n and m (:func:`coupling`), so that unequal numbers of rows need neither padding nor
interpolation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mixtura.contracts import Estimate, InputError
from mixtura.ground import rng as random
from mixtura.metrics.arrays import pair

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Coupling:
    """Cell c couples mass ``mass[c]`` of sorted row ``left[c]`` of n with sorted row ``right[c]`` of m."""

    mass: NDArray[np.float64]
    left: NDArray[np.intp]
    right: NDArray[np.intp]


def coupling(n: int, m: int) -> Coupling:
    """The coupling of equal quantiles of n and m rows of equal mass. Levels are integers over n·m, so no cell is lost by
    rounding."""
    levels = np.union1d(np.arange(n, dtype=np.int64) * m, np.arange(m, dtype=np.int64) * n)
    return Coupling(np.diff(levels, append=n * m) / (n * m), levels // m, levels // n)


def sliced_wasserstein(
    real: ArrayLike | Tensor,
    generated: ArrayLike | Tensor,
    *,
    rng: torch.Generator,
    projections: int = 500,
    plain: bool = False,
) -> Estimate:
    """Squared 2-Wasserstein distance of ``real`` (n, d) and ``generated`` (m, d) along random directions θ, averaged:

        SW₂² = E_θ ∫₀¹ (F⁻¹_{θ·x}(q) − F⁻¹_{θ·y}(q))² dq,   θ uniform on the sphere    (Bonneel et al. 2015, equation 9)

    in squared units of the features; a shift by δ gives |δ|²/d. Two samples of one law have a distance above 0. The distance
    between two random halves of a set is four times what its n or m rows add to SW₂²; a quarter of it is subtracted for each set,
    so that equal laws give about 0, which can be negative. ``plain=True`` does not correct, like other packages.

    The error is an infinitesimal jackknife: a row changes SW₂² by its Kantorovich potential, ψ'(x) = 2 (x − T(x)) along each
    direction, averaged over directions. The variance of the mean over directions is added. At equal laws the potential is noise
    of the size of the distance itself, and the error is up to √2 too large.

    Raises InputError on arrays that are not finite (rows, d) with one d and 4 rows or more, or fewer than 2 projections.
    """
    x, y = pair(real, generated, least=4)
    if isinstance(projections, bool) or not isinstance(projections, int) or projections < 2:
        raise InputError(f"projections: expected a whole number, 2 or more, got {projections!r}")
    directions = random.normal((projections, x.shape[1]), rng, x)
    directions = directions / directions.norm(dim=1, keepdim=True)
    centre = x.mean(0)
    x, y = (_projected(part - centre, directions, rng) for part in (x, y))
    order_x, order_y = np.argsort(x, 1), np.argsort(y, 1)
    sorted_x, sorted_y = np.take_along_axis(x, order_x, 1), np.take_along_axis(y, order_y, 1)
    n, m = x.shape[1], y.shape[1]
    plan = coupling(n, m)
    value = _squares(sorted_x, sorted_y, plan)
    if not plain:
        value -= (_halves(x) + _halves(y)) / 4
    moves_x = _potential(sorted_x, _moved(sorted_y, plan.mass, plan.right, plan.left), order_x)
    moves_y = _potential(sorted_y, _moved(sorted_x, plan.mass, plan.left, plan.right), order_y)
    variance = moves_x.var(ddof=1) / n + moves_y.var(ddof=1) / m + value.var(ddof=1) / projections
    return Estimate(float(value.mean()), math.sqrt(variance), min(n, m))


def _projected(x: Tensor, directions: Tensor, rng: torch.Generator) -> Array:
    """(projections, rows), with the rows in a random order, so that the first half is a random half."""
    return (directions @ x[torch.randperm(len(x), generator=rng, device=rng.device).cpu()].T).numpy()


def _squares(x: Array, y: Array, plan: Coupling) -> NDArray[np.float64]:
    """(projections,) W₂² of sorted rows."""
    return np.square(x[:, plan.left] - y[:, plan.right]) @ plan.mass


def _halves(x: Array) -> NDArray[np.float64]:
    first, second = (np.sort(half, 1) for half in np.array_split(x, 2, 1))
    return _squares(first, second, coupling(first.shape[1], second.shape[1]))


def _moved(y: Array, mass: Array, theirs: NDArray[np.intp], ours: NDArray[np.intp]) -> Array:
    """T(x): the mean of the rows of y that are coupled with each sorted row of x."""
    starts = np.flatnonzero(np.diff(ours, prepend=-1))
    total = np.add.reduceat(mass, starts)
    return np.add.reduceat(y[:, theirs] * mass.astype(y.dtype), starts, 1) / total.astype(y.dtype)


def _potential(x: Array, moved: Array, order: NDArray[np.intp]) -> NDArray[np.float64]:
    """(n,) mean over directions of ψ at each row, by the trapezoid rule, rows in their own order."""
    slope = x - moved
    steps = np.diff(x, axis=1) * (slope[:, 1:] + slope[:, :-1])
    sorted_potential = np.concatenate([np.zeros((len(x), 1)), np.cumsum(steps, 1, dtype=np.float64)], 1)
    sorted_potential -= sorted_potential.mean(1, keepdims=True)
    total = np.zeros(x.shape[1])
    for line, rows in zip(sorted_potential, order, strict=True):
        total[rows] += line
    return total / len(x)
