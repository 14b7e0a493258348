"""Laws in the plane that benchmarks share, with exact densities."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

#: points of the arc that the density of the moons is summed over
ARC = 400


@dataclass(frozen=True)
class EightGaussians:
    """Eight Gaussians on a circle of radius 4/√2, deviation 1/(2√2) (as published with Diffusion by MaxEnt IRL)."""

    name = "eight Gaussians"
    reach = 5.0

    @property
    def centres(self) -> Tensor:
        angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
        return 4 / math.sqrt(2) * torch.stack([angle.cos(), angle.sin()], 1)

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        which = torch.randint(8, (n,), generator=rng)
        return self.centres[which] + torch.randn(n, 2, generator=rng, dtype=torch.float64) / math.sqrt(8)

    def log_prob(self, x: Tensor) -> Tensor:
        squares = torch.cdist(x, self.centres).square()
        return torch.logsumexp(-4 * squares, 1) - math.log(8) - math.log(2 * math.pi / 8)


@dataclass(frozen=True)
class TwoMoons:
    """Two half circles of radius 1 with normal noise of deviation .1."""

    name = "two moons"
    reach = 2.6

    def _curve(self, t: Tensor, upper: Tensor) -> Tensor:
        first = torch.stack([t.cos(), t.sin()], 1)
        second = torch.stack([1 - t.cos(), 0.5 - t.sin()], 1)
        return torch.where(upper[:, None], first, second) - torch.tensor([0.5, 0.25], dtype=torch.float64)

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        t = math.pi * torch.rand(n, generator=rng, dtype=torch.float64)
        upper = torch.rand(n, generator=rng) < 0.5
        return self._curve(t, upper) + 0.1 * torch.randn(n, 2, generator=rng, dtype=torch.float64)

    def log_prob(self, x: Tensor) -> Tensor:
        t = math.pi * (torch.arange(ARC, dtype=torch.float64) + 0.5) / ARC
        points = torch.cat([self._curve(t, torch.full((ARC,), side)) for side in (True, False)])
        return torch.logsumexp(-50 * torch.cdist(x, points).square(), 1) - math.log(2 * ARC) - math.log(2 * math.pi * 0.01)


LAWS = (EightGaussians(), TwoMoons())


def grid(law: EightGaussians | TwoMoons, points: int = 200) -> tuple[Tensor, float]:
    """Points (points², 2) of a square around the law, and the area of a cell."""
    line = torch.linspace(-law.reach, law.reach, points, dtype=torch.float64)
    return torch.cartesian_prod(line, line), float(line[1] - line[0]) ** 2


def total_variation(law: EightGaussians | TwoMoons, log_density: Tensor, points: int = 200) -> float:
    """½ ∫ |p − q| on the grid, q proportional to exp(``log_density``) at its points."""
    x, area = grid(law, points)
    q = torch.softmax(log_density.double(), 0)
    return float((law.log_prob(x).exp() * area - q).abs().sum()) / 2
