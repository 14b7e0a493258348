"""Bins of recurring values: what is found and what is not, the law they make of another, draws of it, and their tensors."""

import math

import pytest
import torch

from mixtura.contracts import Column, Space
from mixtura.ground.encode import Columns
from mixtura.ground.recurring import Recurring, bin_of, equal_bins, look_up, repeats, replaced
from mixtura.ground.recurring import find as find_by
from mixtura.ground.rng import generator, normal, uniform


def heaped(n, seed=0, spread=40.0, every=25, share=0.5):
    """Step numbers around 0; a share of them is rounded to the multiples of ``every``."""
    rng, like = generator(seed), torch.zeros(0, dtype=torch.float64)
    k = (spread * normal((n,), rng, like)).round()
    return torch.where(uniform((n,), rng, like) < share, (k / every).round() * every, k)


def find(k, *rest, **named):
    """With the mean and the deviation of the column."""
    centre, spread = k.mean(), k.std(correction=0)
    return find_by(k, lambda steps: (steps - 0.5 - centre) / spread, *rest, **named)


def mixed(table, k, log_p):
    """log p' at the step numbers k, where log p is the law of all of them."""
    log_new, log_repeat = look_up(k, table)
    b, inside = bin_of(k, table)
    of_bin = torch.stack([torch.logsumexp(log_p[inside & (b == i)], 0) for i in range(len(table.new))])
    return torch.logaddexp(log_p + log_new, of_bin[b] + log_repeat)


def test_heaps_are_found_and_the_law_of_what_was_found_sums_to_one():
    table = find(heaped(4_000))
    assert table is not None and bool((table.new < 1).any())
    k = torch.arange(-400.0, 401.0, dtype=torch.float64)
    log_p = torch.log_softmax(-0.5 * ((k - 13) / 60) ** 2, 0)
    nats = mixed(table, k, log_p)
    assert float(nats.exp().sum()) == pytest.approx(1, abs=1e-12)
    # each bin keeps its probability, and beyond the bins nothing changes
    b, inside = bin_of(k, table)
    for i in range(len(table.new)):
        here = inside & (b == i)
        assert float(nats[here].exp().sum()) == pytest.approx(float(log_p[here].exp().sum()), abs=1e-12)
    assert torch.equal(nats[~inside], log_p[~inside]) and bool((~inside).any())


def test_unseen_rows_gain_what_the_heaps_are_worth():
    """Half of the rows are at one of 25 steps: of these the truth is known."""
    table, k = find(heaped(20_000)), torch.arange(-400.0, 401.0, dtype=torch.float64)
    assert table is not None
    log_p = torch.log_softmax(-0.5 * (k / 40) ** 2, 0)
    near = torch.zeros_like(k).index_add(0, ((k / 25).round() * 25 + 400).long(), log_p.exp())
    truth = (0.5 * log_p.exp() + 0.5 * near).clamp(min=1e-300).log()
    best = float((truth.exp() * (truth - log_p)).sum())
    assert best > 1
    assert float((truth.exp() * (mixed(table, k, log_p) - log_p)).sum()) > 0.9 * best


def test_draws_follow_the_law():
    table, n = find(heaped(4_000)), 60_000
    assert table is not None
    k = torch.arange(-400.0, 401.0, dtype=torch.float64)
    p = torch.softmax(-0.5 * ((k - 13) / 60) ** 2, 0)
    rng = generator(1)
    drawn = k[torch.searchsorted(p.cumsum(0), uniform((n,), rng, p)).clamp(max=len(k) - 1)]
    made = replaced(drawn, table, uniform((n,), rng, p))
    expected = n * mixed(table, k, p.log()).exp()
    count = torch.bincount((made + 400).long(), minlength=len(k)).double()
    large = expected > 10
    χ2 = float(((count - expected).square() / expected)[large].sum())
    assert abs(χ2 - int(large.sum())) < 5 * math.sqrt(2 * int(large.sum()))
    assert float(count[~large].sum()) == pytest.approx(float(expected[~large].sum()), abs=5 * math.sqrt(n / 20))


@pytest.mark.parametrize(("n", "spread"), [(200, 30.0), (1_000, 300.0), (10_000, 10.0), (10_000, 1_000.0), (30_000, 100.0)])
def test_a_rounded_gaussian_has_no_recurring_values(n, spread):
    """Though nearly all of its values come more than once."""
    k = (spread * normal((n,), generator(2), torch.zeros(0, dtype=torch.float64))).round()
    assert find(k) is None


def test_the_share_of_new_values_is_that_of_good():
    """On a lattice so fine that no two rows agree by chance."""
    rng, like = generator(3), torch.zeros(0, dtype=torch.float64)
    pool = (1e6 * uniform((600,), rng, like)).round()
    again = pool[(uniform((2_000,), rng, like) ** 2 * 600).long()]
    k = torch.cat([again, (1e9 * uniform((2_000,), rng, like)).round()])
    k = torch.cat([k, torch.tensor([0.0, 1e9], dtype=torch.float64)])
    steps, counts = k.unique(return_counts=True)
    edges = equal_bins(steps, counts.cumsum(0) / (len(k) + 1), 1)
    table, gain = repeats(steps, counts, edges, torch.full_like(steps, 1e-9), 0.5)
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    assert gain > 1 and float(table.new[0]) == pytest.approx((once + 2 * twice + 1) / (len(k) + 1), abs=1e-3)
    assert float(table.share.sum()) == pytest.approx(1) and torch.equal(table.steps, steps[counts >= 2])


def test_what_another_column_tells_is_not_given_away():
    """Two values of every bin that another column tells apart: wide bins would cost log 2, narrow ones separate them."""
    rng, like = generator(4), torch.zeros(0, dtype=torch.float64)
    level = (8 * uniform((4_000,), rng, like)).long()
    k = 10.0 * level
    alone, told = find(k), find(k, [level])
    assert alone is not None and told is not None
    for table, most in ((alone, 3), (told, 1)):
        b, _ = bin_of(table.steps, table)
        assert int(torch.bincount(b).max()) == most - (most > 1)


def test_atoms_are_in_no_bin():
    k = heaped(4_000)
    table = find(k[k != 25], apart=[25.0])
    assert table is not None
    b, inside = bin_of(torch.tensor([24.0, 25.0, 26.0], dtype=torch.float64), table)
    assert inside.all() and table.new[b].tolist()[1] == 1 and len(set(b.tolist())) == 3


def test_bins_have_about_equal_probability_and_cover_the_range():
    steps = torch.arange(-50.0, 51.0, dtype=torch.float64)
    p = torch.softmax(-0.5 * (steps / 15) ** 2, 0)
    edges = equal_bins(steps, p.cumsum(0) - p / 2, 8)
    assert edges[0] == -50 and edges[-1] == 51 and bool((edges.diff() > 0).all())
    inside = torch.searchsorted(edges, steps, right=True) - 1
    totals = torch.zeros(8, dtype=torch.float64).index_add(0, inside, p)
    assert float(totals.sum()) == pytest.approx(1) and float((totals - 1 / 8).abs().max()) < float(p.max())


def test_nothing_or_one_value_has_no_bins():
    assert find_by(torch.zeros(0, dtype=torch.float64), lambda k: k) is None
    assert find_by(torch.full((90,), 7.0, dtype=torch.float64), lambda k: k) is None


def test_the_tensors_hold_the_bins_of_every_column_and_load_into_any_other():
    a, b = find(heaped(4_000)), find(heaped(4_000, 1, spread=90))
    held, again = Recurring(4), Recurring(4)
    held.hold([None, a, None, b])
    again.hold([b, None, None, None])
    again.load_state_dict(held.state_dict())
    for tables in (held.tables(), again.tables()):
        assert list(tables) == [1, 3]
        for table, want in zip(tables.values(), (a, b), strict=True):
            assert want is not None
            assert all(torch.equal(getattr(table, name), getattr(want, name)) for name in ("steps", "share", "edges", "new"))
    assert Recurring(4).tables() == {}


# ------------------------------------------------------------------------------------------------------- of columns


def prices(n, seed=5):
    """Mean 100, deviation 3, in steps of .01, of which many are whole."""
    return heaped(n, seed, spread=300.0, every=100).div(100).add(100).unsqueeze(1)


def test_the_bins_of_a_column_are_cells_side_by_side():
    """Their masses under a logistic are the sums of the masses of the cells in them, at walls as well."""
    space = Space.table([Column(resolution=0.5, low=0.0, high=30.0)])
    columns, x = Columns(space), (heaped(3_000, spread=20.0, every=10).abs() / 2).clamp(0, 30).unsqueeze(1)
    columns.prepare(x)
    columns.find_recurring(x)
    every = torch.arange(0, 30.25, 0.5, dtype=torch.float64).unsqueeze(1)
    parts = columns.split(every, recurring=True)
    assert parts.bins is not None

    def mass(cells):
        low = torch.where(cells.open_low, -math.inf, cells.low)
        high = torch.where(cells.open_high, math.inf, cells.low + cells.width)
        return torch.sigmoid(high) - torch.sigmoid(low)

    cells, bins = mass(parts).squeeze(1), mass(parts.bins).squeeze(1)
    number, inside = bin_of(columns.step_number(every[:, 0], 0), columns.recurring.tables()[0])
    assert inside.all()
    totals = torch.zeros(int(number.max()) + 1, dtype=torch.float64).index_add(0, number, cells)
    torch.testing.assert_close(bins, totals[number])


def test_columns_find_recurring_values_in_data_units_and_draw_them():
    space = Space.table([Column(resolution=0.01)])
    columns, x = Columns(space), prices(3_000)
    columns.prepare(x)
    assert columns.split(x, recurring=True).bins is None
    columns.find_recurring(x)
    values = normal((20_000, 1), generator(6), x)
    codes = torch.zeros(20_000, 0, dtype=torch.int64)
    plain, made = (columns.join(codes, v) for v in (values, columns.redraw_all(values, generator(7))))

    def whole(t):
        return float(((t - t.round()).abs() < 1e-9).double().mean())

    assert whole(plain) < 0.02 and whole(made) == pytest.approx(whole(x), abs=0.03)
    assert (made.mean() - 100).abs() < 0.3 and (made.std() / 3 - 1).abs() < 0.05


def test_another_model_does_not_adopt_them():
    """It may be fitted to the rows that this one is scored on."""
    space, x = Space.table([Column(resolution=0.01)]), prices(3_000)
    columns, other = Columns(space), Columns(space)
    columns.prepare(x)
    columns.find_recurring(x)
    other.adopt(columns)
    assert torch.equal(other.scale, columns.scale) and other.recurring.tables() == {} and len(columns.recurring.tables()) == 1


def test_numbers_without_steps_and_pixels_have_none():
    for space, x in (
        (Space.continuous(1), prices(3_000)),
        (Space.image(1, 1, 2, high=20_000), prices(6_000).mul(100).reshape(-1, 1, 1, 2)),
    ):
        columns = Columns(space)
        columns.prepare(x)
        columns.find_recurring(x)
        assert columns.recurring.tables() == {} and columns.split(x, recurring=True).bins is None
