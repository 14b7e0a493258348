"""What a selection knows: every kernel sum between arms, kept up to date sample by sample.

Of a quadratic objective L(a) = a'Ka + f'a + c this holds the sums behind K̂ and f̂, and for every sample its mean similarity to
each arm, from which errors follow: how much a sample of arm i says about ∇L(a)_i is h(x) = 2 Σ_j a_j κ̄_j(x) + ℓ(x).

Exact up to ``EXACT`` samples, O(t d) a sample and O(t m) memory beyond the samples. Beyond that Gaussian kernels are sketched
with random Fourier features (Rahimi & Recht 2007), O(D d) a sample whatever t is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixtura import rng as random
from mixtura.kernels import Estimate, Gaussian, Kernel, sums
from mixtura.rng import generator
from mixtura.select.objective import Objective, QuadraticTerm

Array = NDArray[Any]

#: samples up to which every pair is visited, and features of the sketch beyond
EXACT, SKETCHED = 20_000, 2_048
#: samples that the sketch keeps for deviations
WINDOW = 2_000
#: samples wait to be taken in until they are one for so many that are there: one product of a block costs as much as one of a row
BATCHED = 500
#: a deviation from few samples is drawn towards that of all arms, as if so many samples had been seen
PRIOR = 5.0


class Tally:
    """Sums over samples (d,) of ``arms`` arms for a quadratic ``objective`` whose bandwidths are chosen."""

    def __init__(self, objective: Objective, arms: int, *, exact: int = EXACT, seed: int = 0) -> None:
        self.objective, self.m, self.exact, self.seed = objective, arms, exact, seed
        self.parts = [(scale, term) for scale, term in objective.terms if isinstance(term, QuadraticTerm)]
        self.n = np.zeros(arms, dtype=np.int64)
        self.t, self.sketch = 0, None
        self.pairs = np.zeros((arms, arms))
        self.itself, self.linear = np.zeros(arms), np.zeros(arms)
        self.constant = sum(scale * _constant(term) for scale, term in self.parts)
        self._waiting: list[tuple[int, Tensor]] = []
        self._rows, self._squares = torch.empty(0), torch.empty(0)
        self._arm = np.empty(0, dtype=np.int64)
        self._near = np.empty((0, arms))
        self._loss = np.empty(0)
        self._shift: Tensor | None = None
        self._references: list[tuple[Tensor, Tensor] | None] = []
        # float32 is enough where rows can be moved to the middle
        self._movable = all(term.kernel is None or term.kernel.centred for _, term in self.parts)
        self._dtype = torch.float32 if self._movable else torch.float64

    # ---------------------------------------------------------------------------------------------------- samples

    def add(self, arm: int, x: Tensor) -> None:
        """A sample (d,) of an arm. It counts at once, and is looked at when enough are waiting."""
        self._waiting.append((arm, x))
        if len(self._waiting) > self.t // BATCHED:
            self.flush()

    def flush(self) -> None:
        """Take in all that is waiting."""
        if not self._waiting:
            return
        arms = np.array([arm for arm, _ in self._waiting])
        x = torch.stack([row for _, row in self._waiting]).double()
        self._waiting = []
        if self._shift is None:
            self._settle(x)
        if self.sketch is None and self.t + len(x) > self.exact and self._sketchable:
            self._start_sketch(x.shape[1])
        (self._add if self.sketch is None else self._add_sketched)(arms, x)

    def _settle(self, x: Tensor) -> None:
        """Where the middle is, from the first samples, and the references moved there once."""
        references = [term.reference if term.matches else None for _, term in self.parts]
        middle = next((r for r in references if r is not None), x).double().mean(0)
        self._shift = middle if self._movable else torch.zeros_like(middle)
        self._references = [None if r is None else self._moved(r.double()) for r in references]

    def _moved(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rows as they are multiplied, and their squared lengths in float64."""
        moved = x - self._shift  # type: ignore[operator]
        return moved.to(self._dtype), moved.square().sum(1)

    def _add(self, arms: Array, x: Tensor) -> None:
        start, t = self.t, self.t + len(x)
        self._make_room(t, x.shape[1])
        new_rows = self._moved(x)
        self._rows[start:t], self._squares[start:t] = new_rows
        self._arm[start:t] = arms
        loss, itself = np.zeros(len(x)), np.zeros(len(x))
        similar = torch.zeros(len(x), t, dtype=torch.float64)
        for (scale, term), reference in zip(self.parts, self._references, strict=True):
            loss += scale * self._linear(term, reference, x, new_rows, arms)
            if term.kernel is not None:
                similar += scale * self._values(term.kernel, new_rows, (self._rows[:t], self._squares[:t]))
                itself += scale * term.kernel.diagonal(new_rows[1]).numpy()
        own = similar[:, start:]
        own.fill_diagonal_(0)
        membership = _membership(self._arm[:t], self.m)
        near = similar.numpy() @ membership
        self._near[start:t] = near
        # what the new ones add to the old ones' sums
        self._near[:start] += similar[:, :start].numpy().T @ membership[start:]
        self._loss[start:t] = loss
        new = membership[start:]
        block = new.T @ near
        within = new.T @ own.numpy() @ new
        self.pairs += block + block.T - within
        self._count(arms, loss, itself, t)

    def _count(self, arms: Array, loss: Array, itself: Array, t: int) -> None:
        self.n += np.bincount(arms, minlength=self.m)
        self.linear += np.bincount(arms, loss, self.m)
        self.itself += np.bincount(arms, itself, self.m)
        self.t = t

    def _values(self, kernel: Kernel, x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor]) -> Tensor:
        """(n, t) κ(x, y) of rows and squared lengths."""
        tile = torch.empty(len(x[0]), len(y[0]), dtype=self._dtype)
        kernel.fill(tile, x[0], y[0], x[1], y[1])
        return tile.double()

    def _linear(
        self, term: QuadraticTerm, reference: tuple[Tensor, Tensor] | None, x: Tensor, moved: tuple[Tensor, Tensor], arms: Array
    ) -> Array:
        """(n,) ℓ; of a term that matches a reference, −2 mean κ(x, Y)."""
        found = np.zeros(len(x))
        for arm in set(arms.tolist()):
            found[arms == arm] = term.linear(x[torch.as_tensor(arms == arm)], int(arm)).numpy()
        if reference is not None and term.kernel is not None:
            found -= 2 * self._values(term.kernel, moved, reference).mean(1).numpy()
        return found

    def _make_room(self, t: int, d: int) -> None:
        if t <= len(self._arm):
            return
        room = max(256, 2 * len(self._arm), t)
        rows, squares = torch.empty(room, d, dtype=self._dtype), torch.empty(room, dtype=torch.float64)
        grown = rows, squares, np.empty(room, dtype=np.int64), np.zeros((room, self.m)), np.empty(room)
        if self.t:
            for new, old in zip(grown, (self._rows, self._squares, self._arm, self._near, self._loss), strict=True):
                new[: self.t] = old[: self.t]  # type: ignore[index, call-overload]
        self._rows, self._squares, self._arm, self._near, self._loss = grown

    # ----------------------------------------------------------------------------------------------------- sketch

    @property
    def how(self) -> str:
        """How pairs are summed, in a few words."""
        return "every pair of samples" if self.sketch is None else f"{SKETCHED:,} random features, beyond {self.exact:,} samples"

    @property
    def _sketchable(self) -> bool:
        return all(term.kernel is None or isinstance(term.kernel, Gaussian) for _, term in self.parts)

    def _start_sketch(self, d: int) -> None:
        """From all pairs to random features of every kernel: κ(x, y) ≈ φ(x)·φ(y), with κ(x, x) = 1 kept exactly."""
        rng = generator(self.seed, "sketch")
        kernels = [term.kernel for _, term in self.parts]
        waves = lambda kernel: random.normal((d, SKETCHED // 2), rng, torch.empty(0)) / kernel.bandwidth  # noqa: E731
        self.sketch = [waves(kernel) if isinstance(kernel, Gaussian) else None for kernel in kernels]
        kept = slice(max(0, self.t - WINDOW), self.t)
        self._sums = [torch.zeros(self.m, SKETCHED, dtype=torch.float64) for _ in self.parts]
        for i in range(0, self.t, WINDOW):
            part = slice(i, min(i + WINDOW, self.t))
            self._sum_features(self._arm[part], self._rows[part])
        self._recent = self._rows[kept].clone()
        self._arm, self._loss = self._arm[kept].copy(), self._loss[kept].copy()
        self._rows, self._squares, self._near = torch.empty(0), torch.empty(0), np.empty((0, self.m))
        self._pairs_of_sketch()

    def _features(self, p: int, x: Tensor) -> Tensor:
        """(n, SKETCHED) φ of rows that were moved to the middle."""
        angle = x @ self.sketch[p]  # type: ignore[index, operator]
        return torch.cat([angle.cos(), angle.sin()], 1).double() / math.sqrt(SKETCHED // 2)

    def _sum_features(self, arms: Array, x: Tensor) -> None:
        at = torch.as_tensor(arms)
        for p, W in enumerate(self.sketch or ()):
            if W is not None:
                self._sums[p].index_add_(0, at, self._features(p, x))

    def _pairs_of_sketch(self) -> None:
        self.pairs = np.zeros((self.m, self.m))
        for p, (scale, term) in enumerate(self.parts):
            if term.kernel is not None:
                # of cos and sin features |φ(x)| = 1, so what a sample has with itself is known
                self.pairs += scale * ((self._sums[p] @ self._sums[p].T).numpy() - np.diag(self.n))

    def _add_sketched(self, arms: Array, x: Tensor) -> None:
        loss = np.zeros(len(x))
        rows = self._moved(x)
        for (scale, term), reference in zip(self.parts, self._references, strict=True):
            loss += scale * self._linear(term, reference, x, rows, arms)
        self._sum_features(arms, rows[0])
        itself = np.full(len(x), sum(scale for scale, term in self.parts if term.kernel is not None))
        self._count(arms, loss, itself, self.t + len(x))
        self._pairs_of_sketch()
        self._recent = torch.cat([self._recent, rows[0]])[-WINDOW:]
        self._arm, self._loss = np.append(self._arm, arms)[-WINDOW:], np.append(self._loss, loss)[-WINDOW:]

    # ------------------------------------------------------------------------------------------------ what is known

    def form(self, *, unbiased: bool = False) -> tuple[Array, Array]:
        """K̂ (m, m) and f̂ (m,) from all samples that are not waiting; 0 for an arm that has none."""
        n = np.maximum(self.n, 1).astype(np.float64)
        K = (self.pairs + self.pairs.T) / (2 * np.outer(n, n))  # symmetric to the bit, which products of float32 are not
        own = self.pairs.diagonal()
        np.fill_diagonal(K, own / (n * np.maximum(n - 1, 1)) if unbiased else (own + self.itself) / n**2)
        return K, self.linear / n

    def loss(self, a: Array) -> Estimate:
        """Unbiased L̂(a), with an asymptotic error; arms of weight 0 need no second sample."""
        K, f = self.form(unbiased=True)
        h, arms = self._influence(a)
        variance = sum(a[i] ** 2 * float(h[arms == i].var()) / self.n[i] for i in np.flatnonzero(a) if (arms == i).any())
        return Estimate(float(a @ K @ a + f @ a) + self.constant, math.sqrt(variance), self.t)

    def deviation(self, a: Array) -> Array:
        """(m,) within-arm deviation of h at a, drawn towards that of all arms where samples are few."""
        h, arms = self._influence(a)
        count = np.bincount(arms, minlength=self.m)
        mean = np.bincount(arms, h, self.m) / np.maximum(count, 1)
        spread = np.bincount(arms, (h - mean[arms]) ** 2, self.m)
        return np.sqrt((spread + PRIOR * h.var()) / (count + PRIOR))

    def slack(self, a: Array) -> tuple[Array, Array]:
        """(m,) how much moving weight from a to arm i would lower L: ∇L(a)·a − ∇L(a)_i, and its asymptotic errors."""
        K, f = self.form(unbiased=True)
        gradient = 2 * K @ a + f
        near, arms = self._similar()
        h = 2 * near @ a + self._loss[: len(arms)]
        variance = np.zeros(self.m)
        for j in range(self.m):
            rows = arms == j
            if not rows.any():
                continue
            # a sample x of arm j moves a'∇L by a_j (2h(x) − ℓ(x)), and ∇L_i by 2a_j κ̄_i(x) and, if i = j, by h(x)
            moved = a[j] * ((2 * h[rows] - self._loss[: len(arms)][rows])[:, None] - 2 * near[rows])
            moved[:, j] -= h[rows]
            variance += moved.var(0) / self.n[j]
        return gradient @ a - gradient, np.sqrt(variance)

    def contributions(self) -> tuple[Array, Array]:
        """(s, m + 1) mean similarity of every sample that is kept to each arm, and its ℓ; (s,) their arms."""
        near, arms = self._similar()
        return np.column_stack([near, self._loss[: len(arms)]]), arms

    def _similar(self) -> tuple[Array, Array]:
        """(s, m) mean similarity of the samples that are kept to every arm, and their arms."""
        n = np.maximum(self.n, 1)
        if self.sketch is None:
            return self._near[: self.t] / n, self._arm[: self.t]
        near = np.zeros((len(self._recent), self.m))
        for p, (scale, term) in enumerate(self.parts):
            if term.kernel is not None:
                near += scale * (self._features(p, self._recent) @ self._sums[p].T).numpy() / n
        return near, self._arm

    def _influence(self, a: Array) -> tuple[Array, Array]:
        near, arms = self._similar()
        return 2 * near @ a + self._loss[: len(arms)], arms


def _membership(arms: Array, m: int) -> Array:
    out = np.zeros((len(arms), m))
    out[np.arange(len(arms)), arms] = 1
    return out


def _constant(term: QuadraticTerm) -> float:
    """Mean κ over pairs of reference rows, for a term that matches them."""
    if not term.matches or term.reference is None or term.kernel is None:
        return 0.0
    dtype = torch.float32 if term.kernel.centred else torch.float64
    return sums([term.reference], term.kernel, dtype=dtype).block(0, 0, unbiased=True)


def bounds(parts: Sequence[tuple[float, QuadraticTerm]]) -> tuple[float, float]:
    """(Δκ, Δ_f): the largest κ(x, x), and the range of ℓ, of scaled terms; inf where there is no bound."""
    kernel = sum(scale * (term.kernel.bound if term.kernel is not None else 0.0) for scale, term in parts)
    return kernel, sum(scale * term.spread for scale, term in parts)
