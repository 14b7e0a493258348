"""By what samples are compared in MMD², and what weights are chosen on: :class:`Comparison`.

The features are what boosted trees make of rows (``features.witness``), unless a person asked for others. The trees learn from
real rows and samples that weights are not chosen on: fit rows and a third of the samples kept of each model; in a run in folds,
where every row is left out of some fit, every second row. The rest is for the choice, and the report rows are for the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixtura.data.kind import DataKind
from mixtura.features.space import FeatureSpace
from mixtura.features.witness import LEAST_ROWS, TreeFeatures
from mixtura.ground.kernels import Gaussian
from mixtura.ground.rng import generator
from mixtura.job.jobs import JobFolder, unit_name
from mixtura.job.splits import Splits
from mixtura.job.verdict import ComparedSamples

#: of the samples kept of a model every so many are those that trees learn from
WITNESS = 3


@dataclass(frozen=True)
class Pools:
    """The rows that features may be learnt from and that weights are chosen on. x (n, *shape): all rows, in data units. outside:
    rows of outside generators that the verdict does not need."""

    schema: DataKind
    x: Tensor
    splits: Splits
    jobs: JobFolder
    outside: Mapping[str, Tensor]
    seed: int

    @property
    def folds(self) -> list[int | None]:
        """Those in which rows are left out; [None] where select rows are kept instead."""
        return [*range(self.splits.folds)] or [None]

    def kept(self, name: str, fold: int | None) -> Tensor:
        """The samples (n, *shape) that the jobs kept of a model; those that an outside generator has."""
        return self.outside[name] if name in self.outside else self.jobs.results(unit_name(name, fold))["samples"]

    def real(self, fold: int | None) -> Tensor:
        """Numbers of the rows that samples of this fold are compared with."""
        return self.splits.select if fold is None else self.splits.training[self.splits.fold(fold)[1]]


@dataclass(frozen=True)
class Comparison:
    """features: rows (n, *shape) in data units → (n, d), with a kernel on them. name: what they are, for people. learnt: numbers
    of the real rows that trees learnt from; None of features that were learnt from no sample."""

    features: Callable[[Tensor], Tensor]
    kernel: Gaussian
    name: str
    learnt: Tensor | None

    @staticmethod
    def plain(features: FeatureSpace) -> Comparison:
        """By features that know no samples."""
        return Comparison(features, features.kernel, features.name, None)

    @staticmethod
    def by_trees(pools: Pools, names: Sequence[str], features: FeatureSpace, more: Sequence[Tensor] = ()) -> Comparison:
        """By trees that learn from the models ``names``, and from ``more`` samples. They look at the columns of a table, and at
        ``features`` of images. Where there are too few rows to learn from, ``features`` are compared."""
        splits = pools.splits
        learnt, unseen = (splits.training[::2], splits.training[1::2]) if splits.folds else (splits.fit, splits.select)
        samples = [torch.cat([divided(pools.kept(name, fold))[0] for fold in pools.folds]) for name in names]
        samples += more
        if min(map(len, (learnt, *samples))) < LEAST_ROWS:
            return Comparison.plain(features)
        rng = generator(pools.seed, "trees that compare")
        see, seen = (None, "rows") if pools.schema.features is None else (features, features.name)
        trees = TreeFeatures(pools.schema.space, pools.x[learnt], samples, rng, see)
        name = f"what boosted trees, trained on other rows and samples, make of {seen}"
        return Comparison(trees, trees.kernel(pools.x[unseen], rng), name, learnt)

    def choosing(self, pools: Pools, names: Sequence[str]) -> list[ComparedSamples]:
        """What weights of the models ``names`` are chosen on, of each fold: rows that it left out beside samples of the models
        that did not see them."""
        compared = []
        for fold in pools.folds:
            real, samples = pools.real(fold), {name: pools.kept(name, fold) for name in names}
            if self.learnt is not None:
                real, samples = real[~torch.isin(real, self.learnt)], {name: divided(s)[1] for name, s in samples.items()}
            found = {name: self.features(rows) for name, rows in samples.items()}
            compared.append(ComparedSamples(self.features(pools.x[real]), found))
        return compared


def divided(samples: Tensor) -> tuple[Tensor, Tensor]:
    """The samples that trees learn from, and the others."""
    learnt = torch.arange(len(samples)) % WITNESS == 0
    return samples[learnt], samples[~learnt]
