"""Annealed importance sampling (Neal 2001) and its sequential Monte Carlo (Del Moral et al. 2006): from a law that can be sampled
to one that is known up to a constant, by steps between them.

A path gives the energy E_β of rows, −log of an unnormalised density, for β from 0 to 1; by default E_β = (1 − β) E₀ + β E₁. From
x drawn from exp(−E₀)/Z₀, for β₁ < … < β_T = 1,

    log w ← log w + E_{β_{t−1}}(x) − E_{β_t}(x),    then x moves by a kernel that leaves exp(−E_{β_t}) as it is,

and E[w] = Z₁/Z₀ exactly, for any number of steps and any such kernels. So log mean w is a lower bound of log Z₁/Z₀ in
expectation. From exact samples of E₁ the same way back gives Z₀/Z₁, hence an upper bound: the two enclose it (Grosse et al.
2015).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixtura.contracts import Estimate, InputError
from mixtura.ground.mcmc import Energy, Mala, init

#: (x, β) → (n,) E_β
Path = Callable[[Tensor, float], Tensor]
#: (x, β) → x moved by a kernel that leaves exp(−E_β) invariant
Move = Callable[[Tensor, float], Tensor]

#: chains that find the step sizes, the acceptance they aim at (Roberts & Rosenthal 1998), and the share of the chains below
#: which the effective sample size makes them be drawn again
PILOT, ACCEPTANCE, SPENT = 64, 0.574, 0.5


@dataclass(frozen=True)
class Annealed:
    """x: (n, *shape) where the chains end. log_weights: (n,) of these, all equal where they were drawn again after the last step.
    log_mean: log of the mean weight, an estimate of log Z₁/Z₀."""

    x: Tensor
    log_weights: Tensor
    log_mean: float
    redrawn: bool = False

    @property
    def effective(self) -> float:
        """The effective sample size of the weights, (Σ w)²/Σ w²."""
        return effective_sample_size_of(self.log_weights)

    @property
    def log_ratio(self) -> Estimate:
        """log Z₁/Z₀, with the standard error of the mean weight, relative to it. The error is too small where few chains have
        most of the weight: see ``effective``."""
        n = len(self.log_weights)
        if self.redrawn:
            return Estimate(self.log_mean, math.nan, n, "the chains were drawn again on the way: repeat the run for the error")
        relative = (self.log_weights - self.log_weights.max()).exp()
        error = float(relative.std() / relative.mean()) / math.sqrt(n) if n > 1 else math.nan
        return Estimate(self.log_mean, error, n)


def effective_sample_size_of(log_weights: Tensor) -> float:
    """(Σ w)²/Σ w² of weights (n,), between 1 and n."""
    return math.exp(float(2 * torch.logsumexp(log_weights, 0) - torch.logsumexp(2 * log_weights, 0)))


def anneal(
    x: Tensor, path: Path, move: Move, betas: Sequence[float], *, redraw: torch.Generator | None = None
) -> Annealed:
    """Take chains x (n, *shape), samples of the path's beginning, along ``betas``, which go from 0 to 1, or from 1 to 0 for the
    way back. ``redraw``: draw the chains again by their weights whenever the effective sample size falls below half of them, and
    at the end (sequential Monte Carlo): x are then samples of the path's end. InputError for other ``betas``: log Z would be
    that of another path."""
    if sorted(betas[:: len(betas) - 1 or 1]) != [0.0, 1.0] or list(betas) not in (sorted(betas), sorted(betas, reverse=True)):
        raise InputError("betas: expected numbers that rise from 0 to 1, or fall from 1 to 0")
    log_weights, log_mean, redrawn = torch.zeros(len(x), dtype=torch.float64), 0.0, False
    for last, beta in zip(betas, betas[1:], strict=False):
        with torch.no_grad():
            log_weights = log_weights + (path(x, last) - path(x, beta)).double()
        if redraw is not None and (beta == betas[-1] or effective_sample_size_of(log_weights) < SPENT * len(x)):
            log_mean += float(torch.logsumexp(log_weights, 0)) - math.log(len(x))
            x = x[systematic(log_weights, redraw)]
            log_weights, redrawn = torch.zeros_like(log_weights), True
        x = move(x, beta)
    return Annealed(x, log_weights, log_mean + float(torch.logsumexp(log_weights, 0)) - math.log(len(x)), redrawn)


def systematic(log_weights: Tensor, rng: torch.Generator, n: int | None = None) -> Tensor:
    """(n,) indices drawn in proportion to weights (m,), each a whole number of times next to n w (Kitagawa 1996); m of them by
    default."""
    n = len(log_weights) if n is None else n
    shares = torch.softmax(log_weights, 0).cumsum(0)
    points = (torch.arange(n, dtype=torch.float64) + torch.rand((), generator=rng, dtype=torch.float64)) / n
    return torch.searchsorted(shares / shares[-1], points).clamp(max=len(shares) - 1)


def by_mala(
    pilot: Tensor, path: Path, betas: Sequence[float], rng: torch.Generator, *, step: float = 0.5, moves: int = 1
) -> Move:
    """Moves by MALA whose step size at each β is found beforehand by other chains, ``PILOT`` are enough, which begin at ``pilot``
    (m, *shape), samples of the path's beginning: a step size that depended on the chains themselves would bias the weights.
    ``step`` is the first one tried."""
    sizes = _step_sizes(pilot, path, betas, rng, step, moves)

    def move(x: Tensor, beta: float) -> Tensor:
        energy = _at(path, beta)
        state = init(x, energy)
        for _ in range(moves):
            state, _ = Mala(sizes[beta]).step(rng, state, energy)
        return state.position

    return move


def _step_sizes(
    x: Tensor, path: Path, betas: Sequence[float], rng: torch.Generator, step: float, moves: int
) -> dict[float, float]:
    sizes, size = {}, step
    for beta in betas[1:]:
        energy = _at(path, beta)
        state = init(x, energy)
        for _ in range(moves):
            state, info = Mala(size).step(rng, state, energy)
            size *= math.exp(min(max(2 * (float(info.acceptance.mean()) - ACCEPTANCE), -0.7), 0.7))
        x, sizes[beta] = state.position, size
    return sizes


def _at(path: Path, beta: float) -> Energy:
    return lambda x: path(x, beta)


def between(start: Energy, end: Energy) -> Path:
    """E_β = (1 − β) E₀ + β E₁."""

    def path(x: Tensor, beta: float) -> Tensor:
        return (1 - beta) * start(x) + beta * end(x)

    return path


def sigmoidal(steps: int, sharpness: float = 4.0) -> list[float]:
    """β from 0 to 1 in ``steps`` steps, short ones at both ends, where the law changes most. InputError unless there is a step,
    and the sharpness is above 0."""
    if steps < 1 or not 0 < sharpness < math.inf:
        raise InputError(f"steps, sharpness: expected 1 or more, and a number above 0, got {steps!r} and {sharpness!r}")
    t = torch.linspace(-sharpness, sharpness, steps + 1, dtype=torch.float64).sigmoid()
    betas = ((t - t[0]) / (t[-1] - t[0])).tolist()
    return [0.0, *betas[1:-1], 1.0]
