"""Checks and conversions of X, y and weights, as scikit-learn's users pass them; resolution and merged rows of targets."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_array, validate_data
from torch import Tensor

from mixtura.contracts import Column, InputError, Space
from mixtura.data.lattice import lattice
from mixtura.data.memory import to_numpy

Array = NDArray[Any]

# scikit-learn has no annotations, and the types that a type checker infers from its default values are too narrow
sklearn_validate, sklearn_check = cast(Any, validate_data), cast(Any, check_array)

#: the largest absolute value of a target, so that it can be squared
LARGEST = 1e150


def without_times(values: Any, name: str) -> Any:
    """``values``, with tensors and masked arrays converted to arrays; InputError if they contain times, which numpy would convert
    to whole numbers in some unit."""
    if isinstance(values, Tensor):
        return to_numpy(values)
    if isinstance(values, np.ma.MaskedArray):
        return np.ma.filled(values.astype(np.float64), np.nan)
    kinds = getattr(values, "dtypes", getattr(values, "dtype", None))
    if kinds is None:
        kinds = np.asarray(values).dtype
    for kind in np.atleast_1d(np.asarray(kinds, dtype=object)):
        if getattr(kind, "kind", "") in ("m", "M"):
            raise InputError(
                f"{name}: expected numbers, got times ({kind}); give numbers in a unit you choose, such as days since a start"
            )
    return values


def target_numbers(y: Any, *, infinite: bool = False) -> Array:
    """Targets, given as an array or a frame, as float64 with NaN where missing; InputError if they are not numbers."""
    try:
        found = np.asarray(
            sklearn_check(
                without_times(y, "y"), dtype=np.float64, ensure_2d=False, input_name="y",
                ensure_all_finite=False if infinite else "allow-nan",
            )
        )  # fmt: skip
    except TypeError as error:
        raise InputError(f"y: expected numbers, got something else ({error}); give a number for each row") from error
    if infinite:  # for a distribution function, which is 0 or 1 that far out
        return found.clip(-LARGEST, LARGEST)
    large = np.abs(found[np.isfinite(found)]).max(initial=0.0)
    if large > LARGEST:
        raise InputError(f"y: the largest number is {large:.3g}, expected up to {LARGEST:g}; give y in another unit")
    return found


def far_row(y: Array, weights: Array, resolution: Array, floor: float) -> str:
    """A message that names a row of y (n, d) that is so far from the others that the least deviation, ``floor`` times the
    deviation of y, exceeds a tenth of the interquartile range (or of ``resolution``); empty if there is none."""
    for j, δ in enumerate(resolution):
        there = np.flatnonzero((weights > 0) & ~np.isnan(y[:, j]))
        values = y[there, j]
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        if floor * values.std() > 0.1 * max(high - low, δ) > 0:
            away = np.abs(values - middle)
            row = int(there[away.argmax()])
            return (
                f"y: row {row} is {y[row, j]:.6g}, far from the other rows, half of which lie between {low:.6g} and {high:.6g}"
                f"{f' in entry {j}' if len(resolution) > 1 else ''}: the network cannot resolve differences between those; leave "
                "the row out, or give y on another scale"
            )
    return ""


def writable(values: Any) -> Array:
    """The same numbers as a contiguous, writable array, which torch needs."""
    return np.require(values, requirements=["C", "W"])


def target_space(resolution: Array) -> Space:
    """The space of targets with steps ``resolution`` (d,)."""
    # every entry may be missing; the model ignores missing entries
    return Space((len(resolution),), tuple(Column(resolution=float(δ), missing=True) for δ in resolution))


def target_steps(values: Array, asked: str | float, stored: np.dtype) -> tuple[float, float]:
    """(δ, a value on the lattice) for the values of one entry of y, which were given as dtype ``stored``; δ = 0: no steps."""
    if isinstance(asked, str) and asked == "auto":
        found = lattice(values, stored if stored.kind == "f" else np.dtype(np.float64))
        return (found[1] / 10 ** found[0], found[2] / 10 ** found[0]) if found else (0.0, 0.0)
    if isinstance(asked, str | bool) or not isinstance(asked, int | float | np.number) or not 0 <= asked < math.inf:
        raise InputError(f"resolution: expected 'auto' or a step of 0 or more, got {asked!r}; 0 means no steps")
    return float(asked), float(values[0])


def merge_equal_rows(X: Array, y: Array, weights: Array) -> tuple[Array, Array, Array]:
    """The distinct rows in sorted order, with the weights of equal rows added; rows without a weight or without any y are left
    out."""
    use = (weights > 0) & ~np.isnan(y).all(1)
    X, y, weights = X[use], y[use], weights[use]
    if len(X) < 2:
        raise InputError(f"X and y: expected 2 or more rows with a weight above 0 and a y, got {len(X)}; give more rows")
    rows = np.concatenate([X, np.isnan(y), np.nan_to_num(y)], 1)
    _, first, number = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return X[first], y[first], np.bincount(number.reshape(-1), weights)
