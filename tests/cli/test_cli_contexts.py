"""`mixtura select --contexts`: arms whose samples depend on a prompt, as a person meets them, and after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixtura
from mixtura.ledger import Ledger

#: two functions with a key each: one is varied by day, the other at night; a slow one writes down what it makes
SHAPES = """
import time
import numpy as np


def sample(seed, context, day, slow=0.0, book=None):
    time.sleep(slow)
    rng = np.random.default_rng([seed, day])
    varied = (context["light"] > 0) == bool(day)
    if book is not None:
        with open(book, "a") as out:
            out.write(f"{seed} {context['prompt']}\\n")
    return rng.normal(0, 1.0 if varied else 0.05, 2)


def quality(seed, context, day):
    good = (context["light"] > 0) == bool(day)
    return np.random.default_rng([seed, day]).normal(0 if good else 6, 1, 2)
"""
PROMPTS = {"prompt": ["noon", "day", "evening", "night"], "light": [1.0, 0.8, -0.8, -1.0], "note": ["", "x", "", "y"]}


def arms(function: str, **options: object) -> str:
    entries = [
        {"name": name, "kind": "python", "function": f"shapes:{function}", "options": {"day": day, **options}, "repeatable": True}
        for name, day in (("sun", 1), ("moon", 0))
    ]
    return json.dumps({"arms": entries})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("place")
    (place / "shapes.py").write_text(SHAPES)
    (place / "arms.json").write_text(arms("sample"))
    (place / "good.json").write_text(arms("quality"))
    (place / "slow.json").write_text(arms("sample", slow=0.02, book="book.txt"))
    pool = {"name": "pool", "kind": "pool", "path": "pool.csv"}
    (place / "pool.json").write_text(json.dumps({"arms": [pool]}))
    pd.DataFrame({"x": np.arange(9.0)}).to_csv(place / "pool.csv", index=False)
    table = pd.DataFrame(PROMPTS)
    table.to_csv(place / "prompts.csv", index=False)
    table[["prompt"]].to_csv(place / "words.csv", index=False)
    table.assign(light=[1.0, np.nan, 0.0, 1.0]).to_csv(place / "hole.csv", index=False)
    rng = np.random.default_rng(0)
    pd.DataFrame(rng.normal(size=(100, 2)), columns=["a", "b"]).to_csv(place / "real.csv", index=False)
    return place


@pytest.fixture
def width() -> int:
    return 100


def test_each_prompt_gets_the_arm_that_is_varied_there(do, place):
    line = "select arms.json --contexts prompts.csv --objective rke --bandwidth 0.5 --reach 0.3 --pulls 120 --out runs/varied"
    shown = do(line)
    assert shown.code == 0, shown.err
    assert "use the weights of each context; averaged over 4 contexts" in shown.out and "after 120 samples" in shown.out
    table = pd.read_csv(place / "runs/varied/weights.csv")
    assert table["prompt"].tolist() == PROMPTS["prompt"]
    assert (table["weight sun"][:2] > 0.7).all() and (table["weight moon"][2:] > 0.7).all() and (table["value"] > 3).all()
    found = json.loads(do(f"{line} --json").out)
    assert found["pulls"] == 120 and found["contexts"][0]["context"] == {"prompt": "noon", "light": 1.0, "note": None}
    assert found["contexts"][3]["weights"]["moon"] == pytest.approx(table["weight moon"][3])
    assert {"mean_weights", "unit", "higher", "spent", "why", "closed", "counts", "sentence", "folder"} <= found.keys()
    assert json.loads(do(f"{line.replace('120', '130')} --json").out)["pulls"] == 130
    report = do("report runs/varied")
    assert report.code == 2 and "a selection in contexts has no page" in report.err


def test_without_rke_each_context_gets_its_best_arm(do, place):
    line = "select good.json --contexts prompts.csv --objective precision --reference real.csv --pulls 60 --out runs/good --json"
    found = json.loads(do(line).out)
    best = [max(at["weights"], key=at["weights"].get) for at in found["contexts"]]
    assert best == ["sun", "sun", "moon", "moon"] and found["unit"] == "share" and found["contexts"][0]["gap"] is None
    shares = {name: counts["told"] for name, counts in found["counts"].items()}
    assert min(shares.values()) > 15  # each is asked where it is good


def test_a_kill_loses_nothing_and_the_choices_are_those_of_an_undisturbed_selection(place):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(mixtura.__file__).parents[1])}

    def select(out: str, pulls: int) -> subprocess.Popen[bytes]:
        line = f"select slow.json --contexts prompts.csv --bandwidth 0.5 --pulls {pulls} --out {out}"
        argv = [sys.executable, "-m", "mixtura", *line.split()]
        return subprocess.Popen(argv, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def pulls(out: str) -> list[tuple[str, int, list[float]]]:
        ledger = Ledger(place / out / "ledger.sqlite")
        found = [(p.arm, p.draw, [] if p.features is None else p.features.tolist()) for p in ledger.pulls()]
        ledger.close()
        return found

    whole = select("runs/whole", 40)
    assert whole.communicate(timeout=240)[1] is not None and whole.returncode == 0
    (place / "book.txt").unlink()
    killed, deadline = select("runs/killed", 40), time.monotonic() + 120
    while not ((place / "book.txt").exists() and len((place / "book.txt").read_text().splitlines()) > 12):
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert 0 < len(pulls("runs/killed")) < 40
    again = select("runs/killed", 40)
    said = again.communicate(timeout=240)[1]
    assert again.returncode == 0, said.decode()
    assert pulls("runs/killed") == pulls("runs/whole") and len(pulls("runs/whole")) == 40


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("select arms.json --contexts words.csv", "contexts: no column holds numbers"),
        ("select arms.json --contexts hole.csv", "contexts: row 1, column 'light' is no finite number"),
        ("select arms.json --contexts nowhere.csv", "nowhere.csv"),
        ("select arms.json --contexts prompts.csv --objective mmd --reference real.csv", "each context has its own law"),
        ("select arms.json --contexts prompts.csv --objective loglik --reference real.csv", "loglik has no bound"),
        ("select arms.json --contexts prompts.csv --objective rke+2*rke", "rke is given twice"),
        ("select arms.json --contexts prompts.csv --objective vendi", "not quadratic"),
        ("select arms.json --contexts prompts.csv --reach 0", "reach: expected a number from 1e-19 to 1e+150, got 0"),
        ("select arms.json --contexts prompts.csv --stop 0.1", "contexts: have no stopping rule"),
        ("select arms.json --contexts prompts.csv --policy cab", "contexts: have no stopping rule"),
        ("select arms.json --reach 1", "reach: is for contexts"),
        ("select pool.json --contexts prompts.csv", "pool: takes no context"),
    ],
)
def test_what_is_wrong_is_one_sentence(do, place, line, says):
    before = sorted(place.rglob("*"))
    shown = do(f"{line} --out runs/new")
    assert shown.code == 2 and shown.out == "" and says in shown.err, shown.err
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1
    assert sorted(place.rglob("*")) == before


def test_a_folder_of_another_table_is_refused(do, place):
    line = "select arms.json --contexts {} --bandwidth 0.5 --pulls 12 --out runs/table"
    assert do(line.format("prompts.csv")).code == 0
    pd.DataFrame(PROMPTS).assign(light=[1.0, 0.5, 0.0, -1.0]).to_csv(place / "other.csv", index=False)
    assert "holds a selection with contexts" in do(line.format("other.csv")).err
    assert 'holds a selection with policy "in contexts"' in do("select arms.json --bandwidth 0.5 --pulls 12 --out runs/table").err
