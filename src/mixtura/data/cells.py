"""Labels: cells as plain Python data, their codes, and the words for a missing cell."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from mixtura.data.dtypes import is_text
from mixtura.data.numerals import number

Label = str | int | float | bool

#: characters of one text, and of all labels of a column, at most
MOST_CHARACTERS = 2**24

#: texts that stand for a missing cell
MISSING = frozenset(["", "NA", "N/A", "n/a", "#N/A", "<NA>", "nan", "NaN", "NaT", "null", "NULL", "None"])

_NOTHING = frozenset(word.lower() for word in MISSING)


def is_missing_word(text: str) -> bool:
    """Whether a text is a word for a missing cell, or blank."""
    return text in MISSING or text.isspace()


def drop_missing_words(present: pd.Series, levels: Collection[Label] = ()) -> pd.Series:
    """The cells without the words for a missing cell, in upper or lower case. A word that is among ``levels`` is a level and
    stays."""
    if not is_text(present.dtype) or len(present) == 0:
        return present
    where, values = pd.factorize(present)
    says = np.array([not isinstance(v, str) or v in levels or v.strip().lower() not in _NOTHING for v in values], dtype=bool)
    return present if says.all() else present.iloc[np.flatnonzero(says[where])]


def label(value: Any) -> Label:
    """A cell as plain Python data: text, numbers and truth as they are, anything else as its text."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, str | int | float | bool) else text(value)


def text(value: Any) -> str:
    """``str`` of any cell. Where Python or pandas refuses it (a whole number of 4,300 digits, a date after 9999), it
    is a description instead."""
    try:
        return str(value)
    except (ValueError, NotImplementedError):
        return f"a {type(value).__name__} out of range"


def codes(present: pd.Series, labels: tuple[Label, ...]) -> np.ndarray:
    """(n,) int64 position of every cell among ``labels``; ``len(labels)`` for a cell that is not among them.

    A cell that equals a label has its code. So has a cell that is written like a label (the text "2007" like 2007, "True" like
    True), because the same table may be read once from CSV and once from Parquet. Among labels that are truth values, 0 is read
    as False and 1 as True.
    """
    exact = {v: k for k, v in reversed(list(enumerate(labels)))}
    written = {_written(v): k for k, v in reversed(list(enumerate(labels)))}
    if any(written.keys() <= {*pair} for pair in zip(*_TRUTH, strict=True)):
        written |= {there: written[here] for pair in _TRUTH for here, there in (pair, pair[::-1]) if here in written}
    where, values = pd.factorize(present)
    found = [exact.get(v, written.get(_written(v), len(labels))) for v in map(label, values)]
    return np.array(found, dtype=np.int64)[where]


def written_alike(cell: Label, label: Label) -> bool:
    """Whether a cell is written as a label is, as "2007" and 2007 are."""
    return _written(cell) == _written(label)

#: the truth values in words and in numbers
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
