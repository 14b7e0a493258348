"""How two samples differ, at every row and in numbers: :class:`DensityRatio`."""

from __future__ import annotations

import warnings
from numbers import Real
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from mixtura import ratio
from mixtura.contracts import Estimate, InputError, Note
from mixtura.data import source
from mixtura.features.space import FeatureSpace
from mixtura.ground.rng import generator
from mixtura.ratio.divergences import divergence
from mixtura.train.devices import one_thread

Array = NDArray[np.float64]

#: rows of each sample that are learnt from, at most
MOST_ROWS = 20_000
#: a row is far if no row learnt from is nearer than so many times the largest distance between neighbours among those
FAR = 2.0
#: rows that distances are measured to, at most
NEIGHBOURS = 5_000


class DensityRatio(BaseEstimator):
    """log p(x) − log q(x), learnt from rows of p and rows of q: tables with mixed columns and missing values, arrays, or images.

        r = DensityRatio().fit(p_rows, q_rows)
        r.log_ratio(rows)              # above 0 where p is denser
        r.posterior(rows, prior=0.5)   # probability that a row is of p
        r.divergence("kl")             # KL(p‖q) in nats, with its standard error

    method: a name of ``mixtura.ratio.TABLE``; None: the best of those that are tried, by the probability that it gives to the
    sample that a row is from, on rows it has not learnt from (``scores_``).
    features: as of :func:`mixtura.evaluate`; by default standardised columns and indicators, and 64 principal components of
    images, of which the ratio is then one: its divergences are at most those of the images.
    random_state: seed of all draws.

    Fitted: ``method_``; ``scores_``, a frame with one row for each method that was tried; ``schema_``, what the columns mean.
    """

    def __init__(self, method: str | None = None, *, features: str | None = None, random_state: Any = 0) -> None:
        self.method = method
        self.features = features
        self.random_state = random_state

    def fit(self, p: Any, q: Any) -> Self:
        """Learn from rows of p and rows of q, each anything that :func:`mixtura.run` takes; at most 20,000 of each are used.
        InputError on rows that cannot be used or that are not of one kind."""
        if self.method is not None:
            ratio.of_name(self.method)
        seed = int(check_random_state(self.random_state).randint(2**31))
        loaded = [source.with_note(source.load(rows, seed=seed, name=name)) for rows, name in ((p, "p"), (q, "q"))]
        schema, rows, _ = source.learn_both(*loaded)
        n = len(source.rows_of(loaded[0]))
        p_rows, q_rows = (
            x[torch.randperm(len(x), generator=generator(seed, name))[:MOST_ROWS]]
            for x, name in ((rows[:n], "p"), (rows[n:], "q"))
        )
        every = torch.cat([p_rows, q_rows])
        with one_thread():
            space = FeatureSpace.of_rows(schema, every, self.features, seed=seed)
            learnt = ratio.learn(space(p_rows), space(q_rows), seed, self.method)
        self.schema_, self._space_, self._learnt_, self.method_ = schema, space, learnt, learnt.method
        scored = [{"method": name, "score": e.value, "error": e.error, "reason": ""} for name, e in learnt.scores.items()]
        scored += [{"method": name, "score": np.nan, "error": np.nan, "reason": why} for name, why in learnt.failed.items()]
        self.scores_ = pd.DataFrame(scored).sort_values("score", ascending=False, ignore_index=True)
        near = space(every)[torch.randperm(len(every), generator=generator(seed, "near"))[:NEIGHBOURS]]
        self._near_ = NearestNeighbors(n_neighbors=1).fit(near.numpy())
        self._apart_ = float(self._near_.kneighbors(n_neighbors=1)[0].max())
        return self

    def log_ratio(self, x: Any) -> Array:
        """(n,) log p − log q of rows x, finite everywhere. A :class:`Note` counts rows far from all that was learnt from: there
        it is an extrapolation."""
        return self._log_ratio(x).numpy()

    def posterior(self, x: Any, prior: float = 0.5) -> Array:
        """(n,) probability that a row is of p rather than of q, if a share ``prior`` of all rows is of p."""
        if isinstance(prior, bool) or not isinstance(prior, Real) or not 0 < prior < 1:
            raise InputError(f"prior: expected a share between 0 and 1, got {prior!r}")
        return torch.sigmoid(self._log_ratio(x) + np.log(prior / (1 - prior))).numpy()

    def divergence(self, name: str | float = "kl") -> Estimate:
        """How far p is from q: "kl", "reverse_kl", "kl_bound", "reverse_kl_bound" and "js" in nats, "chi2", "hellinger2", or a
        number α (:mod:`mixtura.ratio.divergences`). It is measured at the rows of ``fit``, each by a ratio that has not learnt
        from it, so of the same rows, or of two halves of one sample, it is about 0."""
        check_is_fitted(self, "method_")
        return divergence(name, self._learnt_.at_p, self._learnt_.at_q)

    def _log_ratio(self, x: Any) -> Tensor:
        check_is_fitted(self, "method_")
        rows = self.schema_.as_made(source.rows_like(x, self.schema_, name="x"), name="x")
        features = self._space_(rows.x)
        distances = self._near_.kneighbors(features.numpy(), 1)[0][:, 0]
        far = int((distances > FAR * self._apart_).sum())
        if far:
            warnings.warn(
                f"x: {far:,} of {len(features):,} rows are far from all rows of p and q; their ratio is an extrapolation", Note,
                stacklevel=3,
            )  # fmt: skip
        with one_thread():
            return self._learnt_.ratio.log_ratio(features.double())
