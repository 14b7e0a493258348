"""The main job: a table in, a verdict out. Plan, fit, judge, blend, say.

:func:`conduct` is the long process, an iterator of records; :func:`run` plays it to the end. Both leave a
:class:`Study`; :func:`load` makes the same from a run folder.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from mixtura import folder as store
from mixtura import judge, mixture, plan, train
from mixtura.contracts import ClosedForm, InputError, LowerBound, Model, Space, density_kind
from mixtura.data.read import Table, read, write
from mixtura.data.schema import Kind, Schema, guess
from mixtura.facade import Study, Verdict, as_frame, assemble, card, load
from mixtura.families import TABLE, Family
from mixtura.judge import Score
from mixtura.metrics.likelihood import Estimate, gain, mean_nats
from mixtura.rng import child_seed, generator, seeded
from mixtura.select.simplex import Weights, stack
from mixtura.transforms import Columns

#: rows of the verdict's choice that are written to the folder
EXAMPLE_ROWS = 1_000
#: of the budget: what the end of a run takes (memorisation, costs, files), and what scoring a model is thought to take
#: before it has been measured
ENDING, SCORING = 0.06, 0.03
OBJECTIVE = "held-out nats per row"


# --------------------------------------------------------------------------------------------------- the records


@dataclass(frozen=True)
class Planned:
    """The first record: what was understood and what will be done."""

    name: str
    rows: int
    rows_total: int
    columns: list[dict[str, str]]
    splits: dict[str, Any]
    families: list[str]
    budget: float | None
    steps: int | None
    seed: int
    folder: str | None
    estimate: float | None
    resumed: float


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
class Options:
    """What a run may be asked; the arguments of :func:`run`. ``models`` maps a name to a callable Space → Model of
    your own, ``samples`` a name to a file or frame of an outside generator's samples. ``stops`` replays recorded steps."""

    budget: str | float | None = None
    steps: int | None = None
    families: Sequence[str] | None = None
    seed: int = 0
    out: str | Path | None = None
    fresh: bool = False
    split: str | None = None
    group: str | None = None
    time: str | None = None
    columns: Sequence[str] | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, Callable[[Space], Model]] = field(default_factory=dict)
    samples: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    stops: Mapping[str, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and (isinstance(self.steps, bool) or self.steps < 1):
            raise InputError(f"steps: expected a whole number, 1 or more, got {self.steps!r}")
        if self.steps is not None and self.budget is not None:
            raise InputError("budget and steps: give one of them; steps makes every fit take so many steps")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise InputError(f"seed: expected a whole number, 0 or more, got {self.seed!r}")
        odd = next((name for name in self.models if Path(name).name != name), None)
        if odd is not None:
            raise InputError(f"models: the name {odd!r} cannot be a file name; give your model another name")
        clash = sorted((set(self.models) | set(self.samples)) & ({*TABLE, "blend"}) | set(self.models) & set(self.samples))
        if clash:
            raise InputError(f"models: the name {clash[0]!r} is taken; give your model another name")

    @property
    def planned_seconds(self) -> float | None:
        """The budget in seconds; None for a run by steps."""
        return None if self.steps is not None else plan.parse_budget(60.0 if self.budget is None else self.budget)

    @property
    def seconds(self) -> float | None:
        """The seconds that bound this run; None where steps do, given or replayed."""
        return None if self.stops is not None else self.planned_seconds

    def asked(self) -> dict[str, Any]:
        """What decides the result, as plain data: two runs that agree in it are the same run."""
        families = None if self.families is None else list(self.families)
        columns = None if self.columns is None else list(self.columns)
        samples = {name: read(source).fingerprint for name, source in self.samples.items()}
        return {
            "budget": self.planned_seconds, "steps": self.steps, "families": families, "seed": self.seed,
            "split": self.split, "group": self.group, "time": self.time, "columns": columns,
            "kinds": dict(self.kinds), "models": sorted(self.models), "samples": samples,
        }  # fmt: skip


# ------------------------------------------------------------------------------------------------------ the job


def run(data: Any, **options: Any) -> Study:
    """Which generative model, or which blend, is best on rows of ``data`` never seen? See :class:`Options`.

    ``data`` is a frame, an array, a path or the name of a bundled example. With ``out`` the run is kept in that
    folder and goes on where it stopped.
    """
    for record in conduct(data, Options(**options)):
        if isinstance(record, Done):
            return record.study
    raise RuntimeError("the run ended without a verdict")


def conduct(data: Any, options: Options) -> Iterator[Record]:
    """The main job as an iterator of records: :class:`Planned`, :class:`Progress` and :class:`Judged` a model, :class:`Done`."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mixtura-") as scratch, _one_thread():
        table, schema = understand(data, options)
        out = Path(options.out) if options.out is not None else Path(scratch)
        config = _question(options, table, str(data) if isinstance(data, str | Path) else None)
        if _finished(out, options, config):
            yield Done(load(out, models=options.models))
            return
        job = _Job(out, options, table, schema, began)
        job.take_up(config)  # nothing is written before all that was asked is known to fit
        yield job.planned()
        yield from job.train_all()
        study = job.verdict()
        yield Done(study if options.out is not None else replace(study, folder=None))


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for torch and for scikit-learn's libraries while a run lasts: measured, two fight over small
    matrices (a mixture fit takes ten times as long) and no family gains; and the bits do not depend on the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


def preview(data: Any, options: Options) -> Planned:
    """The first record of :func:`conduct`, with nothing written and nothing trained."""
    with tempfile.TemporaryDirectory(prefix="mixtura-") as scratch, _one_thread():
        table, schema = understand(data, options)
        planned = _Job(Path(scratch), options, table, schema, time.monotonic()).planned(estimate=True)
        return replace(planned, folder=None if options.out is None else str(options.out))


def understand(data: Any, options: Options) -> tuple[Table, Schema]:
    """Read the data and guess its columns; the columns that only tell how to split are not modelled."""
    table = read(data, seed=options.seed)
    helpers = [name for name in (options.split,) if name is not None]
    for flag, name in (("--split", options.split), ("--group", options.group), ("--time", options.time)):
        if name is not None and name not in table.frame.columns:
            raise InputError(f"{flag}: no column {name!r} in the data; there are {', '.join(map(str, table.frame.columns[:12]))}")
    kinds = cast(Mapping[str, Kind], options.kinds)  # guess refuses what is no kind
    return table, guess(table.frame.drop(columns=helpers), kinds=kinds, columns=options.columns)


def _question(options: Options, table: Table, source: str | None) -> dict[str, Any]:
    """What config.json holds: what is asked, of which data, on which machine."""
    device = str(train.choose_device(options.device))
    return {
        "format": store.FORMAT,
        "mixtura": _version(),
        "source": source,
        "data": {"name": table.name, "fingerprint": table.fingerprint, "rows": len(table.frame), "rows_total": table.rows_total},
        "asked": options.asked(),
        "same_bits": {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": device},
    }


def _finished(out: Path, options: Options, config: Mapping[str, Any]) -> bool:
    """Whether the folder holds a finished run of the same question; InputError if it holds anything else. Only what
    is known to be a run is ever started over: other programs write a config.json too."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: a file, expected a folder to write the run to; give another --out")
    if not out.exists() or not any(out.iterdir()):
        return False
    kept = store.read_json(out / "config.json") if (out / "config.json").exists() else None
    if not isinstance(kept, dict) or not {"format", "data", "asked"} <= kept.keys():
        raise InputError(f"{out}: the folder is not empty and holds no run; give another --out")
    if options.fresh:
        return False
    for part, what in (("data", "other data"), ("asked", "other options")):
        if kept[part] != store.plain(config[part]):
            raise InputError(f"{out}: holds a run on {what}; give another --out, or --fresh to start over")
    return (out / "verdict.json").exists()


def _version() -> str:
    try:
        return metadata.version("mixtura")
    except metadata.PackageNotFoundError:
        return "unreleased"


@dataclass(frozen=True)
class _Candidate:
    """A model to fit: how to build it, how to train it."""

    name: str
    build: Callable[[Space, int, torch.Generator], Model]
    family: str | None
    recipe: Mapping[str, Any]


class _Job:
    """A run in its folder."""

    def __init__(self, out: Path, options: Options, table: Table, schema: Schema, began: float) -> None:
        self.out, self.options, self.table, self.schema = out, options, table, schema
        self.device = train.choose_device(options.device)
        self.x = schema.encode(table.frame, name=table.name)
        groups, times, given = (self._column(name) for name in (options.group, options.time, options.split))
        self.splits = plan.make_splits(self.x, seed=options.seed, groups=groups, times=times, given=given)
        self.candidates = self._candidates()
        self.timed = {c.name for c in self.candidates if self._is_timed(c)}
        self.units: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, dict[str, Any]] = {}
        self.earlier = 0.0
        self.began, self.saved = began, time.monotonic()
        self.history: list[dict[str, Any]] = []

    def take_up(self, config: Mapping[str, Any]) -> None:
        """Make the folder, or take up the run that stopped in it."""
        if self.options.fresh and self.out.exists():
            shutil.rmtree(self.out)
        if not (self.out / "config.json").exists():
            try:
                store.write_json(self.out / "schema.json", self.schema.to_json())
                store.write_json(self.out / "config.json", config)
            except OSError as error:
                raise InputError(f"{self.out}: cannot be written ({error.strerror}); give another --out") from error
        elif (self.out / "state.json").exists():
            self.units, self.failures, self.earlier = _read_state(self.out)

    def _column(self, name: str | None) -> pd.Series | None:
        return None if name is None else cast(pd.Series, self.table.frame[name])

    def _candidates(self) -> list[_Candidate]:
        seconds = self.options.planned_seconds
        rows = [TABLE[name] for name in plan.choose_families(self.options.families, list(TABLE))]
        families = [_Candidate(row.name, partial(_build_family, row, seconds), row.name, row.recipe) for row in rows]
        return families + [_Candidate(name, partial(_build_own, own), None, {}) for name, own in self.options.models.items()]

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
        store.write_json(self.out / "state.json", {"elapsed": self.elapsed, "units": self.units, "failures": self.failures})
        self.saved = time.monotonic()

    def _share(self, name: str) -> float | None:
        """Seconds for one fit of this model: what is left when all scoring is paid, shared evenly among the models to come."""
        budget = self.options.seconds
        if budget is None:
            return None
        names = [c.name for c in self.candidates]
        coming = [n for n in names[names.index(name) :] if n not in self.failures and n in self.timed]
        # report rows are scored at the end, as many as select rows were or (cross-fitted) fewer
        owed = sum(u["scoring"] for u in self.units.values() if "scoring" in u) + SCORING * budget * 2 * len(coming)
        left = (1 - ENDING) * budget - self.elapsed - owed
        folds = self.splits.folds
        todo = folds + 1 - sum("stop_at" in self.units.get(f"{name}/{k}", {}) for k in range(folds))
        return max(0.2, left / (len(coming) - 1 + todo / (folds + 1)) / (folds + 1))

    def planned(self, *, estimate: bool = False) -> Planned:
        """What was understood and what will be done; ``estimate`` times a few steps to say how long steps will take."""
        s, budget = self.splits, self.options.seconds
        sizes = {"fit": len(s.fit), "select": len(s.select), "report": len(s.report)}
        return Planned(
            name=self.table.name, rows=len(self.x), rows_total=self.table.rows_total, columns=self.schema.describe(),
            splits=sizes | {"rule": s.rule, "folds": s.folds, "duplicates": s.duplicates}, resumed=self.earlier,
            families=[c.name for c in self.candidates], budget=budget, steps=self.options.steps, seed=self.options.seed,
            folder=None if self.options.out is None else str(self.out),
            estimate=self._estimate() if estimate and budget is None else budget,
        )  # fmt: skip

    def _estimate(self) -> float | None:
        """Seconds a run by steps will take, from timing a few steps of every model on a few rows."""
        if self.options.steps is None:
            return None
        total, rows = 0.0, self.x[self.splits.fit[:2_000]]
        for candidate in self.candidates:
            began = time.monotonic()
            try:
                model = candidate.build(self.schema.space, len(rows), generator(0))
                if isinstance(model, ClosedForm):
                    model.fit_closed(rows, None, generator(0))
                    total += (time.monotonic() - began) * min(10, len(self.splits.fit) / len(rows))
                else:
                    recipe = train.Recipe(**{**candidate.recipe, "steps": 20})
                    spent = [step.seconds for step in train.fit(model, rows, recipe, rng=generator(0), device=self.device)]
                    total += (spent[-2] - spent[4]) / (len(spent) - 6) * min(self.options.steps, recipe.most_steps)
            except Exception:  # noqa: BLE001  a family that fails here is reported when it is its turn
                continue
        return total * (self.splits.folds + 1)

    # ------------------------------------------------------------------------------------------------- training

    def train_all(self) -> Iterator[Record]:
        """Fit every candidate, in every fold and on all training rows; a failure is a record, not the end."""
        for candidate in self.candidates:
            name = candidate.name
            try:
                if name not in self.failures and not self._nats_path(name).exists():
                    yield Progress(name, 0.0, None, None)
                    yield from self._train_one(candidate)
            except InputError as error:
                self._fail(name, "skipped", str(error))
            except Exception as error:  # noqa: BLE001  one family must not take the others down; its reason is in the table
                store.write(self.out / "work" / f"{name}.error.txt", traceback.format_exc())
                message = str(error).splitlines()[0] if str(error) else "no message"
                self._fail(name, "failed", f"{type(error).__name__}: {message}")
            if name in self.failures:
                yield Judged(name, self.failures[name]["status"], self.failures[name]["reason"], None)
            else:
                nats = store.read_tensors(self._nats_path(name)).get("select")
                yield Judged(name, "fitted", "", None if nats is None else float(nats.mean()))

    def _fail(self, name: str, status: str, reason: str) -> None:
        self.failures[name] = {"status": status, "reason": reason}
        self._save_state()

    def _nats_path(self, name: str) -> Path:
        return self.out / "work" / f"{name}.nats.safetensors"

    def _train_one(self, candidate: _Candidate) -> Iterator[Record]:
        name, splits = candidate.name, self.splits
        pieces = []
        for k in range(splits.folds):
            kept = self.out / "work" / f"{name}.fold{k}.safetensors"
            if not kept.exists():
                learn, left = splits.fold(k)
                model = yield from self._fit(candidate, f"{name}/{k}", self.x[splits.training[learn]], k / (splits.folds + 1))
                if density_kind(model) is None:
                    break
                nats, _ = judge.log_probs(model, self.x[splits.training[left]], rng=generator(self.options.seed, name, "fold", k))
                store.write_tensors(kept, {"position": left, "nats": nats})
                self._save_state()
            pieces.append(store.read_tensors(kept))
        model = yield from self._fit(candidate, f"{name}/all", self.x[splits.training], splits.folds / (splits.folds + 1))
        model.sample(8, rng=generator(self.options.seed, name, "trial"))  # one that cannot sample fails here, alone
        tensors: dict[str, Tensor] = {}
        began = time.monotonic()
        if density_kind(model) is not None:
            if pieces:
                position = torch.cat([p["position"] for p in pieces])
                tensors["select"] = torch.cat([p["nats"] for p in pieces])[position.argsort()]
            else:
                rng = generator(self.options.seed, name, "select")
                tensors["select"], _ = judge.log_probs(model, self.x[splits.select], rng=rng)
        self.units[f"{name}/all"]["scoring"] = time.monotonic() - began
        config = getattr(model, "config", None)
        settings = config.model_dump(mode="json") if candidate.family and config else None
        store.save_model(self.out / "models" / name, model, candidate.family, settings)
        store.write_tensors(self._nats_path(name), tensors or {"none": torch.zeros(1)})
        self._save_state()

    def _fit(self, candidate: _Candidate, unit: str, x: Tensor, done_before: float) -> Generator[Record, None, Model]:
        """Fit one model to rows x; returns it. ``done_before``: how much of this candidate's work came before."""
        name, folds = candidate.name, self.splits.folds
        rng = generator(self.options.seed, unit)
        model = candidate.build(self.schema.space, len(x), rng)
        began = time.monotonic()
        if isinstance(model, ClosedForm):
            yield Progress(name, done_before, None, None, "fitting")
            model.fit_closed(x, None, rng)
            self.units[unit] = {"steps": None, "stop_at": None, "seconds": time.monotonic() - began, "converged": True}
            return model.eval()
        if not model.phases():
            raise InputError(f"{name}: it offers neither phases to train nor fit_closed; a model of your own needs one of them")
        entry = self.units.setdefault(unit, {"share": self._share(name)})
        self._save_state()
        recipe = self._recipe(candidate, unit, entry)
        work, stem = self.out / "work", unit.replace("/", ".")
        work.mkdir(parents=True, exist_ok=True)
        shown = 0.0
        for step in train.fit(model, x, recipe, rng=rng, device=self.device, checkpoint=work / f"{stem}.checkpoint", name=name):
            now = time.monotonic()
            if now - self.saved > 2:
                self._save_state()
            if step.validation is not None:
                self.history.append({"model": name, "fit": unit, **asdict(step)})
            if step.finished:
                entry |= {"steps": step.steps, "stop_at": step.step, "seconds": step.seconds}
                entry |= {"converged": step.converged, "wanted": step.wanted, "best": step.best}
                store.write_lines(work / f"{stem}.history.jsonl", [h for h in self.history if h["fit"] == unit])
            if now - shown > 0.2 or step.finished:
                shown = now
                share = step.step / step.steps
                left = step.seconds / step.step * (step.steps - step.step)
                yield Progress(name, done_before + share / (folds + 1), -step.best if math.isfinite(step.best) else None, left)
        return model

    def _recipe(self, candidate: _Candidate, unit: str, entry: Mapping[str, Any]) -> train.Recipe:
        settings = dict(candidate.recipe)
        if self.options.stops is not None:
            kept = self.options.stops.get(unit)
            if kept is None:
                raise InputError(f"{unit}: the run to be replayed has no record of it; it was not finished")
            return train.Recipe(**{**settings, "steps": kept["steps"], "stop_at": kept["stop_at"]})
        if self.options.steps is not None:
            most = settings.get("most_steps", self.options.steps)
            return train.Recipe(**{**settings, "steps": min(self.options.steps, most)})
        return train.Recipe(**{**settings, "seconds": entry["share"]})

    # ------------------------------------------------------------------------------------------------- verdict

    def verdict(self) -> Study:
        """Stack on the select rows, open the report rows once, write everything down."""
        space, splits, seed = self.schema.space, self.splits, self.options.seed
        names = [c.name for c in self.candidates if c.name not in self.failures]
        models = {name: store.load_model(self.out / "models" / name, space, self.options.models) for name in names}
        select = {name: store.read_tensors(self._nats_path(name)).get("select") for name in names}
        scored = [name for name in names if select[name] is not None]
        if not scored:
            reasons = "; ".join(f"{n}: {f['reason']}" for n, f in self.failures.items())
            raise InputError(f"no family could be fitted to this data ({reasons})")
        report, mc_error = {}, {}
        for name in scored:
            rng = generator(seed, name, "report")
            report[name], mc_error[name] = judge.log_probs(models[name], self.x[splits.report], rng=rng)
        best = max(scored, key=lambda n: float(torch.as_tensor(select[n]).mean()))
        weights = _weigh(torch.stack([torch.as_tensor(select[n]) for n in scored], 1).numpy(), scored, best)
        share = dict(zip(scored, weights.weights, strict=True))
        blend = mixture.blend([models[n] for n in scored], weights.weights)
        mixed = torch.logsumexp(torch.stack([report[n] + math.log(w) for n, w in share.items() if w > 0]), 0)
        kind = "bound" if isinstance(blend, LowerBound) or density_kind(models[best]) == "bound" else "exact"
        verdict = _judge_blend(mixed, report[best], best, share, weights.gap, kind)
        study = assemble(self.schema, self._scores(models, report, mc_error), verdict, models, blend, self.out)
        self._write(study, select, report)
        return study

    def _scores(self, models: Mapping[str, Model], report: Mapping[str, Tensor], mc_error: Mapping[str, float]) -> list[Score]:
        splits, seed = self.splits, self.options.seed
        columns = Columns(self.schema.space)
        columns.prepare(self.x[splits.training])
        scores = []
        for candidate in self.candidates:
            name = candidate.name
            if name in self.failures:
                scores.append(Score(name, **self.failures[name]))
                continue
            model, unit = models[name], self.units[f"{name}/all"]
            copied = self._memorised(name, model.sample(1_000, rng=generator(seed, name, "memorisation")), columns)
            cost, spread = judge.sampling_cost(model, rng=generator(seed, name, "cost"))
            nats = mean_nats(report[name].numpy()) if name in report else None
            fits = [u["seconds"] for key, u in self.units.items() if key.startswith(f"{name}/") and key != f"{name}/all"]
            scores.append(Score(
                name, "fitted", kind=density_kind(model), rows=len(splits.report), mc_error=mc_error.get(name),
                nats=nats.value if nats else None, nats_error=nats.error if nats else None,
                memorisation=copied.value, memorisation_error=copied.error, sample_ms=cost, sample_ms_error=spread,
                seconds=unit["seconds"], seconds_error=float(np.std(fits, ddof=1)) if len(fits) > 1 else None,
                steps=unit["stop_at"], converged=unit["converged"], wanted=unit.get("wanted"),
            ))  # fmt: skip
        return scores + [self._score_samples(name, source, columns) for name, source in self.options.samples.items()]

    def _score_samples(self, name: str, source: Any, columns: Columns) -> Score:
        try:
            x = self.schema.encode(as_frame(source), name=name)
            copied = self._memorised(name, x, columns)
        except InputError as error:
            return Score(name, "failed", str(error))
        reason = "an outside generator's samples have no density: nothing to rank in nats"
        return Score(name, "samples only", reason, rows=len(x), memorisation=copied.value, memorisation_error=copied.error)

    def _memorised(self, name: str, rows: Tensor, columns: Columns) -> Estimate:
        rng = generator(self.options.seed, name, "reference")
        return judge.memorised(rows, self.x[self.splits.training], self.x[self.splits.report], columns, rng=rng)

    def _write(self, study: Study, select: Mapping[str, Tensor | None], report: Mapping[str, Tensor]) -> None:
        out = self.out
        nats = {f"{n}.select": v for n, v in select.items() if v is not None} | {f"{n}.report": v for n, v in report.items()}
        store.write_tensors(out / "nats.safetensors", nats)
        store.write_tensors(out / "splits.safetensors", {p: getattr(self.splits, p) for p in ("fit", "select", "report")})
        kept = sorted((out / "work").glob("*.history.jsonl"))
        store.write_lines(out / "history.jsonl", [record for path in kept for record in store.read_lines(path)])
        store.write_lines(out / "scores.jsonl", [asdict(s) for s in study.scores])
        write(study.best.sample(EXAMPLE_ROWS, seed=self.options.seed), out / "samples.csv")
        store.write(out / "README.md", card(study, self.table, self.splits))
        self._save_state()
        store.write_json(out / "verdict.json", asdict(study.verdict))
        shutil.rmtree(out / "work", ignore_errors=True)


def _read_state(out: Path) -> tuple[dict[str, Any], dict[str, Any], float]:
    """How far a run has come: its fits, its failures, its seconds."""
    state = store.read_json(out / "state.json")
    try:
        units, failures, elapsed = state["units"], state["failures"], float(state["elapsed"])
        if not all(isinstance(entry, dict) for part in (units, failures) for entry in part.values()):
            raise TypeError("expected one object an entry")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{out}/state.json: damaged ({type(error).__name__}: {error}); run again with --fresh") from error
    return units, failures, elapsed


def _build_family(row: Family, seconds: float | None, space: Space, n: int, rng: torch.Generator) -> Model:
    return row.build(space, config=row.suggest(space, n, seconds), rng=rng)


def _build_own(own: Callable[[Space], Model], space: Space, _n: int, rng: torch.Generator) -> Model:
    with seeded(child_seed(int(torch.randint(2**62, (), generator=rng)), "own")):
        model = own(space)
    if not isinstance(model, Model):
        raise InputError(f"models: expected a callable Space → mixtura.Model, got {type(model).__name__}")
    return model


def _weigh(select: np.ndarray, names: Sequence[str], best: str) -> Weights:
    """Stack the (n, K) select nats. A stacking that does not beat the best single model by 2 standard errors where it
    was chosen is not worth its noise: then the best model stands alone. One that does keeps at least 1 part in n + 1 for
    the smoothed floor, so that an unseen category costs nats and not −∞."""
    weights = stack(select)
    w, alone = np.array(weights.weights), list(names).index(best)
    mixed = lambda w: np.logaddexp.reduce(select + np.log(np.maximum(w, 1e-300)), axis=1)  # noqa: E731
    g = gain(mixed(w), select[:, alone])
    if not (g.value == math.inf or g.value > 2 * g.error):
        w = np.eye(len(names))[alone]
    elif "marginals" in names:
        least, floor = 1 / (len(select) + 1), list(names).index("marginals")
        if w[floor] < least:
            w *= (1 - least) / (1 - w[floor])
            w[floor] = least
    value = float(np.mean(mixed(w)))
    return Weights(tuple(float(v) for v in w), value, weights.gap + max(0.0, weights.value - value))


def _judge_blend(mixed: Tensor, single: Tensor, best: str, share: Mapping[str, float], gap: float, kind: str) -> Verdict:
    g = gain(mixed.numpy(), single.numpy())
    parts = " + ".join(f"{w:.2f} {n}" for n, w in sorted(share.items(), key=lambda item: -item[1]) if w >= 0.005)
    better = g.value == math.inf or (g.value > 2 * g.error and g.trimmed > 0)
    caveat = ", in lower bounds" if kind == "bound" else ""
    digits = 2 if not g.error < 0.1 else 3  # two digits of the error
    unsure = f" ± {g.error:.{digits}f} nats on {g.n:,} unseen rows{caveat}"
    if better:
        sentence = f"gain {g.value:.{digits}f}{unsure} over {best}: use the blend {parts}"
    elif share[best] == 1:
        alone = "where the weights were chosen no blend beat it by 2 standard errors"
        sentence = f"no gain: use {best} ({alone}; {g.n:,} unseen rows)"
    else:
        sentence = f"no gain: use {best} (the blend differs by {g.value:+.{digits}f}{unsure})"
    return Verdict(
        OBJECTIVE, "blend" if better else best, best, kind, dict(share), gap,
        g.value, g.error, g.trimmed, g.trimmed_error, g.n, sentence,
    )  # fmt: skip


def replay(folder: str | Path, out: str | Path, data: Any = None, **options: Any) -> tuple[Study, list[str]]:
    """Do a finished run again from its recorded steps, into ``out``; the study, and the files that differ in any bit
    (none, on the same machine kind, torch version and thread count). ``data``: by default the file the run names."""
    source, out = Path(folder), Path(out)
    store.read_json(source / "verdict.json")
    kept, made_from, fingerprint = _recorded(source)
    units, _, _ = _read_state(source)
    data = made_from if data is None else data
    if data is None:
        raise InputError(f"{source}: the run was not made from a file; give its data again, mixtura run FILE --replay {source}")
    if out.resolve() == source.resolve():
        raise InputError(f"{out}: holds the run to be replayed; give another --out")
    if not options.get("fresh") and out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out}: the folder is not empty; give another --out, or --fresh to start over")
    if read(data, seed=kept["seed"]).fingerprint != fingerprint:
        raise InputError(f"{source}: was made from other data; a replay needs the same bytes")
    study = run(data, **(kept | options), stops=units, out=out)
    weights = sorted(p.relative_to(source) for p in (source / "models").rglob("*.safetensors"))
    same = [*weights, Path("nats.safetensors"), Path("samples.csv")]
    return study, [str(p) for p in same if (source / p).read_bytes() != (out / p).read_bytes()]


def _recorded(folder: Path) -> tuple[dict[str, Any], str | None, str]:
    """Of a run folder: the options to ask the same again, the file it was made from, the fingerprint of its data."""
    config = store.read_json(folder / "config.json")
    try:
        asked = config["asked"]
        kept = {k: asked[k] for k in ("budget", "steps", "families", "seed", "split", "group", "time", "columns", "kinds")}
        kept["budget"] = None if asked["steps"] is not None else asked["budget"]
        return kept, config["source"], config["data"]["fingerprint"]
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder}/config.json: damaged ({type(error).__name__}: {error}); replay another run") from error
