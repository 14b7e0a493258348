"""Ratios as sums of kernels, r(y) = Σ_l α_l k(y, c_l) with α ≥ 0 and centres c_l among the rows of p (Sugiyama, Suzuki & Kanamori
2012, "Density Ratio Estimation in Machine Learning"). k is Gaussian; its bandwidth, of ``BANDWIDTHS`` median distances, and the
ridge, of ``RIDGES``, are those with the best score on ``FOLDS`` parts of the rows left out in turn.
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
#: the least r: a sum of kernels vanishes far from all centres
LEAST = 1e-6
#: the share of p in the mixture of a relative ratio
SHARE = 0.1

Array = np.ndarray


class KernelRatio(Ratio):
    """What the methods of this module share."""

    #: what is tried, and rows of each sample that are learnt from, at most
    ridges: tuple[float, ...] = RIDGES
    bandwidths: tuple[float, ...] = BANDWIDTHS
    most_rows = MOST_ROWS

    @abstractmethod
    def _solve(self, at_p: Array, at_q: Array, ridge: float) -> Array:
        """α (c,) from the kernels of rows at the centres, (n, c) and (m, c)."""

    @abstractmethod
    def _score(self, at_p: Array, at_q: Array) -> float:
        """From values of the sum at rows left out; lower is better."""

    def _log(self, values: Array) -> Array:
        """log r from values of the sum."""
        return np.log(np.maximum(values, LEAST))

    def fit(self, p: Tensor, q: Tensor, rng: torch.Generator) -> Self:
        p, q = self._rows = tuple(rows[torch.randperm(len(rows), generator=rng)[: self.most_rows]] for rows in (p, q))
        self._centres = p[:CENTRES]
        median = median_bandwidth(torch.cat([p, q]), rng)
        parts = np.arange(len(p)) % FOLDS, np.arange(len(q)) % FOLDS
        best, chosen = np.inf, None
        for bandwidth in self.bandwidths:
            kernel = Gaussian(bandwidth * median)
            at_p, at_q = (kernel(rows, self._centres).numpy() for rows in (p, q))
            for ridge in self.ridges:
                score = 0.0
                for fold in range(FOLDS) if len(self.bandwidths) * len(self.ridges) > 1 else ():
                    left_p, left_q = parts[0] == fold, parts[1] == fold
                    weights = self._solve(at_p[~left_p], at_q[~left_q], ridge)
                    score += self._score(at_p[left_p] @ weights, at_q[left_q] @ weights)
                if score < best:
                    best, self._kernel, chosen = score, kernel, (at_p, at_q, ridge)
        if chosen is None:
            raise ArithmeticError("no bandwidth and ridge have a finite score")
        self._weights = self._solve(*chosen)
        # a ridge makes r too small; the mean of r over q is 1
        self._log_mean = float(np.log(np.mean(np.exp(self._log(chosen[1] @ self._weights)))))
        return self

    def log_ratio(self, y: Tensor) -> Tensor:
        values = np.concatenate([self._kernel(rows, self._centres).numpy() @ self._weights for rows in y.split(4_096)])
        return torch.as_tensor(self._log(values) - self._log_mean)


class LeastSquares(KernelRatio):
    """uLSIF: least squares ½ E_q r² − E_p r + (λ/2)|α|² in closed form, then negative α are set to 0 (Kanamori, Hido & Sugiyama
    2009). With ``share`` a > 0 the relative ratio r_a = p / (a p + (1 − a) q) ≤ 1/a is fitted (Yamada et al. 2013), and
    r = (1 − a) r_a / (1 − a r_a)."""

    def __init__(self, share: float = 0.0) -> None:
        self.share = share

    def _solve(self, at_p: Array, at_q: Array, ridge: float) -> Array:
        second = (1 - self.share) * at_q.T @ at_q / len(at_q) + self.share * at_p.T @ at_p / len(at_p)
        return np.maximum(solve(second + ridge * np.eye(len(second)), at_p.mean(0), assume_a="pos"), 0)

    def _score(self, at_p: Array, at_q: Array) -> float:
        square = (1 - self.share) * np.square(at_q).mean() + self.share * np.square(at_p).mean()
        return float(square / 2 - at_p.mean())

    def _log(self, values: Array) -> Array:
        values = np.maximum(values, LEAST)
        if self.share == 0:
            return np.log(values)
        within = np.minimum(values, (1 - LEAST) / self.share)
        return np.log((1 - self.share) * within / (1 - self.share * within))


class Likelihood(KernelRatio):
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


class MomentMatching(KernelRatio):
    """Kernel mean matching (Huang et al. 2007), with r a sum of kernels so that it has values off the rows: minimise over α ≥ 0
    the distance |E_p k(·, y) − E_q r k(·, y)|² in the space of the kernel, plus a small ridge. The bandwidth is the median
    distance: scores of two bandwidths cannot be compared."""

    ridges, bandwidths, most_rows = (1e-3,), (1.0,), 1_000

    def _solve(self, at_p: Array, at_q: Array, ridge: float) -> Array:
        p, q = self._rows
        within, between = self._kernel(q, q).numpy(), self._kernel(q, p).numpy()
        basis = at_q / len(at_q)
        second = basis.T @ within @ basis
        first = basis.T @ between.mean(1)
        root = np.linalg.cholesky(second + ridge * np.trace(second) / len(second) * np.eye(len(second)))
        return nnls(root.T, solve(root, first))[0]

    def _score(self, at_p: Array, at_q: Array) -> float:
        return 0.0
