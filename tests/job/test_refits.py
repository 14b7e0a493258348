"""The models that a run delivers have learnt from the select rows too; what was measured is said of those that had not."""

from __future__ import annotations

import math
import os

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import mixtura
from mixtura.contracts import ClosedForm, Density, InputError, single_stage
from mixtura.folder.io import read_json, read_tensors
from mixtura.folder.layout import RunFolder
from mixtura.ground.rng import generator
from mixtura.job.budget import Budget
from mixtura.job.jobs import unit_name
from mixtura.job.options import Options
from mixtura.job.records import Progress
from mixtura.job.replay import replay
from mixtura.job.splits import Splits
from mixtura.job.start import conduct

SIDE = 3.0


class Normal(Density, ClosedForm):
    """A normal of variance 9 whose mean is that of its rows. ``worse``: added to its mean where it is fitted again."""

    def __init__(self, space, worse=0.0):
        super().__init__(space)
        self.register_buffer("mean", torch.zeros(1, dtype=torch.float64))
        self.worse = worse

    def fit_closed(self, x, context, rng):
        if len(x) > 900 and math.isinf(self.worse):
            raise ValueError("too many rows")
        self.mean = x[:, 0].mean(0, keepdim=True) + (self.worse if len(x) > 900 else 0.0)

    def _log_prob(self, x, context):
        return -((x[:, 0] - self.mean) ** 2) / 18 - math.log(SIDE * math.sqrt(2 * math.pi))

    def _sample(self, n, context, rng):
        return self.mean + SIDE * torch.randn(n, 1, generator=rng, dtype=torch.float64)


def rows(n=1_500, seed=0):
    return pd.DataFrame({"x": np.random.default_rng(seed).normal(100, SIDE, n)})


def normal(worse=0.0):
    return {"own": lambda space: Normal(space, worse)}


@pytest.fixture(scope="module")
def refitted(tmp_path_factory):
    out = tmp_path_factory.mktemp("refits") / "run"
    return mixtura.run(rows(), steps=20, families=["marginals"], models=normal(), out=out)


def values(run):
    """The values of the fit, select and report rows of a run on ``rows()``."""
    parts, x = run.splits(), torch.tensor(rows()["x"].to_numpy())
    return x[parts.fit], x[parts.select], x[parts.report]


def test_the_verdict_is_of_the_fit_rows_and_what_is_delivered_of_four_fifths_of_the_select_rows_too(refitted):
    run = RunFolder(refitted.folder)
    fit, select, report = values(run)
    score = next(s for s in refitted.scores if s.name == "own")
    before = -((report - fit.mean()) ** 2) / 18 - math.log(SIDE * math.sqrt(2 * math.pi))
    assert refitted.verdict.choice == "own" and score.nats == pytest.approx(float(before.mean()), abs=1e-9)
    again, held = Splits(*run_rows(run), "", 0, 0).again(0)
    x = torch.tensor(rows()["x"].to_numpy())
    assert len(held) == round(0.2 * len(select)) and len(again) == len(fit) + len(select) - len(held)
    assert set(held.tolist()) < set(run.splits().select.tolist()) and not set(held.tolist()) & set(again.tolist())
    delivered = refitted.best.model.mean
    assert float(delivered) == pytest.approx(float(x[again].mean()), abs=1e-9)
    after = -((report - delivered) ** 2) / 18 - math.log(SIDE * math.sqrt(2 * math.pi))
    gain = after - before
    assert score.refit.delivered and score.refit.value == pytest.approx(float(after.mean()), abs=1e-9)
    assert score.refit.gain == pytest.approx(float(gain.mean()), abs=1e-9)
    assert score.refit.gain_error == pytest.approx(float(gain.std()) / math.sqrt(len(gain)), rel=1e-6)
    assert refitted.verdict.refit == score.refit
    assert f"{abs(score.refit.gain):.4f}"[:5] in refitted.verdict.about_refit


def run_rows(run):
    parts = run.splits()
    return parts.fit, parts.select, parts.report


def test_the_folder_gives_back_what_was_delivered_and_keeps_what_was_scored(refitted):
    again = mixtura.load(refitted.folder, models=normal())
    assert float(again.best.model.mean) == float(refitted.best.model.mean)
    scored = read_tensors(refitted.folder / "models" / "own" / "model.safetensors")["mean"]
    assert float(scored) != float(again.best.model.mean)
    assert again.leaderboard.set_index("name").loc["own", "refit_gain"] == pytest.approx(refitted.verdict.refit.gain)
    card = (refitted.folder / "README.md").read_text()
    assert refitted.verdict.about_refit in card


@pytest.mark.parametrize(
    ("worse", "reason"), [(9.0, "fitted again, it has 4."), (math.inf, "not fitted again: ValueError: too many rows")]
)
def test_a_refit_that_is_worse_or_fails_costs_nothing(worse, reason, tmp_path):
    study = mixtura.run(rows(), steps=20, families=["marginals"], models=normal(worse), out=tmp_path / "run")
    score = next(s for s in study.scores if s.name == "own")
    assert score.status == "fitted" and score.refit.reason.startswith(reason) and not score.refit.delivered
    fit, _, _ = values(RunFolder(tmp_path / "run"))
    assert float(study.best.model.mean) == pytest.approx(float(fit.mean()))
    assert study.verdict.refit is None and study.verdict.about_refit == ""


class Learns(Density):
    """A normal with a mean that training moves from 90, where preparing puts it, and a buffer of its rows, as encodings are."""

    recipe = {"rate": 0.1}

    def __init__(self, space):
        super().__init__(space)
        self.mean = nn.Parameter(torch.tensor(99.0))
        self.register_buffer("seen", torch.zeros(1, dtype=torch.int64))

    def _prepare(self, x, context, rng):
        self.seen = torch.tensor([len(x)])
        self.mean.data.fill_(0.0)

    def stages(self):
        return single_stage("likelihood", (self.mean,), lambda turn: -self._log_prob(turn.x, None).mean())

    def _log_prob(self, x, context):
        return -((x[:, 0] - 90 - self.mean.double()) ** 2) / 18 - math.log(SIDE * math.sqrt(2 * math.pi))

    def _sample(self, n, context, rng):
        return 90 + self.mean.detach().double() + SIDE * torch.randn(n, 1, generator=rng, dtype=torch.float64)


def test_a_network_goes_on_from_its_parameters_for_as_many_more_steps_as_there_are_more_rows(tmp_path):
    study = mixtura.run(rows(), steps=400, families=["marginals"], models={"own": Learns}, out=tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    units = run.state().units
    more = 0.8 * len(run.splits().select) / len(run.splits().fit)
    assert units["own/refit"]["plan"][0][0] == round(more * sum(end for _, end in units["own/all"]["plan"]))
    scored, made = (read_tensors(run.model_path("own", refit=r) / "model.safetensors") for r in (False, True))
    fit, select, _ = values(run)
    # all fit rows are trained on, and not only those that were not held out before; the rest stays for the choice
    assert int(scored["seen"]) == round(0.88 * len(fit)) and int(made["seen"]) == len(fit) + round(0.8 * len(select))
    assert abs(float(made["mean"]) - float(scored["mean"])) < 1 and float(made["mean"]) > 9.3  # 100 steps from 0 end below 8.5
    assert study.verdict.choice == "own" and study.verdict.refit is not None


class Turned(Learns):
    """Has signs that are drawn when it is built, and are no parameters."""

    def __init__(self, space):
        super().__init__(space)
        self.register_buffer("sign", 2.0 * torch.randint(2, (16,)) - 1)


def test_what_was_drawn_when_a_network_was_built_is_as_it_was(tmp_path):
    mixtura.run(rows(), steps=400, families=["marginals"], models={"own": Turned}, out=tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    scored, made = (read_tensors(run.model_path("own", refit=r) / "model.safetensors") for r in (False, True))
    assert scored["sign"].equal(made["sign"])


class Draws(ClosedForm):
    """Only draws: no density."""

    def fit_closed(self, x, context, rng):
        pass

    def _sample(self, n, context, rng):
        return 100 + SIDE * torch.randn(n, 1, generator=rng, dtype=torch.float64)


def test_a_model_without_a_density_is_not_fitted_again(tmp_path):
    study = mixtura.run(
        rows(), steps=20, families=["marginals"], models={"own": Draws}, objective="mmd", out=tmp_path / "run"
    )
    score = next(s for s in study.scores if s.name == "own")
    assert score.refit is None or "without a density" in score.refit.reason
    assert not (tmp_path / "run" / "refits" / "own").exists()


class Dies(Normal):
    """Takes its process along where it is fitted again: always, or, where ``once`` is a path, while there is no such file."""

    def __init__(self, space, once=None):
        super().__init__(space)
        self.once = once

    def fit_closed(self, x, context, rng):
        if len(x) > 900 and not (self.once and self.once.exists()):
            if self.once:
                self.once.touch()
            os._exit(9)
        super().fit_closed(x, context, rng)


@pytest.mark.slow
def test_a_refit_that_kills_every_worker_costs_nothing_else(tmp_path):
    study = mixtura.run(rows(), steps=20, families=["marginals"], models={"own": Dies}, workers=2, out=tmp_path / "run")
    score = next(s for s in study.scores if s.name == "own")
    assert score.status == "fitted" and score.refit.reason.startswith("not fitted again: its process was killed 3 times")


@pytest.mark.slow
def test_a_refit_whose_worker_is_killed_once_is_made_all_the_same(tmp_path):
    own = {"own": lambda space: Dies(space, tmp_path / "once")}
    study = mixtura.run(rows(), steps=20, families=["marginals"], models=own, workers=2, out=tmp_path / "run")
    other = mixtura.run(rows(), steps=20, families=["marginals"], models=normal(), workers=1, out=tmp_path / "other")
    assert (tmp_path / "once").exists() and study.best.model.mean.equal(other.best.model.mean)
    assert study.verdict.refit.delivered


class Shifted(Density, ClosedForm):
    """Of two columns, the second the first and a little more, the first too far up; or, fitted again, as far down."""

    def __init__(self, space):
        super().__init__(space)
        self.register_buffer("shift", torch.zeros(1, dtype=torch.float64))

    def fit_closed(self, x, context, rng):
        self.shift = torch.full((1,), -0.6 if len(x) > 900 else 0.6, dtype=torch.float64)

    def _log_prob(self, x, context):  # the same before and after, so that nothing speaks against the refit
        return -((x[:, 1] - x[:, 0]) ** 2) / (2 * 0.3**2) - (x[:, 0] - 100) ** 2 / 18 - math.log(2 * math.pi * 0.3 * SIDE)

    def _sample(self, n, context, rng):
        z = torch.randn(n, 2, generator=rng, dtype=torch.float64)
        first = 100 + SIDE * z[:, 0]
        return torch.stack([first + self.shift, first + 0.3 * z[:, 1]], 1)


def test_the_trees_know_what_is_odd_in_refits_too(tmp_path):
    """Those that have only seen the models as they were weighed take the refit for real rows."""
    z = np.random.default_rng(0).normal(size=(3_000, 2))
    frame = pd.DataFrame({"x": 100 + SIDE * z[:, 0], "y": 100 + SIDE * z[:, 0] + 0.3 * z[:, 1]})
    asked = {"steps": 20, "families": ["marginals"], "models": {"own": Shifted}, "objective": "mmd"}
    study = mixtura.run(frame.iloc[:1_500], **asked, out=tmp_path / "run")
    r = study.verdict.refit
    assert study.verdict.best == "own" and r is not None and r.value > 3 * r.error
    assert abs(r.gain) < 4 * r.gain_error


def test_a_split_of_mostly_select_rows_has_no_refits():
    assert Splits(torch.arange(100), torch.arange(60), torch.arange(3), "", 0, 0).growth == 0
    assert Splits(torch.arange(100), torch.arange(50), torch.arange(3), "", 0, 0).growth == pytest.approx(1.4)


def test_what_a_fit_begins_with_has_to_be_its_own_parameters():
    from mixtura.contracts import Batch, Space
    from mixtura.train.fit import fit
    from mixtura.train.recipe import Recipe

    x = Batch(x=torch.randn(50, 1, generator=generator(0), dtype=torch.float64))
    with pytest.raises(InputError, match="depend on its rows in name or shape"):
        next(fit(Learns(Space.continuous(1)), x, Recipe(steps=3), rng=generator(0), begin_with={"other": torch.zeros(())}))


def test_rows_given_to_check_on_are_those_that_are_checked_on():
    from mixtura.contracts import Batch, Space
    from mixtura.train.fit import fit
    from mixtura.train.recipe import Recipe

    model, held = Learns(Space.continuous(1)), torch.full((7, 1), 500.0, dtype=torch.float64)
    begun = {"mean": torch.tensor(4.0)}
    steps = fit(
        model, Batch(x=torch.full((40, 1), 94.0, dtype=torch.float64)), Recipe(steps=1, every=1, rate=1e-9), rng=generator(0),
        held=Batch(x=held), begin_with=begun,
    )  # fmt: skip
    (step,) = list(steps)
    assert int(model.seen) == 40  # none was set aside
    assert step.validation == pytest.approx((500 - 94) ** 2 / 18 + math.log(SIDE * math.sqrt(2 * math.pi)), rel=1e-5)


def test_a_cross_fitted_run_has_no_refits(tmp_path):
    study = mixtura.run(rows(400), steps=5, families=["marginals", "gaussian_mixture"], out=tmp_path / "run")
    assert all(s.refit is None for s in study.scores) and study.verdict.refit is None
    assert not (tmp_path / "run" / "refits").exists()


def test_in_mmd_the_refits_are_judged_by_their_samples(tmp_path):
    study = mixtura.run(rows(), steps=20, families=["marginals"], models=normal(), objective="mmd", out=tmp_path / "run")
    r = study.verdict.refit
    assert r is not None and abs(r.gain) < 3 * r.gain_error and abs(r.value) < 3 * r.error  # both are nearly the law itself
    assert "MMD²" in study.verdict.about_refit


def test_replays_workers_and_interrupted_runs_give_the_same_refits(tmp_path):
    asked = {"steps": 60, "families": ["marginals", "gaussian_mixture", "autoregressive"]}
    data = rows()
    mixtura.run(data, **asked, workers=1, out=tmp_path / "one")
    mixtura.run(data, **asked, workers=2, out=tmp_path / "two")
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    assert any(name.startswith("refits/") for name in one.bits()) and one.bits() == two.bits()
    assert replay(tmp_path / "one", tmp_path / "again", data)[1] == []
    for record in conduct(data, Options(**asked, workers=1, out=tmp_path / "stopped")):
        if isinstance(record, Progress) and "fitted again" in record.note:
            break
    mixtura.run(data, **asked, workers=1, out=tmp_path / "stopped")
    assert RunFolder(tmp_path / "stopped").bits() == one.bits()


def test_a_refit_for_which_no_time_is_left_is_said_and_repeated(tmp_path, monkeypatch):
    monkeypatch.setattr(Budget, "left_for_refits", lambda self, scoring, elapsed: 0.0)
    mixtura.run(rows(), budget=4, families=["marginals", "gaussian_mixture"], workers=1, out=tmp_path / "run")
    scores = RunFolder(tmp_path / "run").scores()
    chosen = [s for s in scores if s.refit is not None]
    assert chosen and all(s.refit.reason.startswith("not fitted again: takes about") for s in chosen)
    assert replay(tmp_path / "run", tmp_path / "again", rows())[1] == []
    before, after = (read_json(tmp_path / part / "state.json")["units"] for part in ("run", "again"))
    for score in chosen:
        unit = unit_name(score.name, "refit")
        assert before[unit] == after[unit]


def test_a_budget_keeps_time_for_refits():
    closed, trained = {"scoring": 2.0, "seconds": 6.0, "plan": None}, {"scoring": 2.0, "seconds": 8.0, "plan": [[9, 9]]}
    units = {"kde/all": closed, "vae/all": trained}
    without, kept = (Budget(100.0, 0.2, 1, 0, ["vae", "flow"], growth) for growth in (0.0, 1.25))
    begun = {"kde/all", "vae/all"}
    owed = 2 + 2 + 2 * 4 + 1  # scoring: known, and guessed of flow twice; preparing flow
    assert without.share(begun, units, (), 0.0) == pytest.approx(80 - owed)
    assert kept.share(begun, units, (), 0.0) == pytest.approx((80 - owed - 8 * 0.25) / 1.25)
    assert kept.share(begun, units, (), 0.0, leading={"kde"}) == pytest.approx((80 - owed - 6 * 1.25 - 8 * 0.25) / 1.25)
    raced = {**units, "vae/all": {**trained, "stopped": None}}  # as a race leaves it of one that went on to its end
    assert kept.share(begun, raced, (), 0.0) == kept.share(begun, units, (), 0.0)
    stopped = {**units, "vae/all": {**trained, "stopped": "behind"}}
    assert kept.share(begun, stopped, (), 0.0) == pytest.approx((80 - owed) / 1.25)
