"""A batch of finite mixtures of Gaussians, such as those whose parameters a mixture density network predicts.

    p(y) = Σ_k π_k N(y; μ_k, Σ_k),    Σ_k = diag(σ_k²),  L_k L_kᵀ  or  W_k W_kᵀ + diag(σ_k²)     (Bishop 1994, section 3)

:class:`MixtureDensity` is a torch ``Distribution`` that adds what torch's mixture lacks: quantiles, modes, marginals and
conditionals in closed form, missing entries, a temperature, and reparameterised samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, constraints

from mixtura.contracts import InputError
from mixtura.ground import rng as random
from mixtura.ground.normal import LOG_SQRT_2PI, lower_factor, mixture_quantile, ndtr, normal_nats, solve_lower

#: the most iterations of the mean shift, which converges linearly
SHIFTS = 200

#: default number of draws for an estimate of the entropy
DRAWS = 1024

#: what is expected of the numbers of each argument, for error messages
_EXPECTED = {
    "logits": "numbers of which one or more is above -inf and none is inf or NaN",
    "means": "numbers that are not NaN",
    "scale": "deviations above 0",
    "scale_tril": "a lower triangle with a diagonal above 0",
    "factor": "numbers that are not NaN",
}


class MixtureDensity(Distribution):
    """Gaussian mixtures with ``logits`` (*batch, K), ``means`` (*batch, K, d) and either ``scale_tril`` (*batch, K, d, d), the
    L of full covariances, or deviations ``scale`` (*batch, K, d), with ``factor`` (*batch, K, d, r) for low rank plus diagonal.

    A NaN entry of a value is missing: it is integrated out. Sampling takes ``rng``; without it, torch's global generator is
    used, as in any torch distribution. ``validate_args`` means what it means in torch: whether the numbers of the arguments are
    checked, by default as ``Distribution.set_default_validate_args`` says. Distributions derived from this one are not checked
    again. Shapes are always checked. InputError on arguments that do not fit. Densities have no control flow that depends on
    values, so they can be traced, exported, compiled as a whole, and mapped by ``torch.func.vmap``.
    """

    arg_constraints: dict[str, constraints.Constraint] = {
        "logits": constraints.real_vector,
        "means": constraints.independent(constraints.real, 1),
        "scale": constraints.independent(constraints.positive, 1),
        "scale_tril": constraints.lower_cholesky,
        "factor": constraints.independent(constraints.real, 2),
    }
    support: Any = constraints.independent(constraints.real, 1)
    has_rsample = True

    def __init__(
        self, logits: Tensor, means: Tensor, *,
        scale: Tensor | None = None, scale_tril: Tensor | None = None, factor: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:  # fmt: skip
        if (scale is None) == (scale_tril is None) or (scale_tril is not None and factor is not None):
            raise InputError("mixture: expected either scale, with or without factor, or scale_tril; give one of them")
        d = means.shape[-1]
        for name, given, shape in (
            ("logits", logits, means.shape[:-1]), ("scale", scale, means.shape), ("scale_tril", scale_tril, (*means.shape, d)),
            ("factor", factor, (*means.shape, factor.shape[-1] if factor is not None else 0)),
        ):  # fmt: skip
            if given is not None and tuple(given.shape) != tuple(shape):
                raise InputError(
                    f"mixture: {name} has shape {tuple(given.shape)}, expected {tuple(shape)} for means {tuple(means.shape)}; "
                    "give one of each for every component"
                )
        if logits.dim() == 0 or not logits.shape[-1] or not d:
            raise InputError(
                f"mixture: logits have shape {tuple(logits.shape)} and means {tuple(means.shape)}, expected (…, K) and (…, K, d) "
                "with K and d of 1 or more; give both an axis of components"
            )
        self.log_weights, self.means = logits.log_softmax(-1), means
        self.scale, self.factor, self._scale_tril = scale, factor, scale_tril
        if self._validate_args if validate_args is None else validate_args:
            self._validate()
        super().__init__(logits.shape[:-1], means.shape[-1:], validate_args=False)

    def __repr__(self) -> str:
        *batch, k, d = self.means.shape
        return f"MixtureDensity(batch {tuple(batch)}, {k} components of {d} entries)"

    def _validate(self) -> None:
        """InputError on the first number that is not a valid parameter."""
        given = {"logits": self.log_weights, "means": self.means, "factor": self.factor}
        for name, value in (given | {"scale": self.scale, "scale_tril": self._scale_tril}).items():
            if value is None or not value.numel():  # torch's constraints fail on empty tensors
                continue
            good = self.arg_constraints[name].check(value)
            if not bool(good.all()):
                at = tuple((~good).nonzero()[0].tolist())
                raise InputError(f"mixture: {name} at {at} is {value[at].tolist()}, expected {_EXPECTED[name]}; repair it")

    # -------------------------------------------------------------------------------------------- components

    @property
    def logits(self) -> Tensor:
        """log π, (*batch, K): the normalised logits."""
        return self.log_weights

    @property
    def weights(self) -> Tensor:
        """π, (*batch, K)."""
        return self.log_weights.exp()

    @property
    def covariances(self) -> Tensor:
        """Σ_k, (*batch, K, d, d)."""
        if self._scale_tril is not None:
            return self._scale_tril @ self._scale_tril.mT
        diagonal = torch.diag_embed(cast(Tensor, self.scale).square())
        return diagonal if self.factor is None else self.factor @ self.factor.mT + diagonal

    @property
    def root(self) -> Tensor:
        """An A_k with Σ_k = A_k A_kᵀ, (*batch, K, d, d or more): L_k, or the columns of W_k and diag(σ_k) side by side."""
        if self._scale_tril is not None:
            return self._scale_tril
        own = torch.diag_embed(cast(Tensor, self.scale))
        return own if self.factor is None else torch.cat([self.factor, own], -1)

    @property
    def scale_tril(self) -> Tensor:
        """L_k with Σ_k = L_k L_kᵀ, (*batch, K, d, d)."""
        return self.root if self.factor is None else lower_factor(self.root)

    @property
    def deviations(self) -> Tensor:
        """Standard deviation of every entry in every component, (*batch, K, d)."""
        if self._scale_tril is not None:
            return self._scale_tril.square().sum(-1).sqrt()
        scale = cast(Tensor, self.scale)
        return scale if self.factor is None else (scale.square() + self.factor.square().sum(-1)).sqrt()

    @property
    def components(self) -> Distribution:
        """N(μ_k, Σ_k) as a torch distribution with batch shape (*batch, K)."""
        if self.scale is None or self.factor is not None:
            return MultivariateNormal(self.means, scale_tril=self.scale_tril, validate_args=False)
        return Independent(Normal(self.means, self.scale, validate_args=False), 1)

    # -------------------------------------------------------------------------------------------- density

    def log_prob(self, value: Tensor, *, gaps: bool = True) -> Tensor:
        """(*sample, *batch) nats at ``value`` (*sample, *batch, d). ``gaps=False``: no entry is missing (a NaN gives NaN). For
        full and low-rank covariances this is several times faster, because missing entries need a factor for each value."""
        return torch.logsumexp(self._joint(value, gaps), -1)

    def responsibilities(self, value: Tensor, *, gaps: bool = True) -> Tensor:
        """p(k | y), (*sample, *batch, K)."""
        return self._joint(value, gaps).softmax(-1)

    def _joint(self, value: Tensor, gaps: bool = True) -> Tensor:
        """log π_k N(y; μ_k, Σ_k), (*sample, *batch, K), of the entries that are present."""
        self._check(value)
        far = torch.isinf(value).any(-1, keepdim=True)
        off = value.masked_fill(far, 0.0).unsqueeze(-2) - self.means
        nats = self._of_present(off) if gaps else normal_nats(*self._standardised(off)).sum(-1)
        return (self.log_weights + nats).masked_fill(far, -math.inf)

    def _standardised(self, off: Tensor) -> tuple[Tensor, Tensor]:
        """L⁻¹ ``off`` for ``off`` = y − μ (*sample, *batch, K, d), and log diag L."""
        if self.scale is not None and self.factor is None:
            return off / self.scale, self.scale.log()
        factor = self.scale_tril
        return solve_lower(factor, off), factor.diagonal(dim1=-2, dim2=-1).log()

    def _of_present(self, off: Tensor) -> Tensor:
        """log N(y; μ_k, Σ_k), (*sample, *batch, K), at y − μ (*sample, *batch, K, d), NaN entries integrated out."""
        present = ~torch.isnan(off)
        off = off.masked_fill(~present, 0.0)
        if self.scale is not None and self.factor is None:
            z, log_scale = self._standardised(off)
        else:
            # a missing entry becomes an independent N(0, 1) entry at 0
            factor = lower_factor(torch.cat([present.unsqueeze(-1) * self.root, torch.diag_embed((~present).to(off))], -1))
            z, log_scale = solve_lower(factor, off), factor.diagonal(dim1=-2, dim2=-1).log()
        return torch.where(present, normal_nats(z, log_scale), 0.0).sum(-1)

    def _check(self, value: Tensor) -> None:
        if value.dim() == 0 or value.shape[-1:] != self.event_shape:
            raise InputError(
                f"value: expected (…, {self.event_shape[0]}) with the entries of y on the last axis, got {tuple(value.shape)}; "
                "reshape it, a single entry with y[..., None]"
            )
        own = self.batch_shape[max(0, len(self.batch_shape) - value.dim() + 1) :]
        if any(a != b and a != 1 and b != 1 for a, b in zip(reversed(value.shape[:-1]), reversed(own), strict=False)):
            raise InputError(
                f"value: {tuple(value.shape)} does not broadcast with a batch {tuple(self.batch_shape)} of distributions of "
                f"{self.event_shape[0]} entries; expected (…, {', '.join(map(str, (*self.batch_shape, *self.event_shape)))})"
            )

    # -------------------------------------------------------------------------------------------- marginals of the entries

    def cdf(self, value: Tensor) -> Tensor:
        """The marginal P(Y_j ≤ y_j) of every entry, (*sample, *batch, d)."""
        self._check(value)
        a = (value.unsqueeze(-2) - self.means) / self.deviations
        return (self.weights.unsqueeze(-1) * ndtr(a)).sum(-2)

    def icdf(self, q: Tensor | float) -> Tensor:
        """The marginal q-quantile of every entry, (*sample, *batch, d), float64; ``q`` in [0, 1] broadcasts against
        (*batch, d). It is computed by a bracketed Newton's method; its gradient is implicit, dy = (dq − dF) / f."""
        q = torch.as_tensor(q, dtype=torch.float64, device=self.means.device)
        if not bool(((q >= 0) & (q <= 1)).all()):
            raise InputError("q: expected probabilities between 0 and 1; divide percentages by 100")
        q = q.expand(torch.broadcast_shapes(q.shape, (*self.batch_shape, *self.event_shape)))
        weights, means, deviations = (t.double() for t in (self.weights.unsqueeze(-1), self.means, self.deviations))
        with torch.no_grad():
            y = mixture_quantile(q, weights, means, deviations)
        if not torch.is_grad_enabled() or not any(t.requires_grad for t in (q, weights, means, deviations)):
            return y
        inside = torch.isfinite(y)
        a = (torch.where(inside, y, 0.0).unsqueeze(-2) - means) / deviations
        f = (weights * (-0.5 * a.square() - LOG_SQRT_2PI).exp() / deviations).sum(-2).detach().clamp(min=1e-300)
        step = ((weights * ndtr(a)).sum(-2) - q) / f
        return torch.where(inside, y - (step - step.detach()), y)

    @property
    def mean(self) -> Tensor:
        """E[Y], (*batch, d)."""
        return (self.weights.unsqueeze(-1) * self.means).sum(-2)

    @property
    def variance(self) -> Tensor:
        """The variance of every entry, (*batch, d): within the components plus between them."""
        spread = self.deviations.square() + (self.means - self.mean.unsqueeze(-2)).square()
        return (self.weights.unsqueeze(-1) * spread).sum(-2)

    @property
    def covariance_matrix(self) -> Tensor:
        """The covariance matrix of the whole mixture, (*batch, d, d)."""
        off = (self.means - self.mean.unsqueeze(-2)).unsqueeze(-1)
        return (self.weights[..., None, None] * (self.covariances + off @ off.mT)).sum(-3)

    # -------------------------------------------------------------------------------------------- modes, entropy

    @property
    def mode(self) -> Tensor:
        """The highest mode, (*batch, d)."""
        return self.modes()[0][..., 0, :]

    @torch.no_grad()
    def modes(self) -> tuple[Tensor, Tensor]:
        """Local maxima (*batch, K, d), the highest first, and their log-densities (*batch, K). Where there are fewer than K, the
        rest is NaN and −inf. They are found by the mean shift from the mean of every component (Carreira-Perpiñán 2000, section
        4): y ← (Σ_k r_k Σ_k⁻¹)⁻¹ Σ_k r_k Σ_k⁻¹ μ_k with r_k = p(k | y). A mixture in two or more dimensions whose covariances
        differ may have further maxima that are reached from no mean."""
        law = self.reshape(-1).double()
        y, n, k = law.means, *law.log_weights.shape
        start = law.reshape(n, 1).expand((n, k))  # the same mixture for each of its K starts
        precision = torch.cholesky_inverse(law.scale_tril)
        pull = (precision @ law.means.unsqueeze(-1)).squeeze(-1)
        width = law.deviations.amin(1, keepdim=True)
        for _ in range(SHIFTS):
            r = start.responsibilities(y, gaps=False)
            to = torch.einsum("nsk,nkij->nsij", r, precision)
            new = torch.linalg.solve(to, torch.einsum("nsk,nkd->nsd", r, pull))
            moved = ((new - y) / width).abs().amax(-1)
            y = new
            if bool((moved < 1e-9).all()):
                break
        height = start.log_prob(y, gaps=False)
        # the highest point is kept as a mode even where the curvature is too small to judge
        flat = ~_peaked(start, y, precision) & (height < height.amax(1, keepdim=True))
        y, height = _ordered(y, height.masked_fill(flat, -math.inf))
        near = ((y.unsqueeze(1) - y.unsqueeze(2)).abs() / width.unsqueeze(1)).amax(-1) < 0.05
        again = near.tril(-1).any(2)  # a higher point is nearly the same
        y, height = _ordered(y, height.masked_fill(again, -math.inf))
        y = y.masked_fill(torch.isneginf(height).unsqueeze(-1), math.nan)
        return y.reshape(self.means.shape).to(self.means), height.reshape(self.log_weights.shape).to(self.means)

    def entropy(self, draws: int = DRAWS, *, rng: torch.Generator | None = None) -> Tensor:
        """−E log p(Y) in nats, (*batch): exact for one component, else the mean over ``draws`` samples; differentiable."""
        if self.log_weights.shape[-1] == 1:
            zero = torch.zeros_like(self.means)
            return -normal_nats(zero, self._standardised(zero)[1]).sum(-1).squeeze(-1) + self.event_shape[0] / 2
        return -self.log_prob(self.rsample((draws,), rng=rng), gaps=False).mean(0)

    # -------------------------------------------------------------------------------------------- draws

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = (), *, rng: torch.Generator | None = None) -> Tensor:
        """Samples, (*sample_shape, *batch, d)."""
        shape = (*sample_shape, *self.batch_shape)
        which = random.categorical(self.log_weights.expand(*shape, -1), rng)[..., None, None]

        def of(t: Tensor) -> Tensor:
            return t.expand(*shape, *t.shape[len(self.batch_shape) :])

        mean = of(self.means).gather(-2, which.expand(*shape, 1, *self.event_shape)).squeeze(-2)
        noise = random.normal((*shape, *self.event_shape), rng, self.means)
        if self._scale_tril is not None:
            full = which.unsqueeze(-1).expand(*shape, 1, *self._scale_tril.shape[-2:])
            return mean + (of(self._scale_tril).gather(-3, full).squeeze(-3) @ noise.unsqueeze(-1)).squeeze(-1)
        scale = of(cast(Tensor, self.scale)).gather(-2, which.expand(*shape, 1, *self.event_shape)).squeeze(-2)
        if self.factor is None:
            return mean + scale * noise
        tall = which.unsqueeze(-1).expand(*shape, 1, *self.factor.shape[-2:])
        hidden = random.normal((*shape, self.factor.shape[-1], 1), rng, self.means)
        return mean + scale * noise + (of(self.factor).gather(-3, tall).squeeze(-3) @ hidden).squeeze(-1)

    def rsample(self, sample_shape: Sequence[int] = (), *, rng: torch.Generator | None = None) -> Tensor:
        """Like :meth:`sample`, with gradients in logits, means and covariances by implicit reparameterisation (Figurnov et al.
        2018, section 3; Graves 2016): u_i = F(y_i | y_1 … y_{i−1}) is held fixed, so dy_i = −dF / f(y_i | y_1 … y_{i−1})."""
        y = self.sample(sample_shape, rng=rng)
        factor, log_w, entries = self.scale_tril, self.log_weights.expand(*y.shape[:-1], -1), []
        z: list[Tensor] = []  # L_k⁻¹ (y − μ_k), entry by entry
        for i in range(y.shape[-1]):
            shift = self.means[..., i]
            for j, before in enumerate(z):
                shift = shift + factor[..., i, j] * before
            scale, w = factor[..., i, i], log_w.softmax(-1)
            a = (y[..., i].unsqueeze(-1) - shift) / scale
            f = (w * (-0.5 * a.square() - LOG_SQRT_2PI).exp() / scale).sum(-1).detach().clamp(min=1e-30)
            step = (w * ndtr(a)).sum(-1) / f
            moved = y[..., i] - (step - step.detach())
            entries.append(moved)
            z.append((moved.unsqueeze(-1) - shift) / scale)
            log_w = log_w - 0.5 * z[-1].square() - scale.log()
        return torch.stack(entries, -1)

    # -------------------------------------------------------------------------------------------- other mixtures

    def tempered(self, temperature: float) -> MixtureDensity:
        """Logits divided by τ, deviations times √τ (Ha & Schmidhuber 2018, appendix): τ < 1 favours the likely components,
        τ → 0 gives the mean of the likeliest one, τ = 1 changes nothing. InputError unless τ > 0."""
        if not (math.isfinite(temperature) and temperature > 0):
            raise InputError(f"temperature: expected a number above 0, got {temperature}; 1 changes nothing")
        root = math.sqrt(temperature)

        def times(t: Tensor | None) -> Tensor | None:
            return None if t is None else t * root

        return MixtureDensity(
            self.log_weights / temperature, self.means,
            scale=times(self.scale), scale_tril=times(self._scale_tril), factor=times(self.factor), validate_args=False,
        )  # fmt: skip

    def marginal(self, entries: Sequence[int]) -> MixtureDensity:
        """The distribution of some entries of y, in the order given. InputError on an unknown or repeated entry."""
        at = self._entries(entries)
        if self._scale_tril is not None:
            tril = lower_factor(self._scale_tril[..., at, :])
            return MixtureDensity(self.log_weights, self.means[..., at], scale_tril=tril, validate_args=False)
        scale, factor = cast(Tensor, self.scale)[..., at], None if self.factor is None else self.factor[..., at, :]
        return MixtureDensity(self.log_weights, self.means[..., at], scale=scale, factor=factor, validate_args=False)

    def conditional(self, entries: Sequence[int], value: Tensor) -> MixtureDensity:
        """The distribution of the other entries, in their order, given ``entries`` = ``value`` (*batch, len(entries)): weights
        ∝ π_k N(value; μ_k, Σ_k) and the Gaussian conditional of every component. InputError if no entry is left."""
        given = self._entries(entries)
        left = [i for i in range(self.event_shape[0]) if i not in given]
        if not left:
            raise InputError(f"entries: all {len(given)} entries are given, expected one or more to be left; give fewer")
        if bool(torch.isnan(value).any()):
            raise InputError("value: expected numbers, got a NaN; leave missing entries out of entries")
        logits = self.marginal(given)._joint(value, gaps=False)
        if self.scale is not None and self.factor is None:
            return MixtureDensity(logits, self.means[..., left], scale=self.scale[..., left], validate_args=False)
        # with the given entries first, L = (A 0; B C): the conditional mean is shifted by B A⁻¹ (value − μ), and its factor is C
        tril, g = lower_factor(self.root[..., given + left, :]), len(given)
        off = (value.unsqueeze(-2) - self.means[..., given]).unsqueeze(-1)
        shift = tril[..., g:, :g] @ torch.linalg.solve_triangular(tril[..., :g, :g], off, upper=False)
        means = self.means[..., left] + shift.squeeze(-1)
        return MixtureDensity(logits, means, scale_tril=tril[..., g:, g:], validate_args=False)

    def _entries(self, entries: Sequence[int]) -> list[int]:
        d = self.event_shape[0]
        at = [i + d if i < 0 else i for i in entries]
        if not at or len(set(at)) < len(at) or not all(0 <= i < d for i in at):
            raise InputError(f"entries: expected some of 0 to {d - 1}, each once, got {list(entries)}; count from 0 or from −1")
        return at

    # -------------------------------------------------------------------------------------------- batches

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> MixtureDensity:
        """The same distributions in a larger batch, without copies."""
        return self._map(lambda t, own: t.expand(*batch_shape, *t.shape[t.dim() - own :]))

    def reshape(self, *batch_shape: int) -> MixtureDensity:
        """The same distributions in a batch of another shape."""
        return self._map(lambda t, own: t.reshape(*batch_shape, *t.shape[t.dim() - own :]))

    def double(self) -> MixtureDensity:
        """The same distributions in float64."""
        return self._map(lambda t, _: t.double())

    def __getitem__(self, rows: Any) -> MixtureDensity:
        """A part of the batch, by an index into its axes; InputError if the index has more axes than the batch."""
        index = rows if isinstance(rows, tuple) else (rows,)
        axes = [i.dim() if isinstance(i, Tensor) and i.dtype == torch.bool else int(i is not None) for i in index if i is not ...]
        if sum(axes) > len(self.batch_shape):
            raise InputError(f"index: the batch {tuple(self.batch_shape)} has fewer axes than {rows!r}; use fewer indices")
        if any(i is ... for i in index):
            at = next(k for k, i in enumerate(index) if i is ...)
            index = (*index[:at], *(slice(None),) * (len(self.batch_shape) - sum(axes)), *index[at + 1 :])
        return self._map(lambda t, _: t[index])

    def component(self, *index: Tensor) -> MixtureDensity:
        """Single Gaussians, by one index for each axis of (*batch, K); the indices broadcast to the new batch."""
        return self._map(lambda t, own: t[index].unsqueeze(-own))

    def pooled(self, axis: int, log_weights: Tensor | None = None) -> MixtureDensity:
        """The mixture of the distributions along one batch axis: an ensemble of M mixtures of K components becomes one mixture of
        M·K components. ``log_weights`` (M,) are equal by default."""
        m, at = self.batch_shape[axis], axis % len(self.batch_shape)
        shares = torch.zeros(m, device=self.means.device) - math.log(m) if log_weights is None else log_weights

        def merged(t: Tensor, own: int) -> Tensor:
            if own == 1:
                t = t + shares.to(t).reshape(-1, *(1,) * (t.dim() - at - 1))
            return t.movedim(at, t.dim() - own - 1).flatten(t.dim() - own - 1, t.dim() - own)

        return self._map(merged)

    def _map(self, change: Callable[[Tensor, int], Tensor]) -> MixtureDensity:
        """Apply ``change`` to every tensor; its second argument is the number of trailing axes that are not batch axes."""

        def to(t: Tensor | None, own: int) -> Tensor | None:
            return None if t is None else change(t, own)

        return MixtureDensity(
            change(self.log_weights, 1), change(self.means, 2),
            scale=to(self.scale, 2), scale_tril=to(self._scale_tril, 3), factor=to(self.factor, 3), validate_args=False,
        )  # fmt: skip


def _peaked(law: MixtureDensity, y: Tensor, precision: Tensor) -> Tensor:
    """Whether log p has negative curvature in every direction at stationary points y (n, s, d) of distributions with batch
    (n, s) and precisions (n, K, d, d): the mean shift can also stop at a saddle or a minimum where it started."""
    r = law.responsibilities(y, gaps=False)
    slope = torch.einsum("nkij,nskj->nski", precision, law.means - y.unsqueeze(-2))
    bend = torch.einsum("nsk,nski,nskj->nsij", r, slope, slope) - torch.einsum("nsk,nkij->nsij", r, precision)
    return torch.linalg.eigvalsh(bend)[..., -1] < 1e-9 * torch.einsum("nsk,nkii->ns", r, precision)


def _ordered(y: Tensor, height: Tensor) -> tuple[Tensor, Tensor]:
    """Points (n, s, d) and their heights (n, s), the highest first."""
    order = height.argsort(dim=1, descending=True, stable=True)
    return y.gather(1, order.unsqueeze(-1).expand_as(y)), height.gather(1, order)
