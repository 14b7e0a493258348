"""Whether a predictive distribution is calibrated, and how sharp it is, from true targets and draws of the model.

Arrays in: targets y (n,) in data units, and draws (s, n), s of them for each target's own prediction. A target of d numbers
is (n, d) with draws (s, n, d) where a function says so; the others take one column at a time.

A perfect model's target is one more draw: its rank among s + 1 is uniform. By that rule no number here leans one way or the
other with s, so models may be compared whatever they were asked for.
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
    """distance: the largest |share of ranks up to u − u| (Kolmogorov–Smirnov). p: the chance of so large a one among ``n``
    ranks of a perfect model."""

    distance: float
    p: float
    n: int


def pit(y: ArrayLike | Tensor, draws: ArrayLike | Tensor, *, rng: torch.Generator) -> Array:
    """Probability integral transform of targets y (n,) or (n, d) by ``draws`` (s, n) or (s, n, d): randomised ranks in (0, 1),
    of the shape of y (Smith 1985; Czado, Gneiting & Held 2009, section 2, for ties).

        u = (#{draws < y} + v (#{draws = y} + 1)) / (s + 1),   v uniform

    exactly uniform where y and the draws have one law, whatever s, ties included. Pile-ups at both ends: the model is too
    narrow; a hump: too wide. Raises InputError on arrays of other shapes or that are not finite.
    """
    y, draws = _pair(y, draws, columns=True)
    below, above = _ranks(y, draws)
    # uniform gives [0, 1): half of its step makes both ends open
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

    The interval reaches from order statistic (s + 1)(1 − level)/2 to (s + 1)(1 + level)/2 of the draws. Between two draws y
    counts in part: by the share of its cell of ranks, [#{draws < y}, #{draws ≤ y} + 1] / (s + 1), that lies inside
    [(1 − level)/2, (1 + level)/2]. So a perfect model is given ``level`` exactly, on average, for any s and with ties;
    quantiles of the draws themselves would cover less (9 of 10 draws span 80 % of the next, not 90 %).

    Raises InputError where (s + 1)(1 − level)/2 < 1: the interval would reach beyond the draws.
    """
    y, draws = _pair(y, draws)
    tail = _tail(level, len(draws))
    below, above = _ranks(y, draws)
    inside = np.clip(np.minimum(above, 1 - tail) - np.maximum(below, tail), 0, None)
    return average(inside / (above - below))


def sharpness(draws: ArrayLike | Tensor, level: float) -> Estimate:
    """Mean width, in data units, of intervals that hold one more draw with probability ``level``, of ``draws`` (s, n): less is
    better among models that cover alike. They are the outermost of every m = 2/(1 − level) − 1 draws, 19 for 90 % (9 of 10
    such intervals hold the 20th draw), whatever s, as an interval of few draws is wider than one of many: of 19 normal ones
    3.69 deviations, where 90 % of the law itself lie within 3.29. If m is not whole, between the outermost two of a few more."""
    draws = _finite(draws, "draws", 2)
    tail = _tail(level, len(draws))
    m = math.ceil(1 / tail - 1e-9) - 1
    unit = _unit(draws)
    groups = draws[: len(draws) // m * m].reshape(-1, m, draws.shape[1]) / unit
    low, high = np.quantile(groups, [tail, 1 - tail], axis=1, method="weibull")
    width = average((high - low).mean(0))
    return Estimate(width.value * unit, width.error * unit, width.n)


def mean_width(y: ArrayLike | Tensor, draws: ArrayLike | Tensor, level: float) -> Estimate:
    """:func:`sharpness`, called as the other metrics of answers are; it does not depend on the true targets y (n,)."""
    _pair(y, draws)
    return sharpness(draws, level)


# --------------------------------------------------------------------------------------------------- proper scores


def crps(y: ArrayLike | Tensor, draws: ArrayLike | Tensor) -> Array:
    """(n,) continuous ranked probability scores of targets y (n,) by ``draws`` (s, n), s ≥ 2, in data units; less is better.

        mean_i |x_i − y| − Σ_ij |x_i − x_j| / (2 s (s − 1))

    the fair form (Ferro 2014): its expectation is ∫ (F(t) − 1{t ≥ y})² dt of the law behind the draws, for any s. Σ_ij is
    2 Σ_i (2i − s − 1) x_(i) over sorted draws, so a row costs O(s log s). Compare models row by row; :func:`average` for one.
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


# ---------------------------------------------------------------------------------------------------------- inside


def _unit(*arrays: Array) -> float:
    """About the largest size of numbers, as a power of two, which costs no digit: divided by it, no sum or square of them
    overflows, and none of the largest vanishes."""
    return math.ldexp(1.0, math.frexp(max(float(np.abs(a).max()) for a in arrays))[1] - 1)


def _ranks(y: Array, draws: Array) -> tuple[Array, Array]:
    """The two ends of y's cell of ranks among s draws and itself, in (0, 1)."""
    s = len(draws)
    return (draws < y).sum(0) / (s + 1), ((draws <= y).sum(0) + 1) / (s + 1)


def _tail(level: float, s: int) -> float:
    """The probability beyond each end of the central interval."""
    if not 0 < level < 1:
        raise InputError(f"level: expected a probability between 0 and 1, got {level}; 0.9 is usual")
    tail = (1 - level) / 2
    if (s + 1) * tail < 1 - 1e-9:
        raise InputError(
            f"draws: {s} a row do not reach the ends of {level:.6g} intervals, "
            f"expected {math.ceil(1 / tail - 1e-9) - 1} or more; "
            "draw more or lower the level"
        )
    return tail


def _pair(y: ArrayLike | Tensor, draws: ArrayLike | Tensor, *, columns: bool = False, least: int = 1) -> tuple[Array, Array]:
    """Targets and draws that fit each other, float64; ``columns``: (n, d) is allowed as well."""
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
