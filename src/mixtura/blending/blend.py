"""A mixture of models, :func:`blend`:

    p(x | c) = Σ_k π_k(c) p_k(x | c)

with constant weights π or a :class:`mixtura.blending.gate.Gate`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mixtura.blending.gate import Gate
from mixtura.contracts import Density, InputError, LowerBound, Model, Space, Stage, density_kind
from mixtura.ground.rng import categorical


def blend(models: Sequence[Model], weights: Sequence[float] | Gate) -> Model:
    """The mixture Σ_k weights[k] · models[k], of the weakest kind among the models with a positive weight.

    Models of weight zero are left out; if one model remains, it is returned itself. Exact densities give an
    :class:`ExactBlend`, densities and bounds a :class:`BoundBlend`, any other models a :class:`SampleBlend`. With a
    :class:`Gate` the weights depend on the context that the models share.

    Raises InputError on weights that are not on the simplex, and on models with different spaces or contexts.
    """
    count = len(weights.offset) if isinstance(weights, Gate) else len(weights)
    if len(models) != count or not models:
        raise InputError(
            f"weights: expected one weight for each of one or more models, got {count} for {len(models)} models; "
            "give both in the same order"
        )
    first = models[0]
    for k, model in enumerate(models):
        if model.space != first.space:
            raise InputError(
                f"models: model {k} has another space than model 0, expected the same space; fit all models on the same schema"
            )
        if model.context_shape != first.context_shape:
            raise InputError(
                f"models: model {k} has context {model.context_shape}, "
                f"expected {first.context_shape} as model 0; fit all models with the same context"
            )
    if isinstance(weights, Gate):
        _check_gate(weights, first.context_shape)
        used = weights.used.tolist()
        gate = Gate(weights.slope[used], weights.offset[used], weights.least[used])
    else:
        used = [weight > 0 for weight in _checked(weights)]
        gate = Gate.constant([weight for weight in weights if weight > 0])
    parts = [model for model, use in zip(models, used, strict=True) if use]
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
            f"weights: the gate has {gate.slope.shape[1]} features, expected {features} as the context of the models; "
            "fit the gate on that context"
        )


class SamplesAtHand(Model):
    """The rows (n, *shape) of an outside generator, drawn with replacement, so that it can be part of a :class:`SampleBlend`."""

    rows: Tensor

    def __init__(self, space: Space, rows: Tensor) -> None:
        super().__init__(space)
        self.register_buffer("rows", space.check(rows, name="samples"))

    def stages(self) -> tuple[Stage, ...]:
        """No stages: there is nothing to train."""
        return ()

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        return self.rows[torch.randint(len(self.rows), (n,), generator=rng)]


class SampleBlend(Model):
    """A mixture that can be sampled. ``models`` share a space and a context; ``gate`` gives their weights."""

    def __init__(self, models: Sequence[Model], gate: Gate) -> None:
        super().__init__(models[0].space, models[0].context_shape)
        self.models = nn.ModuleList(models)
        self.gate = gate.to(models[0].device)

    def stages(self) -> tuple[Stage, ...]:
        """No stages: the models are trained before they are blended."""
        return ()

    def components(self, n: int, context: Tensor | None) -> Iterator[tuple[Model, Tensor]]:
        """Each model with its (n,) log weights in n rows with this context."""
        for model, log_weight in zip(self.models, self.gate(n, context).unbind(1), strict=True):
            yield cast(Model, model), log_weight

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        """Each row draws its model first, so the order of the rows carries no information about the models."""
        labels = categorical(self.gate(n, context), rng).to(self.gate.offset.device)
        x = torch.empty(n, *self.space.shape, dtype=torch.float64, device=labels.device)
        for k, model in enumerate(self.models):
            rows = (labels == k).nonzero().squeeze(1)
            if len(rows):
                x[rows] = cast(Model, model).sample(len(rows), context=context_at(context, rows), rng=rng)
        return x


class ExactBlend(SampleBlend, Density):
    """A mixture of exact densities, with the exact density log Σ_k π_k exp(log p_k)."""

    #: each model keeps to its own support
    open_support = True

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        parts = self.components(len(x), context)
        return log_sum_exp([log_w + cast(Density, model).log_prob(x, context=context) for model, log_w in parts])


class BoundBlend(SampleBlend, LowerBound):
    """A mixture of densities and bounds, which is a bound: exp(b_k) is an unbiased estimate of a density, hence
    Σ_k π_k exp(b_k) is too, and the expectation of its logarithm is at most log Σ_k π_k p_k."""

    #: each model keeps to its own support
    open_support = True

    def _log_prob_bound(self, x: Tensor, context: Tensor | None, draws: int, rng: torch.Generator) -> Tensor:
        # scale each model's own number of draws, which is small where draws are expensive
        parts = self.components(len(x), context)
        return log_sum_exp([log_w + log_density(m, x, context, rng, draws / self.draws) for m, log_w in parts])


def log_density(model: Model, x: Tensor, context: Tensor | None, rng: torch.Generator, effort: float = 1.0) -> Tensor:
    """(n,) nats of a Density, or of a LowerBound with ``effort`` times its usual number of draws."""
    if isinstance(model, LowerBound):
        return model.log_prob_bound(x, context=context, draws=max(1, round(effort * model.draws)), rng=rng)
    return cast(Density, model).log_prob(x, context=context)


def log_sum_exp(terms: list[Tensor]) -> Tensor:
    """log Σ_k exp of K terms (n,) → (n,). A row that is −inf in every term is −inf, with a gradient of 0 instead of NaN."""
    stacked = torch.stack(terms)
    dead = (stacked == -math.inf).all(0)
    return torch.logsumexp(stacked.masked_fill(dead, 0.0), 0).masked_fill(dead, -math.inf)


def context_at(context: Tensor | None, rows: Tensor | slice) -> Tensor | None:
    """The contexts of some rows; None if there is no context."""
    return None if context is None else context[rows]
