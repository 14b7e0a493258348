"""The page of a run with targets: its figures are true, and its data are the run's."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch

from mixtura.data.guess import guess
from mixtura.folder.io import read_json, read_tensors
from mixtura.report import build, collect, conditional, render


def test_the_data_are_the_runs(given_run):
    data = collect(given_run.folder)
    assert data["given"]["target"] == ["y"] and data["given"]["given"] == ["x"] and data["made"]["what"] == "400 rows, 2 columns"
    assert data["quadratic"] is data["table"] is data["images"] is None
    plain = asdict(given_run.conditioning)
    assert data["given"]["worth"] == plain["worth"] and data["given"]["calibration"] == plain["calibration"]
    assert [m["name"] for m in data["metrics"]] == ["crps", "coverage_90", "width_90", "coverage_50", "pit"]
    ranks = read_tensors(given_run.folder / "calibration.safetensors")
    [y] = data["given"]["calibrated"]
    assert set(y["models"]) >= {"marginals", "linear_gaussian", "autoregressive"} and y["n"] == 80
    counts = torch.histc(ranks["linear_gaussian/y"], 10, 0, 1) / 80
    assert y["models"]["linear_gaussian"]["histogram"] == pytest.approx(counts.tolist(), abs=1e-3)
    score = next(s for s in data["scores"] if s["name"] == "linear_gaussian")
    covered = y["models"]["linear_gaussian"]["coverage"][conditional.LEVELS.index(0.9)]
    assert covered == pytest.approx(score["metrics"]["coverage_90"]["value"], abs=0.02)
    assert [step["command"].split()[1] for step in data["next"]] == ["predict", "sample", "score"]


def test_bands_hold_what_they_say():
    draw = np.random.default_rng(1)
    u = draw.random((2_000, 300))
    low, high = conditional.band(300, conditional.BINS)
    shares = np.array([conditional.histogram(row) for row in u])
    assert ((shares >= low - 1e-4) & (shares <= high + 1e-4)).all(1).mean() == pytest.approx(0.95, abs=0.02)
    reach = conditional._calibrated("y", {"m": {"y": torch.from_numpy(u[0])}})["reach"]
    away = np.abs(np.array([conditional.coverage(row) for row in u]) - conditional.LEVELS).max(1)
    assert 0.95 - 0.01 < (away <= reach).mean() < 0.99  # Kolmogorov's is of all levels, not of 19


@pytest.mark.parametrize(("shift", "ends"), [(0.5, "full"), (2.0, "empty")])
def test_narrow_models_fill_the_ends(shift, ends):
    z = np.random.default_rng(0).normal(size=4_000)
    u = np.array([0.5 * (1 + math.erf(v / shift / math.sqrt(2))) for v in z])
    found, covered = conditional.histogram(u), conditional.coverage(u)
    assert (found[0] > 0.15) == (ends == "full") and (covered[9] < 0.4) == (ends == "full")
    assert sum(found) == pytest.approx(1, abs=1e-3) and covered == sorted(covered)


def test_the_picture_stands_where_the_rows_are(given_run):
    [p] = collect(given_run.folder)["given"]["portraits"]
    assert (p["target"], p["input"], p["others"]) == ("y", "x", 0) and len(p["p"]) == p["x"]["cells"] == 64
    assert len(p["points"]) >= 75
    for rows in (np.array(p["points"])[:, 0], np.array(p["points"])[:, 1]):
        assert rows.min() > 0 and rows.max() < 64
    ticks = {float(text): where for where, text in p["y"]["ticks"]}
    raw = read_json(given_run.folder / "portraits.json")[0]
    width = raw["y"][1] - raw["y"][0]
    for value, where in ticks.items():
        assert where == pytest.approx((value - raw["y"][0]) / width + 0.5, abs=0.01)
    assert len(ticks) >= 3 and any(95 < value < 105 for value in ticks)
    mass = np.array(p["p"]).sum(1) * width
    assert (mass > 0.8).all() and (mass < 1.05).all()
    row = p["rows"][0]
    assert row["given"].startswith("x ") and float(row["said"]) < 98


def test_many_inputs_and_targets_of_every_kind(wide_run, tmp_path):
    data = collect(wide_run.folder)
    of_names = {p["target"]: p for p in data["given"]["portraits"]}
    assert set(of_names) == {"twice", "colour"} and of_names["twice"]["input"] == "size" and of_names["twice"]["points"] == []
    assert of_names["twice"]["others"] == 2 and [text for _, text in of_names["colour"]["y"]["ticks"]] == ["blue", "red"]
    assert len(of_names["colour"]["rows"][0]["p"]) == 2
    assert {row["said"] for row in of_names["colour"]["rows"]} <= {"blue", "red", "missing"} and of_names["twice"]["drawn"] > 100
    assert "nats of twice and colour given size, day and other" in data["verdict"]["sentence"]
    page = build(wide_run.folder, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "function answers" in page and 'id="density"' in page and 'id="weights"' not in page


def test_pages_without_targets_carry_no_such_script(table_run):
    text = render(collect(table_run.folder))
    assert "function answers" not in text and 'id="calibration"' not in text and 'id="weights"' in text


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0, 1, 5), (94.3, 105.2, 4), (-3e-4, 5e-4, 4), (2_700, 6_300, 4), (-1e7, 3e7, 4)]
)
def test_ticks_are_round_numbers(low, high, expected):
    values = conditional.nice(low, high)
    assert expected - 1 <= len(values) <= expected + 3 and values[0] >= low - 1e-9 and values[-1] <= high + 1e-9 * abs(high)
    texts = conditional._texts(values)
    assert len(set(texts)) == len(texts)
    assert [float(text.replace(",", "")) for text in texts] == pytest.approx(values.tolist(), rel=1e-6, abs=1e-12)


def test_ticks_speak_the_tables_language():
    frame = pd.DataFrame({
        "count": np.arange(40) + 1_000_000, "day": pd.date_range("2024-01-01", periods=40), "level": list("abcd") * 10
    })  # fmt: skip
    count, day, level = guess(frame).fields
    texts = lambda field, places: [text for _, text in conditional.PictureAxis(field, places).plain()["ticks"]]  # noqa: E731
    assert texts(count, np.linspace(0, 39, 64)) == ["1,000,000", "1,000,010", "1,000,020", "1,000,030"]
    assert all(text.startswith("2024-") for text in texts(day, np.linspace(0, 39, 64)))
    assert texts(level, [0, 1, 2, 3]) == ["a", "b", "c", "d"] and texts(level, [1, 3]) == ["b", "d"]
    some = conditional.PictureAxis(level, [1, 3])  # the commonest
    assert [some.at(code) for code in (0, 1, 3, None)] == [None, 0.5, 1.5, None]
