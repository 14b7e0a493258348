"""How a model is judged: its samples beside unseen rows, its draws beside the truth, its time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from mixtura.contracts import Column, InputError, Model, Space
from mixtura.metrics import TABLE, calibration
from mixtura.metrics.likelihood import Estimate
from mixtura.metrics.neighbours import Manifold, manifold, memorisation

#: rows a side that every metric can do with
ENOUGH = 7
#: metrics that ask whether two laws differ, by a kernel fitted for that
KERNELLED = ("mmd2", "same_law")

#: central intervals whose coverage is measured, by name; of the widest the width is told too
INTERVALS = {"coverage_50": 0.5, "coverage_90": 0.9}


@dataclass(frozen=True)
class OfAnswers:
    """What is measured of a model's answers. better: None where the best is a number that the summary names."""

    summary: str
    better: Literal["higher", "lower"] | None
    unit: str

#: what :func:`calibrate` measures, by name, in the order that it is told in
OF_ANSWERS = {
    "crps": OfAnswers("continuous ranked probability score: how far the draws are from the truth", "lower", "of the target"),
    "coverage_90": OfAnswers("share of the rows inside the central 90 % of their draws; 0.9 if calibrated", None, "share"),
    "width_90": OfAnswers("mean width of the 90 % between 19 draws; less is better at equal coverage", None, "of the target"),
    "coverage_50": OfAnswers("share of the rows inside the central 50 % of their draws; 0.5 if calibrated", None, "share"),
    "pit": OfAnswers("largest distance of the ranks of the rows among their draws from uniform ones", "lower", "share"),
}

#: memorisation looks at no more rows than this of each kind
MOST_COMPARED = 2_000


def bits_per_dimension(nats: Estimate, space: Space) -> Estimate | None:
    """Bits per dimension of images in levels of step δ: −(nats + D log δ) / (D log 2); None for anything else."""
    δ = space.columns[0].resolution
    if not space.is_image or δ == 0:
        return None
    unit = space.dims * math.log(2)
    return Estimate(-(nats.value + space.dims * math.log(δ)) / unit, nats.error / unit, nats.n)


def memorised(
    samples: Tensor, train: Tensor, unseen: Tensor, look: Callable[[Tensor], Tensor], *, rng: torch.Generator
) -> Estimate:
    """Memorisation of ``samples`` against training and unseen rows; at most ``MOST_COMPARED`` of each. ``samples`` and ``unseen``
    are (n, d) features; ``train``, which may be many, rows (n, *shape) in data units, of which ``look`` sees those compared."""
    pick = lambda x: x[torch.randperm(len(x), generator=rng)[:MOST_COMPARED]]  # noqa: E731
    made, learnt, fresh = pick(samples), look(pick(train)), pick(unseen)
    return memorisation(made.numpy(), learnt.numpy(), fresh.numpy(), rng=rng)


def compare_samples(
    real: Tensor,
    generated: Tensor,
    look: Callable[[Tensor], Tensor],
    *,
    kernel: Any,
    codes: Tensor | None,
    seed: Callable[[str], torch.Generator],
) -> dict[str, Estimate]:
    """Every metric of the table that compares two sets: of rows (n, *shape) in data units, seen as features by ``look``
    (with ``kernel`` where a kernel tells whether two laws differ), and, where ``codes`` (dims,) says which columns of a
    table are codes, column by column. ``seed``: name → generator. Of sets below ``ENOUGH`` rows a metric that wants more is not
    measured."""
    seen = look(real), look(generated)
    together = cache(lambda: manifold(*seen)._asdict())  # one pass gives all four
    found = {}
    for row in TABLE.values():
        try:
            if row.name in Manifold._fields:
                found[row.name] = together()[row.name]
            elif row.takes == "features":
                options = {"kernel": kernel} if row.name in KERNELLED else {}
                found[row.name] = row.function(*seen, rng=seed(row.name), **options)
            elif row.takes == "columns" and codes is not None:
                found[row.name] = row.function(real.flatten(1), generated.flatten(1), codes=codes, rng=seed(row.name))
        except InputError:
            if min(len(real), len(generated)) >= ENOUGH:
                raise
    return {name: value for name, value in found.items() if isinstance(value, Estimate)}


def calibrate(
    y: Tensor, draws: Tensor, space: Space, names: Sequence[str], *, rng: torch.Generator
) -> tuple[dict[str, Estimate], dict[str, Tensor]]:
    """Whether ``draws`` (s, n, D) of the targets mean what they say, by the truth y (n, D) of their rows, in data units: the
    entries of ``OF_ANSWERS`` for each numeric entry of the space, with its name behind a colon where there are several; and,
    by name, the (n,) ranks (metrics/calibration.py ``pit``), NaN where a truth is missing. ``pit`` has no standard error.

    Rows whose truth is missing, or whose draws are, say nothing here.
    """
    numeric = [j for j, c in enumerate(space.columns) if c.kind == "continuous"]
    found: dict[str, Estimate] = {}
    ranks: dict[str, Tensor] = {}
    for j in numeric:
        true, drawn = (_on_lattice(v[..., j], space.columns[j]) for v in (y, draws))
        there = ~(torch.isnan(true) | torch.isnan(drawn).any(0))
        if not there.any():
            continue
        true, drawn = true[there], drawn[:, there]
        u = torch.full((len(y),), math.nan, dtype=torch.float64)
        u[there] = torch.from_numpy(calibration.pit(true, drawn, rng=rng))
        apart = calibration.pit_uniformity(u[there])
        of_column = {"crps": calibration.average(calibration.crps(true, drawn))}
        of_column |= {name: calibration.coverage(true, drawn, level) for name, level in INTERVALS.items()}
        of_column |= {"width_90": calibration.sharpness(drawn, 0.9), "pit": Estimate(apart.distance, math.nan, apart.n)}
        ranks[names[j]] = u
        found |= {name if len(numeric) == 1 else f"{name}:{names[j]}": of_column[name] for name in OF_ANSWERS}
    return found, ranks


def of_first(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Of the metrics of a score the entries of ``OF_ANSWERS`` for its first numeric target; none where no target is one."""
    first: dict[str, Mapping[str, Any]] = {}
    for name, value in metrics.items():
        first.setdefault(name.partition(":")[0], value)
    return {name: value for name, value in first.items() if name in OF_ANSWERS}


def _on_lattice(values: Tensor, column: Column) -> Tensor:
    """Rounded values at the very floats of their lattice, so that equal ones are equal."""
    if column.resolution == 0:
        return values
    origin = column.low if math.isfinite(column.low) else 0.0
    return origin + column.resolution * ((values - origin) / column.resolution).round()


def timed_sample(model: Model, n: int, *, rng: torch.Generator) -> tuple[Tensor, float]:
    """n rows, and the milliseconds of process time that 1,000 took."""
    began = time.process_time()
    x = model.sample(n, rng=rng)
    return x, (time.process_time() - began) * 1e6 / n
