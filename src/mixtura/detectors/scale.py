"""Rows of mixed columns as points whose distances mean something: :class:`Scale`."""

from __future__ import annotations

import torch
from torch import Tensor

from mixtura.contracts import Space

#: standard deviations from which on a value is just far
FURTHEST = 1e6


class Scale:
    """Rows (n, *shape) in data units → points (n, w) float64.

    A number x becomes (x − mean) / deviation. A level c of share p_c becomes an indicator divided by √(2 p_c (1 − p_c)): a rare
    level lies far from all others, as in correspondence analysis, and a column of two levels counts as one standardised number.
    "Missing" is a level of its own, beside a number at its mean; "never seen" is one with the share of the levels seen once
    (Good–Turing). Nothing is bent and no value stands for itself, unlike in the features of metrics
    (:func:`mixtura.features.space.plain_features`): a far value stays far.
    """

    def __init__(self, space: Space, x: Tensor) -> None:
        """x: (n, *shape), the rows whose scales these are."""
        self.space = space
        flat = space.flat(x)
        self.mean = flat.nanmean(0).nan_to_num(nan=0.0)
        spread = (flat - self.mean).square().nanmean(0).sqrt().nan_to_num(nan=0.0)
        # a column that never varies, or by rounding errors alone, keeps its steps as the unit, or its size
        steps = torch.tensor([column.resolution for column in space.columns], dtype=torch.float64)
        size = torch.where(steps > 0, steps, self.mean.abs().where(self.mean != 0, 1.0))
        self.deviation = torch.where(spread > 1e-12 * self.mean.abs(), spread, size)
        self.weights = []
        for codes in self._codes(x):
            share = codes.sum(0) / len(x)
            if codes.shape[1] > 2:  # levels, "never seen" and "missing"
                share[-2] = (codes[:, :-2].sum(0) == 1).sum() / len(x)
            share = share.clamp(1 / (len(x) + 1), len(x) / (len(x) + 1))
            self.weights.append((2 * share * (1 - share)).rsqrt())

    def _codes(self, x: Tensor) -> list[Tensor]:
        """Of each column (n, k) indicators: of its levels, "never seen" and "missing"; of a number "there" and "missing"."""
        flat, out = self.space.flat(x), []
        for values, column in zip(flat.T, self.space.columns, strict=True):
            missing = torch.isnan(values)
            if column.kind == "levels":
                code = values.nan_to_num(nan=0.0).long().clamp(0, column.levels).masked_fill(missing, column.levels + 1)
                out.append(torch.nn.functional.one_hot(code, column.levels + 2).double())
            elif column.missing:
                out.append(torch.stack([~missing, missing], 1).double())
        return out

    def __call__(self, x: Tensor) -> Tensor:
        """(n, *shape) → (n, w)."""
        numeric = [j for j, column in enumerate(self.space.columns) if column.kind != "levels"]
        values = (self.space.flat(x).double() - self.mean) / self.deviation
        values = values[:, numeric].nan_to_num(nan=0.0).clamp(-FURTHEST, FURTHEST)
        codes = [one * weight for one, weight in zip(self._codes(x), self.weights, strict=True)]
        return torch.cat([values, *codes], 1)
