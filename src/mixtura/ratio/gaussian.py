"""Ratio of two fitted Gaussians: :class:`Gaussians`."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from mixtura.ratio.ratio import Ratio

#: added to the variances, in units of the features
RIDGE = 1e-3


class Gaussians(Ratio):
    """log N(y; μ_p, Σ_p) − log N(y; μ_q, Σ_q) with the means and covariances of the rows: the plug-in that is right for Gaussians
    and has the fewest assumptions to explain when it is wrong."""

    def fit(self, p: Tensor, q: Tensor, rng: torch.Generator) -> Self:
        self._laws = fitted(p), fitted(q)
        return self

    def log_ratio(self, y: Tensor) -> Tensor:
        return self._laws[0].log_prob(y) - self._laws[1].log_prob(y)


def fitted(rows: Tensor, ridge: float = RIDGE) -> MultivariateNormal:
    """The Gaussian with the mean and covariance of rows (n, d), and ``ridge`` added to the variances."""
    covariance = torch.cov(rows.T).reshape(rows.shape[1], rows.shape[1]) + ridge * torch.eye(rows.shape[1], dtype=rows.dtype)
    return MultivariateNormal(rows.mean(0), covariance)
