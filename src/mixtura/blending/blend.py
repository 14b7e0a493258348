"""Models made of models: the blend of any of them, weights that depend on the context, and filling gaps with any of them.

    p(x | c) = Σ_k π_k(c) p_k(x | c),   π(c) = softmax(A c + b)

A blend's weights are a :class:`Gate`: constant (A of no columns), or linear in the context c.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax
from torch import Tensor, nn

from mixtura.contracts import (
    Conditional,
    Conditioned,
    Density,
    InputError,
    LowerBound,
    Model,
    Space,
    Stage,
    Watch,
    density_kind,
    unwatched,
)
from mixtura.ground.rng import categorical, categoricals

#: numbers in flight at a time while filling gaps (32 MiB as float64)
TILE_ENTRIES = 2**22


# --------------------------------------------------------------------------------------------- blending


class Gate(nn.Module):
    """Log weights of K models as a function of the context, π = (1 − Σ least) softmax(A c + b) + least: ``slope`` A (K, f),
    ``offset`` b (K,) and ``least`` (K,), by default 0, float64. With f = 0 they are constant, and the context is not looked at.
    A model whose offset is −inf and whose least is 0 takes no part."""

    slope: Tensor
    offset: Tensor
    least: Tensor

    def __init__(self, slope: Tensor, offset: Tensor, least: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("slope", slope.double())
        self.register_buffer("offset", offset.double())
        self.register_buffer("least", torch.zeros_like(self.offset) if least is None else least.double())

    @classmethod
    def constant(cls, weights: Sequence[float]) -> Gate:
        """The gate of weights ≥ 0 in proportion."""
        shares = torch.tensor(weights, dtype=torch.float64)
        return cls(torch.zeros(len(shares), 0), (shares / shares.sum()).log())

    def forward(self, n: int, context: Tensor | None) -> Tensor:
        """(n, K) log weights for each of n context rows (n, …)."""
        if self.is_constant:
            return self.offset.expand(n, -1)
        free = torch.log_softmax(cast(Tensor, context).flatten(1).double() @ self.slope.T + self.offset, 1)
        return torch.logaddexp(free + torch.log1p(-self.least.sum()), self.least.log())

    @property
    def used(self) -> Tensor:
        """(K,) whether a model takes part."""
        return (self.offset > -math.inf) | (self.least > 0)

    @property
    def is_constant(self) -> bool:
        """Whether the context is not looked at."""
        return self.slope.shape[1] == 0

    def plain(self) -> dict[str, Any]:
        """As plain data, for JSON: None stands for an offset of −inf."""
        offset = [None if b == -math.inf else b for b in self.offset.tolist()]
        return {"slope": self.slope.tolist(), "offset": offset, "least": self.least.tolist()}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Gate:
        """The inverse of :meth:`plain`. Raises ValueError where the numbers are not those of a gate."""
        offset = torch.tensor([-math.inf if b is None else b for b in plain["offset"]], dtype=torch.float64)
        slope = torch.tensor(plain["slope"], dtype=torch.float64).reshape(len(offset), -1)
        least = torch.tensor(plain["least"], dtype=torch.float64).reshape(offset.shape)
        if not (torch.isfinite(slope).all() and torch.isfinite(offset.max()) and (offset < math.inf).all()):
            raise ValueError("a gate of numbers that are not finite")
        if not ((least >= 0).all() and least.sum() < 1):
            raise ValueError("a gate whose least weights are none")
        return cls(slope, offset, least)


def blend(models: Sequence[Model], weights: Sequence[float] | Gate) -> Model:
    """The mixture Σ_k weights[k] · models[k], of the weakest kind among the models that carry weight.

    Models of weight zero are left out; where one remains it is returned itself. All densities give an
    :class:`ExactBlend`, densities and bounds a :class:`BoundBlend`, anything else a :class:`SampleBlend`. A :class:`Gate`
    over the context that the models share makes the weights depend on it.

    Raises InputError on weights that are not on the simplex, and on models of different spaces or contexts.
    """
    count = len(weights.offset) if isinstance(weights, Gate) else len(weights)
    if len(models) != count or not models:
        raise InputError(
            f"weights: expected one for each model, and one model or more, got {count} for {len(models)} models; "
            "give both in the same order"
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
    if isinstance(weights, Gate):
        _check_gate(weights, first.context_shape)
        used = weights.used.tolist()
        gate = Gate(weights.slope[used], weights.offset[used], weights.least[used])
    else:
        used = [weight > 0 for weight in _checked(weights)]
        gate = Gate.constant([weight for weight in weights if weight > 0])
    parts = [model for model, carries in zip(models, used, strict=True) if carries]
    return parts[0] if len(parts) == 1 else _kind_of(parts)(parts, gate)


def _checked(weights: Sequence[float]) -> Sequence[float]:
    if not all(math.isfinite(w) and w >= 0 for w in weights) or abs(sum(weights) - 1) > 1e-6:
        raise InputError(
            f"weights: expected numbers of 0 or more that add up to 1, got {list(weights)}; divide them by their sum"
        )
    return weights


def _kind_of(models: Sequence[Model]) -> type[SampleBlend]:
    kinds = {density_kind(model) for model in models}
    return SampleBlend if None in kinds else BoundBlend if "bound" in kinds else ExactBlend


def _check_gate(gate: Gate, context_shape: tuple[int, ...] | None) -> None:
    features = 0 if context_shape is None else math.prod(context_shape)
    if gate.slope.shape[1] not in (0, features):
        raise InputError(
            f"weights: a gate over {gate.slope.shape[1]} features, expected {features} as the models' context has; "
            "fit it on their context"
        )


class Given(Model):
    """The rows (n, *shape) of an outside generator, drawn with replacement: it can take part where samples are blended."""

    rows: Tensor

    def __init__(self, space: Space, rows: Tensor) -> None:
        super().__init__(space)
        self.register_buffer("rows", space.check(rows, name="samples"))

    def stages(self) -> tuple[Stage, ...]:
        """None: there is nothing to train."""
        return ()

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        return self.rows[torch.randint(len(self.rows), (n,), generator=rng)]


class SampleBlend(Model):
    """A mixture that can be sampled. ``models`` share a space and a context; ``gate`` weighs them."""

    def __init__(self, models: Sequence[Model], gate: Gate) -> None:
        super().__init__(models[0].space, models[0].context_shape)
        self.models = nn.ModuleList(models)
        self.gate = gate.to(models[0].device)

    def stages(self) -> tuple[Stage, ...]:
        """None: the models learn before they are blended."""
        return ()

    def components(self, n: int, context: Tensor | None) -> Iterator[tuple[Model, Tensor]]:
        """Each model with the (n,) logs of its weight in n rows of this context."""
        for model, log_weight in zip(self.models, self.gate(n, context).unbind(1), strict=True):
            yield cast(Model, model), log_weight

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        """Each row draws its model first, so the order of the rows carries no information."""
        labels = categorical(self.gate(n, context), rng).to(self.gate.offset.device)
        x = torch.empty(n, *self.space.shape, dtype=torch.float64, device=labels.device)
        for k, model in enumerate(self.models):
            rows = (labels == k).nonzero().squeeze(1)
            if len(rows):
                x[rows] = cast(Model, model).sample(len(rows), context=_rows(context, rows), rng=rng)
        return x


class ExactBlend(SampleBlend, Density):
    """A mixture of exact densities is one: log Σ_k π_k exp(log p_k)."""

    #: each model keeps to its own support
    open_support = True

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        parts = self.components(len(x), context)
        return _log_sum_exp([log_w + cast(Density, model).log_prob(x, context=context) for model, log_w in parts])


class BoundBlend(SampleBlend, LowerBound):
    """A mixture with a bound among its models is a bound: exp(b_k) estimates a density without bias, and so
    does Σ_k π_k exp(b_k); its logarithm falls short of log Σ_k π_k p_k on average."""

    #: each model keeps to its own support
    open_support = True

    def _log_prob_bound(self, x: Tensor, context: Tensor | None, draws: int, rng: torch.Generator) -> Tensor:
        # a model that wants few draws (they are dear) gets its own number in proportion
        parts = self.components(len(x), context)
        return _log_sum_exp([log_w + _log_density(m, x, context, rng, draws / self.draws) for m, log_w in parts])


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


# --------------------------------------------------------------------------------------------- gating

Array = NDArray[np.float64]

#: penalties on the slopes that are tried, strongest first; beyond all of them stands the constant blend
PENALTIES = (1000.0, 100.0, 10.0, 1.0, 0.1)
FOLDS = 5
#: relative gain in nats of a step of the solver that ends it
TOLERANCE = 1e-7
#: the weight every model gets to begin with, or its slope would have no gradient
LEAST_START = 0.01
#: the mean share from which on a model without a constant weight is worth its cost
LEAST_SHARE = 0.01


@dataclass(frozen=True)
class Gating:
    """A gate and what speaks for it. ``penalty``: infinite where the constant blend stays. gated, constant: nats a row of
    both on rows left out of their fits; gain ± error: their paired difference, for the penalty with the largest."""

    gate: Gate
    penalty: float
    gated: float
    constant: float
    gain: float
    error: float


def choose_gate(log_p: ArrayLike, features: ArrayLike, weights: Sequence[float], floor: int | None = None) -> Gating:
    """Weights of K models that depend on the context where that pays, else the constant ``weights`` (K,), on the simplex.

    log_p: (n, K) nats of held-out rows under each model; features: their contexts (n, f), standardised. Every penalty of
    ``PENALTIES`` is judged on ``FOLDS`` folds (row i is left out of fold i mod FOLDS), the constant blend being fitted
    anew in each as well. A gate is taken if it gains more than one standard error (Breiman et al. 1984, section 3.4.3). Of
    models without a constant weight it keeps those with a share of ``LEAST_SHARE`` or more, for each has to be kept and asked.
    ``floor``: the model that has 1 part in n + 1 in every row, so that what no other model thinks possible costs nats, not −∞.

    Raises InputError as :func:`fit_gate`, and on fewer than 2 rows a fold.
    """
    log_p, features = _check_gating(log_p, features, weights)
    if len(log_p) < 2 * FOLDS:
        raise InputError(f"log_p: {len(log_p)} rows are too few for {FOLDS} folds, expected {2 * FOLDS} or more; give more rows")
    left_out = np.arange(len(log_p)) % FOLDS
    nats = {penalty: np.empty(len(log_p)) for penalty in (math.inf, *PENALTIES)}
    for k in range(FOLDS):
        learn, test = left_out != k, left_out == k
        _, start = _climb(log_p[learn], features[learn], np.log(_inside(weights)), math.inf)
        for penalty in nats:
            A, b = _climb(log_p[learn], features[learn], start, penalty)
            nats[penalty][test] = _mixed(log_p[test], features[test], A, b)
    alone = nats.pop(math.inf)
    best = max(PENALTIES, key=lambda penalty: float(nats[penalty].mean()))
    difference = nats[best] - alone
    gain, error = float(difference.mean()), float(difference.std(ddof=1)) / math.sqrt(len(difference))
    penalty = best if gain > error else math.inf
    gate = _pruned(log_p, features, weights, penalty)
    if floor is not None and not gate.is_constant:
        gate.least[floor] = 1 / (len(log_p) + 1)
    return Gating(gate, penalty, float(nats[best].mean()), float(alone.mean()), gain, error)


def _pruned(log_p: Array, features: Array, weights: Sequence[float], penalty: float) -> Gate:
    """The fitted gate, fitted anew without the models that are hardly used, unless a row is possible under these alone."""
    gate = fit_gate(log_p, features, weights, penalty)
    share = gate(len(features), torch.as_tensor(features)).exp().mean(0).numpy()
    kept = (np.asarray(weights) > 0) | (share >= LEAST_SHARE)
    if gate.is_constant or kept.all() or (log_p[:, kept] == -np.inf).all(1).any():
        return gate
    rest = fit_gate(log_p[:, kept], features, (share[kept] / share[kept].sum()).tolist(), penalty)
    slope, offset = torch.zeros_like(gate.slope), torch.full_like(gate.offset, -math.inf)
    slope[kept], offset[kept] = rest.slope, rest.offset
    return Gate(slope, offset)


def fit_gate(log_p: ArrayLike, features: ArrayLike, weights: Sequence[float], penalty: float) -> Gate:
    """The gate that maximises Σ_i log Σ_k π_k(c_i) exp(log_p[i, k]) − penalty/2 |A|², by L-BFGS from ``weights`` (K,).

    log_p: (n, K) nats, −inf where a model rules a row out; features: (n, f) contexts. A mixture of experts whose experts
    stay as they are (Jacobs et al. 1991; the gradient in A c + b is responsibilities − π). An infinite penalty gives the
    constant gate of ``weights`` as they are.

    Raises InputError on misshapen arrays, NaN, +inf, a row that is −inf under every model, or a negative penalty.
    """
    log_p, features = _check_gating(log_p, features, weights)
    if not penalty >= 0:
        raise InputError(f"penalty: expected a number of 0 or more, got {penalty}; more keeps the weights nearer to constant")
    if math.isinf(penalty):
        return Gate.constant(weights)
    _, b = _climb(log_p, features, np.log(_inside(weights)), math.inf)
    A, b = _climb(log_p, features, b, penalty)
    return Gate(torch.as_tensor(A), torch.as_tensor(b))


def _inside(weights: Sequence[float]) -> Array:
    """The weights moved off the boundary of the simplex."""
    return (1 - LEAST_START) * np.asarray(weights, dtype=np.float64) + LEAST_START / len(weights)


def _climb(log_p: Array, features: Array, b: Array, penalty: float) -> tuple[Array, Array]:
    """(A, b) at the optimum that is reached from (0, b); an infinite penalty keeps A at 0."""
    k, f = log_p.shape[1], features.shape[1]
    constant = math.isinf(penalty)
    c, λ = (features[:, :0], 0.0) if constant else (features, penalty)
    start = np.concatenate([np.zeros(k * c.shape[1]), b])
    found = minimize(_loss, start, (log_p, c, λ), "L-BFGS-B", jac=True, options={"ftol": TOLERANCE}).x
    A = np.zeros((k, f)) if constant else found[:-k].reshape(k, f)
    # a number added to all of b changes nothing
    return A, found[-k:] - found[-k:].mean()


def _loss(parameters: Array, log_p: Array, features: Array, penalty: float) -> tuple[float, Array]:
    """− mean nats of the rows + penalty |A|²/2n and its gradient, at (A, b) in a row."""
    n, k = log_p.shape
    A, b = parameters[:-k].reshape(k, features.shape[1]), parameters[-k:]
    log_π = log_softmax(features @ A.T + b, 1)
    joint = log_π + log_p
    nats = _log_sum(joint)
    slope = np.exp(log_π) - np.exp(joint - nats[:, None])
    value = penalty * float((A * A).sum()) / 2 - float(nats.sum())
    gradient = np.concatenate([(slope.T @ features + penalty * A).ravel(), slope.sum(0)])
    return value / n, gradient / n


def _log_sum(joint: Array) -> Array:
    """(n,) log Σ_k exp of (n, K), none of whose rows is −inf throughout."""
    top = joint.max(1)
    return np.log(np.exp(joint - top[:, None]).sum(1)) + top


def _mixed(log_p: Array, features: Array, A: Array, b: Array) -> Array:
    """(n,) nats of the blend."""
    return _log_sum(log_softmax(features @ A.T + b, 1) + log_p)


def _check_gating(log_p: ArrayLike, features: ArrayLike, weights: Sequence[float]) -> tuple[Array, Array]:
    log_p, features = np.asarray(log_p, dtype=np.float64), np.asarray(features, dtype=np.float64)
    k = len(weights)
    if log_p.ndim != 2 or log_p.shape[1] != k or features.ndim != 2 or len(features) != len(log_p) or not log_p.size:
        raise InputError(
            f"log_p, features: expected (n, {k}) and (n, f) of the same rows, got {log_p.shape} and {features.shape}; "
            "give a column for each weight"
        )
    if not np.isfinite(features).all() or np.isnan(log_p).any() or (log_p == np.inf).any():
        raise InputError("log_p, features: expected numbers, and -inf in log_p at most, got NaN or inf; drop those rows")
    dead = np.flatnonzero((log_p == -np.inf).all(1))
    if len(dead):
        raise InputError(
            f"log_p: row {dead[0]} is -inf under every model, expected one finite value in each row; "
            "add a model with a smoothed floor"
        )
    return log_p, features


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
    watch: Watch = unwatched,
) -> Conditioned:
    """``draws`` completions of each row of ``x`` (n, *shape), given the entries that ``known`` (n, *shape) marks.

    A Conditional answers itself. A blend weighs its models by w_k p_k(known entries) and completes each row
    with models drawn in that proportion; its effective sample size is the harmonic mean of theirs, so
    weighted. Any other Density or LowerBound resamples by importance: ``particles`` completions of
    ``proposal`` (a Conditional that is also a Density and draws from its conditional exactly) are weighted
    by p(row) / q(row). A bound serves, as its exponential estimates a density without bias; evidence and
    draws are then those of the density it implies.

    ``watch`` is told the share of the rows that is done. A row whose known entries have probability zero has evidence −inf, and
    its draws mean nothing. Raises InputError on misshapen arguments and on a model that can fill no gaps with what it was given;
    FloatingPointError where a model's evidence is NaN.
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
    filled = []
    for rows in (slice(i, i + step) for i in range(0, len(x), step)):
        filled.append(_fill(model, x[rows], known[rows], _rows(context, rows), request))
        watch(min(1.0, rows.stop / len(x)))
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
    for component, log_weight in model.components(len(x), context):
        parts.append(_fill(component, x, known, context, request))
        claims.append(log_weight + parts[-1].log_evidence)
    claim = torch.stack(claims, 1)
    labels = categoricals(claim, request.draws, request.rng)
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
    ours = _log_density(model, rows, widened, request.rng)
    # what the model rules out has no weight, whatever the proposal says
    ratio = torch.where(ours > -math.inf, ours - _log_density(proposal, rows, widened, request.rng), ours)
    log_weight = ratio.reshape(particles, n).T + guess.log_evidence[:, None]
    values = guess.values[categoricals(log_weight, request.draws, request.rng), torch.arange(n, device=x.device)]
    evidence = torch.logsumexp(log_weight, 1) - math.log(particles)
    return Conditioned(values, evidence, 1 / torch.softmax(log_weight, 1).square().sum(1))


def _leaves(model: Model) -> Iterator[Model]:
    """The models whose conditionals :func:`_fill` will need."""
    if isinstance(model, SampleBlend) and not isinstance(model, Conditional):
        for component in model.models:
            yield from _leaves(cast(Model, component))
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
    broken = (torch.isnan(evidence) | (evidence == math.inf)).nonzero()
    if len(broken):
        row = int(broken[0])
        raise FloatingPointError(
            f"{type(model).__name__} has evidence {float(evidence[row])} at row {row}: "
            "a model is badly trained or the proposal rules the row out; try another"
        )
