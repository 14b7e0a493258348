"""Weights of a blend that depend on the context: a gate, its fit, and the test whether it is better than constant weights.

    π(c) = softmax(A c + b)

The weights are constant if A has no columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax
from torch import Tensor, nn

from mixtura.contracts import InputError

Array = NDArray[np.float64]

#: the penalties on the slopes that are tried, strongest first; an infinite penalty is the constant blend
PENALTIES = (1000.0, 100.0, 10.0, 1.0, 0.1)
#: folds of the cross-validation that chooses the penalty
FOLDS = 5
#: the solver stops when a step gains less than this, relative to the loss
TOLERANCE = 1e-7
#: the least initial weight of a model, because a weight of 0 gives its slope no gradient
LEAST_START = 0.01
#: a model without a constant weight is kept if its mean weight is at least this
LEAST_SHARE = 0.01


class Gate(nn.Module):
    """Log weights of K models as a function of the context, π = (1 − Σ least) softmax(A c + b) + least: ``slope`` A (K, f),
    ``offset`` b (K,) and ``least`` (K,), by default 0, all float64. With f = 0 the weights are constant, and the context is
    ignored. A model whose offset is −inf and whose least is 0 has weight 0."""

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
        """The gate with constant weights in proportion to ``weights`` ≥ 0."""
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
        """(K,) bool: which models have a positive weight."""
        return (self.offset > -math.inf) | (self.least > 0)

    @property
    def is_constant(self) -> bool:
        """Whether the weights do not depend on the context."""
        return self.slope.shape[1] == 0

    def plain(self) -> dict[str, Any]:
        """The gate as plain data for JSON; None stands for an offset of −inf."""
        offset = [None if b == -math.inf else b for b in self.offset.tolist()]
        return {"slope": self.slope.tolist(), "offset": offset, "least": self.least.tolist()}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Gate:
        """The inverse of :meth:`plain`. Raises ValueError if the numbers are not those of a gate."""
        offset = torch.tensor([-math.inf if b is None else b for b in plain["offset"]], dtype=torch.float64)
        slope = torch.tensor(plain["slope"], dtype=torch.float64).reshape(len(offset), -1)
        least = torch.tensor(plain["least"], dtype=torch.float64).reshape(offset.shape)
        if not (torch.isfinite(slope).all() and torch.isfinite(offset.max()) and (offset < math.inf).all()):
            raise ValueError("gate: expected finite numbers")
        if not ((least >= 0).all() and least.sum() < 1):
            raise ValueError("gate: expected least weights of 0 or more with a sum below 1")
        return cls(slope, offset, least)


@dataclass(frozen=True)
class Gating:
    """A gate and the evidence for it. penalty: the chosen penalty, infinite if the constant blend is kept. gated, constant: nats
    per row of both, on rows left out of their fits; gain ± error: their paired difference, for the penalty with the largest
    gain."""

    gate: Gate
    penalty: float
    gated: float
    constant: float
    gain: float
    error: float


def choose_gate(log_p: ArrayLike, features: ArrayLike, weights: Sequence[float], floor: int | None = None) -> Gating:
    """Weights of K models that depend on the context if that is better, else the constant ``weights`` (K,), on the simplex.

    log_p: (n, K) nats of held-out rows under each model; features: their contexts (n, f), standardised. Every penalty of
    ``PENALTIES`` is evaluated by cross-validation with ``FOLDS`` folds (row i belongs to fold i mod FOLDS), in which the
    constant blend is refitted as well. The gate is used if it gains more than one standard error (Breiman et al. 1984, section
    3.4.3). Models without a constant weight are kept only if their mean weight is at least ``LEAST_SHARE``, because every model
    costs storage and time. ``floor``: the number of the model with a weight of at least 1/(n + 1) in every row, so that rows
    that all other models rule out cost finitely many nats.

    Raises the errors of :func:`fit_gate`, and InputError on fewer than 2 rows per fold.
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
    """The fitted gate, refitted without the models that are hardly used, unless some row is possible only under these."""
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
    are fixed (Jacobs et al. 1991; the gradient in A c + b is responsibilities − π). An infinite penalty gives the constant gate
    with ``weights``.

    Raises InputError on arrays of the wrong shape, NaN, +inf, a row that is −inf under every model, or a negative penalty.
    """
    log_p, features = _check_gating(log_p, features, weights)
    if not penalty >= 0:
        raise InputError(f"penalty: expected a number of 0 or more, got {penalty}; a larger one makes the weights more constant")
    if math.isinf(penalty):
        return Gate.constant(weights)
    _, b = _climb(log_p, features, np.log(_inside(weights)), math.inf)
    A, b = _climb(log_p, features, b, penalty)
    return Gate(torch.as_tensor(A), torch.as_tensor(b))


def _inside(weights: Sequence[float]) -> Array:
    """The weights, moved away from the boundary of the simplex."""
    return (1 - LEAST_START) * np.asarray(weights, dtype=np.float64) + LEAST_START / len(weights)


def _climb(log_p: Array, features: Array, b: Array, penalty: float) -> tuple[Array, Array]:
    """The optimal (A, b), starting from (0, b); an infinite penalty keeps A at 0."""
    k, f = log_p.shape[1], features.shape[1]
    constant = math.isinf(penalty)
    c, λ = (features[:, :0], 0.0) if constant else (features, penalty)
    start = np.concatenate([np.zeros(k * c.shape[1]), b])
    found = minimize(_loss, start, (log_p, c, λ), "L-BFGS-B", jac=True, options={"ftol": TOLERANCE}).x
    A = np.zeros((k, f)) if constant else found[:-k].reshape(k, f)
    # adding a constant to b changes nothing, so centre it
    return A, found[-k:] - found[-k:].mean()


def _loss(parameters: Array, log_p: Array, features: Array, penalty: float) -> tuple[float, Array]:
    """− mean nats of the rows + penalty |A|²/2n, and its gradient; ``parameters`` are A and b in one vector."""
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
    """(n,) log Σ_k exp of (n, K), in which no row is −inf everywhere."""
    top = joint.max(1)
    return np.log(np.exp(joint - top[:, None]).sum(1)) + top


def _mixed(log_p: Array, features: Array, A: Array, b: Array) -> Array:
    """(n,) nats of the blend with this gate."""
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
        raise InputError("log_p, features: expected finite numbers, or -inf in log_p, got NaN or inf; drop those rows")
    dead = np.flatnonzero((log_p == -np.inf).all(1))
    if len(dead):
        raise InputError(
            f"log_p: row {dead[0]} is -inf under every model, expected one finite value in each row; "
            "add a model with a smoothed floor"
        )
    return log_p, features
