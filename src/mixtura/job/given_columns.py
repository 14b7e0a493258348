"""A run that models some columns of a table given the others: judged in nats of the targets and by calibration."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import pandas as pd
import torch
from torch import Tensor

from mixtura.blending.blend import blend
from mixtura.blending.gate import FOLDS, Gate, choose_gate
from mixtura.blending.given import draw_given
from mixtura.contracts import InputError, Model, density_kind
from mixtura.data import source
from mixtura.data.inputs import InputColumns, split_target
from mixtura.data.schema import Schema
from mixtura.folder.io import plain
from mixtura.folder.records import Calibration, Gallery, Score
from mixtura.ground.inputs import Inputs
from mixtura.ground.rng import generator
from mixtura.job import verdict
from mixtura.job.budget import ENDING_WITH_TARGETS
from mixtura.job.fitting import Candidate
from mixtura.job.portrait import portrait
from mixtura.job.run import EXAMPLE_ROWS, FittedModels, Run
from mixtura.job.scoring import calibrate
from mixtura.study.study import Study, assemble

#: draws for each row of the example; report rows that draws are made for, and how often at most; for each of these, draws for a
#: picture
EXAMPLES_EACH, CALIBRATED, MOST_DRAWS, PICTURE_DRAWS = 10, 300, 99, 128


@dataclass(frozen=True)
class _Calibrated:
    """What :func:`calibrate` found of one model, and the milliseconds that 1,000 draws took."""

    found: Mapping[str, Mapping[str, Any]]
    ranks: Mapping[str, Tensor]
    cost: float


class GivenColumnsRun(Run):
    """Some columns of a table, modelled given the others: judged in nats of the targets and by calibration."""

    @property
    def ending(self) -> float:
        return ENDING_WITH_TARGETS

    def _choose_candidates(self) -> list[Candidate]:
        """Closed fits first, which take the time they take; the others share what is left."""
        return sorted(super()._choose_candidates(), key=lambda candidate: self._parameters_of(candidate) is not None)

    def _samples_kept(self) -> int:
        return 0  # no two rows have the same inputs, so there are no samples of one law to compare

    def _choose_modelled(self, rows: Tensor) -> Tensor:
        self.schema, schema = split_target(self.whole, self.options.targets)
        names = [field.name for field in cast(Schema, self.whole).modelled]
        ours = torch.tensor([name in self.options.targets for name in names])
        inputs = Inputs(schema.space)
        inputs.prepare(rows[self.splits.fit][:, ~ours])
        self.given = InputColumns(schema, inputs)
        self.asked = rows[:, ~ours]
        self.context = inputs(self.asked)
        return self.schema.encode(source.rows_of(self.data), name=self.data.name)  # as wide as their support now is

    def _targets_of_plan(self) -> dict[str, list[str]]:
        return {"target": list(self.options.targets), "given": self.given.names}

    def _weigh(self, models: Mapping[str, Model], select: Mapping[str, Tensor]) -> Mapping[str, float]:
        if not select:
            raise InputError("--target: no model here has a density given the inputs; name families that have one")
        self.shares, _, best = verdict.weigh(select)
        self.gate = self._gate(select, [*self.shares.values()])
        return {name: share for name, share in self.shares.items() if share > 0 or name == best or self.gate is not None}

    def _judge(self, fitted: FittedModels) -> Study:
        models, select, report = fitted.models, fitted.select, fitted.report
        share, gate = self.shares, self.gate
        weights = None if gate is None else gate(len(self.splits.report), self.material.context_of(self.splits.report))
        kinds = {name: str(density_kind(models[name])) for name in select}
        spoken = verdict.in_nats(select, report, kinds, self.schema.nouns, weights)
        spoken = replace(spoken, refit=verdict.refit_in_nats(spoken, report, fitted.report_again, weights))
        spoken, beside = verdict.of_inputs(spoken, report, share, weights, self.options.targets, self.given.names)
        rows = self._calibration_rows()
        found = {name: self._calibrate(model, name, rows) for name, model in models.items()}
        scores = [
            self._score_of_failed(name) if name in self.state.failures else self._score(name, fitted, found[name])
            for name in (c.name for c in self.candidates)
        ]
        beside = replace(beside, gate=None if gate is None else gate.plain())
        why = "a density of the targets given the inputs is wanted"
        delivered = {**models, **fitted.refitted}
        study = assemble(self.schema, scores, {"nats": spoken}, "nats", why, delivered, self.folder.path, self.given, beside)
        if spoken.choice == "blend":
            found["blend"] = self._calibrate(blend([models[n] for n in share], gate or [*share.values()]), "blend", rows)
        study = replace(study, conditioning=replace(beside, calibration=found[spoken.choice].found))
        self._keep(study, found, rows)
        asked = cast(pd.DataFrame, source.rows_of(self.data)).iloc[self.splits.report[: EXAMPLE_ROWS // EXAMPLES_EACH].numpy()]
        self._write(study, fitted, study.best.sample(EXAMPLES_EACH, seed=self.options.seed, given=asked))
        return study

    def _keep(self, study: Study, found: Mapping[str, _Calibrated], rows: Tensor) -> None:
        """What only a folder of targets holds: the encoding of the inputs, ranks, and portraits of the verdict's choice."""
        folder, asked, truths = self.folder, self.asked[rows], self.x[rows]
        folder.write_inputs(self.given)
        folder.write_calibration(Calibration(rows, {name: calibrated.ranks for name, calibrated in found.items()}))
        folder.write_gallery(Gallery(truths, {}, {}, asked))
        draws = PICTURE_DRAWS * self.state.units[f"{study.verdict.choice}/all"]["draws"]
        folder.write_portraits(
            portrait(study.best.model, self.given.inputs, asked, truths, draws=draws, seed=self.options.seed)
        )

    def _gate(self, select: Mapping[str, Tensor], weights: Sequence[float]) -> Gate | None:
        """Weights that depend on the inputs, if the select rows speak for them."""
        rows = self.splits.training if self.splits.folds else self.splits.select
        nats = torch.stack([*select.values()], 1)
        possible = (nats > -math.inf).any(1)
        if len(weights) < 2 or int(possible.sum()) < 2 * FOLDS:
            return None
        name = verdict.floor_of(select)
        floor = None if name is None else list(select).index(name)
        gate = choose_gate(nats[possible], cast(Tensor, self.material.context_of(rows))[possible], weights, floor).gate
        return None if gate.is_constant else gate

    def _calibration_rows(self) -> Tensor:
        """The report rows whose targets are drawn again and again."""
        order = torch.randperm(len(self.splits.report), generator=generator(self.options.seed, "calibration"))
        return self.splits.report[order[:CALIBRATED].sort().values]

    def _calibrate(self, model: Model, name: str, rows: Tensor) -> _Calibrated:
        context, seed = cast(Tensor, self.material.context_of(rows)), self.options.seed
        entry = self.state.units.setdefault(f"{name}/all", {})
        if "draws" not in entry:
            entry["draws"] = self._draws(model, name, context)
            self.state.save()
        began = time.process_time()
        draws = draw_given(model, context, entry["draws"], rng=generator(seed, name, "answers"))
        cost = (time.process_time() - began) * 1e6 / (len(rows) * entry["draws"])
        rng = generator(seed, name, "ranks")
        names = [field.name for field in cast(Schema, self.schema).modelled]
        found, ranks = calibrate(self.x[rows], draws, self.schema.space, names, rng=rng)
        # as the folder gives it back: what has no error has none
        return _Calibrated(plain({metric: asdict(value) for metric, value in found.items()}), ranks, cost)

    def _draws(self, model: Model, name: str, context: Tensor) -> int:
        """How many of every row: fewer where they are dear; always one less than a multiple of 20, so that the ends of the
        intervals are draws."""
        recorded = (self.options.stops or {}).get(f"{name}/all", {})
        if "draws" in recorded:
            return int(recorded["draws"])
        if self.options.seconds is None:
            return MOST_DRAWS
        began = time.monotonic()
        draw_given(model, context, 1, rng=generator(self.options.seed, name, "trial answers"))
        each = time.monotonic() - began
        coming = len(self.candidates) + 1 - sum("draws" in unit for unit in self.state.units.values())
        room = max(0.0, (1 - self.ending / 4) * self.options.seconds - self.state.elapsed) / max(1, coming)
        return int(min(MOST_DRAWS, max(20, room / each // 20 * 20) - 1))

    def _score(self, name: str, fitted: FittedModels, calibrated: _Calibrated) -> Score:
        score = Score(name, "fitted", rows=len(self.splits.report), metrics=calibrated.found)
        return self._complete_score(score, fitted, calibrated.cost)

