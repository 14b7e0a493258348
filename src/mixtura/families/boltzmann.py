"""Boltzmann machines of codes: the restricted Boltzmann machine, and the fully visible one (Ising, Potts).

v is a row of codes as indicators, one group of levels for each column. With h hidden units (Smolensky 1986; Hinton 2002)

    p(v) ∝ Σ_h exp(b·v + c·h + vᵀ W h) = exp(b·v + Σ_j softplus(c_j + W_jᵀ v)),

trained by persistent contrastive divergence with block Gibbs steps. Without hidden units (Besag 1975)

    p(v) ∝ exp(b·v + ½ vᵀ J v),    J = Jᵀ, 0 within a group,

trained by the pseudo-likelihood Σ_i log p(v_i | the other columns), which is exact in its conditionals and consistent. Both are
sampled by sequential Monte Carlo from independent columns, with Gibbs steps (``ground/annealing.py``; Salakhutdinov & Murray
2008), which also estimates log Z. The nats are an estimate, so they stand among the diagnoses, not in a column with exact ones.
"""

from __future__ import annotations

import math

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import softplus

from mixtura.contracts import Energy, Estimate, InputError, Phase, Space, Stage, Turn
from mixtura.ground import rng as random
from mixtura.ground.annealing import Annealed, anneal, sigmoidal
from mixtura.ground.encode import Columns


class Config(BaseModel):
    """hidden: hidden units; 0: none, couplings between columns instead. chains: of persistent contrastive divergence, and of
    sampling at least. gibbs: Gibbs steps of a training step. temperatures: steps from independent columns to the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    hidden: int = Field(default=64, ge=0, le=65_536)
    chains: int = Field(default=256, ge=2)
    gibbs: int = Field(default=5, ge=1, le=1000)
    temperatures: int = Field(default=300, ge=2, le=1_000_000)


RECIPE = {"rate": 2e-2, "batch": 128, "every": 50, "average": 0.998}
#: the most indicators of a row
MOST_INDICATORS = 4_096
#: deviation of the weights at first
FIRST_WEIGHT = 0.02


class BoltzmannMachine(Energy):
    """Codes with hidden units or couplings."""

    chains: Tensor
    log_share: Tensor

    def __init__(self, space: Space, config: Config, rng: torch.Generator) -> None:
        super().__init__(space)
        self.config, self.columns = config, Columns(space)
        self.sizes = list(self.columns.cardinalities)
        width = sum(self.sizes)
        self.bias = nn.Parameter(torch.zeros(width))
        self.weight = nn.Parameter(FIRST_WEIGHT * torch.randn(width, config.hidden or width, generator=rng))
        self.hidden_bias = nn.Parameter(torch.zeros(config.hidden))
        # the codes of the chains: whole numbers, which are not averaged as parameters are
        self.register_buffer("chains", torch.zeros(config.chains if config.hidden else 0, len(self.sizes), dtype=torch.int64))
        self.register_buffer("log_share", torch.zeros(width))
        self._apart = 1 - torch.block_diag(*(torch.ones(k, k) for k in self.sizes))

    # ---------------------------------------------------------------------------------------------------- training

    def _prepare(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        self.columns.prepare(x)
        shares = (self._hot(self.columns.split(x).codes).mean(0) + 0.5 / len(x)).log()
        self.log_share = torch.cat([group - group.logsumexp(0) for group in shares.split(self.sizes)])
        self.bias.data.copy_(self.log_share)
        self.chains = self._codes(self.log_share.expand(len(self.chains), -1), rng)

    def _encode_for_training(self, x: Tensor) -> Tensor:
        return self.columns.encode(x).float()

    def stages(self) -> tuple[Stage, ...]:
        if self.config.hidden:
            phase = Phase("divergence", (self.bias, self.weight, self.hidden_bias), self._divergence)
            return (Stage("divergence", (phase,)),)
        phase = Phase("pseudo-likelihood", (self.bias, self.weight), self._pseudo)
        return (Stage("pseudo-likelihood", (phase,), self._pseudo),)

    def _divergence(self, turn: Turn) -> Tensor:
        with torch.no_grad():
            chosen = torch.randperm(len(self.chains), generator=turn.rng)[: len(turn.x)]
            v = self._hot(self.chains[chosen])
            for _ in range(self.config.gibbs):
                v = self._gibbs(v, 1.0, turn.rng)
            self.chains[chosen] = self._codes_of(v)
        return self.energy(turn.x).mean() - self.energy(v).mean()

    def _pseudo(self, turn: Turn) -> Tensor:
        logits = (self.bias + turn.x @ self._couplings()).split(self.sizes, 1)
        of_columns = [group.log_softmax(1) * hot for group, hot in zip(logits, turn.x.split(self.sizes, 1), strict=True)]
        return -torch.cat(of_columns, 1).sum(1).mean()

    # ------------------------------------------------------------------------------------------------ energy, samples

    def energy(self, e: Tensor, *, context: Tensor | None = None) -> Tensor:
        """(n,) −log p of indicators e (n, width), up to log Z; it is also defined between the levels."""
        return self._energy(e.float(), 1.0)

    def _energy(self, v: Tensor, beta: float) -> Tensor:
        """At β from 0, independent columns with the shares of the fit rows, to 1."""
        along = v @ ((1 - beta) * self.log_share + beta * self.bias)
        if self.config.hidden:
            return -along - softplus(beta * (self.hidden_bias + v @ self.weight)).sum(1)
        return -along - beta * ((v @ self._couplings()) * v).sum(1) / 2

    def _couplings(self) -> Tensor:
        """J (width, width): symmetric, 0 within the groups."""
        return (self.weight + self.weight.T) / 2 * self._apart.to(self.weight)

    def _gibbs(self, v: Tensor, beta: float, rng: torch.Generator) -> Tensor:
        """One step that leaves exp(−E_β) as it is: all hidden units, then all columns; or every column given the others."""
        bias = (1 - beta) * self.log_share + beta * self.bias
        if self.config.hidden:
            on = torch.sigmoid(beta * (self.hidden_bias + v @ self.weight))
            h = (random.uniform(tuple(on.shape), rng, on) < on).float()
            return self._hot(self._codes(bias + beta * h @ self.weight.T, rng))
        couplings, first, v = self._couplings(), 0, v.clone()
        for size in self.sizes:
            at = slice(first, first + size)
            logits = bias[at] + beta * v @ couplings[:, at]
            code = _drawn(logits, rng)
            v[:, at] = torch.nn.functional.one_hot(code, size).float()
            first += size
        return v

    def anneal(self, n: int, rng: torch.Generator, *, redraw: bool = False, temperatures: int | None = None) -> Annealed:
        """n chains from independent columns to the model; their weights estimate Z, as those columns have Z₀ = 2^hidden."""
        start = self._hot(self._codes(self.log_share.expand(n, -1), rng))
        betas = sigmoidal(temperatures or self.config.temperatures)

        def move(v: Tensor, beta: float) -> Tensor:
            return self._gibbs(v, beta, rng)

        with torch.no_grad():
            return anneal(start, self._energy, move, betas, redraw=rng if redraw else None)

    def log_partition(self, rng: torch.Generator, *, chains: int = 256, temperatures: int | None = None) -> Estimate:
        """log Z of exp(−energy) over all rows of codes, by annealed importance sampling."""
        found = self.anneal(chains, rng, temperatures=temperatures).log_ratio
        return Estimate(found.value + self.config.hidden * math.log(2), found.error, found.n)

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        found = self.anneal(max(n, self.config.chains), rng, redraw=True).x
        return self.columns.decode(found[torch.randperm(len(found), generator=rng)[:n]].double())

    def diagnose(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> dict[str, float]:
        """Mean nats of unseen rows with log Z by annealed importance sampling, and the standard error of log Z."""
        log_z = self.log_partition(rng)
        with torch.no_grad():
            nats = -float(self.energy(self.columns.encode(x)).mean()) - log_z.value
        return {"estimated nats": nats, "error of log Z": log_z.error}

    def _hot(self, codes: Tensor) -> Tensor:
        return self.columns.indicators(codes)

    def _codes_of(self, v: Tensor) -> Tensor:
        return torch.stack([group.argmax(1) for group in v.split(self.sizes, 1)], 1)

    def _codes(self, logits: Tensor, rng: torch.Generator) -> Tensor:
        """(n, columns) codes drawn from the logits (n, width) of each group."""
        return torch.stack([_drawn(group, rng) for group in logits.split(self.sizes, 1)], 1)


def _drawn(logits: Tensor, rng: torch.Generator) -> Tensor:
    """(n,) levels from logits (n, k), by the largest logit plus Gumbel noise."""
    u = random.uniform(tuple(logits.shape), rng, logits).clamp(1e-20, 1 - 1e-7)
    return (logits - (-u.log()).log()).argmax(1)


def suggest(space: Space, rows: int, seconds: float | None = None) -> Config:
    """As many hidden units as indicators, up to 256."""
    return Config(hidden=min(256, max(8, sum(c.levels + c.missing for c in space.columns))))


def build(
    space: Space, *, encoding: Columns | None = None, context_shape: tuple[int, ...] | None = None, config: Config,
    rng: torch.Generator,
) -> BoltzmannMachine:  # fmt: skip
    """A Boltzmann machine of codes. InputError for contexts, and for a space with numbers."""
    if context_shape is not None:
        raise InputError("boltzmann: it takes no context; use autoregressive")
    if any(column.kind != "levels" for column in space.columns):
        raise InputError("boltzmann: models levels only, and there are numbers; use energy or autoregressive")
    model = BoltzmannMachine(space, config, rng)
    if sum(model.sizes) > MOST_INDICATORS:
        raise InputError(f"boltzmann: {sum(model.sizes):,} levels in all are more than the {MOST_INDICATORS:,} of this family")
    model.columns.adopt(encoding)
    return model
