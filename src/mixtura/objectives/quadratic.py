"""Quadratic losses on samples at hand, and the references that they compare with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mixtura.contracts import Estimate, InputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Quadratic:
    """A quadratic loss estimated from samples at hand, stored as the contribution of each sample, in float64. Quadratics can be
    added and scaled.

    near:   near[i] (n_i, m), mean κ of each sample of arm i with the samples of each arm, without its pair with itself.
    itself: itself[i] (n_i,) κ(x, x).
    linear: linear[i] (n_i,) ℓ.
    references: for each reference its rows, G (r, m) and h (r,): its rows contribute G a + h to the loss, from which their part
    of the error follows. Terms with the same reference share its error and so have one entry.
    """

    near: tuple[Tensor, ...]
    itself: tuple[Tensor, ...]
    linear: tuple[Tensor, ...]
    constant: float
    references: tuple[tuple[Tensor, Tensor, Tensor], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of samples of each arm."""
        return tuple(len(x) for x in self.linear)

    def __add__(self, other: Quadratic) -> Quadratic:
        return Quadratic(
            tuple(a + b for a, b in zip(self.near, other.near, strict=True)),
            tuple(a + b for a, b in zip(self.itself, other.itself, strict=True)),
            tuple(a + b for a, b in zip(self.linear, other.linear, strict=True)),
            self.constant + other.constant, _merged(self.references + other.references),
        )  # fmt: skip

    def __mul__(self, scale: float) -> Quadratic:
        near, itself, linear = (tuple(scale * t for t in tensors) for tensors in (self.near, self.itself, self.linear))
        references = tuple((rows, scale * G, scale * h) for rows, G, h in self.references)
        return Quadratic(near, itself, linear, scale * self.constant, references)

    def form(self, *, unbiased: bool) -> tuple[Array, Array]:
        """K (m, m), f (m,) of L(a) = a'Ka + f'a + c. Unless ``unbiased``, this is the V-form, which includes the pair of each
        sample with itself: it is positive semidefinite, and solvers minimise it."""
        K = torch.stack([near.mean(0) for near in self.near])
        if not unbiased:
            for i, (n, itself) in enumerate(zip(self.sizes, self.itself, strict=True)):
                K[i, i] = ((n - 1) * K[i, i] + itself.mean()) / n
        return ((K + K.T) / 2).numpy(), torch.stack([x.mean() for x in self.linear]).numpy()

    def loss(self, a: ArrayLike) -> Estimate:
        """Unbiased L(a), with its error, from the influence of every sample and reference row."""
        return self._between(np.asarray(a, dtype=np.float64), None)

    def excess(self, a: ArrayLike, b: ArrayLike) -> Estimate:
        """Unbiased L(a) − L(b), with the error of that difference."""
        return self._between(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))

    def _between(self, a: Array, b: Array | None) -> Estimate:
        K, f = self.form(unbiased=True)
        value = float(a @ K @ a + f @ a) + (self.constant if b is None else -float(b @ K @ b + f @ b))
        variance = 0.0
        for i, n in enumerate(self.sizes):
            moved = self._influence(i, a) - (0.0 if b is None else self._influence(i, b))
            variance += float(moved.var()) / n if n > 1 else math.nan
        for _, G, h in self.references:
            at = torch.as_tensor(a if b is None else a - b)
            moved = G @ at + (h if b is None else 0.0)
            variance += float(moved.var()) / len(moved)
        return Estimate(value, math.sqrt(variance), sum(self.sizes))

    def _influence(self, i: int, a: Array) -> Tensor:
        """(n_i,) the change of L(a) by each sample of arm i, up to a constant."""
        return float(a[i]) * (2 * self.near[i] @ torch.as_tensor(a) + self.linear[i])


def same_rows(x: Tensor, y: Tensor) -> bool:
    """Whether two references hold the same rows: each term may hold a copy."""
    return x is y or (len(x) == len(y) and torch.equal(rows_of(x).double(), rows_of(y).double()))


def _merged(parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
    """The entries, with those of equal references added."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for rows, G, h in parts:
        k = next((k for k, part in enumerate(found) if same_rows(part[0], rows)), None)
        if k is None:
            found.append((rows, G, h))
        else:
            found[k] = (rows, found[k][1] + G, found[k][2] + h)
    return tuple(found)


def rows_of(x: ArrayLike | Tensor) -> Tensor:
    """A reference as a float64 tensor (r, d). Raises InputError if it is not (rows, features) of finite numbers."""
    try:
        rows = torch.as_tensor(x if isinstance(x, Tensor) else np.ascontiguousarray(x))
    except (TypeError, ValueError) as error:
        raise InputError(f"reference: expected numbers (rows, features), got something else in a {type(x).__name__}") from error
    if rows.dim() != 2 or rows.numel() == 0:
        raise InputError(f"reference: expected shape (rows, features) with one of each or more, got {tuple(rows.shape)}")
    if not bool(torch.isfinite(rows).all()):
        row = int((~torch.isfinite(rows)).any(1).nonzero()[0])
        raise InputError(f"reference: row {row} is not finite; encode or drop missing values first")
    return rows if rows.dtype == torch.float32 else rows.double()
