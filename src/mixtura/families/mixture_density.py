"""Mixture density network (Bishop 1994): a network that predicts the parameters of a Gaussian mixture from the context.

    p(y | x) = Σ_k π_k(x) Π_s θ_ks(code_s | x) · N(values present; μ_k(x), Σ_k(x))

The covariance is one of the kinds of :class:`mixtura.ground.noise.Noise`. Rounded values score as the mass of their cells: by a
product of differences of Φ for diagonal components, else by the chain of Gaussian conditionals given the (rounded) values
before. An absent value is integrated out; its code, "missing" or an atom, has a table of probabilities in every component.

A single network is unreliable, so several are trained at once (deep ensembles: Lakshminarayanan et al. 2017) and blended. One
half of them sees the context as it is, the other half sees it through :class:`Bins` too, because each is far better on some data.
Member f of each half is never trained on fold f of the rows, so its likelihood there is unbiased. This likelihood decides when
to stop, and the weights of the two halves:

    w = argmax E_i log Σ_g w_g p_{g, fold(i)}(y_i | x_i).

The fold of a row is a hash of its bytes: equal rows are in the same fold, and the order of the rows does not matter.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn import functional

from mixtura.contracts import Density, InputError, Reparameterised, Space, Stage, Turn, single_stage
from mixtura.ground import rng as random
from mixtura.ground.cells import Parts, RecurringBins, log_normal_mass, log_recurring_mass
from mixtura.ground.distributions import MixtureDensity
from mixtura.ground.encode import Columns
from mixtura.ground.nets.ensemble import Bins, Ensemble
from mixtura.ground.noise import Noise, NoiseKind
from mixtura.ground.normal import normal_nats
from mixtura.ground.rng import seeded


class Config(BaseModel):
    """components: number of Gaussians of every network. noise: the kind of their covariances; rank: of "low_rank" noise; scale:
    the deviation of "fixed" noise, in data units. members: number of networks; if it is even and 4 or more, half of them see
    bins, otherwise all do. bins: for every input, 0 for none. x_noise, y_noise: standard deviations of Gaussian noise that is
    added in training, in standardised units (Rothfuss et al. 2019). floor: the least deviation, in standardised units. warp:
    whether skewed columns are modelled on a logarithmic scale (never if the noise is in data units). gaps: whether the
    probability that a value is missing is "modelled" or "ignored" (a missing value then carries no information)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    components: int = Field(default=5, ge=1, le=4096)
    noise: NoiseKind = "diagonal"
    rank: int = Field(default=1, ge=1, le=256)
    scale: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    hidden: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = (64, 64)
    members: int = Field(default=8, ge=1, le=256)
    bins: int = Field(default=16, ge=0, le=1024)
    x_noise: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    y_noise: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    floor: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    warp: bool = True
    gaps: Literal["modelled", "ignored"] = "modelled"


RECIPE = {"batch": 128, "rate": 5e-3, "decay": 1e-4, "held_out": 0.0, "every": 25, "patience": 12}
#: kinds of noise whose deviations are equal for all columns, or given, in data units
IN_DATA_UNITS = ("isotropic", "shared", "fixed")
#: kinds of noise whose deviations are equal for all columns
ALIKE = ("isotropic", "shared")
#: the most encoded inputs; wide contexts get fewer bins
MOST_ENCODED = 2_048
#: rows that are scored or sampled at once
TILE = 4_096
#: outside training the network is evaluated on a multiple of this number of rows
LEAST_ROWS = 64
#: inputs are clamped this many standard deviations beyond the range of the fit rows: nothing was learnt further out
REACH = 1.0


class MixtureDensityNetwork(Density):
    """Exact conditional density; trained by gradient."""

    centre: Tensor
    spread: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self, space: Space, context_shape: tuple[int, ...] | None, config: Config, rng: torch.Generator) -> None:
        super().__init__(space, context_shape)
        self.config = config
        #: a single network has no folds, so it needs held-out rows to decide when to stop
        self.recipe = {} if config.members > 1 else {"held_out": 0.12}
        self.columns = Columns(space)
        self.noise = Noise(
            config.noise, config.components, max(self.columns.continuous, 1), config.rank, floor=config.floor
        )
        self.cardinalities = list(self.columns.cardinalities) if config.gaps == "modelled" else []
        self.inputs = math.prod(context_shape) if context_shape else 0
        self.kinds = 2 if config.bins and self.inputs and config.members >= 4 and config.members % 2 == 0 else 1
        self.folds = config.members // self.kinds
        self.bins = Bins(self.inputs, min(config.bins, MOST_ENCODED // max(self.inputs, 1)))
        width = max(self.inputs, 1)  # without a context one input, always 0
        sees = torch.ones(config.members, width + self.bins.outputs, dtype=torch.bool)
        if self.kinds == 2:
            sees[: self.folds, width:] = False
        with seeded(int(torch.randint(2**62, (), generator=rng))):
            self.network = Ensemble(sees, config.hidden, self.noise.width + config.components * sum(self.cardinalities))
        #: logits of the weights of the two halves
        self.preference = nn.Parameter(torch.zeros(self.kinds))
        for name, value in (("centre", 0.0), ("spread", 1.0), ("lowest", -math.inf), ("highest", math.inf)):
            self.register_buffer(name, torch.full((self.inputs,), value, dtype=torch.float64))

    # ---------------------------------------------------------------------------------------------------- training

    def _prepare(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        """Compute centres and scales of columns and context, and the bins; spread the initial components over the values."""
        self.columns.prepare(x, warp=self.config.warp and self.config.noise not in IN_DATA_UNITS)
        if self.config.noise in ALIKE:
            # deviations are equal in data units, so all columns get the same scale
            deviations = self.columns.scale * self.columns.unit
            largest = deviations.max()
            self.columns.scale = largest * (deviations / largest).square().mean().sqrt() / self.columns.unit
        if context is not None:
            given = context.double().flatten(1)
            self.centre, deviation = given.mean(0), given.std(0, correction=0)
            self.spread = torch.where(deviation > 1e-12 * given.abs().amax(0).clamp(min=1e-300), deviation, 1.0)
            standard = (given - self.centre) / self.spread
            self.lowest, self.highest = standard.amin(0) - REACH, standard.amax(0) + REACH
            self.bins.prepare(standard.float())
        self.columns.find_recurring(x, context)
        parts = self.columns.split(x)
        start = self.noise.start(_spread(parts.values, self.noise, rng), 1.0 if self.config.components == 1 else 0.75)
        if self.cardinalities:
            counts = self.columns.indicators(parts.codes).sum(0) + 0.5
            tables = torch.cat([g.log() - g.sum().log() for g in counts.split(self.cardinalities)])
            start = torch.cat([start, tables.repeat(self.config.components).cpu()])
        self.network.begin(start.to(self.device))

    def _encode_for_training(self, x: Tensor) -> Tensor:
        return self.columns.split(x).pack()

    def stages(self) -> tuple[Stage, ...]:
        return single_stage("likelihood", self.parameters(), self._loss)

    def _loss(self, turn: Turn) -> Tensor:
        """In training: the mean loss of the members, each on the rows of the other folds, plus the loss of the weights, computed
        from the likelihoods of the members on their own fold. In evaluation: the latter loss alone."""
        rows, rng, config = turn.x, turn.rng, self.config
        parts = self.columns.unpack(rows)
        given = None if turn.context is None else turn.context.flatten(1)
        if self.training and config.y_noise:
            shift = config.y_noise * random.normal(tuple(parts.values.shape), rng, parts.values)
            parts = replace(parts, values=parts.values + shift, low=parts.low + shift)
        nats = self._member_nats(parts, given, rng)
        if self.folds == 1:  # a single network: train.fit holds rows out
            return -nats.mean()
        # without the base, the last columns, which depends on the units
        unitless = rows[:, : rows.shape[1] - self.columns.continuous]
        own = _fold(unitless, given, self.folds) == torch.arange(self.folds, device=rows.device).unsqueeze(1)
        own = own.repeat(self.kinds, 1)
        unseen_nats = nats.detach().masked_fill(~own, 0.0).reshape(self.kinds, self.folds, -1).sum(1)
        unseen = -torch.logsumexp(self.preference.log_softmax(0).unsqueeze(1) + unseen_nats, 0).mean()
        if not self.training:
            return unseen
        others = (~own).float()
        learnt = -(nats * others).sum(1) / others.sum(1).clamp(min=1)
        return learnt.mean() + unseen - unseen.detach()

    # ---------------------------------------------------------------------------------------------------- density

    def _features(self, context: Tensor | None, n: int, rng: torch.Generator | None = None) -> Tensor:
        """(n, width) the inputs of the network for contexts (n, inputs)."""
        if context is None:
            return torch.zeros(n, 1, device=self.device)
        standard = ((context.double() - self.centre) / self.spread).clamp(self.lowest, self.highest).float()
        if rng is not None and self.config.x_noise:
            standard = standard + self.config.x_noise * random.normal(tuple(standard.shape), rng, standard)
        return torch.cat([standard, self.bins(standard)], 1)

    def _predict(self, context: Tensor | None, n: int, rng: torch.Generator | None = None) -> tuple[MixtureDensity, Tensor]:
        """For every member and row, as a batch (members, n): the mixture of the standardised values, and log θ (members, n, K,
        Σ cardinalities)."""
        features = self._features(context, n, rng if self.training else None)
        # a matrix product with few rows may round otherwise: pad with rows, so that a row alone gives the same bits
        raw = self.network(functional.pad(features, (0, 0, 0, 0 if self.training else -n % LEAST_ROWS)))[:, :n]
        values, tables = raw.split([self.noise.width, raw.shape[-1] - self.noise.width], -1)
        tables = tables.reshape(*tables.shape[:2], self.config.components, -1)
        groups = [g.log_softmax(-1) for g in tables.split(self.cardinalities, -1)] if self.cardinalities else [tables]
        held = self.config.scale / self.columns.unit / self.columns.scale if self.columns.continuous else None
        return self.noise.law(values, held), torch.cat(groups, -1)

    def _member_nats(self, parts: Parts, context: Tensor | None, rng: torch.Generator | None = None) -> Tensor:
        """(members, n) log p_m(row), nats in data units."""
        law, tables = self._predict(context, len(parts.values), rng)
        joint = law.log_weights
        masses = self._masses(law, parts)
        if self.cardinalities:
            at = (parts.codes + self.columns.first)[None, :, None, :].expand(*tables.shape[:3], -1)
            chosen = tables.gather(-1, at)
            for s, v in self.columns.overlaps:
                # the cell of the atom also holds values that are rounded to it: P(atom) + P(0) · mass
                value = tables[..., int(self.columns.first[s])].unsqueeze(-1)
                ratio = value - chosen[..., [s]] + masses[..., [v]]
                landed = torch.where(parts.overlap[:, None, [v]], functional.softplus(ratio), 0.0).to(chosen)
                chosen = chosen + functional.pad(landed, (s, chosen.shape[-1] - s - 1))
            joint = joint + chosen.sum(-1)
        if self.columns.continuous:
            joint = joint + torch.where(parts.present.unsqueeze(1), masses, 0.0).sum(-1)
        return torch.logsumexp(joint, -1) + parts.log_base

    def _masses(self, law: MixtureDensity, parts: Parts) -> Tensor:
        """(members, n, K, C) log mass, or density, of every value in every component, given the present values before it."""
        rounded = bool((parts.width > 0).any())
        if rounded:
            law = law.double()
        if law.scale is not None and law.factor is None:
            return _normal(parts, law.means, law.scale, rounded)
        if bool(parts.present.all()):
            return _chained(parts, law, rounded)
        out = torch.zeros_like(law.means)
        patterns, number = parts.present.unique(dim=0, return_inverse=True)
        for p, pattern in enumerate(patterns):
            rows, seen = (number == p).nonzero().squeeze(1), pattern.nonzero().squeeze(1)
            if len(seen):
                part = law[:, rows].marginal(seen.tolist())
                some = parts[rows].among(seen)
                out[:, rows[:, None], :, seen] = _chained(some, part, rounded).permute(1, 3, 0, 2).to(out)
        return out

    def _log_weights(self) -> Tensor:
        """(members,) log-weights of the blend."""
        return (self.preference.log_softmax(0) - math.log(self.folds)).repeat_interleave(self.folds)

    def _blend(self, nats: Tensor) -> Tensor:
        return torch.logsumexp(nats + self._log_weights().unsqueeze(1).to(nats), 0)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        given = None if context is None else context.flatten(1)
        tiles = [slice(i, i + TILE) for i in range(0, len(x), TILE)]
        split = partial(self.columns.split, recurring=True)
        nats = [self._blend(self._member_nats(split(x[t]), None if given is None else given[t])) for t in tiles]
        return torch.cat(nats).double()

    def law(self, context: Tensor | None = None, n: int = 1) -> MixtureDensity:
        """The density of the values as one mixture of members · components Gaussians with batch (n,), one for each context row,
        in data units and float64. InputError if the density is not such a mixture: it needs plain numbers, warp=False and
        gaps="ignored"."""
        if self.cardinalities or bool((self.columns.warp != 0).any()) or not self.columns.continuous:
            raise InputError("mixture_density: law() needs plain numbers without codes or warps; use log_prob and sample instead")
        context = self.check_context(context, n if context is None else len(context))
        rows = n if context is None else len(context)
        whole = self._predict(None if context is None else context.flatten(1), rows)[0].double().pooled(0, self._log_weights())
        centre, scale = self.columns.centre * self.columns.unit, self.columns.scale * self.columns.unit

        def times(t: Tensor | None, own: int) -> Tensor | None:
            return None if t is None else t * scale.reshape(-1, *(1,) * own)

        return MixtureDensity(
            whole.log_weights, whole.means * scale + centre, scale=times(whole.scale, 0), factor=times(whole.factor, 1),
            scale_tril=None if whole.scale is not None else times(whole.scale_tril, 1),
        )  # fmt: skip

    # ---------------------------------------------------------------------------------------------------- samples

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        given = None if context is None else context.flatten(1)
        made = []
        for i in range(0, n, TILE):
            rows = min(TILE, n - i)
            law, tables = self._predict(None if given is None else given[i : i + rows], rows)
            made.append(self._draw_rows(law.double(), tables, rng))
        return torch.cat(made)

    def _draw_rows(self, law: MixtureDensity, tables: Tensor, rng: torch.Generator) -> Tensor:
        """One row (n, *shape) in data units for each prediction of the members, (members, n)."""
        n, c = law.batch_shape[1], self.columns.continuous
        logits = (law.log_weights + self._log_weights()[:, None, None]).movedim(0, 1).reshape(n, -1)
        label = random.categorical(logits, rng)
        m, k, row = label // self.config.components, label % self.config.components, torch.arange(n, device=label.device)
        groups = tables[m, row, k].split(self.cardinalities, -1) if self.cardinalities else ()
        drawn = [random.categorical(g, rng) for g in groups]
        codes = torch.zeros(n, len(self.columns.coded), dtype=torch.int64, device=label.device)
        if drawn:
            codes = torch.stack(drawn, 1)
        one = law.component(m, row, k)
        values = torch.zeros(n, c, dtype=torch.float64, device=label.device)
        noise = random.normal((n, c), rng, values)
        mean, factor = one.means.squeeze(1), one.scale_tril.squeeze(1)
        before = torch.zeros_like(noise)  # L⁻¹ (rounded values − mean)
        for j in range(c):
            at = mean[:, j] + (factor[:, j, :j] * before[:, :j]).sum(1)
            raw = at + factor[:, j, j] * noise[:, j]
            slot = self.columns.code_of.get(self.columns.numeric[j])
            rounded = self.columns.redraw(raw, j, partial(random.uniform, (n,), rng, values))
            values[:, j] = rounded if slot is None else torch.where(codes[:, slot] == 0, rounded, raw)
            before[:, j] = (values[:, j] - at) / factor[:, j, j]
        return self.columns.join(codes, values)

    # ---------------------------------------------------------------------------------------------------- diagnosis

    @torch.no_grad()
    def diagnose(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> dict[str, float]:
        """components: the effective number in use, e^entropy of their mean weights (averaged over members). at floor: the share
        of weight on components in which some entry, given those before it, has a deviation within a tenth of the floor. plain:
        the weight of the members that see no bins."""
        given = None if context is None else context.flatten(1)
        law, _ = self._predict(given, len(x))
        weights = law.weights.mean(1)
        used = (-(weights * weights.clamp(min=1e-30).log()).sum(1)).exp()
        own = law.scale_tril.diagonal(dim1=-2, dim2=-1) if law.scale is None else law.scale
        low = (own < 1.1 * self.config.floor).any(-1)
        plain = float(self.preference.softmax(0)[0]) if self.kinds == 2 else float(not self.bins.outputs)
        return {"components": float(used.mean()), "at floor": float((law.weights * low).sum(-1).mean()), "plain": plain}


class PlainMixtureDensityNetwork(MixtureDensityNetwork, Reparameterised):
    """The network of a space of plain numbers."""

    def _draw(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        law, _ = self._predict(None if context is None else context.flatten(1), n)
        return law.double().pooled(0, self._log_weights()).rsample(rng=rng)


def _normal(parts: Parts, means: Tensor, scale: Tensor, rounded: bool) -> Tensor:
    """The log mass, or density, of values (n, C) under N(means, scale²), (…, n, K, C)."""
    if not rounded:
        z = (parts.values.unsqueeze(1).to(means) - means) / scale
        return normal_nats(z, scale.log())

    def law(cells: Parts | RecurringBins, at: Tensor | slice) -> Tensor:
        cell = [t.unsqueeze(1) for t in (cells.low, cells.width, cells.open_low, cells.open_high)]
        low, width, open_low, open_high = (t.double() if t.is_floating_point() else t for t in cell)
        # (n, c, members, K), as ``log_recurring_mass`` expects
        return log_normal_mass(low, width, open_low, open_high, means[..., at], scale[..., at]).movedim((-3, -1), (0, 1))

    return log_recurring_mass(parts, law).movedim((0, 1), (-3, -1))


def _chained(parts: Parts, law: MixtureDensity, rounded: bool) -> Tensor:
    """Like :func:`_normal`, for any covariance: each value given those before it, by the unit Cholesky factor."""
    factor = law.scale_tril
    scale = factor.diagonal(dim1=-2, dim2=-1)
    deviation = parts.values.unsqueeze(1).to(law.means) - law.means
    unit = factor / scale.unsqueeze(-2)
    residual = torch.linalg.solve_triangular(unit, deviation.unsqueeze(-1), upper=False, unitriangular=True).squeeze(-1)
    # the residual is the value minus its conditional mean
    return _normal(parts, deviation - residual + law.means, scale, rounded)


def _fold(rows: Tensor, context: Tensor | None, folds: int) -> Tensor:
    """(n,) a number 0 .. folds−1 that depends only on the bytes of the row."""
    whole = rows if context is None else torch.cat([rows, context.to(rows)], 1)
    bits = whole.contiguous().view(torch.int32).long()
    # odd multipliers of an avalanche hash (Vigna 2015); integer sums are exact modulo 2^64, so their order does not matter
    place = torch.arange(1, bits.shape[1] + 1, device=rows.device) * 0x1E3779B97F4A7C15 | 1
    mixed = (bits * place).sum(1)
    for shift, factor in ((31, 0x3F58476D1CE4E5B9), (29, 0x14D049BB133111EB)):
        mixed = (mixed ^ (mixed >> shift)) * factor
    return ((mixed >> 33) & 0x3FFFFFFF) % folds


def _spread(values: Tensor, noise: Noise, rng: torch.Generator) -> Tensor:
    """(K, d) initial means of the components: quantiles for a single value, k-means for several."""
    k, n, d = noise.components, *values.shape
    if d == 0:
        return torch.zeros(k, noise.targets)
    if d == 1:
        q = (torch.arange(k, dtype=values.dtype, device=values.device) + 0.5) / k
        return torch.quantile(values[:100_000, 0], q)[:, None].cpu()
    rows = values[torch.randperm(n, generator=rng)[:5_000].to(values.device)].cpu().numpy()
    distinct = len(np.unique(rows, axis=0))
    seed = int(torch.randint(2**31, (), generator=rng))
    centres = KMeans(min(k, distinct), n_init=1, random_state=seed).fit(rows).cluster_centers_  # type: ignore[arg-type]
    return torch.as_tensor(centres)[torch.arange(k) % len(centres)]


def suggest(space: Space, rows: int, seconds: float | None = None) -> Config:
    """The configuration for this number of fit rows: fewer bins for few rows."""
    return Config(bins=min(16, max(2, rows // 10)))


def build(
    space: Space, *, encoding: Columns | None = None, context_shape: tuple[int, ...] | None = None, config: Config,
    rng: torch.Generator,
) -> MixtureDensityNetwork:  # fmt: skip
    """An untrained model; InputError for images, and for full covariances of rounded columns with atoms."""
    columns = Columns(space)
    if space.is_image:
        raise InputError("mixture_density: images have too many entries for one mixture; use vae or autoregressive")
    if config.noise in ("full", "low_rank") and columns.overlaps:
        raise InputError(
            f"mixture_density: {config.noise} covariances are not possible for rounded columns with atoms; use noise='diagonal'"
        )
    kind = PlainMixtureDensityNetwork if space.plain else MixtureDensityNetwork
    model = kind(space, context_shape, config, rng)
    if config.warp and config.noise not in IN_DATA_UNITS:  # otherwise the model computes its own scales
        model.columns.adopt(encoding)
    return model
