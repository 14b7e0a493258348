"""What the page of a run with targets shows, as plain data: calibration, and the density of the targets given the inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import kstwo
from torch import Tensor

from mixtura.data.field import Field
from mixtura.data.schema import Schema
from mixtura.report.figures import short, written

#: bins of a histogram of ranks; levels whose coverage is drawn; share of perfect models inside the bands
BINS, LEVELS, INSIDE = 10, tuple(k / 20 for k in range(1, 20)), 0.95
#: histograms of perfect models that the first band is made of
PERFECT = 4_000
#: report rows drawn over a density; inputs of a row that its label names; levels whose names an axis has room for
POINTS, LABELLED, NAMED = 300, 3, 10


def calibrated(ranks: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    """``levels`` of coverage, and ``calibrated``, for each target: its ``name``, ``n`` rows, the ``band`` that the histogram of
    a perfect model stays in, the ``reach`` of its coverage, and the ``histogram`` and ``coverage`` of all ``models``.

    ranks: model → target → (n,), NaN where the truth is missing.
    """
    names = dict.fromkeys(name for of_one in ranks.values() for name in of_one)
    return {"levels": list(LEVELS), "calibrated": [_calibrated(name, ranks) for name in names]}


def portraits(
    drawn: Sequence[Mapping[str, Any]], ours: Schema, others: Schema, asked: np.ndarray, real: np.ndarray
) -> list[dict[str, Any]]:
    """The portraits of the run folder, as the page draws them. asked, real: inputs and targets (n, …) of the same rows in tensor
    units."""
    return [_portrait(p, ours.modelled, others.modelled, asked, real) for p in drawn]


# ----------------------------------------------------------------------------------------------------- calibration


def _calibrated(target: str, ranks: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    of_models = {name: of_one[target].numpy() for name, of_one in ranks.items() if target in of_one}
    there = {name: u[~np.isnan(u)] for name, u in of_models.items()}
    n = min(len(u) for u in there.values())
    return {
        "name": target, "n": n, "band": band(n, BINS), "reach": round(float(kstwo.ppf(INSIDE, n)), 4),
        "models": {name: {"histogram": histogram(u), "coverage": coverage(u)} for name, u in there.items()},
    }  # fmt: skip


def histogram(u: np.ndarray) -> list[float]:
    """Shares of the ranks u (n,) in ``BINS`` equal bins."""
    return _rounded(np.histogram(u, BINS, (0, 1))[0] / len(u))


def coverage(u: np.ndarray) -> list[float]:
    """The share of the ranks u (n,) inside the central interval of each level."""
    return _rounded(np.array([(np.abs(2 * u - 1) <= level).mean() for level in LEVELS]))


def band(n: int, bins: int) -> list[float]:
    """The lowest and highest share such that, with probability ``INSIDE``, all bins of the histogram of n uniform ranks stay
    between them."""
    counts = np.random.default_rng(0).multinomial(n, np.full(bins, 1 / bins), PERFECT)
    away = float(np.quantile(np.abs(counts / n - 1 / bins).max(1), INSIDE, method="higher"))
    return _rounded(np.array([max(0.0, 1 / bins - away), 1 / bins + away]))


# ------------------------------------------------------------------------------------------------------- densities


def _portrait(
    p: Mapping[str, Any], ours: Sequence[Field], others: Sequence[Field], asked: np.ndarray, real: np.ndarray
) -> dict[str, Any]:
    """One target. Positions are in cells, so that the page need not know what an axis means."""
    target, along = ours[p["target"]], p["along"]
    field = others[along["input"]]
    x, y = PictureAxis(field, along["x"]), PictureAxis(target, p["y"])
    values, truths = asked[:POINTS, along["input"]], real[:POINTS, p["target"]]
    points = np.stack([x.cell(values), y.cell(truths)], 1) if len(others) == 1 else np.empty((0, 2))
    inside = np.isfinite(points).all(1) & (points > 0).all(1) & (points < [len(x.places), len(y.places)]).all(1)
    rows = [
        {
            "given": _label_of_inputs(asked[row["row"]], others), "p": _rounded(np.array(row["p"])),
            "truth": y.at(row["truth"]),
            "said": "missing" if row["truth"] is None else _label(target, row["truth"]),
        }
        for row in p["rows"]
    ]  # fmt: skip
    return {
        "drawn": p["drawn"], "target": short(target.name), "input": short(field.name), "others": len(others) - 1,
        "x": x.plain(), "y": y.plain(),
        "p": [_rounded(np.array(column)) for column in along["p"]], "points": [_rounded(point) for point in points[inside]],
        "rows": rows,
    }  # fmt: skip


class PictureAxis:
    """The places of a portrait: of a number equal cells, of a category codes."""

    def __init__(self, field: Field, places: Sequence[float]) -> None:
        self.field, self.places = field, np.array(places)

    def cell(self, values: np.ndarray) -> np.ndarray:
        """Values in tensor units → positions, in cells from the axis's beginning; codes are spread a little."""
        if self.field.discrete:
            at = np.searchsorted(self.places, values).clip(max=len(self.places) - 1)
            spread = 0.7 * ((np.arange(len(values)) * 0.6180339887) % 1 - 0.5) * (len(values) > 1)
            return np.where(self.places[at] == values, at + 0.5 + spread, np.nan)
        width = self.places[1] - self.places[0] if len(self.places) > 1 else 1.0
        return (values - self.places[0]) / width + 0.5

    def at(self, value: float | None) -> float | None:
        """The position of one value; None where it is missing or not among the places."""
        where = math.nan if value is None else float(self.cell(np.array([value]))[0])
        return None if math.isnan(where) else where

    def plain(self) -> dict[str, Any]:
        """The number of ``cells``, and the ``ticks``: position and text."""
        return {"cells": len(self.places), "ticks": [[round(where, 3), short(text, 24)] for where, text in self._ticks()]}

    def _ticks(self) -> list[tuple[float, str]]:
        if self.field.discrete:
            every = math.ceil(len(self.places) / NAMED)
            return [(k + 0.5, str(self.field.labels[int(self.places[k])])) for k in range(0, len(self.places), every)]
        if len(self.places) < 2:
            return [(0.5, written(self.field, float(self.places[0])))]
        shift = self.field.offset if self.field.kind == "integer" else 0
        low, high = self.places[0] + shift, self.places[-1] + shift
        values = np.linspace(low, high, 5)[1::2] if self.field.kind == "datetime" else nice(low, high)
        inner = [v - shift for v in values]
        texts = [written(self.field, v) for v in inner] if self.field.kind == "datetime" else _texts(values)
        return list(zip(self.cell(np.array(inner)).tolist(), texts, strict=True))


def nice(low: float, high: float) -> np.ndarray:
    """About five round numbers between two ends."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    return np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step


def _texts(values: np.ndarray) -> list[str]:
    """All numbers with as many decimals as their steps need."""
    step = float(values[1] - values[0]) if len(values) > 1 else 1.0
    decimals = next((d for d in range(7) if abs(round(step, d) - step) <= 1e-6 * step), 7)
    return [f"{v:,.{decimals}f}" if decimals <= 6 and abs(v) < 1e9 else f"{v:.3g}" for v in values]


def _label_of_inputs(row: np.ndarray, fields: Sequence[Field]) -> str:
    """The names and values of the first inputs of a row."""
    parts = [f"{short(f.name, 24)} {'missing' if math.isnan(v) else _label(f, v)}" for f, v in zip(fields, row, strict=True)]
    return ", ".join(parts[:LABELLED]) + (", …" if len(parts) > LABELLED else "")


def _label(field: Field, value: float) -> str:
    return str(field.labels[int(value)]) if field.discrete else written(field, value)


def _rounded(values: np.ndarray) -> list[float]:
    """To four digits."""
    return [float(f"{v:.4g}") for v in values]
