"""Reading loses no digit and no row it did not mean to; what is no table is refused in one sentence."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mixtura.contracts import InputError, Note
from mixtura.data import examples
from mixtura.data.cells import MISSING
from mixtura.data.dtypes import text_dtype
from mixtura.data.tables import Table, read, write

TEXT = text_dtype()


@pytest.fixture
def make(tmp_path):
    def make(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return make


def cells_of(table: Table) -> list[list[object]]:
    return table.frame.astype(object).where(table.frame.notna(), None).to_numpy().tolist()


READ_AS_WRITTEN = {
    "comma.csv": ("a,b\n007,39.10\n1152921504606846977,x\n", [["007", "39.10"], ["1152921504606846977", "x"]]),
    "semicolon.csv": ("a;b\n1,5;2\n3,5;4\n", [["1,5", "2"], ["3,5", "4"]]),
    "tab.csv": ("a\tb\n1,5\t2\n", [["1,5", "2"]]),
    "pipe.csv": ("a|b\n1|2\n", [["1", "2"]]),
    "quotes.csv": ('a,b\n"x, ""y""\nz",2\n', [['x, "y"\nz', "2"]]),
    "comma_in_one_cell.csv": ('a;b\n"1,2";3\n4;5\n', [["1,2", "3"], ["4", "5"]]),
    "single.csv": ("a\n1\n\n2\n", [["1"], ["2"]]),
    "windows.csv": ("a,b\r\n1,2\r\n", [["1", "2"]]),
    "no_end.csv": ("a,b\n1,2", [["1", "2"]]),
    "bom.csv": (b"\xef\xbb\xbfa,b\n\xc3\xa9,2\n", [["é", "2"]]),
    "windows1252.csv": (b"a,b\n\xe9\x80,2\n", [["é€", "2"]]),
    "latin.csv": (b"a,b\n\xe9\x81,2\n", [["é\x81", "2"]]),
    "missing.csv": ("a,b\n" + "".join(f"{m},x\n" for m in MISSING) + "?,x\n", [[None, "x"]] * len(MISSING) + [["?", "x"]]),
    "plain.tsv": ("a\tb\n1,2\t3\n", [["1,2", "3"]]),
    "records.json": ('[{"a": 1152921504606846977, "b": "x"}, {"a": null, "b": "y"}]', [[2**60 + 1, "x"], [None, "y"]]),
    "lines.jsonl": ('{"a": 1, "b": true}\n\n{"b": false, "a": 2}\n', [[1, True], [2, False]]),
}


@pytest.mark.filterwarnings("ignore:.* is no UTF-8:UserWarning")
@pytest.mark.parametrize("name", READ_AS_WRITTEN)
def test_cells_are_read_as_written(make, name):
    content, expected = READ_AS_WRITTEN[name]
    path = make(name, content)
    table = read(path)
    assert list(table.frame) == ["a", "b"][: len(expected[0])]
    assert cells_of(table) == expected
    assert (table.name, table.rows_total) == (name, len(expected))
    assert table.fingerprint == hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_a_column_without_a_name_gets_one(make):
    assert list(read(make("a.csv", ",b\n1,2\n")).frame) == ["Unnamed: 0", "b"]


def test_records_may_differ_in_their_keys(make):
    assert cells_of(read(make("a.jsonl", '{"a": 1}\n{"b": "x"}\n'))) == [[1, None], [None, "x"]]


def test_the_example_comes_with_the_package():
    table = read("penguins")
    assert examples.names() == ("digits", "penguins")
    assert table.frame.shape == (344, 8) and table.rows_total == 344
    assert table.frame.loc[0].tolist() == ["Adelie", "Torgersen", "39.1", "18.7", "181", "3750", "male", "2007"]
    assert int(table.frame.isna().sum().sum()) == 19


ARRAY = np.arange(12.0).reshape(4, 3)
SOURCES = {
    "array": (ARRAY, ARRAY),
    "vector": (ARRAY[:, 0], ARRAY[:, :1]),
    "tensor": (torch.from_numpy(ARRAY).requires_grad_(), ARRAY),
    "bfloat16": (torch.from_numpy(ARRAY).to(torch.bfloat16), ARRAY.astype(np.float32)),
    "ints": (ARRAY.astype(np.int16), ARRAY.astype(np.int16)),
    "frame": (pd.DataFrame(ARRAY, index=[3, 1, 2, 0]), ARRAY),
}


@pytest.mark.parametrize("name", SOURCES)
def test_arrays_and_frames(name):
    source, expected = SOURCES[name]
    table = read(source)
    assert list(table.frame) == [f"x{j}" for j in range(expected.shape[1])] and list(table.frame.index) == [0, 1, 2, 3]
    np.testing.assert_array_equal(table.frame.to_numpy(), expected, strict=True)
    changed = read(source + 1)
    assert table.fingerprint == read(source).fingerprint != changed.fingerprint


def test_numpy_files(tmp_path):
    np.save(tmp_path / "a.npy", ARRAY)
    np.savez_compressed(tmp_path / "one.npz", x=ARRAY)
    np.savez(tmp_path / "two.npz", x=ARRAY, y=ARRAY + 1)
    for source, expected in {"a.npy": ARRAY, "one.npz": ARRAY, "two.npz:y": ARRAY + 1}.items():
        np.testing.assert_array_equal(read(tmp_path / source).frame.to_numpy(), expected)
    assert read(tmp_path / "two.npz:x").fingerprint != read(tmp_path / "two.npz:y").fingerprint


FRAME = pd.DataFrame({"n": [1, 2, 3], "big": [2**60 + 1, 0, -1], "real": [0.1, 1 / 3, 1e-300], "text": ["é", 'a,"b"', "c\nd"]})


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.json", "t.jsonl", "t.parquet"])
def test_writing_and_reading_are_inverse(tmp_path, name):
    frame = FRAME.assign(gap=pd.Series(["x", None, "y"], dtype=TEXT), day=pd.Series(["2020-01-01", None, "NN"], dtype=TEXT))
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    write(frame, tmp_path / name)
    back = read(tmp_path / name).frame
    for column in frame:
        seen = [None if pd.isna(v) else v for v in back[column]]
        wanted = [None if pd.isna(v) else v for v in frame[column]]
        assert [type(w)(s) if s is not None else None for s, w in zip(seen, wanted, strict=True)] == wanted
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["t.npy", "t.npz"])
def test_numbers_are_written_as_arrays(tmp_path, name):
    write(FRAME[["n", "big"]], tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name).frame.to_numpy(), FRAME[["n", "big"]].to_numpy())
    write(pd.DataFrame({"n": pd.array([1, None], dtype="Int64")}), tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name).frame.to_numpy(), [[1.0], [np.nan]])


def test_parquet_keeps_whole_numbers_next_to_gaps(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    column = pa.array([2**60 + 1, None, 5] * 10)
    parquet.write_table(pa.table({"n": column}), tmp_path / "t.parquet", row_group_size=7)
    assert [None if pd.isna(v) else int(v) for v in read(tmp_path / "t.parquet").frame["n"]] == column.to_pylist()
    FRAME.set_index("text").to_parquet(tmp_path / "index.parquet")
    assert set(read(tmp_path / "index.parquet").frame) == set(FRAME)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "t.npy"
    write(FRAME[["n"]], path)
    with pytest.raises(InputError, match="column 'text' holds no numbers"):
        write(FRAME, path)
    assert read(path).rows_total == 3 and [p.name for p in tmp_path.iterdir()] == ["t.npy"]


def big(tmp_path, ending: str, rows: int):
    frame = pd.DataFrame({"k": np.arange(rows), "v": np.arange(rows) * 2})
    write(frame, path := tmp_path / f"big.{ending}")
    return path


@pytest.mark.parametrize("ending", ["csv", "jsonl", "json", "parquet", "npy", "npz"])
def test_a_sample_is_even_ordered_and_repeatable(tmp_path, ending, monkeypatch):
    for module in ("tables", "files.delimited", "files.parquet"):
        monkeypatch.setattr(f"mixtura.data.{module}.BLOCK_CELLS", 1000)
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    path = big(tmp_path, ending, 5000)
    table = read(path, rows=400, seed=1)
    k = table.frame["k" if ending not in ("npy", "npz") else "x0"].astype(int).to_numpy()
    assert len(k) == 400 and table.rows_total == 5000 and (np.diff(k) > 0).all()
    np.testing.assert_array_equal(table.frame.iloc[:, 1].astype(int), 2 * k)
    assert read(path, rows=400, seed=1).frame.equals(table.frame)
    assert not read(path, rows=400, seed=2).frame.equals(table.frame)


def test_every_row_is_as_likely(monkeypatch):
    monkeypatch.setattr("mixtura.data.tables.BLOCK_CELLS", 7)
    array = np.arange(20)
    kept = np.zeros(20)
    for seed in range(2000):
        kept[read(array, rows=5, seed=seed).frame["x0"]] += 1
    # each count is binomial(2000, 1/4): its standard deviation is 19.4
    assert kept.sum() == 10_000 and np.abs(kept - 500).max() < 4 * 19.4


def test_cells_are_bounded(monkeypatch):
    monkeypatch.setattr("mixtura.data.tables.MOST_CELLS", 30)
    assert read(np.zeros((20, 3))).frame.shape == (10, 3)
    assert read(np.zeros((20, 40))).frame.shape == (1, 40)


@pytest.mark.slow
def test_memory_is_bounded_by_the_rows_kept(tmp_path):
    path, rows = tmp_path / "big.csv", 1_000_000
    pd.DataFrame({"k": np.arange(rows), "v": np.arange(rows) % 1000 / 8}).to_csv(path, index=False)
    tracemalloc.start()
    assert len(read(path, rows=10_000).frame) == 10_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6  # all two million texts would take more than 100 MB


REFUSED = {
    "empty.csv": ("", "is empty"),
    "header.csv": ("a,b\n", "no rows of data"),
    "twice.csv": ("a,b,a\n1,2,3\n", "two columns are named 'a'"),
    "long.csv": ("a,b\n1,2\n1,2,3\n", "line 3 has 3 fields, but the header has 2"),
    "short.csv": ("a,b,c\n1,2,3\n1,2\n", "line 3 has 2 fields, but the header has 3"),
    "quote.csv": ('a,b\n1,"2\n', "line 2 cannot be read .*quotes"),
    "headless.csv": ("1.5,2.0\n3.5,4.0\n", "expected column names; add a header"),
    "binary.csv": (bytes(range(256)) * 9, "holds binary data"),
    "table.xlsx": ("PK", ".xlsx is not read here, expected .csv"),
    "table": ("a,b\n", "a name without ending is not read here"),
    "object.json": ('{"a": [1, 2]}', "expected a list of records.*got a dict"),
    "numbers.json": ("[1, 2]", "got a list that holds a int"),
    "cut.json": ('[{"a": 1},', "cannot be read as JSON"),
    "none.json": ("[]", "no rows of data"),
    "numbers.jsonl": ('{"a": 1}\n2\n', "line 2 is no record"),
    "cut.jsonl": ('{"a": 1}\n{"a":', "cannot be read as JSON lines"),
    "cut.npz": (b"PK\x03\x04rest", "cannot be read as a numpy file"),
    "text.npy": ("1,2,3\n", "never loaded|cannot be read as a numpy file"),
    "cut.parquet": (b"PAR1 and no more", "cannot be read as Parquet|need pyarrow"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_table_is_refused(make, name):
    content, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as caught:
        read(make(name, content))
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_refused_arrays(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    np.savez(tmp_path / "two.npz", x=ARRAY, y=ARRAY)
    np.savez(tmp_path / "none.npz")
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2)))
    whole = (tmp_path / "cube.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-8])
    (tmp_path / "array.npz").write_bytes(whole)
    (tmp_path / "archive.npy").write_bytes((tmp_path / "two.npz").read_bytes())
    (tmp_path / "half.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:-40])
    for name, message in {
        "objects.npy": "Python objects, which are never loaded",
        "objects.npz": "Python objects, which are never loaded",
        "two.npz": r"2 arrays \(x, y\), expected one; say which, as in two.npz:x",
        "two.npz:z": "no array 'z'; it holds x, y",
        "none.npz": "0 arrays",
        "cube.npy": r"expected a table .rows, columns. or images .*, got shape \(2, 2, 2\)",
        "cut.npy": "cannot be read as a numpy file",
        "half.npz": "cannot be read as a numpy file",
        "array.npz": "give it the ending .npy",
        "archive.npy": "give it the ending .npz",
    }.items():
        with pytest.raises(InputError, match=message):
            read(tmp_path / name)


REFUSED_SOURCES = [
    (np.zeros((2, 2), dtype=complex), "got an array of complex128"),
    (np.array([b"x"]), "got an array of"),
    (np.zeros((0, 2)), "no rows"),
    (pd.DataFrame({"a": [[1], [2]]}), "cannot be told apart"),
    (pd.DataFrame(np.zeros((2, 2)), columns=["a", "a"]), "two columns are named 'a'"),
    ({"a": [1]}, "expected a path, an example, a DataFrame or an array, got dict"),
    ("penguin", "no file 'penguin' .close: penguins.; give the path of a table or an example .digits, penguins"),
]


@pytest.mark.parametrize(("source", "message"), REFUSED_SOURCES)
def test_refused_sources(source, message):
    with pytest.raises(InputError, match=message):
        read(source)


def test_a_wrong_path_is_answered_with_what_is_near(make, tmp_path):
    make("houses.csv", "a\n1\n")
    with pytest.raises(InputError, match=r"close: houses\.csv"):
        read(tmp_path / "house.csv")
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)


@pytest.mark.parametrize("rows", [0, -1, 2.5, True])
def test_rows_must_be_a_count(rows):
    with pytest.raises(InputError, match=re.escape(repr(rows))):
        read(ARRAY, rows=rows)


def test_too_large_json_is_sent_to_jsonl(make, monkeypatch):
    monkeypatch.setattr("mixtura.data.files.json_records.MOST_JSON", 8)
    with pytest.raises(InputError, match=r"write it as \.jsonl"):
        read(make("t.json", json.dumps([{"a": 1}])))


def test_parquet_without_pyarrow_says_what_to_install(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match="pip install pyarrow"):
        read(make("t.parquet", b"PAR1"))


@pytest.mark.parametrize(("name", "message"), [("t.xls", "is not written here"), ("nowhere/t.csv", "there is no folder")])
def test_refuses_to_write(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        write(FRAME, tmp_path / name)


BODY = "".join(f"0.{k},v{k % 3},{k}\n" for k in range(10, 40))
#: a file's name and content → what is said of it
MISREAD = {
    "title": ("t.csv", "Report 2024\na,b,n\n" + BODY, "first line is 'Report 2024', and those below have 3 fields; remove"),
    "remark": ("t.csv", "# one\n# and, two\na,b,n\n" + BODY, "its first line is '# one', and those below have 3 fields"),
    "colons": ("t.csv", ("a,b,n\n" + BODY).replace(",", ":"), "3 fields with a colon between them, and one by a comma"),
    "blanks": ("t.csv", ("a,b,n\n" + BODY).replace(",", " "), "3 fields with a blank between them, and one by a comma"),
    "R": ("t.csv", "a b\nx 1 2\ny 2 3\n", "its lines have 3 fields with a blank between them"),
    "hats": ("t.csv", ("a,b,n\n" + BODY).replace(",", "^"), r"3 fields with \^ between them, and one by a comma; write it"),
    "commas": ("t.tsv", "a,b,n\n" + BODY, "3 fields with a comma between them, and one by a tab; name it .csv"),
    "sep": ("t.csv", "sep=;\na,b,n\n" + BODY, "3 fields with a comma between them, and one by a semicolon; leave"),
    "drawn": ("t.csv", " a | b\n---+---\n 1 | 2\n 3 | 4\n", "2 fields with a bar between them, and one by a comma"),
    "decimals": ("t.csv", "a\n1,5\n2,7\n", "line 2 has 2 fields, but the header has 1; put 1,5 in quotes if it is one number"),
    "no names": ("t.csv", BODY.replace("v1", "v0"), "its first line is 0.10,v0,10…, expected column names"),
    "no names of whole numbers": ("t.csv", "".join(f"{k},v{k % 3},{k}\n" for k in range(40)), "first line is 0,v0,0…, expected"),
}


@pytest.mark.parametrize("name", MISREAD)
def test_text_that_is_written_in_another_way_is_named(tmp_path, name):
    file, content, said = MISREAD[name]
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match=said):
        read(tmp_path / file)


@pytest.mark.parametrize(
    ("content", "columns", "first"),
    [
        ("\ufeff\ufeffa,b\n1,2\n", ["a", "b"], ["1", "2"]),
        ("a , b , n\n0.1 , u , 5\n0.2 , v , 6\n", ["a", "b", "n"], ["0.1", "u", "5"]),
        (" a | b\n 1 | u\n 2 | v\n", ["a", "b"], ["1", "u"]),
        ('a,b,n\n0.1, "x,u", 5\n0.2, "x,v", 6\n', ["a", "b", "n"], ["0.1", "x,u", "5"]),
        ("country,2007,2008\nDE,1,2\nFR,3,4\n", ["country", "2007", "2008"], ["DE", "1", "2"]),
        ("name,0.05,0.5\nDE,1,2\nFR,3,4\n", ["name", "0.05", "0.5"], ["DE", "1", "2"]),
        ("full name\nJohn Smith\nJane Doe\nJim Roe\n", ["full name"], ["John Smith"]),
        ("a,b\n1,2\n   \n3,4\n\x1a", ["a", "b"], ["1", "2"]),
        ("text\nhello: you\nfoo: bar\n", ["text"], ["hello: you"]),
    ],
)
def test_text_that_is_read_as_it_is_meant(tmp_path, content, columns, first):
    (tmp_path / "t.csv").write_text(content)
    frame = read(tmp_path / "t.csv").frame
    assert list(frame) == columns and frame.iloc[0].tolist() == first


def test_text_that_is_no_utf8_says_so(tmp_path):
    (tmp_path / "t.csv").write_bytes("a,b\n1,привет\n".encode("cp1251"))
    with pytest.warns(Note, match="t.csv is no UTF-8 and is read as Windows-1252; where its letters come out wrong"):
        read(tmp_path / "t.csv")


def test_text_kept_as_views_is_read(tmp_path):
    pa, parquet = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
    words = [f"k{k}" for k in range(40)]
    parquet.write_table(pa.table({"a": pa.array(words).cast(pa.string_view()), "n": range(40)}), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet", rows=7).frame["a"].isin(words).all()


def test_columns_of_one_name_are_named(tmp_path):
    pa, parquet = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
    parquet.write_table(pa.table([[1, 2], [3, 4]], names=["a", "a"]), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="has 2 columns called 'a'; give every column a name of its own"):
        read(tmp_path / "t.parquet")


def test_half_a_letter_in_a_frame_is_named():
    with pytest.raises(InputError, match=r"table: half a letter, '\\ud800', stands in"):
        read(pd.DataFrame({"a": pd.Series(["x", "\ud800"] * 10, dtype=object)}))
