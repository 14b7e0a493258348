"""RKE and Vendi: sets whose count is known, the identity between them, and what other packages get wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mixtura.contracts import InputError
from mixtura.ground.kernels import Cosine, Gaussian, sums
from mixtura.ground.rng import generator
from mixtura.metrics import diversity
from mixtura.metrics.diversity import mode_count, rke, vendi, vendi_score

ORDERS = [0.1, 0.5, 1.0, 2.0, 7.0]


def normal(n, d=4, *, mean=100.0, std=3.0, seed=0):
    return mean + std * torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def v_form(x, k):
    """RKE as in the paper, 1 / ‖K/n‖²_F."""
    return 1 / sums((x,), k.squared, dtype=torch.float64).block(0, 0, unbiased=False)


def groups(sizes, d=12):
    """Equal rows in groups that are orthogonal and far apart."""
    return 100 * torch.eye(d, dtype=torch.float64)[: len(sizes)].repeat_interleave(torch.tensor(sizes), 0)


# ----------------------------------------------------------------------------------------------- counts of one set


@pytest.mark.parametrize("kernel", [Cosine(), Gaussian(1.0)], ids=str)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("sizes", [(125,) * 8, (300, 100), (50,)])
def test_groups_that_share_nothing_are_counted(kernel, order, sizes):
    """exp of the Rényi entropy of the group sizes. 1,000 rows of rank 8 in float32 give 109 at order 0.1 if every
    eigenvalue above 0 counts."""
    p = np.array(sizes) / sum(sizes)
    truth = math.exp(-np.sum(p * np.log(p))) if order == 1 else np.sum(p**order) ** (1 / (1 - order))
    for dtype in (torch.float32, torch.float64):
        assert vendi_score(groups(sizes).to(dtype), kernel, order=order).value == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("order", ORDERS)
def test_both_spectra_of_the_cosine_kernel_agree(order):
    """(d, d) where d < n; (n, n) for the same rows with columns of zeros."""
    x = normal(30, 12, mean=1)
    wide = torch.cat([x, torch.zeros(30, 30).double()], 1)
    small, large = vendi_score(x, Cosine(), order=order), vendi_score(wide, Cosine(), order=order)
    assert small.value == pytest.approx(large.value, rel=1e-9) and small.error == pytest.approx(large.error, rel=1e-6)


def test_the_order_is_honoured():
    """It is ignored elsewhere: order 2 must be RKE, and scores fall as the order grows."""
    x, k = normal(200), Gaussian(5.0)
    scores = [vendi_score(x, k, order=q).value for q in ORDERS]
    assert vendi_score(x, k, order=2).value == pytest.approx(v_form(x, k), rel=1e-9)
    assert all(a > 1.02 * b for a, b in zip(scores, scores[1:], strict=False))
    assert vendi_score(x, k, order=1 + 1e-6).value == pytest.approx(vendi_score(x, k).value, rel=1e-5)


def test_rke_is_unbiased_in_what_it_averages_and_its_v_form_is_not():
    """1 / mode count averages to E k² of normal rows, (s² / (s² + 4σ²))^(d/2) for k² of bandwidth s/√2."""
    k, d, std = Gaussian(3.0), 4, 3.0
    truth = (k.bandwidth**2 / (k.bandwidth**2 + 4 * std**2)) ** (d / 2)
    draws = [normal(20, d, std=std, seed=i) for i in range(500)]
    alike = np.array([1 / mode_count(x, k).value for x in draws])
    assert abs(alike.mean() - truth) < 4 * alike.std() / math.sqrt(500) < 0.1 * truth
    assert np.mean([1 / v_form(x, k) for x in draws]) == pytest.approx(truth + (1 - truth) / 20, rel=0.1)


def test_the_error_of_a_mode_count_is_that_of_deleting_rows():
    x, k = normal(25, 2), Gaussian(3.0)
    without = [mode_count(torch.cat([x[:i], x[i + 1 :]]), k).value for i in range(25)]
    found = mode_count(x, k)
    assert found.error == pytest.approx(math.sqrt(24**2 / 25 * np.var(without, ddof=1)), rel=1e-4) and found.n == 25


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kernel", [Cosine(), Gaussian(5.0)], ids=str)
def test_the_error_of_vendi_is_what_its_rows_weigh(kernel, order):
    """Infinitesimal jackknife: the derivative of the score by the share of each row, by differences."""
    x = normal(25, 3, mean=1)
    K = kernel(x, x).numpy()

    def score(share):
        values = np.linalg.eigvalsh(np.sqrt(share)[:, None] * K * np.sqrt(share))
        values = values[values > 1e-14]
        return math.exp(-np.sum(values * np.log(values))) if order == 1 else np.sum(values**order) ** (1 / (1 - order))

    even, step = np.full(25, 1 / 25), 1e-5
    slopes = [(score(even + step * (row - even)) - score(even - step * (row - even))) / (2 * step) for row in np.eye(25)]
    found = vendi_score(x, kernel, order=order)
    assert found.value == pytest.approx(score(even), rel=1e-6)
    assert found.error == pytest.approx(np.std(slopes, ddof=1) / 5, rel=1e-3) and found.n == 25


def test_the_errors_are_those_of_new_draws():
    """Of RKE and Vendi ratios, kernel given, 60 draws of 120 and 150 rows."""
    k = Gaussian(6.0)
    for metric in (rke, vendi):
        draws = [(normal(120, 2, seed=2 * i), normal(150, 2, seed=2 * i + 1)) for i in range(60)]
        found = [metric(x, y, kernel=k, rng=generator(0)) for x, y in draws]
        assert 0.7 < np.mean([f.error for f in found]) / np.std([f.value for f in found]) < 1.4
        assert abs(np.mean([f.value for f in found]) - 1) < 0.03


# ------------------------------------------------------------------------------------------- generated beside real


@pytest.mark.parametrize("metric", [rke, vendi])
def test_equal_laws_have_ratio_one_whatever_the_sizes_and_units(metric):
    for sizes in ((400, 400), (900, 150), (150, 900)):
        for unit in (1e-3, 1.0):
            x, y = (unit * normal(n, 6, seed=n + i) for i, n in enumerate(sizes))
            found = metric(x, y, rng=generator(0))
            assert abs(found.value - 1) < 3 * found.error < 0.4 and found.n == min(sizes)


@pytest.mark.parametrize("metric", [rke, vendi])
def test_lost_modes_show(metric):
    """8 modes of which 4 are left, and of which all are."""
    modes = 200 * torch.eye(8, dtype=torch.float64)
    draw = lambda k, seed: modes[torch.arange(800) % k] + normal(800, 8, mean=100, std=0.1, seed=seed)  # noqa: E731
    k = Gaussian(20.0)
    assert metric(draw(8, 0), draw(4, 1), kernel=k, rng=generator(0)).value == pytest.approx(0.5, rel=0.01)
    assert metric(draw(8, 0), draw(8, 1), kernel=k, rng=generator(0)).value == pytest.approx(1, rel=0.01)
    assert metric(draw(4, 0), draw(8, 1), kernel=k, rng=generator(0)).value == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("metric", [rke, vendi])
def test_diversity_falls_with_the_spread_and_one_row_repeated_has_none(metric):
    x = normal(300)
    found = [metric(x, normal(200, std=s, seed=1), rng=generator(0)) for s in (6, 3, 1.5, 0.3, 0)]
    assert all(a.value > 1.01 * b.value for a, b in zip(found, found[1:], strict=False))
    k = Gaussian(diversity.median_bandwidth(x, generator(0)))
    alone = {rke: mode_count(x, k).value, vendi: vendi_score(x[:200], k).value}[metric]
    assert found[-1].value == pytest.approx(1 / alone, rel=0.1)


def test_large_sets_are_looked_at_in_part(monkeypatch):
    monkeypatch.setattr(diversity, "VENDI_ROWS", 100)
    x, y, before = normal(300), normal(250, seed=1), torch.get_rng_state()
    first, again, other = (vendi(x, y, rng=generator(seed)) for seed in (0, 0, 1))
    assert first.n == 100 and first == again != other
    assert torch.equal(before, torch.get_rng_state())


# -------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "ask, says",
    [
        (lambda: vendi_score(normal(5), Gaussian(1.0), order=0), "order: expected a finite number above 0, got 0"),
        (lambda: vendi_score(normal(5), Gaussian(1.0), order=math.inf), "order: expected a finite number above 0, got inf"),
        (lambda: vendi_score(torch.eye(3)[:, :2], Cosine()), "row 2 is all zeros"),
        (lambda: mode_count(normal(2), Gaussian(1.0)), "x: expected 3 rows or more, got 2"),
        (lambda: rke(normal(2), normal(5), rng=generator(0)), "real: expected 3 rows or more, got 2"),
        (lambda: vendi(normal(5), normal(5, 3), rng=generator(0)), "generated: expected 4 features as in real, got 3"),
        (lambda: vendi(normal(5), normal(5) * math.nan, rng=generator(0)), "generated: row 0, column 0 is nan"),
    ],
)
def test_refusals(ask, says):
    with pytest.raises(InputError, match=says):
        ask()
