"""A run in its folder: fit every model, weigh, open the report rows once, write everything down.

A run that was stopped, killed included, goes on from its folder to the same bits. What models are judged by beside their nats is
in the subclasses: :mod:`mixtura.job.all_columns` and :mod:`mixtura.job.given_columns`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mixtura.contracts import ClosedForm, Density, InputError, LowerBound, Model, density_kind
from mixtura.data import source
from mixtura.data.files.pixels import Images
from mixtura.data.kind import Content, DataKind
from mixtura.data.source import Data
from mixtura.families import TABLE
from mixtura.folder.layout import RunFolder
from mixtura.folder.records import Nats, RowNumbers, RunConfig, Score, Verdicts
from mixtura.ground.encode import Columns
from mixtura.ground.rng import generator
from mixtura.job.budget import ENDING, WORTH_WORKERS, Budget, estimate_seconds, guess_seconds
from mixtura.job.fitting import Candidate, Material
from mixtura.job.jobs import JobFolder, Measured, describe_failure, measure, measure_of, unit_name
from mixtura.job.options import Options, choose_families
from mixtura.job.records import Planned, Record
from mixtura.job.schedule import Schedule, select_nats
from mixtura.job.scoring import SampleJudge, bits_per_dimension
from mixtura.job.splits import make_splits
from mixtura.job.state import RunState
from mixtura.job.workers import cores, side_by_side
from mixtura.metrics.likelihood import mean_nats
from mixtura.study.card import card
from mixtura.study.study import Study
from mixtura.train.devices import choose_device

#: rows of the verdict's choice that are written to the folder
EXAMPLE_ROWS = 1_000
#: rows that a family is asked to diagnose itself on, and report rows that are enough for a model that was stopped
DIAGNOSED_ROWS, FEW_ROWS = 500, 500


@dataclass(frozen=True)
class FittedModels:
    """The models of a run, their nats of the rows that choose weights, and each of them on the report rows."""

    models: Mapping[str, Model]
    select: Mapping[str, Tensor]
    measured: Mapping[str, Measured]

    @property
    def report(self) -> dict[str, Tensor]:
        """Nats of the report rows under each model that the verdict weighs."""
        return {name: nats for name, found in self.measured.items() if name in self.select and (nats := found.nats) is not None}


class Run(ABC):
    """A run in its folder."""

    #: the share of the budget that is kept for what follows the fits
    ending = ENDING

    def __init__(self, folder: RunFolder, options: Options, data: Data, schema: DataKind, began: float) -> None:
        self.folder, self.options, self.data, self.whole = folder, options, data, schema
        self.state, self.jobs = RunState(folder, began), JobFolder(folder)
        # what models are of, and, in a run with targets, the features that they are given
        self.schema: DataKind = schema
        self.context: Tensor | None = None
        groups, times, given = (self._column(name) for name in (options.group, options.time, options.split))
        most, self.samples = schema.looked_at(options.planned_seconds)
        rows = schema.encode(source.rows_of(data), name=data.name)
        self.splits = make_splits(rows, seed=options.seed, groups=groups, times=times, given=given, most=most)
        self.x = self._choose_modelled(rows)
        self.encoding = Columns(self.schema.space)
        self.encoding.prepare(self.schema.space.clamp(self.x[self.splits.training]))
        self.material = Material(
            self.schema.space, self.x, self.context, self.splits, self.encoding, options.seed, self._samples_kept(),
            options.planned_seconds, choose_device(options.device),
        )  # fmt: skip
        self.candidates = self._choose_candidates()
        sizes = {candidate.name: self._parameters_of(candidate) for candidate in self.candidates}
        self.parameters = {name: size for name, size in sizes.items() if size is not None}
        self.timed = [*self.parameters]

    @abstractmethod
    def _choose_modelled(self, rows: Tensor) -> Tensor:
        """Of all rows of the data, (n, …) in data units, the entries that models sample; sets what the models are given."""

    @abstractmethod
    def _samples_kept(self) -> int:
        """How many samples of every model are kept for the choice of weights."""

    @abstractmethod
    def _weigh_and_judge(self, fitted: FittedModels) -> Study:
        """Weigh, judge on the report rows, and write what the folder holds of it."""

    def _targets_of_plan(self) -> dict[str, list[str]]:
        """What the plan says of targets and inputs."""
        return {}

    def _column(self, name: str | None) -> pd.Series | None:
        return None if name is None else cast(pd.Series, cast(pd.DataFrame, source.rows_of(self.data))[name])

    def _choose_candidates(self) -> list[Candidate]:
        own, outside = self.options.models, self.options.samples
        contexts = {name: row.context for name, row in TABLE.items()}
        names = choose_families(self.options.families, contexts, given=self.context is not None)
        clash = sorted((set(own) | set(outside)) & ({*TABLE, "blend"}) | set(own) & set(outside))
        if clash:
            raise InputError(f"models: the name {clash[0]!r} is taken; give your model another name")
        return [*(Candidate(name) for name in names), *(Candidate(name, build) for name, build in own.items())]

    def _parameters_of(self, candidate: Candidate) -> int | None:
        """The number of parameters of a model that trains for a share of the budget; None of one with a closed fit, which takes
        the time it takes."""
        try:
            model = candidate.build(self.material, len(self.splits.training), generator(0))
        except (Exception, SystemExit):  # it is reported, with its reason, when it is its turn
            return None
        return None if isinstance(model, ClosedForm) else sum(parameter.numel() for parameter in model.parameters())

    # ------------------------------------------------------------------------------------------------ before the fits

    def take_up(self, config: RunConfig) -> None:
        """Make the folder, or take up the run that stopped in it."""
        if self.options.fresh and self.folder.path.exists():
            self.folder.clear()
        if not self.folder.is_begun:
            self.folder.write_config(config)
        if not self.folder.has_schema:
            self.folder.write_schema(self.whole, self.options.targets)
        self.state.take_up()

    def worth_workers(self) -> int:
        """The workers that a run has which was not asked for any: the cores there are; 1 on a device that all would share, and
        where the run is so short that they would come too late."""
        if self.material.device.type != "cpu":
            return 1
        steps, seconds = self.options.steps, self.options.seconds
        if self.options.stops is not None:
            seconds = sum(unit.get("seconds", 0.0) for unit in self.options.stops.values())
        elif steps is not None:
            seconds = guess_seconds(self.material, len(self.timed), len(self.candidates) - len(self.timed), steps)
        return cores() if seconds is not None and seconds > WORTH_WORKERS else 1

    def planned(self, workers: int, *, estimate: bool = False) -> Planned:
        """What was understood and what will be done; ``estimate`` times a few steps to say how long steps will take."""
        s, budget, steps = self.splits, self.options.seconds, self.options.steps
        sizes = {"fit": len(s.fit), "select": len(s.select), "report": len(s.report)}
        seconds = budget
        if estimate and budget is None:
            seconds = None if steps is None else estimate_seconds(self.material, self.candidates, steps) / workers
        return Planned(
            name=self.data.name, what=self.whole.summary(len(self.x)), rows=len(self.x), rows_total=self.data.rows_total,
            skipped=list(self.data.skipped) if isinstance(self.data, Images) else [], columns=self.whole.describe(),
            splits=sizes | {"rule": s.rule, "folds": s.folds, "duplicates": s.duplicates}, resumed=self.state.earlier,
            families=[c.name for c in self.candidates], budget=budget, steps=steps, seed=self.options.seed,
            folder=None if self.options.out is None else str(self.folder.path), estimate=seconds, workers=workers,
            **self._targets_of_plan(),
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------------------- the fits

    def _is_race(self) -> bool:
        """Whether the verdict will speak of nats, so that a model far behind in nats need not train on."""
        return True

    def stopped(self, name: str) -> str | None:
        """Why a model had no more time before it was trained to the end; None of one that had."""
        return self.state.units.get(unit_name(name, None), {}).get("stopped")

    def fit_all(self, engine: Executor | None, workers: int) -> Iterator[Record]:
        """Fit every candidate, in every fold and on all training rows, here or on the workers of an engine."""
        seconds = math.inf if self.options.seconds is None else self.options.seconds
        by_samples = self.schema.space.is_image and not self._is_race()
        parts = {name: TABLE[name].part_on_images for name in self.timed if name in TABLE} if by_samples else {}
        budget = Budget(seconds, self.ending, workers, self.splits.folds, self.timed, parts)
        schedule = Schedule(
            self.jobs, self.material, self.candidates, self.state, budget, steps=self.options.steps, stops=self.options.stops,
            first=sorted(self.parameters, key=lambda name: -self.parameters[name]), race=self._is_race(),
        )  # fmt: skip
        yield from schedule.here() if engine is None else schedule.on(engine)

    # ---------------------------------------------------------------------------------------------------- the verdict

    def verdict(self, engine: Executor | None, workers: int) -> Study:
        """Weigh on the select rows, open the report rows once, write everything down. Models are scored here or on the workers of
        an engine."""
        self.folder.reopen()  # where a finished run goes on with what a passing fault had ended, its verdict is out of date
        names = [c.name for c in self.candidates if c.name not in self.state.failures]
        models = {name: self.folder.model(name, self.schema.space, self.options.models) for name in names}
        # those that take longest first, so that no worker ends long after the others
        longest = sorted(names, key=lambda name: -self.state.units[unit_name(name, None)]["scoring"])
        measured: dict[str, Measured] = {}
        for name, found in zip(longest, self._measure(models, longest, engine, workers), strict=True):
            if isinstance(found, FloatingPointError):
                self.state.fail(name, describe_failure("failed", f"FloatingPointError: {found}", found))
                del models[name]
            else:
                measured[name] = found
        measured = {name: measured[name] for name in models}
        in_blend = [name for name in models if self.stopped(name) is None]
        found = {name: select_nats(self.jobs, name, self.splits.folds) for name in in_blend}
        select = {name: nats for name, nats in found.items() if nats is not None}
        if not models:
            reasons = "; ".join(f"{name}: {failure['reason']}" for name, failure in self.state.failures.items())
            raise InputError(f"no family could be fitted to this data ({reasons})")
        return self._weigh_and_judge(FittedModels(models, select, measured))

    def _measure(
        self, models: Mapping[str, Model], names: Sequence[str], engine: Executor | None, workers: int
    ) -> list[Measured | FloatingPointError]:
        """Each of the models on the report rows."""
        report, judge = self.splits.report, self._sample_judge()
        few = report[torch.randperm(len(report), generator=generator(self.options.seed, "few"))[:FEW_ROWS].sort().values]
        rows = {name: report if self.stopped(name) is None else few for name in names}
        if engine is None:
            return [measure(name, models[name], self.material, rows[name], judge) for name in names]
        there = partial(measure_of, str(self.folder.path.resolve()), judge)
        return side_by_side(there, [(name, self.options.models.get(name), rows[name]) for name in names], engine, workers)

    def _sample_judge(self) -> SampleJudge | None:
        """What scores samples of the models, where they are judged by samples."""
        return None

    def _score_of_failed(self, name: str) -> Score:
        failure = self.state.failures[name]
        return Score(name, failure["status"], failure["reason"])

    def _complete_score(self, score: Score, fitted: FittedModels, sample_ms: float) -> Score:
        """The score of a model of this run, with what only a model has. ``sample_ms``: milliseconds to draw 1,000 rows."""
        name, model = score.name, fitted.models[score.name]
        unit, (nats, mc_error, _) = self.state.units[unit_name(name, None)], fitted.measured[name]
        fits = [self.state.units[unit_name(name, k)]["seconds"] for k in range(self.splits.folds)]
        mean = mean_nats(nats.numpy()) if nats is not None else None
        bits = bits_per_dimension(mean, self.schema.space) if mean else None
        few = self.splits.report[:DIAGNOSED_ROWS]
        rng = generator(self.options.seed, name, "diagnosis")
        with torch.no_grad():
            diagnosis = model.diagnose(self.x[few], self.material.context_of(few), rng)
        how = model.how if isinstance(model, LowerBound) else "cell masses" if isinstance(model, Density) else ""
        return replace(
            score, status="fitted", reason=self.stopped(name) or "", kind=density_kind(model),
            mc_error=None if nats is None else mc_error,
            nats=mean.value if mean else None, nats_error=mean.error if mean else None, sample_ms=sample_ms,
            seconds=unit["seconds"], seconds_error=float(np.std(fits, ddof=1)) if len(fits) > 1 else None,
            steps=sum(ended for _, ended in unit["plan"]) if unit["plan"] else None, converged=unit["converged"],
            seconds_to_converge=unit.get("seconds_to_converge"), how=how, diagnosis=diagnosis,
            bits=bits.value if bits else None, bits_error=bits.error if bits else None,
        )  # fmt: skip

    def _write(self, study: Study, fitted: FittedModels, example: Content) -> None:
        """What every run leaves; ``example``: rows of the verdict's choice."""
        folder, splits = self.folder, self.splits
        folder.write_nats(Nats(fitted.select, fitted.report))
        folder.write_encoding(self.encoding.state_dict())
        folder.write_splits(RowNumbers(splits.fit, splits.select, splits.report))
        folder.write_history(self.jobs.history())
        folder.write_scores(study.scores)
        folder.write_example(example)
        folder.write_card(card(study, self.data.name, splits.rule, splits.duplicates))
        self.state.save()
        folder.write_verdict(Verdicts(study.objective, study.why, splits.duplicates, study.verdicts, study.conditioning))
        if not folder.state().to_be_tried_again:
            folder.clear_work()
