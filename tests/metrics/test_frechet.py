"""Fréchet distance: closed forms, the bias taken away, an error that is the spread, and where other packages fail."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from mixtura.contracts import InputError
from mixtura.ground.rng import generator
from mixtura.metrics import TABLE, frechet_distance
from mixtura.metrics.frechet import Moments, debiased_distance, plain_distance


def moments(mean, cov, n=10**9):
    return Moments(torch.as_tensor(mean, dtype=torch.float64), torch.as_tensor(cov, dtype=torch.float64), n)


def textbook(x, y):
    """By the matrix root of scipy."""
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    return np.square(x.mean(0) - y.mean(0)).sum() + np.trace(s + t) - 2 * np.trace(scipy.linalg.sqrtm(s @ t)).real


def normal(seed, n, variances, shift=0.0, dtype=torch.float64):
    variances = torch.as_tensor(variances, dtype=torch.float64)
    return (torch.randn(n, len(variances), generator=generator(seed), dtype=torch.float64) * variances.sqrt() + shift).to(dtype)


@pytest.mark.parametrize(
    "a, b, distance",
    [
        (([0.0], [[4.0]]), ([3.0], [[1.0]]), 9 + 1),
        (([1.0, 2.0], np.diag([1.0, 9.0])), ([1.0, 4.0], np.diag([4.0, 0.0])), 4 + 1 + 9),
        (([0.0, 0.0], [[1.0, 1.0], [1.0, 1.0]]), ([0.0, 0.0], [[1.0, -1.0], [-1.0, 1.0]]), 4.0),
        (([5.0, 5.0], np.zeros((2, 2))), ([5.0, 6.0], np.zeros((2, 2))), 1.0),
    ],
    ids=["line", "one flat direction", "lines across", "points"],
)
def test_closed_forms(a, b, distance):
    for first, second in ((a, b), (b, a)):
        assert plain_distance(moments(*first), moments(*second)) == pytest.approx(distance, abs=1e-6)


@pytest.mark.parametrize("dtype, rel", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("n, m", [(300, 200), (200, 300)])
def test_agrees_with_the_matrix_root_in_the_units_of_the_data(dtype, rel, n, m):
    x, y = (
        100 + 3 * normal(seed, rows, np.arange(1.0, 21)) @ torch.eye(20, dtype=torch.float64).roll(1, 0).add(0.1)
        for seed, rows in ((0, n), (1, m))
    )
    found = frechet_distance(x.to(dtype), 1.1 * y.to(dtype), rng=generator(0), plain=True).value
    assert found == pytest.approx(textbook(x.numpy(), 1.1 * y.numpy()), rel=rel)


def test_moments_of_parts_add_up_and_match_numpy():
    x = 1000 + normal(0, 501, np.ones(7), dtype=torch.float32)
    whole, parts = Moments.of(x), Moments.of(x[:100]) + Moments.of(x[100:])
    np.testing.assert_allclose(whole.cov, np.cov(x.double().numpy(), rowvar=False), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(parts.cov, whole.cov, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(parts.mean, x.double().mean(0), rtol=1e-12)
    assert parts.n == 501


@pytest.mark.parametrize("n, m", [(30, 50), (50, 30), (30, 30), (30, 400)])
def test_fewer_rows_than_features_is_exact(n, m):
    """tr (S₁S₂)^½ = ‖X Yᵀ‖* / √((n−1)(m−1)); a matrix root of the singular product is complex or wrong in its digits."""
    x, y = normal(0, n, np.ones(100)), 2 * normal(1, m, np.ones(100)) + 0.1
    a, b = x - x.mean(0), y - y.mean(0)
    nuclear = torch.linalg.svdvals(a @ b.T).sum() / math.sqrt((n - 1) * (m - 1))
    exact = (x.mean(0) - y.mean(0)).square().sum() + a.square().sum() / (n - 1) + b.square().sum() / (m - 1) - 2 * nuclear
    found = frechet_distance(x, y, rng=generator(0), plain=True)
    assert found.value == pytest.approx(float(exact), rel=1e-7) and math.isfinite(found.error)


def test_ill_conditioned_covariances_keep_their_digits():
    """Newton–Schulz iterations stop at 1e-3 here, and a general eigenvalue solver goes complex."""
    variances = 10.0 ** -np.arange(12)
    mix = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0]
    cov = mix @ np.diag(variances) @ mix.T
    assert plain_distance(moments(np.zeros(12), cov), moments(np.zeros(12), 4 * cov)) == pytest.approx(variances.sum(), rel=1e-6)


CASES = [  # small versions of the four of benchmarks/metrics.py: features, power of the spectrum, rows
    (16, 0.0, 500),
    (64, 1.0, 1000),
    (64, 0.5, 2000),
    (128, 1.0, 600),
]


@pytest.mark.parametrize("features, power, rows", CASES)
def test_nearer_to_the_truth_than_plain_and_extrapolated(features, power, rows):
    variances, truth = np.arange(1.0, features + 1) ** -power, 0.2
    errors = []
    for seed in range(4):
        x, y = normal(seed, rows, variances), normal(seed + 100, rows, variances, math.sqrt(truth / features))
        real, sizes = Moments.of(x), np.linspace(rows / 4, rows, 15).astype(int)
        extrapolated = np.polyfit(1 / sizes, [plain_distance(real, Moments.of(y[:n])) for n in sizes], 1)[1]
        found = frechet_distance(x, y, rng=generator(seed))
        errors.append(np.abs(np.array([found.value, plain_distance(real, Moments.of(y)), extrapolated]) - truth))
    ours, plain, line = np.mean(errors, 0)
    assert ours < 0.3 * plain and ours < line


def exponential(seed, n, d, scale=1.0):
    return scale * -torch.rand(n, d, generator=generator(seed), dtype=torch.float64).clamp(min=1e-300).log()


@pytest.mark.parametrize(
    "draw, truth",
    [
        (lambda s: (normal(s, 200, np.ones(8)), normal(s + 999, 300, np.ones(8))), 0.0),
        (lambda s: (exponential(s, 500, 8), exponential(s + 999, 500, 8)), 0.0),
        (lambda s: (normal(s, 300, np.ones(64)), normal(s + 999, 300, np.ones(64))), 0.0),
        (lambda s: (normal(s, 300, np.ones(16)), normal(s + 999, 200, 4 * np.ones(16))), 16.0),
        (lambda s: (normal(s, 300, np.ones(16)), normal(s + 999, 300, 0.01 * np.ones(16))), 16 * 0.81),
        (lambda s: (exponential(s, 300, 8), exponential(s + 999, 200, 8, 3.0)), 8 * (4 + 4)),
        (lambda s: (100 + 3 * normal(s, 300, np.ones(8)), 103 + 3 * normal(s + 999, 300, np.ones(8))), 8 * 9.0),
    ],
    ids=["equal", "equal, skewed", "equal, n about 5 d", "wider", "collapsed", "skewed, apart", "shifted"],
)
def test_unbiased_and_the_error_is_the_spread_over_fresh_draws(draw, truth):
    found = [frechet_distance(*draw(seed), rng=generator(seed)) for seed in range(100)]
    values, spread = np.array([e.value for e in found]), np.std([e.value for e in found])
    assert abs(values.mean() - truth) < 0.35 * spread + 0.01 * truth
    assert 0.75 < np.mean([e.error for e in found]) / spread < 1.4  # 100 draws know the spread to 7 %


def test_the_correction_holds_where_covariances_differ():
    """The pooled covariance would take away twice as much here: the page's formula is for equal laws."""
    true = moments(np.zeros(16), np.eye(16), 200), moments(np.zeros(16), 0.01 * np.eye(16), 200)
    truth = 16 * 0.81
    excess = np.mean(
        [
            plain_distance(Moments.of(normal(s, 200, np.ones(16))), Moments.of(normal(s + 99, 200, 0.01 * np.ones(16)))) - truth
            for s in range(60)
        ]
    )
    # means: 16 · 1.01/200; covariances: s = 0.1 for each of 16
    assert plain_distance(*true) - debiased_distance(*true) == pytest.approx(16 * 1.01 / 200 + 0.01 * 0.05 / 2 * 16 * 17)
    assert excess == pytest.approx(plain_distance(*true) - debiased_distance(*true), abs=0.12)


@pytest.mark.parametrize("plain", [False, True])
def test_a_constant_set_is_a_point(plain):
    """|m₁ − m₂|² + tr S₂, of which the bias taken away is that of the mean."""
    x = normal(0, 40, [1.0, 4.0], dtype=torch.float64)
    point = torch.ones(30, 2, dtype=torch.float64)
    scatter = float(x.var(0).sum())
    exact = float((x.mean(0) - 1).square().sum()) + scatter - (0 if plain else scatter / 40)
    for a, b in ((x, point), (point, x)):
        found = frechet_distance(a, b, rng=generator(0), plain=plain)
        assert found.value == pytest.approx(exact, rel=0.02) and 0 < found.error < 2
    same = frechet_distance(point, point + 2, rng=generator(0), plain=plain)
    assert (same.value, same.error) == (8.0, 0.0)


def test_too_few_rows_for_the_features_have_no_value_but_a_reason():
    x, y = normal(0, 60, np.ones(500)), normal(1, 40, np.ones(500))
    found = frechet_distance(x, y, rng=generator(0))
    assert math.isnan(found.value) and math.isnan(found.error) and found.n == 40
    assert "40 rows are too few for 500 features" in found.reason and "give 1500" in found.reason
    assert frechet_distance(x, y, rng=generator(0), plain=True).value > 500
    constant = torch.ones(60, 480, dtype=torch.float64)  # what never varies adds nothing
    few = frechet_distance(torch.cat([x[:, :20], constant], 1), torch.cat([y[:, :20], constant[:40]], 1), rng=generator(0))
    assert "40 rows are too few for 20 features" in few.reason
    enough = frechet_distance(x[:, :13], y[:, :13], rng=generator(0))
    assert enough.reason == "" and abs(enough.value) < 4 * enough.error


@pytest.mark.parametrize("n, m, d", [(3, 3, 1), (30, 30, 10), (30, 3_000, 10), (90, 90, 30), (90, 3_000, 30)])
def test_with_just_enough_rows_the_bias_is_in_the_noise(n, m, d):
    n, m = max(n, 4), max(m, 4)
    found = [frechet_distance(normal(s, n, np.ones(d)), normal(s + 99, m, np.ones(d)), rng=generator(s)) for s in range(30)]
    value, error = (np.array([getattr(e, name) for e in found]) for name in ("value", "error"))
    assert abs(value.mean()) < 0.8 * error.mean() and (np.abs(value) < 5 * error).all()


def test_grows_with_a_shift_and_is_the_same_for_the_same_seed():
    x = normal(0, 400, np.ones(5))
    found = [frechet_distance(x, normal(1, 300, np.ones(5), shift), rng=generator(0)) for shift in (0.0, 0.5, 1.0, 2.0)]
    values = [e.value for e in found]
    assert values == sorted(values) and found[0].n == 300
    before = torch.get_rng_state()
    assert frechet_distance(x, normal(1, 300, np.ones(5)), rng=generator(0)) == found[0]
    assert torch.equal(before, torch.get_rng_state())
    assert TABLE["frechet"].function(x, x, rng=generator(0), plain=True).value == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: frechet_distance(np.zeros((3, 2)), np.zeros((9, 2)), rng=generator(0)), "real: expected 4 rows or more, got 3"),
        (lambda: frechet_distance(np.zeros((9, 2)), np.zeros((9, 3)), rng=generator(0)), "expected 2 features as in real"),
        (lambda: Moments.of(np.zeros((1, 2))), "x: expected 2 rows or more, got 1"),
        (lambda: Moments.of([[math.nan, 0.0]] * 2), "x: row 0, column 0 is nan"),
    ],
)
def test_refusals(call, says):
    with pytest.raises(InputError, match=says):
        call()
