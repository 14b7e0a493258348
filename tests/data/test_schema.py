"""A schema loses nothing: tables come back from tensors as they went in, and wrong tables are refused in words."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from mixtura.contracts import InputError
from mixtura.data import datetimes, dtypes, lattice
from mixtura.data.guess import guess
from mixtura.data.schema import Schema
from mixtura.data.tables import read
from mixtura.ground.encode import Columns

N = 60
ROW = np.arange(N)
RNG = np.random.default_rng(0)
GAPS = ROW % 7 == 3


def gaps(values, dtype):
    """Every seventh cell missing."""
    return pd.Series(values).astype(object).mask(GAPS).astype(dtype)


def dates(start: str, step: str, **kw) -> pd.Series:
    return pd.Series(pd.date_range(start, periods=N, freq=step, **kw)).iloc[RNG.permutation(N)].reset_index(drop=True)


TEXT = dtypes.text_dtype()
SIZES = ["low", "mid", "high", "top"]
SEVENTHS = RNG.normal(size=N) / 7

# name: (column, kind, resolution in tensor units)
COLUMNS = {
    "int8": (pd.Series((ROW * 3 % 41).astype(np.int8)), "integer", 1.0),
    "steps of 25": (pd.Series(2700 + 25 * (ROW * 7 % 31)), "integer", 25.0),
    "near 2^60": (pd.Series(2**60 + 3 + 2 * (ROW * 7 % 31)), "integer", 2.0),
    "uint64 past 2^63": (pd.Series(np.uint64(2**63) + np.uint64(5) * ROW.astype(np.uint64)), "integer", 5.0),
    "span of 2^53": (pd.Series([-(2**52), 2**52 - 1, *RNG.integers(-(2**52), 2**52, N - 2)]), "integer", 1.0),
    "Int64 gaps": (gaps(2**60 + ROW, "Int64"), "integer", 1.0),
    "whole floats gaps": (gaps(ROW * 2.0, "float64"), "integer", 2.0),
    "tenths": (pd.Series((ROW * 7 % 53 + 321) / 10), "numeric", 0.1),
    "quarters": (pd.Series((ROW * 7 % 53 - 20) / 4), "numeric", 0.25),
    "tenths gaps": (gaps((ROW + 321) / 10, "float64"), "numeric", 0.1),
    "float32 tenths": (pd.Series((ROW / 10).astype(np.float32)), "numeric", 0.1),
    "float16 tenths": (pd.Series((ROW / 10).astype(np.float16)), "numeric", 0.1),
    "sparse": (pd.Series(pd.arrays.SparseArray(ROW / 10)), "numeric", 0.1),
    "Float64 gaps": (gaps(ROW / 8, "Float64"), "numeric", 0.125),
    "millionths": (pd.Series(RNG.integers(0, 10**12, N) / 10**6), "numeric", 1e-6),
    "real": (pd.Series(SEVENTHS), "numeric", 0.0),
    "float32 real gaps": (gaps(SEVENTHS, "float32"), "numeric", 0.0),
    "tiny and huge": (pd.Series(np.exp(100 * SEVENTHS)), "numeric", 0.0),
    "few ints": (pd.Series(2007 + ROW % 3), "ordinal", None),
    "few floats gaps": (gaps(ROW % 4 * 1.0, "float64"), "ordinal", None),
    "bool": (pd.Series(ROW % 3 == 0), "boolean", None),
    "boolean gaps": (gaps(ROW % 3 == 0, "boolean"), "boolean", None),
    "text bool": (pd.Series(np.where(ROW % 3 == 0, "true", "false"), dtype=TEXT), "boolean", None),
    "text": (pd.Series([f"level {i % 5}" for i in ROW], dtype=TEXT), "categorical", None),
    "leading zeros": (pd.Series([f"{i % 12:03d}" for i in ROW], dtype=TEXT), "categorical", None),
    "question marks": (pd.Series(["?" if i % 5 == 0 else "a" for i in ROW], dtype=TEXT), "categorical", None),
    "string gaps": (gaps([f"level {i % 5}" for i in ROW], "string"), "categorical", None),
    "one level gaps": (gaps(["only"] * N, "string"), "categorical", None),
    "category": (pd.Series([f"level {i % 5}" for i in ROW]).astype("category"), "categorical", None),
    "category of ints gaps": (pd.Series(ROW % 4 * 10).astype("category").mask(GAPS), "categorical", None),
    "ordered": (pd.Series(["low", "high", "mid"] * 20).astype(pd.CategoricalDtype(SIZES, ordered=True)), "ordinal", None),
    "mixed objects": (pd.Series([1, "a", 2.5] * 20, dtype=object), "categorical", None),
    "days": (dates("2020-02-01", "3D"), "datetime", 1.0),
    "seconds": (dates("1969-12-31 23:59:01", "37s"), "datetime", 1.0),
    "nanoseconds": (dates("2021-03-04 05:06:07.000000001", "7ns"), "datetime", 1.0),
    "zone": (dates("2021-03-27 22:30", "17min", tz="Europe/Berlin"), "datetime", 1.0),
    "utc gaps": (dates("2021-03-27", "1h", tz="UTC").mask(GAPS), "datetime", 1.0),
    "far future": (pd.Series((np.datetime64("9998-01-01", "s") + 86400 * ROW).astype("M8[s]")), "datetime", 1.0),
    "text days gaps": (pd.Series(dates("1999-12-25", "D").dt.strftime("%Y/%m/%d"), dtype=TEXT).mask(GAPS), "datetime", 1.0),
    "text minutes": (pd.Series(dates("1999-12-25", "15min").dt.strftime("%Y-%m-%d %H:%M"), dtype=TEXT), "datetime", 1.0),
    "text zulu": (pd.Series(dates("1999-12-25 01:02:03", "s").dt.strftime("%Y-%m-%dT%H:%M:%SZ"), dtype=TEXT), "datetime", 1.0),
    "text offset": (pd.Series([f"2024-05-0{i % 9 + 1} 00:30:0{i % 7}.{i:02d}-03:30" for i in ROW], dtype=TEXT), "datetime", 1.0),
    "constant": (pd.Series(["2007"] * N, dtype=TEXT), "constant", None),
    "constant zone": (pd.Series([pd.Timestamp("2020-01-01 12:00", tz="Europe/Berlin")] * N), "constant", None),
    "constant float32": (pd.Series(np.full(N, 0.1, np.float32)), "constant", None),
    "empty": (pd.Series(np.full(N, np.nan)), "constant", None),
}


@pytest.fixture(scope="module")
def everything() -> pd.DataFrame:
    return pd.DataFrame({name: column for name, (column, _, _) in COLUMNS.items()})


@pytest.mark.parametrize("name", COLUMNS)
def test_round_trip_through_tensor_and_json(everything, name):
    column, kind, resolution = COLUMNS[name]
    frame = everything[["text", name]] if name != "text" else everything[[name]]
    learnt = guess(frame)
    field = learnt.fields[-1]
    assert field.kind == kind
    learnt = Schema.from_json(json.loads(json.dumps(learnt.to_json())))
    assert learnt.fields[-1] == field
    x = learnt.space.check(learnt.encode(frame))
    assert not learnt.space.outside(x).any()
    assert torch.isnan(x).any() == (bool(column.isna().any()) and kind != "constant")
    if resolution is not None:
        assert field.column.resolution == pytest.approx(resolution)
        assert (field.low, field.high) == (np.nanmin(x[:, -1]), np.nanmax(x[:, -1]))
    pd.testing.assert_frame_equal(learnt.decode(x), frame, check_exact=True)
    assert field.detail


def test_all_columns_at_once_in_any_order_with_extras(everything):
    learnt = guess(everything)
    x = learnt.encode(everything)
    shuffled = everything.iloc[:, RNG.permutation(everything.shape[1])].assign(extra=1).set_axis(range(100, 100 + N))
    torch.testing.assert_close(learnt.encode(shuffled), x, rtol=0, atol=0, equal_nan=True)
    pd.testing.assert_frame_equal(learnt.decode(x), everything, check_exact=True)


NUMBERS = {
    "ints": ([str(i) for i in range(30)], "int64", list(range(30)), 1.0),
    "written": (["39.10", "39.5", "40.30"] * 10, "float64", [39.1, 39.5, 40.3] * 10, 0.4),
    "spaces": ([f" {i}.5" for i in range(30)], "float64", [i + 0.5 for i in range(30)], 1.0),
    "exponents": ([f"{i}e-3" for i in range(1, 31)], "float64", [i / 1000 for i in range(1, 31)], 0.001),
    "big": ([str(2**60 + i) for i in range(30)], "int64", [2**60 + i for i in range(30)], 1.0),
    "bigger": ([str(10**30 + i) for i in range(30)], "object", [10**30 + i for i in range(30)], 1.0),
    "gap": ([None, *map(str, range(29))], "Int64", [pd.NA, *range(29)], 1.0),
    "long": ([repr(math.sqrt(i)) for i in range(30)], "float64", [math.sqrt(i) for i in range(30)], 0.0),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_written_as_text(name):
    texts, dtype, values, resolution = NUMBERS[name]
    frame = pd.DataFrame({"v": pd.Series(texts, dtype=TEXT)})
    learnt = guess(frame)
    assert learnt.fields[0].resolution == pytest.approx(resolution)
    back = learnt.decode(learnt.encode(frame))["v"]
    pd.testing.assert_series_equal(back, pd.Series(values, dtype=dtype, name="v"), check_exact=True)


def test_penguins_survive():
    frame = read("penguins").frame
    learnt = guess(frame)
    kinds = {f.name: (f.kind, f.resolution) for f in learnt.fields}
    assert kinds["bill_length_mm"] == ("numeric", 0.1) and kinds["body_mass_g"] == ("integer", 25.0)
    assert [kinds[c][0] for c in ("species", "sex", "year")] == ["categorical", "categorical", "ordinal"]
    back = learnt.decode(learnt.encode(frame))
    for column in frame:
        wanted = frame[column] if kinds[column][0] == "categorical" else pd.to_numeric(frame[column])
        assert back[column].isna().equals(wanted.isna()) and back[column].dropna().tolist() == wanted.dropna().tolist()
    detail = "step 0.1, 32.1 … 59.6, not below 0, 2 missing"
    assert learnt.describe()[2] == {"column": "bill_length_mm", "kind": "numeric", "detail": detail}


def test_samples_are_moved_to_steps_and_stay_within_walls():
    days = pd.date_range("2020-01-01", periods=N)
    frame = pd.DataFrame({"tenth": (ROW + 321) / 10, "mass": 2700 + 25 * ROW, "real": SEVENTHS, "day": days})
    x = torch.tensor([[34.1449, 30.0, 99.0, 3.4], [1e9, -1e9, -99.0, 1e9], [-1e9, 38.0, 0.5, -5.0]], dtype=torch.float64)
    back = guess(frame).decode(x)
    assert back["tenth"].tolist() == [34.1, 1e9, 0.0]
    assert back["mass"].tolist() == [2725, 0, 2750]
    assert back["real"].tolist() == [99.0, -99.0, 0.5]
    assert back["day"].dt.strftime("%y-%m-%d").tolist()[::2] == ["20-01-04", "19-12-27"]
    assert back["day"][1] > pd.Timestamp("2261-01-01")


def test_a_number_past_every_step_stays_and_one_below_zero_is_outside():
    learnt = guess(pd.DataFrame({"v": ROW / 10}))
    x = learnt.encode(pd.DataFrame({"v": [1e305, -(2.0**60), 3.14]}))
    assert x.flatten().tolist() == [1e305, -(2.0**60), 3.1]
    assert learnt.space.outside(x).tolist() == [False, True, False]


def test_values_of_other_tables_are_encoded_where_they_belong():
    frame = pd.DataFrame({"n": ROW * 10, "t": ROW / 10, "c": ["a", "b", "c"] * 20, "y": ROW % 2, "f": ROW % 2 == 0,
                          "d": pd.date_range("2020-01-01", periods=N)})
    other = pd.DataFrame({"n": ["14", "-1000"], "t": [0.26, -3.0], "c": ["z", "a"], "y": ["1.0", "7"], "f": ["TRUE", "no"],
                          "d": pd.Series(["2020-01-02T13:00", "2019-12-31T00:00"])})
    learnt = guess(frame)
    x = learnt.encode(other)
    assert x.tolist() == [[10.0, 0.3, 3.0, 1.0, 1.0, 2.0], [-1000.0, -3.0, 0.0, 2.0, 2.0, -1.0]]
    assert learnt.space.outside(x).tolist() == [True, True]


def test_identifiers_that_differ_in_one_digit_are_different_levels():
    ids = [str(2**60 + i) for i in range(3)] * 10
    learnt = guess(pd.DataFrame({"id": ids}), kinds={"id": "categorical"})
    assert learnt.encode(pd.DataFrame({"id": [ids[1], str(2**60 + 7)]})).flatten().tolist() == [1.0, 3.0]


def test_atoms_stand_out():
    gain = np.where(ROW < 40, 0, 100 + ROW)
    real = np.where(ROW < 4, 0.0, SEVENTHS)
    fields = guess(pd.DataFrame({"gain": gain, "even": ROW, "real": real, "real2": SEVENTHS})).fields
    assert [f.atoms for f in fields] == [(0.0,), (), (0.0,), ()]
    many = np.repeat(np.arange(20) / 7, 10)
    assert len(guess(pd.DataFrame({"v": many})).fields[0].atoms) == 8


@pytest.mark.parametrize("seed", range(4))
def test_a_cap_on_whole_numbers_is_an_atom_and_few_rows_make_none(seed):
    rng = np.random.default_rng(seed)
    capped = np.minimum(np.round(rng.exponential(20, 1500)), 50)
    floored = np.maximum(np.round(rng.normal(40, 15, 1500)), 18)
    free, few = np.round(rng.normal(40, 15, 1500)), rng.normal(size=60).round(2)
    atoms = [guess(pd.DataFrame({"v": v})).fields[0].atoms for v in (capped, floored, free, few)]
    assert 50.0 in atoms[0] and len(atoms[0]) <= 2 and atoms[1:] == [(0.0,), (), ()]  # 18 is the first step


def test_truth_in_words_and_in_numbers_is_named():
    field = guess(pd.DataFrame({"t": np.where(ROW % 2, "TRUE", "0"), "n": ROW})).fields[0]
    assert field.kind == "dropped" and "truth in words and as 0 and 1; write all cells alike" in field.reason
    assert guess(pd.DataFrame({"t": np.where(ROW % 2, "TRUE", "FALSE"), "n": ROW})).fields[0].kind == "boolean"


def test_names_with_commas_are_listed_as_they_are_given():
    with pytest.raises(InputError, match=r'no column \'n\'.*the table has "n, x", y \(a name with a comma is given in quotes\)'):
        guess(pd.DataFrame({"n, x": ROW, "y": ROW}), columns=["n"])


def test_holes_are_read_and_filled():
    frame = pd.DataFrame({"who": [f"p{i}" for i in ROW], "n": ROW, "same": 1}, index=ROW + 5)
    learnt = guess(frame)
    assert [f.kind for f in learnt.fields] == ["dropped", "integer", "constant"]
    hole = frame.astype({"n": "Int64"})
    hole.loc[7, "n"] = pd.NA
    x = learnt.encode(hole, holes=True)
    assert torch.isnan(x).nonzero().tolist() == [[2, 0]]
    back = learnt.decode(x.nan_to_num(nan=33.0))
    assert back.loc[2].tolist() == [33, 1] and list(back) == ["n", "same"]
    assert learnt.decode(x)["n"].isna().sum() == learnt.gaps(hole) == 1
    with pytest.raises(InputError, match="column 'n', row 2 is missing"):
        learnt.encode(hole)


def test_arrays_match_by_position():
    frame = pd.DataFrame({"a": ROW, "b": SEVENTHS})
    learnt = guess(frame)
    assert torch.equal(learnt.encode(pd.DataFrame(frame.to_numpy())), learnt.encode(frame))
    assert [f.name for f in guess(pd.DataFrame(frame.to_numpy())).fields] == ["x0", "x1"]


FORCED = [
    ("numeric", ROW, "numeric", "int64"),
    ("numeric", ROW * 2**55, "numeric", "float64"),
    ("integer", ROW % 2, "integer", "int64"),
    ("categorical", ROW, "categorical", "int64"),
    ("categorical", dates("2020-01-01", "D"), "categorical", "str"),
    ("ordinal", SEVENTHS, "ordinal", "float64"),
    ("boolean", np.where(ROW % 2, "yes", "no"), "boolean", str(pd.Series(["yes"]).dtype)),
    ("integer", pd.Series(ROW).astype("category"), "integer", "int64"),
    ("datetime", dates("2020-01-01", "D").astype("category"), "datetime", str(dates("2020-01-01", "D").dtype)),
    ("dropped", ROW, "dropped", "int64"),
]


@pytest.mark.parametrize(("asked", "values", "kind", "dtype"), FORCED)
def test_asked_kinds(asked, values, kind, dtype):
    frame = pd.DataFrame({"v": values, "w": SEVENTHS})
    learnt = guess(frame, kinds={"v": asked})
    assert (learnt.fields[0].kind, learnt.fields[0].dtype) == (kind, dtype)
    back = learnt.decode(learnt.encode(frame))
    assert kind == "dropped" or all(a == b or a == str(b) for a, b in zip(back["v"], pd.Series(values), strict=True))


DROPPED = {
    "name": ([f"person {i}" for i in ROW], "60 different texts in 60 rows, looks like an identifier; --kind name=categorical"),
    "hp": (["?", *map(str, range(N - 1))], "59 of 60 texts are numbers, but row 0 is '?'"),
    "key": (ROW * 2**58, "2\\^53"),
    "row": (ROW, "counts the rows"),
    "Unnamed: 0": (ROW * 3, "counts the rows"),
    "PassengerId": (ROW + 1, "counts the rows"),
    "lag": (pd.to_timedelta(ROW, unit="s"), "holds timedelta"),
    "z": (ROW * 1j, "holds complex"),
}


@pytest.mark.parametrize("name", DROPPED)
def test_dropped_with_a_reason(name):
    values, reason = DROPPED[name]
    learnt = guess(pd.DataFrame({name: values, "w": SEVENTHS}))
    assert learnt.fields[0].kind == "dropped"
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(learnt.describe()[0]["detail"])
    assert list(learnt.decode(learnt.encode(pd.DataFrame({"w": SEVENTHS})))) == ["w"]


def test_words_that_only_look_like_row_numbers_stay():
    frame = pd.DataFrame({"width": ROW, "grid": ROW, "id": ROW[::-1], "2019": ROW})
    assert [f.kind for f in guess(frame).fields] == ["integer"] * 4


def test_columns_are_kept_in_table_order():
    frame = pd.DataFrame({"a": ROW, "b": SEVENTHS, "c": ROW * 2})
    assert [f.name for f in guess(frame, columns=["c", "a"]).fields] == ["a", "c"]


def v(values) -> pd.DataFrame:
    return pd.DataFrame({"v": values})


REFUSED_TO_LEARN = [
    (v(ROW[:1]), {}, "needs at least 20 rows; got 1"),
    (v(ROW[:0]), {}, "needs at least 20 rows; got 0"),
    (v([1] * N), {}, "no column is left to model .*always 1"),
    (pd.DataFrame(np.zeros((N, 2)), columns=["a", "a"]), {}, "two columns are named 'a'"),
    (v([[1, 2]] * N), {}, "column 'v', row 0 holds a list"),
    (v(np.where(ROW == 4, np.inf, SEVENTHS)), {}, "column 'v', row 4 is infinite"),
    (v(["inf", *map(str, range(N - 1))]), {}, "column 'v', row 0 is infinite"),
    (v(ROW), {"kinds": {"V": "integer"}}, "no column 'V'.*the table has v"),
    (v(ROW), {"columns": ["w"]}, "no column 'w'"),
    (v(ROW), {"kinds": {"v": "number"}}, "kind 'number' is unknown; expected numeric"),
    (v(SEVENTHS), {"kinds": {"v": "integer"}}, "row 0 is .*, expected a whole number; use --kind v=numeric"),
    (v(ROW * 2**55), {"kinds": {"v": "integer"}}, "2\\^53 do not fit"),
    (v(["1", "two"] * 30), {"kinds": {"v": "numeric"}}, "row 1 is 'two', expected a number"),
    (v(["b", "a", "c"] * 20), {"kinds": {"v": "ordinal"}}, "no order"),
    (v(["b", "a", "c"] * 20), {"kinds": {"v": "boolean"}}, "3 different values, expected two"),
    (v(["2020-01-01", "1/2/20"] * 30), {"kinds": {"v": "datetime"}}, "row 1 is '1/2/20', expected dates"),
    (np.zeros((N, 2)), {}, "expected a pandas DataFrame, got ndarray"),
]


@pytest.mark.parametrize(("frame", "options", "message"), REFUSED_TO_LEARN)
def test_refuses_to_learn(frame, options, message):
    with pytest.raises(InputError, match=message):
        guess(frame, **options)


LEARNT = guess(pd.DataFrame({"num": SEVENTHS, "int": ROW, "day": pd.date_range("2020-01-01", periods=N), "cat": ["a", "b"] * 30}))
GOOD = {"num": [0.5, 0.5], "int": [1, 2], "day": ["2020-01-01", "2020-01-02"], "cat": ["a", "b"]}
REFUSED_TO_ENCODE = [
    ({"nun": GOOD["num"], "num": None}, "no column 'num' .closest: 'nun'"),
    ({"num": [0.5, "much"]}, "column 'num', row 1 is 'much', expected a number"),
    ({"int": ["1", "x"]}, "column 'int', row 1 is 'x', expected a number"),
    ({"num": [0.5, -np.inf]}, "column 'num', row 1 is infinite"),
    ({"num": [0.5, None]}, "column 'num', row 1 is missing"),
    ({"cat": [None, "a"]}, "column 'cat', row 0 is missing"),
    ({"day": ["2020-01-01", "soon"]}, "column 'day', row 1 is 'soon', expected a date like 2020-01-01"),
    ({"day": ["2020-01-01T00:00Z"] * 2}, "column 'day' was learnt with no time zone and now has one"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED_TO_ENCODE)
def test_refuses_to_encode(change, message):
    frame = pd.DataFrame({k: c for k, c in (GOOD | change).items() if c is not None})
    assert LEARNT.encode(pd.DataFrame(GOOD)).shape == (2, 4)
    with pytest.raises(InputError, match=f"new rows: {message}"):
        LEARNT.encode(frame, name="new rows")


def test_refuses_to_decode():
    x = LEARNT.encode(pd.DataFrame(GOOD | {"cat": ["a", "z"]}))
    with pytest.raises(InputError, match="row 1, column 'cat' is code 2, which has no label"):
        LEARNT.decode(x)
    with pytest.raises(InputError, match="expected shape"):
        LEARNT.decode(x[:, :2])
    with pytest.raises(InputError, match="has no rows"):
        LEARNT.encode(pd.DataFrame(GOOD).iloc[:0])
    with pytest.raises(InputError, match=r"Schema\.to_json"):
        Schema.from_json({"fields": [{"name": "a"}]})


@pytest.mark.parametrize("values", [[0.1, 0.25, 7.0], [25, 75, 200], [-0.3, 0.0, 0.3], [1e-6, 3.0], [5.0]])
def test_lattice_is_the_coarsest_that_holds_every_value(values):
    decimals, step, origin = lattice.lattice(np.array(values, dtype=float), np.dtype(np.float64))
    k = [(round(value * 10**decimals) - origin) / step for value in values]
    assert all(i == int(i) and i >= 0 for i in k)
    assert math.gcd(*map(int, k)) in (0, 1)
    assert [(origin + int(i) * step) / 10**decimals for i in k] == values


def test_offsets_that_vary_are_one_instant_in_utc():
    local = pd.Series(["2024-03-31T01:30:00+01:00", "2024-03-31T03:30:00.5+02:00"])
    seen = datetimes.instants(local)
    assert seen is not None and (seen.ticks - seen.ticks[0]).tolist() == [0, 3600_500] and seen.unit == "ms"
    texts = datetimes.write_instants(seen.ticks, seen.unit, seen.pattern)
    assert texts == ["2024-03-31T00:30:00.0+00:00", "2024-03-31T01:30:00.5+00:00"]


@pytest.mark.parametrize("text", ["2024-02-30", "2024-13-01", "24-1-1", "24:00", "2024-01-01 25:00", "20240101"])
def test_what_is_no_date(text):
    assert datetimes.instants(pd.Series([text])) is None


def one(values, dtype=None, **asked):
    asked = {name: {"a": value} for name, value in asked.items()}
    return guess(pd.DataFrame({"a": pd.Series(values, dtype=dtype)}), **asked).fields[0]


def ends(field):
    """The outermost values that decoding can give."""
    return field.decode(np.array([-1e15, 1e15])).tolist()


def test_walls_are_zero_and_what_the_type_can_hold():
    assert ends(one(range(20, 120), "int8")) == [0, 127]
    assert ends(one(range(-120, 81), "int8")) == [-128, 127]
    assert ends(one(range(20, 120), "uint8")) == [0, 255]
    assert ends(one(range(-50, 50), "int16")) == [-(2**15), 2**15 - 1]
    assert ends(one(np.arange(7, 407, 4), "int16")) == [3, 2**15 - 1]
    assert ends(one(np.arange(20, 120) / 4)) == [0.0, 1e15] and ends(one(np.arange(-20, 120) / 4)) == [-1e15, 1e15]
    big = one([10**30 + i for i in range(40)])
    assert big.decode(np.array([-3.0, 90.0])).tolist() == [10**30 - 3, 10**30 + 90]
    late = ends(one(pd.date_range("9990-01-01", periods=40, unit="s")))
    assert (late[0].year, late[1].year) == (1, 9999)


def test_the_range_seen_is_no_wall():
    """Neither of a rounded nor of another column, and not of dates."""
    for values in (range(5, 105), np.arange(50, 150) / 10, np.sqrt(np.arange(50, 150)), pd.date_range("2020-01-01", periods=100)):
        frame = pd.DataFrame({"a": values})
        learnt = guess(frame)
        beyond = pd.DataFrame({"a": [frame["a"].max() + 3 * (frame["a"][1] - frame["a"][0])]})
        x = learnt.encode(beyond)
        assert not learnt.space.outside(x).any()
        pd.testing.assert_frame_equal(learnt.decode(x), beyond.astype(learnt.decode(x).dtypes), rtol=1e-12)


def test_bounds_are_walls():
    assert ends(one(range(20, 100), bounds=(18, 99.5))) == [18, 99]
    assert ends(one(np.arange(20, 100) / 4, bounds=(None, 30.1))) == [0.0, 30.0]
    real = one(np.sqrt(np.arange(20, 100)), bounds=(-1.0, 12.0))
    assert (real.column.low, real.column.high) == (-1.0, 12.0) and "walls -1:12" in real.detail
    again = Schema.from_json(json.loads(json.dumps(Schema((real,)).to_json())))
    assert again.fields == (real,)


@pytest.mark.parametrize(
    ("values", "bounds", "sentence"),
    [
        (range(20, 100), (30, None), "row 0 is 20, beyond its bounds 30:"),
        (np.arange(20, 100) / 4, (None, 20), "row 61 is 20.25, beyond its bounds :20"),
        (range(20, 100), (None, None), "expected one or two finite numbers"),
        (range(20, 100), (0, math.inf), "expected one or two finite numbers"),
        (range(20, 100), (9, 9), "ends before it begins"),
        (["u", "v"] * 40, (0, 9), "'a' is categorical"),
    ],
)
def test_bounds_that_do_not_fit(values, bounds, sentence):
    with pytest.raises(InputError, match=sentence):
        one(values, bounds=bounds)


def test_bounds_of_a_column_that_is_not_there():
    with pytest.raises(InputError, match="no column 'agee' .closest: 'age'."):
        guess(pd.DataFrame({"age": range(40)}), bounds={"agee": (0, 9)})


def off_steps(values, at, odd):
    values = np.array(values, dtype=float)
    values[at] = odd
    return values


def test_a_few_values_off_the_steps_are_atoms():
    """Two of 31,757 turned a column of whole numbers into real numbers."""
    whole = np.random.default_rng(0).integers(0, 90, 31_757)
    field = one(off_steps(whole, [5, 900], [7.3, 41.05]))
    assert (field.kind, field.resolution, field.atoms_off_steps) == ("numeric", 1.0, (7.3, 41.05))
    frame = pd.DataFrame({"a": off_steps(whole, [5, 900], [7.3, 41.05])})
    learnt = guess(frame)
    pd.testing.assert_frame_equal(learnt.decode(learnt.encode(frame)), frame)
    assert learnt.encode(pd.DataFrame({"a": [7.3, 7.29, 41.0, 41.05]})).flatten().tolist() == [7.3, 7.0, 41.0, 41.05]
    assert "off its steps 7.3, 41.05" in field.detail
    # many more than that, and the column has no such steps
    assert one(off_steps(whole, slice(0, 60), whole[:60] + 0.25)).resolution == 0.25


def test_steps_that_a_few_values_hide():
    hundreds = 100 * np.random.default_rng(1).integers(2, 800, 5_000)
    field = one(np.where(np.arange(5_000) == 77, 1_037, hundreds))
    assert (field.kind, field.step, field.offset) == ("integer", 100, 200) and field.atoms_off_steps == (837.0,)
    assert field.decode(field.encode(pd.Series([1_037, 300]))).tolist() == [1_037, 300]
    days = pd.Series(pd.date_range("1990-01-01", periods=5_000, unit="ns"))
    days[9] = pd.Timestamp("1990-01-10 07:11:13.123456789")
    kept = one(days)
    assert kept.resolution == 1.0 and kept.step == 86_400 * 10**9
    assert kept.decode(kept.encode(days)).tolist() == days.tolist()


def test_a_cap_off_the_steps_is_an_atom():
    """4.7 % of the house values of California are 500,001, two are 14,999, and all others are whole hundreds."""
    hundreds = 100 * np.random.default_rng(2).integers(150, 5_000, 10_000)
    capped = np.where(np.arange(10_000) % 20 == 0, 500_001, hundreds)
    capped[1:3] = 14_999
    field = one(capped)
    assert (field.kind, field.step) == ("integer", 100) and field.decode(field.encode(pd.Series(capped))).tolist() == list(capped)
    assert [a + field.offset for a in field.atoms_off_steps] == [14_999, 500_001]
    # where such values are not few among the values, they say how the column is written
    assert lattice.steps(np.array([0, 2, 4, 5]), np.array([1, 1, 1, 2_000]))[0] == 1
    # and so do rare ones that are too many together
    assert one(np.where(np.arange(10_000) % 20 == 1, hundreds + 1, hundreds)).step == 1


def test_rare_values_of_a_column_of_zeros_are_no_exceptions():
    """They are all that says how it is written."""
    rare = np.zeros(40_000)
    rare[:30] = np.arange(1, 31) / 4
    assert one(rare).resolution == 0.25 and one(rare).atoms_off_steps == ()
    assert one((4 * rare).astype(int)).step == 1


def test_more_exceptions_than_can_be_atoms_are_moved_and_counted():
    values = np.random.default_rng(2).integers(0, 5_000, 100_000).astype(float)
    values[:80] += 0.001 * np.arange(1, 81)
    field = one(values)
    assert field.resolution == 1.0 and len(field.atoms_off_steps) == 64 and field.moved == 16
    assert "16 more moved to its steps" in field.detail


def test_a_value_on_the_wall_of_a_column_without_steps_is_an_atom():
    values = np.concatenate([np.sqrt(np.arange(1, 100)), [0.0]])
    assert one(values).atoms == (0.0,) and one(values[:-1]).atoms == ()


def test_a_level_never_seen_has_a_probability():
    assert one(["u", "v"] * 40).column.unseen == pytest.approx(1 / 82)


@pytest.mark.parametrize("dtype", ["int64", "Int64", "int16", "uint64", "float64", "float32", "float16"])
def test_every_step_can_be_sampled_whatever_the_type(dtype):
    """Whole numbers with negatives could only be even: their steps were counted from -2^53."""
    low = 0 if dtype == "uint64" else -80
    frame = pd.DataFrame({"a": pd.Series(np.arange(low, low + 160), dtype=dtype)})
    learnt = guess(frame)
    columns = Columns(learnt.space)
    x = learnt.encode(frame)
    columns.prepare(x)
    parts = columns.split(x)
    pd.testing.assert_frame_equal(learnt.decode(columns.join(parts.codes, parts.values)), frame)
    walls = {"uint64": 0, "int16": -(2**15) - learnt.fields[0].offset}
    assert learnt.space.columns[0].low == walls.get(dtype, -math.inf)


def test_steps_in_single_precision():
    """Tenths in float32 are no float64 tenths, and are on their steps all the same."""
    draw = np.random.default_rng(3)
    tenths = pd.Series((draw.integers(-80, 80, 5_000) / 10).astype(np.float32))
    field = one(tenths)
    assert (field.resolution, field.atoms_off_steps, field.moved) == (0.1, (), 0)
    odd = tenths.copy()
    odd[[5, 900]] = np.float32([7.31, -4.05])
    field = one(odd)
    assert len(field.atoms_off_steps) == 2 and field.decode(field.encode(odd)).tolist() == odd.tolist()


@pytest.mark.parametrize("far", [1e17, -1e16, 3e300])
def test_one_far_value_does_not_undo_the_steps(far):
    values = np.random.default_rng(4).integers(-90, 90, 5_000) / 10
    field = one(np.where(np.arange(5_000) == 9, far, values))
    assert field.resolution == 0.1 and field.atoms_off_steps in ((), (far,))
    single = one(np.where(np.arange(5_000) == 9, 3e7, values).astype(np.float32))
    assert single.resolution == 0.1


@pytest.mark.parametrize("step", [31, 37, 1_009])
def test_a_step_of_any_number_is_found_beside_an_exception(step):
    values = step * np.random.default_rng(5).integers(-300, 300, 5_000)
    field = one(np.where(np.arange(5_000) == 9, 7 * step + 1, values))
    assert field.step == step and len(field.atoms_off_steps) == 1
    assert field.decode(field.encode(pd.Series([7 * step + 1, -2 * step]))).tolist() == [7 * step + 1, -2 * step]


def test_the_commonest_of_many_exceptions_are_kept():
    values = np.random.default_rng(2).integers(0, 5_000, 200_000).astype(float)
    values[:100] = 0.5 + np.arange(100)
    values[100:160] = 7.25
    field = one(values)
    assert field.moved == 100 - 63 and 7.25 in field.atoms_off_steps


@pytest.mark.parametrize(
    ("values", "bounds", "possible", "impossible"),
    [
        (np.arange(300, 9_000, 400), None, [0, 50, 9_999], [-1]),
        (np.arange(3, 503, 5), (0, 1_000), [0, 1, 1_000], [-1, 1_001]),
        (np.arange(3, 503, 5) / 10, None, [0.0, 0.1], [-0.1]),
        (np.arange(20, 120), (18.5, 130.5), [19, 130], [18, 131]),
        (np.arange(20, 120) / 4, (0.3, None), [0.5, 0.4], [0.1, 0.0]),
    ],
)
def test_values_between_the_outermost_step_and_the_end_are_possible(values, bounds, possible, impossible):
    learnt = guess(pd.DataFrame({"a": values}), bounds=None if bounds is None else {"a": bounds})
    outside = lambda cells: learnt.space.outside(learnt.encode(pd.DataFrame({"a": cells}))).tolist()  # noqa: E731
    assert outside(possible) == [False] * len(possible) and outside(impossible) == [True] * len(impossible)


def test_numbers_beyond_their_type_are_its_largest():
    assert one(pd.Series(np.arange(40) / 8, dtype="float16")).decode(np.array([1e9])).tolist() == [65504.0]
    assert one(pd.Series(np.sqrt(np.arange(-20.0, 20) ** 2 + 1), dtype="float32")).decode(np.array([1e300])).item() < np.inf


def test_a_wall_that_was_taken_is_said():
    assert "not below 0" in one(range(40)).detail and "not below" not in one(range(-3, 40)).detail
    assert "walls 0:99" in one(range(40), bounds=(0, 99)).detail
    with pytest.raises(InputError, match="only numbers have bounds; leave them out$"):
        one(pd.date_range("2020-01-01", periods=40), bounds=(0, 3))
