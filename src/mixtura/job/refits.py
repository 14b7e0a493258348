"""Before the report rows are opened, the models that the verdict will speak of are fitted again, on the select rows too, which
have done their work when the weights are chosen. These are delivered; docs/decisions/009-refits.md has what they gain.

A network goes on from the parameters that it has, for as many steps more as there are more rows; a closed fit begins anew. A
part of the select rows stays out of it, and a model whose refit is worse on these is delivered as it was. In a run that is
cross-fitted the models have learnt from all these rows already, and there are no refits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any

from mixtura.contracts import Model
from mixtura.job.budget import Budget
from mixtura.job.fitting import Candidate, Material, Moment
from mixtura.job.jobs import Job, JobFolder, do_job, killed, perform, unit_name, unit_of_refit
from mixtura.job.records import Progress
from mixtura.job.state import RunState
from mixtura.job.workers import MOST_DEATHS, side_by_side


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
            for unit in map(unit_of_refit, self.candidates):
                if unit in self.stops and unit not in self.state.units:
                    self.state.units[unit] = {key: why for key, why in self.stops[unit].items() if key == "left"}
            return
        busy = [0.0] * budget.workers
        for name in sorted(shares, key=lambda name: -shares[name]):
            unit = unit_of_refit(name)
            if name not in self.candidates or unit in self.state.units:
                continue
            known, first = self.state.units[unit_name(name, None)], busy.index(min(busy))
            needed = budget.of_refit(known) + known["scoring"] / budget.workers
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
        decided = [name for name in self.candidates if self.state.units.get(unit_of_refit(name)) == {}]
        jobs = [self._job(name) for name in decided if self.files.outcome(unit_of_refit(name)) is None]
        yield from self._here(jobs) if engine is None else self._on(engine, workers, jobs)
        for name in decided:
            self._take(unit_of_refit(name))
        self.state.save()

    @property
    def delivered(self) -> list[str]:
        """The models that are delivered fitted again."""
        units = ((name, self.state.units.get(unit_of_refit(name), {})) for name in self.candidates)
        return [name for name, unit in units if "seconds" in unit and not {"left", "kept"} & unit.keys()]

    def why_not(self, name: str) -> str | None:
        """Why a model that was chosen is delivered as it was; None of others."""
        unit = self.state.units.get(unit_of_refit(name), {})
        return unit.get("left") or unit.get("kept")

    def leave(self, name: str, reason: str) -> None:
        """Deliver a model as it was, after all."""
        self.state.units[unit_of_refit(name)]["kept"] = reason

    def _job(self, name: str) -> Job:
        job = Job(name, None, self.candidates[name].own is not None, str(self.material.device), refit=True)
        plan = self.state.units[unit_name(name, None)]["plan"]
        if self.stops is not None:
            return replace(job, plan=self.stops[job.unit].get("plan"))
        more = self.material.splits.growth - 1
        return job if plan is None else replace(job, steps=max(1, round(more * sum(end for _, end in plan))))

    def _here(self, jobs: Sequence[Job]) -> Iterator[Progress]:
        for job in jobs:
            for moment in perform(self.files, self.material, job, self.candidates[job.name].own):
                yield _progress(job, moment)

    def _on(self, engine: Executor, workers: int, jobs: Sequence[Job]) -> Iterator[Progress]:
        if not self.files.has_material:
            self.files.write_material(self.material)
        for job in jobs:
            self.files.write_job(job)
            self.files.forget_moment(job.unit)
        asked, seen = [(job.unit, self.candidates[job.name].own) for job in jobs], dict[str, Moment]()

        def progress() -> Iterator[Progress]:
            for job in jobs:
                moment = self.files.moment(job.unit)
                if moment is not None and moment != seen.get(job.unit):
                    seen[job.unit] = moment
                    yield _progress(job, moment)

        try:
            yield from side_by_side(partial(_do, str(self.files.run.path.resolve())), asked, engine, workers, _nothing, progress)
        finally:
            for job in jobs:  # a worker that is still at one stops when it notices
                self.files.withdraw(job.unit)

    def _take(self, unit: str) -> None:
        """What became of a refit. One that failed costs nothing but its time: the model is delivered as it was."""
        found = self.files.outcome(unit)
        if found is None:
            self.state.units[unit] = {"left": f"not fitted again: {killed(MOST_DEATHS)}"}
        elif found.failure is None:
            self.state.units[unit] = found.entry
        else:
            why = found.failure["reason"].removesuffix("; the same command tries it again")
            self.state.units[unit] = found.entry | {"left": f"not fitted again: {why}"}


def _progress(job: Job, moment: Moment) -> Progress:
    return Progress(job.name, moment.done, moment.validation, moment.left, "fitted again, on the select rows too")


def _do(folder: str, asked: tuple[str, Callable[..., Model] | None]) -> None:
    """One of them, by a worker: the name of its fit, and the model's callable where it is the person's own."""
    unit, own = asked
    do_job(folder, unit, own)


def _nothing(asked: tuple[str, Callable[..., Model] | None]) -> None:
    """Of a job that takes its process along there is no outcome."""
