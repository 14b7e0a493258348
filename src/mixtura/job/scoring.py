"""How a model of the run is measured: bits per dimension, calibration of its draws given inputs, samples, time of sampling."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor

from mixtura.contracts import Column, Estimate, Model, Space
from mixtura.features.space import FeatureSpace
from mixtura.folder.records import Score
from mixtura.ground.kernels import Gaussian
from mixtura.ground.rng import generator
from mixtura.metrics import OF_ANSWERS, TABLE, calibration
from mixtura.metrics.compare import compare_samples, memorised


def bits_per_dimension(nats: Estimate, space: Space) -> Estimate | None:
    """Bits per dimension of images in levels of step δ: −(nats + D log δ) / (D log 2); None for anything else."""
    δ = space.columns[0].resolution
    if not space.is_image or δ == 0:
        return None
    unit = space.dims * math.log(2)
    return Estimate(-(nats.value + space.dims * math.log(δ)) / unit, nats.error / unit, nats.n)


def calibrate(
    y: Tensor, draws: Tensor, space: Space, names: Sequence[str], *, rng: torch.Generator
) -> tuple[dict[str, Estimate], dict[str, Tensor]]:
    """Whether ``draws`` (s, n, D) of the targets are calibrated, by the truth y (n, D) of their rows, in data units: the metrics
    of answers (``metrics.OF_ANSWERS``) for each numeric entry of the space, with its name behind a colon where there are several;
    and, by name, the (n,) ranks (metrics/calibration.py ``pit``), NaN where a truth is missing.

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
        ranks[names[j]] = u
        for name in OF_ANSWERS:
            given = (u[there],) if TABLE[name].takes == "ranks" else (true, drawn)
            found[name if len(numeric) == 1 else f"{name}:{names[j]}"] = cast(Estimate, TABLE[name].function(*given))
    return found, ranks


def _on_lattice(values: Tensor, column: Column) -> Tensor:
    """Rounded values at the very floats of their lattice, so that equal ones are equal."""
    if column.resolution == 0:
        return values
    origin = column.low if math.isfinite(column.low) else 0.0
    return origin + column.resolution * ((values - origin) / column.resolution).round()


class Sampled(NamedTuple):
    """Samples of a model (n, *shape) in data units, their features (n, d), the milliseconds of process time that 1,000 took (NaN:
    not known), and what they score."""

    rows: Tensor
    features: Tensor
    cost: float
    score: Score


@dataclass(frozen=True)
class SampleJudge:
    """Scores models by samples alone. fit, report (n, *shape): rows in data units that models have and have not learnt from.
    samples: how many are drawn of a model."""

    fit: Tensor
    report: Tensor
    features: FeatureSpace
    kernel: Gaussian
    samples: int
    seed: int

    def of_model(self, name: str, model: Model) -> Sampled:
        """Draw and score samples of a model."""
        began, rng = time.process_time(), generator(self.seed, name, "samples")
        rows = model.sample(self.samples, rng=rng)
        cost = (time.process_time() - began) * 1e6 / self.samples
        return self.of_rows(name, rows, cost)

    def of_rows(self, name: str, drawn: Tensor, cost: float = math.nan) -> Sampled:
        """Score samples (n, *shape), of which 1,000 took ``cost`` milliseconds."""
        seen, features, rng = self.features(drawn), self.features, partial(generator, self.seed, name, "metric")
        copied = memorised(seen, self.fit, features(self.report), features, rng=generator(self.seed, name, "memorisation"))
        found = compare_samples(self.report, drawn, features, kernel=self.kernel, codes=features.codes, seed=rng)
        metrics = {metric: asdict(value) for metric, value in found.items()}
        score = Score(name, "samples only", rows=len(self.report), metrics=metrics)
        return Sampled(drawn, seen, cost, replace(score, memorisation=copied.value, memorisation_error=copied.error))
