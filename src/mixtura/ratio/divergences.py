"""How far two laws are from one another, in numbers, from log r at rows of each: :func:`divergence`.

With r = p/q, the α-divergence is D_α = (E_q r^α − 1) / (α(α − 1)); it is KL(p‖q) for α → 1, KL(q‖p) for α → 0, half of Pearson's
χ² for α = 2 and four times the squared Hellinger distance for α = ½. For any positive function r,

    E_p r^(α−1)/(α−1) − E_q r^α/α − 1/(α(α−1))  ≤  D_α                         (Nguyen, Wainwright & Jordan 2010, f-divergences)

with equality at the true ratio. So the left side, on rows that r has not learnt from, is a lower bound in expectation, and its
error is of second order in that of r; its KL form is E_p log r − E_q r + 1. The two KL divergences are also given as the plain
means of log r and of −log r (``plug-in``), which need no mean of r itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mixtura.contracts import Estimate, InputError

#: log r (n,) at rows of p and (m,) at rows of q → terms (n,) and (m,) whose means add up to the divergence
Terms = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def alpha_terms(alpha: float) -> Terms:
    """The terms of D_α (see the module), for any finite α."""

    def terms(at_p: Tensor, at_q: Tensor) -> tuple[Tensor, Tensor]:
        if alpha == 1:
            return at_p + 1, -at_q.exp()
        if alpha == 0:
            return 1 - (-at_p).exp(), -at_q
        constant = 1 / (alpha * (alpha - 1))
        return ((alpha - 1) * at_p).exp() / (alpha - 1) - constant, -(alpha * at_q).exp() / alpha

    return terms


def _scaled(terms: Terms, by: float) -> Terms:
    def scaled(at_p: Tensor, at_q: Tensor) -> tuple[Tensor, Tensor]:
        first, second = terms(at_p, at_q)
        return by * first, by * second

    return scaled


def _jensen_shannon(at_p: Tensor, at_q: Tensor) -> tuple[Tensor, Tensor]:
    """½ KL(p‖m) + ½ KL(q‖m) with m = (p + q)/2: log 2 less the mean loss of labels; at most log 2."""
    return (math.log(2) - softplus(-at_p)) / 2, (math.log(2) - softplus(at_q)) / 2


def _mean_log(at_p: Tensor, at_q: Tensor) -> tuple[Tensor, Tensor]:
    return at_p, torch.zeros_like(at_q)


def _mean_reverse_log(at_p: Tensor, at_q: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(at_p), -at_q


#: name → terms, in nats for the first five
DIVERGENCES: dict[str, Terms] = {
    "kl": _mean_log,
    "reverse_kl": _mean_reverse_log,
    "kl_bound": alpha_terms(1.0),
    "reverse_kl_bound": alpha_terms(0.0),
    "js": _jensen_shannon,
    "chi2": _scaled(alpha_terms(2.0), 2.0),
    "hellinger2": _scaled(alpha_terms(0.5), 0.25),
}


def divergence(name: str | float, at_p: Tensor, at_q: Tensor) -> Estimate:
    """A divergence of ``DIVERGENCES``, or D_α for a number α, from log r at rows of p (n,) and of q (m,) that r has not learnt
    from. The error is over rows, for this r; ``n`` is the smaller number of rows. InputError on an unknown name."""
    if isinstance(name, str) and name not in DIVERGENCES:
        raise InputError(f"divergence: expected one of {', '.join(DIVERGENCES)}, or a number α, got {name!r}")
    if not isinstance(name, str) and (isinstance(name, bool) or not isinstance(name, Real) or not math.isfinite(name)):
        raise InputError(f"divergence: expected a name or a finite number α, got {name!r}")
    if not len(at_p) or not len(at_q):
        raise InputError("divergence: expected log-ratios at one row or more of each law, got none")
    terms = DIVERGENCES[name] if isinstance(name, str) else alpha_terms(float(name))
    parts = terms(at_p, at_q)
    error = math.sqrt(sum(float(part.var()) / len(part) for part in parts))
    value, n = sum(float(part.mean()) for part in parts), min(map(len, parts))
    if not (math.isfinite(value) and math.isfinite(error)):
        few = n < 2 or bool(torch.isnan(at_p).any() | torch.isnan(at_q).any())
        why = "one row has no error; give more" if n < 2 else "a log-ratio is no number"
        return Estimate(math.nan, math.nan, n, why if few else "the ratio is too large for a mean of its powers; take js or kl")
    return Estimate(value, error, n)


def label_nats(at_p: Tensor, at_q: Tensor) -> Estimate:
    """Mean log-probability of which sample a row is from, both equally likely: the score of a ratio on rows that it has not
    learnt from. It is −log 2 for r = 1, and largest in expectation for the true ratio."""
    first, second = -softplus(-at_p) / 2, -softplus(at_q) / 2
    error = math.sqrt(float(first.var()) / len(first) + float(second.var()) / len(second))
    return Estimate(float(first.mean() + second.mean()), error, min(len(first), len(second)))
