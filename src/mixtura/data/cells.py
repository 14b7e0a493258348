"""What the cells of a column say, exactly: whole numbers, real numbers, instants, labels.

Every function takes the cells that are there (a Series without missing values) and answers None when they
say something else, so that a caller may ask one after the other. Text is read once per distinct text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

Label = str | int | float | bool

#: ticks per second of the units pandas keeps dates in
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
#: whole numbers up to here are exact in float64
EXACT = 2**53

# A leading zero ("007") is not how a number is written: it is a code, and its zeros matter.
_WHOLE = re.compile(r"\s*-?(?:0|[1-9][0-9]{0,999})\s*")
_REAL = re.compile(
    r"\s*(?:-?(?:(?:0|[1-9][0-9]{0,999})(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?|[+-]?inf(?:inity)?)\s*", re.IGNORECASE
)
_INSTANT = re.compile(
    r"([0-9]{4})([-/])([0-9]{2})\2([0-9]{2})"
    r"(?:([T ])([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)


def is_number(text: str) -> bool:
    """Whether a text is how a number is written ("39.10", "-3", "1e-4", "inf"; not "007")."""
    return _REAL.fullmatch(text) is not None


def numbers(present: pd.Series) -> np.ndarray | None:
    """Whole cells as int64 (Python ints in an object array beyond it), other numbers as float64."""
    dtype = present.dtype
    if types.is_bool_dtype(dtype):
        return None
    if types.is_integer_dtype(dtype):
        return _narrow(present.to_numpy(dtype=precision(dtype)))
    if types.is_float_dtype(dtype):
        return present.to_numpy(dtype=np.float64)
    if types.is_object_dtype(dtype) or types.is_string_dtype(dtype):
        says = types.infer_dtype(present)
        if says == "integer":
            return _narrow(np.array([int(v) for v in present], dtype=object))
        if says in ("floating", "mixed-integer-float"):
            return floats(present)
        if says in ("string", "decimal"):
            return _read_numbers(present)
    return None


def floats(values: Iterable[Any]) -> np.ndarray:
    """Numbers as float64; whole ones that it does not reach are infinite."""
    return np.array([_float(v) for v in values], dtype=np.float64)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _read_numbers(present: pd.Series) -> np.ndarray | None:
    codes, texts = _distinct(present)
    if all(map(_WHOLE.fullmatch, texts)):
        return _narrow(np.array([int(t) for t in texts], dtype=object)[codes])
    if all(map(_REAL.fullmatch, texts)):
        return np.array([float(t) for t in texts])[codes]
    return None


def _narrow(values: np.ndarray) -> np.ndarray:
    fits = len(values) == 0 or (-(2**63) <= int(values.min()) <= int(values.max()) < 2**63)
    return values.astype(np.int64 if fits else object)


def _distinct(present: pd.Series) -> tuple[np.ndarray, list[str]]:
    codes, values = pd.factorize(present)
    return codes, [str(v) for v in values]


def precision(dtype: Any) -> np.dtype:
    """The numpy dtype a numeric column is stored in (nullable, Arrow and sparse columns included)."""
    return np.dtype(dtype.subtype if isinstance(dtype, pd.SparseDtype) else getattr(dtype, "numpy_dtype", dtype))


#: of the values of a column that is written in steps, at least this share lies on them
ON_STEPS = 0.999
#: factors of a step that a few values off it can hide: its primes
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23)


def lattice(values: np.ndarray, stored: np.dtype) -> tuple[int, int, int] | None:
    """(decimals, step, origin): ``ON_STEPS`` of the values are (origin + k·step) / 10^decimals for a whole k, with the largest
    such step and the fewest decimals; None if there is none of at most 6 decimals.

    A float counts as written with d decimals if it is the float nearest to that decimal *in the precision
    it was stored in*: the float32 nearest to 0.1 is written 0.1.
    """
    significand = 2.0 ** (np.finfo(stored).nmant + 1)
    distinct, counts = np.unique(values, return_counts=True)
    for decimals in range(7):
        scaled = np.rint(distinct * 10.0**decimals)
        if np.abs(scaled).max() > significand:
            return None
        on = (scaled / 10.0**decimals).astype(stored) == distinct.astype(stored)
        if _most(counts[on], counts[~on]):
            return decimals, *steps(scaled[on].astype(np.int64), counts[on], counts[~on])
    return None


def steps(distinct: np.ndarray, counts: np.ndarray, odd: np.ndarray | tuple[()] = ()) -> tuple[int, int]:
    """(step, origin): of distinct ascending whole numbers that occur so often, ``ON_STEPS`` are origin + k·step, with the
    largest such step. origin is the least of them. ``odd``: how often others occur, which lie off the steps for certain."""
    step, on = step_of(distinct), np.ones(len(distinct), dtype=bool)
    grown = len(distinct) > 1
    while grown:
        grown = False
        for prime in _PRIMES:
            residues = ((distinct - distinct[on][0]) // step % prime).astype(np.int64)
            kept = on & (residues == np.bincount(residues[on], weights=counts[on], minlength=prime).argmax())
            if kept.sum() > 1 and _most(counts[kept], np.concatenate([counts[~kept], odd])):
                step, on, grown = step_of(distinct[kept]), kept, True
                break
    return step, int(distinct[on][0])


def _most(on: np.ndarray, off: np.ndarray) -> bool:
    """Whether values that occur ``on`` (k,) and ``off`` (m,) times are nearly all on the steps. Those off them must also be few
    among the values, or among all cells but those of the commonest: where nearly all are 0, the others say what the steps are."""
    if len(off) == 0:
        return True
    if len(on) == 0 or off.sum() > (1 - ON_STEPS) * (on.sum() + off.sum()):
        return False
    return 10 * len(off) <= len(on) or off.sum() <= (1 - ON_STEPS) * (on.sum() - on.max())


def step_of(sorted_values: np.ndarray) -> int:
    """Greatest common divisor of the differences of distinct whole numbers (1 for a single number)."""
    return int(np.gcd.reduce(np.diff(sorted_values))) if len(sorted_values) > 1 else 1


# ---------------------------------------------------------------------------------------------- instants


@dataclass(frozen=True)
class Instants:
    """ticks:   int64, in ``unit`` since 1970 (UTC where the cells know their zone, else wall clock).
    unit:    "s", "ms", "us" or "ns".
    aware:   whether the cells know their time zone.
    pattern: how text writes them ("YYYY-MM-DD hh:mm:ss.ff+02:00"); empty if they were not text.
    """

    ticks: np.ndarray
    unit: str
    aware: bool
    pattern: str = ""


def instants(present: pd.Series) -> Instants | None:
    """Dates, datetimes, and ISO 8601 text (``-`` or ``/`` between date parts, ``T`` or a space before the time)."""
    if types.is_datetime64_any_dtype(present.dtype):
        index = pd.DatetimeIndex(present)
        return Instants(index.asi8, index.unit, index.tz is not None)
    if types.is_object_dtype(present.dtype) or types.is_string_dtype(present.dtype):
        says = types.infer_dtype(present)
        if says == "string":
            return _read_instants(present)
        if says in ("datetime", "datetime64", "date") and len({getattr(v, "tzinfo", None) for v in present}) == 1:
            return instants(pd.Series(pd.to_datetime(present)))
    return None


def _read_instants(present: pd.Series) -> Instants | None:
    codes, texts = _distinct(present)
    parts = [m.groups() for m in map(_INSTANT.fullmatch, texts) if m]
    shapes = {(sep, between, second is not None, zone is not None) for _, sep, _, _, between, _, _, second, _, zone in parts}
    if len(parts) < len(texts) or len(shapes) != 1:
        return None
    ((sep, between, seconds, aware),) = shapes
    digits = max(len(p[8] or "") for p in parts)
    unit = ("s", "ms", "us", "ns")[math.ceil(digits / 3)]
    iso = [f"{y}-{m}-{d}T{hh or '00'}:{mm or '00'}:{ss or '00'}" + (f".{ff or '0'}" if digits else "")
           for y, _, m, d, _, hh, mm, ss, ff, _ in parts]  # fmt: skip
    try:
        ticks = np.array(iso, dtype=f"datetime64[{unit}]").astype(np.int64)
    except ValueError:  # the 30th of February
        return None
    zones = [p[9] for p in parts]
    ticks = ticks - np.array([_shift(zone, unit) for zone in zones])
    time = f"{between}hh:mm" + (":ss" if seconds else "") + ("." + "f" * digits if digits else "") if between else ""
    zone = (zones[0] if len(set(zones)) == 1 else "+00:00") if aware else ""
    return Instants(ticks[codes], unit, aware, f"YYYY{sep}MM{sep}DD{time}{zone}")


def _shift(zone: str | None, unit: str) -> int:
    """Ticks that wall clocks of a zone are ahead of UTC."""
    if zone in (None, "", "Z"):
        return 0
    minutes = int(zone[1:3]) * 60 + int(zone[-2:])
    return (-minutes if zone[0] == "-" else minutes) * 60 * UNITS[unit]


def write_instants(ticks: np.ndarray, unit: str, pattern: str) -> list[str]:
    """int64 ticks as text in ``pattern``: the inverse of reading."""
    zone = re.search(r"(?:Z|[+-][0-9]{2}:?[0-9]{2})?$", pattern).group()  # type: ignore[union-attr]
    local = pattern.removesuffix(zone)
    texts = np.datetime_as_string((ticks + _shift(zone, unit)).view(f"M8[{unit}]"))
    if len(local) == 10:
        return [t[:10].replace("-", local[4]) for t in texts]
    return [t[:10].replace("-", local[4]) + local[10] + t[11 : len(local)] + zone for t in texts]


# ------------------------------------------------------------------------------------------------ labels


def label(value: Any) -> Label:
    """A cell as plain Python data: text, numbers and truth as they are, anything else as its text."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, str | int | float | bool) else text(value)


def text(value: Any) -> str:
    """``str``, of whatever there is: Python writes out no whole number of 4,300 digits, and pandas no date after 9999."""
    try:
        return str(value)
    except (ValueError, NotImplementedError):
        return f"a {type(value).__name__} out of range"


def codes(present: pd.Series, labels: tuple[Label, ...]) -> np.ndarray:
    """(n,) int64 position of every cell among ``labels``; ``len(labels)`` for a cell that is none of them.

    A cell that equals a label is that label; otherwise one written alike is (the text "2007" for 2007,
    the text "True" for True), because the same table may come once as CSV and once as Parquet.
    """
    exact = {v: k for k, v in reversed(list(enumerate(labels)))}
    alike = {_written(v): k for k, v in reversed(list(enumerate(labels)))}
    where, values = pd.factorize(present)
    found = [exact.get(v, alike.get(_written(v), len(labels))) for v in map(label, values)]
    return np.array(found, dtype=np.int64)[where]


def _written(value: Label) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        value = value.strip()
        if not is_number(value):
            return value.lower() if value.lower() in ("true", "false") else value
        value = int(value) if _WHOLE.fullmatch(value) else float(value)
    if isinstance(value, int):
        return str(value)
    return str(int(value)) if value.is_integer() else repr(value)
