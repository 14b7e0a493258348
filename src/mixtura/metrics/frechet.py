"""Fréchet distance between the Gaussians fitted to two sets of features, corrected for the bias of finite samples.

    F = |m₁ − m₂|² + tr(S₁ + S₂ − 2 (S₁ S₂)^½)                    (Dowson & Landau 1982; Heusel et al. 2017)

Rows are reduced to :class:`Moments`, and :func:`plain_distance` computes F from two of these. With S₁ = R Rᵀ, the trace of
(S₁ S₂)^½ is the sum of s, the square roots of the eigenvalues of the symmetric Rᵀ S₂ R. It is never complex, and exact if there
are fewer rows than features.

F of two finite samples is too large even if their laws are equal. To second order in 1/n, for Gaussians,

    E F̂ − F = tr S₁/n + tr S₂/m + (1/n + 1/m) ½ Σᵢⱼ sᵢ sⱼ (1 + δᵢⱼ) / (sᵢ + sⱼ).

The trace of a square root has the second derivative −½ Kᵢⱼ² / (sᵢ sⱼ (sᵢ + sⱼ)), and the sampling error K of RᵀS₂R in its
eigenbasis has E Kᵢⱼ² = sᵢ² sⱼ² (1 + δᵢⱼ) / m. The formula therefore holds for equal and for different laws.
:func:`debiased_distance` subtracts it; the remaining bias is of order 1/n².
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from numpy.typing import ArrayLike
from scipy.linalg import get_blas_funcs
from torch import Tensor

from mixtura.contracts import Estimate, InputError
from mixtura.metrics.arrays import pair, rows

#: rows whose products are summed in the precision of the features before they are added to the float64 sum
CHUNK = 4096

#: fewest rows of the smaller set for each feature that varies. At 2, with many more rows in the other set, the value is 2.5
#: errors too small; at 3 the bias is within the noise
ROWS_A_FEATURE = 3

#: most rows of each set for the error and the fourth moments
ERROR_ROWS = 2000


@dataclass(frozen=True)
class Moments:
    """Mean (d,) and covariance (d, d) float64 of ``n`` rows, n − 1 in the denominator."""

    mean: Tensor
    cov: Tensor
    n: int

    @staticmethod
    def of(x: ArrayLike | Tensor) -> Moments:
        """Moments of rows (n, d), n ≥ 2. Products of float32 features are float32, of centred rows, summed in float64.

        Raises InputError on fewer than two rows or anything but finite (rows, features).
        """
        x = rows(x, "x")
        if len(x) < 2:
            raise InputError(f"x: expected 2 rows or more, got {len(x)}; give more rows")
        mean = x.mean(0, dtype=torch.float64)
        (product,) = get_blas_funcs(("syrk",), dtype=x.numpy().dtype)
        centre = mean.to(x.dtype)
        lower = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
        for chunk in x.split(CHUNK):
            lower += torch.from_numpy(product(1.0, (chunk - centre).numpy().T).T)
        cov = (lower + lower.tril(-1).T) / (len(x) - 1)
        return Moments(mean, cov, len(x))

    def __add__(self, other: Moments) -> Moments:
        """Moments of both sets of rows together (Chan, Golub & LeVeque 1983)."""
        n = self.n + other.n
        apart = other.mean - self.mean
        scatter = (self.n - 1) * self.cov + (other.n - 1) * other.cov + self.n * other.n / n * apart.outer(apart)
        return Moments(self.mean + other.n / n * apart, scatter / (n - 1), n)


def plain_distance(a: Moments, b: Moments) -> float:
    """F of the two fitted Gaussians, in squared units of the features. Other packages call this FID."""
    return _plain(a, b, _spectrum(a, b))


def debiased_distance(a: Moments, b: Moments) -> float:
    """F̂ minus its second-order bias for Gaussian rows. For equal laws it is about 0 and can be negative."""
    s = _spectrum(a, b)
    return _plain(a, b, s) - _bias(a, b, s)


def frechet_distance(
    real: ArrayLike | Tensor, generated: ArrayLike | Tensor, *, rng: torch.Generator, plain: bool = False
) -> Estimate:
    """Fréchet distance between ``real`` (n, d) and ``generated`` (m, d), in squared units of the features.

    The bias is corrected in three parts: the Gaussian expansion; the excess of the fourth moments, measured on the rows; and, for
    the rest of order 1/n², one Richardson step over random halves of both sets, D + (D − D_half) / 3. ``plain=True`` gives the
    biased F of other packages.

    The error is an infinitesimal jackknife. With T the optimal map from one Gaussian to the other, a row x of ``real`` changes F
    by ψ(x) / n, ψ(x) = 2 (m₁ − m₂)·(x − m₁) + (x − m₁)ᵀ(I − T)(x − m₁), and likewise a row of ``generated``. At equal laws ψ is
    noise, and Var ψ counts the variance V₂ of the second-order term twice (as any jackknife does). Therefore error² = V₂ +
    max(Var ψ₁/n + Var ψ₂/m − 2 V₂, 0), where V₂ is that of Gaussian rows times the squared ratio of the measured to the Gaussian
    curvature. ψ and the fourth moments are measured on at most ERROR_ROWS rows of each set.

    With few rows for d features a part of the bias remains: ten errors with as many rows as features. Below ``ROWS_A_FEATURE``
    rows for each feature that varies, the value is NaN with a ``reason``. Tails as heavy as those of Student's t with 6 degrees
    of freedom make the error up to twice too large.

    Raises InputError on arrays that are not finite (rows, d) with one d and 4 rows or more.
    """
    x, y = (_shuffled(part, rng) for part in pair(real, generated, least=4))
    n, features = min(len(x), len(y)), int(((x != x[0]).any(0) | (y != x[0]).any(0)).sum())
    if not plain and n < ROWS_A_FEATURE * features:
        return Estimate(
            math.nan, math.nan, n,
            f"{n} rows are too few for {features} features, because most of the distance would be bias; "
            f"give {ROWS_A_FEATURE * features} rows or more, or fewer features",
        )  # fmt: skip
    halves = [tuple(Moments.of(half) for half in part.tensor_split(2)) for part in (x, y)]
    a, b = (first + second for first, second in halves)
    link = _link(a, b)
    first_order = curvature = 0.0
    for part, moments, axes, apart in ((x, a, link.forward, a.mean - b.mean), (y, b, link.backward, b.mean - a.mean)):
        centred = part[:ERROR_ROWS].double() - moments.mean
        coupled = centred @ axes.T
        first_order += float(_influence(centred, coupled, apart).var()) / moments.n
        curvature += _curvature(coupled, link.s) / moments.n
    second_order = _second_order_variance(a, b, link.s, curvature)
    error = math.sqrt(second_order + max(first_order - 2 * second_order, 0.0))
    value = _plain(a, b, link.s)
    if not plain:
        gaussian = (1 / a.n + 1 / b.n) * _gaussian_curvature(link.s)
        value -= _bias(a, b, link.s)
        value += (value - sum(debiased_distance(*both) for both in zip(*halves, strict=True)) / 2) / 3
        # the step above multiplies an excess e by 2/3: 4/3 e from the whole sets minus 1/3 of the 2 e in the halves
        value -= (curvature - gaussian) * 2 / 3
    return Estimate(value, error, n)


def _shuffled(x: Tensor, rng: torch.Generator) -> Tensor:
    return x[torch.randperm(len(x), generator=rng, device=rng.device).cpu()]


class _Link(NamedTuple):
    """s (r,), and coordinates with covariance diag(s): ``forward`` (r, d) for rows of a, ``backward`` (r, d) for rows of b."""

    s: Tensor
    forward: Tensor
    backward: Tensor


def _spectrum(a: Moments, b: Moments) -> Tensor:
    """(d,) s: the roots of the eigenvalues of S₁ S₂."""
    root, middle = _sandwich(a, b)
    return torch.linalg.eigvalsh(middle).clamp(min=0).sqrt() if root.shape[1] else a.mean.new_zeros(0)


def _link(a: Moments, b: Moments) -> _Link:
    """With RᵀS₂R = V s² Vᵀ: backward = s^-½ (RV)ᵀ, and forward = s^½ VᵀR⁻¹ = s^-3/2 (RV)ᵀS₂. T = forwardᵀ forward."""
    if b.n < a.n:
        s, backward, forward = _link(b, a)
        return _Link(s, forward, backward)
    root, middle = _sandwich(a, b)
    squares, v = torch.linalg.eigh(middle)
    # roots below 1e-7 of the largest are rounding errors
    kept = squares > len(squares) * torch.finfo(squares.dtype).eps * squares[-1:]
    s = squares[kept].sqrt()
    axes = (root @ v[:, kept]).T
    return _Link(s, s[:, None] ** -1.5 * (axes @ b.cov), s[:, None] ** -0.5 * axes)


def _sandwich(a: Moments, b: Moments) -> tuple[Tensor, Tensor]:
    """R (d, r) with R Rᵀ the covariance of the side with fewer rows, and Rᵀ S R (r, r) with S that of the other side."""
    few, many = (a, b) if a.n <= b.n else (b, a)
    root = _root(few.cov)
    return root, root.T @ many.cov @ root


def _root(cov: Tensor) -> Tensor:
    factor, failed = torch.linalg.cholesky_ex(cov)
    if not failed:
        return factor
    w, e = torch.linalg.eigh(cov)
    kept = w > len(w) * torch.finfo(w.dtype).eps * w[-1]
    return e[:, kept] * w[kept].sqrt()


def _plain(a: Moments, b: Moments, s: Tensor) -> float:
    between = (a.mean - b.mean).square().sum()
    return float(between + a.cov.trace() + b.cov.trace() - 2 * s.sum())


def _bias(a: Moments, b: Moments, s: Tensor) -> float:
    return float(a.cov.trace() / a.n + b.cov.trace() / b.n) + (1 / a.n + 1 / b.n) * _gaussian_curvature(s)


def _gaussian_curvature(s: Tensor) -> float:
    g = _harmonic(s)
    return float(g.sum() + g.trace()) / 2


def _curvature(coupled: Tensor, s: Tensor) -> float:
    """n times the bias of −2 tr (S₁ S₂)^½ by one side, any law: ½ (Σᵢⱼ E uᵢ² uⱼ² / (sᵢ + sⱼ) − ½ Σ s), u rows (n, r)."""
    squares = coupled.square()
    fourth = ((squares @ (1 / (s[:, None] + s))) * squares).sum(1).mean()
    return float(fourth - s.sum() / 2) / 2


def _harmonic(s: Tensor) -> Tensor:
    """(r, r) sᵢ sⱼ / (sᵢ + sⱼ), 0 where both are."""
    return s.outer(s) / (s[:, None] + s).clamp(min=torch.finfo(s.dtype).tiny)


def _influence(centred: Tensor, coupled: Tensor, apart: Tensor) -> Tensor:
    """(n,) ψ of rows: ``centred`` (n, d), the same ``coupled`` (n, r), ``apart`` (d,) from the other mean to theirs."""
    return 2 * centred @ apart + centred.square().sum(1) - coupled.square().sum(1)


def _second_order_variance(a: Moments, b: Moments, s: Tensor, curvature: float) -> float:
    """V₂: of the means, and of the covariances in proportion to the square of their bias, which is ``curvature``."""
    means = 2 * (a.cov / a.n + b.cov / b.n).square().sum()
    g = _harmonic(s).square()
    gaussian = _gaussian_curvature(s)
    return float(means + (g.sum() + g.trace()) * (curvature / gaussian) ** 2) if gaussian else float(means)
