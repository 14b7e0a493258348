"""A run folder as plain data: exactly what the page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor

from mixtura.data.images import ImageSchema
from mixtura.data.kind import DataKind
from mixtura.data.schema import Schema
from mixtura.folder.io import content_of
from mixtura.folder.layout import RunFolder
from mixtura.folder.records import Conditioning, RunSchema, Score, Verdicts, ranked
from mixtura.ground.shown import command
from mixtura.metrics import OF_ANSWERS, TABLE
from mixtura.report import conditional, figures

#: points of a learning curve that a screen can tell apart
MOST_POINTS = 200
#: characters of the reason why a family failed
LONGEST_REASON = 400


def collect(folder: str | Path) -> dict[str, Any]:
    """Everything the page shows of a finished run, as numbers, text, lists and dicts.

    Keys: title, kind ("table" or "images"), folder, made (data, splits, machine), verdict (that of the run's objective,
    with ``why``), verdicts (by objective), refinement (None where none was asked for), next (commands), scores (as ranked),
    metrics (what the scores hold), features,
    curves (model → [step, seconds, negative stopping loss]), quadratic (MMD²(w) = w'Qw − 2 b'w + c on report rows), and images
    or table, see :mod:`mixtura.report.figures`. A run with targets has ``given`` instead of features, quadratic and table:
    :func:`mixtura.report.conditional.calibrated` and its ``portraits``.

    Raises InputError, which names the file, if the folder is unfinished or damaged.
    """
    run = RunFolder.finished(folder)
    columns = run.schema()
    found, scores = run.verdict(conditional=columns.inputs is not None), ranked(run.scores())
    names = [score.name for score in scores if score.has_samples]
    verdicts = {objective: asdict(v) | {"about_refit": v.about_refit} for objective, v in found.verdicts.items()}
    verdict = verdicts[found.objective] | {"why": found.why}
    made = _made(run, columns.whole, found)
    return {
        "title": made.pop("title"),
        "kind": columns.whole.name,
        "folder": str(run.path),
        "made": made,
        "verdict": verdict,
        "verdicts": verdicts,
        "refinement": None if found.refinement is None else asdict(found.refinement),
        "next": _next(run, columns, density="nats" in verdicts),
        "curves": _curves(run, names),
        "scores": [asdict(score) | {"reason": figures.short(score.reason, LONGEST_REASON)} for score in scores],
        "metrics": _metrics(scores),
        **(_samples(run, columns, names, verdict["best"]) if columns.inputs is None else _answers(run, columns, found)),
    }


def _samples(run: RunFolder, columns: RunSchema, names: Sequence[str], best: str) -> dict[str, Any]:
    """What the page shows of models of all columns together."""
    quadratic, gallery, schema = asdict(run.quadratic()), run.gallery(columns, names), columns.modelled
    with content_of(run.gallery_path):
        if isinstance(schema, Schema):
            sets = {name: rows.numpy() for name, rows in gallery.samples.items()}
            drawn = {"images": None, "table": figures.columns(schema.modelled, gallery.real.numpy(), sets, best)}
        else:
            pixel, both = cast(ImageSchema, schema), {n: (gallery.samples[n], gallery.nearest[n]) for n in names}
            drawn = {"images": figures.pictures(gallery.real, both, pixel.low, pixel.high), "table": None}
    return {"features": quadratic.pop("features"), "quadratic": quadratic, "given": None, **drawn}


def _answers(run: RunFolder, columns: RunSchema, found: Verdicts) -> dict[str, Any]:
    """What the page shows of models of targets given inputs."""
    targets, inputs, gallery = cast(Schema, columns.modelled), cast(Schema, columns.inputs), run.gallery(columns, ())
    asked, real = (cast(Tensor, rows).double().numpy() for rows in (gallery.asked, gallery.real))
    with content_of(run.calibration_path):
        calibrated = conditional.calibrated(run.calibration().ranks)
    with content_of(run.portraits_path):
        portraits = conditional.portraits(run.portraits(), targets, inputs, asked, real)
    nothing = {"features": None, "quadratic": None, "images": None, "table": None}
    return nothing | {"given": {**asdict(cast(Conditioning, found.conditioning)), **calibrated, "portraits": portraits}}


def _made(run: RunFolder, schema: DataKind, found: Verdicts) -> dict[str, Any]:
    """The settings, the machine and the data of the run."""
    splits, state, config = run.splits(), run.state(), run.config()
    sizes = {"fit": len(splits.fit), "select": len(splits.select), "report": len(splits.report)}
    folds = {unit.rpartition("/")[2] for unit in state.units} - {"all", "refit"}
    with content_of(run.config_path):
        asked = config.asked
        return {
            "title": config.data.name,
            "mixtura": config.mixtura, "torch": config.same_bits.torch, "device": config.same_bits.device,
            "seconds": state.elapsed, "seed": int(asked["seed"]), "budget": asked["budget"], "steps": asked["steps"],
            "rows": config.data.rows, "rows_total": config.data.rows_total, "what": schema.summary(config.data.rows),
            "splits": sizes | {"rule": _rule(asked), "folds": len(folds), "duplicates": found.duplicates},
        }  # fmt: skip


def _rule(asked: Mapping[str, Any]) -> str:
    for key, rule in (("split", "as given by {}"), ("group", "by whole groups of {}"), ("time", "by {}, the newest rows last")):
        if asked[key] is not None:
            return rule.format(asked[key])
    return "at random"


def _next(run: RunFolder, columns: RunSchema, *, density: bool) -> list[dict[str, str]]:
    """Commands to paste, as the command line prints them at the end of a run."""
    folder = command(run.path)
    if columns.inputs is not None:
        return [
            {"for": "means and intervals", "command": f"mixtura predict {folder} new.csv -o predicted.csv"},
            {"for": "draws for given rows", "command": f"mixtura sample {folder} --given new.csv -n 10 -o drawn.csv"},
            {"for": "how likely rows are", "command": f"mixtura score {folder} more.csv -o scores.csv"},
        ]
    schema = columns.whole
    commands = [(f"new {schema.nouns}", f"mixtura sample {folder} -n 1000 -o new{schema.written}")]
    if density:
        commands.append((f"how likely {schema.nouns} are", f"mixtura score {folder} {schema.more} -o scores.csv"))
    if schema.fillable:
        commands.append(("gaps filled", f"mixtura impute {folder} holes.csv -o filled.csv"))
    return [{"for": purpose, "command": line} for purpose, line in commands]


def _metrics(scores: Sequence[Score]) -> list[dict[str, str | None]]:
    """The rows of the table of metrics that the scores have; of several targets, each by its own name."""
    measured = dict.fromkeys(name for score in scores for name in score.metrics)
    of_samples = [name for name in TABLE if name in measured and name not in OF_ANSWERS]
    of_answers = [name for name in measured if name.partition(":")[0] in OF_ANSWERS]
    rows = [(name, TABLE[name.partition(":")[0]]) for name in (*of_samples, *of_answers)]
    return [{"name": name, "summary": r.summary, "direction": r.direction, "unit": r.unit} for name, r in rows]


def _curves(run: RunFolder, names: Sequence[str]) -> dict[str, list[list[float]]]:
    """The negative stopping loss of the final fit of each model, on the held-out slice: nats, or an objective of the family's
    own; no folds."""
    curves: dict[str, list[list[float]]] = {}
    with content_of(run.history_path):
        history = run.history()
        stages = {record["model"]: record["stage"] for record in history}
        for record in history:
            name, validation = record["model"], record["validation"]
            # the losses of two stages cannot be compared: the last stage is drawn
            if name in names and record["fit"].endswith("/all") and validation is not None and record["stage"] == stages[name]:
                curves.setdefault(name, []).append([record["step"], record["seconds"], -validation])
    return {name: _thinned(curve) for name, curve in curves.items()}


def _thinned(curve: list[list[float]]) -> list[list[float]]:
    """At most so many points as a screen can tell apart, evenly chosen."""
    return [curve[k] for k in sorted({round(k) for k in np.linspace(0, len(curve) - 1, MOST_POINTS)})]
