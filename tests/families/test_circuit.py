"""The circuit against enumeration: density, conditionals and samples; frequent values; what it refuses."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch

from mixtura.contracts import Column, InputError, Space
from mixtura.families import circuit
from mixtura.ground.rng import generator

torch.set_num_threads(1)
SPACE = Space.table((
    Column("levels", 3, missing=True), Column("levels", 2),
    Column(resolution=1.0, low=0, high=5, atoms=(0.0,)), Column("levels", 2),
))  # fmt: skip


def rows(n=400):
    rng = generator(0)
    kind = torch.randint(3, (n,), generator=rng)
    flag = (kind + torch.randint(2, (n,), generator=rng)) % 2
    number = (kind + flag + torch.randn(n, generator=rng)).round().clamp(0, 5)
    other = (number + torch.randint(2, (n,), generator=rng) > 2).double()
    first = kind.double().masked_fill(torch.rand(n, generator=rng) < 0.1, math.nan)
    return torch.stack([first, flag.double(), number.double(), other], 1)


def learn(space, x, **settings):
    model = circuit.build(space, config=circuit.Config(**settings), rng=generator(1))
    model.fit_closed(x, None, generator(2))
    return model.eval()


@cache
def fitted():
    return learn(SPACE, rows())


def everything():
    first = torch.tensor([0.0, 1.0, 2.0, math.nan], dtype=torch.float64)
    return torch.cartesian_prod(first, torch.arange(2.0).double(), torch.arange(6.0).double(), torch.arange(2.0).double())


def test_all_rows_together_weigh_one_and_samples_fall_as_they_weigh():
    mass, n = fitted().log_prob(everything()).exp(), 40_000
    assert float(mass.sum()) == pytest.approx(1, abs=1e-9)
    drawn = fitted().sample(n, rng=generator(3)).nan_to_num(3)
    place = torch.tensor([24.0, 12.0, 2.0, 1.0], dtype=torch.float64)
    count = torch.bincount((drawn @ place).long(), minlength=96)
    often = mass * n >= 5
    chi2 = ((count - n * mass) ** 2 / (n * mass))[often].sum()
    assert float(chi2) < float(often.sum()) + 4 * math.sqrt(2 * float(often.sum()))


@pytest.mark.parametrize("known", [(1, 1, 0, 1), (0, 1, 1, 0), (1, 0, 0, 0), (0, 0, 1, 1), (0, 0, 0, 0)])
def test_evidence_is_the_sum_over_all_completions(known):
    known, listed = torch.tensor(known).bool(), everything()
    mass = fitted().log_prob(listed).exp()
    for row in (7, 30, 64):
        fits = ((listed == listed[row]) | ~known).all(1) & ~torch.isnan(listed[:, ~known]).any(1)
        got = fitted().condition(listed[[row]], known.unsqueeze(0), rng=generator(4))
        assert float(got.log_evidence) == pytest.approx(float(mass[fits].sum().log()), abs=1e-9)
        assert math.isinf(float(got.ess))


def test_each_entry_given_the_others_is_enumerated():
    """p(x_j | rest) is p(x) over its sum over all values of x_j, missing included."""
    x = everything()
    whole, each = fitted().log_prob(x), fitted().log_conditionals(x)
    for j in range(4):
        others = torch.cat([x[:, :j], x[:, j + 1 :]], 1).nan_to_num(-1)
        _, group = others.unique(dim=0, return_inverse=True)
        total = torch.zeros(int(group.max()) + 1, dtype=torch.float64).index_add(0, group, whole.exp())
        assert torch.allclose(each[:, j], whole - total[group].log(), atol=1e-9)


def test_what_is_not_on_the_support_is_left_out_of_what_the_others_are_given():
    space = Space.table((Column("levels", 3, unseen=0.01), Column(low=0.0), Column()))
    rng = generator(4)
    level = torch.randint(3, (300,), generator=rng).double()
    x = torch.stack([level, level + torch.rand(300, generator=rng), torch.randn(300, generator=rng)], 1).double()
    model = learn(space, x)
    odd = torch.tensor([[7.0, 1.0, 0.0], [1.0, -3.0, 0.0], [1.0, 1.5, 5000.0]], dtype=torch.float64)
    found = model.log_conditionals(odd)
    assert found[0, 0] == pytest.approx(math.log(0.01)) and found[1, 1] == -math.inf and found[2, 2] < -1e4
    assert torch.isfinite(found[torch.tensor([0, 1]), torch.tensor([1, 0])]).all() and torch.isfinite(found[2]).all()
    # the same differences as of the density where one entry changes
    a, b = x[:20], x[:20].clone()
    b[:, 1] = b[:, 1] + 0.3
    apart = model.log_prob(a) - model.log_prob(b)
    assert torch.allclose(model.log_conditionals(a)[:, 1] - model.log_conditionals(b)[:, 1], apart, atol=1e-9)


def test_a_value_that_recurs_has_mass_and_its_neighbours_have_less():
    """Half of the rows hold one of two values; the other half is smooth."""
    rng, n = generator(5), 2_000
    x = (100 + 3 * torch.randn(n, 1, generator=rng, dtype=torch.float64)).mul(10).round().div(10)
    x[: n // 4], x[n // 4 : n // 2] = 100.0, 105.5
    model = learn(Space.table((Column(resolution=0.1),)), x, states=4)
    at = torch.tensor([[100.0], [105.5], [105.4]], dtype=torch.float64)
    mass = (model.log_prob(at) + math.log(0.1)).exp()
    assert mass[:2].tolist() == pytest.approx([0.255, 0.25], abs=0.02) and float(mass[2]) < 0.01
    assert float((model.sample(4_000, rng=generator(6)) == 105.5).double().mean()) == pytest.approx(float(mass[1]), abs=0.03)


def test_one_row_a_constant_and_many_columns_are_served():
    one = learn(Space.continuous(2), torch.tensor([[100.0, 3.0]], dtype=torch.float64))
    assert torch.isfinite(one.log_prob(torch.tensor([[100.0, 3.0], [1e4, -5.0]], dtype=torch.float64))).all()
    wide = (torch.rand(60, 120, generator=generator(7)) < 0.5).double()
    model = learn(Space.levels(120, levels=2), wide, states=2)
    assert model.sample(5, rng=generator(8)).shape == (5, 120) and torch.isfinite(model.log_prob(wide)).all()


@pytest.mark.parametrize(
    ("space", "shape", "named"),
    [
        (Space.continuous(2), (1,), "circuit: this family takes no context; use autoregressive or flow"),
        (Space.image(1, 4, 4), None, "circuit: this family models tables, not images; use"),
        (Space.continuous(257), None, "circuit: 257 columns are more than the 256 this family can model; use gaussian_mixture"),
    ],
)
def test_what_it_cannot_serve_is_one_sentence(space, shape, named):
    with pytest.raises(InputError, match=named):
        circuit.build(space, context_shape=shape, config=circuit.Config(), rng=generator(0))


def test_less_time_means_fewer_states_and_rows():
    space = Space.continuous(15)
    long, short = circuit.suggest(space, 20_000, 60), circuit.suggest(space, 20_000, 5)
    assert circuit.suggest(space, 20_000) == circuit.Config()
    assert long.states > short.states >= 4 and long.rows > short.rows >= 1_000


def law(n, seed):
    """A law that a circuit can represent: a group; a number, a code and a rounded number that depend on nothing but the group."""
    rng = generator(seed)
    group = torch.randint(3, (n,), generator=rng)
    a = 100 + 4 * group + 3 * torch.randn(n, generator=rng)
    c = (torch.rand(n, generator=rng) < torch.tensor([0.2, 0.5, 0.9])[group]).double()
    d = (3 * group + 1.5 * torch.randn(n, generator=rng)).round()
    return torch.stack([a.double(), c, d.double(), group.double()], 1)


def test_what_is_filled_in_covers_as_often_as_it_says():
    """90 % intervals of numbers, and codes by their mean probability, within 2 standard errors."""
    space = Space.table((Column(), Column("levels", 2), Column(resolution=1.0), Column("levels", 3)))
    model, unseen, draws = learn(space, law(4_000, 9)), law(1_500, 10), 199
    for j in range(4):
        known = torch.ones(1_500, 4, dtype=torch.bool)
        known[:, j] = False
        drawn = model.condition(unseen, known, draws=draws, rng=generator(11)).values[:, :, j]
        if j in (0, 2):
            # the rank of the truth among the draws, ties broken at random, is uniform
            below, equal = (drawn < unseen[:, j]).sum(0), (drawn == unseen[:, j]).sum(0)
            rank = below + (equal + 1) * torch.rand(1_500, generator=generator(12))
            inside = ((rank > 0.05 * (draws + 1)) & (rank < 0.95 * (draws + 1))).double()
            assert abs(float(inside.mean()) - 0.9) < 2 * math.sqrt(0.09 / 1_500)
        else:
            for level in range(2 if j == 1 else 3):
                away = (drawn == level).double().mean(0) - (unseen[:, j] == level).double()
                assert abs(float(away.mean())) < 2 * float(away.std()) / math.sqrt(1_500)
