"""Independent marginals: the baseline that every other family should beat, and the smoothed floor of every blend.

    p(x) = Π_j p_j(x_j)

Codes have Laplace-smoothed frequencies, with a share reserved for unseen levels. A value has a small Gaussian mixture (fitted by
scikit-learn, with the number of components chosen by BIC) to which a broad logistic is added with weight 1/(n + 1). The support
is open: an unseen level or a value beyond a wall costs finitely many nats, so a blend with this model never gives −∞.

A context is accepted and ignored: next to conditional models, this baseline shows what their inputs are worth.

The pixels of an image have smoothed histograms instead (:class:`PixelMarginals`), which are computed for thousands of columns
in one pass over the rows.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from mixtura.contracts import ClosedForm, Conditional, Conditioned, Density, Space
from mixtura.ground import rng as random
from mixtura.ground.cells import Parts, RecurringBins, log_logistic_mass, log_normal_mass, log_recurring_mass
from mixtura.ground.encode import Columns
from mixtura.ground.pixel_scores import histograms


class Config(BaseModel):
    """components: the most Gaussians for a column. ridge: added to variances, in units of the column's variance.
    rows: the most rows that the mixture of a column is fitted to."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    components: int = Field(default=4, ge=1)
    ridge: float = Field(default=1e-6, gt=0)
    rows: int = Field(default=4000, ge=10)


#: scale of the broad logistic, in standard deviations of the column
BROAD = 5.0
#: pixels with more levels than this have Gaussian mixtures, like any other column
MOST_LEVELS = 4096


class Marginals(Density, Conditional, ClosedForm):
    """Independent columns with open support: never −∞ on a row of finite values."""

    open_support = True

    log_frequency: Tensor
    log_weight: Tensor
    location: Tensor
    deviation: Tensor
    log_floor: Tensor

    def __init__(self, space: Space, context_shape: tuple[int, ...] | None, config: Config) -> None:
        super().__init__(space, context_shape)
        self.config = config
        self.columns = Columns(space)
        c, k = self.columns.continuous, config.components
        self.register_buffer("log_frequency", torch.zeros(sum(self.columns.cardinalities), dtype=torch.float64))
        self.register_buffer("log_weight", torch.full((c, k), -math.log(k), dtype=torch.float64))
        self.register_buffer("location", torch.zeros(c, k, dtype=torch.float64))
        self.register_buffer("deviation", torch.ones(c, k, dtype=torch.float64))
        self.register_buffer("log_floor", torch.tensor(-math.log(2), dtype=torch.float64))

    def fit_closed(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        """Fit to rows in data units; O(columns · rows)."""
        self.columns.prepare(x)
        self.columns.find_recurring(x)
        parts = self.columns.split(x)
        n = len(x)
        self.log_floor = torch.tensor(-math.log(n + 1), dtype=torch.float64, device=x.device)
        counts = self.columns.indicators(parts.codes).double().sum(0)
        groups = [(g + 1) / (g.sum() + len(g)) for g in counts.split(list(self.columns.cardinalities))]
        self.log_frequency = torch.cat([g.log() for g in groups]) if groups else counts
        values, _ = self.columns.dequantise(parts, rng)
        for c in range(self.columns.continuous):
            column = values[parts.present[:, c], c]
            if len(column) >= 2:
                self._fit_column(c, column[torch.randperm(len(column), generator=rng)[: self.config.rows]], rng)

    def _fit_column(self, c: int, values: Tensor, rng: torch.Generator) -> None:
        data = values.cpu().numpy()[:, None]
        most = min(self.config.components, max(1, len(data) // 20), len(np.unique(data)))
        best, best_bic = None, math.inf
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            for k in sorted({1, 2, most} - set(range(most + 1, 3))):
                seed = int(torch.randint(2**31, (), generator=rng))
                fitted = GaussianMixture(k, reg_covar=self.config.ridge, random_state=seed).fit(data)
                if (bic := fitted.bic(data)) < best_bic:
                    best, best_bic = fitted, bic
        if best is None:
            raise FloatingPointError("no Gaussian mixture of a column has a finite likelihood")
        k = best.n_components

        def as_row(a: Any) -> Tensor:
            return torch.as_tensor(np.asarray(a).ravel(), dtype=torch.float64)

        self.log_weight[c] = -math.inf
        self.log_weight[c, :k] = as_row(best.weights_).log()
        self.location[c, :k] = as_row(best.means_)
        self.deviation[c, :k] = as_row(best.covariances_).sqrt()

    def _terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Nats of every code (n, S), and of every value including its base (n, C)."""
        flat, inside = self.space.flat(x), self.space.clamp(x)
        parts = self.columns.split(inside, recurring=True)
        off = flat.nan_to_num(0) != self.space.flat(inside).nan_to_num(0)
        seen = torch.log1p(-self.log_floor.exp())
        first = self.columns.first
        codes = self.log_frequency[parts.codes + first]
        levels = torch.tensor(
            [self.space.columns[j].kind == "levels" for j in self.columns.coded], dtype=torch.bool, device=x.device
        )
        origin = torch.zeros_like(self.columns.centre)
        # in a column with a wall, half of the broad part's weight is reserved for values beyond the wall
        δ, walled = self.columns.resolution, torch.isfinite(self.columns.lowest) | torch.isfinite(self.columns.highest)
        share = self.log_floor - torch.where(walled, math.log(2), 0.0)

        def law(cells: Parts | RecurringBins, at: Tensor | slice) -> Tensor:
            low, width, open_low, open_high = (
                t.unsqueeze(2) for t in (cells.low, cells.width, cells.open_low, cells.open_high)
            )
            mass = log_normal_mass(low, width, open_low, open_high, self.location[at], self.deviation[at])
            gauss = torch.logsumexp(self.log_weight[at] + mass, 2)
            broad = log_logistic_mass(cells, origin[at].expand_as(cells.low), origin[at].expand_as(cells.low) + math.log(BROAD))
            return torch.logaddexp(gauss + seen, broad + share[at])

        values = log_recurring_mass(parts, law)
        for s, v in self.columns.overlaps:
            landed = nn.functional.softplus(self.log_frequency[first[s]] + values[:, v] - codes[:, s])
            codes[:, s] += torch.where(parts.overlap[:, v], landed, 0.0)
        codes = torch.where(off[:, self.columns.coded] & levels, self.log_floor, codes + seen)
        # beyond a wall: e^{−t/L} / 2L at distance t, with L near the column's deviation; both in steps in a rounded column
        step = torch.where(δ > 0, δ, 1.0)
        length = (self.columns.raw(torch.ones_like(share)) - self.columns.raw(-torch.ones_like(share))) / (2 * step)
        raw, edge = flat[:, self.columns.numeric], self.space.flat(inside)[:, self.columns.numeric]
        beyond = share - (2 * length).log() - (raw - edge).abs() / step / length
        outside = off[:, self.columns.numeric]
        values = torch.where(outside, beyond, values)
        base = torch.where(outside & (δ == 0), 0.0, parts.base)
        return codes, torch.where(parts.present, values, 0.0) + base

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        codes, values = self._terms(x)
        return codes.sum(1) + values.sum(1)

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        return self._draw(n, self.log_frequency, rng)

    def _draw(self, n: int, log_frequency: Tensor, rng: torch.Generator) -> Tensor:
        groups = log_frequency.split(list(self.columns.cardinalities)) if self.columns.coded else ()
        codes = [random.categorical(g.expand(n, -1), rng) for g in groups]
        shape = (n, self.columns.continuous)
        component = random.categorical(self.log_weight.expand(n, -1, -1), rng)
        at = torch.arange(self.columns.continuous, device=component.device)
        gauss = self.location[at, component] + self.deviation[at, component] * random.normal(shape, rng, self.location)
        broad = BROAD * torch.logit(random.uniform(shape, rng, self.location).clamp(1e-12, 1 - 1e-12))
        values = torch.where(random.uniform(shape, rng, self.location) < self.log_floor.exp(), broad, gauss)
        stacked = torch.stack(codes, 1) if codes else torch.zeros(n, 0, dtype=torch.int64, device=values.device)
        return self.columns.join(stacked, self.columns.redraw_all(values, rng))

    def _condition(self, x: Tensor, known: Tensor, draws: int, context: Tensor | None, rng: torch.Generator) -> Conditioned:
        """Unknown entries are drawn from their marginals, given that they are not missing."""
        x = self.columns.blank(x, known)
        observed = self.log_frequency.clone()
        observed[self.columns.missing_at] = -math.inf
        drawn = self._draw(draws * len(x), observed, rng)
        values = torch.where(known, x, drawn.unflatten(0, (draws, len(x))))
        codes, numbers = self._terms(x)
        flat = known.reshape(len(x), -1)
        evidence = torch.where(flat[:, self.columns.coded], codes, self._log_observed().expand_as(codes)).sum(1)
        evidence = evidence + torch.where(flat[:, self.columns.numeric], numbers, 0.0).sum(1)
        return Conditioned(values, evidence, torch.full_like(evidence, math.inf))

    def _log_observed(self) -> Tensor:
        """(S,) log probability that a code is not "missing"."""
        observed = self.log_frequency.clone()
        observed[self.columns.missing_at] = -math.inf
        groups = observed.split(list(self.columns.cardinalities)) if self.columns.coded else ()
        return torch.stack([torch.logsumexp(g, 0) for g in groups]) if groups else observed


class PixelMarginals(Density, Conditional, ClosedForm):
    """Independent pixels, each with a smoothed histogram of its levels (``histograms``). A share 1/(n + 1) is reserved for
    unseen levels, half of it beyond the ends. Open support: never −∞ on a row of finite values.
    """

    open_support = True

    log_mass: Tensor
    log_floor: Tensor

    def __init__(self, space: Space, context_shape: tuple[int, ...] | None, config: Config) -> None:
        super().__init__(space, context_shape)
        self.config = config
        self.levels = space.columns[0].steps
        self.register_buffer("log_mass", torch.full((space.dims, self.levels), -math.log(self.levels), dtype=torch.float64))
        self.register_buffer("log_floor", torch.tensor(-math.log(2), dtype=torch.float64))

    def fit_closed(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        """Fit to rows in data units; O(pixels · (rows + levels))."""
        n = len(x)
        self.log_floor = torch.tensor(-math.log(n + 1), dtype=torch.float64, device=x.device)
        seen = histograms(self._steps(self.space.clamp(x)).long(), self.levels, self.space.shape[0])
        floor = self.log_floor.exp()
        self.log_mass = ((1 - floor) * seen + floor / 2 / self.levels).log()

    def _steps(self, x: Tensor) -> Tensor:
        """(n, C, H, W) in data units → (n, dims) number of steps above the lowest level."""
        column = self.space.columns[0]
        return ((self.space.flat(x) - column.low) / column.resolution).round()

    def _terms(self, x: Tensor) -> Tensor:
        """Nats of every pixel (n, dims)."""
        step = self._steps(x)
        inside = step.clamp(0, self.levels - 1)
        nats = self.log_mass.T.gather(0, inside.long())
        # beyond the support: e^{−t/L} / 2L at t cells from the edge, where L is the number of cells inside
        far = self.log_floor - math.log(2) - math.log(2 * self.levels) - (step - inside).abs() / self.levels
        return torch.where(step == inside, nats, far) - math.log(self.space.columns[0].resolution)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self._terms(x).sum(1)

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        # every image uses its own uniform numbers, so that drawing n at once or in parts gives the same images
        u = random.uniform((n, self.space.dims), rng, self.log_mass)
        cdf = self.log_mass.exp().cumsum(1)
        step = torch.searchsorted(cdf / cdf[:, -1:], u.T.contiguous(), right=True).clamp(max=self.levels - 1)
        column = self.space.columns[0]
        return (column.low + step.T * column.resolution).reshape(n, *self.space.shape)

    def _condition(self, x: Tensor, known: Tensor, draws: int, context: Tensor | None, rng: torch.Generator) -> Conditioned:
        """Unknown pixels are drawn from their histograms."""
        drawn = self._sample(draws * len(x), None, rng)
        values = torch.where(known, x, drawn.unflatten(0, (draws, len(x))))
        evidence = torch.where(self.space.flat(known), self._terms(x), 0.0).sum(1)
        return Conditioned(values, evidence, torch.full_like(evidence, math.inf))


def suggest(space: Space, rows: int, seconds: float | None = None) -> Config:
    """The default configuration."""
    return Config()


def build(
    space: Space, *, encoding: Columns | None = None, context_shape: tuple[int, ...] | None = None, config: Config,
    rng: torch.Generator,
) -> Marginals | PixelMarginals:  # fmt: skip
    """An unfitted model, which accepts a context and ignores it."""
    if space.is_image and 0 < space.columns[0].steps <= MOST_LEVELS:
        return PixelMarginals(space, context_shape, config)
    model = Marginals(space, context_shape, config)
    model.columns.adopt(encoding)
    return model
