"""What every method has in common: :class:`Ratio`, and the values of rows that it has not learnt from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from mixtura.contracts import InputError

#: parts of the rows that are left out in turn
FOLDS = 5
#: fewest rows of each sample
LEAST_ROWS = 10


class Ratio(ABC):
    """An estimate of log r(y) = log p(y) − log q(y) from rows of p and rows of q.

    Rows are features (n, d) float64 on comparable scales; the ratio is the same in any coordinates.
    """

    @abstractmethod
    def fit(self, p: Tensor, q: Tensor, rng: torch.Generator) -> Self:
        """Learn from rows p (n, d) and q (m, d), ``LEAST_ROWS`` or more of each."""

    @abstractmethod
    def log_ratio(self, y: Tensor) -> Tensor:
        """(b, d) → (b,) float64 log r, finite everywhere."""

    def left_out(self) -> tuple[Tensor, Tensor] | None:
        """log r at the rows p (n,) and q (m,) that it was fitted on, each without that row, where that is cheap; else None."""
        return None


def left_out(make: Callable[[], Ratio], p: Tensor, q: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """log r at every row of p (n,) and of q (m,), by ratios that have not learnt from that row: one fit without each of ``FOLDS``
    parts of the rows, drawn with ``rng``. For methods that have no way of their own."""
    of_rows = torch.empty(len(p), dtype=torch.float64), torch.empty(len(q), dtype=torch.float64)
    parts = [torch.randperm(len(rows), generator=rng) % FOLDS for rows in (p, q)]
    for fold in range(FOLDS):
        fitted = make().fit(p[parts[0] != fold], q[parts[1] != fold], rng)
        for values, rows, part in zip(of_rows, (p, q), parts, strict=True):
            values[part == fold] = fitted.log_ratio(rows[part == fold])
    return of_rows


def check(p: Tensor, q: Tensor) -> None:
    """InputError where two samples have different features, or one is too small."""
    for name, rows in (("p", p), ("q", q)):
        if rows.dim() != 2 or rows.shape[1] != p.shape[1] or rows.shape[1] == 0:
            raise InputError(f"{name}: expected rows (n, {p.shape[-1]}) as of p, got {tuple(rows.shape)}; give the same columns")
        if len(rows) < LEAST_ROWS:
            raise InputError(f"{name}: expected {LEAST_ROWS} rows or more, got {len(rows)}; give more rows")
        if not torch.isfinite(rows).all():
            raise InputError(f"{name}: row {int((~torch.isfinite(rows)).any(1).nonzero()[0])} is not finite; repair or drop it")
