"""Mutual information of Gaussians and of codes, rate–distortion and capacity, against closed forms."""

import math

import numpy as np
import pytest
import torch

from mixtura.contracts import InputError
from mixtura.ground.rng import generator
from mixtura.ratio import information
from mixtura.ratio.information import GROUP, blahut_arimoto, capacity, mutual_information


def entropy(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_gaussians(rho):
    """I = −½ log(1 − ρ²)."""
    rng = generator(0)
    x, e = (torch.randn(4_000, 1, generator=rng, dtype=torch.float64) for _ in range(2))
    found = mutual_information(x, rho * x + math.sqrt(1 - rho**2) * e, method="gaussian")
    truth = -0.5 * math.log(1 - rho**2)
    for name, value in found.items():
        assert abs(value.value - truth) < 4 * value.error + 0.03, name
    assert found["info_nce"].value <= math.log(GROUP)


def test_units_do_not_matter():
    rng = generator(0)
    x, e = (torch.randn(2_000, 1, generator=rng, dtype=torch.float64) for _ in range(2))
    y = 0.8 * x + 0.6 * e
    plain, scaled = (mutual_information(a * x + 100, y / a, method="gaussian") for a in (1.0, 1e5))
    assert all(plain[name].value == pytest.approx(scaled[name].value, abs=1e-6) for name in plain)
    huge = mutual_information(1e300 * x, y, method="gaussian")
    assert all(plain[name].value == pytest.approx(huge[name].value, abs=1e-6) for name in plain)


class Known:
    """A ratio that is given, in place of one that is learnt."""

    def __init__(self, f):
        self.ratio, self.log_ratio = self, f


def test_info_nce_of_a_ratio_that_says_nothing_is_0_and_its_error_falls_with_rows(monkeypatch):
    errors = []
    for f, n in ((lambda z: 0 * z[:, 0], 640), (lambda z: z[:, 0] * z[:, 1], 1_280), (lambda z: z[:, 0] * z[:, 1], 20_480)):
        monkeypatch.setattr(information.ratio, "learn", lambda *_, f=f: Known(f))
        x, y = (torch.randn(n, 1, generator=generator(seed), dtype=torch.float64) for seed in (0, 1))
        found = mutual_information(x, y)["info_nce"]
        errors.append(found.error)
        if n == 640:
            assert found.value == pytest.approx(0.0, abs=1e-12) and found.error == pytest.approx(0.0, abs=1e-12)
    assert errors[2] < 0.5 * errors[1]  # sixteen times the rows: a quarter


def test_the_ratio_is_measured_at_rows_that_it_has_not_learnt_from(monkeypatch):
    """The second parts are the numbers of the rows, so that learnt and unseen rows can be told apart."""
    rows = torch.arange(40, dtype=torch.float64)[:, None]
    seen = []
    flat = Known(lambda z: seen.append(z) or 0 * z[:, 0])
    monkeypatch.setattr(information.ratio, "learn", lambda p, *_: seen.append(p) or flat)
    mutual_information(rows, rows)
    learnt, *measured = seen
    assert len(learnt) == 20 and not {*learnt[:, 1].tolist()} & {v for z in measured for v in z[:, 1].tolist()}


def test_a_binary_channel_by_trees():
    """I = log 2 − H(.1)."""
    rng = generator(1)
    x = torch.randint(2, (4_000, 1), generator=rng)
    y = x ^ (torch.rand(4_000, 1, generator=rng) < 0.1)
    found = mutual_information(x.double(), y.double(), method="trees")
    truth = math.log(2) - entropy(0.1)
    assert found["nwj"].value == pytest.approx(truth, abs=4 * found["nwj"].error + 0.02)
    assert found["plug_in"].value == pytest.approx(truth, abs=4 * found["plug_in"].error + 0.02)


def test_info_nce_cannot_pass_the_log_of_its_group(monkeypatch):
    monkeypatch.setattr(information, "GROUP", 8)
    x, e = (torch.randn(2_000, 1, generator=generator(seed), dtype=torch.float64) for seed in (0, 1))
    found = mutual_information(x, x + 1e-3 * e, method="gaussian")
    assert found["info_nce"].value <= math.log(8) + 1e-9 < found["plug_in"].value


def test_the_rate_distortion_function_of_a_coin():
    """R(D) = log 2 − H(D) nats: D = .1, R = .36806, at the slope log((1 − D)/D)."""
    rate, distortion = blahut_arimoto([0.5, 0.5], 1 - np.eye(2), math.log(9))
    assert distortion == pytest.approx(0.1, abs=1e-6) and rate == pytest.approx(0.36806, abs=1e-5)


def test_an_uneven_coin_needs_less():
    """R(D) = H(p) − H(D)."""
    rate, distortion = blahut_arimoto([0.2, 0.8], 1 - np.eye(2), math.log(0.95 / 0.05))
    assert distortion == pytest.approx(0.05, abs=1e-5) and rate == pytest.approx(entropy(0.2) - entropy(0.05), abs=1e-5)


def test_capacities():
    """The symmetric channel log 2 − H(.1); the erasure channel (1 − ε) log 2; a useless one."""
    found, p = capacity([[0.9, 0.1], [0.1, 0.9]])
    assert found == pytest.approx(math.log(2) - entropy(0.1), abs=1e-8) and p == pytest.approx([0.5, 0.5], abs=1e-4)
    assert capacity([[0.7, 0.3, 0.0], [0.0, 0.3, 0.7]])[0] == pytest.approx(0.7 * math.log(2), abs=1e-8)
    assert capacity([[0.3, 0.7], [0.3, 0.7]])[0] == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize(
    "call",
    [
        lambda: blahut_arimoto([0.5, 0.6], np.eye(2), 1.0),
        lambda: blahut_arimoto([0.5, 0.5], np.eye(3), 1.0),
        lambda: blahut_arimoto([0.5, 0.5], np.eye(2), 0.0),
        lambda: capacity([[0.5, 0.4], [0.5, 0.5]]),
        lambda: mutual_information(torch.zeros(5, 1), torch.zeros(6, 1)),
        lambda: mutual_information(1j * torch.ones(20, 1), torch.zeros(20, 1)),
        lambda: mutual_information("text", torch.zeros(20, 1)),
        lambda: mutual_information(None, torch.zeros(20, 1)),
        lambda: blahut_arimoto([0.5, 0.5], np.eye(2), "a"),
        lambda: blahut_arimoto([0.5, 0.5], [[0, 1], [1]], 1.0),
        lambda: blahut_arimoto([0.5, 0.5], [[0, np.nan], [1, 0]], 1.0),
        lambda: blahut_arimoto([0.5, 0.5j], np.eye(2), 1.0),
        lambda: capacity([]),
        lambda: capacity(None),
        lambda: capacity([["a", "b"]]),
    ],
)
def test_what_is_no_law_is_named(call):
    with pytest.raises(InputError, match="expected"):
        call()
