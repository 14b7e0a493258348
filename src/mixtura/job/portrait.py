"""Pictures of p(target given inputs) for the report, as plain numbers: :func:`portrait`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv1d

from mixtura.blending.given import draw_given
from mixtura.blending.nats import log_probs
from mixtura.contracts import Column, Density, Model, Space
from mixtura.ground.inputs import Inputs
from mixtura.ground.rng import generator

#: of a portrait: targets, cells of a target and of an input, places of each input that is tried, rows
PICTURED, CELLS, PLACES, SINGLED_OUT = 4, 64, 5, 6

#: draws behind a density that has no formula, at least; and by what share of their neighbours cells of numbers are smoothed
LEAST_DRAWS, SMOOTHED = 20, (1, 2, 3, 2, 1)


@dataclass(frozen=True)
class CellAxis:
    """Where one entry is looked at: (g,) places in data units. Codes of levels, the commonest; of a number the middles of
    equal cells."""

    places: Tensor
    levels: bool

    @property
    def cell(self) -> float:
        """The width of a cell; 1 of a level."""
        return 1.0 if self.levels else float(self.places[1] - self.places[0])

    def number(self, values: Tensor) -> Tensor:
        """Values → the cells they lie in, −1 outside all of them and where missing."""
        if self.levels:
            at = torch.searchsorted(self.places, values.contiguous()).clamp(max=len(self.places) - 1)
            return torch.where(self.places[at] == values, at, -1)
        cells = ((values - self.places[0]) / self.cell).round()
        inside = (cells >= 0) & (cells < len(self.places))
        return torch.where(inside, cells, -1.0).long()


@dataclass(frozen=True)
class _Portrayed:
    """Whose portrait it is: the model, what makes its context of inputs, the draws it gives in all for one picture."""

    model: Model
    inputs: Inputs
    draws: int
    seed: int

    @property
    def formula(self) -> bool:
        """Whether it tells the density of its target alone; of several targets, or of a bound, draws tell more for less."""
        return isinstance(self.model, Density) and self.model.space.dims == 1

    def each(self, m: int) -> int:
        """Draws for each of m contexts."""
        return max(LEAST_DRAWS, self.draws // m)


def portrait(model: Model, inputs: Inputs, asked: Tensor, y: Tensor, *, draws: int, seed: int) -> list[dict[str, Any]]:
    """Pictures of p(target | inputs) for up to ``PICTURED`` targets, as plain numbers in data units. asked (n, D) and y (n, T):
    inputs and targets of some unseen rows. ``draws``: in all, for a picture by draws.

    Each has ``target`` (its number), ``y`` (g places), ``along``: the ``input`` that matters most (its number), ``x`` (m places),
    ``p`` (m lists of g densities), the other inputs at their medians and commonest levels; ``drawn``: how many draws are behind
    each of them, None where there is a formula; and ``rows``: some of the rows, with ``row``, ``truth`` (None where missing) and
    ``p`` (g densities). An input matters as much as moving it changes the density: the largest total variation distance between
    two of its places.
    """
    portrayed = _Portrayed(model, inputs, draws, seed)
    axes = [_axis(y[:, t], column) for t, column in enumerate(model.space.columns[:PICTURED])]
    pictures = [_pictured(portrayed, asked, y[:, t], t, axis) for t, axis in enumerate(axes) if axis is not None]
    return [picture for picture in pictures if picture is not None]


def _pictured(portrayed: _Portrayed, asked: Tensor, y: Tensor, t: int, axis: CellAxis) -> dict[str, Any] | None:
    """One target, y (n,), along its axis; None where its densities are beyond what float64 holds."""
    inputs = portrayed.inputs

    def law(rows: Tensor, name: str) -> Tensor:
        return _densities(portrayed, inputs(rows), t, axis, generator(portrayed.seed, "portrait", t, name))

    middle, columns = _middle(asked, inputs.space), inputs.space.columns
    moved = [_moved(middle, j, _places(asked[:, j], column)) for j, column in enumerate(columns)]
    tried = law(torch.cat(moved), "tried").split([len(rows) for rows in moved])
    most = max(range(len(moved)), key=lambda j: _change(tried[j], axis))
    across = _axis(asked[:, most], columns[most])
    x = asked[:1, most] if across is None else across.places
    order = y.argsort()  # rows of small, middling and large targets; the missing last
    rows = order[torch.linspace(0, len(order) - 1, min(SINGLED_OUT, len(order))).round().long()]
    beside, along = law(asked[rows], "rows"), law(_moved(middle, most, x), "along")
    if not (beside.isfinite().all() and along.isfinite().all()):
        return None
    singled = zip(rows.tolist(), y[rows].tolist(), beside.tolist(), strict=True)
    return {
        "target": t, "y": axis.places.tolist(), "drawn": None if portrayed.formula else portrayed.each(len(x)),
        "along": {"input": most, "x": x.tolist(), "p": along.tolist()},
        "rows": [{"row": row, "truth": None if math.isnan(truth) else truth, "p": p} for row, truth, p in singled],
    }  # fmt: skip


def _axis(values: Tensor, column: Column) -> CellAxis | None:
    """Places that cover most of the values; None where there is nothing to cover, or float64 cannot tell places apart."""
    present = values[~torch.isnan(values)]
    if column.kind == "levels":
        return CellAxis(_commonest(present, column.levels, CELLS), True)
    if not len(present) or present.min() == present.max():
        return None
    low, high = present.quantile(0.005), present.quantile(0.995)
    low, high = (present.min(), present.max()) if low == high else (low, high)
    low, high = low - 0.06 * (high - low), high + 0.06 * (high - low)
    places = low + (high - low) * (torch.arange(CELLS, dtype=torch.float64) + 0.5) / CELLS
    cells = places.diff()
    told_apart = bool(cells.isfinite().all() and (cells > 0).all() and (1 / cells).isfinite().all())
    return CellAxis(places, False) if told_apart else None


def _places(values: Tensor, column: Column) -> Tensor:
    """Where an input is moved to, to see what it changes."""
    present = values[~torch.isnan(values)]
    if column.kind == "levels":
        return _commonest(present, column.levels, 2 * PLACES)
    shares = torch.linspace(0.05, 0.95, PLACES, dtype=torch.float64)
    return present.quantile(shares, interpolation="nearest") if len(present) else values[:1]


def _commonest(codes: Tensor, levels: int, most: int) -> Tensor:
    """At most so many of the levels, in order."""
    counts = torch.bincount(codes[codes < levels].long(), minlength=levels)
    return counts.argsort(descending=True, stable=True)[:most].sort().values.double()


def _middle(asked: Tensor, space: Space) -> Tensor:
    """(D,) the median of each number and the commonest code of each other entry."""
    columns = zip(asked.T, space.columns, strict=True)
    return torch.stack([values.mode().values if column.kind == "levels" else values.nanmedian() for values, column in columns])


def _moved(middle: Tensor, j: int, places: Tensor) -> Tensor:
    rows = middle.repeat(len(places), 1)
    rows[:, j] = places
    return rows


def _change(p: Tensor, axis: CellAxis) -> float:
    """The largest total variation distance between two of the densities p (m, g)."""
    shares = p * axis.cell
    return float(torch.cdist(shares, shares, p=1).max()) / 2


@torch.no_grad()
def _densities(portrayed: _Portrayed, context: Tensor, t: int, axis: CellAxis, rng: torch.Generator) -> Tensor:
    """(m, g) densities of target t at the places, given m contexts: by the formula where there is one, else by how many draws
    fall in each cell."""
    m, g = len(context), len(axis.places)
    if portrayed.formula:
        rows = axis.places.repeat(m)[:, None]
        nats, _ = log_probs(portrayed.model, rows, context=context.repeat_interleave(g, 0), rng=rng)
        return nats.exp().reshape(m, g)
    draws = portrayed.each(m)
    cells = axis.number(draw_given(portrayed.model, context, draws, gaps="kept", rng=rng)[:, :, t]).T
    density = torch.stack([(cells == place).sum(1) for place in range(g)], 1) / (draws * axis.cell)
    if axis.levels:
        return density.double()
    near = torch.tensor(SMOOTHED, dtype=torch.float64) / sum(SMOOTHED)
    return conv1d(density.double()[:, None], near[None, None], padding=len(near) // 2)[:, 0]
