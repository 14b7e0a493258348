"""Linear regression with Gaussian residuals of columns given a context.

    p(x | c) = Π_j p(x_j | c, x_<j)

A value is Gaussian with a mean linear in its inputs: the context and the columns before it. Together these regressions of all
values are one Gaussian with a full residual covariance (its inverse is given by a Cholesky factor, row by row), fitted by least
squares in closed form. A rounded value has the exact mass of its cell. A code (a level, an atom, "missing") has a multinomial
logistic regression on the same inputs, fitted by scikit-learn, so every table can be modelled. Without a context the values are
a Gaussian.
"""

from __future__ import annotations

import math
import warnings
from functools import partial
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from mixtura.contracts import ClosedForm, Density, InputError, Reparameterised, Space
from mixtura.ground import rng as random
from mixtura.ground.cells import Parts, RecurringBins, log_normal_mass, log_recurring_mass
from mixtura.ground.encode import Columns


class Config(BaseModel):
    """ridges: the penalties on squared coefficients that are tried, in rows; leave-one-out residuals choose one for each value.
    rows: the most rows that are fitted."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    ridges: tuple[float, ...] = Field(default=(1e-3, 1e-1, 1e1, 1e3), min_length=1)
    rows: int = Field(default=100_000, ge=2)


#: the most entries of a row: each is regressed on all before it
MOST_COLUMNS = 128
#: added to the variance of residuals, in units of the column's variance
LEAST_VARIANCE = 1e-6
#: the most rows, and the most iterations, of a logistic regression
LOGISTIC_ROWS, ITERATIONS = 20_000, 200


class LinearGaussian(Density, ClosedForm):
    """A linear regression of every column on the context and the columns before it; exact, fitted in closed form."""

    centre: Tensor
    scale: Tensor
    slopes: Tensor
    deviation: Tensor
    logits: Tensor
    rows: Tensor

    def __init__(self, space: Space, context_shape: tuple[int, ...] | None, config: Config) -> None:
        super().__init__(space, context_shape)
        self.config = config
        self.columns = Columns(space)
        f = math.prod(context_shape) if context_shape else 0
        k, c = sum(self.columns.cardinalities), self.columns.continuous

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64)

        # mean and deviation of the context features
        self.register_buffer("centre", zeros(f))
        self.register_buffer("scale", zeros(f) + 1)
        # coefficients of each value (C) and each indicator (K) on 1, the context, all indicators and all values
        self.register_buffer("slopes", zeros(c, 1 + f + k + c))
        self.register_buffer("deviation", zeros(c) + 1)
        self.register_buffer("logits", zeros(k, 1 + f + k + c))
        self.register_buffer("rows", torch.tensor(0.0, dtype=torch.float64))

    # ----------------------------------------------------------------------------------------- fitting

    def fit_closed(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        """Regress every code and every value on the context and the columns before it; O(rows · inputs²) each."""
        self.columns.prepare(x)
        self.columns.find_recurring(x, context)
        chosen = torch.randperm(len(x), generator=rng)[: self.config.rows].to(x.device)
        x, context = x[chosen], None if context is None else context[chosen]
        self.rows = torch.tensor(float(len(x)), dtype=torch.float64, device=x.device)
        if context is not None:
            features = context.flatten(1).double()
            self.centre, spread = features.mean(0), features.std(0, correction=0)
            self.scale = torch.where(spread > 0, spread, 1.0)
        parts = self.columns.split(x, recurring=True)
        inputs = torch.cat([self._given(len(x), context), self.columns.indicators(parts.codes).double(), parts.values], 1)
        for j in range(self.space.dims):
            s, v = self.columns.code_of.get(j), self.columns.value_of.get(j)
            before = self._before(j)
            if s is not None:
                group = self._group(s)
                self.logits[group, before] = _logistic(inputs[:, before], parts.codes[:, s], self.columns.cardinalities[s])
            if v is not None and bool((here := parts.present[:, v]).any()):
                slopes, variance = _regress(inputs[here][:, before], parts.values[here, v], self.config.ridges)
                self.slopes[v, before], self.deviation[v] = slopes, (variance + LEAST_VARIANCE).sqrt()

    def _before(self, j: int) -> Tensor:
        """The inputs that column j is regressed on: 1, the context, the indicators and values of the columns before it."""
        codes = sum(self.columns.cardinalities[: sum(i < j for i in self.columns.coded)])
        values = sum(i < j for i in self.columns.numeric)
        first = 1 + len(self.centre)
        at = [*range(first + codes), *range(first + len(self.logits), first + len(self.logits) + values)]
        return torch.tensor(at, device=self.device)

    def _group(self, s: int) -> slice:
        """The indicators of code s."""
        first = int(self.columns.first[s])
        return slice(first, first + self.columns.cardinalities[s])

    def _given(self, n: int, context: Tensor | None) -> Tensor:
        """(n, 1 + f) the inputs that every column has: 1 and the standardised context."""
        one = torch.ones(n, 1, dtype=torch.float64, device=self.device)
        return one if context is None else torch.cat([one, (context.flatten(1).double() - self.centre) / self.scale], 1)

    # ----------------------------------------------------------------------------------------- using it

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        parts = self.columns.split(x, recurring=True)
        inputs = torch.cat([self._given(len(x), context), self.columns.indicators(parts.codes).double(), parts.values], 1)
        means = inputs @ self.slopes.T

        def law(cells: Parts | RecurringBins, at: Tensor | slice) -> Tensor:
            low, width, open_low, open_high = cells.low, cells.width, cells.open_low, cells.open_high
            return log_normal_mass(low, width, open_low, open_high, means[:, at], self.deviation[at])

        values = log_recurring_mass(parts, law)
        codes = torch.zeros(len(x), len(self.columns.coded), dtype=torch.float64, device=x.device)
        overlaps = dict(self.columns.overlaps)
        for s in range(len(self.columns.coded)):
            group = self._log_shares(s, inputs)
            codes[:, s] = group.gather(1, parts.codes[:, [s]]).squeeze(1)
            if s in overlaps:
                v = overlaps[s]
                landed = torch.logaddexp(codes[:, s], group[:, 0] + values[:, v])
                codes[:, s] = torch.where(parts.overlap[:, v], landed, codes[:, s])
        return codes.sum(1) + torch.where(parts.present, values, 0.0).sum(1) + parts.log_base

    def _log_shares(self, s: int, inputs: Tensor) -> Tensor:
        """(n, k) log probabilities of code s, smoothed by one pseudo-row of each level in addition to the fitted rows."""
        shares = torch.softmax(inputs @ self.logits[self._group(s)].T, 1)
        return ((self.rows * shares + 1) / (self.rows + shares.shape[1])).log()

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        codes = torch.zeros(n, len(self.columns.coded), dtype=torch.int64, device=self.device)
        values = torch.zeros(n, self.columns.continuous, dtype=torch.float64, device=self.device)
        given = self._given(n, context)
        inputs = functional.pad(given, (0, len(self.logits) + self.columns.continuous))
        # the positions of indicators and values among the inputs
        of_codes, of_values = given.shape[1], given.shape[1] + len(self.logits)
        for j in range(self.space.dims):
            s, v = self.columns.code_of.get(j), self.columns.value_of.get(j)
            if s is not None:
                codes[:, s] = random.categorical(self._log_shares(s, inputs), rng)
            if v is not None:
                noise = random.normal((n,), rng, values)
                drawn = inputs @ self.slopes[v] + self.deviation[v] * noise
                drawn = self.columns.redraw(drawn, v, partial(random.uniform, (n,), rng, values))
                if s is not None:
                    codes[:, s] = torch.where(codes[:, s] == 0, self.columns.recode(v, drawn), codes[:, s])
                    drawn = torch.where(codes[:, s] == 0, drawn, 0.0)
                values[:, v] = inputs[:, of_values + v] = drawn
            if s is not None:
                indicators = functional.one_hot(codes[:, s], self.columns.cardinalities[s])
                inputs[:, of_codes:of_values][:, self._group(s)] = indicators.double()
        return self.columns.join(codes, values)


class PlainLinearGaussian(LinearGaussian, Reparameterised):
    """The model of a space of plain numbers."""

    def _draw(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        given, values = self._given(n, context), []
        for v, slopes in enumerate(self.slopes):
            inputs = torch.cat([given, *values], 1)
            noise = random.normal((n, 1), rng, given)
            values.append(inputs @ slopes[: inputs.shape[1], None] + self.deviation[v] * noise)
        return torch.cat(values, 1)


def _regress(inputs: Tensor, target: Tensor, ridges: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Coefficients (p,) of a ridge regression of ``target`` (n,) on ``inputs`` (n, p), whose first input is 1 and is not
    penalised; and the mean square of its leave-one-out residuals e_i / (1 − h_i) (Allen 1974), the least for all ``ridges`` and
    for no slopes. Leave-one-out residuals estimate the error on unseen rows; the residuals themselves are too small."""
    n = len(inputs)
    middle, centre = inputs[:, 1:].mean(0), target.mean()
    Φ, y = inputs[:, 1:] - middle, target - centre
    eigenvalues, V = torch.linalg.eigh(Φ.T @ Φ)
    scores, along = Φ @ V, V.T @ (Φ.T @ y)
    best = (torch.zeros_like(middle), y.square().mean() * (n / max(n - 1, 1)) ** 2)
    for λ in ridges:
        shrunk = 1 / (eigenvalues.clamp(min=0) + λ)
        leverage = (scores.square() @ shrunk + 1 / n).clamp(max=1 - 1e-9)
        error = ((y - scores @ (shrunk * along)) / (1 - leverage)).square().mean()
        if error < best[1]:
            best = (V @ (shrunk * along), error)
    slopes, error = best
    return torch.cat([(centre - middle @ slopes).reshape(1), slopes]), error


def _logistic(inputs: Tensor, codes: Tensor, levels: int) -> Tensor:
    """(levels, p) coefficients of a multinomial logistic regression on ``inputs`` (n, p), whose first input is 1, fitted to the
    first ``LOGISTIC_ROWS`` rows; a level that does not occur among them gets a logit of −40."""
    inputs, codes = inputs[:LOGISTIC_ROWS], codes[:LOGISTIC_ROWS]
    out = torch.zeros(levels, inputs.shape[1], dtype=torch.float64, device=inputs.device)
    seen = codes.unique()
    out[:, 0] = -40.0
    out[seen, 0] = 0.0
    if len(seen) == 1:
        return out
    if inputs.shape[1] == 1:
        out[seen, 0] = torch.bincount(codes, minlength=levels)[seen].double().log()
        return out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = LogisticRegression(max_iter=ITERATIONS, random_state=0).fit(inputs[:, 1:].cpu().numpy(), codes.cpu().numpy())

    def of(a: Any) -> Tensor:
        return torch.as_tensor(np.asarray(a), dtype=torch.float64, device=inputs.device)

    slopes, offset = of(fitted.coef_), of(fitted.intercept_).unsqueeze(1)
    if len(seen) == 2:
        slopes, offset = functional.pad(slopes, (0, 0, 1, 0)), functional.pad(offset, (0, 0, 1, 0))
    out[seen] = torch.cat([offset, slopes], 1)
    return out


def suggest(space: Space, rows: int, seconds: float | None = None) -> Config:
    """The default configuration."""
    return Config()


def build(
    space: Space, *, encoding: Columns | None = None, context_shape: tuple[int, ...] | None = None, config: Config,
    rng: torch.Generator,
) -> LinearGaussian:  # fmt: skip
    """An unfitted model; InputError on rows of more than ``MOST_COLUMNS`` entries."""
    if space.dims > MOST_COLUMNS:
        raise InputError(
            f"linear_gaussian: {space.dims:,} columns are more than the {MOST_COLUMNS} this family can model; use flow"
        )
    model = (PlainLinearGaussian if space.plain else LinearGaussian)(space, context_shape, config)
    model.columns.adopt(encoding)
    return model
