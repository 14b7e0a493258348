"""Distance of each single column of a table from the real column.

    numbers   ∫ |F(t) − G(t)| dt / spread     Wasserstein distance (order 1) in units of the real column's standard deviation
    codes     ½ Σ_c |p_c − q_c|               total variation
    missing   |p − q|                         difference of the shares of rows where the value is missing

A difference D of two shares, with standard error σ, has E |D| > 0 even if the laws are equal. Each |D| above is therefore

    |D| − (2/√π) σ exp(−D² / 2σ²),            σ² = h (1 − h) (1/n + 1/m),   h the share in both sets together,

which has mean 0 at equal laws (E |Z| = √(2/π) and E exp(−Z²/2) = 1/√2) and subtracts nothing from a large difference. In between
it is at most 0.46 σ too small.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mixtura.contracts import Estimate, InputError
from mixtura.metrics.arrays import numbers

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Marginal:
    """One column. kind: "number" or "code". distance: over the rows with a value, W₁ in spreads or total variation. ks: the
    largest |F − G| of a number (Kolmogorov–Smirnov, uncorrected), NaN for a code. missing: difference of the shares of missing
    values."""

    kind: str
    distance: Estimate
    ks: float
    missing: Estimate


def columns(
    real: ArrayLike | Tensor, generated: ArrayLike | Tensor, *, codes: ArrayLike | Tensor, plain: bool = False
) -> tuple[Marginal, ...]:
    """Distance of each column of ``real`` (n, d) and ``generated`` (m, d), data units, NaN where missing.

    ``codes`` (d,) bool says which columns are codes. A column with only one real value has no spread and is compared as a code.
    If a column is missing in all rows of one set, the distance is 0 and only ``missing`` counts. ``plain=True`` does not correct
    |D|. Errors are infinitesimal jackknives over rows, which include the error of the spread.

    Raises InputError on arrays that are not (rows, d) with one d and 2 rows or more, infinite, or a mask that is not (d,).
    """
    parts = tuple(_parts(real, generated, codes, plain))
    return tuple(
        Marginal("code" if c else "number", distance.estimate(), ks, missing.estimate()) for c, distance, ks, missing in parts
    )


def marginal_distance(
    real: ArrayLike | Tensor,
    generated: ArrayLike | Tensor,
    *,
    codes: ArrayLike | Tensor,
    rng: torch.Generator,
    plain: bool = False,
) -> Estimate:
    """Mean over columns of distance + missing of :func:`columns`; nothing is drawn from ``rng``.

    The error takes into account that columns share their rows.
    """
    both = [(distance, missing) for _, distance, _, missing in _parts(real, generated, codes, plain)]
    values, moves_real, moves_generated = zip(*(each for pair in both for each in pair), strict=True)
    count = len(both)
    return _Difference(sum(values) / count, np.sum(moves_real, 0) / count, np.sum(moves_generated, 0) / count).estimate()


class _Difference(NamedTuple):
    """A value, and n (or m) times the change of it by each row of ``real`` (or ``generated``)."""

    value: float
    real: Array
    generated: Array

    def estimate(self) -> Estimate:
        errors = (_deviation(moves) / math.sqrt(len(moves)) for moves in (self.real, self.generated))
        return Estimate(self.value, math.hypot(*errors), min(len(self.real), len(self.generated)))


def _parts(
    real: ArrayLike | Tensor, generated: ArrayLike | Tensor, codes: ArrayLike | Tensor, plain: bool
) -> Iterator[tuple[bool, _Difference, float, _Difference]]:
    x, y = _check(real, "real"), _check(generated, "generated")
    if x.shape[1] != y.shape[1]:
        raise InputError(f"generated: expected {x.shape[1]} columns as in real, got {y.shape[1]}; give the same columns of each")
    mask = np.asarray(codes)
    if mask.dtype != bool or mask.shape != (x.shape[1],):
        raise InputError(
            f"codes: expected {x.shape[1]} truth values, one a column, got {mask.dtype} of shape {mask.shape}; "
            "give True for each column that holds codes"
        )
    for a, b, coded in zip(x.T, y.T, mask, strict=True):
        yield _column(a, b, bool(coded), plain)


def _column(x: Array, y: Array, coded: bool, plain: bool) -> tuple[bool, _Difference, float, _Difference]:
    absent, theirs = np.isnan(x), np.isnan(y)
    missing = _shares(absent.astype(int), theirs.astype(int), 2, plain)
    present, other = x[~absent], y[~theirs]
    coded = coded or len(np.unique(present)) < 2
    if not len(present) or not len(other):
        return coded, _Difference(0.0, np.zeros(len(x)), np.zeros(len(y))), math.nan, missing
    if coded:
        values, code = np.unique(np.concatenate([present, other]), return_inverse=True)
        distance, ks = _shares(code[: len(present)], code[len(present) :], len(values), plain), math.nan
    else:
        distance, ks = _transport(present, other, plain)
    spread = _Difference(distance.value, _among(distance.real, ~absent), _among(distance.generated, ~theirs))
    return coded, spread, ks, missing


def _deviation(values: Array) -> float:
    """Standard deviation of numbers whose squares may overflow."""
    largest = float(np.abs(values).max())
    return largest * float((values / largest).std(ddof=1)) if largest else 0.0


def _among(moves: Array, present: NDArray[np.bool_]) -> Array:
    """Changes by the rows with a value → changes by all rows: a mean over a share of the rows changes by 1/share times as
    much."""
    out = np.zeros(len(present))
    out[present] = (moves - moves.mean()) / present.mean()
    return out


def _shares(x: NDArray[np.integer], y: NDArray[np.integer], count: int, plain: bool) -> _Difference:
    """Total variation of codes 0 … count − 1."""
    p, q = (np.bincount(each, minlength=count) / len(each) for each in (x, y))
    both = (len(x) * p + len(y) * q) / (len(x) + len(y))
    size, sign = _size(p - q, both, 1 / len(x) + 1 / len(y), plain), np.sign(p - q)
    return _Difference(float(size.sum()) / 2, sign[x] / 2, -sign[y] / 2)


def _transport(x: Array, y: Array, plain: bool) -> tuple[_Difference, float]:
    """W₁ in standard deviations of x, and the Kolmogorov–Smirnov distance."""
    # in units in which no squared deviation overflows or vanishes; halved first, because a difference may overflow too
    x, y = x / 2 - x[0] / 2, y / 2 - x[0] / 2
    unit = np.abs(x).max()
    x, y = x / unit, y / unit
    grid = np.sort(np.concatenate([x, y]))
    f, g = (np.searchsorted(np.sort(each), grid, side="right") / len(each) for each in (x, y))
    steps = np.diff(grid, append=grid[-1])
    both = (len(x) * f + len(y) * g) / (len(x) + len(y))
    far = float(_size(f - g, both, 1 / len(x) + 1 / len(y), plain) @ steps)
    # a row at t raises F by 1/n from t on
    beyond = np.cumsum((np.sign(f - g) * steps)[::-1])[::-1]
    moves_x, moves_y = (beyond[np.searchsorted(grid, each)] for each in (x, y))
    spread = float(x.std())
    widening = far / 2 * (np.square((x - x.mean()) / spread) - 1)
    return _Difference(far / spread, (moves_x - widening) / spread, -moves_y / spread), float(np.abs(f - g).max())


def _size(difference: Array, both: Array, weight: float, plain: bool) -> Array:
    """|D| minus its expectation at equal laws."""
    size = np.abs(difference)
    if plain:
        return size
    variance = both * (1 - both) * weight
    expected = 2 / math.sqrt(math.pi) * np.sqrt(variance) * np.exp(-np.square(size) / np.maximum(2 * variance, 1e-300))
    return size - expected


def _check(x: ArrayLike | Tensor, name: str) -> Array:
    array = numbers(x, name).astype(np.float64)
    if array.ndim != 2 or len(array) < 2 or array.shape[1] == 0:
        raise InputError(
            f"{name}: expected shape (rows, columns) with 2 rows or more and a column, got {array.shape}; give one row a record"
        )
    bad = np.argwhere(np.isinf(array))
    if len(bad):
        row, column = bad[0]
        raise InputError(
            f"{name}: row {row}, column {column} is {array[row, column]}, expected a number, or NaN where missing; repair the row"
        )
    return array
