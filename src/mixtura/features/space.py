"""The one map from samples to what metrics, blends and selections compare, and its kernel, both fitted on fit rows."""

from __future__ import annotations

import torch
from torch import Tensor

from mixtura.data.kind import DataKind
from mixtura.features import extractors as features
from mixtura.features.columns import plain_features
from mixtura.ground.encode import Columns
from mixtura.ground.kernels import Gaussian, median_bandwidth, sums
from mixtura.ground.rng import generator

#: what images are compared by where nothing else was asked for
IMAGE_FEATURES = "pca:64"

#: rows that features are fitted on, and the kernel, at most
MOST_FITTED, KERNEL_ROWS = 5_000, 1_000

#: bandwidths tried: the median distance, a half, a quarter, …
HALVINGS = 5

#: standard errors from which on a bandwidth is taken to tell shuffled columns from their like
TELLS_APART = 3


class Lens:
    """Rows (n, *shape) in data units → (n, d) float32 features; ``kernel`` compares them."""

    def __init__(self, schema: DataKind, fit: Tensor, asked: str | None, *, seed: int) -> None:
        self.space = schema.space
        self.columns = Columns(self.space)
        fit = fit[torch.randperm(len(fit), generator=generator(seed, "lens"))[:MOST_FITTED]]
        self.columns.prepare(self.space.clamp(fit))
        self._features = None
        self.name = "standardised columns and indicators"
        asked = asked or schema.features
        if asked is not None:
            self._features = features.parse(asked)
            self._features.fit(self._plain(fit), generator(seed, "features"))
            self.name = self._features.name
        self.kernel = self._fitted_kernel(fit, seed)

    def _fitted_kernel(self, fit: Tensor, seed: int) -> Gaussian:
        """Of the median distance and its halves, the bandwidth that best tells one half of the fit rows from the other with
        every column shuffled: the most standard errors of MMD² (Sutherland et al. 2017, section 2). A kernel as broad as the
        median sees means and spreads, and can take noise of the right colour for an image."""
        median = median_bandwidth(self(fit), generator(seed, "bandwidth"))
        rows = fit[:KERNEL_ROWS].flatten(1)
        half, rng = len(rows) // 2, generator(seed, "shuffled columns")
        if half < 3:
            return Gaussian(median)
        shuffled = torch.stack([column[torch.randperm(len(column), generator=rng)] for column in rows[half:].T], 1)
        real, floor = self(rows[:half].reshape(half, *self.space.shape)), self(shuffled.reshape(-1, *self.space.shape))

        def power(kernel: Gaussian) -> float:
            apart = sums([floor, real], kernel).mmd2([1.0], 1)
            return apart.value / max(apart.error, 1e-12)

        powers = {median / 2**i: power(Gaussian(median / 2**i)) for i in range(HALVINGS)}
        best = max(powers, key=powers.__getitem__)
        # where no bandwidth tells them apart, the largest number is one of noise
        return Gaussian(best if powers[best] > TELLS_APART else median)

    @property
    def codes(self) -> Tensor | None:
        """(dims,) bool, the columns of a table that hold codes; None for images."""
        return None if self.space.is_image else torch.tensor([c.kind == "levels" for c in self.space.columns])

    def __call__(self, x: Tensor) -> Tensor:
        plain = self._plain(x)
        return plain.float() if self._features is None else self._features(plain)

    def _plain(self, x: Tensor) -> Tensor:
        return x.float() if self.space.is_image else plain_features(x, self.columns)
