"""The terms of an objective, and their text on the command line.

Quadratic terms are the order-2 Rényi kernel entropy (κ = k², ℓ = 0), MMD² and KID (ℓ = −2 E_Y k(·, Y)), precision, density,
log-likelihood and cost (κ = 0). The Fréchet distance, the Vendi score and FLD are convex.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from mixtura.contracts import Estimate, InputError
from mixtura.ground.kernels import Cubic, Gaussian, Kernel, median_bandwidth
from mixtura.objectives.convex import Entropy, FldLikelihood, FrechetOfMixture
from mixtura.objectives.expression import ConvexTerm, Objective, QuadraticTerm, Term
from mixtura.objectives.quadratic import rows_of

#: neighbours that make the radius of a real row (Kynkäänniemi et al. 2019; Naeem et al. 2020)
NEIGHBOURS = 5
#: entries of a tile of distances
TILE_ENTRIES = 2**22
#: neighbours compared beyond those needed; how far a squared distance by a matrix product can be off, relative to the squared
#: lengths of its rows: float64 with some room
SPARE, ROUNDING = 2, 1e-12


@dataclass(frozen=True)
class RKE(QuadraticTerm):
    """Mode count of the mixture, 1 / E k(X, X′)² with a Gaussian k (Jalali, Li & Farnia 2023): the effective number of different
    samples. The default ``bandwidth`` is the median distance between samples."""

    bandwidth: float | None = None
    reference: Tensor | None = None

    name, unit, higher = "rke", "modes", True

    @property
    def kernel(self) -> Kernel | None:
        """k², again a Gaussian."""
        return None if self.bandwidth is None else Gaussian(self.bandwidth).squared

    @property
    def chosen_bandwidth(self) -> float | None:
        return self.bandwidth

    def own(self, loss: Estimate) -> Estimate:
        # the error of 1 / L; a U-form can be 0 if no two samples are similar
        if loss.value <= 0:
            return Estimate(math.inf, math.nan, loss.n)
        return Estimate(1 / loss.value, loss.error / loss.value**2, loss.n)

    def ready(self, samples: Sequence[Tensor], rng: torch.Generator) -> RKE:
        return self if self.bandwidth is not None else replace(self, bandwidth=_median(samples, self.reference, rng))


@dataclass(frozen=True, eq=False)
class MMD(QuadraticTerm):
    """MMD² between the mixture and ``reference`` (r, d), with a Gaussian kernel of ``bandwidth``, by default the median distance
    between reference rows, or any ``kernel`` (Gretton et al. 2012)."""

    reference: Tensor
    bandwidth: float | None = None
    kernel: Kernel | None = None

    name, unit, higher = "mmd", "MMD²", False
    matches = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "reference", rows_of(self.reference))
        if self.kernel is None and self.bandwidth is not None:
            object.__setattr__(self, "kernel", Gaussian(self.bandwidth))

    @property
    def spread(self) -> float:
        """ℓ = −2 E k(·, Y) lies within twice the bound of the kernel."""
        return 2 * self.kernel.bound if self.kernel else math.inf

    @property
    def chosen_bandwidth(self) -> float | None:
        return self.kernel.bandwidth if isinstance(self.kernel, Gaussian) else self.bandwidth

    def ready(self, samples: Sequence[Tensor], rng: torch.Generator) -> MMD:
        return self if self.kernel is not None else MMD(self.reference, kernel=Gaussian(median_bandwidth(self.reference, rng)))


@dataclass(frozen=True, eq=False)
class KID(QuadraticTerm):
    """MMD² with the kernel (x·y / d + 1)³ (Bińkowski et al. 2018)."""

    reference: Tensor

    name, unit, higher, spread = "kid", "KID", False, math.inf
    matches, bounded = True, False

    def __post_init__(self) -> None:
        object.__setattr__(self, "reference", rows_of(self.reference))

    @property
    def kernel(self) -> Kernel | None:
        """The cubic kernel for the number of features of the reference."""
        return Cubic(self.reference.shape[1])


@dataclass(frozen=True, eq=False)
class Precision(QuadraticTerm):
    """Share of samples within the radius of a reference row, its distance to its k-th neighbour among them (Kynkäänniemi et al.
    2019). The radii are taken as exact, so the share of a mixture is the weighted mean of the shares of the arms."""

    reference: Tensor
    k: int = NEIGHBOURS
    radii: Tensor = field(init=False)

    name, unit, higher, spread = "precision", "share", True, 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "reference", rows_of(self.reference))
        object.__setattr__(self, "radii", _radii(self.reference, self.k))

    def linear(self, x: Tensor, arm: int) -> Tensor:
        return -_inside(x, self.reference, self.radii, lambda inside: inside.any(1).double())


@dataclass(frozen=True, eq=False)
class NeighbourDensity(Precision):
    """Number of balls around reference rows that hold a sample, over k: about 1 for samples like the reference (Naeem et al.
    2020). Unlike precision, it is robust to a single outlier of the reference, whose radius is large."""

    name, unit, higher = "density", "balls / k", True

    @property
    def spread(self) -> float:
        """All balls at once."""
        return len(self.reference) / self.k

    def linear(self, x: Tensor, arm: int) -> Tensor:
        return -_inside(x, self.reference, self.radii, lambda inside: inside.double().sum(1) / self.k)


@dataclass(frozen=True, eq=False)
class LogLikelihood(QuadraticTerm):
    """Mean log-density of samples, nats: under ``log_prob`` (n, d) → (n,), or under a Gaussian kernel estimate of the reference
    whose bandwidth has the most leave-one-out likelihood. It favours likely samples, and so few modes: add a diversity
    term."""

    reference: Tensor | None = None
    log_prob: Callable[[Tensor], Tensor] | None = None
    bandwidth: float = field(init=False, default=math.nan)

    name, unit, higher, spread = "loglik", "nats", True, math.inf
    bounded = False

    def __post_init__(self) -> None:
        if (self.reference is None) == (self.log_prob is None):
            raise InputError("loglik: expected a reference or log_prob, got both or neither; give one")
        if self.reference is not None:
            object.__setattr__(self, "reference", rows_of(self.reference))
            object.__setattr__(self, "bandwidth", _likeliest_bandwidth(self.reference))

    @property
    def chosen_bandwidth(self) -> float | None:
        return self.bandwidth

    def linear(self, x: Tensor, arm: int) -> Tensor:
        if self.reference is not None:
            return -_kernel_log_density(x, self.reference, self.bandwidth, leave_out=False)
        return -cast(Callable[[Tensor], Tensor], self.log_prob)(x).double()


@dataclass(frozen=True)
class Cost(QuadraticTerm):
    """Mean cost of a sample; ``costs``: one for each arm."""

    costs: tuple[float, ...]

    name, unit, higher = "cost", "cost a sample", False

    def linear(self, x: Tensor, arm: int) -> Tensor:
        if arm >= len(self.costs):
            raise InputError(f"cost: {len(self.costs)} costs were given, but there are more arms; give one for each arm")
        return torch.full((len(x),), float(self.costs[arm]), dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Frechet(ConvexTerm):
    """Fréchet distance between Gaussians with the moments of the mixture and of ``reference`` (r, d)."""

    reference: Tensor

    name, unit, higher, matches = "frechet", "Fréchet distance", False, True

    def on(self, samples: Sequence[Tensor], rng: torch.Generator) -> FrechetOfMixture:
        return FrechetOfMixture(samples, rows_of(self.reference))


@dataclass(frozen=True, eq=False)
class Vendi(ConvexTerm):
    """Vendi score of the mixture, exp of the von Neumann entropy of its kernel operator (Friedman & Dieng 2023)."""

    bandwidth: float | None = None
    reference: Tensor | None = None

    name, unit, higher = "vendi", "modes", True

    @property
    def chosen_bandwidth(self) -> float | None:
        return self.bandwidth

    def own(self, loss: Estimate) -> Estimate:
        score = math.exp(-loss.value)
        return Estimate(score, score * loss.error, loss.n)

    def ready(self, samples: Sequence[Tensor], rng: torch.Generator) -> Vendi:
        return self if self.bandwidth is not None else replace(self, bandwidth=_median(samples, self.reference, rng))

    def on(self, samples: Sequence[Tensor], rng: torch.Generator) -> Entropy:
        if self.bandwidth is None:
            raise InputError("vendi: it has no bandwidth yet; call ready first, or give one")
        return Entropy(samples, Gaussian(self.bandwidth), rng=rng)


@dataclass(frozen=True, eq=False)
class FLD(ConvexTerm):
    """Negative mean log-likelihood, nats, of reference rows under the mixture of Gaussians around samples of the arms (the
    likelihood of Jiralerspong et al. 2023, section 3)."""

    reference: Tensor

    name, unit, higher, matches = "fld", "nats", False, True

    def on(self, samples: Sequence[Tensor], rng: torch.Generator) -> FldLikelihood:
        return FldLikelihood(samples, rows_of(self.reference), rng=rng)


#: name → (what it is, whether it needs a reference)
TERMS: Mapping[str, tuple[type[Term], bool]] = {
    "rke": (RKE, False), "mmd": (MMD, True), "kid": (KID, True), "precision": (Precision, True),
    "density": (NeighbourDensity, True), "loglik": (LogLikelihood, True), "cost": (Cost, False), "frechet": (Frechet, True),
    "vendi": (Vendi, False), "fld": (FLD, True),
}  # fmt: skip


def parse(
    text: str, *, reference: Tensor | None = None, bandwidth: float | None = None, costs: Sequence[float] | None = None
) -> Objective:
    """The objective of a text such as "rke+0.2*precision". ``reference`` (r, d), ``bandwidth`` and ``costs`` go to the terms that
    take them. Raises InputError on an unknown term, and on a term without its reference or costs."""
    objective: Objective | None = None
    for part in text.split("+"):
        found = re.fullmatch(r"\s*(?:([0-9.]+(?:e-?[0-9]+)?)\s*\*)?\s*([a-z]+)\s*", part)
        if found is None or found[2] not in TERMS:
            known = ", ".join(TERMS)
            raise InputError(f"objective: {part.strip()!r} is no term; write terms of {known}, as in rke+0.2*precision")
        kind, compares = TERMS[found[2]]
        if compares and reference is None:
            raise InputError(f"objective: {found[2]} compares with real rows; give --reference, in Python reference=")
        options: dict[str, Any] = {"reference": reference} if compares else {}
        if kind in (RKE, Vendi):
            options = {"bandwidth": bandwidth, "reference": reference}
        elif kind is MMD:
            options["bandwidth"] = bandwidth
        elif kind is Cost:
            if costs is None:
                raise InputError("objective: cost needs what a sample of each arm costs; give --costs, or cost: in arms.yaml")
            options = {"costs": tuple(costs)}
        try:
            scale = float(found[1] or 1)
        except ValueError as error:
            raise InputError(f"objective: {found[1]!r} is not a number; write for example 0.2*{found[2]}") from error
        term = kind(**options) * scale
        objective = term if objective is None else objective + term
    return objective  # type: ignore[return-value]


def _median(samples: Sequence[Tensor], reference: Tensor | None, rng: torch.Generator) -> float:
    return median_bandwidth(torch.cat([x.double() for x in samples]) if reference is None else rows_of(reference), rng)


def _tiles(x: Tensor, against: int) -> list[slice]:
    step = max(1, TILE_ENTRIES // max(1, against))
    return [slice(i, i + step) for i in range(0, len(x), step)]


def _radii(reference: Tensor, k: int) -> Tensor:
    """(r,) distance of every row to its k-th nearest other row."""
    if len(reference) <= k:
        raise InputError(f"reference: {len(reference)} rows have no {k} neighbours each; give {k + 1} or more")
    y = _centred(reference, reference)
    near = torch.cat([torch.cdist(y[t], y).topk(min(k + 1 + SPARE, len(y)), 1, largest=False).indices for t in _tiles(y, len(y))])
    return torch.cat([_apart(y[t, None], y[near[t]]).sort(1).values[:, k] for t in _tiles(y, near.shape[1] * y.shape[1])])


def _inside(x: Tensor, reference: Tensor, radii: Tensor, count: Callable[[Tensor], Tensor]) -> Tensor:
    """``count`` of whether each row of x (n, d) is in each ball around a reference row, called with (rows, r) for some rows at a
    time. Balls are closed, as in Kynkäänniemi et al. (2019, equation 1) and :func:`mixtura.metrics.neighbours.manifold`: a copy
    of a row is in its ball, even if the radius is 0."""
    rows, y = _centred(x, reference), _centred(reference, reference)
    found = []
    for t in _tiles(rows, len(y)):
        near = torch.cdist(rows[t], y).square()
        inside = near < radii.square()
        # the rounding of a matrix product must not decide whether a row is on the boundary
        rounding = ROUNDING * (rows[t].square().sum(1, keepdim=True) + y.square().sum(1))
        at = ((near - radii.square()).abs() <= rounding).nonzero(as_tuple=True)
        inside[at] = _apart(rows[t][at[0]], y[at[1]]) <= radii[at[1]] * (1 + ROUNDING)
        found.append(count(inside))
    return torch.cat(found)


def _centred(x: Tensor, reference: Tensor) -> Tensor:
    return x.double() - reference.double().mean(0)


def _apart(x: Tensor, y: Tensor) -> Tensor:
    """Distances by differences, so that a pair of rows always has the same one."""
    return (x - y).square().sum(-1).sqrt()


def _kernel_log_density(x: Tensor, reference: Tensor, h: float, *, leave_out: bool) -> Tensor:
    """(n,) log (1/r) Σ_j N(x; y_j, h² I); ``leave_out``: x is the reference, and no row counts for itself."""
    y, d = reference.double(), reference.shape[1]
    found = []
    for t in _tiles(x, len(y)):
        exponent = -torch.cdist(x[t].double(), y).square() / (2 * h * h)
        if leave_out:
            exponent[torch.arange(len(exponent)), torch.arange(len(y))[t]] = -math.inf
        found.append(exponent.logsumexp(1))
    return torch.cat(found) - math.log(len(y) - leave_out) - d / 2 * math.log(2 * math.pi * h * h)


def _likeliest_bandwidth(reference: Tensor) -> float:
    """The bandwidth with the most leave-one-out likelihood on at most 1,000 rows, from a geometric grid below the median
    distance."""
    rows = reference[:1_000]
    if len(rows) < 3:
        raise InputError(f"reference: {len(rows)} rows are too few for a density; give 3 or more")
    median = float(torch.pdist(rows.double()).median()) or 1.0
    ladder = [median * 0.7**i for i in range(16)]
    return max(ladder, key=lambda h: float(_kernel_log_density(rows, rows, h, leave_out=True).mean()))
