"""Cells that a column of the rows learnt from cannot hold, as a generator may make them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
from pandas.api import types

from mixtura.contracts import ON_STEPS
from mixtura.data import dtypes
from mixtura.data.field import Field

#: levels of one column that are named
NAMED = 3


def counted(said: str, where: np.ndarray) -> str:
    """A statement on some rows, with their number."""
    count = int(where.sum())
    return f"{said} ({count:,} row{'s' * (count != 1)})"


def as_they_are(field: Field, series: pd.Series, settled: np.ndarray) -> np.ndarray:
    """The numbers of a column with steps, not moved to a step, except by rounding errors; ``settled``: moved to the steps."""
    raw = field.encode_unmoved(series)
    digits = max(_digits(series.dtype), _digits(dtypes.dtype(field.dtype)))
    with np.errstate(over="ignore", invalid="ignore"):
        moved = np.abs(raw - settled) > ON_STEPS * field.resolution + digits * (np.abs(raw) + np.abs(settled))
    return np.where(moved, raw, settled)


def _digits(dtype: Any) -> float:
    """The relative rounding error of numbers of this type."""
    return float(np.finfo(dtypes.precision(dtype)).eps) if types.is_float_dtype(dtype) else 2.0**-52


def impossible_cells(field: Field, series: pd.Series, values: np.ndarray, off: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(description, (n,) bool which rows) for every kind of value that the column cannot have; ``off``: the rows off its
    steps."""
    column = field.column
    if field.discrete:
        yield from never_seen(field, series, values)
        return
    half = column.resolution / 2
    ends = ((values < column.low - half, "below", column.low), (values > column.high + half, "above", column.high))
    for beyond, said, wall in ends:
        if beyond.any():
            yield f"column {field.name!r} {said} {_end(field, wall)}, where its values end", beyond
    # where real rows have a few values off the steps, others may
    if off.any() and not field.atoms_off_steps and not field.moved:
        yield f"column {field.name!r} off its steps", off


def never_seen(field: Field, series: pd.Series, codes: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(description, (n,) bool which rows) for the levels of a column, encoded as ``codes`` (n,), that are not among its
    labels."""
    unseen = codes == len(field.labels)
    held = cast(pd.Series, series[unseen]).astype(object).map(_shown)
    levels = held.value_counts().index.tolist() if unseen.any() else []
    for level in levels[:NAMED]:
        where = unseen.copy()
        where[unseen] = (held == level).to_numpy()
        yield f"column {field.name!r}, level {level} never seen", where
    if len(levels) > NAMED:
        where = unseen.copy()
        where[unseen] = (~held.isin(levels[:NAMED])).to_numpy()
        yield f"column {field.name!r}, {len(levels) - NAMED} more levels never seen", where


def _end(field: Field, wall: float) -> str:
    return f"{wall + field.offset:g}" if field.kind == "integer" else f"{wall:g}" if field.kind == "numeric" else "year 1 or 9999"


def _shown(value: Any) -> str:
    return repr(str(value)) if not isinstance(value, bool | int | float | np.generic) else str(value)


def differs(field: Field, series: pd.Series) -> bool:
    """Whether some cell is not what a constant column always holds."""
    if field.kind != "constant":
        return False
    if not field.labels:
        return bool(series.notna().any())
    return bool(series.isna().any()) or bool((as_level(field).encode(series) > 0).any())


def as_level(field: Field) -> Field:
    """A constant column as a categorical one with that level."""
    labels = field.labels
    if labels and field.dtype.startswith("datetime64"):
        labels = (str(pd.Timestamp(str(labels[0]))),)  # as cells.label writes it
    return replace(field, kind="categorical", labels=labels)


def as_constant(field: Field) -> str:
    """What a constant column holds, in words."""
    return f"always {_shown(field.labels[0])}" if field.labels else "always missing"
