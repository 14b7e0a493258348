"""Online selection: :meth:`Selector.ask` names the arm to ask next, :meth:`Selector.tell` takes the samples that it gave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mixtura.contracts import Estimate, InputError
from mixtura.ground.rng import generator
from mixtura.objectives.expression import Expression, Objective, QuadraticTerm
from mixtura.objectives.quadratic import rows_of
from mixtura.objectives.terms import parse
from mixtura.policies import TABLE, of_name
from mixtura.policies.bandit import Policy, View
from mixtura.policies.tally import EXACT, Tally, bounds
from mixtura.simplex.intervals import of_quadratic
from mixtura.simplex.quadratic import minimise_quadratic
from mixtura.simplex.weights import Weights

Array = NDArray[np.float64]

#: samples of each arm before the policy is used; samples of each arm before weights have intervals
FIRST, LEAST_FOR_INTERVALS = 5, 5
#: length from which on the squared distance of two samples overflows in float32, in which kernels are computed
LONGEST = 1e18


@dataclass(frozen=True)
class Certificate:
    """A bound on how far the mixture is from the best one, in units of the loss.

    excess: the bound, which holds with probability 1 − ``risk`` or more. mode: "asymptotic" (from a normal approximation) or
    "certified" (from a proven inequality). wanted: the number of pulls at which the bound would reach ``tolerance`` at its
    present rate, or None.
    """

    mode: str
    excess: float
    risk: float
    wanted: float | None


class Selector:
    """Finds the best mixture of arms from as few samples as possible.

        selector = Selector(["a", "b"], MMD(real))
        while selector.pulls < 1000:
            arm = selector.ask()
            selector.tell(arm, features_of(generators[arm]()))
        selector.weights

    arms: their names, or how many. objective: quadratic terms, or text as on the command line, "rke+0.2*precision", with the
    ``reference`` (r, d) that its terms compare with; a bandwidth that is not given is chosen from the first samples. policy: a
    name of the table of policies, or a policy of your own. horizon: total number of pulls, for successive halving. truth: (K, f),
    for oracles. first: samples of each arm before the policy is used. exact: number of samples up to which every pair is summed,
    at least four for each arm; later samples are paired with at most so many (:class:`Tally`). Several arms may be asked before
    the first sample is told, and samples may be told in any order. The same asks and tells in the same order give the same
    choices.
    """

    def __init__(
        self, arms: int | Sequence[str], objective: str | Expression, *, reference: ArrayLike | Tensor | None = None,
        policy: str | Policy = "variance_ucb", seed: int = 0, horizon: int | None = None, first: int = FIRST,
        truth: tuple[ArrayLike, ArrayLike] | None = None, exact: int = EXACT,
    ) -> None:  # fmt: skip
        self.names = _names(arms)
        m = len(self.names)
        self.seed, self.first, self.exact = _whole("seed", seed, 0), _whole("first", first, 2), _whole("exact", exact, 4 * m)
        self.horizon = None if horizon is None else _whole("horizon", horizon, 1)
        self.objective = _objective(objective, reference)
        self.policy = _policy(policy)
        _fits(self.objective, self.policy, policy, truth)
        self.truth = None if truth is None else _truth(truth, m)
        self.asked, self.told = np.zeros(m, dtype=np.int64), np.zeros(m, dtype=np.int64)
        self.open = np.ones(m, dtype=bool)
        self.tally: Tally | None = None
        self._early: list[tuple[int, Tensor]] = []
        self._width: int | None = None

    # ------------------------------------------------------------------------------------------------ ask and tell

    @property
    def pulls(self) -> int:
        """Number of samples told so far."""
        return int(self.told.sum())

    def ask(self, k: int | None = None) -> Any:
        """The name of the next arm to ask, or a list of ``k`` names. A pull counts as asked until it is told or forgotten
        (:meth:`forget`)."""
        if k is not None:
            return [self.ask() for _ in range(k)]
        if not self.open.any():
            raise InputError("select: no arm is left to be asked; take the weights")
        arm = self._choose()
        self.asked[arm] += 1
        return self.names[arm]

    def _choose(self) -> int:
        few = self.open & (self.asked < self.first)
        if few.any():
            return int(np.where(few, self.asked, self.asked.max() + 1).argmin())
        if not self._ready:
            # the first samples are still awaited, so ask the arms in turn
            return int(np.where(self.open, self.asked, self.asked.max() + 1).argmin())
        return self.policy.choose(self._view(), generator(self.seed, "ask", int(self.asked.sum())))

    def tell(self, arm: str, samples: ArrayLike | Tensor) -> None:
        """Take in the samples that an arm gave: finite features (d,) or (n, d), d the same for all. Raises InputError for any
        other array, and then changes nothing."""
        i = self._index(arm)
        x = _features(arm, samples)
        if self.width not in (None, x.shape[1]):
            raise InputError(f"{arm}: a sample has {x.shape[1]} features, the others have {self.width}; give the same of each")
        self._width = x.shape[1]
        self.told[i] += len(x)
        self.asked[i] = max(self.asked[i], self.told[i])
        for row in x:
            self._early.append((i, row))
        self._add_early()

    def forget(self, arm: str) -> None:
        """Give up one pull of this arm whose sample will never be told."""
        i = self._index(arm)
        self.asked[i] = max(self.told[i], self.asked[i] - 1)

    def close(self, arm: str) -> None:
        """Stop asking this arm. The samples that it gave still count."""
        self.open[self._index(arm)] = False
        self._add_early()

    def notice(self) -> None:
        """Repeat a choice of a policy that remembers its choices, when a selection is resumed."""
        if self.policy.remembers and self._ready and self.open.any():
            self.policy.choose(self._view(), generator(self.seed, "ask", int(self.asked.sum())))

    def _index(self, arm: str) -> int:
        if arm not in self.names:
            raise InputError(f"arm: there is no {arm!r}; choose one of {', '.join(self.names)}")
        return self.names.index(arm)

    @property
    def width(self) -> int | None:
        """Number of features of a sample, or None while it is unknown."""
        references = [term.reference for _, term in self.objective.terms if isinstance(term, QuadraticTerm)]
        return self._width or next((r.shape[1] for r in references if r is not None), None)

    def _add_early(self) -> None:
        """Add the first samples to the sums, and choose the missing bandwidths, as soon as every open arm has given its first."""
        if self.tally is None and (self.told >= np.where(self.open, self.first, 0)).all() and self.told.sum() >= 2:
            groups = [torch.stack([x for j, x in self._early if j == i]) for i in range(len(self.names)) if self.told[i]]
            self.objective = self.objective.ready(groups, generator(self.seed, "bandwidth"))
            self.tally = Tally(self.objective, len(self.names), exact=self.exact)
        if self.tally is not None:
            for j, row in self._early:
                self.tally.add(j, row)
            self._early = []

    # ----------------------------------------------------------------------------------------- weights and their errors

    @property
    def _ready(self) -> bool:
        if self.tally is None:
            return False
        if self.tally.t == 0:
            self.tally.flush()
        return bool((self.tally.n[self.open] >= 1).all())

    def _view(self) -> View:
        tally = self.tally
        if tally is None:
            raise InputError("select: too few samples to choose an arm; tell more")
        K, f = self._form(tally)
        kernel, linear = bounds(tally.parts)
        return View(
            K, f, np.maximum(tally.n, 1).astype(np.float64), self.asked.astype(np.float64), self.open, kernel, linear,
            tally.deviation, self.horizon, self.truth,
        )  # fmt: skip

    def _form(self, tally: Tally) -> tuple[Array, Array]:
        """V-form. An arm that was closed before it gave a sample has a loss so large that it gets no weight."""
        K, f = tally.form()
        f[tally.n == 0] = 1e3 * (1 + np.abs(K).max() + np.abs(f).max())
        return K, f

    @property
    def weights(self) -> Weights:
        """The best mixture for the samples told. ``value`` is its unbiased loss; ``gap`` bounds how far the solver is from the
        optimum of the estimated loss."""
        tally = self.settled()
        found = self.policy.weights(self._view())
        value = tally.loss(np.array(found.weights)).value
        return Weights(found.weights, value, found.gap, names=tuple(self.names))

    @property
    def value(self) -> Estimate:
        """The objective of the mixture in its own unit, unbiased, with its error, on the samples that the mixture was chosen
        on."""
        return self.objective.own(self.settled().loss(np.array(self.weights.weights)))

    def current(self) -> tuple[dict[str, float], Estimate, tuple[str, Estimate]]:
        """Weights, value and best single arm from the samples in the sums. Waiting samples are not added, so that watching a
        selection does not change it."""
        tally = self.tally
        if tally is None:
            raise InputError("select: too few samples for weights; tell more")
        found = np.array(self.policy.weights(self._view()).weights)
        return dict(zip(self.names, found.tolist(), strict=True)), self.objective.own(tally.loss(found)), self._single(tally)

    def single(self) -> tuple[str, Estimate]:
        """The best single arm and its value."""
        return self._single(self.settled())

    def _single(self, tally: Tally) -> tuple[str, Estimate]:
        known = tally.n >= 2
        K, f = tally.form(unbiased=True)
        best = int(np.argmin(np.where(known, K.diagonal() + f, math.inf)))
        return self.names[best], self.objective.own(tally.loss(np.eye(len(self.names))[best]))

    def intervals(self) -> dict[str, tuple[float, float]] | None:
        """95 % interval of each weight; None while an arm has few samples."""
        tally = self.settled()
        near, arms = tally.contributions()
        if min(np.bincount(arms, minlength=len(self.names))) < LEAST_FOR_INTERVALS:
            return None
        rows = [torch.as_tensor(near[arms == i]) for i in range(len(self.names))]
        K, f = tally.form()
        found = of_quadratic(K, f, [r[:, :-1] for r in rows], [r[:, -1] for r in rows], rng=generator(self.seed, "intervals"))
        return {name: (float(low), float(high)) for name, (low, high) in zip(self.names, found, strict=True)}

    def alone(self, arm: str) -> Estimate | None:
        """The objective of one arm alone, in its own unit; None with fewer than two samples of it."""
        tally, i = self.settled(), self._index(arm)
        return self.objective.own(tally.loss(np.eye(len(self.names))[i])) if tally.n[i] > 1 else None

    def settled(self) -> Tally:
        """The sums with every sample told. Raises InputError if there are too few samples."""
        if self.tally is None:
            raise InputError(f"select: {self.pulls} samples are too few for weights; tell at least {self.first} of each arm")
        self.tally.flush()
        return self.tally

    def certificate(self, mode: str = "asymptotic", *, risk: float = 0.05, tolerance: float | None = None) -> Certificate:
        """An upper bound on L(a) − min L for the present weights a.

        "asymptotic": by convexity L(a) − L(b) ≤ ∇L(a)·(a − b), so the excess is at most max_i (∇L(a)·a − ∇L(a)_i). Each of the m
        numbers has a normal error; the bound is the largest of their upper limits at risk/m.

        "certified": for all arms and all times together, the mean embedding of arm i lies within
        r_i = √(Δκ / n_i) (1 + √(2 log(4m t² / risk))) of its estimate (McDiarmid; Gretton et al. 2012, theorem 7), and f_i within
        Hoeffding's width. This needs bounded kernels and losses, and takes the references as exact. Beyond ``exact`` samples, it
        uses the sums at the last time when every pair was summed: the bound still holds for the present weights but no longer
        shrinks, so ``wanted`` is None; it is inf if an arm had no sample then.

        Raises InputError on another mode, on a risk outside (0, 1), on a tolerance that is not above 0, or on too few samples.
        """
        if not 0 < risk < 1:
            raise InputError(f"risk: expected a number between 0 and 1, got {risk}; 0.05 is usual")
        if tolerance is not None and not tolerance > 0:
            raise InputError(f"tolerance: expected a number above 0, got {tolerance}; leave it out for none")
        tally = self.settled()
        a = np.array(self.weights.weights)
        if mode == "asymptotic":
            slack, error = tally.slack(a)
            z = float(torch.special.ndtri(torch.tensor(1 - risk / len(a), dtype=torch.float64)))
            excess = max(0.0, float((slack + z * error)[tally.n > 0].max()))
        elif mode == "certified":
            excess = self._proven(tally, a, risk)
        else:
            raise InputError(f"stopping: expected asymptotic or certified, got {mode!r}; choose one")
        shrinks = mode == "asymptotic" or int(tally.complete()[2].sum()) == tally.t
        wanted = None if tolerance is None or not shrinks else tally.t * max(1.0, excess / tolerance) ** 2
        return Certificate(mode, excess, risk, wanted)

    def _proven(self, tally: Tally, a: Array, risk: float) -> float:
        kernel, linear = bounds(tally.parts)
        if not (math.isfinite(kernel) and math.isfinite(linear)):
            raise InputError("stopping: a certified bound needs a bounded kernel and bounded losses; use the asymptotic bound")
        K, f, seen = tally.complete()
        known = tally.n > 0  # an arm without samples cannot be part of a mixture
        if not seen[known].all():
            return math.inf
        a, n, t, m = a[known], seen[known].astype(np.float64), max(int(seen.sum()), 2), len(a)
        matched = any(term.matches for _, term in tally.parts)
        # an embedding has length √Δκ at most, the difference of two at most twice that
        longest = math.sqrt(kernel) * (2 if matched else 1)
        r = np.sqrt(kernel / n) * (1 + math.sqrt(2 * math.log(4 * m * t**2 / risk)))
        own = sum(scale * term.spread for scale, term in tally.parts if not term.matches)
        s = own * np.sqrt(math.log(4 * m * t**2 / risk) / (2 * n))
        K, f = K[np.ix_(known, known)], f[known]
        # L(a) ≤ L̂(a) + 2 |Â| ρ + ρ² + s'a with ρ = r'a, and L(b) ≥ L̂(b) − 2 longest r'b − s'b for every b
        ρ = float(r @ a)
        upper = float(a @ K @ a + f @ a) + 2 * longest * ρ + ρ**2 + float(s @ a)
        least = minimise_quadratic(K, -(f - 2 * longest * r - s) / 2, psd=True)
        return max(0.0, upper - least.value + least.gap)


def _names(arms: Any) -> list[str]:
    if isinstance(arms, int) and not isinstance(arms, bool):
        arms = range(arms)
    if isinstance(arms, str | bytes) or not isinstance(arms, Sequence):
        raise InputError(f"arms: expected their number or a list of names, got {arms!r}; give a list such as ['a', 'b']")
    names = [str(name) for name in arms]
    if not names or len(set(names)) < len(names):
        raise InputError(f"arms: expected one or more different names, got {names}; give each arm its own name")
    return names


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name}: expected a whole number of {least} or more, got {value!r}; leave it out for the default")
    return int(value)


def _objective(asked: Any, reference: ArrayLike | Tensor | None) -> Objective:
    if isinstance(asked, str):
        return parse(asked, reference=None if reference is None else rows_of(reference))
    if not isinstance(asked, Expression):
        kind = type(asked).__name__
        raise InputError(f'objective: expected terms such as RKE(1.0) + 0.2 * Precision(real), or "rke", got a {kind}; give one')
    if reference is not None:
        raise InputError('objective: a term such as MMD(real) holds its own reference; give reference= only with text as "mmd"')
    return Objective(asked.parts)


def _policy(asked: Any) -> Policy:
    if isinstance(asked, str):
        return of_name(asked)
    if not isinstance(asked, Policy):
        raise InputError(f"policy: expected a name as variance_ucb, or a Policy as VarianceUcb(), got {asked!r}; give one")
    return asked


def _truth(given: Any, m: int) -> tuple[Array, Array]:
    try:
        K, f = (np.asarray(part, dtype=np.float64) for part in given)
    except (TypeError, ValueError) as error:
        kind = type(given).__name__
        raise InputError(f"truth: expected K ({m}, {m}) and f ({m},), got a {kind}; give a pair of arrays") from error
    if K.shape != (m, m) or f.shape != (m,):
        raise InputError(f"truth: expected K ({m}, {m}) and f ({m},), got shapes {K.shape} and {f.shape}; give a row an arm")
    return K, f


def _features(arm: str, samples: ArrayLike | Tensor) -> Tensor:
    """The samples of an arm as float64 (n, d). Raises InputError if they are not finite numbers of that shape."""
    try:
        x = torch.as_tensor(samples if isinstance(samples, Tensor) else np.asarray(samples)).detach().cpu()
    except (TypeError, ValueError) as error:
        given = type(samples).__name__
        raise InputError(f"{arm}: expected numbers of shape (d,) or (n, d), got other values in a {given}; encode it") from error
    if x.dim() not in (1, 2) or x.numel() == 0 or x.is_complex():
        shape = tuple(x.shape)
        raise InputError(f"{arm}: expected real features of shape (d,) or (n, d), got {x.dtype} of shape {shape}; convert them")
    x = x.double().reshape(-1, x.shape[-1])
    if not comparable(x):
        raise InputError(f"{arm}: a sample is not finite, or longer than {LONGEST:g}; leave it out and forget the pull")
    return x


def comparable(x: Tensor) -> bool:
    """Whether kernels can compare rows (n, d): they are finite, and none is longer than ``LONGEST``."""
    return bool((torch.linalg.vector_norm(x.double(), dim=1) <= LONGEST).all())


def _fits(objective: Objective, policy: Policy, name: str | Policy, truth: object) -> None:
    """Raise InputError if this policy does not work with this objective, before any sample is bought."""
    odd = next((term.name for _, term in objective.terms if not isinstance(term, QuadraticTerm)), None)
    if odd is not None:
        raise InputError(f"objective: {odd} is not quadratic and cannot be learnt online; use mixtura mix on samples")
    free = next((term.name for _, term in objective.terms if isinstance(term, QuadraticTerm) and not term.bounded), None)
    if free is not None and policy.constants == "theory":
        raise InputError(f"policy: the constants of the theory need bounded terms, and {free} has no bound; use variance_ucb")
    if isinstance(name, str) and TABLE[name].needs_truth and truth is None:
        raise InputError(f"policy: {name} needs the truth, which only an experiment has; use variance_ucb")


__all__ = ["LONGEST", "Certificate", "Selector", "comparable"]
