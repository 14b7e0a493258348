"""Ratios by probabilistic classification: r = P(p | y) / P(q | y) · m/n for n rows of p and m of q (Qin 1998; Sugiyama et al.
2012, chapter 4). Noise-contrastive estimation (Gutmann & Hyvärinen 2010) is the same with a known q.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from mixtura.contracts import Batch, Learner, Phase, Stage, Turn
from mixtura.ground.losses import noise_contrast
from mixtura.ground.nets.coders import perceptron
from mixtura.ground.rng import seeded
from mixtura.ratio.ratio import FOLDS, Ratio
from mixtura.train.fit import Recipe, fit

#: of the trees: how many, and their leaves
ROUNDS, LEAVES = 60, 15
#: of the network: steps at most, and hidden widths
STEPS, HIDDEN = 600, (64, 64)

#: rows (b, d) → (b,) estimates of log r that are not calibrated
Scores = Callable[[Tensor], Tensor]


class Logistic(Ratio):
    """Logistic regression: log r is linear in the features, which is true of two Gaussians with one covariance."""

    def fit(self, p: Tensor, q: Tensor, rng: torch.Generator) -> Self:
        self._slope, self._offset = _line(torch.cat([p, q]), len(p))
        return self

    def log_ratio(self, y: Tensor) -> Tensor:
        return y @ self._slope + self._offset


class CrossFitted(Ratio):
    """A classifier fitted without each of ``FOLDS`` parts of the rows: log r = a f + b with the mean score f of the five, and a
    and b by logistic regression on the scores of rows that a classifier has not learnt from (Platt 1999)."""

    def __init__(self, learn: Callable[[Tensor, Tensor, torch.Generator], Scores]) -> None:
        self.learn = learn

    def fit(self, p: Tensor, q: Tensor, rng: torch.Generator) -> Self:
        unseen = torch.empty(len(p), dtype=torch.float64), torch.empty(len(q), dtype=torch.float64)
        parts = [torch.randperm(len(rows), generator=rng) % FOLDS for rows in (p, q)]
        self._classifiers = []
        for fold in range(FOLDS):
            scores = self.learn(p[parts[0] != fold], q[parts[1] != fold], rng)
            self._classifiers.append(scores)
            for values, rows, part in zip(unseen, (p, q), parts, strict=True):
                values[part == fold] = scores(rows[part == fold])
        slope, offset = _line(torch.cat(unseen)[:, None], len(p))
        # scores that are wrong on rows not learnt from, as those of rows that both samples hold are, say nothing
        self._slope, self._offset = (float(slope), offset) if float(slope) > 0 else (0.0, 0.0)
        self._unseen = unseen
        return self

    def log_ratio(self, y: Tensor) -> Tensor:
        return self._slope * torch.stack([scores(y) for scores in self._classifiers]).mean(0) + self._offset

    def left_out(self) -> tuple[Tensor, Tensor]:
        """log r at its own rows, each by the classifier that has not learnt from it. The two numbers a and b have seen it."""
        at_p, at_q = (self._slope * scores + self._offset for scores in self._unseen)
        return at_p, at_q


def _line(x: Tensor, n: int) -> tuple[Tensor, float]:
    """a (d,) and b of log r = a·x + b, from rows x of which the first n are of p, by logistic regression."""
    fitted = LogisticRegression(max_iter=1_000, random_state=0).fit(x.numpy(), np.arange(len(x)) < n)
    return torch.as_tensor(fitted.coef_[0]), float(fitted.intercept_[0]) - math.log(n / (len(x) - n))


def boosted_trees(p: Tensor, q: Tensor, rng: torch.Generator) -> Scores:
    """Histogram gradient boosting (scikit-learn)."""
    settings: dict[str, Any] = {"max_iter": ROUNDS, "max_leaf_nodes": LEAVES, "early_stopping": False}
    trees = HistGradientBoostingClassifier(**settings, random_state=0)
    trees.fit(torch.cat([p, q]).numpy(), np.arange(len(p) + len(q)) < len(p))
    return lambda y: torch.as_tensor(trees.decision_function(y.numpy()))


def network(p: Tensor, q: Tensor, rng: torch.Generator) -> Scores:
    """A perceptron, each sample with half of the weight; it stops by rows of its own."""
    critic = _Critic(p.shape[1], rng)
    for _ in fit(critic, {"p": Batch(x=p), "q": Batch(x=q)}, Recipe(steps=STEPS, every=25, decay=1e-3), rng=rng):
        pass

    @torch.no_grad()
    def scores(y: Tensor) -> Tensor:
        return torch.cat([critic(rows) for rows in y.split(4_096)])

    return scores


class _Critic(Learner):
    """f (n,) of rows (n, d), trained by noise contrast, which is least at f = log r."""

    def __init__(self, inputs: int, rng: torch.Generator) -> None:
        super().__init__()
        with seeded(int(torch.randint(2**62, (), generator=rng))):
            self.net = perceptron(inputs, HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.float())[:, 0].double()

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("critic", (Phase("critic", tuple(self.parameters()), self._loss),), self._loss),)

    def _loss(self, turn: Turn) -> Tensor:
        return noise_contrast(self(turn.of("p")["x"]), self(turn.of("q")["x"]))
