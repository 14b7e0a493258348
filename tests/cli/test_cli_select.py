"""`mixtura mix` and `mixtura select` as a person meets them: what is shown, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

CENTRES = {"left": -3.0, "middle": 0.0, "right": 3.0, "far": 9.0}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    sets = {name: rng.normal(c, 1, (300, 1)) for name, c in CENTRES.items()}
    real = rng.choice([-3.0, 3.0], (300, 1), p=[0.3, 0.7]) + rng.normal(size=(300, 1))
    np.savez(place / "sets.npz", **sets, real=real, hole=np.full((50, 1), np.nan), wide=np.zeros((50, 2)), one=np.zeros((1, 1)))
    for name, x in sets.items():
        pd.DataFrame(x, columns=["x"]).to_csv(place / f"{name}.csv", index=False)
    pd.DataFrame(real, columns=["x"]).to_csv(place / "real.csv", index=False)
    mixed = pd.DataFrame({"x": real[:, 0], "colour": rng.choice(["red", "blue"], 300)})
    mixed.to_csv(place / "mixed.csv", index=False)
    mixed.assign(colour="red").to_csv(place / "red.csv", index=False)
    listed = [{"name": name, "kind": "pool", "path": f"{name}.csv", "cost": 0.5} for name in CENTRES]
    (place / "arms.json").write_text(json.dumps({"arms": listed}))
    (place / "bad.json").write_text(json.dumps({"arms": [{"name": "a", "kind": "oracle"}]}))
    for name, value in {"huge": 10**400, "nested": [1, 2], "code": "007"}.items():
        (place / f"{name}.json").write_text(json.dumps([{"x": value}, {"x": 1}]))
    return place


@pytest.fixture
def width() -> int:
    return 100


def test_mix_says_what_to_use_and_how_sure(do):
    shown = do("mix left.csv middle.csv right.csv --reference real.csv --objective mmd")
    assert shown.code == 0 and shown.err == ""
    lines = shown.out.splitlines()
    assert lines[0].split() == ["generator", "samples", "weight", "95", "%", "interval"]
    assert lines[1].startswith("right") and "300" in lines[1]
    assert "gain +" in shown.out and "over any one arm on samples that chose nothing (p " in shown.out
    assert "mmd: " in shown.out and "lower is better; gap " in shown.out and "features as given, bandwidth" in shown.out


def test_mix_as_json_holds_what_the_page_promises(do):
    found = json.loads(do("mix sets.npz:left sets.npz:right sets.npz:far --objective rke --bandwidth 1 --json").out)
    assert {"weights", "value", "gap", "intervals", "gain", "p_value", "flat", "terms", "sentence"} <= found.keys()
    assert found["weights"] == pytest.approx({"left": 1 / 3, "right": 1 / 3, "far": 1 / 3}, abs=0.03)
    assert found["unit"] == "modes" and found["higher"] is True and found["gap"] < 1e-12 and found["bandwidth"] == 1.0
    assert found["value"] > found["best_value"] and found["p_value"] <= 1e-6


def test_mix_obeys_caps_costs_and_size(do):
    three = "mix left.csv middle.csv right.csv --objective rke --bandwidth 1 --json"
    weights = lambda line: json.loads(do(f"{three} {line}").out)["weights"]  # noqa: E731
    assert max(weights("--cap 0.4").values()) <= 0.4 + 1e-9
    assert min(weights("--floor 0.3").values()) >= 0.3 - 1e-9
    assert sorted(weights("--size 2").values())[0] == 0
    cheap = weights("--costs 1,0,1 --at-most 0.2")
    assert cheap["left"] + cheap["right"] == pytest.approx(0.2, abs=1e-6)


def test_a_sweep_is_a_table(do):
    sweep = "mix left.csv right.csv far.csv --reference real.csv --objective rke+precision --bandwidth 1 --pareto"
    rows = json.loads(do(f"{sweep} 0,0.05,1 --json").out)["data"]
    assert [row["scale"] for row in rows] == [0, 0.05, 1] and rows[0]["far"] > rows[2]["far"]


def test_mixed_tables_are_standardised(do):
    found = json.loads(do("mix red.csv mixed.csv --reference mixed.csv --objective mmd --json").out)
    assert found["weights"]["mixed"] > 0.9 and "standardised" in found["features"]


def test_select_asks_shows_and_leaves_everything(do, place):
    shown = do("select arms.json --reference real.csv --objective mmd --pulls 120 --out runs/sel")
    assert shown.code == 0, shown.err
    assert "gain over any one arm on halves that chose nothing: +" in shown.out
    assert "120 samples" in shown.out and "asymptotic: at most" in shown.out and "certified: at most" in shown.out
    assert "samples: " in shown.err and "best alone" in shown.err
    assert {p.name for p in (place / "runs/sel").iterdir()} >= {"ledger.sqlite", "selection.json", "report.html"}
    record = json.loads((place / "runs/sel/selection.json").read_text())
    weights = {arm["name"]: arm["weight"] for arm in record["arms"]}
    assert weights["left"] == pytest.approx(0.3, abs=0.12) and weights["far"] < 0.05 and record["spent"] == 60.0
    again = json.loads(do("select arms.json --reference real.csv --objective mmd --pulls 120 --out runs/sel --json").out)
    assert again["pulls"] == 120 and again["weights"] == weights
    more = json.loads(do("select arms.json --reference real.csv --objective mmd --pulls 140 --out runs/sel --json").out)
    assert more["pulls"] == 140
    assert do("report runs/sel").out.strip().endswith("report.html")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("mix left.csv --objective best", "'best' is no term; write terms of rke"),
        ("mix left.csv right.csv --objective mmd", "mmd compares with real rows; give --reference"),
        ("mix left.csv right.csv --objective rke+0.1*cost", "give --costs"),
        ("mix left.csv nowhere.csv", "no file"),
        ("mix left.csv left.csv", "two generators would be called 'left'"),
        ("mix sets.npz:left sets.npz:wide", "has 2 columns"),
        ("mix sets.npz:left sets.npz:one", "1 sample"),
        ("mix sets.npz:left sets.npz:hole", "finite"),
        ("mix left.csv right.csv --cap 0.2", "caps: they add up to 0.4"),
        ("mix left.csv right.csv --costs 1,x", "expected numbers with commas between"),
        ("mix left.csv right.csv --at-most 1", "give --costs"),
        ("mix left.csv right.csv --bandwidth 0", "bandwidth"),
        ("mix left.csv right.csv --objective rke --pareto 0,1", "has one term"),
        ("mix left.csv right.csv --size 1 --cap 0.5", "size"),
        ("select nowhere.yaml", "nowhere.yaml"),
        ("select bad.json", "'oracle' is unknown"),
        ("select arms.json --objective vendi --out runs/new", "not quadratic"),
        ("select arms.json --policy best --out runs/new", "expected one of variance_ucb"),
        ("select arms.json --policy mixture_oracle --out runs/new", "needs the truth"),
        ("select arms.json --objective mmd --out runs/new", "give --reference"),
        ("select arms.json --reference mixed.csv --objective mmd --out runs/new", "without numbers"),
        ("select arms.json --reference code.json --objective mmd --out runs/new", "without numbers"),
        ("select arms.json --reference huge.json --objective mmd --out runs/new", "row 0, column 0 is inf, which is not finite"),
        ("select arms.json --reference nested.json --objective mmd --out runs/new", "column 'x', row 0 holds a list"),
        ("select arms.json --out .", "holds no selection"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_exit_code_2(do, place, line, says):
    before = sorted(place.rglob("*"))
    shown = do(line)
    assert shown.code == 2 and shown.out == "" and says in shown.err, shown.err
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1 and "Traceback" not in shown.err
    assert sorted(place.rglob("*")) == before
