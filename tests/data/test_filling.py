"""Own cells beside drawn ones: every cell that was there comes back."""

from __future__ import annotations

import pandas as pd
import pytest
from pandas.api import types

from mixtura.data.filling import fill_column
from mixtura.data.guess import guess


def field(values):
    schema = guess(pd.DataFrame({"a": values, "b": range(len(values))}))
    return next(f for f in schema.fields if f.name == "a")


def filled(learnt, given, drawn):
    """Cell 0 of ``given`` is drawn; the last cannot be filled."""
    series = pd.Series(given)
    made = field(learnt)
    new = pd.Series([drawn, drawn], dtype=types.pandas_dtype(made.dtype) if made.dtype != "str" else object)
    return fill_column(made, series, series.isna().to_numpy(), pd.Series([0, 1]).to_numpy(), new)


WHOLE, REAL, TRUTH = list(range(30)), [i / 10 for i in range(30)], [True, False] * 15


@pytest.mark.parametrize(
    ("learnt", "given", "drawn", "expected", "dtype"),
    [
        (WHOLE, [None, 3.0], 5, [5, 3], "int64"),
        (WHOLE, [None, "49.4"], 5, [5, 49.4], "float64"),
        (WHOLE, [None, 3.0, None], 5, [5, 3, None], "Int64"),
        (WHOLE, [None, str(2**60 + 1)], 5, [5, 2**60 + 1], "int64"),
        (REAL, [None, "47.837"], 0.5, [0.5, 47.837], "float64"),
        (REAL, [None, "large"], 0.5, [0.5, "large"], "object"),
        (["x", "y"] * 15, [None, "z"], "x", ["x", "z"], None),
        (["True", "False"] * 15, [None, "1", "0"], "True", ["1", "1", "0"], None),
        (TRUTH, [None, True, "maybe"], False, [False, True, "maybe"], "object"),
        ([f"2024-01-{1 + i % 28:02d}" for i in range(30)], [None, "2024-02-01 12:00"], "2024-01-05",
         ["2024-01-05", "2024-02-01 12:00"], None),
    ],
)  # fmt: skip
def test_cells_come_back_as_given(learnt, given, drawn, expected, dtype):
    out = filled(learnt, given, drawn)
    assert [None if pd.isna(cell) else cell for cell in out] == expected
    assert dtype is None or str(out.dtype) == dtype


def test_dates_are_of_one_type():
    texts = [f"2024-01-{1 + i % 28:02d}" for i in range(30)]
    given = pd.Series([pd.NaT, pd.Timestamp("2024-02-01 12:00")])
    out = fill_column(field(texts), given, given.isna().to_numpy(), pd.Series([0]).to_numpy(), pd.Series(["2024-01-05"]))
    assert types.is_datetime64_any_dtype(out.dtype) and out.tolist() == [pd.Timestamp("2024-01-05"), given[1]]
