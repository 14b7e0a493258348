"""A run in its folder: fit every model, weigh, open the report rows once, write everything down.

A run that was stopped, killed included, goes on from its folder to the same bits. What models are judged by beside their nats is
in the subclasses: :mod:`mixtura.job.all_columns` and :mod:`mixtura.job.given_columns`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

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
from mixtura.folder.records import Nats, Refit, RowNumbers, RunConfig, Score, Verdicts
from mixtura.ground.encode import Columns
from mixtura.ground.rng import generator
from mixtura.job.budget import WORTH_WORKERS, Budget, estimate_seconds, guess_seconds
from mixtura.job.fitting import Candidate, Material
from mixtura.job.jobs import Asked, JobFolder, Measured, lost, measure, measure_of, unit_name
from mixtura.job.options import Options, choose_families
from mixtura.job.records import Planned, Record
from mixtura.job.refits import Refits
from mixtura.job.schedule import Schedule, select_nats, why_no_nats
from mixtura.job.scoring import SampleJudge, bits_per_dimension
from mixtura.job.splits import make_splits
from mixtura.job.state import RunState
from mixtura.job.workers import cores, side_by_side
from mixtura.metrics.likelihood import gain, mean_nats
from mixtura.study.card import card
from mixtura.study.study import Study
from mixtura.train.devices import choose_device

#: rows of the verdict's choice that are written to the folder
EXAMPLE_ROWS = 1_000
#: rows that a family is asked to diagnose itself on, and report rows that are enough for a model without a part in the blend
DIAGNOSED_ROWS, FEW_ROWS = 500, 500


@dataclass(frozen=True)
class FittedModels:
    """The models of a run, their nats of the rows that choose weights, and each of them on the report rows; of those that were
    fitted again the same, and why others that were chosen are delivered as they were."""

    models: Mapping[str, Model]
    select: Mapping[str, Tensor]
    measured: Mapping[str, Measured]
    refitted: Mapping[str, Model]
    remeasured: Mapping[str, Measured]
    why_not: Mapping[str, str]

    @property
    def report(self) -> dict[str, Tensor]:
        """Nats of the report rows under each model that the verdict weighs."""
        return {name: nats for name, found in self.measured.items() if name in self.select and (nats := found.nats) is not None}

    @property
    def report_again(self) -> dict[str, Tensor]:
        """The same of those that were fitted again."""
        return {name: nats for name, found in self.remeasured.items() if (nats := found.nats) is not None}


class Run(ABC):
    """A run in its folder."""

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

    @property
    @abstractmethod
    def ending(self) -> float:
        """The share of the budget that is kept for what follows the fits."""

    @abstractmethod
    def _choose_modelled(self, rows: Tensor) -> Tensor:
        """Of all rows of the data, (n, …) in data units, the entries that models sample; sets what the models are given."""

    @abstractmethod
    def _samples_kept(self) -> int:
        """How many samples of every model are kept for the choice of weights."""

    @abstractmethod
    def _weigh(self, models: Mapping[str, Model], select: Mapping[str, Tensor]) -> Mapping[str, float]:
        """Weigh the models on the select rows. Returns their shares in what the verdict will speak of, the best single model
        among them. ``select``: (n,) nats of the rows that choose weights, of those that have a density."""

    @abstractmethod
    def _judge(self, fitted: FittedModels) -> Study:
        """Judge what was weighed on the report rows, and write what the folder holds of it."""

    def _targets_of_plan(self) -> dict[str, list[str]]:
        """What the plan says of targets and inputs."""
        return {}

    def _column(self, name: str | None) -> pd.Series | None:
        return None if name is None else cast(pd.Series, cast(pd.DataFrame, source.rows_of(self.data))[name])

    def _choose_candidates(self) -> list[Candidate]:
        own, outside = self.options.models, self.options.samples
        contexts = {name: row.context for name, row in TABLE.items()}
        names = choose_families(self.options.families, contexts, given=self.context is not None)
        clash = sorted((set(own) | set(outside)) & ({*TABLE, "blend", "refined"}) | set(own) & set(outside))
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
        elif steps is not None or not self.timed:  # closed fits take what they take
            seconds = guess_seconds(self.material, len(self.timed), len(self.candidates) - len(self.timed), steps or 0)
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

    def why_no_nats(self, name: str) -> str | None:
        """Why a model has no part in the blend in nats, and few of its report rows are scored."""
        return why_no_nats(self.state.units, name)

    def fit_all(self, engine: Executor | None, workers: int) -> Iterator[Record]:
        """Fit every candidate, in every fold and on all training rows, here or on the workers of an engine."""
        seconds = math.inf if self.options.seconds is None else self.options.seconds
        by_samples = self.schema.space.is_image and not self._is_race()
        parts = {name: TABLE[name].part_on_images for name in self.timed if name in TABLE} if by_samples else {}
        budget = Budget(seconds, self.ending, workers, self.splits.folds, self.timed, self.splits.growth, parts)
        schedule = Schedule(
            self.jobs, self.material, self.candidates, self.state, budget, steps=self.options.steps, stops=self.options.stops,
            first=sorted(self.parameters, key=lambda name: -self.parameters[name]), race=self._is_race(),
        )  # fmt: skip
        yield from schedule.here() if engine is None else schedule.on(engine)

    # ---------------------------------------------------------------------------------------------------- the verdict

    def verdict(self, engine: Executor | None, workers: int) -> Generator[Record, None, Study]:
        """Weigh on the select rows, fit the chosen models again, open the report rows once, write everything down. Fits and
        scoring are done here or on the workers of an engine."""
        self.folder.reopen()  # where a finished run goes on with what a passing fault had ended, its verdict is out of date
        models = {c.name: self._model(c.name) for c in self.candidates if c.name not in self.state.failures}
        refits = Refits(self.jobs, self.material, self.candidates, self.state, self.options.stops)
        if models:
            yield from self._refit(refits, self._weigh(models, self._select_nats(models)), engine, workers)
        # those that take longest first, so that no worker ends long after the others
        longest = sorted(models, key=lambda name: -self.state.units[unit_name(name, None)]["scoring"])
        judge, refitted = self._sample_judge(), {name: self._model(name, refit=True) for name in refits.delivered}
        asked = [Asked(name, self.options.models.get(name), self._rows_of(name), judge) for name in longest]
        asked += [Asked(n, self.options.models.get(n), self._rows_of(n), self._refit_judge(), refit=True) for n in refitted]
        measured: dict[bool, dict[str, Measured]] = {False: {}, True: {}}
        answers = yield from self._measure(asked, {False: models, True: refitted}, engine, workers)
        for ask, found in zip(asked, answers, strict=True):
            if isinstance(found, Measured):
                measured[ask.refit][ask.name] = found
            elif ask.refit:
                refits.leave(ask.name, f"fitted again, it fails: {found['reason']}")
            else:
                self.state.fail(ask.name, found)
                del models[ask.name]
        if not models:
            reasons = "; ".join(f"{name}: {failure['reason']}" for name, failure in self.state.failures.items())
            raise InputError(f"no family could be fitted to this data ({reasons})")
        select = self._select_nats(models)
        if len(models) < len(longest):
            self._weigh(models, select)  # without those that failed on the report rows
        ordered, again = ({name: part[name] for name in models if name in part} for part in (measured[False], measured[True]))
        why_not = {name: why for name in models if (why := refits.why_not(name)) is not None}
        return self._judge(FittedModels(models, select, ordered, {name: refitted[name] for name in again}, again, why_not))

    def _model(self, name: str, *, refit: bool = False) -> Model:
        return self.folder.model(name, self.schema.space, self.options.models, refit=refit)

    def _select_nats(self, models: Mapping[str, Model]) -> dict[str, Tensor]:
        """(n,) nats of the rows that choose weights, of the models that may be a part of the blend."""
        in_blend = [name for name in models if self.why_no_nats(name) is None]
        found = {name: select_nats(self.jobs, name, self.splits.folds) for name in in_blend}
        return {name: nats for name, nats in found.items() if nats is not None}

    def _refit(self, refits: Refits, shares: Mapping[str, float], engine: Executor | None, workers: int) -> Iterator[Record]:
        """Fit the models with a share again, where time allows."""
        units, seconds = self.state.units, math.inf if self.options.seconds is None else self.options.seconds
        scoring = [units[unit_name(c.name, None)]["scoring"] for c in self.candidates if c.name not in self.state.failures]
        budget = Budget(seconds, self.ending, workers, self.splits.folds, self.timed, self.splits.growth)
        refits.choose(shares, budget, budget.left_for_refits(scoring, self.state.elapsed))
        yield from refits.carry_out(engine, workers)

    def _rows_of(self, name: str) -> Tensor:
        """Numbers of the report rows that a model is measured on: few of one without a part in the blend in nats."""
        report = self.splits.report
        if self.why_no_nats(name) is None:
            return report
        return report[torch.randperm(len(report), generator=generator(self.options.seed, "few"))[:FEW_ROWS].sort().values]

    def _measure(
        self, asked: Sequence[Asked], models: Mapping[bool, Mapping[str, Model]], engine: Executor | None, workers: int
    ) -> Generator[Record, None, list[Measured | dict[str, Any]]]:
        """Models on report rows. ``models``: those at hand, fitted again or not."""
        if engine is None:
            return [measure(ask, models[ask.refit][ask.name], self.material) for ask in asked]
        return (yield from side_by_side(partial(measure_of, str(self.folder.path.resolve())), asked, engine, workers, lost))

    def _sample_judge(self) -> SampleJudge | None:
        """What scores samples of the models, where they are judged by samples."""
        return None

    def _refit_judge(self) -> SampleJudge | None:
        """What scores samples of the models that were fitted again, where the verdict speaks of samples."""
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
            score, status="fitted", reason=self.why_no_nats(name) or "", kind=density_kind(model),
            mc_error=None if nats is None else mc_error,
            nats=mean.value if mean else None, nats_error=mean.error if mean else None, sample_ms=sample_ms,
            seconds=unit["seconds"], seconds_error=float(np.std(fits, ddof=1)) if len(fits) > 1 else None,
            steps=sum(ended for _, ended in unit["plan"]) if unit["plan"] else None, converged=unit["converged"],
            seconds_to_converge=unit.get("seconds_to_converge"), how=how, diagnosis=diagnosis,
            bits=bits.value if bits else None, bits_error=bits.error if bits else None, refit=self._refit_of(name, fitted),
        )  # fmt: skip

    def _refit_of(self, name: str, fitted: FittedModels) -> Refit | None:
        """What the score of a model says of its refit; None where the verdict does not speak of it."""
        if name not in fitted.refitted:
            return Refit(fitted.why_not[name]) if name in fitted.why_not else None
        before, after = fitted.measured[name].nats, fitted.remeasured[name].nats
        if before is None or after is None:
            return Refit()
        value, more = mean_nats(after.numpy()), gain(after.numpy(), before.numpy())
        return Refit("", value.value, value.error, more.value, more.error)

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
        folder.write_verdict(
            Verdicts(study.objective, study.why, splits.duplicates, study.verdicts, study.conditioning, study.refinement)
        )
        if not folder.state().to_be_tried_again:
            folder.clear_work()
