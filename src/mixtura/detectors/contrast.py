"""Rows against rows that are spread evenly: :class:`Contrast`."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from mixtura.detectors.detector import Detector, finite, some
from mixtura.ground.rng import generator
from mixtura.ratio import TABLE

#: rows of each sample; the box is wider than the rows by this part of their range on each side
MOST_ROWS, WIDER = 10_000, 0.1


class Contrast(Detector):
    """−log of the density ratio of normal rows to rows uniform in their box, by boosted trees on the labels (Steinwart et al.
    2005). Outside the box it is that of the nearest point of the box."""

    def fit(self, x: Tensor, rng: torch.Generator) -> Self:
        x = some(x, MOST_ROWS, rng)
        low, high = x.amin(0), x.amax(0)
        self._low, self._high = low - WIDER * (high - low), high + WIDER * (high - low)
        even = self._low + torch.rand(x.shape, generator=rng, dtype=torch.float64) * (self._high - self._low)
        self._ratio = TABLE["trees"].make().fit(x, even, generator(int(torch.randint(2**31, (), generator=rng))))
        return self

    def score(self, y: Tensor) -> Tensor:
        return finite(-self._ratio.log_ratio(torch.minimum(torch.maximum(y, self._low), self._high)))
