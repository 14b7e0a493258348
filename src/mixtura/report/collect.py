"""A run folder as plain data: everything the page shows, and nothing it does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor

from mixtura.data import source
from mixtura.data.images import ImageSchema
from mixtura.data.inputs import split_target
from mixtura.data.kind import DataKind
from mixtura.data.schema import Schema
from mixtura.folder import store
from mixtura.folder.records import Conditioning, Score, Verdict
from mixtura.ground.shown import command
from mixtura.job.run import read_state
from mixtura.job.scoring import OF_ANSWERS
from mixtura.metrics import TABLE
from mixtura.report import figures, given
from mixtura.study import ranked

#: points of a learning curve that a screen can tell apart
MOST_POINTS = 200
#: characters of a reason a family gave for failing
MOST_SAID = 400


def collect(folder: str | Path) -> dict[str, Any]:
    """Everything the page shows of a finished run, as numbers, text, lists and dicts.

    Keys: title, kind ("table" or "images"), folder, made (data, splits, machine), verdict (of the objective spoken of,
    with ``why``), verdicts (by objective), next (commands), scores (as ranked), metrics (what their samples were judged
    by), features, curves (model → [step, seconds, what training raised]), quadratic (MMD²(w) = w'Qw − 2 b'w + c on report
    rows), and images or table, see :mod:`mixtura.report.figures`. A run with targets has ``given`` instead of features,
    quadratic and table: :func:`mixtura.report.given.calibrated` and its ``portraits``.

    Raises InputError, which names the file, if the folder is unfinished or damaged.
    """
    out = Path(folder)
    told = store.read_json(out / "verdict.json")
    with store.content_of(out / "schema.json"):
        learnt = store.read_json(out / "schema.json")
        schema = source.from_json(learnt)
        targets = "target" in learnt
    with store.content_of(out / "verdict.json"):
        verdicts = {name: asdict(store.checked(Verdict, v, out / "verdict.json")) for name, v in told["verdicts"].items()}
        verdict = verdicts[told["objective"]] | {"why": str(told["why"])}
    with store.content_of(out / "scores.jsonl"):
        records = store.read_lines(out / "scores.jsonl")
        scores = ranked([store.checked(Score, record, out / "scores.jsonl") for record in records])
        names = [s.name for s in scores if s.status in ("fitted", "samples only")]
        told_of = {
            "scores": [asdict(s) | {"reason": figures.short(s.reason, MOST_SAID)} for s in scores], "metrics": _metrics(scores)
        }  # fmt: skip
    shown = _answers(out, schema, learnt["target"], told) if targets else _samples(out, schema, names, verdict["best"])
    made = _made(out, schema, told)
    with store.content_of(out / "history.jsonl"):
        curves = _curves(store.read_lines(out / "history.jsonl"), names)
    return {
        "title": made.pop("title"),
        "kind": schema.name,
        "folder": str(out),
        "made": made,
        "verdict": verdict,
        "verdicts": verdicts,
        "next": _next(out, schema, "nats" in verdicts, targets),
        "curves": curves,
        **told_of,
        **shown,
    }


def _samples(out: Path, schema: DataKind, names: Sequence[str], best: str) -> dict[str, Any]:
    """What a run shows of its models' samples."""
    with store.content_of(out / "quadratic.json"):
        quadratic = asdict(store.checked(_Quadratic, store.read_json(out / "quadratic.json"), out / "quadratic.json"))
        k = len(quadratic["names"])
        if {len(quadratic["b"]), len(quadratic["weights"]), len(quadratic["Q"]), *map(len, quadratic["Q"])} != {k}:
            raise ValueError(f"expected a form of {k} models")
    with store.content_of(out / "gallery.safetensors"):
        gallery = store.read_tensors(out / "gallery.safetensors")
        return {
            "features": quadratic.pop("features"),
            "quadratic": quadratic,
            "images": _images(gallery, names, schema) if schema.pictured else None,
            "table": _table(gallery, names, schema, best) if isinstance(schema, Schema) else None,
            "given": None,
        }


@dataclass(frozen=True)
class _Quadratic:
    """What quadratic.json holds."""

    unit: str
    names: list[str]
    Q: list[list[float]]
    b: list[float]
    c: float
    weights: list[float]
    gap: float
    rows: int
    features: str


def _answers(out: Path, schema: DataKind, target: Sequence[str], told: Mapping[str, Any]) -> dict[str, Any]:
    """What a run with targets shows of its models' answers."""
    with store.content_of(out / "schema.json"):
        ours, others = split_target(schema, target)
    with store.content_of(out / "verdict.json"):
        conditioning = asdict(store.checked(Conditioning, told["conditioning"], out / "verdict.json"))
    with store.content_of(out / "calibration.safetensors"):
        ranks = store.read_tensors(out / "calibration.safetensors")
        del ranks["rows"]
        calibrated = given.calibrated(ranks)
    with store.content_of(out / "gallery.safetensors"):
        gallery = store.read_tensors(out / "gallery.safetensors")
        asked, real = (ours_or.space.check(gallery[key].double(), name=key).numpy()
                       for key, ours_or in (("asked", others), ("real", ours)))  # fmt: skip
    with store.content_of(out / "portraits.json"):
        portraits = given.portraits(store.read_json(out / "portraits.json"), ours, others, asked, real)
    nothing = {"features": None, "quadratic": None, "images": None, "table": None}
    return nothing | {"given": {**conditioning, **calibrated, "portraits": portraits}}


def _made(out: Path, schema: DataKind, told: Mapping[str, Any]) -> dict[str, Any]:
    """How, where and of what the run was made."""
    with store.content_of(out / "splits.safetensors"):
        parts = store.read_tensors(out / "splits.safetensors")
        splits = {part: len(parts[part]) for part in ("fit", "select", "report")}
    units, _, elapsed = read_state(out)
    folds = {unit.rpartition("/")[2] for unit in units} - {"all"}
    with store.content_of(out / "verdict.json"):
        duplicates = int(told["duplicates"])
    with store.content_of(out / "config.json"):
        config = store.read_json(out / "config.json")
        asked, machine, rows = config["asked"], config["same_bits"], int(config["data"]["rows"])
        return {
            "title": str(config["data"]["name"]),
            "mixtura": config["mixtura"], "torch": machine["torch"], "device": machine["device"], "seconds": elapsed,
            "seed": int(asked["seed"]), "budget": asked["budget"], "steps": asked["steps"], "rows": rows,
            "rows_total": int(config["data"]["rows_total"]), "what": schema.summary(rows),
            "splits": splits | {"rule": _rule(asked), "folds": len(folds), "duplicates": duplicates},
        }  # fmt: skip


def _rule(asked: Mapping[str, Any]) -> str:
    for key, rule in (("split", "as given by {}"), ("group", "by whole groups of {}"), ("time", "by {}, the newest rows last")):
        if asked[key] is not None:
            return rule.format(asked[key])
    return "at random"


def _next(out: Path, schema: DataKind, density: bool, targets: bool) -> list[dict[str, str]]:
    """Commands to paste, as the command line says them at the end of a run."""
    run = command(out)
    if targets:
        return [
            {"for": "means and intervals", "command": f"mixtura predict {run} new.csv -o predicted.csv"},
            {"for": "draws for given rows", "command": f"mixtura sample {run} --given new.csv -n 10 -o drawn.csv"},
            {"for": "how likely rows are", "command": f"mixtura score {run} more.csv -o scores.csv"},
        ]
    commands = [(f"new {schema.nouns}", f"mixtura sample {run} -n 1000 -o new{schema.written}")]
    if density:
        commands.append((f"how likely {schema.nouns} are", f"mixtura score {run} {schema.more} -o scores.csv"))
    if schema.fillable:
        commands.append(("gaps filled", f"mixtura impute {run} holes.csv -o filled.csv"))
    return [{"for": purpose, "command": line} for purpose, line in commands]


def _metrics(scores: Sequence[Score]) -> list[dict[str, str | None]]:
    found = dict.fromkeys(name for s in scores for name in s.metrics)
    of_samples = [row for row in TABLE.values() if row.name in found]
    told: list[dict[str, str | None]] = [
        {"name": row.name, "summary": row.summary, "direction": row.direction, "unit": row.unit} for row in of_samples
    ]
    of_answers = [(name, OF_ANSWERS[base]) for name in found if (base := name.partition(":")[0]) in OF_ANSWERS]
    return told + [{"name": name, "summary": a.summary, "direction": a.better, "unit": a.unit} for name, a in of_answers]


def _curves(history: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, list[list[float]]]:
    """What the final fit of each model raised on the held-out slice: nats, or an objective of the family's own; no folds."""
    curves: dict[str, list[list[float]]] = {}
    stages = {record["model"]: record["stage"] for record in history}
    for record in history:
        name, validation = record["model"], record["validation"]
        # a stage's loss is no other's: of several the last is drawn
        if name in names and record["fit"].endswith("/all") and validation is not None and record["stage"] == stages[name]:
            curves.setdefault(name, []).append([record["step"], record["seconds"], -validation])
    thin = lambda curve: sorted({round(k) for k in np.linspace(0, len(curve) - 1, MOST_POINTS)})  # noqa: E731
    return {name: [curve[k] for k in thin(curve)] for name, curve in curves.items()}


def _images(gallery: Mapping[str, Tensor], names: Sequence[str], schema: DataKind) -> dict[str, Any]:
    pixel = cast(ImageSchema, schema)
    rows = lambda key: _rows(gallery, key, schema)  # noqa: E731
    sets = {name: (rows(f"samples.{name}"), rows(f"nearest.{name}")) for name in names}
    return figures.pictures(rows("real"), sets, pixel.low, pixel.high)


def _rows(gallery: Mapping[str, Tensor], key: str, schema: DataKind) -> Tensor:
    """Rows of the data's shape, some at least."""
    schema.space.check(gallery[key].double(), name=key)
    if len(gallery[key]) == 0:
        raise ValueError(f"{key!r} holds no rows")
    return gallery[key]


def _table(gallery: Mapping[str, Tensor], names: Sequence[str], schema: Schema, best: str) -> dict[str, Any]:
    sets = {name: _rows(gallery, f"samples.{name}", schema).numpy() for name in names}
    return figures.columns(schema.modelled, _rows(gallery, "real", schema).numpy(), sets, best)
