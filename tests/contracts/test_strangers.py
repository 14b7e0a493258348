"""A family is one file and one line of the TABLE: strangers' run from the command line to the report, and again."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from strangers import energy, gan, random_forest

import mixtura
from mixtura.cli.main import main
from mixtura.families import TABLE, Family

STRANGERS = {"gan": gan, "langevin": energy, "random_forest": random_forest}


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name, module in STRANGERS.items():
        monkeypatch.setitem(TABLE, name, Family(name, module.Config, module.suggest, module.build, f"a stranger's {name}"))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    a = rng.normal(100, 3, 300)
    pd.DataFrame({"a": a, "b": 0.5 * a + rng.normal(0, 1, 300)}).to_csv("t.csv", index=False)
    return tmp_path


def test_strangers_run_from_the_command_line_to_the_report(place, capsys):
    main(["run", "t.csv", "--families", "gan,langevin,random_forest", "--steps", "60", "--out", "run", "--json"])
    told = json.loads(capsys.readouterr().out)
    scores = {score["name"]: score for score in told["scores"]}
    assert set(scores) == {"gan", "langevin", "random_forest", "marginals"}
    assert [scores[name]["kind"] for name in STRANGERS] == [None, None, "exact"]
    assert all(score["status"] in ("fitted", "samples only") and score["reason"] == "" for score in scores.values())
    # the columns depend on each other, and the forest sees it
    assert scores["random_forest"]["nats"] > scores["marginals"]["nats"] + 0.3
    assert scores["gan"]["steps"] == scores["langevin"]["steps"] == 60 and scores["random_forest"]["steps"] is None
    main(["report", "run"])
    page = (place / "run/report.html").read_text()
    assert all(name in page for name in STRANGERS)
    for name in STRANGERS:
        main(["sample", "run", "-n", "20", "--model", name, "-o", f"{name}.csv"])
        assert pd.read_csv(f"{name}.csv")["a"].between(70, 130).all()
    main(["score", "run", "t.csv", "--model", "random_forest", "-o", "scores.csv"])
    assert pd.read_csv("scores.csv")["nats"].notna().all()


def test_strangers_repeat_their_run_and_are_loaded_by_name(place):
    study = mixtura.run("t.csv", families=["gan", "langevin"], steps=40, out="run")
    again, different = mixtura.replay("run", "again", "t.csv")
    assert different == [] and again.verdict == study.verdict
    loaded = mixtura.load("run")
    assert loaded.model("gan").sample(5, seed=1).equals(study.model("gan").sample(5, seed=1))
