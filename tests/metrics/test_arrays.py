"""What a metric is given: numbers of any kind are numbers, anything else is one sentence."""

import math
from decimal import Decimal

import numpy as np
import pytest
import torch

from mixtura.contracts import InputError
from mixtura.ground.rng import generator
from mixtura.metrics import OF_ANSWERS, TABLE, calibration, shown_in
from mixtura.metrics.arrays import rows

X, Y = np.random.default_rng(0).normal(size=(2, 40, 3))
COMPARED = [row for row in TABLE.values() if row.takes in ("features", "columns", "copies")]


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


@pytest.mark.parametrize("name", OF_ANSWERS)
def test_a_metric_of_answers_tells_a_calibrated_model_from_a_shifted_one(name):
    row, draw = TABLE[name], np.random.default_rng(0)
    y, draws = draw.normal(size=400), draw.normal(size=(99, 400))
    given = {0: (y, draws), 3: (y + 3, draws), 30: (y, 30 * draws)}
    if row.takes == "ranks":
        given = {shift: (calibration.pit(*pair, rng=generator(0)),) for shift, pair in given.items()}
    right, shifted, wide = (row.function(*pair) for pair in given.values())
    assert right.n == 400 and (math.isnan(right.error) if name == "pit" else right.error > 0)
    if name.startswith("coverage"):
        assert abs(right.value - float(name[-2:]) / 100) < 4 * right.error and shifted.value < 0.3 and wide.value > 0.95
    else:
        assert row.direction == "lower" or row.direction is None
        assert max(shifted.value, wide.value) > 3 * right.value


def test_what_is_shown_is_of_the_run_it_is_shown_for():
    for answers in (False, True):
        shown = shown_in("card", "terminal", "wide terminal", "page", answers=answers)
        assert shown and all((row.name in OF_ANSWERS) is answers and row.heading for row in shown)
    assert [row.name for row in shown_in("terminal", answers=False)] == ["mmd2", "memorisation"]
    assert [row.name for row in shown_in("terminal", "wide terminal", answers=True)] == ["crps", "coverage_90", "width_90"]
