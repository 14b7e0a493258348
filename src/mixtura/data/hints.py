"""Advice for text that looks like numbers or dates but cannot be read as them."""

from __future__ import annotations

import re

import pandas as pd

from mixtura.data.datetimes import read_dates, shape_of_date
from mixtura.data.dtypes import distinct_texts, is_text
from mixtura.data.numerals import FEW_TEXTS, WRITTEN, is_number, style_of_texts


def looks_like_number(text: str) -> bool:
    """Whether a text is a number in some style that people write; a code ("007") is not."""
    return is_number(text) or (WRITTEN.fullmatch(text.strip()) is not None and not is_code(text))


def is_code(text: str) -> bool:
    """Whether a text is digits with a leading zero, such as the postal code 06455, which a number would lose."""
    return re.fullmatch(r"0[0-9]+", text.strip()) is not None


def why_not(present: pd.Series, like: str = "") -> str:
    """Why a column of text cannot be read as numbers or dates though it looks like them: a part of a sentence, with advice. Empty
    for other text. like: the pattern that dates were learnt in."""
    if not is_text(present.dtype) or len(present) == 0:
        return ""
    texts = distinct_texts(present)[1]
    for said in (style_of_texts(texts), read_dates(texts, like)):
        if isinstance(said, str):
            return said
        if isinstance(said, tuple):
            of_shape = {shape_of_date(p): text for text, p in zip(texts, said[1], strict=True)}
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
    """An example of the texts, if they consist mostly of digits and share a few patterns of digits and marks, as codes or numbers
    in an unknown style do. Else empty."""
    texts = distinct_texts(present)[1]
    forms = {re.sub(r"[0-9]+", "0", t.strip()) for t in texts}
    digits = sum(c.isdigit() for t in texts for c in t)
    return texts[0] if len(forms) <= _FEW_FORMS and 2 * digits >= sum(map(len, texts)) else ""

#: patterns (a text with each number replaced by 0) that such a column has at most
_FEW_FORMS = 6

_DIGITS = r"[0-9]+(?:[.,' ][0-9]+)*"

#: regular expression → advice for a column of which all texts match and some have the group ``mark``
_NAMED = {
    r"[0-9]{1,3}(?P<mark>:)[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?: ?[ap]\.?m\.?)?": (
        "times of day, or durations, as in {!r}; write them as numbers, of hours, minutes or seconds"
    ),
    r"[0-9]{4}(?P<mark>[-/])[0-9]{1,2}": "months, as in {!r}; write them as dates, such as 2024-12-01",
    r"[0-9]{1,2}(?P<mark>[-/])[0-9]{4}": "months, as in {!r}; write them as dates, such as 2024-12-01",
    r"(?P<mark>\D{0,12}(?:[0-9]{4}([-/.])[0-9]{1,2}\2[0-9]{1,2}|[0-9]{1,2}([-/.])[0-9]{1,2}\3[0-9]{4})(?:\D.*)?)": (
        "dates written in a style that is not read, as in {!r}; write them as 2024-12-31 or 2024-12-31 23:59:59"
    ),
    rf"(?P<mark>[<>≤≥~≈]=?|ca?\.)? ?-?{_DIGITS}": "numbers, some of them bounds, as in {!r}; write them as numbers alone",
    r"-?[0-9]+(?:[.,][0-9]+)?(?P<mark>e)[-+]?[0-9]+": "numbers with an exponent, as in {!r}; write them with a decimal point",
    r"[-+]?[0-9]{1,2}(?P<mark>,[0-9]{2})*,[0-9]{3}(?:\.[0-9]+)?": "numbers in groups of two digits, as in {!r}; write no commas",
    rf"[^\w\s.,()-]{{0,3}}[(]?[-+]?{_DIGITS} ?(?P<mark>[-+)]|[kmbt]n?|mio\.?|cr|dr)?": (
        "numbers written in a style that is not read, as in {!r}; write them as 1234.5"
    ),
}

_MONTHS = frozenset("jan feb mar apr may jun jul aug sep oct nov dec mär mai okt dez".split())
