"""Calibration and proper scores against perfect, wrong and closed-form forecasts, in data units (mean 100, deviation 3)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import ndtri
from scipy.stats import norm

from mixtura.contracts import InputError
from mixtura.ground.rng import generator
from mixtura.metrics import calibration


def forecast(s, n, *, spread=1.0, shift=0.0, seed=0, d=None):
    """Targets N(100 + m, 3²) with m known to the model, and its s draws, ``spread`` times as wide and shifted."""
    rng = np.random.default_rng(seed)
    shape = (n,) if d is None else (n, d)
    m = 100 + 5 * rng.standard_normal(shape)
    return m + 3 * rng.standard_normal(shape), m + shift + spread * 3 * rng.standard_normal((s, *shape))


def rounded(pair, step=4.0):
    return tuple(np.round(a / step) * step for a in pair)


# ---------------------------------------------------------------------------------------------------- calibration


@pytest.mark.parametrize("s", [1, 7, 99])
@pytest.mark.parametrize("ties", [False, True])
def test_ranks_of_a_perfect_model_are_uniform(s, ties):
    pair = forecast(s, 4000, seed=s)
    u = calibration.pit(*(rounded(pair) if ties else pair), rng=generator(1))
    assert u.shape == (4000,) and 0 < u.min() and u.max() < 1
    assert calibration.pit_uniformity(u).p > 0.01


def test_ranks_of_several_columns_are_those_of_each():
    y, draws = forecast(20, 500, d=2)
    u = calibration.pit(y, draws, rng=generator(1))
    assert u.shape == (500, 2)
    cell = (draws < y).sum(0)
    assert ((cell / 21 <= u) & (u < (cell + 1) / 21)).all()


@pytest.mark.parametrize(("spread", "shift"), [(0.7, 0), (1.4, 0), (1, 1.0)])
def test_ranks_of_a_wrong_model_are_not(spread, shift):
    y, draws = forecast(99, 4000, spread=spread, shift=shift)
    found = calibration.pit_uniformity(calibration.pit(y, draws, rng=generator(1)))
    # the law of u is known: P(u ≤ t) = Φ(spread Φ⁻¹(t) + shift / 3)
    t = np.linspace(1e-6, 1 - 1e-6, 20_001)
    want = np.abs(norm.cdf(spread * ndtri(t) + shift / 3) - t).max()
    assert found.p < 1e-6 and found.distance == pytest.approx(want, abs=0.03)


@pytest.mark.parametrize("s", [19, 99, 100])
@pytest.mark.parametrize("level", [0.5, 0.9])
@pytest.mark.parametrize("ties", [False, True])
def test_a_perfect_model_covers_what_it_promises_whatever_the_draws(s, level, ties):
    """And the raw quantiles of 19 draws would not: at level 0.5 they cover 0.475."""
    pair = forecast(s, 20_000, seed=s)
    found = calibration.coverage(*(rounded(pair) if ties else pair), level)
    assert abs(found.value - level) < 4 * found.error and 0 < found.error < 0.005
    if s == 19 and not ties:
        low, high = np.quantile(pair[1], [(1 - level) / 2, (1 + level) / 2], axis=0)
        assert ((pair[0] >= low) & (pair[0] <= high)).mean() < level - 0.02


@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_a_wrong_model_covers_as_much_as_its_law_does(spread):
    y, draws = forecast(999, 5000, spread=spread)
    found = calibration.coverage(y, draws, 0.9)
    assert found.value == pytest.approx(2 * norm.cdf(spread * ndtri(0.95)) - 1, abs=4 * found.error + 0.002)


@pytest.mark.parametrize(("level", "m"), [(0.5, 3), (0.8, 9), (0.9, 19)])
def test_the_width_is_that_between_the_outermost_draws_however_many_there_are(level, m):
    # E of the range of m normal draws: ∫ 1 − Φᵐ − (1 − Φ)ᵐ
    z = np.linspace(-9, 9, 20_001)
    span = np.trapezoid(1 - norm.cdf(z) ** m - norm.sf(z) ** m, z)
    for s in (m, 99, 1000):
        found = calibration.sharpness(forecast(s, 2000)[1], level)
        assert found.value == pytest.approx(3 * span, abs=4 * found.error)
    shifted = calibration.sharpness(1000 * forecast(99, 500)[1], level)
    assert shifted.value == pytest.approx(1000 * calibration.sharpness(forecast(99, 500)[1], level).value)
    assert calibration.sharpness(forecast(99, 500)[1], 0.93).value > calibration.sharpness(forecast(99, 500)[1], 0.9).value


# --------------------------------------------------------------------------------------------------- proper scores


MIXTURE = np.array([0.5, 0.3, 0.2]), np.array([95.0, 101.0, 110.0]), np.array([1.0, 3.0, 0.5])


def score_of_mixture(y):
    """∫ (F(t) − 1{t ≥ y})² dt"""
    w, μ, σ = MIXTURE

    def cdf(t):
        return float(w @ norm.cdf((t - μ) / σ))

    below = quad(lambda t: cdf(t) ** 2, 60, y, points=[v for v in μ if v < y], limit=200)[0]
    return below + quad(lambda t: (1 - cdf(t)) ** 2, y, 150, points=[v for v in μ if v > y], limit=200)[0]


@pytest.mark.parametrize("s", [2, 5, 50])
def test_the_score_of_draws_is_unbiased_for_any_number_of_them(s):
    w, μ, σ = MIXTURE
    rng, n = np.random.default_rng(s), 40_000
    k = rng.choice(3, (s, n), p=w)
    draws, y = μ[k] + σ[k] * rng.standard_normal((s, n)), np.full(n, 103.0)
    found = calibration.average(calibration.crps(y, draws))
    exact = score_of_mixture(103.0)
    assert abs(found.value - exact) < 4 * found.error < 0.15 * exact


def test_the_score_of_draws_is_its_double_sum():
    y, draws = forecast(7, 30)
    pairs = np.abs(draws[:, None] - draws[None]).sum((0, 1)) / (2 * 7 * 6)
    np.testing.assert_allclose(calibration.crps(y, draws), np.abs(draws - y).mean(0) - pairs, rtol=1e-12)
    # an offset of 1e9 costs no digits but its own
    np.testing.assert_allclose(calibration.crps(y + 1e9, draws + 1e9), calibration.crps(y, draws), atol=1e-5)


@pytest.mark.parametrize(("spread", "shift"), [(0.5, 0), (2, 0), (1, 2)])
def test_the_true_law_scores_best(spread, shift):
    score = calibration.crps
    right, wrong = score(*forecast(20, 2000)), score(*forecast(20, 2000, spread=spread, shift=shift))
    loss = calibration.average(wrong - right)
    assert loss.value > 4 * loss.error


# ----------------------------------------------------------------------------------------------------- wrong input

Y, DRAWS = np.zeros(3), np.zeros((19, 3))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: calibration.pit(np.zeros(0), np.zeros((5, 0)), rng=generator(0)), r"y: expected shape \(n,\) or \(n, d\)"),
        (lambda: calibration.pit(Y, np.zeros((3, 19)), rng=generator(0)), r"draws: expected shape \(s, 3\)"),
        (lambda: calibration.coverage(np.zeros((3, 2)), np.zeros((19, 3, 2)), 0.9), r"y: expected shape \(n,\) with"),
        (lambda: calibration.coverage(Y, DRAWS, 1.5), "level: expected a probability"),
        (lambda: calibration.coverage(Y, DRAWS[:18], 0.9), "draws: 18 a row .* expected 19 or more"),
        (lambda: calibration.sharpness(DRAWS, 0.99), "expected 199 or more"),
        (lambda: calibration.crps(Y, DRAWS[:1]), "s of 2 or more"),
        (lambda: calibration.crps(Y + [0, math.nan, 0], DRAWS), r"y: entry \(1,\) is nan"),
        (lambda: calibration.pit_uniformity([0.5, 1.5]), "u: expected"),
        (lambda: calibration.average([]), "scores: expected one row"),
    ],
)
def test_wrong_input_is_named(call, named):
    with pytest.raises(InputError, match=named):
        call()


@pytest.mark.parametrize("unit", [2.0**900, 2.0**-900])
def test_the_error_of_a_mean_has_the_unit_of_its_scores(unit):
    scores = np.array([1.0, 2.0, 4.0])
    plain, scaled = calibration.average(scores), calibration.average(scores * unit)
    assert (scaled.value, scaled.error) == (plain.value * unit, plain.error * unit)


@pytest.mark.parametrize("unit", [2.0**1020, 2.0**-1000])
def test_no_unit_is_too_large_or_too_small(unit):
    rng = np.random.default_rng(0)
    y, draws = rng.uniform(-4, 4, 30), rng.uniform(-4, 4, (40, 30))
    np.testing.assert_array_equal(calibration.crps(y * unit, draws * unit), calibration.crps(y, draws) * unit)
    for whole, part in (
        (calibration.average(y * unit), calibration.average(y)),
        (calibration.sharpness(draws * unit, 0.9), calibration.sharpness(draws, 0.9)),
    ):
        assert (whole.value, whole.error) == pytest.approx((part.value * unit, part.error * unit), rel=1e-12)
