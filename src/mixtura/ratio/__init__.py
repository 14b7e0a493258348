"""Density ratios: log p(y) − log q(y), learnt from rows of both.

A method is a class with ``fit`` and ``log_ratio``, and one line in :data:`TABLE`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from mixtura.contracts import Estimate, InputError
from mixtura.ground.rng import generator
from mixtura.ratio import classifiers, kernel_densities
from mixtura.ratio.classifiers import CrossFitted
from mixtura.ratio.divergences import label_nats
from mixtura.ratio.gaussian import Gaussians
from mixtura.ratio.kernel_densities import KernelDensities
from mixtura.ratio.moments import SHARE, LeastSquares, Likelihood, MomentMatching
from mixtura.ratio.neighbours import Neighbours
from mixtura.ratio.ratio import Ratio, check, left_out

__all__ = ["Learnt", "Method", "TABLE", "learn", "of_name"]


@dataclass(frozen=True)
class Method:
    """One line of the table. tried: whether it is among those that the best is chosen from where no method is named: the fast
    ones and those that are not worse than another everywhere."""

    name: str
    make: Callable[[], Ratio]
    summary: str
    tried: bool = False


TABLE: dict[str, Method] = {
    row.name: row
    for row in (
        Method("logistic", classifiers.Logistic, "logistic regression: log r linear in the features", True),
        Method(
            "trees", partial(CrossFitted, classifiers.boosted_trees), "boosted trees on the labels, calibrated on rows left out",
            True
        ),
        Method("network", partial(CrossFitted, classifiers.network), "perceptrons on the labels, calibrated on rows left out"),
        Method("kliep", Likelihood, "a sum of kernels with the largest E_p log r (KLIEP)"),
        Method("ulsif", LeastSquares, "a sum of kernels by least squares (uLSIF)"),
        Method("rulsif", partial(LeastSquares, SHARE), "the ratio to 10 % of p and 90 % of q, by least squares (RuLSIF)"),
        Method("kmm", MomentMatching, "a sum of kernels that matches the kernel means (kernel mean matching)"),
        Method("knn", Neighbours, "distances to the fifth nearest rows"),
        Method("gaussian", Gaussians, "one Gaussian fitted to each sample", True),
        Method("kde", KernelDensities, "two kernel density estimates with one bandwidth", True),
        Method(
            "vwkde-analytic", partial(KernelDensities, kernel_densities.analytic),
            "kernel density estimates, weights of two Gaussians of one covariance",
        ),
        Method(
            "vwkde", partial(KernelDensities, kernel_densities.model_based),
            "kernel density estimates, weights that cancel the bias of a model of each sample", True,
        ),
        Method(
            "vwkde-score", partial(KernelDensities, kernel_densities.by_scores),
            "kernel density estimates, weights from networks trained by score matching",
        ),
    )
}  # fmt: skip


def of_name(name: str) -> Method:
    """The method of this name. InputError, which lists the names, if there is none."""
    if not isinstance(name, str) or name not in TABLE:
        raise InputError(f"method: {name!r} is unknown, expected one of {', '.join(TABLE)}; choose one of these")
    return TABLE[name]


@dataclass(frozen=True)
class Learnt:
    """A ratio, and how it did on rows that it has not learnt from.

    at_p, at_q: log r at every row of p (n,) and of q (m,), by ratios that have not learnt from it. scores: of every method that
    was tried, the mean log-probability of the label of such a row; that of "no difference" is −log 2. failed: method → why it has
    none.
    """

    method: str
    ratio: Ratio
    at_p: Tensor
    at_q: Tensor
    scores: dict[str, Estimate]
    failed: dict[str, str]


def learn(p: Tensor, q: Tensor, seed: int, method: str | None = None) -> Learnt:
    """A ratio from features p (n, d) and q (m, d), by the named method or by that with the best score among those that are
    ``tried``. InputError on an unknown method, on rows that cannot be used, and if no method works on them."""
    names = [of_name(method).name] if method is not None else [row.name for row in TABLE.values() if row.tried]
    check(p, q)
    p, q = p.double(), q.double()
    at, fitted, scores, failed = {}, {}, {}, {}
    for name in names:
        make, rng = TABLE[name].make, generator(seed, "ratio", name)
        try:
            fitted[name] = make().fit(p, q, rng)
            at[name] = fitted[name].left_out() or left_out(make, p, q, rng)
            scores[name] = label_nats(*at[name])
        except (ValueError, ArithmeticError, RuntimeError) as error:
            failed[name] = str(error).splitlines()[0]
    finite = {name: score.value for name, score in scores.items() if math.isfinite(score.value)}
    if not finite:
        raise InputError(f"ratio: no method works on these rows ({'; '.join(f'{k}: {v}' for k, v in failed.items())})")
    best = max(finite, key=finite.__getitem__)
    at_p, at_q = at[best]
    return Learnt(best, fitted[best], at_p, at_q, scores, failed)
