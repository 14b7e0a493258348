"""Dates and times in the cells of a column, as ticks since 1970, and their text, read and written in one pattern."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from mixtura.data.dtypes import distinct_texts, is_text
from mixtura.data.numerals import FEW_TEXTS

#: ticks per second of the units pandas keeps dates in
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

_TIME = (
    r"(?:(, |[T ])([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?( ?[AaPp][Mm])?"
    r"( ?(?:Z|UTC|[+-][0-9]{2}(?::?[0-9]{2})?))?)?"
)

_YEAR_FIRST = re.compile(r"([0-9]{4})([-/.])([0-9]{1,2})\2([0-9]{1,2})" + _TIME)

_YEAR_LAST = re.compile(r"([0-9]{1,2})([-/.])([0-9]{1,2})\2([0-9]{4}|[0-9]{2})" + _TIME)

_ZONE = re.compile(r"(?: ?(?:Z|UTC|[+-][0-9]{2}(?::?[0-9]{2})?))?$")

_TOKEN = re.compile(r"YYYY|YY|MM|M|DD|D|hh|h|mm|ss|f+|AM")

#: years of two digits are those from 1969 to 2068, as POSIX has them
_PIVOT = 69


@dataclass(frozen=True)
class Instants:
    """Dates and times.

    ticks:   int64, in ``unit`` since 1970 (UTC where the cells have a time zone, else wall clock).
    unit:    "s", "ms", "us" or "ns".
    aware:   whether the cells have a time zone.
    pattern: how text writes them ("YYYY-MM-DD hh:mm:ss.ff+02:00"); empty for cells that are not text.
    """

    ticks: np.ndarray
    unit: str
    aware: bool
    pattern: str = ""


def instants(present: pd.Series, like: str = "") -> Instants | None:
    """The dates and times that all cells are, or None. Text has the year first (2024-12-31, with -, / or .) or last (31.12.2024,
    31/12/2024, 12/31/2024), then perhaps a time, then perhaps an offset, the same way in all cells.

    In 31.12.2024 the day is first. In dates with / or - the day is first if some first number is above 12, the month if some
    second number is; where none is, ``like`` decides, the pattern of an earlier table.
    """
    if types.is_datetime64_any_dtype(present.dtype):
        index = pd.DatetimeIndex(present)
        return Instants(index.asi8, index.unit, index.tz is not None)
    if is_text(present.dtype):
        says = types.infer_dtype(present)
        if says == "string":
            return _read_instants(present, like)
        if says in ("datetime", "datetime64", "date"):
            zones = {getattr(v, "tzinfo", None) for v in present}
            if len(zones) == 1 or None not in zones:
                return instants(pd.Series(pd.to_datetime(present, utc=len(zones) > 1)))
    return None


def _read_instants(present: pd.Series, like: str) -> Instants | None:
    codes, texts = distinct_texts(present)
    read = read_dates(texts, like)
    if read is None or isinstance(read, str):
        return None
    date, parts = read
    shapes = set(map(shape_of_date, parts))
    if len(shapes) != 1:
        return None
    ((between, seconds, noon, aware),) = shapes
    digits = max(len(p[7] or "") for p in parts)
    unit = ("s", "ms", "us", "ns")[math.ceil(digits / 3)]
    iso = [f"{y}-{m:0>2}-{d:0>2}T{_hour(hh, half)}:{mm or '00'}:{ss or '00'}" + (f".{ff or '0'}" if digits else "")
           for y, m, d, _, hh, mm, ss, ff, half, _ in parts]  # fmt: skip
    try:
        ticks = np.array(iso, dtype=f"datetime64[{unit}]").astype(np.int64)
    except ValueError:  # the 30th of February
        return None
    zones = [p[9] for p in parts]
    ticks = ticks - np.array([_shift(zone, unit) for zone in zones])
    hour = "h" if any(len(p[4] or "00") == 1 for p in parts) else "hh"
    time = f"{between}{hour}:mm" + (":ss" if seconds else "") + ("." + "f" * digits if digits else "") if between else ""
    half = (" AM" if parts[0][8].startswith(" ") else "AM") if noon else ""
    zone = (zones[0] if len(set(zones)) == 1 else "+00:00") if aware else ""
    return Instants(ticks[codes], unit, aware, f"{date}{time}{half}{zone}")


def shape_of_date(date: tuple[Any, ...]) -> tuple[Any, ...]:
    """(what stands between date and time, whether there are seconds, AM or PM, a time zone)."""
    return date[3], date[6] is not None, date[8] is not None, date[9] is not None


def _hour(hour: str | None, half: str | None) -> str:
    if half is None:
        return f"{hour or '00':0>2}"
    return f"{int(hour or 0) % 12 + (12 if half.strip().lower() == 'pm' else 0):02d}" if 1 <= int(hour or 0) <= 12 else "99"


def read_dates(texts: list[str], like: str) -> tuple[str, list[tuple[Any, ...]]] | str | None:
    """The pattern of the dates, and (year, month, day, and what follows) of each text; a reason (str) if they are dates in an
    order that cannot be determined; None for other texts."""
    texts = [t.strip() for t in texts]
    first = [m.groups() for m in map(_YEAR_FIRST.fullmatch, texts) if m]
    if len(first) == len(texts) and len({p[1] for p in first}) == 1:
        mark = first[0][1]
        day, month = ("D" if any(len(p[i]) == 1 for p in first) else "DD" for i in (3, 2))
        order = ("YYYY", month.replace("D", "M"), day)
        return mark.join(order), [(y, m, d, *rest) for y, _, m, d, *rest in first]
    last = [m.groups() for m in map(_YEAR_LAST.fullmatch, texts) if m]
    if len(last) < len(texts) or len({(p[1], len(p[3])) for p in last}) != 1:
        return None
    mark, short = last[0][1], len(last[0][3]) == 2
    if short and mark != ".":
        return f"dates with years of two digits, as in {texts[0]!r}; write them with four, as in 2024-12-31"
    if short and any(len(p[0]) + len(p[2]) < 4 for p in last):
        return None
    day_first = _day_first(texts, last, like)
    if isinstance(day_first, str):
        return day_first
    day, month = ("D" if any(len(p[i]) == 1 for p in last) else "DD" for i in (0, 2))
    order = (day, month.replace("D", "M")) if day_first else (day.replace("D", "M"), month)

    def year(digits: str) -> str:
        return digits if not short else f"{19 if int(digits) >= _PIVOT else 20}{digits}"

    swapped = [(year(y), b, a, *rest) if day_first else (year(y), a, b, *rest) for a, _, b, y, *rest in last]
    return mark.join((*order, "YY" if short else "YYYY")), swapped


def _day_first(texts: list[str], dates: list[tuple[Any, ...]], like: str) -> bool | str:
    """Whether the day is first in dates that have the year last; a reason (str) if that cannot be determined."""
    if dates[0][1] == ".":
        return True
    learnt = re.match(r"(D|M)", like)
    one, other = (next((t for t, p in zip(texts, dates, strict=True) if int(p[i]) > 12), None) for i in (0, 2))
    if one is not None and other is not None:
        return f"dates with the day first, as in {one!r}, and with the month first, as in {other!r}; write them as 2024-12-31"
    told = True if one is not None else False if other is not None else None
    if learnt is not None:
        if told not in (None, learnt[0] == "D"):
            ours, theirs = ("day", "month") if learnt[0] == "D" else ("month", "day")
            seen = one or other
            return f"dates with the {theirs} first, as in {seen!r}, learnt with the {ours} first; write them as 2024-12-31"
        return learnt[0] == "D"
    if told is None and any(int(p[0]) != int(p[2]) for p in dates):
        return f"dates, and {texts[0]!r} may have the day or the month first; write them as 2024-12-31"
    return told is not False


def are_days(distinct: np.ndarray) -> bool:
    """Whether distinct whole numbers are all days written YYYYMMDD, of the years 1800 to 2199, and too many for coincidence."""
    if len(distinct) <= FEW_TEXTS or not 18000101 <= int(distinct.min()) <= int(distinct.max()) <= 21991231:
        return False
    texts = [f"{n // 10_000:04d}-{n // 100 % 100:02d}-{n % 100:02d}" for n in distinct.tolist()]
    try:
        np.array(texts, dtype="datetime64[D]")
    except ValueError:
        return False
    return True


def _shift(zone: str | None, unit: str) -> int:
    """The offset of a time zone from UTC, in ticks."""
    zone = (zone or "").strip()
    if zone in ("", "Z", "UTC"):
        return 0
    minutes = int(zone[1:3]) * 60 + (int(zone[-2:]) if len(zone) > 3 else 0)
    return (-minutes if zone[0] == "-" else minutes) * 60 * UNITS[unit]


def knows_zone(pattern: str) -> bool:
    """Whether ``pattern`` has a time zone."""
    return _ZONE.search(pattern)[0] != ""  # type: ignore[index]


def write_instants(ticks: np.ndarray, unit: str, pattern: str) -> list[str]:
    """int64 ticks as text in ``pattern``; the inverse of :func:`instants`."""
    zone = _ZONE.search(pattern).group()  # type: ignore[union-attr]
    local = pattern[: len(pattern) - len(zone)]
    texts = np.datetime_as_string((ticks + _shift(zone, unit)).view(f"M8[{unit}]"))
    return [_TOKEN.sub(partial(_text_of_token, str(text), local.endswith("AM")), local) + zone for text in texts]


def _text_of_token(iso: str, halved: bool, token: re.Match[str]) -> str:
    """The text of a token of a pattern for an instant written 2024-12-31T23:59:59.999; ``halved``: on a clock of 12 hours."""
    what = token[0]
    if what in ("YYYY", "YY"):
        return iso[4 - len(what) : 4]
    if what == "AM":
        return "PM" if iso[11:13] >= "12" else "AM"
    if what in ("h", "hh"):
        hour = int(iso[11:13])
        return f"{(hour - 1) % 12 + 1 if halved else hour:0{len(what)}d}"
    if what.startswith("f"):
        return iso[20 : 20 + len(what)]
    at = {"M": 5, "D": 8, "m": 14, "s": 17}[what[0]]
    return f"{int(iso[at : at + 2]):0{len(what)}d}"
