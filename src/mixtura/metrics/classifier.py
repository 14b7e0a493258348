"""Classifier two-sample test: can real rows be told from generated ones?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor

from mixtura.contracts import InputError
from mixtura.metrics.arrays import pair
from mixtura.metrics.likelihood import Estimate

#: rows a side that the classifier sees at most
ROWS = 4000


def c2st(real: ArrayLike | Tensor, generated: ArrayLike | Tensor, *, rng: torch.Generator, folds: int = 3) -> Estimate:
    """Share of held-out rows of ``real`` (n, d) and ``generated`` (m, d) that a classifier puts on the right side
    (Lopez-Paz & Oquab 2017, section 3): ½ says that it cannot tell them apart, 1 that it always can.

    min(n, m, ROWS) rows of each, drawn with ``rng``, are dealt to ``folds`` of equal parts of both; each is predicted by a
    classifier that saw the others. The classifier is histogram gradient boosting (scikit-learn): it needs no tuning, does not
    change when a feature is scaled or bent, and sees shifts, shapes and interactions; a linear one sees shifts alone (better).

    The error is binomial, the share drawn towards ½ by two successes and two failures (Agresti & Coull 1998), so at equal laws
    ½/√N with N rows predicted. The folds' classifiers share rows, which it does not count: with 200 rows a side the value
    spreads 1.4 times as far, with 1,000 by 1.1. A value below ½ is chance.

    Raises InputError on arrays that are not finite (rows, d) with one d and ``folds`` rows or more, or fewer than 2 folds.
    """
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise InputError(f"folds: expected a whole number, 2 or more, got {folds!r}")
    x, y = pair(real, generated, least=folds)
    size = min(len(x), len(y), ROWS)
    features = np.concatenate([_drawn(part, size, rng) for part in (x, y)])
    is_generated = np.arange(2 * size) >= size
    fold = np.arange(2 * size) % size % folds
    right = np.concatenate([_right(features, is_generated, fold == held_out) for held_out in range(folds)])
    value, n = float(right.mean()), len(right)
    share = (value * n + 2) / (n + 4)
    return Estimate(value, math.sqrt(share * (1 - share) / n), n)


def _drawn(x: Tensor, size: int, rng: torch.Generator) -> NDArray[np.floating]:
    return x[torch.randperm(len(x), generator=rng, device=rng.device)[:size].cpu()].numpy()


def _right(features: NDArray[np.floating], labels: NDArray[np.bool_], held_out: NDArray[np.bool_]) -> NDArray[np.bool_]:
    # nothing is drawn with this seed, but without one scikit-learn draws from the global generator
    settings: dict[str, Any] = {"max_iter": 50, "learning_rate": 0.2, "max_leaf_nodes": 15}
    settings |= {"early_stopping": False, "random_state": 0}
    classifier = HistGradientBoostingClassifier(**settings)
    classifier.fit(features[~held_out], labels[~held_out])
    return classifier.predict(features[held_out]) == labels[held_out]
