"""Diffusion model of mixed columns and images: a chain of Gaussian steps from noise to data, with its variational bound
(Sohl-Dickstein et al. 2015; Ho, Jain & Abbeel 2020; Kingma et al. 2021), in the coordinates of Karras et al. 2022.

A row is a vector x: standardised values, and codes as numbers −1 and 1. Noise of level s gives y = x + s ε. One network
predicts the mean and the variance of x,

    D(y, s) ≈ E[x | y],    V(y, s) ≈ Var[x | y]  (for each entry),

and a step from level s to s′ < s draws from

    p(y′ | y) = N(D + r (y − D), s′² (1 − r) + (1 − r)² V),    r = s′² / s²,

which is q(y′ | y, x) = N(x + r (y − x), s′² (1 − r)) with x integrated out as if it were N(D, V). Few steps are therefore enough:
where x given y is Gaussian with independent entries, the chain is exact for any number of steps. For a code the network predicts
log-odds F, which are added to those of the noise: D and V are the moments of π = softmax_k(F_k − |y − e_k|² / 2s²), Bayes' rule
for the corners e_k, so at low noise nothing is left to learn. At the lowest level s₀ a value is drawn from N(D, V), hence a
rounded one has the exact mass of its cell, and a code is drawn from π. The bound,

    log p(x) ≥ E_q [log p(y_T) / q(y_T | x) + Σ_k log p(y_{k−1} | y_k) / q(y_{k−1} | y_k, x) + log p(x | y₀)],

is estimated along a whole path: exp of one path is an unbiased estimate of the density of the chain whose sampler is
"ancestral". A deterministic one ("ddim", "heun") follows the probability flow dy/ds = (y − D) / s to the lowest level and reads
D there, without noise (Karras et al. 2022, algorithm 1, ends at level 0). Images use "heun"; the bound remains the chain's.

The tables ``PARAMETERISATIONS``, ``SCHEDULES`` (of noise levels) and ``SAMPLERS`` hold the choices.

Longer than 450 lines because these choices stand beside the chain that they are made for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import copy
from types import MappingProxyType
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from mixtura.contracts import InputError, LowerBound, Reparameterised, Scored, Space, Stage, Stepwise, Turn, single_stage
from mixtura.ground import rng as random
from mixtura.ground.cells import Parts, log_normal_mass
from mixtura.ground.encode import Columns
from mixtura.ground.nets.denoisers import MlpDenoiser, UNet
from mixtura.ground.nets.masked import CodeLayout
from mixtura.ground.normal import LOG_2PI
from mixtura.ground.rng import seeded

#: computes (D, V) from (y, s)
Denoise = Callable[[Tensor, float], tuple[Tensor, Tensor]]
#: draws standard normal noise of the shape of y
Noise = Callable[[], Tensor]

#: the highest noise level, in standard deviations; there rows are practically Gaussian
HIGHEST = 40.0
#: the lowest noise level is this share of the narrowest cell, within these limits
PART_OF_CELL, LOWEST = 1 / 6, (0.002, 0.05)
#: a bound on |log(V / V of Gaussian rows)|
LOG_RATIO = 9.0
#: the weight of the likelihood of the variances in the loss, relative to the error of the means
VARIANCE_WEIGHT = 0.1
LOOKED_AT = 1_000  # rows from which the typical width of cells is computed
#: rows are sampled in batches of this size, because the rounding of a row depends on it
TILE = 128
#: one training level in two, of images (judged by samples, which do not show low levels) one in ten, is even in log s; the others
#: are normal in log s with this mean and deviation
EVEN, EVEN_OF_IMAGES, LOG_CENTRE, LOG_SPREAD = 2, 10, -0.5, 1.2

RECIPE = {"rate": 2e-3, "batch": 256, "average": 0.998, "patience": 8}
#: a step of a U-Net is dear: there are few, of small batches. Now and then a batch has a gradient of many times the usual norm,
#: from which a fit of some hundred steps does not recover unless it is clipped
RECIPE_OF_UNET = MappingProxyType({"batch": 64, "average": 0.995, "every": 100, "clip": 0.5})


# ------------------------------------------------------------------------------------------------- parameterisations
# A network F takes c_in y as input, and D = c_skip y + c_out F.


def noise(s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """F predicts ε (Ho et al. 2020, equation 11): D = y − s F. Returns (c_skip, c_out, c_in), as do the others."""
    return torch.ones_like(s), -s, (1 + s**2).rsqrt()


def data(s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """F predicts x."""
    return torch.zeros_like(s), torch.ones_like(s), (1 + s**2).rsqrt()


def velocity(s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """F predicts v = (ε − s x) / √(1 + s²) (Salimans & Ho 2022, appendix D). For data of unit variance this is, up to sign, the
    preconditioning of Karras et al. 2022, table 1: the target has unit variance at every level."""
    return 1 / (1 + s**2), -s * (1 + s**2).rsqrt(), (1 + s**2).rsqrt()


def flow(s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """F predicts u = ε − x, as in flow matching on straight paths z = (1 − t) x + t ε = y / (1 + s) with t = s / (1 + s) (Lipman
    et al. 2023): x = z − t u."""
    return 1 / (1 + s), -s / (1 + s), 1 / (1 + s)


PARAMETERISATIONS = {"noise": noise, "data": data, "velocity": velocity, "flow": flow}


# --------------------------------------------------------------------------------------------------------- schedules
# Each returns steps + 1 noise levels from lowest to highest.


def geometric(steps: int, lowest: float, highest: float) -> Tensor:
    """Evenly spaced in log s."""
    return torch.linspace(math.log(lowest), math.log(highest), steps + 1, dtype=torch.float64).exp()


def karras(steps: int, lowest: float, highest: float, rho: float = 7.0) -> Tensor:
    """Evenly spaced in s^(1/ρ) (Karras et al. 2022, equation 5)."""
    return torch.linspace(lowest ** (1 / rho), highest ** (1 / rho), steps + 1, dtype=torch.float64) ** rho


def cosine(steps: int, lowest: float, highest: float) -> Tensor:
    """Evenly spaced in t, where s = tan(π t / 2) (Nichol & Dhariwal 2021, equation 17, without offset)."""
    return torch.linspace(math.atan(lowest), math.atan(highest), steps + 1, dtype=torch.float64).tan()


def linear(steps: int, lowest: float, highest: float) -> Tensor:
    """Evenly spaced in t, where 1 + s² = exp ∫β, β from 0.1 to 20 (Ho et al. 2020, section 4; Song et al. 2021, appendix C)."""
    low, slope = 0.1, 19.9

    def at(s: float) -> float:
        return (math.sqrt(low**2 + 2 * slope * math.log1p(s**2)) - low) / slope

    t = torch.linspace(at(lowest), at(highest), steps + 1, dtype=torch.float64)
    return torch.expm1(low * t + slope * t**2 / 2).sqrt()


def straight(steps: int, lowest: float, highest: float) -> Tensor:
    """Evenly spaced in t = s / (1 + s), the time of flow matching."""
    t = torch.linspace(lowest / (1 + lowest), highest / (1 + highest), steps + 1, dtype=torch.float64)
    return t / (1 - t)


SCHEDULES = {"geometric": geometric, "karras": karras, "cosine": cosine, "linear": linear, "straight": straight}


# ---------------------------------------------------------------------------------------------------------- samplers
# Each turns y at the highest level into y at the lowest; ``levels`` are given from lowest to highest.


def reverse_step(denoise: Denoise, y: Tensor, s: float, lower: float) -> tuple[Tensor, Tensor]:
    """Mean and variance of p(y′ | y) for a step from level s to ``lower``."""
    D, V = denoise(y, s)
    r = lower**2 / s**2
    return D + r * (y - D), lower**2 * (1 - r) + (1 - r) ** 2 * V


def ancestral(denoise: Denoise, y: Tensor, levels: list[float], noise: Noise) -> Tensor:
    """Draw every step (DDPM: Ho et al. 2020, algorithm 2, with the variance given at the top of this module)."""
    for s, lower in zip(levels[:0:-1], levels[-2::-1], strict=True):
        mean, variance = reverse_step(denoise, y, s, lower)
        y = mean + variance.sqrt() * noise()
    return y


def ddim(denoise: Denoise, y: Tensor, levels: list[float], noise: Noise) -> Tensor:
    """Euler's method for dy/ds = (y − D) / s: y′ = D + (s′/s) (y − D) (Song et al. 2021, equation 12 with σ = 0)."""
    for s, lower in zip(levels[:0:-1], levels[-2::-1], strict=True):
        D, _ = denoise(y, s)
        y = D + lower / s * (y - D)
    return y


def heun(denoise: Denoise, y: Tensor, levels: list[float], noise: Noise) -> Tensor:
    """The same equation by Heun's second-order method (Karras et al. 2022, algorithm 1): two passes per step, fewer steps."""
    for s, lower in zip(levels[:0:-1], levels[-2::-1], strict=True):
        slope = (y - denoise(y, s)[0]) / s
        ahead = y + (lower - s) * slope
        y = y + (lower - s) * (slope + (ahead - denoise(ahead, lower)[0]) / lower) / 2
    return y


SAMPLERS = {"ancestral": ancestral, "ddim": ddim, "heun": heun}


# ------------------------------------------------------------------------------------------------------------- model


class Config(BaseModel):
    """network: "mlp", or "unet" for images. width, depth: width and number of hidden layers (for a U-Net: those of the perceptron
    at its bottom). channels: of a U-Net at its upper scale. steps: T, the length of the chain whose bound is reported. sampler:
    "ancestral" draws from that chain; "ddim" and "heun" take ``sampler_steps`` steps through Karras' levels, without noise."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    network: Literal["mlp", "unet"] = "mlp"
    width: int = Field(default=128, ge=1, le=8192)
    depth: int = Field(default=3, ge=1, le=64)
    channels: int = Field(default=32, ge=1, le=1024)
    parameterisation: Literal["noise", "data", "velocity", "flow"] = "velocity"
    schedule: Literal["geometric", "karras", "cosine", "linear", "straight"] = "geometric"
    steps: int = Field(default=50, ge=1, le=10_000)
    sampler: Literal["ancestral", "ddim", "heun"] = "ancestral"
    sampler_steps: int = Field(default=12, ge=1, le=10_000)


class Diffusion(LowerBound, Stepwise, Scored):
    """A chain of Gaussian steps, and the bound on its density."""

    #: whether states are divided by their deviation (see :meth:`respaced`)
    unit_variance = False

    how = "variational"
    draws = 1
    lowest: Tensor
    least: Tensor
    most: Tensor

    def __init__(self, space: Space, context_shape: tuple[int, ...] | None, config: Config, rng: torch.Generator) -> None:
        super().__init__(space, context_shape)
        self.config, self.steps = config, config.steps
        self.recipe: Mapping[str, Any] = RECIPE_OF_UNET if config.network == "unet" else {}
        self.columns = Columns(space)
        self.layout = CodeLayout(self.columns.cardinalities)
        self.entries = self.layout.width + self.columns.continuous
        self.register_buffer("lowest", torch.tensor(LOWEST[1], dtype=torch.float64))
        # between which numbers the means of values lie
        self.register_buffer("least", torch.full((self.columns.continuous,), -math.inf))
        self.register_buffer("most", torch.full((self.columns.continuous,), math.inf))
        context = math.prod(context_shape) if context_shape else 0
        with seeded(int(torch.randint(2**62, (), generator=rng))):
            if config.network == "unet":
                self.net: nn.Module = UNet(space.shape, config.channels, config.width, config.depth, context)
            else:
                self.net = MlpDenoiser(self.entries, config.width, config.depth, context)

    # ---------------------------------------------------------------------------------------------------- training

    def _prepare(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        self.columns.prepare(x)
        width = self.columns.split(x[:LOOKED_AT]).width
        # the typical width of a cell in each rounded column, unless it is wider than the column
        typical = torch.where(width > 0, width, math.nan).nanmedian(0).values
        cells = typical[typical < 1]
        narrow = float(cells.min()) * PART_OF_CELL if len(cells) else LOWEST[1] / 5
        self.lowest.fill_(min(max(narrow, LOWEST[0]), LOWEST[1]))
        if self.space.is_image:
            walls = x.new_tensor([self.space.columns[0].low, self.space.columns[0].high])[:, None].expand(-1, self.space.dims)
            self.least, self.most = self.columns.split(walls.reshape(2, *self.space.shape)).values.float()

    def _encode_for_training(self, x: Tensor) -> Tensor:
        parts = self.columns.split(x)
        return torch.cat([self._coded(parts.codes), parts.values.float(), parts.present.float()], 1)

    def stages(self) -> tuple[Stage, ...]:
        return single_stage("denoising", self.net.parameters(), self._loss, unit="squared error")

    def _loss(self, turn: Turn) -> Tensor:
        """The squared error of F, whose target has about unit variance, plus the likelihood of V; a mean over entries."""
        rows, rng, c = turn.x, turn.rng, self.columns.continuous
        codes, values, present = rows.split([self.layout.width, c, c], 1)
        x = torch.cat([codes, torch.where(present > 0, values, random.normal((len(rows), c), rng, rows))], 1)
        s = self._training_levels(len(x), rng, x)[:, None]
        y = x + s * random.normal(tuple(x.shape), rng, x)
        logits, D, V = self._predict(y, s, turn.context)
        # divide by the variance for Gaussian rows: errors are weighted as errors of v, whatever F predicts
        plain, x = s**2 / (1 + s**2), x[:, self.layout.width :]
        likelihood = (x - D.detach()).square() / V + (V / plain).log()
        terms = ((x - D).square() / plain).sum() + VARIANCE_WEIGHT * likelihood.sum()
        for group, block in zip(logits, self.layout.blocks, strict=True):
            corner = codes[:, block]
            level = corner[:, 0] > 0 if group.shape[1] == 2 and corner.shape[1] == 1 else corner.argmax(1)
            terms = terms + nn.functional.cross_entropy(group, level.long(), reduction="sum")
        return terms / (len(rows) * self.entries)

    def _training_levels(self, n: int, rng: torch.Generator, like: Tensor) -> Tensor:
        """(n,) noise levels, most of them around LOG_CENTRE, the others even in log s, each part stratified."""
        low, high = math.log(float(self.lowest)), math.log(HIGHEST)
        u = (torch.arange(n, dtype=like.dtype, device=like.device) + random.uniform((n,), rng, like)) / n
        evenly = torch.arange(n, device=like.device) % (EVEN_OF_IMAGES if self.space.is_image else EVEN) == 0
        even, bell = low + (high - low) * u[evenly], torch.special.ndtri(u[~evenly].clamp(1e-6, 1 - 1e-6))
        logs = torch.cat([even, LOG_CENTRE + LOG_SPREAD * bell]).clamp(low, high)
        return logs[torch.randperm(n, generator=rng).to(like.device)].exp()

    def _predict(self, y: Tensor, s: Tensor, context: Tensor | None) -> tuple[list[Tensor], Tensor, Tensor]:
        """The prediction of x from y (n, entries) at levels s, (n, 1) or (1, 1) for all: for every code log π (n, k) up to a
        constant; D and V of the values."""
        k = self.layout.width
        c_skip, c_out, c_in = PARAMETERISATIONS[self.config.parameterisation](s)
        scaled = c_in * y
        if self.config.network == "unet":
            F, ratio = (t.flatten(1) for t in self.net(scaled.reshape(-1, *self.space.shape), s[:, 0].log(), context))
        else:
            F, ratio = self.net(scaled, s[:, 0].log(), context)
        variance = s**2 / (1 + s**2) * (LOG_RATIO * torch.tanh(ratio[:, k:] / LOG_RATIO)).exp()
        # for corners of −1 and 1, −|y − e_k|² / 2s² is 2 y_k / s² up to a constant, for a single number and for a group
        odds = F[:, :k] + 2 * y[:, :k] / s**2
        logits = [self.layout.logits(i, odds[:, block]) for i, block in enumerate(self.layout.blocks)]
        D = c_skip * y[:, k:] + c_out * F[:, k:]
        # a mean of pixels is a pixel's level: a network that says otherwise sends a path further off at every step
        return logits, D if self.training else D.clamp(self.least, self.most), variance

    def _denoise(self, y: Tensor, s: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """D and V of all entries of y (n, entries) at levels s, (n, 1) or (1, 1)."""
        logits, D, V = self._predict(y, s, context)
        if not logits:
            return D, V
        # a two-level code is one number: the share of its second level
        share = torch.cat([g.softmax(1)[:, -w:] for g, w in zip(logits, self.layout.widths, strict=True)], 1)
        return torch.cat([2 * share - 1, D], 1), torch.cat([4 * share * (1 - share), V], 1)

    def _coded(self, codes: Tensor) -> Tensor:
        return 2 * self.layout.inputs(codes) - 1

    # ------------------------------------------------------------------------------------------------------- steps

    def levels(self, steps: int) -> list[float]:
        """steps + 1 noise levels, from lowest to highest, in standard deviations of a column."""
        return SCHEDULES[self.config.schedule](steps, float(self.lowest), HIGHEST).tolist()

    def denoiser(self, context: Tensor | None = None) -> Denoise:
        """A function that computes (D, V) of rows y (n, entries) at one level, which is embedded once for all rows."""

        def level(y: Tensor, s: float) -> Tensor:
            return torch.full((1, 1), s, dtype=torch.float32, device=y.device)

        return lambda y, s: self._denoise(y.float(), level(y, s), context)

    def respaced(self, steps: int, schedule: str | None = None, *, unit_variance: bool = False) -> Diffusion:
        settings = self.config.model_dump() | {"steps": steps, "sampler": "ancestral"}
        try:
            config = Config.model_validate(settings | ({} if schedule is None else {"schedule": schedule}))
        except ValidationError as error:
            known = ", ".join(SCHEDULES)
            raise InputError(f"respaced: expected 1 to 10,000 steps and one of {known}, got {steps} and {schedule}") from error
        other = copy(self)
        other.config, other.steps, other.unit_variance = config, config.steps, unit_variance
        return other

    def _deviation(self, level: float) -> float:
        """The number by which states at a level are divided."""
        return math.sqrt(1 + level**2) if self.unit_variance else 1.0

    def first(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        y = random.normal((n, self.entries), rng, torch.empty(0, device=self.device))
        return y * math.sqrt(1 + HIGHEST**2) / self._deviation(HIGHEST)

    def transition(self, y: Tensor, k: int, context: Tensor | None) -> tuple[Tensor, Tensor]:
        levels = self.levels(self.steps)
        here, there = self._deviation(levels[k]), self._deviation(levels[k - 1])
        mean, variance = reverse_step(self.denoiser(context), here * y, levels[k], levels[k - 1])
        return mean / there, variance.sqrt() / there

    def finish(self, y: Tensor, context: Tensor | None, rng: torch.Generator) -> Tensor:
        return self._read(self._deviation(float(self.lowest)) * y, context, random.normal(tuple(y.shape), rng, y))

    def score(self, y: Tensor, level: float, *, context: Tensor | None = None) -> Tensor:
        """(D(y, s) − y) / s² (Tweedie; Efron 2011, equation 1.4). InputError on a level that is not above 0."""
        if not 0 < level < math.inf:
            raise InputError(f"level: expected the deviation of the noise, above 0, got {level}")
        D, _ = self.denoiser(self.check_context(context, len(y)))(y, level)
        return (D - y) / level**2

    def _read(self, y: Tensor, context: Tensor | None, noise: Tensor, noisy: bool = True) -> Tensor:
        """y₀ and normal noise, both (n, entries) → rows in data units. Codes are drawn in any case."""
        logits, D, V = self._predict(y, self.lowest.to(y).expand(1, 1), context)
        codes = torch.zeros(len(y), len(self.columns.coded), dtype=torch.int64, device=y.device)
        for i, (group, block) in enumerate(zip(logits, self.layout.blocks, strict=True)):
            codes[:, i] = random.inverted(group, torch.special.ndtr(noise[:, block.start]))
        return self.columns.join(codes, D + V.sqrt() * noise[:, self.layout.width :] if noisy else D)

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        # one seed for each row, drawn in order: n rows and then n more rows equal the 2n rows of one call
        seeds = torch.randint(2**62, (n,), generator=rng, device=rng.device).tolist()
        tiles = [range(i, i + TILE) for i in range(0, n, TILE)]
        return torch.cat([self._tile([seeds[min(i, n - 1)] for i in tile], context, tile) for tile in tiles])[:n]

    def _tile(self, seeds: list[int], context: Tensor | None, rows: range) -> Tensor:
        """One row for each seed. The last tile is filled up by repeating the last seed; the caller drops these rows."""
        if context is not None:
            context = context[torch.tensor(rows, device=context.device).clamp(max=len(context) - 1)]
        streams = [torch.Generator().manual_seed(seed) for seed in seeds]

        def noise() -> Tensor:
            return torch.stack([torch.randn(self.entries, generator=stream) for stream in streams]).to(self.device)

        chain = self.config.sampler == "ancestral"
        levels = self.levels(self.steps) if chain else karras(self.config.sampler_steps, float(self.lowest), HIGHEST).tolist()
        y = SAMPLERS[self.config.sampler](self.denoiser(context), math.sqrt(1 + HIGHEST**2) * noise(), levels, noise)
        return self._read(y, context, noise(), noisy=chain)

    # ------------------------------------------------------------------------------------------------------- bound

    def _log_prob_bound(self, x: Tensor, context: Tensor | None, draws: int, rng: torch.Generator) -> Tensor:
        parts = self.columns.split(x)
        paths = torch.stack([sum(self._path(parts, context, rng).values(), x.new_zeros(len(x))) for _ in range(draws)])
        return torch.logsumexp(paths, 0) - math.log(draws)

    @torch.no_grad()
    def _path(self, parts: Parts, context: Tensor | None, rng: torch.Generator) -> dict[str, Tensor]:
        """(n,) nats of the three terms of the bound along one path."""
        denoise, levels = self.denoiser(context), self.levels(self.steps)
        unknown = random.normal(tuple(parts.values.shape), rng, parts.values)
        values = torch.where(parts.present, parts.values, unknown)
        filled = torch.where(parts.present, 0.0, _log_normal(unknown, unknown.new_zeros(()), unknown.new_ones(()))).sum(1)
        x = torch.cat([self._coded(parts.codes).double(), values], 1)
        y = x + HIGHEST * random.normal(tuple(x.shape), rng, x)
        top = torch.tensor(1 + HIGHEST**2, dtype=x.dtype, device=x.device)
        prior = (_log_normal(y, top * 0, top) - _log_normal(y, x, top - 1)).sum(1)
        path = torch.zeros_like(prior)
        for s, lower in zip(levels[:0:-1], levels[-2::-1], strict=True):
            mean, variance = (t.double() for t in reverse_step(denoise, y.float(), s, lower))
            r = lower**2 / s**2
            q_variance = lower**2 * (1 - r)
            ε = random.normal(tuple(x.shape), rng, mean)
            y = x + r * (y - x) + math.sqrt(q_variance) * ε
            # log p(y) − log q(y), and ε² is the squared distance under q
            path += 0.5 * (ε.square() - (y - mean).square() / variance - (variance / q_variance).log()).sum(1)
        logits, D, V = self._predict(y.float(), self.lowest.float().expand(1, 1), context)
        cell = parts.present & (parts.width > 0)
        low, width = torch.where(cell, parts.low, values), torch.where(cell, parts.width, 0.0)
        inside = log_normal_mass(low, width, parts.open_low & cell, parts.open_high & cell, D.double(), V.double().sqrt())
        chosen = [-nn.functional.cross_entropy(g.double(), parts.codes[:, i], reduction="none") for i, g in enumerate(logits)]
        reconstruction = inside.sum(1) + sum(chosen, parts.log_base - filled)
        return {"prior": prior, "path": path, "reconstruction": reconstruction}

    def diagnose(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> dict[str, float]:
        terms = self._path(self.columns.split(self.space.clamp(x)), context, rng)
        return {name: float(nats.mean()) for name, nats in terms.items()}


class PlainDiffusion(Diffusion, Reparameterised):
    """The model of a space of plain numbers; its draws with a gradient are those of the chain."""

    def _draw(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        y, levels = self.first(n, context, rng) * self._deviation(HIGHEST), self.levels(self.steps)
        y = ancestral(self.denoiser(context), y, levels, lambda: random.normal((n, self.entries), rng, y))
        D, V = self.denoiser(context)(y, float(self.lowest))
        return D + V.sqrt() * random.normal((n, self.entries), rng, y)


def _log_normal(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return -0.5 * ((x - mean).square() / variance + variance.log() + LOG_2PI)


def suggest(space: Space, rows: int, seconds: float | None = None) -> Config:
    """The configuration for this number of fit rows. Images: a U-Net, whose samples follow the probability flow."""
    if space.is_image:
        # networks of some minutes gain nothing from more sampler steps (benchmarks/images.py --heun, benchmarks/diffusion.py)
        return Config(network="unet", width=512, depth=2, steps=12, sampler="heun", sampler_steps=8)
    if space.dims > 100:
        return Config(width=512, depth=2, steps=40)
    return Config(width=64 if rows < 1_000 else 192, depth=3, steps=32)


def build(
    space: Space, *, encoding: Columns | None = None, context_shape: tuple[int, ...] | None = None, config: Config,
    rng: torch.Generator,
) -> Diffusion:  # fmt: skip
    """An untrained model; InputError if the network does not fit the space."""
    if config.network == "unet" and not space.is_image:
        raise InputError("diffusion: a U-Net is for images, but this is a table; use network='mlp'")
    if space.dims > 50_000:
        raise InputError(f"diffusion: {space.dims:,} entries are more than the 50,000 it can model; resize with --size")
    model = (PlainDiffusion if space.plain else Diffusion)(space, context_shape, config, rng)
    model.columns.adopt(encoding)
    return model
