"""Classifier two-sample test: chance on equal laws, the best possible share on known ones."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from mixtura.contracts import InputError
from mixtura.ground.rng import generator
from mixtura.metrics import c2st


def test_equal_laws_give_one_half_within_the_error():
    scores = []
    for seed in range(6):
        x, y = np.random.default_rng(seed).normal(size=(2, 500, 4))
        found = c2st(x, y, rng=generator(seed))
        assert found.n == 500 and found.error == pytest.approx(0.5 / math.sqrt(500), rel=0.01)
        scores.append((found.value - 0.5) / found.error)
    assert abs(np.mean(scores)) < 1.2 and np.abs(scores).max() < 4


@pytest.mark.parametrize("shift", [1.0, 2.0])
def test_a_shift_is_told_almost_as_well_as_can_be(shift):
    """The best rule for N(0, 1) and N(δ, 1) is right with probability Φ(δ/2)."""
    x, y = np.random.default_rng(0).normal(size=(2, 3000, 2))
    y[:, 0] += shift
    best = norm.cdf(shift / 2)
    assert best - 0.04 < c2st(100 + 3 * x, 100 + 3 * y, rng=generator(0)).value < best + 0.02


def test_what_no_mean_shows_is_seen():
    """Same margins, opposite correlation: a linear classifier is at chance."""
    x, z = np.random.default_rng(0).normal(size=(2, 1000))
    rows = lambda sign: np.stack([x, sign * 0.9 * x + 0.44 * z], 1)  # noqa: E731
    assert c2st(rows(1), rows(-1), rng=generator(0)).value > 0.8


def test_the_larger_set_is_no_advantage_and_sets_apart_are_told_always():
    rng = np.random.default_rng(0)
    found = c2st(rng.normal(size=(2000, 3)), rng.normal(size=(200, 3)), rng=generator(0))
    assert found.n == 200 and abs(found.value - 0.5) < 4 * found.error
    apart = c2st(rng.normal(size=(200, 3)), 50 + rng.normal(size=(150, 3)), rng=generator(0))
    assert apart.value == 1 and 0 < apart.error < 0.02


def test_a_feature_may_be_scaled_and_bent():
    x, y = np.random.default_rng(0).normal(size=(2, 300, 3))
    bent = lambda z: np.exp(1e3 * (z / 1e3 + 1) - 1e3)  # noqa: E731
    assert c2st(x, y + 0.5, rng=generator(0)).value == pytest.approx(
        c2st(bent(x), bent(y + 0.5), rng=generator(0)).value, abs=0.02
    )


def test_same_seed_same_bits_and_global_generators_are_left_alone():
    x, y = np.random.default_rng(0).normal(size=(2, 100, 3))
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, again = (c2st(x, y, rng=generator(0)) for _ in range(2))
    assert first == again
    assert torch.equal(torch_state, torch.get_rng_state()) and (numpy_state == np.random.get_state()[1]).all()


@pytest.mark.parametrize("n", [4, 7, 20, 28, 30, 60])
def test_sets_far_apart_are_told_apart_by_few_rows(n):
    rng = np.random.default_rng(n)
    assert c2st(rng.normal(0, 1, (n, 1)), rng.normal(100, 1, (n, 1)), rng=generator(0)).value == 1


def spread(n, shift, times):
    """Of the values of so many experiments their mean, deviation and share within 2 errors of their mean, and the mean error."""
    found = []
    for seed in range(times):
        x, y = np.random.default_rng(seed).normal(size=(2, n, 2))
        y[:, 0] += shift
        found.append(c2st(x, y, rng=generator(seed)))
    value, error = (np.array([getattr(e, name) for e in found]) for name in ("value", "error"))
    return value.mean(), value.std(), (np.abs(value - value.mean()) < 2 * error).mean(), error.mean()


def test_the_error_is_the_spread_over_fresh_draws():
    """At equal laws every row judged is a coin; 60 experiments know a deviation to 9 %."""
    mean, deviation, inside, error = spread(60, 0.0, 60)
    assert abs(mean - 0.5) < 3 * error / math.sqrt(60) and 0.78 < deviation / error < 1.25 and inside > 0.87


@pytest.mark.slow
@pytest.mark.parametrize(("n", "times"), [(30, 400), (100, 400), (200, 400), (500, 200), (2000, 100)])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_error_is_the_spread_from_few_rows_to_many(n, times, shift):
    mean, deviation, inside, error = spread(n, shift, times)
    known = 1 / math.sqrt(2 * times)
    # of laws apart the rows learnt from matter as well, where they are few
    most = 1.25 if shift and n < 100 else 1.05
    assert 1 - 3.5 * known - 0.05 < deviation / error < most + 3.5 * known
    assert inside > 0.95 - 0.04 - 3 * math.sqrt(0.95 * 0.05 / times)
    assert shift or abs(mean - 0.5) < 4 * error / math.sqrt(times)


def test_far_below_one_half_is_dependence_and_no_value():
    x = np.random.default_rng(0).normal(size=(300, 3))
    found = c2st(x, x, rng=generator(0))
    assert math.isnan(found.value) and math.isnan(found.error) and "depend on one another" in found.reason
    apart = c2st(x[:150], x[150:], rng=generator(0))
    assert apart.reason == "" and 0.3 < apart.value < 0.7


def test_too_few_rows_are_refused():
    with pytest.raises(InputError, match="real: expected 4 rows or more, got 3"):
        c2st(np.zeros((3, 2)), np.zeros((9, 2)), rng=generator(0))
