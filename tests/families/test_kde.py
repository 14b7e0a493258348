"""The kernel density estimate equals its formula, and trained bandwidths are better than the rule of thumb."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import logistic

from mixtura.contracts import ONLY, Batch, Column, InputError, Space, Turn
from mixtura.families import kde
from mixtura.ground.rng import generator
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

torch.set_num_threads(1)


def built(space, x, config=None):
    model = kde.build(space, config=config or kde.Config(), rng=generator(0))
    model._prepare(x, None, generator(1))
    return model.eval()


def learn(space, x, steps=80, seed=0, config=None):
    model = kde.build(space, config=config or kde.Config(), rng=generator(seed))
    for _ in fit(model, x, Recipe(steps=steps, **kde.RECIPE), rng=generator(seed)):
        pass
    return model


def two_towns(n, seed):
    """Two narrow modes, thirty of their widths apart."""
    rng = generator(seed)
    side = torch.randint(2, (n, 1), generator=rng).double()
    return 100 + 30 * side + torch.randn(n, 1, generator=rng, dtype=torch.float64)


def test_learnt_bandwidths_beat_scotts_rule_on_two_modes():
    space, x, unseen = Space.continuous(1), two_towns(800, 1), two_towns(2000, 2)
    ruled, learnt = built(space, x), learn(space, x)
    truth = float(torch.logsumexp(torch.stack([_normal(unseen, 100), _normal(unseen, 130)]), 0).mean()) - math.log(2)
    with torch.no_grad():
        by_rule, by_loss = (float(m.log_prob(unseen).mean()) for m in (ruled, learnt))
    assert by_loss > by_rule + 0.5 and truth - 0.1 < by_loss < truth + 0.005


def _normal(x, mean):
    return torch.distributions.Normal(torch.tensor(mean, dtype=torch.float64), 1.0).log_prob(x).squeeze(1)


def test_a_bandwidth_is_learnt_for_each_column():
    """The same two modes beside a smooth column: the first wants a much narrower kernel."""
    x = torch.cat([two_towns(800, 1), torch.randn(800, 1, generator=generator(3), dtype=torch.float64)], 1)
    narrow, wide = learn(Space.continuous(2), x).log_bandwidth.tolist()
    assert narrow < wide - 1


def test_real_numbers_by_the_formula():
    x = 100 + 3 * torch.randn(30, 2, generator=generator(4), dtype=torch.float64)
    model = built(Space.continuous(2), x)
    model.log_bandwidth.data = torch.tensor([-1.0, -0.3])
    at = 100 + 4 * torch.randn(7, 2, generator=generator(5), dtype=torch.float64)
    scale = x.std(0, correction=0).numpy() * np.exp(model.log_bandwidth.detach().double().numpy())
    kernels = logistic.pdf(at.numpy()[:, None], x.numpy()[None], scale).prod(2)
    np.testing.assert_allclose(model.log_prob(at).detach(), np.log(kernels.mean(1)), rtol=1e-9)


def test_steps_and_codes_by_the_formula():
    """A rounded column beside levels: logistic cell masses times (1 − λ) 1{a = b} + λ q(a), q the levels' smoothed shares."""
    rng = generator(6)
    x = torch.stack([torch.randint(5, (40,), generator=rng), torch.randint(3, (40,), generator=rng)], 1).double()
    model = built(Space.table((Column(resolution=1.0), Column("levels", 3))), x)
    model.log_bandwidth.data, model.logit_change.data = torch.tensor([-0.5]), torch.tensor([0.4])
    at = torch.cartesian_prod(torch.arange(5.0), torch.arange(3.0)).double()
    change = 1 / (1 + math.exp(-model.logit_change.item()))
    share = (np.bincount(x[:, 1].long().numpy(), minlength=3) + 0.5) / (len(x) + 1.5)
    h = float(x[:, 0].std(correction=0)) * math.exp(-0.5)
    value = at[:, :1].numpy()
    mass = logistic.cdf(value + 0.5, x[:, 0].numpy(), h) - logistic.cdf(value - 0.5, x[:, 0].numpy(), h)
    codes = (1 - change) * (at[:, 1:].numpy() == x[:, 1].numpy()) + change * share[at[:, 1:].long().numpy()]
    np.testing.assert_allclose(model.log_prob(at).detach(), np.log((mass * codes).mean(1)), rtol=1e-7)


def test_a_row_does_not_vouch_for_itself():
    """The training loss leaves each row out: it is the leave-one-out likelihood, computed here row by row."""
    x = 100 + 3 * torch.randn(25, 1, generator=generator(7), dtype=torch.float64)
    model = built(Space.continuous(1), x).train()
    got = model._loss(Turn({ONLY: Batch(x=model._encode_for_training(x), context=None)}, partial(generator, 8))).item()
    left_out = [built_without(x, i, model) for i in range(len(x))]
    assert got == pytest.approx(-sum(left_out) / len(x), rel=1e-4)


def built_without(x, i, model):
    rest = torch.cat([x[:i], x[i + 1 :]]).numpy()
    h = float(x.std(correction=0)) * math.exp(model.log_bandwidth.item())
    return math.log(logistic.pdf(float(x[i]), rest, h).mean())


def test_repeated_rows_do_not_make_a_spike():
    """All rows twice: a naive leave-one-out likelihood would send the bandwidth to zero."""
    x = torch.randn(100, 1, generator=generator(9), dtype=torch.float64).repeat(2, 1)
    model = learn(Space.continuous(1), x, steps=150)
    fresh = torch.randn(500, 1, generator=generator(10), dtype=torch.float64)
    assert torch.isfinite(model.log_prob(x)).all() and float(model.log_prob(fresh).detach().mean()) > -10


def test_no_more_centres_than_asked():
    model = built(Space.continuous(1), two_towns(500, 1), kde.Config(centres=50))
    assert len(model.values) == 50


def test_too_many_columns_are_refused():
    with pytest.raises(InputError, match="kde: 65 columns are more than the 64"):
        kde.build(Space.continuous(65), config=kde.Config(), rng=generator(0))


def test_rare_levels_are_as_rare_in_samples_however_wide_the_kernel():
    levels = torch.tensor([0.0] * 970 + [1.0] * 25 + [2.0] * 5, dtype=torch.float64)[:, None]
    model = built(Space.levels(1, levels=3), levels)
    model.logit_change.data.fill_(2.0)
    shares = torch.bincount(model.sample(50_000, rng=generator(1)).flatten().long(), minlength=3) / 50_000
    np.testing.assert_allclose(shares, [0.97, 0.025, 0.005], atol=0.003)
    np.testing.assert_allclose(model.log_prob(torch.arange(3.0)[:, None]).exp().detach(), [0.97, 0.025, 0.005], atol=0.001)
