"""A run on images, on a table with an outside generator, and what its study gives: the same rows in parts, two verdicts."""

from __future__ import annotations

import json
import time
from concurrent.futures import BrokenExecutor, Future
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from rounding import assert_same_rows

import mixtura
from mixtura import report
from mixtura.contracts import ClosedForm, Density, InputError
from mixtura.folder.io import read_json, read_tensors
from mixtura.folder.layout import RunFolder
from mixtura.job.options import Options
from mixtura.job.records import Done
from mixtura.job.start import conduct
from mixtura.job.workers import Processes

QUICK = ["marginals", "gaussian_mixture"]


def bars(n, seed=0, size=8):
    """uint8 images that are dark or bright as a whole, with a brighter bar somewhere."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 30, (n, size, size)) + rng.integers(0, 150, (n, 1, 1))
    x[np.arange(n), rng.integers(size, size=n)] += 70
    return x.astype(np.uint8)


def people(n, seed=0, centre=100.0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"size": rng.normal(centre, 3, n).round(1), "colour": rng.choice(["red", "blue"], n)})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "bars"
    return mixtura.run(bars(1_400), steps=20, families=QUICK, out=out)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "people"
    given = {"good": people(300, 5), "bad": people(300, 6, centre=130.0), "odd": pd.DataFrame({"other": [1.0]})}
    return mixtura.run(people(300), steps=20, families=QUICK, samples=given, out=out)


def test_images_go_in_and_come_out_in_their_own_levels(pictures):
    made = pictures.best.sample(20, seed=1)
    assert isinstance(made, np.ndarray) and made.shape == (20, 8, 8) and made.dtype == np.uint8
    scores = {s.name: s for s in pictures.scores}
    assert 0 < scores["gaussian_mixture"].bits < scores["marginals"].bits < 8  # pixels of a bar hang together
    assert pictures.objective == "mmd" and "images" in pictures.why and "unseen images" in pictures.verdict.sentence
    nats = pictures.density.score(bars(5, seed=3))["nats"]
    assert len(nats) == 5 and np.isfinite(nats).all()
    with pytest.raises(InputError, match="images have no missing cells"):
        pictures.density.impute(bars(5))


@pytest.mark.parametrize("which", ["pictures", "table"])
def test_at_once_or_in_parts_the_same_rows(which, request):
    study = request.getfixturevalue(which)
    fitted = [*study.models.values(), *study.blends.values()]
    for model in fitted:
        at_once = model.sample(70, seed=2)
        parts = [model.sample(n, seed=2, start=start) for start, n in ((0, 1), (1, 63), (64, 6))]
        assert_same_rows(at_once, pd.concat(parts) if which == "table" else np.concatenate(parts))
        with pytest.raises(AssertionError, match="rows differ"):
            assert_same_rows(at_once, model.sample(70, seed=3))


def test_a_loaded_folder_is_the_study(pictures, table):
    for study in (pictures, table):
        again = mixtura.load(study.folder)
        assert again.verdicts == study.verdicts and (again.objective, again.why) == (study.objective, study.why)
        assert (np.asarray(again.best.sample(9, seed=4)) == np.asarray(study.best.sample(9, seed=4))).all()


def test_an_outside_generator_takes_part_by_its_samples(table):
    scores = {s.name: s for s in table.scores}
    assert scores["good"].status == scores["bad"].status == "samples only" and scores["good"].nats is None
    assert scores["odd"].status == "failed" and "no column" in scores["odd"].reason
    assert abs(scores["good"].metrics["mmd2"]["value"]) < 0.05 < scores["bad"].metrics["mmd2"]["value"]
    assert table.objective == "mmd" and "can only be judged by samples" in table.why
    assert table.verdicts["mmd"].weights["bad"] < 0.05 and set(table.verdicts["nats"].weights) == set(QUICK)
    assert set(table.model("good").sample(50)["size"]) <= set(people(300, 5)["size"])


def test_the_folder_holds_what_the_report_shows(pictures):
    quadratic = read_json(pictures.folder / "quadratic.json")
    Q, b, w = (np.array(quadratic[k]) for k in ("Q", "b", "weights"))
    at = lambda w: w @ Q @ w - 2 * b @ w + quadratic["c"]  # noqa: E731
    v = pictures.verdicts["mmd"]
    chosen = w if v.choice == "blend" else np.array([name == v.best for name in quadratic["names"]], float)
    assert at(chosen) == pytest.approx(v.value, abs=1e-6)
    gallery = read_tensors(pictures.folder / "gallery.safetensors")
    assert set(gallery) == {"real", *(f"{part}.{name}" for name in QUICK for part in ("samples", "nearest"))}
    assert gallery["real"].shape[1:] == (1, 8, 8)
    written = json.loads((pictures.folder / "verdict.json").read_text())
    assert written["objective"] == "mmd" and set(written["verdicts"]) == {"nats", "mmd"}


def test_an_objective_asked_for_is_spoken_of(tmp_path):
    study = mixtura.run(people(200), steps=5, families=["marginals"], objective="mmd", out=tmp_path / "asked")
    assert study.objective == "mmd" and study.why == "you asked for it"
    with pytest.raises(InputError, match="objective: expected nats or mmd, got 'fid'"):
        mixtura.run(people(200), steps=5, objective="fid")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"group": "size"}, "images have none"),
        ({"columns": ["a"]}, "--columns: is for tables"),
        ({"kinds": {"a": "integer"}}, "--kind"),
    ],
)
def test_options_of_tables_are_refused_for_images(options, said):
    with pytest.raises(InputError, match=said):
        mixtura.run(bars(100), steps=5, families=["marginals"], **options)


@pytest.mark.parametrize("options", [{"skip_broken": True}, {"size": 8}])
def test_options_of_images_are_refused_for_tables(options):
    with pytest.raises(InputError, match="is for images"):
        mixtura.run(people(100), steps=5, families=["marginals"], **options)


@pytest.mark.slow
def test_a_folder_of_colour_images_keeps_its_budget(tmp_path):
    """500 PNGs and one broken file: a verdict and a report inside a minute and a fifth; samples in colour."""
    folder = tmp_path / "discs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(32), np.arange(32)), -1)
    for i in range(500):
        inside = (np.square(grid - rng.uniform(8, 24, 2)).sum(-1) < rng.uniform(4, 9) ** 2)[..., None]
        image = np.where(inside, rng.integers(120, 256, 3), rng.integers(0, 100, 3)) + rng.normal(0, 6, (32, 32, 3))
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(folder / f"{i:03d}.png")
    (folder / "broken.png").write_bytes(b"no image")
    began = time.monotonic()
    study = mixtura.run(folder, budget="60s", skip_broken=True, out=tmp_path / "run")
    page = report.build(tmp_path / "run")
    assert time.monotonic() - began < 1.2 * 60 and page.stat().st_size < 3e6
    assert study.best.sample(3).shape == (3, 32, 32, 3)
    assert {s.name for s in study.scores if s.status != "fitted"} == {"kde"}


# --------------------------------------------------------------------- what has been trained comes to a verdict


def test_the_fewest_rows_that_are_taken_come_to_a_verdict(tmp_path):
    """Four report rows, which not every metric can do with."""
    study = mixtura.run(people(20), steps=5, families=["gaussian_mixture"], out=tmp_path / "few")
    assert set(study.verdicts) == {"nats", "mmd"} and study.verdicts["mmd"].rows == 4
    measured = study.scores[0].metrics
    assert "mmd2" in measured and "precision" not in measured
    assert (report.build(tmp_path / "few")).exists()


class Odd(Density, ClosedForm):
    """Gives rows above 150 no number; those are report rows alone."""

    def fit_closed(self, x, context, rng):
        pass

    def _sample(self, n, context, rng):
        return 100 + 3 * torch.randn(n, 1, generator=rng, dtype=torch.float64)

    def _log_prob(self, x, context):
        return torch.where(x[:, 0] > 150, torch.nan, -3.0)


class Refuses(Odd):
    """Fails on those rows."""

    def _log_prob(self, x, context):
        if (x[:, 0] > 150).any():
            raise ArithmeticError("too large for me")
        return super()._log_prob(x, context)


@pytest.mark.parametrize(
    ("kind", "reason"), [(Odd, "Odd gives row 10 a log-density of nan"), (Refuses, "ArithmeticError: too large for me")]
)
def test_a_model_that_breaks_on_the_report_rows_takes_no_other_down(kind, reason, tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(100, 3, 200), "part": ["fit"] * 120 + ["select"] * 40 + ["report"] * 40})
    frame.loc[170, "x"] = 200.0
    study = mixtura.run(frame, steps=5, families=["gaussian_mixture"], models={"odd": kind}, split="part", out=tmp_path / "odd")
    odd = next(s for s in study.scores if s.name == "odd")
    assert odd.status == "failed" and reason in odd.reason
    assert "odd" not in study.verdicts["nats"].weights and study.verdicts["nats"].rows == 40


def test_a_folder_of_another_version_is_one_sentence(tmp_path):
    out = tmp_path / "old"
    mixtura.run(people(60), steps=5, families=["marginals"], out=out)
    config = read_json(out / "config.json")
    (out / "config.json").write_text(json.dumps(config | {"format": 2}))
    for use in (lambda: mixtura.load(out), lambda: mixtura.run(people(60), steps=5, families=["marginals"], out=out)):
        with pytest.raises(InputError, match="was written by another version of mixtura .format 2, this one reads 9.; run again"):
            use()
    assert mixtura.run(people(60), steps=5, families=["marginals"], out=out, fresh=True).best.sample(2).shape == (2, 2)


def test_two_runs_do_not_share_a_folder(tmp_path):
    out = tmp_path / "run"
    records = conduct(people(200), Options(steps=5, families=["marginals"], out=out))
    next(records)
    with pytest.raises(InputError, match="another run works in this folder; wait for it, or give another --out"):
        mixtura.run(people(200), steps=5, families=["marginals"], out=out)
    with pytest.raises(InputError, match="another run works in this folder"):
        mixtura.run(people(200), steps=5, families=["marginals"], out=out, fresh=True)
    assert isinstance([*records][-1], Done)
    assert mixtura.run(people(200), steps=5, families=["marginals"], out=out, fresh=True).best.name == "marginals"


def test_a_folder_is_looked_at_again_once_it_is_held(tmp_path, monkeypatch):
    """Two runs that start at once both find the folder empty. The first ends while the second reads its data."""
    out, asked, held = tmp_path / "run", {"steps": 5, "families": ["marginals"]}, RunFolder.held

    def after_the_first(folder):
        monkeypatch.setattr(RunFolder, "held", held)
        mixtura.run(people(200), out=folder.path, **asked)
        return held(folder)

    monkeypatch.setattr(RunFolder, "held", after_the_first)
    assert [type(record) for record in conduct(people(200), Options(out=out, **asked))] == [Done]
    monkeypatch.setattr(RunFolder, "held", after_the_first)
    with pytest.raises(InputError, match="holds a run on other options"):
        mixtura.run(people(200), out=tmp_path / "other", seed=1, **asked)


def test_a_fresh_start_keeps_the_folder_that_it_holds(tmp_path):
    out, asked = tmp_path / "run", {"steps": 5, "families": ["marginals"]}
    mixtura.run(people(200), out=out, **asked)
    (out / "notes.txt").write_text("of the first run")
    before = out.stat().st_ino
    mixtura.run(people(200), out=out, fresh=True, **asked)
    assert out.stat().st_ino == before and not (out / "notes.txt").exists()


class Dying(Processes):
    """Workers that die before they begin, so many times; afterwards they do what they are asked."""

    def __init__(self, deaths):
        self.deaths = deaths

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        if self.deaths:
            self.deaths -= 1
            future.set_exception(BrokenExecutor("killed"))
        else:
            future.set_result(fn(*args, **kwargs))
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        pass


@pytest.mark.parametrize(("deaths", "status"), [(5, "fitted"), (100, "failed")])
def test_a_worker_that_dies_before_it_begins_is_no_fault_of_the_model(deaths, status):
    run = partial(mixtura.run, people(200), steps=5, families=["marginals"], executor=Dying(deaths), workers=1)
    if status == "fitted":
        assert [score.status for score in run().scores] == ["fitted"]
    else:
        with pytest.raises(InputError, match="its process was killed"):
            run()


def test_a_model_that_exits_does_not_end_the_run():
    def leaves(space):
        raise SystemExit(3)

    study = mixtura.run(people(200), steps=5, families=["marginals"], models={"leaves": leaves})
    assert {score.name: score.status for score in study.scores} == {"marginals": "fitted", "leaves": "failed"}
