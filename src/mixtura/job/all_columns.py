"""A run that models all columns of a table, or images, together: judged in nats and by samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import NamedTuple

import torch
from torch import Tensor

from mixtura.blending.blend import SamplesAtHand
from mixtura.contracts import Estimate, InputError, Model, density_kind
from mixtura.data import source
from mixtura.features.space import FeatureSpace
from mixtura.features.witness import LEAST_ROWS, NAME, TreeFeatures
from mixtura.folder.records import BlendQuadratic, Gallery, Refit, Score, Verdict
from mixtura.ground.kernels import Gaussian
from mixtura.ground.rng import generator
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
#: of the samples kept of a model every so many are those that the features of MMD² are learnt from
WITNESS = 3


class _Compared(NamedTuple):
    """What MMD² compares: features of rows (n, *shape) in data units, a kernel on them, what they are, for people, and the
    numbers of the real rows that they were learnt from, where weights are not to be chosen on these."""

    features: Callable[[Tensor], Tensor]
    kernel: Gaussian
    name: str
    learnt: Tensor | None


def _divided(samples: Tensor) -> tuple[Tensor, Tensor]:
    learnt = torch.arange(len(samples)) % WITNESS == 0
    return samples[learnt], samples[~learnt]


class AllColumnsRun(Run):
    """All columns of a table, or images, modelled together: judged in nats and by samples."""

    def _choose_modelled(self, rows: Tensor) -> Tensor:
        self.features = FeatureSpace.of_rows(self.schema, rows[self.splits.fit], self.options.features, seed=self.options.seed)
        self.notes: dict[str, str] = {}
        return rows

    def _samples_kept(self) -> int:
        return self.samples if self._is_compared_plainly else self.samples * WITNESS // (WITNESS - 1)

    @property
    def _is_compared_plainly(self) -> bool:
        """Whether samples are compared by features that were asked for, or those of images, and not by trees."""
        return self.options.features is not None or self.schema.features is not None

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
        self.compared = self._learn_to_compare([*models])
        self.weighed = verdict.weigh_in_mmd(self._compared_samples([*models]), self.compared.kernel)
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
        compare, kernel = self.compared.features, self.compared.kernel
        report = ComparedSamples(compare(judge.report), {name: compare(s.rows) for name, s in sampled.items()})
        verdicts["mmd"], quadratic, apart = verdict.in_mmd(self.weighed, report, kernel, nouns)
        if "nats" in verdicts:
            refit = verdict.refit_in_nats(verdicts["nats"], fitted.report, fitted.report_again)
            verdicts["nats"] = replace(verdicts["nats"], refit=refit)
        verdicts["mmd"] = replace(verdicts["mmd"], refit=self._refit_by_samples(verdicts["mmd"], fitted, sampled))
        scores = self._scores(fitted, sampled, apart)
        # judged as they were made, but given back as what the columns can hold
        given = {name: space.clamp(rows) for name, rows in outside.items()}
        everyone = {**models, **fitted.refitted, **{name: SamplesAtHand(space, rows) for name, rows in given.items()}}
        study = assemble(self.schema, scores, verdicts, self.objective, self.why, everyone, self.folder.path)
        for name, rows in given.items():
            self.folder.write_outside_rows(name, rows)
        self.folder.write_quadratic(BlendQuadratic(**quadratic, features=self.compared.name))
        self.folder.write_gallery(self._gallery(sampled))
        self._write(study, fitted, study.best.sample(self.schema.examples, seed=self.options.seed))
        return study

    def _refit_by_samples(self, v: Verdict, fitted: FittedModels, sampled: Mapping[str, Sampled]) -> Refit | None:
        """What the models that were fitted again are worth by their samples, where these were drawn. The trees that compare learn
        what is odd in these samples too: they know what is odd in those of the models that were weighed."""
        again = {name: found.sampled.rows for name, found in fitted.remeasured.items() if found.sampled is not None}
        if not again:
            return None
        divided = {name: (rows[:0], rows) if self._is_compared_plainly else _divided(rows) for name, rows in again.items()}
        compared = self._learn_to_compare([*fitted.models], [learnt for learnt, _ in divided.values()])
        features, real = compared.features, self.x[self.splits.report]
        report = ComparedSamples(features(real), {name: features(s.rows) for name, s in sampled.items()})
        return verdict.refit_in_mmd(v, report, {name: features(rows) for name, (_, rows) in divided.items()}, compared.kernel)

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

    def _learn_to_compare(self, names: Sequence[str], more: Sequence[Tensor] = ()) -> _Compared:
        """The features and the kernel of MMD². Those of a table are learnt from real rows and samples that weights are not chosen
        on, and ``more`` samples; where these are few, plain features are compared."""
        plain = _Compared(self.features, self.features.kernel, self.features.name, None)
        if self._is_compared_plainly:
            return plain
        training = self.splits.training
        real, choosing = (training[::2], training[1::2]) if self.splits.folds else (training, self.splits.select)
        folds = [*range(self.splits.folds)] or [None]
        samples = [torch.cat([self._kept_samples(name, fold)[0] for fold in folds]) for name in names]
        samples += [*(_divided(rows[::2])[0] for rows in self.outside.values()), *more]
        if min(map(len, (real, *samples))) < LEAST_ROWS:
            return plain
        rng = generator(self.options.seed, "trees that compare")
        trees = TreeFeatures(self.schema.space, self.x[real], samples, rng)
        return _Compared(trees, trees.kernel(self.x[choosing], rng), NAME, real)

    def _compared_samples(self, names: Sequence[str]) -> list[ComparedSamples]:
        """What weights in MMD² are chosen on: select rows beside samples; or, a fold, its left-out rows beside samples of the
        models that did not see them."""
        splits, features = self.splits, self.compared.features
        outside = {name: features(_divided(rows[::2])[1]) for name, rows in self.outside.items()}
        compared = []
        for k in [*range(splits.folds)] or [None]:
            left = splits.select if k is None else splits.training[splits.fold(k)[1]]
            if k is not None and self.compared.learnt is not None:
                left = left[~torch.isin(left, self.compared.learnt)]
            samples = {name: features(self._kept_samples(name, k)[1]) for name in names}
            compared.append(ComparedSamples(features(self.x[left]), samples | outside))
        return compared

    def _kept_samples(self, name: str, fold: int | None) -> tuple[Tensor, Tensor]:
        """The samples that the jobs kept of a model: those that features are learnt from, those that weights are chosen on."""
        kept = self.jobs.results(unit_name(name, fold))["samples"]
        return (kept[:0], kept) if self._is_compared_plainly else _divided(kept)

    def _scores(
        self, fitted: FittedModels, sampled: Mapping[str, Sampled], apart: Mapping[str, Estimate]
    ) -> list[Score]:
        """``apart``: MMD² of each, as the verdict has it."""
        scores = []
        compared = {
            name: replace(s.score, metrics={**s.score.metrics, "mmd2": asdict(apart[name])}) for name, s in sampled.items()
        }
        for name in [*(c.name for c in self.candidates), *self.options.samples]:
            if name in self.state.failures:
                scores.append(self._score_of_failed(name))
            elif name in fitted.models:
                scores.append(self._complete_score(compared[name], fitted, sampled[name].cost))
            else:
                scores.append(replace(compared[name], reason=self.notes.get(name, "")))
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
