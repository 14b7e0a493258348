"""What a command writes, the next command reads back as it was: each kind of column in each format by each command."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch

import mixtura
from mixtura.contracts import InputError
from mixtura.data.dtypes import keep_stored
from mixtura.data.guess import guess
from mixtura.data.schema import Schema
from mixtura.data.source import rows_like
from mixtura.data.tables import read, write

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

N = 60
TEXTS = ("csv", "tsv", "json", "jsonl")
FORMATS = (*TEXTS, "parquet")
#: what a CSV file could lose: words for missing, quotes, delimiters, line ends, blanks, codes, truth, digits
WORDS = ["NA", "None", "null", "nan", "", " x", 'a,"b"', "x\ny", "\r", "007", "1", "true", "a\tb;c|d", "é\u202e", "#N/A", "-"]
DAY, NOON = dt.date(2023, 12, 30), dt.datetime(2024, 3, 30, 12, 0, 0, 123456)


def drawn(rng, choices):
    return [choices[i] for i in rng.permutation(np.arange(N) % len(choices))]


def gaps(rng, cells):
    return [None if u < 0.2 else cell for u, cell in zip(rng.random(len(cells)), cells, strict=True)]


def columns() -> dict[str, tuple[list, object]]:
    """name → cells and their Arrow type."""
    rng = np.random.default_rng(0)
    whole = [int(k) for k in rng.integers(-60, 60, N)]
    kinds = {
        "int8": (gaps(rng, whole), pa.int8()),
        "uint8": ([abs(k) for k in whole], pa.uint8()),
        "few": (drawn(rng, [1, 2, 5]), pa.int16()),
        "near 2^60": ([2**60 + k for k in whole], pa.int64()),
        "uint64": (gaps(rng, [2**63 + 1000 + k for k in whole]), pa.uint64()),
        "past 2^63": ([Decimal(10**30 + k) for k in whole], pa.decimal128(38, 0)),
        "money": (gaps(rng, [Decimal(k) / 100 for k in whole]), pa.decimal128(10, 2)),
        "wide money": ([Decimal(k) / 4 for k in whole], pa.decimal128(38, 9)),
        "fine": ([Decimal(str(v)) for v in rng.normal(size=N).round(9)], pa.decimal128(20, 10)),
        "float16": ([float(np.float16(v)) for v in rng.normal(size=N)], pa.float16()),
        "float32": (gaps(rng, [float(np.float32(v)) for v in rng.normal(size=N)]), pa.float32()),
        "steps": ([k / 10 for k in whole], pa.float32()),
        "thirds": ([k / 7e9 for k in whole], pa.float64()),
        "words": (gaps(rng, drawn(rng, WORDS)), pa.string()),
        "all words": (drawn(rng, WORDS), pa.large_string()),
        "in words": ([str(k) for k in whole], pa.string()),
        "dictionary": (gaps(rng, drawn(rng, ["NA", "b", "c"])), pa.dictionary(pa.int32(), pa.string())),
        "numbered": (drawn(rng, [10, 20]), pa.dictionary(pa.int8(), pa.int64())),
        "truth": (gaps(rng, drawn(rng, [True, False])), pa.bool_()),
        "said truth": (drawn(rng, ["True", "False"]), pa.string()),
        "day": (gaps(rng, [DAY + dt.timedelta(k) for k in whole]), pa.date32()),
        "day64": ([DAY + dt.timedelta(k) for k in whole], pa.date64()),
        "moment": (gaps(rng, [NOON + dt.timedelta(seconds=k, microseconds=k) for k in whole]), pa.timestamp("us")),
        "nanosecond": ([10**18 + 7 * k for k in whole], pa.timestamp("ns")),
        "zoned": ([NOON + dt.timedelta(hours=k) for k in whole], pa.timestamp("ms", "Europe/Berlin")),
        "dated": ([f"2024/01/{1 + abs(k) % 28:02d}" for k in whole], pa.string()),
        "always": ([Decimal("1.50")] * N, pa.decimal128(5, 2)),
        "that day": ([DAY] * N, pa.date32()),
        "noon": ([dt.time(12, 30)] * N, pa.time32("s")),
        "empty": ([None] * N, pa.int32()),
    }
    return kinds  # type: ignore[return-value]


def table(names=None):
    kinds = {name: kind for name, kind in columns().items() if names is None or name in names}
    arrays = {}
    for name, (cells, kind) in kinds.items():
        if pa.types.is_float16(kind):
            arrays[name] = pa.array(np.array(cells, dtype=np.float16))
        elif pa.types.is_dictionary(kind):
            arrays[name] = pa.array(cells).dictionary_encode().cast(kind)
        else:
            arrays[name] = pa.array(cells, type=kind)
    return pa.table(arrays)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("trip")


@pytest.fixture(scope="module")
def study(place):
    parquet.write_table(table(), place / "t.parquet")
    return mixtura.run(place / "t.parquet", families=["marginals"], steps=5, out=place / "run")


@pytest.fixture(scope="module")
def conditional(place, study):
    own = table().append_column("key", pa.array([f"k{i}" for i in range(N)])).append_column("y", pa.array(np.arange(N) / 10))
    parquet.write_table(own, place / "own.parquet")
    return mixtura.run(place / "own.parquet", target=["y", "day"], families=["marginals"], steps=5, out=place / "given")


def same(schema: Schema, one, other):
    a, b = (schema.encode(rows_like(source, schema), holes=True) for source in (one, other))
    equal = ((a == b) | (a.isnan() & b.isnan())).all(0).tolist()
    assert [f.name for f, kept in zip(schema.modelled, equal, strict=True) if not kept] == []


def cells(path):
    """Of a .json or .jsonl file."""
    text = path.read_text()
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("ending", FORMATS)
def test_samples_are_read_as_they_were(do, place, study, ending):
    assert not [f.name for f in study.schema.fields if f.kind == "dropped"]
    path = place / f"s.{ending}"
    assert do(f"sample run -n 40 -o s.{ending}").err == ""
    frame = study.best.sample(40)
    same(study.schema, frame, str(path))
    told = json.loads(do(f"score run s.{ending} --json").out)
    assert told["mean_nats"] == float(study.best.score(frame)["nats"].mean()) or told["impossible"]
    if ending == "parquet":
        a, b = pa.parquet.read_schema(place / "t.parquet"), pa.parquet.read_schema(path)
        assert {f.name: f.type for f in a} == {f.name: f.type for f in b}
    if ending.startswith("json"):
        assert cells(path) == json.loads(do("sample run -n 40 --json").out)["data"]


@pytest.mark.parametrize("ending", FORMATS)
def test_imputed_rows_are_read_as_they_were(do, place, study, ending):
    holes = rows_like(str(place / "t.parquet"), study.schema)
    write(holes, place / f"h.{ending}")
    same(study.schema, holes, str(place / f"h.{ending}"))
    did = do(f"impute run h.{ending} -o f.{ending}")
    assert did.code == 0, did.err
    before, after = (study.schema.encode(rows_like(str(place / f"{x}.{ending}"), study.schema), holes=True) for x in "hf")
    assert torch.equal(torch.where(before.isnan(), after, before), after)


@pytest.mark.parametrize("ending", FORMATS)
def test_own_columns_stand_beside_what_is_made(do, place, conditional, ending):
    own = rows_like(str(place / "own.parquet"), conditional.given.schema)
    write(own.head(9), place / f"o.{ending}")
    lines = {f"sample given --given o.{ending} -n 2 -o d.{ending}": 2, f"predict given o.{ending} -o d.{ending}": 1}
    for line, times in lines.items():
        did = do(line)
        assert did.code == 0, did.err
        made = rows_like(str(place / f"d.{ending}"), conditional.given.schema)
        assert list(made["key"]) == [key for key in own["key"].head(9) for _ in range(times)]
        same(conditional.given.schema, own.head(9).loc[own.head(9).index.repeat(times)], made)
        if ending == "parquet":
            types = {f.name: f.type for f in pa.parquet.read_schema(place / f"d.{ending}")}
            assert all(types[f.name] == f.type for f in pa.parquet.read_schema(place / "own.parquet"))
    assert made["day"].equals(own["day"].head(9)) or ending != "parquet"


def test_a_column_named_as_what_is_predicted_is_in_the_way(conditional):
    rows = rows_like(str(conditional.folder.parent / "own.parquet"), conditional.given.schema).assign(y_mean=1)
    with pytest.raises(InputError, match="has a column 'y_mean'"):
        conditional.best.predict(rows)


def test_cells_of_text_beside_others_keep_the_type_of_the_file(tmp_path):
    frame = pd.DataFrame({"money": [Decimal("1.50"), 2.25, 3, None], "day": [DAY, "2024-01-05", None, DAY]}, dtype=object)
    write(keep_stored(frame, {"money": "decimal128(7, 2)", "day": "date32[day]"}), tmp_path / "t.parquet")
    back = pa.parquet.read_table(tmp_path / "t.parquet")
    assert back["money"].to_pylist() == [Decimal("1.50"), Decimal("2.25"), Decimal("3.00"), None]
    assert back["day"].to_pylist() == [DAY, dt.date(2024, 1, 5), None, DAY] and back.schema.field("day").type == pa.date32()
    with pytest.raises(InputError, match="column 'money' cannot be held by Parquet as decimal128"):
        write(keep_stored(frame.assign(money=Decimal("1.555")), {"money": "decimal128(7, 2)"}), tmp_path / "t.parquet")


@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_arrays_hold_numbers_and_refuse_the_rest_by_name(do, place, study, conditional, ending):
    for line in (f"sample run -o a.{ending}", f"impute run t.parquet -o a.{ending}", f"predict given own.parquet -o a.{ending}",
                 f"sample given --given own.parquet -o a.{ending}"):  # fmt: skip
        did = do(line)
        assert did.code == 2 and "holds no numbers" in did.err and not (place / f"a.{ending}").exists()
    for line in (f"score run t.parquet -o a.{ending}", f"evaluate t.parquet t.parquet -o a.{ending}"):
        assert f"cannot write .{ending}; use one of .csv, .tsv, .parquet, .json, .jsonl" in do(line).err


def test_arrays_of_numbers_are_read_as_they_were(do, place, tmp_path):
    names = ("int8", "few", "money", "float32", "steps", "thirds", "numbered", "truth", "always", "in words")
    parquet.write_table(table(names), place / "n.parquet")
    study = mixtura.run(place / "n.parquet", families=["marginals"], steps=5, out=tmp_path / "run")
    for ending in ("npy", "npz"):
        did = do(f"sample {tmp_path}/run -n 40 -o a.{ending}")
        assert did.code == 0, did.err
        same(study.schema, study.best.sample(40), str(place / f"a.{ending}"))


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["a", "b"], "column 'c' holds no numbers"),
        ([2**53 + 1, 0.5], "column 'c' holds whole numbers past 2\\^53"),
        ([2**53 + 1, None], "column 'c' holds gaps beside whole numbers past 2\\^53"),
        ([2**63, 1], "column 'c' holds whole numbers past 2\\^63"),
        ([Decimal("1.23456789012345678901"), Decimal(1)], "column 'c' holds decimals of more digits"),
        ([pd.Timestamp("2024-01-01"), None], "column 'c' holds no numbers"),
    ],
)
def test_what_an_array_cannot_hold_is_named(tmp_path, cells, said):
    frame = pd.DataFrame({"c": pd.Series(cells, dtype=object)})
    frame = pd.DataFrame({"c": [2**53 + 1, 1], "d": [0.5, 1.0]}) if 0.5 in cells else frame
    with pytest.raises(InputError, match=said):
        write(frame, tmp_path / "c.npy")


@pytest.mark.parametrize(
    ("ending", "cells", "said"),
    [
        ("parquet", ["a", 1], "column 'c' cannot be held by Parquet as one type"),
        ("parquet", [10**80, 1], "column 'c' cannot be held by Parquet"),
        ("csv", ["1", 1], "column 'c' holds '1' and 1, which text cannot tell apart"),
        ("csv", [b"x", b"y"], "column 'c' holds bytes"),
        ("jsonl", [b"x", b"y"], "column 'c' holds bytes"),
        ("csv", ["\ud800", "b"], "half a character"),
        ("csv", ["\0", "b"], "zero byte"),
        ("csv", np.array([2**60, 0], dtype="M8[ms]"), "column 'c' holds dates that are not of the years 1 to 9999"),
    ],
)
def test_what_a_format_cannot_hold_is_named(tmp_path, ending, cells, said):
    with pytest.raises(InputError, match=said):
        write(pd.DataFrame({"c": pd.Series(cells, dtype=object if isinstance(cells, list) else None)}), tmp_path / f"c.{ending}")
    assert list(tmp_path.iterdir()) == []


def memory() -> dict[str, pd.Series]:
    """Columns of frames that no file has made."""
    rng = np.random.default_rng(1)
    whole = rng.integers(0, 50, N)
    return {
        "sparse": pd.Series(pd.arrays.SparseArray(whole, fill_value=0)),
        "sparse real": pd.Series(pd.arrays.SparseArray(np.where(whole < 25, 0.0, whole / 7), fill_value=0.0)),
        "sparse gaps": pd.Series(pd.arrays.SparseArray(np.where(whole < 25, np.nan, whole / 7))),
        "sparse truth": pd.Series(pd.arrays.SparseArray(whole < 25, fill_value=False)),
        "nullable": pd.Series(pd.array(gaps(rng, whole.tolist()), dtype="Int8")),
        "nullable truth": pd.Series(pd.array(gaps(rng, (whole < 25).tolist()), dtype="boolean")),
        "nullable real": pd.Series(pd.array(gaps(rng, (whole / 7).tolist()), dtype="Float32")),
        "dates": pd.Series([DAY + dt.timedelta(int(k)) for k in whole], dtype=object),
        "decimals": pd.Series([Decimal(int(k)) / 8 for k in whole], dtype=object),
        "past 2^63": pd.Series([10**30 + int(k) for k in whole], dtype=object),
        "labels": pd.Series([["1", 2, "x"][k % 3] for k in whole], dtype=object),
        "ordered": pd.Series(pd.Categorical([["low", "NA", "high"][k % 3] for k in whole], ["low", "NA", "high"], ordered=True)),
        "whole labels": pd.Series(pd.Categorical([[3, 1, 2][k % 3] for k in whole])),
        "arrow": pd.Series(gaps(rng, whole.tolist()), dtype="int16[pyarrow]"),
        "arrow day": pd.Series([DAY + dt.timedelta(int(k)) for k in whole], dtype=pd.ArrowDtype(pa.date32())),
        "arrow money": pd.Series([Decimal(int(k)) / 100 for k in whole], dtype=pd.ArrowDtype(pa.decimal128(9, 2))),
        "arrow zone": pd.Series([pd.Timestamp(NOON, tz="UTC") + pd.Timedelta(hours=int(k)) for k in whole],
                                dtype=pd.ArrowDtype(pa.timestamp("us", "Asia/Tokyo"))),
        "arrow text": pd.Series([["NA", "b"][k % 2] for k in whole], dtype=pd.ArrowDtype(pa.string())),
        "arrow truth": pd.Series(gaps(rng, (whole < 25).tolist()), dtype="bool[pyarrow]"),
    }  # fmt: skip


@pytest.mark.parametrize("ending", FORMATS)
def test_columns_in_memory_are_read_as_they_were(tmp_path, ending):
    frame = pd.DataFrame(memory()).drop(columns=["labels"] if ending == "parquet" else [])
    schema = Schema.from_json(json.loads(json.dumps(guess(frame).to_json())))
    back = schema.decode(schema.encode(frame))
    assert {c: str(t) for c, t in back.dtypes.items()} == {c: str(t) for c, t in frame.dtypes.items()}
    assert [list(map(type, back[c])) for c in back] == [list(map(type, frame[c])) for c in frame]
    write(back, tmp_path / f"t.{ending}")
    same(schema, frame, str(tmp_path / f"t.{ending}"))
    if ending == "parquet":
        types = {f.name: f.type for f in pa.parquet.read_schema(tmp_path / "t.parquet")}
        assert all(types[c] == frame[c].dtype.pyarrow_dtype for c in frame if c.startswith("arrow"))
        assert types["nullable"] == pa.int8() and types["dates"] == pa.date32() and types["sparse"] == pa.int64()


@pytest.mark.parametrize("ending", FORMATS)
def test_a_column_alone_is_read_as_it_was(tmp_path, ending):
    parquet.write_table(table(), tmp_path / "t.parquet")
    whole = read(tmp_path / "t.parquet").frame
    for name in whole:
        frame = whole[[name]]
        if frame[name].nunique() < 2:
            continue
        schema = guess(frame)
        write(schema.decode(schema.encode(frame)), tmp_path / f"one.{ending}")
        same(schema, frame, str(tmp_path / f"one.{ending}"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_tables_of_any_columns_are_read_as_they_were(do, place, tmp_path, seed):
    """Any few columns, gaps anywhere, several families, every format of every command."""
    rng = np.random.default_rng(seed)
    whole = table()
    chosen = whole.select(sorted(rng.choice(whole.num_columns, size=8, replace=False).tolist()))
    rows = pa.array(rng.integers(0, N, 3 * N))
    parquet.write_table(chosen.take(rows), tmp_path / "t.parquet")
    study = mixtura.run(tmp_path / "t.parquet", families=["marginals", "gaussian_mixture", "kde"], steps=5, out=tmp_path / "run")
    frame = rows_like(str(tmp_path / "t.parquet"), study.schema)
    holes = frame.mask(pd.DataFrame(rng.random(frame.shape) < 0.1, columns=frame.columns))
    for ending in FORMATS:
        for model in ("marginals", "gaussian_mixture", "kde"):
            path = tmp_path / f"s.{ending}"
            assert do(f"sample {tmp_path}/run -n 200 --seed {seed} --model {model} -o {path}").code == 0
            same(study.schema, study.models[model].sample(200, seed=seed), str(path))
        write(holes, tmp_path / f"h.{ending}")
        did = do(f"impute {tmp_path}/run {tmp_path}/h.{ending} -o {tmp_path}/f.{ending}")
        assert did.code == 0, did.err
        before, after = (study.schema.encode(rows_like(f"{tmp_path}/{x}.{ending}", study.schema), holes=True) for x in "hf")
        assert torch.equal(torch.where(before.isnan(), after, before).nan_to_num(-99.5), after.nan_to_num(-99.5))
        assert do(f"score {tmp_path}/run {tmp_path}/f.{ending} -o {tmp_path}/n.{ending}").code == 0


def test_columns_that_were_not_learnt_stay_as_they_were(do, place, tmp_path):
    """Words for missing of a person's own column, and types that no schema knows."""
    rng = np.random.default_rng(0)
    a, holes = rng.normal(size=N), [None if k % 5 == 1 else k / 7 for k in range(N)]
    words = [["NA", "null", "n/a", "", "None"][k % 5] for k in range(N)]
    mixtura.run(pd.DataFrame({"a": a, "b": rng.normal(size=N)}), families=["marginals"], steps=5, out=tmp_path / "run")
    lines = [f"{w},{x},{'' if y is None else y}" for w, x, y in zip(words, a, holes, strict=True)]
    (place / "mine.csv").write_text("\n".join(["word,a,b", *lines, ""]))
    assert do(f"impute {tmp_path}/run mine.csv -o filled.csv").code == 0
    again = read(place / "filled.csv").frame["word"]
    assert [w if isinstance(w, str) else "" for w in again] == words
    odd = {
        "map": pa.array([[("k", k)] for k in range(N)], pa.map_(pa.string(), pa.int64())),
        "two": pa.array([b"ab"] * N, pa.binary(2)),
        "list": pa.array([[k] for k in range(N)], pa.list_(pa.int16())),
        "row": pa.array([{"q": 1}] * N, pa.struct([("q", pa.int8())])),
        "lasts": pa.array(range(N), pa.duration("ms")),
    }
    parquet.write_table(pa.table({"a": a, "b": pa.array(holes), **odd}), place / "mine.parquet")
    assert do(f"impute {tmp_path}/run mine.parquet -o filled.parquet").code == 0
    before, after = (parquet.read_table(place / f"{name}.parquet").select(list(odd)) for name in ("mine", "filled"))
    assert before.schema.equals(after.schema) and before.to_pylist() == after.to_pylist()


def test_labels_that_text_cannot_tell_apart_end_a_run_in_jsonl(tmp_path):
    frame = pd.DataFrame({"z": pd.Series([1, "1", "x\0"] * 20, dtype=object), "n": range(60)})
    study = mixtura.run(frame, families=["marginals"], steps=5, out=tmp_path / "run")
    assert set(read(tmp_path / "run/samples.jsonl").frame["z"]) <= {1, "1", "x\0"} and study.verdict
    assert not (tmp_path / "run/samples.csv").exists()


def test_a_file_whose_name_is_no_text(tmp_path):
    path = tmp_path / "bad\udcff.csv"
    try:
        path.write_text("a,b\n" + "".join(f"{k * 37 % 101}.5,{k}\n" for k in range(60)))
    except OSError:
        pytest.skip("this file system takes no such name")
    mixtura.run(path, families=["marginals"], steps=5, out=tmp_path / "run")
    card = (tmp_path / "run/README.md").read_text().replace("\\\\", "\\")
    assert mixtura.load(tmp_path / "run").verdict and "bad\\udcff.csv" in card
