"""Ratio by distances to the nearest rows: :class:`Neighbours`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Self

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from mixtura.ratio.ratio import Ratio

#: neighbours
K = 5


class Neighbours(Ratio):
    """r = (k/n ρ_p^d) / (k/m ρ_q^d), where ρ is the distance to the k-th nearest row of p (n, d) and of q (m, d) (Wang, Kulkarni
    & Verdú 2009). Where a distance is 0, because rows are equal, the rows of both samples within the larger of the two distances
    are counted instead."""

    def __init__(self, k: int = K) -> None:
        self.k = k

    def fit(self, p: Tensor, q: Tensor, rng: torch.Generator) -> Self:
        self._rows = p, q
        self._trees = tuple(NearestNeighbors().fit(rows.numpy()) for rows in self._rows)
        return self

    def log_ratio(self, y: Tensor) -> Tensor:
        return self._ratio(y, (0, 0))

    def left_out(self) -> tuple[Tensor, Tensor]:
        """log r at its own rows, whose nearest row is not counted: it is the row itself."""
        p, q = self._rows
        return self._ratio(p, (1, 0)), self._ratio(q, (0, 1))

    def _ratio(self, y: Tensor, itself: tuple[int, int]) -> Tensor:
        """``itself``: how many rows of p, and of q, are the row y itself."""
        rows, d = y.numpy(), y.shape[1]
        sizes = [len(sample) - own for sample, own in zip(self._rows, itself, strict=True)]
        k = min(self.k, *sizes)
        radii = [tree.kneighbors(rows, k + own)[0][:, -1] for tree, own in zip(self._trees, itself, strict=True)]
        with np.errstate(divide="ignore", invalid="ignore"):
            found = d * (np.log(radii[1]) - np.log(radii[0])) + math.log(sizes[1] / sizes[0])
        equal = np.minimum(*radii) == 0
        if equal.any():
            found[equal] = self._counted(rows[equal], np.maximum(*radii)[equal], sizes, itself)
        return torch.as_tensor(found)

    def _counted(self, rows: np.ndarray, radius: np.ndarray, sizes: list[int], itself: tuple[int, int]) -> np.ndarray:
        counts = []
        for sample, own in zip(self._rows, itself, strict=True):
            near = [(torch.cdist(part, sample).numpy() <= r[:, None] * (1 + 1e-9)).sum(1) for part, r in _parts(rows, radius)]
            counts.append(np.concatenate(near) - own)
        return np.log((counts[0] + 0.5) / (sizes[0] + 0.5)) - np.log((counts[1] + 0.5) / (sizes[1] + 0.5))


def _parts(rows: np.ndarray, radius: np.ndarray) -> Iterator[tuple[Tensor, np.ndarray]]:
    for i in range(0, len(rows), 1_024):
        yield torch.as_tensor(rows[i : i + 1_024]), radius[i : i + 1_024]
