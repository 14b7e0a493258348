"""Cells of a table as text, for .csv, .tsv, .json and .jsonl: every digit, zone and level, or a refusal by column."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from mixtura.contracts import InputError
from mixtura.data import dtypes
from mixtura.data.cells import Label
from mixtura.data.dtypes import precision

#: rows turned into text at a time
_AT_ONCE = 20_000

#: characters that would end a line of a terminal, control it or reverse its text, and halves of characters; escaped in JSON
_UNSEEN = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def cannot_hold(column: Any, holds: str, other: str) -> InputError:
    """What to raise where a format cannot hold a column: what it ``holds``, and the formats that can."""
    return InputError(f"column {str(column)!r} {holds}; write {other}")


def json_text(value: Any) -> str:
    """Plain data as strict JSON of one line, without characters that control a terminal."""
    return escaped(json.dumps(value, ensure_ascii=False, allow_nan=False))


def escaped(text: str) -> str:
    """JSON with escapes for characters that control a terminal."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def float_holds(value: Decimal) -> bool:
    """Whether a float has all digits of a decimal number."""
    return value.is_finite() and Decimal(repr(float(value))) == value


def row_blocks(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The rows, some at a time."""
    return (frame.iloc[start : start + _AT_ONCE] for start in range(0, len(frame), _AT_ONCE))


def printed_cells(column: pd.Series) -> Iterator[tuple[Any, str]]:
    """(plain value, its text) of every cell; (None, "") where it is missing. Dates are text, in the same format in all of a
    column."""
    column = dtypes.plain(column)
    if types.is_datetime64_any_dtype(column.dtype):
        return zip(*_instants(column), strict=True)
    if isinstance(column.dtype, np.dtype) and (column.dtype.kind in "biu" or column.dtype == np.float64):
        return ((None, "") if v != v else (v, repr(v)) for v in column.tolist())
    if isinstance(column.dtype, pd.StringDtype):
        return ((v, v) if isinstance(v, str) else (None, "") for v in column.tolist())
    short = types.is_float_dtype(column.dtype) and precision(column.dtype).itemsize < 8
    return ((None, "") if g else _cell(v, column.name, short) for v, g in zip(column, column.isna(), strict=True))


def _cell(value: Any, name: Any, short: bool) -> tuple[Any, str]:
    if isinstance(value, np.generic):
        text = str(value) if short else ""  # of a float32 the digits that tell it from other float32
        value = value.item()
        if text:
            return value, text
    if isinstance(value, str):
        return value, value
    if isinstance(value, Decimal) and value.is_finite():
        return value, format(value, "f")
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return str(value), str(value)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | dict):
        try:
            return value, json_text(value)
        except (TypeError, ValueError) as error:
            raise cannot_hold(name, f"holds {type(value).__name__}s that text cannot hold ({error})", ".parquet") from error
    if isinstance(value, bytes | bytearray | memoryview):
        raise cannot_hold(name, "holds bytes, which are no text", ".parquet, or leave the column out")
    return value if isinstance(value, Label) else str(value), str(value)


def _instants(column: pd.Series) -> tuple[list[Any], list[str]]:
    """(plain values, texts) of a column of dates: days alone where every one is a midnight without a time zone; in UTC where
    an offset of the time zone has seconds."""
    stamps = column.dropna()
    if not stamps.dt.year.between(datetime.MINYEAR, datetime.MAXYEAR).all():
        raise cannot_hold(column.name, f"holds dates that are not of the years 1 to {datetime.MAXYEAR}", ".parquet")
    if column.dt.tz is not None and any(t.utcoffset().total_seconds() % 60 for t in stamps):
        column = column.dt.tz_convert("UTC")
    bare = column.dt.tz is None and bool((stamps == stamps.dt.normalize()).all())
    texts = ["" if t is pd.NaT else str(t)[:10] if bare else str(t) for t in column]
    return [text or None for text in texts], texts
