"""Autoregressive density of mixed columns with exact likelihood (MADE, Germain et al. 2015; survey section 2).

    p(x) = (1/R) Σ_r Π_j p(x_j | x_{before j in ordering r})

Each column is a code and a value. A code has logits; a value, given that it is present, is a mixture of M
logistics, and a rounded one scores as the mass of its cell, Σ_m π_m (σ((high−μ_m)/s_m) − σ((low−μ_m)/s_m))
(Salimans et al. 2017, PixelCNN++, section 2.1). Missing is one more level of the code. One masked network
an ordering; the R orderings are an even mixture.
"""

from __future__ import annotations

import math
from typing import Annotated, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from mixtura import rng as random
from mixtura.contracts import Conditional, Conditioned, Density, InputError, Phase, Space
from mixtura.nets.masked import CodeLayout, MaskedNet, Walk
from mixtura.rng import generator, seeded
from mixtura.transforms import Columns, Parts, log_logistic_mass


class Config(BaseModel):
    """hidden: widths of the hidden layers. components: logistics a value. orderings: R, one network each.
    natural: whether the first ordering is the table's own (others are drawn). particles: proposals a row when filling gaps."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    hidden: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = (128, 128)
    components: int = Field(default=8, ge=1, le=256)
    orderings: int = Field(default=2, ge=1, le=64)
    natural: bool = True
    particles: int = Field(default=64, ge=2)


#: log-scales of the logistics are held in this range of standardised units
LOG_SCALE = (-9.0, 5.0)


class Autoregressive(Density, Conditional):
    """Exact density of typed columns, one after the other."""

    positions: Tensor
    nets: nn.ModuleList

    def __init__(self, space: Space, context_shape: tuple[int, ...] | None, config: Config, rng: torch.Generator) -> None:
        super().__init__(space, context_shape)
        self.config = config
        self.columns = Columns(space)
        self.layout = CodeLayout(self.columns.cardinalities)
        c, k = self.columns.continuous, self.layout.width
        self.sizes = [k, c * config.components, c * config.components, c * config.components]
        # the orderings follow from the configuration alone: a loaded model has the masks it was trained with
        positions = [torch.randperm(space.dims, generator=generator(r, "ordering")) for r in range(config.orderings)]
        if config.natural:
            positions[0] = torch.arange(space.dims)
        self.register_buffer("positions", torch.stack(positions), persistent=False)
        context = math.prod(context_shape) if context_shape else 0
        with seeded(int(torch.randint(2**62, (), generator=rng))):
            self.nets = nn.ModuleList(self._net(p, context) for p in positions)

    def _net(self, position: Tensor, context: int) -> MaskedNet:
        of_codes = self.layout.positions(position[self.columns.coded])
        of_values = position[self.columns.numeric]
        of_parameters = of_values.repeat_interleave(self.config.components)
        net = MaskedNet(
            torch.cat([of_codes, of_values]), torch.cat([of_codes, *[of_parameters] * 3]), self.config.hidden, context
        )
        _, _, location, log_scale = net.head.bias.data.split(self.sizes)
        m, c = self.config.components, self.columns.continuous
        location.copy_((torch.linspace(-1.5, 1.5, m) if m > 1 else torch.zeros(1)).repeat(c))
        log_scale.fill_(math.log(1.0 / m) if m > 1 else math.log(0.55))
        return net

    # -------------------------------------------------------------------------------------------- training

    def prepare(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        self.columns.prepare(x)
        counts = self.columns.indicators(self.columns.split(x).codes).sum(0) + 0.5
        logits = counts.log().split(list(self.columns.cardinalities)) if self.columns.coded else ()
        start = [g[1:] - g[0] if len(g) == 2 else g - g.logsumexp(0) for g in logits]
        for net in cast(list[MaskedNet], self.nets):
            if start:
                net.head.bias.data[: self.layout.width] = torch.cat(start).to(net.head.bias)

    def feed(self, x: Tensor) -> Tensor:
        return self.columns.split(x).pack()

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("likelihood", tuple(self.nets.parameters()), self._loss),)

    def _loss(self, rows: Tensor, context: Tensor | None, rng: torch.Generator) -> Tensor:
        # the mean over orderings bounds the mixture's own loss from above, and trains every network fully
        parts = self.columns.unpack(rows)
        x = self._inputs(parts, context)
        terms = [self._terms(net(x), parts) for net in self.nets]
        nats = torch.stack([t.sum() for pair in terms for t in pair if t.shape[1]])
        return -nats.sum() / (len(x) * len(terms))

    def _inputs(self, parts: Parts, context: Tensor | None) -> Tensor:
        x = self.layout.inputs(parts.codes)
        if self.columns.continuous:
            x = torch.cat([x, parts.values.float()], 1)
        return x if context is None else torch.cat([x, context.float().flatten(1)], 1)

    def _entries(self, out: Tensor, parts: Parts) -> Tensor:
        """Parameters (n, outputs) → nats of every column given those before it (n, dims), in data units."""
        codes, values = self._terms(out, parts)
        nats = torch.zeros(len(out), self.space.dims, dtype=out.dtype, device=out.device)
        nats[:, self.columns.coded] = codes
        nats[:, self.columns.numeric] += values
        return nats

    def _terms(self, out: Tensor, parts: Parts) -> tuple[Tensor, Tensor]:
        """Nats of every code (n, S) and of every value with its base (n, C)."""
        logits, *mixture = out.split(self.sizes, 1)
        codes = self.layout.log_chosen(logits, parts.codes)
        if not self.columns.continuous:
            return codes, parts.base
        shape = (*parts.values.shape, self.config.components)
        weights, location, log_scale = (t.reshape(shape) for t in mixture)
        nats = torch.log_softmax(weights, -1) + log_logistic_mass(parts, location, log_scale.clamp(*LOG_SCALE))
        values = torch.logsumexp(nats, -1)
        for s, v in self.columns.overlaps:
            # log P(0) − log P(atom): the normaliser of the logits cancels
            group = self.layout.logits(s, logits[:, self.layout.blocks[s]])
            ratio = group[:, 0] - group.gather(1, parts.codes[:, [s]]).squeeze(1)
            landed = nn.functional.softplus(ratio + values[:, v])
            codes = codes + nn.functional.pad((parts.overlap[:, v] * landed).unsqueeze(1), (s, codes.shape[1] - s - 1))
        return codes, torch.where(parts.present, values, 0.0) + parts.base

    # ----------------------------------------------------------------------------------------- using it

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        parts = self.columns.split(x)
        inputs = self._inputs(parts, context)
        single = torch.stack([self._entries(net(inputs).double(), parts).sum(1) for net in self.nets])
        return torch.logsumexp(single, 0) - math.log(len(self.nets))

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        ordering = torch.randint(len(self.nets), (n,), generator=rng)
        x = torch.empty(n, self.space.dims, dtype=torch.float64, device=self.device)
        for r in range(len(self.nets)):
            rows = (ordering == r).nonzero().squeeze(1).to(self.device)
            if len(rows):
                x[rows] = self._walk(r, len(rows), None if context is None else context[rows], rng)
        return x.reshape(n, *self.space.shape)

    def _condition(self, x: Tensor, known: Tensor, draws: int, context: Tensor | None, rng: torch.Generator) -> Conditioned:
        """Likelihood weighting along every ordering: unknown entries are drawn in turn, known ones weigh the
        particle by their conditional; draws are taken from the particles by weight. ``ess`` says how many count."""
        n, R = len(x), len(self.nets)
        each = max(1, self.config.particles // R)
        flat = self.space.flat(self.columns.blank(x, known)).repeat_interleave(each, 0)
        mask = known.reshape(n, -1).repeat_interleave(each, 0)
        widened = None if context is None else context.repeat_interleave(each, 0)
        values, log_weight = [], []
        for r in range(R):
            filled = self._walk(r, n * each, widened, rng, flat, mask)
            values.append(filled.reshape(n, each, -1))
            log_weight.append(self._log_weight(r, filled, mask, widened).reshape(n, each))
        all_values, all_weights = torch.cat(values, 1), torch.cat(log_weight, 1)
        rows = torch.arange(n, device=x.device)
        picked = torch.stack([all_values[rows, random.categorical(all_weights, rng).to(x.device)] for _ in range(draws)])
        ess = 1 / torch.softmax(all_weights, 1).square().sum(1)
        return Conditioned(
            picked.reshape(draws, *x.shape),
            torch.logsumexp(all_weights, 1) - math.log(R * each),
            torch.where(known.reshape(n, -1).all(1), math.inf, ess),
        )

    @torch.no_grad()
    def _log_weight(self, r: int, x: Tensor, known: Tensor, context: Tensor | None) -> Tensor:
        """(n,) nats of the known entries, each given all before it, and of the others not being missing."""
        parts = self.columns.split(x.reshape(-1, *self.space.shape))
        out = self.nets[r](self._inputs(parts, context)).double()
        nats = torch.where(known, self._entries(out, parts), 0.0)
        for s, j in enumerate(self.columns.coded):
            if self.space.columns[j].missing:
                log_codes = torch.log_softmax(self.layout.logits(s, out[:, self.layout.blocks[s]]), 1)
                nats[:, j] += torch.where(known[:, j], 0.0, torch.logsumexp(log_codes[:, :-1], 1))
        return nats.sum(1)

    @torch.no_grad()
    def _walk(
        self, r: int, n: int, context: Tensor | None, rng: torch.Generator, x: Tensor | None = None, known: Tensor | None = None
    ) -> Tensor:
        """(n, dims) rows in data units, drawn column by column in ordering r; ``known`` entries are those of x."""
        net, columns, m = cast(MaskedNet, self.nets[r]), self.columns, self.config.components
        k, c = self.sizes[0], columns.continuous
        given = None if x is None else columns.split(x.reshape(n, *self.space.shape))
        codes = torch.zeros(n, len(columns.coded), dtype=torch.int64, device=self.device)
        values = torch.zeros(n, c, dtype=torch.float64, device=self.device)
        inputs = torch.zeros(n, k + c, device=self.device)
        if context is not None:
            inputs = torch.cat([inputs, context.float().flatten(1)], 1)
        walk = Walk(net, inputs)
        for position, j in enumerate(torch.argsort(self.positions[r]).tolist()):
            s, v = columns.code_of.get(j), columns.value_of.get(j)
            if s is not None:
                logits = self.layout.logits(s, walk.outputs(position, [self.layout.blocks[s]])[0]).double()
                if given is not None and self.space.columns[j].missing:
                    logits[:, -1] = -math.inf  # an unknown entry is one that was observed
                codes[:, s] = random.categorical(logits, rng).to(self.device)
            if v is not None:
                rows = [slice(k + (i * c + v) * m, k + (i * c + v + 1) * m) for i in range(3)]
                weights, location, log_scale = (t.double() for t in walk.outputs(position, rows))
                values[:, v] = columns.settle(_draw_logistic(weights, location, log_scale, rng), v)
            if given is not None and known is not None:
                if s is not None:
                    codes[:, s] = torch.where(known[:, j], given.codes[:, s], codes[:, s])
                if v is not None:
                    values[:, v] = torch.where(known[:, j], given.values[:, v], values[:, v])
            if s is not None:
                if v is not None:
                    codes[:, s] = torch.where(codes[:, s] == 0, columns.recode(v, values[:, v]), codes[:, s])
                    values[:, v] = torch.where(codes[:, s] == 0, values[:, v], 0.0)
                inputs[:, self.layout.blocks[s]] = self.layout.input(s, codes[:, s])
            if v is not None:
                inputs[:, k + v] = values[:, v].to(inputs)
        out = self.space.flat(columns.join(codes, values))
        return out if x is None or known is None else torch.where(known, x, out)


def _draw_logistic(weights: Tensor, location: Tensor, log_scale: Tensor, rng: torch.Generator) -> Tensor:
    """(n, M) parameters → (n,) draws, by inverting the logistic distribution function."""
    which = random.categorical(weights, rng).to(weights.device).unsqueeze(1)
    u = random.uniform((len(weights),), rng, location).clamp(1e-12, 1 - 1e-12)
    scale = log_scale.clamp(*LOG_SCALE).gather(1, which).squeeze(1).exp()
    return location.gather(1, which).squeeze(1) + scale * torch.logit(u)


def suggest(space: Space, rows: int, seconds: float | None = None) -> Config:
    """The configuration for a table of so many fit rows: narrow nets and two orderings for few rows, where variance
    is what hurts; one wide net where steps are what is short."""
    if space.dims > 100:
        return Config(hidden=(500,), components=5, orderings=1)
    if rows < 1_000:
        return Config(hidden=(32, 32), components=3, orderings=2)
    if rows < 5_000:
        return Config(hidden=(64, 64), components=5, orderings=2)
    return Config(hidden=(256, 256), components=10, orderings=1)


def build(space: Space, *, context_shape: tuple[int, ...] | None = None, config: Config, rng: torch.Generator) -> Autoregressive:
    """An untrained model."""
    if space.dims > 4096:
        raise InputError(
            f"autoregressive: {space.dims} columns are more than the 4,096 this family walks through; choose fewer with --columns"
        )
    return Autoregressive(space, context_shape, config, rng)
