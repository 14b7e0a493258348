"""The default policy, restricted to few arms in the mixture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mixtura.policies.bandit import Array, VarianceUcb, View, first_best
from mixtura.simplex.sparse import minimise_sparse
from mixtura.simplex.weights import Weights


@dataclass
class Sparse(VarianceUcb):
    """The default policy with at most ``size`` arms in the mixture. One pull in twenty asks the arm that was asked least
    often."""

    size: int = 3

    def choose(self, view: View, rng: torch.Generator) -> int:
        if float(torch.rand((), generator=rng, dtype=torch.float64)) < 0.05:
            return first_best(view.asked.astype(np.float64), view)
        return super().choose(view, rng)

    def optimistic(self, view: View) -> Array:
        return np.array(minimise_sparse(view.K, (self.bonus(view) - view.f) / 2, self.size, psd=True).weights)

    def weights(self, view: View) -> Weights:
        return minimise_sparse(view.K, -view.f / 2, self.size, psd=True)
