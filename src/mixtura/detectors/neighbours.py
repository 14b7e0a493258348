"""Distances to the nearest normal rows: :class:`Neighbours`, :class:`DiffusionTime`."""

from __future__ import annotations

from typing import Self

import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from mixtura.detectors.detector import Detector, finite, some

#: neighbours, and rows that distances are measured to, at most
K, MOST_ROWS = 5, 10_000


class Neighbours(Detector):
    """The mean distance to the k nearest normal rows (Ramaswamy et al. 2000; Angiulli & Pizzuti 2002)."""

    def __init__(self, k: int = K) -> None:
        self.k = k

    def fit(self, x: Tensor, rng: torch.Generator) -> Self:
        self._rows = NearestNeighbors(n_neighbors=min(self.k, len(x))).fit(some(x, MOST_ROWS, rng).numpy())
        return self

    def score(self, y: Tensor) -> Tensor:
        return finite(torch.as_tensor(self._rows.kneighbors(y.numpy())[0].mean(1)))


class DiffusionTime(Neighbours):
    """How long a normal row would have to diffuse to arrive at y (DTE-NP: Livernoche et al. 2024, section 4).

    Noise of variance σ² takes row x_i to y with density N(y; x_i, σ² I). With a uniform prior the posterior of σ² is inverse
    gamma with shape d/2 − 1 and scale |y − x_i|²/2, whose mean is proportional to |y − x_i|². The score is its mean over the k
    nearest rows, without the factor.
    """

    def score(self, y: Tensor) -> Tensor:
        return finite(torch.as_tensor(self._rows.kneighbors(y.numpy())[0]).square().mean(1))
