"""A run that models all columns of a table, or images, together: judged in nats and by samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mixtura.blending.blend import SamplesAtHand
from mixtura.contracts import InputError, Model, density_kind
from mixtura.data import source
from mixtura.features.space import FeatureSpace
from mixtura.folder.records import BlendQuadratic, Gallery, Score
from mixtura.job import verdict
from mixtura.job.jobs import describe_failure, unit_name
from mixtura.job.run import FittedModels, Run
from mixtura.job.scoring import Sampled, SampleJudge
from mixtura.job.splits import SAMPLES
from mixtura.job.verdict import ComparedSamples
from mixtura.study.study import Study, assemble

#: images of the verdict's choice that are written to the folder, and rows of everything that the report shows
SHOWN_ROWS = 400
#: samples whose nearest training row is shown
NEAREST = 24
#: rows of an outside generator, at least, that can be judged
LEAST_OUTSIDE = 16


class AllColumnsRun(Run):
    """All columns of a table, or images, modelled together: judged in nats and by samples."""

    def _choose_modelled(self, rows: Tensor) -> Tensor:
        self.features = FeatureSpace.of_rows(self.schema, rows[self.splits.fit], self.options.features, seed=self.options.seed)
        self.notes: dict[str, str] = {}
        return rows

    def _samples_kept(self) -> int:
        return self.samples

    def _is_race(self) -> bool:
        return self.options.objective != "mmd" and not self.schema.judged_by_samples and not self.options.samples

    def _sample_judge(self) -> SampleJudge:
        fit, report, features = self.x[self.splits.training], self.x[self.splits.report], self.features
        return SampleJudge(fit, report, features, features.kernel, self.samples, self.options.seed)

    def _refit_judge(self) -> SampleJudge | None:
        return self._sample_judge() if self.objective == "mmd" else None

    def _weigh(self, models: Mapping[str, Model], select: Mapping[str, Tensor]) -> Mapping[str, float]:
        self.outside = self._outside()
        self.objective, self.why = verdict.choose_objective(
            density=bool(select), asked=self.options.objective, images=self.schema.judged_by_samples, outside=[*self.outside]
        )
        if self.objective == "nats" and not select:
            raise InputError("objective: nats was asked for, but no model here has a density; leave --objective out")
        choosing = self._compared_samples([*models], {name: self.features(rows[::2]) for name, rows in self.outside.items()})
        self.weighed = verdict.weigh_in_mmd(choosing, self.features.kernel)
        if self.objective == "nats":
            shares, _, best = verdict.weigh(select)
        else:
            shares = dict(zip(self.weighed.names, self.weighed.w.tolist(), strict=True))
            best = self.weighed.names[self.weighed.alone]
        return {name: share for name, share in shares.items() if share > 0 or name == best}

    def _judge(self, fitted: FittedModels) -> Study:
        space, nouns = self.schema.space, self.schema.nouns
        models, select, outside, judge = fitted.models, fitted.select, self.outside, self._sample_judge()
        sampled = {name: found.sampled for name, found in fitted.measured.items() if found.sampled is not None}
        sampled |= {name: judge.of_rows(name, rows[1::2]) for name, rows in outside.items()}
        verdicts = {}
        if select:
            kinds = {name: str(density_kind(models[name])) for name in select}
            verdicts["nats"] = verdict.in_nats(select, fitted.report, kinds, nouns)
        report = ComparedSamples(self.features(judge.report), {name: s.features for name, s in sampled.items()})
        verdicts["mmd"], quadratic = verdict.in_mmd(self.weighed, report, self.features.kernel, nouns)
        again = {name: found.sampled.features for name, found in fitted.remeasured.items() if found.sampled is not None}
        if self.objective == "nats":
            refit = verdict.refit_in_nats(verdicts["nats"], fitted.report, fitted.report_again)
        else:
            refit = verdict.refit_in_mmd(verdicts["mmd"], report, again, self.features.kernel)
        verdicts[self.objective] = replace(verdicts[self.objective], refit=refit)
        scores = self._scores(fitted, sampled)
        # judged as they were made, but given back as what the columns can hold
        given = {name: space.clamp(rows) for name, rows in outside.items()}
        everyone = {**models, **fitted.refitted, **{name: SamplesAtHand(space, rows) for name, rows in given.items()}}
        study = assemble(self.schema, scores, verdicts, self.objective, self.why, everyone, self.folder.path)
        for name, rows in given.items():
            self.folder.write_outside_rows(name, rows)
        self.folder.write_quadratic(BlendQuadratic(**quadratic, features=self.features.name))
        self.folder.write_gallery(self._gallery(sampled))
        self._write(study, fitted, study.best.sample(self.schema.examples, seed=self.options.seed))
        return study

    def _outside(self) -> dict[str, Tensor]:
        """Rows of every outside generator, as they were made; what real rows cannot have of them is noted, and of rows that do
        not fit the schema the failure."""
        found = {}
        for name, given in self.options.samples.items():
            try:
                content = source.rows_like(given, self.schema)
                if wrong := self.schema.wrong_constant(content, name=name):
                    raise InputError(f"{name}: {wrong}; repair the column, or leave it out")
                as_made = self.schema.as_made(content, name=name)
                rows = as_made.x
                self.notes[name] = as_made.told(name, "real rows").removeprefix(f"{name}: ")
                if len(rows) < LEAST_OUTSIDE:
                    raise InputError(f"{name}: {len(rows)} rows are too few to judge; give {LEAST_OUTSIDE} or more")
                found[name] = rows[: 4 * SAMPLES]
                self.state.failures.pop(name, None)
            except InputError as error:
                self.state.failures[name] = describe_failure("failed", str(error), error)
        return found

    def _compared_samples(self, names: Sequence[str], outside: Mapping[str, Tensor]) -> list[ComparedSamples]:
        """What weights in MMD² are chosen on: select rows beside samples; or, a fold, its left-out rows beside samples of the
        models that did not see them."""
        splits = self.splits
        if not splits.folds:
            return [ComparedSamples(self.features(self.x[splits.select]), self._kept_samples(names, None) | dict(outside))]
        compared = []
        for k in range(splits.folds):
            _, left = splits.fold(k)
            seen = self._kept_samples(names, k)
            compared.append(ComparedSamples(self.features(self.x[splits.training[left]]), seen | dict(outside)))
        return compared

    def _kept_samples(self, names: Sequence[str], fold: int | None) -> dict[str, Tensor]:
        """Features (n, d) of the samples that the jobs kept of each model."""
        return {name: self.features(self.jobs.results(unit_name(name, fold))["samples"]) for name in names}

    def _scores(self, fitted: FittedModels, sampled: Mapping[str, Sampled]) -> list[Score]:
        scores = []
        for name in [*(c.name for c in self.candidates), *self.options.samples]:
            if name in self.state.failures:
                scores.append(self._score_of_failed(name))
            elif name in fitted.models:
                scores.append(self._complete_score(sampled[name].score, fitted, sampled[name].cost))
            else:
                scores.append(replace(sampled[name].score, reason=self.notes.get(name, "")))
        return scores

    def _gallery(self, sampled: Mapping[str, Sampled]) -> Gallery:
        """What the report shows: unseen real rows, samples, and the training row nearest to some samples."""
        training = self.x[self.splits.training]
        fit = self.features(training).double()
        nearest = {name: training[torch.cdist(s.features[:NEAREST].double(), fit).argmin(1)] for name, s in sampled.items()}
        samples = {name: self.schema.space.clamp(s.rows[:SHOWN_ROWS]) for name, s in sampled.items()}
        real = self.x[self.splits.report][:SHOWN_ROWS]
        dtype = self.schema.gallery_dtype
        samples, nearest = ({name: x.to(dtype) for name, x in rows.items()} for rows in (samples, nearest))
        return Gallery(real.to(dtype), samples, nearest)
