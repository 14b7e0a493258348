"""A fault of the machine in the middle of a run: one sentence, nothing lost, and the same command goes on to the same bits."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch

import mixtura
from mixtura.blending.nats import log_probs
from mixtura.cli.main import main
from mixtura.contracts import InputError
from mixtura.families.kde import KernelDensity
from mixtura.folder.layout import RunFolder
from mixtura.ground import machine
from mixtura.ground.machine import CannotWrite
from mixtura.job import jobs, verdict
from mixtura.job.replay import replay
from mixtura.job.run import Run

FAMILIES = ["marginals", "kde"]


def people(n=40):
    rng = np.random.default_rng(0)
    return pd.DataFrame({"size": rng.normal(100, 3, n).round(1), "colour": rng.choice(["red", "blue"], n)})


def again(out, **options):
    return mixtura.run(people(), out=out, **({"steps": 8, "families": FAMILIES} | options))


def bits(out):
    names = [*out.glob("models/*/*"), *(out / n for n in ("nats.safetensors", "verdict.json", "samples.csv", "quadratic.json"))]
    return {str(p.relative_to(out)): p.read_bytes() for p in names}


def fit_failures(out):
    return RunFolder(out).state().failures


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    out = tmp_path_factory.mktemp("calm") / "run"
    again(out)
    return bits(out)


@pytest.mark.parametrize("seed", [0])
def test_a_disk_that_is_full_now_and_then_costs_nothing_but_time(calm, tmp_path, monkeypatch, seed):
    take_place, luck, refused = machine._take_place, np.random.default_rng(seed), []

    def now_and_then(draft, place):
        if luck.random() < 0.1:
            refused.append(place)
            raise OSError(28, "No space left on device")
        take_place(draft, place)

    monkeypatch.setattr(machine, "_take_place", now_and_then)
    for _ in range(200):
        try:
            study = again(tmp_path / "run")
            break
        except CannotWrite as error:
            assert str(error).startswith(f"{refused[-1]}: cannot be written (No space left on device)")
            assert str(error).endswith("the same command goes on from here")
    assert len({p.name for p in refused}) > 3 and [s.status for s in study.scores] == ["fitted", "fitted"]
    assert bits(tmp_path / "run") == calm
    assert not [p for p in (tmp_path / "run").rglob("*") if machine.is_draft(p)] and not (tmp_path / "run" / "work").exists()


def trouble(where, error, monkeypatch):
    """From now on kde meets this error, in its fit or in its scoring."""

    def fail(*args, **options):
        raise error

    def score(model, *args, **options):
        return (fail if isinstance(model, KernelDensity) else log_probs)(model, *args, **options)

    if where == "fit":
        monkeypatch.setattr(KernelDensity, "prepare", fail)
    else:
        monkeypatch.setattr("mixtura.job.jobs.log_probs", score)


@pytest.mark.parametrize(
    ("where", "error"),
    [("fit", MemoryError("no more")), ("score", torch.OutOfMemoryError("CUDA out of memory.")), ("fit", OSError(24, "Too many"))],
    ids=["memory", "device", "files"],
)
def test_a_passing_fault_of_one_family_is_shown_and_tried_again(calm, tmp_path, monkeypatch, where, error):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        trouble(where, error, patch)
        scores = {s.name: s for s in again(out).scores}
    assert scores["marginals"].status == "fitted" and scores["kde"].status == "failed"
    assert type(error).__name__ in scores["kde"].reason and scores["kde"].reason.endswith("; the same command tries it again")
    (out / "report.html").write_text("of the first sitting")
    assert [s.status for s in again(out).scores] == ["fitted", "fitted"] and bits(out) == calm
    assert not (out / "report.html").exists() and not (out / "work").exists() and fit_failures(out) == {}
    monkeypatch.setattr(Run, "fit_all", lambda *_: pytest.fail("it was finished"))
    again(out)


def test_a_fault_of_the_family_itself_is_for_good(tmp_path, monkeypatch):
    trouble("fit", ZeroDivisionError("of its own"), monkeypatch)
    assert {s.name: s.reason for s in again(tmp_path / "run").scores}["kde"] == "ZeroDivisionError: of its own"
    monkeypatch.setattr(Run, "fit_all", lambda *_: pytest.fail("it was finished"))
    again(tmp_path / "run")


def test_what_is_tried_again_has_the_time_it_would_have_had(tmp_path, monkeypatch):
    options = {"steps": None, "budget": 3}
    with monkeypatch.context() as patch:
        trouble("score", MemoryError(), patch)
        again(tmp_path / "run", **options)
    again(tmp_path / "run", **options)
    shares = [unit["share"] for name, unit in RunFolder(tmp_path / "run").state().units.items() if name.startswith("kde/")]
    assert len(shares) == 6 and set(shares) == {shares[0]}


def test_a_replay_leaves_out_what_had_failed(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        trouble("score", MemoryError(), patch)
        again(tmp_path / "run")
    study, different = replay(tmp_path / "run", tmp_path / "replay", people())
    assert different == [] and {s.name: s.status for s in study.scores}["kde"] == "skipped"


def test_a_replay_leaves_out_a_model_of_which_one_fold_had_failed(tmp_path, monkeypatch):
    """Its other fits were finished: several workers had begun with them."""
    fit_model = jobs.fit_model

    def one_fails(candidate, material, unit, *rest):
        if unit == "kde/1":
            raise ZeroDivisionError("of one fold")
        return fit_model(candidate, material, unit, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "fit_model", one_fails)
        again(tmp_path / "run", executor=ThreadPoolExecutor(1), workers=12)
    state = RunFolder(tmp_path / "run").state()
    assert "scoring" in state.units["kde/all"] and state.failures["kde"]["reason"] == "ZeroDivisionError: of one fold"
    study, different = replay(tmp_path / "run", tmp_path / "replay", people())
    scores = {score.name: score for score in study.scores}
    assert different == [] and scores["kde"].status == "skipped" and "no finished fit of it" in scores["kde"].reason
    assert RunFolder(tmp_path / "run").verdict().verdicts == RunFolder(tmp_path / "replay").verdict().verdicts


@pytest.mark.parametrize("damage", [{"seconds": "x"}, {"plan": [[1]]}, {"plan": 3}])
def test_a_replay_of_a_damaged_record_is_one_sentence(tmp_path, damage):
    again(tmp_path / "run", families=["marginals"])
    path = tmp_path / "run" / "state.json"
    state = json.loads(path.read_text())
    state["units"]["marginals/all"] |= damage
    path.write_text(json.dumps(state))
    with pytest.raises(InputError, match="state.json: damaged"):
        replay(tmp_path / "run", tmp_path / "replay", people())


def test_too_little_memory_in_the_verdict_is_one_sentence(calm, tmp_path, monkeypatch, capsys):
    people().to_csv(tmp_path / "people.csv", index=False)
    line = f"run {tmp_path}/people.csv --steps 8 --families marginals,kde --out {tmp_path}/run"

    def fail(*args, **options):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: not enough memory: you tried to allocate")

    with monkeypatch.context() as patch:
        patch.setattr(verdict, "in_nats", fail)
        with pytest.raises(SystemExit) as left:
            main(line.split())
    said = capsys.readouterr().err.splitlines()[-1]
    assert left.value.code == 2 and said.startswith("error: too little memory (") and "go on where they stopped" in said
    monkeypatch.setattr("mixtura.job.schedule.perform", lambda *_: pytest.fail("nothing was to be trained"))
    main(line.split())
    assert {k: v for k, v in bits(tmp_path / "run").items() if k.startswith("models")} == {
        k: v for k, v in calm.items() if k.startswith("models")
    }


def test_a_run_killed_in_its_first_write_goes_on(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / ".config.json.999999999@1.0.draft").write_text("{")
    again(out, families=["marginals"])
    assert not [p for p in out.iterdir() if machine.is_draft(p)]
    config = (out / "config.json").read_text()
    for path in out.iterdir():  # killed after config.json
        if path.is_file() and path.name != "config.json":
            path.unlink()
    assert again(out, families=["marginals"]).verdict.best == "marginals" and (out / "config.json").read_text() == config


# ---------------------------------------------------------------------------------- what a folder may bring along


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("replays")
    people().to_csv(place / "people.csv", index=False)
    people(20).to_csv(place / "gan.csv", index=False)
    samples = {"gan": place / "gan.csv"}
    mixtura.run(place / "people.csv", steps=2, families=["marginals"], samples=samples, out=place / "run")
    return place


def edited(place, name, **asked):
    """A copy of the run that says it asked something else."""
    config = json.loads((place / "run" / "config.json").read_text())
    folder = place / name
    folder.mkdir()
    for path in ("verdict.json", "state.json"):
        (folder / path).write_bytes((place / "run" / path).read_bytes())
    (folder / "config.json").write_text(json.dumps(config | {"asked": config["asked"] | {"samples": {}} | asked}))
    return folder


@pytest.mark.parametrize(
    ("asked", "given", "says"),
    [
        ({"features": "net.onnx"}, {}, "no folder may name one to open; give --features again"),
        ({"features": "net.onnx"}, {"features": "pca:3"}, "no folder may name one to open; give --features again"),
        ({"features": "evil.pt2"}, {}, "opening evil.pt2 can run code"),
        ({}, {"features": "net.onnx"}, "leave --features out"),
        ({"models": ["mine"]}, {}, r"used \(mine\) are to be given again, in Python with models="),
        ({"samples": {"gan": "0"}}, {}, "the same bytes: --samples gan=FILE"),
        ({}, {"samples": {"gan": people(20)}}, "leave --samples out"),
        ({"seed": "evil"}, {}, "config.json: damaged"),
        ({"features": ["x"]}, {}, "config.json: damaged"),
    ],
)
def test_a_replay_takes_no_code_model_or_samples_out_of_a_folder(place, tmp_path, asked, given, says):
    folder = edited(place, f"run{len(list(place.iterdir()))}", **asked)
    with pytest.raises(InputError, match=says):
        replay(folder, tmp_path / "out", place / "people.csv", **given)
    assert not (tmp_path / "out").exists()


def test_a_replay_takes_only_what_a_run_is_asked(place, tmp_path):
    """A folder cannot have another one removed, nor send the run elsewhere."""
    mixtura.run(people(), steps=2, families=["marginals"], out=tmp_path / "precious")
    folder = edited(place, "greedy", fresh=True, out=str(tmp_path / "elsewhere"), stops=None)
    with pytest.raises(InputError, match="the folder is not empty"):
        replay(folder, tmp_path / "precious", place / "people.csv")
    assert (tmp_path / "precious" / "verdict.json").exists() and not (tmp_path / "elsewhere").exists()


def test_a_replay_with_its_samples_given_again_has_the_same_bits(place, capsys):
    main(f"run {place}/people.csv --replay {place}/run --samples gan={place}/gan.csv --out {place}/replayed".split())
    assert capsys.readouterr().out == "same bits: yes\n"
