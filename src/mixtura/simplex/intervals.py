"""Intervals of the weights of a mixture, by m-out-of-n subsampling, and the p-value of a gain.

At the boundary of the simplex the bootstrap is wrong and subsampling is not (Politis & Romano 1994; Andrews 2000). The sums of a
subsample are taken to first order, from what each sample contributes to K and f, so that no pair is visited again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import t as student
from torch import Tensor

from mixtura.simplex.polytope import Polytope
from mixtura.simplex.quadratic import minimise_quadratic

Array = NDArray[np.float64]

#: smallest p-value that is reported: Student's t distribution does not describe the tails of a mean further out
LEAST_P = 1e-6
#: subsamples, and the two-sided level of the intervals
SUBSAMPLES, LEVEL = 400, 0.95


def of_quadratic(
    K: Array, f: Array, near: Sequence[Tensor], linear: Sequence[Tensor], *, references: Sequence[Tensor] = (),
    within: Polytope | None = None, rng: torch.Generator,
) -> Array:  # fmt: skip
    """(m, 2) intervals for the weights that minimise a'Ka + f'a.

    near[i] (n_i, m) and linear[i] (n_i,): what the samples of arm i contribute, as in
    :class:`mixtura.objectives.quadratic.Quadratic`; references: (r, m) for each reference, its rows' part in f.
    """
    share = min(map(len, near)) ** -0.25
    a = np.array(minimise_quadratic(K, -f / 2, within=within).weights)
    again = []
    for _ in range(SUBSAMPLES):
        picks = [_some(len(x), share, rng) for x in near]
        shift = torch.stack([x[pick].mean(0) - x.mean(0) for x, pick in zip(near, picks, strict=True)]).numpy()
        moved = f + np.array([float(x[pick].mean() - x.mean()) for x, pick in zip(linear, picks, strict=True)])
        for G in references:
            moved = moved + (G[_some(len(G), share, rng)].mean(0) - G.mean(0)).numpy()
        again.append(minimise_quadratic(K + shift + shift.T, -moved / 2, within=within).weights)
    return around(a, np.array(again), share)


def around(a: Array, again: Array, share: float) -> Array:
    """(m, 2) intervals around ``a`` from weights ``again`` (draws, m) of subsamples that hold a ``share`` of all samples."""
    moved = (again - a) * math.sqrt(share / (1 - share))
    low, high = np.quantile(moved, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    # if the optimum is flat, a reflected interval can shrink to a corner: extend it to the weights of the subsamples
    return np.clip([a + np.minimum(low, -high), a + np.maximum(high, -low)], 0, 1).T


def _some(n: int, share: float, rng: torch.Generator) -> Tensor:
    return torch.randperm(n, generator=rng)[: max(2, round(share * n))]


def p_value(gain: float, error: float, freedom: float) -> float:
    """One-sided, of "there is no gain", by Student's t distribution with so many degrees of freedom; 1 where the error
    is 0. Never below ``LEAST_P``, which stands for that or less."""
    return max(LEAST_P, float(student.sf(gain / error, freedom))) if error > 0 else 1.0


def p_in_words(p: float) -> str:
    """ "p = 0.012", or "p < 1e-6"."""
    return "p < 1e-6" if p <= LEAST_P else f"p = {p:.2g}"
