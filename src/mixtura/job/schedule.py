"""Which fit is next, and what becomes of it: the fits of a run, one after the other here, or several at a time on workers."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor
from dataclasses import replace
from typing import Any

import torch

from mixtura.contracts import InputError, Note
from mixtura.ground.machine import CannotWrite
from mixtura.job.budget import Budget
from mixtura.job.fitting import Candidate, Material, Moment
from mixtura.job.jobs import Job, JobFolder, do_job, killed, perform, unit_name
from mixtura.job.race import LIKELY, LOOKS, forecast, leading, why_stopped
from mixtura.job.records import Judged, Progress, Record
from mixtura.job.state import RunState
from mixtura.job.workers import MOST_DEATHS, Processes

#: seconds between two looks at the jobs, between two looks at how far they are, and between two writes of state.json
LOOK_EVERY, SHOW_EVERY, SAVE_EVERY = 0.02, 0.2, 2.0
#: times that a worker may die before it begins with a job, which is no fault of the model, but would go on for ever where no
#: worker can live; by the same job without getting further in it: ``workers.MOST_DEATHS``
MOST_DEATHS_AT_START = 20


class Schedule:
    """The fits of a run. Each is given its share of the budget, which bounds the wall time of all of them together, when it
    begins. ``first``: models that several workers begin with where no budget bounds the fits, the slowest first. ``race``: models
    that train within a budget go on only while they can still win (:mod:`mixtura.job.race`)."""

    def __init__(
        self, files: JobFolder, material: Material, candidates: Sequence[Candidate], state: RunState, budget: Budget,
        *, steps: int | None, stops: Mapping[str, Mapping[str, Any]] | None, first: Sequence[str] = (), race: bool = False,
    ) -> None:  # fmt: skip
        self.files, self.material, self.state, self.budget, self.steps, self.stops = files, material, state, budget, steps, stops
        self.first, self.racing = first, race and math.isfinite(budget.seconds) and not material.splits.folds
        self.waiting: list[tuple[str, int | None]] = []
        self.candidates = {candidate.name: candidate for candidate in candidates}
        self.folds: list[int | None] = [*range(material.splits.folds), None]
        self.begun: set[str] = set()
        self.running: dict[str, Any] = {}
        self.moments: dict[str, Moment] = {}
        self.furthest: dict[str, float] = {}
        self.deaths: dict[str, int] = {}
        self.deaths_at_start: dict[str, int] = {}
        self.failed_at: dict[str, int] = {}
        self.leading: set[str] = set()

    # -------------------------------------------------------------------------------------------------- all of them

    def here(self) -> Iterator[Record]:
        """All fits in this process, one after the other; a model that fails is a record, not the end. Raises CannotWrite where a
        disk takes no more."""
        names = self._queue()
        yield from self._over(names)
        while names:
            name, fold = self._pop()
            if not any(unit.startswith(f"{name}/") for unit in self.begun):
                yield Progress(name, 0.0, None, None)
            if (job := self._next(name, fold)) is not None:
                yield from self._do_here(job)
                self._take(job.unit)
            yield from self._over(names)

    def on(self, engine: Executor) -> Iterator[Record]:
        """All fits on the workers of ``engine``, several at a time; as :meth:`here`. InputError where the engine itself fails."""
        if not self.files.has_material:
            self.files.write_material(self.material)
        names, shown = self._queue(), 0.0
        if math.isinf(self.budget.seconds):  # so that no worker is still at a long fit when the others have ended
            self.waiting.sort(key=lambda item: self.first.index(item[0]) if item[0] in self.first else len(self.first))
        alone = self.budget.with_a_worker(self.budget.timed)
        self.waiting.sort(key=lambda item: item[0] not in alone)  # they train until the others have ended
        try:
            while names:
                while self.waiting and len(self.running) < self.budget.workers:
                    yield from self._submit(engine, *self._pop())
                for unit in [unit for unit, future in self.running.items() if future.done()]:
                    yield from self._ended(engine, unit)
                yield from self._over(names)
                if time.monotonic() - shown > SHOW_EVERY:
                    shown = time.monotonic()
                    yield from self._progress()
                if time.monotonic() - self.state.saved > SAVE_EVERY:
                    self.state.save()
                time.sleep(LOOK_EVERY)
        finally:
            for unit, future in self.running.items():
                self.files.withdraw(unit)
                future.cancel()

    def _queue(self) -> list[str]:
        """The models to be judged. Takes in what is done, forgets what a passing fault ended, queues the fits that are left."""
        for name in self.candidates:
            for fold in self.folds:
                unit = unit_name(name, fold)
                found = self.files.outcome(unit)
                if found is not None and (found.failure or {}).get("again"):
                    self.files.forget_outcome(unit)
                elif found is not None:
                    self._take(unit, save=False)
        for name in sorted(self.candidates, key=self._races):  # what closed fits have reached is known when the race goes on
            for fold in self.folds:
                if unit_name(name, fold) not in self.begun and (name, fold) not in self.waiting:
                    self.waiting.append((name, fold))
        return [*self.candidates]

    def _pop(self) -> tuple[str, int | None]:
        """The fit that is next. In a race those that have paused less often, and then those that are furthest behind: the best
        models have all the time that is left."""
        if self.racing:

            def turn(item: tuple[str, int | None]) -> tuple[int, float]:
                looks = self.state.units.get(unit_name(*item), {}).get("looks", ())
                return len(looks), _as_curve(looks[-1:])[-1][1] if looks and looks[-1] else -math.inf

            self.waiting.sort(key=turn)
        return self.waiting.pop(0)

    def _over(self, names: list[str]) -> Iterator[Record]:
        """Take the models out of ``names`` that have no fit any more, running or waiting."""
        self.waiting = [(name, fold) for name, fold in self.waiting if name not in self.state.failures]
        for name in [name for name in names if self._is_over(name)]:
            names.remove(name)
            yield self._judged(name)

    # ------------------------------------------------------------------------------------------------------- the race

    def _races(self, name: str) -> bool:
        """Whether a model has its time bit by bit."""
        return self.racing and name in self.budget.timed and name not in self.state.again

    def _why_stopped(self, name: str) -> str | None:
        """Why a model that has paused has no more time; None where it has, or has not been looked at."""
        known = self.state.units.get(unit_name(name, None), {})
        if "stopped" not in known and "looks" in known and None not in known["looks"]:
            mine = self.files.results(unit_name(name, None))["look"]
            others = self.files.nats_so_far(self.material.splits, self.material.seed, but=name)
            likely = {other: LIKELY * hope if math.isfinite(hope := self._hoped(other)) else 0.0 for other in others}
            others = {other: nats + likely[other] for other, nats in others.items() if other not in self._out()}
            known["stopped"] = why_stopped(mine, self._hoped(name), others, known["trained"])
        return known.get("stopped")

    def _hoped(self, name: str) -> float:
        """Nats a row that a fit which has paused may still gain if all others stopped; 0 of one that is over."""
        known = self.state.units.get(unit_name(name, None), {})
        if "plan" in known or not known.get("curve") and None in known.get("looks", [None]):
            return 0.0
        left = max(0.0, self.budget.left(self.state.units, self._out(), self.state.elapsed, self.leading))
        return forecast(_as_curve(known["curve"] or known["looks"]), 1 + left / known["trained"])

    def _leg(self, job: Job) -> Job:
        """The next part of a fit in the race: to its next pause, to its end, or to a stop here."""
        known = self.state.units.setdefault(job.unit, {})
        self.leading = leading(self.files.nats_so_far(self.material.splits, self.material.seed, but=job.name))
        for name, _ in self.waiting:  # those that stop leave their time to the others
            self._why_stopped(name)
        if (why := self._why_stopped(job.name)) is not None:
            return replace(job, share=known["share"], races=True, stopped=why)
        trained, share, looks = known.get("trained", 0.0), self._fair_share(job.unit), len(known.get("looks", ()))
        pause = trained + LOOKS[looks] * share if looks < len(LOOKS) else None
        known["share"] = trained + share
        self.state.save()
        return replace(job, share=trained + share, races=True, pause=pause)

    def _fair_share(self, unit: str) -> float:
        """Seconds that a fit has from now on if all that are not stopped go on."""
        begun, units = self.begun - {unit}, self.state.units
        return self.budget.share(begun, units, self._out(), self.state.elapsed, leading=self.leading)

    def _out(self) -> set[str]:
        """The models that have no more time."""
        stopped = {name for name in self.budget.timed if self.state.units.get(unit_name(name, None), {}).get("stopped")}
        return stopped | {*self.state.failures}

    # ------------------------------------------------------------------------------------------------------ one of them

    def _next(self, name: str, fold: int | None) -> Job | None:
        """The job of a fit that begins now; None, with the failure noted, where a replay has nothing to repeat."""
        unit = unit_name(name, fold)
        job = Job(name, fold, self.candidates[name].own is not None, str(self.material.device))
        self.begun.add(unit)
        if self.stops is not None:
            if not all("plan" in self.stops.get(unit_name(name, k), {}) for k in self.folds):
                reason = f"{name}: the run to be replayed has no finished fit of it"
                self.state.fail(name, {"status": "skipped", "reason": reason})
                return None
            known = self.stops[unit]
            return replace(job, plan=known["plan"], stopped=known.get("stopped"), aside=known.get("aside"))
        if name not in self.budget.timed or math.isinf(self.budget.seconds):
            return replace(job, steps=self.steps)
        if self._races(name):
            return self._leg(job)
        share = self._share(name, unit)
        left = (1 - self.budget.ending) * self.budget.seconds - self.state.elapsed
        if name in self.state.again:  # one that the race had stopped is only scored again
            return replace(job, share=share, stopped=self.state.units.get(unit, {}).get("stopped"))
        return replace(job, share=share, ends=time.time() + max(left, share))

    def _share(self, name: str, unit: str) -> float:
        """Seconds for a fit; of one that was begun in an earlier sitting those that it had then."""
        share = self.state.units.get(unit, {}).get("share")
        if share is not None:
            return share
        if name in self.state.again:
            share = self.budget.share_again(name, self.state.units)
        else:
            begun = self.begun - {unit}
            share = self.budget.share(begun, self.state.units, self.state.failures, self.state.elapsed, name)
        self.state.units[unit] = {"share": share}
        self.state.save()
        return share

    def _do_here(self, job: Job, note: str = "") -> Iterator[Record]:
        for moment in perform(self.files, self.material, job, self.candidates[job.name].own):
            if time.monotonic() - self.state.saved > SAVE_EVERY:
                self.state.save()
            yield self._progress_of(job.name, {job.unit: moment}, note)

    def _submit(self, engine: Executor, name: str, fold: int | None) -> Iterator[Record]:
        """Hand a job to the engine; a model that cannot be sent to another process is fitted here."""
        if not any(unit.startswith(f"{name}/") for unit in self.begun):
            yield Progress(name, 0.0, None, None)
        if (job := self._next(name, fold)) is None:
            return
        self.files.write_job(job)
        self.files.forget_moment(job.unit)
        own = self.candidates[name].own
        arguments = (str(self.files.run.path.resolve()), job.unit, *(() if own is None else (own,)))
        try:
            self.running[job.unit] = engine.submit(do_job, *arguments)
        except Exception as error:  # an engine raises what it likes for what it cannot send
            if own is None:
                raise InputError(
                    f"executor: takes no job ({type(error).__name__}: {error}); give another, the same command goes on from here"
                ) from error
            yield from self._do_own_here(job, error)

    def _do_own_here(self, job: Job, error: BaseException) -> Iterator[Record]:
        why = f"cannot be sent to a worker ({type(error).__name__})"
        warnings.warn(
            f"{job.name}: {why}, so it is fitted in this process, while the workers do the others; "
            "define it in a module to have it fitted beside them",
            Note, stacklevel=2,
        )  # fmt: skip
        yield from self._do_here(job, f"fitted here: {why}")
        self._take(job.unit)

    def _ended(self, engine: Executor, unit: str) -> Iterator[Record]:
        """Take in a job whose future is done; or, where its worker is gone, see to it that it is done again."""
        future, job = self.running.pop(unit), self.files.job(unit)
        try:
            future.result()
        except CannotWrite:
            raise
        except (Exception, CancelledError) as error:  # an engine raises what it likes for a lost worker
            if self.files.outcome(unit) is None:
                yield from self._lost(engine, job, error)
                return
        self._take(unit)

    def _lost(self, engine: Executor, job: Job, error: BaseException) -> Iterator[Record]:
        if isinstance(error, BrokenExecutor) and isinstance(engine, Processes):
            if self._may_try_again(job.unit):
                yield from self._submit(engine, job.name, job.fold)
                return
            died = max(self.deaths.get(job.unit, 0), self.deaths_at_start.get(job.unit, 0))
            reason = killed(died)
        elif isinstance(error, BrokenExecutor):
            raise InputError(
                f"executor: one of its workers died and it takes no more jobs ({type(error).__name__}); "
                "with a new one the same command goes on from here"
            ) from error
        elif job.own:
            yield from self._do_own_here(job, error)
            return
        else:
            said = next((line for line in str(error).splitlines() if line.strip()), "no message")
            reason = f"its worker was lost ({type(error).__name__}: {said})"
        self.files.forget_results(job.unit)
        self.state.fail(job.name, {"status": "failed", "reason": f"{reason}; the same command tries it again", "again": True})

    def _may_try_again(self, unit: str) -> bool:
        """Whether a job whose process died is worth another. Deaths count from the furthest that any of its workers came."""
        moment = self.files.moment(unit)
        if moment is None:
            self.deaths_at_start[unit] = self.deaths_at_start.get(unit, 0) + 1
            return self.deaths_at_start[unit] < MOST_DEATHS_AT_START
        further = moment.done > self.furthest.get(unit, -1.0)
        self.furthest[unit] = max(moment.done, self.furthest.get(unit, -1.0))
        self.deaths[unit] = 1 if further else self.deaths[unit] + 1
        return self.deaths[unit] < MOST_DEATHS

    def _take(self, unit: str, *, save: bool = True) -> None:
        """Take in the outcome of a job that is done. Of several fits of a model that failed, the first gives the reason, in
        whatever order they ended."""
        name, found = unit.rpartition("/")[0], self.files.outcome(unit)
        if found is None:
            raise InputError(f"{self.files.run.path}: {unit} ended without an outcome; the same command goes on from here")
        self.moments.pop(unit, None)
        known = self.state.units[unit] = self.state.units.get(unit, {}) | found.entry
        if found.paused:
            known["looks"] = [*known.get("looks", ()), known.pop("look", None)]
            known.pop("stopped", None)  # it has not been decided at this look
            self.files.forget_outcome(unit)
            self.begun.discard(unit)
            self.waiting.append((name, None))
        else:
            self.begun.add(unit)
        if found.failure is not None:  # the others are not to be measured against what it had reached
            self.files.forget_results(unit)
        if found.failure is not None and self._order(unit) < self.failed_at.get(name, len(self.folds)):
            self.failed_at[name] = self._order(unit)
            self.state.failures[name] = found.failure
        if save:
            self.state.save()

    def _order(self, unit: str) -> int:
        fold = unit.rpartition("/")[2]
        return len(self.folds) - 1 if fold == "all" else int(fold)

    # --------------------------------------------------------------------------------------------------- what is told

    def _progress(self) -> Iterator[Progress]:
        """Of every model that has a job under way, where it has moved on."""
        moved = set()
        for unit in self.running:
            moment = self.files.moment(unit)
            if moment is not None and moment != self.moments.get(unit):
                self.moments[unit] = moment
                moved.add(unit.rpartition("/")[0])
        for name in moved:
            mine = {unit: moment for unit, moment in self.moments.items() if unit.startswith(f"{name}/")}
            yield self._progress_of(name, mine)

    def _progress_of(self, name: str, running: Mapping[str, Moment], note: str = "") -> Progress:
        units = [unit_name(name, fold) for fold in self.folds]
        ended = sum(unit in self.begun and unit not in running and unit not in self.running for unit in units)
        done = (ended + sum(moment.done for moment in running.values())) / len(units)
        told = [moment.validation for moment in running.values() if moment.validation is not None]
        left = [moment.left for moment in running.values() if moment.left is not None]
        notes = [moment.note for moment in running.values() if moment.note]
        return Progress(name, min(1.0, done), told[-1] if told else None, max(left, default=None), notes[-1] if notes else note)

    def _is_over(self, name: str) -> bool:
        return all(other != name for other, _ in self.waiting) and not any(unit.startswith(f"{name}/") for unit in self.running)

    def _judged(self, name: str) -> Judged:
        self.state.again.pop(name, None)
        failure = self.state.failures.get(name)
        if failure is not None:
            return Judged(name, failure["status"], failure["reason"], None)
        why = why_no_nats(self.state.units, name)
        nats = None if why else select_nats(self.files, name, self.material.splits.folds)
        return Judged(name, "fitted", why or "", None if nats is None else float(nats.mean()))


def _as_curve(points: Sequence[Sequence[Any]]) -> list[tuple[int, float]]:
    """(step, nats a row) out of JSON, which has null for the −∞ of rows that are impossible."""
    return [(step, -math.inf if nats is None else nats) for step, nats in points]


def why_no_nats(units: Mapping[str, Mapping[str, Any]], name: str) -> str | None:
    """Why a model has no part in the blend in nats: it had no more time, or its bound is far behind; None of one that may
    have."""
    known = units.get(unit_name(name, None), {})
    return known.get("stopped") or known.get("aside")


def select_nats(files: JobFolder, name: str, folds: int) -> torch.Tensor | None:
    """(n,) nats of the rows that choose weights: the select rows, or, cross-fitted, all training rows, each under the model that
    did not learn from it. None where the model has no density."""
    if not folds:
        return files.results(unit_name(name, None)).get("nats")
    pieces = [files.results(unit_name(name, k)) for k in range(folds)]
    if any("nats" not in piece for piece in pieces):
        return None
    return torch.cat([p["nats"] for p in pieces])[torch.cat([p["position"] for p in pieces]).argsort()]
