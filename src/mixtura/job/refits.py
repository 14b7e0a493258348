"""Before the report rows are opened, the models that the verdict will speak of are fitted again, on the select rows too, which
have done their work when the weights are chosen. These are delivered; docs/decisions/009-refits.md has what they gain.

A network goes on from the parameters that it has, for as many steps more as there are more rows; a closed fit begins anew. A
part of the select rows stays out of it, and a model whose refit is worse on these is delivered as it was. In a run that is
cross-fitted the models have learnt from all these rows already, and there are no refits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import replace
from typing import Any

from mixtura.ground.machine import CannotWrite
from mixtura.job.budget import Budget
from mixtura.job.fitting import Candidate, Material, Moment
from mixtura.job.jobs import REFIT, Job, JobFolder, do_job, perform, unit_name
from mixtura.job.records import Progress
from mixtura.job.state import RunState

#: seconds between two looks at the jobs
LOOK_EVERY = 0.05


class Refits:
    """The refits of a run. What is decided of each stands in ``state.units`` under NAME/refit: ``left``, the reason why it is not
    made; or what its fit took, and ``kept``, the reason why its model is delivered as it was."""

    def __init__(
        self, files: JobFolder, material: Material, candidates: Sequence[Candidate], state: RunState,
        stops: Mapping[str, Mapping[str, Any]] | None,
    ) -> None:  # fmt: skip
        self.files, self.material, self.state, self.stops = files, material, state, stops
        self.candidates = {candidate.name: candidate for candidate in candidates}

    def choose(self, shares: Mapping[str, float], budget: Budget, left: float) -> None:
        """Which models are fitted again: of those with a share in what the verdict will speak of, the largest share first, those
        whose refits end within the ``left`` seconds. What an earlier sitting decided stays."""
        if not self.material.splits.growth:
            return
        if self.stops is not None:
            for unit in (unit_name(name, REFIT) for name in self.candidates):
                if unit in self.stops and unit not in self.state.units:
                    self.state.units[unit] = {key: why for key, why in self.stops[unit].items() if key == "left"}
            return
        busy = [0.0] * budget.workers
        for name in sorted(shares, key=lambda name: -shares[name]):
            unit = unit_name(name, REFIT)
            if name not in self.candidates or unit in self.state.units:
                continue
            known, first = self.state.units[unit_name(name, None)], busy.index(min(busy))
            needed = budget.of_refit(known) + known["scoring"]
            if busy[first] + needed > left:
                room = max(0.0, left - busy[first])
                self.state.units[unit] = {"left": f"not fitted again: takes about {needed:.1f} s, and {room:.1f} s were left"}
            else:
                busy[first] += needed
                self.state.units[unit] = {}
        self.state.save()

    def carry_out(self, engine: Executor | None, workers: int) -> Iterator[Progress]:
        """Make the refits that are decided and not made yet, here or on the workers of an engine. Raises CannotWrite where a disk
        takes no more."""
        waiting = []
        for name in self.candidates:
            unit = unit_name(name, REFIT)
            if self.files.outcome(unit) is not None:
                self._take(unit)
            elif unit in self.state.units and not {"left", "seconds"} & self.state.units[unit].keys():
                waiting.append(self._job(name))
        if engine is None:
            for job in waiting:
                yield from self._here(job)
        elif waiting:
            yield from self._on(engine, workers, waiting)
        self.state.save()

    @property
    def delivered(self) -> list[str]:
        """The models that are delivered fitted again."""
        units = ((name, self.state.units.get(unit_name(name, REFIT), {})) for name in self.candidates)
        return [name for name, unit in units if "seconds" in unit and not {"left", "kept"} & unit.keys()]

    def why_not(self, name: str) -> str | None:
        """Why a model that was chosen is delivered as it was; None of others."""
        unit = self.state.units.get(unit_name(name, REFIT), {})
        return unit.get("left") or unit.get("kept")

    def leave(self, name: str, reason: str) -> None:
        """Deliver a model as it was, after all."""
        self.state.units[unit_name(name, REFIT)]["kept"] = reason

    def _job(self, name: str) -> Job:
        job = Job(name, REFIT, self.candidates[name].own is not None, str(self.material.device))
        plan = self.state.units[unit_name(name, None)]["plan"]
        if self.stops is not None:
            return replace(job, plan=self.stops[job.unit].get("plan"))
        more = self.material.splits.growth - 1
        return job if plan is None else replace(job, steps=max(1, round(more * sum(end for _, end in plan))))

    def _here(self, job: Job) -> Iterator[Progress]:
        for moment in perform(self.files, self.material, job, self.candidates[job.name].own):
            yield _progress(job, moment)
        self._take(job.unit)

    def _on(self, engine: Executor, workers: int, waiting: list[Job]) -> Iterator[Progress]:
        """A job that the engine fails on, because it cannot be sent to a worker or a worker was lost, is done here."""
        if not self.files.has_material:
            self.files.write_material(self.material)
        jobs, running, failed = {job.unit: job for job in waiting}, dict[str, Future[None]](), list[str]()
        folder = str(self.files.run.path.resolve())
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    job = waiting.pop(0)
                    self.files.write_job(job)
                    self.files.forget_moment(job.unit)
                    own = self.candidates[job.name].own
                    try:
                        running[job.unit] = engine.submit(do_job, folder, job.unit, *(() if own is None else (own,)))
                    except Exception:  # an engine raises what it likes for what it cannot send
                        failed.append(job.unit)
                for unit in [unit for unit, future in running.items() if future.done()]:
                    failed += [] if self._ended(running.pop(unit), unit) else [unit]
                for unit in running:
                    if (moment := self.files.moment(unit)) is not None:
                        yield _progress(jobs[unit], moment)
                time.sleep(LOOK_EVERY)
        finally:
            for unit, future in running.items():
                self.files.withdraw(unit)
                future.cancel()
        for unit in failed:
            yield from self._here(jobs[unit])

    def _ended(self, future: Future[None], unit: str) -> bool:
        """Take in a job whose future is done; False where it could not be sent to a worker. One that took its worker along is not
        tried again: the model is there without it."""
        try:
            future.result()
        except CannotWrite:
            raise
        except BrokenExecutor:
            pass
        except (Exception, CancelledError):  # an engine raises what it likes for what it cannot send
            if self.files.outcome(unit) is None:
                return False
        self._take(unit)
        return True

    def _take(self, unit: str) -> None:
        """What became of a refit. One that failed costs nothing but its time: the model is delivered as it was."""
        found = self.files.outcome(unit)
        if found is None:
            self.state.units[unit] = {"left": "not fitted again: its worker was lost"}
        elif found.failure is None:
            self.state.units[unit] = found.entry
        else:
            why = found.failure["reason"].removesuffix("; the same command tries it again")
            self.state.units[unit] = found.entry | {"left": f"not fitted again: {why}"}


def _progress(job: Job, moment: Moment) -> Progress:
    return Progress(job.name, moment.done, moment.validation, moment.left, "fitted again, on the select rows too")
