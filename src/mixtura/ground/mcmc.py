"""Markov chain Monte Carlo: many chains at once that sample p(x) ∝ exp(−E(x)), and diagnostics of their draws.

An energy E takes (n, *shape) and returns (n,): −log p up to a constant, differentiable, where each value depends on its own row
only (no batch normalisation in training mode). Row i of every tensor is chain i. The three samplers share one move, ``leaps``
leapfrog steps of length ε with a new momentum p ~ N(0, I) each time:

    p ← p − (ε/2) ∇E(x),   x ← x + ε p,   p ← p − (ε/2) ∇E(x)                                 (Neal 2011, section 5.2.3)

One leap gives x − (ε²/2) ∇E(x) + ε p, so :class:`Langevin` is one leap that is always kept, :class:`Mala` is one leap that is
kept or rejected, and :class:`Hmc` is several leaps. The step size ε is a length in the units of x for all three.

>>> rng = torch.Generator().manual_seed(0)
>>> x = torch.zeros(4, 2, dtype=torch.float64)
>>> chains = run(Hmc(0.5, leaps=4), x, lambda x: 0.5 * (x**2).sum(1), 300, rng)
>>> chains.draws.shape, bool((r_hat(chains.draws) < 1.02).all())
(torch.Size([300, 4, 2]), True)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import TypeVar

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from mixtura.contracts import InputError
from mixtura.ground import rng as random

#: (n, *shape) → (n,): −log p up to a constant
Energy = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class State:
    """The state of the chains: position (n, *shape), energy (n,) and gradient ∇E (n, *shape), all detached."""

    position: Tensor
    energy: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class Info:
    """What one step did to each chain; :func:`run` stacks steps into (steps, n).

    acceptance:   (n,) probability min(1, exp(−energy_error)) of accepting the move. Langevin accepts every move: there it is the
                  probability with which MALA would accept, and the bias of Langevin is small where it is near 1.
    accepted:     (n,) bool, whether the move was accepted.
    energy_error: (n,) change of E(x) + |p|²/2 over the move, 0 for an exact integrator; inf where the move ends at an energy or
                  gradient that is not finite.
    """

    acceptance: Tensor
    accepted: Tensor
    energy_error: Tensor


@dataclass(frozen=True)
class Chains:
    """draws (steps, n, *shape), one after each step; info with (steps, n) entries; the last state, to continue from."""

    draws: Tensor
    info: Info
    state: State


def init(x: Tensor, energy: Energy) -> State:
    """The state of chains that start at ``x`` (n, *shape), float32 or float64. It is valid for this energy only: if the energy
    has changed since (because its network was trained), call ``init(state.position, energy)`` again.

    Raises InputError if x is not such a tensor, if the energy is not (n,) or not differentiable in x, and if a row starts at an
    energy or gradient that is not finite.
    """
    if not isinstance(x, Tensor) or x.dtype not in (torch.float32, torch.float64) or x.dim() == 0 or x.numel() == 0:
        got = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"x: expected a float32 or float64 tensor (n, *shape), got {got}; give one row per chain")
    row = _first(~_finite(x))
    if row is not None:
        raise InputError(f"x: row {row} is not finite, expected real numbers; start that chain elsewhere")
    state = _evaluate(x.clone(), energy)
    row = _first(~_usable(state))
    if row is not None:
        raise InputError(
            f"x: row {row} has energy {float(state.energy[row]):g} and gradient of norm {float(state.gradient[row].norm()):g}, "
            "expected finite ones; start that chain elsewhere"
        )
    return state


@dataclass(frozen=True)
class Sampler(ABC):
    """Does one step of every chain, with step size ε > 0. A sampler holds settings only; everything that changes is in State."""

    step_size: float

    def __post_init__(self) -> None:
        if not (isinstance(self.step_size, Real) and 0 < self.step_size < math.inf):
            raise InputError(f"step_size: expected a finite number above 0, got {self.step_size!r}; give a length in x's units")

    def init(self, x: Tensor, energy: Energy) -> State:
        """:func:`init`."""
        return init(x, energy)

    @abstractmethod
    def step(self, rng: torch.Generator, state: State, energy: Energy) -> tuple[State, Info]:
        """The next state and the record of this step; every draw comes from ``rng``."""


@dataclass(frozen=True)
class Langevin(Sampler):
    """Unadjusted Langevin: x ← x − (ε²/2) ∇E(x) + ε ξ, ξ ~ N(0, I) (Roberts & Tweedie 1996). No move is rejected, so it samples
    exp(−E) only as ε → 0: on a Gaussian of variance σ² its draws have variance σ² / (1 − ε²/(4σ²)), and for ε ≥ 2σ it diverges.

    A noisy gradient descent x − η ∇E + ν ξ is Langevin(ν) on the energy (2η/ν²) E, that is, at temperature ν²/(2η).

    ``step`` raises FloatingPointError, with the row, if a chain reaches an energy or gradient that is not finite.
    """

    def step(self, rng: torch.Generator, state: State, energy: Energy) -> tuple[State, Info]:
        end, error = _move(rng, state, energy, self.step_size, 1)
        row = _first(torch.isinf(error))
        if row is not None:
            raise FloatingPointError(
                f"Langevin: position, energy or gradient of row {row} is not finite after a step of size {self.step_size:g}; "
                "take a smaller one, or Mala, which rejects such moves"
            )
        return end, Info(_probability(error), torch.ones_like(error, dtype=torch.bool), error)


@dataclass(frozen=True)
class Mala(Sampler):
    """Metropolis-adjusted Langevin (Roberts & Tweedie 1996): the step of :class:`Langevin`, accepted with the probability for
    which exp(−E) is sampled exactly. A move to an energy or gradient that is not finite is rejected. The best acceptance rate is
    near 0.574 (Roberts & Rosenthal 1998)."""

    def step(self, rng: torch.Generator, state: State, energy: Energy) -> tuple[State, Info]:
        return _adjusted(rng, state, energy, self.step_size, 1)


@dataclass(frozen=True)
class Hmc(Sampler):
    """Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011): ``leaps`` leapfrog steps of size ε, then accepted or rejected as in
    :class:`Mala`. The trajectory has length leaps·ε. On a Gaussian of scale σ a trajectory of length πσ ends at −x and one of
    length 2πσ at x, so |x| never changes: keep the length near (π/2)σ for the smallest scale σ."""

    leaps: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _whole("leaps", self.leaps)

    def step(self, rng: torch.Generator, state: State, energy: Energy) -> tuple[State, Info]:
        return _adjusted(rng, state, energy, self.step_size, self.leaps)


def run(sampler: Sampler, x: Tensor, energy: Energy, steps: int, rng: torch.Generator) -> Chains:
    """Take ``steps`` steps from ``x`` (n, *shape). All draws are returned: drop the warm-up with ``draws[warm_up:]``.

    Raises the errors of :func:`init`, and FloatingPointError if :class:`Langevin` diverges.
    """
    state = sampler.init(x, energy)
    positions, infos = [], []
    for _ in range(_whole("steps", steps)):
        state, info = sampler.step(rng, state, energy)
        positions.append(state.position)
        infos.append(info)
    stacked = Info(*(torch.stack([getattr(info, field.name) for info in infos]) for field in fields(Info)))
    return Chains(torch.stack(positions), stacked, state)


Adjusted = TypeVar("Adjusted", Mala, Hmc)


def adapt(
    sampler: Adjusted, x: Tensor, energy: Energy, steps: int, rng: torch.Generator, *, target: float = 0.8
) -> tuple[Adjusted, State]:
    """A warm-up: returns the sampler with a step size whose mean acceptance over chains and steps is near ``target``, and the
    state at its end. It uses dual averaging with γ = 0.05, t₀ = 10, κ = 0.75 (Hoffman & Gelman 2014, section 3.2): after step t

        h ← h + (target − acceptance − h) / (t + t₀),   log ε = log(10 ε₀) − (√t / γ) h,   mean ← t^−κ log ε + (1 − t^−κ) mean

    and exp(mean) is the result. Draws of the warm-up do not sample exp(−E), because the step size depends on them. A target of
    0.8 suits Hmc, 0.574 Mala. Raises InputError on a target outside (0, 1), and for Langevin, which accepts every move.
    """
    if not isinstance(sampler, Mala | Hmc):
        raise InputError(f"sampler: expected Mala or Hmc, got {type(sampler).__name__}; only these reject moves")
    if not (isinstance(target, Real) and 0 < target < 1):
        raise InputError(f"target: expected an acceptance between 0 and 1, got {target!r}; 0.8 suits Hmc and 0.574 Mala")
    state, centre = sampler.init(x, energy), math.log(10 * sampler.step_size)
    log_step, h, mean = math.log(sampler.step_size), 0.0, 0.0
    for t in range(1, _whole("steps", steps) + 1):
        state, info = replace(sampler, step_size=math.exp(log_step)).step(rng, state, energy)
        h += (target - float(info.acceptance.mean()) - h) / (t + 10)
        log_step = centre - math.sqrt(t) / 0.05 * h
        mean += t**-0.75 * (log_step - mean)
    return replace(sampler, step_size=math.exp(mean)), state


def _move(rng: torch.Generator, state: State, energy: Energy, step_size: float, leaps: int) -> tuple[State, Tensor]:
    """The state after leapfrog steps with a new momentum, and the error of the total energy."""
    momentum = random.normal(tuple(state.position.shape), rng, state.position)
    end, end_momentum, finite = _leapfrog(state, momentum, energy, step_size, leaps)
    error = end.energy + _kinetic(end_momentum) - state.energy - _kinetic(momentum)
    return end, torch.where(finite & _usable(end) & ~torch.isnan(error), error, math.inf)


def _leapfrog(state: State, momentum: Tensor, energy: Energy, step_size: float, leaps: int) -> tuple[State, Tensor, Tensor]:
    """(state, momentum) at the end, and (n,) bool: which rows stayed finite. A row that did not is left at its last finite
    position, because an energy may refuse other numbers."""
    finite = _finite(state.position)
    for _ in range(leaps):
        momentum = momentum - step_size / 2 * state.gradient
        position = state.position + step_size * momentum
        finite = finite & _finite(position)
        state = _evaluate(torch.where(_broadcast(finite, position), position, state.position), energy)
        momentum = momentum - step_size / 2 * state.gradient
    return state, momentum, finite


def _adjusted(rng: torch.Generator, state: State, energy: Energy, step_size: float, leaps: int) -> tuple[State, Info]:
    """A move that is accepted with probability min(1, exp(−energy error)) (Metropolis et al. 1953)."""
    end, error = _move(rng, state, energy, step_size, leaps)
    probability = _probability(error)
    accepted = random.uniform(tuple(error.shape), rng, error) < probability
    pairs = ((getattr(end, field.name), getattr(state, field.name)) for field in fields(State))
    return State(*(torch.where(_broadcast(accepted, new), new, old) for new, old in pairs)), Info(probability, accepted, error)


def _probability(error: Tensor) -> Tensor:
    return torch.exp(-error.clamp(min=0))


def _evaluate(x: Tensor, energy: Energy) -> State:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        e = energy(x)
        if not isinstance(e, Tensor) or e.shape != x.shape[:1]:
            got = tuple(e.shape) if isinstance(e, Tensor) else type(e).__name__
            raise InputError(f"energy: expected shape ({len(x)},), one number a row, got {got}; sum over all other dimensions")
        gradient = torch.autograd.grad(e.sum(), x, allow_unused=True)[0] if e.requires_grad else None
    if gradient is None:
        raise InputError("energy: expected a function with a gradient in x, got one that does not depend on it; do not detach x")
    return State(x.detach(), e.detach().to(x.dtype), gradient)


def _kinetic(momentum: Tensor) -> Tensor:
    return 0.5 * (momentum**2).reshape(len(momentum), -1).sum(1)


def _finite(x: Tensor) -> Tensor:
    return torch.isfinite(x).reshape(len(x), -1).all(1)


def _usable(state: State) -> Tensor:
    return torch.isfinite(state.energy) & _finite(state.gradient)


def _broadcast(rows: Tensor, x: Tensor) -> Tensor:
    """(n,) → (n, 1, …), to select rows of x."""
    return rows.reshape(-1, *(1,) * (x.dim() - 1))


def _first(bad: Tensor) -> int | None:
    return int(bad.nonzero()[0]) if bool(bad.any()) else None


def _whole(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name}: expected a whole number of at least 1, got {value!r}; give the number of steps to take")
    return value


# ------------------------------------------------------------------------------------------------ diagnostics


def effective_sample_size(draws: Tensor) -> Tensor:
    """The number of independent draws that would estimate the mean of each entry as precisely: (T, n, *shape), T draws of each
    of n chains, → (*shape,) float64. For the error of another moment give its terms: ``effective_sample_size(draws**2)``.

    Each chain is split into halves, so that a drift is detected. With N draws in each of M half chains, W their mean variance,
    B/N the variance of their means, V = (N−1)/N W + B/N and c_t the mean autocovariance at lag t (divided by N),

        ρ_t = 1 − (W − c_t) / V,   P_k = ρ_2k + ρ_2k+1,   ESS = M N / τ,   τ = −1 + 2 Σ_k P_k,

    where the sum ends before the first P_k < 0, and P_k is made to decrease (Geyer 1992, section 3.3; Vehtari, Gelman, Simpson,
    Carpenter & Bürkner 2021, section 3.2). The result is at most M N log₁₀(M N), as in Stan. The standard error of a mean is the
    standard deviation divided by √ESS.

    Raises InputError on fewer than 4 draws, on a draw that is not finite and on an entry that never varies.
    """
    halves, shape = _halves(draws)
    n, m, _ = halves.shape
    within, total = _variances(halves)
    centred = halves - halves.mean(0)
    spectrum = torch.fft.rfft(centred, n=2 * n, dim=0)  # padded with zeros, so that the correlation is not circular
    autocovariance = torch.fft.irfft(spectrum.abs() ** 2, n=2 * n, dim=0)[:n].mean(1) / n
    rho = 1 - (within - autocovariance) / total
    rho[0] = 1
    pairs = rho[: n // 2 * 2].reshape(n // 2, 2, -1).sum(1)
    pairs = torch.where((pairs < 0).cumsum(0) == 0, pairs.cummin(0).values, 0.0)
    tau = (2 * pairs.sum(0) - 1).clamp(min=1 / math.log10(m * n))
    return (m * n / tau).reshape(shape)


def r_hat(draws: Tensor) -> Tensor:
    """Rank-normalised split R̂ (Vehtari et al. 2021, sections 3.1 and 4): (T, n, *shape) → (*shape,) float64. Near 1 where all
    chains sample one distribution; above 1.01 they have not mixed. inf if every half chain is constant and they differ.

    With the halves, W and V of :func:`effective_sample_size`, R̂ = √(V / W) of z = Φ⁻¹((r − 3/8) / (S + 1/4)), where r is the rank
    of a draw among all S. It is computed for x, which detects different locations, and for |x − median|, which detects different
    scales; the result is the larger one. One chain (n = 1) gives two halves.

    Raises InputError as :func:`effective_sample_size` does.
    """
    halves, shape = _halves(draws)
    folded = (halves - torch.as_tensor(np.median(halves.numpy(), (0, 1)))).abs()
    # fmax ignores the NaN of 0/0, where |x − median| never varies (draws of ±1)
    return torch.fmax(_split_r_hat(halves), _split_r_hat(folded)).reshape(shape)


def _split_r_hat(halves: Tensor) -> Tensor:
    flat = halves.reshape(-1, halves.shape[2])
    ranks = torch.as_tensor(rankdata(flat.numpy(), axis=0))
    within, total = _variances(torch.special.ndtri((ranks - 0.375) / (len(flat) + 0.25)).reshape(halves.shape))
    return torch.sqrt(total / within)


def _variances(chains: Tensor) -> tuple[Tensor, Tensor]:
    """(N, M, d) → W and V, (d,) each."""
    within = chains.var(0).mean(0)
    return within, within * (len(chains) - 1) / len(chains) + chains.mean(0).var(0)


def _halves(draws: Tensor) -> tuple[Tensor, torch.Size]:
    """(T, n, *shape) → (T/2, 2n, d) float64 on the CPU, and shape. An odd T loses its middle draw."""
    if not isinstance(draws, Tensor) or draws.dim() < 2 or len(draws) < 4 or draws.numel() == 0:
        got = tuple(draws.shape) if isinstance(draws, Tensor) else type(draws).__name__
        raise InputError(f"draws: expected (T, n, *shape) with T ≥ 4 draws of each of n chains, got {got}; run more steps")
    x = draws.detach().to("cpu", torch.float64).reshape(len(draws), draws.shape[1], -1)
    bad = ~torch.isfinite(x)
    if bad.any():
        t, chain, entry = (int(i) for i in bad.nonzero()[0])
        raise InputError(
            f"draws: draw {t} of chain {chain}, entry {entry}, is {float(x[t, chain, entry])}, expected a finite number; "
            "use only the draws before it"
        )
    n = len(x) // 2
    halves = torch.cat([x[:n], x[-n:]], 1)
    constant = _first((halves == halves[0, 0]).all(0).all(0))
    if constant is not None:
        value = float(x[0, 0, constant])
        raise InputError(f"draws: entry {constant} is {value:g} in every draw, expected an entry that varies; leave it out")
    return halves, draws.shape[2:]
