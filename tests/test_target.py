"""Runs with targets, p(y | x): what the verdict says against known laws, what a person gets out, and what is refused."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import mixtura
from mixtura import report
from mixtura.contracts import ClosedForm, Density, InputError, Space
from mixtura.data import source
from mixtura.data.inputs import split_target
from mixtura.folder.io import read_json, read_tensors
from mixtura.ground.rng import normal
from mixtura.job.options import Options, choose_families
from mixtura.job.replay import replay
from mixtura.job.start import Progress, conduct, preview
from mixtura.metrics import OF_ANSWERS

DOCS = Path(__file__).parents[1] / "docs"
QUICK = ["linear_gaussian"]
ROOT_2PI = math.sqrt(2 * math.pi)


def wave(n, seed=0):
    """y = 100 + 3 sin(x) + σ(x) ε with σ = 0.3 + 0.3 |x|, in data units far from standard; and an input of no use."""
    draw = np.random.default_rng(seed)
    x = draw.uniform(-3, 3, n)
    y = 100 + 3 * np.sin(x) + deviation(x) * draw.normal(size=n)
    return pd.DataFrame({"x": x, "idle": draw.choice(["a", "b"], n), "y": y})


def deviation(x):
    return 0.3 + 0.3 * np.abs(x)


def truth(frame):
    """(n,) log p(y | x) of :func:`wave`."""
    x, y = frame["x"].to_numpy(), frame["y"].to_numpy()
    return -0.5 * ((y - 100 - 3 * np.sin(x)) / deviation(x)) ** 2 - np.log(deviation(x) * ROOT_2PI)


def mixed(n, seed=0):
    """Targets of two kinds, one with gaps, and inputs with gaps and groups: size hangs on weight and on kind."""
    draw = np.random.default_rng(seed)
    weight = draw.normal(50, 5, n).round(1)
    kind = np.where(draw.random(n) < 1 / (1 + np.exp(50 - weight)), "heavy", "light")
    size = np.round(weight * 2 + 5 * (kind == "heavy") + draw.normal(size=n)).astype(float)
    size[::13] = np.nan
    weight[5::17] = np.nan
    return pd.DataFrame({"weight": weight, "size": size, "kind": kind, "farm": draw.integers(0, 30, n)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("target")


@pytest.fixture
def place(folder):
    return folder


@pytest.fixture(scope="module")
def waves(folder):
    """A run on a file, so that it can be replayed."""
    wave(1_600).to_csv(folder / "waves.csv", index=False)
    families = ["autoregressive", "flow", "linear_gaussian"]
    return mixtura.run(str(folder / "waves.csv"), target="y", steps=400, families=families, out=folder / "waves")


@pytest.fixture(scope="module")
def two(folder):
    """Two targets, cross-fitted, whole groups apart."""
    return mixtura.run(mixed(400), target=["kind", "size"], steps=60, families=["autoregressive"], out=folder / "two")


# --------------------------------------------------------------------------------------------- against known laws


def test_the_nats_are_those_of_the_law(waves):
    report_rows = read_tensors(waves.folder / "splits.safetensors")["report"].numpy()
    law = truth(wave(1_600).iloc[report_rows])
    nats = {name: v.numpy() for name, v in read_tensors(waves.folder / "nats.safetensors").items() if name.endswith(".report")}
    short = law - nats[f"{waves.verdict.choice}.report"]
    error = short.std() / math.sqrt(len(short))
    assert -3 * error < short.mean() < 0.12 + 3 * error  # 400 steps on 960 rows leave a tenth of a nat
    worth = waves.conditioning.worth
    assert worth == pytest.approx((nats[f"{waves.verdict.choice}.report"] - nats["marginals.report"]).mean())
    assert worth > 0.4 and worth > 10 * waves.conditioning.worth_error
    assert law.mean() - nats["linear_gaussian.report"].mean() > 0.3  # no line is a wave


def test_the_sentence_says_what_was_measured(waves):
    v, beside = waves.verdict, waves.conditioning
    assert waves.objective == "nats" and v.rows == 320 and beside.target == ["y"] and beside.given == ["x", "idle"]
    assert re.search(rf"use {v.choice}.* nats on 320|no blend beat it", v.sentence)
    said = re.search(r"(-?[\d.]+) ± ([\d.]+) nats of y given x and idle, ([\d.]+) ± [\d.]+ more than marginals", v.sentence)
    assert said is not None and float(said[1]) == pytest.approx(v.value, abs=0.01)
    assert float(said[3]) == pytest.approx(beside.worth, abs=0.01)


def test_the_choice_is_calibrated_and_marginals_are_wide(waves):
    found = {s.name: s.metrics for s in waves.scores}
    chosen = waves.conditioning.calibration
    assert chosen == found[waves.verdict.choice]
    for name, level in (("coverage_50", 0.5), ("coverage_90", 0.9)):
        assert abs(chosen[name]["value"] - level) < 4 * chosen[name]["error"] + 0.02
    # CRPS of N(μ, σ²) is σ/√π on average; E σ = 0.75
    assert chosen["crps"]["value"] == pytest.approx(0.75 / math.sqrt(math.pi), rel=0.15) and chosen["crps"]["n"] == 300
    assert found["marginals"]["crps"]["value"] > 1.5 * chosen["crps"]["value"]
    assert found["marginals"]["width_90"]["value"] > 1.5 * chosen["width_90"]["value"]
    board = waves.leaderboard.set_index("name")
    assert board.loc["marginals", "crps"] == found["marginals"]["crps"]["value"]


def test_predictions_are_of_the_law(waves):
    new = wave(400, seed=9)
    made = waves.best.predict(new[["idle", "x"]], levels=(0.05, 0.5, 0.95))
    assert list(made) == ["idle", "x", "y_mean", "y_0.05", "y_0.5", "y_0.95"] and made[["idle", "x"]].equals(new[["idle", "x"]])
    centre = 100 + 3 * np.sin(new["x"])
    assert np.abs(made["y_mean"] - centre).mean() < 0.35 and np.abs(made["y_0.5"] - centre).mean() < 0.35
    inside = new["y"].between(made["y_0.05"], made["y_0.95"]).mean()
    assert abs(inside - 0.9) < 0.06
    width = (made["y_0.95"] - made["y_0.05"]) / (2 * 1.645 * deviation(new["x"]))
    assert 0.75 < width.mean() < 1.3
    assert np.corrcoef(made["y_0.95"] - made["y_0.05"], np.abs(new["x"]))[0, 1] > 0.6  # wide where the law is


def test_both_branches_are_kept(tmp_path):
    """y = ±(1 + x) + small noise: one mode would be wrong everywhere."""
    draw = np.random.default_rng(0)
    x = draw.uniform(0, 2, 1_500)
    frame = pd.DataFrame({"x": x, "y": draw.choice([-1, 1], 1_500) * (1 + x) + 0.1 * draw.normal(size=1_500)})
    study = mixtura.run(frame, target="y", steps=500, families=["mixture_density"], out=tmp_path / "run")
    best = -math.log(2 * 0.1 * ROOT_2PI) - 0.5
    assert best - 0.35 < study.model("mixture_density").score(wide(frame))["nats"].mean() < best + 0.1
    drawn = study.model("mixture_density").sample(400, seed=1, given=pd.DataFrame({"x": [0.5, 1.5]}))
    for x, y in drawn.groupby("x")["y"]:
        assert 0.35 < (y > 0).mean() < 0.65 and abs(np.abs(y).mean() - 1 - x) < 0.15
        assert (np.abs(y) > 0.5).mean() > 0.95  # nothing between the branches


def wide(frame):
    return frame.assign(unused=1)  # columns the run has not learnt are passed over


class Expert(ClosedForm, Density):
    """N(centre, ½²) whatever the context."""

    def __init__(self, space: Space, context_shape: tuple[int, ...], centre: float) -> None:
        super().__init__(space, context_shape)
        self.register_buffer("centre", torch.tensor(centre, dtype=torch.float64))

    def fit_closed(self, x, context, rng):
        """Nothing to learn."""

    def _log_prob(self, x, context):
        return (-2 * (x - self.centre) ** 2 - math.log(0.5 * ROOT_2PI)).sum(1)

    def _sample(self, n, context, rng):
        return self.centre + 0.5 * normal((n, 1), rng, self.centre)


def test_weights_follow_the_inputs_where_each_expert_has_its_half(folder):
    draw = np.random.default_rng(0)
    x = draw.uniform(-1, 1, 1_200)
    frame = pd.DataFrame({"x": x, "y": np.where(x > 0, 2, -2) + 0.5 * draw.normal(size=1_200)})
    own = {"up": lambda s, c: Expert(s, c, 2.0), "down": lambda s, c: Expert(s, c, -2.0)}
    study = mixtura.run(frame, target="y", steps=5, families=["marginals"], models=own, out=folder / "gate")
    v, beside = study.verdict, study.conditioning
    assert v.choice == "blend" and beside.gate is not None and "weights that depend on the inputs gain" in v.sentence
    assert beside.gate_gain > 0.4 and beside.gate_gain > 10 * beside.gate_error  # at most log 2
    assert v.value == pytest.approx(-math.log(0.5 * ROOT_2PI) - 0.5, abs=0.1)
    assert v.weights["up"] == pytest.approx(0.5, abs=0.1) and sum(v.weights.values()) == pytest.approx(1)
    fresh = pd.DataFrame({"x": [-0.8, 0.8]})
    assert (study.best.sample(300, given=fresh).groupby("x")["y"].mean().to_numpy() * [-1, 1] > 1.8).all()
    report_rows = read_tensors(study.folder / "splits.safetensors")["report"].numpy()
    assert study.best.score(frame.iloc[report_rows])["nats"].mean() == pytest.approx(v.value)
    again = mixtura.load(study.folder, models=own)
    assert again.best.score(frame).equals(study.best.score(frame)) and again.conditioning.gate == beside.gate
    assert [s.status for s in study.scores] == ["fitted"] * 3
    deaf = {"deaf": lambda s, c: Expert(s, None, 2.0)}
    scores = mixtura.run(frame[:100], target="y", steps=5, models=deaf, families=["marginals"]).scores
    assert scores[1].status == "skipped" and "expected a model built with context shape (1,)" in scores[1].reason


# ------------------------------------------------------------------------------------------- what one gets out of it


def test_a_loaded_folder_is_the_study(waves):
    again, new = mixtura.load(waves.folder), wave(30, seed=3)
    assert again.verdicts == waves.verdicts and again.given.names == ["x", "idle"]
    assert again.conditioning == waves.conditioning
    for name in ("autoregressive", "marginals", "blend"):
        one, other = waves.model(name), again.model(name)
        assert one.score(new).equals(other.score(new)) and one.predict(new, seed=2).equals(other.predict(new, seed=2))
        assert one.sample(3, seed=1, given=new).equals(other.sample(3, seed=1, given=new))


def test_samples_stand_beside_their_inputs(waves):
    asked = wave(5, seed=4).drop(columns="y").set_axis([7, 7, 0, 1, 2])  # whatever the index
    made = waves.best.sample(3, given=asked)
    assert list(made) == ["x", "idle", "y"] and len(made) == 15
    assert (made["x"].to_numpy() == asked["x"].repeat(3).to_numpy()).all() and made["y"].nunique() == 15
    assert not made["y"].equals(waves.best.sample(3, seed=1, given=asked)["y"])
    predicted = waves.best.predict(asked)
    assert list(predicted.index) == [7, 7, 0, 1, 2]


def test_two_targets_with_gaps(two):
    frame = mixed(400)
    assert two.verdict.rows == 80 and {s.name for s in two.scores} == {"marginals", "autoregressive"}
    metrics = next(s.metrics for s in two.scores if s.name == "autoregressive")
    assert set(metrics) == set(OF_ANSWERS)  # one of the two is a number, so no names are needed
    assert {key.partition("/")[2] for key in read_tensors(two.folder / "calibration.safetensors") if "/" in key} == {"size"}
    assert metrics["crps"]["n"] == int(frame["size"].iloc[report_rows_of(two)].notna().sum())
    drawn = two.best.sample(50, given=frame[:8])
    assert drawn["kind"].isin(["heavy", "light"]).all() and (drawn["size"].dropna() % 1 == 0).all() and drawn["size"].isna().any()
    predicted = two.best.predict(frame[:100])
    own, made = list(frame), ["size_mean", "size_0.05", "size_0.5", "size_0.95", "kind_mode", "kind_probability"]
    assert list(predicted) == own + made and predicted[own].equals(frame[:100])
    assert predicted[made].notna().all().all() and predicted["kind_probability"].between(0.5, 1).all()
    known = frame[:100]["weight"].notna()
    assert ((predicted["kind_mode"] == "heavy") == (frame[:100]["weight"] > 50))[known].mean() > 0.8


def report_rows_of(study):
    return read_tensors(study.folder / "splits.safetensors")["report"].numpy()


def test_a_target_may_lie_beyond_what_was_seen_and_is_whole_where_those_were(tmp_path):
    draw = np.random.default_rng(0)
    x = draw.normal(size=300).round(2)
    frame = pd.DataFrame({"x": x, "y": (100 + 10 * x + draw.normal(size=300)).round().astype(int)})
    study = mixtura.run(frame, target="y", steps=60, families=["linear_gaussian", "mixture_density"], out=tmp_path / "run")
    rows = read_tensors(study.folder / "splits.safetensors")["report"].numpy()
    kept = read_tensors(study.folder / "nats.safetensors")
    for study in (study, mixtura.load(tmp_path / "run")):  # noqa: B020
        for name in ("linear_gaussian", "marginals"):
            again = study.models[name].score(frame.iloc[rows])["nats"].to_numpy()
            assert again == pytest.approx(kept[f"{name}.report"].numpy(), abs=1e-6)
        new = pd.DataFrame({"x": [4.5, 0.0], "y": [145, 100]})
        assert new["y"][0] > frame["y"].max() + 5
        assert np.isfinite(study.models["linear_gaussian"].score(new)["nats"]).all()
        told = study.models["linear_gaussian"].predict(new)
        assert told["y_mean"][1] == pytest.approx(100, abs=1) and told["y_0.95"][0] > frame["y"].max()
        draws = study.models["linear_gaussian"].sample(200, given=new[["x"]], seed=0)["y"]
        assert draws.dtype.kind == "i" and draws.max() > frame["y"].max() and draws.min() > 0


def test_imputing_fills_targets(two):
    frame = mixed(60, seed=2)
    frame.loc[0, ["size", "kind"]] = None  # both unknown; elsewhere one of them
    filled = two.best.impute(frame, seed=1)
    gaps = frame["size"].isna()
    assert filled[["size", "kind"]].notna().all().all() and filled["weight"].isna().equals(frame["weight"].isna())
    assert filled[~gaps]["size"].equals(frame[~gaps]["size"]) and filled["kind"][1:].equals(frame["kind"][1:])
    several = two.best.impute(frame[:1], draws=200, seed=1)
    assert list(several)[0] == "draw" and several["size"].nunique() > 3 and several["size"].notna().all()


def test_targets_of_levels_alone(tmp_path):
    frame = mixed(300)[["weight", "kind"]]
    study = mixtura.run(frame, target="kind", steps=5, families=QUICK, out=tmp_path / "run")
    weight = frame["weight"].to_numpy()
    p = 1 / (1 + np.exp(-(weight - 50)))
    entropy = np.nanmean(p * np.log(p) + (1 - p) * np.log1p(-p))
    nats = next(s for s in study.scores if s.name == "linear_gaussian")
    assert nats.nats == pytest.approx(entropy, abs=0.12) and nats.metrics == {}  # nothing is a number
    page = report.collect(study.folder)
    assert page["given"]["calibrated"] == [] and page["given"]["portraits"][0]["y"]["cells"] == 2
    assert "Do they mean" in report.render(page)


# ---------------------------------------------------------------------------------- splits, plans, resuming, replay


def test_columns_that_split_are_no_inputs():
    parts = ["fit"] * 120 + ["select"] * 40 + ["report"] * 40
    frame = mixed(200).assign(day=pd.date_range("2024-01-01", periods=200), part=parts)
    for option in ({"group": "farm"}, {"time": "day"}, {"split": "part"}):
        planned = preview(frame, Options(target="size", steps=1, **option))
        assert set(planned.given) == {"weight", "kind", "farm", "day", "part"} - set(option.values())
        assert planned.target == ["size"] and next(iter(option.values())) in planned.splits["rule"]
    assert planned.splits["report"] == 40
    assert "kde" not in planned.families and "linear_gaussian" in planned.families
    assert "linear_gaussian" not in preview(frame, Options(steps=1)).families
    assert preview(frame, Options(target="size", columns=["size", "weight"], steps=1)).given == ["weight"]


def test_duplicates_are_of_inputs_and_targets_together():
    frame = pd.DataFrame({"x": np.repeat(np.arange(40.0) + 0.5, 5), "y": np.tile([0.1, 0.1, 0.2, 0.3, 0.4], 40)})
    twins = preview(frame, Options(target="y", steps=1)).splits["duplicates"]
    assert 0 < twins < 40  # every y, and every x, stands in the fit rows; only one pair in five twice


def bits(out):
    names = ("nats", "inputs", "calibration", "gallery", "splits")
    paths = [*out.glob("models/*/*"), *(out / f"{name}.safetensors" for name in names)]
    paths += [out / name for name in ("verdict.json", "portraits.json", "samples.csv")]
    return {str(p.relative_to(out)): p.read_bytes() for p in paths}


RESUMED = {"target": "y", "steps": 25, "families": ["autoregressive", "flow"]}


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path):
    """Stopped when the second model begins, and again when the third does."""
    frame = wave(1_100)
    calm = mixtura.run(frame, **RESUMED, out=tmp_path / "calm")
    for _ in range(2):
        seen = set()
        records = conduct(frame, Options(**RESUMED, out=tmp_path / "stopped"))
        for record in records:
            seen |= {record.name} if isinstance(record, Progress) else set()
            if len(seen) == 2:  # of the models not yet fitted, the second
                break
        records.close()
        assert not (tmp_path / "stopped" / "verdict.json").exists()
    mixtura.run(frame, **RESUMED, out=tmp_path / "stopped")
    assert bits(tmp_path / "stopped") == bits(calm.folder)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, folder, waves):
    asked = "target='y', steps=400, families=['autoregressive', 'flow']"
    words = f"import sys, mixtura; mixtura.run(sys.argv[1], {asked}, out=sys.argv[2])"
    start = lambda out: subprocess.Popen(  # noqa: E731
        [sys.executable, "-c", words, str(folder / "waves.csv"), str(out)], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    began = time.monotonic()
    assert start(tmp_path / "calm").wait() == 0
    whole = time.monotonic() - began
    for share in (0.5, 0.7, 0.85):
        process = start(tmp_path / "killed")
        time.sleep(share * whole)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(tmp_path / "killed").wait() == 0
    assert bits(tmp_path / "killed") == bits(tmp_path / "calm")


def test_a_timed_run_is_replayed(tmp_path, folder, waves):
    mixtura.run(str(folder / "waves.csv"), target="y", budget="2s", families=["autoregressive"], out=tmp_path / "timed")
    study, different = replay(tmp_path / "timed", tmp_path / "again", str(folder / "waves.csv"))
    assert different == [] and study.given is not None
    kept = read_json(tmp_path / "timed" / "state.json")["units"]
    draws = {name: kept[f"{name}/all"]["draws"] for name in ("autoregressive", "marginals")}
    assert all((n + 1) % 20 == 0 and 19 <= n <= 99 for n in draws.values())
    assert study.conditioning == mixtura.load(tmp_path / "timed").conditioning


def test_a_run_without_targets_is_as_it_was(tmp_path):
    out = mixtura.run(mixed(100), steps=5, families=["marginals"], out=tmp_path / "run").folder
    assert "target" not in read_json(out / "config.json")["asked"] and set(read_json(out / "schema.json")) == {"fields"}
    assert set(read_json(out / "verdict.json")) == {"objective", "why", "duplicates", "verdicts"}
    assert not any((out / f"{name}.safetensors").exists() for name in ("inputs", "calibration"))


# -------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target": "z"}, r"--target: no column 'z' in the data; there are weight, size, kind, farm"),
        ({"target": ["weight", "size", "kind", "farm"]}, r"no column is left to be the input \(one: always 1\)"),
        ({"target": ["weight", "size"], "columns": ["weight", "size"]}, "every one is a target"),
        ({"target": ["size", "size"]}, "each once"),
        ({"target": []}, "one column or more"),
        ({"target": "farm", "group": "farm"}, "'farm' is the column of --group too"),
        ({"target": "farm", "time": "farm"}, "--time too"),
        ({"target": "farm", "split": "farm"}, "--split too"),
        ({"target": "size", "columns": ["weight", "kind"]}, "--columns: leaves out 'size'"),
        ({"target": "size", "columns": ["size"]}, "no column is left"),
        ({"target": "one"}, "always 1, so there is nothing to learn"),
        ({"target": "size", "kinds": {"size": "dropped"}}, "left out as asked"),
        ({"target": "size", "objective": "mmd"}, "--objective mmd: compares samples"),
        ({"target": "size", "samples": {"gan": mixed(50)}}, "--samples: compares samples"),
        ({"target": "size", "features": "pca:4"}, "--features: compares samples"),
        ({"target": "size", "families": ["kde"]}, "kde cannot model columns given others"),
        ({"families": ["quantile"]}, "name them with --target"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(options, said):
    with pytest.raises(InputError, match=said):
        mixtura.run(mixed(60).assign(one=1), steps=1, **options)


def test_images_have_no_targets():
    with pytest.raises(InputError, match="--target: names a column, and images have none"):
        mixtura.run(np.zeros((30, 8, 8), np.uint8), target="y", steps=1)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda s: s.sample(3), "sample: this run is of y given x, idle; give rows of these inputs"),
        (lambda s: s.sample(3, start=2, given=wave(3)), "start: is for runs without targets"),
        (lambda s: s.sample(0, given=wave(3)), "n: expected a whole number"),
        (lambda s: s.sample(1, given=wave(3).drop(columns="x")), "given: no column 'x'"),
        (lambda s: s.sample(1, given=wave(3).assign(x=[1, None, 2])), "column 'x', row 1 is missing"),
        (lambda s: s.score(wave(3).drop(columns="y")), "no column 'y'"),
        (lambda s: s.predict(wave(3), levels=(0.0, 0.5)), "levels: expected probabilities"),
        (lambda s: s.predict(wave(3), levels=(0.01,), draws=50), "raise draws"),
        (lambda s: s.predict(wave(3), draws=0), "draws: expected a whole number"),
    ],
)
def test_what_a_study_cannot_answer(waves, ask, said):
    with pytest.raises(InputError, match=said):
        ask(waves.best)


def test_a_run_without_targets_answers_no_inputs(tmp_path):
    best = mixtura.run(mixed(100), steps=5, families=["marginals"], out=tmp_path / "run").best
    with pytest.raises(InputError, match="sample: rows were given, but this run has no targets"):
        best.sample(2, given=mixed(3))
    with pytest.raises(InputError, match="predict: this run has no targets"):
        best.predict(mixed(3))


@pytest.mark.parametrize(
    ("file", "content"),
    [("inputs.safetensors", None), ("inputs.safetensors", b"no"), ("schema.json", b'{"fields": [], "target": ["y"]}')],
)
def test_a_damaged_folder_is_one_sentence(waves, tmp_path, file, content):
    for path in waves.folder.rglob("*"):
        if path.is_file():
            copy = tmp_path / path.relative_to(waves.folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError):
        mixtura.load(tmp_path)


# ------------------------------------------------------------------------------------------------------ command line


def test_a_repeated_option_adds_names(do, folder, waves):
    did = do("run waves.csv --target y --target idle --dry-run --steps 400 --families linear_gaussian --families quantile")
    assert did.code == 0 and "y, idle given x" in did.out and "linear_gaussian" in did.out and "quantile" in did.out
    assert "autoregressive" not in did.out
    assert do("run waves.csv --target y --target y --dry-run").code == 2


def test_cells_that_stay_empty_are_counted(do, folder, two, monkeypatch):
    """As where nearly every draw of a model is missing: here it may draw once only."""
    mixed(400).assign(size=np.nan, kind=None).to_csv(folder / "holes.csv", index=False)
    assert "left" not in do("impute two holes.csv -o full.csv").out
    monkeypatch.setattr("mixtura.blending.given.REDRAWS_OF_ROWS", 0)
    shown = json.loads(do("impute two holes.csv --json").out)
    empty = sum(cell is None for row in shown["data"] for name, cell in row.items() if name in ("size", "kind"))
    assert shown["cells_left"] == empty > 0 and shown["cells_filled"] == 800 - empty
    assert f"{empty} left empty" in " ".join(do("impute two holes.csv -o part.csv").out.split())


def test_the_command_line_goes_all_the_way(do, folder, waves):
    did = do("run waves.csv --target y --dry-run --steps 400")
    assert did.code == 0 and "y given x, idle: 2 inputs" in did.out and did.err == ""
    line = "run waves.csv --target y --steps 400 --families autoregressive,flow,linear_gaussian --out waves"
    did = do(line)
    assert did.code == 0 and waves.verdict.sentence in did.out
    assert "CRPS" in did.out and "mixtura predict waves new.csv" in did.out
    assert max(len(row) for row in did.out.splitlines() if "±" in row and not row.startswith(("no gain", "gain"))) <= 80
    assert (folder / "waves" / "report.html").exists()
    shown = json.loads(do(f"{line} --json").out)
    assert shown["conditioning"]["target"] == ["y"] and [c["column"] for c in shown["columns"]] == ["x", "idle", "y"]
    wave(40, seed=5).drop(columns="y").to_csv(folder / "new.csv", index=False)
    assert do("sample waves --given new.csv -n 10 -o drawn.csv").out == "400 rows written to drawn.csv\n"
    assert list(pd.read_csv(folder / "drawn.csv")) == ["x", "idle", "y"]
    assert json.loads(do("sample waves --given new.csv --json").out)["rows"] == 40
    did = do("score waves waves.csv")
    assert did.code == 0 and "1,600 rows" in did.out
    predicted = json.loads(do("predict waves new.csv --interval 0.8 --json").out)
    told = re.search(r"## `mixtura predict.*?```json\n(.*?)```", (DOCS / "cli-json.md").read_text(encoding="utf-8"), re.DOTALL)
    assert told is not None and predicted.keys() == json.loads(told[1]).keys()
    assert list(predicted["data"][0]) == ["x", "idle", "y_mean", "y_0.1", "y_0.5", "y_0.9"]
    assert do("predict waves new.csv -o predicted.csv").out == "40 rows written to predicted.csv\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("run waves.csv --target z", "no column 'z'"),
        ("run waves.csv --target ,", "--target ',': no name was given"),
        ("run waves.csv --target y --samples gan=waves.csv", "--samples: compares samples"),
        ("run digits --target y", "images have none"),
        ("run --replay waves --target y", "--target was given"),
        ("sample waves -n 3", "give rows of these inputs (--given FILE)"),
        ("predict waves waves.csv --interval 1.5", "--interval 1.5: expected a share"),
        ("predict waves waves.csv --interval 0.9999", "levels: expected probabilities"),
        ("predict waves waves.csv --model kde", "no 'kde' in this run"),
    ],
)
def test_the_command_line_says_one_sentence(do, waves, line, said):
    did = do(line)
    assert (did.code, did.out) == (2, "")
    assert did.err.startswith("error: ") and did.err.count("\n") == 1 and said in did.err


# ------------------------------------------------------------------------------------------------- what is asked


def test_schemas_are_divided():
    data = source.load(mixed(60))
    ours, others = split_target(source.learn(data), ["kind", "size"])
    assert [f.name for f in ours.fields] == ["size", "kind"] and [f.name for f in others.fields] == ["weight", "farm"]


def test_options_ask_for_targets():
    assert Options(target="y").targets == Options(target=["y"]).targets == ("y",) and Options().targets == ()
    assert Options(target="y").asked()["target"] == ["y"] and "target" not in Options().asked()
    assert choose_families(None, {"a": "never", "b": "may", "c": "needs"}, given=True) == ["b", "c"]


def test_the_page_does_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    [block] = re.findall(r"^```python\n(.*?)^```$", (DOCS / "given.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    exec(compile(block, "docs/given.md", "exec", dont_inherit=True), {})
    shown = capsys.readouterr().out
    assert "nats of body_mass_g given its 7 inputs" in shown and "body_mass_g_0.95" in shown and "species" in shown
