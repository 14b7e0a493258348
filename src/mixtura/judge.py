"""Models to scores: nats on unseen rows with their kind and errors, memorisation, cost."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from statistics import median
from typing import Literal

import torch
from torch import Tensor

from mixtura.contracts import Density, LowerBound, Model
from mixtura.metrics.likelihood import Estimate
from mixtura.metrics.neighbours import memorisation
from mixtura.transforms import Columns

#: independent repetitions of a sampled bound, and draws in each
REPEATS, DRAWS = 4, 8
TILE = 2_048
#: memorisation looks at no more rows than this of each kind
MOST_COMPARED = 2_000


@dataclass(frozen=True)
class Score:
    """One row of the leaderboard. Numbers are None where they do not apply.

    status: "fitted", "skipped" (cannot serve, see reason), "failed" (see reason) or "samples only".
    nats: mean log-density of a report row, "exact" or "bound" by kind, with its standard error; mc_error is what
    sampling the bound adds. memorisation: ½ = none, 1 = copies. seconds: of training. sample_ms: to draw 1,000
    rows. converged and wanted: whether training ended by itself, and the seconds it would have taken.
    """

    name: str
    status: Literal["fitted", "skipped", "failed", "samples only"]
    reason: str = ""
    kind: Literal["exact", "bound"] | None = None
    nats: float | None = None
    nats_error: float | None = None
    mc_error: float | None = None
    rows: int = 0
    memorisation: float | None = None
    memorisation_error: float | None = None
    seconds: float | None = None
    seconds_error: float | None = None
    sample_ms: float | None = None
    sample_ms_error: float | None = None
    steps: int | None = None
    converged: bool | None = None
    wanted: float | None = None


@torch.no_grad()
def log_probs(model: Model, x: Tensor, *, context: Tensor | None = None, rng: torch.Generator) -> tuple[Tensor, float]:
    """(n,) nats of rows x in data units, and the Monte-Carlo error of their mean (0 where exact).

    A bound is estimated ``REPEATS`` times; the log of the mean is the tighter bound that is returned.
    """
    if isinstance(model, Density):
        return torch.cat([model.log_prob(x[i : i + TILE], context=_rows(context, i)) for i in range(0, len(x), TILE)]), 0.0
    if not isinstance(model, LowerBound):
        raise TypeError(f"{type(model).__name__} has no density")
    repeats = torch.stack(
        [
            torch.cat(
                [
                    model.log_prob_bound(x[i : i + TILE], context=_rows(context, i), draws=DRAWS, rng=rng)
                    for i in range(0, len(x), TILE)
                ]
            )
            for _ in range(REPEATS)
        ]
    )
    means = repeats.mean(1)
    error = float(means.std()) / math.sqrt(REPEATS) if torch.isfinite(means).all() else math.nan
    return torch.logsumexp(repeats, 0) - math.log(REPEATS), error


def _rows(context: Tensor | None, i: int) -> Tensor | None:
    return None if context is None else context[i : i + TILE]


def memorised(samples: Tensor, train: Tensor, unseen: Tensor, columns: Columns, *, rng: torch.Generator) -> Estimate:
    """Memorisation of ``samples`` against training and unseen rows, all (n, *shape) in data units.

    Rows are compared by standardised values beside indicators of every code, scaled so that two different codes
    are as far apart as one standard deviation. ``columns`` was prepared on the training rows.
    """
    pick = lambda x: x[torch.randperm(len(x), generator=rng)[:MOST_COMPARED]]  # noqa: E731
    rows = [_features(pick(x), columns).numpy() for x in (samples, train, unseen)]
    return memorisation(rows[0], rows[1], rows[2], rng=rng)


def _features(x: Tensor, columns: Columns) -> Tensor:
    parts = columns.split(columns.space.clamp(x))
    return torch.cat([parts.values, columns.indicators(parts.codes).double() / math.sqrt(2)], 1)


def sampling_cost(model: Model, *, rows: int = 500, repeats: int = 3, rng: torch.Generator) -> tuple[float, float]:
    """Milliseconds of process time to draw 1,000 rows: the median of a few goes and half their range."""
    costs = []
    for _ in range(repeats):
        began = time.process_time()
        model.sample(rows, rng=rng)
        costs.append((time.process_time() - began) * 1e6 / rows)
    return median(costs), (max(costs) - min(costs)) / 2
