"""Rows of a table as vectors: standardised values and indicators of levels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mixtura.ground.encode import Columns

#: standard deviations from which on a value is just far: the kernels square it in float32
FURTHEST = 1e6


def plain_features(x: Tensor, columns: Columns) -> Tensor:
    """Rows (n, *shape) in data units as standardised values beside indicators of every code, scaled so that two different
    codes are as far apart as one standard deviation; (n, d) float64. ``columns`` was prepared on the fit rows.

    Nothing is moved onto the support, so that a maker of impossible rows is told by them. A level never seen is as far from
    every level as they are from one another: with the k corners e_c/√2 of a group, t (1, …, 1) is a regular simplex for
    t = (√2 − √(2 + 2k)) / 2k. A value beyond a wall is as far from it as it would be where no wall is, and one further than
    ``FURTHEST`` standard deviations counts as no further.
    """
    flat, unseen, numeric = columns.space.flat(x), columns.space.unseen(x), columns.numeric
    there = columns.space.flat(columns.space.clamp(x)).masked_fill(unseen, 0.0)
    parts = columns.split(there)
    beyond = columns.unbent((flat - there)[:, numeric].nan_to_num(nan=0.0))
    indicators = columns.indicators(parts.codes).double() / math.sqrt(2)
    for j, first, k in zip(columns.coded, columns.first.tolist(), columns.cardinalities, strict=True):
        indicators[unseen[:, j], first : first + k] = (math.sqrt(2) - math.sqrt(2 + 2 * k)) / (2 * k)
    return torch.cat([(parts.values + beyond).clamp(-FURTHEST, FURTHEST), indicators], 1)
