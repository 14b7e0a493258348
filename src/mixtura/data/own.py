"""A person's own cells, beside cells that were drawn."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd
from pandas.api import types

from mixtura.data import cells, datetimes, numerals
from mixtura.data.field import Field

#: types that hold numbers, or gaps, which another does not
_ROOMIER = {"int64": ("Int64", "float64"), "Int64": ("float64",), "bool": ("boolean",)}


def beside(field: Field, given: pd.Series, holes: np.ndarray, done: np.ndarray, drawn: pd.Series) -> pd.Series:
    """The column ``given`` (n,) with its ``holes`` (n,) bool filled in the rows with the numbers ``done`` (m,), whose cells were
    ``drawn`` (m,). Every other cell is what it was; text that says a number is that number. In the type of what was drawn, if
    it holds them all; a column without holes in its own."""
    if not holes.any():
        return given
    if types.is_datetime64_any_dtype(given.dtype) and not types.is_datetime64_any_dtype(drawn.dtype):
        drawn = _dates(drawn, field.pattern).astype(given.dtype)
    if field.pattern and field.kind != "datetime" and types.is_numeric_dtype(given.dtype):  # learnt as text in a style of its own
        drawn = pd.Series(numerals.numbers(drawn, field.pattern))
    ours, wording = _own(field, cast(pd.Series, given[~holes]), drawn.dtype)
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


def _own(field: Field, present: pd.Series, like: Any) -> tuple[np.ndarray, dict[Any, Any]]:
    """The cells that are there, as instants where those ``like`` them are; and, where they are written otherwise than labels,
    label → how they write it."""
    if isinstance(present.dtype, pd.CategoricalDtype):
        present = present.astype(present.cat.categories.dtype)
    where, distinct = pd.factorize(present)
    wording: dict[Any, Any] = {}
    if field.discrete:
        seen = cells.codes(pd.Series(distinct), field.labels) if len(distinct) else []
        each: list[Any] = []
        if all(isinstance(cell, bool) for cell in map(cells.label, distinct)):  # which "True" is written like
            truths = [(label, cell) for label in field.labels for cell in (False, True)]
            wording = {label: cell for label, cell in truths if label != cell and cells.alike(cell, label)}
        for cell, code in zip(map(cells.label, distinct), seen, strict=True):
            label = field.labels[code] if code < len(field.labels) else cell
            if not cells.alike(cell, label):
                wording[label] = cell
            each.append(wording.get(label, label))
    elif field.kind == "datetime":
        each = list(_dates(pd.Series(distinct), field.pattern) if types.is_datetime64_any_dtype(like) else distinct)
    else:
        each = [cell if field.pattern else _number(cell) for cell in distinct]
    return np.array([*each, None], dtype=object)[where], wording


def _number(cell: Any) -> Any:
    """A cell of a column of numbers as a number, where it is one."""
    if not isinstance(cell, str):
        return cell
    if (plain := numerals.number(cell)) is not None:
        return plain
    found = numerals.numbers(pd.Series([cell]))
    return cell if found is None else found.tolist()[0]


def _dates(texts: pd.Series, pattern: str) -> pd.Series:
    """Dates that are written as text, as instants; what says something else as it is."""
    seen = datetimes.instants(texts, pattern)
    if seen is None:
        return texts
    instants = pd.Series(seen.ticks.view(f"M8[{seen.unit}]"), index=texts.index)
    return instants.dt.tz_localize("UTC") if seen.aware else instants
