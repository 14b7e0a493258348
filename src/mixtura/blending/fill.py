"""Imputation: fill missing entries with any model, given the rest of the row: :func:`condition`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from mixtura.blending.blend import SampleBlend, context_at, log_density, log_sum_exp
from mixtura.contracts import Conditional, Conditioned, Density, InputError, Model, Watch, density_kind, unwatched
from mixtura.ground.rng import categoricals

#: the number of values that are processed at a time (32 MiB as float64)
TILE_ENTRIES = 2**22


@dataclass(frozen=True)
class _Request:
    """The arguments of :func:`condition` other than the rows."""

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

    A Conditional completes rows itself. A blend weights its models by w_k p_k(known entries) and completes each row with models
    drawn in that proportion; its effective sample size is the harmonic mean of theirs with these weights. For any other Density
    or LowerBound there is importance resampling: ``particles`` completions by ``proposal`` (a Conditional that is also a Density
    and draws from its conditional exactly) are weighted by p(row) / q(row). A bound can be used because its exponential is an
    unbiased estimate of a density; evidence and draws are then those of that density.

    ``watch`` receives the share of the rows that is done. A row whose known entries have probability zero has evidence −inf, and
    its draws are meaningless. Raises InputError on arguments of the wrong shape and on a model that cannot fill gaps with the
    given proposal; FloatingPointError if the evidence of a model is NaN.
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
        filled.append(_fill(model, x[rows], known[rows], context_at(context, rows), request))
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
    return Conditioned(values, log_sum_exp(claims), 1 / torch.where(share > 0, share / ess, 0.0).sum(1))


def _resample(model: Model, x: Tensor, known: Tensor, context: Tensor | None, request: _Request) -> Conditioned:
    """Sampling importance resampling (Rubin 1988): log weight = log p(row) − log q(row) + log q(known)."""
    particles, n = request.particles, len(x)
    proposal = cast(Conditional, request.proposal)
    guess = proposal.condition(x, known, draws=particles, context=context, rng=request.rng)
    rows = guess.values.flatten(0, 1)
    widened = None if context is None else context.expand(particles, *context.shape).flatten(0, 1)
    ours = log_density(model, rows, widened, request.rng)
    # rows that the model rules out have no weight, whatever their density under the proposal
    ratio = torch.where(ours > -math.inf, ours - log_density(proposal, rows, widened, request.rng), ours)
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
            "known: expected a bool tensor of the shape of x, with one row or more; "
            "mark the entries to condition on with True"
        )


def _check_able(model: Model, proposal: Conditional | None) -> None:
    leaves = list(_leaves(model))
    unable = [leaf for leaf in leaves if not isinstance(leaf, Conditional)]
    without_density = _names(leaf for leaf in unable if density_kind(leaf) is None)
    if without_density:
        raise InputError(
            f"model: {without_density} can only be sampled and cannot fill gaps, expected models with a density; blend without it"
        )
    if not unable:
        return
    if proposal is None:
        able = _names(leaf for leaf in leaves if isinstance(leaf, Conditional))
        hint = f"{able} can" if able else "no model here can"
        raise InputError(
            f"proposal: {_names(unable)} cannot fill gaps by itself, {hint}; "
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
            "expected the same; fit both on the same schema"
        )


def _names(models: Iterable[Model]) -> str:
    return " and ".join(sorted({type(model).__name__ for model in models}))


def _check_evidence(model: Model, evidence: Tensor) -> None:
    broken = (torch.isnan(evidence) | (evidence == math.inf)).nonzero()
    if len(broken):
        row = int(broken[0])
        raise FloatingPointError(
            f"{type(model).__name__} has evidence {float(evidence[row])} at row {row}: "
            "the training of a model failed, or the proposal rules the row out; try another model or proposal"
        )
