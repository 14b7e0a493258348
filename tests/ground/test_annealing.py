"""Annealed importance sampling against partition functions in closed form, and samples against their law."""

import math

import pytest
import torch

from mixtura.contracts import InputError
from mixtura.ground.annealing import PILOT, anneal, between, by_mala, effective_sample_size_of, sigmoidal, systematic
from mixtura.ground.rng import generator


def quadratic(mean: float, deviation: float):
    return lambda x: ((x - mean) / deviation).square().sum(1) / 2


def normal(n: int, d: int, seed: int, mean: float = 0.0, deviation: float = 1.0) -> torch.Tensor:
    return mean + deviation * torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def pilot_of(x: torch.Tensor) -> torch.Tensor:
    """Other rows of the law of x, which is a normal."""
    fresh = torch.randn(PILOT, x.shape[1], generator=generator(77), dtype=torch.float64)
    return x.mean(0) + x.std(0) * fresh


@pytest.mark.parametrize("d", [1, 5])
def test_log_z_of_gaussians(d):
    """From N(0, 1) to N(2, .5²), both without their constants: log Z₁/Z₀ = d log .5."""
    path, betas, rng = between(quadratic(0, 1), quadratic(2, 0.5)), sigmoidal(100), generator(1)
    x = normal(400, d, 0)
    found = anneal(x, path, by_mala(pilot_of(x), path, betas, rng), betas).log_ratio
    assert abs(found.value - d * math.log(0.5)) < 4 * found.error + 0.01
    assert found.error < 0.2 and found.n == 400


def test_few_steps_are_unbiased_too():
    """E w = Z₁/Z₀ for any number of steps: the mean of many runs with 3 steps, where one run is far off."""
    path, betas, weights = between(quadratic(0, 1), quadratic(1, 1)), sigmoidal(3), []
    for seed in range(40):
        rng = generator(seed)
        x = normal(500, 1, seed)
        weights.append(anneal(x, path, by_mala(pilot_of(x), path, betas, rng), betas).log_weights.exp())
    every = torch.cat(weights)
    assert abs(float(every.mean()) - 1) < 4 * float(every.std()) / math.sqrt(len(every))
    assert float(every.std()) > 0.3


def test_the_way_back_encloses_the_truth():
    """With few temperatures the way there is below log Z and the way back above it, in the mean."""
    path, betas, there, back = between(quadratic(0, 1), quadratic(3, 0.5)), sigmoidal(8), [], []
    for seed in range(20):
        rng = generator(seed)
        first, last = normal(50, 2, seed), normal(50, 2, 100 + seed, 3.0, 0.5)
        there.append(anneal(first, path, by_mala(pilot_of(first), path, betas, rng), betas).log_weights.mean())
        again = betas[::-1]
        back.append(-anneal(last, path, by_mala(pilot_of(last), path, again, rng), again).log_weights.mean())
    truth = 2 * math.log(0.5)
    assert float(torch.stack(there).mean()) < truth - 0.1 < truth + 0.1 < float(torch.stack(back).mean())


def test_drawn_again_the_chains_are_samples_of_the_end():
    """Two modes with weights ¼ and ¾, which no chain moves between."""
    def end(x):
        return -torch.logsumexp(torch.stack([
            math.log(0.25) - (x[:, 0] + 4).square() / 0.5, math.log(0.75) - (x[:, 0] - 4).square() / 0.5]), 0)  # fmt: skip
    path, betas, rng = between(quadratic(0, 4), end), sigmoidal(40), generator(3)
    x = normal(4_000, 1, 5, 0.0, 4.0)
    found = anneal(x, path, by_mala(pilot_of(x), path, betas, rng), betas, redraw=rng)
    assert abs(float((found.x > 0).double().mean()) - 0.75) < 0.05
    assert abs(float(found.x[found.x > 0].std()) - 0.5) < 0.05
    assert found.effective == pytest.approx(4_000)
    assert math.isnan(found.log_ratio.error) and "drawn again" in found.log_ratio.reason
    assert found.log_ratio.value == pytest.approx(math.log(math.sqrt(0.5 * math.pi) / (4 * math.sqrt(2 * math.pi))), abs=0.1)


def test_chains_are_drawn_again_where_half_of_them_are_spent():
    """From N(0, 1) to exp βx without any move: the effective share of the weights is about exp(−β²), which is ½ at β = .83."""
    chains: list[int] = []

    def move(x: torch.Tensor, beta: float) -> torch.Tensor:
        chains.append(len(x.unique()))
        return x

    betas = [k / 10 for k in range(11)]
    found = anneal(normal(5_000, 1, 8), lambda x, beta: -beta * x[:, 0], move, betas, redraw=generator(2))
    assert chains[:8] == [5_000] * 8 and max(chains[8:]) < 5_000
    assert found.log_mean == pytest.approx(0.5, abs=0.1)


def test_systematic_draws_are_next_to_their_shares():
    weights = torch.tensor([0.1, 0.55, 0.0, 0.35], dtype=torch.float64)
    for n in (4, 100, 7):
        counts = torch.bincount(systematic(weights.log(), generator(0), n), minlength=4)
        assert counts.sum() == n and ((counts - n * weights).abs() < 1 + 1e-9).all() and counts[2] == 0


def test_the_effective_sample_size():
    assert effective_sample_size_of(torch.zeros(7)) == pytest.approx(7)
    assert effective_sample_size_of(torch.tensor([0.0, -800.0, -900.0])) == pytest.approx(1)


def test_betas_go_from_0_to_1():
    betas = sigmoidal(10)
    assert betas[0] == 0 and betas[-1] == 1 and len(betas) == 11 and betas == sorted(betas)
    assert betas[1] < betas[6] - betas[5]
    for odd in ([], [0.0], [1.0], [0.2, 0.5], [1.0, 0.5, 0.7], [0.0, 0.7, 0.3, 1.0], [0.0, 2.0]):
        with pytest.raises(InputError, match="betas: expected numbers that rise from 0 to 1, or fall from 1 to 0"):
            anneal(torch.zeros(4, 1), lambda x, beta: beta * x[:, 0], lambda x, beta: x, odd)
    for steps, sharpness in ((0, 4.0), (-1, 4.0), (4, 0.0), (4, math.nan)):
        with pytest.raises(InputError, match="steps, sharpness: expected"):
            sigmoidal(steps, sharpness)
