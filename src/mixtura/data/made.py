"""Rows as they were made, and what of them the rows that a schema was learnt from cannot have.

``schema.encode`` moves a number to the nearest step of its column, which is right for rows of the same law. Of rows that a
generator made nothing may be mended before it is measured.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from pandas.api import types
from torch import Tensor

from mixtura.contracts import ON_STEPS, InputError, Note
from mixtura.data import dtypes
from mixtura.data.field import Field
from mixtura.data.images import ImageSchema
from mixtura.data.schema import Schema

#: levels of one column that are named
NAMED = 3


@dataclass(frozen=True)
class Made:
    """x: (n, *shape) float64 in tensor units: a code one past the last for a level never seen, numbers off their steps and
    beyond walls as they are. rows: (n,) bool, those with a value that learnt rows cannot have. kinds: what these values are,
    with the number of rows."""

    x: Tensor
    rows: np.ndarray
    kinds: tuple[str, ...]

    def told(self, name: str, whose: str) -> str:
        """One sentence that counts them; empty where there are none. whose: "real rows", "the rows it learnt from"."""
        n, count = len(self.rows), int(self.rows.sum())
        return f"{name}: {count:,} of {n:,} rows have values that {whose} cannot have: {'; '.join(self.kinds)}" if count else ""


def as_made(schema: Schema | ImageSchema, rows: Any, *, name: str = "data", holes: bool = False) -> Made:
    """Rows of a table or images, with nothing moved. InputError as ``schema.encode`` raises it; ``holes`` as there."""
    found: list[tuple[str, np.ndarray]] = []
    if isinstance(schema, ImageSchema):
        x, found = _pixels(schema, rows, name)
    else:
        x, frame = schema.encode(rows, holes=holes, name=name), schema.matched(rows, name)
        for j, field in enumerate(schema.modelled):
            series, settled = pd.Series(frame[field.name]), x[:, j].numpy()
            raw = _unmoved(field, series, settled) if field.step else settled
            off = ~np.isnan(settled) & (raw != settled)
            x[:, j] = torch.from_numpy(raw)
            found += _strange_cells(field, series, raw, off)
    odd = np.any([where for _, where in found], axis=0) if found else np.zeros(len(x), dtype=bool)
    return Made(x, odd, tuple(counted(*each) for each in found))


def strict(schema: Schema | ImageSchema, rows: Any, *, name: str = "data") -> Schema | ImageSchema:
    """The schema with those of its constant columns modelled, as one level, in which these rows hold something else: a column
    that differs counts as one."""
    if isinstance(schema, ImageSchema):
        return schema
    frame = schema.matched(rows, name)
    differing = {f.name for f in schema.fields if f.name in frame.columns and _differs(f, pd.Series(frame[f.name]))}
    fields = tuple(_as_level(f) if f.name in differing else f for f in schema.fields)
    return Schema(fields)


def wrong_constant(schema: Schema | ImageSchema, rows: Any, *, name: str = "data") -> str | None:
    """The first constant column in which rows hold something else, in words."""
    if isinstance(schema, ImageSchema):
        return None
    for field in cast(Schema, strict(schema, rows, name=name)).modelled:
        if field.kind == "categorical" and field not in schema.modelled:
            series = pd.Series(schema.matched(rows, name)[field.name]).reset_index(drop=True)
            codes = field.encode(series)
            said, where = next(_strange_cells(field, series, codes, codes < 0), ("missing", series.isna().to_numpy()))
            return f"{counted(said, where)}, where the data is {_as_constant(field)}"
    return None


def counted(said: str, where: np.ndarray) -> str:
    """What is so of some rows, with their number."""
    count = int(where.sum())
    return f"{said} ({count:,} row{'s' * (count != 1)})"


def header(frame: pd.DataFrame) -> list[str] | None:
    """The names of its columns; None where it has none of its own (x0, x1, …)."""
    names = [str(c) for c in frame.columns]
    return None if names == [f"x{j}" for j in range(len(names))] else names


def aligned(frame: pd.DataFrame, columns: list[str] | None, *, name: str, like: str) -> pd.DataFrame:
    """``frame`` with its columns in the order of ``columns``, as ``like`` has them; as it is where one of them has no header.
    InputError on a name that is missing; a :class:`Note` tells of those that are left out."""
    theirs = header(frame)
    if columns is None or theirs is None:
        return frame
    lacking = next((column for column in columns if column not in theirs), None)
    if lacking is not None:
        raise InputError(f"{name}: no column {lacking!r}, which {like} has; it has {', '.join(theirs[:12])}; rename its columns")
    more = [column for column in theirs if column not in columns]
    if more:
        said = f"column{'s' * (len(more) > 1)} {', '.join(map(repr, more[:12]))}"
        warnings.warn(f"{name}: {said}, which {like} has not, left out", Note, stacklevel=2)
    return cast(pd.DataFrame, frame[columns])


# --------------------------------------------------------------------------------------------------------- columns


def _unmoved(field: Field, series: pd.Series, settled: np.ndarray) -> np.ndarray:
    """The numbers of a column with steps as they are, but for rounding errors; ``settled`` as the schema moved them."""
    raw = field.measured(series)
    digits = max(_digits(series.dtype), _digits(dtypes.dtype(field.dtype)))
    with np.errstate(over="ignore", invalid="ignore"):
        moved = np.abs(raw - settled) > ON_STEPS * field.resolution + digits * (np.abs(raw) + np.abs(settled))
    return np.where(moved, raw, settled)


def _digits(dtype: Any) -> float:
    """The relative rounding error of numbers of this type."""
    return float(np.finfo(dtypes.precision(dtype)).eps) if types.is_float_dtype(dtype) else 2.0**-52


def _strange_cells(field: Field, series: pd.Series, values: np.ndarray, off: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(what, (n,) bool) of every kind of value that the column cannot have; ``off``: which are off its steps."""
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
    if off.any() and not field.apart and not field.moved:
        yield f"column {field.name!r} off its steps", off


def never_seen(field: Field, series: pd.Series, codes: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(what, (n,) bool) of the levels of a column, encoded as ``codes`` (n,), that are not among its labels."""
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


# ------------------------------------------------------------------------------------------------------- constants


def _differs(field: Field, series: pd.Series) -> bool:
    if field.kind != "constant":
        return False
    if not field.labels:
        return bool(series.notna().any())
    return bool(series.isna().any()) or bool((_as_level(field).encode(series) > 0).any())


def _as_level(field: Field) -> Field:
    labels = field.labels
    if labels and field.dtype.startswith("datetime64"):
        labels = (str(pd.Timestamp(str(labels[0]))),)  # as cells.label writes it
    return replace(field, kind="categorical", labels=labels)


def _as_constant(field: Field) -> str:
    return f"always {_shown(field.labels[0])}" if field.labels else "always missing"


# ---------------------------------------------------------------------------------------------------------- images


def _pixels(schema: ImageSchema, rows: Any, name: str) -> tuple[Tensor, list[tuple[str, np.ndarray]]]:
    x, found = schema.encode(rows, name=name), []
    if schema.step:
        raw = replace(schema, step=0.0).encode(rows, name=name)
        x = torch.where((raw - x).abs() > ON_STEPS * (schema.step + raw.abs()), raw, x)
        off, half = (x - schema.encode(rows, name=name)).abs() > 0, schema.step / 2
        beyond = (x < schema.low - half) | (x > schema.high + half)
        levels = f"{schema.low:g}..{schema.high:g}"
        for where, said in ((beyond, f"pixels beyond their levels {levels}"), (off, f"pixels between their levels {levels}")):
            if where.any():
                found.append((said, where.flatten(1).any(1).numpy()))
    return x, found
