"""The exponential moving average of the parameters in training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

#: decay of the moving average in a stage without a stopping loss
AVERAGE = 0.999


class Average:
    """Exponential moving average of tensors by name, θ̄ ← d θ̄ + (1 − d) θ with d = min(decay, (1 + t)/(10 + t)). Integer tensors
    keep their last value. The average of a tensor that is added to ``live`` later starts at its value at that time."""

    def __init__(self, live: Mapping[str, Tensor], decay: float) -> None:
        self.live, self.decay, self.t = live, decay, 0
        self.mean = {name: now.detach().clone() for name, now in live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Include the current values, after one step."""
        self.t += 1
        d = min(self.decay, (1 + self.t) / (10 + self.t))
        means, values = [], []
        for name, now in self.live.items():
            if name not in self.mean:
                self.mean[name] = now.detach().clone()
            elif now.is_floating_point():
                means.append(self.mean[name])
                values.append(now.detach())
            else:
                self.mean[name].copy_(now)
        get_ema_multi_avg_fn(d)(means, values, self.t)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average with the live values; a second call undoes it."""
        for name, mean in self.mean.items():
            held = self.live[name].detach().clone()
            self.live[name].copy_(mean)
            mean.copy_(held)
