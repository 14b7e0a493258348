"""``mixtura detect``: what is printed, the scores, the page, --json, and what cannot be done."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at, rng = tmp_path_factory.mktemp("detect"), np.random.default_rng(0)
    for name, n in (("normal", 300), ("suspects", 40), ("few", 30)):
        kind = rng.choice(["u", "v"], n)
        frame = pd.DataFrame({"x": (rng.normal(100, 3, n) + 20 * (kind == "u")).round(1), "k": kind})
        frame.to_csv(at / f"{name}.csv", index=False)
    lines = (at / "suspects.csv").read_text().splitlines()
    lines[6] = "180.0,<b>u"  # row 5
    (at / "odd.csv").write_text("\n".join(lines) + "\n")
    (at / "text.csv").write_text("x,k\nlong,u\n")
    (at / "empty.csv").write_text("x,k\n")
    pd.DataFrame({"x": [1.0] * 30}).to_csv(at / "narrow.csv", index=False)
    np.savez(at / "images.npz", images=rng.integers(0, 255, (40, 6, 6)).astype(np.uint8))
    return at


def test_it_says_how_many_which_and_why(do):
    shown = do("detect normal.csv odd.csv --false-alarms 2%")
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert lines[0] == "normal.csv: 300 rows; odd.csv: 40" and "of 40 rows are strange at 2 % false alarms" in lines[1]
    first = next(line for line in lines if line.split()[:1] == ["5"])
    assert "x = 180.0" in first and "k = <b>u" in shown.out
    assert "by blend: nearest, gaussian_mixture; calibrated on 90 rows of normal.csv" in shown.out


def test_scores_page_and_json(do, place):
    shown = do("detect normal.csv odd.csv -o scores.csv --json --seed 3")
    record = json.loads(shown.out)
    assert record["output"] == "scores.csv" and record["page"] == "scores.html" and record["seed"] == 3
    scores = pd.read_csv(place / "scores.csv")
    assert list(scores) == ["strangeness", "p_value", "anomaly", "reasons"] and len(scores) == 40
    assert scores["strangeness"].idxmax() == record["strangest"][0]["row"] == 5
    assert scores["anomaly"].sum() == record["anomalies"] and scores["reasons"][5].startswith(("x = 180.0", "k = <b>u"))
    page = (place / "scores.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "&lt;b&gt;u" in page and "k = <b>u" not in page
    page = (Path(__file__).parents[2] / "docs/cli-json.md").read_text(encoding="utf-8").partition("`mixtura detect")[2]
    shown = json.loads(re.findall(r"^```json\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[0])
    assert shown.keys() == record.keys() and shown["strangest"][0].keys() == record["strangest"][0].keys()
    assert shown["strangest"][0]["reasons"][0].keys() == record["strangest"][0]["reasons"][0].keys()
    again = json.loads(do("detect normal.csv odd.csv --json --seed 3").out)
    assert again == record | {"output": None, "page": None}


def test_methods_and_images(do):
    assert "by knn: knn" in do("detect normal.csv suspects.csv --method knn").out
    assert "by mpdr" not in do("detect normal.csv suspects.csv --method marginals --page p.html").out
    shown = do("detect images.npz images.npz --method knn -o images.csv")
    assert shown.code == 0 and "images.npz: 40 images" in shown.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("normal.csv none.csv", "none.csv"),
        ("normal.csv empty.csv", "empty.csv"),
        ("normal.csv narrow.csv", "narrow.csv: no column 'k'"),
        ("normal.csv text.csv", "text.csv: column 'x', row 0 is 'long', expected a number"),
        ("normal.csv images.npz", "images.npz"),
        ("normal.csv odd.csv --method psychic", "method: 'psychic' is unknown"),
        ("normal.csv odd.csv --false-alarms 120%", "--false-alarms: expected a share"),
        ("few.csv odd.csv --false-alarms 1%", "needs 99 calibration rows"),
        ("normal.csv odd.csv --page page.pdf", "page.pdf: expected a file with the ending .html"),
        ("normal.csv odd.csv -o none/scores.csv", "none"),
        ("normal.csv odd.csv -o scores.docx", "scores.docx"),
        ("normal.csv odd.csv --features nonsense", "nonsense"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(do, words, said):
    shown = do(f"detect {words}")
    assert shown.code == 2 and shown.out == ""
    assert shown.err.startswith("error: ") and said in shown.err and shown.err.count("\n") == 1


def test_rows_left_out_and_known_anomalies(do):
    shown = do("detect normal.csv odd.csv --trim 10% --anomalies few.csv --json")
    record = json.loads(shown.out)
    assert record["calibration"] == 81 and sum(record["weights"].values()) == pytest.approx(2.0)
    assert [*record["weights"]] == ["nearest", "gaussian_mixture"] and record["strangest"][0]["row"] == 5
    shown = do("detect normal.csv odd.csv --trim half")
    assert shown.code == 2 and "--trim: expected a share above 0 and below 1, such as 1% or 0.01, got 'half'" in shown.err
    assert do("detect normal.csv odd.csv --anomalies nowhere.csv").code == 2


def test_the_models_of_a_run(do):
    assert do("run normal.csv --steps 10 --families gaussian_mixture,marginals --out a-run").code == 0
    shown = do("detect a-run odd.csv --false-alarms 5%")
    assert shown.code == 0 and "calibrated on 60 rows of a-run" in shown.out
    assert next(line for line in shown.out.splitlines() if line.split()[:1] == ["5"])
    shown = do("detect a-run odd.csv --method knn")
    assert shown.code == 2 and "method: no 'knn' with nats of all report rows in this run; give blend, " in shown.err
    shown = do("detect a-run odd.csv --false-alarms 0.1%")
    assert shown.code == 2 and "false_alarms: 0.001 needs 999 calibration rows, but the run has 60 report rows" in shown.err
