"""The command line from the first --help to the files it leaves: what goes where, with which exit code."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mixtura
from mixtura.cli.main import main
from mixtura.contracts import InputError
from mixtura.data.tables import read
from mixtura.job.options import TABLE

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "cli-json.md"
RUN = "run people.csv --steps 30 --families marginals,autoregressive"


def people() -> pd.DataFrame:
    """60 rows; a column's name looks like markup, and one column has gaps."""
    rng = np.random.default_rng(0)
    size = rng.normal(100, 3, 60).round(1)
    size[::7] = np.nan
    return pd.DataFrame({"size": size, "[/b]": rng.choice(["red", "blue"], 60), "count": rng.poisson(20, 60)})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("place")
    people().to_csv(place / "people.csv", index=False)
    return place


@pytest.fixture
def ran(do: Callable[[str], SimpleNamespace]) -> SimpleNamespace:
    """The run that the others use, made once; as it was shown."""
    return do(RUN)


def documented(command: str) -> Any:
    """The example object of a command in docs/cli-json.md."""
    section = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    [text] = [part for part in section if part.startswith(f"`mixtura {command}")]
    return json.loads(re.findall(r"^```json\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[0])


def alike(shown: Any, told: Any) -> bool:
    """The same keys at every depth, but where the data or the models name them. A list is as its first entry."""
    if isinstance(told, dict) and isinstance(shown, dict):
        deeper = told.keys() - {"data", "weights", "metrics", "diagnosis"}
        return told.keys() == shown.keys() and all(alike(shown[k], told[k]) for k in deeper)
    if isinstance(told, list) and isinstance(shown, list):
        return not told or all(alike(entry, told[0]) for entry in shown)
    return not isinstance(told, dict | list) and not isinstance(shown, dict | list)


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)


# --------------------------------------------------------------------------------------------------- quickness

HEAVY = "{'torch', 'pandas', 'numpy', 'scipy', 'sklearn', 'zuko', 'rich'}"


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["select", "--help"]])
def test_help_loads_no_heavy_library(words):
    asked = f"import sys; from mixtura.cli.main import main; main({words}); print({HEAVY} & set(sys.modules))"
    shown = python("-c", asked)
    assert shown.returncode == 0 and "--help" in shown.stdout and shown.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("module", ["mixtura", "mixtura.cli.main"])
def test_importing_waits_for_no_heavy_library(module):
    assert python("-c", f"import {module}, sys; print({HEAVY} & set(sys.modules))").stdout.strip() == "set()"


# ------------------------------------------------------------------------------------------------- the main job


def test_a_dry_run_tells_the_plan_and_writes_nothing(do, place):
    before = set(place.rglob("*"))
    did = do(f"{RUN} --dry-run")
    assert (did.code, did.err) == (0, "")
    for said in ("people.csv: 60 rows, 3 columns", "[/b]", "numeric", "36 fit, 12 select", "30 steps a fit, about", "marginals"):
        assert said in did.out
    plan = json.loads(do(f"{RUN} --dry-run --json").out)
    assert plan["rows"] == 60 and plan["families"] == ["marginals", "autoregressive"] and plan["estimate"] > 0
    assert alike(plan, documented("run SOURCE --dry-run"))
    assert set(place.rglob("*")) == before


def test_a_run_shows_its_way_on_stderr_and_its_verdict_on_stdout(ran, place):
    assert ran.code == 0
    if ran.err:  # the first time; later it shows the finished verdict
        assert "people.csv: 60 rows" in ran.err and "autoregressive: training" in ran.err
    lines = ran.out.splitlines()
    [verdict] = [line for line in lines if re.match(r"(no )?gain", line)]
    kept = json.loads((place / "runs/people/verdict.json").read_text())
    assert verdict == kept["verdicts"][kept["objective"]]["sentence"]
    assert (place / "runs/people/report.html").exists()
    assert any(line.startswith("autoregressive") and "±" in line for line in lines)
    assert "not converged" in ran.out
    assert [line.split()[:3] for line in lines[-4:]] == [
        ["mixtura", verb, "runs/people"] for verb in "report sample score impute".split()
    ]
    assert max(len(line) for line in lines if "±" in line and line != verdict and not line.startswith("in MMD²")) <= 80


def test_the_same_command_again_shows_the_finished_verdict(ran, do, place):
    kept = (place / "runs/people/verdict.json").stat().st_mtime_ns
    again = do(f"{RUN} --json")
    shown = json.loads(again.out)
    assert again.code == 0 and alike(shown, documented("run SOURCE`"))
    assert shown["folder"] == "runs/people" and shown["verdict"]["rows"] == 12
    assert {s["name"] for s in shown["scores"]} == {"marginals", "autoregressive"}
    assert (place / "runs/people/verdict.json").stat().st_mtime_ns == kept


def test_other_options_on_its_folder_are_refused_until_fresh(ran, do, place):
    other = RUN.replace("30", "31")
    assert do(other).code == 2
    line = other.replace("autoregressive", "kde") + " --out runs/other"
    assert do(line).code == 0
    assert do(line + " --seed 1").code == 2
    assert do(line + " --seed 1 --fresh").code == 0
    assert json.loads((place / "runs/other/config.json").read_text())["asked"]["seed"] == 1


def test_a_replay_has_the_same_bits(ran, do, place):
    did = do("run people.csv --replay runs/people")
    assert (did.code, did.out) == (0, "same bits: yes\n")
    assert do("run people.csv --replay runs/people").code == 2  # the folder is there
    changed = place / "runs/people/samples.csv"
    kept = changed.read_bytes()
    changed.write_bytes(kept + b"\n")
    did = do("run people.csv --replay runs/people --fresh --json")
    changed.write_bytes(kept)
    shown = json.loads(did.out)
    assert did.code == 1 and shown["different"] == ["samples.csv"] and alike(shown, documented("run FILE --replay"))


WORDS = {"text": ["a"], "integer": ["3"], "switch": [], "path": ["a"], "names": ["a,b"], "pairs": ["a=b"], "bounds": ["a=0:1"]}


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.flag and row.replay == "recorded"])
def test_a_replay_refuses_what_the_run_folder_records(name, do):
    did = do(["run", "--replay", "runs/people", str(TABLE[name].flag), *WORDS[TABLE[name].written]])
    assert did.code == 2 and did.err.startswith(f"error: --replay: {TABLE[name].flag} was given")
    with pytest.raises(InputError, match=f"^--replay: {TABLE[name].flag} was given"):
        mixtura.replay("runs/people", "runs/again", **{name: None})


def test_a_replay_has_no_plan_to_show(do):
    assert "--dry-run was given" in do("run --replay runs/people --dry-run").err


def test_every_option_of_python_is_one_of_the_command_line(do):
    flags = [line.split()[0] for line in do("run --help").out.splitlines() if line.startswith("  --")]
    assert flags == [
        *(row.flag for row in list(TABLE.values())[:6]), "--dry-run", *(row.flag for row in list(TABLE.values())[6:] if row.flag),
        "--replay", "--json",
    ]  # fmt: skip
    assert [name for name, row in TABLE.items() if not row.flag] == ["models", "executor", "stops"]
    with pytest.raises(InputError, match="^famlies: a run has no such option; use families"):
        mixtura.run("penguins", famlies=["kde"])


def test_samples_of_an_outside_generator_join_the_table(do, place):
    people()[:30].to_csv(place / "gan.csv", index=False)
    did = do("run people.csv --steps 5 --families marginals --samples our.gan=gan.csv --out runs/gan --json")
    [row] = [s for s in json.loads(did.out)["scores"] if s["name"] == "our.gan"]
    assert row["status"] == "samples only" and row["nats"] is None and 0 <= row["memorisation"] <= 1
    assert do("sample runs/gan -n 1 --model our.gan").code == 0
    assert "cannot be a file name" in do("run people.csv --steps 5 --samples our/gan=gan.csv --out runs/slash").err


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_so_and_goes_on(place, sent):
    line = f"-m mixtura run {place}/people.csv --steps 3000 --families flow --out {place}/runs/stopped --fresh"
    log = place / "stopped.log"
    with log.open("w") as err:
        # a test runner in the background has SIGINT ignored, and its children would inherit that
        heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        process = subprocess.Popen([sys.executable, *line.split()], stdout=subprocess.PIPE, stderr=err, preexec_fn=heard)
    while "flow: training" not in log.read_text() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(sent)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"")
    assert log.read_text().splitlines()[-1] == "stopped; the same command goes on from here"
    assert (place / "runs/stopped/config.json").exists() and not (place / "runs/stopped/verdict.json").exists()


def test_an_interrupt_within_an_exec_is_a_stop_too(tmp_path):
    (tmp_path / "held.py").write_text(
        "from mixtura.cli import main as cli\ncli.app = lambda **_: exec('raise KeyboardInterrupt')\ncli.main()\n"
    )
    ended = subprocess.run([sys.executable, "-m", "held"], cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (130, "stopped; the same command goes on from here\n")


# -------------------------------------------------------------------------------------------- using what was run


def test_sample(ran, do, place):
    first = do("sample runs/people -n 5 --model autoregressive --json")
    shown = json.loads(first.out)
    assert alike(shown, documented("sample")) and shown["rows"] == len(shown["data"]) == 5
    assert set(shown["data"][0]) == {"size", "[/b]", "count"}
    assert do("sample runs/people -n 5 --model autoregressive --json").out == first.out
    assert do("sample runs/people -n 5 --model autoregressive --seed 1 --json").out != first.out
    for ending in (".csv", ".jsonl", ".parquet"):
        did = do(f"sample runs/people -n 7 -o new{ending}")
        assert (did.code, did.out) == (0, f"7 rows written to new{ending}\n")
        assert len(read(place / f"new{ending}").frame) == 7
    whole = pd.read_csv(place / "new.csv")
    assert whole["[/b]"].isin(["red", "blue"]).all() and np.allclose(whole["size"].dropna(), whole["size"].dropna().round(1))


def test_score(ran, do, place):
    shown = json.loads(do("score runs/people people.csv --model marginals --json").out)
    assert alike(shown, documented("score")) and shown["kind"] == "exact"
    nats = [row["nats"] for row in shown["data"]]
    assert len(nats) == 60 and np.isclose(shown["mean_nats"], np.mean(nats))
    assert np.isclose(shown["error"], np.std(nats, ddof=1) / np.sqrt(60))
    did = do("score runs/people people.csv --model marginals -o scores.csv")
    assert np.allclose(pd.read_csv(place / "scores.csv")["nats"], nats) and f"{np.mean(nats):.3f} ±" in did.out
    few = do("score runs/people people.csv --model marginals").out
    assert f"{np.mean(nats):.3f} ±" in few and len(few.splitlines()) < 15


def test_rows_that_are_impossible_are_counted_and_left_out_of_the_mean(ran, do, place):
    beyond = people()
    beyond.loc[3, "size"] = -1.0  # no size is negative
    beyond.to_csv(place / "beyond.csv", index=False)
    did = do("score runs/people beyond.csv --model autoregressive -o scores.csv")
    nats = pd.read_csv(place / "scores.csv")["nats"]
    assert np.isneginf(nats[3]) and np.isfinite(nats.drop(3)).all()
    assert f"mean {nats.drop(3).mean():.3f} ±" in did.out
    assert "59 rows; 1 row impossible under autoregressive (-inf), the first is row 3" in " ".join(did.out.split())
    shown = json.loads(do("score runs/people beyond.csv --model autoregressive --json").out)
    assert shown["impossible"] == 1 and shown["mean_nats"] == pytest.approx(nats.drop(3).mean())
    beyond[3:4].to_csv(place / "beyond.csv", index=False)
    did = do("score runs/people beyond.csv --model autoregressive")
    assert did.code == 0 and "mean" not in did.out and "1 row impossible under autoregressive" in " ".join(did.out.split())
    shown = json.loads(do("score runs/people beyond.csv --model autoregressive --json").out)
    assert shown["impossible"] == 1 and shown["mean_nats"] is shown["error"] is None


def test_a_column_called_draw_is_in_the_way(ran, do, place):
    people().assign(draw=1).to_csv(place / "drawn.csv", index=False)
    did = do("impute runs/people drawn.csv --draws 2")
    assert did.code == 2 and "has a column 'draw'" in did.err


def test_impute(ran, do, place):
    holes = people()
    gaps = holes["size"].isna()
    shown = json.loads(do("impute runs/people people.csv --draws 3 --json").out)
    assert alike(shown, documented("impute")) and shown["cells_filled"] == gaps.sum() and shown["rows"] == 180
    did = do("impute runs/people people.csv -o filled.csv")
    assert did.code == 0 and f"{gaps.sum()} cells filled" in did.out
    filled = pd.read_csv(place / "filled.csv")
    assert filled["size"].notna().all() and filled[~gaps].equals(holes[~gaps])
    assert filled["size"].between(*holes["size"].agg(["min", "max"])).all()


def test_a_bug_keeps_its_traceback(monkeypatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("mixtura.job.start.preview", broken)
    with pytest.raises(ZeroDivisionError):
        main(["run", "penguins", "--dry-run"])
