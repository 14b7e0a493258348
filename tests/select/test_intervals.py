"""How sure weights are: by the delta method, where the optimum is inside and one source of luck at work."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mixtura.rng import generator
from mixtura.select import intervals

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
    low, high = intervals.of_quadratic(K, np.zeros(2), near, linear, beside=[beside], rng=generator(0)).T
    expected = slope / CURVED * 0.2 / math.sqrt(N)
    assert low[0] < BEST < high[0]
    assert (high[0] - low[0]) / (2 * 1.96) == pytest.approx(expected, rel=0.15)
    assert low[1] == pytest.approx(1 - high[0]), "of two arms one has what the other has not"


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
