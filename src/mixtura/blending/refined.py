"""Samples of a model made nearer to real rows by a learned ratio (discriminator rejection sampling, Azadi et al. 2019):
:class:`Refined`.

Boosted trees learn f(x) = log p_real(x) / p(x) from real rows and as many samples of the model p; how many trees, rows of both
say that they have not learnt from. :class:`mixtura.blending.tilt.Tilt` then samples q(x) ∝ p(x) exp f(x) by rejection.
"""

from __future__ import annotations

import math
from typing import Any, Self, cast

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor
from torch.nn.functional import softplus

from mixtura.blending.tilt import Tilt
from mixtura.contracts import InputError, Model
from mixtura.ground.trees import Forest

#: trees at most, the leaves of each, and what each adds of its step
ROUNDS, LEAVES, RATE = 200, 15, 0.1
#: standard errors by which trees must tell rows apart that they have not learnt from
SURE = 2.0
#: rows drawn of the model for each that is kept, at most, on average
MOST_DRAWN = 10.0
#: of the interval in which the bound of f is looked for
HALVINGS = 40


class Refined(Tilt):
    """q ∝ p exp f, sampled by rejection; it has no density. forest: f, as trees over rows (n, D) in data units, codes as numbers,
    missing entries as NaN. ``most``: the f above which all rows are kept alike."""

    def __init__(self, base: Model, forest: Forest, most: float) -> None:
        if int(forest.width) != base.space.dims or len(forest.baseline) != 1:
            raise InputError(f"refined: expected trees over {base.space.dims} columns, got {int(forest.width)}; run again")
        if not (math.isfinite(most) and bool(torch.isfinite(forest.value).all())):
            raise InputError("refined: the trees or their bound hold numbers that are not finite; run again with --fresh")
        super().__init__(base, lambda x: forest.predict(x.flatten(1))[:, 0], most=most)
        self.forest = forest

    @classmethod
    def learn(cls, base: Model, real: tuple[Tensor, Tensor], samples: tuple[Tensor, Tensor]) -> Self | None:
        """From rows (n, *shape) of real data and samples of ``base``, of each those that trees learn from, and those that say how
        many trees there are. None where these say that trees tell nothing apart."""
        (x, learnt), (unseen, held) = (_labelled(a, b) for a, b in zip(real, samples, strict=True))
        used = ~np.isnan(x).all(0)
        if not used.any():
            return None
        trees = _boosted(ROUNDS).fit(x[:, used], learnt)
        # log-probability of the label of each held row, after every tree
        sign = torch.as_tensor(np.where(held, 1.0, -1.0))
        nats = torch.stack([-softplus(-sign * torch.as_tensor(f)) for f in trees.staged_decision_function(unseen[:, used])])
        best = int(nats.mean(1).argmax())
        more = nats[best] + math.log(2)
        if not float(more.mean()) > SURE * float(more.std()) / math.sqrt(len(more)):
            return None
        # scikit-learn cannot leave out the last trees; without draws the first ones are the same again
        forest = Forest.of(_boosted(best + 1).fit(x[:, used], learnt)).read_columns(np.flatnonzero(used).tolist(), x.shape[1])
        return cls(base, forest, _highest(forest.predict(torch.as_tensor(unseen[~held]))[:, 0]))

    @property
    def trees(self) -> int:
        """How many trees f is a sum of."""
        return self.forest.trees

    def kept(self, x: Tensor) -> float:
        """The share of rows x (n, *shape) of the base that is kept."""
        return _kept(self.f(x), cast(float, self.most))

    def tensors(self) -> dict[str, Tensor]:
        """All that is to be kept of it, beside its base."""
        return {**self.forest.state_dict(), "most": torch.tensor(self.most, dtype=torch.float64)}

    @classmethod
    def restore(cls, base: Model, tensors: dict[str, Tensor]) -> Self:
        """From what :meth:`tensors` gave. InputError, or KeyError, where that is damaged."""
        return cls(base, Forest(**{name: x for name, x in tensors.items() if name != "most"}), float(tensors["most"]))


def _highest(f: Tensor) -> float:
    """The largest bound M, at most max f, for which one of ``MOST_DRAWN`` rows is kept: mean min(1, exp(f − M)), which falls in
    M, is then that share or more."""
    low, high = float(f.min()), float(f.max())
    if _kept(f, high) * MOST_DRAWN >= 1:
        return high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _kept(f, middle) * MOST_DRAWN >= 1 else (low, middle)
    return low


def _kept(f: Tensor, bound: float) -> float:
    return float((f - bound).clamp(max=0).exp().mean())


def _boosted(rounds: int) -> HistGradientBoostingClassifier:
    settings: dict[str, Any] = {"max_iter": rounds, "max_leaf_nodes": LEAVES, "learning_rate": RATE, "early_stopping": False}
    return HistGradientBoostingClassifier(**settings, random_state=0)


def _labelled(real: Tensor, samples: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Equally many rows (n, D) of both, and which are real."""
    n = min(len(real), len(samples))
    rows = torch.cat([real[:n], samples[:n]]).flatten(1).double().numpy()
    return rows, np.arange(2 * n) < n
