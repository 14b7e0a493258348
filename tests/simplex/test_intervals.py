"""How sure weights are: by the delta method, where the optimum is inside and one source of luck at work."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mixtura.ground.rng import generator
from mixtura.simplex import intervals
from mixtura.simplex.polytope import Polytope

K = np.array([[1.0, 0.2], [0.2, 0.7]])
#: of two arms a₁ = (K₂₂ − K₁₂ + (f₂ − f₁) / 2) / CURVED
CURVED = K[0, 0] + K[1, 1] - 2 * K[0, 1]
BEST = (K[1, 1] - K[0, 1]) / CURVED
N = 256


@pytest.mark.parametrize(
    "source, slope",
    [("near itself", 2 * BEST), ("near the other", 1 - 2 * BEST), ("linear", 0.5), ("reference", 0.5)],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_every_source_of_luck_counts(source, slope):
    """∂a₁/∂K₁₁ = −a₁ / CURVED twice, since a sample is in both factors, and likewise. Noise of deviation 1/5, exactly."""
    noise = torch.as_tensor(np.random.default_rng(0).normal(size=N))
    noise = 0.2 * (noise - noise.mean()) / noise.std(correction=0)
    near, linear = [torch.as_tensor(row).repeat(N, 1) for row in K], [torch.zeros(N).double(), torch.zeros(N).double()]
    beside = torch.zeros(N, 2).double()
    if source == "near itself":
        near[0][:, 0] += noise
    elif source == "near the other":
        near[0][:, 1] += noise
    elif source == "linear":
        linear[0] += noise
    else:
        beside[:, 0] += noise
    both = [torch.zeros_like(beside), beside]
    low, high = intervals.of_quadratic(K, np.zeros(2), near, linear, references=both, rng=generator(0)).T
    expected = slope / CURVED * 0.2 / math.sqrt(N)
    assert low[0] < BEST < high[0]
    assert (high[0] - low[0]) / (2 * 1.96) == pytest.approx(expected, rel=0.15)
    assert low[1] == pytest.approx(1 - high[0]), "of two arms one has what the other has not"


def noisy(which):
    """near and linear (N, …) of two arms, with the same noise in all that is named."""
    noise = 0.2 * torch.as_tensor(np.random.default_rng(1).normal(size=N))
    near, linear = [torch.as_tensor(row).repeat(N, 1) for row in K], [torch.zeros(N).double(), torch.zeros(N).double()]
    for (kind, arm), times in which.items():
        (near[arm][:, arm] if kind == "near" else linear[arm]).add_(times * noise)
    return near, linear, float(noise.std())


def test_arms_are_drawn_on_their_own():
    """The luck of two arms adds up, though the numbers of their samples are the same row by row."""
    near, linear, deviation = noisy({("linear", 0): 1, ("linear", 1): 1})
    low, high = intervals.of_quadratic(K, np.zeros(2), near, linear, rng=generator(0)).T
    expected = math.sqrt(2) * 0.5 / CURVED * deviation / math.sqrt(N)
    assert (high[0] - low[0]) / (2 * 1.96) == pytest.approx(expected, rel=0.15)


def test_a_sample_brings_its_similarity_and_its_loss_together():
    """a₁ stays where it is if f₁ falls by 2 a₁ times what K₁₁ rises by, which a sample moves twice."""
    near, linear, _ = noisy({("near", 0): 1, ("linear", 0): -4 * BEST})
    found = intervals.of_quadratic(K, np.zeros(2), near, linear, rng=generator(0))
    assert found == pytest.approx(np.array([[BEST, BEST], [1 - BEST, 1 - BEST]]), abs=1e-9)


def test_subsamples_obey_the_constraints():
    """A cap far below what an arm would have: the weights are at it whatever the luck."""
    near, linear, _ = noisy({("near", 0): 1})
    cap = Polytope(lower=0.0, upper=np.array([BEST - 0.2, 1.0]))
    found = intervals.of_quadratic(K, np.zeros(2), near, linear, within=cap, rng=generator(0))
    assert found == pytest.approx(np.array([[BEST - 0.2] * 2, [1.2 - BEST] * 2]), abs=1e-6)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_a_subsample_of_a_share_moves_by_the_root_of_the_odds(share):
    """Drawn without replacement, its mean has σ² / n · (1 − share) / share around that of all."""
    again = np.array([0.5, 0.5]) + np.linspace(-0.1, 0.1, 2001)[:, None] * [1, -1]
    half = 0.095 * math.sqrt(share / (1 - share))
    expected = [[0.5 - half, 0.5 + half]] * 2 if half < 0.5 else [[0, 1]] * 2
    assert intervals.around(np.array([0.5, 0.5]), again, share) == pytest.approx(np.array(expected), abs=1e-9)


def test_a_flat_optimum_has_what_subsamples_did():
    """All subsamples at one side: the interval reaches as far to theirs as its reflection to the other, and stays in [0, 1]."""
    found = intervals.around(np.array([0.9, 0.1]), np.tile([0.7, 0.3], (50, 1)), 0.5)
    assert found == pytest.approx(np.array([[0.7, 1.0], [0.0, 0.3]]))


def test_without_noise_weights_are_sure():
    near, linear = [torch.as_tensor(row).repeat(40, 1) for row in K], [torch.zeros(40).double()] * 2
    found = intervals.of_quadratic(K, np.zeros(2), near, linear, rng=generator(0))
    assert found == pytest.approx(np.array([[BEST, BEST], [1 - BEST, 1 - BEST]]), abs=1e-12)
