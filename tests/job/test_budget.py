"""The seconds of a fit: its share of the budget, and what a run that goes on remembers of its earlier sittings."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from mixtura.contracts import InputError
from mixtura.folder.layout import RunFolder
from mixtura.folder.records import SavedState
from mixtura.job.budget import ENDING, PREPARING, REFINING, SCORING, Budget, ending
from mixtura.job.fitting import Candidate, Length
from mixtura.job.jobs import Job, JobFolder, _length
from mixtura.job.schedule import Schedule
from mixtura.job.state import RunState


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_share_the_fits_evenly(workers):
    """Of 100 s, 20 are kept for the end and some for scoring; of four fits each worker does 4 / workers, one after the other."""
    names = ["a", "b", "c", "d"]
    budget = Budget(100.0, 0.2, workers, 0, names, 0.0)
    fitting = 80 - 4 * SCORING * 100 * (1 + 1 / workers) - 4 * PREPARING * 100 / workers
    assert budget.share([], {}, [], 0.0) == pytest.approx(fitting * workers / 4)


def test_on_one_worker_the_time_goes_by_parts():
    """The first of two with parts 6 and 1 has six sevenths of what is left, and the second all that is left then. Scoring it is
    thought to take half its part of what others take."""
    budget = Budget(100.0, 0.2, 1, 0, ["vae", "diffusion"], 0.0, {"diffusion": 6.0})
    left = 80 - (1 + 6 / 2) * SCORING * 100 * 2 - 2 * PREPARING * 100
    assert budget.share([], {}, [], 0.0, "diffusion") == pytest.approx(left * 6 / 7)
    assert budget.share([], {}, [], 0.0, "vae") == pytest.approx(left / 7)
    assert budget.share(["diffusion/all"], {}, [], 30.0, "vae") == pytest.approx(left - 30)


def test_of_several_workers_a_model_has_one_to_itself_and_the_others_share_the_rest():
    names = ["flow", "autoregressive", "vae", "diffusion"]
    budget = Budget(100.0, 0.2, 2, 0, names, 0.0, {"diffusion": 6.0})
    scoring = (3 + 6 / 2) * SCORING * 100
    left = 80 - scoring * 1.5 - 4 * PREPARING * 100 / 2
    assert budget.with_a_worker(names) == ["diffusion"]
    # which does not wait until the others are scored
    alone = 80 - (6 / 2) * SCORING * 100 - scoring / 2 - 4 * PREPARING * 100 / 2
    assert budget.share([], {}, [], 0.0, "diffusion") == pytest.approx(alone)
    assert budget.share(["diffusion/all"], {}, [], 0.0, "flow") == pytest.approx(left / 3)
    # without the others, or with parts that are alike, everyone has a worker
    assert Budget(100.0, 0.2, 2, 0, names[2:], 0.0, {"diffusion": 6.0}).share([], {}, [], 0.0, "diffusion") > left
    # time is kept for its refit, and for scoring that
    again = Budget(100.0, 0.2, 2, 0, names, 1.25, {"diffusion": 6.0}).share([], {}, [], 0.0, "diffusion")
    assert again == pytest.approx((alone - (6 / 2) * SCORING * 100 / 2) / 1.25)


def test_the_end_of_a_long_run_has_a_smaller_share():
    assert ending(30.0, refine=False) == ending(60.0, refine=False) == ENDING
    assert 60 * ENDING < 600 * ending(600.0, refine=False) < 300 * ENDING
    assert ending(None, refine=False) == pytest.approx(0.4 * ENDING)
    assert ending(60.0, refine=True) == ENDING + REFINING


def test_the_model_that_trains_longest_begins_first_on_workers(tmp_path):
    run = RunFolder(tmp_path)
    run.write_state(SavedState(0.0, {}, {}))
    state = RunState(run, time.monotonic())
    state.take_up()
    material = SimpleNamespace(splits=SimpleNamespace(folds=0), device="cpu")
    names = ["marginals", "flow", "vae", "diffusion"]
    run.work_path.mkdir(exist_ok=True)
    (run.work_path / "material.json").write_text("{}")

    class Stop(Exception):
        pass

    class Engine:
        def submit(self, work, path, unit):
            begun.append(unit)
            raise Stop

    for parts, first in (({"diffusion": 6.0}, "diffusion/all"), ({}, "marginals/all")):
        begun = []
        budget = Budget(100.0, 0.2, 2, 0, names[1:], 0.0, parts)
        schedule = Schedule(JobFolder(run), material, [Candidate(name) for name in names], state, budget, steps=None, stops=None)
        with pytest.raises(InputError, match="Stop"):
            list(schedule.on(Engine()))
        assert begun == [first]


def test_the_seconds_of_earlier_sittings_count(tmp_path):
    run = RunFolder(tmp_path)
    run.write_state(SavedState(100.0, {}, {}))
    began = time.monotonic() - 5
    state = RunState(run, began)
    state.take_up()
    before = time.monotonic()
    assert 100 + before - began <= state.elapsed <= 100 + time.monotonic() - began
    state.save()
    assert 100 + before - began <= run.state().elapsed <= 100 + time.monotonic() - began


def test_a_fit_has_the_share_that_an_earlier_sitting_gave_it(tmp_path):
    run = RunFolder(tmp_path)
    run.write_state(SavedState(30.0, {"flow/all": {"share": 7.5}}, {}))
    state = RunState(run, time.monotonic())
    state.take_up()
    material = SimpleNamespace(splits=SimpleNamespace(folds=0), device="cpu")
    candidates, budget = [Candidate("flow"), Candidate("vae")], Budget(100.0, 0.2, 1, 0, ["flow", "vae"], 0.0)
    schedule = Schedule(JobFolder(run), material, candidates, state, budget, steps=None, stops=None)
    assert schedule._next("flow", None).share == 7.5
    new = schedule._next("vae", None).share
    assert new != 7.5 and run.state().units == {"flow/all": {"share": 7.5}, "vae/all": {"share": new}}


def test_a_fit_with_a_checkpoint_keeps_its_whole_share(tmp_path):
    """The checkpoint knows how much of the share was spent; a fit that begins late is cut to what is left of the sitting."""
    ends = time.time() + 600
    checkpoint, job = tmp_path / "flow.all.checkpoint", Job("flow", None, share=3600.0, ends=ends)
    length = _length(job, checkpoint)
    assert ends - time.time() <= length.seconds <= 600
    checkpoint.touch()
    assert _length(job, checkpoint) == Length(seconds=3600.0)
