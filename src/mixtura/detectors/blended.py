"""Several detectors as one score: :class:`Blended`, :class:`MixedNats`."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from mixtura.detectors.detector import finite

#: the weight of how far a score is out, beside its p-value: it only orders rows that are stranger than all calibration rows
BEYOND = 0.01
#: the quantiles of normal scores that are 0 and 1 in units of which that is told
MIDDLE, UPPER = 0.5, 0.9
#: how strongly learnt weights are held near equal ones: as much as so many known anomalies say
HELD = 10.0


class Blended:
    """J detectors on one scale, by m calibration rows that nothing was learnt from. With the conformal p-value p_j of a row by
    detector j, and its score s_j,

        Σ_j w_j t_j,    t_j = −log p_j + ε asinh max(0, (s_j − middle_j) / spread_j),

    with all w_j = 1 Fisher's combination of the p-values, and beyond the largest calibration score, where p_j stays at
    1/(m + 1), the logarithm of how far out it is. The p_j of a row are not independent and the sum is no p-value: it is
    calibrated like any other score. A calibration row is one of the rows that it is ranked among, as a new row is.
    """

    def __init__(self, scores: Tensor, weights: Tensor | None = None) -> None:
        """scores: (m, J). weights: (J,) w, 1 by default."""
        self.ordered = scores.sort(0).values
        self.middle = scores.quantile(MIDDLE, 0)
        least = 1e-12 * (1 + scores.abs().amax(0))
        self.spread = torch.maximum(scores.quantile(UPPER, 0) - self.middle, least)
        self.weights = torch.ones(scores.shape[1], dtype=torch.float64) if weights is None else weights

    def __call__(self, scores: Tensor, *, calibration: bool = False) -> Tensor:
        """(b, J) → (b,). ``calibration``: these are the calibration rows themselves."""
        return self.terms(scores, calibration=calibration) @ self.weights

    def terms(self, scores: Tensor, *, calibration: bool = False) -> Tensor:
        """(b, J) t."""
        m = len(self.ordered)
        below = torch.searchsorted(self.ordered.T.contiguous(), scores.T.contiguous(), side="left").T
        p = (m - below + (0 if calibration else 1)) / (m + 1)
        return BEYOND * torch.asinh(((scores - self.middle) / self.spread).clamp(min=0)) - p.log()


class MixedNats:
    """Models with densities p_j and scores s_j = −log p_j: −log Σ_j w_j p_j, the density of their blend."""

    def __init__(self, weights: Tensor) -> None:
        """weights: (J,) w, with the sum 1."""
        self.weights = weights

    def __call__(self, scores: Tensor, *, calibration: bool = False) -> Tensor:
        """(b, J) → (b,), calibration rows as all others."""
        return finite(-torch.logsumexp(self.weights.log() - scores, 1))


def learnt_weights(normal: Tensor, strange: Tensor) -> Tensor:
    """(J,) weights w ≥ 0 that tell k known anomalies from normal rows, by their terms t, (n, J) and (k, J): the least of

        mean log(1 + e^(b + w·t)) over normal + mean log(1 + e^−(b + w·t)) over strange + λ |w / w̄ − 1|² / (2 J),

    the logistic loss of both kinds alike, with λ = ``HELD`` / (``HELD`` + k) holding the weights near equal ones while anomalies
    are few. They are scaled to a mean of 1.
    """
    a, b = normal.numpy(), strange.numpy()
    held, count = HELD / (HELD + len(b)), a.shape[1]

    def loss(at: np.ndarray) -> float:
        w, shift = at[:-1], at[-1]
        apart = w / max(w.mean(), 1e-12) - 1
        told = np.logaddexp(0, shift + a @ w).mean() + np.logaddexp(0, -shift - b @ w).mean()
        return float(told + held * np.square(apart).sum() / (2 * count))

    begin = np.r_[np.full(count, 1 / count), -1.0]
    found = minimize(loss, begin, method="L-BFGS-B", bounds=[(0, None)] * count + [(None, None)])
    w = cast(np.ndarray, found.x)[:-1]
    return torch.as_tensor(w / w.mean()) if w.mean() > 1e-9 else torch.ones(count, dtype=torch.float64)
