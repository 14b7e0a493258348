"""Time goes to the models that can still win; a model that cannot is stopped, said, and left out of the blend."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import mixtura
from mixtura.contracts import Density, LowerBound, single_stage
from mixtura.folder.layout import RunFolder
from mixtura.ground.rng import generator
from mixtura.job.jobs import JobFolder
from mixtura.job.options import Options
from mixtura.job.race import forecast, leading, why_stopped
from mixtura.job.records import Judged
from mixtura.job.run import FEW_ROWS
from mixtura.job.splits import Splits
from mixtura.job.start import conduct

ROWS = torch.randn(300, generator=generator(0), dtype=torch.float64) - 5


def test_a_forecast_is_right_of_a_loss_that_falls_as_one_over_the_root_of_the_steps():
    curve = [(step, -5 - 3 / math.sqrt(step)) for step in range(50, 450, 50)]
    for times in (1.0, 2.0, 10.0):
        assert forecast(curve, times) == pytest.approx(3 / math.sqrt(400) - 3 / math.sqrt(400 * times), abs=1e-12)
    faster = [(step, -5 - 30 / step) for step in range(50, 450, 50)]  # which has less to gain
    assert forecast(faster, 10.0) > 30 / 400 - 30 / 4000
    assert forecast([(50, -7.0), (100, -8.0)], 4.0) == 0  # worse since: nothing to hope for
    assert forecast([(50, -7.0)], 4.0) == math.inf and forecast([(50, -7.0), (100, math.nan)], 4.0) == math.inf


def test_a_model_is_stopped_that_is_behind_on_every_row():
    why = why_stopped(ROWS - 3.0, 1.0, {"kde": ROWS, "vae": ROWS - 2.0}, 2.5)
    assert why == "adds nothing to the blend after 2.5 s of training, 3.0 nats behind kde"


@pytest.mark.parametrize(
    ("mine", "hoped", "others"),
    [
        (ROWS - 3.0, 3.5, {"kde": ROWS}),  # it may come to be the best
        (ROWS - 3.0, math.inf, {"kde": ROWS}),  # too early to tell
        (ROWS.roll(1) - 0.2, 0.0, {"kde": ROWS}),  # behind, and better on some rows: a part of the blend
        (ROWS - 3.0, 0.0, {}),  # nothing to be behind
        (ROWS - 3.0, 0.0, {"kde": ROWS.index_fill(0, torch.tensor([4]), -math.inf)}),  # which is impossible on some rows
        (ROWS.index_fill(0, torch.tensor([4]), -math.inf), 0.0, {"kde": ROWS}),  # as is this one: only the stacking can tell
    ],
)
def test_a_model_goes_on_that_can_still_win(mine, hoped, others):
    assert why_stopped(mine, hoped, others, 2.5) is None


def test_the_leading_models_are_those_with_a_part_in_the_blend():
    assert leading({"kde": ROWS, "vae": ROWS - 3.0}) == {"kde"}
    assert leading({"kde": ROWS, "vae": ROWS.roll(1)}) == {"kde", "vae"}
    assert leading({"kde": ROWS, "vae": ROWS.index_fill(0, torch.tensor([4]), -math.inf)}) == {"kde"}
    assert leading({}) == set()


class Learns(Density):
    """A normal with a mean that training moves. ``handicap`` nats are taken off each row, or added to it, so that it is better or
    worse than the others whatever it learns."""

    def __init__(self, space, handicap):
        super().__init__(space)
        self.mean, self.handicap, self.scored = nn.Parameter(torch.tensor(99.0)), handicap, []

    def stages(self):
        return single_stage("likelihood", (self.mean,), lambda turn: -self._log_prob(turn.x, None).mean())

    def _log_prob(self, x, context):
        if not self.training:
            self.scored.append(len(x))
        return -((x[:, 0] - self.mean.double()) ** 2) / 18 - math.log(3 * math.sqrt(2 * math.pi)) - self.handicap

    def _sample(self, n, context, rng):
        return self.mean.detach().double() + 3 * torch.randn(n, 1, generator=rng, dtype=torch.float64)


def rows(n):
    return pd.DataFrame({"x": np.random.default_rng(0).normal(100, 3, n)})


@pytest.fixture(scope="module")
def raced(tmp_path_factory):
    """A run within a budget, of a model that is good and one that is hopeless, and its records."""
    out, built = tmp_path_factory.mktemp("race") / "run", {}

    def made(name, handicap):
        def own(space):
            built[name] = Learns(space, handicap)
            return built[name]

        return own

    models = {"good": made("good", -5.0), "hopeless": made("hopeless", 40.0)}
    options = Options(budget=8, workers=1, families=["marginals"], models=models, out=out)
    *records, last = conduct(rows(4_000), options)
    return records, last.study, out, models


def test_a_hopeless_model_is_stopped_and_says_so(raced):
    records, study, _, _ = raced
    judged = {record.name: record for record in records if type(record).__name__ == "Judged"}
    scores = {score.name: score for score in study.scores}
    assert judged["hopeless"].select_nats is None and judged["good"].select_nats is not None
    assert scores["hopeless"].status == "fitted" and "nats behind" in scores["hopeless"].reason
    assert judged["hopeless"].reason == scores["hopeless"].reason and scores["good"].reason == ""
    assert scores["hopeless"].seconds < scores["good"].seconds
    assert scores["hopeless"].nats == pytest.approx(scores["good"].nats - 45, abs=1.5)
    assert "hopeless" not in study.verdict.weights and set(study.verdict.weights) == {"marginals", "good"}


def test_a_stopped_model_is_scored_on_few_report_rows(raced):
    _, study, _, _ = raced
    scores = {score.name: score for score in study.scores}
    error = scores["hopeless"].nats_error * math.sqrt(FEW_ROWS)
    assert error == pytest.approx(scores["good"].nats_error * math.sqrt(study.verdict.rows), rel=0.15)


def test_a_replay_repeats_what_was_decided(raced, tmp_path):
    _, study, out, models = raced
    again, different = mixtura.replay(out, tmp_path / "again", rows(4_000), models=models)
    assert different == [] and again.verdict.weights == study.verdict.weights
    assert {s.name: s.reason for s in again.scores} == {s.name: s.reason for s in study.scores}


def test_a_run_by_steps_or_in_samples_is_no_race():
    own = {"hopeless": lambda space: Learns(space, 40.0)}
    for options in ({"steps": 60}, {"budget": 4, "objective": "mmd"}):
        study = mixtura.run(rows(1_500), families=["marginals"], models=own, workers=1, **options)
        assert {score.reason for score in study.scores} == {""}




class Bound(LowerBound):
    """As ``Learns``, with a bound that a handicap lowers."""

    def __init__(self, space, handicap):
        super().__init__(space)
        self.inner = Learns(space, handicap)

    def stages(self):
        return self.inner.stages()

    def _log_prob_bound(self, x, context, draws, rng):
        return self.inner._log_prob(x, context)

    def _sample(self, n, context, rng):
        return self.inner._sample(n, context, rng)


def test_a_bound_far_behind_is_scored_on_few_rows_where_samples_decide(tmp_path):
    """It stays a candidate by its samples."""
    models = {"far": lambda space: Bound(space, 50.0), "near": lambda space: Bound(space, -2.0)}
    given = {"objective": "mmd", "families": ["marginals"], "models": models, "workers": 1}
    study = mixtura.run(rows(9_000), budget="8s", out=tmp_path / "run", **given)
    scores = {score.name: score for score in study.scores}
    assert scores["far"].reason.startswith("its bound, 5") and "adds nothing to a blend in nats" in scores["far"].reason
    assert scores["near"].reason == "" and "far" in study.verdicts["mmd"].weights and "far" not in study.verdicts["nats"].weights
    again, different = mixtura.replay(tmp_path / "run", tmp_path / "again", rows(9_000), models=models)
    assert different == [] and {s.name: s.reason for s in again.scores}["far"] == scores["far"].reason


class Aside(Bound):
    """Of two columns that are equal: its samples say so and its bound is far behind, less with more rows."""

    def __init__(self, space):
        super().__init__(space, 50.0)
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))

    def _prepare(self, x, context, rng):
        self.seen.fill_(len(x))

    def _log_prob_bound(self, x, context, draws, rng):
        return super()._log_prob_bound(x, context, draws, rng) + self.seen / 1e4

    def _sample(self, n, context, rng):
        return super()._sample(n, context, rng).expand(-1, 2).contiguous()


def test_a_bound_without_a_part_is_scored_alike_before_and_after_its_refit(tmp_path):
    models = {"aside": Aside}
    given = {"objective": "mmd", "families": ["marginals"], "models": models, "workers": 1}
    study = mixtura.run(rows(9_000).assign(y=lambda frame: frame.x), budget="8s", out=tmp_path / "run", **given)
    score = {score.name: score for score in study.scores}["aside"]
    assert "adds nothing to a blend in nats" in score.reason and study.verdict.best == "aside"
    assert score.refit.delivered and score.refit.gain > 0.1


class Impossible(Learns):
    """It holds some rows impossible, and says so only when it is scored."""

    def stages(self):
        return single_stage("likelihood", (self.mean,), lambda turn: -Learns._log_prob(self, turn.x, None).mean())

    def _log_prob(self, x, context):
        return super()._log_prob(x, context).masked_fill(x[:, 0] > 104, -math.inf)


class Worsens(Learns):
    """Its stopping loss is infinite at the second validation. ``validations`` outlives the model, which every part of the fit
    builds anew."""

    def __init__(self, space, handicap, validations):
        super().__init__(space, handicap)
        self.validations = validations

    def stages(self):
        return single_stage("likelihood", (self.mean,), self.loss)

    def loss(self, turn):
        if not self.training:
            self.validations.append(len(turn.x))
        broken = not self.training and len(self.validations) == 2
        return -self._log_prob(turn.x, None).mean() + (math.inf if broken else 0.0)


def test_nats_that_are_infinite_at_a_look_end_no_run():
    own = {"impossible": lambda space: Impossible(space, 0.0), "possible": lambda space: Learns(space, 0.0)}
    study = mixtura.run(rows(2_000), budget=4, workers=1, families=["marginals"], models=own)
    assert {score.status for score in study.scores} == {"fitted"}
    assert {score.name for score in study.scores if score.nats == -math.inf} == {"impossible"}


def test_a_validation_that_is_infinite_at_a_pause_ends_no_run():
    validations = []
    own = {"worsens": lambda space: Worsens(space, -5.0, validations)}
    study = mixtura.run(rows(2_000), budget=4, workers=1, families=["marginals"], models=own)
    assert len(validations) > 2 and {score.status for score in study.scores} == {"fitted"}


class Breaks(Learns):
    """Far better than the others, until it fails, long after it was looked at for the first time."""

    def stages(self):
        return single_stage("likelihood", (self.mean,), self.loss)

    def loss(self, turn):
        self.steps = getattr(self, "steps", 0) + self.training
        return -self._log_prob(turn.x, None).mean() * (math.nan if self.steps > 125 else 1.0)


def test_what_a_failed_model_had_reached_is_no_measure_of_the_others(tmp_path):
    models = {"breaks": lambda space: Breaks(space, -60.0)}
    options = Options(budget=4, workers=1, families=["marginals"], models=models, out=tmp_path / "run")
    fit, select, report = torch.arange(2_000).split([1_200, 400, 400])
    files, splits = JobFolder(RunFolder(tmp_path / "run")), Splits(fit, select, report, "", 0, 0)
    for record in conduct(rows(2_000), options):
        if isinstance(record, Judged) and record.name == "breaks":
            assert record.status == "failed" and files.run.state().units["breaks/all"]["looks"]
            assert set(files.nats_so_far(splits, 0, but="none")) == {"marginals"}
            return
    pytest.fail("no record of the model that fails")


@pytest.mark.parametrize("fault", [KeyboardInterrupt, MemoryError])
def test_a_stopped_model_that_is_lost_while_it_is_scored_is_not_trained_on(tmp_path, fault):
    """KeyboardInterrupt leaves no outcome behind, as a kill does; MemoryError is an outcome that the next sitting tries again."""
    faults = [fault]

    class Lost(Learns):
        def _sample(self, n, context, rng):
            if faults:
                raise faults.pop()
            return super()._sample(n, context, rng)

    models = {"good": lambda space: Learns(space, -5.0), "hopeless": lambda space: Lost(space, 40.0)}

    def sitting():
        return mixtura.run(rows(2_000), budget=5, workers=1, families=["marginals"], models=models, out=tmp_path / "run")

    if fault is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            sitting()
    else:
        assert {score.name: score.status for score in sitting().scores}["hopeless"] == "failed"
    assert not faults
    score = next(score for score in sitting().scores if score.name == "hopeless")
    looks = RunFolder(tmp_path / "run").state().units["hopeless/all"]["looks"]
    assert "nats behind good" in score.reason and score.steps == looks[-1][0]
    assert not [*(tmp_path / "run" / "work").glob("*.checkpoint")]
