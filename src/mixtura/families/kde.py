"""Kernel density estimate of mixed columns, with exact cell masses.

    p(x) = (1/m) Σ_i Π_s l(code_s, code_is) Π_c K((x_c − x_ic)/h_c)/h_c

K is the logistic kernel: its distribution function gives the mass of the cell of a rounded value in closed form, and its tails
are robust to outliers. l(a, b) = (1 − λ) 1{a = b} + λ q(a), where q holds the frequencies of the codes among the rows; this is
the kernel of Aitchison & Aitken (1976), except that their q is uniform, which gives rare codes too much mass. All bandwidths h_c
and λ_s are trained by leave-one-out likelihood (Duin 1976; Hall et al. 2004 for mixed columns), in one ordinary training phase.
"""

from __future__ import annotations

import math

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from mixtura.contracts import Conditional, Conditioned, Density, InputError, Space, Stage, Turn, single_stage
from mixtura.ground import rng as random
from mixtura.ground.cells import Parts, RecurringBins, log_logistic_mass
from mixtura.ground.encode import Columns


class Config(BaseModel):
    """centres: the most rows that carry a kernel. opponents: how many of them a training step compares each row with."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    centres: int = Field(default=2000, ge=2)
    opponents: int = Field(default=400, ge=2)


#: the most columns: with more, rows are too sparse in their space for a kernel estimate
MOST_COLUMNS = 64
#: the least log bandwidth, in standardised units, so that a repeated row cannot become a spike
LEAST_LOG_BANDWIDTH = -7.0
#: above this t, log(1 + e^t) equals t in float64
FAR = 40.0

#: a few bandwidths are best trained with few, large steps
RECIPE = {"rate": 0.05, "batch": 64, "every": 20, "most_steps": 400, "patience": 2}


class KernelDensity(Density, Conditional):
    """One kernel at each row, with bandwidths by leave-one-out likelihood."""

    codes: Tensor
    values: Tensor
    present: Tensor
    log_share: Tensor

    def __init__(self, space: Space, config: Config) -> None:
        super().__init__(space)
        self.config = config
        self.columns = Columns(space)
        s, c = len(self.columns.coded), self.columns.continuous
        self.register_buffer("codes", torch.zeros(1, s, dtype=torch.int64))
        self.register_buffer("values", torch.zeros(1, c, dtype=torch.float64))
        self.register_buffer("present", torch.ones(1, c, dtype=torch.bool))
        self.register_buffer("log_share", torch.zeros(sum(self.columns.cardinalities), dtype=torch.float64))
        self.log_bandwidth = nn.Parameter(torch.full((c,), -1.5))
        self.logit_change = nn.Parameter(torch.full((s,), -2.0))

    # ---------------------------------------------------------------------------------------- training

    def _prepare(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        self.columns.prepare(x)
        self.columns.find_recurring(x)
        parts = self.columns.split(x[torch.randperm(len(x), generator=rng)[: self.config.centres].to(x.device)])
        self.codes, self.values, self.present = parts.codes, parts.values, parts.present
        counts = self._groups(self.columns.indicators(self.codes).sum(0).double() + 0.5)
        shares = [group.log() - group.sum().log() for group in counts]
        self.log_share = torch.cat([self.log_share[:0], *shares])
        # Scott's rule as the start of the search
        self.log_bandwidth.data.fill_(math.log(0.6) - math.log(len(parts.codes)) / (self.columns.continuous + 4))

    def _encode_for_training(self, x: Tensor) -> Tensor:
        return self.columns.split(x).pack()

    def stages(self) -> tuple[Stage, ...]:
        return single_stage("bandwidth", (self.log_bandwidth, self.logit_change), self._loss)

    def _loss(self, turn: Turn) -> Tensor:
        parts = self.columns.unpack(turn.x)
        chosen = torch.randperm(len(self.codes), generator=turn.rng)[: self.config.opponents].to(turn.x.device)
        log_kernel = self._log_kernel(parts, chosen)
        if self.training:
            # leave one out: the first kernel at an equal row is taken to be the row itself
            same = (
                (parts.values.unsqueeze(1) - self.values[chosen].float()).abs().amax(2) < 1e-6
                if self.columns.continuous
                else None
            )
            equal = (parts.codes.unsqueeze(1) == self.codes[chosen]).all(2)
            equal = equal if same is None else equal & same
            first = equal & (equal.cumsum(1) == 1)
            log_kernel = log_kernel.masked_fill(first, -math.inf)
            alone = torch.isinf(log_kernel).all(1)
            log_kernel = log_kernel[~alone]
            return -(torch.logsumexp(log_kernel, 1) - math.log(max(len(chosen) - 1, 1)) + parts.log_base[~alone]).mean()
        return -(torch.logsumexp(log_kernel, 1) - math.log(len(chosen)) + parts.log_base).mean()

    # ----------------------------------------------------------------------------------------- density

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        parts = self.columns.split(x, recurring=True)
        everything = torch.ones_like(parts.codes, dtype=torch.bool)
        return (
            torch.cat([torch.logsumexp(t, 1) for t in self._tiles(parts, parts.present, everything)])
            - math.log(len(self.codes))
            + parts.log_base
        )

    def _tiles(self, parts: Parts, use: Tensor, use_code: Tensor) -> list[Tensor]:
        tile = max(1, 200_000 // len(self.codes))  # a tile of one column stays in the cache
        everyone = torch.arange(len(self.codes), device=use.device)
        # track gradients only if the rows require them; only training needs those of the bandwidths
        with torch.set_grad_enabled(torch.is_grad_enabled() and parts.values.requires_grad):
            return [
                self._log_kernel(parts[i : i + tile], everyone, use[i : i + tile], use_code[i : i + tile])
                for i in range(0, len(use), tile)
            ]

    def _log_kernel(self, parts: Parts, centres: Tensor, use: Tensor | None = None, use_code: Tensor | None = None) -> Tensor:
        """(n, m) log kernels of the used values and codes, without the base."""
        dtype = parts.values.dtype
        match, differ = (t.to(dtype) for t in self._log_code_kernel())
        first = self.columns.first
        columns = self.columns
        total = torch.zeros(len(parts.codes), len(centres), dtype=dtype, device=parts.values.device)
        if columns.coded:
            sizes = torch.tensor(columns.cardinalities, dtype=torch.int64, device=total.device)
            hot = columns.indicators(parts.codes).to(dtype)
            used = torch.ones_like(parts.codes, dtype=dtype) if use_code is None else use_code.to(dtype)
            hot = hot * used.repeat_interleave(sizes, 1)
            centre_hot = columns.indicators(self.codes[centres]).to(dtype)
            total = (hot * (match - differ)) @ centre_hot.T + (hot @ differ).unsqueeze(1)
        use = parts.present if use is None else use
        overlap = {v: s for s, v in columns.overlaps}
        for v in range(columns.continuous):
            nats = self._log_value_kernel(parts, v, centres)
            total = total + torch.where(use[:, [v]], nats, 0.0)
            if v in overlap and bool(parts.overlap[:, v].any()):
                s = overlap[v]
                value_code = torch.where(self.codes[centres, s] == 0, match[first[s]], differ[first[s]])
                at = parts.codes[:, [s]] + first[s]
                own = torch.where(self.codes[centres, s].unsqueeze(0) == parts.codes[:, [s]], match[at], differ[at])
                asked = parts.overlap[:, [v]] if use_code is None else parts.overlap[:, [v]] & use_code[:, [s]]
                total = total + torch.where(asked, nn.functional.softplus(value_code + nats - own), 0.0)
        return total

    def _log_value_kernel(self, parts: Parts, v: int, centres: Tensor) -> Tensor:
        """(n, m) log kernels of value slot v, with its recurring values."""
        one = parts.among(torch.tensor([v], device=parts.values.device))
        nats = self._log_logistic_kernel(one, v, centres)
        if one.bins is None:
            return nats
        # many rows share a bin: its mass is computed once
        of_row, example = _distinct(one.bins.low[:, 0])
        return one.bins.mixed(nats, self._log_logistic_kernel(one.bins[example], v, centres)[of_row])

    def _log_logistic_kernel(self, one: Parts | RecurringBins, v: int, centres: Tensor) -> Tensor:
        """(n, m) log logistic kernels of value slot v, the only one of ``one``, by log σ(t) = −softplus(−t)."""
        dtype = one.low.dtype
        log_scale = self.log_bandwidth[v].to(dtype).clamp(min=LEAST_LOG_BANDWIDTH)
        inverse = torch.exp(-log_scale)
        a = (one.low - self.values[centres, v].to(dtype)) * inverse
        left = nn.functional.softplus(a, threshold=FAR)
        if self.columns.resolution[v] > 0:
            width = one.width * inverse
            b = a + width
            right = nn.functional.softplus(-b, threshold=FAR)
            half_open = one.open_low | one.open_high
            inner = torch.where(half_open, 0.0, torch.log(-torch.expm1(-torch.where(one.width > 0, width, 1.0))))
            nats = inner - torch.where(one.open_low, 0.0, left) - torch.where(one.open_high, 0.0, right)
        else:
            nats = a - 2 * left - log_scale
        known = self.present[centres, v]
        if bool(known.all()):
            return nats
        # a centre without a value has a broad kernel around the middle
        middle = torch.zeros_like(one.low)
        return torch.where(known, nats, log_logistic_mass(one, middle, middle + math.log(0.55)))

    def _log_code_kernel(self) -> tuple[Tensor, Tensor]:
        """(Σ k,) each, for every code a: log l(a, a), and log l(a, b) for any other b."""
        k = torch.tensor(self.columns.cardinalities, dtype=torch.int64, device=self.device)
        change = torch.sigmoid(self.logit_change.double()).clamp(1e-6, 1 - 1e-6).repeat_interleave(k)
        differ = change.log() + self.log_share
        return torch.logaddexp(torch.log1p(-change), differ), differ

    def _groups(self, of_codes: Tensor) -> tuple[Tensor, ...]:
        """(Σ k,) → (k,) for each code."""
        return of_codes.split(list(self.columns.cardinalities)) if self.columns.coded else ()

    # ---------------------------------------------------------------------------------------- sampling

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        if self.space.is_image:
            # every image uses its own uniform numbers, so that drawing n at once or in parts gives the same images
            u = random.uniform((n, 1 + self.columns.continuous), rng, self.values)
            return self.columns.join(self.codes[:1].expand(n, -1), self._placed((u[:, 0] * len(self.codes)).long(), u[:, 1:]))
        return self._around(torch.randint(len(self.codes), (n,), generator=rng).to(self.device), rng, observed=False)

    def _condition(self, x: Tensor, known: Tensor, draws: int, context: Tensor | None, rng: torch.Generator) -> Conditioned:
        """Centres are reweighted by their kernels at the known entries; the rest is drawn around the chosen centre."""
        parts = self.columns.split(self.columns.blank(x, known), recurring=True)
        flat = known.reshape(len(x), -1)
        codes, numbers = flat[:, self.columns.coded], flat[:, self.columns.numeric]
        observed = self._log_observed()
        picks, evidence, at = [], [], 0
        for tile in self._tiles(parts, parts.present & numbers, codes):
            tile = tile + (~codes[at : at + len(tile)]).double() @ observed.T
            at += len(tile)
            picks.append(random.categoricals(tile, draws, rng))
            evidence.append(torch.logsumexp(tile, 1) - math.log(len(self.codes)))
        centre = torch.cat(picks, 1)
        drawn = self._around(centre.flatten(), rng, observed=True)
        values = torch.where(known, x, drawn.unflatten(0, (draws, len(x))))
        claim = torch.cat(evidence) + torch.where(numbers, parts.base, 0.0).sum(1)
        return Conditioned(values, claim, torch.full_like(claim, math.inf))

    def _tables(self, observed: bool) -> list[Tensor]:
        """For each code, (k, k) log probabilities of a draw given the centre's code."""
        tables = []
        for s, (match, differ) in enumerate(zip(*map(self._groups, self._log_code_kernel()), strict=True)):
            table = torch.where(torch.eye(len(match), dtype=torch.bool, device=self.device), match, differ)
            if observed and self.space.columns[self.columns.coded[s]].missing:
                table[:, -1] = -math.inf
            tables.append(table)
        return tables

    def _log_observed(self) -> Tensor:
        """(m, S) log probability that a draw around a centre is not "missing"."""
        tables = self._tables(observed=True)
        per_code = [torch.logsumexp(t, 1)[self.codes[:, s]] for s, t in enumerate(tables)]
        return torch.stack(per_code, 1) if per_code else torch.zeros(len(self.codes), 0, dtype=torch.float64, device=self.device)

    @torch.no_grad()
    def _around(self, centre: Tensor, rng: torch.Generator, *, observed: bool) -> Tensor:
        """One draw from the kernel of each chosen centre, (n, *shape) in data units."""
        drawn = [random.categorical(t[self.codes[centre, s]], rng) for s, t in enumerate(self._tables(observed))]
        codes = torch.stack(drawn, 1) if drawn else torch.zeros(len(centre), 0, dtype=torch.int64, device=self.device)
        values = self._placed(centre, random.uniform((len(centre), self.columns.continuous), rng, self.values))
        return self.columns.join(codes, self.columns.redraw_all(values, rng))

    def _placed(self, centre: Tensor, u: Tensor) -> Tensor:
        """(n, C) the quantiles u of the kernels at the centres (n,)."""
        known = self.present[centre]
        scale = torch.where(known, self.log_bandwidth.double().clamp(min=LEAST_LOG_BANDWIDTH).exp(), 0.55)
        return torch.where(known, self.values[centre], 0.0) + scale * torch.logit(u.clamp(1e-12, 1 - 1e-12))


def _distinct(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values (n,) → which of the m distinct values each is (n,), and where each of these is among the values (m,)."""
    distinct, which = values.unique(return_inverse=True)
    return which, torch.empty_like(which[: len(distinct)]).scatter_(0, which, torch.arange(len(which), device=which.device))


def suggest(space: Space, rows: int, seconds: float | None = None) -> Config:
    """The default configuration."""
    return Config()


def build(
    space: Space, *, encoding: Columns | None = None, context_shape: tuple[int, ...] | None = None, config: Config,
    rng: torch.Generator,
) -> KernelDensity:  # fmt: skip
    """An untrained model; InputError with a context, and on more than ``MOST_COLUMNS`` columns."""
    if context_shape is not None:
        raise InputError("kde: this family takes no context; use autoregressive or flow")
    if space.dims > MOST_COLUMNS:
        raise InputError(
            f"kde: {space.dims} columns are more than the {MOST_COLUMNS} this family can model; use autoregressive"
        )
    model = KernelDensity(space, config)
    model.columns.adopt(encoding)
    return model
