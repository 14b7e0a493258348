"""What the cells of a column say, exactly: nothing, whole numbers, real numbers, instants, labels.

The one place where text is understood, whatever file or option it came from. Every function takes the cells that are
there (a Series without missing values) and answers None when they say something else, so that a caller may ask one after
the other; ``why_not`` then says what they nearly were. Text is read once per distinct text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

Label = str | int | float | bool

#: ticks per second of the units pandas keeps dates in
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
#: whole numbers up to here are exact in float64
EXACT = 2**53

#: characters of one text, and of all labels of a column: more make labels that no model, file or page is for
MOST_CHARACTERS = 2**24
#: texts that say that there is nothing
MISSING = frozenset(["", "NA", "N/A", "n/a", "#N/A", "<NA>", "nan", "NaN", "NaT", "null", "NULL", "None"])
_NOTHING = frozenset(word.lower() for word in MISSING)

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


def says_nothing(text: str) -> bool:
    """Whether a text is a word for a missing cell, or blank."""
    return text in MISSING or text.isspace()


def is_text(dtype: Any) -> bool:
    """Whether cells of this dtype may be text."""
    return types.is_object_dtype(dtype) or (types.is_string_dtype(dtype) and not isinstance(dtype, pd.CategoricalDtype))


def without_words(present: pd.Series, levels: Collection[Label] = ()) -> pd.Series:
    """The cells of a column of numbers, times or truth: without the texts, in any case of letters, that say that there is
    nothing. Those among ``levels`` say something."""
    if not is_text(present.dtype) or len(present) == 0:
        return present
    where, values = pd.factorize(present)
    says = np.array([not isinstance(v, str) or v in levels or v.strip().lower() not in _NOTHING for v in values], dtype=bool)
    return present if says.all() else present.iloc[np.flatnonzero(says[where])]


def numbers(present: pd.Series, like: str = "") -> np.ndarray | None:
    """Whole cells as int64 (Python ints in an object array beyond it), other numbers as float64.

    Text may be written as people write numbers (:class:`Style`), all alike. ``like``: the pattern of a style, tried first:
    only it can tell what "1,234" is.
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
    """Numbers as float64; whole ones that it does not reach are infinite."""
    return np.array([_float(v) for v in values], dtype=np.float64)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _read_numbers(present: pd.Series, like: str) -> np.ndarray | None:
    codes, texts = _distinct(present)
    learnt = _read_in(Style.of(like), texts) if like else None
    if learnt is not None:
        return _as_array(learnt)[codes]
    if all(map(_WHOLE.fullmatch, texts)):
        return _narrow(np.array([int(t) for t in texts], dtype=object)[codes])
    if all(map(_REAL.fullmatch, texts)):
        return np.array([float(t) for t in texts])[codes]
    style = _style(texts)
    values = _read_in(style, texts) if isinstance(style, Style) else None
    return None if values is None else _as_array(values)[codes]


def _as_array(values: list[int | float]) -> np.ndarray:
    whole = all(isinstance(value, int) for value in values)
    return _narrow(np.array(values, dtype=object)) if whole else np.array(values, dtype=np.float64)


def _narrow(values: np.ndarray) -> np.ndarray:
    fits = len(values) == 0 or (-(2**63) <= int(values.min()) <= int(values.max()) < 2**63)
    return values.astype(np.int64 if fits else object)


def _distinct(present: pd.Series) -> tuple[np.ndarray, list[str]]:
    codes, values = pd.factorize(present)
    return codes, [str(v) for v in values]


def precision(dtype: Any) -> np.dtype:
    """The numpy dtype a numeric column is stored in (nullable, Arrow and sparse columns included)."""
    return np.dtype(dtype.subtype if isinstance(dtype, pd.SparseDtype) else getattr(dtype, "numpy_dtype", dtype))


# ----------------------------------------------------------------------------- numbers as people write them

_BLANKS = " \u00a0\u2009\u202f"
_MONEY = (
    r"(?:[A-Z]{0,3}[$¢£¤¥\u20a0-\u20cf]|CHF|EUR|USD|GBP|JPY|CNY|CAD|AUD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|INR|BRL|ZAR|TRY|RUB|MXN|SGD"
    r"|HKD|KRW|ILS|kr\.?|zł|Kč|Ft|lei|Fr\.|Rs\.?)"
)
_SIGN = "[-+\u2212\u2013]"
_WRITTEN = re.compile(
    rf"(\()?({_SIGN}?)({_MONEY}[{_BLANKS}]?)?({_SIGN}?)([0-9](?:[0-9.,'’{_BLANKS}]*[0-9])?|[.,][0-9]+)"
    rf"([{_BLANKS}]?(?:%|‰|{_MONEY}|[^\W\d_]|[°µ])[^\s\d.,;:()+-]{{0,11}})?(\))?"
)
#: so few different texts are levels, whatever they look like
FEW_TEXTS = 20
#: numbers with another unit than money and % are numbers where there are more of them than this, else levels ("36 months")
_FEW_OF_A_UNIT = 10
#: more units than these in one column are no units: 12A, 12B, … 14F are seats
_FEW_UNITS = 4
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
        """The mark before decimals, also where whole numbers were all there was."""
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


def _style(texts: list[str]) -> Style | str | None:
    """How distinct texts are written if they are all numbers in one style; why not, if they are numbers and it cannot be told;
    None for other texts."""
    seen = [m.groups() for m in (_WRITTEN.fullmatch(t.strip()) for t in texts) if m]
    if len(seen) < len(texts) or any(bool(opening) != bool(closing) for opening, *_, closing in seen):
        return None
    bodies = [re.sub(f"[{_BLANKS}]", " ", body) for *_, body, _, _ in seen]
    if any(re.match(r"0[0-9]", body) for body in bodies):
        return None  # codes
    sides = {((before or "").strip(), (after or "").strip()) for _, _, before, _, _, after, _ in seen}
    units = {after for _, after in sides if after and not re.fullmatch(rf"%|‰|{_MONEY}", after)}
    if units and (len(sides) > _FEW_UNITS or len(texts) <= (_FEW_OF_A_UNIT if len(sides) == 1 else FEW_TEXTS)):
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
    """(thousands, decimal) of the digits of numbers; why not, where they could be two things; None where they are no numbers."""
    used = sorted({c for body in bodies for c in body if not c.isdigit()})
    fits = lambda thousands, decimal: all(map(re.compile(_digits(thousands, decimal)).fullmatch, bodies))  # noqa: E731
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
            return mark, ""  # 987 has none, and 1,234 has three digits behind it, as all others with one have
        if mark == ".":
            return "", mark
        return (
            f"numbers with a comma, and {marked[0]} is either {marked[0].replace(',', '')} or {marked[0].replace(',', '.')}; "
            "write them without it, or with a decimal point"
        )
    return (mark, "") if thousands else ("", mark) if decimal else None


def number_pattern(present: pd.Series) -> str:
    """The pattern of the style that text writes its numbers in; empty if they are written plainly, or are no text."""
    if not is_text(present.dtype) or types.infer_dtype(present) != "string":
        return ""
    texts = _distinct(present)[1]
    if all(map(_REAL.fullmatch, texts)):
        return ""
    style = _style(texts)
    return style.pattern if isinstance(style, Style) else ""


def write_numbers(values: np.ndarray, pattern: str) -> list[str]:
    """Numbers in the style of ``pattern``: the inverse of reading. A number that has more decimals than the others keeps them."""
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


def looks_like_number(text: str) -> bool:
    """Whether a text is a number in one of the ways that people write them; a code ("007") is none."""
    return is_number(text) or (_WRITTEN.fullmatch(text.strip()) is not None and not is_code(text))


def is_code(text: str) -> bool:
    """Whether a text is digits that begin with a zero that matters: 06455 is a postal code, and no number."""
    return re.fullmatch(r"0[0-9]+", text.strip()) is not None


def why_not(present: pd.Series, like: str = "") -> str:
    """What texts are that are nearly numbers or instants, and cannot be read: a part of a sentence with an advice, or empty."""
    if not is_text(present.dtype) or len(present) == 0:
        return ""
    texts = _distinct(present)[1]
    for said in (_style(texts), _dates(texts, like)):
        if isinstance(said, str):
            return said
        if isinstance(said, tuple):
            of_shape = {_shape(p): text for text, p in zip(texts, said[1], strict=True)}
            shown = " and ".join(map(repr, [*of_shape.values()][:2]))
            return f"dates, as in {shown}" + (", expected all written alike" if len(of_shape) > 1 else "")
    months = re.compile(
        r"(?:[^\W\d_]{2,9}[.,]{0,2} )?(?:[0-9]{1,2}[-. ]{1,2})?([^\W\d_]{3,9})\.?[-, ]{1,2}(?:[0-9]{1,2},? )?[0-9]{2,4}"
        r"(?:[ ,T]+[0-9:.]+(?: ?(?:[A-Z]{1,4}|[+-][0-9:]+))?)?"
    )
    named = [months.fullmatch(t.strip()) for t in texts]
    if all(m is not None and m[1][:3].lower() in _MONTHS for m in named):
        return f"dates with the month as a word, as in {texts[0]!r}; write them as 2024-12-31"
    if len(texts) > FEW_TEXTS and not any(map(is_code, texts)):
        for form, what in _NAMED.items():
            found = [re.fullmatch(form, t.strip(), re.IGNORECASE) for t in texts]
            marked = [m[0] for m in found if m and m["mark"]]
            if all(found) and marked:
                return what.format(marked[0])
    return ""


def form(present: pd.Series) -> str:
    """One of the texts, if all have the same few forms of digits and marks, mostly digits: numbers or dates in another manner, or
    codes. Else empty."""
    texts = _distinct(present)[1]
    forms = {re.sub(r"[0-9]+", "0", t.strip()) for t in texts}
    digits = sum(c.isdigit() for t in texts for c in t)
    return texts[0] if len(forms) <= _FEW_FORMS and 2 * digits >= sum(map(len, texts)) else ""


#: forms that a column of texts in one manner has at most, their digits aside
_FEW_FORMS = 6
_DIGITS = r"[0-9]+(?:[.,' ][0-9]+)*"
#: what the texts of a column may be, all of them and some with the mark, and what to say of it
_NAMED = {
    r"[0-9]{1,3}(?P<mark>:)[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?: ?[ap]\.?m\.?)?": (
        "times of day, or durations, as in {!r}; write them as numbers, of hours, minutes or seconds"
    ),
    r"[0-9]{4}(?P<mark>[-/])[0-9]{1,2}": "months, as in {!r}; write them as dates, such as 2024-12-01",
    r"[0-9]{1,2}(?P<mark>[-/])[0-9]{4}": "months, as in {!r}; write them as dates, such as 2024-12-01",
    r"(?P<mark>\D{0,12}(?:[0-9]{4}([-/.])[0-9]{1,2}\2[0-9]{1,2}|[0-9]{1,2}([-/.])[0-9]{1,2}\3[0-9]{4})(?:\D.*)?)": (
        "dates written in a manner that is not read, as in {!r}; write them as 2024-12-31 or 2024-12-31 23:59:59"
    ),
    rf"(?P<mark>[<>≤≥~≈]=?|ca?\.)? ?-?{_DIGITS}": "numbers, some of them bounds, as in {!r}; write them as numbers alone",
    r"-?[0-9]+(?:[.,][0-9]+)?(?P<mark>e)[-+]?[0-9]+": "numbers with an exponent, as in {!r}; write them with a decimal point",
    r"[-+]?[0-9]{1,2}(?P<mark>,[0-9]{2})*,[0-9]{3}(?:\.[0-9]+)?": "numbers in groups of two digits, as in {!r}; write no commas",
    rf"[^\w\s.,()-]{{0,3}}[(]?[-+]?{_DIGITS} ?(?P<mark>[-+)]|[kmbt]n?|mio\.?|cr|dr)?": (
        "numbers written in a manner that is not read, as in {!r}; write them as 1234.5"
    ),
}


_MONTHS = frozenset("jan feb mar apr may jun jul aug sep oct nov dec mär mai okt dez".split())


#: of the values of a column that is written in steps, at least this share lies on them
SHARE_ON_STEPS = 0.999
#: parts that distinct values are dealt to, to find the step that those have in common in which none is off it
_PARTS = 32


def lattice(values: np.ndarray, stored: np.dtype) -> tuple[int, int, int] | None:
    """(decimals, step, origin): ``SHARE_ON_STEPS`` of the values are (origin + k·step) / 10^decimals for a whole k, with the
    largest such step and the fewest decimals; None if there is none of at most 6 decimals.

    A float counts as written with d decimals if it is the float nearest to that decimal *in the precision
    it was stored in*: the float32 nearest to 0.1 is written 0.1.
    """
    significand = 2.0 ** (np.finfo(stored).nmant + 1)
    distinct, counts = np.unique(values, return_counts=True)
    for decimals in range(7):
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.rint(distinct * 10.0**decimals)
            on = (scaled / 10.0**decimals).astype(stored) == distinct.astype(stored)
        on &= np.abs(scaled) <= significand  # beyond, every float is whole
        if _most(counts[on], counts[~on]):
            return decimals, *steps(scaled[on].astype(np.int64), counts[on], counts[~on])
    return None


def steps(distinct: np.ndarray, counts: np.ndarray, odd: np.ndarray | tuple[()] = ()) -> tuple[int, int]:
    """(step, origin): of distinct ascending whole numbers that occur so often, ``SHARE_ON_STEPS`` are origin + k·step, with the
    largest such step. origin is the least of them. ``odd``: how often others occur, which lie off the steps for certain."""
    parts = min(_PARTS, len(distinct) // 4)
    # of neighbours, so that a part has small differences; a value off the steps spoils its own part only
    found = {step_of(part) for part in np.array_split(distinct, parts)} if parts > 1 else set()
    for step in sorted(found, reverse=True):
        residues = ((distinct - distinct[0]) % step).astype(np.int64)
        values, at = np.unique(residues, return_inverse=True)
        kept = at == np.bincount(at, weights=counts).argmax()
        if kept.sum() > 1 and _most(counts[kept], np.concatenate([counts[~kept], odd])):
            return step_of(distinct[kept]), int(distinct[kept][0])
    return step_of(distinct), int(distinct[0])


def _most(on: np.ndarray, off: np.ndarray) -> bool:
    """Whether values that occur ``on`` (k,) and ``off`` (m,) times are nearly all on the steps. Those off them must also be few
    among the values, or among all cells but those of the commonest: where nearly all are 0, the others say what the steps are."""
    if len(off) == 0:
        return True
    if len(on) == 0 or off.sum() > (1 - SHARE_ON_STEPS) * (on.sum() + off.sum()):
        return False
    return 10 * len(off) <= len(on) or off.sum() <= (1 - SHARE_ON_STEPS) * (on.sum() - on.max())


def step_of(sorted_values: np.ndarray) -> int:
    """Greatest common divisor of the differences of distinct whole numbers (1 for a single number)."""
    return int(np.gcd.reduce(np.diff(sorted_values))) if len(sorted_values) > 1 else 1


# ---------------------------------------------------------------------------------------------- instants


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
    """ticks:   int64, in ``unit`` since 1970 (UTC where the cells know their zone, else wall clock).
    unit:    "s", "ms", "us" or "ns".
    aware:   whether the cells know their time zone.
    pattern: how text writes them ("YYYY-MM-DD hh:mm:ss.ff+02:00"); empty if they were not text.
    """

    ticks: np.ndarray
    unit: str
    aware: bool
    pattern: str = ""


def instants(present: pd.Series, like: str = "") -> Instants | None:
    """Dates, datetimes, and their text: the year first (2024-12-31, with -, / or .), or last (31.12.2024, 31/12/2024,
    12/31/2024), a time behind it or none, with an offset or none, all written alike.

    With points the day is first. With / or - it is first if it is first in all of the column and above 12 in some of it, and
    the month likewise; ``like``, the pattern of an earlier table, says it otherwise.
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
    codes, texts = _distinct(present)
    read = _dates(texts, like)
    if read is None or isinstance(read, str):
        return None
    date, parts = read
    shapes = set(map(_shape, parts))
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


def _shape(date: tuple[Any, ...]) -> tuple[Any, ...]:
    """What is between date and time, and whether there are seconds, halves of a day and a zone."""
    return date[3], date[6] is not None, date[8] is not None, date[9] is not None


def _hour(hour: str | None, half: str | None) -> str:
    if half is None:
        return f"{hour or '00':0>2}"
    return f"{int(hour or 0) % 12 + (12 if half.strip().lower() == 'pm' else 0):02d}" if 1 <= int(hour or 0) <= 12 else "99"


def _dates(texts: list[str], like: str) -> tuple[str, list[tuple[Any, ...]]] | str | None:
    """The pattern of the dates and (year, month, day, and what follows) of each text; why not, if they are dates whose order
    cannot be told; None for other texts."""
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
    year = lambda y: y if not short else f"{19 if int(y) >= _PIVOT else 20}{y}"  # noqa: E731
    swapped = [(year(y), b, a, *rest) if day_first else (year(y), a, b, *rest) for a, _, b, y, *rest in last]
    return mark.join((*order, "YY" if short else "YYYY")), swapped


def _day_first(texts: list[str], dates: list[tuple[Any, ...]], like: str) -> bool | str:
    """Whether the day is first in dates that have the year last; why it cannot be told."""
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
    """Whether distinct whole numbers are all days written YYYYMMDD, of the years 1800 to 2199: too many to be so by chance."""
    if len(distinct) <= FEW_TEXTS or not 18000101 <= int(distinct.min()) <= int(distinct.max()) <= 21991231:
        return False
    texts = [f"{n // 10_000:04d}-{n // 100 % 100:02d}-{n % 100:02d}" for n in distinct.tolist()]
    try:
        np.array(texts, dtype="datetime64[D]")
    except ValueError:
        return False
    return True


def _shift(zone: str | None, unit: str) -> int:
    """Ticks that wall clocks of a zone are ahead of UTC."""
    zone = (zone or "").strip()
    if zone in ("", "Z", "UTC"):
        return 0
    minutes = int(zone[1:3]) * 60 + (int(zone[-2:]) if len(zone) > 3 else 0)
    return (-minutes if zone[0] == "-" else minutes) * 60 * UNITS[unit]


def knows_zone(pattern: str) -> bool:
    """Whether instants written in ``pattern`` know their time zone."""
    return _ZONE.search(pattern)[0] != ""  # type: ignore[index]


def write_instants(ticks: np.ndarray, unit: str, pattern: str) -> list[str]:
    """int64 ticks as text in ``pattern``: the inverse of reading."""
    zone = _ZONE.search(pattern).group()  # type: ignore[union-attr]
    local = pattern[: len(pattern) - len(zone)]
    texts = np.datetime_as_string((ticks + _shift(zone, unit)).view(f"M8[{unit}]"))
    return [_TOKEN.sub(partial(_said, str(text), local.endswith("AM")), local) + zone for text in texts]


def _said(iso: str, halved: bool, token: re.Match[str]) -> str:
    """What a token of a pattern stands for in an instant written 2024-12-31T23:59:59.999; ``halved``: by a clock of 12 hours."""
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
    the text "True" for True), because the same table may come once as CSV and once as Parquet. Where the labels are truth,
    False is 0 and True is 1.
    """
    exact = {v: k for k, v in reversed(list(enumerate(labels)))}
    written = {_written(v): k for k, v in reversed(list(enumerate(labels)))}
    if any(written.keys() <= {*pair} for pair in zip(*_TRUTH, strict=True)):
        written |= {there: written[here] for pair in _TRUTH for here, there in (pair, pair[::-1]) if here in written}
    where, values = pd.factorize(present)
    found = [exact.get(v, written.get(_written(v), len(labels))) for v in map(label, values)]
    return np.array(found, dtype=np.int64)[where]


def alike(cell: Label, label: Label) -> bool:
    """Whether a cell is written as a label is, as "2007" and 2007 are."""
    return _written(cell) == _written(label)


#: how truth is written, in words and in numbers
_TRUTH = (("false", "0"), ("true", "1"))


def _written(value: Label) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        text = value.strip()
        said = number(text)
        if said is None:
            return text.lower() if text.lower() in ("true", "false") else text
        value = said
    if isinstance(value, int):
        return str(value)
    return str(int(value)) if value.is_integer() else repr(value)
