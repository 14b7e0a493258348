"""A finished run: scores, verdicts and models; from the run itself or from its folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from mixtura.blending.blend import SamplesAtHand, blend
from mixtura.blending.gate import Gate
from mixtura.blending.refined import Refined
from mixtura.contracts import Conditional, InputError, Model, Space
from mixtura.data.inputs import InputColumns
from mixtura.data.kind import DataKind
from mixtura.folder.io import content_of
from mixtura.folder.layout import RunFolder
from mixtura.folder.models import proposals
from mixtura.folder.records import Conditioning, Refinement, Score, Verdict, ranked
from mixtura.study.fitted import FittedModel


@dataclass
class Study:
    """A finished run. ``verdicts`` by objective ("nats", "mmd"), each with a blend in ``blends``; ``verdict`` is the one of
    ``objective``, chosen as ``why`` says. ``models`` are those that are delivered: where a score has a refit, the model that was
    fitted again on select rows too. ``best`` is the verdict's choice of them; ``density`` the best choice that has a density. In
    a run with targets ``schema`` is theirs, ``given`` are the columns that they are modelled given, and ``conditioning`` says
    what these are worth. ``refinement`` says what refining the choice does, where it was asked for; where that gains,
    ``refined`` samples it so."""

    schema: DataKind
    scores: list[Score]
    verdicts: dict[str, Verdict]
    objective: str
    why: str
    models: dict[str, FittedModel]
    blends: dict[str, FittedModel]
    folder: Path | None = None
    given: InputColumns | None = None
    conditioning: Conditioning | None = None
    refinement: Refinement | None = None
    refined: FittedModel | None = None

    @property
    def verdict(self) -> Verdict:
        """What to use, by how much and how sure."""
        return self.verdicts[self.objective]

    @property
    def best(self) -> FittedModel:
        """The verdict's choice."""
        return self._chosen(self.objective)

    @property
    def sampler(self) -> FittedModel:
        """What new rows come from: the choice, refined where that gains."""
        return self.refined or self.best

    @property
    def density(self) -> FittedModel:
        """The choice in nats. InputError where no model has a density."""
        if "nats" not in self.verdicts:
            raise InputError("score: no model of this run has a density; run again with a family that has one")
        return self._chosen("nats")

    def _chosen(self, objective: str) -> FittedModel:
        choice = self.verdicts[objective].choice
        return self.blends[objective] if choice == "blend" else self.models[choice]

    def model(self, name: str) -> FittedModel:
        """By name; "blend" is that of the verdict's objective, "blend:nats" and "blend:mmd" the other way; "refined" is the
        choice, where refining it gains. InputError with the names there are."""
        known = {**self.models, "blend": self.blends[self.objective], **{f"blend:{k}": v for k, v in self.blends.items()}}
        if self.refined is not None:
            known["refined"] = self.refined
        if name not in known:
            raise InputError(f"model: no {name!r} in this run; there are {', '.join(known)}")
        return known[name]

    @property
    def leaderboard(self) -> pd.DataFrame:
        """One row a model, exact densities before bounds, best first; a column for each metric of its samples."""
        rows = []
        for s in ranked(self.scores):
            row = asdict(s)
            found, again = row.pop("metrics"), row.pop("refit") or {}
            row |= {f"refit_{name}": again.get(name) for name in ("value", "error", "gain", "gain_error")}
            rows.append(row | {name: value["value"] for name, value in found.items()})
        return pd.DataFrame(rows)


def assemble(
    schema: DataKind, scores: list[Score], verdicts: Mapping[str, Verdict], objective: str, why: str,
    models: Mapping[str, Model], folder: Path, given: InputColumns | None = None, conditioning: Conditioning | None = None,
) -> Study:  # fmt: skip
    """A :class:`Study` of fitted models and their blends. Where a row is completed, the best of those that can propose values
    for missing entries proposes for the others."""
    able = {name: model for name in proposals(models) if isinstance(model := models[name], Conditional)}
    fitted = {name: FittedModel(name, model, schema, able, given) for name, model in models.items()}
    blends = {}
    for name, v in verdicts.items():
        gate = None if conditioning is None else conditioning.gate
        weights = list(v.weights.values()) if gate is None else Gate.of(gate)
        blends[name] = FittedModel("blend", blend([models[n] for n in v.weights], weights), schema, able, given)
    return Study(schema, scores, dict(verdicts), objective, why, fitted, blends, folder, given, conditioning)


def load(folder: str | Path, models: Mapping[str, Callable[..., Model]] | None = None) -> Study:
    """A finished run folder as a :class:`Study`, on the CPU. ``models``: your own models by name, Space → Model, in a run with
    targets (Space, context shape) → Model.

    Raises InputError if the folder is unfinished, damaged, or needs a model that was not passed.
    """
    run = RunFolder.finished(folder)
    scores, columns = run.scores(), run.schema()
    given = None if columns.inputs is None else run.inputs(columns.inputs)
    loaded = {score.name: _model_of(run, score, columns.modelled.space, models or {}) for score in scores if score.has_samples}
    found = run.verdict(conditional=given is not None)
    with content_of(run.verdict_path):
        verdicts = {objective: _with_nan(verdict) for objective, verdict in found.verdicts.items()}
        study = assemble(
            columns.modelled, scores, verdicts, found.objective, found.why, loaded, run.path, given, found.conditioning
        )
        for verdict in verdicts.values():  # a verdict may only name models that the folder holds
            _ = study.models[verdict.best]
        _ = study.best
    if found.refinement is not None:
        study.refinement = found.refinement
        if found.refinement.delivered:
            with content_of(run.refinement_path):
                study.refined = refined_choice(study, Refined.restore(study.best.model, run.refinement()))
    return study


def refined_choice(study: Study, model: Refined) -> FittedModel:
    """The refined choice of a study in the person's own terms."""
    return FittedModel("refined", model, study.schema)


def _model_of(run: RunFolder, score: Score, space: Space, own: Mapping[str, Callable[..., Model]]) -> Model:
    if score.status == "fitted":
        return run.model(score.name, space, own, refit=score.is_delivered_refitted)
    return SamplesAtHand(space, run.outside_rows(score.name, space))


def _with_nan(verdict: Verdict) -> Verdict:
    """As the run had it: JSON has no NaN, so a gain that is undefined was written as null."""
    return replace(verdict, **{name: math.nan for name in ("gain", "error") if getattr(verdict, name) is None})
