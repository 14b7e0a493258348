"""Every metric that compares two sets of rows, by the features of both: :func:`compare_samples` and :func:`memorised`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from mixtura.contracts import Estimate, InputError
from mixtura.metrics import TABLE
from mixtura.metrics.neighbours import Manifold, manifold, memorisation

#: rows a side that every metric can do with
ENOUGH = 7

#: memorisation compares no more rows than this of each kind
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
    """Every metric of the table that compares two sets of rows (n, *shape) in data units: those of features, and, where
    ``codes`` (dims,) bool says which columns of a table hold codes, those of columns.

    features: rows → (n, d). kernel: for the metrics that ask, by a kernel, whether two laws differ. seed: name of a metric →
    generator. A metric that needs more rows than one of the sets has is left out where that set has fewer than ``ENOUGH``.
    """
    seen = features(real), features(generated)
    together = cache(lambda: manifold(*seen)._asdict())  # one pass gives all four
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
    """Memorisation of ``samples`` against training and unseen rows; at most ``MOST_COMPARED`` of each. ``samples`` and ``unseen``
    are (n, d) features; ``train``, of which there may be many, rows (n, *shape) in data units: ``features`` is called with those
    that are compared."""

    def some(x: Tensor) -> Tensor:
        return x[torch.randperm(len(x), generator=rng)[:MOST_COMPARED]]

    made, learnt, fresh = some(samples), features(some(train)), some(unseen)
    return memorisation(made.numpy(), learnt.numpy(), fresh.numpy(), rng=rng)
