"""The objective of a mixture of generators: a sum of terms, each a loss of the weights a on the simplex.

Most terms are quadratic,

    L(a) = Σ_ij a_i a_j E κ(X_i, X_j) + Σ_i a_i E ℓ(X_i) + c,

where X_i is a sample of arm i, samples are independent, κ is a positive semidefinite kernel and ℓ a loss of single samples.
:class:`mixtura.objectives.quadratic.Quadratic` is their sum, estimated from samples at hand. The other terms are convex
(:mod:`mixtura.objectives.convex`).

Terms are written ``RKE(1.0) + 0.2 * Precision(real)``, on the command line ``rke+0.2*precision``
(:func:`mixtura.objectives.terms.parse`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mixtura.contracts import Estimate, InputError
from mixtura.ground.kernels import Cubic, Kernel, sums
from mixtura.objectives.quadratic import Quadratic, rows_of


class Expression(ABC):
    """Something that can be added and scaled."""

    @property
    @abstractmethod
    def parts(self) -> tuple[tuple[float, Term], ...]:
        """(scale, term) of every term."""

    def __add__(self, other: Expression) -> Objective:
        if not isinstance(other, Expression):
            return NotImplemented
        return Objective(self.parts + other.parts)

    def __mul__(self, scale: float) -> Objective:
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < math.inf:
            raise InputError(f"objective: expected a finite scale above 0 for a term, got {scale!r}; change it")
        return Objective(tuple((scale * s, term) for s, term in self.parts))

    __rmul__ = __mul__


@dataclass(frozen=True)
class Objective(Expression):
    """A sum of scaled terms. A single unscaled term gives the sum its own unit; otherwise the unit is that of the sum of losses,
    of which lower is better."""

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
        """The text of the objective on the command line."""
        return "+".join(term.name if scale == 1 else f"{scale:g}*{term.name}" for scale, term in self.terms)

    @property
    def unit(self) -> str:
        """The unit of :meth:`own`."""
        return self.alone.unit if self.alone else "sum of losses"

    @property
    def higher(self) -> bool:
        """Whether a higher own value is better."""
        return self.alone.higher if self.alone else False

    def own(self, loss: Estimate) -> Estimate:
        """The objective in its own unit, from its loss."""
        if self.alone is None:
            return loss
        scale = self.terms[0][0]
        return self.alone.own(Estimate(loss.value / scale, loss.error / scale, loss.n))

    def ready(self, samples: Sequence[Tensor], rng: torch.Generator) -> Objective:
        """The objective with every missing bandwidth chosen, from samples (n_i, d) of all arms or from the reference."""
        return Objective(tuple((scale, term.ready(samples, rng)) for scale, term in self.terms))

    @property
    def quadratic(self) -> bool:
        """Whether every term is quadratic."""
        return all(isinstance(term, QuadraticTerm) for _, term in self.terms)


class Term(Expression):
    """One term of an objective. Its loss is minimised; ``own`` converts the loss to its usual unit.

    name, unit; higher: whether a higher own value is better. matches: whether the term is a distance to the law of a reference,
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
        """The loss and its error in the own unit."""
        # a difference, so that 0 does not become −0.0
        return Estimate(0.0 - loss.value if self.higher else 0.0 + loss.value, loss.error, loss.n)

    @property
    def chosen_bandwidth(self) -> float | None:
        """The bandwidth of its Gaussian kernel; None if there is no such kernel or no bandwidth yet."""
        return None

    def ready(self, samples: Sequence[Tensor], rng: torch.Generator) -> Term:
        """The term with its bandwidth, which is chosen here if it was not given."""
        return self


class QuadraticTerm(Term):
    """A quadratic term. kernel: κ, or None. reference: the rows (r, d) that it compares with, or None. spread: the largest value
    of ℓ minus the smallest, inf if there is no bound."""

    kernel: Kernel | None = None
    reference: Tensor | None = None
    spread: float = 0.0
    #: whether kernel and ℓ are bounded, once the kernel is chosen
    bounded = True

    def linear(self, x: Tensor, arm: int) -> Tensor:
        """(n,) float64 ℓ of samples (n, d) of one arm."""
        return torch.zeros(len(x), dtype=torch.float64)

    def on(self, samples: Sequence[Tensor]) -> Quadratic:
        """The term estimated from samples of each arm, (n_i, d)."""
        linear = tuple(self.linear(x, i) for i, x in enumerate(samples))
        if self.kernel is None:
            near = tuple(torch.zeros(len(x), len(samples), dtype=torch.float64) for x in samples)
            return Quadratic(near, tuple(torch.zeros_like(v) for v in linear), linear, 0.0, ())
        matched = self.kernel if self.reference is not None and self.matches else None
        sets = [*samples, self.reference] if matched is not None and self.reference is not None else [*samples]
        found = sums(sets, self.kernel, dtype=torch.float64 if isinstance(self.kernel, Cubic) else torch.float32)
        m, sizes = len(samples), found.sizes

        def pairs(a: int, b: int) -> Tensor:
            return found.others(a, b) / (sizes[b] - (a == b))

        near = tuple(torch.stack([pairs(i, j) for j in range(m)], 1) for i in range(m))
        if matched is None:
            return Quadratic(near, found.diagonals, linear, 0.0, ())
        linear = tuple(value - 2 * pairs(i, m) for i, value in enumerate(linear))
        # a row y of the reference contributes −2 Σ a_i k(X_i, y), and its share of E k(Y, Y′)
        of_reference = (rows_of(sets[m]), -2 * torch.stack([pairs(m, j) for j in range(m)], 1), 2 * pairs(m, m))
        return Quadratic(near, found.diagonals[:m], linear, float(pairs(m, m).mean()), (of_reference,))


class ConvexTerm(Term):
    """A convex loss that is not quadratic."""

    @abstractmethod
    def on(self, samples: Sequence[Tensor], rng: torch.Generator) -> Any:
        """Something with ``value(a)`` and ``gradient(a)`` on samples (n_i, d) of each arm."""
