"""Gaussian mixture for mixed columns, with exact cell masses.

    p(x) = Σ_k π_k Π_s θ_ks[code_s] · N_k(values present)

If every column is a plain number, scikit-learn fits the Gaussians. For codes and absent values, which scikit-learn does not
support, the mixture is fitted by expectation–maximisation here, with a table of probabilities for each code and the M-step for
missing data (Ghahramani & Jordan 1994, sections 3 and 4), starting from scikit-learn's k-means.

A rounded value is a cell, so a component is the product Π_j [Φ((high_j − m_j)/s_j) − Φ((low_j − m_j)/s_j)], where m_j and s_j
are the conditional mean and deviation of value j given the (rounded) values before it. This is a normalised mass function, for
diagonal and full covariances, and its limit for small cells is the Gaussian density.

The levels of a pixel are far from normal: most lie at one end of their range (background, glare). Images are therefore
modelled in normal scores (:class:`PixelScores`): one standard Gaussian reproduces the histogram of every pixel, and a mixture
adds the dependence between pixels. This is a Gaussian mixture copula (Tewari et al. 2011). Its diagonal Gaussians are fitted
to values censored by the open cells at both ends, by EM with the moments of censored values (Lee & Scott 2012, section 3).
"""

from __future__ import annotations

import math
import warnings
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from sklearn import mixture
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.nn import functional

from mixtura.contracts import ClosedForm, Conditional, Conditioned, Density, InputError, Space
from mixtura.ground import rng as random
from mixtura.ground.cells import Parts, RecurringBins, log_normal_mass, log_recurring_mass
from mixtura.ground.em import (
    PRIOR_ROWS,
    CensoredScores,
    MixtureState,
    Patterns,
    distinct_patterns,
    first_labels,
    log_joint_of,
    moments_given,
)
from mixtura.ground.encode import Columns
from mixtura.ground.pixel_scores import PixelScores


class Config(BaseModel):
    """components: the largest number of Gaussians that is tried (1, 2, 4, …); held-out rows choose. covariance: "full",
    "diagonal" or "auto" (both are tried where full is possible). ridge: added to variances, in units of the column's variance.
    rows: the most rows that are fitted. iterations: the most iterations of EM."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    components: int = Field(default=32, ge=1)
    covariance: Literal["auto", "full", "diagonal"] = "auto"
    ridge: float = Field(default=1e-6, gt=0)
    rows: int = Field(default=20_000, ge=10)
    iterations: int = Field(default=100, ge=1)


#: the most continuous columns, and the most patterns of absent values, for full covariances
FULL_COLUMNS, FULL_PATTERNS = 64, 4

#: the most rows that are fitted while components and covariance are chosen
CHOOSING_ROWS = 8_000

#: the most images that are fitted
PIXEL_ROWS = 10_000

#: EM on images stops when an iteration gains less than this many nats per row
CENSORED_PROGRESS = 0.05


class GaussianMixture(Density, Conditional, ClosedForm):
    """Exact density of a mixture; fitted by EM, without gradients."""

    weights: Tensor
    means: Tensor
    covariance: Tensor
    log_tables: Tensor

    def __init__(self, space: Space, config: Config) -> None:
        super().__init__(space)
        self.config = config
        self.columns = PixelScores(space) if PixelScores.serves(space) else Columns(space)
        c, k = self.columns.continuous, sum(self.columns.cardinalities)
        self.register_buffer("weights", torch.ones(1, dtype=torch.float64))
        self.register_buffer("means", torch.zeros(1, c, dtype=torch.float64))
        self.register_buffer("covariance", torch.ones(1, c, dtype=torch.float64))
        self.register_buffer("log_tables", torch.zeros(1, k, dtype=torch.float64))

    # ----------------------------------------------------------------------------------------- fitting

    def fit_closed(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        """Choose components and covariance on a held-out seventh of the rows, then fit the mixture to all rows."""
        self.columns.prepare(x)
        self.columns.find_recurring(x)
        x = x[torch.randperm(len(x), generator=rng)[: self.config.rows].to(x.device)]
        parts = self.columns.split(x)
        held = max(1, len(x) // 7)
        learn, check = parts[held : held + CHOOSING_ROWS], parts[:held]
        best: tuple[float, str, int] = (-math.inf, "diagonal", 1)
        for covariance in self._covariances(parts):
            worse = 0
            for k in _powers_of_two(min(self.config.components, max(1, len(learn.codes) // 10))):
                self._set_state(self._fit(learn, k, covariance, rng))
                score = float(self._log_prob_of(check).mean())
                worse = 0 if score > best[0] + 1e-3 else worse + 1
                best = max(best, (score, covariance, k))
                if worse == 2:
                    break
        self._set_state(self._fit(parts, best[2], best[1], rng))

    def _covariances(self, parts: Parts) -> list[str]:
        chosen = self.config.covariance
        c = self.columns.continuous
        patterns = len(parts.present.unique(dim=0)) if c else 0
        obstacle = (
            f"{c} continuous columns, at most {FULL_COLUMNS}" if c > FULL_COLUMNS
            else f"{patterns} patterns of absent values, at most {FULL_PATTERNS}" if patterns > FULL_PATTERNS
            else "rounded columns with atoms" if self.columns.overlaps
            else "pixels" if self.space.is_image
            else ""
        )  # fmt: skip
        if chosen == "full" and obstacle:
            raise InputError(f"gaussian_mixture: full covariance is not possible here ({obstacle}); use covariance='diagonal'")
        if chosen != "auto":
            return [chosen]
        return ["diagonal"] if obstacle or c < 2 else ["full", "diagonal"]

    def _set_state(self, state: MixtureState) -> None:
        self.weights, self.means = state.weights, state.means
        self.covariance, self.log_tables = state.covariance, state.log_tables

    def _fit(self, parts: Parts, k: int, covariance: str, rng: torch.Generator) -> MixtureState:
        values, _ = self.columns.dequantise(parts, rng)
        seed = int(torch.randint(2**31, (), generator=rng))
        if isinstance(self.columns, PixelScores) and covariance == "diagonal":
            return self._censored_fit(parts, k, seed)
        if not self.columns.coded:
            return self._library_fit(values, k, covariance, seed)
        hot = self.columns.indicators(parts.codes).double()
        labels = first_labels(values, parts.present, hot, k, seed)
        shares = functional.one_hot(labels, k).double()
        prior = (hot.sum(0) + 1) / (len(hot) + max(self.columns.cardinalities))
        patterns = distinct_patterns(parts.present) if covariance == "full" else []
        state = self._maximise(shares, values, parts.present, patterns, hot, prior, None, covariance)
        last = -math.inf
        for _ in range(self.config.iterations):
            joint = log_joint_of(state, values, parts.present, patterns, hot)
            score = float(torch.logsumexp(joint, 1).mean())
            state = self._maximise(torch.softmax(joint, 1), values, parts.present, patterns, hot, prior, state, covariance)
            if score - last < 1e-4:
                break
            last = score
        return state

    def _library_fit(self, values: Tensor, k: int, covariance: str, seed: int) -> MixtureState:
        kind = "full" if covariance == "full" else "diag"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = mixture.GaussianMixture(
                k, covariance_type=kind, reg_covar=self.config.ridge, max_iter=self.config.iterations, random_state=seed
            ).fit(values.cpu().numpy())

        def of(a: Any) -> Tensor:
            return torch.as_tensor(np.asarray(a), dtype=torch.float64, device=values.device)

        return MixtureState(of(fitted.weights_), of(fitted.means_), of(fitted.covariances_), values.new_zeros(k, 0))

    def _censored_fit(self, parts: Parts, k: int, seed: int) -> MixtureState:
        """EM from k-means; the prior of every component is ``PRIOR_ROWS`` rows of the standard Gaussian, which fits all rows."""
        one = parts.values.new_ones(1, parts.values.shape[1])
        state = MixtureState(one[:, 0], 0 * one, one, one[:, :0])
        if k == 1:
            return state
        pixels = CensoredScores(parts, self.config.ridge)
        labels = first_labels(parts.values, parts.present, parts.values[:, :0], k, seed)
        shares, last = functional.one_hot(labels, k).double(), -math.inf
        for _ in range(self.config.iterations):
            state = pixels.maximise(shares, state)
            joint = pixels.log_joint(state)
            score = float(torch.logsumexp(joint, 1).mean())
            if score - last < CENSORED_PROGRESS:
                break
            last, shares = score, torch.softmax(joint, 1)
        return state

    def _maximise(
        self, shares: Tensor, values: Tensor, present: Tensor, patterns: Patterns, hot: Tensor, prior: Tensor,
        state: MixtureState | None, covariance: str,
    ) -> MixtureState:  # fmt: skip
        """The M-step, with ``PRIOR_ROWS`` prior rows so that no component collapses."""
        n, k = shares.shape
        size = shares.sum(0)
        tables = shares.T @ hot + PRIOR_ROWS * prior
        totals = torch.cat([g.sum(1, keepdim=True).expand_as(g) for g in tables.split(list(self.columns.cardinalities), 1)], 1)
        weights = (size + PRIOR_ROWS / k) / (n + PRIOR_ROWS)
        seen = present.double()
        if covariance == "diagonal":
            count = shares.T @ seen
            means = (shares.T @ (seen * values)) / (count + PRIOR_ROWS)
            square = shares.T @ (seen * values**2) - 2 * means * (shares.T @ (seen * values)) + count * means**2
            variance = (square.clamp(min=0) + PRIOR_ROWS * 0.1) / (count + PRIOR_ROWS) + self.config.ridge
            return MixtureState(weights, means, variance, (tables / totals).log())
        means, spread = moments_given(shares, values, patterns, state)
        eye = torch.eye(values.shape[1], dtype=values.dtype, device=values.device)
        spread = (spread + PRIOR_ROWS * 0.1 * eye) / (size + PRIOR_ROWS)[:, None, None] + self.config.ridge * eye
        return MixtureState(weights, means, spread, (tables / totals).log())

    # ----------------------------------------------------------------------------------------- density

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self._log_prob_of(self._split(x))

    def _split(self, x: Tensor) -> Parts:
        """With the bins of recurring values, which pixels do not have."""
        return self.columns.split(x) if isinstance(self.columns, PixelScores) else self.columns.split(x, recurring=True)

    def _log_prob_of(self, parts: Parts) -> Tensor:
        everything = torch.ones_like(parts.codes, dtype=torch.bool)
        return torch.logsumexp(self._joint(parts, parts.present, everything), 1) + parts.log_base

    def _joint(self, parts: Parts, use: Tensor, use_code: Tensor) -> Tensor:
        """(n, K) log π_k + log p_k(codes in ``use_code``, values in ``use``), without the base."""
        k, c = self.means.shape
        tile = max(1, 4_000_000 // max(1, k * max(c, 1)))
        rows = range(0, len(parts.codes), tile)
        return torch.cat([self._joint_tile(parts[i : i + tile], use[i : i + tile], use_code[i : i + tile]) for i in rows])

    def _joint_tile(self, parts: Parts, use: Tensor, use_code: Tensor) -> Tensor:
        hot = self.columns.indicators(parts.codes).double()
        sizes = torch.tensor(self.columns.cardinalities, dtype=torch.int64, device=hot.device)
        out = self.weights.log() + (hot * use_code.repeat_interleave(sizes, 1)) @ self.log_tables.T
        if self.covariance.dim() == 3:
            return out + self._chain(parts, use)
        if isinstance(self.columns, PixelScores):
            return out + self._by_cell(self.columns.steps(parts.values), parts, use)
        means, deviations = self.means.T, self.covariance.T.sqrt()

        def law(cells: Parts | RecurringBins, at: Tensor | slice) -> Tensor:
            low, width, open_low, open_high = (
                t.unsqueeze(2) for t in (cells.low, cells.width, cells.open_low, cells.open_high)
            )
            return log_normal_mass(low, width, open_low, open_high, means[at], deviations[at])

        mass = log_recurring_mass(parts, law)
        out = out + (mass * use.unsqueeze(2)).sum(1)
        first = self.columns.first
        for s, v in self.columns.overlaps:
            ratio = self.log_tables[:, first[s]] - self.log_tables[:, first[s] + parts.codes[:, s]].T
            landed = functional.softplus(ratio + mass[:, v])
            out = out + torch.where((parts.overlap[:, v] & use_code[:, s]).unsqueeze(1), landed, 0.0)
        return out

    def _by_cell(self, steps: Tensor, parts: Parts, use: Tensor) -> Tensor:
        """(n, K) log mass of the used pixels. Many rows share a cell: its mass is computed once and looked up."""
        n, c = steps.shape
        cells, at = torch.unique(steps * c + torch.arange(c, device=steps.device), return_inverse=True)
        example = torch.empty_like(cells).scatter_(0, at.flatten(), torch.arange(n * c, device=cells.device))

        def pick(t: Tensor) -> Tensor:
            return t.flatten()[example].unsqueeze(1)

        table = log_normal_mass(
            pick(parts.low), pick(parts.width), pick(parts.open_low), pick(parts.open_high),
            self.means.T[cells % c], self.covariance.T[cells % c].sqrt(),
        )  # fmt: skip
        return functional.embedding_bag(at, table, mode="sum", per_sample_weights=use.to(table))

    def _chain(self, parts: Parts, use: Tensor) -> Tensor:
        """(n, K) log mass of the used values, each given the used values before it."""
        out = torch.zeros(len(use), len(self.weights), dtype=torch.float64, device=use.device)
        for pattern, rows in distinct_patterns(use):
            o = pattern.nonzero().squeeze(1)
            if len(o) == 0:
                continue
            factor = torch.linalg.cholesky(self.covariance[:, o[:, None], o])
            scale = factor.diagonal(dim1=1, dim2=2)
            unit = factor / scale.unsqueeze(1)
            deviation = parts.values[rows][:, o].unsqueeze(0) - self.means[:, o].unsqueeze(1)
            residual = torch.linalg.solve_triangular(unit, deviation.mT, upper=False, unitriangular=True).mT

            some = parts[rows].among(o)
            mass = log_recurring_mass(some, partial(_residual_mass, some.values, residual.permute(1, 2, 0), scale.T))
            out[rows] = mass.permute(2, 0, 1).contiguous().sum(2).T
        return out

    # ---------------------------------------------------------------------------------------- sampling

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        if not self.space.is_image:
            return self._fill(random.categorical(self.weights.log().expand(n, -1), rng), None, None, rng)
        # every image uses its own uniform numbers, so that drawing n at once or in parts gives the same images
        u = random.uniform((n, 1 + self.columns.continuous), rng, self.means)
        labels = torch.searchsorted(self.weights.cumsum(0), u[:, 0].contiguous(), right=True).clamp(max=len(self.weights) - 1)
        return self._fill(labels, None, None, rng, torch.special.ndtri(u[:, 1:].clamp(min=1e-16)))

    def _condition(self, x: Tensor, known: Tensor, draws: int, context: Tensor | None, rng: torch.Generator) -> Conditioned:
        """Components are reweighted by their likelihood of the known entries; the rest is drawn from the conditional of the
        component (in rounded columns: from the Gaussian, then rounded)."""
        filled = self.columns.blank(x, known)
        parts = self._split(filled)
        flat = known.reshape(len(x), -1)
        known_codes, known_values = flat[:, self.columns.coded], flat[:, self.columns.numeric]
        joint = self._joint(parts, parts.present & known_values, known_codes)
        joint = joint + (~known_codes).double() @ self._log_observed().T
        evidence = torch.logsumexp(joint, 1) + torch.where(known_values, parts.base, 0.0).sum(1)
        again = torch.arange(len(x), device=x.device).repeat(draws)
        labels = random.categoricals(joint, draws, rng).flatten()
        drawn = self._fill(labels, parts[again], flat[again], rng)
        values = torch.where(known, x, drawn.unflatten(0, (draws, len(x))))
        return Conditioned(values, evidence, torch.full_like(evidence, math.inf))

    def _log_observed(self) -> Tensor:
        """(K, S) log probability that a code is not "missing"."""
        tables = self.log_tables.clone()
        tables[:, self.columns.missing_at] = -math.inf
        groups = tables.split(list(self.columns.cardinalities), 1) if self.columns.coded else ()
        return torch.stack([torch.logsumexp(g, 1) for g in groups], 1) if groups else tables

    def _fill(
        self, labels: Tensor, parts: Parts | None, known: Tensor | None, rng: torch.Generator, noise: Tensor | None = None
    ) -> Tensor:
        """Draw rows from the components ``labels`` (n,), in data units; entries in ``known`` are copied from ``parts``. ``noise``
        (n, C): standard normal numbers for diagonal Gaussians; drawn if None."""
        n = len(labels)
        tables = self.log_tables.clone()
        if known is not None:
            tables[:, self.columns.missing_at] = -math.inf
        groups = tables.split(list(self.columns.cardinalities), 1) if self.columns.coded else ()
        drawn = [random.categorical(g[labels], rng) for g in groups]
        codes = torch.stack(drawn, 1) if drawn else torch.zeros(n, 0, dtype=torch.int64, device=labels.device)
        present = torch.ones(n, self.columns.continuous, dtype=torch.bool, device=labels.device)
        fixed = torch.zeros_like(present)
        values = torch.zeros(n, self.columns.continuous, dtype=torch.float64, device=labels.device)
        if parts is not None and known is not None:
            codes = torch.where(known[:, self.columns.coded], parts.codes, codes)
            fixed = known[:, self.columns.numeric] & parts.present
            values = torch.where(fixed, parts.values, 0.0)
        for j, s in self.columns.code_of.items():
            if j in self.columns.value_of:
                present[:, self.columns.value_of[j]] = codes[:, s] == 0
        if self.covariance.dim() == 2:
            noise = random.normal(tuple(values.shape), rng, values) if noise is None else noise
            drawn = self.columns.redraw_all(self.means[labels] + self.covariance[labels].sqrt() * noise, rng)
            values = torch.where(fixed, values, drawn)
        else:
            for pattern, rows in distinct_patterns(torch.cat([labels.unsqueeze(1), present, fixed], 1)):
                c = values.shape[1]
                k, here, given = int(pattern[0]), pattern[1 : 1 + c] > 0, pattern[1 + c :] > 0
                values[rows] = self._fill_full(k, here & ~given, given, values[rows], rng)
        return self.columns.join(codes, values)

    def _fill_full(self, k: int, drawn: Tensor, given: Tensor, values: Tensor, rng: torch.Generator) -> Tensor:
        """Draw the values ``drawn`` of component k given the values ``given``, one after the other, each rounded before the
        next."""
        order = torch.cat([given.nonzero().squeeze(1), drawn.nonzero().squeeze(1)])
        factor = torch.linalg.cholesky(self.covariance[k][order[:, None], order])
        scale = factor.diagonal()
        unit = factor / scale
        residual = torch.zeros(len(values), len(order), dtype=torch.float64, device=values.device)
        values = values.clone()
        for i, column in enumerate(order.tolist()):
            mean = self.means[k, column] + residual[:, :i] @ unit[i, :i]
            if i >= int(given.sum()):
                values[:, column] = self.columns.redraw(
                    mean + scale[i] * random.normal((len(values),), rng, values), column,
                    partial(random.uniform, (len(values),), rng, values),
                )  # fmt: skip
            residual[:, i] = values[:, column] - mean
        return values


def _residual_mass(
    values: Tensor, residual: Tensor, scale: Tensor, cells: Parts | RecurringBins, at: Tensor | slice
) -> Tensor:
    """(n, c, K) log mass of the cells of the columns ``at`` of values (n, C), which lie ``residual`` (n, C, K) above their means
    given the values before them, with deviations ``scale`` (C, K)."""
    low, width, values = (t.unsqueeze(2) for t in (cells.low, cells.width, values[:, at]))
    low = residual[:, at] + low - values
    open_low, open_high = cells.open_low.unsqueeze(2), cells.open_high.unsqueeze(2)
    return log_normal_mass(low, width, open_low, open_high, torch.zeros_like(low), scale[at])


def _powers_of_two(most: int) -> list[int]:
    return [2**i for i in range(most.bit_length())]


def suggest(space: Space, rows: int, seconds: float | None = None) -> Config:
    """The configuration for this number of fit rows and this time: fewer rows and components for wide tables and short runs; for
    images, as many components as can be fitted and scored in a tenth of the time."""
    if space.is_image:
        # seconds per component, as measured: fitting time grows with rows, scoring time with distinct cells; as many components
        # again are fitted to choose how many, and as many to all rows
        cost = 2 * space.dims * (7e-8 * min(rows, PIXEL_ROWS) + 3e-7 * min(rows, 256))
        most = 64 if seconds is None else min(128, max(2, round(0.1 * seconds / cost)))
        return Config(components=most, covariance="diagonal", rows=PIXEL_ROWS, iterations=30)
    wide = space.dims > 100
    most = 5_000 if wide else 20_000
    if seconds is not None:
        most = min(most, max(1_000, round(300 * seconds)))
    return Config(components=16 if wide else 64, rows=most, iterations=30 if wide else 100)


def build(
    space: Space, *, encoding: Columns | None = None, context_shape: tuple[int, ...] | None = None, config: Config,
    rng: torch.Generator,
) -> GaussianMixture:  # fmt: skip
    """An unfitted model; InputError with a context."""
    if context_shape is not None:
        raise InputError("gaussian_mixture: this family takes no context; use autoregressive or flow")
    model = GaussianMixture(space, config)
    if not isinstance(model.columns, PixelScores):  # PixelScores is an encoding that only this family uses
        model.columns.adopt(encoding)
    return model
