"""Classifier two-sample test: can a classifier distinguish real rows from generated ones?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import hypergeom
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor

from mixtura.contracts import Estimate
from mixtura.metrics.arrays import pair

#: most rows of each set that are used
ROWS = 8_000
#: fewest rows in a leaf of a tree: this share of the training rows, but at most this number
LEAF_SHARE, LEAF = 0.1, 20
#: number of standard errors below ½ from which on a value is not chance
TOO_FAR = 4.0


def c2st(real: ArrayLike | Tensor, generated: ArrayLike | Tensor, *, rng: torch.Generator) -> Estimate:
    """Share of unseen rows of ``real`` (n, d) and ``generated`` (m, d) that a classifier puts on the right side
    (Lopez-Paz & Oquab 2017, section 3): ½ means that it cannot tell them apart, 1 that it always can.

    min(n, m, ROWS) rows of each are drawn with ``rng``. The classifier is trained on one half of both and tested on the other, so
    ``n`` of the estimate is the size of one set. It is histogram gradient boosting (scikit-learn): it needs no tuning, is
    invariant to monotone changes of a feature, and detects shifts, shapes and interactions; a linear classifier detects only
    shifts, but these better.

    The error is binomial, with two successes and two failures added to the share (Agresti & Coull 1998). At equal laws it is
    ½/√n, which is exact because test rows are not in training. Cross-validation would test every row, but its folds share rows,
    and with 200 rows in each set its value varies as much as that of one half. For different laws the value also varies with the
    training rows: with 30 rows in each set its spread is 1.2 times the error, with 200 rows it is equal to the error.

    A row that is in both sets may be trained with one label and tested with the other. A value far below ½ therefore means that
    the sets depend on one another: beyond ``TOO_FAR`` errors the value is NaN with a ``reason``.

    Raises InputError on arrays that are not finite (rows, d) with one d and 4 rows or more.
    """
    scores, labels = _tested(real, generated, rng)
    right = (scores > 0.5) == labels
    value, n = float(right.mean()), len(right)
    share = (value * n + 2) / (n + 4)
    error = math.sqrt(share * (1 - share) / n)
    if value < 0.5 - TOO_FAR * 0.5 / math.sqrt(n):
        return Estimate(
            math.nan, math.nan, n,
            f"a classifier is right on {value:.3f} of the rows, far below ½: the two sets depend on one another, for example by "
            "shared rows; compare with rows that the generator has not seen",
        )  # fmt: skip
    return Estimate(value, error, n)


def same_law_by_classifier(real: ArrayLike | Tensor, generated: ArrayLike | Tensor, *, rng: torch.Generator) -> Estimate:
    """p-value of "``real`` (n, d) and ``generated`` (m, d) have one law", by the classifier of :func:`c2st`.

    Given the test rows and the k of them that the classifier finds most likely generated, k half of them and ties in random
    order, the number of truly generated rows among these is hypergeometric if the laws are equal: labels then say nothing of a
    row that is not trained on. p is the probability of that number or more, with the probability of the number itself counted in
    a random part, which makes p uniform at equal laws, exactly. Its error is 0: nothing is estimated. Raises as :func:`c2st`.
    """
    scores, labels = _tested(real, generated, rng)
    order = torch.randperm(len(scores), generator=rng, device=rng.device).cpu().numpy()
    top = order[np.argsort(-scores[order], kind="stable")[: len(scores) // 2]]
    found, sizes = int(labels[top].sum()), (len(scores), int(labels.sum()), len(top))
    u = float(torch.rand((), generator=rng, device=rng.device))
    return Estimate(min(1.0, float(hypergeom.sf(found, *sizes) + u * hypergeom.pmf(found, *sizes))), 0.0, len(scores))


def _tested(
    real: ArrayLike | Tensor, generated: ArrayLike | Tensor, rng: torch.Generator
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """(t,) probabilities of being generated, and whether they are, of rows that the classifier was not trained on."""
    x, y = pair(real, generated, least=4)
    size = min(len(x), len(y), ROWS)
    features = np.concatenate([_drawn(part, size, rng) for part in (x, y)])
    is_generated = np.arange(2 * size) >= size
    learnt = np.arange(2 * size) % size < size // 2
    return _scores(features, is_generated, learnt), is_generated[~learnt]


def _drawn(x: Tensor, size: int, rng: torch.Generator) -> NDArray[np.floating]:
    return x[torch.randperm(len(x), generator=rng, device=rng.device)[:size].cpu()].numpy()


def _scores(features: NDArray[np.floating], labels: NDArray[np.bool_], learnt: NDArray[np.bool_]) -> NDArray[np.floating]:
    leaf = min(max(int(LEAF_SHARE * learnt.sum()), 1), LEAF)
    settings: dict[str, Any] = {"max_iter": 50, "learning_rate": 0.2, "max_leaf_nodes": 15, "min_samples_leaf": leaf}
    settings |= {"early_stopping": False}
    # without a seed scikit-learn draws from the global generator; these settings draw nothing with it
    classifier = HistGradientBoostingClassifier(**settings, random_state=0)
    classifier.fit(features[learnt], labels[learnt])
    return classifier.predict_proba(features[~learnt])[:, 1]
