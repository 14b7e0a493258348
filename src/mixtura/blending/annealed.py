"""Nats of a model with a latent code and noise, by annealed importance sampling over the code (Wu et al. 2017): an estimate for
what has no density of its own, and a check of a bound.

For each row x, log p(x) = log ∫ N(z; 0, I) p(x | z) dz is log Z of the energy E₁(z) = |z|²/2 − log p(x | z) against that of the
prior. Chains start at the prior; log of their mean weight is a lower bound of log p(x) in expectation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mixtura.contracts import Estimate, NoisyDecoder
from mixtura.ground.annealing import PILOT, anneal, by_mala, sigmoidal

#: chains of a row that are done at once, at most
TILE = 4_096


@dataclass(frozen=True)
class AnnealedNats:
    """nats: (n,) estimates of log p of each row. mean: of all rows; its error is over rows and over chains. effective: (n,) the
    effective sample size of the chains of a row; where it is near 1 the estimate is a low bound only."""

    nats: Tensor
    mean: Estimate
    effective: Tensor


def annealed_nats(
    model: NoisyDecoder, x: Tensor, *, chains: int = 16, temperatures: int = 300, context: Tensor | None = None,
    rng: torch.Generator,
) -> AnnealedNats:  # fmt: skip
    """Estimates for rows x (n, *shape) on the support, in nats with respect to the base measure of the space. ``chains`` for each
    row, ``temperatures`` steps of MALA each, with step sizes found on chains of their own."""
    nats, effective, variance = [], [], 0.0
    for some in torch.arange(len(x)).split(max(1, TILE // chains)):
        at = some.repeat_interleave(chains)
        rows, given = x[at], None if context is None else context[at]

        def path(z: Tensor, beta: float, rows: Tensor = rows, given: Tensor | None = given) -> Tensor:
            here = slice(0, len(z))  # the chains that find step sizes are of the first rows
            prior = z.double().square().sum(1) / 2
            return prior - beta * model.log_given(rows[here], z, context=None if given is None else given[here])

        betas = sigmoidal(temperatures)
        start = torch.randn(len(at), model.latent, generator=rng, dtype=torch.float64)
        pilot = torch.randn(min(PILOT, len(at)), model.latent, generator=rng, dtype=torch.float64)
        found = anneal(start, path, by_mala(pilot, path, betas, rng), betas)
        # log p(z) has a constant that the prior's energy leaves out on both sides
        weights = found.log_weights.reshape(len(some), chains)
        nats.append(torch.logsumexp(weights, 1) - math.log(chains))
        relative = (weights - weights.max(1, keepdim=True).values).exp()
        variance += float((relative.var(1) / relative.mean(1).square() / chains).nan_to_num(nan=0.0).sum())
        effective.append(weights.softmax(1).square().sum(1).reciprocal())
    every = torch.cat(nats)
    spread = float(every.var()) / len(every) if len(every) > 1 else math.nan
    mean = Estimate(float(every.mean()), math.sqrt(spread + variance / len(every) ** 2), len(every))
    return AnnealedNats(every, mean, torch.cat(effective))
