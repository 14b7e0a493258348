"""Numbers as people write them: "1,234.50", "1.234,5 €", "(1 234)", "50 %", read and written in the style of their column."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from mixtura.data.dtypes import distinct_texts, is_text, precision

# A leading zero ("007") is not how a number is written: it is a code, and its zeros matter.
_WHOLE = re.compile(r"\s*-?(?:0|[1-9][0-9]{0,999})\s*")

_REAL = re.compile(
    r"\s*(?:-?(?:(?:0|[1-9][0-9]{0,999})(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?|[+-]?inf(?:inity)?)\s*", re.IGNORECASE
)


def is_number(text: str) -> bool:
    """Whether a text is how a number is written ("39.10", "-3", "1e-4", "inf"; not "007")."""
    return _REAL.fullmatch(text) is not None


def number(text: str) -> int | float | None:
    """The number that a text is, if that is how a number is written."""
    return int(text) if _WHOLE.fullmatch(text) else float(text) if is_number(text) else None


def numbers(present: pd.Series, like: str = "") -> np.ndarray | None:
    """The numbers that all cells are: whole ones as int64 (beyond it Python ints in an object array), others as float64. None if
    some cell is not a number.

    Text may be in any :class:`Style`, the same in all cells. ``like``: the pattern of a style that is tried first: only it says
    what "1,234" is.
    """
    dtype = present.dtype
    if types.is_bool_dtype(dtype):
        return None
    if types.is_integer_dtype(dtype):
        return _narrow(present.to_numpy(dtype=precision(dtype)))
    if types.is_float_dtype(dtype):
        return present.to_numpy(dtype=np.float64)
    if is_text(dtype):
        says = types.infer_dtype(present)
        if says == "integer":
            return _narrow(np.array([int(v) for v in present], dtype=object))
        if says in ("floating", "mixed-integer-float"):
            return floats(present)
        if says in ("string", "decimal", "mixed-integer", "mixed"):
            return _read_numbers(present, like)
    return None


def floats(values: Iterable[Any]) -> np.ndarray:
    """Numbers as float64; whole numbers beyond its range are infinite."""
    return np.array([_float(v) for v in values], dtype=np.float64)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _read_numbers(present: pd.Series, like: str) -> np.ndarray | None:
    codes, texts = distinct_texts(present)
    learnt = _read_in(Style.of(like), texts) if like else None
    if learnt is not None:
        return _as_array(learnt)[codes]
    if all(map(_WHOLE.fullmatch, texts)):
        return _narrow(np.array([int(t) for t in texts], dtype=object)[codes])
    if all(map(_REAL.fullmatch, texts)):
        return np.array([float(t) for t in texts])[codes]
    style = style_of_texts(texts)
    values = _read_in(style, texts) if isinstance(style, Style) else None
    return None if values is None else _as_array(values)[codes]


def _as_array(values: list[int | float]) -> np.ndarray:
    whole = all(isinstance(value, int) for value in values)
    return _narrow(np.array(values, dtype=object)) if whole else np.array(values, dtype=np.float64)


def _narrow(values: np.ndarray) -> np.ndarray:
    fits = len(values) == 0 or (-(2**63) <= int(values.min()) <= int(values.max()) < 2**63)
    return values.astype(np.int64 if fits else object)

_BLANKS = " \u00a0\u2009\u202f"

_MONEY = (
    r"(?:[A-Z]{0,3}[$¢£¤¥\u20a0-\u20cf]|CHF|EUR|USD|GBP|JPY|CNY|CAD|AUD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|INR|BRL|ZAR|TRY|RUB|MXN|SGD"
    r"|HKD|KRW|ILS|kr\.?|zł|Kč|Ft|lei|Fr\.|Rs\.?)"
)

_SIGN = "[-+\u2212\u2013]"

WRITTEN = re.compile(
    rf"(\()?({_SIGN}?)({_MONEY}[{_BLANKS}]?)?({_SIGN}?)([0-9](?:[0-9.,'’{_BLANKS}]*[0-9])?|[.,][0-9]+)"
    rf"([{_BLANKS}]?(?:%|‰|{_MONEY}|[^\W\d_]|[°µ])[^\s\d.,;:()+-]{{0,11}})?(\))?"
)

#: a column with at most this many different texts has levels, whatever they look like
FEW_TEXTS = 20

#: texts with a unit other than money and % are numbers where more than this many differ, else levels ("36 months")
_FEW_OF_A_UNIT = 10

#: a column with more different units than this has none: 12A, 12B, … 14F are seats
_MOST_UNITS = 4

_PATTERN = re.compile(r"(\(?)([-\u2212\u2013±]?)(.*?)([-\u2212\u2013±]?)1(\D?)234(?:([.,])(5[0-9]*…?))?(.*?)(\)?)")


@dataclass(frozen=True)
class Style:
    """How a column of text writes its numbers. Its ``pattern`` shows 1234.5 so: "$1,234.50", "1.234,5… €", "(1 234)".

    thousands, decimal: the marks, empty if there is none. before, after: of every number, blanks included ("$", " %").
    minus: the sign, and whether it stands ``inside``, next to the digits; empty if brackets are written (``brackets``).
    plus:  whether numbers above 0 have a sign. decimals: how many every number has; 0 if they differ, or have none.
    """

    thousands: str = ""
    decimal: str = ""
    before: str = ""
    after: str = ""
    minus: str = "-"
    inside: bool = False
    brackets: bool = False
    plus: bool = False
    decimals: int = 0

    @property
    def pattern(self) -> str:
        """One text for it; :meth:`of` reads it."""
        sign = "±" if self.plus else self.minus if self.inside or self.minus != "-" else ""
        part = self.decimal and self.decimal + ("5".ljust(self.decimals, "0") if self.decimals else "5…")
        front = self.before + sign if self.inside else sign + self.before
        text = f"{front}1{self.thousands}234{part}{self.after}"
        return f"({text})" if self.brackets else text

    @staticmethod
    def of(pattern: str) -> Style:
        """The inverse of :attr:`pattern`."""
        found = _PATTERN.fullmatch(pattern)
        if found is None:
            raise ValueError(f"{pattern!r} is no pattern of a number")
        opening, outer, before, inner, thousands, decimal, part, after, _ = found.groups()
        sign = outer or inner
        return Style(
            thousands, decimal or "", before, after, "-" if sign in ("", "±") else sign, bool(inner), bool(opening), sign == "±",
            len(part) if part and "…" not in part else 0,
        )  # fmt: skip

    @property
    def point(self) -> str:
        """The decimal mark, also where the column has no decimals."""
        return self.decimal or ("," if self.thousands == "." else ".")


def _digits(thousands: str, decimal: str) -> str:
    grouped = rf"[1-9][0-9]{{0,2}}(?:{_mark(thousands)}[0-9]{{3}})+|" if thousands else ""
    return rf"({grouped}0|[1-9][0-9]*)?" + (rf"(?:{_mark(decimal)}([0-9]+))?" if decimal else "()")


def _mark(mark: str) -> str:
    return f"[{_BLANKS}]" if mark in _BLANKS else re.escape(mark)


def _read_in(style: Style, texts: Iterable[str]) -> list[int | float] | None:
    before, after = (re.escape(side.strip()) for side in (style.before, style.after))
    digits = _digits(style.thousands, style.point)
    whole = re.compile(rf"(\()?({_SIGN}?)(?:{before}[{_BLANKS}]?)({_SIGN}?){digits}[{_BLANKS}]?{after}(\))?")
    values: list[int | float] = []
    for text in texts:
        found = whole.fullmatch(text.strip())
        if found is None or not (found[4] or found[5]) or bool(found[1]) != bool(found[6]):
            return None
        units = re.sub(r"\D", "", found[4] or "0")
        value = float(f"{units}.{found[5]}") if found[5] else int(units)
        negative = found[1] or (found[2] or found[3] or "+") != "+"
        values.append(-value if negative else value)
    return values


def style_of_texts(texts: list[str]) -> Style | str | None:
    """The style of distinct texts if they are all numbers in one style; a reason (str) if they are numbers but their style cannot
    be determined; None for other texts."""
    seen = [m.groups() for m in (WRITTEN.fullmatch(t.strip()) for t in texts) if m]
    if len(seen) < len(texts) or any(bool(opening) != bool(closing) for opening, *_, closing in seen):
        return None
    bodies = [re.sub(f"[{_BLANKS}]", " ", body) for *_, body, _, _ in seen]
    if any(re.match(r"0[0-9]", body) for body in bodies):
        return None  # codes
    sides = {((before or "").strip(), (after or "").strip()) for _, _, before, _, _, after, _ in seen}
    units = {after for _, after in sides if after and not re.fullmatch(rf"%|‰|{_MONEY}", after)}
    if units and (len(sides) > _MOST_UNITS or len(texts) <= (_FEW_OF_A_UNIT if len(sides) == 1 else FEW_TEXTS)):
        return None
    if len(sides) > 1:
        first, second = (next(t for t, m in zip(texts, seen, strict=True) if side == ((m[2] or "").strip(), (m[5] or "").strip()))
                         for side in sorted(sides)[:2])  # fmt: skip
        return f"numbers written in more than one way, {first!r} and {second!r}; convert them to one unit"
    marks = _marks(bodies)
    if not isinstance(marks, tuple):
        return marks
    thousands, decimal = marks
    if thousands == " ":
        thousands = next(c for *_, body, _, _ in seen for c in body if c in _BLANKS)
    parts = {len(body.rpartition(decimal)[2]) if decimal in body else 0 for body in bodies} if decimal else {0}
    signs = [(outer or inner, bool(inner)) for _, outer, _, inner, _, _, _ in seen if (outer or inner) not in ("", "+")]
    minus, inside = signs[0] if signs else ("-", False)
    return Style(
        thousands, decimal, seen[0][2] or "", seen[0][5] or "", minus, inside, any(m[0] for m in seen),
        any("+" in (m[1], m[3]) for m in seen), parts.pop() if len(parts) == 1 else 0,
    )  # fmt: skip


def _marks(bodies: list[str]) -> tuple[str, str] | str | None:
    """(thousands, decimal): the marks in the digits of numbers; a reason (str) if a mark is ambiguous; None for other texts."""
    used = sorted({c for body in bodies for c in body if not c.isdigit()})

    def fits(thousands: str, decimal: str) -> bool:
        return all(map(re.compile(_digits(thousands, decimal)).fullmatch, bodies))

    if len(used) > 2:
        return None
    if len(used) == 2:
        both = [(t, d) for t, d in (used, used[::-1]) if d in ".," and fits(t, d)]
        return both[0] if both else None
    if not used:
        return "", ""
    (mark,) = used
    marked, bare = ([body for body in bodies if (mark in body) == yes] for yes in (True, False))
    thousands, decimal = fits(mark, ""), mark in ".," and fits("", mark)
    if mark == " " and not bare and all(len(body.split(" ")[0]) == 3 for body in marked):
        return None  # as phone numbers are written
    if thousands and decimal:
        if bare and all(len(body) <= 3 for body in bare):
            return mark, ""  # beside 987, which has no mark, the mark in 1,234 separates thousands
        if mark == ".":
            return "", mark
        return (
            f"numbers with a comma, and {marked[0]} is either {marked[0].replace(',', '')} or {marked[0].replace(',', '.')}; "
            "write them without it, or with a decimal point"
        )
    return (mark, "") if thousands else ("", mark) if decimal else None


def number_pattern(present: pd.Series) -> str:
    """The pattern of the style that a column of text writes its numbers in; empty for plain numbers, and for cells that are not
    text."""
    if not is_text(present.dtype) or types.infer_dtype(present) != "string":
        return ""
    texts = distinct_texts(present)[1]
    if all(map(_REAL.fullmatch, texts)):
        return ""
    style = style_of_texts(texts)
    return style.pattern if isinstance(style, Style) else ""


def write_numbers(values: np.ndarray, pattern: str) -> list[str]:
    """Numbers as text in the style of ``pattern``. A number with more decimals than the style keeps them."""
    style = Style.of(pattern)
    return [_written_in(style, value) for value in values.tolist()]


def _written_in(style: Style, value: float) -> str:
    size = abs(value)
    if isinstance(size, int):
        plain = str(size) + ("." + "0" * style.decimals if style.decimals else "")
    else:
        plain = f"{size:.{style.decimals}f}"
        plain = plain if float(plain) == size else np.format_float_positional(size, trim="-")
    units, _, part = plain.partition(".")
    if style.thousands and units.isdigit():
        units = f"{int(units):,}".replace(",", style.thousands)
    text = units + (style.point + part if part else "")
    if value < 0 and style.brackets:
        return f"({style.before}{text}{style.after})"
    sign = style.minus if value < 0 else "+" if style.plus and value > 0 else ""
    return (style.before + sign if style.inside else sign + style.before) + text + style.after
