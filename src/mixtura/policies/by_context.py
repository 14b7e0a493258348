"""Online selection with contexts: :meth:`ContextualSelector.ask` names the arm to ask at a context, ``tell`` takes its sample."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mixtura.contracts import Estimate, InputError
from mixtura.ground.kernels import Gaussian
from mixtura.ground.rng import generator
from mixtura.objectives.expression import Objective, QuadraticTerm
from mixtura.objectives.terms import Cost
from mixtura.policies.contextual import ContextualMixture, KernelRidgeUcb, Ridge
from mixtura.policies.selector import FIRST
from mixtura.simplex.weights import Weights


class ContextualSelector:
    """Finds the best mixture, or the best arm, at each context, from as few samples as possible.

    arms: their names. objective: with ``rke``, alone or with precision, density, loglik and cost, the selector finds the most
    diverse mixture at each context (:class:`ContextualMixture`); without ``rke`` it finds the best arm at each context
    (:class:`KernelRidgeUcb`), and the terms must be bounded. reach: bandwidth of the Gaussian kernel on contexts (p,), in their
    units: how far from a context its samples still count.

    Raises InputError on terms that are not quadratic, and on terms that match a reference, as no context has a reference of its
    own.
    """

    def __init__(self, arms: Sequence[str], objective: Objective, *, reach: float, seed: int = 0) -> None:
        self.names, self.objective, self.seed = list(arms), objective, seed
        self._kernel, self._linear = _divided(objective)
        self._reach = reach
        m = len(self.names)
        self.asked, self.told = np.zeros(m, dtype=np.int64), np.zeros(m, dtype=np.int64)
        self.open = np.ones(m, dtype=bool)
        self.width: int | None = None
        self._early: list[tuple[Tensor, int, Tensor]] = []
        self._policy: ContextualMixture | KernelRidgeUcb | None = None
        if self._kernel is None:
            self._policy = KernelRidgeUcb(m, Gaussian(reach), Ridge(rewards=_range(self._linear)))

    @property
    def pulls(self) -> int:
        """Number of samples told so far."""
        return int(self.told.sum())

    def ask(self, context: Tensor) -> str:
        """The name of the arm to ask at a context (p,)."""
        if not self.open.any():
            raise InputError("select: no arm is left to be asked; take the weights")
        if self._policy is None:  # the bandwidth of rke is chosen from the first samples of each arm
            return self.names[int(np.where(self.open, self.asked, self.asked.max() + 1).argmin())]
        return self.names[self._policy.ask(context, among=torch.as_tensor(self.open))]

    def tell(self, context: Tensor, arm: str, features: Tensor) -> None:
        """Take in the features (d,) of a sample that an arm gave at a context (p,)."""
        i = self.names.index(arm)
        self.width = len(features)
        self.told[i] += 1
        self.asked[i] = max(self.asked[i], self.told[i])
        self._early.append((context, i, features.double()))
        self._add_early()

    def close(self, arm: str) -> None:
        """Stop asking this arm. The samples that it gave still count."""
        self.open[self.names.index(arm)] = False
        self._add_early()

    def weights(self, context: Tensor) -> Weights:
        """The best weights at a context (p,). ``value``: the objective there, in its own unit. ``gap`` is in units of the loss;
        NaN if the objective finds a single arm."""
        if isinstance(self._policy, KernelRidgeUcb):
            known = torch.as_tensor(self.told > 0)
            if not bool(known.any()):
                raise InputError("select: no sample was told yet; tell at least one of each arm")
            mean = self._policy.predict(context)[0].masked_fill(~known, -math.inf)
            best = int(mean.argmax())
            shares = tuple(float(i == best) for i in range(len(self.names)))
            return Weights(shares, self._own(-float(mean[best])), math.nan, names=tuple(self.names))
        if self._policy is None:
            raise InputError(f"select: {self.pulls} samples are too few for weights; tell at least {FIRST} of each arm")
        found = self._policy.weights(context, among=torch.as_tensor(self.open))
        scale = self._kernel[0] if self._kernel is not None else 1.0
        return Weights(found.weights, self._own(scale * found.value), scale * found.gap, names=tuple(self.names))

    def _own(self, loss: float) -> float:
        return self.objective.own(Estimate(loss, math.nan, self.pulls)).value

    def _add_early(self) -> None:
        """Build the policy as soon as every open arm has given its first samples, and take these in."""
        enough = (self.told >= np.where(self.open, FIRST, 0)).all() and self.told.sum() >= 2
        if self._policy is None and self._kernel is not None and enough:
            groups = [torch.stack([x for _, j, x in self._early if j == i]) for i in range(len(self.names)) if self.told[i]]
            self.objective = self.objective.ready(groups, generator(self.seed, "bandwidth"))
            self._kernel, self._linear = _divided(self.objective)
            kernel = self._kernel[1].kernel  # type: ignore[index]
            if kernel is not None:
                self._policy = ContextualMixture(len(self.names), Gaussian(self._reach), kernel)
        if self._policy is not None:
            for c, j, x in self._early:
                self._learn(c, j, x)
            self._early = []

    def _learn(self, context: Tensor, arm: int, x: Tensor) -> None:
        loss = sum(scale * float(term.linear(x[None], arm)[0]) for scale, term in self._linear)
        if isinstance(self._policy, KernelRidgeUcb):
            self._policy.tell(context, arm, -loss)
        elif self._policy is not None and self._kernel is not None:
            self._policy.tell(context, arm, x, -loss / self._kernel[0])


def _divided(objective: Objective) -> tuple[tuple[float, QuadraticTerm] | None, list[tuple[float, QuadraticTerm]]]:
    """The term rke with its scale, or None, and the linear terms with theirs."""
    kernel: list[tuple[float, QuadraticTerm]] = []
    linear: list[tuple[float, QuadraticTerm]] = []
    for scale, term in objective.terms:
        if not isinstance(term, QuadraticTerm):
            raise InputError(f"objective: {term.name} is not quadratic and cannot be learnt online; use mixtura mix on samples")
        if term.matches:
            raise InputError(
                f"objective: {term.name} compares with real rows, and each context has its own law; use rke, precision, density, "
                "loglik or cost"
            )
        (kernel if term.name == "rke" else linear).append((scale, term))
    if len(kernel) > 1:
        raise InputError("objective: rke is given twice; with contexts, give it once")
    free = next((term.name for _, term in linear if not kernel and not term.bounded), None)
    if free is not None:
        raise InputError(f"objective: the best arm needs bounded terms, and {free} has no bound; add rke, or use precision")
    return (kernel[0] if kernel else None), linear


def _range(linear: Sequence[tuple[float, QuadraticTerm]]) -> tuple[float, float]:
    """The smallest and the largest reward that the linear terms can give."""
    low, high = 0.0, 0.0
    for scale, term in linear:
        if isinstance(term, Cost):
            low -= scale * max(term.costs)
            high -= scale * min(term.costs)
        else:
            high += scale * term.spread
    return low, high if high > low else low + 1.0
