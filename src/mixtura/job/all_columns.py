"""A run that models all columns of a table, or images, together: judged in nats and by samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial

import torch
from torch import Tensor

from mixtura.blending.blend import SamplesAtHand
from mixtura.contracts import Estimate, InputError, Model, density_kind
from mixtura.data import source
from mixtura.features.space import FeatureSpace
from mixtura.folder.records import BlendQuadratic, Gallery, Refit, Score, Verdict
from mixtura.job import verdict
from mixtura.job.budget import ending
from mixtura.job.comparison import WITNESS, Comparison, Pools, divided
from mixtura.job.jobs import describe_failure
from mixtura.job.refining import refine
from mixtura.job.run import FittedModels, Run
from mixtura.job.scoring import Sampled, SampleJudge
from mixtura.job.splits import SAMPLES
from mixtura.job.verdict import ComparedSamples
from mixtura.study.study import Study, assemble, refined_choice

#: images of the verdict's choice that are written to the folder, and rows of everything that the report shows
SHOWN_ROWS = 400
#: samples whose nearest training row is shown
NEAREST = 24
#: rows of an outside generator, at least, that can be judged
LEAST_OUTSIDE = 16


class AllColumnsRun(Run):
    """All columns of a table, or images, modelled together: judged in nats and by samples."""

    @property
    def ending(self) -> float:
        return ending(self.options.seconds, refine=self.options.refine)

    def _choose_modelled(self, rows: Tensor) -> Tensor:
        if self.options.refine and self.schema.pictured:
            raise InputError("--refine: trees look at the columns of a table, not at pixels; leave it out for images")
        self.features = FeatureSpace.of_rows(self.schema, rows[self.splits.fit], self.options.features, seed=self.options.seed)
        self.notes: dict[str, str] = {}
        return rows

    def _samples_kept(self) -> int:
        return self.samples * WITNESS // (WITNESS - 1) if self.options.features is None else self.samples

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
        self.compared = self._compare_by([*models])
        self.weighed = verdict.weigh_in_mmd(self.compared.choosing(self._pools, [*models, *self.outside]), self.compared.kernel)
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
        self._refine(study)
        self._write(study, fitted, study.sampler.sample(self.schema.examples, seed=self.options.seed))
        return study

    def _refine(self, study: Study) -> None:
        """Refine the choice, where it was asked for."""
        if not self.options.refine:
            return
        chosen, names = study.best, [name for name in study.models if name not in self.outside]
        model, study.refinement = refine(
            chosen.name, chosen.model, self.x, self.splits, partial(self._compare_by, names), self.features,
            seed=self.options.seed,
        )  # fmt: skip
        if model is not None and study.refinement.delivered:
            study.refined = refined_choice(study, model)
            self.folder.write_refinement(model.tensors())

    @property
    def _pools(self) -> Pools:
        outside = {name: rows[::2] for name, rows in self.outside.items()}
        return Pools(self.schema, self.x, self.splits, self.jobs, outside, self.options.seed)

    def _compare_by(self, names: Sequence[str], more: Sequence[Tensor] = ()) -> Comparison:
        """By what samples of these models, of the outside generators and ``more`` samples are compared."""
        if self.options.features is not None:
            return Comparison.plain(self.features)
        return Comparison.by_trees(self._pools, [*names, *self.outside], self.features, more)

    def _refit_by_samples(self, v: Verdict, fitted: FittedModels, sampled: Mapping[str, Sampled]) -> Refit | None:
        """What the models that were fitted again are worth by their samples, where these were drawn. The trees learn from some of
        these samples too: else they would know what is odd in the models that were weighed, and not in these."""
        again = {name: found.sampled.rows for name, found in fitted.remeasured.items() if found.sampled is not None}
        if not again:
            return None
        compared = self._compare_by([*fitted.models], [divided(rows)[0] for rows in again.values()])
        fresh = again if compared.learnt is None else {name: divided(rows)[1] for name, rows in again.items()}
        real = compared.features(self.x[self.splits.report])
        report = ComparedSamples(real, {name: compared.features(s.rows) for name, s in sampled.items()})
        return verdict.refit_in_mmd(v, report, {name: compared.features(x) for name, x in fresh.items()}, compared.kernel)

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
