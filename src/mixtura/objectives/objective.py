"""What is asked of a mixture of generators: terms that add up, each a loss of the mixture a on the simplex.

Most are quadratic,

    L(a) = Σ_ij a_i a_j E κ(X_i, X_j) + Σ_i a_i E ℓ(X_i) + c,

X_i a sample of arm i and every expectation over independent ones, with a positive semidefinite kernel κ and a loss ℓ of single
samples: the order-2 Rényi kernel entropy (κ = k², ℓ = 0), MMD² and KID (ℓ = −2 E_Y k(·, Y)), precision, density, log-likelihood
and cost (κ = 0). :class:`Quadratic` is what is left of them on samples at hand. The others are convex
(:mod:`mixtura.simplex.convex`).

Terms are written ``RKE(1.0) + 0.2 * Precision(real)``, on the command line ``rke+0.2*precision``.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mixtura.contracts import Estimate, InputError
from mixtura.ground.kernels import Cubic, Gaussian, Kernel, median_bandwidth, sums
from mixtura.simplex.convex import Entropy, FldLikelihood, FrechetOfMixture

Array = NDArray[np.float64]

#: neighbours that make the radius of a real row (Kynkäänniemi et al. 2019; Naeem et al. 2020)
NEIGHBOURS = 5
#: entries of a tile of distances
TILE_ENTRIES = 2**22
#: neighbours looked at beyond those needed; how far a squared distance by a matrix product can be off, relative to the squared
#: lengths of its rows: float64 with some room
SPARE, ROUNDING = 2, 1e-12


# ----------------------------------------------------------------------------------------------------- expressions


class Expression:
    """Something that can be added and scaled."""

    @property
    def parts(self) -> tuple[tuple[float, Term], ...]:
        """(scale, term) of every term."""
        raise NotImplementedError

    def __add__(self, other: Expression) -> Objective:
        if not isinstance(other, Expression):
            return NotImplemented
        return Objective(self.parts + other.parts)

    def __mul__(self, scale: float) -> Objective:
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < math.inf:
            raise InputError(f"objective: a term can be scaled by a finite number above 0, got {scale!r}")
        return Objective(tuple((scale * s, term) for s, term in self.parts))

    __rmul__ = __mul__


@dataclass(frozen=True)
class Objective(Expression):
    """A sum of scaled terms. Its own unit is that of its term if there is one, unscaled, else the sum of the losses, to be
    lowered."""

    terms: tuple[tuple[float, Term], ...]

    @property
    def parts(self) -> tuple[tuple[float, Term], ...]:
        """Its terms."""
        return self.terms

    @property
    def alone(self) -> Term | None:
        """The term, if it is the only one."""
        return self.terms[0][1] if len(self.terms) == 1 else None

    @property
    def name(self) -> str:
        """As it is written on the command line."""
        return "+".join(term.name if scale == 1 else f"{scale:g}*{term.name}" for scale, term in self.terms)

    @property
    def unit(self) -> str:
        """Of :meth:`own`."""
        return self.alone.unit if self.alone else "sum of losses"

    @property
    def higher(self) -> bool:
        """Whether more of it is better."""
        return self.alone.higher if self.alone else False

    def own(self, loss: Estimate) -> Estimate:
        """The objective in its own unit, from its loss."""
        if self.alone is None:
            return loss
        scale = self.terms[0][0]
        return self.alone.own(Estimate(loss.value / scale, loss.error / scale, loss.n))

    def ready(self, samples: Sequence[Tensor], rng: torch.Generator) -> Objective:
        """With every bandwidth that was left open chosen, from samples (n_i, d) of all arms or the reference."""
        return Objective(tuple((scale, term.ready(samples, rng)) for scale, term in self.terms))

    @property
    def quadratic(self) -> bool:
        """Whether every term is."""
        return all(isinstance(term, QuadraticTerm) for _, term in self.terms)


# ----------------------------------------------------------------------------------------------------------- terms


class Term(Expression, ABC):
    """One thing asked of a mixture. ``loss`` is what is lowered; ``own`` the same in the unit people know.

    name, unit; higher: whether more of the own unit is better. matches: whether it is a distance to the law of a reference,
    which is then a sample like those of the arms.
    """

    name: str
    unit: str
    higher: bool
    matches = False

    @property
    def parts(self) -> tuple[tuple[float, Term], ...]:
        """Itself."""
        return ((1.0, self),)

    def own(self, loss: Estimate) -> Estimate:
        """From loss to the own unit, with its error."""
        # a difference, since −0.0 is no value to show
        return Estimate(0.0 - loss.value if self.higher else 0.0 + loss.value, loss.error, loss.n)

    def ready(self, samples: Sequence[Tensor], rng: torch.Generator) -> Term:
        """With its bandwidth chosen, if it has one that was left open."""
        return self


class QuadraticTerm(Term):
    """kernel: κ, or None. reference: rows (r, d) that it compares with, or None. spread: of ℓ, its largest value less its least,
    inf where there is no bound."""

    kernel: Kernel | None = None
    reference: Tensor | None = None
    spread: float = 0.0
    #: whether kernel and ℓ are, once the kernel is chosen
    bounded = True

    def linear(self, x: Tensor, arm: int) -> Tensor:
        """(n,) float64 ℓ of samples (n, d) of one arm."""
        return torch.zeros(len(x), dtype=torch.float64)

    def on(self, samples: Sequence[Tensor]) -> Quadratic:
        """What is left of the term on samples of each arm, (n_i, d)."""
        linear = tuple(self.linear(x, i) for i, x in enumerate(samples))
        if self.kernel is None:
            near = tuple(torch.zeros(len(x), len(samples), dtype=torch.float64) for x in samples)
            return Quadratic(near, tuple(torch.zeros_like(v) for v in linear), linear, 0.0, ())
        matched = self.kernel if self.reference is not None and self.matches else None
        sets = [*samples, self.reference] if matched is not None and self.reference is not None else [*samples]
        found = sums(sets, self.kernel, dtype=torch.float64 if isinstance(self.kernel, Cubic) else torch.float32)
        m, sizes = len(samples), found.sizes
        pairs = lambda a, b: found.others(a, b) / (sizes[b] - (a == b))  # noqa: E731
        near = tuple(torch.stack([pairs(i, j) for j in range(m)], 1) for i in range(m))
        if matched is None:
            return Quadratic(near, found.diagonals, linear, 0.0, ())
        linear = tuple(value - 2 * pairs(i, m) for i, value in enumerate(linear))
        # what a row of the reference adds: −2 Σ a_i k(X_i, y) and its share of E k(Y, Y′)
        beside = (rows_of(sets[m]), -2 * torch.stack([pairs(m, j) for j in range(m)], 1), 2 * pairs(m, m))
        return Quadratic(near, found.diagonals[:m], linear, float(pairs(m, m).mean()), (beside,))


@dataclass(frozen=True)
class RKE(QuadraticTerm):
    """Mode count of the mixture, 1 / E k(X, X′)² with a Gaussian k of ``bandwidth`` (Jalali, Li & Farnia 2023): how many
    different samples there are, in effect. Without a bandwidth it is the median distance between samples."""

    bandwidth: float | None = None
    reference: Tensor | None = None

    name, unit, higher = "rke", "modes", True

    @property
    def kernel(self) -> Kernel | None:  # type: ignore[override]
        """k², again a Gaussian."""
        return None if self.bandwidth is None else Gaussian(self.bandwidth).squared

    def own(self, loss: Estimate) -> Estimate:
        # the error of 1 / L; a U-form can fall to 0 where no two samples are alike
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
    def spread(self) -> float:  # type: ignore[override]
        """ℓ = −2 E k(·, Y) lies within twice the bound of the kernel."""
        return 2 * self.kernel.bound if self.kernel else math.inf

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
    def kernel(self) -> Kernel | None:  # type: ignore[override]
        """Of the width of the reference."""
        return Cubic(self.reference.shape[1])


@dataclass(frozen=True, eq=False)
class Precision(QuadraticTerm):
    """Share of samples within the radius of a reference row, its distance to its k-th neighbour among them (Kynkäänniemi et al.
    2019). The radii are taken as given, so the share of a mixture is the mixture of shares."""

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
class Density(Precision):
    """How many radii a sample is within, over k: about 1 for samples like the reference (Naeem et al. 2020). Unlike precision
    it is not fooled by one far reference row with a large radius."""

    name, unit, higher = "density", "balls / k", True

    @property
    def spread(self) -> float:  # type: ignore[override]
        """All balls at once."""
        return len(self.reference) / self.k

    def linear(self, x: Tensor, arm: int) -> Tensor:
        return -_inside(x, self.reference, self.radii, lambda inside: inside.double().sum(1) / self.k)


@dataclass(frozen=True, eq=False)
class LogLikelihood(QuadraticTerm):
    """Mean log-density of samples, nats: under ``log_prob`` (n, d) → (n,), or under a Gaussian kernel estimate of the reference
    whose bandwidth has the most leave-one-out likelihood. It asks for likely samples, and so for few modes: add a diversity
    term."""

    reference: Tensor | None = None
    log_prob: Callable[[Tensor], Tensor] | None = None
    bandwidth: float = field(init=False, default=math.nan)

    name, unit, higher, spread = "loglik", "nats", True, math.inf
    bounded = False

    def __post_init__(self) -> None:
        if (self.reference is None) == (self.log_prob is None):
            raise InputError("loglik: give either a reference or log_prob, not both and not neither")
        if self.reference is not None:
            object.__setattr__(self, "reference", rows_of(self.reference))
            object.__setattr__(self, "bandwidth", _likeliest_bandwidth(self.reference))

    def linear(self, x: Tensor, arm: int) -> Tensor:
        if self.reference is not None:
            return -_kernel_log_density(x, self.reference, self.bandwidth, leave_out=False)
        return -cast(Callable[[Tensor], Tensor], self.log_prob)(x).double()


@dataclass(frozen=True)
class Cost(QuadraticTerm):
    """Mean cost of a sample: ``costs``, one an arm."""

    costs: tuple[float, ...]

    name, unit, higher = "cost", "cost a sample", False

    def linear(self, x: Tensor, arm: int) -> Tensor:
        if arm >= len(self.costs):
            raise InputError(f"cost: {len(self.costs)} costs were given, but there are more arms; give one for each arm")
        return torch.full((len(x),), float(self.costs[arm]), dtype=torch.float64)


class ConvexTerm(Term):
    """A convex loss that is not quadratic."""

    @abstractmethod
    def on(self, samples: Sequence[Tensor], rng: torch.Generator) -> Any:
        """Something with ``value(a)`` and ``gradient(a)`` on samples (n_i, d) of each arm."""


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

    def own(self, loss: Estimate) -> Estimate:
        score = math.exp(-loss.value)
        return Estimate(score, score * loss.error, loss.n)

    def ready(self, samples: Sequence[Tensor], rng: torch.Generator) -> Vendi:
        return self if self.bandwidth is not None else replace(self, bandwidth=_median(samples, self.reference, rng))

    def on(self, samples: Sequence[Tensor], rng: torch.Generator) -> Entropy:
        if self.bandwidth is None:
            raise InputError("vendi: its bandwidth was left open; call ready first, or give one")
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
    "rke": (RKE, False), "mmd": (MMD, True), "kid": (KID, True), "precision": (Precision, True), "density": (Density, True),
    "loglik": (LogLikelihood, True), "cost": (Cost, False), "frechet": (Frechet, True), "vendi": (Vendi, False),
    "fld": (FLD, True),
}  # fmt: skip


def parse(
    text: str, *, reference: Tensor | None = None, bandwidth: float | None = None, costs: Sequence[float] | None = None
) -> Objective:
    """ "rke+0.2*precision" → an objective. ``reference`` (r, d), ``bandwidth`` and ``costs`` serve the terms that take them.
    Raises InputError on an unknown term, or one whose reference or costs are missing."""
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
            raise InputError(f"objective: {found[1]!r} is no number; write for example 0.2*{found[2]}") from error
        term = kind(**options) * scale
        objective = term if objective is None else objective + term
    return objective  # type: ignore[return-value]


# -------------------------------------------------------------------------------------------------------- on samples


@dataclass(frozen=True)
class Quadratic:
    """Quadratic losses on samples at hand, as what each sample contributes; all float64. They add up and scale.

    near:   near[i] (n_i, m), mean κ of a sample of arm i with those of every arm, itself left out.
    itself: itself[i] (n_i,) κ(x, x).
    linear: linear[i] (n_i,) ℓ.
    beside: for each reference its rows, and (r, m) and (r,): a row's part G a + h of the loss, for its error. Terms of one
    reference have one luck, and so one part.
    """

    near: tuple[Tensor, ...]
    itself: tuple[Tensor, ...]
    linear: tuple[Tensor, ...]
    constant: float
    beside: tuple[tuple[Tensor, Tensor, Tensor], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Samples of each arm."""
        return tuple(len(x) for x in self.linear)

    def __add__(self, other: Quadratic) -> Quadratic:
        return Quadratic(
            tuple(a + b for a, b in zip(self.near, other.near, strict=True)),
            tuple(a + b for a, b in zip(self.itself, other.itself, strict=True)),
            tuple(a + b for a, b in zip(self.linear, other.linear, strict=True)),
            self.constant + other.constant, _beside(self.beside + other.beside),
        )  # fmt: skip

    def __mul__(self, scale: float) -> Quadratic:
        times = lambda tensors: tuple(scale * t for t in tensors)  # noqa: E731
        beside = tuple((rows, scale * G, scale * h) for rows, G, h in self.beside)
        return Quadratic(times(self.near), times(self.itself), times(self.linear), scale * self.constant, beside)

    def form(self, *, unbiased: bool) -> tuple[Array, Array]:
        """K (m, m), f (m,) of L(a) = a'Ka + f'a + c. Not ``unbiased`` is the V-form, in which a sample also meets itself: it is
        positive semidefinite, and what is optimised."""
        K = torch.stack([near.mean(0) for near in self.near])
        if not unbiased:
            for i, (n, itself) in enumerate(zip(self.sizes, self.itself, strict=True)):
                K[i, i] = ((n - 1) * K[i, i] + itself.mean()) / n
        return ((K + K.T) / 2).numpy(), torch.stack([x.mean() for x in self.linear]).numpy()

    def loss(self, a: ArrayLike) -> Estimate:
        """Unbiased L(a), with its error, from the influence of every sample and reference row."""
        return self._between(np.asarray(a, dtype=np.float64), None)

    def excess(self, a: ArrayLike, b: ArrayLike) -> Estimate:
        """Unbiased L(a) − L(b), with the error of that difference."""
        return self._between(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))

    def _between(self, a: Array, b: Array | None) -> Estimate:
        K, f = self.form(unbiased=True)
        value = float(a @ K @ a + f @ a) + (self.constant if b is None else -float(b @ K @ b + f @ b))
        variance = 0.0
        for i, n in enumerate(self.sizes):
            moved = self._influence(i, a) - (0.0 if b is None else self._influence(i, b))
            variance += float(moved.var()) / n if n > 1 else math.nan
        for _, G, h in self.beside:
            at = torch.as_tensor(a if b is None else a - b)
            moved = G @ at + (h if b is None else 0.0)
            variance += float(moved.var()) / len(moved)
        return Estimate(value, math.sqrt(variance), sum(self.sizes))

    def _influence(self, i: int, a: Array) -> Tensor:
        """(n_i,) how samples of arm i move L(a), up to a constant."""
        return float(a[i]) * (2 * self.near[i] @ torch.as_tensor(a) + self.linear[i])


# --------------------------------------------------------------------------------------------------------- helpers


def same_rows(x: Tensor, y: Tensor) -> bool:
    """Whether two references are one: terms may each hold a copy of it, or of its half."""
    return x is y or (len(x) == len(y) and torch.equal(rows_of(x).double(), rows_of(y).double()))


def _beside(parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> tuple[tuple[Tensor, Tensor, Tensor], ...]:
    """Parts of one reference added up."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for rows, G, h in parts:
        k = next((k for k, part in enumerate(found) if same_rows(part[0], rows)), None)
        if k is None:
            found.append((rows, G, h))
        else:
            found[k] = (rows, found[k][1] + G, found[k][2] + h)
    return tuple(found)


def rows_of(x: ArrayLike | Tensor) -> Tensor:
    """A reference (r, d) as terms hold it. Raises InputError."""
    try:
        rows = torch.as_tensor(x if isinstance(x, Tensor) else np.ascontiguousarray(x))
    except (TypeError, ValueError) as error:
        raise InputError(f"reference: expected numbers (rows, features), got something else in a {type(x).__name__}") from error
    if rows.dim() != 2 or rows.numel() == 0:
        raise InputError(f"reference: expected shape (rows, features) with one of each or more, got {tuple(rows.shape)}")
    if not bool(torch.isfinite(rows).all()):
        row = int((~torch.isfinite(rows)).any(1).nonzero()[0])
        raise InputError(f"reference: row {row} is not finite; encode or drop missing values first")
    return rows if rows.dtype == torch.float32 else rows.double()


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
    """What ``count`` makes of whether each row of x (n, d) is in each ball around a reference row, (rows, r) for some rows at a
    time. Balls are closed, as those of Kynkäänniemi et al. (2019, equation 1) and of :func:`mixtura.metrics.neighbours.manifold`:
    a copy of a row is in its ball, even where the radius is 0."""
    rows, y = _centred(x, reference), _centred(reference, reference)
    found = []
    for t in _tiles(rows, len(y)):
        near = torch.cdist(rows[t], y).square()
        inside = near < radii.square()
        # a matrix product's rounding must not decide who is on the edge
        rounding = ROUNDING * (rows[t].square().sum(1, keepdim=True) + y.square().sum(1))
        at = ((near - radii.square()).abs() <= rounding).nonzero(as_tuple=True)
        inside[at] = _apart(rows[t][at[0]], y[at[1]]) <= radii[at[1]] * (1 + ROUNDING)
        found.append(count(inside))
    return torch.cat(found)


def _centred(x: Tensor, reference: Tensor) -> Tensor:
    return x.double() - reference.double().mean(0)


def _apart(x: Tensor, y: Tensor) -> Tensor:
    """Distances by differences: the same pair has the same one wherever it is met."""
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
    """Of a geometric ladder below the median distance, the one with the most leave-one-out likelihood on 1,000 rows at most."""
    rows = reference[:1_000]
    if len(rows) < 3:
        raise InputError(f"reference: {len(rows)} rows are too few for a density; give 3 or more")
    median = float(torch.pdist(rows.double()).median()) or 1.0
    ladder = [median * 0.7**i for i in range(16)]
    return max(ladder, key=lambda h: float(_kernel_log_density(rows, rows, h, leave_out=True).mean()))
