"""Several detectors as one score: :class:`Blended`."""

from __future__ import annotations

import torch
from torch import Tensor

#: the weight of how far a score is out, beside its p-value: it only orders rows that are stranger than all calibration rows
BEYOND = 0.01
#: the quantiles of normal scores that are 0 and 1 in units of which that is told
MIDDLE, UPPER = 0.5, 0.9


class Blended:
    """J detectors on one scale, by m calibration rows that nothing was learnt from. With the conformal p-value p_j of a row by
    detector j, and its score s_j,

        −Σ_j log p_j + ε Σ_j asinh max(0, (s_j − middle_j) / spread_j),

    Fisher's combination of the p-values, all detectors alike, and beyond the largest calibration score, where p_j stays at
    1/(m + 1), the logarithm of how far out it is. The p_j of a row are not independent and the sum is no p-value: it is
    calibrated like any other score. A calibration row is one of the rows that it is ranked among, as a new row is.
    """

    def __init__(self, scores: Tensor) -> None:
        """scores: (m, J)."""
        self.ordered = scores.sort(0).values
        self.middle = scores.quantile(MIDDLE, 0)
        least = 1e-12 * (1 + scores.abs().amax(0))
        self.spread = torch.maximum(scores.quantile(UPPER, 0) - self.middle, least)

    def __call__(self, scores: Tensor, *, calibration: bool = False) -> Tensor:
        """(b, J) → (b,). ``calibration``: these are the calibration rows themselves."""
        m = len(self.ordered)
        below = torch.searchsorted(self.ordered.T.contiguous(), scores.T.contiguous(), side="left").T
        p = (m - below + (0 if calibration else 1)) / (m + 1)
        out = torch.asinh(((scores - self.middle) / self.spread).clamp(min=0))
        return (BEYOND * out - p.log()).sum(1)
