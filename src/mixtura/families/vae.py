"""Variational auto-encoder of mixed columns and images (Kingma & Welling 2014), with its importance-weighted bound.

    p(x) = ∫ N(z; 0, I) Π_j p(x_j | z) dz,    q(z | x) = N(μ(x), diag σ(x)²)

Given z the columns are independent: a code has logits, a value that is present a logistic or a Gaussian, and a rounded one
scores as the mass of its cell. Training raises E_q log p(x | z) − β KL(q ‖ p) (Higgins et al. 2017; β = 1 is the evidence
bound); what is reported never contains β, it is the bound of Burda et al. 2016, section 3,

    log p(x) ≥ E log (1/K) Σ_k p(x, z_k) / q(z_k | x),    z_k ~ q(z | x).

For K = 1 it is E_q log p(x | z) − KL: minus a distortion and a rate (Alemi et al. 2018). A rate near 0 means that the codes say
nothing of the rows, posterior collapse, whatever the bound says.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from mixtura import rng as random
from mixtura.contracts import Latent, LowerBound, Phase, Space
from mixtura.nets.coders import perceptron
from mixtura.nets.masked import CodeLayout
from mixtura.rng import seeded
from mixtura.transforms import Columns, Parts, log_logistic_mass, log_normal_mass


class Config(BaseModel):
    """latent: numbers of a code. hidden: widths of both networks' layers; none makes a linear model. beta: weight of the rate in
    training. samples: K in training (more than one trains the importance-weighted bound itself, without beta). observation: of a
    value given the code. scale: of that, "one" for all columns, one a "column", or "free", told by the decoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    latent: int = Field(default=8, ge=1, le=4096)
    hidden: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = (128, 128)
    beta: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    samples: int = Field(default=1, ge=1, le=1000)
    observation: Literal["logistic", "normal"] = "logistic"
    scale: Literal["one", "column", "free"] = "free"


RECIPE = {"rate": 2e-3, "average": 0.998, "patience": 8}
#: log-scales of values are held in this range of standardised units, those of q too
LOG_SCALE = (-9.0, 5.0)
#: a latent is in use if the mean of q moves by this variance from row to row (Burda et al. 2016, section 5)
ACTIVE = 0.01


class Vae(LowerBound, Latent):
    """Hidden standard normal codes, and the bound that q(z | x) makes."""

    how = "importance-weighted"
    draws = 16

    def __init__(self, space: Space, context_shape: tuple[int, ...] | None, config: Config, rng: torch.Generator) -> None:
        super().__init__(space, context_shape)
        self.config, self.latent = config, config.latent
        self.columns = Columns(space)
        self.layout = CodeLayout(self.columns.cardinalities)
        c, k = self.columns.continuous, self.layout.width
        context = math.prod(context_shape) if context_shape else 0
        with seeded(int(torch.randint(2**62, (), generator=rng))):
            self.encoder = perceptron(k + c + context, config.hidden, 2 * config.latent)
            self.decoder = perceptron(config.latent + context, config.hidden, k + c * (2 if config.scale == "free" else 1))
            self.log_scale = nn.Parameter(torch.full((1 if config.scale == "one" else c,), math.log(0.5)))
        nn.init.zeros_(self.decoder[-1].bias)  # type: ignore[arg-type]

    # ---------------------------------------------------------------------------------------------------- training

    def prepare(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        self.columns.prepare(x)
        counts = self.columns.indicators(self.columns.split(x).codes).sum(0) + 0.5
        groups = counts.log().split(list(self.columns.cardinalities)) if self.columns.coded else ()
        start = [g[1:] - g[0] if len(g) == 2 else g - g.logsumexp(0) for g in groups]
        if start:
            self.decoder[-1].bias.data[: self.layout.width] = torch.cat(start)  # type: ignore[union-attr]

    def feed(self, x: Tensor) -> Tensor:
        return self.columns.split(x).pack()

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("evidence", tuple(self.parameters()), self._loss),)

    def _loss(self, rows: Tensor, context: Tensor | None, rng: torch.Generator) -> Tensor:
        parts = self.columns.unpack(rows)
        if self.config.samples > 1:
            weights = torch.stack([self._weight(parts, context, rng) for _ in range(self.config.samples)])
            return math.log(self.config.samples) - torch.logsumexp(weights, 0).mean()
        mean, log_sd = self._q(parts, context)
        z = mean + log_sd.exp() * random.normal(tuple(mean.shape), rng, mean)
        return self.config.beta * _rate(mean, log_sd).mean() - self._log_given(z, parts, context).mean()

    def _q(self, parts: Parts, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log deviation (n, latent) of q(z | x)."""
        seen = [self.layout.inputs(parts.codes), parts.values.float()] + ([] if context is None else [context.float().flatten(1)])
        mean, log_sd = self.encoder(torch.cat(seen, 1)).chunk(2, 1)
        return mean, log_sd.clamp(*LOG_SCALE)

    def _parameters_of(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (n, width) of codes, location and log-scale (n, C) of values given z."""
        c, k = self.columns.continuous, self.layout.width
        out = self.decoder(z if context is None else torch.cat([z, context.float().flatten(1)], 1))
        logits, location, free = out.split([k, c, out.shape[1] - k - c], 1)
        log_scale = self.log_scale + free if self.config.scale == "free" else self.log_scale.expand_as(location)
        return logits, location, log_scale.clamp(*LOG_SCALE)

    def _log_given(self, z: Tensor, parts: Parts, context: Tensor | None) -> Tensor:
        """(n,) log p(x | z), nats in data units."""
        logits, location, log_scale = self._parameters_of(z, context)
        codes = self.layout.log_chosen(logits, parts.codes)
        if self.config.observation == "logistic":
            values = log_logistic_mass(parts, location, log_scale)
        else:
            cell = (parts.low, parts.width, parts.open_low, parts.open_high)
            values = log_normal_mass(*(t.to(location) if t.is_floating_point() else t for t in cell), location, log_scale.exp())
        for s, v in self.columns.overlaps:
            # the atom's cell also holds what rounds to it: P(atom) + P(0) · mass
            group = self.layout.logits(s, logits[:, self.layout.blocks[s]])
            ratio = group[:, 0] - group.gather(1, parts.codes[:, [s]]).squeeze(1)
            landed = torch.where(parts.overlap[:, v], nn.functional.softplus(ratio + values[:, v]), 0.0)
            codes = codes + landed[:, None] * nn.functional.one_hot(torch.tensor(s), codes.shape[1]).to(codes)
        return codes.sum(1) + torch.where(parts.present, values, 0.0).sum(1) + parts.log_base

    # ------------------------------------------------------------------------------------------------------- bound

    def _weight(self, parts: Parts, context: Tensor | None, rng: torch.Generator) -> Tensor:
        """(n,) log p(x, z) / q(z | x) of one z a row."""
        mean, log_sd = self._q(parts, context)
        ε = random.normal(tuple(mean.shape), rng, mean)
        z = mean + log_sd.exp() * ε
        return self._log_given(z, parts, context) + (0.5 * (ε.square() - z.square()) + log_sd).sum(1)

    def _log_prob_bound(self, x: Tensor, context: Tensor | None, draws: int, rng: torch.Generator) -> Tensor:
        parts = self.columns.split(x)
        return torch.logsumexp(torch.stack([self._weight(parts, context, rng) for _ in range(draws)]), 0) - math.log(draws)

    def diagnose(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> dict[str, float]:
        """rate and distortion, whose sum is minus the evidence bound (nats a row); active: latents in use, of ``latents``."""
        parts = self.columns.split(self.space.clamp(x))
        mean, log_sd = self._q(parts, context)
        z = mean + log_sd.exp() * random.normal(tuple(mean.shape), rng, mean)
        return {
            "rate": float(_rate(mean, log_sd).mean()),
            "distortion": -float(self._log_given(z, parts, context).mean()),
            "active": float((mean.var(0) > ACTIVE).sum()),
            "latents": float(self.latent),
        }

    # ------------------------------------------------------------------------------------------------------- codes

    def encode(self, x: Tensor, *, context: Tensor | None = None) -> Tensor:
        x = self.space.clamp(self.space.check(x))
        context = self.check_context(context, len(x))
        return self._q(self.columns.split(x), context)[0]

    def decode(self, z: Tensor, *, context: Tensor | None = None, rng: torch.Generator) -> Tensor:
        logits, location, log_scale = self._parameters_of(z, self.check_context(context, len(z)))
        codes = torch.zeros(len(z), len(self.columns.coded), dtype=torch.int64, device=z.device)
        for s, block in enumerate(self.layout.blocks):
            codes[:, s] = random.categorical(self.layout.logits(s, logits[:, block]), rng).to(z.device)
        if self.config.observation == "logistic":
            noise = torch.logit(random.uniform(tuple(location.shape), rng, location.double()).clamp(1e-12, 1 - 1e-12))
        else:
            noise = random.normal(tuple(location.shape), rng, location)
        return self.columns.join(codes, location + log_scale.exp() * noise)

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        return self.decode(random.normal((n, self.latent), rng, self.log_scale), context=context, rng=rng)


def _rate(mean: Tensor, log_sd: Tensor) -> Tensor:
    """(n,) KL(N(mean, e^{2 log_sd}) ‖ N(0, I)), nats."""
    return 0.5 * (mean.square() + (2 * log_sd).exp() - 1 - 2 * log_sd).sum(1)


def suggest(space: Space, rows: int, seconds: float | None = None) -> Config:
    """The configuration for so many fit rows: small networks for few rows, wide ones for images."""
    if space.dims > 100:
        return Config(latent=32, hidden=(512, 256))
    hidden = (64,) if rows < 1_000 else (128, 128) if rows < 5_000 else (256, 256)
    return Config(latent=min(16, max(2, space.dims)), hidden=hidden)


def build(space: Space, *, context_shape: tuple[int, ...] | None = None, config: Config, rng: torch.Generator) -> Vae:
    """An untrained model."""
    return Vae(space, context_shape, config, rng)
