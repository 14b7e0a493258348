"""Types of columns by their names, as a schema keeps them, and columns in these types.

Where pandas has no dtype of its own the library has two names of its own: "date" (objects of ``datetime.date``) and "decimal(2)"
(objects of ``decimal.Decimal`` with so many digits after the point).
"""

from __future__ import annotations

import contextlib
import datetime
import decimal
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from mixtura.contracts import InputError

#: whole numbers up to here are exact in float64
EXACT = 2**53
#: the key of ``frame.attrs`` under which a table from a Parquet file keeps {column: its type there}
STORED = "parquet types"
_DECIMAL = re.compile(r"decimal\((\d+)\)")
_WIDE = decimal.Context(prec=100)


def pyarrow() -> Any:
    """The library. Raises InputError if it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("Parquet files need pyarrow, which is not installed; pip install pyarrow, or use .csv") from error
    return pyarrow


def arrow_type(text: str) -> Any:
    """The Arrow type whose ``str`` this is. Raises ValueError for nested types and all others that columns of scalars cannot
    have."""
    pa = pyarrow()
    if found := re.fullmatch(r"dictionary<values=(.+), indices=(\w+), ordered=([01])>", text):
        return pa.dictionary(arrow_type(found[2]), arrow_type(found[1]), ordered=found[3] == "1")
    if found := re.fullmatch(r"decimal(32|64|128|256)\((\d+), (-?\d+)\)", text):
        return getattr(pa, f"decimal{found[1]}")(int(found[2]), int(found[3]))
    if found := re.fullmatch(r"timestamp\[(s|ms|us|ns), tz=(.+)\]", text):
        return pa.timestamp(found[1], found[2])
    return pa.type_for_alias(text)


def stored_types(arrow_schema: Any) -> dict[str, Any]:
    """{column: the text of its Arrow type}; the type itself of those that :func:`arrow_type` does not know by it."""
    found: dict[str, Any] = {}
    for field in arrow_schema:
        found[field.name] = field.type
        with contextlib.suppress(ValueError):
            if arrow_type(str(field.type)) == field.type:
                found[field.name] = str(field.type)
    return found


def keep_stored(frame: pd.DataFrame, stored: Mapping[str, Any]) -> pd.DataFrame:
    """``frame`` with the types that some of its columns had in a Parquet file added to those that it has kept."""
    frame.attrs[STORED] = {**frame.attrs.get(STORED, {}), **stored}
    return frame


def digits_held(stored: str) -> tuple[int, int] | None:
    """(all digits, those after the point) that a Parquet decimal of this type holds; None for another type."""
    found = re.fullmatch(r"decimal\d+\((\d+), (-?\d+)\)(?:\[pyarrow\])?", stored)
    return None if found is None else (int(found[1]), int(found[2]))


def name_of(series: pd.Series, present: pd.Series) -> str:
    """The name of a column's type. present: its cells that are not missing, out of any Categorical or Arrow array."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        return "category"
    if types.is_object_dtype(series.dtype) and len(present):
        says = types.infer_dtype(present)
        if says == "date":
            return "date"
        if says == "decimal" and all(v.is_finite() for v in present):
            return f"decimal({max(0, *(-int(v.as_tuple().exponent) for v in present))})"
    return str(series.dtype)


def is_text(dtype: Any) -> bool:
    """Whether cells of this dtype may be text."""
    return types.is_object_dtype(dtype) or (types.is_string_dtype(dtype) and not isinstance(dtype, pd.CategoricalDtype))


def distinct_texts(present: pd.Series) -> tuple[np.ndarray, list[str]]:
    """(position of every cell among them (n,), the different texts of a column)."""
    codes, values = pd.factorize(present)
    return codes, [str(v) for v in values]


def precision(dtype: Any) -> np.dtype:
    """The numpy dtype a numeric column is stored in (nullable, Arrow and sparse columns included)."""
    return np.dtype(dtype.subtype if isinstance(dtype, pd.SparseDtype) else getattr(dtype, "numpy_dtype", dtype))


def native(array: np.ndarray) -> np.ndarray:
    """The same values in the byte order of this machine, which pandas and torch need; wider floats as float64."""
    return array.astype(native_dtype(array.dtype), copy=False)


def native_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype of what :func:`native` returns."""
    return np.dtype(np.float64) if dtype.kind == "f" and dtype.itemsize > 8 else dtype.newbyteorder("=")


def dense(column: pd.Series) -> pd.Series:
    """A column out of a sparse array."""
    return column.sparse.to_dense() if isinstance(column.dtype, pd.SparseDtype) else column


def text_dtype() -> Any:
    """The dtype in which this version of pandas keeps text: ``str`` from 3.0 on, objects before."""
    dtype = types.pandas_dtype("str")
    return object if isinstance(dtype, np.dtype) else dtype


def dtype(text: str) -> Any:
    """The pandas dtype of this name; object for the names of the library's own."""
    if text == "date" or _DECIMAL.fullmatch(text):
        return np.dtype(object)
    if text == "str":
        return np.dtype(object) if text_dtype() is object else text_dtype()
    if text.endswith("[pyarrow]"):
        return pd.ArrowDtype(arrow_type(text.removesuffix("[pyarrow]")))
    if found := re.fullmatch(r"Sparse\[(\w+), (?:np\.\w+\()?([^()]+)\)?\]", text):
        inner = np.dtype(found[1])
        return pd.SparseDtype(inner, found[2].endswith("True") if inner.kind == "b" else inner.type(found[2]).item())
    return types.pandas_dtype(text)


def plain(series: pd.Series) -> pd.Series:
    """A column out of an Arrow array, in the dtype that pandas gives it in a Parquet file."""
    if not isinstance(series.dtype, pd.ArrowDtype):
        return series
    cells = pyarrow().array(series).to_pandas(integer_object_nulls=True)
    return cells.set_axis(series.index).rename(series.name)


def cells_as(text: str, values: np.ndarray, missing: np.ndarray) -> pd.Series:
    """(n,) decoded values, missing where ``missing`` is true, in the dtype of this name, or in its nullable counterpart if it
    cannot hold a missing cell."""
    if text == "date" or _DECIMAL.fullmatch(text):
        make = _date if text == "date" else _quantizer(int(text[len("decimal(") : -1]))
        cells = [None if gone else make(v) for v, gone in zip(values, missing, strict=True)]
        return pd.Series(cells, dtype=object)
    wanted = dtype(text)
    if isinstance(wanted, pd.ArrowDtype):
        return pd.Series(pd.arrays.ArrowExtensionArray(_arrow_cells(values, missing, wanted.pyarrow_dtype)))
    if missing.any() and isinstance(wanted, np.dtype):
        wanted = {"i": "Int64", "u": "UInt64", "b": "boolean"}.get(wanted.kind, wanted)
    if missing.any():
        values = values.astype(object)
        values[missing] = np.nan if types.is_float_dtype(wanted) else None
    return pd.Series(values, dtype=object if values.dtype == object else None).astype(wanted)


def _date(value: Any) -> datetime.date:
    return datetime.date.fromisoformat(str(value)[:10])


def _quantizer(digits: int) -> Any:
    unit = Decimal(1).scaleb(-digits)
    return lambda value: Decimal(str(value)).quantize(unit, context=_WIDE)


def _arrow_cells(values: np.ndarray, missing: np.ndarray, wanted: Any) -> Any:
    pa = pyarrow()
    if pa.types.is_decimal(wanted):
        values = np.array([None if gone else _quantizer(wanted.scale)(v) for v, gone in zip(values, missing, strict=True)])
    if values.dtype.kind == "M":
        return pa.array(values, mask=missing).cast(wanted)
    listed = [None if gone else v for v, gone in zip(values.tolist(), missing, strict=True)]
    return pa.chunked_array([as_arrow(listed, wanted)])


def as_arrow(listed: list[Any], wanted: Any) -> Any:
    """Plain cells, None where missing, as an Arrow array of this type; text is read by the rules of Arrow."""
    pa = pyarrow()
    if pa.types.is_dictionary(wanted):
        return as_arrow(listed, wanted.value_type).dictionary_encode().cast(wanted)
    if pa.types.is_nested(wanted) or pa.types.is_fixed_size_binary(wanted):
        return pa.array(listed, type=wanted)
    read = _FROM_TEXT[0] if pa.types.is_time(wanted) else _FROM_TEXT[1] if pa.types.is_date(wanted) else None
    if read is not None:
        listed = [read(v) if isinstance(v, str) else v for v in listed]
    if pa.types.is_integer(wanted) and all(isinstance(v, int) for v in listed if v is not None):
        return pa.array(listed, type=wanted)
    return pa.array(widened(listed)).cast(wanted)


_FROM_TEXT = (datetime.time.fromisoformat, datetime.date.fromisoformat)


def widened(listed: list[Any]) -> list[Any]:
    """Cells with whole numbers of more than 64 bits, and numbers beside decimals, as decimals, which Arrow holds up to 76
    digits."""
    whole = [v for v in listed if isinstance(v, int) and not isinstance(v, bool)]
    large = bool(whole) and not -(2**63) <= min(whole) <= max(whole) < 2**63
    if not large and not any(isinstance(v, Decimal) for v in listed):
        return listed
    return [Decimal(str(v)) if isinstance(v, int | float) and not isinstance(v, bool) else v for v in listed]
