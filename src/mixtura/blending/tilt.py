"""Reweighting: q(x) ∝ p(x) exp f(x) for a given f, sampled without training anything: :class:`Tilt`.

With draws x_i of p, w_i ∝ exp f(x_i) and Z = E_p exp f:

- importance resampling draws among n rows of p by w (Rubin 1987). Its effective sample size (Σ w)²/Σ w² says how many different
  rows carry the result, and ``log_z`` is log mean w, with its error.
- rejection accepts x with probability exp(f(x) − M), M the largest f seen; beyond M the ratio is clipped, and the share of the
  weight that is lost is said (discriminator rejection sampling: Azadi et al. 2019).

- chains move where f is too steep for both: from draws of p along p(x) exp βf(x), β from 0 to 1, drawn again by their weights on
  the way (sequential Monte Carlo: Del Moral et al. 2006). A move proposes what leaves p as it is: a code z' = √(1 − s²) z + s ξ
  and its row (preconditioned Crank–Nicolson: Cotter et al. 2013), or some columns anew, given the others.

A learned log-ratio log(real/p) as f makes p nearer to the real law.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import cast

import torch
from torch import Tensor

from mixtura.contracts import Conditional, Estimate, InputError, Latent, Model
from mixtura.ground.annealing import anneal, effective_sample_size_of, systematic

#: rows of p for each row that is wanted, and the least
POOL, LEAST_POOL = 10, 1_000
#: the share of the drawn rows that must be effective, or nothing is returned
LEAST_EFFECTIVE = 0.01
#: rounds of rejection, and the share of the weight that may lie above its bound
ROUNDS, MOST_LOST = 50, 0.99
#: of chains: temperatures, moves at each, the smallest size of a move, and populations
STEPS, MOVES, LEAST_MOVE, PARTS = 50, 10, 0.02, 4


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
    drawn = max(LEAST_POOL, pool * _count(n))
    x = _drawn(draw, drawn)
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
    _count(n)
    if most is not None and not (isinstance(most, Real) and math.isfinite(most)):
        raise InputError(f"most: expected a finite number, the largest f there can be, got {most!r}")
    first = _drawn(draw, LEAST_POOL)
    log_w = [_finite(f(first), len(first))]
    bound = float(log_w[0].max()) if most is None else float(most)
    kept, x, drawn = [], first, 0
    for _ in range(ROUNDS):
        accepted = torch.rand(len(x), generator=rng, dtype=torch.float64).log() < log_w[-1] - bound
        kept.append(x[accepted])
        drawn += len(x)
        if sum(map(len, kept)) >= n:
            every = torch.cat(log_w)
            lost = 1 - math.exp(float(torch.logsumexp(every.clamp(max=bound), 0) - torch.logsumexp(every, 0)))
            if lost > MOST_LOST:
                raise InputError(f"most: {lost:.0%} of the weight lies above {bound:.3g}: nothing is tilted; give a larger one")
            return Tilted(torch.cat(kept)[:n], effective_sample_size_of(every), drawn, log_mean_exp(every), lost)
        x = _drawn(draw, max(LEAST_POOL, n))
        log_w.append(_finite(f(x), len(x)))
    accepted = sum(map(len, kept))
    raise InputError(
        f"tilt: {accepted:,} of {drawn:,} rows were accepted, expected {n:,}; f is too steep for this model: scale it down"
    )


def by_chains(model: Model, f: Callable[[Tensor], Tensor], n: int, rng: torch.Generator, *, steps: int = STEPS) -> Tilted:
    """n rows of q by chains from p to q in ``steps`` temperatures, for an f that is finite on the rows of ``model``, which has a
    latent code, or draws columns exactly given others (:class:`Conditional`, no column with missing entries). ``effective``: how
    many of the rows moved at the last temperature. ``log_z`` comes from ``PARTS`` populations that know nothing of one another;
    the size of their moves follows what they accept, so it is right only as they grow. InputError for another model, and where
    fewer than 1 % of the rows moved: the chains stick."""
    each = math.ceil(n / PARTS)
    populations = [_Population(model, f, each, rng) for _ in range(PARTS)]
    betas = [k / steps for k in range(steps + 1)]
    ends = [anneal(p.start, p.path, p.move, betas, redraw=rng) for p in populations]
    x = torch.cat([p.rows(end.x) for p, end in zip(populations, ends, strict=True)])
    moved = sum(int(p.moved.sum()) for p in populations)
    if moved < LEAST_EFFECTIVE * len(x):
        raise InputError(f"tilt: the chains stick, {moved} of {len(x):,} rows moved at last; f is too steep: scale it down")
    log_z = log_mean_exp(torch.tensor([end.log_mean for end in ends], dtype=torch.float64))
    return Tilted(x[torch.randperm(len(x), generator=rng)[:n]], float(moved), len(x), log_z)


class _Population:
    """n chains; the state of each is a row, after its code where the model has one. ``move`` leaves p exp βf as it is: it
    proposes what leaves p as it is, and accepts with probability min(1, exp β(f(x') − f(x)))."""

    def __init__(self, model: Model, f: Callable[[Tensor], Tensor], n: int, rng: torch.Generator) -> None:
        gaps = any(column.missing for column in model.space.columns)
        if not isinstance(model, Latent) and (gaps or not isinstance(model, Conditional)):
            raise InputError(_refusal(model))
        self.model, self.f, self.rng, self.size, self.moved = model, f, rng, 1.0, torch.zeros(n, dtype=torch.bool)
        self.codes = model.latent if isinstance(model, Latent) else 0
        z = torch.randn(n, self.codes, generator=rng, dtype=torch.float64)
        self.start = self._state(z, model.decode(z.float(), rng=rng) if isinstance(model, Latent) else model.sample(n, rng=rng))

    def rows(self, state: Tensor) -> Tensor:
        """The rows (n, *shape) of the states."""
        return state[:, self.codes :].reshape(-1, *self.model.space.shape)

    def path(self, state: Tensor, beta: float) -> Tensor:
        """(n,) −βf, the energy beside that of p."""
        return -beta * _finite(self.f(self.rows(state)), len(state))

    def move(self, state: Tensor, beta: float) -> Tensor:
        """``MOVES`` moves; they become larger where more than a third is accepted."""
        self.moved.zero_()
        for _ in range(MOVES):
            proposed = self._proposed(state)
            odds = self.path(state, beta) - self.path(proposed, beta)
            accepted = torch.rand(len(state), generator=self.rng, dtype=torch.float64).log() < odds
            state, self.moved = torch.where(accepted[:, None], proposed, state), self.moved | accepted
            self.size = min(1.0, max(LEAST_MOVE, self.size * math.exp(float(accepted.double().mean()) - 1 / 3)))
        return state

    def _proposed(self, state: Tensor) -> Tensor:
        z, x, model = state[:, : self.codes], self.rows(state), self.model
        if isinstance(model, Latent):
            ξ = torch.randn(z.shape, generator=self.rng, dtype=torch.float64)
            z = math.sqrt(1 - self.size**2) * z + self.size * ξ
            return self._state(z, model.decode(z.float(), rng=self.rng))
        known = torch.rand(x.shape, generator=self.rng) >= self.size
        filled = cast(Conditional, model).condition(x, known, rng=self.rng)
        if bool(torch.isfinite(filled.ess).any()):
            raise InputError(_refusal(model))
        return self._state(z, filled.values[0])

    def _state(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.cat([z, x.flatten(1).double()], 1)


def _refusal(model: Model) -> str:
    return (
        "tilt: chains need a model with a latent code, or one that draws some columns exactly given others, without missing "
        f"entries; {type(model).__name__} is neither: use importance_resample or reject"
    )


def log_mean_exp(log_w: Tensor) -> Estimate:
    """log mean exp of (n,), with the standard error of the mean relative to it."""
    n = len(log_w)
    relative = (log_w - log_w.max()).exp()
    value = float(torch.logsumexp(log_w, 0)) - math.log(n)
    return Estimate(value, float(relative.std() / relative.mean()) / math.sqrt(n), n)


def _count(n: int) -> int:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise InputError(f"n: expected a whole number of rows, 1 or more, got {n!r}")
    return n


def _drawn(draw: Callable[[int], Tensor], n: int) -> Tensor:
    x = draw(n)
    if not isinstance(x, Tensor) or not x.dim() or len(x) != n:
        got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"tilt: expected {n:,} rows of draw, a tensor ({n}, …), got {got}")
    return x


def _finite(f: Tensor, n: int) -> Tensor:
    if not isinstance(f, Tensor) or f.shape != (n,) or f.is_complex():
        got = tuple(f.shape) if isinstance(f, Tensor) else type(f).__name__
        raise InputError(f"tilt: expected one number of f for each row, a tensor ({n},), got {got}")
    if bool(torch.isnan(f).any() | (f == math.inf).any()):
        row = int((torch.isnan(f) | (f == math.inf)).nonzero()[0])
        raise InputError(f"tilt: f of row {row} is {float(f[row])}, expected a number; repair f")
    if bool((f == -math.inf).all()):
        raise InputError("tilt: f is −∞ for every row, so none is of the tilted law; repair f")
    return f.double()


class Tilt(Model):
    """q ∝ p exp f as a model that samples. f: rows (n, *shape) in data units → (n,). By importance resampling, or where ``most``
    is given by rejection: no row twice, rows with f above ``most`` kept alike."""

    def __init__(self, base: Model, f: Callable[[Tensor], Tensor], *, pool: int = POOL, most: float | None = None) -> None:
        super().__init__(base.space, base.context_shape)
        self.base, self.f, self.pool, self.most = base, f, pool, most

    def stages(self) -> tuple[()]:
        return ()

    def tilted(self, n: int, *, rng: torch.Generator) -> Tilted:
        """n rows with the effective sample size they were drawn from and log Z. Raises as :func:`importance_resample` or
        :func:`reject`."""

        def draw(m: int) -> Tensor:
            return self.base.sample(m, rng=rng)

        if self.most is None:
            return importance_resample(draw, self.f, n, rng, pool=self.pool)
        return reject(draw, self.f, n, rng, most=self.most)

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        return self.tilted(n, rng=rng).x
