"""Which cells make a row strange: :class:`Reasons`, and the detector that looks at them, :class:`OddCells`."""

from __future__ import annotations

from typing import Self, cast

import torch
from torch import Tensor

from mixtura.contracts import CellDensity, InputError
from mixtura.detectors.detector import LARGEST, finite
from mixtura.detectors.nats import OfModel

#: rows that say what is usual, at most; the quantiles whose distance is the unit; and the least unit, in nats
USUAL_ROWS, MIDDLE, UPPER, LEAST = 1_000, 0.5, 0.9, 0.1


class Reasons:
    """For every cell, how much less likely it is, given the other cells of its row, than cells of its column usually are:

        u_j(x) = −log p(x_j | rest),    reason_j(x) = (u_j(x) − median_j) / (ninth decile_j − median_j),

    with the quantiles of u_j over rows that the density has not learnt from: 1 is what one cell in ten of its column reaches. So
    a column of many levels, or of few, is not a reason more often than another.
    """

    def __init__(self, model: CellDensity, usual: Tensor) -> None:
        """usual: (m, d) rows in data units."""
        self.model = model
        found = self.unlikeliness(usual[:USUAL_ROWS])
        self.middle = found.quantile(MIDDLE, 0)
        self.unit = (found.quantile(UPPER, 0) - self.middle).clamp(min=LEAST)

    def __call__(self, x: Tensor) -> Tensor:
        """(n, d) rows in data units → (n, d) reasons."""
        return (self.unlikeliness(x) - self.middle) / self.unit

    @torch.no_grad()
    def unlikeliness(self, x: Tensor) -> Tensor:
        """(n, d) u_j in nats, at most ``LARGEST``."""
        return (-self.model.log_conditionals(x)).clamp(-LARGEST, LARGEST)


class OddCells(OfModel):
    """The strongest reason of a row, by a :class:`CellDensity`. A part of the rows says what is usual and is not learnt from."""

    #: the share of the rows that says what is usual
    share = 0.2

    def fit(self, x: Tensor, rng: torch.Generator) -> Self:
        return self.hold(*self.train(x[self.usual(x) :], rng)).beside(x)

    def beside(self, x: Tensor) -> Self:
        """Learn what is usual from the rows that :meth:`fit` had, with the model that it made of them."""
        if not isinstance(self.model, CellDensity):
            raise InputError(f"{type(self.model).__name__} does not give each cell given the others exactly")
        self.reasons = Reasons(self.model, x[: self.usual(x)])
        return self

    def usual(self, x: Tensor) -> int:
        """How many of the rows, the first, say what is usual."""
        return max(2, int(self.share * len(x)))

    def score(self, y: Tensor) -> Tensor:
        return finite(self.reasons(cast(Tensor, self.model.space.flat(y))).amax(1))
