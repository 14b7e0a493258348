"""Run every metric that compares two sets of rows: :func:`compare_samples` and :func:`memorised`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from mixtura.contracts import Estimate, InputError
from mixtura.metrics import TABLE
from mixtura.metrics.neighbours import Manifold, manifold, memorisation

#: rows of each set that are enough for every metric
ENOUGH = 7

#: most rows of each set that memorisation compares
MOST_COMPARED = 2_000


def compare_samples(
    real: Tensor,
    generated: Tensor,
    features: Callable[[Tensor], Tensor],
    *,
    kernel: Any,
    codes: Tensor | None,
    seed: Callable[[str], torch.Generator],
) -> dict[str, Estimate]:
    """Every metric of the table that compares two sets of rows (n, *shape) in data units: the metrics of features and, for
    tables, those of columns. ``codes`` (dims,) bool says which columns of a table hold codes; None for images.

    features: rows → (n, d). kernel: for the metrics that take one. seed: name of a metric → its generator. If a set has fewer
    than ``ENOUGH`` rows, the metrics that need more rows are left out.
    """
    seen = features(real), features(generated)
    together = cache(lambda: manifold(*seen)._asdict())  # one pass computes all four metrics
    found = {}
    for row in TABLE.values():
        try:
            if row.name in Manifold._fields:
                found[row.name] = together()[row.name]
            elif row.takes == "features":
                options = {"kernel": kernel} if row.kernel else {}
                found[row.name] = row.function(*seen, rng=seed(row.name), **options)
            elif row.takes == "columns" and codes is not None:
                found[row.name] = row.function(real.flatten(1), generated.flatten(1), codes=codes, rng=seed(row.name))
        except InputError:
            if min(len(real), len(generated)) >= ENOUGH:
                raise
    return {name: value for name, value in found.items() if isinstance(value, Estimate)}


def memorised(
    samples: Tensor, train: Tensor, unseen: Tensor, features: Callable[[Tensor], Tensor], *, rng: torch.Generator
) -> Estimate:
    """Memorisation of ``samples`` against training and unseen rows, at most ``MOST_COMPARED`` of each. ``samples`` and ``unseen``
    are features (n, d). ``train`` is rows (n, *shape) in data units, as there may be many: ``features`` maps only those that are
    compared."""

    def some(x: Tensor) -> Tensor:
        return x[torch.randperm(len(x), generator=rng)[:MOST_COMPARED]]

    made, learnt, fresh = some(samples), features(some(train)), some(unseen)
    return memorisation(made.numpy(), learnt.numpy(), fresh.numpy(), rng=rng)
