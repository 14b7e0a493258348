"""The feature space: the one map from samples to the features that metrics, blends and selections compare, and its kernel.

The extractor and the kernel are fitted on fit rows. This module also sets the default features of images.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixtura.contracts import InputError
from mixtura.data.kind import DataKind
from mixtura.features import extractors
from mixtura.ground.encode import Columns
from mixtura.ground.kernels import Gaussian, median_bandwidth, sums
from mixtura.ground.rng import generator

#: default features of images
IMAGE_FEATURES = "pca:64"
#: rows that features are fitted on, and the kernel, at most
MOST_FITTED, KERNEL_ROWS = 5_000, 1_000
#: bandwidths tried: the median distance, a half, a quarter, …
HALVINGS = 5
#: standard errors from which on a bandwidth counts as telling shuffled columns from real ones
TELLS_APART = 3
#: standard deviations from which on a value is just far: the kernels square it in float32
FURTHEST = 1e6




class FeatureSpace:
    """Rows (n, *shape) → features (n, d).

    :meth:`of_rows` makes one for rows that a schema describes, in data units; :meth:`of_samples` for arrays of numbers.

    name: what the features are, for people. codes: (dims,) bool, which columns of a table hold codes; None for images and
    arrays. ``kernel`` compares features; it is fitted when it is first asked for.
    """

    def __init__(
        self, extractor: extractors.Features | None, *, name: str, columns: Columns | None = None, fit: Tensor | None = None,
        seed: int = 0, codes: Tensor | None = None, image_shape: tuple[int, ...] | None = None,
    ) -> None:  # fmt: skip
        self.name, self.codes = name if extractor is None else extractor.name, codes
        self._extractor, self._columns, self._fit, self._seed, self._image_shape = extractor, columns, fit, seed, image_shape

    @classmethod
    def of_rows(cls, schema: DataKind, fit: Tensor, asked: str | None, *, seed: int) -> FeatureSpace:
        """For rows in data units: standardised columns and indicators of a table, ``asked`` features of either, images by
        ``IMAGE_FEATURES`` where nothing is asked. ``fit`` (n, *shape): the rows to fit on, of which 5,000 are used."""
        fit = fit[torch.randperm(len(fit), generator=generator(seed, "lens"))[:MOST_FITTED]]
        if schema.features is not None:
            return cls(_fitted_extractor(fit.float(), asked or schema.features, seed), name="", fit=fit, seed=seed)
        columns = Columns(schema.space)
        columns.prepare(schema.space.clamp(fit))
        codes = torch.tensor([column.kind == "levels" for column in schema.space.columns])
        extractor = None if asked is None else _fitted_extractor(plain_features(fit, columns), asked, seed)
        name = "standardised columns and indicators"
        return cls(extractor, name=name, columns=columns, fit=fit, seed=seed, codes=codes)

    @classmethod
    def of_samples(cls, fit: Tensor | None, asked: str | None, *, seed: int = 0) -> FeatureSpace:
        """For arrays of numbers: vectors (n, d) are taken as they are, or by ``asked`` features; images (n, C, H, W) by
        ``asked`` features or ``IMAGE_FEATURES``. ``fit``: real rows to fit on; without them samples are flattened."""
        if fit is None:
            if asked is not None:
                raise InputError("features: are fitted on real rows; give --reference too")
            return cls(None, name="as given")
        shape = tuple(fit.shape[1:]) if fit.dim() == 4 else None
        wanted = asked or (IMAGE_FEATURES if shape else None)
        extractor = None if wanted is None else _fitted_extractor(fit.float(), wanted, seed)
        return cls(extractor, name="as given", fit=fit, seed=seed, image_shape=shape)

    def __call__(self, x: Tensor) -> Tensor:
        """(n, *shape) → (n, d)."""
        if self._columns is None:
            return x.flatten(1) if self._extractor is None else self._extractor(x)
        plain = plain_features(x, self._columns)
        return plain.float() if self._extractor is None else self._extractor(plain)

    def of_one(self, sample: NDArray[Any]) -> Tensor:
        """One sample as an arm gives it → (d,). Images come as (H, W), (H, W, 1 or 3) or (1 or 3, H, W). InputError where an
        image has not the shape of the reference."""
        x = torch.as_tensor(np.ascontiguousarray(sample, dtype=np.float64))
        if self._image_shape is None:
            return self(x.flatten().unsqueeze(0))[0]
        image = _channels_first(x)
        if tuple(image.shape) != self._image_shape:
            raise InputError(f"an image of shape {tuple(image.shape)}, the reference holds {self._image_shape}")
        return self(image.unsqueeze(0))[0]

    @cached_property
    def kernel(self) -> Gaussian:
        """A Gaussian kernel. Its bandwidth is the median distance or a halving of it: the one that best distinguishes one half of
        the fit rows from the other half with each column shuffled, by MMD² in standard errors (Sutherland et al. 2017, section
        2). A kernel as wide as the median distance compares means and spreads, and may not distinguish images from noise of the
        same covariance."""
        if self._fit is None:
            raise InputError("features: a kernel is fitted on real rows; give a reference")
        fit, seed = self._fit, self._seed
        median = median_bandwidth(self(fit), generator(seed, "bandwidth"))
        rows = fit[:KERNEL_ROWS].flatten(1)
        half, rng = len(rows) // 2, generator(seed, "shuffled columns")
        if half < 3:
            return Gaussian(median)
        shuffled = torch.stack([column[torch.randperm(len(column), generator=rng)] for column in rows[half:].T], 1)
        real, floor = self(rows[:half].reshape(half, *fit.shape[1:])), self(shuffled.reshape(-1, *fit.shape[1:]))

        def power(kernel: Gaussian) -> float:
            apart = sums([floor, real], kernel).mmd2([1.0], 1)
            return apart.value / max(apart.error, 1e-12)

        powers = {median / 2**i: power(Gaussian(median / 2**i)) for i in range(HALVINGS)}
        best = max(powers, key=powers.__getitem__)
        # if no bandwidth distinguishes them, the largest power is noise
        return Gaussian(best if powers[best] > TELLS_APART else median)


def _fitted_extractor(fit: Tensor, wanted: str, seed: int) -> extractors.Features:
    extractor = extractors.parse(wanted)
    extractor.fit(fit, generator(seed, "features"))
    return extractor


def _channels_first(x: Tensor) -> Tensor:
    """(H, W), (H, W, 1 or 3) or (1 or 3, H, W) → (C, H, W)."""
    if x.dim() == 2:
        return x.unsqueeze(0)
    if x.dim() == 3 and x.shape[0] not in (1, 3) and x.shape[2] in (1, 3):
        return x.permute(2, 0, 1).contiguous()
    return x


def plain_features(x: Tensor, columns: Columns) -> Tensor:
    """Rows (n, *shape) in data units as standardised values beside indicators of every code, scaled so that two different
    codes are as far apart as one standard deviation; (n, d) float64. ``columns`` was prepared on the fit rows.

    Impossible values stay visible: nothing is moved onto the support. An unseen level is as far from each level as two levels are
    from one another: the point t (1, …, 1) completes the k corners e_c/√2 of a group to a regular simplex for
    t = (√2 − √(2 + 2k)) / 2k. Walls do not change distances; a value beyond ``FURTHEST`` standard deviations is moved to that
    distance.
    """
    flat, unseen, numeric = columns.space.flat(x), columns.space.unseen(x), columns.numeric
    there = columns.space.flat(columns.space.clamp(x)).masked_fill(unseen, 0.0)
    parts = columns.split(there)
    beyond = columns.unbent((flat - there)[:, numeric].nan_to_num(nan=0.0))
    indicators = columns.indicators(parts.codes).double() / math.sqrt(2)
    for j, first, k in zip(columns.coded, columns.first.tolist(), columns.cardinalities, strict=True):
        indicators[unseen[:, j], first : first + k] = (math.sqrt(2) - math.sqrt(2 + 2 * k)) / (2 * k)
    return torch.cat([(parts.values + beyond).clamp(-FURTHEST, FURTHEST), indicators], 1)
