"""How samples are looked at: rows in data units → features, and the kernel that compares them, both fitted on fit rows;
and :func:`evaluate`, which needs no model."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from torch import Tensor

from mixtura import features, judge
from mixtura.contracts import InputError
from mixtura.data import source
from mixtura.data.images import ImageSchema
from mixtura.data.source import AnySchema
from mixtura.kernels import Gaussian, median_bandwidth, sums
from mixtura.metrics import TABLE, Estimate
from mixtura.rng import generator
from mixtura.transforms import Columns

#: what images are compared by where nothing else was asked for
IMAGE_FEATURES = "pca:64"
#: rows that features are fitted on, and the kernel, at most
MOST_FITTED, KERNEL_ROWS = 5_000, 1_000
#: bandwidths tried: the median distance, a half, a quarter, …
HALVINGS = 5
#: rows that can be compared at all
LEAST_ROWS = 20


class Lens:
    """Rows (n, *shape) in data units → (n, d) float32 features; ``kernel`` compares them."""

    def __init__(self, schema: AnySchema, fit: Tensor, asked: str | None, *, seed: int) -> None:
        self.space = schema.space
        self.columns = Columns(self.space)
        fit = fit[torch.randperm(len(fit), generator=generator(seed, "lens"))[:MOST_FITTED]]
        self.columns.prepare(fit)
        self._features = None
        self.name = "standardised columns and indicators"
        if isinstance(schema, ImageSchema) or asked is not None:
            self._features = features.parse(asked or IMAGE_FEATURES)
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

        return max((Gaussian(median / 2**i) for i in range(HALVINGS)), key=power)

    @property
    def codes(self) -> Tensor | None:
        """(dims,) bool, the columns of a table that hold codes; None for images."""
        return None if self.space.is_image else torch.tensor([c.kind == "levels" for c in self.space.columns])

    def __call__(self, x: Tensor) -> Tensor:
        plain = self._plain(x)
        return plain.float() if self._features is None else self._features(plain)

    def _plain(self, x: Tensor) -> Tensor:
        return x.float() if self.space.is_image else judge.plain_features(x, self.columns)


def evaluate(
    real: Any, generated: Any, *, train: Any = None, features: str | None = None, seed: int = 0, skip_broken: bool = False
) -> pd.DataFrame:
    """Every metric that compares two sets, with its standard error: one row each, columns metric, value, error, n, better
    ("higher" or "lower"), unit, summary.

    real, generated: tables or images, anything :func:`mixtura.run` takes; columns are guessed from the real rows. Features and
    kernel are fitted on a fifth of the real rows, which is then left out: rows that a feature was fitted to look different
    from fresh ones of the same law. With ``train``, the rows the generator learnt from, they are fitted on those, and
    memorisation joins; ``real`` must then be rows it has not seen. Raises InputError on data of different kinds, columns or
    sizes.
    """
    data = source.load(real, seed=seed, skip_broken=skip_broken)
    schema = source.learn(data)
    sets = {"real": source.encode(schema, source.content(data), name=data.name)}
    for name, given in (("generated", generated), ("train", train)):
        if given is not None:
            sets[name] = source.encode(schema, source.contents(given, schema), name=name)
    for name, x in sets.items():
        if len(x) < LEAST_ROWS:
            raise InputError(f"{name}: {len(x)} rows are too few to compare; give {LEAST_ROWS} or more")
    x, y = sets["real"], schema.space.clamp(sets["generated"])
    if "train" in sets:
        fit = sets["train"]
    else:
        order = torch.randperm(len(x), generator=generator(seed, "fitted on"))
        fit, x = x[order[: len(x) // 5]], x[order[len(x) // 5 :]]
    lens = Lens(schema, fit, features, seed=seed)
    found = judge.appraise(x, y, lens, kernel=lens.kernel, codes=lens.codes, seed=lambda name: generator(seed, name))
    if "train" in sets:
        found["memorisation"] = judge.memorised(lens(y), lens(sets["train"]), lens(x), rng=generator(seed, "memorisation"))
    return pd.DataFrame([_row(name, estimate) for name, estimate in found.items()])


def _row(name: str, estimate: Estimate) -> dict[str, Any]:
    row = TABLE[name]
    return {
        "metric": name, "value": estimate.value, "error": estimate.error, "n": estimate.n, "better": row.direction,
        "unit": row.unit, "summary": row.summary,
    }  # fmt: skip
