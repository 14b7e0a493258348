"""Beyond what was seen: tails, walls and levels never seen, in every family alike."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from mixtura import families
from mixtura.blending.blend import blend
from mixtura.contracts import ClosedForm, Column, Conditional, Density, InputError, LowerBound, Space, density_kind
from mixtura.data.guess import guess
from mixtura.ground.rng import generator
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

#: those that give nats of a table without a context
ROWS = [name for name, row in families.TABLE.items() if row.context != "needs" and "on request" not in row.roles]


def table(n=600):
    draw = np.random.default_rng(0)
    return pd.DataFrame({
        "size": np.minimum(draw.poisson(9, n), 41),
        "age": draw.normal(52, 17, n).clip(1, 94).round().astype(int),
        "change": draw.normal(-3, 5, n).round(1),
        "kind": draw.choice(["a", "b", "c"], n),
    })  # fmt: skip


SCHEMA = guess(table(), bounds={"age": (0, 95)})


def fitted(name, space, x):
    row = families.TABLE[name]
    model = row.build(space, context_shape=None, config=row.suggest(space, len(x)), rng=generator(0, name))
    if isinstance(model, ClosedForm):
        model.fit_closed(x, None, generator(1))
    else:
        recipe = Recipe(**{**row.recipe, **model.recipe, "steps": 60})
        assert [*fit(model, x, recipe, rng=generator(1))]
    return model.eval()


@pytest.fixture(scope="module")
def models():
    x = SCHEMA.encode(table())
    return {name: fitted(name, SCHEMA.space, x) for name in ROWS}


def nats(model, x):
    if isinstance(model, Density):
        return model.log_prob(x)
    assert isinstance(model, LowerBound)
    return model.log_prob_bound(x, rng=generator(2))


@pytest.mark.parametrize("name", ROWS)
def test_what_was_never_seen_costs_nats_and_what_cannot_be_is_impossible(models, name):
    beyond = pd.DataFrame({
        "size": [44, 9, 9, 9, 9, 9], "age": [50, 95, 50, 50, 50, 96], "change": [0.0, 0.0, 31.5, -40.0, 0.0, 0.0],
        "kind": ["a", "a", "a", "a", "new", "a"],
    })  # fmt: skip
    found = nats(models[name], SCHEMA.encode(beyond))
    assert torch.isfinite(found[:5]).all() and float(found[:5].detach().max()) < -5
    if name != "marginals":
        assert float(found[5]) == -math.inf
        negative = SCHEMA.encode(beyond[:1].assign(size=-1))
        assert float(nats(models[name], negative)) == -math.inf


@pytest.mark.parametrize("name", ROWS)
def test_samples_stay_within_the_walls_and_do_not_pile_up_on_the_ends(models, name):
    drawn, seen = SCHEMA.decode(models[name].sample(4_000, rng=generator(3))), table()
    assert drawn["size"].min() >= 0 and 0 <= drawn["age"].min() and drawn["age"].max() <= 95
    for column in ("size", "age", "change"):
        for end in (seen[column].min(), seen[column].max()):
            share, true = float((drawn[column] == end).mean()), float((seen[column] == end).mean())
            assert share < true + 0.02, (column, end)


@pytest.mark.parametrize("name", [name for name in ROWS if name not in ("vae", "diffusion", "flow")])
def test_the_cells_of_a_column_with_tails_and_one_with_walls_sum_to_one(name):
    """By listing them, far beyond what was seen."""
    looked_at = {"size": np.arange(3_000), "age": np.arange(96), "change": np.arange(-9_000, 9_000) / 10}
    for column, values in looked_at.items():
        frame = table()[[column]]
        schema = guess(frame, bounds={"age": (0, 95)} if column == "age" else None)
        model = fitted(name, schema.space, schema.encode(frame))
        cells = schema.encode(pd.DataFrame({column: values}))
        field = schema.modelled[0]
        total = (model.log_prob(cells) + math.log(field.resolution)).exp().sum()
        # what is missing are tails further out; and of the floor what it keeps for the other side of a wall
        assert float(total) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("name", ROWS)
def test_levels_and_what_is_none_of_them_sum_to_one(name):
    """One slot for all that was never seen."""
    frame = pd.DataFrame({"kind": ["a", "b", "c", "b"] * 30, "sort": ["u", "v"] * 60})
    schema = guess(frame)
    if not serves(name, schema.space):
        pytest.skip("does not serve columns of levels alone")
    model = fitted(name, schema.space, schema.encode(frame))
    rows = torch.cartesian_prod(torch.arange(4.0), torch.arange(3.0)).double()
    total = nats(model, rows).exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-6) if density_kind(model) == "exact" else float(total) < 1.02
    # a row without its unseen entry: the sum over all levels there
    if name != "marginals" and density_kind(model) == "exact":
        seen = model.log_prob(rows[[1, 4, 7]]).exp().sum()
        assert float(model.log_prob(rows[[10]]).exp()) == pytest.approx(float(seen) * (1 / 122) / (121 / 122), rel=1e-6)


def serves(name, space):
    try:
        families.TABLE[name].build(space, context_shape=None, config=families.TABLE[name].suggest(space, 100), rng=generator(0))
    except InputError:
        return False
    return True


@pytest.mark.parametrize("name", ["gaussian_mixture", "kde", "autoregressive"])
def test_gaps_beside_a_level_never_seen_are_filled_from_the_rest(models, name):
    """As if that entry had not been looked at; its evidence is less by what the level costs."""
    model, rest = models[name], SCHEMA.encode(table(3))
    assert isinstance(model, Conditional)
    x, known = rest.clone(), torch.ones_like(rest, dtype=torch.bool)
    x[:, 3], known[:, 0] = 3.0, False
    odd = model.condition(x, known, rng=generator(4))
    known[:, 3] = False
    plain = model.condition(rest, known, rng=generator(4))
    assert torch.equal(odd.values[:, :, :3], plain.values[:, :, :3]) and (odd.values[:, :, 3] == 3).all()
    torch.testing.assert_close(odd.log_evidence, plain.log_evidence + math.log(1 / 602))


def test_a_blend_scores_an_unseen_level_by_its_models(models):
    parts = [models[name] for name in ("gaussian_mixture", "autoregressive")]
    both = blend(parts, [0.3, 0.7])
    x = SCHEMA.encode(table(2).assign(kind="new"))
    expected = torch.logaddexp(parts[0].log_prob(x) + math.log(0.3), parts[1].log_prob(x) + math.log(0.7))
    torch.testing.assert_close(nats(both, x), expected)


def test_many_levels_never_seen_at_once_are_listed_in_part():
    """No row becomes more than MOST_LISTED rows."""
    space = Space.table([Column("levels", 300, unseen=0.01)] * 3)
    x = torch.randint(300, (400, 3), generator=generator(5)).double()
    model = fitted("marginals", space, x)
    model.open_support = False
    rows = torch.full((5, 3), 300.0, dtype=torch.float64)
    assert torch.isfinite(model.log_prob(rows)).all() and float(model.log_prob(rows)[0]) <= 3 * math.log(0.01)
