"""Convex losses of a mixture: closed forms, derivatives, and optima that other solvers confirm."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.optimize import minimize

from mixtura.contracts import InputError
from mixtura.ground.kernels import Cosine, Cubic, Gaussian
from mixtura.metrics.diversity import vendi_score
from mixtura.metrics.frechet import Moments, plain_distance
from mixtura.objectives.convex import Entropy, FldLikelihood, FrechetOfMixture
from mixtura.simplex.convex import minimise_convex
from mixtura.simplex.polytope import Polytope
from mixtura.simplex.stacking import stack

MEAN, STD = 100.0, 3.0
WEIGHTS = np.array([0.1, 0.3, 0.4, 0.2])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def sets(n=60, d=5, m=4, seed=0):
    """m arms (n, d) and a reference of twice the rows, mean 100 and std 3, arms a little apart."""
    rng = np.random.default_rng(seed)
    tilt = rng.normal(size=(d, d)) / math.sqrt(d)
    draw = lambda i: rng.normal(size=(n + i, d)) @ (np.eye(d) + 0.3 * i * tilt) + 0.4 * rng.normal(size=d)  # noqa: E731
    arms = [MEAN + STD * draw(i) for i in range(m)]
    return [torch.from_numpy(x) for x in arms], torch.from_numpy(MEAN + STD * rng.normal(size=(2 * n, d)))


def losses(n=60, d=5, m=4, seed=0):
    arms, real = sets(n, d, m, seed)
    return {
        "frechet": FrechetOfMixture(arms, real),
        "frechet, one arm lacks directions": FrechetOfMixture([arms[0][:3], *arms[1:]], real),
        "entropy": Entropy(arms, Gaussian(2 * STD), rng=seeded()),
        "entropy, cosine": Entropy([x - MEAN for x in arms], Cosine(), rng=seeded()),
        "fld": FldLikelihood(arms, real, rng=seeded()),
    }


NAMES = list(losses(n=8, d=2))


def moments(mean, std, n=200):
    """(n, 1) rows with exactly this mean and standard deviation."""
    x = np.random.default_rng(0).normal(size=n)
    return torch.from_numpy(mean + std * (x - x.mean()) / x.std(ddof=1))[:, None]


# ------------------------------------------------------------------------------------------------------ any of them


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("d", [1, 5, 30])
def test_gradient_is_that_of_the_value(name, d):
    f = losses(n=20, d=d)[name]
    value, gradient = f.value_and_gradient(WEIGHTS)
    assert f.value(WEIGHTS) == pytest.approx(value) and f.gradient(WEIGHTS) == pytest.approx(gradient)
    for i in range(1, 4):
        step = 1e-5 * (np.eye(4)[i] - np.eye(4)[0])
        slope = (f.value(WEIGHTS + step) - f.value(WEIGHTS - step)) / 2e-5
        assert slope == pytest.approx(gradient[i] - gradient[0], rel=1e-6, abs=1e-6 * max(1, abs(value)))


@pytest.mark.parametrize("name", NAMES)
def test_convex(name):
    """f at the middle is below the mean of both ends, and above every tangent."""
    f, rng = losses()[name], np.random.default_rng(1)
    for _ in range(20):
        a, b = rng.dirichlet(np.full(4, 0.5), size=2)
        at_a, gradient = f.value_and_gradient(a)
        rounding = 1e-9 * (abs(at_a) + 1)
        assert f.value((a + b) / 2) <= (at_a + f.value(b)) / 2 + rounding
        assert f.value(b) >= at_a + gradient @ (b - a) - rounding


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("within", [None, Polytope(0.05, 0.5), Polytope(A=[[1.0, 2.0, 3.0]], b=[1.8])])
def test_optimum_of_three_by_grid(name, within):
    f = losses(m=3, seed=2)[name]
    found = minimise_convex(f.value_and_gradient, 3, within=within)
    grid = np.array([(i, j, 40 - i - j) for i in range(41) for j in range(41 - i)]) / 40
    values = [f.value(a) for a in grid if within is None or within.holds(a)]
    scale = abs(found.value) + np.ptp(f.gradient(np.full(3, 1 / 3)))
    assert found.gap <= 1e-8 * scale
    assert found.value - found.gap <= min(values) + 1e-12 * scale
    assert min(values) - found.value <= 0.02 * scale
    assert found.value == pytest.approx(f.value(found.weights)) and sum(found.weights) == pytest.approx(1)
    assert within is None or within.holds(np.array(found.weights))


@pytest.mark.parametrize("name", NAMES)
def test_optimum_of_eight_by_slsqp(name):
    f = losses(n=25, d=4, m=8, seed=3)[name]
    found = minimise_convex(f.value_and_gradient, 8)
    peer = minimize(
        f.value_and_gradient, np.full(8, 1 / 8), jac=True, method="SLSQP", bounds=[(0, 1)] * 8,
        constraints=[{"type": "eq", "fun": lambda a: a.sum() - 1}], options={"ftol": 1e-13, "maxiter": 300},
    )  # fmt: skip
    assert found.value <= peer.fun + 1e-9 * (1 + abs(peer.fun))
    assert found.value == pytest.approx(peer.fun, rel=1e-5, abs=1e-6)
    warm = minimise_convex(f.value_and_gradient, 8, start=found.weights)
    assert warm.value <= found.value + found.gap


@pytest.mark.parametrize(
    "loss",
    [
        lambda arms, real: FrechetOfMixture(arms, real),
        lambda arms, real: FrechetOfMixture([arms[0][:3], *arms[1:]], real),
        lambda arms, real: Entropy(arms, Gaussian(6.0), rng=seeded()),
        lambda arms, real: FldLikelihood(arms, real, rng=seeded()),
    ],
)
def test_a_shift_of_the_data_is_not_seen(loss):
    arms, real = sets()
    standing, moved = (loss([x + shift for x in arms], real + shift).value(WEIGHTS) for shift in (0.0, 1e4))
    assert moved == pytest.approx(standing, rel=1e-6)


# -------------------------------------------------------------------------------------------------------- Fréchet


def test_frechet_of_two_gaussians_around_the_real_one():
    """Arms N(±1, ½), real N(0, 1): singles 1 + (1 − √½)² = 1.085786, half and half 1 + 1.5 − 2√1.5 = .050510."""
    f = FrechetOfMixture([moments(1, math.sqrt(0.5)), moments(-1, math.sqrt(0.5))], moments(0, 1))
    assert f.value([1, 0]) == pytest.approx(1.085786, abs=1e-6)
    assert f.value([0.5, 0.5]) == pytest.approx(0.050510, abs=1e-6)
    found = minimise_convex(f.value_and_gradient, 2)
    assert found.weights == pytest.approx((0.5, 0.5), abs=1e-6)
    assert found.value == pytest.approx(1 + 1.5 - 2 * math.sqrt(1.5), abs=1e-9)


@pytest.mark.parametrize("n, rows, d", [(60, 120, 5), (12, 120, 30), (60, 20, 30), (8, 10, 40)])
def test_frechet_by_definition(n, rows, d):
    """|μ − μ_r|² + tr S + tr S_r − 2 tr (S_r^½ S S_r^½)^½ of the mixture's moments, more or fewer rows than features."""
    arms, real = sets(n, d)
    real = real[:rows]
    f = FrechetOfMixture(arms, real)
    mean = sum(a * x.numpy().mean(0) for a, x in zip(WEIGHTS, arms, strict=True))
    covariances = [np.cov(x.numpy().T) + np.outer(c := x.numpy().mean(0) - mean, c) for x in arms]
    S, real_S = np.tensordot(WEIGHTS, covariances, 1), np.cov(real.numpy().T)
    # tr (S_r^½ S S_r^½)^½ is the sum of singular values of S^½ S_r^½
    cross = np.linalg.svd(np.real(sqrtm(S)) @ np.real(sqrtm(real_S)), compute_uv=False).sum()
    expected = np.square(mean - real.numpy().mean(0)).sum() + np.trace(S) + np.trace(real_S) - 2 * cross
    assert f.value(WEIGHTS) == pytest.approx(expected, rel=1e-5)
    for i in range(4):
        corner = float(plain_distance(Moments.of(arms[i]), Moments.of(real)))
        assert f.value(np.eye(4)[i]) == pytest.approx(corner, rel=1e-5)


def test_frechet_is_in_squared_units():
    arms, real = sets()
    small, large = FrechetOfMixture(arms, real), FrechetOfMixture([10 * x for x in arms], 10 * real)
    assert large.value(WEIGHTS) == pytest.approx(100 * small.value(WEIGHTS), rel=1e-9)


def test_frechet_of_a_mixture_that_is_the_reference():
    """The reference is dealt to three arms: their mixture in these proportions has a distance of rounding and n − 1."""
    real = sets(n=1000, d=3)[1]
    arms = [real[:400], real[400:1000], real[1000:]]
    found = minimise_convex(FrechetOfMixture([x - 7 for x in arms], real - 7).value_and_gradient, 3)
    assert 0 <= found.value < 1e-5


# -------------------------------------------------------------------------------------------------------- entropy


def test_entropy_of_points_that_do_not_meet():
    """Arms uniform on 1, 2 and 5 points of their own: f = Σ a_i log(a_i / s_i), least at a ∝ s, with a Vendi score of 8."""
    points = 40 * torch.arange(8, dtype=torch.float64)[:, None]
    arms = [points[:1].repeat(6, 1), points[1:3].repeat(5, 1), points[3:].repeat(3, 1)]
    f, sizes = Entropy(arms, Gaussian(1.0), rng=seeded()), np.array([1, 2, 5])
    for a in np.random.default_rng(0).dirichlet(np.ones(3), size=5):
        assert f.value(a) == pytest.approx(float(a @ np.log(a / sizes)), abs=1e-10)
    assert f.value([0.0, 0.5, 0.5]) == pytest.approx(0.5 * math.log(0.5 / 2) + 0.5 * math.log(0.5 / 5), abs=1e-10)
    found = minimise_convex(f.value_and_gradient, 3)
    assert found.weights == pytest.approx(sizes / 8, abs=1e-6)
    assert math.exp(-found.value) == pytest.approx(8, abs=1e-7)


@pytest.mark.parametrize("kernel", [Gaussian(5.0), Cosine()])
def test_entropy_of_all_rows_is_the_vendi_score(kernel):
    arms = [x - MEAN for x in sets(n=30, d=6)[0]]
    sizes = np.array([len(x) for x in arms])
    score = vendi_score(torch.cat(arms), kernel)
    f = Entropy(arms, kernel, rng=seeded())
    assert math.exp(-f.value(sizes / sizes.sum())) == pytest.approx(float(score.value), rel=1e-6)


def test_entropy_of_many_rows_takes_a_share_of_each_arm(monkeypatch):
    arms = [x - MEAN for x in sets(n=300, d=2)[0]]
    whole = Entropy(arms, Gaussian(3.0), rng=seeded())
    monkeypatch.setattr("mixtura.objectives.convex.ENTROPY_ROWS", 600)
    share, again = (Entropy(arms, Gaussian(3.0), rng=seeded(7)) for _ in range(2))
    assert share.value(WEIGHTS) == again.value(WEIGHTS) != whole.value(WEIGHTS)
    assert share.value(WEIGHTS) == pytest.approx(whole.value(WEIGHTS), abs=0.1)


# ------------------------------------------------------------------------------------------------------------- FLD


def test_fld_is_stacking():
    arms, real = sets(n=80, d=3)
    f = FldLikelihood(arms, real, rng=seeded())
    found, stacked = minimise_convex(f.value_and_gradient, 4), stack(f.log_probs)
    assert f.log_probs.shape == (80, 4)
    assert -found.value == pytest.approx(stacked.value, abs=1e-7)
    assert f.value(stacked.weights) == pytest.approx(-stacked.value, abs=1e-12)


def test_fld_by_definition():
    arms, real = sets(n=10, d=2)
    f = FldLikelihood(arms, real, rng=seeded(3))
    for i, (x, h) in enumerate(zip(arms, f.bandwidths, strict=True)):
        squares = np.square(real.numpy()[:, None] - x.numpy()).sum(2)
        expected = np.log(np.mean(np.exp(-squares / (2 * h * h)), 1) / (2 * math.pi * h * h))
        assert f.log_probs[:, i] == pytest.approx(expected[::2], abs=1e-9), "rows that fitted no bandwidth"


def test_fld_bandwidth_is_the_likeliest_and_in_units_of_the_data():
    """One centre with rows N(0, s²) around it: the likeliest h² is their mean square, d and all."""
    y = torch.from_numpy(np.random.default_rng(0).normal(scale=STD, size=(4000, 2)))
    f = FldLikelihood([torch.zeros(1, 2) + MEAN], y + MEAN, rng=seeded())
    fitted = y[1::2][:1000]
    assert f.bandwidths[0] == pytest.approx(math.sqrt(fitted.square().mean()), rel=1e-4)
    arms, real = sets()
    small, large = (FldLikelihood([c * x for x in arms], c * real, rng=seeded()) for c in (1, 1000))
    assert large.bandwidths == pytest.approx([1000 * h for h in small.bandwidths], rel=1e-4)
    assert large.value(WEIGHTS) == pytest.approx(small.value(WEIGHTS) + 5 * math.log(1000), rel=1e-6)


# -------------------------------------------------------------------------------------------------------- refusals

X = torch.zeros(5, 2)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: FrechetOfMixture([], X), "samples: expected one set or more, got none"),
        (lambda: FrechetOfMixture([X, X[:1]], X), "samples of arm 1: expected 2 rows or more"),
        (lambda: FrechetOfMixture([X], X[:, :1]), "reference: expected 2 rows or more, all sets with the same features"),
        (lambda: FrechetOfMixture([X, X[0]], X), r"samples of arm 1: .* got shape \(2,\)"),
        (lambda: FrechetOfMixture([X, X + math.nan], X), "samples of arm 1: row 0 is not finite"),
        (lambda: Entropy([X + 1], Cubic(2), rng=seeded()), r"kernel: expected k\(x, x\) = 1"),
        (lambda: Entropy([X], Cosine(), rng=seeded()), "a row of zeros has no direction"),
        (lambda: FldLikelihood([X], X[:3], rng=seeded()), "reference: expected 4 rows or more"),
        (lambda: FrechetOfMixture([X + moments(0, 1, 5)], X).value([0.5, 0.5]), "a: expected 1 weights"),
        (lambda: minimise_convex(lambda a: (math.nan, a), 2), "value_and_gradient: expected finite numbers at the start"),
        (lambda: minimise_convex(lambda a: (0.0, a), 2, start=[1, 0], within=Polytope(upper=0.7)), "does not obey the caps"),
    ],
)
def test_refusals(call, says):
    with pytest.raises(InputError, match=says):
        call()
