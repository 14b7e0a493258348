"""Losses of energies against closed forms on Gaussians."""

import math

import numpy as np
import pytest
import torch

from mixtura.ground.losses import contrast, denoising_score_matching, noise_contrast, sliced_score_matching
from mixtura.ground.rng import generator

N = 20_000


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    """N(0, 4)."""
    return 2 * torch.randn(N, 1, generator=generator(0), dtype=torch.float64)


def slope_energy(a):
    return lambda y: -a * y.square().sum(1) / 2


def test_denoising_has_its_minimum_at_the_score_of_the_noised_law(x):
    """p = N(0, 4), noise .5: the score of N(0, 4.25) is −y/4.25 = −.235294 y. The loss is a parabola in the slope."""
    many = 2 * torch.randn(1_000_000, 1, generator=generator(3), dtype=torch.float64)
    slopes = np.array([-0.4, -0.2, 0.0])
    losses = [float(denoising_score_matching(slope_energy(float(a)), many, 0.5, generator(4)).detach()) for a in slopes]
    second, first, _ = np.polyfit(slopes, losses, 2)
    assert -first / (2 * second) == pytest.approx(-0.235294, abs=0.004)


def test_sliced_score_matching_has_its_minimum_at_the_score(x):
    """−y/4, and there the loss is −½ E |∇log p|² = −1/8."""
    grid = np.linspace(-0.35, -0.15, 41)
    losses = [float(sliced_score_matching(slope_energy(float(a)), x, generator(1), slices=4).detach()) for a in grid]
    assert grid[int(np.argmin(losses))] == pytest.approx(-0.25, abs=0.011)
    assert min(losses) == pytest.approx(-0.125, abs=0.01)


def test_slices_give_the_laplacian():
    """E_v vᵀ H v = tr H, here of an energy that is not quadratic."""
    x = torch.randn(2, 3, generator=generator(2), dtype=torch.float64)
    energy = lambda y: (y**4).sum(1) + y[:, 0] * y[:, 1]  # noqa: E731
    found = float(sliced_score_matching(energy, x.repeat(5_000, 1), generator(3)).detach())
    y = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(energy(y).sum(), y)
    truth = float((slope.square().sum(1) / 2 - (12 * x**2).sum(1)).mean())
    assert found == pytest.approx(truth, abs=0.5)


def test_noise_contrast_recovers_the_coefficients_of_a_law():
    """p = N(1, 1) against noise N(0, 4): log p/q = a + b x + c x² with c = −3/8, b = 1, a = log 2 − ½; by Newton steps, within 2
    standard errors, as logistic regression's information has them."""
    rng = generator(5)
    p = 1 + torch.randn(N, generator=rng, dtype=torch.float64)
    q = 2 * torch.randn(N, generator=rng, dtype=torch.float64)
    basis = lambda y: torch.stack([torch.ones_like(y), y, y * y], 1)  # noqa: E731
    w = torch.zeros(3, dtype=torch.float64)
    loss = lambda w: noise_contrast(basis(p) @ w, basis(q) @ w)  # noqa: E731
    for _ in range(30):
        w = w - torch.linalg.solve(torch.func.hessian(loss)(w), torch.func.grad(loss)(w))
    every, labels = torch.cat([basis(p), basis(q)]), torch.sigmoid(torch.cat([basis(p), basis(q)]) @ w)
    information = (every * (labels * (1 - labels))[:, None]).T @ every
    errors = torch.linalg.inv(information).diagonal().sqrt()
    truth = torch.tensor([math.log(2) - 0.5, 1.0, -0.375], dtype=torch.float64)
    assert ((w - truth).abs() < 2.5 * errors).all() and float(errors.max()) < 0.05


def test_contrast_is_the_gradient_of_the_likelihood():
    """E = θ x² / 2: d/dθ −log-likelihood = ½ (E_data x² − 1/θ)."""
    data, samples = torch.randn(N, generator=generator(0)), torch.randn(N, generator=generator(1)) / math.sqrt(2)
    theta = torch.tensor(2.0, requires_grad=True)
    contrast(theta * data**2 / 2, theta * samples**2 / 2, 0.0).backward()
    assert float(theta.grad) == pytest.approx(0.5 * (1 - 0.5), abs=0.02)
    values = torch.tensor([1.0, 3.0]), torch.tensor([2.0])
    assert float(contrast(*values, 0.5)) == pytest.approx(0.0 + 0.5 * (5 + 4))


def test_noise_contrast_of_an_energy_that_says_nothing_is_log_2():
    assert float(noise_contrast(torch.zeros(3), torch.zeros(5))) == pytest.approx(math.log(2))
