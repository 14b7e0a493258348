"""Steps of expectation–maximisation (EM) for Gaussian mixtures with codes, absent values and values censored at the ends."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from mixtura.ground.cells import Parts
from mixtura.ground.normal import LOG_2PI, LOG_SQRT_2PI

#: distinct rows of a mask, each with the indices of the rows that equal it
Patterns = list[tuple[Tensor, Tensor]]

#: the weight of the prior of each component, in rows: unit variance, and the overall frequencies of each code
PRIOR_ROWS = 1.0


@dataclass(frozen=True)
class MixtureState:
    """The parameters of a mixture: π (K,), means (K, C), covariance (K, C, C) or (K, C), log θ (K, Σ cardinalities)."""

    weights: Tensor
    means: Tensor
    covariance: Tensor
    log_tables: Tensor


class CensoredScores:
    """EM of diagonal Gaussians on censored scores: a score is in the open cell below, in the open cell above, or a number in
    between. Here the cell of a number in between counts as narrow; the density of the fitted model is exact. Each step is a few
    matrix products over all rows."""

    def __init__(self, parts: Parts, ridge: float) -> None:
        def as_numbers(t: Tensor) -> Tensor:
            return t.to(parts.values)

        self.ridge = ridge
        self.below, self.above = as_numbers(parts.open_low), as_numbers(parts.open_high)
        self.between = as_numbers(~parts.open_low & ~parts.open_high)
        self.value, self.square = self.between * parts.values, self.between * parts.values.square()
        self.log_width = (self.between * parts.width.clamp(min=1e-300).log()).sum(1, keepdim=True)
        # the inner edge of each open cell that holds a row
        self.low = torch.where(parts.open_low, parts.low + parts.width, -math.inf).amax(0)
        self.high = torch.where(parts.open_high, parts.low, math.inf).amin(0)

    def log_joint(self, state: MixtureState) -> Tensor:
        """(n, K) log π_k + log p_k(row)."""
        precision, deviation = 1 / state.covariance, state.covariance.sqrt()
        constant = precision * state.means.square() + state.covariance.log() + LOG_2PI
        quadratic = self.square @ precision.T - 2 * self.value @ (precision * state.means).T + self.between @ constant.T
        low, high = (self.low - state.means) / deviation, (state.means - self.high) / deviation
        ends = self.below @ _finite(torch.special.log_ndtr(low)).T + self.above @ _finite(torch.special.log_ndtr(high)).T
        return state.weights.log() + ends - 0.5 * quadratic + self.log_width

    def maximise(self, shares: Tensor, state: MixtureState) -> MixtureState:
        """The M-step. The first two moments of a value beyond an edge e, in a component with mean μ and deviation σ, are
        μ ∓ σh and μ² + σ² ∓ σh (e + μ), where h = φ(a) / Φ(a) and a = ±(e − μ) / σ."""
        size = shares.sum(0)
        first, second = shares.T @ self.value, shares.T @ self.square
        deviation = state.covariance.sqrt()
        for rows, edge, sign in ((self.below, self.low, 1.0), (self.above, self.high, -1.0)):
            a = sign * (edge - state.means) / deviation
            hazard = deviation * (-0.5 * a.square() - LOG_SQRT_2PI - torch.special.log_ndtr(a)).exp()
            count = shares.T @ rows
            first = first + count * _finite(state.means - sign * hazard)
            second = second + count * _finite(state.means.square() + state.covariance - sign * hazard * (edge + state.means))
        total = size.unsqueeze(1) + PRIOR_ROWS
        means = first / total
        variance = (second + PRIOR_ROWS) / total - means.square()
        weights = (size + PRIOR_ROWS / len(size)) / (len(shares) + PRIOR_ROWS)
        return MixtureState(weights, means, variance.clamp(min=0) + self.ridge, shares.new_zeros(len(size), 0))


def _finite(moments: Tensor) -> Tensor:
    """The moments, with 0 where no row is censored at that end."""
    return torch.where(torch.isfinite(moments), moments, 0.0)


def log_joint_of(state: MixtureState, values: Tensor, present: Tensor, patterns: Patterns, hot: Tensor) -> Tensor:
    """The E-step: (n, K) log π_k θ_k N_k of dequantised values."""
    out = state.weights.log() + hot @ state.log_tables.T
    seen = present.double()
    if state.covariance.dim() == 2:
        precision = 1 / state.covariance
        quadratic = (seen * values**2) @ precision.T - 2 * (seen * values) @ (precision * state.means).T
        constant = precision * state.means**2 + state.covariance.log() + LOG_2PI
        return out - 0.5 * (quadratic + seen @ constant.T)
    for pattern, rows in patterns:
        o = pattern.nonzero().squeeze(1)
        if len(o):
            factor = torch.linalg.cholesky(state.covariance[:, o[:, None], o])
            eye = torch.eye(len(o), dtype=factor.dtype, device=factor.device)
            whiten = torch.linalg.solve_triangular(factor, eye, upper=False)
            z = values[rows][:, o] @ whiten.mT - (whiten @ state.means[:, o].unsqueeze(2)).mT
            log_det = factor.diagonal(dim1=1, dim2=2).log().sum(1)
            out[rows] -= (0.5 * z.square().sum(2) + log_det.unsqueeze(1) + 0.5 * len(o) * LOG_2PI).T
    return out


def moments_given(shares: Tensor, values: Tensor, patterns: Patterns, state: MixtureState | None) -> tuple[Tensor, Tensor]:
    """Means (K, C) and scatter (K, C, C), where absent values are replaced by their conditional expectation under ``state``,
    or by the origin if ``state`` is None."""
    n, k = shares.shape
    c = values.shape[1]
    filled = values.unsqueeze(0).expand(k, n, c).clone()
    extra = torch.zeros(k, c, c, dtype=values.dtype, device=values.device)
    for pattern, rows in patterns:
        o, u = pattern.nonzero().squeeze(1), (~pattern).nonzero().squeeze(1)
        if len(u) == 0:
            continue
        mass = shares[rows].sum(0)
        if state is None:
            filled[:, rows[:, None], u] = 0.0
            extra[:, u, u] += mass[:, None]
            continue
        uu = state.covariance[:, u[:, None], u]
        if len(o):
            uo = state.covariance[:, u[:, None], o]
            gain = torch.linalg.solve(state.covariance[:, o[:, None], o], uo.mT).mT
            deviation = values[rows][:, o].unsqueeze(0) - state.means[:, o].unsqueeze(1)
            filled[:, rows[:, None], u] = state.means[:, u].unsqueeze(1) + deviation @ gain.mT
            uu = uu - gain @ uo.mT
        else:
            filled[:, rows[:, None], u] = state.means[:, u].unsqueeze(1)
        extra[:, u[:, None], u] += mass[:, None, None] * uu
    weight = shares.T.unsqueeze(2)
    means = (weight * filled).sum(1) / (shares.sum(0) + PRIOR_ROWS).unsqueeze(1)
    deviation = filled - means.unsqueeze(1)
    return means, (weight * deviation).mT @ deviation + extra


def distinct_patterns(rows: Tensor) -> Patterns:
    """The distinct rows, each with the indices at which it occurs."""
    distinct, inverse = rows.unique(dim=0, return_inverse=True)
    return [(pattern, (inverse == i).nonzero().squeeze(1)) for i, pattern in enumerate(distinct)]


def first_labels(values: Tensor, present: Tensor, hot: Tensor, k: int, seed: int) -> Tensor:
    """(n,) initial labels: k-means on the values (absent ones at the centre) and the indicators."""
    if k == 1:
        return torch.zeros(len(values), dtype=torch.int64, device=values.device)
    features = torch.cat([values * present, hot], 1).cpu().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = KMeans(k, n_init=cast(Any, 1), max_iter=30, random_state=seed).fit_predict(features)
    return torch.as_tensor(labels.astype(np.int64), device=values.device)
