"""Parquet files, each column in its own type."""

from __future__ import annotations

import datetime
import math
from collections import Counter
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from pandas.api import types

from mixtura.contracts import InputError
from mixtura.data import dtypes
from mixtura.data.files.door import BLOCK_CELLS, Door, Levels, OpenTable, reading
from mixtura.data.files.printed import cannot_hold


def _open_table(path: Path, _: str | None, levels: Levels) -> OpenTable:
    pa = dtypes.pyarrow()
    with reading(path, "Parquet"):
        file = pa.parquet.ParquetFile(path)
        rows, columns = file.metadata.num_rows, len(file.schema_arrow)
    name, often = Counter(file.schema_arrow.names).most_common(1)[0] if columns else ("", 1)
    if often > 1:
        raise InputError(f"{path.name}: has {often} columns called {name!r}; give every column a name of its own")

    def take(chosen: np.ndarray) -> pd.DataFrame:
        pieces, start = [], 0
        with reading(path, "Parquet"):
            for batch in file.iter_batches(batch_size=max(1, BLOCK_CELLS // columns)):
                inside = chosen[(chosen >= start) & (chosen < start + len(batch))] - start
                pieces.append(_plain_text(pa.Table.from_batches([batch])).take(pa.array(inside)))
                start += len(batch)
            table = pa.concat_tables(pieces).unify_dictionaries()
            table.validate(full=True)  # this raises here for bytes that are not text, not later
            frame = table.to_pandas(integer_object_nulls=True)
            frame = frame if frame.index.names == [None] else frame.reset_index()
            for column in table.schema:  # whole numbers beside missing cells are objects here
                if column.name in frame and pa.types.is_integer(column.type) and types.is_object_dtype(frame[column.name].dtype):
                    frame[column.name] = frame[column.name].astype(str(column.type).replace("i", "I").replace("u", "U"))
            for _, column in frame.items():
                if types.is_datetime64_any_dtype(column.dtype):
                    _refuse_strange_years(path, column, chosen)
            return dtypes.keep_stored(frame, dtypes.stored_types(table.schema))

    return OpenTable(rows, columns, take)


def _plain_text(table: Any) -> Any:
    """A table with text and bytes as plain columns: of views Arrow can neither take rows nor convert them to pandas."""
    pa = dtypes.pyarrow()
    plain = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    return table.cast(pa.schema([field.with_type(plain.get(field.type, field.type)) for field in table.schema]))


def _refuse_strange_years(path: Path, column: pd.Series, rows: np.ndarray) -> None:
    """Arrow has dates of any year; text and Python have those of the years 1 to 9999."""
    years = column.dt.year
    strange = (column.notna() & ~years.between(datetime.MINYEAR, datetime.MAXYEAR)).to_numpy().nonzero()[0]
    if len(strange):
        raise InputError(
            f"{path.name}: column {column.name!r}, row {rows[strange[0]]} is a date in the year {years.iloc[strange[0]]:.0f}, "
            f"expected the years {datetime.MINYEAR} to {datetime.MAXYEAR}; correct it, or write the column as numbers"
        )


def _write_table(frame: pd.DataFrame, file: IO[bytes]) -> None:
    pa = dtypes.pyarrow()
    stored = frame.attrs.get(dtypes.STORED, {})
    frame = frame.copy(deep=False)
    frame.attrs = {}
    arrays = [_arrow(column, stored.get(name)) for name, column in frame.items()]
    # the metadata by which pandas restores the dtypes of the columns
    plain = pd.DataFrame({name: dtypes.dense(column.iloc[:0]) for name, column in frame.items()}, index=pd.RangeIndex(0))
    about = pa.Table.from_pandas(plain, preserve_index=False).schema.metadata
    pa.parquet.write_table(pa.table(arrays, names=list(frame.columns)).replace_schema_metadata(about), file)


def _arrow(column: pd.Series, stored: Any) -> Any:
    """A column as an Arrow array, of the type it had in its own file if that is known."""
    pa = dtypes.pyarrow()
    column = dtypes.dense(column)
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
        holds = f"cannot be held by Parquet as {stored or 'one type'} ({said})"
        raise cannot_hold(column.name, holds, ".csv or .jsonl") from error


def _cast(array: Any, wanted: Any) -> Any:
    pa = dtypes.pyarrow()
    if pa.types.is_dictionary(wanted):
        return array.cast(wanted.value_type).dictionary_encode().cast(wanted)
    return array.cast(wanted)


def _absent(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


PARQUET = Door(open_table=_open_table, write_table=_write_table, check_library=dtypes.pyarrow)
