"""The arithmetic of the UCI benchmark: scores of Gaussian mixtures, its networks, its result files."""

from dataclasses import asdict

import numpy as np
import pytest
import uci
import uci_peers as peers
from scipy.integrate import quad
from scipy.stats import norm

MIXED = peers.Mixture(*(np.array([row]) for row in ([0.2, 0.5, 0.3], [97.0, 100.0, 104.0], [0.5, 3.0, 1.0])))


def density(y: float) -> float:
    return float((MIXED.weight * norm.pdf(y, MIXED.mean, MIXED.deviation)).sum())


def cdf(y: float) -> float:
    return float((MIXED.weight * norm.cdf(y, MIXED.mean, MIXED.deviation)).sum())


@pytest.mark.parametrize("y", [90.0, 97.1, 101.0, 110.0])
def test_a_mixture_is_scored_as_its_definitions_say(y):
    at = np.array([y])
    assert MIXED.log_density(at)[0] == pytest.approx(np.log(density(y)), abs=1e-12)
    assert np.exp(MIXED.log_mass(at - 0.5, at + 0.5))[0] == pytest.approx(quad(density, y - 0.5, y + 0.5)[0], rel=1e-9)
    below, above = quad(lambda z: cdf(z) ** 2, 70, y, limit=200)[0], quad(lambda z: (1 - cdf(z)) ** 2, y, 130, limit=200)[0]
    assert MIXED.crps(at)[0] == pytest.approx(below + above, rel=1e-7)
    matched = MIXED.matched()
    second = quad(lambda z: (z - MIXED.centre()[0]) ** 2 * density(z), 70, 130, points=[97, 100, 104], limit=200)[0]
    assert matched.mean[0, 0] == pytest.approx(quad(lambda z: z * density(z), 70, 130, points=[97, 100, 104], limit=200)[0])
    assert matched.deviation[0, 0] ** 2 == pytest.approx(second)


@pytest.mark.parametrize("y", [100 - 3e3, 100 + 3e3, 100 - 3e5, 100 + 3e5])
@pytest.mark.parametrize("step", [1e-6, 1e-3])
def test_the_mass_of_a_narrow_cell_far_out_keeps_its_digits(y, step):
    one = peers.Mixture(*(np.array([[value]]) for value in (1.0, 100.0, 3.0)))
    at, slope = np.array([y]), abs(y - 100) / 9  # the density is exponential over the cell: mass = φ δ sinh(u) / u
    u = slope * step / 2
    expected = one.log_density(at)[0] + np.log(np.sinh(u) / u)
    assert one.log_mass(at - step / 2, at + step / 2)[0] - np.log(step) == pytest.approx(expected, rel=1e-6)


def test_interval_nats_tend_to_point_nats_and_scale_with_the_units():
    y = np.array([96.9, 103.0])
    given = peers.Mixture(*(np.repeat(part, 2, 0) for part in (MIXED.weight, MIXED.mean, MIXED.deviation)))
    fine, none = peers.scores(given, y, 1e-4), peers.scores(given, y, 0)
    assert fine["interval"] == pytest.approx(fine["nats"], abs=1e-6) and none["interval"] is None
    coarse, feet = peers.scores(given, y, 1), peers.scores(given.scaled(5, 12), 5 + 12 * y, 12)
    for name, change in (("nats", -np.log(12)), ("interval", -np.log(12))):
        assert feet[name] == pytest.approx(coarse[name] + change)
    for name in ("rmse", "crps"):
        assert feet[name] == pytest.approx(12 * coarse[name])


def test_many_draws_score_as_the_gaussian_they_come_from():
    rng = np.random.default_rng(0)
    drawn = peers.Mixture(np.full((200, 1000), 1e-3), rng.normal(100, 2.4, (200, 1000)), np.full((200, 1000), 1.8))
    one = peers.Mixture(*(np.full((200, 1), value) for value in (1.0, 100.0, 3.0)))
    y = rng.normal(100, 3, 200)
    assert drawn.crps(y).mean() == pytest.approx(one.crps(y).mean(), rel=0.01)


@pytest.mark.parametrize(
    ("peer", "row"),
    [
        (peers.DeepEnsemble(epochs=20), "deep ensemble, mixture"),
        (peers.MonteCarloDropout(steps=600, draws=100, trial_draws=20), "MC dropout"),
    ],
)
def test_the_networks_learn_a_line_and_its_noise(peer, row):
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((1500, 2)), rng.standard_normal(1500)
    y = 0.9 * x[:, 0] + 0.4 * noise
    answer = peer.fit(x[:1000], y[:1000], seed=0).predict(x[1000:])[row]
    truth = peers.Mixture(*(np.full((500, 1), 1.0), 0.9 * x[1000:, :1], np.full((500, 1), 0.4)))
    short = truth.log_density(y[1000:]).mean() - answer.log_density(y[1000:]).mean()
    assert -0.01 < short < 0.06
    assert np.abs(answer.centre() - truth.centre()).mean() < 0.08


def test_a_result_belongs_to_its_settings(tmp_path):
    key, other = (peers.Key("NGBoost", asdict(peers.NGBoost(rate=rate)), "yacht", 3) for rate in (0.01, 0.1))
    key.write(tmp_path, {"scores": {"nats": -1.5}})
    found = key.read(tmp_path)
    assert found is not None and found["scores"] == {"nats": -1.5} and found["split"] == 3
    assert other.read(tmp_path) is None
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_ours_is_compared_on_the_splits_both_have():
    ours = uci.Cell({0: 1.0, 1: 2.0, 2: 4.0, 3: 50.0})
    near, far = uci.Cell({0: 1.1, 1: 1.9, 2: 3.7, 4: -2.0}), uci.Cell({0: 3.0, 1: 3.0, 2: 3.0})
    found = uci.standing({"mixtura": ours, "NGBoost": near, "MC dropout": far})
    assert found is not None and found.best == "NGBoost"
    assert found.difference == pytest.approx(0.1) and found.paired == pytest.approx(np.std([-0.1, 0.1, 0.3], ddof=1) / 3**0.5)
    assert found.plain == pytest.approx(np.std([1.1, 1.9, 3.7, -2.0], ddof=1) / 2)
    assert uci.standing({"NGBoost": near}) is None and uci.standing({"mixtura": ours, "NGBoost": uci.Cell({9: 1.0})}) is None


@pytest.mark.parametrize(
    ("values", "full", "text"),
    [
        ([1.0, 2.0, 3.0], 3, "2.00±0.58*"),
        ([0.001, 0.0012], 20, "0.00110±0.00010 (2)*"),
        ([100.0, 150.0], 2, "125±25*"),
        ([7.0], 1, "7.000*"),
    ],
)
def test_a_figure_shows_two_digits_of_its_error(values, full, text):
    assert uci.said(uci.Cell(dict(enumerate(values))), True, full) == text


@pytest.mark.parametrize(
    ("y", "step"), [([3.0, 5, 8], 1), ([0.95, 0.951, 1.0], 0.001), ([1.5, 2.0, 4.5], 0.5), ([np.pi, np.e, 1.0], 0)]
)
def test_the_step_of_y(y, step):
    assert uci.resolution(np.array(y)) == step
