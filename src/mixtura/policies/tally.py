"""The kernel sums between arms that a selection needs, updated with each sample.

For a quadratic objective L(a) = a'Ka + f'a + c, :class:`Tally` holds the sums that K̂ and f̂ are computed from, and the mean
similarity of each sample to each arm. Standard errors follow from these: a sample x of arm i contributes
h(x) = 2 Σ_j a_j κ̄_j(x) + ℓ(x) to ∇L(a)_i.

Up to ``EXACT`` samples every pair is summed, which costs O(t d) for each sample. Beyond that, a new sample is paired with at most
``EXACT`` kept ones, the latest of each arm. A sample that is dropped leaves its sums behind: K̂_ij is the mean over the pairs that
were summed, an incomplete U-statistic (Blom 1976). It is unbiased for K_ij, and its error still falls as t^(−1/2), while time for
each sample and memory stop growing.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixtura.contracts import Estimate
from mixtura.ground.kernels import Kernel, sums
from mixtura.objectives.expression import Objective, QuadraticTerm
from mixtura.simplex.quadratic import convex_on_the_simplex

Array = NDArray[Any]

#: number of samples kept (up to it every pair is summed); share of them that stays when new samples need room
EXACT, STAY = 20_000, 0.95
#: new samples wait until there is one for so many kept ones, because the product of a block of rows costs as much as that of one
BATCHED = 500
#: the standard deviation of an arm with few samples is shrunk towards that of all arms, with the weight of so many samples
PRIOR = 5.0


class Tally:
    """Sums over samples (d,) of ``arms`` arms, for a quadratic ``objective`` whose bandwidths are known. ``exact``: how many
    samples are kept to be paired with later ones; it must be at least two for each arm."""

    def __init__(self, objective: Objective, arms: int, *, exact: int = EXACT) -> None:
        self.objective, self.m, self.exact = objective, arms, exact
        self.parts = [(scale, term) for scale, term in objective.terms if isinstance(term, QuadraticTerm)]
        self.n = np.zeros(arms, dtype=np.int64)
        # Σ κ over ordered pairs of different samples, and the number of these pairs; Σ κ(x, x) and Σ ℓ(x)
        self.pairs, self.met = np.zeros((arms, arms)), np.zeros((arms, arms))
        self.itself, self.linear = np.zeros(arms), np.zeros(arms)
        self.constant = sum(scale * _constant(term) for scale, term in self.parts)
        self._waiting: list[tuple[int, Tensor]] = []
        #: how many samples joined the sums together, the last time
        self.latest = 0
        # of each kept sample: row and squared length; arm; Σ κ with each arm, and the number of its pairs there; ℓ
        self._kept = 0
        self._rows, self._squares = torch.empty(0), torch.empty(0)
        self._arm = np.empty(0, dtype=np.int64)
        self._near, self._count = np.empty((0, arms)), np.empty((0, arms))
        self._loss = np.empty(0)
        # of the dropped samples: rows of each arm with the same second moments; the sums when the first were dropped
        self._dropped = [np.empty((0, 2 * arms + 2))] * arms
        self._complete: tuple[Array, Array, Array] | None = None
        self._shift: Tensor | None = None
        self._references: list[tuple[Tensor, Tensor] | None] = []
        # float32 is enough if rows may be centred
        self._movable = all(term.kernel is None or term.kernel.centred for _, term in self.parts)
        self._dtype = torch.float32 if self._movable else torch.float64

    @property
    def t(self) -> int:
        """Number of samples in the sums."""
        return int(self.n.sum())

    @property
    def waits(self) -> bool:
        """Whether samples wait to join the sums."""
        return bool(self._waiting)

    # ---------------------------------------------------------------------------------------------------- samples

    def add(self, arm: int, x: Tensor) -> None:
        """Take a sample (d,) of an arm. It joins the sums as soon as enough samples wait."""
        self._waiting.append((arm, x))
        if len(self._waiting) > self._kept // BATCHED:
            self.flush()

    def flush(self) -> None:
        """Add all waiting samples to the sums."""
        if not self._waiting:
            return
        arms = np.array([arm for arm, _ in self._waiting])
        x = torch.stack([row for _, row in self._waiting]).double()
        self._waiting, self.latest = [], len(x)
        if self._shift is None:
            self._choose_centre(x)
        if self._kept + len(x) > self.exact:
            self._drop_oldest(len(x))
        self._add(arms, x)

    def _choose_centre(self, x: Tensor) -> None:
        """Choose the centre of rows, from a reference or the first samples x, and centre the references."""
        references = [term.reference if term.matches else None for _, term in self.parts]
        middle = next((r for r in references if r is not None), x).double().mean(0)
        self._shift = middle if self._movable else torch.zeros_like(middle)
        self._references = [None if r is None else self._moved(r.double()) for r in references]

    def _moved(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Centred rows in the type of the products, and their squared lengths in float64."""
        moved = x - self._shift  # type: ignore[operator]
        return moved.to(self._dtype), moved.square().sum(1)

    def _add(self, arms: Array, x: Tensor) -> None:
        start, end = self._kept, self._kept + len(x)
        self._make_room(end, x.shape[1])
        new_rows = self._moved(x)
        self._rows[start:end], self._squares[start:end] = new_rows
        self._arm[start:end] = arms
        loss, itself = np.zeros(len(x)), np.zeros(len(x))
        similar = torch.zeros(len(x), end, dtype=torch.float64)
        for (scale, term), reference in zip(self.parts, self._references, strict=True):
            loss += scale * self._linear(term, reference, x, new_rows, arms)
            if term.kernel is not None:
                similar += scale * self._values(term.kernel, new_rows, (self._rows[:end], self._squares[:end]))
                itself += scale * term.kernel.diagonal(new_rows[1]).numpy()
        own = similar[:, start:]
        own.fill_diagonal_(0)
        own.copy_((own + own.T) / 2)  # float32 products of (x, y) and (y, x) differ in their last digit
        membership = _membership(self._arm[:end], self.m)
        new, old = membership[start:], membership[:start].sum(0)
        near = similar.numpy() @ membership
        self._near[start:end] = near
        self._count[start:end] = old + new.sum(0) - new
        # the sums of the kept samples grow by their pairs with the new ones
        self._near[:start] += similar[:, :start].numpy().T @ new
        self._count[:start] += new.sum(0)
        self._loss[start:end] = loss
        for total, block, within in (
            (self.pairs, new.T @ near, new.T @ own.numpy() @ new),
            (self.met, new.T @ self._count[start:end], np.outer(new.sum(0), new.sum(0)) - np.diag(new.sum(0))),
        ):
            total += block + block.T - within
        self.n += np.bincount(arms, minlength=self.m)
        self.linear += np.bincount(arms, loss, self.m)
        self.itself += np.bincount(arms, itself, self.m)
        self._kept = end

    def _drop_oldest(self, coming: int) -> None:
        """Drop the oldest samples of the arms with the most, so that each arm keeps equally many, or all of its samples."""
        if self._complete is None:
            self._complete = *self.form(), self.n.copy()
        counts, room = np.bincount(self._arm[: self._kept], minlength=self.m), STAY * self.exact - coming
        most = max(1, bisect.bisect_right(range(1, self.exact), room, key=lambda most: np.minimum(counts, most).sum()))
        stays = np.ones(self._kept, dtype=bool)
        for i in np.flatnonzero(counts > most):
            going = np.flatnonzero(self._arm[: self._kept] == i)[:-most]
            # R of a QR factorisation has the same second moments as all the rows
            self._dropped[i] = np.linalg.qr(np.vstack([self._dropped[i], self._contributed(going)])).R
            stays[going] = False
        left = int(stays.sum())
        for kept in (self._rows, self._squares, self._arm, self._near, self._count, self._loss):
            kept[:left] = kept[: self._kept][torch.as_tensor(stays) if isinstance(kept, Tensor) else stays]
        self._kept = left

    def _contributed(self, rows: Array) -> Array:
        """(s, 2m + 2) of these kept samples: their sums with each arm, the number of pairs in each sum, ℓ, and 1."""
        return np.column_stack([self._near[rows], self._count[rows], self._loss[rows], np.ones(len(rows))])

    def _values(self, kernel: Kernel, x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor]) -> Tensor:
        """(n, t) κ(x, y). x and y are pairs of rows and squared lengths."""
        tile = torch.empty(len(x[0]), len(y[0]), dtype=self._dtype)
        kernel.fill(tile, x[0], y[0], x[1], y[1])
        return tile.double()

    def _linear(
        self, term: QuadraticTerm, reference: tuple[Tensor, Tensor] | None, x: Tensor, moved: tuple[Tensor, Tensor], arms: Array
    ) -> Array:
        """(n,) ℓ(x), which includes −2 mean κ(x, Y) for a term that matches a reference Y."""
        found = np.zeros(len(x))
        for arm in set(arms.tolist()):
            found[arms == arm] = term.linear(x[torch.as_tensor(arms == arm)], int(arm)).numpy()
        if reference is not None and term.kernel is not None:
            found -= 2 * self._values(term.kernel, moved, reference).mean(1).numpy()
        return found

    def _make_room(self, end: int, d: int) -> None:
        if end <= len(self._arm):
            return
        room = max(256, min(2 * len(self._arm), self.exact), end)
        rows, squares = torch.empty(room, d, dtype=self._dtype), torch.empty(room, dtype=torch.float64)
        near, count = np.zeros((room, self.m)), np.zeros((room, self.m))
        grown = rows, squares, np.empty(room, dtype=np.int64), near, count, np.empty(room)
        if self._kept:
            olds = self._rows, self._squares, self._arm, self._near, self._count, self._loss
            for new, old in zip(grown, olds, strict=True):
                new[: self._kept] = old[: self._kept]  # type: ignore[index, call-overload]
        self._rows, self._squares, self._arm, self._near, self._count, self._loss = grown

    # ------------------------------------------------------------------------------------------------ what is known

    @property
    def how(self) -> str:
        """Which pairs are summed, as a phrase."""
        if self._complete is None:
            return "every pair of samples"
        return f"each sample with at most the last {self.exact:,} before it, evenly over the arms"

    def form(self, *, unbiased: bool = False) -> tuple[Array, Array]:
        """K̂ (m, m) and f̂ (m,) from all samples in the sums; 0 for an arm that has none.

        Unless ``unbiased``, this is the V-form, which includes the pair of each sample with itself. If some pairs were not
        summed, its non-convex part is removed (:func:`convex_on_the_simplex`).
        """
        n = np.maximum(self.n, 1).astype(np.float64)
        K = self.pairs / np.maximum(self.met, 1)
        if not unbiased:
            np.fill_diagonal(K, ((n - 1) * K.diagonal() + self.itself / n) / n)
            K = K if self._complete is None else convex_on_the_simplex(K)
        return K, self.linear / n

    def complete(self) -> tuple[Array, Array, Array]:
        """The V-form at the last time when every pair was summed, and the number of samples of each arm (m,) in it."""
        return (*self.form(), self.n) if self._complete is None else self._complete

    def loss(self, a: Array) -> Estimate:
        """Unbiased L̂(a), with an asymptotic error. Only arms of weight above 0 need a second sample."""
        K, f = self.form(unbiased=True)
        # a sample of arm i that changes K̂a by e and f̂_i by ℓ changes L̂ by a_i (2a'e + ℓ)
        of = np.append(2 * a, 1)
        variance = sum(a[i] ** 2 * float(of @ self._covariance(int(i)) @ of) for i in np.flatnonzero(a))
        return Estimate(float(a @ K @ a + f @ a) + self.constant, math.sqrt(variance), self.t)

    def _covariance(self, i: int) -> Array:
        """(m + 1, m + 1) covariance of row i of K̂ (half of K̂_ii) and of f̂_i that comes from the samples of arm i.

        A sample x that is paired with c_j samples of arm j, with Σ κ = s_j, changes K̂_ij by (s_j − c_j K̂_ij) / (pairs summed) and
        f̂_i by (ℓ(x) − f̂_i) / n_i, to first order. A pair that was never summed does not contribute.
        """
        K, f = self.form(unbiased=True)
        of = np.zeros((2 * self.m + 2, self.m + 1))
        met, n, each = np.maximum(self.met[i], 1), max(int(self.n[i]), 1), np.arange(self.m)
        of[each, each], of[self.m + each, each] = 1 / met, -K[i] / met
        of[-2:, -1] = 1 / n, -f[i] / n
        own = np.flatnonzero(self._arm[: self._kept] == i)
        moved = np.vstack([self._dropped[i], self._contributed(own)]) @ of
        return moved.T @ moved

    def deviation(self, a: Array) -> Array:
        """(m,) standard deviation of h at a within each arm, shrunk towards that of all arms if samples are few."""
        rows, arms = self.contributions()
        h = rows @ np.append(2 * a, 1)
        count = np.bincount(arms, minlength=self.m)
        mean = np.bincount(arms, h, self.m) / np.maximum(count, 1)
        spread = np.bincount(arms, (h - mean[arms]) ** 2, self.m)
        return np.sqrt((spread + PRIOR * h.var()) / (count + PRIOR))

    def slack(self, a: Array) -> tuple[Array, Array]:
        """(m,) rate at which L falls as weight moves from a to arm i, ∇L(a)·a − ∇L(a)_i, and its asymptotic errors."""
        K, f = self.form(unbiased=True)
        gradient = 2 * K @ a + f
        variance = np.zeros(self.m)
        for j in range(self.m):
            # a sample of arm j that changes K̂a by e and f̂_j by ℓ changes a'∇L by a_j (4a'e + ℓ), and ∇L_i by 2a_j e_i
            # (if i = j, by 2a'e + ℓ more)
            of = np.tile(a[j] * np.append(4 * a, 1), (self.m, 1))
            of[:, : self.m] -= 2 * a[j] * np.eye(self.m)
            of[j] -= np.append(2 * a, 1)
            variance += ((of @ self._covariance(j)) * of).sum(1)
        return gradient @ a - gradient, np.sqrt(np.maximum(variance, 0))

    def contributions(self) -> tuple[Array, Array]:
        """(s, m + 1) mean similarity of each kept sample to each arm, and its ℓ; (s,) the arms of these samples."""
        near = self._near[: self._kept] / np.maximum(self._count[: self._kept], 1)
        return np.column_stack([near, self._loss[: self._kept]]), self._arm[: self._kept]


def _membership(arms: Array, m: int) -> Array:
    out = np.zeros((len(arms), m))
    out[np.arange(len(arms)), arms] = 1
    return out


def _constant(term: QuadraticTerm) -> float:
    """Mean κ over pairs of reference rows; 0 if the term matches no reference."""
    if not term.matches or term.reference is None or term.kernel is None:
        return 0.0
    dtype = torch.float32 if term.kernel.centred else torch.float64
    return sums([term.reference], term.kernel, dtype=dtype).block(0, 0, unbiased=True)


def bounds(parts: Sequence[tuple[float, QuadraticTerm]]) -> tuple[float, float]:
    """(Δκ, Δ_f): the largest κ(x, x) and the range of ℓ, over the scaled terms; inf if there is no bound."""
    kernel = sum(scale * (term.kernel.bound if term.kernel is not None else 0.0) for scale, term in parts)
    return kernel, sum(scale * term.spread for scale, term in parts)
