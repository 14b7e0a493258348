"""Reweighting: q(x) ∝ p(x) exp f(x) for a given f, sampled without training anything: :class:`Tilt`.

With draws x_i of p, w_i ∝ exp f(x_i) and Z = E_p exp f:

- importance resampling draws among n rows of p by w (Rubin 1987). Its effective sample size (Σ w)²/Σ w² says how many different
  rows carry the result, and ``log_z`` is log mean w, with its error.
- rejection accepts x with probability exp(f(x) − M), M the largest f seen; beyond M the ratio is clipped, and the share of the
  weight that is lost is said (discriminator rejection sampling: Azadi et al. 2019).

A learned log-ratio log(real/p) as f makes p nearer to the real law.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mixtura.contracts import Estimate, InputError, Model
from mixtura.ground.annealing import effective_sample_size_of, systematic

#: rows of p for each row that is wanted, and the least
POOL, LEAST_POOL = 10, 1_000
#: the share of the drawn rows that must be effective, or nothing is returned
LEAST_EFFECTIVE = 0.01
#: rounds of rejection
ROUNDS = 50


@dataclass(frozen=True)
class Tilted:
    """Rows of q. x: (n, *shape). effective: the effective sample size of the rows of p that they were drawn from, ``drawn``
    many. log_z: log E_p exp f, with its error. lost: of rejection, the share of the weight above the bound."""

    x: Tensor
    effective: float
    drawn: int
    log_z: Estimate
    lost: float = 0.0


def importance_resample(
    draw: Callable[[int], Tensor], f: Callable[[Tensor], Tensor], n: int, rng: torch.Generator, *, pool: int = POOL
) -> Tilted:
    """n rows of q from ``pool``·n rows that ``draw`` gives, each at most about pool·w n times. InputError where the effective
    sample size is below 1 % of the rows drawn, or not more than 1: a few rows would be repeated."""
    drawn = max(LEAST_POOL, pool * n)
    x = draw(drawn)
    log_w = _finite(f(x), len(x))
    effective = effective_sample_size_of(log_w)
    if not effective >= max(LEAST_EFFECTIVE * drawn, 1 + 1e-9):
        raise InputError(
            f"tilt: {drawn:,} rows have an effective sample size of {effective:.1f}, expected {LEAST_EFFECTIVE:.0%} of them or "
            "more; f is too steep for this model: scale it down"
        )
    order = torch.randperm(drawn, generator=rng)
    chosen = order[systematic(log_w[order], rng, n)]
    return Tilted(x[chosen[torch.randperm(n, generator=rng)]], effective, drawn, log_mean_exp(log_w))


def reject(
    draw: Callable[[int], Tensor], f: Callable[[Tensor], Tensor], n: int, rng: torch.Generator, *, most: float | None = None
) -> Tilted:
    """n different rows of q by rejection, exact where f ≤ ``most`` everywhere; by default the largest f of 1,000 rows. InputError
    where n rows are not accepted after ``ROUNDS`` rounds."""
    first = draw(LEAST_POOL)
    log_w = [_finite(f(first), len(first))]
    bound = float(log_w[0].max()) if most is None else most
    kept, x, drawn = [], first, 0
    for _ in range(ROUNDS):
        accepted = torch.rand(len(x), generator=rng, dtype=torch.float64).log() < log_w[-1] - bound
        kept.append(x[accepted])
        drawn += len(x)
        if sum(map(len, kept)) >= n:
            every = torch.cat(log_w)
            lost = 1 - math.exp(float(torch.logsumexp(every.clamp(max=bound), 0) - torch.logsumexp(every, 0)))
            return Tilted(torch.cat(kept)[:n], effective_sample_size_of(every), drawn, log_mean_exp(every), lost)
        x = draw(max(LEAST_POOL, n))
        log_w.append(_finite(f(x), len(x)))
    accepted = sum(map(len, kept))
    raise InputError(
        f"tilt: {accepted:,} of {drawn:,} rows were accepted, expected {n:,}; f is too steep for this model: scale it down"
    )


def log_mean_exp(log_w: Tensor) -> Estimate:
    """log mean exp of (n,), with the standard error of the mean relative to it."""
    n = len(log_w)
    relative = (log_w - log_w.max()).exp()
    value = float(torch.logsumexp(log_w, 0)) - math.log(n)
    return Estimate(value, float(relative.std() / relative.mean()) / math.sqrt(n), n)


def _finite(f: Tensor, n: int) -> Tensor:
    if not isinstance(f, Tensor) or f.shape != (n,):
        got = tuple(f.shape) if isinstance(f, Tensor) else type(f).__name__
        raise InputError(f"tilt: expected one number of f for each row, a tensor ({n},), got {got}")
    if bool(torch.isnan(f).any() | (f == math.inf).any()):
        row = int((torch.isnan(f) | (f == math.inf)).nonzero()[0])
        raise InputError(f"tilt: f of row {row} is {float(f[row])}, expected a number; repair f")
    return f.double()


class Tilt(Model):
    """q ∝ p exp f as a model that samples, by importance resampling. f: rows (n, *shape) in data units → (n,)."""

    def __init__(self, base: Model, f: Callable[[Tensor], Tensor], *, pool: int = POOL) -> None:
        super().__init__(base.space, base.context_shape)
        self.base, self.f, self.pool = base, f, pool

    def stages(self) -> tuple[()]:
        return ()

    def tilted(self, n: int, *, rng: torch.Generator) -> Tilted:
        """n rows with the effective sample size they were drawn from and log Z. Raises as :func:`importance_resample`."""
        return importance_resample(lambda m: self.base.sample(m, rng=rng), self.f, n, rng, pool=self.pool)

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        return self.tilted(n, rng=rng).x
