"""Ratios as sums of kernels, r(y) = Σ_l α_l k(y, c_l) with α ≥ 0 and centres c_l among the rows of p (Sugiyama, Suzuki & Kanamori
2012, "Density Ratio Estimation in Machine Learning"). k is Gaussian; its bandwidth, of ``BANDWIDTHS`` median distances, and the
ridge, of ``RIDGES``, are chosen on ``FOLDS`` parts of the rows left out in turn.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

import numpy as np
import torch
from scipy.linalg import solve
from scipy.optimize import nnls
from torch import Tensor

from mixtura.ground.kernels import Gaussian, median_bandwidth
from mixtura.ratio.ratio import FOLDS, Ratio
from mixtura.simplex.stacking import stack

#: centres, and rows of each sample that are learnt from, at most
CENTRES, MOST_ROWS = 200, 5_000
#: bandwidths in median distances, and ridges
BANDWIDTHS, RIDGES = (0.25, 0.5, 1.0, 1.5), (1e-3, 1e-2, 1e-1, 1.0)
#: of kernel mean matching: rows of each sample at most, and its ridge relative to the mean eigenvalue
MATCHED_ROWS, MATCHED_RIDGE = 1_000, 1e-3
#: the least r: a sum of kernels vanishes far from all centres
LEAST = 1e-6
#: the share of p in the mixture of a relative ratio
SHARE = 0.1

Array = np.ndarray


class KernelSum(Ratio):
    """log of a sum of kernels, normalised so that the mean of r over q is 1: a ridge makes it too small."""

    def _hold(self, kernel: Gaussian, centres: Tensor, weights: Array, at_q: Array) -> Self:
        """``at_q`` (m, c): the kernels of rows of q at the centres."""
        self._kernel, self._centres, self._weights = kernel, centres, weights
        self._log_mean = float(np.log(np.mean(np.exp(self._log(at_q @ weights)))))
        return self

    def _log(self, values: Array) -> Array:
        """log r from values of the sum."""
        return np.log(np.maximum(values, LEAST))

    def log_ratio(self, y: Tensor) -> Tensor:
        values = np.concatenate([self._kernel(rows, self._centres).numpy() @ self._weights for rows in y.split(4_096)])
        return torch.as_tensor(self._log(values) - self._log_mean)


class Tuned(KernelSum):
    """With the bandwidth and the ridge that have the best score on rows left out."""

    ridges: tuple[float, ...] = RIDGES

    @abstractmethod
    def _solve(self, at_p: Array, at_q: Array, ridge: float) -> Array:
        """α (c,) from the kernels of rows at the centres, (n, c) and (m, c)."""

    @abstractmethod
    def _score(self, at_p: Array, at_q: Array) -> float:
        """From values of the sum at rows left out; lower is better."""

    def fit(self, p: Tensor, q: Tensor, rng: torch.Generator) -> Self:
        p, q = (rows[torch.randperm(len(rows), generator=rng)[:MOST_ROWS]] for rows in (p, q))
        centres, median = p[:CENTRES], median_bandwidth(torch.cat([p, q]), rng)
        parts = np.arange(len(p)) % FOLDS, np.arange(len(q)) % FOLDS
        tried = []
        for bandwidth in BANDWIDTHS:
            kernel = Gaussian(bandwidth * median)
            at_p, at_q = (kernel(rows, centres).numpy() for rows in (p, q))
            for ridge in self.ridges:
                score = 0.0
                for fold in range(FOLDS):
                    left_p, left_q = parts[0] == fold, parts[1] == fold
                    weights = self._solve(at_p[~left_p], at_q[~left_q], ridge)
                    score += self._score(at_p[left_p] @ weights, at_q[left_q] @ weights)
                tried.append((score, kernel, at_p, at_q, ridge))
        _, kernel, at_p, at_q, ridge = min(tried, key=lambda each: each[0])
        return self._hold(kernel, centres, self._solve(at_p, at_q, ridge), at_q)


class LeastSquares(Tuned):
    """uLSIF: least squares ½ E_q r² − E_p r + (λ/2)|α|² (Kanamori, Hido & Sugiyama 2009), here over α ≥ 0: solved without that
    and cut off at 0 afterwards, as published, the squared error on a line is more than twice as large. With ``share`` a > 0 the
    relative ratio r_a = p / (a p + (1 − a) q) ≤ 1/a is fitted (Yamada et al. 2013), and r = (1 − a) r_a / (1 − a r_a)."""

    def __init__(self, share: float = 0.0) -> None:
        self.share = share

    def _solve(self, at_p: Array, at_q: Array, ridge: float) -> Array:
        second = (1 - self.share) * at_q.T @ at_q / len(at_q) + self.share * at_p.T @ at_p / len(at_p)
        root = np.linalg.cholesky(second + ridge * np.eye(len(second)))
        return nnls(root.T, solve(root, at_p.mean(0)))[0]

    def _score(self, at_p: Array, at_q: Array) -> float:
        square = (1 - self.share) * np.square(at_q).mean() + self.share * np.square(at_p).mean()
        return float(square / 2 - at_p.mean())

    def _log(self, values: Array) -> Array:
        values = np.maximum(values, LEAST)
        if self.share == 0:
            return np.log(values)
        within = np.minimum(values, (1 - LEAST) / self.share)
        return np.log((1 - self.share) * within / (1 - self.share * within))


class Likelihood(Tuned):
    """KLIEP: maximise E_p log r with E_q r = 1 (Sugiyama et al. 2008). With w_l = α_l E_q k(·, c_l) the weights lie on the
    simplex and log r is that of a mixture: stacking of kernels, with its certificate."""

    ridges = (0.0,)

    def _solve(self, at_p: Array, at_q: Array, ridge: float) -> Array:
        means = at_q.mean(0)
        seen = means > LEAST
        densities = np.concatenate([at_p[:, seen] / means[seen], np.full((len(at_p), 1), LEAST)], 1)
        weights = np.zeros(at_p.shape[1])
        if seen.any():
            weights[seen] = stack(np.log(np.maximum(densities, 1e-300))).weights[:-1] / means[seen]
        return weights

    def _score(self, at_p: Array, at_q: Array) -> float:
        return -float(self._log(at_p).mean())


class MomentMatching(KernelSum):
    """Kernel mean matching (Huang et al. 2007), with r a sum of kernels so that it has values off the rows: minimise over α ≥ 0
    the distance |E_p k(·, y) − E_q r k(·, y)|² in the space of the kernel, plus a small ridge. The bandwidth is the median
    distance: distances of two bandwidths cannot be compared."""

    def fit(self, p: Tensor, q: Tensor, rng: torch.Generator) -> Self:
        p, q = (rows[torch.randperm(len(rows), generator=rng)[:MATCHED_ROWS]] for rows in (p, q))
        kernel, centres = Gaussian(median_bandwidth(torch.cat([p, q]), rng)), p[:CENTRES]
        at_q = kernel(q, centres).numpy()
        basis = at_q / len(q)
        second, first = basis.T @ kernel(q, q).numpy() @ basis, basis.T @ kernel(q, p).numpy().mean(1)
        root = np.linalg.cholesky(second + MATCHED_RIDGE * np.trace(second) / len(second) * np.eye(len(second)))
        return self._hold(kernel, centres, nnls(root.T, solve(root, first))[0], at_q)
