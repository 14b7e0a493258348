"""Models made of models: the blend of any of them, and filling gaps with any of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from mixtura.contracts import Conditional, Conditioned, Density, InputError, LowerBound, Model, Phase, Space, density_kind
from mixtura.rng import categorical, uniform

#: numbers in flight at a time while filling gaps (32 MiB as float64)
TILE_ENTRIES = 2**22


# --------------------------------------------------------------------------------------------- blending


def blend(models: Sequence[Model], weights: Sequence[float]) -> Model:
    """The mixture Σ_k weights[k] · models[k], of the weakest kind among the models that carry weight.

    Models of weight zero are left out; where one remains it is returned itself. All densities give an
    :class:`ExactBlend`, densities and bounds a :class:`BoundBlend`, anything else a :class:`SampleBlend`.

    Raises InputError on weights that are not on the simplex, and on models of different spaces or contexts.
    """
    if len(models) != len(weights) or not models:
        raise InputError(
            f"weights: expected one for each model, and one model or more, got {len(weights)} for {len(models)} models; "
            "give both in the same order"
        )
    if not all(math.isfinite(w) and w >= 0 for w in weights) or abs(sum(weights) - 1) > 1e-6:
        raise InputError(
            f"weights: expected numbers of 0 or more that add up to 1, got {list(weights)}; divide them by their sum"
        )
    first = models[0]
    for k, model in enumerate(models):
        if model.space != first.space:
            raise InputError(
                f"models: model {k} has another space than model 0, expected one space; fit all of them on the same schema"
            )
        if model.context_shape != first.context_shape:
            raise InputError(
                f"models: model {k} has context {model.context_shape}, "
                f"expected {first.context_shape} as model 0; fit all with one context"
            )
    used = [(model, weight) for model, weight in zip(models, weights, strict=True) if weight > 0]
    parts, shares = [model for model, _ in used], [weight for _, weight in used]
    if len(parts) == 1:
        return parts[0]
    kinds = {density_kind(model) for model in parts}
    kind = SampleBlend if None in kinds else BoundBlend if "bound" in kinds else ExactBlend
    return kind(parts, shares)


class Given(Model):
    """The rows (n, *shape) of an outside generator, drawn with replacement: it can take part where samples are blended."""

    rows: Tensor

    def __init__(self, space: Space, rows: Tensor) -> None:
        super().__init__(space)
        self.register_buffer("rows", space.check(rows, name="samples"))

    def phases(self) -> tuple[Phase, ...]:
        """None: there is nothing to train."""
        return ()

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        return self.rows[torch.randint(len(self.rows), (n,), generator=rng)]


class SampleBlend(Model):
    """A mixture that can be sampled. ``models`` share a space; ``weights`` > 0 are on the simplex."""

    weights: Tensor

    def __init__(self, models: Sequence[Model], weights: Sequence[float]) -> None:
        super().__init__(models[0].space, models[0].context_shape)
        self.models = nn.ModuleList(models)
        shares = torch.tensor(weights, dtype=torch.float64, device=models[0].device)
        self.register_buffer("weights", shares / shares.sum())

    def phases(self) -> tuple[Phase, ...]:
        """None: the models learn before they are blended."""
        return ()

    def components(self) -> Iterator[tuple[Model, Tensor]]:
        """Each model with the log of its weight."""
        for model, log_weight in zip(self.models, self.weights.log(), strict=True):
            yield cast(Model, model), log_weight

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        """Each row draws its model first, so the order of the rows carries no information."""
        labels = categorical(self.weights.log().expand(n, -1), rng).to(self.weights.device)
        x = torch.empty(n, *self.space.shape, dtype=torch.float64, device=self.weights.device)
        for k, (model, _) in enumerate(self.components()):
            rows = (labels == k).nonzero().squeeze(1)
            if len(rows):
                x[rows] = model.sample(len(rows), context=_rows(context, rows), rng=rng)
        return x


class ExactBlend(SampleBlend, Density):
    """A mixture of exact densities is one: log Σ_k w_k exp(log p_k)."""

    def __init__(self, models: Sequence[Model], weights: Sequence[float]) -> None:
        super().__init__(models, weights)
        self.open_support = any(cast(Density, model).open_support for model in models)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        # the public log_prob, so that each model keeps to its own support where the blend's is open
        return _log_sum_exp([log_w + cast(Density, model).log_prob(x, context=context) for model, log_w in self.components()])


class BoundBlend(SampleBlend, LowerBound):
    """A mixture with a bound among its models is a bound: exp(b_k) estimates a density without bias, and so
    does Σ_k w_k exp(b_k); its logarithm falls short of log Σ_k w_k p_k on average."""

    def __init__(self, models: Sequence[Model], weights: Sequence[float]) -> None:
        super().__init__(models, weights)
        self.open_support = any(cast(Density | LowerBound, model).open_support for model in models)

    def _log_prob_bound(self, x: Tensor, context: Tensor | None, draws: int, rng: torch.Generator) -> Tensor:
        # a model that wants few draws (they are dear) gets its own number in proportion
        return _log_sum_exp([log_w + _log_density(m, x, context, rng, draws / self.draws) for m, log_w in self.components()])


def _log_density(model: Model, x: Tensor, context: Tensor | None, rng: torch.Generator, effort: float = 1.0) -> Tensor:
    """(n,) nats of a Density, or of a LowerBound by ``effort`` times as many draws as it wants."""
    if isinstance(model, LowerBound):
        return model.log_prob_bound(x, context=context, draws=max(1, round(effort * model.draws)), rng=rng)
    return cast(Density, model).log_prob(x, context=context)


def _log_sum_exp(terms: list[Tensor]) -> Tensor:
    """K × (n,) → (n,). A row that is −inf in every term is −inf, with a zero gradient instead of NaN."""
    stacked = torch.stack(terms)
    dead = (stacked == -math.inf).all(0)
    return torch.logsumexp(stacked.masked_fill(dead, 0.0), 0).masked_fill(dead, -math.inf)


def _rows(context: Tensor | None, rows: Tensor | slice) -> Tensor | None:
    return None if context is None else context[rows]


# ----------------------------------------------------------------------------------------- filling gaps


@dataclass(frozen=True)
class _Request:
    """What :func:`condition` was asked for, beside the rows."""

    draws: int
    proposal: Conditional | None
    particles: int
    rng: torch.Generator


@torch.no_grad()
def condition(
    model: Model,
    x: Tensor,
    known: Tensor,
    *,
    draws: int = 1,
    proposal: Conditional | None = None,
    particles: int = 256,
    context: Tensor | None = None,
    rng: torch.Generator,
) -> Conditioned:
    """``draws`` completions of each row of ``x`` (n, *shape), given the entries that ``known`` (n, *shape) marks.

    A Conditional answers itself. A blend weighs its models by w_k p_k(known entries) and completes each row
    with models drawn in that proportion; its effective sample size is the harmonic mean of theirs, so
    weighted. Any other Density or LowerBound resamples by importance: ``particles`` completions of
    ``proposal`` (a Conditional that is also a Density and draws from its conditional exactly) are weighted
    by p(row) / q(row). A bound serves, as its exponential estimates a density without bias; evidence and
    draws are then those of the density it implies.

    Raises InputError on misshapen arguments, on a model that can fill no gaps with what it was given, and on
    a row whose known entries have probability zero; FloatingPointError where a model's evidence is NaN.
    """
    for name, count in (("draws", draws), ("particles", particles)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InputError(f"{name}: expected a whole number, 1 or more, got {count!r}")
    _check_known(x, known)
    x = model.space.check(x.masked_fill(~known, 0))
    context = model.check_context(context, len(x))
    _check_able(model, proposal)
    request = _Request(draws, proposal, particles, rng)
    step = max(1, TILE_ENTRIES // ((particles + draws) * model.space.dims))
    tiles = [slice(i, i + step) for i in range(0, len(x), step)]
    filled = [_fill(model, x[rows], known[rows], _rows(context, rows), request) for rows in tiles]
    evidence = torch.cat([part.log_evidence for part in filled])
    _check_evidence(model, evidence)
    return Conditioned(torch.cat([part.values for part in filled], 1), evidence, torch.cat([part.ess for part in filled]))


def _fill(model: Model, x: Tensor, known: Tensor, context: Tensor | None, request: _Request) -> Conditioned:
    if isinstance(model, Conditional):
        return model.condition(x, known, draws=request.draws, context=context, rng=request.rng)
    if isinstance(model, SampleBlend):
        return _fill_blend(model, x, known, context, request)
    return _resample(model, x, known, context, request)


def _fill_blend(model: SampleBlend, x: Tensor, known: Tensor, context: Tensor | None, request: _Request) -> Conditioned:
    parts, claims = [], []
    for component, log_weight in model.components():
        parts.append(_fill(component, x, known, context, request))
        claims.append(log_weight + parts[-1].log_evidence)
    claim = torch.stack(claims, 1)
    labels = _pick(claim, request)
    values = torch.empty(request.draws, *x.shape, dtype=x.dtype, device=x.device)
    for k, part in enumerate(parts):
        values[labels == k] = part.values[labels == k]
    share, ess = torch.softmax(claim, 1), torch.stack([part.ess for part in parts], 1)
    return Conditioned(values, _log_sum_exp(claims), 1 / torch.where(share > 0, share / ess, 0.0).sum(1))


def _resample(model: Model, x: Tensor, known: Tensor, context: Tensor | None, request: _Request) -> Conditioned:
    """Sampling importance resampling (Rubin 1988): log weight = log p(row) − log q(row) + log q(known)."""
    particles, n = request.particles, len(x)
    proposal = cast(Conditional, request.proposal)
    guess = proposal.condition(x, known, draws=particles, context=context, rng=request.rng)
    rows = guess.values.flatten(0, 1)
    widened = None if context is None else context.expand(particles, *context.shape).flatten(0, 1)
    ratio = _log_density(model, rows, widened, request.rng) - _log_density(proposal, rows, widened, request.rng)
    log_weight = ratio.reshape(particles, n).T + guess.log_evidence[:, None]
    values = guess.values[_pick(log_weight, request), torch.arange(n, device=x.device)]
    evidence = torch.logsumexp(log_weight, 1) - math.log(particles)
    return Conditioned(values, evidence, 1 / torch.softmax(log_weight, 1).square().sum(1))


def _pick(log_weight: Tensor, request: _Request) -> Tensor:
    """(n, k) → (draws, n) indices. By bisection, as ``draws`` and k may both be large."""
    cdf = torch.softmax(log_weight, 1).cumsum(1)
    u = uniform((len(cdf), request.draws), request.rng, cdf) * cdf[:, -1:]
    return torch.searchsorted(cdf, u, right=True).clamp(max=cdf.shape[1] - 1).T


def _leaves(model: Model) -> Iterator[Model]:
    """The models whose conditionals :func:`_fill` will need."""
    if isinstance(model, SampleBlend) and not isinstance(model, Conditional):
        for component, _ in model.components():
            yield from _leaves(component)
    else:
        yield model


def _check_known(x: Tensor, known: Tensor) -> None:
    tensors = isinstance(x, Tensor) and isinstance(known, Tensor)
    if not tensors or known.dtype != torch.bool or known.shape != x.shape or not len(x):
        raise InputError(
            "known: expected a bool tensor of the shape of the tensor x, with one row or more; "
            "mark with True the entries to condition on"
        )


def _check_able(model: Model, proposal: Conditional | None) -> None:
    leaves = list(_leaves(model))
    helpless = [leaf for leaf in leaves if not isinstance(leaf, Conditional)]
    blind = _names(leaf for leaf in helpless if density_kind(leaf) is None)
    if blind:
        raise InputError(
            f"model: {blind} can only be sampled and cannot fill gaps, expected models with a density; blend without it"
        )
    if not helpless:
        return
    if proposal is None:
        able = _names(leaf for leaf in leaves if isinstance(leaf, Conditional))
        hint = f"{able} can" if able else "no model here can"
        raise InputError(
            f"proposal: {_names(helpless)} cannot fill gaps by itself, {hint}; "
            "give as proposal a model of the same space that can"
        )
    if not (isinstance(proposal, Conditional) and isinstance(proposal, Density)):
        raise InputError(
            f"proposal: expected a Conditional with an exact density, got {type(proposal).__name__}; "
            "give such a model as proposal"
        )
    if proposal.space != model.space or proposal.context_shape != model.context_shape:
        raise InputError(
            f"proposal: {type(proposal).__name__} has another space or context than the model, "
            "expected the same; fit both on one schema"
        )


def _names(models: Iterable[Model]) -> str:
    return " and ".join(sorted({type(model).__name__ for model in models}))


def _check_evidence(model: Model, evidence: Tensor) -> None:
    impossible = (evidence == -math.inf).nonzero()
    if len(impossible):
        raise InputError(
            f"x: row {int(impossible[0])} has known entries of probability zero under {type(model).__name__}, "
            "expected possible values; blend in a floor"
        )
    broken = (~torch.isfinite(evidence)).nonzero()
    if len(broken):
        row = int(broken[0])
        raise FloatingPointError(
            f"{type(model).__name__} has evidence {float(evidence[row])} at row {row}: "
            "a model is badly trained or the proposal rules the row out; try another"
        )
