"""Features that tell generators apart as boosted trees do: :class:`TreeFeatures`.

A kernel on standardised columns compares means, spreads and smooth dependence; it hardly sees that two columns are functions of
one another, where a classifier sees it at once. So a classifier is trained on rows of its own, real rows and samples of every
model, and

    φ(x) = (P(real | x), P(model 1 | x), …, P(model K | x))

are the features that MMD² compares on other rows. They are fixed before any weight is chosen, so MMD² is still quadratic in the
weights, and its errors are those of rows that the classifier has not seen. (A witness function learnt on held-out rows: Kübler
et al. 2022, "A witness two-sample test"; probabilities instead of one witness, because a blend mixes all models.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor

from mixtura.contracts import Space
from mixtura.ground.kernels import Gaussian, median_bandwidth

#: trees of each class and their leaves
ROUNDS, LEAVES = 40, 15
#: levels that the trees take as they are; of a column with more the codes are numbers to them
MOST_LEVELS = 250
#: rows of each class that are learnt from, at most
MOST_ROWS = 1_000
#: rows of each class without which nothing can be learnt
LEAST_ROWS = 20


class TreeFeatures:
    """Rows (n, *shape) in data units → (n, K + 1) probabilities of having come from the real rows and from each of K models."""

    def __init__(
        self, space: Space, real: Tensor, samples: Sequence[Tensor], rng: torch.Generator,
        see: Callable[[Tensor], Tensor] | None = None,
    ) -> None:  # fmt: skip
        """``real`` (n, *shape) and ``samples`` of each model, in data units; ``MOST_ROWS`` of each are learnt from. ``see``: the
        numbers (n, d) of a row that trees look at; by default the columns, as they are."""
        levels = [see is None and column.kind == "levels" and column.levels <= MOST_LEVELS for column in space.columns]
        self._see, self._levels = see, np.array(levels)
        sets = [rows[torch.randperm(len(rows), generator=rng)[:MOST_ROWS]] for rows in (real, *samples)]
        plain = self._plain(torch.cat(sets))
        # the trees refuse a column in which they never see a value
        self._used = ~np.isnan(plain).all(0)
        labels = np.repeat(np.arange(len(sets)), [len(rows) for rows in sets])
        settings: dict[str, Any] = {"early_stopping": False}
        if see is None:
            settings["categorical_features"] = self._levels[self._used]
        self._classifier = HistGradientBoostingClassifier(max_iter=ROUNDS, max_leaf_nodes=LEAVES, random_state=0, **settings)
        self._classifier.fit(plain[:, self._used], labels)

    def _plain(self, x: Tensor) -> np.ndarray:
        """What the trees take: numbers, and levels; both may be missing. Levels that no real row can have are missing."""
        if self._see is not None:
            return self._see(x).double().numpy()
        plain = np.array(x.flatten(1).numpy(), dtype=np.float64)
        odd = (plain < 0) | (plain >= MOST_LEVELS) | (plain != np.rint(plain))
        plain[odd & self._levels] = np.nan
        return plain

    def __call__(self, x: Tensor) -> Tensor:
        """(n, *shape) → (n, K + 1) float32."""
        return torch.as_tensor(self._classifier.predict_proba(self._plain(x)[:, self._used]), dtype=torch.float32)

    def kernel(self, unseen: Tensor, rng: torch.Generator) -> Gaussian:
        """A Gaussian kernel on these features, as wide as the median distance of ``unseen`` real rows."""
        return Gaussian(median_bandwidth(self(unseen), rng))
