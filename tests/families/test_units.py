"""Other units of a column change nats by a constant, and samples by the same factor."""

from __future__ import annotations

import math

import pytest
import torch

from mixtura.blending.nats import log_probs
from mixtura.contracts import Batch, ClosedForm, Column, Space, density_kind
from mixtura.families import TABLE
from mixtura.ground.rng import generator
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

NUMBERS = [name for name in TABLE if name != "boltzmann"]
CLOSED = ("marginals", "gaussian_mixture", "linear_gaussian", "mixture_density", "kde")


def fitted(name, space, x, context):
    row, rng = TABLE[name], generator(1)
    shape = None if context is None else tuple(context.shape[1:])
    model = row.build(space, context_shape=shape, config=row.suggest(space, len(x), None), rng=rng)
    if isinstance(model, ClosedForm):
        model.fit_closed(x, context, rng)
    else:
        recipe = Recipe(**{**row.recipe, **model.recipe, "steps": 10})
        assert [*fit(model, Batch(x=x, context=context), recipe, rng=rng)]
    return model.eval()


@pytest.mark.parametrize("unit", [1e300, 1e-300])
@pytest.mark.parametrize("low", [-math.inf, 0.0])
@pytest.mark.parametrize("name", [name if name in CLOSED else pytest.param(name, marks=pytest.mark.slow) for name in NUMBERS])
def test_nats_change_by_a_constant(name, low, unit):
    space = Space.table([Column(low=low), Column(low=low)])
    x = torch.randn(100, 2, generator=generator(0), dtype=torch.float64).exp()
    context = torch.randn(100, 1, generator=generator(4)) if TABLE[name].context == "needs" else None
    plain, scaled = fitted(name, space, x, context), fitted(name, space, x * unit, context)
    if density_kind(plain) is not None:
        nats, _ = log_probs(plain, x, context=context, rng=generator(2))
        theirs, _ = log_probs(scaled, x * unit, context=context, rng=generator(2))
        assert torch.allclose(theirs + 2 * math.log(unit), nats, atol=1e-3)
    few = None if context is None else context[:20]
    drawn, theirs = (m.sample(20, context=few, rng=generator(3)) for m in (plain, scaled))
    assert torch.allclose(theirs / unit, drawn, rtol=1e-3, atol=1e-5)
