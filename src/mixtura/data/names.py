"""The names of columns: of a table, of several tables that belong together, and in messages."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable
from typing import cast

import pandas as pd

from mixtura.contracts import InputError, Note


def named(frame: pd.DataFrame, *, name: str = "data") -> pd.DataFrame:
    """``frame`` with text for column names: x0, x1, … if it has no header. InputError if two are the same."""
    if not isinstance(frame, pd.DataFrame):
        raise InputError(
            f"{name}: expected a pandas DataFrame, got {type(frame).__name__}; pass it through mixtura.data.read first"
        )
    unnamed = isinstance(frame.columns, pd.RangeIndex) and list(frame.columns) == list(range(frame.shape[1]))
    frame = frame.set_axis([f"x{c}" if unnamed else str(c) for c in frame.columns], axis=1)
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise InputError(f"{name}: two columns are named {twice!r}; give every column a name of its own")
    return frame


def listed(names: Iterable[str], most: int) -> str:
    """Names as an option that takes several expects them: a name with a comma in quotes. At most ``most`` are listed."""
    shown = [f'"{name}"' if "," in name else name for name in names]
    quoted = " (a name with a comma is given in quotes)" if any("," in name for name in shown) else ""
    return ", ".join(shown[:most]) + (", …" if len(shown) > most else "") + quoted


def closest(word: str, among: Iterable[str]) -> str:
    """The end of a sentence that names the most similar of some words, empty where none is similar."""
    found = difflib.get_close_matches(word, list(among), n=1, cutoff=0.5)
    return f" (closest: {found[0]!r})" if found else ""


def header(frame: pd.DataFrame) -> list[str] | None:
    """The names of the columns of a table; None for a table without a header (x0, x1, …)."""
    names = [str(c) for c in frame.columns]
    return None if names == [f"x{j}" for j in range(len(names))] else names


def aligned(frame: pd.DataFrame, columns: list[str] | None, *, name: str, like: str) -> pd.DataFrame:
    """``frame`` with its columns in the order of ``columns``, the names that the data called ``like`` has; unchanged where
    either has no header. Raises InputError for a name that is missing; a :class:`Note` names the columns that are left
    out."""
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
