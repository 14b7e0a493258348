"""What scikit-learn's callers hand over, as arrays of numbers; and steps, merged rows and weights of targets."""

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

# scikit-learn has no annotations; what a checker infers from its defaults is too narrow
sklearn_validate, sklearn_check = cast(Any, validate_data), cast(Any, check_array)

#: of a target: what can be squared
LARGEST = 1e150


def without_times(values: Any, name: str) -> Any:
    """The same, a tensor or a masked array as an array; InputError where any of it holds times, which numpy takes for whole
    numbers in a unit of its own."""
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
                f"{name}: expected numbers, got times ({kind}); give a number in a unit you choose, such as days since a start"
            )
    return values


def target_numbers(y: Any, *, infinite: bool = False) -> Array:
    """Targets as float64, NaN where missing, in arrays or frames, nullable or not; InputError where they are no numbers."""
    try:
        found = np.asarray(
            sklearn_check(
                without_times(y, "y"), dtype=np.float64, ensure_2d=False, input_name="y",
                ensure_all_finite=False if infinite else "allow-nan",
            )
        )  # fmt: skip
    except TypeError as error:
        raise InputError(f"y: expected numbers, got something else ({error}); give a number for each row") from error
    if infinite:  # of a distribution function, which is 0 or 1 that far out
        return found.clip(-LARGEST, LARGEST)
    large = np.abs(found[np.isfinite(found)]).max(initial=0.0)
    if large > LARGEST:
        raise InputError(f"y: the largest number is {large:.3g}, expected up to {LARGEST:g}; give y in another unit")
    return found


def far_row(y: Array, weights: Array, resolution: Array, floor: float) -> str:
    """Which row of y (n, d) is so far off that the least deviation, a share ``floor`` of that of y, is wider than a tenth of the
    middle half of the rows, whose steps ``resolution`` are wide; empty if none is."""
    for j, δ in enumerate(resolution):
        there = np.flatnonzero((weights > 0) & ~np.isnan(y[:, j]))
        values = y[there, j]
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        if floor * values.std() > 0.1 * max(high - low, δ) > 0:
            away = np.abs(values - middle)
            row = int(there[away.argmax()])
            return (
                f"y: row {row} is {y[row, j]:.6g}, far from the other rows, half of which lie between {low:.6g} and {high:.6g}"
                f"{f' in entry {j}' if len(resolution) > 1 else ''}: the network cannot tell those apart; leave the row out, or "
                "give y on another scale"
            )
    return ""


def writable(values: Any) -> Array:
    """The same numbers as torch takes them: in one piece, and free to be written to."""
    return np.require(values, requirements=["C", "W"])


def target_space(resolution: Array) -> Space:
    """The space of targets whose steps are ``resolution`` (d,)."""
    # every entry may be missing; the model takes gaps for no information
    return Space((len(resolution),), tuple(Column(resolution=float(δ), missing=True) for δ in resolution))


def target_steps(values: Array, asked: str | float, stored: np.dtype) -> tuple[float, float]:
    """(δ, a value on the lattice) of the values of one entry of y, which came as ``stored``; δ is 0 where they are points."""
    if isinstance(asked, str) and asked == "auto":
        found = lattice(values, stored if stored.kind == "f" else np.dtype(np.float64))
        return (found[1] / 10 ** found[0], found[2] / 10 ** found[0]) if found else (0.0, 0.0)
    if isinstance(asked, str | bool) or not isinstance(asked, int | float | np.number) or not 0 <= asked < math.inf:
        raise InputError(f"resolution: expected 'auto' or a step of 0 or more, got {asked!r}")
    return float(asked), float(values[0])


def merge_equal_rows(X: Array, y: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Rows in one order, equal ones as one with their weights added; none without weight, none without any y."""
    use = (weights > 0) & ~np.isnan(y).all(1)
    X, y, weights = X[use], y[use], weights[use]
    if len(X) < 2:
        raise InputError(f"{len(X)} rows with a weight and a y, expected 2 or more; give more rows")
    rows = np.concatenate([X, np.isnan(y), np.nan_to_num(y)], 1)
    _, first, which = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return X[first], y[first], np.bincount(which.reshape(-1), weights)
