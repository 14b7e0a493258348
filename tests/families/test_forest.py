"""Boosted trees column by column: options and their trees, totals, tails, what is learnt, and how much is spent."""

import math

import pytest
import torch

from mixtura.contracts import Column, InputError, Space
from mixtura.families import forest
from mixtura.ground.rng import generator, normal, uniform

LIKE = torch.zeros(0, dtype=torch.float64)


def fitted(space, x, context=None, **settings):
    shape = None if context is None else tuple(context.shape[1:])
    model = forest.build(space, context_shape=shape, config=forest.Config(**settings), rng=generator(0))
    model.fit_closed(x, context, generator(1))
    return model.eval()


def law(n, seed=2):
    """x₁ normal with mean 100 and deviation 3, x₂ = (x₁ − 100)²/3 + normal noise."""
    rng = generator(seed)
    first = 3 * normal((n,), rng, LIKE)
    return torch.stack([100 + first, first.square() / 3 + normal((n,), rng, LIKE)], 1)


def law_nats(x):
    first = x[:, 0] - 100
    noise = x[:, 1] - first.square() / 3
    return -0.5 * (first / 3) ** 2 - 0.5 * noise**2 - math.log(3) - math.log(2 * math.pi)


def test_it_learns_a_dependence_that_is_not_linear():
    model, unseen = fitted(Space.continuous(2), law(6_000)), law(3_000, 3)
    truth, nats = law_nats(unseen).mean(), model.log_prob(unseen).mean()
    alone = fitted(Space.continuous(1), law(6_000)[:, :1]), fitted(Space.continuous(1), law(6_000)[:, 1:])
    apart = sum(float(m.log_prob(unseen[:, [j]]).mean()) for j, m in enumerate(alone))
    assert truth - 0.12 < nats < truth + 0.02 and apart < truth - 0.5
    drawn = model.sample(4_000, rng=generator(4))
    assert (model.log_prob(drawn).mean() - nats).abs() < 0.15
    curved = (drawn[:, 1] - (drawn[:, 0] - 100).square() / 3).abs()
    assert float(curved.median()) < 0.8  # of the noise: .67


def test_several_orderings_are_one_mixture():
    """It has total one, and is better than each of them on average."""
    space = Space.levels(3, levels=3)
    rng = generator(5)
    first = (3 * uniform((900,), rng, LIKE)).long()
    second = (first + (uniform((900,), rng, LIKE) < 0.3)) % 3
    x = torch.stack([first, second, (3 * uniform((900,), rng, LIKE)).long()], 1).double()
    model = fitted(space, x, orderings=3)
    every = torch.cartesian_prod(*[torch.arange(3.0)] * 3).double()
    assert float(model.log_prob(every).exp().sum()) == pytest.approx(1, abs=1e-9)
    share = torch.bincount((x @ torch.tensor([9.0, 3.0, 1.0]).double()).long(), minlength=27) / 900
    assert (model.log_prob(every).exp() - share).abs().max() < 0.03


def test_a_table_of_every_kind_of_column_has_total_one_and_draws_follow_it():
    """Gaps, levels, atoms on the steps and off them, values that recur, a wall."""
    counted = Column(resolution=1.0, low=0.0, missing=True, atoms=(0.0, 7.5))
    space = Space.table([counted, Column("levels", 3, missing=True), Column(resolution=0.5, low=0.0, high=3.0)])
    rng, n = generator(6), 3_000

    def some(share):
        return uniform((n,), rng, LIKE) < share

    level = (3 * uniform((n,), rng, LIKE)).floor()
    count = (6 + 2 * level + 4 * normal((n,), rng, LIKE)).round().clamp(0, 40)
    count = torch.where(some(0.1), 7.5, torch.where(some(0.4), (count / 5).round() * 5, count)).masked_fill(some(0.1), math.nan)
    small = ((level + normal((n,), rng, LIKE)) * 2).round().div(2).clamp(0, 3)
    x = torch.stack([count, level.masked_fill(some(0.1), math.nan), small], 1)
    model = fitted(space, x, orderings=2, bins=12)
    values = torch.tensor([*range(400), 7.5, math.nan], dtype=torch.float64)
    every = torch.cartesian_prod(values, torch.tensor([0, 1, 2, math.nan]).double(), torch.arange(0, 3.25, 0.5).double())
    volume = torch.where(every[:, 2] > -1, 0.5, 1.0)
    mass = model.log_prob(every).exp() * volume
    assert float(mass.sum()) == pytest.approx(1, abs=1e-6)
    drawn, m = model.sample(20_000, rng=generator(7)), 20_000
    for j in range(3):
        for value in every[:, j].unique():
            same = every[:, j].isnan() if value.isnan() else every[:, j] == value
            p = float(mass[same].sum())
            made = drawn[:, j].isnan() if value.isnan() else drawn[:, j] == value
            assert float(made.double().mean()) == pytest.approx(p, abs=5 * math.sqrt(p / m) + 5 / m)


def test_a_number_with_atoms_and_without_steps_integrates_to_one():
    space = Space.table([Column(low=0.0, atoms=(0.0,), missing=True)])
    rng = generator(8)
    x = normal((2_000,), rng, LIKE).exp()
    x = torch.where(uniform((2_000,), rng, LIKE) < 0.2, 0.0, x).masked_fill(uniform((2_000,), rng, LIKE) < 0.1, math.nan)
    model = fitted(space, x.unsqueeze(1))
    points = model.log_prob(torch.tensor([[0.0], [math.nan]]).double()).exp()
    assert points.tolist() == pytest.approx([float((x == 0).double().mean()), float(x.isnan().double().mean())], abs=0.01)
    grid = torch.linspace(-30, 14, 40_001, dtype=torch.float64).exp()
    area = torch.trapezoid(model.log_prob(grid.unsqueeze(1)).exp(), grid)
    assert float(area + points.sum()) == pytest.approx(1, abs=5e-3)


def test_beyond_the_range_seen_nats_are_finite_and_beyond_a_wall_they_are_not():
    for column in (Column(), Column(resolution=1.0)):
        x = (50 + 10 * normal((800,), generator(9), LIKE)).round().unsqueeze(1)
        model = fitted(Space.table([column]), x)
        far = model.log_prob(torch.tensor([[-200.0], [0.0], [x.max() + 1], [400.0]]).double())
        assert torch.isfinite(far).all() and far[2] > -12 and far[1] > far[0]
    wall = fitted(Space.table([Column(resolution=1.0, low=0.0)]), x.clamp(min=0))
    assert float(wall.log_prob(torch.tensor([[-1.0]]).double())) == -math.inf
    assert float(wall.sample(5_000, rng=generator(10)).min()) >= 0


def test_a_value_that_recurs_has_the_share_that_it_had():
    x = (1_000 * uniform((4_000,), generator(11), LIKE)).round()
    x = torch.where(uniform((4_000,), generator(12), LIKE) < 0.3, (x / 100).round() * 100 + 13, x).unsqueeze(1)
    model = fitted(Space.table([Column(resolution=1.0)]), x, bins=8)
    heap, beside = model.log_prob(torch.tensor([[313.0], [320.0]]).double()).exp()
    assert float(heap) == pytest.approx(float((x == 313).double().mean()), rel=0.2) and float(beside) < 0.002


def test_many_levels_are_divided_by_their_counts():
    """And a level of the space that no fit row has is possible."""
    space = Space.table([Column("levels", 60), Column()])
    rng = generator(13)
    level = (60 * uniform((4_000,), rng, LIKE) ** 3).floor().clamp(max=58)
    x = torch.stack([level, (level % 2) * 4 + normal((4_000,), rng, LIKE)], 1)
    model = fitted(space, x)
    every = torch.stack([torch.arange(60.0).double(), torch.zeros(60).double()], 1)
    assert torch.isfinite(model.log_prob(every)).all()
    made = model.sample(8_000, rng=generator(14))
    assert (made[:, 0] == 0).double().mean() == pytest.approx(float((level == 0).double().mean()), abs=0.03)
    odd = made[:, 0] % 2 == 1
    assert float(made[odd, 1].mean() - made[~odd, 1].mean()) > 2


def test_a_level_of_a_single_row_stops_nothing():
    """Early stopping holds rows of both sides of a node out; where there is one of a side, its base rate counts."""
    x = torch.stack([normal((900,), generator(18), LIKE), torch.zeros(900).double()], 1)
    x[0, 1] = 1
    model = fitted(Space.table([Column(), Column("levels", 2)]), x)
    shares = model.log_prob(torch.cat([x[:1, :1].expand(2, 1), torch.tensor([[0.0], [1.0]]).double()], 1)).softmax(0)
    assert float(shares[1]) == pytest.approx(2 / 902)


def test_with_few_rows_columns_are_independent():
    """Below the least number of rows of a node only its base rate counts."""
    x = (uniform((forest.LEAST_ROWS - 1, 1), generator(15), LIKE) < 0.5).double().expand(-1, 2)
    model = fitted(Space.levels(2, levels=2), x)
    p = (float(x[:, 0].sum()) + 1) / (len(x) + 2)
    rows = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).double()
    assert model.log_prob(rows).exp().tolist() == pytest.approx([(1 - p) ** 2, p * (1 - p), p * p])


def test_a_context_is_one_more_input():
    rng = generator(16)
    context = normal((3_000, 1), rng, LIKE)
    x = 5 * context + 0.5 * normal((3_000, 1), rng, LIKE)
    model = fitted(Space.continuous(1), x, context)
    at = torch.tensor([[-1.0], [1.0]]).double().repeat(500, 1)
    made = model.sample(1_000, context=at, rng=generator(17))
    assert float(made[::2].mean()) == pytest.approx(-5, abs=0.5) and float(made[1::2].mean()) == pytest.approx(5, abs=0.5)


@pytest.mark.parametrize(("rows", "seconds"), [(500, 60.0), (20_000, 60.0), (200_000, 10.0)])
def test_less_time_buys_fewer_orderings_or_rows(rows, seconds):
    space = Space.table([Column("levels", 8), *[Column(resolution=1.0)] * 8])
    much, little = (forest.suggest(space, rows, s) for s in (20 * seconds, seconds / 4))
    assert much.orderings >= little.orderings and much.rows >= little.rows
    assert (much.orderings, much.rows) != (little.orderings, little.rows)


def test_it_refuses_images_and_very_wide_rows():
    with pytest.raises(InputError, match="^forest: images have too many entries for trees; use autoregressive$"):
        forest.build(Space.image(1, 4, 4), config=forest.Config(), rng=generator(0))
    with pytest.raises(InputError, match="^forest: 129 columns are more than the 128 this family can model; use flow$"):
        forest.build(Space.continuous(129), config=forest.Config(), rng=generator(0))
