"""Reasons where no density knows each cell given the others: a part of a row is replaced by what is usual."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Score = Callable[[Tensor], Tensor]

#: normal rows whose cells replace others, normal rows that say what is usual, and the quantiles whose distance is the unit
STAND_INS, USUAL_ROWS, MIDDLE, UPPER = 5, 100, 0.5, 0.9
#: replaced rows that are scored at a time, in entries
TILE = 2**21
#: a patch of an image is this part of its side, and patches overlap by half
PART = 5


class Replaced:
    """How much less strange a row becomes if one cell is replaced: with the strangeness s and cells v_j of normal rows,

        u_j(x) = s(x) − median over v of s(x with v_j in place of x_j),

    told for each column in units of what is usual, as :class:`mixtura.detectors.reasons.Reasons` tells nats.
    """

    def __init__(self, score: Score, normal: Tensor) -> None:
        """normal: (m, d) rows; the first ``STAND_INS`` stand in, the others say what is usual."""
        self.score, few = score, min(STAND_INS, len(normal) // 2)
        self.stand_ins = normal[:few]
        found = self.relief(normal[few:][:USUAL_ROWS])
        self.middle = found.quantile(MIDDLE, 0)
        unit = found.quantile(UPPER, 0) - self.middle
        self.unit = unit.clamp(min=max(1e-12, float(unit.median())))

    def __call__(self, x: Tensor) -> Tensor:
        """(n, d) → (n, d) reasons."""
        return (self.relief(x) - self.middle) / self.unit

    def relief(self, x: Tensor) -> Tensor:
        """(n, d) u."""
        (n, d), k = x.shape, len(self.stand_ins)
        out = []
        for part in x.split(max(1, TILE // (d * d * k))):
            rows = part[:, None, None, :].expand(-1, d, k, -1).clone()
            columns = torch.arange(d)
            rows[:, columns, :, columns] = self.stand_ins.T[:, None, :].expand(-1, len(part), -1)
            out.append(self.score(rows.reshape(-1, d)).reshape(len(part), d, k).quantile(0.5, 2))
        return self.score(x)[:, None] - torch.cat(out).reshape(n, d)


def maps(score: Score, x: Tensor, normal: Tensor) -> Tensor:
    """(n, H, W) where images x (n, C, H, W) are strange: how much less strange an image becomes if a patch of it is replaced by
    that of the normal image (m, C, H, W) nearest to it, the mean over the patches that hold a pixel, at least 0."""
    n, _, height, width = x.shape
    nearest = normal[torch.cdist(x.flatten(1), normal.flatten(1)).argmin(1)]
    total, seen = torch.zeros(n, height, width, dtype=torch.float64), torch.zeros(height, width, dtype=torch.float64)
    before = score(x)
    for rows in _patches(height):
        for columns in _patches(width):
            other = x.clone()
            other[:, :, rows, columns] = nearest[:, :, rows, columns]
            total[:, rows, columns] += (before - score(other))[:, None, None]
            seen[rows, columns] += 1
    return (total / seen).clamp(min=0)


def _patches(side: int) -> list[slice]:
    """Patches along one side, which cover it."""
    size = max(2, math.ceil(side / PART))
    starts = [*range(0, max(1, side - size), max(1, size // 2)), max(0, side - size)]
    return [slice(start, start + size) for start in starts]
