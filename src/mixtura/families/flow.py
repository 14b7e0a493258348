"""Normalising flow of the values of a row (zuko), with an autoregressive model of its codes.

    p(x) = p(codes) · p(values | codes),   p(codes) = Π_s p(code_s | codes before it)

The flow transforms standardised values given the indicators of the codes, by masked affine (Papamakarios et al. 2017) or
rational-quadratic spline (Durkan et al. 2019) transforms, autoregressive or coupling. If every column is a plain number or a
level, this is an exact :class:`Flow`. A flow cannot compute the mass of the cell of a rounded value, and an absent value has no
coordinate; both are filled with noise u of known density r. The result is a :class:`BoundedFlow`, with the bound

    log p(x) ≥ E_{u~r} [log p(codes, values(x, u)) − log r(u)]      (Theis et al. 2016; Ho et al. 2019)
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
import zuko
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from mixtura.contracts import Density, InputError, LowerBound, Model, Reparameterised, Space, Stage, Turn, single_stage
from mixtura.ground import rng as random
from mixtura.ground.cells import Parts
from mixtura.ground.encode import Columns
from mixtura.ground.nets.masked import CodeLayout, MaskedNet, Walk
from mixtura.ground.normal import LOG_SQRT_2PI
from mixtura.ground.rng import seeded


class Config(BaseModel):
    """transform: "affine" or "spline". order: "autoregressive" (each value depends on all before it; sampling needs one pass for
    each column) or "coupling" (one half given the other; sampling needs two passes). transforms: their number. bins: of a
    spline."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    transform: Literal["affine", "spline"] = "affine"
    order: Literal["autoregressive", "coupling"] = "autoregressive"
    transforms: int = Field(default=4, ge=1, le=64)
    hidden: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = (128, 128)
    bins: int = Field(default=8, ge=2, le=256)


#: the most values of a row of a table, and of an image
MOST_COLUMNS, MOST_PIXELS = 512, 4096


class _FlowBase(Model):
    """The common part of the exact flow and the bounded one."""

    def __init__(self, space: Space, context_shape: tuple[int, ...] | None, config: Config, rng: torch.Generator) -> None:
        super().__init__(space, context_shape)
        self.config = config
        self.columns = Columns(space)
        self.layout = CodeLayout(self.columns.cardinalities)
        c, codes = self.columns.continuous, self.layout.width
        outer = math.prod(context_shape) if context_shape else 0
        passes = 2 if config.order == "coupling" and c > 1 else None
        with seeded(int(torch.randint(2**62, (), generator=rng))):
            common = {
                "context": codes + outer,
                "transforms": config.transforms,
                "hidden_features": config.hidden,
                "passes": passes,
                # neighbouring pixels fall in different halves
                "randperm": space.is_image,
            }
            if config.transform == "spline":
                self.flow = zuko.flows.NSF(c, bins=config.bins, **common)
            else:
                self.flow = zuko.flows.MAF(c, **common)
            # start at the identity: zero the last layer of each hypernetwork, or the parameters of a transform without one
            for transform in self.flow.modules():
                own, network = getattr(transform, "phi", ()), getattr(transform, "hyper", ())
                for p in (*own, *(p for layer in [*network][-1:] for p in layer.parameters())):
                    nn.init.zeros_(p)
            self.codes = None
            if codes:
                position = self.layout.positions(torch.arange(len(self.columns.coded)))
                self.codes = MaskedNet(position, position, config.hidden, outer)

    def _prepare(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        self.columns.prepare(x)

    def _encode_for_training(self, x: Tensor) -> Tensor:
        return self.columns.split(x).pack()

    def stages(self) -> tuple[Stage, ...]:
        return single_stage("likelihood", self.parameters(), self._loss)

    def _loss(self, turn: Turn) -> Tensor:
        return -self._estimate(self.columns.unpack(turn.x), turn.context, turn.rng).mean()

    def _estimate(self, parts: Parts, context: Tensor | None, rng: torch.Generator | None) -> Tensor:
        """(n,) log p; or, with ``rng``, one draw whose exponential is an unbiased estimate of p, for cells and absent values."""
        values, log_ratio = parts.values, parts.log_base
        if rng is not None:
            values, log_width = self.columns.dequantise(parts, rng)
            noise = random.normal(tuple(values.shape), rng, values)
            log_noise = -0.5 * noise**2 - LOG_SQRT_2PI
            values = torch.where(parts.present, values, noise)
            log_ratio = log_ratio + log_width - torch.where(parts.present, 0.0, log_noise).sum(1)
        given = self._given(parts.codes, context)
        nats = self.flow(given).log_prob(values.float()).to(log_ratio)
        if self.codes is not None:
            nats = nats + self.layout.log_chosen(self.codes(given), parts.codes).sum(1).to(log_ratio)
        return nats + log_ratio

    def _given(self, codes: Tensor, context: Tensor | None) -> Tensor | None:
        given = [self.layout.inputs(codes)] if self.columns.coded else []
        given += [] if context is None else [context.float().flatten(1)]
        return torch.cat(given, 1) if given else None

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        codes = torch.zeros(n, len(self.columns.coded), dtype=torch.int64, device=self.device)
        if self.codes is not None:
            inputs = torch.zeros(n, self.layout.width, device=self.device)
            if context is not None:
                inputs = torch.cat([inputs, context.float().flatten(1)], 1)
            walk = Walk(self.codes, inputs)
            for s, block in enumerate(self.layout.blocks):
                logits = self.layout.logits(s, walk.outputs(s, [block])[0])
                codes[:, s] = random.categorical(logits, rng).to(self.device)
                inputs[:, block] = self.layout.input(s, codes[:, s])
        distribution = self.flow(self._given(codes, context))
        # zuko would draw from torch's global generator, so apply its inverse transform to draws from rng
        return self.columns.join(codes, distribution.transform.inv(self._base(n, rng)))

    def _base(self, n: int, rng: torch.Generator) -> Tensor:
        """(n, C) standard normal numbers."""
        shape, like = (n, self.columns.continuous), torch.empty(0, device=self.device)
        if not self.space.is_image:
            return random.normal(shape, rng, like)
        # every image uses its own uniform numbers, so that drawing n at once or in parts gives the same images
        u = random.uniform(shape, rng, like.double())
        return torch.special.ndtri(u.clamp(min=1e-16)).float()


class Flow(_FlowBase, Density):
    """Exact density of plain numbers and levels."""

    def _loss(self, turn: Turn) -> Tensor:
        return -self._estimate(self.columns.unpack(turn.x), turn.context, None).mean()

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self._estimate(self.columns.split(x), context, None)


class PlainFlow(Flow, Reparameterised):
    """The flow of a space of plain numbers."""

    def _draw(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        return self.flow(self._given(torch.zeros(n, 0), context)).transform.inv(self._base(n, rng))


class BoundedFlow(_FlowBase, LowerBound):
    """A lower bound on the density, by noise inside cells and in place of absent values."""

    def _log_prob_bound(self, x: Tensor, context: Tensor | None, draws: int, rng: torch.Generator) -> Tensor:
        parts = self.columns.split(x)
        return torch.logsumexp(torch.stack([self._estimate(parts, context, rng) for _ in range(draws)]), 0) - math.log(draws)


def suggest(space: Space, rows: int, seconds: float | None = None) -> Config:
    """The configuration for this number of fit rows: small affine flows for few rows or many columns, splines otherwise. One or
    two columns always need splines (an affine flow of one column is a Gaussian)."""
    continuous = sum(c.kind == "continuous" for c in space.columns)
    if space.is_image:
        return Config(order="coupling", transforms=6, hidden=(256, 256))
    if continuous <= 2:
        return Config(transform="spline", transforms=2, hidden=(64, 64))
    if rows < 2_000 or continuous > 20:
        return Config(transforms=2 if rows < 2_000 else 4, hidden=(32, 32) if rows < 2_000 else (128, 128))
    return Config(transform="spline", transforms=2, hidden=(128, 128))


def build(
    space: Space, *, encoding: Columns | None = None, context_shape: tuple[int, ...] | None = None, config: Config,
    rng: torch.Generator,
) -> Flow | BoundedFlow:  # fmt: skip
    """An untrained model; InputError without a continuous column."""
    plain = [c for c in space.columns if c.kind == "continuous"]
    if not plain:
        raise InputError("flow: no continuous column to transform; use autoregressive, which is exact on levels")
    most = MOST_PIXELS if space.is_image else MOST_COLUMNS
    if len(plain) > most:
        raise InputError(
            f"flow: {len(plain):,} continuous columns are more than the {most:,} this family can model; use autoregressive"
        )
    exact = not any(c.resolution > 0 or c.missing or c.atoms for c in plain)
    model = (PlainFlow if space.plain else Flow if exact else BoundedFlow)(space, context_shape, config, rng)
    model.columns.adopt(encoding)
    return model
