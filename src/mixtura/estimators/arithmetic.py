"""Statistics that estimators need: a conformal quantile, the nats of a Gaussian baseline, moments of rounded values."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from mixtura.estimators.inputs import Array
from mixtura.ground.cells import log_normal_mass


def conformal_quantile(ranks: Array, weights: Array, level: float) -> float:
    """The ⌈(m + 1) level⌉-th smallest of m numbers, or their weighted quantile; ½, which means the whole line, if there are too
    few numbers."""
    there = ~np.isnan(ranks)
    order = np.argsort(ranks[there])
    total = weights[there][order].cumsum()
    m = len(order)
    k = int(np.searchsorted(total, (m + 1) / m * level * total[-1] * (1 - 1e-12))) if m else 0
    return float(ranks[there][order][k]) if k < m else 0.5


def gaussian_nats(values: Array, weights: Array, δ: float) -> float:
    """Mean nats per row of one entry of y under a Gaussian with its mean and deviation; a missing value counts 0."""
    there = ~np.isnan(values)
    y, w = torch.as_tensor(values[there]), torch.as_tensor(weights[there])
    share = w / weights.sum()
    mean = (w * y).sum() / w.sum()
    deviation = ((w * (y - mean).square()).sum() / w.sum()).sqrt()
    if δ == 0:
        return float((share * Normal(mean, deviation).log_prob(y)).sum())
    no = torch.zeros_like(y, dtype=torch.bool)
    nats = log_normal_mass(y - δ / 2, torch.full_like(y, δ), no, no, mean.expand_as(y), deviation.expand_as(y)) - math.log(δ)
    return float((share * nats).sum())


def moments_of_rounded(weights: Tensor, means: Tensor, deviations: Tensor) -> tuple[Tensor, Tensor]:
    """E[R] and E[R²], (n,), where R is a value of a Gaussian mixture (n, K) rounded to a whole number. For deviations above 2,
    integrals with Sheppard's correction replace the sums over whole numbers, to full precision."""
    first, second = means.clone(), means.square() + deviations.square() + 1 / 12
    rows, k = (deviations <= 2).nonzero(as_tuple=True)
    mean, deviation = means[rows, k, None], deviations[rows, k, None]
    whole = mean.round() + torch.arange(-18, 19, dtype=mean.dtype)
    mass = torch.special.ndtr((whole + 0.5 - mean) / deviation) - torch.special.ndtr((whole - 0.5 - mean) / deviation)
    first[rows, k], second[rows, k] = (mass * whole).sum(1), (mass * whole.square()).sum(1)
    return (weights * first).sum(1), (weights * second).sum(1)
