"""Kernel sums against a loop over all pairs, their jackknife against deleting rows, MMD² against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mixtura.contracts import InputError
from mixtura.ground import kernels
from mixtura.ground.kernels import Cosine, Cubic, Gaussian, median_bandwidth, sums
from mixtura.ground.rng import generator

KERNELS = [Gaussian(4.0), Gaussian(1.0), Cubic(5), Cosine()]


def normal(n, d=5, *, mean=100.0, std=3.0, seed=0):
    return mean + std * torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def three_sets(mean=100.0):
    """Set 1 is shifted, so that its blocks differ."""
    return [normal(n, mean=mean + shift, seed=n) for n, shift in ((61, 0), (130, 2), (47, 0))]


def written_out(kernel, x, y):
    """(n, m) k by its definition, from differences and products in float64."""
    if isinstance(kernel, Gaussian):
        return torch.exp(-(x[:, None] - y[None]).square().sum(2) / (2 * kernel.bandwidth**2))
    products = torch.einsum("id,jd->ij", x, y)
    if isinstance(kernel, Cubic):
        return (products / kernel.dims + 1) ** 3
    return products / (x.norm(dim=1)[:, None] * y.norm(dim=1))


# --------------------------------------------------------------------------------------------------------- kernels


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_a_kernel_is_its_definition_and_keeps_its_bound(kernel):
    x, y = normal(40), torch.cat([normal(30, seed=1), normal(40) + 1e-9])
    values = kernel(x, y)
    torch.testing.assert_close(values, written_out(kernel, x, y), rtol=1e-9, atol=1e-12)
    assert values.abs().max() <= kernel.bound
    torch.testing.assert_close(kernel.diagonal(x.square().sum(1)), written_out(kernel, x, x).diagonal())
    assert (kernel.bound == math.inf) == isinstance(kernel, Cubic)


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_a_block_is_one_number_from_either_side(kernel):
    """A float32 tile is summed by rows and by columns, which round to two numbers; a quadratic form is symmetric to the bit."""
    found = sums([normal(n, seed=n).float() for n in (301, 530, 147, 200)], kernel)
    sides = [(a, b, unbiased) for a in range(4) for b in range(a) for unbiased in (False, True)]
    assert all(found.block(a, b, unbiased=u) == found.block(b, a, unbiased=u) for a, b, u in sides)
    Q, _, _ = found.quadratic(3)
    assert np.array_equal(Q, Q.T)


def test_a_gaussian_squared_is_a_gaussian():
    x, k = normal(30), Gaussian(2.5)
    torch.testing.assert_close(k(x, x) ** 2, k.squared(x, x))


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, math.inf, math.nan, 1e-20, 1e300])
def test_a_bandwidth_is_a_positive_number(bandwidth):
    with pytest.raises(InputError, match="bandwidth: expected a number from 1e-19 to 1e.150"):
        Gaussian(bandwidth)


@pytest.mark.parametrize("mean, std", [(0, 1), (100, 3), (1e6, 1e-3)])
def test_the_median_bandwidth_is_the_median_distance(mean, std):
    x = normal(101, 3, mean=mean, std=std)
    distances = (x[:, None] - x[None]).norm(dim=2)[np.triu_indices(101, 1)]
    assert median_bandwidth(x, generator(0)) == pytest.approx(float(distances.median()), rel=1e-6)


def test_the_median_bandwidth_of_a_large_set_is_that_of_a_part():
    x = normal(20_000, 2, mean=100, std=3)
    median = 3 * math.sqrt(2) * math.sqrt(2 * math.log(2))  # a distance is √2·3 times Rayleigh
    assert median_bandwidth(x, generator(0)) == pytest.approx(median, rel=0.05)
    assert median_bandwidth(x, generator(0)) == median_bandwidth(x, generator(0)) != median_bandwidth(x, generator(1))


def test_repeats_do_not_shrink_the_bandwidth():
    x = torch.cat([torch.full((90, 2), 1e3 / 3), 1e3 / 3 + torch.tensor([[3.0, 4.0]])]).double()
    assert median_bandwidth(x, generator(0)) == pytest.approx(5)
    assert median_bandwidth(x[:90], generator(0)) == 1


# ------------------------------------------------------------------------------------------------------------ sums


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("mean", [0.0, 100.0, 3000.0])
@pytest.mark.parametrize("tile, moments", [(1024, False), (17, False), (1024, True)])
def test_sums_are_those_of_all_pairs(kernel, mean, tile, moments, monkeypatch):
    """float32 products of float64 rows, 1,000 standard deviations from 0 included."""
    monkeypatch.setattr(kernels, "TILE", tile)
    monkeypatch.setattr(kernels, "CHUNK_ENTRIES", 100 * tile)
    monkeypatch.setattr(kernels, "_moments_are_shorter", lambda sets: moments)
    sets = three_sets(mean)
    found = sums(sets, kernel)
    assert found.sizes == (61, 130, 47)
    for a, x in enumerate(sets):
        for b, y in enumerate(sets):
            truth = written_out(kernel, x, y)
            digits = 1e-6 * float(truth.abs().mean())
            assert found.block(a, b, unbiased=False) == pytest.approx(float(truth.mean()), abs=digits)
            assert float((found.row_sums[a][b] - truth.sum(1)).abs().max()) <= 1e-5 * float(truth.abs().sum(1).max())
            if a == b:
                torch.testing.assert_close(found.diagonals[a], truth.diagonal(), rtol=1e-6, atol=0)
                apart = truth.masked_fill(torch.eye(len(x), dtype=torch.bool), 0).sum() / (len(x) * (len(x) - 1))
                assert found.block(a, a, unbiased=True) == pytest.approx(float(apart), abs=digits)


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_float64_when_asked(kernel, monkeypatch):
    monkeypatch.setattr(kernels, "_moments_are_shorter", lambda sets: False)
    x, y = three_sets()[:2]
    exact = sums((x, y), kernel, dtype=torch.float64).row_sums[0][1]
    torch.testing.assert_close(exact, written_out(kernel, x, y).sum(1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_modes_are_counted_far_from_zero(dtype):
    """What products of rows that are not centred get wrong by 1 % (float32, 1,000 standard deviations from 0)."""
    x = (1000 + torch.randn(1000, 16, generator=generator(0), dtype=torch.float64)).to(dtype)
    k = Gaussian(4.0).squared
    truth = float(written_out(k, x.double(), x.double()).mean())
    assert sums((x,), k).block(0, 0, unbiased=False) == pytest.approx(truth, rel=1e-6)
    naive = torch.exp(-(x.float().square().sum(1)[:, None] - 2 * x.float() @ x.float().T + x.float().square().sum(1)) / 16)
    assert abs(float(naive.mean()) / truth - 1) > 1e-3


def test_pairs_that_are_far_apart_count_nothing():
    x = 1e4 * torch.arange(50.0)[:, None]
    assert 0 <= sums((x,), Gaussian(1.0)).block(0, 0, unbiased=True) < 1e-30


def test_small_cubic_sums_take_the_way_of_moments_and_wide_ones_do_not():
    assert kernels._moments_are_shorter([torch.empty(10_000, 8)] * 2)
    assert not kernels._moments_are_shorter([torch.empty(10_000, 64)] * 2)


def test_the_global_generator_and_the_rows_are_left_alone():
    x, before = normal(50), torch.get_rng_state()
    kept = x.clone()
    sums((x,), Gaussian(1.0))
    median_bandwidth(x, generator(0))
    assert torch.equal(x, kept) and torch.equal(before, torch.get_rng_state())


# ------------------------------------------------------------------------------------------------------------ MMD²

W, V = np.array([0.3, 0.7]), np.array([1.0, 0.0])


def unbiased_mmd2(sets, w, reference, kernel):
    """The U-form, every mean over pairs written out; ``sets`` in their order."""

    def mean(a, b):
        k = written_out(kernel, sets[a], sets[b])
        return float(k[~torch.eye(len(k), dtype=torch.bool)].mean() if a == b else k.mean())

    models = [a for a in range(len(sets)) if a != reference]
    cross = sum(w[i] * mean(a, reference) for i, a in enumerate(models))
    inner = sum(w[i] * w[j] * mean(a, b) for i, a in enumerate(models) for j, b in enumerate(models))
    return inner - 2 * cross + mean(reference, reference)


def by_deletion(sets, statistic):
    """Standard error from computing ``statistic`` anew without each row of each set."""
    variance = 0.0
    for a, x in enumerate(sets):
        without = [statistic([*sets[:a], torch.cat([x[:i], x[i + 1 :]]), *sets[a + 1 :]]) for i in range(len(x))]
        variance += (len(x) - 1) ** 2 / len(x) * np.var(without, ddof=1)
    return math.sqrt(variance)


@pytest.mark.parametrize("kernel", [Gaussian(6.0), Cubic(2)], ids=str)
@pytest.mark.parametrize("reference", [0, 1, 2])
def test_mmd2_and_gain_are_those_of_all_pairs_and_all_deletions(kernel, reference):
    sets = [normal(n, 2, mean=2 + shift, seed=n) for n, shift in ((9, 0), (12, 1), (7, 4))]
    found = sums(sets, kernel, dtype=torch.float64)
    mmd2 = lambda w: lambda s: unbiased_mmd2(s, w, reference, kernel)  # noqa: E731
    gain = lambda s: mmd2(V)(s) - mmd2(W)(s)  # noqa: E731
    for estimate, statistic in ((found.mmd2(W, reference), mmd2(W)), (found.gain(W, V, reference), gain)):
        assert estimate.value == pytest.approx(statistic(sets), rel=1e-8, abs=1e-11)
        assert estimate.error == pytest.approx(by_deletion(sets, statistic), rel=1e-7)
        assert estimate.n == len(sets[reference])


def test_the_quadratic_is_the_squared_distance_of_mean_embeddings():
    """Rows of a mixture, each with its weight, against the reference rows: a V-statistic of signed weights."""
    x, r, y = three_sets()
    k = Gaussian(4.0)
    Q, b, c = sums((x, r, y), k).quadratic(1)
    for w in (W, V, np.array([0.5, 0.5])):
        signed = torch.cat([torch.full((len(s),), u / len(s)) for s, u in ((x, w[0]), (y, w[1]), (r, -1.0))]).double()
        rows = torch.cat([x, y, r])
        truth = float(signed @ written_out(k, rows, rows) @ signed)
        assert w @ Q @ w - 2 * b @ w + c == pytest.approx(truth, rel=1e-5)
    assert np.linalg.eigvalsh(Q).min() > 0


def expected_k(k, a, b, d, std=3.0):
    """E k(X, Y) of X ~ N(a 1, std²), Y ~ N(b 1, std²) in d dimensions."""
    spread = k.bandwidth**2 + 2 * std**2
    return (k.bandwidth**2 / spread) ** (d / 2) * math.exp(-d * (a - b) ** 2 / (2 * spread))


@pytest.mark.parametrize("w, law", [((1.0, 0.0), 0.0), ((0.0, 1.0), 1.0), ((0.5, 0.5), 0.25)])
def test_mmd2_is_unbiased_for_gaussians(w, law):
    """Reference N(100, 9), model 0 the same, model 1 shifted: MMD² is w_1² times that of the shift. A V-form of 12 rows would be
    off by 0.1."""
    k, d, draws = Gaussian(5.0), 2, 400
    truth = law * 2 * (expected_k(k, 0, 0, d) - expected_k(k, 0, 2, d))
    values = [
        sums([normal(n, d, mean=m, seed=9 * s + i) for i, (n, m) in enumerate(((12, 100), (9, 102), (15, 100)))], k).mmd2(w, 2)
        for s in range(draws)
    ]
    found = np.array([v.value for v in values])
    assert abs(found.mean() - truth) < 4 * found.std() / math.sqrt(draws) < 0.025
    assert 1 < np.mean([v.error**2 for v in values]) / found.var() < 2.5


@pytest.mark.slow
@pytest.mark.parametrize("shift, least", [(0.0, 0.92), (0.5, 0.88), (1.0, 0.9), (2.0, 0.93), (5.0, 0.93)])
def test_two_standard_errors_cover(shift, least):
    """MMD² of a shifted law (80 and 100 rows beside 120), and the gain of the equal law over it, in 1,000 draws."""
    k, d, inside, gains = Gaussian(5.0), 2, [], []
    apart = 2 * (expected_k(k, 0, 0, d) - expected_k(k, 0, shift, d))
    for s in range(1000):
        sets = [normal(n, d, mean=m, seed=9 * s + i) for i, (n, m) in enumerate(((80, 100), (100, 100 + shift), (120, 100)))]
        found = sums(sets, k)
        one, gain = found.mmd2((0, 1), 2), found.gain((1, 0), (0, 1), 2)
        inside.append(abs(one.value - apart) <= 2 * one.error)
        gains.append(abs(gain.value - apart) <= 2 * gain.error)
    assert least <= np.mean(inside) <= 0.99
    assert 0.93 <= np.mean(gains)


def test_a_gain_is_surer_than_its_terms():
    sets = [normal(300, 2, mean=m, seed=int(m)) for m in (105, 106, 100)]
    found = sums(sets, Gaussian(5.0))
    gain, terms = found.gain((1, 0), (0, 1), 2), (found.mmd2((1, 0), 2), found.mmd2((0, 1), 2))
    assert gain.value == pytest.approx(terms[1].value - terms[0].value)
    assert gain.error < 0.8 * math.hypot(*(t.error for t in terms))


# -------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "ask, says",
    [
        (lambda: sums([], Gaussian(1.0)), "sets: expected one set"),
        (lambda: sums([torch.zeros(3)], Gaussian(1.0)), r"set 0: expected shape .* got \(3,\)"),
        (lambda: sums([torch.zeros(3, 2), torch.zeros(3, 4)], Gaussian(1.0)), r"set 1: .* got \(3, 4\)"),
        (lambda: sums([torch.zeros(3, 2), torch.zeros(0, 2)], Gaussian(1.0)), r"set 1: .* got \(0, 2\)"),
        (lambda: sums([torch.zeros(1, 2)], Gaussian(1.0)).block(0, 0, unbiased=True), "set 0: expected 2 rows or more, got 1"),
        (lambda: sums([torch.zeros(9, 2), torch.zeros(2, 2)], Gaussian(1.0)).mmd2([1], 0), "set 1: expected 3 rows or more"),
        (lambda: sums([torch.zeros(9, 2)] * 3, Gaussian(1.0)).mmd2([1, 0, 0], 0), "w: expected 2 weights"),
    ],
)
def test_refusals(ask, says):
    with pytest.raises(InputError, match=says):
        ask()
