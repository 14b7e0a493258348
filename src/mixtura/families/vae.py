"""Variational auto-encoder of mixed columns and images (Kingma & Welling 2014), with its importance-weighted bound.

    p(x) = ∫ N(z; 0, I) Π_j p(x_j | z) dz,    q(z | x) = N(μ(x), diag σ(x)²)

Given z the columns are independent: a code has logits, and a value that is present has a mixture of logistics or Gaussians; a
rounded value scores as the mass of its cell. Training maximises E_q log p(x | z) − β KL(q ‖ p) (Higgins et al. 2017; β = 1 is the
evidence bound). The reported bound does not depend on β; it is that of Burda et al. 2016, section 3,

    log p(x) ≥ E log (1/K) Σ_k p(x, z_k) / q(z_k | x),    z_k ~ q(z | x).

The evidence bound is E_q log p(x | z) − KL, the negative sum of a distortion and a rate (Alemi et al. 2018). A rate near 0 means
that z carries no information about the row (posterior collapse), even if the bound is good.

With ``Config.bottleneck`` the row depends on a context c through z alone, z = m(c) + s(c) ε, and z keeps of c what says
something about the row: training minimises E −log p(x | z) + β KL(N(m(c), s(c)²) ‖ N(0, I)), where the rate bounds the
information I(c; z) from above (variational information bottleneck: Alemi et al. 2017, section 3). The code of the model is then
ε, and q is its prior.

Pixels that are independent given z are grain in an image, so an image that is drawn or decoded has the mean of every pixel
given z unless ``Config.grain`` asks for draws. The likelihood is that of the model with its noise; :meth:`Vae.diagnose` says how
much noise the images leave out.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from mixtura.contracts import InputError, LowerBound, NoisyDecoder, Reparameterised, Space, Stage, Turn, single_stage
from mixtura.ground import rng as random
from mixtura.ground.cells import Parts, log_logistic_mass, log_normal_mass
from mixtura.ground.encode import Columns
from mixtura.ground.nets.coders import ImageDecoder, ImageEncoder, perceptron
from mixtura.ground.nets.masked import CodeLayout
from mixtura.ground.normal import SQRT_2PI
from mixtura.ground.rng import seeded


class Config(BaseModel):
    """latent: number of entries of z. network: "mlp", or "conv" for images. hidden: widths of the layers of both networks
    (channels of convolutions); without hidden layers the model is linear. beta: weight of the rate in training. samples: K in
    training; more than one trains the importance-weighted bound itself. observation: the distribution of a value given z, a
    mixture of ``components`` of this kind. scale: of these components: "one" for all columns, one for each "column", or "free"
    (predicted by the decoder). grain: whether pixels of images are drawn given z, as entries of tables are; else they have their
    mean. bottleneck: whether rows are modelled given a context through z alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    latent: int = Field(default=8, ge=1, le=4096)
    network: Literal["mlp", "conv"] = "mlp"
    hidden: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = (128, 128)
    beta: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    samples: int = Field(default=1, ge=1, le=1000)
    observation: Literal["logistic", "normal"] = "logistic"
    components: int = Field(default=1, ge=1, le=256)
    scale: Literal["one", "column", "free"] = "free"
    grain: bool = False
    bottleneck: bool = False


RECIPE = {"rate": 2e-3, "average": 0.998, "patience": 8}
#: log-scales of values, and of q, are clamped to this range, in standardised units
LOG_SCALE = (-9.0, 5.0)
#: an entry of z is in use if the variance of its mean under q, over the rows, exceeds this (Burda et al. 2016, section 5)
ACTIVE = 0.01
#: the most rows that are scored or drawn at once
TILE = 256
#: the fewest rows that are drawn at once: with fewer rows a matrix product may sum in another order
LEAST_TILE = 32


class Vae(LowerBound, NoisyDecoder):
    """A variational auto-encoder and its bound. Drawing n rows at once or in parts from one generator gives the same rows, up to
    float32 rounding."""

    how = "importance-weighted"

    def __init__(self, space: Space, context_shape: tuple[int, ...] | None, config: Config, rng: torch.Generator) -> None:
        super().__init__(space, context_shape)
        self.config, self.latent = config, config.latent
        self.draws = 16 if space.dims <= 100 else 4
        self.columns = Columns(space)
        self.layout = CodeLayout(self.columns.cardinalities)
        c, k, m = self.columns.continuous, self.layout.width, config.components
        # how many outputs a value has: weights, locations and log-scales of its components
        self.sizes = [m if m > 1 else 0, m, m if config.scale == "free" else 0]
        context = math.prod(context_shape) if context_shape else 0
        seen, given = (context, 0) if config.bottleneck else (k + c + context, context)
        outputs = sum(self.sizes)
        with seeded(int(torch.randint(2**62, (), generator=rng))):
            if config.network == "conv":
                self.encoder = ImageEncoder(space.shape, config.hidden, 2 * config.latent, context)
                self.decoder = ImageDecoder(config.latent + given, config.hidden, space.shape, outputs)
            else:
                self.encoder = perceptron(seen, config.hidden, 2 * config.latent)
                self.decoder = perceptron(config.latent + given, config.hidden, k + outputs * c)
        #: added to the outputs of the decoder
        self.level = nn.Parameter(torch.zeros(k + outputs * c))
        shared = {"one": 1, "column": c, "free": 0}[config.scale]
        self.log_scale = nn.Parameter(torch.full((shared,), math.log(0.5))) if shared else None

    # ---------------------------------------------------------------------------------------------------- training

    def _prepare(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        """Start with the marginals as outputs: smoothed frequencies of the codes, and components spread over the values."""
        self.columns.prepare(x)
        counts = self.columns.indicators(self.columns.split(x).codes).sum(0) + 0.5
        groups = counts.log().split(list(self.columns.cardinalities)) if self.columns.coded else ()
        start = [g[1:] - g[0] if len(g) == 2 else g - g.logsumexp(0) for g in groups]
        logits, values = self.level.data.split([self.layout.width, len(self.level) - self.layout.width])
        if start:
            logits.copy_(torch.cat(start))
        m = self.config.components
        _, location, log_scale = values.reshape(sum(self.sizes), -1).split(self.sizes)
        location.copy_((torch.linspace(-1.5, 1.5, m) if m > 1 else torch.zeros(1))[:, None].expand_as(location))
        log_scale.fill_(math.log(0.5 / m**0.5))

    def _encode_for_training(self, x: Tensor) -> Tensor:
        if not self.space.is_image:
            return self.columns.split(x).pack()
        # of images only the values, because all cells have the same width
        return torch.cat([self.columns.split(tile).values.float() for tile in x.split(TILE)])

    def stages(self) -> tuple[Stage, ...]:
        return single_stage("evidence", self.parameters(), self._loss)

    def _loss(self, turn: Turn) -> Tensor:
        rows, context, rng = turn.x, turn.context, turn.rng
        parts = self._pixels(rows) if self.space.is_image else self.columns.unpack(rows)
        if self.config.samples > 1:
            return -self._bound(parts, context, self.config.samples, rng).mean()
        mean, log_sd = self._q(parts, context)
        z = mean + log_sd.exp() * random.normal(tuple(mean.shape), rng, mean)
        rate = _rate(*self._kept(context)) if self.config.bottleneck else _rate(mean, log_sd)
        return self.config.beta * rate.mean() - self._log_given(z, parts, context).mean()

    def _parts(self, x: Tensor) -> Parts:
        return self._pixels(self._encode_for_training(x)) if self.space.is_image else self.columns.split(x)

    def _pixels(self, values: Tensor) -> Parts:
        """Standardised pixels (n, C), float32, as parts, where the widths and the base are those of a single row."""
        columns, δ = self.columns, self.columns.resolution

        def unit(t: Tensor) -> Tensor:
            return ((t - columns.centre) / columns.scale).to(values)

        width = (δ / columns.scale).to(values)
        base = -torch.where(δ > 0, δ, columns.scale).log()
        return Parts(
            codes=torch.zeros(len(values), 0, dtype=torch.int64, device=values.device),
            values=values,
            present=torch.ones_like(values, dtype=torch.bool),
            overlap=torch.zeros_like(values, dtype=torch.bool),
            low=values - width / 2,
            width=width[None],
            open_low=(width > 0) & (values <= unit(columns.lowest) + width / 4),
            open_high=(width > 0) & (values >= unit(columns.highest) - width / 4),
            base=base[None],
        )

    # ---------------------------------------------------------------------------------------------------- networks

    def _q(self, parts: Parts, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log deviation (n, latent) of q(z | x)."""
        if self.config.bottleneck:
            prior = parts.values.new_zeros(len(parts.values), self.latent, dtype=torch.float32)
            return prior, prior
        values = parts.values.float()
        seen = torch.cat([self.layout.inputs(parts.codes), values], 1) if self.columns.coded else values
        mean, log_sd = self.encoder(_with_context(seen, context)).chunk(2, 1)
        return mean, log_sd.clamp(*LOG_SCALE)

    def _kept(self, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log deviation (n, latent) of what a bottleneck keeps of the context (n, *context_shape)."""
        mean, log_sd = self.encoder(cast(Tensor, context).float().flatten(1)).chunk(2, 1)
        return mean, log_sd.clamp(*LOG_SCALE)

    def _parameters_of(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (n, width) of codes; log-weights and locations (n, components, C) of values given z, and log-scales that
        broadcast against them."""
        if self.config.bottleneck:
            mean, log_sd = self._kept(context)
            seen = mean + log_sd.exp() * z
        else:
            seen = _with_context(z, context)
        out = self.decoder(seen) + self.level
        logits, values = out.split([self.layout.width, out.shape[1] - self.layout.width], 1)
        weights, location, free = values.reshape(len(z), sum(self.sizes), self.columns.continuous).split(self.sizes, 1)
        log_weights = torch.log_softmax(weights, 1) if self.config.components > 1 else torch.zeros_like(location)
        log_scale = (free if self.log_scale is None else self.log_scale).clamp(*LOG_SCALE)
        return logits, log_weights, location, log_scale

    def _log_given(self, z: Tensor, parts: Parts, context: Tensor | None) -> Tensor:
        """(n,) log p(x | z), nats in data units."""
        logits, log_weights, location, log_scale = self._parameters_of(z, context)
        names = ("low", "width", "open_low", "open_high")
        cell = {name: getattr(parts, name).unsqueeze(1) for name in names}
        if self.config.observation == "logistic":
            nats = log_logistic_mass(replace(parts, **cell), location, log_scale)
        else:
            edges = {name: t.double() if t.is_floating_point() else t for name, t in cell.items()}
            nats = log_normal_mass(**edges, location=location.double(), scale=log_scale.double().exp())
        values = torch.logsumexp(log_weights + nats, 1) if self.config.components > 1 else nats.squeeze(1)
        if not self.columns.coded:  # then every value is present
            return values.sum(1) + parts.log_base
        codes = self.layout.log_chosen(logits, parts.codes)
        for s, v in self.columns.overlaps:
            # the cell of the atom also holds values that are rounded to it: P(atom) + P(0) · mass
            group = self.layout.logits(s, logits[:, self.layout.blocks[s]])
            ratio = group[:, 0] - group.gather(1, parts.codes[:, [s]]).squeeze(1)
            landed = parts.overlap[:, v] * functional.softplus(ratio + values[:, v])
            codes = codes + functional.pad(landed.unsqueeze(1), (s, codes.shape[1] - s - 1))
        return codes.sum(1) + torch.where(parts.present, values, 0.0).sum(1) + parts.log_base

    # ------------------------------------------------------------------------------------------------------- bound

    def _bound(self, parts: Parts, context: Tensor | None, draws: int, rng: torch.Generator) -> Tensor:
        """(n,) the log of the mean of p(x, z) / q(z | x) over ``draws`` draws of z."""
        mean, log_sd = self._q(parts, context)
        weights = []
        for _ in range(draws):
            ε = random.normal(tuple(mean.shape), rng, mean)
            z = mean + log_sd.exp() * ε
            weights.append(self._log_given(z, parts, context) + (0.5 * (ε.square() - z.square()) + log_sd).sum(1))
        return torch.logsumexp(torch.stack(weights), 0) - math.log(draws)

    def _log_prob_bound(self, x: Tensor, context: Tensor | None, draws: int, rng: torch.Generator) -> Tensor:
        tiles = [slice(i, i + TILE) for i in range(0, len(x), TILE)]
        return torch.cat(
            [self._bound(self._parts(x[t]), None if context is None else context[t], draws, rng).double() for t in tiles]
        )

    def diagnose(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> dict[str, float]:
        """rate and distortion: their sum is minus the evidence bound, in nats; of a bottleneck the rate is a bound on the
        information that it keeps of the context, and the distortion alone is minus the bound on the density. active: entries of z
        in use, of ``latents``; grain: the deviation of a value given z, in data units, where what is drawn leaves it out."""
        x, means, terms, grain = self.space.clamp(x), [], [], []
        for i in range(0, len(x), TILE):
            parts, given = self._parts(x[i : i + TILE]), None if context is None else context[i : i + TILE]
            mean, log_sd = self._q(parts, given)
            z = mean + log_sd.exp() * random.normal(tuple(mean.shape), rng, mean)
            if self.config.bottleneck:
                mean, log_sd = self._kept(given)
            means.append(mean)
            grain.append(self._deviation(z, given))
            terms.append(torch.stack([_rate(mean, log_sd).double(), -self._log_given(z, parts, given).double()]))
        rate, distortion = torch.cat(terms, 1).mean(1).tolist()
        active = int((torch.cat(means).var(0, correction=0) > ACTIVE).sum())
        found = {"rate": rate, "distortion": distortion, "active": active, "latents": self.latent}
        return found | {"grain": float(torch.cat(grain).mean())} if self._smooth else found

    # ------------------------------------------------------------------------------------------------------- codes

    def encode(self, x: Tensor, *, context: Tensor | None = None) -> Tensor:
        x = self.space.clamp(self.space.check(x))
        context = self.check_context(context, len(x))
        return self._q(self._parts(x), context)[0]

    def log_given(self, x: Tensor, z: Tensor, *, context: Tensor | None = None) -> Tensor:
        x = self.space.clamp(self.space.check(x))
        return self._log_given(z.float(), self._parts(x), self.check_context(context, len(x))).double()

    def decode(self, z: Tensor, *, context: Tensor | None = None, rng: torch.Generator) -> Tensor:
        if z.dim() != 2 or z.shape[1] != self.latent:
            raise InputError(f"z: expected shape (n, {self.latent}), one code for each row, got {tuple(z.shape)}")
        u = random.uniform((len(z), self._numbers), rng, z.double())
        return self._decoded(z.float(), u, self.check_context(context, len(z)))

    def _deviation(self, z: Tensor, context: Tensor | None) -> Tensor:
        """(n, C) deviation of the values given z, in data units, before rounding and walls."""
        _, log_weights, location, log_scale = self._parameters_of(z, context)
        unit = math.pi / math.sqrt(3) if self.config.observation == "logistic" else 1.0
        weights = log_weights.exp()
        centre = (weights * location).sum(1, keepdim=True)
        variance = (weights * ((unit * log_scale.exp()).square() + (location - centre).square())).sum(1)
        return variance.sqrt() * self.columns.scale

    @property
    def _smooth(self) -> bool:
        """Whether what is drawn has the mean of its values given z."""
        return self.space.is_image and not self.config.grain

    @property
    def _numbers(self) -> int:
        """How many uniform numbers a draw of p(x | z) takes."""
        if self._smooth:
            return 0
        return len(self.columns.coded) + self.columns.continuous * (2 if self.config.components > 1 else 1)

    def _decoded(self, z: Tensor, u: Tensor, context: Tensor | None) -> Tensor:
        """Codes z (n, latent) and uniform numbers → rows in data units, by inverting distribution functions."""
        logits, log_weights, location, log_scale = self._parameters_of(z, context)
        if self._smooth:
            return self.columns.join(torch.zeros(len(z), 0, dtype=torch.int64), (log_weights.exp() * location).sum(1))
        at = [len(self.columns.coded), self.columns.continuous]
        of_codes, of_values, of_components = u.tensor_split([at[0], sum(at)], 1)
        codes = torch.zeros(len(z), at[0], dtype=torch.int64, device=z.device)
        for s, block in enumerate(self.layout.blocks):
            codes[:, s] = random.inverted(self.layout.logits(s, logits[:, block]), of_codes[:, s])
        if self.config.components > 1:
            component = random.inverted(log_weights.transpose(1, 2), of_components).unsqueeze(1)
            location, log_scale = (t.expand_as(log_weights).gather(1, component) for t in (location, log_scale))
        quantile = torch.logit if self.config.observation == "logistic" else torch.special.ndtri
        noise = quantile(of_values.clamp(1e-12, 1 - 1e-12))
        return self.columns.join(codes, (location + log_scale.exp() * noise.unsqueeze(1)).squeeze(1))

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        made = []
        for i in range(0, n, TILE):
            rows = min(TILE, n - i)
            # every row uses its own uniform numbers, whatever other rows are drawn with it
            u = random.uniform((rows, self.latent + self._numbers), rng, self.level.double())
            given = None if context is None else context[i : i + rows]
            filler = -rows % LEAST_TILE
            u = functional.pad(u, (0, 0, 0, filler), value=0.5)
            if given is not None:
                given = torch.cat([given, given[:1].expand(filler, *given.shape[1:])])
            z = torch.special.ndtri(u[:, : self.latent].clamp(1e-15, 1)).float()
            made.append(self._decoded(z, u[:, self.latent :], given)[:rows])
        return torch.cat(made)


class PlainVae(Vae, Reparameterised):
    """The model of a space of plain numbers."""

    def _draw(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        """Given z, by implicit reparameterisation (Figurnov et al. 2018, section 3): u = F(y) is fixed, so dy = −dF / f(y)."""
        z = random.normal((n, self.latent), rng, self.level)
        _, log_weights, location, log_scale = self._parameters_of(z, context)
        logistic = self.config.observation == "logistic"
        with torch.no_grad():
            component = random.categorical(log_weights.transpose(1, 2), rng).unsqueeze(1)
            μ, log_s = (t.expand_as(log_weights).gather(1, component) for t in (location, log_scale))
            u = random.uniform(tuple(μ.shape), rng, μ.double()).clamp(1e-12, 1 - 1e-12)
            y = μ + log_s.exp() * (torch.logit(u) if logistic else torch.special.ndtri(u)).float()
        t, w = (y - location) / log_scale.exp(), log_weights.exp()
        below = torch.sigmoid(t) if logistic else torch.special.ndtr(t)
        slope = below * (1 - below) if logistic else (-0.5 * t.square()).exp() / SQRT_2PI
        F, f = (w * below).sum(1), (w * slope / log_scale.exp()).sum(1).detach().clamp(min=1e-30)
        return y.squeeze(1) - (F - F.detach()) / f


def _with_context(x: Tensor, context: Tensor | None) -> Tensor:
    return x if context is None else torch.cat([x, context.float().flatten(1)], 1)


def _rate(mean: Tensor, log_sd: Tensor) -> Tensor:
    """(n,) KL(N(mean, e^{2 log_sd}) ‖ N(0, I)), nats."""
    return 0.5 * (mean.square() + (2 * log_sd).exp() - 1 - 2 * log_sd).sum(1)


def suggest(space: Space, rows: int, seconds: float | None = None) -> Config:
    """The configuration for this number of fit rows. Tables: small networks for few rows, and three components for each value.
    Images: wide networks; for small images one scale for each pixel, which overfits less than a scale predicted from z."""
    if space.is_image:
        return Config(latent=32, hidden=(512, 256)) if space.dims > 100 else Config(latent=16, hidden=(256, 128), scale="column")
    hidden = (512, 256) if space.dims > 100 else (64,) if rows < 1_000 else (128, 128) if rows < 5_000 else (256, 256)
    return Config(latent=32 if space.dims > 100 else min(16, max(2, space.dims)), hidden=hidden, components=3)


def build(
    space: Space, *, encoding: Columns | None = None, context_shape: tuple[int, ...] | None = None, config: Config,
    rng: torch.Generator,
) -> Vae:  # fmt: skip
    """An untrained model; InputError if its networks or its loss do not fit the space or the configuration."""
    if config.network == "conv":
        halvings = len(config.hidden)
        if not space.is_image or not halvings or any(side % 2**halvings for side in space.shape[1:]):
            raise InputError(
                f"vae: {halvings} convolutions need images whose height and width are multiples of {2**halvings}, but the shape "
                f"is {space.shape}; use network='mlp'"
            )
    if config.bottleneck and (context_shape is None or config.network == "conv" or config.samples > 1):
        raise InputError(
            "vae: bottleneck is for rows given a context, with network='mlp' and samples=1; leave it out, or give it the inputs "
            "that it shall keep little of"
        )
    if config.samples > 1 and config.beta != 1:
        raise InputError(
            f"vae: beta is {config.beta:g} and samples {config.samples}, but the importance-weighted bound has no separate rate; "
            "set one of the two to 1"
        )
    if space.dims > 50_000:
        raise InputError(f"vae: {space.dims:,} entries are more than the 50,000 it can model; resize with --size")
    model = (PlainVae if space.plain else Vae)(space, context_shape, config, rng)
    model.columns.adopt(encoding)
    return model
