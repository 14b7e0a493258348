"""Tables to files, so that reading a file gives the table back: every digit, zone and level, or a refusal by column."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from pandas.api import types

from mixtura.contracts import InputError
from mixtura.data import dtypes
from mixtura.data.cells import MISSING, Label
from mixtura.data.dtypes import EXACT, precision
from mixtura.data.schema import named
from mixtura.ground.machine import drafted

#: rows turned into text at a time
_AT_ONCE = 20_000
_MISSING = frozenset(word.lower() for word in MISSING)
#: what would end a terminal's line, steer it or turn its text around, and halves of characters: ``\u`` escapes in JSON
_UNSEEN = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def write(frame: pd.DataFrame, path: str | Path) -> None:
    """Write ``frame`` as its ending says (.csv .tsv .parquet .json .jsonl; .npy and .npz for numbers alone),
    all of it or nothing: a reader never sees half a file. Raises InputError for another ending, a folder
    that is not there or takes no file, or cells that the format cannot hold, naming their column."""
    path = Path(path)
    if path.suffix.lower() not in WRITERS:
        raise InputError(
            f"{path.name}: {path.suffix or 'a name without ending'} is not written here, expected {' '.join(WRITERS)}; "
            "name the file so"
        )
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; make it first")
    frame = named(frame, name=path.name)
    with drafted(path) as draft, draft.open("wb") as file:
        WRITERS[path.suffix.lower()](frame, file)


def _refused(column: Any, holds: str, other: str) -> InputError:
    return InputError(f"column {str(column)!r} {holds}; write {other}")


# ---------------------------------------------------------------------------------------------------- text


def json_rows(frame: pd.DataFrame) -> Iterator[str]:
    """The rows as JSON objects, of .json and .jsonl files and of ``--json``: numbers with all their digits, an infinite one as
    1e999, which every reader of JSON takes for infinite; what is missing as null. InputError as :func:`write`."""
    keys = [_json_text(str(c)) for c in frame]
    for block in _blocks(frame):
        columns = [_json_cells(column) for _, column in block.items()]
        for row in zip(*columns, strict=True) if columns else ["" for _ in range(len(block))]:
            yield "{" + ", ".join(f"{key}: {cell}" for key, cell in zip(keys, row, strict=True)) + "}"


def json_text(value: Any) -> str:
    """Plain data as strict JSON of one line in which nothing steers a terminal."""
    return _escaped(json.dumps(value, ensure_ascii=False, allow_nan=False))


def _json_text(text: str) -> str:
    return _escaped(json.dumps(text, ensure_ascii=False))


def _escaped(text: str) -> str:
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _json_cells(column: pd.Series) -> list[str]:
    known: dict[tuple[type, Any], str] = {}
    exact = all(_float_is(v) for v in column if isinstance(v, Decimal))
    out = []
    for value, text in _cells(column):
        if value is None or isinstance(value, float | int | list | dict):
            out.append(_json_number(value) if not isinstance(value, list | dict) else json_text(value))
        elif isinstance(value, Decimal) and exact:
            out.append(text)
        else:
            out.append(known.setdefault((type(value), text), _json_text(text)))
    return out


def _json_number(value: float | None) -> str:
    if isinstance(value, float) and math.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    return json.dumps(value)


def _float_is(value: Decimal) -> bool:
    return value.is_finite() and Decimal(repr(float(value))) == value


def _write_json(frame: pd.DataFrame, file: IO[bytes]) -> None:
    for number, row in enumerate(json_rows(frame)):
        file.write((",\n " if number else "[").encode() + row.encode())
    file.write(b"]\n" if len(frame) else b"[]\n")


def _write_jsonl(frame: pd.DataFrame, file: IO[bytes]) -> None:
    file.writelines(row.encode() + b"\n" for row in json_rows(frame))


def csv_lines(frame: pd.DataFrame, delimiter: str = ",") -> Iterator[str]:
    """The lines of a CSV file. What is missing is empty, or NA where a line would be blank; text that could be taken for missing
    stands in quotes. InputError as :func:`write`."""
    odd = re.compile(rf'[{re.escape(delimiter)}"\r\n]|^\s|\s$')

    def quoted(text: str) -> str:
        if "\0" in text:
            raise InputError(f"{text!r} holds a zero byte, which no reader takes; write .json or .jsonl, or repair the cell")
        return '"' + text.replace('"', '""') + '"' if odd.search(text) or text.lower() in _MISSING else text

    def shown(value: Any, text: str) -> str:
        return gap if value is None else text if isinstance(value, int | float) else quoted(text)

    gap = "" if frame.shape[1] > 1 else "NA"
    if frame.shape[1]:
        yield delimiter.join(quoted(str(c)) for c in frame) + "\n"
    for _, column in frame.items():
        _refuse_alike(column)
    for block in _blocks(frame):
        columns = ([shown(value, text) for value, text in _cells(column)] for _, column in block.items())
        yield from (delimiter.join(row) + "\n" for row in zip(*columns, strict=True))


def _refuse_alike(column: pd.Series) -> None:
    """Labels that are two in the table and one as text, such as 1 and "1"."""
    if not (types.is_object_dtype(column.dtype) or isinstance(column.dtype, pd.CategoricalDtype)):
        return
    kinds: dict[str, Any] = {}
    for value, text in _cells(pd.Series(list(_distinct(column)), dtype=object, name=column.name)):
        twin = kinds.setdefault(text, value)
        if type(twin) is not type(value):
            raise _refused(column.name, f"holds {twin!r} and {value!r}, which text cannot tell apart", ".json or .jsonl")


def _distinct(column: pd.Series) -> Iterable[Any]:
    return {(type(v), v): v for v in column if isinstance(v, Label) and not (isinstance(v, float) and math.isnan(v))}.values()


def _write_csv(delimiter: str) -> Callable[[pd.DataFrame, IO[bytes]], None]:
    def write(frame: pd.DataFrame, file: IO[bytes]) -> None:
        for line in csv_lines(frame, delimiter):
            try:
                file.write(line.encode())
            except UnicodeEncodeError as error:
                half = re.search("[\ud800-\udfff]", line)
                said = f"a line holds half a character ({ascii(half[0]) if half else error.reason})"
                raise InputError(f"{said}, which is no text; write .json or .jsonl, or repair the cell") from error

    return write


def _blocks(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    return (frame.iloc[start : start + _AT_ONCE] for start in range(0, len(frame), _AT_ONCE))


def _cells(column: pd.Series) -> Iterator[tuple[Any, str]]:
    """(plain value, its text) of every cell; (None, "") where it is missing. Instants are text, in one manner a column."""
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
            raise _refused(name, f"holds {type(value).__name__}s that text cannot hold ({error})", ".parquet") from error
    if isinstance(value, bytes | bytearray | memoryview):
        raise _refused(name, "holds bytes, which are no text", ".parquet, or leave the column out")
    return value if isinstance(value, Label) else str(value), str(value)


def _instants(column: pd.Series) -> tuple[list[Any], list[str]]:
    """Dates alone where every one is a midnight without a zone. In UTC where the column's zone was once off by seconds."""
    stamps = column.dropna()
    if not stamps.dt.year.between(datetime.MINYEAR, datetime.MAXYEAR).all():
        raise _refused(column.name, f"holds dates that are not of the years 1 to {datetime.MAXYEAR}", ".parquet")
    if column.dt.tz is not None and any(t.utcoffset().total_seconds() % 60 for t in stamps):
        column = column.dt.tz_convert("UTC")
    bare = column.dt.tz is None and bool((stamps == stamps.dt.normalize()).all())
    texts = ["" if t is pd.NaT else str(t)[:10] if bare else str(t) for t in column]
    return [text or None for text in texts], texts


# ----------------------------------------------------------------------------------------- parquet, arrays


def _write_parquet(frame: pd.DataFrame, file: IO[bytes]) -> None:
    pa = dtypes.pyarrow()
    stored = frame.attrs.get(dtypes.STORED, {})
    frame = frame.copy(deep=False)
    frame.attrs = {}
    arrays = [_arrow(column, stored.get(name)) for name, column in frame.items()]
    # what pandas makes of the columns again, were they to be read by it
    dense = pd.DataFrame({name: _dense(column.iloc[:0]) for name, column in frame.items()}, index=pd.RangeIndex(0))
    about = pa.Table.from_pandas(dense, preserve_index=False).schema.metadata
    pa.parquet.write_table(pa.table(arrays, names=list(frame.columns)).replace_schema_metadata(about), file)


def _dense(column: pd.Series) -> pd.Series:
    return column.sparse.to_dense() if isinstance(column.dtype, pd.SparseDtype) else column


def _arrow(column: pd.Series, stored: Any) -> Any:
    """A column as an Arrow array, of the type it had in its own file if that is known."""
    pa = dtypes.pyarrow()
    column = _dense(column)
    try:
        wanted = dtypes.arrow_type(stored) if isinstance(stored, str) else stored
        if isinstance(column.dtype, pd.CategoricalDtype) and wanted is not None and pa.types.is_dictionary(wanted):
            codes = pa.array(column.cat.codes, type=wanted.index_type, mask=column.isna().to_numpy())
            values = dtypes.as_arrow(column.cat.categories.tolist(), wanted.value_type)
            return pa.DictionaryArray.from_arrays(codes, values, ordered=wanted.ordered)
        if types.is_object_dtype(column.dtype):
            listed = [None if _absent(v) else v for v in column]
            return dtypes.as_arrow(listed, wanted) if wanted is not None else pa.array(dtypes.widened(listed))
        array = pa.array(column, from_pandas=True)
        return array if wanted is None or array.type == wanted else _cast(array, wanted)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:120]
        raise _refused(column.name, f"cannot be held by Parquet as {stored or 'one type'} ({said})", ".csv or .jsonl") from error


def _cast(array: Any, wanted: Any) -> Any:
    pa = dtypes.pyarrow()
    if pa.types.is_dictionary(wanted):
        return array.cast(wanted.value_type).dictionary_encode().cast(wanted)
    return array.cast(wanted)


def _absent(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


_OTHERS = ".csv, .jsonl or .parquet"


def matrix(frame: pd.DataFrame) -> np.ndarray:
    """(n, columns): numbers alone, of one type that holds each of them exactly. InputError as :func:`write`."""
    columns = [_numbers(column) for _, column in frame.items()]
    common = np.result_type(*{c.dtype for c in columns}) if columns else np.dtype(float)
    for name, column in zip(frame, columns, strict=True):
        if column.dtype.kind in "iu" and common.kind == "f" and len(column) and not _fits(column):
            raise _refused(name, "holds whole numbers past 2^53, which an array of real numbers rounds", _OTHERS)
    return np.stack([c.astype(common) for c in columns], axis=1) if columns else np.empty((len(frame), 0))


def _fits(column: np.ndarray) -> bool:
    return -EXACT <= int(column.min()) and int(column.max()) <= EXACT


def _numbers(column: pd.Series) -> np.ndarray:
    """As numbers, NaN where missing."""
    column = _dense(dtypes.plain(column))
    column = column.astype(object) if isinstance(column.dtype, pd.CategoricalDtype) else column
    present = column.dropna()
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return column.to_numpy()
    says = types.infer_dtype(present) if types.is_object_dtype(present.dtype) else ""
    numeric = types.is_numeric_dtype(column.dtype) or says in ("integer", "boolean", "floating", "mixed-integer-float", "decimal")
    if not numeric and len(present):
        raise _refused(column.name, "holds no numbers, which is all an array can", _OTHERS)
    exact = [v.item() if isinstance(v, np.generic) else v for v in present]
    if any(isinstance(v, int) and not -(2**63) <= v < 2**63 for v in exact):
        raise _refused(column.name, "holds whole numbers past 2^63, which no array holds", _OTHERS)
    if any((isinstance(v, Decimal) and not _float_is(v)) for v in exact):
        raise _refused(column.name, "holds decimals of more digits than a real number keeps", _OTHERS)
    whole = all(isinstance(v, int) for v in exact)
    if len(present) == len(column):
        return np.array(exact, dtype=np.int64 if whole else np.float64)
    if whole and exact and not all(-EXACT <= v <= EXACT for v in exact):
        raise _refused(column.name, "holds gaps beside whole numbers past 2^53, which an array would round", _OTHERS)
    out = np.full(len(column), np.nan)
    out[column.notna().to_numpy()] = np.array(exact, dtype=np.float64)
    return out


WRITERS: dict[str, Callable[[pd.DataFrame, IO[bytes]], Any]] = {
    ".csv": _write_csv(","),
    ".tsv": _write_csv("\t"),
    ".parquet": _write_parquet,
    ".json": _write_json,
    ".jsonl": _write_jsonl,
    ".npy": lambda frame, file: np.save(file, matrix(frame), allow_pickle=False),
    ".npz": lambda frame, file: np.savez(file, data=matrix(frame)),
}
#: those that hold numbers and no names of columns
ARRAYS = (".npy", ".npz")
