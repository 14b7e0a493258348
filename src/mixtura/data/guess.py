"""What the columns of a table mean, guessed from their cells, or as a person says it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pandas as pd
from pandas.api import types

from mixtura.contracts import InputError
from mixtura.data import cells, datetimes, dtypes, hints, lattice, numerals
from mixtura.data.cells import Label
from mixtura.data.field import Field, Kind, first_without_instant, numbers_of, refuse_infinite, refuse_nested, uncategorised
from mixtura.data.lattice import with_range_and_atoms
from mixtura.data.names import closest, listed, named
from mixtura.data.schema import Schema
from mixtura.ground.shown import kind_of

LEAST_ROWS = 20

#: labels of a column, at most: every model computes a number for each of them and each row
MOST_LEVELS = 4_096

#: whole numbers with at most this many distinct values are ordinal
FEW = 10

#: a column of text with at most this share of cells that are not numbers is a column of numbers with faults
MOST_ODD = 0.5

_SCALARS = ("string", "boolean", "integer", "floating", "decimal", "mixed-integer-float", "mixed-integer", "mixed")

_ROW_NUMBER = {"id", "ids", "index", "idx", "row", "rows", "rownum", "unnamed"}

Bounds = tuple[float | None, float | None]


def guess(
    frame: pd.DataFrame, *, kinds: Mapping[str, Kind] | None = None, columns: Iterable[str] | None = None,
    bounds: Mapping[str, Bounds] | None = None,
) -> Schema:  # fmt: skip
    """The schema of ``frame``. ``kinds`` overrides the kind of a column, ``columns`` keeps only those, ``bounds`` says where
    the values of a column of numbers end, None on a side without an end. Where no value is negative they end at 0.

    A column of one value is constant. Text written wholly as numbers or dates, as people write them, is read as such; words for
    missing are missing there (:mod:`mixtura.data.cells`). Whole numbers are ordinal with at most 10 distinct values, else
    integer; two-valued truth is boolean; other text is categorical unless nearly every text is different. What cannot be
    modelled is dropped, with its reason. Raises InputError for fewer than 20 rows, no usable column, repeated or unknown column
    names, nested cells, infinite numbers, and a kind or bounds that the cells do not fit.
    """
    frame = named(frame).reset_index(drop=True)
    kinds, bounds = dict(kinds or {}), dict(bounds or {})
    chosen = set(frame.columns if columns is None else columns)
    for column in (*sorted(chosen), *kinds, *bounds):
        if column not in frame.columns:
            there = listed(frame.columns, 100)
            raise InputError(f"no column {column!r}{closest(column, frame.columns)}; the table has {there}")
    for column, kind in kinds.items():
        if kind not in get_args(Kind) or kind == "constant":
            expected = ", ".join(k for k in get_args(Kind) if k != "constant")
            raise InputError(f"column {column!r}: kind {kind!r} is unknown; expected {expected}")
    if len(frame) < LEAST_ROWS:
        raise InputError(f"learning needs at least {LEAST_ROWS} rows; got {len(frame)}")
    for column, (low, high) in bounds.items():
        if (low is None and high is None) or any(end is not None and not math.isfinite(end) for end in (low, high)):
            got = "none" if low is None and high is None else f"{low}:{high}"
            raise InputError(f"bounds: of {column!r}, expected one or two finite numbers, got {got}; write {column}=0:120")
        if low is not None and high is not None and not low < high:
            raise InputError(f"bounds: {column}={low:g}:{high:g} ends before it begins; give the lower end first")
    stored = {name: kept for name, kept in frame.attrs.get(dtypes.STORED, {}).items() if isinstance(kept, str)}
    fields = tuple(
        _guess_field(series, kinds.get(str(c)), bounds.get(str(c), (None, None)), stored.get(c, ""))
        for c, series in frame.items() if c in chosen
    )  # fmt: skip
    if not any(f.modelled for f in fields):
        said = "; ".join(f.reason or f"{f.name}: {f.detail}" for f in fields)
        raise InputError(f"no column is left to model ({said}); give a table with a column that varies")
    return Schema(fields)


def _guess_field(series: pd.Series, kind: Kind | None, bounds: Bounds, stored: str) -> Field:
    field = _guess_kind(series, kind, bounds, stored)
    if bounds != (None, None) and field.kind not in ("numeric", "integer", "constant", "dropped"):
        remedy = "leave them out" if field.kind == "datetime" else f"leave them out, or add {kind_of(field.name, 'integer')}"
        raise InputError(f"bounds: {field.name!r} is {field.kind}, and only numbers have bounds; {remedy}")
    return replace(field, unseen=1 / (len(series) - field.absent + 2)) if field.discrete else field


def _guess_kind(series: pd.Series, kind: Kind | None, bounds: Bounds, stored: str) -> Field:
    present = dtypes.plain(series.dropna())
    refuse_nested(present)
    if kind not in ("categorical", "dropped"):
        rest = cells.drop_missing_words(present)
        present = rest if kind is not None or len(rest) == len(present) or _more_than_labels(rest) else present
    absent, dtype = len(series) - len(present), dtypes.name_of(series, present)
    field = Field(str(series.name), "dropped", dtype=dtype, stored=stored, absent=absent, bounds=bounds)
    distinct = present.nunique()
    if kind == "dropped":
        return replace(field, reason=f"{field.name}: left out as asked")
    if distinct == 0 or (distinct == 1 and not field.absent):
        return replace(field, kind="constant", labels=tuple(map(_verbatim, present[:1])))
    present = uncategorised(present) if kind not in (None, "categorical", "ordinal") else present
    if kind is not None:
        return _few_enough(_ASKED[kind](field, present), asked=True)
    if isinstance(present.dtype, pd.CategoricalDtype):
        return _few_enough(_ordinal(field, present) if present.dtype.ordered else _categorical(field, present))
    if types.infer_dtype(present) == "boolean" or _truth_in_text(present):
        return _boolean(field, present)
    if (values := numerals.numbers(present)) is not None:
        return _guess_number(field, present, values)
    if datetimes.instants(present) is not None:
        return _datetime(field, present)
    if (says := types.infer_dtype(present)) not in _SCALARS:
        return replace(
            field, reason=f"{field.name}: holds {says} values, which are not modelled; convert them to numbers or text"
        )
    return _few_enough(_guess_text(field, present, distinct, len(series)))


def _more_than_labels(present: pd.Series) -> bool:
    """Whether all cells are numbers, dates or truth values."""
    truth = len(present) > 0 and (types.infer_dtype(present) == "boolean" or _truth_in_text(present))
    return truth or (len(present) > 0 and (numerals.numbers(present) is not None or datetimes.instants(present) is not None))


def _few_enough(field: Field, *, asked: bool = False) -> Field:
    """``field``, or a dropped column with the reason if its labels are too many or too long to be modelled (an InputError if the
    kind was ``asked`` for)."""
    characters = sum(len(label) for label in field.labels if isinstance(label, str))
    if len(field.labels) <= MOST_LEVELS and characters <= cells.MOST_CHARACTERS:
        return field
    many = f"{len(field.labels):,} levels, more than the {MOST_LEVELS:,}"
    long = f"labels of {characters:,} characters, more than the {cells.MOST_CHARACTERS:,}"
    what = many if len(field.labels) > MOST_LEVELS else long
    if asked:
        raise InputError(f"column {field.name!r} has {what} that can be modelled; join rare ones, or leave the column out")
    reason = f"{field.name}: {what} that can be modelled; join rare ones to keep it"
    return Field(field.name, "dropped", dtype=field.dtype, absent=field.absent, bounds=field.bounds, reason=reason)


def _verbatim(value: Any) -> Label:
    return value.isoformat() if isinstance(value, pd.Timestamp) else cells.label(value)


def _truth_in_text(present: pd.Series) -> bool:
    pairs = ({"True", "False"}, {"true", "false"}, {"TRUE", "FALSE"})
    return types.infer_dtype(present) == "string" and set(present.unique()) in pairs


def _guess_number(field: Field, present: pd.Series, values: np.ndarray) -> Field:
    if not _whole(refuse_infinite(present, values)):
        return _numeric(field, present)
    distinct = np.unique(values)
    if len(distinct) <= FEW:
        return _ordinal(field, present)
    if int(distinct[-1]) - int(distinct[0]) > dtypes.EXACT:
        why = "whole numbers spread over more than 2^53, too far apart to tell from one another in float64"
        return replace(field, reason=f"{field.name}: {why}; {kind_of(field.name, 'categorical')} or =numeric keeps it")
    if datetimes.are_days(distinct):
        why = f"whole numbers that are all dates, as {distinct[0]} is; write them as 2024-12-31"
        return replace(field, reason=f"{field.name}: {why}, or {kind_of(field.name, 'integer')} keeps them as numbers")
    words = {w.lower() for w in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", field.name)}
    if words & _ROW_NUMBER and not field.absent and (np.diff(values) > 0).all():
        return replace(field, reason=f"{field.name}: counts the rows; {kind_of(field.name, 'integer')} keeps it")
    return _integer(field, present)


def _guess_text(field: Field, present: pd.Series, distinct: int, rows: int) -> Field:
    keeps = f"{kind_of(field.name, 'categorical')} keeps it"
    if why := hints.why_not(present):
        return replace(field, reason=f"{field.name}: {why}; {keeps}")
    words = {str(value).lower() for value in present.unique()}
    if words <= {"true", "false", "0", "1"} and {"true", "false"} & words and {"0", "1"} & words:
        return replace(field, reason=f"{field.name}: truth in words and as 0 and 1; write all cells alike, or {keeps}")
    of_cell, texts = dtypes.distinct_texts(present)
    odd_text = np.array([not hints.looks_like_number(text) for text in texts])
    odd = present.index[odd_text[of_cell]]
    if all(hints.is_code(text) for text, is_odd in zip(texts, odd_text, strict=True) if is_odd):
        odd = []  # such as postal codes: these cells are not numbers, but they are not errors either
    if distinct > numerals.FEW_TEXTS and 0 < len(odd) <= MOST_ODD * len(present):
        why = f"{len(present) - len(odd)} of {len(present)} texts are numbers, but row {odd[0]} is {present[odd[0]]!r}"
        return replace(field, reason=f"{field.name}: {why}; empty such cells, or {keeps}")
    if distinct > max(numerals.FEW_TEXTS, min(1000, rows // 5)):
        code = next((text for text in map(str, present) if hints.is_code(text)), None)
        if code is not None:
            why = f"{distinct} different texts in {rows} rows, codes such as {code!r}"
            return replace(field, reason=f"{field.name}: {why}; {keeps}")
        if shape := hints.form(present):
            why = f"{distinct} different texts such as {shape!r}, neither numbers nor dates as they are read"
            return replace(field, reason=f"{field.name}: {why}; write them as 1234.5 or 2024-12-31 if they are, or {keeps}")
        why = f"{distinct} different texts in {rows} rows, looks like an identifier"
        return replace(field, reason=f"{field.name}: {why}; {keeps}")
    return _categorical(field, present)


def _whole(values: np.ndarray) -> bool:
    return values.dtype.kind != "f" or bool((np.abs(values) <= dtypes.EXACT).all() and (values == np.rint(values)).all())


def _numeric(field: Field, present: pd.Series) -> Field:
    values = numbers_of(present).astype(np.float64)
    stored = dtypes.precision(present.dtype) if types.is_float_dtype(present.dtype) else np.dtype(np.float64)
    found = lattice.lattice(values, stored)
    decimals, step, offset = found or (0, 0, 0)
    dtype = _number_dtype(field, present)
    pattern = numerals.number_pattern(present)
    if found is None and not pattern and types.is_integer_dtype(dtypes.dtype(dtype)):
        dtype = "float64"  # whole numbers past 2^53, which the person asked to round
    field = replace(field, kind="numeric", dtype=dtype, decimals=decimals, step=step, offset=offset, pattern=pattern)
    _within(field, present, values)
    low, high = field.bounds
    low = 0.0 if low is None and values.min() >= 0 else low
    if held := dtypes.digits_held(field.stored or field.dtype):
        most = (10 ** held[0] - 1) / 10 ** held[1]
        low, high = (-most if low is None else low), (most if high is None else high)
    field = replace(field, ends=(low, high))
    if step:  # the outermost steps within the bounds
        if low is not None:
            low = float(field.on_lattice(np.ceil((low * 10.0**decimals - offset) / step - 1e-9)))
        if high is not None:
            high = float(field.on_lattice(np.floor((high * 10.0**decimals - offset) / step + 1e-9)))
    return with_range_and_atoms(replace(field, floor=low, ceiling=high), values, field.nearest(values), stored)


def _within(field: Field, present: pd.Series, values: np.ndarray) -> None:
    low, high = (end if end is not None else side * math.inf for end, side in zip(field.bounds, (-1, 1), strict=True))
    beyond = (values < low) | (values > high)
    if beyond.any():
        row = present.index[int(beyond.argmax())]
        raise InputError(
            f"column {field.name!r}, row {row} is {present[row]}, beyond its bounds {field.bounds_text}; "
            "repair the cell, or widen the bounds"
        )


def _integer(field: Field, present: pd.Series) -> Field:
    values = numbers_of(present)
    if not _whole(values):
        row = present.index[int((values != np.rint(values)).argmax())]
        raise InputError(
            f"column {field.name!r}, row {row} is {present[row]}, expected a whole number; use {kind_of(field.name, 'numeric')}"
        )
    exact = values if values.dtype.kind != "f" else values.astype(np.int64)
    distinct, counts = np.unique(exact, return_counts=True)
    first, last = int(distinct[0]), int(distinct[-1])
    if last - first > dtypes.EXACT:
        raise InputError(
            f"column {field.name!r}: whole numbers spread over more than 2^53 do not fit float64; "
            f"use {kind_of(field.name, 'numeric')} to round them, or =categorical"
        )
    _within(field, present, exact)
    step, offset = lattice.steps(distinct, counts)
    pattern = numerals.number_pattern(present)
    field = replace(field, kind="integer", dtype=_number_dtype(field, present), step=step, offset=offset, pattern=pattern)
    low, high = field.bounds
    least, most = _limits(field)
    low = math.ceil(low) if low is not None else 0 if first >= 0 else least
    high = math.floor(high) if high is not None else most
    if least is not None and most is not None:
        low, high = (min(max(end, least), most) for end in (least if low is None else low, most if high is None else high))
    # whole steps from the offset; a limit that float64 cannot tell from its neighbours is dropped
    down = None if low is None else (offset - low) // step * step
    up = None if high is None else (high - offset) // step * step
    floor, ceiling = (None if k is None or k > dtypes.EXACT else float(k) for k in (down, up))
    field = replace(field, ends=(low, high), floor=None if floor is None else 0.0 - floor, ceiling=ceiling)
    apart = (exact - offset).astype(np.float64)
    return with_range_and_atoms(field, apart, np.rint(apart / step) * step)


def _limits(field: Field) -> tuple[int | None, int | None]:
    """The least and the largest whole number that the type of a column can hold; None where it has no limits."""
    if held := dtypes.digits_held(field.stored or field.dtype):
        most = 10 ** (held[0] - held[1]) - 1
        return -most, most
    stored = dtypes.dtype(field.dtype)
    if not types.is_integer_dtype(stored):
        return None, None
    ends = np.iinfo(dtypes.precision(stored))
    return int(ends.min), int(ends.max)


def _number_dtype(field: Field, present: pd.Series) -> str:
    """The dtype that numbers decode to: their own, or, of text and objects, that of numbers; text again if it has a style of its
    own."""
    if numerals.number_pattern(present):
        return "str" if types.is_string_dtype(present.dtype) and not types.is_object_dtype(present.dtype) else "object"
    if types.is_numeric_dtype(dtypes.dtype(field.dtype)) or field.dtype.startswith("decimal("):
        return field.dtype
    values = numbers_of(present)
    if values.dtype.kind == "f":
        return "float64"
    if values.dtype == object:
        return "object"
    return "Int64" if field.absent else "int64"


def _datetime(field: Field, present: pd.Series) -> Field:
    seen = datetimes.instants(present)
    if seen is None:
        if why := hints.why_not(present):
            raise InputError(f"column {field.name!r} holds {why}, or use {kind_of(field.name, 'categorical')}")
        row = first_without_instant(present)
        raise InputError(
            f"column {field.name!r}, row {row} is {str(present[row])!r}, expected dates all written alike, as in "
            f"2024-12-31 or 2024-12-31 23:59:59; rewrite the column or use {kind_of(field.name, 'categorical')}"
        )
    distinct, counts = np.unique(seen.ticks, return_counts=True)
    step, offset = lattice.steps(distinct, counts)
    if (int(distinct[-1]) - int(distinct[0])) // step > dtypes.EXACT:
        return replace(field, reason=f"{field.name}: more than 2^53 {seen.unit} between its dates; round them to a coarser unit")
    dtype = f"datetime64[{seen.unit}, UTC]" if seen.aware else f"datetime64[{seen.unit}]"
    if field.dtype == "date" or field.dtype.endswith("[pyarrow]"):
        dtype = field.dtype
    elif seen.pattern or types.is_datetime64_any_dtype(present.dtype):
        dtype = str(present.dtype)
    # years of four digits, within what the unit can count
    ends = [int(np.datetime64(year, "s").astype(np.int64)) * datetimes.UNITS[seen.unit] for year in ("0001-01-01", "9999-12-31")]
    least, most = max(ends[0], -(2**63) + 1), min(ends[1], 2**63 - 1)
    down, up = ((offset - least) // step, (most - offset) // step)
    field = replace(
        field, kind="datetime", dtype=dtype, step=step, offset=offset, unit=seen.unit, pattern=seen.pattern, ends=(least, most),
        floor=-float(down) if down <= dtypes.EXACT else None, ceiling=float(up) if up <= dtypes.EXACT else None,
    )  # fmt: skip
    ticks = seen.ticks.astype(object) - offset
    k = ((2 * ticks + step) // (2 * step)).astype(np.float64)
    ranged = with_range_and_atoms(field, np.where(ticks % step == 0, k, (ticks / step).astype(np.float64)), k)
    exact = {float(t - offset) / step: int(t) for t in distinct[(distinct - offset) % step != 0]}
    return replace(ranged, exact=tuple(exact[atom] for atom in ranged.atoms_off_steps))


def _boolean(field: Field, present: pd.Series) -> Field:
    labels = _sorted_labels(present)
    if len(labels) > 2:
        raise InputError(
            f"column {field.name!r} has {len(labels)} different values, expected two; use {kind_of(field.name, 'categorical')}"
        )
    return replace(field, kind="boolean", labels=labels)


def _categorical(field: Field, present: pd.Series) -> Field:
    if isinstance(present.dtype, pd.CategoricalDtype):
        used = present.cat.remove_unused_categories().cat.categories
        return replace(field, kind="categorical", labels=tuple(map(cells.label, used)))
    return replace(field, kind="categorical", labels=_sorted_labels(present), dtype=_label_dtype(field, present))


def _ordinal(field: Field, present: pd.Series) -> Field:
    if isinstance(present.dtype, pd.CategoricalDtype) and present.dtype.ordered:
        return replace(field, kind="ordinal", labels=tuple(map(cells.label, present.cat.categories)))
    values = numerals.numbers(uncategorised(present))
    if values is None:
        raise InputError(
            f"column {field.name!r}: its texts have no order, expected numbers or an ordered pandas Categorical; "
            f"use {kind_of(field.name, 'categorical')}"
        )
    present, distinct = uncategorised(present), np.unique(refuse_infinite(present, values))
    pattern = numerals.number_pattern(present)
    labels = tuple(numerals.write_numbers(distinct, pattern) if pattern else map(cells.label, distinct))
    return replace(field, kind="ordinal", labels=labels, dtype=_number_dtype(field, present), pattern=pattern)


def _sorted_labels(present: pd.Series) -> tuple[Label, ...]:
    return tuple(sorted({cells.label(v) for v in pd.factorize(present)[1]}, key=lambda v: (isinstance(v, str), v)))


def _label_dtype(field: Field, present: pd.Series) -> str:
    """The dtype that labels decode to: text where the cells are no plain Python data."""
    distinct = pd.factorize(present)[1]
    plain = types.infer_dtype(present) in _SCALARS and all(isinstance(v, Label | np.generic) for v in distinct)
    return field.dtype if plain else "str"

_ASKED: dict[str, Callable[[Field, pd.Series], Field]] = {
    "numeric": _numeric,
    "integer": _integer,
    "boolean": _boolean,
    "categorical": _categorical,
    "ordinal": _ordinal,
    "datetime": _datetime,
}
