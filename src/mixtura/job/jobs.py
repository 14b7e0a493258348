"""A fit of one model in one fold as a job of its own: a record in the folder ``work`` of the run in, result files out.

    work/material.safetensors, material.json   what all jobs share, written once
    work/STEM.job.json           the job: which model, which fold, how long
    work/STEM.progress.json      how far it is, while it runs
    work/STEM.checkpoint         from which a killed fit goes on
    work/STEM.history.jsonl      its training records
    work/STEM.safetensors        log-densities of unseen rows and samples
    models/NAME/                 the model, of a final fit; refits/NAME/, of a refit
    work/STEM.outcome.json       what its fit took, or why it failed; written last

STEM is the name of the model and the number of the fold, "all" for the final fit, or "refit" (:mod:`mixtura.job.refits`).
Every file is written whole or not at all, and depends on the record and the material alone (seconds aside), so a job that is done
twice, by two processes or on two machines that share the folder, gives the same files.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from mixtura.blending.nats import log_probs, sound
from mixtura.contracts import InputError, Model, density_kind
from mixtura.folder.io import checked, content_of, read_json, read_lines, read_tensors, write_json, write_lines, write_tensors
from mixtura.folder.layout import RunFolder
from mixtura.ground import machine
from mixtura.ground.encode import Columns
from mixtura.ground.machine import CannotWrite, write
from mixtura.ground.rng import generator
from mixtura.job.fitting import Again, Candidate, Fitted, Length, Material, Moment, Paused, fit_model
from mixtura.job.race import hopelessly_behind, why_stopped
from mixtura.job.scoring import Sampled, SampleJudge
from mixtura.job.splits import Splits
from mixtura.job.workers import MOST_DEATHS, use_one_thread

#: seconds between two progress files of a job
SAVE_PROGRESS_EVERY = 0.5
#: select rows that are looked at when a fit pauses
LOOK_ROWS = 300
#: seconds that a fit has at least, however late its worker began
LEAST_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """One fit. fold: which fold is left out, None of the final fit. own: whether the model is a callable of the person's own.
    device: of the sitting that asks. refit: whether it is the fit to fit and select rows. Its length: the ``plan`` to repeat,
    ``steps``, or a ``share`` in seconds, which ends by the time ``ends`` (seconds since 1970) even where the job waited long for
    a worker. races: whether its model may be stopped. pause: seconds of training after which it pauses. stopped: why the model
    has no more time; it is not scored for the blend. aside: why it is not scored for it although it had its time."""

    name: str
    fold: int | None
    own: bool = False
    device: str = "cpu"
    refit: bool = False
    plan: list[list[int]] | None = None
    steps: int | None = None
    share: float | None = None
    ends: float | None = None
    races: bool = False
    pause: float | None = None
    stopped: str | None = None
    aside: str | None = None

    @property
    def unit(self) -> str:
        """The name of the fit, from which its draws follow."""
        return unit_of_refit(self.name) if self.refit else unit_name(self.name, self.fold)


def unit_name(name: str, fold: int | None) -> str:
    """The name of a fit: NAME/0, NAME/1, …, NAME/all."""
    return f"{name}/{'all' if fold is None else fold}"


def unit_of_refit(name: str) -> str:
    """The name of the fit to fit and select rows."""
    return f"{name}/refit"


class Outcome(NamedTuple):
    """How a job ended: what the fit took, why it failed, if it did, and whether it only paused."""

    entry: dict[str, Any]
    failure: dict[str, Any] | None
    paused: bool


@dataclass(frozen=True)
class JobFolder:
    """The files of the jobs of one run (see the module), by the name of the fit."""

    run: RunFolder

    def path(self, unit: str, ending: str) -> Path:
        """A file of one job."""
        return self.run.work_path / f"{unit.replace('/', '.')}.{ending}"

    def write_material(self, material: Material) -> None:
        """What all jobs share, in every sitting. The columns are those of schema.json."""
        tensors = {f"encoding.{name}": value for name, value in material.encoding.state_dict().items()}
        tensors |= {"x": material.x, "fit": material.splits.fit, "select": material.splits.select}
        if material.context is not None:
            tensors["context"] = material.context
        write_tensors(self.run.work_path / "material.safetensors", tensors)
        plain = {"seed": material.seed, "samples": material.samples, "seconds": material.seconds, "folds": material.splits.folds}
        write_json(self.run.work_path / "material.json", plain)

    @property
    def has_material(self) -> bool:
        """Whether it is written."""
        return (self.run.work_path / "material.json").exists()

    def material(self, device: str) -> Material:
        """The inverse of :meth:`write_material`, for a job on this device; the report rows, which no job needs, are left out."""
        path = self.run.work_path / "material.safetensors"
        plain, tensors, space = read_json(path.with_suffix(".json")), read_tensors(path), self.run.schema().modelled.space
        with content_of(path):
            encoding = Columns(space)
            state = {key.removeprefix("encoding."): value for key, value in tensors.items() if key.startswith("encoding.")}
            encoding.load_state_dict(state)
            nothing = torch.empty(0, dtype=torch.int64)
            splits = Splits(tensors["fit"], tensors["select"], nothing, "", plain["folds"], 0)
            return Material(
                space, tensors["x"], tensors.get("context"), splits, encoding, plain["seed"], plain["samples"],
                plain["seconds"], torch.device(device),
            )  # fmt: skip

    def write_job(self, job: Job) -> None:
        """The record that a worker reads."""
        write_json(self.path(job.unit, "job.json"), asdict(job))

    def job(self, unit: str) -> Job:
        """What :meth:`write_job` wrote."""
        path = self.path(unit, "job.json")
        return checked(Job, read_json(path), path)

    def withdraw(self, unit: str) -> None:
        """Take the record away: a worker that is still at it stops when it notices."""
        machine.remove(self.path(unit, "job.json"))

    def is_withdrawn(self, unit: str) -> bool:
        """Whether nobody waits for this job any more."""
        return not self.path(unit, "job.json").exists()

    def forget_moment(self, unit: str) -> None:
        """A job is to begin anew: how far an earlier worker came with it says nothing of the next."""
        machine.remove(self.path(unit, "progress.json"))

    def moment(self, unit: str) -> Moment | None:
        """How far a job is; None where its worker has not begun with it yet."""
        try:
            return Moment(**read_json(self.path(unit, "progress.json")))
        except (InputError, TypeError):
            return None

    def outcome(self, unit: str) -> Outcome | None:
        """How the job ended; None of a job that is not done."""
        path = self.path(unit, "outcome.json")
        if not path.exists():
            return None
        with content_of(path):
            found = read_json(path)
            failure = None if found["failure"] is None else dict(found["failure"])
            return Outcome(dict(found["entry"]), failure, bool(found["paused"]))

    def forget_outcome(self, unit: str) -> None:
        """A job whose fault may have passed is to be done again."""
        machine.remove(self.path(unit, "outcome.json"))

    def forget_results(self, unit: str) -> None:
        """A model that failed has none, and what an earlier pause left is no measure of the others."""
        machine.remove(self.path(unit, "safetensors"))

    def history(self) -> list[dict[str, Any]]:
        """The training records of all jobs."""
        return [record for path in sorted(self.run.work_path.glob("*.history.jsonl")) for record in read_lines(path)]

    def nats_so_far(self, splits: Splits, seed: int, but: str) -> dict[str, torch.Tensor]:
        """Nats of the rows that are :func:`looked_at`, by the name of every other model that has been looked at, or is fitted."""
        order = torch.argsort(torch.argsort(looked_at(splits, seed)))
        at, found = torch.isin(splits.select, looked_at(splits, seed)).nonzero().squeeze(1)[order], {}
        for path in sorted(self.run.work_path.glob("*.all.safetensors")):
            name, tensors = path.name.removesuffix(".all.safetensors"), read_tensors(path)
            if "nats" in tensors:
                found[name] = tensors["nats"][at]
            elif "look" in tensors:
                found[name] = tensors["look"]
        found.pop(but, None)
        return found

    def results(self, unit: str) -> dict[str, torch.Tensor]:
        """Of a job that is done: ``nats`` of the rows it did not learn from, where the model has a density; ``samples``, where
        any are kept; of a fold ``position``, which rows of the training rows it left out."""
        path = self.path(unit, "safetensors")
        return read_tensors(path) if path.exists() else {}


# -------------------------------------------------------------------------------------------------------- doing a job


def do_job(folder: str, unit: str, own: Callable[..., Model] | None = None) -> None:
    """Do one job of the run in ``folder``: what an executor is handed. Whatever goes wrong with the model is written down as its
    outcome; CannotWrite is raised. ``own``: the person's own model, where it is one."""
    use_one_thread()
    files = JobFolder(RunFolder(Path(folder)))
    if files.is_withdrawn(unit):
        return
    write_json(files.path(unit, "progress.json"), Moment(0.0)._asdict())
    saved = time.monotonic()
    job = files.job(unit)
    for moment in perform(files, files.material(job.device), job, own):
        now = time.monotonic()
        if now - saved > SAVE_PROGRESS_EVERY:
            saved = now
            if files.is_withdrawn(unit):
                return
            write_json(files.path(unit, "progress.json"), moment._asdict())


def perform(files: JobFolder, material: Material, job: Job, own: Callable[..., Model] | None = None) -> Iterator[Moment]:
    """Do one job and leave its files; yields how far it is. A fault of the model is an outcome; CannotWrite is raised."""
    entry: dict[str, Any] = {} if job.share is None else {"share": job.share}
    paused, failure = False, None
    try:
        if job.refit:
            yield from _fit_again(files, material, job, own, entry)
        else:
            paused = yield from _fit_and_score(files, material, job, own, entry)
    except CannotWrite:
        raise
    except InputError as error:
        failure = describe_failure("skipped", str(error), error)
    except (Exception, SystemExit) as error:  # one family must not take the others down; its reason is in the table
        write(files.run.work_path / f"{job.name}.error.txt", traceback.format_exc())
        failure = _failed(error)
    write_json(files.path(job.unit, "outcome.json"), Outcome(entry, failure, paused)._asdict())
    if not paused and failure is None:  # until now, so that a fit killed while it is scored has not to be trained again
        machine.remove(files.path(job.unit, "checkpoint"))


def _failed(error: BaseException) -> dict[str, Any]:
    message = next((line for line in str(error).splitlines() if line.strip()), "no message")
    return describe_failure("failed", f"{type(error).__name__}: {message}", error)


def killed(times: int) -> str:
    """Why a model failed whose process died so often."""
    return f"its process was killed {times} times, most likely for want of memory"


def describe_failure(status: str, reason: str, error: BaseException) -> dict[str, Any]:
    """What a run keeps of a failure. The machine's faults pass: the model has another chance in the next sitting."""
    if not machine.passes(error):
        return {"status": status, "reason": reason}
    return {"status": "failed", "reason": f"{reason}; the same command tries it again", "again": True}


def _fit_and_score(
    files: JobFolder, material: Material, job: Job, own: Callable[..., Model] | None, entry: dict[str, Any]
) -> Generator[Moment, None, bool]:
    """Fit, score and sample one model; fills ``entry`` as it comes to know what its fit took. Returns whether it only paused."""
    name, splits, seed = job.name, material.splits, material.seed
    candidate = Candidate(name, own)
    if job.fold is None:
        rows, unseen = splits.training, splits.select
    else:
        learn, left = splits.fold(job.fold)
        rows, unseen = splits.training[learn], splits.training[left]
    checkpoint = files.path(job.unit, "checkpoint")
    fitted = yield from fit_model(candidate, material, job.unit, rows, _length(job, checkpoint), checkpoint)
    model = fitted.model
    look = None
    if job.races and job.stopped is None and density_kind(model) is not None:
        rows, began = looked_at(splits, seed), time.monotonic()
        look, _ = nats_of(model, material, rows, generator(seed, name, "look"))
        entry["scores_in"] = (time.monotonic() - began) * len(splits.select) / len(rows)
    if isinstance(fitted, Paused):
        entry |= {"trained": fitted.seconds, "curve": fitted.curve}
        if look is not None:
            write_tensors(files.path(job.unit, "safetensors"), {"look": look})
            entry["look"] = (fitted.step, float(look.mean()))
        return True
    stopped = job.stopped
    if look is not None:
        stopped = why_stopped(look, 0.0, files.nats_so_far(splits, seed, but=name), fitted.entry["seconds"])
    entry |= fitted.entry
    if fitted.history:
        write_lines(files.path(job.unit, "history.jsonl"), fitted.history)
    if job.fold is not None:
        tensors = {"position": left, **_sampled(model, material, material.samples // splits.folds, name, f"fold {job.fold}")}
        if density_kind(model) is not None:
            tensors["nats"], _ = nats_of(model, material, unseen, generator(seed, name, "fold", job.fold))
            entry["unseen"] = float(tensors["nats"].mean())
        write_tensors(files.path(job.unit, "safetensors"), tensors)
        return False
    yield Moment(1.0, note="scoring")
    began = time.monotonic()
    # one that cannot sample fails here, alone
    model.sample(8, context=material.context_of(splits.training[:8]), rng=generator(seed, name, "trial"))
    tensors = {} if splits.folds else _sampled(model, material, material.samples, name, "select")
    if stopped is not None:
        entry["stopped"] = stopped
    elif (aside := job.aside or _why_aside(files, material, job, model)) is not None:
        entry["aside"] = aside
    elif density_kind(model) is not None and not splits.folds:
        tensors["nats"], _ = nats_of(model, material, unseen, generator(seed, name, "select"))
        entry["unseen"] = float(tensors["nats"].mean())
    entry["scoring"] = time.monotonic() - began
    _write_model(files, job, model)
    if tensors:
        write_tensors(files.path(job.unit, "safetensors"), tensors)
    return False


def _why_aside(files: JobFolder, material: Material, job: Job, model: Model) -> str | None:
    """Why a model that is judged by samples is left out of the blend in nats: its bound, which may be dear to estimate, adds
    nothing to it."""
    splits, seed = material.splits, material.seed
    if job.races or job.share is None or splits.folds or density_kind(model) != "bound":
        return None
    look, _ = nats_of(model, material, looked_at(splits, seed), generator(seed, job.name, "look"))
    behind = hopelessly_behind(look, 0.0, files.nats_so_far(splits, seed, but=job.name))
    return behind and f"its bound, {behind}, adds nothing to a blend in nats: few rows were scored"


def _write_model(files: JobFolder, job: Job, model: Model) -> None:
    settings = None if job.own else cast(Any, model).config.model_dump(mode="json")
    files.run.write_model(job.name, model, None if job.own else job.name, settings, refit=job.refit)


def _fit_again(
    files: JobFolder, material: Material, job: Job, own: Callable[..., Model] | None, entry: dict[str, Any]
) -> Generator[Moment, None, None]:
    """Fit a model again, on fit and select rows. It is ``kept`` as it was where rows that are held out of both fits say so."""
    name, splits, seed = job.name, material.splits, material.seed
    before = files.run.model(name, material.space, {} if own is None else {name: own})
    if density_kind(before) is None:
        entry["left"] = "not fitted again: without a density nothing says whether that is better"
        return
    rows, held = splits.again(seed)
    checkpoint = files.path(job.unit, "checkpoint")
    again, length = Again(before, held), _length(job, checkpoint)
    fitted = yield from fit_model(Candidate(name, own), material, job.unit, rows, length, checkpoint, again)
    model = fitted.model
    if isinstance(fitted, Fitted):  # a refit is never paused
        entry |= fitted.entry
        write_lines(files.path(job.unit, "history.jsonl"), fitted.history)
    yield Moment(1.0, note="scoring")
    model.sample(8, context=material.context_of(rows[:8]), rng=generator(seed, name, "trial"))
    after, then = (nats_of(m, material, held, generator(seed, name, "held"))[0] for m in (model, before))
    if lost := int(((after == -torch.inf) & (then > -torch.inf)).sum()):
        entry["kept"] = f"fitted again, it makes {lost:,} of {len(held):,} rows that neither fit learnt from impossible"
        return
    possible = then > -torch.inf
    less = float((then - after)[possible].mean()) if possible.any() else 0.0
    if less > 0:
        entry["kept"] = f"fitted again, it has {less:.2f} nats a row less on {len(held):,} rows that neither fit learnt from"
        return
    _write_model(files, job, model)


def looked_at(splits: Splits, seed: int) -> Tensor:
    """Numbers of the select rows that show, when a fit pauses, whether its model can still be a part of the blend."""
    order = torch.randperm(len(splits.select), generator=generator(seed, "look"))
    return splits.select[order[:LOOK_ROWS]]


def _length(job: Job, checkpoint: Path) -> Length:
    """How long the fit is; of one that has begun before, the whole of its share counts, not what is left of this sitting."""
    if job.plan is not None:
        return Length(plan=tuple((steps, end) for steps, end in job.plan))
    if job.share is None or job.ends is None or checkpoint.exists():
        return Length(steps=job.steps, seconds=job.share, pause=job.pause, stop=job.stopped is not None)
    return Length(seconds=max(LEAST_SECONDS, min(job.share, job.ends - time.time())))


def _sampled(model: Model, material: Material, n: int, name: str, purpose: str) -> dict[str, torch.Tensor]:
    """Samples that weights are chosen by, where any are kept."""
    if not material.samples:
        return {}
    return {"samples": model.sample(n, rng=generator(material.seed, name, "samples", purpose))}


class Measured(NamedTuple):
    """A model on the report rows: ``nats`` of each (n,), where it has a density, and the Monte-Carlo error of their mean; its
    samples, where models are judged by them."""

    nats: Tensor | None
    mc_error: float
    sampled: Sampled | None


class Asked(NamedTuple):
    """A model to be measured: its name, its callable where it is the person's own, the numbers (n,) of the rows, who judges its
    samples, if anybody does, and whether it is the model that was fitted again."""

    name: str
    own: Callable[..., Model] | None
    rows: Tensor
    judge: SampleJudge | None
    refit: bool = False


def measure_of(folder: str, asked: Asked) -> Measured | dict[str, Any]:
    """:func:`measure` one model of the run in ``folder``: what an executor is handed when the verdict opens the report rows."""
    files = JobFolder(RunFolder(Path(folder)))
    material = files.material("cpu")  # where models are once they are fitted
    own = {} if asked.own is None else {asked.name: asked.own}
    return measure(asked, files.run.model(asked.name, material.space, own, refit=asked.refit), material)


def lost(asked: Asked) -> dict[str, Any]:
    """What is found of a model that takes along whatever process measures it."""
    return {"status": "failed", "reason": f"{killed(MOST_DEATHS)}; the same command tries it again", "again": True}


def measure(asked: Asked, model: Model, material: Material) -> Measured | dict[str, Any]:
    """A model on report rows; or, as in training, how it failed: one model that breaks must not take the others down."""
    try:
        nats, mc_error = None, 0.0
        if density_kind(model) is not None:
            nats, mc_error = nats_of(model, material, asked.rows, generator(material.seed, asked.name, "report"))
        return Measured(nats, mc_error, None if asked.judge is None else asked.judge.of_model(asked.name, model))
    except CannotWrite:
        raise
    except (Exception, SystemExit) as error:  # its reason is in the table
        return _failed(error)


def nats_of(model: Model, material: Material, rows: torch.Tensor, rng: torch.Generator) -> tuple[torch.Tensor, float]:
    """As :func:`log_probs` of the rows with these numbers; FloatingPointError where one is NaN or +inf."""
    nats, error = log_probs(model, material.x[rows], context=material.context_of(rows), rng=rng)
    return sound(nats, model), error

