"""Losses that several rooms share: score matching, noise contrast, contrast of energies.

An energy is a function of rows (n, *shape) → (n,), −log p up to a constant and differentiable; its score is s(x) = −∇E(x).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import softplus

from mixtura.ground import rng as random

#: (n, *shape) → (n,)
Energy = Callable[[Tensor], Tensor]


def denoising_score_matching(energy: Energy, x: Tensor, level: float, rng: torch.Generator) -> Tensor:
    """½ E |s ∇E(x + s ε) − ε|², s = ``level``: its minimum is at the score of p noised by N(0, s²) (Vincent 2011). Scalar,
    differentiable in the parameters of the energy, about half the number of entries where the energy is flat."""
    noise = random.normal(tuple(x.shape), rng, x)
    slope = _slope(energy, x + level * noise)
    return (level * slope - noise).flatten(1).square().sum(1).mean() / 2


def sliced_score_matching(energy: Energy, x: Tensor, rng: torch.Generator, slices: int = 1) -> Tensor:
    """E_x E_v [vᵀ ∇s(x) v + ½ |s(x)|²] with directions v ~ N(0, I): score matching without the Laplacian (Song et al. 2019,
    equation 8, with the variance of the second term reduced). Its minimum over s is at the score of p, the value
    −½ E |∇log p|². Scalar, differentiable in the parameters of the energy."""
    x = x.detach().requires_grad_()
    slope = _slope(energy, x)
    total = slope.flatten(1).square().sum(1).mean() / 2
    for _ in range(slices):
        v = random.normal(tuple(x.shape), rng, x)
        with torch.enable_grad():
            (along,) = torch.autograd.grad((slope * v).sum(), x, create_graph=True)
        total = total - (along * v).flatten(1).sum(1).mean() / slices
    return total


def _slope(energy: Energy, x: Tensor) -> Tensor:
    """∇E at rows x, with the graph of the parameters."""
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        return torch.autograd.grad(energy(x).sum(), x, create_graph=True)[0]


def noise_contrast(at_data: Tensor, at_noise: Tensor) -> Tensor:
    """−½ E_p log σ(f) − ½ E_q log σ(−f), from f at rows of p (n,) and of q (m,): least at f = log p/q. With a known q this is
    noise-contrastive estimation of p (Gutmann & Hyvärinen 2010, equation 3, one row of noise for each of data)."""
    return (softplus(-at_data).mean() + softplus(at_noise).mean()) / 2


def contrast(at_data: Tensor, at_samples: Tensor, penalty: float) -> Tensor:
    """E_data E − E_samples E + γ (E_data E² + E_samples E²), from energies (n,) and (m,), γ = ``penalty``. The gradient of the
    first two terms is that of −log-likelihood where the samples are those of the energy (Hinton 2002); the penalty keeps the
    energies near 0 (Du & Mordatch 2019, section 3)."""
    return at_data.mean() - at_samples.mean() + penalty * (at_data.square().mean() + at_samples.square().mean())
