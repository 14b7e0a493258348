"""Which cells make a row strange: :class:`Reasons`."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from mixtura.contracts import Conditional, Density, Model
from mixtura.ground.rng import generator


class Reasons:
    """For every cell, how much less likely it is, given the other cells of its row, than cells of its column usually are:

        reason_j(x) = −log p(x_j | rest) − median over calibration rows of the same,    in nats,

    by a model with exact conditionals, for which p(x_j | rest) = p(x) / p(rest). An unseen level is part of p.
    """

    def __init__(self, model: Model, calibration: Tensor) -> None:
        """``model``: a Density that is Conditional too. calibration: (m, d) rows in data units that it has not learnt from."""
        self.model = model
        self.usual = self.unlikeliness(calibration).median(0).values

    def __call__(self, x: Tensor) -> Tensor:
        """(n, d) rows in data units → (n, d) nats."""
        return self.unlikeliness(x) - self.usual

    @torch.no_grad()
    def unlikeliness(self, x: Tensor) -> Tensor:
        """(n, d) −log p(x_j | rest)."""
        whole, found, rng = cast(Density, self.model).log_prob(x), [], generator(0, "reasons")
        # a level that was never seen is a cell like any other for the rest: the conditional of the rest leaves it out
        seen = self.model.space.clamp(x)
        for j in range(x.shape[1]):
            known = torch.ones_like(x, dtype=torch.bool)
            known[:, j] = False
            rest = cast(Conditional, self.model).condition(seen, known, rng=rng).log_evidence
            found.append(rest - whole)
        return torch.stack(found, 1)
