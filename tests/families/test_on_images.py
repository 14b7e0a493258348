"""Images in families that also model tables: densities over all small images, samples, walls, and draws in parts."""

from __future__ import annotations

import itertools
import math
from functools import cache

import pytest
import torch
from rounding import assert_same_rows

from mixtura.contracts import Batch, ClosedForm, Conditional, Density, InputError, LowerBound, Space
from mixtura.families import TABLE, autoregressive, flow, gaussian_mixture, kde, marginals
from mixtura.folder.models import load_model, save_model
from mixtura.ground import pixel_scores
from mixtura.ground.rng import generator
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

torch.set_num_threads(1)
#: 2×2 pixels of the levels 97, 100 and 103, and colour pixels of the levels 0 and 2
SMALL = {
    "grey": Space.image(1, 2, 2, low=97, high=103, resolution=3),
    "colour": Space.image(3, 1, 2, low=0, high=2, resolution=2),
}
REAL = Space((1, 1, 2), Space.continuous(2).columns)
SETTINGS = {
    "marginals": (marginals, {}),
    "gaussian_mixture": (gaussian_mixture, {"components": 4}),
    "kde": (kde, {"centres": 100, "opponents": 50}),
    "flow": (flow, {"order": "coupling", "transforms": 2, "hidden": (16,)}),
    "levels": (autoregressive, {"kind": "pixels", "head": "levels", "width": 8, "dilations": (1,)}),
    "logistics": (autoregressive, {"kind": "pixels", "head": "logistics", "width": 8, "dilations": (1, 2), "components": 2}),
    "masked": (autoregressive, {"kind": "masked", "hidden": (16,), "components": 2, "orderings": 2}),
}
EXACT = [name for name in SETTINGS if name != "flow"]
every_space = pytest.mark.parametrize("space", SMALL)


def images(space, n=240):
    """Neighbours that resemble each other, one end of the range the commonest."""
    rng, column = generator(1, *space.shape), space.columns[0]
    steps = round((column.high - column.low) / column.resolution)
    base = torch.randn(n, 1, 1, 1, generator=rng)
    level = (0.8 * base + 0.6 * torch.randn(n, *space.shape, generator=rng)).mul(1.2).round().clamp(0, steps)
    return column.low + column.resolution * level.double()


@cache
def fitted(name, which):
    space, (module, settings) = SMALL[which], SETTINGS[name]
    rng = generator(2, name)
    model = module.build(space, config=module.Config(**settings), rng=rng)
    if isinstance(model, ClosedForm):
        model.fit_closed(images(space), None, rng)
        return model.eval()
    for _ in fit(model, images(space), Recipe(steps=150, batch=64, rate=5e-3), rng=rng):
        pass
    return model


def everything(space):
    """Every image there is."""
    column = space.columns[0]
    levels = torch.arange(column.low, column.high + 1, column.resolution, dtype=torch.float64)
    return torch.cartesian_prod(*[levels] * space.dims).reshape(-1, *space.shape)


def masses(model, x):
    """Probabilities: log(mass / δ) summed over pixels is what a density says."""
    log_step = model.space.dims * math.log(model.space.columns[0].resolution)
    with torch.no_grad():
        nats = model.log_prob(x) if isinstance(model, Density) else model.log_prob_bound(x, draws=2000, rng=generator(3))
    return (nats + log_step).exp()


def shares(x, listed):
    """How often each listed image is among x."""
    same = (x.flatten(1).unsqueeze(1) == listed.flatten(1)).all(2)
    return same.double().mean(0)


@every_space
@pytest.mark.parametrize("name", SETTINGS)
def test_all_images_together_weigh_one_and_samples_fall_as_they_weigh(name, space):
    model, listed, n = fitted(name, space), everything(SMALL[space]), 4000
    mass = masses(model, listed)
    # the floor keeps half of one part in n + 1 a pixel for what lies beyond the ends
    missing = 0.5 * SMALL[space].dims / 241 if name == "marginals" else 0.0
    share = shares(model.sample(n, rng=generator(4)), listed)
    assert float(share.sum()) == pytest.approx(1)
    slack = 5 * (torch.maximum(share, mass).clamp(min=1 / n) / n).sqrt() + missing
    if isinstance(model, Density):
        assert 1 - missing - 1e-5 <= float(mass.sum()) <= 1 + 1e-5
        assert ((share - mass).abs() <= slack).all()
    else:
        assert 0 < float(mass.sum()) <= 1 and (mass - share <= slack).all()


@pytest.mark.parametrize("name", [n for n in SETTINGS if n not in ("marginals", "kde", "flow")])
def test_what_neighbours_share_is_learnt(name):
    """Correlated pixels: more nats a row than pixels apart can have."""
    x = images(SMALL["grey"])
    gain = (fitted(name, "grey").log_prob(x) - fitted("marginals", "grey").log_prob(x)).mean()
    assert float(gain.detach()) > 0.2


@every_space
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("parts", [(1, 4), (5,), (3, 1, 1), (40, 260)])
def test_drawing_at_once_or_in_parts_gives_the_same_images(name, space, parts):
    model, rng = fitted(name, space), generator(5)
    whole = model.sample(sum(parts), rng=generator(5))
    assert_same_rows(whole, torch.cat([model.sample(n, rng=rng) for n in parts]))
    if sum(parts) > 20:
        assert len(whole.flatten(1).unique(dim=0)) > 5


@every_space
@pytest.mark.parametrize("name", SETTINGS)
def test_what_was_saved_is_loaded(name, space, tmp_path):
    model = fitted(name, space)
    module, settings = SETTINGS[name]
    family = module.__name__.rpartition(".")[2]
    save_model(tmp_path / "model", model, family, module.Config(**settings).model_dump(mode="json"))
    again = load_model(tmp_path / "model", SMALL[space], {})
    assert torch.equal(again.sample(20, rng=generator(6)), model.sample(20, rng=generator(6)))
    assert torch.equal(masses(again, everything(SMALL[space])[:9]), masses(model, everything(SMALL[space])[:9]))


@pytest.mark.parametrize("name", EXACT)
def test_a_level_beyond_the_ends_is_impossible_but_for_the_floor(name):
    model = fitted(name, "grey")
    assert isinstance(model, Density)
    off = torch.full((1, 1, 2, 2), 106.0, dtype=torch.float64)
    assert torch.isfinite(model.log_prob(off)).all() == (name == "marginals")


def test_the_floor_sums_to_no_more_than_one_with_all_that_lies_beyond():
    space = Space.image(1, 1, 1, low=0, high=9)
    model = marginals.build(space, config=marginals.Config(), rng=generator(7))
    model.fit_closed(torch.randint(0, 10, (50, 1, 1, 1), generator=generator(7)).double(), None, generator(7))
    weight = model.log_prob(torch.arange(-500, 500, dtype=torch.float64).reshape(-1, 1, 1, 1)).exp()
    assert 0.99 < float(weight.sum()) <= 1 + 1e-9
    assert (weight[510:600].diff() < 0).all() and (weight[400:500].diff() > 0).all()


@pytest.mark.parametrize("name", ["marginals", "gaussian_mixture", "kde", "masked"])
def test_filling_pixels_is_bayes_over_all_completions(name):
    model, listed = fitted(name, "grey"), everything(SMALL["grey"])
    assert isinstance(model, Conditional)
    x, known = listed[40], torch.tensor([[[True, False], [True, True]]])
    fits = ((listed == x) | ~known).flatten(1).all(1)
    mass = masses(model, listed[fits])
    got = model.condition(x.expand(200, 1, 2, 2), known.expand(200, 1, 2, 2), draws=10, rng=generator(8))
    loose = 0.15 if name == "masked" else 0.02
    # evidence is a density of three pixels, the masses are of four
    assert float(got.log_evidence.exp().mean()) * 3**3 == pytest.approx(float(mass.sum()), rel=loose)
    share = shares(got.values.reshape(-1, 1, 2, 2), listed[fits])
    assert float((share - mass / mass.sum()).abs().max()) < 0.05 + loose / 2


def test_scores_give_back_the_smoothed_histogram_and_every_level():
    """The standard Gaussian of every cell is its share, in both tails; and a score falls in the level it came from."""
    space = Space.image(1, 1, 2, low=0, high=255)
    columns, rng = pixel_scores.PixelScores(space), generator(9)
    two, any_of_them = (torch.randint(0, most, (500, 1, 1, 1), generator=rng) for most in (2, 256))
    columns.prepare(torch.cat([255 * two, any_of_them], 3).double())
    levels = torch.arange(256, dtype=torch.float64).reshape(-1, 1, 1, 1).expand(-1, 1, 1, 2)
    assert torch.equal(columns.join(torch.zeros(256, 0), columns.split(levels).values), levels)
    parts = columns.split(levels)
    mass = torch.special.ndtr(torch.where(parts.open_high, math.inf, parts.low + parts.width)) - torch.special.ndtr(
        torch.where(parts.open_low, -math.inf, parts.low)
    )
    torch.testing.assert_close(mass.sum(0), torch.ones(2, dtype=torch.float64))
    assert float((mass[[0, 255], 0] - torch.stack([two == 0, two == 1]).double().mean((1, 2, 3, 4))).abs().max()) < 1e-3
    assert float(mass.min()) > 0


@pytest.mark.parametrize(("low", "high"), [(-math.inf, -1.0), (-0.5, 0.75), (6.0, 6.5), (2.0, math.inf), (-math.inf, math.inf)])
def test_the_mean_of_a_gaussian_between_two_edges(low, high):
    t = torch.linspace(max(low, -9), min(high, 12), 200_001, dtype=torch.float64)
    weight = (-0.5 * t.square()).exp()
    want = float((t * weight).sum() / weight.sum())
    got = pixel_scores._normal_mean(torch.tensor(low).double(), torch.tensor(high).double())
    assert float(got) == pytest.approx(want, abs=1e-4)


def test_real_valued_images_have_a_density_too():
    """No steps: logistics give a density that integrates to one."""
    space = REAL
    model = autoregressive.build(
        space, config=autoregressive.Config(kind="pixels", width=4, dilations=(1,), components=2), rng=generator(10)
    )
    model._prepare(100 + 3 * torch.randn(50, 1, 1, 2, generator=generator(10)).double(), None, generator(10))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator(11)))
    axis = torch.linspace(60, 140, 161, dtype=torch.float64)
    with torch.no_grad():
        density = model.eval().log_prob(torch.cartesian_prod(axis, axis).reshape(-1, 1, 1, 2)).exp().reshape(161, 161)
    assert float(torch.trapezoid(torch.trapezoid(density, axis), axis)) == pytest.approx(1, abs=1e-2)


def test_a_context_moves_the_image():
    space = SMALL["grey"]
    side = torch.randint(2, (240, 1), generator=generator(12)).double()
    x = torch.where(side.reshape(-1, 1, 1, 1) > 0, 103.0, 97.0).expand(-1, 1, 2, 2).double()
    for head in ("levels", "logistics"):
        config = autoregressive.Config(kind="pixels", head=head, width=8, dilations=(1,), components=2)
        model = autoregressive.build(space, context_shape=(1,), config=config, rng=generator(13))
        for _ in fit(model, Batch(x=x, context=side), Recipe(steps=150, batch=64, rate=5e-3), rng=generator(13)):
            pass
        turns = torch.tensor([0.0, 1.0]).repeat(50)[:, None].double()
        made = model.sample(100, context=turns, rng=generator(14)).flatten(1).mean(1)
        assert made[1::2].mean() - made[::2].mean() > 3
        assert model.log_prob(x, context=side).mean() > model.log_prob(x, context=1 - side).mean() + 1


@pytest.mark.parametrize(
    ("module", "space", "settings", "named"),
    [
        (flow, Space.image(3, 40, 40), {}, "4,800 continuous columns are more than the 4,096"),
        (autoregressive, Space.continuous(4), {"kind": "pixels"}, "kind 'pixels' is for images"),
        (autoregressive, REAL, {"kind": "pixels", "head": "levels"}, "use head 'logistics'"),
        (kde, Space.image(1, 28, 28), {}, "784 columns are more than the 64"),
    ],
)
def test_what_cannot_serve_says_so(module, space, settings, named):
    with pytest.raises(InputError, match=named):
        module.build(space, config=module.Config(**settings), rng=generator(0))


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 16, 16)])
@pytest.mark.parametrize("family", ["marginals", "gaussian_mixture", "kde", "flow", "autoregressive"])
def test_what_is_suggested_for_images_serves_them(family, shape):
    space, row = Space.image(*shape), TABLE[family]
    if family == "kde" and space.dims > 64:
        return
    model = row.build(space, config=row.suggest(space, 300, 60.0), rng=generator(15))
    assert isinstance(model, (Density, LowerBound))
    names = itertools.chain(model.named_parameters(), model.named_buffers())
    assert sum(t.numel() for _, t in names) < 30_000_000


def test_convolutions_are_for_images_that_they_can_pass_over_three_times():
    """About 0.012 s an image of 28×28 pixels: 8,000 of them three times need 280 s, in a share of a run."""
    space, seconds = Space.image(1, 28, 28), autoregressive.PASSES * 8_000 * 784 * autoregressive.SECONDS_A_VALUE
    assert 200 < seconds < 400
    kinds = {s: autoregressive.suggest(space, 8_000, s).kind for s in (60.0, 300.0, 0.99 * seconds / autoregressive.SHARE)}
    assert set(kinds.values()) == {"masked"}
    assert autoregressive.suggest(space, 8_000, 1.01 * seconds / autoregressive.SHARE).kind == "pixels"
    assert autoregressive.suggest(space, 8_000).kind == "pixels"
    assert autoregressive.suggest(Space.image(1, 8, 8, high=16), 1_100, 60.0).kind == "pixels"
