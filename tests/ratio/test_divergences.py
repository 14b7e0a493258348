"""Divergences of two Gaussians from their true log ratio against closed forms, and the bounds of a wrong ratio."""

import math

import pytest
import torch

from mixtura.contracts import InputError
from mixtura.ground.rng import generator
from mixtura.ratio.divergences import DIVERGENCES, divergence, label_nats

N = 400_000
#: N(0, 1) and N(1, 1.5²): KL, reverse KL, JS, χ², H² = 1 − BC (golden numbers of the reference, by quadrature)
TRUE = {"kl": 0.34991, "reverse_kl": 0.71954, "js": 0.09929, "chi2": 0.60042, "hellinger2": 0.11037}


def ratio(x: torch.Tensor) -> torch.Tensor:
    """log p − log q in closed form."""
    return -(x**2) / 2 + (x - 1) ** 2 / (2 * 1.5**2) + math.log(1.5)


@pytest.fixture(scope="module")
def at() -> tuple[torch.Tensor, torch.Tensor]:
    rng = generator(0)
    p, q = (torch.randn(N, generator=rng, dtype=torch.float64) for _ in range(2))
    return p, 1 + 1.5 * q


@pytest.mark.parametrize("name", TRUE)
def test_the_true_ratio_gives_the_true_divergence(at, name):
    found = divergence(name, *map(ratio, at))
    assert abs(found.value - TRUE[name]) < 4 * found.error + 1e-5
    assert found.error < 0.01 and found.n == N


@pytest.mark.parametrize(
    ("alpha", "named"), [(1.0, "kl_bound"), (0.0, "reverse_kl_bound"), (1 + 1e-6, "kl_bound"), (1e-6, "reverse_kl_bound")]
)
def test_alpha_has_kl_as_its_limits(at, alpha, named):
    values = [divergence(which, *map(ratio, at)).value for which in (alpha, named)]
    assert values[0] == pytest.approx(values[1], abs=1e-4)


@pytest.mark.parametrize("name", ["kl_bound", "reverse_kl_bound", "js", "chi2", "hellinger2", 0.3, 1.5])
@pytest.mark.parametrize("wrong", [lambda x: 1.3 * ratio(x), lambda x: ratio(x) + 0.4, lambda x: 0.0 * x, lambda x: -ratio(x)])
def test_a_wrong_ratio_gives_less(at, name, wrong):
    """All but the plain means of log r are lower bounds."""
    true = divergence(name, *map(ratio, at))
    assert divergence(name, *map(wrong, at)).value < true.value + 4 * true.error


def test_equal_laws_are_at_no_distance():
    zeros = torch.zeros(50, dtype=torch.float64), torch.zeros(80, dtype=torch.float64)
    assert [divergence(name, *zeros).value for name in (*DIVERGENCES, 0.5)] == pytest.approx([0.0] * 8, abs=1e-12)
    assert label_nats(*zeros).value == pytest.approx(-math.log(2)) and divergence("js", *zeros).n == 50


def test_the_true_ratio_has_the_best_score(at):
    """A score of labels that a wrong ratio could win would choose wrong methods."""
    best = label_nats(*map(ratio, at)).value
    assert all(label_nats(*map(wrong, at)).value < best for wrong in (lambda x: 0.8 * ratio(x), lambda x: ratio(x) + 0.2))


def test_errors_are_those_of_repetitions():
    values = []
    for seed in range(200):
        rng = generator(seed)
        p, q = (torch.randn(300, generator=rng, dtype=torch.float64) for _ in range(2))
        values.append(divergence("js", ratio(p), ratio(1 + 1.5 * q)))
    spread = torch.tensor([e.value for e in values]).std()
    assert torch.tensor([e.error for e in values]).mean() == pytest.approx(float(spread), rel=0.2)


def test_a_mean_that_overflows_has_a_reason():
    huge = torch.full((20,), 800.0, dtype=torch.float64)
    found = divergence("chi2", huge, huge)
    assert math.isnan(found.value) and "too large" in found.reason


@pytest.mark.parametrize("name", ["wrong", math.inf, None, "KL"])
def test_an_unknown_divergence_is_named(name):
    with pytest.raises(InputError, match="divergence: expected"):
        divergence(name, torch.zeros(5), torch.zeros(5))
