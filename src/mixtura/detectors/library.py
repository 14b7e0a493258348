"""Detectors of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor
from sklearn.svm import OneClassSVM
from torch import Tensor

from mixtura.detectors.detector import Detector, finite, some

#: rows that are learnt from, at most: distances and kernels of all pairs are computed
MOST_ROWS, MOST_ROWS_OF_KERNEL = 10_000, 3_000


class OfLibrary(Detector):
    """``make(n, seed)`` gives an estimator with ``fit`` and ``score_samples`` for n rows; at most ``most`` rows are used."""

    def __init__(self, make: Callable[[int, int], Any], most: int | None = None) -> None:
        self.make, self.most = make, most

    def fit(self, x: Tensor, rng: torch.Generator) -> Self:
        x = x if self.most is None else some(x, self.most, rng)
        seed = int(torch.randint(2**31 - 1, (), generator=rng))
        self._fitted = self.make(len(x), seed).fit(x.numpy())
        return self

    def score(self, y: Tensor) -> Tensor:
        return finite(-torch.as_tensor(self._fitted.score_samples(y.numpy())))


def isolation_forest(n: int, seed: int) -> IsolationForest:
    """Rows that random cuts isolate soon (Liu et al. 2008)."""
    return IsolationForest(n_estimators=200, random_state=seed)


def local_outlier_factor(n: int, seed: int) -> LocalOutlierFactor:
    """The density of the neighbours relative to that of the row (Breunig et al. 2000)."""
    return LocalOutlierFactor(n_neighbors=min(20, n - 1), novelty=True)


def one_class_svm(n: int, seed: int) -> OneClassSVM:
    """The smallest region in feature space that holds most rows (Schölkopf et al. 2001)."""
    return OneClassSVM(nu=0.1)
