"""Quantile regression forests: conditional distributions without an assumed shape.

    p(x | c) = Π_j p(x_j | c, x_<j)

A random forest (scikit-learn's) splits the rows by their context and the targets before. The targets of all training rows that
share a leaf with a new row, over all trees, estimate its conditional distribution: its quantiles are their quantiles (Meinshausen
2006, section 2), which cannot cross. With few rows, quantiles may be too close by chance, so a gap g between levels τ and τ′
becomes √(g² + κ² (logit τ′ − logit τ)²), which is at least the gap of a logistic distribution of scale κ. κ and the leaf size
maximise the likelihood of the training rows, each under the trees that were not fitted to it.

The quantile function is linear between the levels; beyond the outermost levels the density decreases exponentially from its
value there. Rounded values, atoms included, have the exact mass of their cell.

The model stores only numbers: the nodes of the trees, and for each leaf some order statistics of its targets, at evenly spaced
levels that are shifted from tree to tree, so that the trees together cover all levels.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Annotated, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sklearn.ensemble import RandomForestRegressor
from torch import Tensor, nn

from mixtura.contracts import ClosedForm, Density, InputError, Space
from mixtura.ground import rng as random
from mixtura.ground.cells import Parts, RecurringBins, log_recurring_mass
from mixtura.ground.encode import Columns
from mixtura.ground.trees import Forest

Array = NDArray[np.float64]
Level = Annotated[float, Field(gt=0, lt=1)]


class Config(BaseModel):
    """levels: of the quantiles, ascending. trees: their number. leaf: the values that are tried for the least number of rows in a
    leaf. points: order statistics that are stored for each leaf. rows: the most rows that are fitted."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    levels: tuple[Level, ...] = Field(default=(0.01, 0.05, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.95, 0.99), min_length=2)
    trees: int = Field(default=60, ge=1)
    leaf: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(5, 20, 80), min_length=1)
    points: int = Field(default=8, ge=1)
    rows: int = Field(default=20_000, ge=2)

    @model_validator(mode="after")
    def _ascending(self) -> Config:
        if any(a >= b for a, b in zip(self.levels, self.levels[1:], strict=False)):
            raise ValueError("levels must be ascending")
        return self


#: the most targets of a row
MOST_COLUMNS = 32
#: the scales κ that are tried, in standard deviations of the target
SPREADS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.003, 0.001)
#: the number of values that are processed at a time
TILE_ENTRIES = 2**22


class QuantileForest(Density, ClosedForm):
    """A chain of quantile regression forests, one for each target."""

    spread: Tensor
    levels: Tensor

    def __init__(self, space: Space, context_shape: tuple[int, ...], config: Config) -> None:
        super().__init__(space, context_shape)
        self.config = config
        # an atom of a rounded column is treated as one more value with a cell
        self.columns = Columns(Space(space.shape, tuple(replace(column, atoms=()) for column in space.columns)))
        known = math.prod(context_shape)
        self.forests = nn.ModuleList(
            Forest.blank(known + c, config.trees, (config.points,)) for c in range(self.columns.continuous)
        )
        # κ of each target, in standardised units
        self.register_buffer("spread", torch.ones(self.columns.continuous, dtype=torch.float64))
        self.register_buffer("levels", torch.tensor(config.levels, dtype=torch.float64), persistent=False)

    # ----------------------------------------------------------------------------------------- fitting

    def fit_closed(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        """Fit a forest for each target; O(trees · inputs · rows log rows) each."""
        self.columns.prepare(x)
        self.columns.find_recurring(x, context)
        chosen = torch.randperm(len(x), generator=rng)[: self.config.rows].to(x.device)
        parts = self.columns.split(x[chosen])
        inputs = torch.cat([cast(Tensor, context)[chosen].flatten(1).double(), parts.values], 1)
        targets, _ = self.columns.dequantise(parts, rng)
        f, grown = inputs.shape[1] - targets.shape[1], []
        for c in range(targets.shape[1]):
            tried = [self._try(inputs[:, : f + c], targets[:, c], leaf, rng) for leaf in self.config.leaf]
            _, self.spread[c], forest = max(tried, key=lambda found: found[0])
            grown.append(forest)
        self.forests = nn.ModuleList(grown)

    def _try(self, inputs: Tensor, target: Tensor, leaf: int, rng: torch.Generator) -> tuple[float, float, Forest]:
        """Fit a forest of one target (n,) on ``inputs`` (n, p); returns the mean nats of each row under the trees that were not
        fitted to it, the κ for which they are highest, and the forest."""
        forest, leaves, unseen = _grow(inputs, target, leaf, self.config, rng)
        quantiles = torch.cat([
            self._quantiles(forest.value[number].masked_fill(~fresh.unsqueeze(2), math.nan))
            for number, fresh in zip(leaves.split(self._tile), unseen.split(self._tile), strict=True)
        ])  # fmt: skip
        # leave out rows that every tree was fitted to; if there are no others, the largest κ is taken
        known = ~torch.isnan(quantiles[:, 0])
        laws = [(κ, self._spread(quantiles[known], κ)) for κ in SPREADS]
        nats = torch.stack([_log_density(target[known], knots, self.levels).mean() for _, knots in laws]).nan_to_num(-math.inf)
        return float(nats.max()), SPREADS[int(nats.argmax())], forest

    @property
    def _tile(self) -> int:
        """How many rows are processed at a time."""
        return max(1, TILE_ENTRIES // (self.config.trees * self.config.points))

    # ----------------------------------------------------------------------------------------- using it

    def _knots(self, inputs: Tensor, c: int) -> Tensor:
        """(n, p) inputs → (n, levels) ascending quantiles of the standardised target c."""
        forest = cast(Forest, self.forests[c])
        quantiles = [self._quantiles(forest.values(part)) for part in inputs.split(self._tile)]
        return self._spread(torch.cat(quantiles), self.spread[c])

    def _quantiles(self, points: Tensor) -> Tensor:
        """(n, T, P) → (n, levels) quantiles of all points that are not NaN."""
        return torch.nanquantile(points.flatten(1), self.levels, dim=1).T

    def _spread(self, quantiles: Tensor, κ: float | Tensor) -> Tensor:
        """Widen the gaps between quantiles (see the module) and keep the middle quantile fixed."""
        gaps = torch.hypot(quantiles.diff(dim=1), κ * torch.logit(self.levels).diff())
        away = nn.functional.pad(gaps.cumsum(1), (1, 0))
        middle = slice(len(self.levels) // 2, len(self.levels) // 2 + 1)
        return quantiles[:, middle] + away - away[:, middle]

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        parts = self.columns.split(x, recurring=True)
        inputs = torch.cat([cast(Tensor, context).flatten(1).double(), parts.values], 1)
        nats, f = parts.log_base, inputs.shape[1] - self.columns.continuous
        for c in range(self.columns.continuous):
            law = partial(_log_mass_of_one, knots=self._knots(inputs[:, : f + c], c), levels=self.levels)
            nats = nats + log_recurring_mass(parts.among(torch.tensor([c], device=x.device)), law).squeeze(1)
        return nats

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        inputs = cast(Tensor, context).flatten(1).double()
        f = inputs.shape[1]
        for c in range(self.columns.continuous):
            drawn = _inverse(random.uniform((n,), rng, inputs), self._knots(inputs, c), self.levels)
            drawn = self.columns.redraw(drawn, c, partial(random.uniform, (n,), rng, drawn))
            inputs = torch.cat([inputs, drawn.unsqueeze(1)], 1)
        return self.columns.join(torch.zeros(n, 0, dtype=torch.int64, device=inputs.device), inputs[:, f:])


# ------------------------------------------------------------------------------------------------- forests


def _grow(inputs: Tensor, target: Tensor, leaf: int, config: Config, rng: torch.Generator) -> tuple[Forest, Tensor, Tensor]:
    """A forest of one target (n,) on ``inputs`` (n, p), whose leaves hold points (P,); the leaves (n, T) that the rows reach; and
    which trees were not fitted to a row, (n, T) bool."""
    X, y = inputs.cpu().numpy().astype(np.float32), target.cpu().numpy()
    seed = int(torch.randint(2**31, (), generator=rng))
    grown = RandomForestRegressor(config.trees, min_samples_leaf=leaf, random_state=seed).fit(X, y)
    forest = Forest.of(grown).to(inputs.device)
    leaves = forest.leaves(inputs)
    points, unseen = np.zeros((len(forest.value), config.points)), torch.ones(len(y), config.trees, dtype=torch.bool)
    for t, bag in enumerate(grown.estimators_samples_):
        own, kept = _points(y[bag], leaves[:, t].cpu().numpy()[bag], (t + 0.5) / config.trees, config.points)
        points[own] = kept
        unseen[bag, t] = False
    return forest.holding(torch.as_tensor(points).to(inputs.device)), leaves, unseen.to(inputs.device)


def _points(y: Array, leaf: NDArray[np.int64], shift: float, points: int) -> tuple[NDArray[np.int64], Array]:
    """Targets y (n,) in the leaves ``leaf`` (n,) → the leaves (l,) that hold any, and the order statistics of each (l, points) at
    levels (k + shift) / points."""
    order = np.lexsort((y, leaf))
    leaves, first, size = np.unique(leaf[order], return_index=True, return_counts=True)
    at = first[:, None] + ((np.arange(points) + shift) / points * size[:, None]).astype(np.int64)
    return leaves, y[order][at]


# ---------------------------------------------------------------------------------------- from quantiles to a density


def _log_mass_of_one(cells: Parts | RecurringBins, at: Tensor | slice, knots: Tensor, levels: Tensor) -> Tensor:
    """(n, 1) :func:`_log_mass` of the only value of ``cells``."""
    return _log_mass(cells, 0, knots, levels).unsqueeze(1)


def _log_mass(cells: Parts | RecurringBins, c: int, knots: Tensor, levels: Tensor) -> Tensor:
    """(n,) log mass of the cells of value c, or log density where there is no cell, given the quantiles ``knots`` (n, m)."""
    low, width = cells.low[:, c], cells.width[:, c]
    cell = width > 0
    high = low + torch.where(cell, width, 1.0)
    mirrored = -knots.flip(1), 1 - levels.flip(0)
    inside = (_interpolate(high, knots, levels) - _interpolate(low, knots, levels)).clamp(min=1e-300).log()
    # compute cells in a tail from the side of the tail, where there is relative precision
    inside = torch.where(high <= knots[:, 0], _log_below(high, knots, levels) + _log_share(low, high, knots, levels), inside)
    upper = _log_below(-low, *mirrored) + _log_share(-high, -low, *mirrored)
    inside = torch.where(low >= knots[:, -1], upper, inside)
    open_low, open_high = cells.open_low[:, c], cells.open_high[:, c]
    mass = torch.where(open_low, _log_below(high, knots, levels), torch.where(open_high, _log_below(-low, *mirrored), inside))
    mass = torch.where(open_low & open_high, 0.0, mass)
    return torch.where(cell, mass, _log_density(low, knots, levels))


def _decay(knots: Tensor, levels: Tensor) -> Tensor:
    """(n,) the scale b of the lower tail τ_1 e^{(y − q_1)/b}, whose density at q_1 is that of the first segment."""
    return levels[0] * (knots[:, 1] - knots[:, 0]) / (levels[1] - levels[0])


def _segment(at: Tensor, knots: Tensor) -> Tensor:
    """(n,) the number of the segment between knots (n, m) that holds ``at`` (n,); beyond the knots, the outermost segment."""
    found = torch.searchsorted(knots.contiguous(), at.unsqueeze(1).contiguous(), right=True).squeeze(1) - 1
    return found.clamp(0, knots.shape[1] - 2)


def _interpolate(y: Tensor, knots: Tensor, levels: Tensor) -> Tensor:
    """(n,) the distribution function at y."""
    k = _segment(y, knots)

    def pick(i: Tensor) -> Tensor:
        return knots.gather(1, i.unsqueeze(1)).squeeze(1)

    share = (y - pick(k)) / (pick(k + 1) - pick(k))
    inside = levels[k] + share * (levels[k + 1] - levels[k])
    lower = _log_tail(y, knots, levels).exp()
    upper = 1 - _log_tail(-y, -knots.flip(1), 1 - levels.flip(0)).exp()
    return torch.where(y < knots[:, 0], lower, torch.where(y > knots[:, -1], upper, inside))


def _log_tail(y: Tensor, knots: Tensor, levels: Tensor) -> Tensor:
    """(n,) log τ_1 e^{(y − q_1)/b}, for y ≤ q_1."""
    return levels[0].log() + (y - knots[:, 0]).clamp(max=0) / _decay(knots, levels)


def _log_below(y: Tensor, knots: Tensor, levels: Tensor) -> Tensor:
    """(n,) log P(Y < y)."""
    inside = _interpolate(y, knots, levels).clamp(min=1e-300).log()
    return torch.where(y < knots[:, 0], _log_tail(y, knots, levels), inside)


def _log_share(low: Tensor, high: Tensor, knots: Tensor, levels: Tensor) -> Tensor:
    """(n,) the log of the share of the lower tail below ``high`` that lies above ``low``."""
    return torch.log(-torch.expm1(((low - high) / _decay(knots, levels)).clamp(max=-1e-300)))


def _log_density(y: Tensor, knots: Tensor, levels: Tensor) -> Tensor:
    k = _segment(y, knots)
    slope = levels.diff().log()[k] - knots.diff(dim=1).gather(1, k.unsqueeze(1)).squeeze(1).log()
    # beyond the outermost knots the density decreases from its value there
    below = (y - knots[:, 0]).clamp(max=0) / _decay(knots, levels)
    above = (knots[:, -1] - y).clamp(max=0) / _decay(-knots.flip(1), 1 - levels.flip(0))
    return slope + below + above


def _inverse(u: Tensor, knots: Tensor, levels: Tensor) -> Tensor:
    """(n,) the quantile function at u (n,)."""
    k = (torch.searchsorted(levels, u, right=True) - 1).clamp(0, len(levels) - 2)

    def pick(i: Tensor) -> Tensor:
        return knots.gather(1, i.unsqueeze(1)).squeeze(1)

    inside = pick(k) + (u - levels[k]) / (levels[k + 1] - levels[k]) * (pick(k + 1) - pick(k))
    below = (u.clamp(min=1e-16) / levels[0]).log().clamp(max=0) * _decay(knots, levels)
    above = ((1 - u) / (1 - levels[-1])).log().clamp(max=0) * _decay(-knots.flip(1), 1 - levels.flip(0))
    beyond = torch.where(u < levels[0], knots[:, 0] + below, knots[:, -1] - above)
    return torch.where((u < levels[0]) | (u > levels[-1]), beyond, inside)


def suggest(space: Space, rows: int, seconds: float | None = None) -> Config:
    """The configuration for this time: as many rows as can be fitted in a tenth of it."""
    return Config() if seconds is None else Config(rows=min(20_000, max(2_000, round(150 * seconds / space.dims))))


def build(
    space: Space, *, encoding: Columns | None = None, context_shape: tuple[int, ...] | None = None, config: Config,
    rng: torch.Generator,
) -> QuantileForest:  # fmt: skip
    """An unfitted model; InputError without a context, on more than ``MOST_COLUMNS`` targets and on targets without quantiles."""
    if context_shape is None or math.prod(context_shape) == 0:
        raise InputError("quantile: a regression needs inputs, but no context was given; use marginals or kde")
    if space.dims > MOST_COLUMNS:
        raise InputError(f"quantile: {space.dims:,} targets are more than the {MOST_COLUMNS} this family can model; use flow")
    for j, column in enumerate(space.columns):
        reason = (
            "is not a number" if column.kind != "continuous"
            else "may be missing" if column.missing
            else "has atoms (values with a probability of their own)"
            if column.atoms and not all(map(column.on_steps, column.atoms))
            else ""
        )  # fmt: skip
        if reason:
            target = "the target" if space.dims == 1 else f"target {j + 1} of {space.dims}"
            raise InputError(f"quantile: {target} {reason}, so it has no quantiles; use linear_gaussian")
    return QuantileForest(space, context_shape, config)  # it adopts no encoding: its own has no atoms
