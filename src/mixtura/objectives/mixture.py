"""The best mixture of samples at hand under an objective, and how sure it is: its loss, its error, its gain, its intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixtura.contracts import Estimate
from mixtura.ground.rng import generator
from mixtura.objectives.expression import ConvexTerm, Objective, QuadraticTerm
from mixtura.objectives.quadratic import Quadratic, same_rows
from mixtura.simplex import intervals
from mixtura.simplex.convex import minimise_convex
from mixtura.simplex.polytope import Polytope
from mixtura.simplex.quadratic import minimise_quadratic
from mixtura.simplex.sparse import minimise_sparse
from mixtura.simplex.weights import Array, Weights

#: fewest samples of an arm for a comparison on halves
LEAST_TO_JUDGE = 20

#: number of subsamples behind intervals if each has to be solved from its samples
CONVEX_SUBSAMPLES = 20

#: blocks of the jackknife of a convex objective
BLOCKS = 10

#: most rows on which a mixture and an arm are compared if the objective is convex
EQUAL_ROWS = 2_000

#: smallest weight that is reported as exchangeable with another arm's
NOTABLE = 0.1


def gain_of_halves(samples: Mapping[str, Tensor], objective: Objective, *, seed: int = 0) -> tuple[Estimate, float] | None:
    """The gain of the mixture over the single arm that it beats least surely, and its one-sided p-value. Weights are chosen on
    one half of each arm's features (n, d) and compared with each arm on the other half. Arms with fewer than ``LEAST_TO_JUDGE``
    rows are left out; None if fewer than two remain. Bandwidths must be chosen before."""
    enough = {name: x for name, x in samples.items() if len(x) >= LEAST_TO_JUDGE}
    costs = any(term.name == "cost" for _, term in objective.terms)  # they belong to arms by their order
    if len(enough) < 2 or (costs and len(enough) < len(samples)):
        return None
    gain, p = Problem(list(enough), list(enough.values()), objective, None, None, seed).gain()
    return None if gain is None or p is None else (gain, p)


class Loss:
    """The loss of a mixture on samples at hand: a quadratic, and convex parts."""

    def __init__(self, objective: Objective, samples: Sequence[Tensor], seed: int) -> None:
        self.objective, self.m = objective, len(samples)
        self.each: list[tuple[float, Quadratic | Any]] = []
        for scale, term in objective.terms:
            if isinstance(term, QuadraticTerm):
                self.each.append((scale, term.on(samples)))
            elif isinstance(term, ConvexTerm):
                self.each.append((scale, term.on(samples, generator(seed, term.name))))
        quadratics = [part * scale for scale, part in self.each if isinstance(part, Quadratic)]
        self.quadratic = quadratics[0] if quadratics else None
        for part in quadratics[1:]:
            self.quadratic = self.quadratic + part  # type: ignore[operator]
        self.convex = [(scale, part) for scale, part in self.each if not isinstance(part, Quadratic)]

    def solve(self, within: Polytope | None, size: int | None) -> Weights:
        """The best weights on the V-form of the loss."""
        if self.convex:
            return minimise_convex(self.value_and_gradient, self.m, within=within)
        K, f = self.quadratic.form(unbiased=False)  # type: ignore[union-attr]
        if size is not None:
            return minimise_sparse(K, -f / 2, size)
        return minimise_quadratic(K, -f / 2, within=within)

    def value_and_gradient(self, a: Array) -> tuple[float, Array]:
        """The loss in its V-form at weights a (m,), and its gradient (m,)."""
        value, gradient = 0.0, np.zeros(self.m)
        if self.quadratic is not None:
            K, f = self.quadratic.form(unbiased=False)
            value, gradient = float(a @ K @ a + f @ a) + self.quadratic.constant, 2 * K @ a + f
        for scale, part in self.convex:
            its, slope = part.value_and_gradient(a)
            value, gradient = value + scale * its, gradient + scale * slope
        return value, gradient

    def of_term(self, k: int, a: Array) -> Estimate:
        """The loss of term k; unbiased, with its error, if it is quadratic."""
        part = self.each[k][1]
        return part.loss(a) if isinstance(part, Quadratic) else Estimate(float(part.value(a)), math.nan, 0)

    def value(self, a: Array) -> float:
        """The whole loss, its quadratic part unbiased."""
        quadratic = 0.0 if self.quadratic is None else self.quadratic.loss(a).value
        return quadratic + sum(scale * float(part.value(a)) for scale, part in self.convex)

    def singles(self) -> Array:
        """(m,) the loss of each single arm."""
        return np.array([self.value(corner) for corner in np.eye(self.m)])


class Problem:
    """Samples of each arm, the objective of their mixture, and the constraints on it."""

    def __init__(
        self, names: list[str], samples: list[Tensor], objective: Objective, within: Polytope | None, size: int | None, seed: int
    ) -> None:
        self.names, self.samples, self.objective = names, samples, objective
        self.within, self.size, self.seed = within, size, seed

    def loss(self) -> Loss:
        """The loss of a mixture of all samples."""
        return Loss(self.objective, self.samples, self.seed)

    def value(self, loss: Loss, a: Array) -> Estimate:
        """The objective at weights a (m,) in its own unit. Its error comes from influence functions if all terms are quadratic,
        else from the jackknife."""
        if loss.quadratic is not None and not loss.convex:
            return self.objective.own(loss.quadratic.loss(a))
        error = self._jackknife(lambda objective, samples: Loss(objective, samples, self.seed).value(a))
        return self.objective.own(Estimate(loss.value(a), error, sum(map(len, self.samples))))

    def _jackknife(self, statistic: Callable[[Objective, list[Tensor]], float]) -> float:
        """Delete-one-block jackknife error of a statistic of all samples and of the matched reference rows; block b of all sets
        is deleted at the same time."""
        if min(map(len, [*self.samples, *_matched(self.objective)])) < 2 * BLOCKS:
            return math.nan
        without = []
        for k in range(BLOCKS):
            kept = _without(k)
            without.append(statistic(_matching(self.objective, kept), [kept(x) for x in self.samples]))
        return math.sqrt((BLOCKS - 1) / BLOCKS * float(np.sum((np.array(without) - np.mean(without)) ** 2)))

    # ------------------------------------------------------------------------------------------------------- gain

    def gain(self) -> tuple[Estimate | None, float | None]:
        """The gain of weights chosen on one half of all samples, measured on the other half, and its one-sided p-value.

        The null hypothesis is that some arm is at least as good, so the weights must beat each arm on the second half. The result
        is for the arm that they beat least surely: the largest p-value is valid whichever arm is the best.
        """
        least = LEAST_TO_JUDGE if self.objective.quadratic else 4 * BLOCKS
        if self.m < 2 or min(map(len, [*self.samples, *_matched(self.objective)])) < least:
            return None, None
        rng = generator(self.seed, "halves")
        orders = [torch.randperm(len(x), generator=rng) for x in self.samples]
        first, second = ([x[o[half::2]] for x, o in zip(self.samples, orders, strict=True)] for half in (0, 1))
        real = _halved(self.objective, rng)
        a = np.array(Loss(real[0], first, self.seed).solve(self.within, self.size).weights)
        if a.max() == 1:  # the weights are a single arm
            return Estimate(0.0, 0.0, sum(map(len, second))), 1.0
        if self.objective.quadratic:
            mixed, less, freedom = self._by_influence(real[1], second, a)
        else:
            mixed, less, freedom = self._at_equal_counts(real[1], second, a, rng)
        arm = min(range(self.m), key=lambda i: (less[i].value / less[i].error if less[i].error > 0 else -math.inf, less[i].value))
        p = intervals.p_value(less[arm].value, less[arm].error, freedom)
        own = [self.objective.own(Estimate(loss, 0.0, 0)).value for loss in (mixed, mixed + less[arm].value)]
        change = own[0] - own[1] if self.objective.higher else own[1] - own[0]
        if not math.isfinite(change):  # no two samples of a half are alike, and modes cannot be counted
            return None, None
        # the error in the own unit is that of the loss, scaled like the difference
        error = less[arm].error * abs(change / less[arm].value) if less[arm].value else less[arm].error
        return Estimate(change, error, less[arm].n), p

    def _by_influence(self, objective: Objective, samples: list[Tensor], a: Array) -> tuple[float, list[Estimate], int]:
        """The unbiased loss of the mixture; the excess loss of each arm; the degrees of freedom of their errors."""
        loss = Loss(objective, samples, self.seed)
        less = [loss.quadratic.excess(corner, a) for corner in np.eye(self.m)]  # type: ignore[union-attr]
        return loss.value(a), less, min(map(len, [*samples, *_matched(objective)])) - 1

    def _at_equal_counts(
        self, objective: Objective, samples: list[Tensor], a: Array, rng: torch.Generator
    ) -> tuple[float, list[Estimate], int]:
        """The same if a part is convex. The loss then has a bias that depends on the number of samples, and a mixture of all
        samples has more of them than an arm. The mixture is therefore given as many rows as an arm: its row t is row t of a
        randomly drawn arm. For equal laws the biases are then equal; for different laws the jackknife removes the rest, as the
        mean of its pseudo-values over blocks of these rows and of the reference.
        """
        n = min(EQUAL_ROWS, *map(len, samples))
        arms = torch.stack([x[:n].double() for x in samples])
        drawn = arms[torch.multinomial(torch.as_tensor(a).clamp(min=0), n, replacement=True, generator=rng), torch.arange(n)]
        parts = [[(s, t) for s, t in objective.terms if isinstance(t, QuadraticTerm) is quadratic] for quadratic in (True, False)]

        def losses(without: int | None) -> Array:
            kept = _without(without)
            quadratic, convex = (_matching(Objective(tuple(part)), kept) for part in parts)
            rows = [kept(x) for x in (drawn, *arms)]
            found = np.array([Loss(convex, [x], self.seed).value(np.ones(1)) for x in rows])
            if quadratic.terms:
                loss = Loss(quadratic, rows[1:], self.seed)
                found += [loss.value(at) for at in (a, *np.eye(self.m))]
            return found

        whole, left = losses(None), np.array([losses(k) for k in range(BLOCKS)])
        pseudo = BLOCKS * whole - (BLOCKS - 1) * left
        less = pseudo[:, 1:] - pseudo[:, :1]
        errors = less.std(0, ddof=1) / math.sqrt(BLOCKS)
        return float(whole[0]), [Estimate(float(v), float(e), n) for v, e in zip(less.mean(0), errors, strict=True)], BLOCKS - 1

    @property
    def m(self) -> int:
        """Number of arms."""
        return len(self.names)

    # ------------------------------------------------------------------------------------------------------ intervals

    def intervals(self, loss: Loss, a: Array) -> tuple[tuple[float, float], ...] | None:
        """95 % interval of each weight; None for few samples or reference rows, and for a support found by a search."""
        if min(map(len, [*self.samples, *_matched(self.objective)])) < LEAST_TO_JUDGE or self.size is not None:
            return None
        rng = generator(self.seed, "intervals")
        if loss.convex or loss.quadratic is None:
            bounds = intervals.around(a, np.array([self._of_half(rng) for _ in range(CONVEX_SUBSAMPLES)]), 0.5)
        else:
            q, (K, f) = loss.quadratic, loss.quadratic.form(unbiased=False)
            references = [G for _, G, _ in q.references]
            bounds = intervals.of_quadratic(K, f, q.near, q.linear, references=references, within=self.within, rng=rng)
        return tuple((float(low), float(high)) for low, high in bounds)

    def _of_half(self, rng: torch.Generator) -> Array:
        """The weights from half of each arm's samples and half of each matched reference."""
        halves = [x[torch.randperm(len(x), generator=rng)[: len(x) // 2]] for x in self.samples]
        of = _dealt(self.objective, lambda n: _half_by_twos(n, rng))
        objective = _matching(self.objective, lambda rows: rows[of(rows)])
        return np.array(Loss(objective, halves, self.seed).solve(self.within, None).weights)

    def flat(self, loss: Loss, a: Array) -> list[tuple[str, str]]:
        """Pairs of arms for which moving all weight of the first to the second raises the loss by at most two standard errors."""
        if loss.convex or loss.quadratic is None:
            return []
        pairs = []
        for i in np.flatnonzero(a >= NOTABLE):
            for j in range(len(a)):
                if i != j:
                    b = a.copy()
                    b[i], b[j] = 0.0, a[j] + a[i]
                    worse = loss.quadratic.excess(b, a)
                    if worse.value < 2 * worse.error:
                        pairs.append((self.names[i], self.names[j]))
        return pairs


def _matched(objective: Objective) -> list[Tensor]:
    """The references that the objective matches, whose rows are samples of a law. Terms that take their reference as exact, as
    precision does, have none."""
    return [term.reference for _, term in objective.terms if term.matches]  # type: ignore[attr-defined]


def _without(block: int | None) -> Callable[[Tensor], Tensor]:
    """The rows of a set without one block; all of them for None. Rows are deleted in pairs, so that a term that uses alternate
    rows of its reference in two roles keeps each row in its role."""
    return lambda x: x if block is None else x[torch.arange(len(x)) // 2 % BLOCKS != block]


def _matching(objective: Objective, kept: Callable[[Tensor], Tensor]) -> Objective:
    """The objective with each matched reference replaced by ``kept`` of it."""
    return Objective(tuple((s, replace(t, reference=kept(t.reference)) if t.matches else t) for s, t in objective.terms))  # type: ignore[attr-defined, type-var]


def _halved(objective: Objective, rng: torch.Generator) -> tuple[Objective, Objective]:
    """The objective with one half of each matched reference, and with the other half. Terms with the same reference share its
    halves, so that no row is used both to choose and to judge."""
    of = _dealt(objective, lambda n: torch.randperm(n, generator=rng))
    first, second = (_matching(objective, lambda rows, half=half: rows[of(rows)[half::2]]) for half in (0, 1))
    return first, second


def _dealt(objective: Objective, deal: Callable[[int], Tensor]) -> Callable[[Tensor], Tensor]:
    """For each matched reference the indices that ``deal`` gives for its length; the same for all terms with this reference."""
    dealt: list[tuple[Tensor, Tensor]] = []
    for rows in _matched(objective):
        if not any(same_rows(rows, other) for other, _ in dealt):
            dealt.append((rows, deal(len(rows))))
    return lambda rows: next(indices for other, indices in dealt if same_rows(rows, other))


def _half_by_twos(n: int, rng: torch.Generator) -> Tensor:
    """Half of n rows, in pairs as in :func:`_without`."""
    twos = torch.randperm(n // 2, generator=rng)[: n // 4]
    return torch.stack([2 * twos, 2 * twos + 1], 1).flatten()
