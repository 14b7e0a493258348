"""Encodings and dialects of text files: read as meant, or refused with the true cause."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from mixtura.contracts import InputError
from mixtura.data.guess import guess
from mixtura.data.tables import read

ROWS = [["1.5", "é", "3"], ["2.5", "v", "4"], ["3.5", "ü", "5"]]
HEADER = ["a", "b", "n"]


def saved(tmp_path, name: str, content: str, encoding: str = "utf-8") -> str:
    (tmp_path / name).write_bytes(content.encode(encoding))
    return str(tmp_path / name)


def joined(mark: str = ",", end: str = "\n", header=HEADER, rows=ROWS) -> str:
    return end.join(mark.join(row) for row in ([header] if header else []) + rows) + end


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"]


@pytest.mark.filterwarnings("ignore:.* is no UTF-8:UserWarning")
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.json", "t.jsonl"])
def test_every_text_format_is_read_in_every_encoding(tmp_path, encoding, name):
    records = [json.dumps(dict(zip(HEADER, row, strict=True)), ensure_ascii=False) for row in ROWS]
    content = {
        "t.csv": joined(), "t.tsv": joined("\t"), "t.json": f"[{','.join(records)}]", "t.jsonl": "\n".join(records)
    }[name]  # fmt: skip
    table = read(saved(tmp_path, name, content, encoding))
    assert list(table.frame) == HEADER and table.frame.to_numpy().tolist() == ROWS


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.json"])
def test_a_stray_byte_in_a_file_of_utf8_is_named_with_its_line(tmp_path, name):
    (tmp_path / name).write_bytes('{"a": "é"}\n'.encode() * 30 + b'{"a": "\xe9"}\n')
    with pytest.raises(InputError, match=rf"{name}: line 31 holds the byte 0xE9, which is no letter of UTF-8"):
        read(tmp_path / name)


def test_what_is_cut_or_binary_is_refused(tmp_path):
    (tmp_path / "cut.csv").write_bytes(joined().encode("utf-16")[:-1])
    with pytest.raises(InputError, match="begins as UTF-16, but cannot be read as that .*cut short"):
        read(tmp_path / "cut.csv")
    (tmp_path / "b.json").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="b.json holds binary data"):
        read(tmp_path / "b.json")


NAMED = [["r one", *ROWS[0]], ["r two", *ROWS[1]], ["r three", *ROWS[2]]]
DIALECTS = {
    "blank after the comma": joined(", "),
    "blank in the rows alone": joined(",", header=None, rows=[HEADER]) + joined(", ", header=None),
    "semicolons": joined(";"),
    "sep line": "sep=;\n" + joined(";"),
    "sep line of Windows": "SEP=|\r\n" + joined("|", "\r\n"),
    "sep line in quotes": '"sep=\t"\r\n' + joined("\t", "\r\n"),
    "old Macintosh": joined(",", "\r"),
    "a comma at every end": joined() .replace("3\n", "3,\n").replace("4\n", "4,\n").replace("5\n", "5,\n"),
    "quotes after blanks": 'a, b, n\n1.5, "é", 3\n2.5, "v", 4\n3.5, "ü", 5\n',
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("name", DIALECTS)
def test_dialects(tmp_path, name, encoding):
    table = read(saved(tmp_path, "t.csv", DIALECTS[name], encoding))
    assert list(table.frame) == HEADER and table.frame.to_numpy().tolist() == ROWS


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_row_names_of_r(tmp_path, mark):
    table = read(saved(tmp_path, "t.csv", joined(mark, rows=NAMED)))
    assert list(table.frame) == ["Unnamed: 0", *HEADER] and table.frame.to_numpy().tolist() == NAMED


def test_numbers_with_a_comma_are_not_taken_for_row_names(tmp_path):
    path = saved(tmp_path, "t.csv", "a,b\n" + "1,5,2\n" * 3)
    with pytest.raises(InputError, match="lines have 3 fields, but the header has 2, and the first are no row names"):
        read(path)
    path = saved(tmp_path, "one.csv", "a\n1,5\n2,5\n3,5\n")
    with pytest.raises(InputError, match="line 2 has 2 fields, but the header has 1"):
        read(path)


def test_a_blank_that_belongs_to_a_text_stays(tmp_path):
    assert read(saved(tmp_path, "t.csv", "a,b\n1, u\n2,u\n3,v\n")).frame["b"].tolist() == [" u", "u", "v"]


def test_long_fields(tmp_path, monkeypatch):
    long = "x" * 140_000
    assert read(saved(tmp_path, "t.csv", f"a,b\n{long},1\ny,2\n")).frame["a"].tolist() == [long, "y"]
    monkeypatch.setattr("mixtura.data.files.delimited.MOST_CHARACTERS", 1000)
    with pytest.raises(InputError, match="line 2 holds a text of more than 1,000 characters; leave it out, or close the quote"):
        read(tmp_path / "t.csv")


def test_names_as_people_have_them(tmp_path):
    odd = ["a,b", "x=y", "[z]", "2019", "Ä (€)", "", "Unnamed: 0", ""]
    frame = pd.DataFrame(np.arange(160).reshape(20, 8), columns=odd)
    frame.to_csv(tmp_path / "t.csv", index=False)
    seen = read(tmp_path / "t.csv").frame
    assert list(seen) == [*odd[:5], "Unnamed: 5", "Unnamed: 0", "Unnamed: 7"]
    twice = pd.DataFrame({"a": [1.5, 2.5] * 10})
    twice.to_csv(tmp_path / "once.csv")
    pd.read_csv(tmp_path / "once.csv").to_csv(tmp_path / "twice.csv")
    seen = read(tmp_path / "twice.csv").frame
    assert list(seen) == ["Unnamed: 0.1", "Unnamed: 0", "a"]
    assert [field.kind for field in guess(seen).fields] == ["dropped", "dropped", "numeric"]


def test_whole_numbers_as_names_of_columns():
    frame = pd.DataFrame({2019: np.arange(30) / 4, 2020: np.arange(30) ** 2})
    learnt = guess(frame)
    assert [field.name for field in learnt.fields] == ["2019", "2020"]
    np.testing.assert_array_equal(learnt.encode(frame), learnt.encode(frame.rename(columns=str)))
    assert [field.name for field in guess(pd.DataFrame(frame.to_numpy())).fields] == ["x0", "x1"]


def test_too_many_columns_are_refused(tmp_path):
    keys = {f"k{j}": j for j in range(20_000)}
    (tmp_path / "t.json").write_text(json.dumps([keys] * 2))
    with pytest.raises(InputError, match="t.json: has 20,000 columns, more than the 4,096"):
        read(tmp_path / "t.json")


def test_text_that_is_kept_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("mixtura.data.tables.MOST_BYTES", 10_000)
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{'x' * 100},{k}\n" for k in range(1000)))
    table = read(tmp_path / "t.csv")
    assert table.rows_total == 1000 and 90 < len(table.frame) < 100
