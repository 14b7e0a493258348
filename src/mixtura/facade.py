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
from mixtura.data import source
from mixtura.data.images import ImageSchema
from mixtura.data.source import AnySchema, Content
from mixtura.judge import Score
from mixtura.rng import generator
from mixtura.verdict import Verdict, digits_of

#: an unknown cell needs at least this many effective proposals to be drawn from importance weights
LEAST_ESS = 5.0


#: rows drawn together, so that any stretch of a seed's sequence is the same however it is asked for
BLOCK, BLOCK_IMAGES = 1_000, 64


class Facade:
    """A fitted model in the person's own terms: frames (or arrays of images) in and out, ``seed=``."""

    def __init__(self, name: str, model: Model, schema: AnySchema, proposal: Conditional | None = None) -> None:
        self.name, self.model, self.schema, self._proposal = name, model, schema, proposal

    def __repr__(self) -> str:
        return f"<{self.name}: {density_kind(self.model) or 'samples only'}>"

    def sample(self, n: int, seed: int = 0, start: int = 0) -> Content:
        """n new rows with the columns, types and rounding of the data; images as (n, H, W) or (n, H, W, 3).

        A seed names an endless sequence, and these are its rows start … start + n − 1: drawn at once or in parts, the same.
        """
        for name, given, least in (("n", n, 1), ("start", start, 0)):
            if isinstance(given, bool) or not isinstance(given, int) or given < least:
                raise InputError(f"{name}: expected a whole number of rows, {least} or more, got {given!r}")
        size = BLOCK_IMAGES if self.schema.space.is_image else BLOCK
        blocks = range(start // size, (start + n - 1) // size + 1)
        rows = [self.model.sample(size, rng=generator(seed, "sample", block)) for block in blocks]
        return self.schema.decode(torch.cat(rows)[start % size :][:n])

    def score(self, data: Any, seed: int = 0) -> pd.DataFrame:
        """Columns ``nats`` (of every row) and ``kind`` (exact or bound). Higher is likelier."""
        kind = density_kind(self.model)
        if kind is None:
            raise InputError(
                f"{self.name}: it has samples but no density, so it cannot score rows; use --model with a family that has one"
            )
        rows = source.contents(data, self.schema)
        x = source.encode(self.schema, rows)
        nats, _ = judge.log_probs(self.model, x, rng=generator(seed, "score"))
        return pd.DataFrame({"nats": nats.numpy(), "kind": kind}, index=rows.index if isinstance(rows, pd.DataFrame) else None)

    def impute(self, data: Any, draws: int = 1, seed: int = 0) -> pd.DataFrame:
        """The rows with every missing cell drawn from its conditional law given the rest of its row. Cells that are
        there come back untouched. With several draws the rows are repeated, a column ``draw`` first."""
        if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
            raise InputError(f"draws: expected a whole number, 1 or more, got {draws!r}")
        frame = source.contents(data, self.schema)
        if isinstance(self.schema, ImageSchema) or not isinstance(frame, pd.DataFrame):
            raise InputError("impute: images have no missing cells; impute is for tables")
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


@dataclass
class Study:
    """A finished run. ``verdicts`` by objective ("nats", "mmd"), each with a blend in ``blends``; ``verdict`` is the one of
    ``objective``, chosen as ``why`` says. ``best`` is its choice; ``density`` the best choice that has a density."""

    schema: AnySchema
    scores: list[Score]
    verdicts: dict[str, Verdict]
    objective: str
    why: str
    models: dict[str, Facade]
    blends: dict[str, Facade]
    folder: Path | None = None

    @property
    def verdict(self) -> Verdict:
        """What to use, by how much and how sure."""
        return self.verdicts[self.objective]

    @property
    def best(self) -> Facade:
        """The verdict's choice."""
        return self._chosen(self.objective)

    @property
    def density(self) -> Facade:
        """The choice in nats. InputError where no model has a density."""
        if "nats" not in self.verdicts:
            raise InputError("score: no model of this run has a density; run again with a family that has one")
        return self._chosen("nats")

    def _chosen(self, objective: str) -> Facade:
        choice = self.verdicts[objective].choice
        return self.blends[objective] if choice == "blend" else self.models[choice]

    def model(self, name: str) -> Facade:
        """By name; "blend" is that of the verdict's objective, "blend:nats" and "blend:mmd" the other way. InputError
        with the names there are."""
        known = {**self.models, "blend": self.blends[self.objective], **{f"blend:{k}": v for k, v in self.blends.items()}}
        if name not in known:
            raise InputError(f"model: no {name!r} in this run; there are {', '.join(known)}")
        return known[name]

    @property
    def leaderboard(self) -> pd.DataFrame:
        """One row a model, exact densities before bounds, best first; a column for each metric of its samples."""
        rows = []
        for s in ranked(self.scores):
            row = asdict(s)
            found = row.pop("metrics")
            rows.append(row | {name: value["value"] for name, value in found.items()})
        return pd.DataFrame(rows)


def ranked(scores: Sequence[Score]) -> list[Score]:
    """Exact densities by nats, then bounds by nats, then the rest: kinds are never ranked among one another."""
    order = {"exact": 0, "bound": 1, None: 2}
    worst = lambda nats: math.inf if nats is None or math.isnan(nats) else -nats  # noqa: E731
    return sorted(scores, key=lambda s: (order[s.kind], worst(s.nats), s.name))


def assemble(
    schema: AnySchema, scores: list[Score], verdicts: Mapping[str, Verdict], objective: str, why: str,
    models: Mapping[str, Model], folder: Path,
) -> Study:  # fmt: skip
    """A :class:`Study` of fitted models and their blends; the first of them that conditions well proposes for the others."""
    proposal = next((m for n in ("gaussian_mixture", "kde", "marginals") if isinstance(m := models.get(n), Conditional)), None)
    facades = {name: Facade(name, model, schema, proposal) for name, model in models.items()}
    blends = {}
    for name, v in verdicts.items():
        blend = mixture.blend([models[n] for n in v.weights], list(v.weights.values()))
        blends[name] = Facade("blend", blend, schema, proposal)
    return Study(schema, scores, dict(verdicts), objective, why, facades, blends, folder)


def load(folder: str | Path, models: Mapping[str, Callable[[Space], Model]] | None = None) -> Study:
    """A finished run folder as a :class:`Study`, on the CPU. ``models``: your own models by name, Space → Model.

    Raises InputError if the folder is unfinished, damaged, or needs a model that was not passed.
    """
    out = Path(folder)
    if not out.is_dir():
        raise InputError(f"{out}: no such folder; give a folder that `mixtura run` wrote")
    try:
        raw = store.read_json(out / "verdict.json")
        schema = source.from_json(store.read_json(out / "schema.json"))
        lifted = lambda v: {k: math.nan if v[k] is None else v[k] for k in ("gain", "error")}  # noqa: E731
        verdicts = {name: Verdict(**(v | lifted(v))) for name, v in raw["verdicts"].items()}
        scores = [Score(**record) for record in store.read_lines(out / "scores.jsonl")]
        named = [s.name for s in scores if s.status in ("fitted", "samples only")]
        outside = next((name for name in named if Path(name).name != name), None)
        if outside is not None:
            raise ValueError(f"{outside!r} is no name of a model")
        loaded = {s.name: _load_one(out, s, schema.space, models or {}) for s in scores if s.name in named}
        study = assemble(schema, scores, verdicts, raw["objective"], str(raw["why"]), loaded, out)
        _ = study.best
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{out}: the run folder is damaged ({type(error).__name__}: {error}); run again with --fresh") from error
    return study


def _load_one(out: Path, score: Score, space: Space, own: Mapping[str, Callable[[Space], Model]]) -> Model:
    if score.status == "fitted":
        return store.load_model(out / "models" / score.name, space, own)
    return mixture.Given(space, store.read_tensors(out / "samples" / f"{score.name}.safetensors")["rows"])


def card(study: Study, name: str, splits: plan.Splits) -> str:
    """The model card of a run, as Markdown: its sentence, how it was measured, the leaderboard."""
    v = study.verdict
    about = f"Objective: {v.unit} ({study.why}), measured on {v.rows:,} that chose nothing (split {splits.rule}). "
    if v.trimmed is not None:
        about += f"Gain without the 1 % of rows that differ most: {_pm(v.trimmed, v.trimmed_error)} {v.unit}. "
    about += f"Weights are optimal to {v.gap:.1e} on the select rows."
    others = [o.sentence for key, o in study.verdicts.items() if key != study.objective]
    lines = [
        f"# {name}: a mixtura run", "", f"**{v.sentence}**", "", about, "",
        *[f"By the other objective: {sentence}." for sentence in others], "",
        "| model | nats (exact) | nats (bound) | MMD² | memorisation (½ = none) | training, s |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for s in ranked(study.scores):
        if s.status in ("skipped", "failed"):
            lines.append(f"| {s.name} | {s.status}: {s.reason} | | | | |")
            continue
        nats, copied = _pm(s.nats, s.nats_error), _pm(s.memorisation, s.memorisation_error)
        exact, bound = (nats if s.kind == kind else "" for kind in ("exact", "bound"))
        mmd = s.metrics.get("mmd2", {"value": None, "error": None})
        seconds = "" if s.seconds is None else f"{s.seconds:.1f}"
        lines.append(f"| {s.name} | {exact} | {bound} | {_pm(mmd['value'], mmd['error'])} | {copied} | {seconds} |")
    lines += [
        "", f"{splits.duplicates:,} of the {len(splits.report):,} report rows equal a training row in every column.", "",
        "Use: `mixtura sample`, `mixtura score`, `mixtura impute` on this folder, or `mixtura.load(folder)` in Python.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _pm(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    digits = digits_of(error)
    return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if error is not None and math.isfinite(error) else "")
