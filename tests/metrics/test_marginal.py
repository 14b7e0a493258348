"""Distances column by column: scipy, closed forms, no floor, errors that are the spread."""

import math

import numpy as np
import pytest
import scipy.stats

from mixtura.contracts import InputError
from mixtura.ground.rng import generator
from mixtura.metrics import marginal_distance
from mixtura.metrics.marginal import columns

NAN = math.nan


def of(x, y, codes=None, plain=True):
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    return columns(x, y, codes=np.zeros(x.shape[1], bool) if codes is None else codes, plain=plain)


@pytest.mark.parametrize("n, m", [(50, 50), (40, 70), (3, 5)])
@pytest.mark.parametrize("ties", [False, True])
def test_numbers_agree_with_scipy(n, m, ties):
    rng = np.random.default_rng(0)
    x, y = 100 + 3 * rng.normal(size=(n, 1)), 101 + 4 * rng.normal(size=(m, 1))
    x, y = (x.round(), y.round()) if ties else (x, y)
    (found,) = of(x, y)
    assert found.kind == "number" and found.missing.value == 0
    assert found.distance.value == pytest.approx(scipy.stats.wasserstein_distance(x[:, 0], y[:, 0]) / x.std())
    assert found.ks == pytest.approx(scipy.stats.ks_2samp(x[:, 0], y[:, 0]).statistic)


@pytest.mark.parametrize(
    "x, y, code, kind, distance, missing",
    [
        ([0, 0, 1, 2], [0, 1, 1, 1], True, "code", 0.5, 0),
        ([0, 0, 1, 1], [7, 8, 9, 9], True, "code", 1.0, 0),
        ([5, 5, 5, 5], [5, 5, 6, 9], False, "code", 0.5, 0),
        ([0, 2, NAN, NAN], [1, 3, 1, 3], False, "number", 1.0, 0.5),
        ([0, 1, NAN, 1], [NAN, NAN, NAN, NAN], True, "code", 0.0, 0.75),
        ([NAN, NAN], [NAN, NAN], False, "code", 0.0, 0.0),
    ],
    ids=["codes", "unseen codes", "one real value", "missing", "all missing in one", "all missing in both"],
)
def test_small_columns_by_hand(x, y, code, kind, distance, missing):
    (found,) = of(np.array(x)[:, None], np.array(y)[:, None], np.array([code]))
    assert (found.kind, found.distance.value, found.missing.value) == (kind, pytest.approx(distance), pytest.approx(missing))


def normals(shift=0.0, scale=1.0, columns=1):
    return lambda rng, n: 100 + 3 * (shift + scale * rng.normal(size=(n, columns)))


def chosen(*shares):
    return lambda rng, n: rng.choice(len(shares), size=(n, 1), p=shares).astype(float)


def absent(share, shift=0.0):
    return lambda rng, n: np.where(rng.random((n, 1)) < share, NAN, shift + rng.normal(size=(n, 1)))


@pytest.mark.parametrize(
    "real, generated, codes, truth",
    [
        (normals(), normals(), [False], 0.0),
        (normals(columns=4), normals(columns=4), [False] * 4, 0.0),
        (normals(), normals(1.0), [False], 1.0),
        (normals(), normals(4.0), [False], 4.0),
        (normals(), normals(0.0, 2.0), [False], math.sqrt(2 / math.pi)),
        (chosen(0.5, 0.3, 0.2), chosen(0.5, 0.3, 0.2), [True], 0.0),
        (chosen(*[0.05] * 20), chosen(*[0.05] * 20), [True], 0.0),
        (chosen(0.7, 0.3), chosen(0.4, 0.6), [True], 0.3),
        (absent(0.2), absent(0.2), [False], 0.0),
        (absent(0.2), absent(0.5), [False], 0.3),
        (absent(0.8), absent(0.8, 1.0), [False], 1.0),
    ],
)
def test_no_floor_and_the_error_is_the_spread(real, generated, codes, truth):
    found, plain = [], []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        x, y = real(rng, 400), generated(rng, 300)
        found.append(marginal_distance(x, y, codes=np.array(codes), rng=generator(0)))
        plain.append(marginal_distance(x, y, codes=np.array(codes), rng=generator(0), plain=True).value)
    values = np.array([e.value for e in found])
    assert abs(values.mean() - truth) < 0.3 * values.std() + 0.02 * truth
    assert 0.75 < np.mean([e.error for e in found]) / values.std() < 1.25
    assert truth > 0 or np.mean(plain) > values.std()  # as it is, the distance has a floor


def test_columns_that_share_their_rows_are_not_counted_as_independent():
    x, y = np.random.default_rng(0).normal(size=(2, 300, 1))
    once, twice = (
        marginal_distance(x.repeat(k, 1), y.repeat(k, 1) + 1, codes=np.zeros(k, bool), rng=generator(0)) for k in (1, 5)
    )
    assert (once.value, once.error) == (pytest.approx(twice.value), pytest.approx(twice.error))


def test_grows_with_a_shift_and_does_not_depend_on_units():
    x, y = np.random.default_rng(0).normal(size=(2, 500, 3))
    values = [marginal_distance(x, y + shift, codes=np.zeros(3, bool), rng=generator(0)).value for shift in (0, 0.3, 1, 3)]
    assert values == sorted(values)
    other = marginal_distance(1e6 + 5 * x, 1e6 + 5 * (y + 3), codes=np.zeros(3, bool), rng=generator(0)).value
    assert other == pytest.approx(values[-1], rel=1e-6)


@pytest.mark.parametrize(
    "x, y, codes, says",
    [
        (np.zeros((1, 2)), np.zeros((3, 2)), [False] * 2, "real: expected shape"),
        (np.zeros((3, 2)), np.zeros((3, 1)), [False] * 2, "generated: expected 2 columns as in real, got 1"),
        (np.zeros((3, 2)), np.zeros((3, 2)), [False], "codes: expected 2 truth values"),
        (np.zeros((3, 2)), np.zeros((3, 2)), [0, 1], "codes: expected 2 truth values"),
        (np.zeros((3, 1)), np.array([[0.0], [math.inf], [0.0]]), [False], "generated: row 1, column 0 is inf"),
    ],
)
def test_refusals(x, y, codes, says):
    with pytest.raises(InputError, match=says):
        columns(x, y, codes=np.array(codes))
