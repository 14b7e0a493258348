"""MMD², KID and the permutation test: closed forms, brute force, floors, and what other packages get wrong."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from mixtura.contracts import Estimate, InputError
from mixtura.ground.kernels import Cubic, Gaussian
from mixtura.ground.rng import generator
from mixtura.metrics import kernel
from mixtura.metrics.kernel import kid, mmd2, same_law


def normal(n, d=3, *, mean=100.0, std=3.0, seed=0):
    return mean + std * torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def u_statistic(k, x, y):
    """Unbiased MMD² from full kernel matrices."""
    off = lambda values: float(values.sum() - values.diagonal().sum()) / (len(values) * (len(values) - 1))  # noqa: E731
    return off(k(x, x)) - 2 * float(k(x, y).mean()) + off(k(y, y))


# --------------------------------------------------------------------------------------------------- MMD² and KID


@pytest.mark.parametrize("sizes", [(40, 40), (25, 60)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_they_are_the_statistic_of_all_pairs(sizes, dtype):
    x, y = (normal(n, 3, mean=m, std=1, seed=n + m).to(dtype) for n, m in zip(sizes, (1, 2), strict=True))
    k = Gaussian(1.5)
    truth = {"mmd2": u_statistic(k, x, y), "kid": u_statistic(Cubic(3), x, y)}
    assert mmd2(x, y, kernel=k, rng=generator(0)).value == pytest.approx(truth["mmd2"], rel=1e-5)
    assert kid(x, y, rng=generator(0)).value == pytest.approx(truth["kid"], rel=1e-5)
    assert mmd2(y, x, kernel=k, rng=generator(0)).value == pytest.approx(truth["mmd2"], rel=1e-5)


def test_numpy_comes_in_and_an_estimate_out():
    x, y = normal(30).numpy(), normal(20, seed=1).numpy()
    found = mmd2(x, y, rng=generator(0))
    assert type(found) is Estimate and found.n == 30 and isinstance(found.value, float)
    assert found == mmd2(x, y, rng=generator(0))


def cubic_mean(a, b, var_x, var_y):
    """E (xy + 1)³ of independent x, y on the line with means a, b: x, y normal."""
    second, third = lambda m, v: m**2 + v, lambda m, v: m**3 + 3 * m * v
    return third(a, var_x) * third(b, var_y) + 3 * second(a, var_x) * second(b, var_y) + 3 * a * b + 1


def gaussian_mean(s, a, b, var_x, var_y):
    spread = s**2 + var_x + var_y
    return math.sqrt(s**2 / spread) * math.exp(-((a - b) ** 2) / (2 * spread))


@pytest.mark.parametrize("shift, std", [(0.0, 1.0), (0.5, 1.0), (0.0, 1.5)])
def test_closed_forms_of_gaussians_are_met_without_bias(shift, std):
    """600 draws of 15 and 25 rows on the line; the errors are right on the whole."""
    s, v = 0.8, std**2
    k = lambda f, *more: f(*more, 0, 0, 1, 1) - 2 * f(*more, 0, shift, 1, v) + f(*more, shift, shift, v, v)  # noqa: E731
    truth = {"mmd2": k(gaussian_mean, s), "kid": k(cubic_mean)}
    draws = [(normal(15, 1, mean=0, std=1, seed=2 * i), normal(25, 1, mean=shift, std=std, seed=2 * i + 1)) for i in range(600)]
    found = {
        "mmd2": [mmd2(x, y, kernel=Gaussian(s), rng=generator(0)) for x, y in draws],
        "kid": [kid(x, y, rng=generator(0)) for x, y in draws],
    }
    for name, estimates in found.items():
        values = np.array([e.value for e in estimates])
        assert abs(values.mean() - truth[name]) < 4 * values.std() / math.sqrt(len(values))
        assert 0.7 < np.mean([e.error**2 for e in estimates]) / values.var() < 2.6


def test_equal_laws_score_nothing_where_a_v_statistic_scores_its_bias():
    found = [mmd2(normal(100, seed=2 * i), normal(150, seed=2 * i + 1), rng=generator(0)) for i in range(60)]
    values = np.array([e.value for e in found])
    assert (values < 0).any() and abs(values.mean()) < 4 * values.std() / math.sqrt(60) < 0.003
    x, y = normal(100, seed=0), normal(150, seed=1)
    k = Gaussian(6.0)
    assert float(k(x, x).mean() - 2 * k(x, y).mean() + k(y, y).mean()) > 0.005


@pytest.mark.parametrize("metric", [mmd2, kid])
def test_they_grow_with_the_shift(metric):
    x = normal(400, mean=0, std=1)
    found = [metric(x, normal(300, mean=m, std=1, seed=1), rng=generator(0)) for m in (0, 0.25, 0.5, 1, 2)]
    assert all(b.value > a.value + a.error for a, b in zip(found, found[1:], strict=False))
    assert found[0].value < 3 * found[0].error and found[-1].value > 10 * found[-1].error


def test_the_units_of_the_features_do_not_matter():
    """A bandwidth of 1 whatever the scale, as elsewhere, sees nothing at a scale of 1,000."""
    x, y = normal(200, mean=0, std=1), normal(150, mean=1, std=1, seed=1)
    found = [mmd2(1e3 + a * x, 1e3 + a * y, rng=generator(0)).value for a in (1e-2, 1, 1e3)]
    assert found == pytest.approx([found[1]] * 3, rel=1e-5) and found[1] > 0.1
    assert mmd2(1e3 * x, 1e3 * y, kernel=Gaussian(1.0), rng=generator(0)).value < 1e-3


def test_kid_has_no_noise_of_subsets():
    """Means over random subsets scatter around it; their deviation is not a standard error."""
    x, y = normal(600, 4, mean=0, std=1), normal(600, 4, mean=0.1, std=1, seed=1)
    exact = kid(x, y, rng=generator(0))
    assert exact == kid(x, y, rng=generator(1))
    rng = generator(2)
    part = lambda z: z[torch.randperm(600, generator=rng)[:60]]  # noqa: E731
    subsets = np.array([u_statistic(Cubic(4), part(x), part(y)) for _ in range(400)])
    assert abs(subsets.mean() - exact.value) < 4 * subsets.std() / 20
    assert subsets.std() > 2 * exact.error > 4 * subsets.std() / 20


# ------------------------------------------------------------------------------------------------ permutation test


def test_the_statistic_of_labels_is_mmd2():
    x, y = normal(12), normal(9, mean=101, seed=1)
    both = torch.cat((x, y))
    order = torch.randperm(21, generator=generator(3))
    first = torch.zeros(21, 2, dtype=torch.float64)
    first[:12, 0], first[order[:12], 1] = 1, 1
    k = Gaussian(5.0)
    found = kernel._mmd2_of_labels(k(both, both).fill_diagonal_(0), first, 12, 9)
    truth = [u_statistic(k, x, y), u_statistic(k, both[order[:12]], both[order[12:]])]
    assert found.tolist() == pytest.approx(truth, rel=1e-7, abs=1e-9)


def test_p_is_the_share_of_all_splits():
    """4 and 5 rows: 126 splits can be listed; 20,000 random ones come near their share."""
    x, y = normal(4, 1), normal(5, 1, mean=103, seed=1)
    both, k = torch.cat((x, y)), Gaussian(3.0)
    observed = u_statistic(k, x, y)
    splits = [list(s) for s in combinations(range(9), 4)]
    rest = lambda s: [i for i in range(9) if i not in s]  # noqa: E731
    share = np.mean([u_statistic(k, both[s], both[rest(s)]) >= observed - 1e-12 for s in splits])
    found = same_law(x, y, kernel=k, permutations=20_000, rng=generator(0))
    assert 0.01 < share < 0.9 and abs(found.value - share) < 4 * found.error < 0.02


def test_p_values_of_equal_laws_are_uniform():
    p = np.array([same_law(normal(30, seed=2 * i), normal(20, seed=2 * i + 1), permutations=19, rng=generator(i)).value
                  for i in range(400)])  # fmt: skip
    for level in (0.05, 0.2, 0.5, 0.8):
        assert abs(np.mean(p <= level + 1e-9) - level) < 4 * math.sqrt(level * (1 - level) / 400)
    assert p.min() == pytest.approx(1 / 20) and p.max() == pytest.approx(1)


@pytest.mark.parametrize("sizes", [(150, 150), (1500, 60)])
def test_a_shift_or_a_scale_is_found(sizes):
    x = normal(sizes[0])
    for y in (normal(sizes[1], mean=102, seed=1), normal(sizes[1], std=6, seed=1)):
        found = same_law(x, y, permutations=199, rng=generator(0))
        assert found.value == 1 / 200 and 0 < found.error < 0.01 and found.n == sizes[1]


def test_ties_count_against_a_difference():
    """Rows that are all the same, and whole numbers, whose splits often tie."""
    assert same_law(np.ones((9, 2)), np.ones((7, 2)), permutations=99, rng=generator(0)).value == 1
    x, y = torch.tensor([[0.0], [0.0], [1.0]]), torch.tensor([[0.0], [1.0], [1.0]])
    observed = same_law(x, y, kernel=Gaussian(1.0), permutations=4_000, rng=generator(0))
    # of 20 splits, 2 put all equal rows together and 18 tie with the observed one
    assert observed.value == 1


def test_the_seed_decides_and_the_global_generator_is_left_alone():
    x, y, before = normal(1100), normal(1050, mean=100.2, seed=1), torch.get_rng_state()
    first, again, other = (same_law(x, y, permutations=99, rng=generator(seed)) for seed in (0, 0, 2))
    assert first == again != other and first.n == kernel.PERMUTED_ROWS
    assert torch.equal(before, torch.get_rng_state())


# -------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("metric", [mmd2, kid, same_law])
@pytest.mark.parametrize(
    "real, generated, says",
    [
        (np.zeros((5, 2)), np.zeros((5, 3)), "generated: expected 2 features as in real, got 3"),
        (np.zeros((2, 2)), np.zeros((5, 2)), "real: expected 3 rows or more, got 2"),
        (np.zeros((5, 2)), np.array([[0, 1], [0, np.nan], [0, 0]]), "generated: row 1, column 1 is nan"),
        (np.zeros(5), np.zeros((5, 2)), "real: expected shape"),
    ],
)
def test_refusals(metric, real, generated, says):
    with pytest.raises(InputError, match=says):
        metric(real, generated, rng=generator(0))


def test_one_permutation_is_the_least():
    with pytest.raises(InputError, match="permutations: expected 1 or more, got 0"):
        same_law(normal(5), normal(5), permutations=0, rng=generator(0))
