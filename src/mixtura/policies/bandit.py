"""Policies choose which arm to ask next, so that few samples are enough to find the best mixture.

A policy sees a :class:`View`, which holds sums and counts but no samples. Policies that learn a mixture minimise an optimistic
loss,

    a_t = argmin over the simplex of L̂(a) − ε'a,         L̂(a) = a'K̂a + f̂'a,

and differ in ε and in how an arm is chosen from a_t (Rezaei, Farnia & Li 2025: Mixture-UCB-CAB and -OGD). The default has a
variance-aware ε and tracks a_t instead of drawing from it; docs/select.md shows the measurements behind that choice.

A new policy is a class with ``choose`` in a file of its own, and one line in the TABLE of the package.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from mixtura.contracts import InputError
from mixtura.simplex.quadratic import minimise_quadratic
from mixtura.simplex.weights import Weights

Array = NDArray[np.float64]

#: constants of the authors' code: DELTA_L, and DELTA_G of the linear part; the code has no ½ under the root
CODE_RANGE, CODE_LINEAR = 0.6, 0.4
#: β of the paper's algorithms
BETA = 4.0


@dataclass(frozen=True)
class View:
    """What a policy may use to choose pull t + 1.

    K, f: the estimate of L(a) = a'Ka + f'a. n (m,): number of samples of each arm. asked (m,): n plus the pulls that have no
    answer yet. open (m,): whether an arm can be asked. kernel_bound, linear_range: Δκ and Δ_f. deviation: a → (m,) standard
    deviation, within each arm, of one sample's contribution to the gradient at a. horizon: total number of pulls, if it is known.
    truth: the true K and f, in an experiment.
    """

    K: Array
    f: Array
    n: Array
    asked: Array
    open: NDArray[np.bool_]
    kernel_bound: float
    linear_range: float
    deviation: Callable[[Array], Array]
    horizon: int | None = None
    truth: tuple[Array, Array] | None = None

    @property
    def t(self) -> int:
        """Number of samples so far."""
        return int(self.n.sum())

    @property
    def share(self) -> Array:
        """(m,) share of each arm in the samples so far. It is near the best mixture once there are many."""
        return self.n / self.n.sum()

    @property
    def loss_range(self) -> float:
        """Δ_L = 2Δκ + Δ_f: the most by which one of n samples can change n L̂."""
        return 2 * self.kernel_bound + self.linear_range


class Policy(ABC):
    """Chooses arms. One object serves one selection. ``remembers``: whether a choice changes the state of the policy; a selection
    that is resumed must then repeat its earlier choices."""

    remembers = False
    #: "theory" if the bonus uses the range of the objective, which must then be bounded
    constants: str = ""

    @abstractmethod
    def choose(self, view: View, rng: torch.Generator) -> int:
        """The index of the arm to ask; it must be open."""

    def weights(self, view: View) -> Weights:
        """The mixture that minimises the estimated loss: the one to use if the selection ended now."""
        return _minimise(view.K, view.f, None)


class Mixing(Policy):
    """A policy that learns a mixture from a bonus ε. It asks argmax_i (t a_i − asked_i) (``tracks``), or draws an arm from a."""

    tracks = True

    @abstractmethod
    def bonus(self, view: View) -> Array:
        """(m,) the bonus ε."""

    def choose(self, view: View, rng: torch.Generator) -> int:
        a = self.optimistic(view)
        if not self.tracks:
            return _draw_arm(np.where(view.open, a, 0), view, rng)
        behind = (view.asked.sum() + 1) * a - view.asked
        return first_best(-behind, view)

    def optimistic(self, view: View) -> Array:
        """(m,) the optimistic weights a_t."""
        return np.array(_minimise(view.K, view.f - self.bonus(view), view.share).weights)


@dataclass
class VarianceUcb(Mixing):
    """ε_i = z sd_i √(2 log t / n_i), where sd_i is the standard deviation of h(x) = 2 Σ_j a_j κ̄_j(x) + ℓ(x) within arm i. h is a
    sample's contribution to the gradient; sd_i is about a hundredth of the range that a worst case must assume."""

    z: float = 1.5

    def bonus(self, view: View) -> Array:
        return self.z * view.deviation(view.share) * np.sqrt(2 * math.log(max(view.t, 2)) / view.n)


@dataclass
class Cab(Mixing):
    """Mixture-UCB-CAB: ε_i = Δ_L √(β log t / 2n_i) + Δκ / n_i, and the arm is drawn from a_t. ``constants``: "theory" (of the
    paper) or "code" (of the authors' code)."""

    constants: str = "theory"
    tracks = False

    def bonus(self, view: View) -> Array:
        return published_bonus(view, self.constants)


@dataclass
class Ogd(Policy):
    """Mixture-UCB-OGD: ask argmin_i of (2/t) K̂n + f̂ − ε. This is Frank–Wolfe with step 1/(t+1) on the shares of the pulls."""

    constants: str = "theory"

    def choose(self, view: View, rng: torch.Generator) -> int:
        share = view.asked / view.asked.sum()
        return first_best(2 * view.K @ share + view.f - published_bonus(view, self.constants), view)


class Greedy(Mixing):
    """ε = 0, and tracking. It is as good as any policy where an arm's samples are alike, but of two arms that differ little it
    can choose the wrong one for good."""

    def bonus(self, view: View) -> Array:
        return np.zeros(len(view.n))


@dataclass
class EpsilonGreedy(Greedy):
    """Greedy, but with probability min(1/m, t^(−1/3)) it asks a random arm."""

    def choose(self, view: View, rng: torch.Generator) -> int:
        chosen = super().choose(view, rng)
        explore = float(torch.rand((), generator=rng, dtype=torch.float64)) < min(1 / len(view.n), max(view.t, 1) ** (-1 / 3))
        return _draw_arm(view.open.astype(np.float64), view, rng) if explore else chosen


class Uniform(Policy):
    """Asks each arm equally often."""

    def choose(self, view: View, rng: torch.Generator) -> int:
        return first_best(view.asked.astype(np.float64), view)


@dataclass
class VanillaUcb(Policy):
    """Finds the best single arm by an optimistic index, K̂_ii + f̂_i − Δ_L √(β log t / 2n_i). It cannot find a mixture."""

    constants: str = "theory"

    def choose(self, view: View, rng: torch.Generator) -> int:
        return first_best(view.K.diagonal() + view.f - published_bonus(view, self.constants), view)

    def weights(self, view: View) -> Weights:
        return _single(view.K.diagonal() + view.f)


@dataclass
class SuccessiveHalving(Policy):
    """⌈log₂ m⌉ rounds share the horizon. Each round asks the remaining arms equally often and keeps the better half (Karnin et
    al. 2013). It finds a single arm."""

    left: list[int] = field(default_factory=list)
    rounds: int = 0
    remembers = True

    def choose(self, view: View, rng: torch.Generator) -> int:
        m, horizon = len(view.n), view.horizon
        if horizon is None:
            raise InputError("successive_halving: needs to know the total number of pulls; give --pulls")
        every = max(1, horizon // math.ceil(math.log2(max(m, 2))))
        self.left = self.left or list(range(m))
        while view.asked.sum() >= (self.rounds + 1) * every and len(self.left) > 1:
            single = view.K.diagonal() + view.f
            self.left = sorted(self.left, key=lambda i: single[i])[: math.ceil(len(self.left) / 2)]
            self.rounds += 1
        among = view.open & np.isin(np.arange(m), self.left)
        return first_best(np.where(among if among.any() else view.open, view.asked, math.inf), view)

    def weights(self, view: View) -> Weights:
        single = view.K.diagonal() + view.f
        kept = self.left or list(range(len(single)))
        return _single(np.where(np.isin(np.arange(len(single)), kept), single, math.inf))


class OneArmOracle(Policy):
    """Asks the arm that is truly the best single one."""

    def choose(self, view: View, rng: torch.Generator) -> int:
        K, f = _truth(view)
        return int(np.argmin(np.where(view.open, K.diagonal() + f, math.inf)))  # always the same one of equally good arms

    def weights(self, view: View) -> Weights:
        K, f = _truth(view)
        return _single(K.diagonal() + f)


class MixtureOracle(Policy):
    """Tracks the truly best mixture."""

    def choose(self, view: View, rng: torch.Generator) -> int:
        a = np.array(self.weights(view).weights)
        return first_best(view.asked - (view.asked.sum() + 1) * a, view)

    def weights(self, view: View) -> Weights:
        K, f = _truth(view)
        return _minimise(K, f, None)


def published_bonus(view: View, constants: str) -> Array:
    """(m,) ε of the paper ("theory") or of the authors' code ("code"), which takes 0.6 as the range of every objective."""
    log_t = math.log(max(view.t, 2))
    if constants == "code":
        linear = CODE_LINEAR / view.n if view.f.any() else 0.0
        return CODE_RANGE * np.sqrt(log_t / view.n) + linear
    if not math.isfinite(view.loss_range):
        raise InputError("policy: the constants of the theory need a bounded objective, which this is not; use variance_ucb")
    return view.loss_range * np.sqrt(BETA * log_t / (2 * view.n)) + view.kernel_bound / view.n


def _minimise(K: Array, f: Array, start: Array | None) -> Weights:
    """Weights a that minimise a'Ka + f'a, a V-form."""
    return minimise_quadratic(K, -f / 2, start=start, psd=True)


def _single(losses: Array) -> Weights:
    best = int(np.argmin(losses))
    return Weights(tuple(float(i == best) for i in range(len(losses))), float(losses[best]), math.nan)


def _truth(view: View) -> tuple[Array, Array]:
    if view.truth is None:
        raise InputError("policy: an oracle needs the truth, which only an experiment has; use variance_ucb")
    return view.truth


def first_best(losses: Sequence[float] | Array, view: View) -> int:
    """The open arm with the smallest loss; of equal ones the one asked least often, then the first."""
    order = np.lexsort((view.asked, np.where(view.open, losses, math.inf)))
    return int(order[0])


def _draw_arm(shares: Array, view: View, rng: torch.Generator) -> int:
    if shares.sum() <= 0:
        return first_best(view.asked.astype(np.float64), view)
    u = float(torch.rand((), generator=rng, dtype=torch.float64)) * shares.sum()
    return int(min(np.searchsorted(shares.cumsum(), u, side="right"), np.flatnonzero(shares)[-1]))
