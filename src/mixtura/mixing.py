"""The best mixture of several generators, from samples at hand.

:func:`mix` is the whole of it: samples → features → an objective on the simplex → weights with a certificate, intervals, and
the gain over any single generator on samples that chose nothing.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixtura.contracts import InputError, Note
from mixtura.data import dtypes, numerals, source
from mixtura.data.field import refuse_nested
from mixtura.data.names import aligned, header
from mixtura.features import extractors
from mixtura.features.space import Lens
from mixtura.ground.kernels import Estimate
from mixtura.ground.rng import generator
from mixtura.objectives.objective import ConvexTerm, Expression, Objective, Quadratic, QuadraticTerm, parse, same_rows
from mixtura.simplex import intervals
from mixtura.simplex.quadratic import Polytope, Weights, minimise_convex, minimise_quadratic, minimise_sparse

Array = NDArray[np.float64]

#: features of images where nothing else was asked for
IMAGE_FEATURES = "pca:64"
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


@dataclass(frozen=True)
class Optimum:
    """The best mixture, how good it is, and how sure that is.

    weights: by name; intervals: 95 % for each, by m-out-of-n subsampling, None for few samples or reference rows. value ± error:
    the objective in its own ``unit`` on all samples, unbiased where it is quadratic; the weights were chosen on them too. Of
    frechet, vendi and fld values depend on the number of samples: a mixture's, which has more behind it than an arm's, is not to
    be set beside ``best_value``. gap: how far the solver can be from the optimum, in units of the loss. terms: each term's own
    value. best, best_value: the best single arm. gain ± error, p_value: of weights chosen on one half of every arm's samples over
    the single arm that they beat the least surely, on the other half, and of frechet, vendi and fld at equal numbers of samples;
    one-sided, None where samples or reference rows are too few. flat: pairs of arms (a, b) such that moving all weight of a to b
    costs nothing that these samples can tell. exact: whether the support is proven best (k-sparse mixtures may not be).
    """

    objective: str
    unit: str
    higher: bool
    weights: dict[str, float]
    intervals: dict[str, tuple[float, float]] | None
    value: float
    error: float
    gap: float
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
    exact: bool
    sentence: str


def mix(
    samples: Mapping[str, Any] | Sequence[Any], objective: str | Expression = "rke", *, reference: Any = None,
    features: str | None = None, bandwidth: float | None = None, costs: Sequence[float] | None = None, cap: float | None = None,
    floor: float | None = None, at_most: float | None = None, size: int | None = None, seed: int = 0, skip_broken: bool = False,
) -> Optimum:  # fmt: skip
    """The best mixture of generators, given samples of each: anything :func:`mixtura.run` reads, or arrays of features (n, d).

    objective: "rke+0.2*precision", or terms such as ``RKE(1.0) + 0.2 * Precision(real)``, which then see the arrays as they
    are. reference: real rows. features: what samples are compared by, as in ``run``. bandwidth: of the Gaussian kernels. costs:
    of a sample of each arm; at_most: what a sample of the mixture may cost on average. cap, floor: of every weight. size: arms
    in use at most. Raises InputError on samples of different kinds or widths, and on constraints that nothing obeys.
    """
    named = dict(samples) if isinstance(samples, Mapping) else {f"arm {i}": s for i, s in enumerate(samples)}
    if not named:
        raise InputError("mix: no samples were given; name one file for each generator")
    arms, real, look = gather(named, reference, features, seed=seed, skip_broken=skip_broken)
    if isinstance(objective, str):
        wanted = parse(objective, reference=real, bandwidth=bandwidth, costs=costs)
    else:
        wanted = Objective(objective.parts)
    wanted = wanted.ready(list(arms.values()), generator(seed, "bandwidth"))
    within = _polytope(len(arms), costs, cap, floor, at_most)
    if size is not None and (within is not None or not wanted.quadratic):
        raise InputError("size: is for quadratic objectives without caps, floors or a budget; leave one of them out")
    return _Mixing(list(arms), list(arms.values()), wanted, within, size, seed).optimum(look)


def gain_of_halves(samples: Mapping[str, Tensor], objective: Objective, *, seed: int = 0) -> tuple[Estimate, float] | None:
    """How much better the mixture is than any single arm, and its one-sided p-value: weights are chosen on one half of every
    arm's features (n, d), and compared with every arm on the other. Arms of fewer than ``LEAST_TO_JUDGE`` are left out; None if
    that leaves fewer than two. Bandwidths must be chosen."""
    enough = {name: x for name, x in samples.items() if len(x) >= LEAST_TO_JUDGE}
    costs = any(term.name == "cost" for _, term in objective.terms)  # they belong to arms by their order
    if len(enough) < 2 or (costs and len(enough) < len(samples)):
        return None
    gain, p = _Mixing(list(enough), list(enough.values()), objective, None, None, seed)._gain()
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
        rows.append({"scale": scale, **values, **found.weights, "gap": found.gap})
    return pd.DataFrame(rows)


# -------------------------------------------------------------------------------------------------------- features


def gather(
    samples: Mapping[str, Any], reference: Any, asked: str | None, *, seed: int, skip_broken: bool = False
) -> tuple[dict[str, Tensor], Tensor | None, str]:
    """Samples by name, and real rows, → features (n, d), and what they are called.

    Tables of numbers are taken as they are. Other tables are standardised, images mapped to ``IMAGE_FEATURES``, by the
    reference, or by all samples if there is none. Columns are found by name, as the reference, or the first table, has them;
    by position where a table has no header. A :class:`Note` tells of columns that are left out, and counts values that the
    rows of the reference cannot have, which are measured as they are.
    """
    given = {**samples} if reference is None else {**samples, "reference": reference}
    if "reference" in samples and reference is not None:
        raise InputError("mix: an arm is called 'reference'; rename it")
    arrays = {name: _as_features(x) for name, x in given.items()}
    if asked is None and all(x is not None for x in arrays.values()):
        found, called = {name: x for name, x in arrays.items() if x is not None}, "as given"
    else:
        loaded = {name: source.with_note(source.load(x, seed=seed, skip_broken=skip_broken)) for name, x in given.items()}
        frames = {name: source.rows_of(data) for name, data in loaded.items()}
        numbers = _by_name(frames)
        if asked is None and all(x is not None for x in numbers.values()):
            found, called = {name: x for name, x in numbers.items() if x is not None}, "as given"
        else:
            found, called = _looked_at(loaded, asked, seed)
    widths = {name: x.shape[1] for name, x in found.items()}
    odd = next((name for name, width in widths.items() if width != next(iter(widths.values()))), None)
    if odd is not None:
        first = next(iter(widths))
        raise InputError(f"{odd}: has {widths[odd]} columns, {first} has {widths[first]}; give samples of the same kind")
    for name, x in found.items():
        if len(x) < 2:
            raise InputError(f"{name}: {len(x)} sample cannot tell how alike samples are; give 2 or more")
        bad = (~torch.isfinite(x.float().square())).nonzero()  # kernels multiply in float32
        if len(bad):
            row, column = bad[0].tolist()
            value = float(x[row, column])
            remedy = "divide the column by a power of ten" if math.isfinite(value) else "drop it, or encode missing values"
            what = "beyond 1e19, where products overflow" if math.isfinite(value) else "which is not finite"
            raise InputError(f"{name}: row {row}, column {column} is {value:g}, {what}; {remedy}")
    return {name: found[name] for name in samples}, found.get("reference"), called


def real_rows(reference: Any, *, seed: int = 0) -> tuple[Tensor, list[str] | None]:
    """Real rows of numbers (n, d), or images (n, C, H, W), for an online selection; and the names of a table's columns, None
    without a header. InputError on a table that is not all numbers."""
    data = source.load(reference, seed=seed)
    frame = source.rows_of(data)
    if isinstance(frame, pd.DataFrame):
        if _numbers(frame) is None:
            raise InputError(f"{data.name}: has columns that are no numbers, but arms give numbers; encode them first")
        return gather({"reference": reference}, None, None, seed=seed)[0]["reference"], header(frame)
    schema = source.learn(data)
    return schema.encode(frame, name=data.name), None


def _as_features(x: Any) -> Tensor | None:
    """An array (n, d) in memory as features; None for anything else."""
    if isinstance(x, Tensor | np.ndarray) and x.ndim == 2 and x.shape[0] and x.shape[1]:
        array = torch.as_tensor(x if isinstance(x, Tensor) else np.ascontiguousarray(x)).detach().cpu()
        return array if array.dtype == torch.float32 else array.double()
    return None


def _by_name(frames: Mapping[str, Any]) -> dict[str, Tensor | None]:
    """Tables of numbers (n, d) with their columns as the reference, or the first, has them; None for other tables and images."""
    numbers = {name: _numbers(frame) for name, frame in frames.items()}
    first = "reference" if "reference" in frames else next(iter(frames))
    if any(x is None for x in numbers.values()):
        return numbers
    columns = header(frames[first])
    return {name: _numbers(aligned(frame, columns, name=name, like=first)) for name, frame in frames.items()}


def _numbers(frame: Any) -> Tensor | None:
    """A table of numbers (n, d), NaN where one is missing; None for any other table, and for images."""
    if not isinstance(frame, pd.DataFrame):
        return None
    x = np.full(frame.shape, np.nan)
    for j in range(frame.shape[1]):
        column = frame.iloc[:, j]
        present = column.dropna()
        refuse_nested(present)
        plain = not dtypes.is_text(present.dtype) or all(numerals.is_number(str(cell)) for cell in present.unique())
        values = numerals.numbers(present) if plain else None
        if values is None:
            return None
        x[column.notna().to_numpy(), j] = numerals.floats(values)
    return torch.as_tensor(x)


def _looked_at(loaded: Mapping[str, Any], asked: str | None, seed: int) -> tuple[dict[str, Tensor], str]:
    like = loaded.get("reference", next(iter(loaded.values())))
    schema = source.learn(like)
    rows = {name: source.rows_like(source.rows_of(data), schema) for name, data in loaded.items()}
    for name, x in rows.items():
        schema = schema.strict(x, name=name)
    as_made = {name: schema.as_made(x, name=name) for name, x in rows.items()}
    for name, found in as_made.items():
        if said := found.told(name, "real rows" if "reference" in loaded else f"those of {next(iter(loaded))}"):
            warnings.warn(said, Note, stacklevel=4)
    encoded = {name: found.x for name, found in as_made.items()}
    fit = encoded.get("reference", torch.cat([*encoded.values()]))
    if schema.pictured:
        look = extractors.parse(asked or IMAGE_FEATURES)
        look.fit(fit.float(), generator(seed, "features"))
        return {name: look(x) for name, x in encoded.items()}, look.name
    lens = Lens(schema, fit, asked, seed=seed)
    return {name: lens(x) for name, x in encoded.items()}, lens.name


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

    def solve(self, within: Polytope | None, size: int | None) -> tuple[Weights, bool]:
        """Weights, and whether they are proven best."""
        if self.convex:
            return minimise_convex(self.value_and_gradient, self.m, within=within), True
        K, f = self.quadratic.form(unbiased=False)  # type: ignore[union-attr]
        if size is not None:
            found = minimise_sparse(K, -f / 2, size)
            return Weights(found.weights, found.value, found.gap), found.exact
        return minimise_quadratic(K, -f / 2, within=within), True

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


class _Mixing:
    def __init__(
        self, names: list[str], samples: list[Tensor], objective: Objective, within: Polytope | None, size: int | None, seed: int
    ) -> None:
        self.names, self.samples, self.objective = names, samples, objective
        self.within, self.size, self.seed = within, size, seed

    def optimum(self, features: str) -> Optimum:
        """All of it."""
        names, loss = self.names, _Loss(self.objective, self.samples, self.seed)
        found, exact = loss.solve(self.within, self.size)
        a = np.array(found.weights)
        value = self._value(loss, a)
        singles = loss.singles()
        best = int(np.argmin(singles))
        best_value = self._value(loss, np.eye(len(names))[best])
        terms = {
            term.name: (own.value, own.error)
            for k, (_, term) in enumerate(self.objective.terms)
            for own in (term.own(loss.of_term(k, a)),)
        }
        gain, p = self._gain()
        flat = self._flat(loss, a)
        bandwidth = next((b for _, t in self.objective.terms if (b := _bandwidth(t)) is not None), None)
        optimum = Optimum(
            self.objective.name, self.objective.unit, self.objective.higher, dict(zip(names, a.tolist(), strict=True)),
            self._intervals(loss, a), value.value, value.error, found.gap, terms, names[best], best_value.value, best_value.error,
            None if gain is None else gain.value, None if gain is None else gain.error, p, flat,
            {name: len(x) for name, x in zip(names, self.samples, strict=True)}, features, bandwidth, exact, "",
        )  # fmt: skip
        return replace(optimum, sentence=_sentence(optimum))

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
        a = np.array(_Loss(real[0], first, self.seed).solve(self.within, self.size)[0].weights)
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

    def _intervals(self, loss: _Loss, a: Array) -> dict[str, tuple[float, float]] | None:
        """95 % for every weight; None for few samples or reference rows, and for a support that was searched."""
        if min(map(len, [*self.samples, *_matched(self.objective)])) < LEAST_TO_JUDGE or self.size is not None:
            return None
        rng = generator(self.seed, "intervals")
        if loss.convex or loss.quadratic is None:
            bounds = intervals.around(a, np.array([self._of_half(rng) for _ in range(CONVEX_SUBSAMPLES)]), 0.5)
        else:
            q, (K, f) = loss.quadratic, loss.quadratic.form(unbiased=False)
            beside = [G for _, G, _ in q.beside]
            bounds = intervals.of_quadratic(K, f, q.near, q.linear, beside=beside, within=self.within, rng=rng)
        return {name: (float(low), float(high)) for name, (low, high) in zip(self.names, bounds, strict=True)}

    def _of_half(self, rng: torch.Generator) -> Array:
        """Weights of half of every arm's samples, and of every reference that is matched."""
        halves = [x[torch.randperm(len(x), generator=rng)[: len(x) // 2]] for x in self.samples]
        of = _dealt(self.objective, lambda n: _half_by_twos(n, rng))
        objective = _matching(self.objective, lambda rows: rows[of(rows)])
        return np.array(_Loss(objective, halves, self.seed).solve(self.within, None)[0].weights)

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


def _sentence(o: Optimum) -> str:
    used = sorted(((w, name) for name, w in o.weights.items() if w > 0), reverse=True)
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
