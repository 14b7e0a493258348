"""The encoding is reversible, its Jacobians equal derivatives, and the masses of cells are accurate far into the tails."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch

from mixtura.contracts import Column, Space
from mixtura.ground.cells import OF_PARTS, Parts, log_logistic_mass, log_normal_mass
from mixtura.ground.encode import ABOVE, ASINH, BELOW, BETWEEN, IDENTITY, Columns
from mixtura.ground.inputs import Inputs
from mixtura.ground.rng import generator

N = 400
mpmath.mp.dps = 140


def _normal(seed=0):
    return torch.randn(N, generator=generator(seed), dtype=torch.float64)


def _gaps(x):
    return x.masked_fill(torch.arange(len(x)) % 7 == 3, math.nan)


def _atom(x, atom):
    return x.masked_fill(torch.arange(len(x)) % 3 == 1, atom)


LEVELS = torch.arange(N).double()
# name: (column, values, the warp they call for)
COLUMNS = {
    "plain": (Column(), 100 + 3 * _normal(), IDENTITY),
    "positive": (Column(low=0.0), _normal().exp(), ABOVE),
    "far above a wall": (Column(low=0.0), 1e4 + _normal(), IDENTITY),
    "shares": (Column(low=0.0, high=1.0), torch.sigmoid(2 * _normal()), BETWEEN),
    "below nothing": (Column(high=0.0), -_normal().exp(), BELOW),
    "long tails": (Column(), -5 + _normal() / _normal(1), ASINH),
    "whole": (Column(resolution=1.0, low=80, high=120), (100 + 3 * _normal()).round(), BETWEEN),
    "whole, skewed": (Column(resolution=1.0, low=0), (7 + _normal()).exp().round(), ABOVE),
    "whole, below": (Column(resolution=1.0, high=120), (100 + 3 * _normal()).round(), BELOW),
    "whole, no ends": (Column(resolution=1.0), (1e4 * _normal() / _normal(1)).round(), ASINH),
    "tenths from a tenth": (Column(resolution=0.1, low=0.1, high=9.1), 0.1 + 0.1 * (LEVELS % 91), BETWEEN),
    "a billion on": (Column(resolution=1.0, low=1e9, high=1e9 + 50), 1e9 + LEVELS % 51, BETWEEN),
    "a billion off": (Column(resolution=1.0), -1e9 + (9 * _normal()).round(), IDENTITY),
    "gaps": (Column(missing=True), _gaps(100 + 3 * _normal()), IDENTITY),
    "nothing but gaps": (Column(missing=True), torch.full((N,), math.nan, dtype=torch.float64), IDENTITY),
    "atoms": (Column(atoms=(0.0, 50.0)), _atom(_atom(100 + 3 * _normal(), 0.0).roll(1), 50.0), IDENTITY),
    "nothing but an atom": (Column(atoms=(3.0,)), torch.full((N,), 3.0, dtype=torch.float64), IDENTITY),
    "atom, gaps, whole": (
        Column(missing=True, resolution=1.0, low=97, high=106, atoms=(100.0,)),
        _gaps(_atom((100 + 3 * _normal()).round().clamp(97, 106), 100.0)),
        BETWEEN,
    ),
    "atom off the steps": (Column(resolution=1.0, atoms=(100.1,)), _atom((100 + 3 * _normal()).round(), 100.1), IDENTITY),
    "one number": (Column(), torch.full((N,), 7.25, dtype=torch.float64), IDENTITY),
    "one whole number": (Column(resolution=1.0, low=40, high=40), torch.full((N,), 40.0, dtype=torch.float64), BETWEEN),
    "levels": (Column("levels", 4), LEVELS % 4, None),
    "levels, gaps": (Column("levels", 4, missing=True), _gaps(LEVELS % 4), None),
    "one level": (Column("levels", 1), 0 * LEVELS, None),
}
every_column = pytest.mark.parametrize("name", COLUMNS)


def prepared(*columns, x):
    columns = Columns(Space.table(columns))
    columns.prepare(x)
    return columns


def one(name):
    column, values, _ = COLUMNS[name]
    return prepared(column, x=values[:, None]), values[:, None]


@every_column
def test_split_and_join_are_inverse(name):
    columns, x = one(name)
    parts = columns.split(x)
    back = columns.join(parts.codes, parts.values)
    assert torch.equal(torch.isnan(back), torch.isnan(x))
    exact = COLUMNS[name][0].resolution > 0 or COLUMNS[name][0].kind == "levels"
    torch.testing.assert_close(back, x, rtol=1e-15 if exact else 1e-12, atol=0, equal_nan=True)


def test_a_table_of_all_columns_at_once_is_the_columns_one_by_one():
    x = torch.stack([values for _, values, _ in COLUMNS.values()], 1)
    columns = prepared(*(column for column, _, _ in COLUMNS.values()), x=x)
    parts = columns.split(x)
    torch.testing.assert_close(columns.join(parts.codes, parts.values), x, rtol=1e-12, atol=0, equal_nan=True)
    alone = [one(name)[0].split(values[:, None]) for name, (_, values, _) in COLUMNS.items()]
    for field in OF_PARTS:
        beside = torch.cat([getattr(p, field) for p in alone], 1)
        torch.testing.assert_close(getattr(parts, field), beside, rtol=1e-10, atol=1e-12, equal_nan=True, msg=field)


@every_column
def test_packed_parts_come_back_in_single_precision(name):
    columns, x = one(name)
    parts = columns.split(x)
    again = columns.unpack(parts.pack())
    for field in OF_PARTS:
        before, after = getattr(parts, field), getattr(again, field)
        assert torch.equal(after, before.float() if before.is_floating_point() else before), field


@pytest.mark.parametrize("name", [n for n, (c, _, _) in COLUMNS.items() if c.kind == "continuous"])
def test_the_warp_fits_the_column_and_standardises_it(name):
    columns, x = one(name)
    parts = columns.split(x)
    assert int(columns.warp) == COLUMNS[name][2]
    values = parts.values[parts.present]
    if len(values.unique()) > 1:
        assert abs(float(values.mean())) < 1e-6 and float(values.std(correction=0)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", ["plain", "positive", "shares", "below nothing", "long tails", "gaps", "atoms"])
def test_the_base_of_a_real_number_is_the_log_derivative(name):
    columns, x = one(name)
    x = x[columns.split(x).present.squeeze(1)]
    h = 1e-6 * x.abs()
    slope = (columns.split(x + h).values - columns.split(x - h).values) / (2 * h)
    torch.testing.assert_close(columns.split(x).log_base, slope.log().squeeze(1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [n for n, (c, _, _) in COLUMNS.items() if c.resolution and c.low != c.high])
def test_neighbouring_cells_touch_and_the_last_are_open(name):
    column, values, _ = COLUMNS[name]
    columns, _ = one(name)
    start = column.low if math.isfinite(column.low) else float(values.nan_to_num(0).min())
    steps = torch.arange(10, dtype=torch.float64) * column.resolution
    parts = columns.split((start + steps)[:, None])
    torch.testing.assert_close(parts.low[1:], (parts.low + parts.width)[:-1], rtol=0, atol=1e-6)
    assert parts.open_low.squeeze(1).tolist() == [math.isfinite(column.low)] + [False] * 9
    if math.isfinite(column.high):
        assert bool(columns.split(torch.tensor([[column.high]], dtype=torch.float64)).open_high)
    assert float(parts.base[1]) == pytest.approx(-math.log(column.resolution))


@pytest.mark.parametrize("mass", ["logistic", "normal"])
@pytest.mark.parametrize("name", ["whole", "tenths from a tenth", "a billion on", "one whole number"])
def test_the_masses_of_all_cells_sum_to_one(name, mass):
    column = COLUMNS[name][0]
    columns, _ = one(name)
    count = round((column.high - column.low) / column.resolution) + 1
    parts = columns.split((column.low + column.resolution * torch.arange(count, dtype=torch.float64))[:, None])
    location, scale = torch.tensor([0.7], dtype=torch.float64), torch.tensor([1.3], dtype=torch.float64)
    if mass == "logistic":
        nats = log_logistic_mass(parts, location, scale.log())
    else:
        nats = log_normal_mass(parts.low, parts.width, parts.open_low, parts.open_high, location, scale)
    assert float(nats.exp().sum()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("mass", ["logistic", "normal"])
@pytest.mark.parametrize("low", [-30.0, -6.0, -1.0, -0.02, 0.0, 0.3, 5.0, 30.0])
@pytest.mark.parametrize("width", [1e-7, 1e-3, 0.009, 0.011, 0.5, 4.0, 60.0])
@pytest.mark.parametrize("ends", ["closed", "open low", "open high"])
def test_masses_agree_with_140_digits(mass, low, width, ends):
    """Tails, narrow and wide cells; the reference subtracts distribution functions with 140 digits."""
    location, scale = 0.25, 1.5
    a, b = (mpmath.mpf(t - location) / mpmath.mpf(scale) for t in (low, mpmath.mpf(low) + mpmath.mpf(width)))
    a, b = (-mpmath.inf if ends == "open low" else a), (mpmath.inf if ends == "open high" else b)
    below = mpmath.ncdf if mass == "normal" else lambda t: 1 / (1 + mpmath.exp(-t))
    want = float(mpmath.log(below(b) - below(a)))
    t = lambda value: torch.tensor([[value]], dtype=torch.float64)  # noqa: E731
    flag = lambda name: torch.tensor([[ends == name]])  # noqa: E731
    cell = (t(low), t(width), flag("open low"), flag("open high"))
    if mass == "normal":
        got = log_normal_mass(*cell, t(location), t(scale))
    else:
        no = torch.tensor([[False]])
        got = log_logistic_mass(Parts(no.long(), t(low), ~no, no, *cell, t(0.0)), t(location), t(scale).log())
    assert float(got) == pytest.approx(want, rel=1e-8, abs=2e-8)


def test_masses_without_a_cell_are_densities():
    y = torch.tensor([[-40.0], [0.2], [3.0]], dtype=torch.float64)
    none = torch.zeros_like(y, dtype=torch.bool)
    normal = log_normal_mass(y, 0 * y, none, none, torch.tensor(0.5), torch.tensor(2.0))
    torch.testing.assert_close(normal, torch.distributions.Normal(0.5, 2.0).log_prob(y), rtol=1e-6, atol=0)
    logistic = log_logistic_mass(
        Parts(none.long(), y, ~none, none, y, 0 * y, none, none, 0 * y),
        torch.tensor(0.5).double(),
        torch.tensor(2.0).double().log(),
    )
    z = (y - 0.5) / 2
    torch.testing.assert_close(logistic, -z - 2 * torch.log1p(torch.exp(-z)) - math.log(2), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["whole", "whole, skewed", "atom, gaps, whole"])
def test_noise_stays_inside_the_cell(name):
    columns, x = one(name)
    parts = columns.split(x)
    y, log_width = columns.dequantise(parts, generator(3))
    parts_of = parts.present.squeeze(1)
    assert ((y >= parts.low) & (y <= parts.low + parts.width))[parts_of].all() and len(y[parts_of].unique()) > N / 3
    torch.testing.assert_close(log_width[parts_of], parts.width[parts_of].log().squeeze(1))
    assert torch.equal(columns.join(parts.codes, y).nan_to_num(-1), x.nan_to_num(-1))


def test_rounding_is_idempotent_and_lands_on_atoms():
    columns, _ = one("atom, gaps, whole")
    y = columns._forward(torch.tensor([[90.2], [99.6], [100.4], [100.6], [111.0]], dtype=torch.float64))[0]
    settled = columns.settle(y)
    torch.testing.assert_close(columns.settle(settled), settled)
    assert columns.round(columns.raw(y)).squeeze(1).tolist() == [97, 100, 100, 101, 106]
    assert columns.recode(0, y[:, 0]).tolist() == [0, 1, 1, 0, 0]


@every_column
def test_a_blank_row_can_be_split(name):
    columns, x = one(name)
    blank = columns.blank(x, torch.zeros_like(x, dtype=torch.bool))
    assert torch.isfinite(blank).all() and not columns.space.outside(blank).any()
    assert torch.equal(columns.blank(x, torch.ones_like(x, dtype=torch.bool)).nan_to_num(-1), x.nan_to_num(-1))


@pytest.mark.parametrize("name", ["positive", "shares", "below nothing"])
def test_a_law_of_a_bent_column_ends_at_the_wall_with_all_its_mass(name):
    """Integrated in data units, by the trapezoidal rule over places that crowd at the walls."""
    columns, _ = one(name)
    y = torch.linspace(-12, 12, 400_001, dtype=torch.float64)[:, None]
    x = columns.raw(y)
    assert not columns.space.outside(x).any()
    parts = columns.split(x)
    inside = (parts.values - y).abs().squeeze(1) < 1e-6  # at a wall neighbouring places are one float
    nats = log_logistic_mass(parts, torch.tensor([0.7]).double(), torch.tensor([-1.0]).double()).squeeze(1) + parts.log_base
    mass = torch.trapezoid(torch.where(inside, nats.exp(), 0.0), x.squeeze(1))
    assert float(mass) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("c", [1e-3, 0.1, 1.0, 1e9])
def test_the_bend_between_two_walls_is_inverted_to_the_last_digits(c):
    columns = Columns(Space.table([Column(low=2.0, high=5.0)]))
    columns.warp[0], columns.stretch[0] = BETWEEN, c
    steps = lambda last: torch.logspace(-9, math.log10(last), 50, dtype=torch.float64)  # noqa: E731
    x = torch.cat([2 + steps(2.9), 5 - steps(1.0)])[:, None]
    back = columns.raw(columns._forward(x)[0])
    for wall in (2.0, 5.0):
        torch.testing.assert_close((back - wall).abs(), (x - wall).abs(), rtol=1e-5, atol=1e-15)


def test_an_exponential_law_is_bent_into_a_logistic_one():
    """With c its mean: y = c logit(u), u the distribution function."""
    columns = Columns(Space.table([Column(low=0.0)]))
    columns.warp[0], columns.stretch[0] = ABOVE, 3.0
    u = torch.linspace(1e-6, 1 - 1e-6, 99, dtype=torch.float64)
    y = columns._forward(-3 * torch.log1p(-u)[:, None])[0].squeeze(1)
    torch.testing.assert_close(y, 3 * torch.logit(u), rtol=1e-9, atol=1e-9)


def test_a_wall_near_some_rows_bends_and_one_far_from_all_does_not():
    """What counts is the row nearest to the wall."""
    far = 1e4 + torch.arange(50, dtype=torch.float64)
    near = torch.cat([torch.tensor([0.5], dtype=torch.float64), far])
    assert int(prepared(Column(low=0.0), x=far[:, None]).warp) == IDENTITY
    assert int(prepared(Column(low=0.0), x=near[:, None]).warp) == ABOVE
    assert int(prepared(Column(high=2e4), x=(2e4 - near)[:, None]).warp) == BELOW


def test_a_lognormal_law_is_bent_into_a_normal_one():
    """Over six decades, which no smaller scale than the logarithm's can do."""
    x = (3 * _normal()).exp()
    columns = prepared(Column(low=0.0), x=x[:, None])
    y = columns.split(x[:, None]).values.squeeze(1)
    torch.testing.assert_close(y, (x.log() - x.log().mean()) / x.log().std(correction=0), rtol=1e-4, atol=1e-4)


def test_the_cell_at_a_wall_is_given_an_end_within_it():
    """An eighth of a step from the wall, for those who draw uniformly inside cells."""
    columns, _ = one("whole, skewed")
    parts = columns.split(torch.tensor([[0.0]], dtype=torch.float64))
    assert float(columns.raw(parts.low)) == pytest.approx(-0.5 + 1 / 8) and bool(parts.open_low)
    assert float(columns.raw(parts.low + parts.width)) == pytest.approx(0.5)


def test_a_value_on_a_wall_counts_as_nearer_than_all_that_were_seen():
    """It has no density there: the figure is that of the data, not of a rounding error."""
    x = torch.linspace(0.2, 9, 200, dtype=torch.float64)[:, None]
    columns = prepared(Column(low=0.0), x=x)
    on, near = (columns.split(torch.tensor([[value]], dtype=torch.float64)) for value in (0.0, 0.1))
    assert torch.equal(on.values, near.values) and torch.equal(on.base, near.base)


def test_an_atom_off_the_steps_is_not_its_neighbour_on_them():
    columns, _ = one("atom off the steps")
    parts = columns.split(torch.tensor([[100.0], [100.1], [101.0]], dtype=torch.float64))
    assert parts.codes.squeeze(1).tolist() == [0, 1, 0] and parts.present.squeeze(1).tolist() == [True, False, True]
    assert not parts.overlap.any()


def test_values_on_the_edges_of_the_support_have_a_mass():
    columns, _ = one("whole, skewed")
    parts = columns.split(torch.tensor([[0.0], [1e12]], dtype=torch.float64))
    nats = log_logistic_mass(parts, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    assert torch.isfinite(nats).all() and torch.isfinite(parts.low).all()


# ------------------------------------------------------------------------------------------------- inputs of a model


def test_inputs_are_indicators_beside_standardised_values():
    space = Space.table([Column(), Column("levels", 3, missing=True), Column(missing=True, atoms=(0.0,))])
    draw = torch.Generator().manual_seed(0)
    columns = 100 + 3 * torch.randn(500, generator=draw), torch.arange(500) % 3, torch.rand(500, generator=draw)
    x = torch.stack([column.double() for column in columns], 1)
    inputs = Inputs(space)
    inputs.prepare(x)
    seen = inputs(x)
    assert seen.shape == (500, inputs.width) == (500, 4 + 3 + 2) and seen.dtype == torch.float32
    assert abs(float(seen[:, 7].mean())) < 1e-5 and float(seen[:, 7].std()) == pytest.approx(1, abs=0.01)
    odd = torch.tensor([[100.0, 3, 0.5], [100.0, math.nan, 0.0], [1e9, 1, math.nan]], dtype=torch.float64)
    unseen, gap, far = inputs(odd)
    assert unseen[:4].tolist() == [0, 0, 0, 0]  # a level never seen has no indicator
    assert gap[:4].tolist() == [0, 0, 0, 1] and gap[4:7].tolist() == [0, 1, 0] and gap[8] == 0
    assert far[4:7].tolist() == [0, 0, 1] and far[8] == 0  # absent: no value
    assert far[7] == pytest.approx(float(seen[:, 7].max()) + 1, abs=1e-5)  # no further than a deviation past the fit rows
    copy = Inputs(space)
    copy.load_state_dict(inputs.state_dict())
    assert torch.equal(copy(odd), inputs(odd))


def test_a_constant_input_is_harmless():
    inputs = Inputs(Space.table([Column()]))
    inputs.prepare(torch.full((50, 1), 7.0, dtype=torch.float64))
    assert inputs(torch.tensor([[7.0], [7.1], [-1e300]], dtype=torch.float64)).abs().max() <= 1


@pytest.mark.parametrize("power", [-1030, -997, -331, 331, 997])
@pytest.mark.parametrize("low", [-math.inf, 0.0])
def test_units_only_move_the_base(power, low):
    plain, scaled = Columns(Space.table([Column(low=low)])), Columns(Space.table([Column(low=low)]))
    x = torch.randn(200, 1, generator=generator(0), dtype=torch.float64).exp()
    # twice by half the power: 2^1030 is too large for a float64
    far = torch.ldexp(torch.ldexp(x, torch.tensor(power // 2)), torch.tensor(power - power // 2))
    plain.prepare(x), scaled.prepare(far)
    ours, theirs = plain.split(x), scaled.split(far)
    digits = 1e-3 if power < -1000 else 1e-12  # below 2^-1022 numbers lose digits
    assert torch.allclose(ours.values, theirs.values, rtol=digits, atol=digits)
    assert torch.allclose(ours.log_base - power * math.log(2), theirs.log_base, atol=digits)
    assert torch.allclose(scaled.raw(theirs.values), far, rtol=digits, atol=0)
