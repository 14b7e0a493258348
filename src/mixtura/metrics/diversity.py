"""Diversity, as an effective number of different rows: RKE and the Vendi score, of generated rows relative to real ones.

Both are exponentials of a Rényi entropy of the eigenvalues λ of K/n, the kernel matrix of n rows with k(x, x) = 1:

    Vendi_q = exp( log Σ λ^q / (1 − q) ),  Vendi_1 = exp(−Σ λ log λ)         (Friedman & Dieng 2023; Pasarkar & Dieng 2024)
    RKE     = Vendi_2 = 1 / ‖K/n‖²_F = n² / Σᵢⱼ k(xᵢ, xⱼ)²                     (Jalali, Li & Farnia 2023)

k equally large groups of equal rows, with similarity 0 between groups, count k. A count depends on the bandwidth and, for Vendi,
on n. The metrics are therefore ratios: the count of the generated rows over that of as many real rows. 1 means as diverse as the
real rows, below 1 less (lost modes), above 1 more (noise).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mixtura.contracts import Estimate, InputError
from mixtura.ground.kernels import Cosine, Gaussian, median_bandwidth, sums
from mixtura.metrics.arrays import pair, rows

#: most rows of each set in the Vendi ratio: the eigenvalues of n rows take n³ operations
VENDI_ROWS = 1_000


# ------------------------------------------------------------------------------------------------------------- RKE


def rke(
    real: ArrayLike | Tensor, generated: ArrayLike | Tensor, *, kernel: Gaussian | None = None, rng: torch.Generator
) -> Estimate:
    """:func:`mode_count` of ``generated`` (m, d) over that of ``real`` (n, d), with its jackknife error.

    Without a ``kernel`` the bandwidth is the median distance between real rows. ``n`` of the estimate is the smaller number of
    rows. Raises InputError on arrays that are not finite (rows, d) with one d and 3 rows or more.
    """
    x, y = pair(real, generated, least=3)
    kernel = kernel or Gaussian(median_bandwidth(x, rng))
    ours, theirs = _alike(y, kernel), _alike(x, kernel)
    variance = _jackknife(theirs.mean / ours.without_each) + _jackknife(theirs.without_each / ours.mean)
    return Estimate(theirs.mean / ours.mean, math.sqrt(variance), min(len(x), len(y)))


def mode_count(x: ArrayLike | Tensor, kernel: Gaussian) -> Estimate:
    """RKE mode count of rows ``x`` (n, d), 1 / E k(X, X′)² over pairs of two different rows, with its jackknife error.

    This is the U-form. The paper's V-form n² / Σ k², 1 / ``sums((x,), kernel.squared).block(0, 0, unbiased=False)``, includes the
    pair of each row with itself and so counts at most n modes.

    Raises InputError on anything but finite (rows, d) with 3 rows or more.
    """
    found = _alike(rows(x, "x"), kernel)
    return Estimate(1 / found.mean, math.sqrt(_jackknife(1 / found.without_each)), len(found.without_each))


class _Alike(NamedTuple):
    """Mean of k² over pairs of two different rows, and (n,) the same without each row."""

    mean: float
    without_each: Tensor


def _alike(x: Tensor, kernel: Gaussian) -> _Alike:
    n = len(x)
    if n < 3:
        raise InputError(f"x: expected 3 rows or more, got {n}; give more rows")
    of_row = sums((x,), kernel.squared).others(0, 0)
    return _Alike(float(of_row.sum()) / (n * (n - 1)), (of_row.sum() - 2 * of_row) / ((n - 1) * (n - 2)))


def _jackknife(without_each: Tensor) -> float:
    """Variance of a statistic from its n values without each row (Efron & Stein 1981)."""
    n = len(without_each)
    return (n - 1) ** 2 / n * float(without_each.var())


# ----------------------------------------------------------------------------------------------------------- Vendi


def vendi(
    real: ArrayLike | Tensor,
    generated: ArrayLike | Tensor,
    *,
    kernel: Gaussian | Cosine | None = None,
    order: float = 1.0,
    rng: torch.Generator,
) -> Estimate:
    """:func:`vendi_score` of ``generated`` (m, d) over that of ``real`` (n, d), each of min(n, m, ``VENDI_ROWS``) rows drawn with
    ``rng``, since the score grows with the number of rows.

    Without a ``kernel`` it is a Gaussian whose bandwidth is the median distance between real rows. Raises InputError on
    arrays that are not finite (rows, d) with one d and 3 rows or more, and as :func:`vendi_score`.
    """
    x, y = pair(real, generated, least=3)
    kernel = kernel or Gaussian(median_bandwidth(x, rng))
    n = min(len(x), len(y), VENDI_ROWS)
    theirs, ours = (vendi_score(_some(part, n, rng), kernel, order=order) for part in (x, y))
    ratio = ours.value / theirs.value
    return Estimate(ratio, ratio * math.hypot(ours.error / ours.value, theirs.error / theirs.value), n)


def vendi_score(x: ArrayLike | Tensor, kernel: Gaussian | Cosine, *, order: float = 1.0) -> Estimate:
    """Vendi score of rows ``x`` (n, d): exp of the Rényi entropy of ``order`` q > 0 of the eigenvalues of K/n, between 1 and n.

    Eigenvalues are float64; those below the rounding error of the largest are left out, because a small order would count them in
    full. For the cosine kernel and d < n they are computed from the (d, d) second moment, which has the same ones.

    The error is an infinitesimal jackknife. With ρ the mean of φ(x)φ(x)' in feature space, a row changes the entropy by ψ(x) / n,
    ψ = −φ'(log ρ)φ − H, or q / (1 − q) (φ'ρ^(q−1)φ / tr ρ^q − 1), by first-order perturbation of the eigenvalues. For orders
    below 1 the eigenvalues near 0 matter, for which first order is not enough: at order ½ the error can be half of the true one.

    Raises InputError on an order that is not a finite number above 0, and on a row of zeros under the cosine kernel.
    """
    if not 0 < order < math.inf:
        raise InputError(f"order: expected a finite number above 0, got {order}; 1 is the usual one")
    values, weights = _spectrum(rows(x, "x").double(), kernel)
    if order == 1:
        entropy = -(values * values.log()).sum()
        moved = -weights @ values.log() - entropy
    else:
        power = values.pow(order).sum()
        entropy = power.log() / (1 - order)
        moved = order / (1 - order) * (weights @ values.pow(order - 1) / power - 1)
    score, n = float(entropy.exp()), len(weights)
    return Estimate(score, score * float(moved.std()) / math.sqrt(n), n)


def _spectrum(x: Tensor, kernel: Gaussian | Cosine) -> tuple[Tensor, Tensor]:
    """(r,) the positive eigenvalues of K/n, which are those of ρ, and (n, r) (φ(x_i)·v_k)² with v_k the eigenvectors of ρ."""
    n = len(x)
    if isinstance(kernel, Cosine):
        zero = (x == 0).all(1).nonzero()
        if len(zero):
            raise InputError(f"x: row {int(zero[0])} is all zeros and has no direction; leave it out or use a Gaussian kernel")
    if isinstance(kernel, Cosine) and x.shape[1] < n:
        units = x / torch.linalg.vector_norm(x, dim=1, keepdim=True)
        values, vectors = torch.linalg.eigh(units.T @ units / n)
        weights = (units @ vectors).square()
    else:
        values, vectors = torch.linalg.eigh(kernel(x, x) / n)
        weights = n * values * vectors.square()
    kept = values > n * torch.finfo(values.dtype).eps * values[-1]
    return values[kept], weights[:, kept]


def _some(x: Tensor, n: int, rng: torch.Generator) -> Tensor:
    return x[torch.randperm(len(x), generator=rng, device=rng.device)[:n].cpu()]
