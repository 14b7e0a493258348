"""Numerics of normal distributions: an accurate Φ, log-densities, triangular factors, quantiles of a mixture."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG_2PI, SQRT_2PI = math.log(2 * math.pi), math.sqrt(2 * math.pi)
LOG_SQRT_2PI = 0.5 * LOG_2PI

#: the most steps, bisections and Newton's, that bracket a quantile to the last bit
ROUNDS = 100


def ndtr(a: Tensor) -> Tensor:
    """Φ(a), with full relative precision in the lower tail, where torch's ``ndtr`` has none below 1e-16."""
    return 0.5 * torch.erfc(-math.sqrt(0.5) * a)


def normal_nats(z: Tensor, log_scale: Tensor) -> Tensor:
    """log N(y; μ, σ²) at z = (y − μ)/σ."""
    return -0.5 * z.square() - log_scale - LOG_SQRT_2PI


def solve_lower(factor: Tensor, off: Tensor) -> Tensor:
    """L⁻¹ off, for L (*batch, K, d, d) and off (*sample, *batch, K, d), without a copy of L for each sample."""
    samples = off.dim() + 1 - factor.dim()
    columns = off.reshape(math.prod(off.shape[:samples]), *off.shape[samples:]).movedim(0, -1)
    return torch.linalg.solve_triangular(factor, columns, upper=False).movedim(-1, 0).reshape(off.shape)


def lower_factor(root: Tensor) -> Tensor:
    """The lower triangular L with a positive diagonal and L Lᵀ = A Aᵀ, for A (…, d, m) with m ≥ d. It is computed by QR: A Aᵀ
    itself would lose half of the digits, which matter where a deviation is much smaller than another."""
    upper = torch.linalg.qr(root.mT)[1]
    return (upper * torch.where(upper.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).unsqueeze(-1)).mT


def mixture_quantile(q: Tensor, weights: Tensor, means: Tensor, deviations: Tensor) -> Tensor:
    """The root y of Σ_k π_k Φ((y − μ_k)/σ_k) = q, which lies between the quantiles of the components."""
    ends = means + deviations * torch.special.ndtri(q).unsqueeze(-2)
    low, high = ends.amin(-2), ends.amax(-2)
    at_end = ~torch.isfinite(low)
    low, high = low.masked_fill(at_end, 0.0), high.masked_fill(at_end, 0.0)
    y = (low + high) / 2
    for _ in range(ROUNDS):
        a = (y.unsqueeze(-2) - means) / deviations
        above = (weights * ndtr(a)).sum(-2) - q
        low, high = torch.where(above <= 0, y, low), torch.where(above >= 0, y, high)
        converged = (above.abs() <= (1e-13 * q).clamp(max=1e-15)) | (high - low <= 1e-15 * (low.abs() + high.abs()))
        if bool(converged.all()):
            break
        slope = (weights * (-0.5 * a.square() - LOG_SQRT_2PI).exp() / deviations).sum(-2)
        newton = y - above / slope.clamp(min=1e-300)
        y = torch.where(converged, y, torch.where((newton > low) & (newton < high), newton, (low + high) / 2))
    return torch.where(at_end, ends.amin(-2), y)
