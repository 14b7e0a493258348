"""Heads: last layers for your own network, which predict the parameters of a distribution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mixtura.ground.distributions import MixtureDensity
from mixtura.ground.noise import Noise, NoiseKind


class MixtureDensityHead(nn.Module):
    """Predicts a mixture of Gaussians from the features of a network: (*batch, features) → :class:`MixtureDensity` with batch
    shape ``batch`` and event shape (targets,), for any number of batch axes (rows; or rows and steps of a sequence).

        head = MixtureDensityHead(hidden_size, targets=2, components=5)
        loss = -head(hidden).log_prob(y).mean()

    components, noise, rank, scale, floor: as in :class:`mixtura.ground.noise.Noise`. The mixture is in the units of the y you
    train on: standardise y, because the initial components are placed for a y of mean 0 and deviation 1. A layer in bfloat16
    predicts a mixture in float32.
    """

    def __init__(
        self, features: int, targets: int = 1, components: int = 5, *,
        noise: NoiseKind = "diagonal", rank: int = 1, scale: float = 1.0, floor: float = 1e-3,
    ) -> None:  # fmt: skip
        super().__init__()
        self.noise = Noise(noise, components, targets, rank, scale, floor)
        self.linear = nn.Linear(features, self.noise.width)
        # spread the initial components between −1.5 and 1.5 standard deviations
        means = torch.linspace(-1.5, 1.5, components)[:, None].expand(-1, targets) if components > 1 else torch.zeros(1, targets)
        with torch.no_grad():
            self.linear.bias.copy_(self.noise.start(means, 0.75 if components > 1 else 1.0))

    def forward(self, hidden: Tensor) -> MixtureDensity:
        """(*batch, features) → the mixtures."""
        return self.noise.law(self.linear(hidden))
