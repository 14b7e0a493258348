"""What a person holds: frames in and out, a verdict, a leaderboard; from a run or from its folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mixtura import folder as store
from mixtura import judge, mixture, plan
from mixtura.contracts import Conditional, InputError, Model, Space, density_kind
from mixtura.data.read import Table, read
from mixtura.data.schema import Schema
from mixtura.judge import Score
from mixtura.rng import generator

#: an unknown cell needs at least this many effective proposals to be drawn from importance weights
LEAST_ESS = 5.0


class Facade:
    """A fitted model in the person's own terms: frames in and out, ``seed=``."""

    def __init__(self, name: str, model: Model, schema: Schema, proposal: Conditional | None = None) -> None:
        self.name, self.model, self.schema, self._proposal = name, model, schema, proposal

    def __repr__(self) -> str:
        return f"<{self.name}: {len(self.schema.modelled)} columns, {density_kind(self.model) or 'samples only'}>"

    def sample(self, n: int, seed: int = 0) -> pd.DataFrame:
        """n new rows with the columns, types and rounding of the data."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise InputError(f"n: expected a whole number of rows, 1 or more, got {n!r}")
        rng = generator(seed, "sample")
        tiles = [self.model.sample(min(10_000, n - i), rng=rng) for i in range(0, n, 10_000)]
        return self.schema.decode(torch.cat(tiles))

    def score(self, data: Any, seed: int = 0) -> pd.DataFrame:
        """Columns ``nats`` (of every row) and ``kind`` (exact or bound). Higher is likelier."""
        kind = density_kind(self.model)
        if kind is None:
            raise InputError(
                f"{self.name}: it has samples but no density, so it cannot score rows; use --model with a family that has one"
            )
        frame = as_frame(data)
        x = self.schema.encode(frame, name="data")
        nats, _ = judge.log_probs(self.model, x, rng=generator(seed, "score"))
        return pd.DataFrame({"nats": nats.numpy(), "kind": kind}, index=frame.index)

    def impute(self, data: Any, draws: int = 1, seed: int = 0) -> pd.DataFrame:
        """The rows with every missing cell drawn from its conditional law given the rest of its row. Cells that are
        there come back untouched. With several draws the rows are repeated, a column ``draw`` first."""
        if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
            raise InputError(f"draws: expected a whole number, 1 or more, got {draws!r}")
        frame = as_frame(data)
        x = self.schema.encode(frame, holes=True, name="data")
        known = ~torch.isnan(x)
        odd = self.schema.space.outside(torch.where(known, x, self.schema.space.clamp(torch.zeros_like(x))))
        if bool(odd.any()):
            raise InputError(
                f"data: row {int(odd.nonzero()[0])} holds a category or a value outside what the run has seen; "
                "it cannot be conditioned on, drop or blank it"
            )
        rng = generator(seed, "impute")
        filled = mixture.condition(self.model, x, known, draws=draws, proposal=self._proposal, rng=rng)
        if bool((filled.ess < LEAST_ESS).any()):
            row = int((filled.ess < LEAST_ESS).nonzero()[0])
            raise InputError(
                f"{self.name}: row {row} is too unlike its proposals to be filled "
                f"(effective sample size {float(filled.ess[row]):.1f}); use --model with gaussian_mixture, kde or marginals"
            )
        values = filled.values
        out = [self.schema.decode(values[d], like=frame) for d in range(draws)]
        if draws == 1:
            return out[0]
        return pd.concat([f.assign(draw=d).loc[:, ["draw", *f.columns]] for d, f in enumerate(out)], ignore_index=True)


def as_frame(data: Any) -> pd.DataFrame:
    """A frame as it is, anything else as :func:`mixtura.data.read.read` reads it (with its InputErrors)."""
    return data if isinstance(data, pd.DataFrame) else read(data).frame


@dataclass(frozen=True)
class Verdict:
    """What to use, by how much and how sure. gain ± error: nats a row of the blend over the best single model, paired
    on ``rows`` unseen rows; trimmed: without the 1 % of rows that differ most. kind: weakest kind in the comparison."""

    objective: str
    choice: str
    best: str
    kind: str
    weights: dict[str, float]
    gap: float
    gain: float | None
    error: float | None
    trimmed: float | None
    trimmed_error: float | None
    rows: int
    sentence: str


@dataclass
class Study:
    """A finished run: ``best`` (the verdict's choice), ``models``, ``blends``, ``verdict``, ``leaderboard``."""

    schema: Schema
    scores: list[Score]
    verdict: Verdict
    models: dict[str, Facade]
    blends: dict[str, Facade]
    folder: Path | None = None

    @property
    def best(self) -> Facade:
        """The verdict's choice."""
        return self.blends["nats"] if self.verdict.choice == "blend" else self.models[self.verdict.choice]

    def model(self, name: str) -> Facade:
        """By family name, or "blend". InputError with the names there are."""
        if name == "blend":
            return self.blends["nats"]
        if name not in self.models:
            raise InputError(f"model: no {name!r} in this run; there are {', '.join([*self.models, 'blend'])}")
        return self.models[name]

    @property
    def leaderboard(self) -> pd.DataFrame:
        """One row a model, exact densities before bounds, best first."""
        return pd.DataFrame([asdict(s) for s in ranked(self.scores)])


def ranked(scores: Sequence[Score]) -> list[Score]:
    """Exact densities by nats, then bounds by nats, then the rest: kinds are never ranked among one another."""
    order = {"exact": 0, "bound": 1, None: 2}
    worst = lambda nats: math.inf if nats is None or math.isnan(nats) else -nats  # noqa: E731
    return sorted(scores, key=lambda s: (order[s.kind], worst(s.nats), s.name))


def assemble(
    schema: Schema, scores: list[Score], verdict: Verdict, models: Mapping[str, Model], blend: Model, folder: Path
) -> Study:
    """A :class:`Study` of fitted models and their blend; the first of them that conditions well proposes for the others."""
    proposal = next((m for n in ("gaussian_mixture", "kde", "marginals") if isinstance(m := models.get(n), Conditional)), None)
    facades = {name: Facade(name, model, schema, proposal) for name, model in models.items()}
    return Study(schema, scores, verdict, facades, {"nats": Facade("blend", blend, schema, proposal)}, folder)


def load(folder: str | Path, models: Mapping[str, Callable[[Space], Model]] | None = None) -> Study:
    """A finished run folder as a :class:`Study`, on the CPU. ``models``: your own models by name, Space → Model.

    Raises InputError if the folder is unfinished, damaged, or needs a model that was not passed.
    """
    out = Path(folder)
    if not out.is_dir():
        raise InputError(f"{out}: no such folder; give a folder that `mixtura run` wrote")
    try:
        raw = store.read_json(out / "verdict.json")
        schema = Schema.from_json(store.read_json(out / "schema.json"))
        space = schema.space
        lifted = {k: math.nan if raw[k] is None else raw[k] for k in ("gain", "error", "trimmed", "trimmed_error")}
        verdict = Verdict(**(raw | lifted))
        scores = [Score(**record) for record in store.read_lines(out / "scores.jsonl")]
        outside = next((s.name for s in scores if s.status == "fitted" and Path(s.name).name != s.name), None)
        if outside is not None:
            raise ValueError(f"{outside!r} is no name of a model")
        loaded = {s.name: store.load_model(out / "models" / s.name, space, models or {}) for s in scores if s.status == "fitted"}
        blend = mixture.blend([loaded[n] for n in verdict.weights], list(verdict.weights.values()))
        if verdict.choice not in (*loaded, "blend"):
            raise KeyError(verdict.choice)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{out}: the run folder is damaged ({type(error).__name__}: {error}); run again with --fresh") from error
    return assemble(schema, scores, verdict, loaded, blend, out)


def card(study: Study, table: Table, splits: plan.Splits) -> str:
    """The model card of a run, as Markdown: its sentence, how it was measured, the leaderboard."""
    v = study.verdict
    lines = [
        f"# {table.name}: a mixtura run", "", f"**{v.sentence}**", "",
        f"Objective: {v.objective}, measured on {v.rows:,} rows that chose nothing (split {splits.rule}). "
        f"Gain without the 1 % of rows that differ most: {_pm(v.trimmed, v.trimmed_error)} nats. "
        f"Weights are optimal to {v.gap:.1e} nats on the select rows.", "",
        "| model | nats (exact) | nats (bound) | memorisation (½ = none) | training, s |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for s in ranked(study.scores):
        if s.status in ("skipped", "failed"):
            lines.append(f"| {s.name} | {s.status}: {s.reason} | | | |")
            continue
        nats, copied = _pm(s.nats, s.nats_error), _pm(s.memorisation, s.memorisation_error)
        exact, bound = (nats if s.kind == kind else "" for kind in ("exact", "bound"))
        lines.append(f"| {s.name} | {exact} | {bound} | {copied} | {'' if s.seconds is None else f'{s.seconds:.1f}'} |")
    lines += [
        "", f"{splits.duplicates:,} of the {v.rows:,} report rows equal a training row in every column.", "",
        "Use: `mixtura sample`, `mixtura score`, `mixtura impute` on this folder, or `mixtura.load(folder)` in Python.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _pm(value: float | None, error: float | None) -> str:
    return "" if value is None else f"{value:.3f}" + (f" ± {error:.3f}" if error is not None and math.isfinite(error) else "")
