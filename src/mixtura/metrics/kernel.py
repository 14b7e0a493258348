"""Kernel metrics of whether two sets of features have the same law: MMD², KID, and a permutation test.

    MMD²(P, Q) = E k(X, X′) − 2 E k(X, Y) + E k(Y, Y′)                    (Gretton et al. 2012, lemma 6)

Values are U-statistics: for equal laws they are about 0 and can be negative. All pairs are used, so no value depends on a choice
of subsets. Errors are delete-one jackknives (:class:`mixtura.ground.kernels.KernelSums`).
"""

from __future__ import annotations

import math

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mixtura.contracts import Estimate, InputError
from mixtura.ground.kernels import Cubic, Gaussian, Kernel, median_bandwidth, sums
from mixtura.metrics.arrays import pair

#: most rows of each set whose labels are permuted
PERMUTED_ROWS = 1_000


def mmd2(
    real: ArrayLike | Tensor, generated: ArrayLike | Tensor, *, kernel: Kernel | None = None, rng: torch.Generator
) -> Estimate:
    """Unbiased MMD² between ``real`` (n, d) and ``generated`` (m, d), in units of the kernel, with its jackknife error.

    The default ``kernel`` is a Gaussian whose bandwidth is the median distance between real rows. MMD² is then at most 2 (two
    distant points), and neither a shift nor a common scale of the features changes it. ``n`` of the estimate is the number of
    real rows.

    Raises InputError on arrays that are not finite (rows, d) with one d and 3 rows or more.
    """
    x, y = pair(real, generated, least=3)
    return sums((y, x), kernel or Gaussian(median_bandwidth(x, rng))).mmd2([1.0], reference=1)


def kid(real: ArrayLike | Tensor, generated: ArrayLike | Tensor, *, rng: torch.Generator) -> Estimate:
    """Kernel inception distance between ``real`` (n, d) and ``generated`` (m, d): unbiased MMD² with k = (x·y / d + 1)³
    (Bińkowski et al. 2018, section 4), and its jackknife error.

    It is the U-statistic over all pairs. Other packages estimate it by the mean over random subsets and give no standard error
    (the standard deviation over subsets is not one). It compares means, covariances and third moments, and depends on the scale
    of the features. Products have the precision of the features; nothing is drawn from ``rng``.

    Raises InputError as :func:`mmd2`.
    """
    x, y = pair(real, generated, least=3)
    return sums((y, x), Cubic(x.shape[1]), dtype=x.dtype).mmd2([1.0], reference=1)


def same_law(
    real: ArrayLike | Tensor,
    generated: ArrayLike | Tensor,
    *,
    kernel: Kernel | None = None,
    permutations: int = 999,
    rng: torch.Generator,
) -> Estimate:
    """p-value of "``real`` (n, d) and ``generated`` (m, d) have one law", by permuting which row belongs to which set.

    p = (1 + #{permuted MMD² ≥ observed}) / (1 + permutations). If the laws are equal, P(p ≤ α) ≤ α exactly, for any kernel that
    does not depend on which rows are in which set (Gretton et al. 2012, section 3; Phipson & Smyth 2010). The default ``kernel``
    is a Gaussian whose bandwidth is the median distance between all rows. At most ``PERMUTED_ROWS`` rows of each set are drawn
    with ``rng``. The error is that of sampling the permutations; ``n`` is the smaller number of rows used.

    Raises InputError on fewer than one permutation, and as :func:`mmd2`.
    """
    if permutations < 1:
        raise InputError(f"permutations: expected 1 or more, got {permutations}; 999 resolve p-values down to 0.001")
    x, y = (part[_shuffle(len(part), rng)[:PERMUTED_ROWS]] for part in pair(real, generated, least=3))
    both = torch.cat((x, y))
    values = (kernel or Gaussian(median_bandwidth(both, rng)))(both, both).fill_diagonal_(0)
    first = torch.zeros(len(both), permutations + 1, dtype=torch.float64)
    first[: len(x), 0] = 1
    for column in first.T[1:]:
        column[_shuffle(len(both), rng)[: len(x)]] = 1
    statistics = _mmd2_of_labels(values, first, len(x), len(y))
    # tied permutations, as integer features make them, differ by rounding only
    as_large = statistics[1:] >= statistics[0] - 1e-10 * values.abs().mean()
    p = (1 + int(as_large.sum())) / (1 + permutations)
    return Estimate(p, math.sqrt(p * (1 - p) / (1 + permutations)), min(len(x), len(y)))


def _shuffle(n: int, rng: torch.Generator) -> Tensor:
    return torch.randperm(n, generator=rng, device=rng.device).cpu()


def _mmd2_of_labels(values: Tensor, first: Tensor, n: int, m: int) -> Tensor:
    """(columns,) unbiased MMD² between the n rows that have a 1 in a column of ``first`` and the m others; ``values`` has a
    zero diagonal."""
    seen = values @ first
    within, of_first, total = (first * seen).sum(0), seen.sum(0), values.sum()
    between = of_first - within
    return within / (n * (n - 1)) + (total - within - 2 * between) / (m * (m - 1)) - 2 * between / (n * m)
