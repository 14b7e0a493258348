"""The nats of rows under any model, blends included, exact or a bound: :func:`log_probs`."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from mixtura.contracts import Density, LowerBound, Model, Watch, unwatched

#: independent repetitions of a sampled bound, and of one on more entries than LARGE
REPEATS, REPEATS_OF_LARGE, LARGE = 4, 2, 1_024

#: rows that are scored at once
TILE = 2_048


@torch.no_grad()
def log_probs(
    model: Model, x: Tensor, *, context: Tensor | None = None, rng: torch.Generator, watch: Watch = unwatched
) -> tuple[Tensor, float]:
    """(n,) nats of rows x in data units, and the Monte-Carlo error of their mean (0 where exact).

    A bound is estimated ``REPEATS`` times; the log of the mean is the tighter bound that is returned. ``watch`` is told the share
    that is done.
    """
    if isinstance(model, Density):
        times, nats_of = 1, model.log_prob
    elif isinstance(model, LowerBound):
        times = REPEATS if model.space.dims <= LARGE else REPEATS_OF_LARGE
        nats_of = partial(model.log_prob_bound, draws=model.draws, rng=rng)
    else:
        raise TypeError(f"{type(model).__name__} has no density")
    tiles = [i for _ in range(times) for i in range(0, len(x), TILE)]
    pieces = []
    for i in tiles:
        pieces.append(nats_of(x[i : i + TILE], context=_rows(context, i)))
        watch(len(pieces) / len(tiles))
    if times == 1:
        return torch.cat(pieces), 0.0
    repeats = torch.cat(pieces).reshape(times, -1)
    means = repeats.mean(1)
    error = float(means.std()) / math.sqrt(times) if torch.isfinite(means).all() else math.nan
    return torch.logsumexp(repeats, 0) - math.log(times), error


def sound(nats: Tensor, model: Model) -> Tensor:
    """The (n,) nats of a model, which are numbers or −inf; FloatingPointError, with the row, where one is NaN or +inf."""
    broken = (torch.isnan(nats) | (nats == math.inf)).nonzero()
    if len(broken):
        row = int(broken[0])
        raise FloatingPointError(
            f"{type(model).__name__} gives row {row} a log-density of {float(nats[row])}: "
            "its training failed; fit it again with a lower learning rate"
        )
    return nats


def _rows(context: Tensor | None, i: int) -> Tensor | None:
    return None if context is None else context[i : i + TILE]
