"""The nats of rows under any model or blend, exact or as a bound: :func:`log_probs`."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from mixtura.contracts import Density, LowerBound, Model, Watch, unwatched

#: independent repetitions of a sampled bound, for rows of up to LARGE entries and for larger rows
REPEATS, REPEATS_OF_LARGE, LARGE = 4, 2, 512

#: rows that are scored at once
TILE = 2_048


@torch.no_grad()
def log_probs(
    model: Model, x: Tensor, *, context: Tensor | None = None, rng: torch.Generator, watch: Watch = unwatched
) -> tuple[Tensor, float]:
    """(n,) nats of rows x in data units, and the Monte-Carlo error of their mean (0 if exact).

    A bound is estimated ``REPEATS`` times; the result is the log of the mean, which is a tighter bound. ``watch`` receives the
    share that is done.
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
    """The (n,) nats of a model, unchanged; FloatingPointError, with the row, if one of them is NaN or +inf."""
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
