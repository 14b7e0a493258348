"""Classifier two-sample test: can a classifier distinguish real rows from generated ones?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor

from mixtura.contracts import Estimate
from mixtura.metrics.arrays import pair

#: rows a side that are used at most
ROWS = 8_000
#: rows behind a leaf of a tree: a share of those learnt from, and at most
LEAF_SHARE, LEAF = 0.1, 20
#: errors below ½ that are not chance any more
TOO_FAR = 4.0


def c2st(real: ArrayLike | Tensor, generated: ArrayLike | Tensor, *, rng: torch.Generator) -> Estimate:
    """Share of unseen rows of ``real`` (n, d) and ``generated`` (m, d) that a classifier puts on the right side
    (Lopez-Paz & Oquab 2017, section 3): ½ says that it cannot tell them apart, 1 that it always can.

    min(n, m, ROWS) rows of each, drawn with ``rng``: the classifier learns from one half of both and is judged on the other, so
    ``n`` of the estimate is a whole set. It is histogram gradient boosting (scikit-learn): it needs no tuning, does not
    change when a feature is scaled or bent, and sees shifts, shapes and interactions; a linear one sees shifts alone (better).

    The error is binomial, the share drawn towards ½ by two successes and two failures (Agresti & Coull 1998): at equal laws
    ½/√n, which is exact, as the rows judged have no part in what was learnt. Cross-validation would judge every row, but its
    folds share rows, and with 200 rows a side its value spreads as far as that of one half. Of laws apart the value also hangs
    on the rows learnt from: with 30 rows a side it spreads 1.2 times as far, with 200 rows as far as the error says.

    A row that is in both sets is learnt with one label and judged with the other, so that a value far below ½ says that the
    sets depend on one another and not that they are alike: beyond ``TOO_FAR`` errors there is none, but a ``reason``.

    Raises InputError on arrays that are not finite (rows, d) with one d and 4 rows or more.
    """
    x, y = pair(real, generated, least=4)
    size = min(len(x), len(y), ROWS)
    features = np.concatenate([_drawn(part, size, rng) for part in (x, y)])
    is_generated = np.arange(2 * size) >= size
    learnt = np.arange(2 * size) % size < size // 2
    right = _right(features, is_generated, learnt)
    value, n = float(right.mean()), len(right)
    share = (value * n + 2) / (n + 4)
    error = math.sqrt(share * (1 - share) / n)
    if value < 0.5 - TOO_FAR * 0.5 / math.sqrt(n):
        return Estimate(
            math.nan, math.nan, n,
            f"a classifier is right on {value:.3f} of the rows, far below ½: the two sets depend on one another, as where they "
            "share rows; compare with rows that the generator has not seen",
        )  # fmt: skip
    return Estimate(value, error, n)


def _drawn(x: Tensor, size: int, rng: torch.Generator) -> NDArray[np.floating]:
    return x[torch.randperm(len(x), generator=rng, device=rng.device)[:size].cpu()].numpy()


def _right(features: NDArray[np.floating], labels: NDArray[np.bool_], learnt: NDArray[np.bool_]) -> NDArray[np.bool_]:
    leaf = min(max(int(LEAF_SHARE * learnt.sum()), 1), LEAF)
    settings: dict[str, Any] = {"max_iter": 50, "learning_rate": 0.2, "max_leaf_nodes": 15, "min_samples_leaf": leaf}
    settings |= {"early_stopping": False}
    # nothing is drawn with this seed, but without one scikit-learn draws from the global generator
    classifier = HistGradientBoostingClassifier(**settings, random_state=0)
    classifier.fit(features[learnt], labels[learnt])
    return classifier.predict(features[~learnt]) == labels[~learnt]
