"""A run in its folder: fit every family, score it, weigh, open the report rows once, write everything down.

A run that was stopped, killed included, goes on from its folder to the same bits.
"""

from __future__ import annotations

import math
import shutil
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mixtura.blending.blend import SamplesAtHand
from mixtura.blending.gate import FOLDS, Gate, choose_gate
from mixtura.blending.given import draw_given
from mixtura.blending.nats import log_probs, sound
from mixtura.contracts import Batch, ClosedForm, Density, InputError, LowerBound, Model, Space, density_kind
from mixtura.data import source
from mixtura.data.inputs import InputColumns, split_target
from mixtura.data.kind import Content, DataKind
from mixtura.data.schema import Schema
from mixtura.data.source import Data
from mixtura.families import TABLE, Family
from mixtura.features.space import FeatureSpace
from mixtura.folder import store
from mixtura.folder.records import Score
from mixtura.ground import machine
from mixtura.ground.encode import Columns
from mixtura.ground.inputs import Inputs
from mixtura.ground.machine import CannotWrite
from mixtura.ground.rng import child_seed, generator, seeded
from mixtura.job import verdict
from mixtura.job.options import Options, choose_families
from mixtura.job.portrait import portrait
from mixtura.job.scoring import appraise, bits_per_dimension, calibrate, memorised, timed_sample
from mixtura.job.splits import SAMPLES, make_splits
from mixtura.job.verdict import Pool
from mixtura.metrics.likelihood import mean_nats
from mixtura.study import Study, assemble, card
from mixtura.train.devices import choose_device
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

#: rows and images of the verdict's choice that are written to the folder, and of everything that the report shows
EXAMPLE_ROWS, SHOWN_ROWS = 1_000, 400
#: of a run with targets: draws for each row of the example; report rows whose answers are drawn, and how often at most; for
#: each of these, draws for a picture
EXAMPLES_EACH, CALIBRATED, MOST_DRAWS, PICTURE_DRAWS = 10, 300, 99, 128
#: samples whose nearest training row is shown
NEAREST = 24
#: of the budget: what the end of a run takes (metrics, files; with targets, answers are drawn then), and what scoring and
#: sampling a model is thought to take before it has been measured
ENDING, ENDING_WITH_TARGETS, SCORING = 0.16, 0.22, 0.04


# --------------------------------------------------------------------------------------------------- the records


@dataclass(frozen=True)
class Planned:
    """The first record: what was understood and what will be done. ``target``, ``given``: of a run with targets."""

    name: str
    what: str
    rows: int
    rows_total: int
    skipped: list[str]
    columns: list[dict[str, str]]
    splits: dict[str, Any]
    families: list[str]
    budget: float | None
    steps: int | None
    seed: int
    folder: str | None
    estimate: float | None
    resumed: float
    target: list[str] | None = None
    given: list[str] | None = None


@dataclass(frozen=True)
class Progress:
    """A model is being trained: ``done`` of 1, the latest validation nats, seconds left for this model."""

    name: str
    done: float
    validation: float | None
    left: float | None
    note: str = ""


@dataclass(frozen=True)
class Judged:
    """A model has been fitted and scored on the select rows, or not (see status and reason)."""

    name: str
    status: str
    reason: str
    select_nats: float | None


@dataclass(frozen=True)
class Done:
    """The last record."""

    study: Study


Record = Planned | Progress | Judged | Done


@dataclass(frozen=True)
class _Candidate:
    """A model to fit: how to build it, how to train it."""

    name: str
    build: Callable[[Space, int, torch.Generator], Model]
    family: str | None
    recipe: Mapping[str, Any]


@dataclass(frozen=True)
class _Fitted:
    """The models of a run, what was kept of each when it had been fitted, and their nats of the select and report rows."""

    models: Mapping[str, Model]
    kept: Mapping[str, Mapping[str, Tensor]]
    select: Mapping[str, Tensor]
    report: Mapping[str, Tensor]
    mc_error: Mapping[str, float]


class Job(ABC):
    """A run in its folder. What models are judged by beside their nats, and what the report shows, is in the subclasses."""

    ending = ENDING

    def __init__(self, out: Path, options: Options, data: Data, schema: DataKind, began: float) -> None:
        self.out, self.options, self.data, self.whole = out, options, data, schema
        self.device = choose_device(options.device)
        # what models are of, and, in a run with targets, the features that they are given
        self.schema: DataKind = schema
        self.context: Tensor | None = None
        groups, times, given = (self._column(name) for name in (options.group, options.time, options.split))
        most, self.samples = schema.looked_at(options.planned_seconds)
        rows = schema.encode(source.rows_of(data), name=data.name)
        self.splits = make_splits(rows, seed=options.seed, groups=groups, times=times, given=given, most=most)
        self.x = self._understand(rows)
        # one for all models and folds: of the rows that any of them learns from, never of the report rows
        self.encoding = Columns(self.schema.space)
        self.encoding.prepare(self.schema.space.clamp(self.x[self.splits.training]))
        self.candidates = self._candidates()
        self.timed = {c.name for c in self.candidates if self._is_timed(c)}
        self.units: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, dict[str, Any]] = {}
        self.notes: dict[str, str] = {}
        # what a passing fault of an earlier sitting ended; it has another chance in this one
        self.again: dict[str, dict[str, Any]] = {}
        self.earlier = 0.0
        self.began, self.saved = began, time.monotonic()
        self.history: list[dict[str, Any]] = []

    @abstractmethod
    def _understand(self, rows: Tensor) -> Tensor:
        """Of all rows of the data, (n, …) in data units, those that models are of; sets what they are given."""

    @abstractmethod
    def _look(self, model: Model, n: int, name: str, what: str) -> dict[str, Tensor]:
        """What is kept of a model that has just been fitted, beside its nats, for weights to be chosen by."""

    @abstractmethod
    def _conclude(self, fitted: _Fitted) -> Study:
        """Weigh, judge on the report rows, and write what the folder holds of it."""

    def _context_of(self, rows: Tensor) -> Tensor | None:
        """The context of some rows."""
        return None if self.context is None else self.context[rows]

    def take_up(self, config: Mapping[str, Any]) -> None:
        """Make the folder, or take up the run that stopped in it."""
        if self.options.fresh and self.out.exists():
            machine.clear(self.out, last="config.json")
        if not (self.out / "config.json").exists():
            store.write_json(self.out / "config.json", config)
        if not (self.out / "schema.json").exists():
            target = {"target": list(self.options.targets)} if self.options.targets else {}
            store.write_json(self.out / "schema.json", self.whole.to_json() | target)
        if (self.out / "state.json").exists():
            self.units, failures, self.earlier = read_state(self.out)
            self.again = {name: failure for name, failure in failures.items() if failure.get("again")}
            self.failures = {name: failure for name, failure in failures.items() if name not in self.again}

    def _column(self, name: str | None) -> pd.Series | None:
        return None if name is None else cast(pd.Series, cast(pd.DataFrame, source.rows_of(self.data))[name])

    def _candidates(self) -> list[_Candidate]:
        seconds, own, outside = self.options.planned_seconds, self.options.models, self.options.samples
        shape = None if self.context is None else tuple(self.context.shape[1:])
        contexts = {name: row.context for name, row in TABLE.items()}
        rows = [TABLE[name] for name in choose_families(self.options.families, contexts, given=shape is not None)]
        clash = sorted((set(own) | set(outside)) & ({*TABLE, "blend"}) | set(own) & set(outside))
        if clash:
            raise InputError(f"models: the name {clash[0]!r} is taken; give your model another name")
        build = lambda row: partial(_build_family, row, self.encoding, shape, seconds)  # noqa: E731
        families = [_Candidate(row.name, build(row), row.name, row.recipe) for row in rows]
        return families + [_Candidate(name, partial(_build_own, own, shape), None, {}) for name, own in own.items()]

    def _is_timed(self, candidate: _Candidate) -> bool:
        """Whether its fit trains for a share of the budget; a closed fit takes the time it takes."""
        try:
            return not isinstance(candidate.build(self.schema.space, len(self.splits.training), generator(0)), ClosedForm)
        except Exception:  # noqa: BLE001  it is reported, with its reason, when it is its turn
            return False

    @property
    def elapsed(self) -> float:
        """Seconds this run has had, earlier sittings included."""
        return self.earlier + time.monotonic() - self.began

    def _save_state(self) -> None:
        failures = {**self.again, **self.failures}
        store.write_json(self.out / "state.json", {"elapsed": self.elapsed, "units": self.units, "failures": failures})
        self.saved = time.monotonic()

    def _share(self, name: str) -> float | None:
        """Seconds for one fit of this model: what is left when all scoring is paid, shared evenly among the models to come."""
        budget = self.options.seconds
        if budget is None:
            return None
        if name in self.again:  # what is left when the others have had theirs may be nothing
            had = [u["share"] for key, u in self.units.items() if key.startswith(f"{name}/") and u.get("share") is not None]
            return had[0] if had else (1 - self.ending) * budget / (max(1, len(self.timed)) * (self.splits.folds + 1))
        names = [c.name for c in self.candidates]
        coming = [n for n in names[names.index(name) :] if n not in self.failures and n in self.timed]
        # report rows are scored at the end, as many as select rows were or (cross-fitted) fewer
        owed = sum(u["scoring"] for u in self.units.values() if "scoring" in u) + SCORING * budget * 2 * len(coming)
        left = (1 - self.ending) * budget - self.elapsed - owed
        folds = self.splits.folds
        todo = folds + 1 - sum("plan" in self.units.get(f"{name}/{k}", {}) for k in range(folds))
        return max(0.2, left / (len(coming) - 1 + todo / (folds + 1)) / (folds + 1))

    def planned(self, *, estimate: bool = False) -> Planned:
        """What was understood and what will be done; ``estimate`` times a few steps to say how long steps will take."""
        s, budget = self.splits, self.options.seconds
        sizes = {"fit": len(s.fit), "select": len(s.select), "report": len(s.report)}
        return Planned(
            name=self.data.name, what=self.whole.summary(len(self.x)), rows=len(self.x), rows_total=self.data.rows_total,
            skipped=list(getattr(self.data, "skipped", ())), columns=self.whole.describe(),
            splits=sizes | {"rule": s.rule, "folds": s.folds, "duplicates": s.duplicates}, resumed=self.earlier,
            families=[c.name for c in self.candidates], budget=budget, steps=self.options.steps, seed=self.options.seed,
            folder=None if self.options.out is None else str(self.out),
            estimate=self._estimate() if estimate and budget is None else budget, **self._told(),
        )  # fmt: skip

    def _told(self) -> dict[str, list[str]]:
        """What a subclass adds to the plan."""
        return {}

    def _estimate(self) -> float | None:
        """Seconds a run by steps will take, from timing a few steps of every model on a few rows."""
        if self.options.steps is None:
            return None
        few = self.splits.fit[:2_000]
        total, rows, context = 0.0, self.x[few], self._context_of(few)
        for candidate in self.candidates:
            began = time.monotonic()
            try:
                model = candidate.build(self.schema.space, len(rows), generator(0))
                if isinstance(model, ClosedForm):
                    model.fit_closed(rows, context, generator(0))
                    total += (time.monotonic() - began) * min(10, len(self.splits.fit) / len(rows))
                else:
                    recipe = Recipe(**{**candidate.recipe, **model.recipe, "steps": 20})
                    steps = fit(model, Batch(x=rows, context=context), recipe, rng=generator(0), device=self.device)
                    spent = [step.seconds for step in steps]
                    total += (spent[-2] - spent[4]) / (len(spent) - 6) * min(self.options.steps, recipe.most_steps)
            except Exception:  # noqa: BLE001  a family that fails here is reported when it is its turn
                continue
        return total * (self.splits.folds + 1)

    # ------------------------------------------------------------------------------------------------- training

    def train_all(self) -> Iterator[Record]:
        """Fit every candidate, in every fold and on all training rows; a failure is a record, not the end, but of a disk that
        takes no more: CannotWrite."""
        for candidate in self.candidates:
            name = candidate.name
            try:
                if name not in self.failures and not self._nats_path(name).exists():
                    yield Progress(name, 0.0, None, None)
                    yield from self._train_one(candidate)
            except CannotWrite:
                raise
            except InputError as error:
                self._fail(name, "skipped", str(error), error)
            except Exception as error:  # noqa: BLE001  one family must not take the others down; its reason is in the table
                store.write(self.out / "work" / f"{name}.error.txt", traceback.format_exc())
                message = next((line for line in str(error).splitlines() if line.strip()), "no message")
                self._fail(name, "failed", f"{type(error).__name__}: {message}", error)
            self.again.pop(name, None)
            if name in self.failures:
                yield Judged(name, self.failures[name]["status"], self.failures[name]["reason"], None)
            else:
                nats = store.read_tensors(self._nats_path(name)).get("select")
                yield Judged(name, "fitted", "", None if nats is None else float(nats.mean()))

    def _fail(self, name: str, status: str, reason: str, error: Exception) -> None:
        """Note that a family failed: for good, or, where the fault passes, in this sitting."""
        self.failures[name] = _failure(status, reason, error)
        self._save_state()

    def _nats_path(self, name: str) -> Path:
        return self.out / "work" / f"{name}.nats.safetensors"

    def _train_one(self, candidate: _Candidate) -> Iterator[Record]:
        name, splits, seed = candidate.name, self.splits, self.options.seed
        if self.options.stops is not None and "scoring" not in self.options.stops.get(f"{name}/all", {}):
            raise InputError(f"{name}: the run to be replayed has no finished fit of it")
        pieces = []
        for k in range(splits.folds):
            kept = self._fold_path(name, k)
            if not kept.exists():
                learn, left = splits.fold(k)
                model = yield from self._fit(candidate, f"{name}/{k}", splits.training[learn], k / (splits.folds + 1))
                tensors = {"position": left, **self._look(model, self.samples // splits.folds, name, f"fold {k}")}
                if density_kind(model) is not None:
                    tensors["nats"], _ = self._nats(model, splits.training[left], generator(seed, name, "fold", k))
                self._save_state()
                store.write_tensors(kept, tensors)  # last: what is there is not done again
            pieces.append(store.read_tensors(kept))
        model = yield from self._fit(candidate, f"{name}/all", splits.training, splits.folds / (splits.folds + 1))
        yield Progress(name, 1.0, None, None, "scoring")
        began = time.monotonic()
        # one that cannot sample fails here, alone
        model.sample(8, context=self._context_of(splits.training[:8]), rng=generator(seed, name, "trial"))
        tensors = {} if pieces else self._look(model, self.samples, name, "select")
        if density_kind(model) is not None:
            if pieces:
                position = torch.cat([p["position"] for p in pieces])
                tensors["select"] = torch.cat([p["nats"] for p in pieces])[position.argsort()]
            else:
                tensors["select"], _ = self._nats(model, splits.select, generator(seed, name, "select"))
        self.units[f"{name}/all"]["scoring"] = time.monotonic() - began
        config = getattr(model, "config", None)
        settings = config.model_dump(mode="json") if candidate.family and config else None
        store.save_model(self.out / "models" / name, model, candidate.family, settings)
        self._save_state()
        store.write_tensors(self._nats_path(name), tensors or {"none": torch.zeros(1)})  # last: as a fold's

    def _fold_path(self, name: str, k: int) -> Path:
        return self.out / "work" / f"{name}.fold{k}.safetensors"

    def _nats(self, model: Model, rows: Tensor, rng: torch.Generator) -> tuple[Tensor, float]:
        """As :func:`log_probs` of the rows with these numbers; FloatingPointError where one is NaN or +inf."""
        nats, error = log_probs(model, self.x[rows], context=self._context_of(rows), rng=rng)
        return sound(nats, model), error

    def _fit(self, candidate: _Candidate, unit: str, rows: Tensor, done_before: float) -> Generator[Record, None, Model]:
        """Fit one model to the rows with these numbers; returns it. ``done_before``: how much of this candidate's work came
        before."""
        name, folds = candidate.name, self.splits.folds
        rng = generator(self.options.seed, unit)
        x, context = self.x[rows], self._context_of(rows)
        model = candidate.build(self.schema.space, len(x), rng)
        began = time.monotonic()
        if isinstance(model, ClosedForm):
            yield Progress(name, done_before, None, None, "fitting")
            model.fit_closed(x, context, rng)
            self.units[unit] = {"plan": None, "seconds": time.monotonic() - began, "converged": True}
            return model.eval()
        if not model.stages():
            raise InputError(f"{name}: it offers neither stages to train nor fit_closed; a model of your own needs one of them")
        entry = self.units.setdefault(unit, {"share": self._share(name)})
        self._save_state()
        recipe = self._recipe({**candidate.recipe, **model.recipe}, unit, entry)
        work, stem = self.out / "work", unit.replace("/", ".")
        work.mkdir(parents=True, exist_ok=True)
        shown, unit_of = 0.0, {stage.name: stage.unit for stage in model.stages()}
        checkpoint = work / f"{stem}.checkpoint"
        learnt = Batch(x=x, context=context)
        for step in fit(model, learnt, recipe, rng=rng, device=self.device, checkpoint=checkpoint, name=name):
            now = time.monotonic()
            if now - self.saved > 2:
                self._save_state()
            if step.validation is not None:
                self.history.append({"model": name, "fit": unit, **asdict(step)})
            if step.finished:
                entry |= {"plan": [list(stage) for stage in step.plan], "seconds": step.seconds}
                entry |= {"converged": step.converged, "wanted": step.wanted, "best": step.best}
                store.write_lines(work / f"{stem}.history.jsonl", [h for h in self.history if h["fit"] == unit])
            if now - shown > 0.2 or step.finished:
                shown = now
                left = step.seconds * (1 / step.share - 1)
                reached = -step.best if unit_of[step.stage] == "nats" and math.isfinite(step.best) else None
                yield Progress(name, done_before + step.share / (folds + 1), reached, left)
        return model

    def _recipe(self, settings: Mapping[str, Any], unit: str, entry: Mapping[str, Any]) -> Recipe:
        if self.options.stops is not None:
            plan = tuple((steps, end) for steps, end in self.options.stops[unit]["plan"])
            return Recipe(**{**settings, "plan": plan})
        if self.options.steps is not None:
            most = settings.get("most_steps", self.options.steps)
            return Recipe(**{**settings, "steps": min(self.options.steps, most)})
        return Recipe(**{**settings, "seconds": entry["share"]})

    # ------------------------------------------------------------------------------------------------- verdict

    def verdict(self) -> Study:
        """Weigh on the select rows, open the report rows once, write everything down."""
        # where a finished run goes on with what a passing fault had ended, these are out of date from here on
        for old in ("verdict.json", "report.html"):
            (self.out / old).unlink(missing_ok=True)
        names = [c.name for c in self.candidates if c.name not in self.failures]
        models = {n: store.load_model(self.out / "models" / n, self.schema.space, self.options.models) for n in names}
        kept = {name: store.read_tensors(self._nats_path(name)) for name in names}
        select = {name: kept[name]["select"] for name in names if "select" in kept[name]}
        report, mc_error = {}, {}
        for name in [*select]:
            rng = generator(self.options.seed, name, "report")
            try:
                report[name], mc_error[name] = self._nats(models[name], self.splits.report, rng)
            except FloatingPointError as error:  # as in training: one that breaks must not take the others down
                self._fail(name, "failed", f"FloatingPointError: {error}", error)
                del models[name], select[name]
        if not models:
            reasons = "; ".join(f"{n}: {f['reason']}" for n, f in self.failures.items())
            raise InputError(f"no family could be fitted to this data ({reasons})")
        return self._conclude(_Fitted(models, kept, select, report, mc_error))

    def _failed(self, name: str) -> Score:
        return Score(name, self.failures[name]["status"], self.failures[name]["reason"])

    def _fitted(self, score: Score, fitted: _Fitted, cost: float) -> Score:
        """The score of a model of this run, with what only a model has. ``cost``: milliseconds to draw 1,000 rows."""
        name, unit, model = score.name, self.units[f"{score.name}/all"], fitted.models[score.name]
        nats = fitted.report.get(name)
        fits = [u["seconds"] for key, u in self.units.items() if key.startswith(f"{name}/") and key != f"{name}/all"]
        mean = mean_nats(nats.numpy()) if nats is not None else None
        bits = bits_per_dimension(mean, self.schema.space) if mean else None
        few = self.splits.report[:500]
        with torch.no_grad():
            diagnosis = model.diagnose(self.x[few], self._context_of(few), generator(self.options.seed, name, "diagnosis"))
        how = model.how if isinstance(model, LowerBound) else "cell masses" if isinstance(model, Density) else ""
        return replace(
            score, status="fitted", kind=density_kind(model), mc_error=fitted.mc_error.get(name),
            nats=mean.value if mean else None, nats_error=mean.error if mean else None, sample_ms=cost, seconds=unit["seconds"],
            seconds_error=float(np.std(fits, ddof=1)) if len(fits) > 1 else None, steps=_steps(unit),
            converged=unit["converged"], wanted=unit.get("wanted"), how=how, diagnosis=diagnosis,
            bits=bits.value if bits else None, bits_error=bits.error if bits else None,
        )  # fmt: skip

    def _write(self, study: Study, fitted: _Fitted, example: Content) -> None:
        """What every run leaves; ``example``: rows of the verdict's choice."""
        out, splits = self.out, self.splits
        nats = {"select": fitted.select, "report": fitted.report}
        store.write_tensors(out / "nats.safetensors", {f"{n}.{part}": v for part in nats for n, v in nats[part].items()})
        store.write_tensors(out / "encoding.safetensors", self.encoding.state_dict())
        store.write_tensors(out / "splits.safetensors", {p: getattr(splits, p) for p in ("fit", "select", "report")})
        kept = sorted((out / "work").glob("*.history.jsonl"))
        store.write_lines(out / "history.jsonl", [record for path in kept for record in store.read_lines(path)])
        store.write_lines(out / "scores.jsonl", [asdict(s) for s in study.scores])
        _write_example(example, out)
        store.write(out / "README.md", card(study, self.data.name, splits))
        self._save_state()
        spoken = {"objective": study.objective, "why": study.why, "duplicates": splits.duplicates}
        if study.conditioning is not None:
            spoken["conditioning"] = asdict(study.conditioning)
        store.write_json(out / "verdict.json", spoken | {"verdicts": {name: asdict(v) for name, v in study.verdicts.items()}})
        if not to_be_tried_again(out):
            shutil.rmtree(out / "work", ignore_errors=True)


class Together(Job):
    """All columns of a table, or images, as one: judged in nats and by samples."""

    def _understand(self, rows: Tensor) -> Tensor:
        self.lens = FeatureSpace.of_rows(self.schema, rows[self.splits.fit], self.options.features, seed=self.options.seed)
        return rows

    def _look(self, model: Model, n: int, name: str, what: str) -> dict[str, Tensor]:
        return {"seen": self.lens(model.sample(n, rng=generator(self.options.seed, name, "samples", what)))}

    def _conclude(self, fitted: _Fitted) -> Study:
        space, splits, seed = self.schema.space, self.splits, self.options.seed
        models, select = fitted.models, fitted.select
        outside = self._outside()
        drawn, cost = {}, {}
        for name, model in models.items():
            drawn[name], cost[name] = timed_sample(model, self.samples, rng=generator(seed, name, "samples"))
        drawn |= {name: rows[1::2] for name, rows in outside.items()}
        verdicts = {}
        if select:
            kinds = {name: str(density_kind(models[name])) for name in select}
            verdicts["nats"] = verdict.in_nats(select, fitted.report, kinds, self.schema.nouns)
        seen = {name: self.lens(x) for name, x in drawn.items()}
        shown = self.lens(self.x[splits.report])
        choosing = self._pools([*models], fitted.kept, {name: self.lens(rows[::2]) for name, rows in outside.items()})
        verdicts["mmd"], quadratic = verdict.in_mmd(choosing, Pool(shown, seen), self.lens.kernel, self.schema.nouns)
        objective, why = verdict.which(
            verdicts, asked=self.options.objective, images=self.schema.judged_by_samples, outside=[*outside]
        )
        if objective not in verdicts:
            raise InputError("objective: nats was asked for, but no model here has a density; leave --objective out")
        scores = self._scores(fitted, drawn, seen, shown, cost)
        # judged as they were made, but given back as what the columns can hold
        given = {name: space.clamp(rows) for name, rows in outside.items()}
        everyone = {**models, **{name: SamplesAtHand(space, rows) for name, rows in given.items()}}
        study = assemble(self.schema, scores, verdicts, objective, why, everyone, self.out)
        for name, rows in given.items():
            store.write_tensors(self.out / "samples" / f"{name}.safetensors", {"rows": rows})
        store.write_json(self.out / "quadratic.json", {**quadratic, "features": self.lens.name})
        store.write_tensors(self.out / "gallery.safetensors", self._gallery(drawn, seen))
        self._write(study, fitted, study.best.sample(self.schema.examples, seed=seed))
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
                if len(rows) < 16:
                    raise InputError(f"{name}: {len(rows)} rows are too few to judge; give 16 or more")
                found[name] = rows[: 4 * SAMPLES]
                self.failures.pop(name, None)
            except InputError as error:
                self.failures[name] = _failure("failed", str(error), error)
        return found

    def _pools(self, names: Sequence[str], kept: Mapping[str, Mapping[str, Tensor]], outside: Mapping[str, Tensor]) -> list[Pool]:
        """What weights in MMD² are chosen on: select rows beside samples; or, a fold, its left-out rows beside samples of the
        models that did not see them."""
        splits = self.splits
        if not splits.folds:
            return [Pool(self.lens(self.x[splits.select]), {name: kept[name]["seen"] for name in names} | dict(outside))]
        pools = []
        for k in range(splits.folds):
            _, left = splits.fold(k)
            seen = {name: store.read_tensors(self._fold_path(name, k))["seen"] for name in names}
            pools.append(Pool(self.lens(self.x[splits.training[left]]), seen | dict(outside)))
        return pools

    def _scores(
        self, fitted: _Fitted, drawn: Mapping[str, Tensor], seen: Mapping[str, Tensor], shown: Tensor, cost: Mapping[str, float]
    ) -> list[Score]:
        splits, seed = self.splits, self.options.seed
        fit, real = self.x[splits.training], self.x[splits.report]
        scores = []
        for name in [*(c.name for c in self.candidates), *self.options.samples]:
            if name in self.failures:
                scores.append(self._failed(name))
                continue
            copied = memorised(seen[name], fit, shown, self.lens, rng=generator(seed, name, "memorisation"))
            rng = partial(generator, seed, name, "metric")
            found = appraise(real, drawn[name], self.lens, kernel=self.lens.kernel, codes=self.lens.codes, seed=rng)
            score = Score(
                name, "samples only", self.notes.get(name, ""), rows=len(real),
                memorisation=copied.value, memorisation_error=copied.error,
                metrics={metric: asdict(value) for metric, value in found.items()},
            )  # fmt: skip
            scores.append(self._fitted(score, fitted, cost[name]) if name in fitted.models else score)
        return scores

    def _gallery(self, drawn: Mapping[str, Tensor], seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the report shows, in data units: unseen real rows, samples, and the training row nearest to some samples."""
        training = self.x[self.splits.training]
        fit = self.lens(training)
        gallery = {"real": self.x[self.splits.report][:SHOWN_ROWS]}
        for name, x in drawn.items():
            nearest = torch.cdist(seen[name][:NEAREST].double(), fit.double()).argmin(1)
            shown = self.schema.space.clamp(x[:SHOWN_ROWS])
            gallery |= {f"samples.{name}": shown, f"nearest.{name}": training[nearest]}
        return {name: x.to(self.schema.gallery_dtype) for name, x in gallery.items()}


@dataclass(frozen=True)
class _Calibrated:
    """What :func:`calibrate` found of one model, and the milliseconds that 1,000 draws took."""

    found: Mapping[str, Mapping[str, Any]]
    ranks: Mapping[str, Tensor]
    cost: float


class Targets(Job):
    """Some columns of a table given the others: judged in nats of the targets and by their calibration."""

    ending = ENDING_WITH_TARGETS

    def _candidates(self) -> list[_Candidate]:
        """Closed fits first, which take the time they take; the others share what is left."""
        return sorted(super()._candidates(), key=self._is_timed)

    def _understand(self, rows: Tensor) -> Tensor:
        self.schema, schema = split_target(self.whole, self.options.targets)
        names = [field.name for field in cast(Schema, self.whole).modelled]
        ours = torch.tensor([name in self.options.targets for name in names])
        inputs = Inputs(schema.space)
        inputs.prepare(rows[self.splits.fit][:, ~ours])
        self.given = InputColumns(schema, inputs)
        self.asked = rows[:, ~ours]
        self.context = inputs(self.asked)
        return self.schema.encode(source.rows_of(self.data), name=self.data.name)  # as wide as their support now is

    def _told(self) -> dict[str, list[str]]:
        return {"target": list(self.options.targets), "given": self.given.names}

    def _look(self, model: Model, n: int, name: str, what: str) -> dict[str, Tensor]:
        return {}  # no two rows have the same inputs, so there are no samples of one law to compare

    def _conclude(self, fitted: _Fitted) -> Study:
        models, select, report = fitted.models, fitted.select, fitted.report
        if not select:
            raise InputError("--target: no model here has a density given the inputs; name families that have one")
        share, _, _ = verdict.weigh(select)
        gate = self._gate(select, [*share.values()])
        weights = None if gate is None else gate(len(self.splits.report), self._context_of(self.splits.report))
        kinds = {name: str(density_kind(models[name])) for name in select}
        spoken = verdict.in_nats(select, report, kinds, self.schema.nouns, weights)
        spoken, beside = verdict.of_inputs(spoken, report, share, weights, self.options.targets, self.given.names)
        rows = self._calibration_rows()
        looks = {name: self._calibrate(model, name, rows) for name, model in models.items()}
        scores = [
            self._failed(name) if name in self.failures else self._score(name, fitted, looks[name])
            for name in (c.name for c in self.candidates)
        ]
        beside = replace(beside, gate=None if gate is None else gate.plain())
        why = "a density of the targets given the inputs is wanted"
        study = assemble(self.schema, scores, {"nats": spoken}, "nats", why, models, self.out, self.given, beside)
        if spoken.choice == "blend":
            looks["blend"] = self._calibrate(study.best.model, "blend", rows)
        study = replace(study, conditioning=replace(beside, calibration=looks[spoken.choice].found))
        self._keep(study, looks, rows)
        asked = cast(pd.DataFrame, source.rows_of(self.data)).iloc[self.splits.report[: EXAMPLE_ROWS // EXAMPLES_EACH].numpy()]
        self._write(study, fitted, study.best.sample(EXAMPLES_EACH, seed=self.options.seed, given=asked))
        return study

    def _keep(self, study: Study, looks: Mapping[str, _Calibrated], rows: Tensor) -> None:
        """What only a folder of targets holds: what models see of the inputs, ranks, and portraits of the verdict's choice."""
        out, asked, truths = self.out, self.asked[rows], self.x[rows]
        store.write_tensors(out / "inputs.safetensors", self.given.inputs.state_dict())
        ranks = {f"{name}/{target}": u for name, look in looks.items() for target, u in look.ranks.items()}
        store.write_tensors(out / "calibration.safetensors", {"rows": rows, **ranks})
        store.write_tensors(out / "gallery.safetensors", {"asked": asked, "real": truths})
        draws = PICTURE_DRAWS * self.units[f"{study.verdict.choice}/all"]["draws"]
        portraits = portrait(study.best.model, self.given.inputs, asked, truths, draws=draws, seed=self.options.seed)
        store.write_json(out / "portraits.json", portraits)

    def _gate(self, select: Mapping[str, Tensor], weights: Sequence[float]) -> Gate | None:
        """Weights that depend on the inputs, if the select rows speak for them."""
        rows = self.splits.training if self.splits.folds else self.splits.select
        nats = torch.stack([*select.values()], 1)
        possible = (nats > -math.inf).any(1)
        if len(weights) < 2 or int(possible.sum()) < 2 * FOLDS:
            return None
        floor = list(select).index("marginals") if "marginals" in select else None
        gate = choose_gate(nats[possible], cast(Tensor, self._context_of(rows))[possible], weights, floor).gate
        return None if gate.is_constant else gate

    def _calibration_rows(self) -> Tensor:
        """The report rows whose answers are drawn."""
        order = torch.randperm(len(self.splits.report), generator=generator(self.options.seed, "calibration"))
        return self.splits.report[order[:CALIBRATED].sort().values]

    def _calibrate(self, model: Model, name: str, rows: Tensor) -> _Calibrated:
        context, seed = cast(Tensor, self._context_of(rows)), self.options.seed
        entry = self.units.setdefault(f"{name}/all", {})
        if "draws" not in entry:
            entry["draws"] = self._draws(model, name, context)
            self._save_state()
        began = time.process_time()
        draws = draw_given(model, context, entry["draws"], rng=generator(seed, name, "answers"))
        cost = (time.process_time() - began) * 1e6 / (len(rows) * entry["draws"])
        rng = generator(seed, name, "ranks")
        names = [field.name for field in cast(Schema, self.schema).modelled]
        found, ranks = calibrate(self.x[rows], draws, self.schema.space, names, rng=rng)
        # as the folder gives it back: what has no error has none
        return _Calibrated(store.plain({metric: asdict(value) for metric, value in found.items()}), ranks, cost)

    def _draws(self, model: Model, name: str, context: Tensor) -> int:
        """How many of every row: fewer where they are dear; always one less than a multiple of 20, so that the ends of the
        intervals are draws."""
        if self.options.stops is not None:
            return int(self.options.stops[f"{name}/all"]["draws"])
        if self.options.seconds is None:
            return MOST_DRAWS
        began = time.monotonic()
        draw_given(model, context, 1, rng=generator(self.options.seed, name, "trial answers"))
        each = time.monotonic() - began
        coming = len(self.candidates) + 1 - sum("draws" in unit for unit in self.units.values())
        room = max(0.0, (1 - self.ending / 4) * self.options.seconds - self.elapsed) / max(1, coming)
        return int(min(MOST_DRAWS, max(20, room / each // 20 * 20) - 1))

    def _score(self, name: str, fitted: _Fitted, look: _Calibrated) -> Score:
        return self._fitted(Score(name, "fitted", rows=len(self.splits.report), metrics=look.found), fitted, look.cost)


def _write_example(example: Content, out: Path) -> None:
    """As samples.npz or samples.csv, or .jsonl where text cannot tell the labels apart."""
    if not isinstance(example, pd.DataFrame):
        return source.write(example, out / "samples.npz")
    try:
        source.write(example, out / "samples.csv")
    except machine.CannotWrite:
        raise
    except InputError:
        (out / "samples.csv").unlink(missing_ok=True)
        source.write(example, out / "samples.jsonl")


def read_state(out: Path) -> tuple[dict[str, Any], dict[str, Any], float]:
    """How far a run has come: its fits, its failures, its seconds."""
    state = store.read_json(out / "state.json")
    try:
        units, failures, elapsed = state["units"], state["failures"], float(state["elapsed"])
        if not all(isinstance(entry, dict) for part in (units, failures) for entry in part.values()):
            raise TypeError("expected one object an entry")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{out}/state.json: damaged ({type(error).__name__}: {error}); run again with --fresh") from error
    return units, failures, elapsed


def to_be_tried_again(out: Path) -> list[str]:
    """Families of a run whose faults may have passed: the same command gives them another chance."""
    return [name for name, failure in read_state(out)[1].items() if failure.get("again")]


def _steps(unit: Mapping[str, Any]) -> int | None:
    """Steps of a trained fit, over all stages."""
    return sum(ended for _, ended in unit["plan"]) if unit["plan"] else None


def _failure(status: str, reason: str, error: Exception) -> dict[str, Any]:
    if not machine.passes(error):
        return {"status": status, "reason": reason}
    return {"status": "failed", "reason": f"{reason}; the same command tries it again", "again": True}


Shape = tuple[int, ...] | None


def _build_family(
    row: Family, encoding: Columns, context: Shape, seconds: float | None, space: Space, n: int, rng: torch.Generator
) -> Model:
    return row.build(space, encoding=encoding, context_shape=context, config=row.suggest(space, n, seconds), rng=rng)


def _build_own(own: Callable[..., Model], context: Shape, space: Space, _n: int, rng: torch.Generator) -> Model:
    with seeded(child_seed(int(torch.randint(2**62, (), generator=rng)), "own")):
        model = own(space) if context is None else own(space, context)
    if not isinstance(model, Model):
        raise InputError(f"models: expected a callable Space → mixtura.Model, got {type(model).__name__}")
    if model.context_shape != context:
        raise InputError(
            f"models: expected a model built with context shape {context}, got one with {model.context_shape}; "
            "with --target your callable takes the Space and that shape"
        )
    return model


