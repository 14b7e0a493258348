"""Which of some rows are strange beside normal ones, with all that can be said of them: :func:`detect`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from mixtura import detectors
from mixtura.contracts import InputError
from mixtura.data import source
from mixtura.data.kind import Content
from mixtura.detectors import conformal
from mixtura.estimators.anomaly_detector import AnomalyDetector, Rows
from mixtura.families import TABLE as FAMILIES
from mixtura.folder.layout import RunFolder

#: rows that are shown, cells that are named as the reasons of a row, and the strength from which on a cell is one
SHOWN, CELLS, REASON = 20, 3, 1.0
#: of the rows that are called discoveries, the share that may be normal
FALSE_DISCOVERIES = 0.1
#: points of the curve of p-values
POINTS = 100


@dataclass(frozen=True)
class Reason:
    """A cell, and how much less likely it is, given the rest of its row, than cells of its column usually are: 1 is what one
    normal cell in ten reaches."""

    column: str
    value: str
    strength: float


@dataclass(frozen=True)
class Strange:
    """One of the strangest rows: its number, its strangeness, its p-value and the cells that make it strange."""

    row: int
    strangeness: float
    p: float
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Pictures:
    """The strangest images (n, H, W, 1 or 3), with maps (n, H, W) of where they are strange, 0 or above."""

    images: np.ndarray
    maps: np.ndarray


@dataclass(frozen=True)
class Detection:
    """What :func:`detect` found among suspects.

    names, rows:  of the normal rows and of the suspects; nouns: what these are called.
    method, parts: the method, and the detectors it blends, with what each is; failed: detector → why it was left out.
    false_alarms: the share of normal rows that are called anomalies, at most; calibration: rows that carry it.
    scores:       a frame with one row for each suspect: ``strangeness``, ``p_value``, ``anomaly`` and, of tables, ``reasons``.
    anomalies, expected: suspects that are called anomalies, and how many it would be at most if all were normal.
    discoveries:  suspects whose p-values stand out among all of them, so that at most 10 % of these are normal, in expectation.
    strangest:    the rows with the largest strangeness. agreement: detector → the share of the anomalies that it would call one
                  by itself, at the same rate of false alarms. weights: of the detectors in the blend.
    pictures:     of images, the strangest, and where they are strange.
    curve:        share α → the share of suspects with a p-value of α at most; of normal rows it is α.
    """

    names: tuple[str, str]
    rows: tuple[int, int]
    nouns: str
    method: str
    parts: Mapping[str, str]
    failed: Mapping[str, str]
    false_alarms: float
    calibration: int
    scores: pd.DataFrame
    anomalies: int
    expected: float
    discoveries: int
    strangest: tuple[Strange, ...]
    agreement: Mapping[str, float]
    curve: tuple[tuple[float, float], ...]
    seed: int
    columns: tuple[str, ...]
    examples: tuple[dict[str, Any], ...]
    weights: Mapping[str, float]
    pictures: Pictures | None

    @property
    def verdict(self) -> str:
        """One sentence."""
        n = self.rows[1]
        said = f"{self.anomalies:,} of {n:,} {self.nouns} are strange at {100 * self.false_alarms:.3g} % false alarms"
        return f"{said}; if all were normal it would be {self.expected:.1f} on average, at most"

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the scores of every row and without pictures."""
        left_out = ("scores", "pictures")
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name not in left_out}
        found |= {"verdict": self.verdict, "strangest": [dataclasses.asdict(each) for each in self.strangest]}
        return found


def detect(
    normal: Any, suspects: Any, *, method: str = "blend", false_alarms: float | None = None, trim: float = 0.0,
    anomalies: Any = None, features: str | None = None, seed: int = 0,
) -> Detection:  # fmt: skip
    """Learn from normal rows which suspects are strange: two tables of the same columns, or images, of anything
    :func:`mixtura.run` takes; or ask the models of a finished run, whose folder ``normal`` is. The other arguments are those of
    :class:`AnomalyDetector`, which raises InputError."""
    if _is_run(normal):
        for name, given in (("trim", trim), ("anomalies", anomalies is not None), ("features", features)):
            if given:
                raise InputError(f"{name}: is for detectors that learn; the models of {normal} have learnt already, leave it out")
        found = AnomalyDetector.of_run(normal, method, false_alarms=false_alarms, random_state=seed)
    else:
        found = AnomalyDetector(
            method, false_alarms=false_alarms, trim=trim, features=features, random_state=seed
        ).fit(normal, anomalies=anomalies)
    content = source.rows_like(suspects, found.schema_, name="suspects")
    name = suspects if isinstance(suspects, str) else "suspects"
    rows = found.rows(content, name)
    strangeness, scores_of = found.scored(rows)
    p = conformal.p_values(found.calibration_, strangeness)
    anomaly = p <= found.false_alarms_
    some = np.argsort(-strangeness, kind="stable")[:SHOWN]
    scores = pd.DataFrame({"strangeness": strangeness, "p_value": p, "anomaly": anomaly})
    why, pictures = dict[int, tuple[Reason, ...]](), None
    if isinstance(content, pd.DataFrame):
        why = _reasons(found, rows, content, np.union1d(np.flatnonzero(anomaly), some))
        scores["reasons"] = ["; ".join(f"{r.column} = {r.value}" for r in why.get(i, ())) for i in range(len(p))]
    else:
        strangest = rows.at(some)
        pictures = Pictures(strangest.x.movedim(1, -1).numpy(), np.asarray(found.reasons(strangest)))
    alone = found.alone(scores_of)
    return Detection(
        names=(found.name_, Path(name).name), rows=(found.n_seen_, len(p)), nouns=found.schema_.nouns, method=found.method,
        parts={name: _summary(name) for name in found.detectors_}, failed=found.failed_, false_alarms=found.false_alarms_,
        calibration=len(found.calibration_), scores=scores, anomalies=int(anomaly.sum()),
        expected=found.false_alarms_ * len(p), discoveries=int(conformal.discoveries(p, FALSE_DISCOVERIES).sum()),
        strangest=tuple(Strange(int(i), float(strangeness[i]), float(p[i]), why.get(int(i), ())) for i in some),
        agreement={name: float(called[anomaly].mean()) if anomaly.any() else 0.0 for name, called in alone.items()},
        curve=_curve(p), seed=seed, columns=tuple(content.columns.astype(str)) if isinstance(content, pd.DataFrame) else (),
        examples=_examples(content, some), pictures=pictures, weights=found.weights_,
    )  # fmt: skip


def _is_run(normal: Any) -> bool:
    """Whether it is the folder of a run, finished or not. A folder of images may hold a config.json of another program."""
    if not isinstance(normal, str | Path):
        return False
    run = RunFolder(Path(normal))
    return run.is_begun and (run.is_finished or run.has_schema)


def _summary(name: str) -> str:
    if name == "odd_cells":
        return "the cell that is least likely, given the rest of its row, beside what is usual in its column"
    return detectors.TABLE[name].summary if name in detectors.TABLE else f"−log p by {FAMILIES[name].summary}"


def _reasons(
    found: AnomalyDetector, rows: Rows, content: pd.DataFrame, asked: np.ndarray
) -> dict[int, tuple[Reason, ...]]:
    """Row number → the cells that make the row strange, the strongest reason first."""
    strengths, out = cast(pd.DataFrame, found.reasons(rows.at(asked))), {}
    for at, row in enumerate(asked):
        cells = strengths.iloc[at].sort_values(ascending=False)[:CELLS]
        out[int(row)] = tuple(
            Reason(str(column), str(content.iloc[row][column]), float(value))
            for column, value in cells.items() if value > REASON
        )  # fmt: skip
    return out


def _curve(p: np.ndarray) -> tuple[tuple[float, float], ...]:
    shares = np.linspace(0, 1, POINTS + 1)
    return tuple((float(share), float((p <= share + 1e-12).mean())) for share in shares)


def _examples(content: Content, rows: np.ndarray) -> tuple[dict[str, Any], ...]:
    """The rows of a table as plain data; none of images."""
    if not isinstance(content, pd.DataFrame):
        return ()
    some = content.iloc[rows].reset_index(drop=True)
    return tuple(json.loads(str(some.to_json(orient="records", date_format="iso"))))


def share_of(text: str, option: str = "--false-alarms") -> float:
    """A share as a person writes it, "1%" or "0.01". InputError, which names the option, if it is none between 0 and 1."""
    try:
        value = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise InputError(f"{option}: expected a share above 0 and below 1, such as 1% or 0.01, got {text!r}")
    return value
