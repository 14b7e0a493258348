"""impute touches holes and nothing else; what was never seen is named and counted, here and in score and predict."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest

import mixtura
from mixtura.contracts import Note


def table(n=200, seed=0):
    rng = np.random.default_rng(seed)
    age = rng.normal(50, 10, n)
    return pd.DataFrame(
        {
            "age": age.round().astype(int), "w": (age + rng.normal(0, 3, n)).round(1), "c": rng.choice(["x", "y"], n),
            "t": rng.random(n) < 0.4, "id": [f"k{i}" for i in range(n)],
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("holes")
    table().to_csv(place / "t.csv", index=False)
    mixtura.run(place / "t.csv", families=["gaussian_mixture"], steps=5, out=place / "run")
    mixtura.run(place / "t.csv", families=["linear_gaussian"], steps=5, target="w", out=place / "given")
    return place


def filled(place, line, do, lines):
    (place / "h.csv").write_text("age,w,c,t,id\n" + "\n".join(lines) + "\n")
    did = do(f"impute {line} h.csv -o o.csv")
    assert did.code == 0, did.err
    told = json.loads(do(f"impute {line} h.csv --json").out)
    return pd.read_csv(place / "o.csv", dtype=str, keep_default_na=False), did.err, told


def test_cells_that_are_there_come_back(place, do):
    lines = [",47.837,x,True,a", "49.4,,y,False,b", "54,55.10,,1,c", "40,50,octarine,,d", "-9,inf,z,maybe,complete"]
    out, err, told = filled(place, "run", do, lines)
    assert out.w[0] == "47.837" and out.age[1] == "49.4" and float(out.w[2]) == 55.1 and out.c[3] == "octarine"
    assert out.iloc[4].tolist() == ["-9.0", "inf", "z", "maybe", "complete"] and list(out.id) == ["a", "b", "c", "d", "complete"]
    assert told["cells_filled"] == 4 and told["cells_left"] == 0 and (out != "").all(axis=None)
    assert len(told["notes"]) == 1 and "column 'c', level 'octarine' never seen (1 row)" in err


@pytest.mark.parametrize("model", ["gaussian_mixture", "marginals"])
def test_rows_that_cannot_be_conditioned_on_stay_and_are_named(place, do, model):
    lines = ["-3,,x,True,a", "40,,x,True,b", "40,large,,True,c", "40,inf,,True,d", "40,1e200,,True,e"]
    out, err, told = filled(place, f"run --model {model}", do, lines)
    assert out.w[0] == "" and out.w[1] != "" and list(out.c) == ["x", "x", "", "", ""]
    assert float(out.w[4]) == 1e200 and list(out.w[2:4]) == ["large", "inf"]
    assert told["cells_filled"] == 1 and told["cells_left"] == 4 and told["data"][0]["w"] is None
    for said in ("4 of 5 rows", "row 0, column 'age' is -3", "row 2, column 'w' is large", "row 4, column 'w' is 1e200"):
        assert said in err and said in told["notes"][0]


def test_rows_whose_inputs_say_nothing_stay(place, do):
    out, err, told = filled(place, "given", do, ["40,,x,0,a", ",,x,1,b", "old,,x,1,c", ",7,,,complete", "40,,z,1,d"])
    assert list(out.w == "") == [False, True, True, False, False] and told["cells_left"] == 2
    assert "row 1, column 'age' is missing; row 2, column 'age' is old" in err and list(out.t) == ["0", "1", "1", "", "1"]


def test_frames_keep_their_types_and_index(place):
    study = mixtura.load(place / "run")
    frame = table(seed=1).set_index(np.arange(200) // 2)
    gappy = frame.assign(w=frame.w.where(np.arange(200) % 5 > 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)
        for one in (study.best.impute(gappy), study.best.impute(gappy, draws=2).iloc[:200, 1:].set_index(gappy.index)):
            assert not one.w.isna().any() and one.index.equals(gappy.index) and (one.w[gappy.w.notna()] == gappy.w.dropna()).all()
            assert (one.dtypes[["age", "w"]] == frame.dtypes[["age", "w"]]).all() and (one.age == frame.age).all()


def test_levels_never_seen_are_named_by_score_and_predict(place, do):
    table(5, seed=2).assign(c="NEW").to_csv(place / "n.csv", index=False)
    for line in ("score run", "score given", "predict given", "sample given --given"):
        did, told = do(f"{line} n.csv -o o.csv"), json.loads(do(f"{line} n.csv --json").out)
        said = "5 of 5 rows have values that the rows learnt from cannot have: column 'c', level 'NEW' never seen (5 rows)"
        assert did.code == 0 and said in did.err and [said in note for note in told["notes"]] == [True], line


def test_truth_as_numbers_is_the_same_question(place, do):
    rows = table(5, seed=2)
    answers = []
    for written in (rows.t, rows.t.astype(int)):
        rows.assign(t=written).to_csv(place / "b.csv", index=False)
        told = [json.loads(do(line).out)["data"] for line in ("predict given b.csv --json", "score run b.csv --json")]
        answers.append([[{name: cell for name, cell in row.items() if name != "t"} for row in rows] for rows in told])
    assert answers[0] == answers[1]


def test_a_run_counts_what_outside_samples_cannot_have(place, do):
    table(100, seed=3).assign(c="NEW").to_csv(place / "bad.csv", index=False)
    table(100, seed=4).to_csv(place / "good.csv", index=False)
    did = do("run t.csv --families marginals --steps 5 --samples bad=bad.csv --samples good=good.csv --out outside --json")
    told = json.loads(did.out)
    note = "bad: 100 of 100 rows have values that real rows cannot have: column 'c', level 'NEW' never seen (100 rows)"
    assert told["notes"] == [note] and note in did.err
    precision = {s["name"]: s["metrics"]["precision"]["value"] for s in told["scores"]}
    assert precision["bad"] < precision["good"] - 0.2
