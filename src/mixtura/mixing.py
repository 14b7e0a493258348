"""The best mixture of several generators, from samples at hand.

:func:`mix` is the whole of it: samples → features → an objective on the simplex → weights with a certificate, intervals, and
the gain over any single generator on samples that chose nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mixtura.contracts import InputError
from mixtura.features.samples import gather
from mixtura.ground.kernels import Estimate
from mixtura.ground.rng import generator
from mixtura.objectives.expression import ConvexTerm, Expression, Objective, QuadraticTerm
from mixtura.objectives.quadratic import Quadratic, same_rows
from mixtura.objectives.terms import parse
from mixtura.simplex import intervals
from mixtura.simplex.convex import minimise_convex
from mixtura.simplex.polytope import Polytope
from mixtura.simplex.quadratic import minimise_quadratic
from mixtura.simplex.sparse import minimise_sparse
from mixtura.simplex.weights import Array, Weights

#: samples of an arm that halves can be judged by
LEAST_TO_JUDGE = 20
#: subsamples that intervals come from where each has to be solved from its samples
CONVEX_SUBSAMPLES = 20
#: blocks of the jackknife of a convex objective
BLOCKS = 10
#: rows that a mixture and an arm are compared by at most, where the objective is convex
EQUAL_ROWS = 2_000
#: a weight that could as well be another arm's is only spoken of from here on
NOTABLE = 0.1


@dataclass(frozen=True, kw_only=True)
class BestMixture(Weights):
    """The :class:`Weights` of the best mixture of samples at hand, and what these samples say about it.

    value ± error: the objective in its own ``unit`` on all samples, unbiased where it is quadratic; the weights were chosen on
    them too. Values of frechet, vendi and fld depend on the number of samples: do not compare that of a mixture, which has more
    samples than one arm, with ``best_value``. intervals: None where samples or reference rows are too few.

    higher: whether more of the objective is better. terms: name → (value, error) of each term, in its own unit. best,
    best_value: the best single arm. gain ± gain_error, p_value: of weights chosen on one half of every arm's samples over the
    single arm that they beat the least surely, on the other half, and of frechet, vendi and fld at equal numbers of samples;
    one-sided, None where samples or reference rows are too few. flat: pairs of arms (a, b) such that these samples cannot tell
    whether moving all weight of a to b costs anything. samples: of each arm. features: what samples were compared by.
    """

    objective: str
    unit: str
    higher: bool
    terms: dict[str, tuple[float, float]]
    best: str
    best_value: float
    best_error: float
    gain: float | None
    gain_error: float | None
    p_value: float | None
    flat: list[tuple[str, str]]
    samples: dict[str, int]
    features: str
    bandwidth: float | None
    sentence: str = ""

    def record(self) -> dict[str, Any]:
        """Plain data: what ``mixtura mix --json`` prints (docs/cli-json.md)."""
        return {
            "objective": self.objective, "unit": self.unit, "higher": self.higher, "weights": self.by_name,
            "intervals": self.intervals_by_name, "value": self.value, "error": self.error, "gap": self.gap, "terms": self.terms,
            "best": self.best, "best_value": self.best_value, "best_error": self.best_error, "gain": self.gain,
            "gain_error": self.gain_error, "p_value": self.p_value, "flat": self.flat, "samples": self.samples,
            "features": self.features, "bandwidth": self.bandwidth, "exact": self.exact, "sentence": self.sentence,
        }  # fmt: skip


def mix(
    samples: Mapping[str, Any] | Sequence[Any], objective: str | Expression = "rke", *, reference: Any = None,
    features: str | None = None, bandwidth: float | None = None, costs: Sequence[float] | None = None, cap: float | None = None,
    floor: float | None = None, at_most: float | None = None, size: int | None = None, seed: int = 0, skip_broken: bool = False,
) -> BestMixture:  # fmt: skip
    """The best mixture of generators, given samples of each: anything :func:`mixtura.run` reads, or arrays of features (n, d).

    objective: "rke+0.2*precision", or terms such as ``RKE(1.0) + 0.2 * Precision(real)``, which then see the arrays as they
    are. reference: real rows. features: what samples are compared by, as in ``run``. bandwidth: of the Gaussian kernels. costs:
    of a sample of each arm; at_most: what a sample of the mixture may cost on average. cap, floor: of every weight. size: arms
    in use at most. Raises InputError on samples of different kinds or widths, and on constraints that nothing obeys.
    """
    named = dict(samples) if isinstance(samples, Mapping) else {f"arm {i}": s for i, s in enumerate(samples)}
    if not named:
        raise InputError("mix: no samples were given; name one file for each generator")
    arms, real, features_name = gather(named, reference, features, seed=seed, skip_broken=skip_broken)
    if isinstance(objective, str):
        wanted = parse(objective, reference=real, bandwidth=bandwidth, costs=costs)
    else:
        wanted = Objective(objective.parts)
    wanted = wanted.ready(list(arms.values()), generator(seed, "bandwidth"))
    within = _polytope(len(arms), costs, cap, floor, at_most)
    if size is not None and (within is not None or not wanted.quadratic):
        raise InputError("size: is for quadratic objectives without caps, floors or a budget; leave one of them out")
    return _Problem(list(arms), list(arms.values()), wanted, within, size, seed).solution(features_name)


def gain_of_halves(samples: Mapping[str, Tensor], objective: Objective, *, seed: int = 0) -> tuple[Estimate, float] | None:
    """How much better the mixture is than any single arm, and its one-sided p-value: weights are chosen on one half of every
    arm's features (n, d), and compared with every arm on the other. Arms of fewer than ``LEAST_TO_JUDGE`` are left out; None if
    that leaves fewer than two. Bandwidths must be chosen."""
    enough = {name: x for name, x in samples.items() if len(x) >= LEAST_TO_JUDGE}
    costs = any(term.name == "cost" for _, term in objective.terms)  # they belong to arms by their order
    if len(enough) < 2 or (costs and len(enough) < len(samples)):
        return None
    gain, p = _Problem(list(enough), list(enough.values()), objective, None, None, seed)._gain()
    return None if gain is None or p is None else (gain, p)


def pareto(
    samples: Mapping[str, Any], objective: str, scales: Sequence[float], *, reference: Any = None, **options: Any
) -> pd.DataFrame:
    """The objective with its last term scaled by each of ``scales``: a row each, with every term's value, weights and value.

    The rows trace the trade between the terms; of two that are nearly the same the smaller scale is enough."""
    head, _, last = objective.rpartition("+")
    if not head:
        raise InputError(f"pareto: {objective!r} has one term; write two, as in rke+precision")
    term = last.split("*")[-1].strip()
    rows = []
    for scale in scales:
        found = mix(samples, f"{head}+{scale:g}*{term}" if scale > 0 else head, reference=reference, **options)
        values = {name: value for name, (value, _) in found.terms.items()}
        rows.append({"scale": scale, **values, **found.by_name, "gap": found.gap})
    return pd.DataFrame(rows)


def _polytope(
    m: int, costs: Sequence[float] | None, cap: float | None, floor: float | None, at_most: float | None
) -> Polytope | None:
    if cap is None and floor is None and at_most is None:
        return None
    if at_most is not None and (costs is None or len(costs) != m):
        raise InputError(f"at_most: needs what a sample of each of the {m} arms costs; give --costs")
    budget = {} if at_most is None else {"A": np.array([costs], dtype=np.float64), "b": np.array([at_most])}
    return Polytope(lower=floor or 0.0, upper=1.0 if cap is None else cap, **budget)


# ---------------------------------------------------------------------------------------------------------- solving


class _Loss:
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
        value, gradient = 0.0, np.zeros(self.m)
        if self.quadratic is not None:
            K, f = self.quadratic.form(unbiased=False)
            value, gradient = float(a @ K @ a + f @ a) + self.quadratic.constant, 2 * K @ a + f
        for scale, part in self.convex:
            its, slope = part.value_and_gradient(a)
            value, gradient = value + scale * its, gradient + scale * slope
        return value, gradient

    def of_term(self, k: int, a: Array) -> Estimate:
        """Term k's loss: unbiased with its error where it is quadratic."""
        part = self.each[k][1]
        return part.loss(a) if isinstance(part, Quadratic) else Estimate(float(part.value(a)), math.nan, 0)

    def value(self, a: Array) -> float:
        """The whole loss, its quadratic part unbiased."""
        quadratic = 0.0 if self.quadratic is None else self.quadratic.loss(a).value
        return quadratic + sum(scale * float(part.value(a)) for scale, part in self.convex)

    def singles(self) -> Array:
        """(m,) loss of every arm alone."""
        return np.array([self.value(corner) for corner in np.eye(self.m)])


class _Problem:
    """Samples of each arm, what is asked of their mixture, and the constraints on it."""

    def __init__(
        self, names: list[str], samples: list[Tensor], objective: Objective, within: Polytope | None, size: int | None, seed: int
    ) -> None:
        self.names, self.samples, self.objective = names, samples, objective
        self.within, self.size, self.seed = within, size, seed

    def solution(self, features: str) -> BestMixture:
        """The best mixture with all that is known of it."""
        names, loss = self.names, _Loss(self.objective, self.samples, self.seed)
        found = loss.solve(self.within, self.size)
        a = np.array(found.weights)
        value = self._value(loss, a)
        best = int(np.argmin(loss.singles()))
        best_value = self._value(loss, np.eye(len(names))[best])
        terms = {
            term.name: (own.value, own.error)
            for k, (_, term) in enumerate(self.objective.terms)
            for own in (term.own(loss.of_term(k, a)),)
        }
        gain, p = self._gain()
        mixture = BestMixture(
            found.weights, value.value, found.gap, exact=found.exact, names=tuple(names), error=value.error,
            intervals=self._intervals(loss, a), objective=self.objective.name, unit=self.objective.unit,
            higher=self.objective.higher, terms=terms, best=names[best], best_value=best_value.value, best_error=best_value.error,
            gain=None if gain is None else gain.value, gain_error=None if gain is None else gain.error, p_value=p,
            flat=self._flat(loss, a), samples={name: len(x) for name, x in zip(names, self.samples, strict=True)},
            features=features, bandwidth=next((b for _, t in self.objective.terms if (b := _bandwidth(t)) is not None), None),
        )  # fmt: skip
        return replace(mixture, sentence=_sentence(mixture))

    def _value(self, loss: _Loss, a: Array) -> Estimate:
        if loss.quadratic is not None and not loss.convex:
            return self.objective.own(loss.quadratic.loss(a))
        error = self._jackknife(lambda objective, samples: _Loss(objective, samples, self.seed).value(a))
        return self.objective.own(Estimate(loss.value(a), error, sum(map(len, self.samples))))

    def _jackknife(self, statistic: Callable[[Objective, list[Tensor]], float]) -> float:
        """Delete-one-block error of a statistic of all samples and of the reference rows that are matched, the blocks of all sets
        deleted together."""
        if min(map(len, [*self.samples, *_matched(self.objective)])) < 2 * BLOCKS:
            return math.nan
        without = []
        for k in range(BLOCKS):
            kept = _without(k)
            without.append(statistic(_matching(self.objective, kept), [kept(x) for x in self.samples]))
        return math.sqrt((BLOCKS - 1) / BLOCKS * float(np.sum((np.array(without) - np.mean(without)) ** 2)))

    # ------------------------------------------------------------------------------------------------------- gain

    def _gain(self) -> tuple[Estimate | None, float | None]:
        """Weights from one half of everything, how much better they are than the best arm on the other half, and the one-sided
        p-value.

        No gain means that some arm is as good. So the weights have to beat every arm on the half that chose nothing, and what is
        given is of the arm that they beat the least surely: the largest p-value is one whichever arm is the best.
        """
        least = LEAST_TO_JUDGE if self.objective.quadratic else 4 * BLOCKS
        if self.m < 2 or min(map(len, [*self.samples, *_matched(self.objective)])) < least:
            return None, None
        rng = generator(self.seed, "halves")
        orders = [torch.randperm(len(x), generator=rng) for x in self.samples]
        first, second = ([x[o[half::2]] for x, o in zip(self.samples, orders, strict=True)] for half in (0, 1))
        real = _halved(self.objective, rng)
        a = np.array(_Loss(real[0], first, self.seed).solve(self.within, self.size).weights)
        if a.max() == 1:  # it is an arm
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
        # the error in the own unit is that of the loss, bent as the difference is
        error = less[arm].error * abs(change / less[arm].value) if less[arm].value else less[arm].error
        return Estimate(change, error, less[arm].n), p

    def _by_influence(self, objective: Objective, samples: list[Tensor], a: Array) -> tuple[float, list[Estimate], int]:
        """Unbiased loss of the mixture, and for every arm by how much more it has; degrees of freedom of the errors."""
        loss = _Loss(objective, samples, self.seed)
        less = [loss.quadratic.excess(corner, a) for corner in np.eye(self.m)]  # type: ignore[union-attr]
        return loss.value(a), less, min(map(len, [*samples, *_matched(objective)])) - 1

    def _at_equal_counts(
        self, objective: Objective, samples: list[Tensor], a: Array, rng: torch.Generator
    ) -> tuple[float, list[Estimate], int]:
        """The same where a part is convex. The loss of finite samples is too large or too small by what depends on their number,
        and a mixture of all samples has more behind it than an arm. So row t of as many draws from the mixture is row t of a
        drawn arm, beside row t of every arm: the parts of one law have then one bias. Of different laws the rest goes by the
        jackknife, over blocks of these rows and of the reference's, whose pseudo-values are averaged.
        """
        n = min(EQUAL_ROWS, *map(len, samples))
        arms = torch.stack([x[:n].double() for x in samples])
        drawn = arms[torch.multinomial(torch.as_tensor(a).clamp(min=0), n, replacement=True, generator=rng), torch.arange(n)]
        parts = [[(s, t) for s, t in objective.terms if isinstance(t, QuadraticTerm) is quadratic] for quadratic in (True, False)]

        def losses(without: int | None) -> Array:
            kept = _without(without)
            quadratic, convex = (_matching(Objective(tuple(part)), kept) for part in parts)
            rows = [kept(x) for x in (drawn, *arms)]
            found = np.array([_Loss(convex, [x], self.seed).value(np.ones(1)) for x in rows])
            if quadratic.terms:
                loss = _Loss(quadratic, rows[1:], self.seed)
                found += [loss.value(at) for at in (a, *np.eye(self.m))]
            return found

        whole, left = losses(None), np.array([losses(k) for k in range(BLOCKS)])
        pseudo = BLOCKS * whole - (BLOCKS - 1) * left
        less = pseudo[:, 1:] - pseudo[:, :1]
        errors = less.std(0, ddof=1) / math.sqrt(BLOCKS)
        return float(whole[0]), [Estimate(float(v), float(e), n) for v, e in zip(less.mean(0), errors, strict=True)], BLOCKS - 1

    @property
    def m(self) -> int:
        return len(self.names)

    # ------------------------------------------------------------------------------------------------------ intervals

    def _intervals(self, loss: _Loss, a: Array) -> tuple[tuple[float, float], ...] | None:
        """95 % for every weight; None for few samples or reference rows, and for a support that was searched."""
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
        """Weights of half of every arm's samples, and of every reference that is matched."""
        halves = [x[torch.randperm(len(x), generator=rng)[: len(x) // 2]] for x in self.samples]
        of = _dealt(self.objective, lambda n: _half_by_twos(n, rng))
        objective = _matching(self.objective, lambda rows: rows[of(rows)])
        return np.array(_Loss(objective, halves, self.seed).solve(self.within, None).weights)

    def _flat(self, loss: _Loss, a: Array) -> list[tuple[str, str]]:
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
    """References that the objective matches, and so sees as samples. Terms that take theirs as given, as precision does its
    radii, have none."""
    return [term.reference for _, term in objective.terms if term.matches]  # type: ignore[attr-defined]


def _without(block: int | None) -> Callable[[Tensor], Tensor]:
    """Rows of a set but those of one block; all of them for None. They go by twos, so that a term that deals its reference to two
    sides deals the rows kept as it dealt all."""
    return lambda x: x if block is None else x[torch.arange(len(x)) // 2 % BLOCKS != block]


def _matching(objective: Objective, kept: Callable[[Tensor], Tensor]) -> Objective:
    """The objective with what is ``kept`` of every reference that it matches."""
    return Objective(tuple((s, replace(t, reference=kept(t.reference)) if t.matches else t) for s, t in objective.terms))  # type: ignore[attr-defined, type-var]


def _halved(objective: Objective, rng: torch.Generator) -> tuple[Objective, Objective]:
    """The objective with one half of every reference that it matches, and with the other. Terms of one reference share its
    halves: what one chose by, the other must not judge by."""
    of = _dealt(objective, lambda n: torch.randperm(n, generator=rng))
    first, second = (_matching(objective, lambda rows, half=half: rows[of(rows)[half::2]]) for half in (0, 1))
    return first, second


def _dealt(objective: Objective, deal: Callable[[int], Tensor]) -> Callable[[Tensor], Tensor]:
    """For every reference that is matched the indices that ``deal`` gave for its length, once for all its terms."""
    dealt: list[tuple[Tensor, Tensor]] = []
    for rows in _matched(objective):
        if not any(same_rows(rows, other) for other, _ in dealt):
            dealt.append((rows, deal(len(rows))))
    return lambda rows: next(indices for other, indices in dealt if same_rows(rows, other))


def _half_by_twos(n: int, rng: torch.Generator) -> Tensor:
    """Half of n rows, by twos as in :func:`_without`."""
    twos = torch.randperm(n // 2, generator=rng)[: n // 4]
    return torch.stack([2 * twos, 2 * twos + 1], 1).flatten()


def _bandwidth(term: Any) -> float | None:
    found = getattr(term, "bandwidth", None)
    return found if found is not None else getattr(getattr(term, "kernel", None), "bandwidth", None)


def _sentence(o: BestMixture) -> str:
    used = sorted(((w, name) for name, w in o.by_name.items() if w > 0), reverse=True)
    blend = " + ".join(f"{w:.2f} {name}" for w, name in used)
    if o.gain is None or o.p_value is None:
        return f"use {blend}; too few samples to say whether it beats {o.best}, so no p-value is given"
    gain = f"{o.gain:+.3g} ± {o.gain_error:.2g} {o.unit}"
    if not (o.p_value < 0.05 and o.gain > 0):
        return f"no gain: use {o.best} (the mixture differs by {gain} on samples that chose nothing)"
    return f"gain {gain} over any one arm on samples that chose nothing ({intervals.p_in_words(o.p_value)}): use {blend}"


def name_of(path: str) -> str:
    """What an arm is called whose samples are at ``path``: its key, or its file's stem."""
    file, _, key = path.partition(".npz:")
    return key or Path(file).stem
