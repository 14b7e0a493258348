"""Calibration and sharpness of predictive distributions, from true targets and draws of the model.

Targets y (n,) are in data units; draws (s, n) are s draws of the prediction for each target. :func:`pit` also takes targets (n,
d) with draws (s, n, d); the other functions take one column at a time.

Under a perfect model the target is one more draw, so its rank among s + 1 is uniform. All functions follow this rule, so none is
biased by s, and models with different numbers of draws can be compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kstest
from torch import Tensor

from mixtura.contracts import Estimate, InputError
from mixtura.ground.rng import uniform
from mixtura.metrics.arrays import numbers

Array = NDArray[np.float64]


# ---------------------------------------------------------------------------------------------------- calibration


@dataclass(frozen=True)
class Uniformity:
    """distance: the largest |share of ranks up to u − u| (Kolmogorov–Smirnov). p: the probability of a distance at least as large
    for ``n`` ranks of a perfect model."""

    distance: float
    p: float
    n: int


def pit(y: ArrayLike | Tensor, draws: ArrayLike | Tensor, *, rng: torch.Generator) -> Array:
    """Probability integral transform of targets y (n,) or (n, d) by ``draws`` (s, n) or (s, n, d): randomised ranks in (0, 1),
    of the shape of y (Smith 1985; Czado, Gneiting & Held 2009, section 2, for ties).

        u = (#{draws < y} + v (#{draws = y} + 1)) / (s + 1),   v uniform

    u is exactly uniform if y and the draws have the same law, for any s and with ties. Many values near 0 and 1 mean that the
    model is too narrow; many in the middle, that it is too wide. Raises InputError on arrays that are not finite or have other
    shapes.
    """
    y, draws = _pair(y, draws, columns=True)
    below, above = _ranks(y, draws)
    # uniform draws from [0, 1); half of its step is added, so that both ends are open
    v = uniform(y.shape, rng, torch.empty(0, dtype=torch.float64)).numpy() + 2.0**-54
    return below + v * (above - below)


def pit_uniformity(u: ArrayLike | Tensor) -> Uniformity:
    """Kolmogorov–Smirnov test of the ranks u (n,) of :func:`pit`, of one column, against the uniform law."""
    u = _finite(u, "u", 1)
    if len(u) == 0 or (u < 0).any() or (u > 1).any():
        raise InputError(f"u: expected one or more numbers from 0 to 1, got {len(u)}; give one column of what pit returned")
    found = kstest(u, "uniform")
    return Uniformity(float(found.statistic), float(found.pvalue), len(u))


def pit_distance(u: ArrayLike | Tensor) -> Estimate:
    """The distance of :func:`pit_uniformity`, which has no standard error."""
    found = pit_uniformity(u)
    return Estimate(found.distance, math.nan, found.n)


def coverage(y: ArrayLike | Tensor, draws: ArrayLike | Tensor, level: float) -> Estimate:
    """Share of targets y (n,) inside the central interval that ``draws`` (s, n) predict with probability ``level``.

    The interval goes from order statistic (s + 1)(1 − level)/2 to (s + 1)(1 + level)/2 of the draws. A target at its end counts
    in part: by the share of its cell of ranks, [#{draws < y}, #{draws ≤ y} + 1] / (s + 1), that lies inside [(1 − level)/2, (1 +
    level)/2]. The expected value for a perfect model is therefore exactly ``level``, for any s and with ties. Quantiles of the
    draws would cover less: the interval between the outermost of 9 draws covers 80 % of the next, not 90 %.

    Raises InputError if (s + 1)(1 − level)/2 < 1, because the interval would go beyond the draws.
    """
    y, draws = _pair(y, draws)
    tail = _tail(level, len(draws))
    below, above = _ranks(y, draws)
    inside = np.clip(np.minimum(above, 1 - tail) - np.maximum(below, tail), 0, None)
    return average(inside / (above - below))


def sharpness(draws: ArrayLike | Tensor, level: float) -> Estimate:
    """Mean width, in data units, of intervals from ``draws`` (s, n) that contain one more draw with probability ``level``. Less
    is better among models with equal coverage. Each interval lies between the outermost of m = 2/(1 − level) − 1 draws: 19 for 90
    %, as 9 of 10 such intervals contain the 20th draw. m does not depend on s, because intervals from few draws are wider: the
    outermost of 19 normal draws are 3.69 standard deviations apart, while 90 % of the law lie within 3.29. If m is not whole, the
    ends are interpolated between order statistics of the next larger number of draws."""
    draws = _finite(draws, "draws", 2)
    tail = _tail(level, len(draws))
    m = math.ceil(1 / tail - 1e-9) - 1
    unit = _unit(draws)
    groups = draws[: len(draws) // m * m].reshape(-1, m, draws.shape[1]) / unit
    low, high = np.quantile(groups, [tail, 1 - tail], axis=1, method="weibull")
    width = average((high - low).mean(0))
    return Estimate(width.value * unit, width.error * unit, width.n)


def mean_width(y: ArrayLike | Tensor, draws: ArrayLike | Tensor, level: float) -> Estimate:
    """:func:`sharpness` with the arguments of the other metrics of answers; it does not depend on the true targets y (n,)."""
    _pair(y, draws)
    return sharpness(draws, level)


# --------------------------------------------------------------------------------------------------- proper scores


def crps(y: ArrayLike | Tensor, draws: ArrayLike | Tensor) -> Array:
    """(n,) continuous ranked probability scores of targets y (n,) by ``draws`` (s, n), s ≥ 2, in data units; less is better.

        mean_i |x_i − y| − Σ_ij |x_i − x_j| / (2 s (s − 1))

    This is the fair form (Ferro 2014): its expectation is ∫ (F(t) − 1{t ≥ y})² dt for the law F of the draws, for any s. Σ_ij is
    2 Σ_i (2i − s − 1) x_(i) over sorted draws, so a row costs O(s log s). :func:`average` gives the mean over rows.
    """
    y, draws = _pair(y, draws, least=2)
    s, unit = len(draws), _unit(draws, y)
    away = np.sort(draws / unit - y / unit, axis=0)
    rank = 2.0 * np.arange(1, s + 1) - s - 1
    return (np.abs(away).mean(0) - rank @ away / (s * (s - 1))) * unit


def mean_crps(y: ArrayLike | Tensor, draws: ArrayLike | Tensor) -> Estimate:
    """The mean over rows of :func:`crps`."""
    return average(crps(y, draws))


def average(scores: ArrayLike | Tensor) -> Estimate:
    """Mean of scores (n,) of rows and its standard error s/√n (NaN for one row)."""
    scores = _finite(scores, "scores", 1)
    n = len(scores)
    if n == 0:
        raise InputError("scores: expected one row or more, got none; give the scores of some rows")
    unit = _unit(scores)
    error = float((scores / unit).std(ddof=1)) * unit / math.sqrt(n) if n > 1 else math.nan
    return Estimate(float((scores / unit).mean()) * unit, error, n)


# ---------------------------------------------------------------------------------------------------------- helpers


def _unit(*arrays: Array) -> float:
    """A power of two near the largest absolute value. Division by it is exact, and afterwards sums and squares neither overflow
    nor vanish."""
    return math.ldexp(1.0, math.frexp(max(float(np.abs(a).max()) for a in arrays))[1] - 1)


def _ranks(y: Array, draws: Array) -> tuple[Array, Array]:
    """The two ends of the cell of ranks of y among s draws and itself, in [0, 1]."""
    s = len(draws)
    return (draws < y).sum(0) / (s + 1), ((draws <= y).sum(0) + 1) / (s + 1)


def _tail(level: float, s: int) -> float:
    """The probability beyond each end of the central interval."""
    if not 0 < level < 1:
        raise InputError(f"level: expected a probability between 0 and 1, got {level}; 0.9 is usual")
    tail = (1 - level) / 2
    if (s + 1) * tail < 1 - 1e-9:
        raise InputError(
            f"draws: {s} a row are too few for intervals of level {level:.6g}, "
            f"expected {math.ceil(1 / tail - 1e-9) - 1} or more; "
            "draw more or lower the level"
        )
    return tail


def _pair(y: ArrayLike | Tensor, draws: ArrayLike | Tensor, *, columns: bool = False, least: int = 1) -> tuple[Array, Array]:
    """Targets and draws as float64 arrays of matching shapes; ``columns``: (n, d) is allowed as well."""
    target = numbers(y, "y")
    if target.ndim not in ((1, 2) if columns else (1,)) or target.size == 0:
        wanted = "(n,) or (n, d)" if columns else "(n,)"
        raise InputError(f"y: expected shape {wanted} with one row or more, got {target.shape}; give one target a row")
    made = numbers(draws, "draws")
    if made.ndim != target.ndim + 1 or made.shape[1:] != target.shape or len(made) < least:
        raise InputError(
            f"draws: expected shape (s, {', '.join(map(str, target.shape))}) with s of {least} or more, got {made.shape}; "
            "give the draws of each row along the first axis"
        )
    return _finite(target, "y", target.ndim), _finite(made, "draws", made.ndim)


def _finite(x: ArrayLike | Tensor, name: str, dims: int) -> Array:
    array = numbers(x, name).astype(np.float64)
    if array.ndim != dims:
        raise InputError(f"{name}: expected {dims} dimension{'s' * (dims > 1)}, got shape {array.shape}; see its docstring")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        at = tuple(int(i) for i in bad[0])
        raise InputError(f"{name}: entry {at} is {array[at]}, expected a finite number; leave rows without a target out")
    return array
