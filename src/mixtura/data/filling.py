"""A column that a person gave, with its missing cells filled by drawn ones; every other cell stays as it was given."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd
from pandas.api import types

from mixtura.data import cells, datetimes, numerals
from mixtura.data.field import Field

#: dtype → dtypes that hold cells which it cannot: missing ones, fractions
_ROOMIER = {"int64": ("Int64", "float64"), "Int64": ("float64",), "bool": ("boolean",)}


def fill_column(field: Field, given: pd.Series, holes: np.ndarray, done: np.ndarray, drawn: pd.Series) -> pd.Series:
    """The column ``given`` (n,) with its ``holes`` (n,) bool filled: ``drawn`` (m,) holds cells for the rows ``done`` (m,).

    The other cells stay as they are, except that text which is a number becomes that number. The dtype is that of ``drawn`` if it
    holds all cells, else a wider one; a column without holes is returned as it is.
    """
    if not holes.any():
        return given
    if types.is_datetime64_any_dtype(given.dtype) and not types.is_datetime64_any_dtype(drawn.dtype):
        drawn = _dates(drawn, field.pattern).astype(given.dtype)
    if field.pattern and field.kind != "datetime" and types.is_numeric_dtype(given.dtype):  # learnt as text in a style of its own
        drawn = pd.Series(numerals.numbers(drawn, field.pattern))
    ours, wording = _given_cells(field, cast(pd.Series, given[~holes]), drawn.dtype)
    values = np.full(len(given), None, dtype=object)
    values[~holes] = ours
    new = holes[done]
    fresh = [wording.get(cell, cell) for cell in drawn[new].astype(object)]
    values[done[new]] = np.array([*fresh, None], dtype=object)[:-1]
    gone = np.array(pd.isna(values), dtype=bool)
    values[gone] = None
    able: list[Any] = [drawn.dtype, *_ROOMIER.get(str(drawn.dtype), ())]
    able += ["category"] * isinstance(drawn.dtype, pd.CategoricalDtype)
    for dtype in able:
        try:
            out = pd.Series(values, index=given.index, name=given.name, dtype=object).astype(dtype)
        except (TypeError, ValueError, OverflowError):
            continue
        if list(out[~gone]) == list(values[~gone]) and bool(pd.isna(out[gone]).all()):
            return out
    return pd.Series(values, index=given.index, name=given.name, dtype=object)


def _given_cells(field: Field, present: pd.Series, like: Any) -> tuple[np.ndarray, dict[Any, Any]]:
    """The cells that are not missing, as instants where the dtype ``like`` is; and label → how the cells write it, where they
    write it in another way."""
    if isinstance(present.dtype, pd.CategoricalDtype):
        present = present.astype(present.cat.categories.dtype)
    where, distinct = pd.factorize(present)
    wording: dict[Any, Any] = {}
    if field.discrete:
        seen = cells.codes(pd.Series(distinct), field.labels) if len(distinct) else []
        each: list[Any] = []
        if all(isinstance(cell, bool) for cell in map(cells.label, distinct)):  # labels written "True"
            truths = [(label, cell) for label in field.labels for cell in (False, True)]
            wording = {label: cell for label, cell in truths if label != cell and cells.written_alike(cell, label)}
        for cell, code in zip(map(cells.label, distinct), seen, strict=True):
            label = field.labels[code] if code < len(field.labels) else cell
            if not cells.written_alike(cell, label):
                wording[label] = cell
            each.append(wording.get(label, label))
    elif field.kind == "datetime":
        each = list(_dates(pd.Series(distinct), field.pattern) if types.is_datetime64_any_dtype(like) else distinct)
    else:
        each = [cell if field.pattern else _number(cell) for cell in distinct]
    return np.array([*each, None], dtype=object)[where], wording


def _number(cell: Any) -> Any:
    """A cell of a column of numbers as a number; other text as it is."""
    if not isinstance(cell, str):
        return cell
    if (plain := numerals.number(cell)) is not None:
        return plain
    found = numerals.numbers(pd.Series([cell]))
    return cell if found is None else found.tolist()[0]


def _dates(texts: pd.Series, pattern: str) -> pd.Series:
    """Dates written as text, as instants; other text as it is."""
    seen = datetimes.instants(texts, pattern)
    if seen is None:
        return texts
    instants = pd.Series(seen.ticks.view(f"M8[{seen.unit}]"), index=texts.index)
    return instants.dt.tz_localize("UTC") if seen.aware else instants
