"""Selection that depends on a context, such as a prompt: the best arm, or the best mixture of arms, at that context.

Which arm has the highest reward at context c? :class:`KernelRidgeUcb` fits, for each arm, a ridge regression of its rewards y on
its contexts, and asks the arm with the highest upper bound

    k'(K + αI)⁻¹y + η α^(−1/2) (k(c, c) − k'(K + αI)⁻¹k)^(1/2)                 k_s = k(c, c_s), K_st = k(c_s, c_t)

(PAK-UCB: Hu, Leung & Farnia 2025). :class:`RandomFeatureUcb` does the same on random Fourier features of a Gaussian kernel
(RFF-UCB, ibid.), at a cost that does not grow with the samples.

Which mixture of arms is the most diverse at context c? :class:`ContextualMixture`, after DAK-UCB (Jafari & Farnia 2026).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mixtura.contracts import InputError
from mixtura.ground import rng as random
from mixtura.ground.kernels import Gaussian, Kernel
from mixtura.simplex.quadratic import minimise_quadratic
from mixtura.simplex.weights import Weights

#: number of rows that a growing array starts with
ROOM = 64
#: smallest weight of a sample at a context far from its own: if an arm has no sample near, all of its samples count equally
FAR = 1e-6
#: an arm whose samples around a context count for less than this is asked there first, before any estimate is used
LOCAL = 2.0
#: the standard deviation of an arm with few samples is shrunk towards that of all arms, with the weight of so many samples
PRIOR = 2.0


# -------------------------------------------------------------------------------------------- the best arm at a context


@dataclass(frozen=True)
class Ridge:
    """The settings of ridge regressions and their bonus.

    alpha:   α > 0, the ridge, in units of k(c, c).
    eta:     η ≥ 0, the width of the bonus. None: (2 log(2 T m / δ))^(1/2) for m arms, T = ``horizon`` rounds and δ = ``delta``.
             That is the paper's value, for which the bounds of all rounds hold with probability 1 − δ; it explores far longer
             than most rewards need (docs/contextual.md has figures). Below α^(1/2) the bound of an arm without samples near a
             context is below the best reward, and the arm may never be asked there.
    rewards: the lowest and highest reward. Regressions use (reward − low) / (high − low), so that neither the prior nor η depends
             on the unit. A reward outside the range is allowed and is not clipped.
    """

    alpha: float = 1.0
    eta: float | None = 1.5
    horizon: int = 10_000
    delta: float = 0.05
    rewards: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 < self.alpha < math.inf:
            raise InputError(f"alpha: expected a finite number above 0, got {self.alpha}; start with 1")
        if not (self.horizon >= 1 and 0 < self.delta < 1):
            raise InputError(
                f"horizon, delta: expected 1 or more, and within (0, 1), got {self.horizon} and {self.delta}; leave them out"
            )
        if self.eta is not None and not 0 <= self.eta < math.inf:
            raise InputError(f"eta: expected a finite number of 0 or more, got {self.eta}; leave it out or start with 1.5")
        if not -math.inf < self.rewards[0] < self.rewards[1] < math.inf:
            raise InputError(
                f"rewards: expected the lowest and the highest, got {self.rewards}; give two finite numbers in order"
            )

    def width(self, arms: int) -> float:
        """η for so many arms."""
        return math.sqrt(2 * math.log(2 * self.horizon * arms / self.delta)) if self.eta is None else self.eta


class RidgeUcb(ABC):
    """Upper confidence bounds for arms whose mean reward is a smooth function of the context: one ridge regression for each arm,
    with the settings ``ridge``, by default those of :class:`Ridge`."""

    def __init__(self, arms: int, ridge: Ridge | None) -> None:
        _check_arms(arms)
        ridge = ridge or Ridge()
        self.arms, self.alpha, self.eta, self.rewards = arms, ridge.alpha, ridge.width(arms), ridge.rewards
        self.n = torch.zeros(arms, dtype=torch.int64)

    def ask(self, context: ArrayLike | Tensor, *, among: Tensor | None = None) -> int:
        """The arm to ask at ``context`` (d,): the first that has no reward yet, later the one with the highest bound. ``among``:
        (arms,) bool, the arms that can be asked; default: all."""
        context, allowed = self._context(context), _allowed(among, self.arms)
        n = self.n.double().masked_fill(~allowed, math.inf)
        if float(n.min()) == 0:
            return int(n.argmin())
        mean, width = self.predict(context)
        return int((mean + width).masked_fill(~allowed, -math.inf).argmax())

    def tell(self, context: ArrayLike | Tensor, arm: int, reward: float) -> None:
        """Take in the reward of an arm at ``context`` (d,). Rewards may come late and in any order."""
        context = self._context(context)
        _check_told(arm, self.arms, reward)
        low, high = self.rewards
        self._learn(arm, context, (float(reward) - low) / (high - low))
        self.n[arm] += 1

    def predict(self, context: ArrayLike | Tensor) -> tuple[Tensor, Tensor]:
        """(arms,) estimated mean rewards at ``context`` (d,), and (arms,) the widths of their bonuses, both in units of the
        reward."""
        mean, deviation = self._predict(self._context(context))
        low, high = self.rewards
        return low + (high - low) * mean, (high - low) * self.eta * deviation

    @abstractmethod
    def _context(self, context: ArrayLike | Tensor) -> Tensor: ...

    @abstractmethod
    def _learn(self, arm: int, context: Tensor, y: float) -> None: ...

    @abstractmethod
    def _predict(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """(arms,) k'(K + αI)⁻¹y and (arms,) α^(−1/2) (k(c, c) − k'(K + αI)⁻¹k)^(1/2)."""


class KernelRidgeUcb(RidgeUcb):
    """PAK-UCB with any kernel on contexts (Hu, Leung & Farnia 2025). ``Cubic`` is the authors' polynomial kernel up to scale.

    With K + αI = LL', v = L⁻¹k and z = L⁻¹y, the mean is v'z and the remaining variance is k(c, c) − v'v. Each sample adds a row
    to L⁻¹. For an arm with n samples, ``tell`` costs O(n²), ``ask`` costs O(n²), and memory is n² numbers. Beyond a few hundred
    samples of an arm, :class:`RandomFeatureUcb` is faster.
    """

    def __init__(self, arms: int, kernel: Kernel, ridge: Ridge | None = None) -> None:
        super().__init__(arms, ridge)
        self.kernel = kernel
        self._dims: int | None = None
        self._contexts = [torch.empty(0, 0, dtype=torch.float64) for _ in range(arms)]
        self._inverse = [torch.empty(0, 0, dtype=torch.float64) for _ in range(arms)]
        self._z = [torch.empty(0, dtype=torch.float64) for _ in range(arms)]

    def _context(self, context: ArrayLike | Tensor) -> Tensor:
        row = _row(context, self._dims, "context")
        self._dims = len(row)
        return row

    def _learn(self, arm: int, context: Tensor, y: float) -> None:
        n = int(self.n[arm])
        row, own = self._against(arm, context)  # a row of L, and k(c, c)
        pivot = math.sqrt(self.alpha + max(0.0, own - float(row @ row)))
        self._contexts[arm] = _with_room(self._contexts[arm], n, (len(context),))
        self._inverse[arm] = _with_room(self._inverse[arm], n, (len(self._contexts[arm]),))
        self._z[arm] = _with_room(self._z[arm], n, ())
        inverse, z = self._inverse[arm], self._z[arm]
        self._contexts[arm][n] = context
        inverse[n, :n] = row @ inverse[:n, :n] / -pivot
        inverse[n, n] = 1 / pivot
        z[n] = (y - float(row @ z[:n])) / pivot

    def _predict(self, context: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = torch.zeros(self.arms, dtype=torch.float64), torch.zeros(self.arms, dtype=torch.float64)
        for arm in range(self.arms):
            v, own = self._against(arm, context)
            mean[arm] = v @ self._z[arm][: len(v)]
            variance[arm] = max(0.0, own - float(v @ v))
        return mean, (variance / self.alpha).sqrt()

    def _against(self, arm: int, context: Tensor) -> tuple[Tensor, float]:
        """(n,) L⁻¹k between ``context`` and the contexts of an arm, and k(c, c)."""
        n = int(self.n[arm])
        own = float(self.kernel.diagonal(context.square().sum()[None]))
        if n == 0:
            return context.new_empty(0), own
        return self._inverse[arm][:n, :n] @ self.kernel(self._contexts[arm][:n], context[None])[:, 0], own


class RandomFeatureUcb(RidgeUcb):
    """RFF-UCB (Hu, Leung & Farnia 2025): ridge regression on D = ``features`` features φ(c) = (2/D)^(1/2) [cos Wc, sin Wc], with
    W drawn from ``rng`` so that E φ(c)'φ(c') = ``kernel`` (Rahimi & Recht 2007).

    With A = Φ'Φ + αI, the mean is φ'A⁻¹Φ'y and the deviation is (φ'A⁻¹φ)^(1/2), as in the kernel form with k = φ'φ. ``tell``
    updates A⁻¹ by the Sherman–Morrison formula in O(D²); ``ask`` costs O(m D²); memory is m D² numbers. None of these depends on
    the number of samples.

    Raises InputError if ``features`` is not an even number of 2 or more.
    """

    def __init__(
        self, arms: int, kernel: Gaussian, ridge: Ridge | None = None, *, rng: torch.Generator, features: int = 512
    ) -> None:
        super().__init__(arms, ridge)
        if features < 2 or features % 2:
            raise InputError(f"features: expected an even number of 2 or more, got {features}; start with 512")
        self.kernel, self.features = kernel, features
        self._rng = rng
        self._W: Tensor | None = None
        self._inverse = torch.eye(features, dtype=torch.float64).repeat(arms, 1, 1) / self.alpha
        self._sums = torch.zeros(arms, features, dtype=torch.float64)

    def _context(self, context: ArrayLike | Tensor) -> Tensor:
        row = _row(context, None if self._W is None else self._W.shape[1], "context")
        if self._W is None:
            self._W = random.normal((self.features // 2, len(row)), self._rng, row) / self.kernel.bandwidth
        return row

    def _learn(self, arm: int, context: Tensor, y: float) -> None:
        phi = self._phi(context)
        moved = self._inverse[arm] @ phi
        self._inverse[arm].addr_(moved, moved, alpha=-1 / (1 + float(phi @ moved)))
        self._sums[arm] += y * phi

    def _predict(self, context: Tensor) -> tuple[Tensor, Tensor]:
        phi = self._phi(context)
        moved = self._inverse @ phi
        return (moved * self._sums).sum(1), (moved @ phi).clamp(min=0).sqrt()

    def _phi(self, context: Tensor) -> Tensor:
        angle = torch.as_tensor(self._W) @ context
        return torch.cat([angle.cos(), angle.sin()]) * math.sqrt(2 / self.features)


# ---------------------------------------------------------------------------------------- the best mixture at a context


class _Form(NamedTuple):
    """A quadratic form estimated from weighted samples. ``M`` (m, m) includes the pair of each sample with itself; ``unbiased``
    (m,) is its diagonal without these pairs; ``linear`` (m,); ``near`` (t, m) is the mean similarity of each sample to the other
    samples of each arm."""

    M: Tensor
    unbiased: Tensor
    linear: Tensor
    near: Tensor

    def best(self) -> Weights:
        """The weights that minimise a'Ma − linear'a, with the unbiased value there."""
        found = _minimise(self.M, self.linear)
        a = torch.tensor(found.weights, dtype=torch.float64)
        # an arm of one sample has no unbiased diagonal, and no weight
        value = a @ self.M @ a + a.square() @ (self.unbiased - self.M.diagonal()).nan_to_num(nan=0.0) - self.linear @ a
        return Weights(found.weights, float(value), found.gap)


class ContextualMixture:
    """Finds the most diverse mixture of arms, with rewards, at a context: weights a on the simplex that minimise

        a'M̂(c)a − r̂(c)'a          M̂_ij(c) = Σ_s∈i Σ_t∈j w_s w_t κ(x_s, x_t) / Σ_s∈i w_s Σ_t∈j w_t,          w_s = k_T(c, c_s),

    over samples x_s that arms gave at contexts c_s. r̂_i(c) is the mean reward of arm i with the same weights w (Nadaraya 1964).
    With κ = k² of a Gaussian k, 1 / a'Ma is the order-2 Rényi kernel entropy of the mixture at c, as a mode count. The objective
    is that of DAK-UCB. Weighted averages replace its ridge regressions, because M̂ is then the Gram matrix of the arms' weighted
    mean embeddings and so positive semidefinite for every c.

    contexts: k_T; its bandwidth is the width of a neighbourhood, in units of the contexts.
    samples:  κ. For the Rényi entropy with bandwidth σ give ``Gaussian(σ).squared``.
    z:        optimism, in asymptotic standard deviations. 0 is greedy: if rewards decide, it may never ask the better arm again.

    With t samples, ``tell`` computes t values of κ, ``ask`` needs t² m multiplications, and memory is t² numbers.
    """

    def __init__(self, arms: int, contexts: Gaussian, samples: Kernel, *, z: float = 1.0) -> None:
        _check_arms(arms)
        if not 0 <= z < math.inf:
            raise InputError(f"z: expected a finite number of 0 or more, got {z}; leave it out for 1")
        self.arms, self.contexts, self.samples, self.z = arms, contexts, samples, z
        self.t = 0
        self._c, self._x, self._similar = (torch.empty(0, 0, dtype=torch.float64) for _ in range(3))
        self._itself, self._reward = (torch.empty(0, dtype=torch.float64) for _ in range(2))
        self._arm = torch.empty(0, dtype=torch.int64)

    def tell(self, context: ArrayLike | Tensor, arm: int, sample: ArrayLike | Tensor, reward: float = 0.0) -> None:
        """Take in a sample (p,) that an arm gave at ``context`` (d,), and its reward, in units of κ. Samples may come late."""
        t = self.t
        c, x = self._context(context), _row(sample, self._x.shape[1] if t else None, "sample")
        _check_told(arm, self.arms, reward)
        self._c, self._x = _with_room(self._c, t, (len(c),)), _with_room(self._x, t, (len(x),))
        self._similar = _with_room(self._similar, t, (len(self._c),))
        self._itself, self._reward = _with_room(self._itself, t, ()), _with_room(self._reward, t, ())
        self._arm = _with_room(self._arm, t, ())
        self._c[t], self._x[t], self._reward[t], self._arm[t] = c, x, float(reward), arm
        self._itself[t] = self.samples.diagonal(x.square().sum()[None])[0]
        if t:
            self._similar[t, :t] = self._similar[:t, t] = self.samples(self._x[:t], x[None])[:, 0]
        self.t = t + 1

    def ask(self, context: ArrayLike | Tensor, *, among: Tensor | None = None) -> int:
        """The arm to ask at ``context`` (d,). ``among``: (arms,) bool, the arms that can be asked; default: all.

        n_i = Σ_s w_s counts the samples of arm i around the context. If an arm has fewer than ``LOCAL``, the arm with the fewest
        is asked. Otherwise it is the arm furthest behind the weights, argmax_i (Σ_j n_j + 1) a_i − n_i; a random draw from the
        weights would add noise to the mixture. The weights are optimistic: the reward of arm i is raised by z sd_i (2 log(Σ_j
        n_j) / n_i)^(1/2), where sd_i is the standard deviation within arm i of 2 Σ_j a_j κ̄_j(x) − reward, a sample's
        contribution to the gradient.
        """
        near, allowed = self._near(self._context(context)), _allowed(among, self.arms)
        count = self._by_arm(near)
        fewest = count.masked_fill(~allowed, math.inf)
        if float(fewest.min()) < LOCAL:
            return int(fewest.argmin())
        a = torch.tensor(self._optimistic(near, count, allowed).weights, dtype=torch.float64)
        return int(((count.sum() + 1) * a - count).masked_fill(~allowed, -math.inf).argmax())

    def weights(self, context: ArrayLike | Tensor, *, among: Tensor | None = None) -> Weights:
        """The best weights at ``context`` (d,), without optimism.

        They minimise the form of the class, which includes the pair of each sample with itself; ``value`` is that of the form
        without these pairs, which is unbiased. If an arm has no sample near the context, all of its samples count equally: its
        mean over contexts is used. Raises InputError if an arm ``among`` (arms,) those that can be asked has fewer than 2
        samples; any other arm with fewer gets no weight.
        """
        c = self._context(context)
        self._need_samples(among)
        return self._form(self._near(c), self._similar[: self.t, : self.t]).best()

    def joint(self) -> Weights:
        """One mixture for all contexts, whose pairs (context, sample) are the most diverse. It minimises a'Ja − r̂'a with
        J_ij = E k_T(c, c')² κ(x, x'), x of arm i at c and x' of arm j at c'. a'Ja is the inverse mode count of the joint kernel
        (I-JRKE: Jafari & Farnia 2026). ``value`` is as in :meth:`weights`.

        Arms are asked at different contexts, each where it is good. Each sample is therefore weighted by 1 / (the share of its
        arm in the samples around its context), which estimates J and r̂ under the contexts of all samples.

        Raises InputError if an arm has fewer than 2 samples.
        """
        self._need_samples()
        contexts, arm = self._c[: self.t], self._arm[: self.t]
        near = self.contexts(contexts, contexts)
        own = (near * (arm[:, None] == arm)).sum(1)
        return self._form(near.sum(1) / own, near.square_() * self._similar[: self.t, : self.t]).best()

    def _context(self, context: ArrayLike | Tensor) -> Tensor:
        return _row(context, self._c.shape[1] if self.t else None, "context")

    def _near(self, c: Tensor) -> Tensor:
        """(t,) the weights w_s."""
        return self.contexts(self._c[: self.t], c[None])[:, 0].clamp(min=FAR) if self.t else c.new_empty(0)

    def _by_arm(self, values: Tensor) -> Tensor:
        """(arms,) sums of (t,) values over the samples of each arm."""
        return torch.zeros(self.arms, dtype=torch.float64).index_add_(0, self._arm[: self.t], values)

    def _form(self, w: Tensor, similar: Tensor) -> _Form:
        """The form of samples with weights w (t,) and similarities (t, t), 0 on the diagonal."""
        arm = self._arm[: self.t]
        share = w / self._by_arm(w)[arm]
        membership = torch.zeros(self.t, self.arms, dtype=torch.float64)
        membership[torch.arange(self.t), arm] = share
        near = similar @ membership
        M = membership.T @ near
        unbiased = M.diagonal() / self._by_arm(share * (1 - share))
        M.diagonal().add_(self._by_arm(share.square() * self._itself[: self.t]))
        linear = self._by_arm(share * self._reward[: self.t])
        few = torch.bincount(arm, minlength=self.arms) < 2
        linear[few] = -1e3 * (1 + float(M.abs().max()) + float(linear.abs().max()))  # a loss so large that the arm gets no weight
        return _Form(M, unbiased, linear, near)

    def _optimistic(self, w: Tensor, count: Tensor, allowed: Tensor) -> Weights:
        """The weights that minimise a'M̂a − (r̂ + bonus)'a. The deviations in the bonus are those at the weights without bonus.
        Arms that are not ``allowed`` (arms,) have no bonus."""
        form = self._form(w, self._similar[: self.t, : self.t])
        greedy = _minimise(form.M, form.linear)
        h = 2 * form.near @ torch.tensor(greedy.weights, dtype=torch.float64) - self._reward[: self.t]
        squares = self._by_arm(w * (h - (self._by_arm(w * h) / count)[self._arm[: self.t]]).square())
        overall = w @ (h - w @ h / w.sum()).square() / w.sum()
        deviation = ((squares + PRIOR * overall) / (count + PRIOR)).sqrt()
        bonus = self.z * deviation * (2 * count.sum().log() / count).sqrt()
        return _minimise(form.M, form.linear + bonus.masked_fill(~allowed, 0.0))

    def _need_samples(self, among: Tensor | None = None) -> None:
        n = torch.bincount(self._arm[: self.t], minlength=self.arms).double()
        n = n.masked_fill(~_allowed(among, self.arms), math.inf)
        if float(n.min()) < 2:
            arm = int(n.argmin())
            raise InputError(f"arm {arm}: expected 2 samples or more, got {int(n[arm])}; ask it and tell its samples first")


def _minimise(M: Tensor, linear: Tensor) -> Weights:
    """The weights that minimise a'Ma − linear'a."""
    return minimise_quadratic(M.numpy(), linear.numpy() / 2)


# ------------------------------------------------------------------------------------------------------------ rows


def _row(x: ArrayLike | Tensor, dims: int | None, name: str) -> Tensor:
    """``x`` as a float64 row of ``dims`` numbers (None: of any length above 0)."""
    row = torch.as_tensor(x, dtype=torch.float64)
    if row.dim() != 1 or len(row) == 0 or dims not in (None, len(row)):
        expected = "(numbers,)" if dims is None else f"({dims},)"
        raise InputError(f"{name}: expected shape {expected}, got {tuple(row.shape)}; give one row, as long as the others")
    if not torch.isfinite(row).all():
        raise InputError(f"{name}: expected finite numbers, got {float(row[~torch.isfinite(row)][0])}; repair it or leave it out")
    return row


def _with_room(array: Tensor, n: int, width: tuple[int, ...]) -> Tensor:
    """``array``, or a longer copy of its first ``n`` rows, with room for one more row of the shape ``width``."""
    if n < len(array) and tuple(array.shape[1:]) == width:
        return array
    grown = array.new_zeros((len(array) if n < len(array) else max(ROOM, 2 * n), *width))
    grown[(slice(0, n), *(slice(0, k) for k in array.shape[1:]))] = array[:n]
    return grown


def _allowed(among: Tensor | None, arms: int) -> Tensor:
    return torch.ones(arms, dtype=torch.bool) if among is None else torch.as_tensor(among, dtype=torch.bool)


def _check_arms(arms: int) -> None:
    if arms < 1:
        raise InputError(f"arms: expected 1 or more, got {arms}; give the number of arms")


def _check_told(arm: int, arms: int, reward: float) -> None:
    if not 0 <= arm < arms:
        raise InputError(f"arm: expected 0 … {arms - 1}, got {arm}; give the arm that ask returned")
    if not math.isfinite(reward):
        raise InputError(f"reward: expected a finite number, got {reward}; leave that sample out")
