"""Means of log-densities of unseen rows, with their standard errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixtura.contracts import Estimate, InputError
from mixtura.metrics.arrays import numbers

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Gain:
    """A paired mean difference in nats and its standard error; ``trimmed``: both without the largest differences."""

    value: float
    error: float
    trimmed: float
    trimmed_error: float
    n: int


def mean_nats(log_probs: ArrayLike) -> Estimate:
    """Mean of ``log_probs`` (n,) nats and its standard error s/√n (NaN for one row).

    A row at −inf makes the value −inf and the error NaN. Raises InputError on NaN, +inf or no rows.
    """
    return _mean(_check(log_probs, "log_probs"))


def gain(blend: ArrayLike, single: ArrayLike, *, trim: float = 0.01) -> Gain:
    """How many nats a row ``blend`` (n,) gains over ``single`` (n,), both measured on the same rows.

    ``trimmed`` leaves out the ⌈trim·n⌉ rows with the largest |difference|, so that it does not depend on a few outliers. Of equal
    |differences|, gains are left out before losses. Its error is that of the mean of the remaining rows.

    A row where only ``single`` gives −inf makes the gain +inf; one where only ``blend`` does makes it −inf. If both do (or both
    kinds of row occur), the mean is undefined: NaN. None of these has an error. Such rows are trimmed first.

    Raises InputError on NaN, +inf, unequal lengths, or a ``trim`` that leaves no row.
    """
    ours, theirs = _check(blend, "blend"), _check(single, "single")
    n = len(ours)
    if len(theirs) != n:
        raise InputError(f"single: expected {n} rows as in blend, got {len(theirs)}; score both on the same rows")
    if not 0 <= trim < 1 or math.ceil(trim * n) >= n:
        raise InputError(
            f"trim: expected a share from 0 to below 1 that leaves a row of {n}, got {trim}; lower it or give more rows"
        )
    with np.errstate(invalid="ignore"):
        difference = ours - theirs
    size = np.where(np.isnan(difference), np.inf, np.abs(difference))
    kept = np.lexsort((difference, size))[: n - math.ceil(trim * n)]
    whole, rest = _mean(difference), _mean(difference[kept])
    return Gain(whole.value, whole.error, rest.value, rest.error, n)


def _mean(x: Array) -> Estimate:
    n = len(x)
    with np.errstate(invalid="ignore"):
        value = float(x.mean())
    certain = n > 1 and math.isfinite(value)
    return Estimate(value, float(x.std(ddof=1)) / math.sqrt(n) if certain else math.nan, n)


def _check(log_probs: ArrayLike, name: str) -> Array:
    array = numbers(log_probs, name).astype(np.float64)
    if array.ndim != 1 or array.size == 0:
        raise InputError(f"{name}: expected shape (rows,) with one row or more, got {array.shape}; give one log-density a row")
    bad = np.flatnonzero(np.isnan(array) | (array == np.inf))
    if len(bad):
        raise InputError(
            f"{name}: row {bad[0]} is {array[bad[0]]}, expected a log-density or -inf; repair the model that gave it"
        )
    return array
