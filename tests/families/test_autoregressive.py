"""Autoregressive models: bars and stripes to the exact nats, and orderings that agree on the density."""

from __future__ import annotations

import itertools
import math
from functools import cache

import pytest
import torch

from mixtura.contracts import Column, InputError, Space
from mixtura.families import autoregressive
from mixtura.ground.rng import generator
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

torch.set_num_threads(1)


@cache
def bars_and_stripes():
    lines = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)), dtype=torch.float64)
    both = torch.cat([lines[:, :, None].expand(-1, 4, 4), lines[:, None, :].expand(-1, 4, 4)])
    return both.unique(dim=0)


@cache
def artist():
    rng = generator(3)
    config = autoregressive.Config(hidden=(64, 64), orderings=1)
    model = autoregressive.build(Space.levels(4, 4, levels=2), config=config, rng=rng)
    for _ in fit(model, bars_and_stripes().repeat(400, 1, 1), Recipe(steps=3000, rate=5e-3, average=0.99, patience=20), rng=rng):
        pass
    return model


def test_bars_and_stripes_are_learnt_to_their_entropy():
    """30 patterns, equally likely: log 30 = 3.4012 nats is the least that is possible."""
    assert len(bars_and_stripes()) == 30
    assert math.log(30) <= -float(artist().log_prob(bars_and_stripes()).detach().mean()) <= 3.41


def test_all_pictures_together_weigh_one():
    pictures = torch.tensor(list(itertools.product([0.0, 1.0], repeat=16)), dtype=torch.float64).reshape(-1, 4, 4)
    assert float(artist().log_prob(pictures).detach().exp().sum()) == pytest.approx(1, abs=1e-5)


def test_its_pictures_are_bars_and_stripes():
    made = artist().sample(500, rng=generator(4))
    known = {str(p.tolist()) for p in bars_and_stripes()}
    hits = [str(p.tolist()) for p in made]
    assert sum(h in known for h in hits) > 490 and len(set(hits) & known) == 30


def test_half_a_picture_is_completed():
    """Three known rows of a stripe pattern leave one picture; four equal pixels in a column leave several."""
    stripe = torch.tensor([[1.0, 0.0, 0.0, 1.0]] * 4, dtype=torch.float64)
    known = torch.ones(4, 4, dtype=torch.bool)
    known[3] = False
    filled = artist().condition(stripe.expand(20, 4, 4), known.expand(20, 4, 4), rng=generator(5))
    assert float((filled.values[0] == stripe).all(2).all(1).double().mean()) > 0.9
    assert float(filled.log_evidence.mean()) == pytest.approx(-math.log(30), abs=0.15)


def test_orderings_are_permutations_and_the_first_is_the_tables_own():
    model = autoregressive.build(Space.continuous(6), config=autoregressive.Config(orderings=3), rng=generator(6))
    assert model.positions[0].tolist() == list(range(6))
    assert (
        all(sorted(p) == list(range(6)) for p in model.positions.tolist())
        and len({tuple(p) for p in model.positions.tolist()}) == 3
    )


@torch.no_grad()
def test_the_mixture_is_the_mean_of_its_orderings():
    """Each ordering alone is a density of its own; together they are the mean of the densities."""
    space = Space.table((Column("levels", 2), Column("levels", 3), Column("levels", 2)))
    model = autoregressive.build(space, config=autoregressive.Config(hidden=(8,), orderings=2), rng=generator(7)).eval()
    shake = generator(8)
    for p in model.parameters():
        p.data += torch.randn(p.shape, generator=shake)
    cells = torch.tensor(list(itertools.product(range(2), range(3), range(2))), dtype=torch.float64)
    nets, both = model.nets, model.log_prob(cells).exp()
    single = []
    for net in nets:
        model.nets = torch.nn.ModuleList([net])
        single.append(model.log_prob(cells).exp())
        assert float(single[-1].sum()) == pytest.approx(1, abs=1e-5)
    assert not torch.allclose(*single)
    torch.testing.assert_close(both, (single[0] + single[1]) / 2, rtol=1e-5, atol=1e-7)


def test_too_many_columns_are_refused():
    with pytest.raises(InputError, match="autoregressive: 4097 columns are more than the 4,096"):
        autoregressive.build(Space.levels(4097, levels=2), config=autoregressive.Config(), rng=generator(0))
