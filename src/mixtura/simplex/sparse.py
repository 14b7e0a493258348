"""The best weights with few models in use."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from mixtura.contracts import InputError
from mixtura.simplex.quadratic import QUADRATIC_GAP, active_set, check_quadratic, convex_on_the_simplex, quadratic_gap
from mixtura.simplex.weights import Array, Weights

#: most supports that are all tried
SUPPORTS = 3_000


def minimise_sparse(Q: ArrayLike, linear: ArrayLike, size: int, *, psd: bool = False) -> Weights:
    """The problem of :func:`minimise_quadratic` with at most ``size`` weights that are not 0.

    If the best weights of all models use so few, they are taken. Otherwise every support is solved if there are 3,000 or fewer.
    If there are more, models enter one by one, each the one that lowers f most, and are then exchanged one for one as long as
    that lowers f.

    Raises InputError as :func:`minimise_quadratic`, and on a size that is not a whole number ≥ 1.
    """
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise InputError(f"size: expected a whole number of models, 1 or more, got {size!r}")
    Q, linear = check_quadratic(Q, linear)
    if not psd:
        Q = convex_on_the_simplex(Q)
    largest = max(float(np.abs(Q).max()), float(np.abs(linear).max())) or 1.0
    on = _Supports(Q / largest, linear / largest)
    whole, k = on.solved(range(len(linear))), len(linear)
    if sum(w > 0 for w in whole.weights) <= size:
        return Weights(whole.weights, largest * whole.value, largest * whole.gap, exact=True)
    if math.comb(k, size) <= SUPPORTS:
        found = min((on.solved(support) for support in combinations(range(k), size)), key=lambda weights: weights.value)
        return Weights(found.weights, largest * found.value, largest * found.gap, exact=True)
    found = on.searched(size)
    gap = max(found.gap, found.value - whole.value + whole.gap)
    return Weights(found.weights, largest * found.value, largest * gap, exact=False)


@dataclass(frozen=True)
class _Supports:
    """One quadratic, on some of its models."""

    Q: Array
    linear: Array

    def solved(self, support: Iterable[int], start: Array | None = None) -> Weights:
        """The best weights of ``support``; the gap is with respect to these models."""
        chosen = list(support)
        Q, linear = self.Q[chosen][:, chosen], self.linear[chosen]
        found = active_set(Q, linear, start[chosen] if start is not None and start[chosen].any() else None)
        weights = np.zeros(len(self.linear))
        weights[chosen] = found
        value = float(found @ Q @ found - 2 * linear @ found)
        return Weights(tuple(weights.tolist()), value, quadratic_gap(Q, linear, found))

    def searched(self, size: int) -> Weights:
        """Greedy, then swaps."""
        best = self._entered([], size)
        while True:
            support = [i for i, w in enumerate(best.weights) if w > 0]
            swapped = min((self._entered([i for i in support if i != out], size) for out in support), key=lambda w: w.value)
            if swapped.value >= best.value - QUADRATIC_GAP:
                return best
            best = swapped

    def _entered(self, support: list[int], size: int) -> Weights:
        """With the models that lower f most, one after another, up to ``size``."""
        best = Weights((), math.inf, math.inf)
        while len(support) < size:
            start = np.array(best.weights) if best.weights else None
            outside = [i for i in range(len(self.linear)) if i not in support]
            best = min((self.solved([*support, i], start) for i in outside), key=lambda weights: weights.value)
            grown = [i for i, w in enumerate(best.weights) if w > 0]
            if set(grown) <= set(support):
                break
            support = grown
        return best
