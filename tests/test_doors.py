"""Damaged and hostile files and folders: each has one door, and what comes of it is one sentence that names it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load, save

import mixtura
from mixtura.arms import load_arms
from mixtura.arms.process import Command
from mixtura.blending.given import draw_given
from mixtura.cli.main import main
from mixtura.cli.work import at_work
from mixtura.contracts import InputError
from mixtura.data.tables import read
from mixtura.ledger import Ledger

ROOT = Path(__file__).parents[1]


def people(rows: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({"size": rng.normal(100, 3, rows).round(1), "kind": rng.choice(["a", "b"], rows)})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, one with targets, and a selection, all tiny."""
    place = tmp_path_factory.mktemp("doors")
    people().to_csv(place / "people.csv", index=False)
    np.save(place / "a.npy", np.random.default_rng(0).normal(size=(30, 2)))
    (place / "arms.yaml").write_text("arms: [{name: a, kind: pool, path: a.npy}]")
    before = Path.cwd()
    os.chdir(place)
    try:
        for words in (
            "run people.csv --steps 5 --families gaussian_mixture --out table",
            "run people.csv --steps 5 --families linear_gaussian --target size --out target",
            "select arms.yaml --pulls 12 --out selection",
        ):
            main(words.split())
    finally:
        os.chdir(before)
    return place


# ------------------------------------------------------------------------------------------------- run folders


def tree(change: Callable) -> Callable[[Path], None]:
    """An edit of a file of JSON, or of the last line of one."""

    def edit(path: Path) -> None:
        *lines, last = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        data = json.loads(last)
        change(data)
        path.write_text("\n".join([*lines, json.dumps(data)]))

    return edit


def tensors(change: Callable) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        data = load(path.read_bytes())
        change(data)
        path.write_bytes(save(data))

    return edit


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def gone(path: Path) -> None:
    path.unlink()


def set_to(value, *keys):
    def change(data):
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return change


EDITS = [
    ("table", "config.json", cut, "report"),
    ("table", "config.json", gone, "report"),
    ("table", "config.json", tree(set_to([], "asked")), "report"),
    ("table", "config.json", tree(set_to({}, "data")), "report"),
    ("table", "schema.json", tree(set_to("one", "fields", 0, "step")), "report"),
    ("table", "schema.json", tree(set_to("float77", "fields", 0, "dtype")), "report"),
    ("table", "schema.json", tree(set_to("float77", "fields", 0, "dtype")), "sample"),
    ("table", "schema.json", tree(lambda data: data["fields"][1]["labels"].append("c")), "impute"),
    ("table", "scores.jsonl", tree(set_to("../../elsewhere", "name")), "report"),
    ("table", "scores.jsonl", tree(set_to("many", "nats")), "report"),
    ("table", "scores.jsonl", tree(set_to([1], "metrics")), "report"),
    ("table", "scores.jsonl", gone, "report"),
    ("table", "verdict.json", tree(set_to({}, "verdicts")), "report"),
    ("table", "verdict.json", tree(set_to("nobody", "verdicts", "nats", "choice")), "sample"),
    ("table", "verdict.json", tree(set_to(float("nan"), "duplicates")), "report"),
    ("table", "verdict.json", tree(set_to("\ud800", "verdicts", "nats", "sentence")), "report"),
    ("table", "gallery.safetensors", cut, "report"),
    ("table", "gallery.safetensors", tensors(lambda t: t.pop("real")), "report"),
    ("table", "gallery.safetensors", tensors(lambda t: t.update(real=t["real"][:0])), "report"),
    ("table", "gallery.safetensors", tensors(lambda t: t.update(real=t["real"][:, :1].clone())), "report"),
    ("table", "quadratic.json", gone, "report"),
    ("table", "quadratic.json", tree(set_to([[1.0]], "Q")), "report"),
    ("table", "quadratic.json", tree(set_to("x", "c")), "report"),
    ("table", "splits.safetensors", gone, "report"),
    ("table", "splits.safetensors", tensors(lambda t: t.pop("fit")), "report"),
    ("table", "state.json", cut, "report"),
    ("table", "history.jsonl", gone, "report"),
    ("table", "history.jsonl", lambda path: path.write_text('{"model": "gaussian_mixture"}\n'), "report"),
    ("table", "models/gaussian_mixture/model.safetensors", tensors(lambda t: t["means"].mul_(2)), "sample"),
    ("target", "portraits.json", tree(set_to(7, 0, "target")), "report"),
    ("target", "portraits.json", tree(set_to(None, 0, "along")), "report"),
    ("target", "calibration.safetensors", tensors(dict.clear), "report"),
    ("target", "inputs.safetensors", tensors(dict.popitem), "predict"),
    ("selection", "selection.json", tree(set_to(None, "arms")), "report"),
    ("selection", "selection.json", tree(set_to("\ud800", "title")), "report"),
]  # fmt: skip


WORDS = {
    "report": "report edited", "sample": "sample edited -n 3", "impute": "impute edited people.csv",
    "predict": "predict edited people.csv --draws 19",
}  # fmt: skip


@pytest.mark.parametrize(("run", "file", "edit", "verb"), EDITS)
def test_an_edited_folder_is_one_sentence_that_names_the_file(run, file, edit, verb, place, do):
    shutil.rmtree(place / "edited", ignore_errors=True)
    shutil.copytree(place / run, place / "edited")
    edit(place / "edited" / file)
    did = do(WORDS[verb])
    [said] = did.err.splitlines()
    assert did.code == 2 and said.startswith("error: ") and Path(file).name in said and ";" in said


def test_what_is_not_finished_says_so(place, do):
    for run, last, says in (("selection", "selection.json", "mixtura select"), ("table", "verdict.json", "mixtura run")):
        shutil.rmtree(place / "halfway", ignore_errors=True)
        shutil.copytree(place / run, place / "halfway")
        (place / "halfway" / last).unlink()
        did = do("report halfway")
        assert did.code == 2 and "not finished" in did.err and says in did.err and did.err.count("\n") == 1


# ------------------------------------------------------------------------------------------------------ ledgers

DAMAGE = [
    "DROP TABLE about", "ALTER TABLE pulls DROP COLUMN features", "ALTER TABLE pulls DROP COLUMN cost",
    "UPDATE about SET value = 'x'",
    "UPDATE pulls SET features = 'x'", "UPDATE pulls SET features = x'ff'", "UPDATE pulls SET place = 0.5 WHERE number = 3",
    "UPDATE pulls SET status = 'lost'", "UPDATE pulls SET cost = 'dear'", "UPDATE pulls SET place = x'00'",
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_ledger_is_one_sentence(damage, place, do):
    shutil.rmtree(place / "edited", ignore_errors=True)
    shutil.copytree(place / "selection", place / "edited")
    with sqlite3.connect(place / "edited/ledger.sqlite") as db:
        try:
            db.execute(damage)
        except sqlite3.IntegrityError:  # a number that is none, which SQLite itself keeps out
            return
    did = do("select arms.yaml --pulls 12 --out edited")
    assert did.code in (0, 2) and did.err.count("\n") <= 1
    if did.code:
        assert "error: edited" in did.err and ";" in did.err
    else:  # a ledger without its table of questions is asked anew
        assert damage == "DROP TABLE about"


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:4096] + b"\xff" * (len(b) - 4096), lambda b: b.replace(b"CREATE TABLE about", b"CREATE \xffABLE about")],
)
def test_bytes_in_the_middle_of_a_ledger(damage, place, do):
    shutil.rmtree(place / "edited", ignore_errors=True)
    shutil.copytree(place / "selection", place / "edited")
    path = place / "edited/ledger.sqlite"
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    did = do("select arms.yaml --pulls 12 --out edited")
    assert did.code == 2 and did.err.count("\n") == 1 and "ledger.sqlite" in did.err and "--out" in did.err


def test_a_locked_ledger(tmp_path, monkeypatch):
    monkeypatch.setattr("mixtura.ledger.PATIENCE", 0.05)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    other = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(InputError, match="locked.*another program has it open; .*goes on from here"):
        ledger.agree({"arms": ["a"]})


# ------------------------------------------------------------------------------------------------- lists of arms

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)
)
YAMLS = {
    "2020-13-45": "month", "!!timestamp x": "read", "!!int _": "read", "!!float x": "read", "!!binary é": "read",
    "!!python/object:os.system [ls]": "constructor", "[*a]": "alias", "&a [*a]": "100,000 values", "9" * 5000: "read",
    "[" * 5000: "read", "{[1]: 2}": "list of arms", "{? {a: 1} : 2}": "read", "2020-01-01": "list of arms", "a\n" * 2**20: "MiB",
    "[{name: a, kind: pool, path: a.npy, seed: 2020-01-01}]": "seed", "[{name: a, name: b, kind: pool}]": "given twice",
     f"[{{name: a, kind: pool, seed: {'9' * 4000}}}]": "path",
}  # fmt: skip


@pytest.mark.parametrize("text", [*YAMLS, BOMB], ids=range(len(YAMLS) + 1))
def test_a_hostile_list_of_arms(text, tmp_path):
    path = tmp_path / "arms.yaml"
    path.write_text(f"{text}arms: [*h]" if text == BOMB else f"arms: {text}")
    with pytest.raises(InputError, match="100,000 values" if text == BOMB else YAMLS[text]) as said:
        load_arms(path)
    assert len(str(said.value)) < 600


@pytest.mark.parametrize("number", [11, 9, 40])
def test_an_arm_ended_by_any_signal(number):
    arm = Command("a", [sys.executable, "-c", f"import os; os.kill(os.getpid(), {number})"])
    with pytest.raises(Exception, match="ended by signal (SIGSEGV|SIGKILL|40) without an answer"):
        arm.ask(0, "k")


def test_an_arm_that_stops_itself_is_out_of_time():
    arm = Command("a", [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"], timeout=0.5)
    with pytest.raises(Exception, match="no answer within 0.5 s"):
        arm.ask(0, "k")


# ----------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
def test_half_a_letter_in_json(name, tmp_path):
    rows = ['{"a": 1}'] * 30 + ['{"a": "\\ud800"}']
    (tmp_path / name).write_text("[" + ",".join(rows) + "]" if name == "t.json" else "\n".join(rows))
    with pytest.raises(InputError, match=rf"^{name}.*: half a letter, '\\ud800', stands in .*repair the cell"):
        read(tmp_path / name)


def test_parquet_of_what_python_has_not(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    offsets = pa.py_buffer(np.arange(0, 82, 2, dtype=np.int32))
    text = pa.Array.from_buffers(pa.string(), 40, [None, offsets, pa.py_buffer(b"\xff" * 80)])
    for column in (pa.array(range(3_000_000, 3_000_040), pa.date32()), text):
        pq.write_table(pa.table({"a": column}), tmp_path / "t.parquet")
        with pytest.raises(InputError, match="cannot be read as Parquet"):
            read(tmp_path / "t.parquet")
    for zone in (None, "UTC"):
        late = pa.array([0, None, 2**60, *range(37)], pa.timestamp("ms", zone))
        pq.write_table(pa.table({"a": late}), tmp_path / "t.parquet")
        with pytest.raises(InputError, match="column 'a', row 2 is a date in the year 36536598, expected the years 1 to 9999"):
            read(tmp_path / "t.parquet")


@pytest.mark.parametrize("cell", [[1], {"a": 1}, 10**400])
def test_cells_that_no_column_has(cell, place, do):
    rows = json.loads(str(people().to_json(orient="records")))
    rows[3]["size" if cell == 10**400 else "kind"] = cell
    (place / "odd.json").write_text(json.dumps(rows))
    did = do("score table odd.json")
    assert did.code == 2 and "row 3" in did.err and did.err.count("\n") == 1


def test_an_error_has_an_end(place, do):
    people().assign(size="x" * 5000).to_csv(place / "long.csv", index=False)
    did = do("score table long.csv")
    assert did.code == 2 and len(did.err) < 1500 and "repair the cell" in did.err


# ------------------------------------------------------------------------------------------- terminals and time


def test_a_terminal_that_lacks_letters(place):
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "80"}
    people().rename(columns={"size": "größe"}).to_csv(place / "ä.csv", index=False)
    words = [sys.executable, "-m", "mixtura", "run", "ä.csv", "--dry-run", "--families", "marginals"]
    for more in ([], ["--json"]):
        did = subprocess.run([*words, *more], capture_output=True, env=environment, cwd=place, check=False)
        assert did.returncode == 0, did.stderr
        assert json.loads(did.stdout)["name"] == "ä.csv" if more else b"gr??e" in did.stdout


def test_work_says_that_it_lasts(monkeypatch, capsys):
    monkeypatch.setattr("mixtura.cli.work.SOON", 0.02)
    with at_work("mixing") as watch:
        watch(0.25)
        while not (said := capsys.readouterr().err):
            time.sleep(0.01)
    assert said.startswith("mixing: 25%, ")
    monkeypatch.setattr("mixtura.cli.work.SOON", 60.0)
    with at_work("mixing"):
        pass
    assert capsys.readouterr().err == ""


def test_the_share_that_is_done_grows_to_one(place, monkeypatch):
    monkeypatch.setattr("mixtura.blending.fill.TILE_ENTRIES", 2**15)
    table, target = (mixtura.load(place / name).best for name in ("table", "target"))
    rows = people().iloc[[*range(len(people()))] * 60].reset_index(drop=True)
    holes = rows.assign(size=rows["size"].where(rows.index % 2 == 0))
    for work in (partial(table.sample, 2_500), partial(table.score, rows), partial(table.impute, holes, draws=20),
                 partial(target.predict, rows)):  # fmt: skip
        shares: list[float] = []
        work(watch=shares.append)
        assert len(shares) > 1 and shares == sorted(shares) and shares[-1] == 1, work


def test_a_large_file_says_at_once_what_reading_takes(place, do, monkeypatch):
    monkeypatch.setattr("mixtura.data.tables.LARGE", 100)
    monkeypatch.setattr("mixtura.data.tables.PASSES", 1e12)  # far over the budget on any machine
    did = do("run people.csv --budget 2s --families marginals --out large")
    assert did.err.startswith("reading people.csv alone takes about") and "--budget" in did.err.splitlines()[0]


def test_rows_whose_targets_are_nearly_always_missing_are_not_waited_for():
    """Draws of a model that nearly always says "missing": the law of those that are there, in few draws."""
    from mixtura.contracts import Column, Model, Space

    class Mostly(Model):
        asked = 0

        def _sample(self, n, context, rng):
            self.asked += n
            x = torch.randn(n, 1, generator=rng, dtype=torch.float64)
            return torch.where(torch.rand(n, 1, generator=rng) < 0.98, torch.nan, x)

        def stages(self):
            return ()

    model = Mostly(Space.table([Column("continuous", missing=True)]), (1,))
    drawn = draw_given(model, torch.zeros(2, 1), 999, rng=torch.Generator().manual_seed(0))
    assert not drawn.isnan().any() and abs(float(drawn.mean())) < 0.2 and abs(float(drawn.std()) - 1) < 0.2
    assert model.asked <= 5 * 2 * 999


# ------------------------------------------------------------------------------------------------------- fuzzing


def test_200_fuzzed_inputs():
    """No traceback, no hang, no flood of memory: benchmarks/fuzz.py has 20,000."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(ROOT / "benchmarks/fuzz.py"), "--inputs", "200", "--seed", "0"]
    did = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert did.returncode == 0, did.stdout + did.stderr
