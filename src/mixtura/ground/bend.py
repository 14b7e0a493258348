"""The function ℓ(t) = log(e^t − 1), which bends columns with a wall (``ground.encode``), and its inverses, to full precision."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def soft_log(t: Tensor) -> tuple[Tensor, Tensor]:
    """ℓ(t) = log(e^t − 1) and the logarithm of its slope, for t > 0."""
    log_slope = -torch.log(-torch.expm1(-t))
    return t - log_slope, log_slope


def soft_exp(z: Tensor) -> Tensor:
    """The inverse of ℓ, to full precision (torch's softplus is the identity above 20)."""
    return z.clamp(min=0) + torch.log1p(torch.exp(-z.abs()))


def from_nearer(z: Tensor, length: Tensor) -> Tensor:
    """The u with ℓ(u) − ℓ(L − u) = z ≤ 0, where L = ``length``. With R = e^z, E = e^L − 1 and w = e^u − 1, w solves
    w² + (1 + R) w = R E, whose positive root 2RE / (1 + R + √((1 + R)² + 4RE)) loses no digits. It is computed in logarithms,
    because e^L may overflow."""
    log_re, log_r = z + soft_log(length)[0], torch.log1p(torch.exp(z))
    root = torch.logaddexp(2 * log_r, math.log(4) + log_re) / 2
    return soft_exp(math.log(2) + log_re - torch.logaddexp(log_r, root))
