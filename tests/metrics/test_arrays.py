"""What a metric is given: numbers of any kind are numbers, anything else is one sentence."""

import math
from decimal import Decimal

import numpy as np
import pytest
import torch

from mixtura.contracts import InputError
from mixtura.ground.rng import generator
from mixtura.metrics import TABLE
from mixtura.metrics.arrays import rows

X, Y = np.random.default_rng(0).normal(size=(2, 40, 3))
COMPARED = [row for row in TABLE.values() if row.takes != "nats"]


def measured(row, x, y):
    if row.takes == "columns":
        return row.function(x, y, codes=np.zeros(3, bool), rng=generator(0))
    return row.function(*((y, x, y[::-1]) if row.takes == "copies" else (x, y)), rng=generator(0))


@pytest.mark.parametrize("row", COMPARED, ids=lambda row: row.name)
def test_the_type_of_the_numbers_does_not_matter(row):
    x, y = (np.round(8 * part) for part in (X, Y))
    plain = measured(row, x, y)
    assert math.isfinite(plain.value) and plain.error >= 0
    for kind in (np.float16, np.float32, np.int8, np.int64, np.longdouble, object):
        found = measured(row, x.astype(kind), y.astype(kind))
        # the directions of sliced Wasserstein are drawn in the precision of the features
        room = 3 * plain.error if row.name == "sliced_wasserstein" else 1e-5
        assert found.value == pytest.approx(plain.value, rel=1e-3, abs=room), kind
    decimals = np.array([[Decimal(int(v)) for v in r] for r in x])
    assert measured(row, decimals, y).value == pytest.approx(plain.value, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("row", COMPARED, ids=lambda row: row.name)
@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e160, 1e300])
def test_numbers_of_any_size_have_a_value_or_a_sentence(row, size):
    if row.takes == "columns":  # in spreads of the real column
        assert measured(row, size * X, size * Y).value == pytest.approx(measured(row, X, Y).value)
        return
    with pytest.raises(InputError, match="the largest number is .* standardise the features"):
        measured(row, size * X, size * Y)


@pytest.mark.parametrize("row", COMPARED, ids=lambda row: row.name)
def test_constant_sets_have_a_value(row):
    point = np.ones((40, 3))
    for x, y in ((point, point), (point, Y), (X, point)):
        found = measured(row, x, y)
        assert math.isfinite(found.value) and math.isfinite(found.error) and found.error >= 0


@pytest.mark.parametrize("size", [1e-8, 1e8])
def test_float32_is_widened_where_its_products_would_not_hold(size):
    x = (size * X).astype(np.float32)
    assert rows(x, "x").dtype == torch.float64 and rows(X.astype(np.float32), "x").dtype == torch.float32


@pytest.mark.parametrize("row", COMPARED, ids=lambda row: row.name)
@pytest.mark.parametrize("wrong", [X.astype(str), X + 0j, X.astype("M8[s]"), np.array([["a"] * 3] * 40, object)], ids=str)
def test_what_holds_no_numbers_is_refused(row, wrong):
    with pytest.raises(InputError, match="expected an array of numbers"):
        measured(row, wrong, Y)
