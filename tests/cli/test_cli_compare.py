"""``mixtura compare``: what is printed, the page, --json, and what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at, rng = tmp_path_factory.mktemp("compare"), np.random.default_rng(0)
    for name, shift in (("a", 0.0), ("b", 1.0), ("same", 0.0)):
        frame = pd.DataFrame({"x": rng.normal(100 + 3 * shift, 3, 200).round(1), "k": rng.choice(["u", "v"], 200)})
        frame.to_csv(at / f"{name}.csv", index=False)
    (at / "empty.csv").write_text("x,k\n")
    pd.DataFrame({"x": [1.0] * 30}).to_csv(at / "narrow.csv", index=False)
    return at


def test_it_says_whether_and_where(do):
    shown = do("compare a.csv b.csv --method logistic")
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert lines[:2] == ["a.csv: 200 rows; b.csv: 200", "a.csv and b.csv differ (p < 0.001)"]
    assert any(line.startswith("MMD²") for line in lines)
    assert any(line.startswith("x ") and "median 100" in line for line in lines)
    assert "divergences in nats by logistic" in shown.out


def test_sets_of_one_law_and_the_same_file(do):
    assert "no difference found (p = " in do("compare a.csv same.csv --method logistic").out
    assert "a.csv and a.csv are the same rows" in do("compare a.csv a.csv --method logistic").out


def test_json_and_the_page(do, place):
    shown = do("compare a.csv b.csv --method trees --json -o page.html --seed 3")
    record = json.loads(shown.out)
    assert record["differ"] and record["method"] == "trees" and record["output"] == "page.html" and record["seed"] == 3
    assert (place / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert json.loads(do("compare a.csv b.csv --method trees --json --seed 3").out) == record | {"output": None}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("a.csv none.csv", "none.csv"),
        ("a.csv empty.csv", "empty.csv"),
        ("a.csv narrow.csv", "narrow.csv: no column 'k'"),
        ("a.csv b.csv --method psychic", "method: 'psychic' is unknown"),
        ("a.csv b.csv -o page.pdf", "page.pdf: expected a file with the ending .html"),
        ("a.csv b.csv -o none/page.html", "none/page.html: expected a file"),
        ("a.csv b.csv --features nonsense", "nonsense"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(do, words, said):
    shown = do(f"compare {words}")
    assert shown.code == 2 and shown.out == ""
    assert shown.err.startswith("error: ") and said in shown.err and shown.err.count("\n") == 1


def test_kinds_and_files_of_one_name(do, place):
    rng = np.random.default_rng(1)
    for name, low in (("one", 0), ("two", 100)):
        (place / name).mkdir()
        codes = [f"code {k}" for k in rng.integers(low, low + 200, 300)]
        pd.DataFrame({"x": rng.normal(size=300).round(2), "c": codes}).to_csv(place / name / "t.csv", index=False)
    plain = do("compare one/t.csv two/t.csv --method logistic")
    assert "one/t.csv: 300 rows; two/t.csv: 300" in plain.out and "--kind c=categorical" in plain.err
    told = do("compare one/t.csv two/t.csv --method logistic --kind c=categorical")
    assert told.code == 0 and "--kind" not in told.err
    assert any(line.startswith("c ") and "code" in line for line in told.out.splitlines())
    shown = do("compare one/t.csv two/t.csv --kind x")
    assert shown.code == 2 and "--kind x: expected NAME=VALUE" in shown.err
