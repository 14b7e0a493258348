"""What the page draws, as plain data: sprites of images, histograms of columns, densities of pairs of columns."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.nn import functional

from mixtura.data.field import Field

#: tiles in a row of a sprite; (tiles of each set, pixels a side), tried in this order until the page is small enough to send
ACROSS = 12
SIZES = ((48, 64), (24, 64), (12, 64), (12, 32), (6, 32), (6, 16))
MOST_CHARACTERS = 2_000_000
#: levels of a category, columns, pairs of columns, pairs that one column takes part in, that are shown
LEVELS, COLUMNS, PAIRS, TWICE = 10, 24, 6, 2
#: groups of a column that its dependence on another is measured in
GROUPS = 5
#: characters of a name or a label
MOST_LETTERS = 60


def short(text: str, most: int = MOST_LETTERS) -> str:
    """``text``, cut where it is longer than a page can show."""
    return text if len(text) <= most else text[: most - 1] + "…"


# ---------------------------------------------------------------------------------------------------------- images


def pictures(real: Tensor, models: Mapping[str, tuple[Tensor, Tensor]], low: float, high: float) -> dict[str, Any]:
    """Sprites of real images and, for each model, of its samples and of the training image nearest to each, all (n, C, H, W) in
    levels low … high. Tiles and pixels a side are as many as keep the page small enough to send."""
    if not math.isfinite(high - low):
        low, high = float(real.min()), float(real.max())
    made: dict[str, Any] = {}
    for count, side in SIZES:
        made = {
            "shape": list(real.shape[1:]), "levels": [low, high], "across": ACROSS, "side": _tiles(real[:1], side).shape[2],
            "real": _sprite(_tiles(real[:count], side), low, high),
            "models": {
                name: {
                    key: _sprite(_tiles(x[:count], side), low, high) for key, x in (("samples", samples), ("nearest", nearest))
                }
                for name, (samples, nearest) in models.items()
            },
        }  # fmt: skip
        sprites = [made["real"], *(one for two in made["models"].values() for one in two.values())]
        if sum(len(s["png"]) for s in sprites) <= MOST_CHARACTERS:
            break
    return made


def _tiles(x: Tensor, side: int) -> Tensor:
    """Images shrunk, by averaging, until no side is longer than ``side``."""
    shrink = max(x.shape[2:]) / side
    if shrink <= 1:
        return x
    return functional.interpolate(x, size=[max(1, round(s / shrink)) for s in x.shape[2:]], mode="area")


def _sprite(x: Tensor, low: float, high: float) -> dict[str, Any]:
    """One PNG of all images, row by row, ``ACROSS`` to a row; grey, or colour where there are three channels."""
    x = x if x.shape[1] == 3 else x[:, :1]
    levels = ((x - low) / (high - low or 1)).clamp(0, 1).mul(255).round().byte().numpy()
    n, channels, h, w = levels.shape
    down = math.ceil(n / ACROSS)
    sheet = np.zeros((down * ACROSS, channels, h, w), np.uint8)
    sheet[:n] = levels
    sheet = sheet.reshape(down, ACROSS, channels, h, w).transpose(0, 3, 1, 4, 2).reshape(down * h, ACROSS * w, channels)
    return {"n": n, "png": png(sheet if channels == 3 else sheet[:, :, 0])}


def png(levels: np.ndarray) -> str:
    """An image (H, W) or (H, W, 3) of uint8, as an address that holds it."""
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


# ---------------------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class Cut:
    """The bins of a column: one for each label, the last for missing values if there are any.

    kind: "number" or "category". ends: the labels of the two ends of a number's axis. number: (n,) values in tensor
    units, none missing → bin numbers.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    ends: tuple[str, str] | None
    number: Callable[[np.ndarray], np.ndarray]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """(n,) tensor units, NaN where missing → bin numbers."""
        missing = np.isnan(values)
        bins = np.full(len(values), len(self.labels) - 1)
        bins[~missing] = self.number(values[~missing])
        return bins

    def share(self, values: np.ndarray) -> np.ndarray:
        """Shares of the rows in the bins; they sum to 1."""
        return np.bincount(self(values), minlength=len(self.labels)) / len(values)

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {"name": short(self.name), "kind": self.kind, "labels": list(self.labels), "ends": self.ends}


def columns(
    fields: Sequence[Field], real: np.ndarray, models: Mapping[str, np.ndarray], best: str
) -> dict[str, Any]:
    """Histograms of every column and densities of the pairs that depend most on one another, real rows beside each
    model's, all (n, D) in tensor units. Of many columns those where ``best`` is furthest from the real rows."""
    cuts = [cut(field, real[:, j]) for j, field in enumerate(fields)]
    apart = [np.abs(c.share(real[:, j]) - c.share(models[best][:, j])).sum() for j, c in enumerate(cuts)]
    shown = sorted(sorted(range(len(cuts)), key=lambda j: -apart[j])[:COLUMNS])
    histograms = [
        cuts[j].plain()
        | {"real": _plain(cuts[j].share(real[:, j]))}
        | {"models": {name: _plain(cuts[j].share(x[:, j])) for name, x in models.items()}}
        for j in shown
    ]
    densities = [
        {
            "x": cuts[i].plain(), "y": cuts[j].plain(), "real": _joint(cuts[i], cuts[j], real[:, i], real[:, j]),
            "models": {name: _joint(cuts[i], cuts[j], x[:, i], x[:, j]) for name, x in models.items()},
        }
        for i, j in _dependent(real, shown)
    ]  # fmt: skip
    rows = {"real": len(real), "models": {name: len(x) for name, x in models.items()}}
    return {"rows": rows, "total": len(fields), "by": best, "columns": histograms, "pairs": densities}


def _dependent(real: np.ndarray, shown: Sequence[int]) -> list[tuple[int, int]]:
    """The pairs of columns that depend most on one another; one that all others depend on is not shown with them all."""
    found: list[tuple[int, int]] = []
    for pair in sorted(combinations(shown, 2), key=lambda p: -dependence(real[:, p[0]], real[:, p[1]])):
        taken = [column for chosen in found for column in chosen]
        if len(found) < PAIRS and max(map(taken.count, pair)) < TWICE:
            found.append(pair)
    return found


def cut(field: Field, real: np.ndarray) -> Cut:
    """Bins for a column, by its real rows (n,) in tensor units."""
    present = real[~np.isnan(real)]
    return _cut_codes(field, present) if field.discrete else _cut_numbers(field, present)


def _cut_codes(field: Field, present: np.ndarray) -> Cut:
    """One bin for each level, the commonest first if levels have no order; one bin for the other, rare levels."""
    levels = len(field.labels)
    order = np.arange(levels)
    if field.kind == "categorical":
        order = np.argsort(-np.bincount(present.astype(np.int64), minlength=levels)[:levels], kind="stable")
    most = levels if levels <= LEVELS else LEVELS - 1
    bin_of = np.empty(levels, np.int64)
    bin_of[order] = np.minimum(np.arange(levels), most)
    labels = [short(str(field.labels[code])) for code in order[:most]]
    labels += [f"{levels - most:,} others"] * (levels > most) + ["missing"] * bool(field.absent)
    return Cut(field.name, "category", tuple(labels), None, lambda codes: bin_of[codes.astype(np.int64)])


def _cut_numbers(field: Field, present: np.ndarray) -> Cut:
    """Equal bins, 2 ∛n of them (Rice's rule), between the 1st and the 99th percentile; the outer two also hold what lies
    beyond. Of a rounded column every bin holds equally many of the values it can take, or rounding would look like a comb."""
    bins = math.ceil(2 * len(present) ** (1 / 3)) or 1
    low, high = np.quantile(present, (0.01, 0.99)) if len(present) else (field.low, field.high)
    δ = field.resolution
    if δ:
        low, high = (field.low + δ * np.rint((end - field.low) / δ) for end in (low, high))
        values = round((high - low) / δ) + 1
        wide = δ * math.ceil(values / bins)
        edges = low - δ / 2 + wide * np.arange(math.ceil(values * δ / wide) + 1)
    else:
        edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    first, last = ([written(field, end) for end in ends] for ends in (edges[:-1] + δ / 2, edges[1:] - δ / 2))
    labels = [a if a == b else f"{a} – {b}" for a, b in zip(first, last, strict=True)]
    if field.low < edges[0] + δ / 2:
        labels[0] = f"up to {last[0]}"
    if field.high > edges[-1] - δ / 2:
        labels[-1] = f"{first[-1]} or more"
    labels += ["missing"] * bool(field.absent)
    inner = edges[1:-1]
    return Cut(
        field.name, "number", tuple(labels), (first[0], last[-1]), lambda x: np.searchsorted(inner, x, side="right")
    )


def written(field: Field, value: float) -> str:
    """A number in tensor units as the table writes it; to four digits where the table writes no steps."""
    if not field.step:
        return f"{value:.4g}"
    cell = field.decode(np.array([value])).iloc[0]
    return short(str(cell).removesuffix(" 00:00:00").removesuffix(".0"))


def _joint(cut_x: Cut, cut_y: Cut, x: np.ndarray, y: np.ndarray) -> list[list[float]]:
    """Shares of the rows in the cells of a pair, a list for each bin of x."""
    wide, tall = len(cut_x.labels), len(cut_y.labels)
    counts = np.bincount(cut_x(x) * tall + cut_y(y), minlength=wide * tall).reshape(wide, tall)
    return [_plain(row) for row in counts / len(x)]


def _plain(shares: np.ndarray) -> list[float]:
    return [round(float(s), 5) for s in shares]


def dependence(x: np.ndarray, y: np.ndarray) -> float:
    """The dependence of two columns (n,), 0 … 1: Cramér's V of their groups with its bias subtracted
    (Bergsma 2013, "A bias-correction for Cramér's V and Tschuprow's T", section 2)."""
    a, b = _groups(x), _groups(y)
    r, c, n = int(a.max()) + 1, int(b.max()) + 1, len(a)
    if min(r, c) < 2 or max(r, c) == n:  # if every row is a group of its own, the dependence cannot be estimated
        return 0.0
    seen = np.bincount(a * c + b, minlength=r * c).reshape(r, c) / n
    alone = np.outer(seen.sum(1), seen.sum(0))
    phi2 = float(((seen - alone) ** 2 / alone).sum()) - (r - 1) * (c - 1) / (n - 1)
    rows, across = (k - (k - 1) ** 2 / (n - 1) for k in (r, c))
    return math.sqrt(max(0.0, phi2) / (min(rows, across) - 1))


def _groups(x: np.ndarray) -> np.ndarray:
    """(n,) values → group numbers 0 … G − 1, none empty: one for each value if there are few, else quantiles; missing last."""
    missing = np.isnan(x)
    present = x[~missing]
    if len(np.unique(present)) > GROUPS:
        present = np.searchsorted(np.quantile(present, np.arange(1, GROUPS) / GROUPS), present)
    groups = np.full(len(x), np.inf)
    groups[~missing] = present
    return np.unique(groups, return_inverse=True)[1]
