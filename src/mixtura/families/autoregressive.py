"""Autoregressive models with an exact density: of mixed columns (MADE, Germain et al. 2015) and of images (PixelCNN, van den
Oord et al. 2016).

    p(x) = (1/R) Σ_r Π_j p(x_j | x_{before j in ordering r})

Each column is a code and a value. A code has logits; "missing" is one of its levels. A value, given that it is present, has a
mixture of M logistics, and a rounded value scores as the mass of its cell, Σ_m π_m (σ((high−μ_m)/s_m) − σ((low−μ_m)/s_m))
(Salimans et al. 2017, PixelCNN++, section 2.1). Each ordering has its own masked network, and the R orderings have equal weights.

For images, :class:`PixelModel` models the values in raster order with causal convolutions (nets/pixels.py): each value has a
softmax over the levels (van den Oord et al. 2016, section 3.2), or the same mixture of logistics.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from mixtura.contracts import Conditional, Conditioned, Density, InputError, Space, Stage, Turn, single_stage
from mixtura.ground import rng as random
from mixtura.ground.cells import Parts, RecurringBins, log_logistic_mass, log_recurring_mass
from mixtura.ground.encode import Columns
from mixtura.ground.nets.masked import CodeLayout, MaskedNet, Walk
from mixtura.ground.nets.pixels import PixelNet, PixelWalk
from mixtura.ground.rng import generator, seeded


class Config(BaseModel):
    """kind: "masked" (any columns) or "pixels" (images only).

    For "masked": hidden: widths of the hidden layers. orderings: R, with one network for each. natural: whether the first
    ordering is that of the table; the others are random. particles: proposals for each row when missing entries are filled in.
    For "pixels": width: features for each channel. dilations: one for each residual block. head: "levels" (a softmax, for few
    levels and many rows) or "logistics".
    components: for both kinds, the number of logistics for each value."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["masked", "pixels"] = "masked"
    hidden: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = (128, 128)
    components: int = Field(default=8, ge=1, le=256)
    orderings: int = Field(default=2, ge=1, le=64)
    natural: bool = True
    particles: int = Field(default=64, ge=2)
    width: int = Field(default=32, ge=1, le=1024)
    dilations: tuple[Annotated[int, Field(ge=1, le=64)], ...] = (1, 2, 1, 2)
    head: Literal["levels", "logistics"] = "logistics"


#: the average of the parameters is worth .005 to .01 nats on the law of benchmarks/known_law.py
RECIPE = {"average": 0.998}
#: log-scales of the logistics are clamped to this range, in standardised units
LOG_SCALE = (-9.0, 5.0)
#: convolutions are for images that they pass over at least so often. On one core a pass takes about so many seconds for each
#: value (32 features, four blocks), and the family has about this share of the seconds of a run
PASSES, SECONDS_A_VALUE, SHARE = 3, 1.5e-5, 0.15
#: the most images that are scored or drawn at once
TILE = 256
#: the fewest images that are drawn at once: with fewer rows a matrix product may sum in another order
LEAST_TILE = 32


class Autoregressive(Density, Conditional):
    """Exact density of typed columns, each given the columns before it."""

    positions: Tensor
    nets: nn.ModuleList

    def __init__(self, space: Space, context_shape: tuple[int, ...] | None, config: Config, rng: torch.Generator) -> None:
        super().__init__(space, context_shape)
        self.config = config
        self.columns = Columns(space)
        self.layout = CodeLayout(self.columns.cardinalities)
        c, k = self.columns.continuous, self.layout.width
        self.sizes = [k, c * config.components, c * config.components, c * config.components]
        # the orderings depend on the configuration only, so a loaded model has the masks it was trained with
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

    def _prepare(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        self.columns.prepare(x)
        self.columns.find_recurring(x, context)
        counts = self.columns.indicators(self.columns.split(x).codes).sum(0) + 0.5
        logits = counts.log().split(list(self.columns.cardinalities)) if self.columns.coded else ()
        start = [g[1:] - g[0] if len(g) == 2 else g - g.logsumexp(0) for g in logits]
        for net in cast(list[MaskedNet], self.nets):
            if start:
                net.head.bias.data[: self.layout.width] = torch.cat(start).to(net.head.bias)

    def _encode_for_training(self, x: Tensor) -> Tensor:
        return self.columns.split(x).pack()

    def stages(self) -> tuple[Stage, ...]:
        return single_stage("likelihood", self.nets.parameters(), self._loss)

    def _loss(self, turn: Turn) -> Tensor:
        # the mean over orderings is an upper bound on the loss of the mixture, and trains every network fully
        parts = self.columns.unpack(turn.x)
        x = self._inputs(parts, turn.context)
        terms = [self._terms(net(x), parts) for net in self.nets]
        nats = torch.stack([t.sum() for pair in terms for t in pair if t.shape[1]])
        return -nats.sum() / (len(x) * len(terms))

    def _inputs(self, parts: Parts, context: Tensor | None) -> Tensor:
        x = self.layout.inputs(parts.codes)
        if self.columns.continuous:
            x = torch.cat([x, parts.values.float()], 1)
        return x if context is None else torch.cat([x, context.float().flatten(1)], 1)

    def _entries(self, out: Tensor, parts: Parts) -> Tensor:
        """Network outputs (n, outputs) → (n, dims) nats of every column given those before it, in data units."""
        codes, values = self._terms(out, parts)
        nats = torch.zeros(len(out), self.space.dims, dtype=out.dtype, device=out.device)
        nats[:, self.columns.coded] = codes
        nats[:, self.columns.numeric] += values
        return nats

    def _terms(self, out: Tensor, parts: Parts) -> tuple[Tensor, Tensor]:
        """Nats of every code (n, S), and of every value including its base (n, C)."""
        logits, *mixture = out.split(self.sizes, 1)
        codes = self.layout.log_chosen(logits, parts.codes)
        if not self.columns.continuous:
            return codes, parts.base
        shape = (*parts.values.shape, self.config.components)
        weights, location, log_scale = (t.reshape(shape) for t in mixture)
        log_weights, log_scale = torch.log_softmax(weights, -1), log_scale.clamp(*LOG_SCALE)

        def law(cells: Parts | RecurringBins, at: Tensor | slice) -> Tensor:
            return torch.logsumexp(log_weights[:, at] + log_logistic_mass(cells, location[:, at], log_scale[:, at]), -1)

        values = log_recurring_mass(parts, law)
        for s, v in self.columns.overlaps:
            # log P(0) − log P(atom), in which the normaliser of the logits cancels
            group = self.layout.logits(s, logits[:, self.layout.blocks[s]])
            ratio = group[:, 0] - group.gather(1, parts.codes[:, [s]]).squeeze(1)
            landed = nn.functional.softplus(ratio + values[:, v])
            codes = codes + nn.functional.pad((parts.overlap[:, v] * landed).unsqueeze(1), (s, codes.shape[1] - s - 1))
        return codes, torch.where(parts.present, values, 0.0) + parts.base

    # ----------------------------------------------------------------------------------------- using it

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        parts = self.columns.split(x, recurring=True)
        inputs = self._inputs(parts, context)
        single = torch.stack([self._entries(net(inputs).double(), parts).sum(1) for net in self.nets])
        return torch.logsumexp(single, 0) - math.log(len(self.nets))

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        if self.space.is_image:
            return _in_tiles(self._sample_image, 1 + 2 * self.space.dims, n, context, rng)
        ordering = torch.randint(len(self.nets), (n,), generator=rng)
        x = torch.empty(n, self.space.dims, dtype=torch.float64, device=self.device)
        for r in range(len(self.nets)):
            rows = (ordering == r).nonzero().squeeze(1).to(self.device)
            if len(rows):
                draw = partial(_uniform, len(rows), rng)
                x[rows] = self._walk(r, len(rows), None if context is None else context[rows], draw)
        return x.reshape(n, *self.space.shape)

    def _sample_image(self, u: Tensor, context: Tensor | None) -> Tensor:
        """Draw every row from its own uniform numbers (n, 1 + 2 dims)."""
        ordering = (u[:, 0] * len(self.nets)).long()
        x = torch.empty(len(u), *self.space.shape, dtype=torch.float64, device=self.device)
        for r in range(len(self.nets)):
            # draw all rows in every ordering: the rounding of a matrix product depends on the number of rows
            walked = self._walk(r, len(u), context, iter(u[:, 1:].unbind(1)).__next__)
            x[ordering == r] = walked.reshape(x.shape)[ordering == r]
        return x

    def _condition(self, x: Tensor, known: Tensor, draws: int, context: Tensor | None, rng: torch.Generator) -> Conditioned:
        """Likelihood weighting along every ordering: unknown entries are drawn in turn, and each known entry multiplies the
        weight of its particle by its conditional density. Draws are particles chosen by weight; ``ess`` is their effective
        sample size."""
        n, R = len(x), len(self.nets)
        each = max(1, self.config.particles // R)
        flat = self.space.flat(self.columns.blank(x, known)).repeat_interleave(each, 0)
        mask = known.reshape(n, -1).repeat_interleave(each, 0)
        widened = None if context is None else context.repeat_interleave(each, 0)
        values, log_weight = [], []
        for r in range(R):
            filled = self._walk(r, n * each, widened, partial(_uniform, n * each, rng), flat, mask)
            values.append(filled.reshape(n, each, -1))
            log_weight.append(self._log_weight(r, filled, mask, widened).reshape(n, each))
        all_values, all_weights = torch.cat(values, 1), torch.cat(log_weight, 1)
        rows = torch.arange(n, device=x.device)
        picked = all_values[rows, random.categoricals(all_weights, draws, rng)]
        ess = 1 / torch.softmax(all_weights, 1).square().sum(1)
        return Conditioned(
            picked.reshape(draws, *x.shape),
            torch.logsumexp(all_weights, 1) - math.log(R * each),
            torch.where(known.reshape(n, -1).all(1), math.inf, ess),
        )

    @torch.no_grad()
    def _log_weight(self, r: int, x: Tensor, known: Tensor, context: Tensor | None) -> Tensor:
        """(n,) nats of the known entries, each given all before it, and of the other entries not being missing."""
        parts = self.columns.split(x.reshape(-1, *self.space.shape), recurring=True)
        out = self.nets[r](self._inputs(parts, context)).double()
        nats = torch.where(known, self._entries(out, parts), 0.0)
        for s, j in enumerate(self.columns.coded):
            if self.space.columns[j].missing:
                log_codes = torch.log_softmax(self.layout.logits(s, out[:, self.layout.blocks[s]]), 1)
                nats[:, j] += torch.where(known[:, j], 0.0, torch.logsumexp(log_codes[:, :-1], 1))
        return nats.sum(1)

    @torch.no_grad()
    def _walk(
        self,
        r: int,
        n: int,
        context: Tensor | None,
        draw: Callable[[], Tensor],
        x: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """(n, dims) rows in data units, drawn column by column in ordering r. Each call of ``draw`` gives (n,) uniform numbers.
        Entries in ``known`` are copied from x."""
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
                    logits[:, -1] = -math.inf  # an unknown entry is filled with an observed value
                codes[:, s] = random.inverted(logits, draw())
            if v is not None:
                rows = [slice(k + (i * c + v) * m, k + (i * c + v + 1) * m) for i in range(3)]
                weights, location, log_scale = (t.double() for t in walk.outputs(position, rows))
                values[:, v] = columns.redraw(_draw_logistic(weights, location, log_scale, draw(), draw()), v, draw)
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


class PixelModel(Density):
    """Exact density of images: p(x) = Π_j p(x_j | values before j in raster order, channel by channel within a pixel)."""

    #: a pass over a whole image is expensive: use small batches, large steps and the moving average of the parameters
    recipe: Mapping[str, Any] = MappingProxyType({"batch": 16, "rate": 3e-3, "average": 0.99})

    def __init__(self, space: Space, context_shape: tuple[int, ...] | None, config: Config, rng: torch.Generator) -> None:
        super().__init__(space, context_shape)
        self.config = config
        self.columns = Columns(space)
        self.levels = space.columns[0].steps if config.head == "levels" else 0
        context = math.prod(context_shape) if context_shape else 0
        with seeded(int(torch.randint(2**62, (), generator=rng))):
            self.net = PixelNet(
                space.shape, config.width * space.shape[0], config.dilations, self.levels or 3 * config.components, context
            )

    # -------------------------------------------------------------------------------------------- training

    def _prepare(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        """Start with the marginals as outputs: smoothed frequencies of the levels of every pixel, or evenly spread logistics."""
        self.columns.prepare(x)
        level = self.net.level.data.view(-1, self.net.outputs)
        if self.levels:
            counts = torch.zeros_like(level).scatter_add_(1, self._codes(x).T, level.new_ones(level.shape[0], len(x)))
            pooled = counts.sum(0) + 1
            level.copy_((counts + pooled / pooled.sum()).log())
        else:
            m = self.config.components
            weights, location, log_scale = level.split(m, 1)
            weights.zero_()
            location.copy_(torch.linspace(-1.5, 1.5, m))
            log_scale.fill_(math.log(1.0 / m))

    def stages(self) -> tuple[Stage, ...]:
        return single_stage("likelihood", self.net.parameters(), self._loss)

    def _loss(self, turn: Turn) -> Tensor:
        return -self._log_prob(turn.x, turn.context).mean()

    def _codes(self, x: Tensor) -> Tensor:
        """(n, C, H, W) in data units → (n, dims) level numbers 0, 1, …"""
        low, step = self.space.columns[0].low, self.space.columns[0].resolution
        return ((self.space.flat(x) - low) / step).round().long()

    # ----------------------------------------------------------------------------------------- using it

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return torch.cat(
            [
                self._tile(x[i : i + TILE], None if context is None else context[i : i + TILE])
                for i in range(0, len(x), TILE)
            ]
        )

    def _tile(self, x: Tensor, context: Tensor | None) -> Tensor:
        parts = self.columns.split(x)
        out = self.net(parts.values.float().reshape(x.shape), None if context is None else context.float().flatten(1))
        if self.levels:
            nats = -functional.cross_entropy(out.flatten(0, 1), self._codes(x).flatten(), reduction="none")
            return nats.reshape(len(x), -1).double().sum(1) + parts.log_base
        if not self.training:
            out = out.double()
        else:
            parts = self.columns.unpack(parts.pack())
        weights, location, log_scale = out.split(self.config.components, 2)
        nats = torch.log_softmax(weights, 2) + log_logistic_mass(parts, location, log_scale.clamp(*LOG_SCALE))
        return torch.logsumexp(nats, 2).double().sum(1) + parts.log_base

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        return _in_tiles(self._walk, self.space.dims * (1 if self.levels else 2), n, context, rng)

    def _walk(self, u: Tensor, context: Tensor | None) -> Tensor:
        """(n, C, H, W) images in data units, drawn value by value; each value uses one or two of the uniform numbers."""
        walk = PixelWalk(self.net, len(u), None if context is None else context.float().flatten(1))
        values = torch.zeros(len(u), *self.space.shape, dtype=torch.float64, device=u.device)
        draw = iter(u.unbind(1)).__next__
        column = self.space.columns[0]
        channels, height, breadth = self.space.shape
        for i, j, c in itertools.product(range(height), range(breadth), range(channels)):
            out = walk.outputs(c, i, j).double()
            at = (c * height + i) * breadth + j
            if self.levels:
                level = column.low + random.inverted(out, draw()) * column.resolution
                values[:, c, i, j] = (level - self.columns.centre[at]) / self.columns.scale[at]
            else:
                weights, location, log_scale = out.split(self.config.components, 1)
                drawn = _draw_logistic(weights, location, log_scale, draw(), draw())
                values[:, c, i, j] = self.columns.settle(drawn, at)
            walk.set(c, i, j, values[:, c, i, j])
        return self.columns.join(torch.zeros(len(u), 0, dtype=torch.int64, device=u.device), values.flatten(1))


def _in_tiles(
    draw: Callable[[Tensor, Tensor | None], Tensor], numbers: int, n: int, context: Tensor | None, rng: torch.Generator
) -> Tensor:
    """n images from ``draw``, which turns uniform numbers (tile, ``numbers``) and contexts into images. Every image uses its own
    numbers, so that drawing n at once or in parts gives the same images."""
    made = []
    for i in range(0, n, TILE):
        rows = min(TILE, n - i)
        u = random.uniform((rows, numbers), rng, torch.empty(0, dtype=torch.float64))
        filler = -rows % LEAST_TILE
        padded = None if context is None else functional.pad(context[i : i + rows].flatten(1), (0, 0, 0, filler))
        made.append(draw(functional.pad(u, (0, 0, 0, filler), value=0.5), padded)[:rows])
    return torch.cat(made)


def _uniform(n: int, rng: torch.Generator) -> Tensor:
    return random.uniform((n,), rng, torch.empty(0, dtype=torch.float64))


def _draw_logistic(weights: Tensor, location: Tensor, log_scale: Tensor, choice: Tensor, u: Tensor) -> Tensor:
    """(n, M) parameters and two uniform numbers a row → (n,) draws, by inverting the logistic distribution function."""
    component = random.inverted(weights, choice).unsqueeze(1)
    scale = log_scale.clamp(*LOG_SCALE).gather(1, component).squeeze(1).exp()
    return location.gather(1, component).squeeze(1) + scale * torch.logit(u.to(scale).clamp(1e-12, 1 - 1e-12))


def suggest(space: Space, rows: int, seconds: float | None = None) -> Config:
    """The configuration for this number of fit rows. For images: convolutions, with a softmax if there are enough rows to learn
    the probability of every level; where the seconds are too few for ``PASSES`` over the rows, the network of a table. For
    tables: narrow networks and two orderings if there are few rows, to reduce variance; one wide network otherwise, because there
    the number of training steps is the limit."""
    affordable = seconds is None or PASSES * rows * space.dims * SECONDS_A_VALUE <= SHARE * seconds
    if space.is_image and affordable:
        many = 0 < space.columns[0].steps <= 256 and rows >= 4_000
        head: Literal["levels", "logistics"] = "levels" if many else "logistics"
        return Config(kind="pixels", width=max(8, 32 // space.shape[0]), head=head, components=5)
    if space.dims > 100:
        return Config(hidden=(500,), components=5, orderings=1)
    if rows < 1_000:
        return Config(hidden=(32, 32), components=3, orderings=2)
    if rows < 5_000:
        return Config(hidden=(64, 64), components=5, orderings=2)
    return Config(hidden=(256, 256), components=10, orderings=1)


def build(
    space: Space, *, encoding: Columns | None = None, context_shape: tuple[int, ...] | None = None, config: Config,
    rng: torch.Generator,
) -> Autoregressive | PixelModel:  # fmt: skip
    """An untrained model; InputError where the configuration cannot serve the space."""
    if space.dims > 4096:
        raise InputError(
            f"autoregressive: {space.dims} columns are more than the 4,096 this family can model; choose fewer with --columns"
        )
    if config.kind == "masked":
        masked = Autoregressive(space, context_shape, config, rng)
        masked.columns.adopt(encoding)
        return masked
    if not space.is_image:
        raise InputError("autoregressive: kind 'pixels' is for images, but these rows are a table; use kind 'masked'")
    if config.head == "levels" and not space.columns[0].steps:
        raise InputError("autoregressive: head 'levels' needs pixels in steps between two ends; use head 'logistics'")
    pixels = PixelModel(space, context_shape, config, rng)
    pixels.columns.adopt(encoding)
    return pixels
