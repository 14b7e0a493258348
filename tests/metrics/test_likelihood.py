"""Means of nats and paired gains: closed forms, coverage, infinities."""

import math

import numpy as np
import pytest

from mixtura.contracts import Estimate, InputError
from mixtura.metrics import TABLE, gain, mean_nats

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    "log_probs, value, error",
    [([1.0, 3.0], 2.0, 1.0), ([5.0], 5.0, NAN), ([-1e300, -1e300], -1e300, 0.0), ([0.0, -INF], -INF, NAN), ([0, 0, 3], 1.0, 1.0)],
)
def test_mean_and_its_error(log_probs, value, error):
    found = mean_nats(log_probs)
    assert (found.value, found.error) == pytest.approx((value, error), nan_ok=True)
    assert found.n == len(log_probs)


def test_the_error_is_the_spread_of_the_mean():
    draws = np.random.default_rng(0).standard_exponential((2000, 50))
    found = [mean_nats(row) for row in draws]
    assert np.mean([e.error for e in found]) == pytest.approx(np.std([e.value for e in found]), rel=0.05)


def test_gain_is_paired_and_trimmed():
    """Rows differ by thousands, the models by 1 ± ½ and one outlier: pairing and trimming both show."""
    level = 1000 * np.arange(100.0)
    difference = np.where(np.arange(100) % 2 == 0, 0.5, 1.5)
    difference[17] = -900.0
    found = gain(level + difference, level)
    kept = np.delete(difference, 17)
    assert found.value == pytest.approx(difference.mean())
    assert found.error == pytest.approx(difference.std(ddof=1) / 10)
    assert found.trimmed == pytest.approx(kept.mean())
    assert found.trimmed_error == pytest.approx(kept.std(ddof=1) / math.sqrt(99))
    assert found.n == 100


@pytest.mark.parametrize("n, trim, left", [(100, 0.01, 99), (101, 0.01, 99), (10, 0.0, 10), (2, 0.01, 1), (10, 0.85, 1)])
def test_the_trimmed_rows_are_the_largest_and_their_number_is_rounded_up(n, trim, left):
    difference = np.arange(n) * np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
    assert gain(difference, np.zeros(n), trim=trim).trimmed == pytest.approx(difference[:left].mean())


@pytest.mark.parametrize(
    "blend, single, value, trimmed",
    [
        ([1.0, 2.0, 0.0], [0.0, -INF, -1.0], INF, 1.0),
        ([1.0, -INF, 0.0], [0.0, 2.0, -1.0], -INF, 1.0),
        ([1.0, -INF, 0.0], [0.0, -INF, -1.0], NAN, 1.0),
        ([5.0, -INF, 0.0], [-INF, 0.0, -1.0], NAN, -INF),
    ],
)
def test_infinite_differences_are_told_and_trimmed_first(blend, single, value, trimmed):
    for found in (gain(blend, single), gain(blend[::-1], single[::-1])):
        assert (found.value, found.trimmed) == pytest.approx((value, trimmed), nan_ok=True)
        assert math.isnan(found.error)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: mean_nats([]), "one row or more"),
        (lambda: mean_nats([[0.0]]), r"got \(1, 1\)"),
        (lambda: mean_nats([0.0, NAN]), "row 1 is nan"),
        (lambda: mean_nats([INF]), "row 0 is inf"),
        (lambda: gain([0.0, 1.0], [0.0]), "expected 2 rows as in blend, got 1"),
        (lambda: gain([0.0, 1.0], [0.0, NAN]), "single: row 1 is nan"),
        (lambda: gain([0.0, 1.0], [0.0, 1.0], trim=1.0), "trim"),
        (lambda: gain([0.0, 1.0], [0.0, 1.0], trim=-0.1), "trim"),
        (lambda: gain([0.0], [0.0]), "leaves a row of 1"),
    ],
)
def test_refusals(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_the_table_offers_every_metric_by_name():
    assert all(row.name == name and row.summary and row.unit for name, row in TABLE.items())
    assert TABLE["mean_nats"].function([2.0, 2.0]) == Estimate(2.0, 0.0, 2)
