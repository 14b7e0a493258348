"""Mixture density networks learn known distributions, and extreme data do not break them."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from mixtura.contracts import ONLY, Batch, Column, InputError, Space, Turn
from mixtura.families import mixture_density
from mixtura.families.mixture_density import RECIPE, Config, build
from mixtura.ground.nets.ensemble import Bins, Ensemble
from mixtura.ground.rng import generator
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

torch.set_num_threads(1)
SMALL = {"hidden": (16,), "members": 4, "bins": 8}


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def train(x, context, steps=300, space=None, **options):
    space = space or Space.continuous(x.shape[1])
    shape = None if context is None else (context.shape[1],)
    model = build(space, context_shape=shape, config=Config(**SMALL | options), rng=generator(1))
    recipe = Recipe(**{**RECIPE, **model.recipe, "steps": steps})
    for _ in fit(model, Batch(x=x, context=context), recipe, rng=generator(2)):
        pass
    return model


def nats(model, x, context=None):
    return float(model.log_prob(x, context=context).mean())


# --------------------------------------------------------------------------------------------------- what is learnt


def two_branches(n, seed):
    """y = ±x with deviation 0.3, in units of mean 100 and deviation 3 on both sides: its nats on the same rows."""
    x = numbers(n, 1, seed=seed)
    side = (torch.rand(n, 1, generator=generator(seed, "side")) < 0.5).double() * 2 - 1
    y = side * x + 0.3 * numbers(n, 1, seed=seed + 1)
    log_p = torch.logsumexp(torch.cat([-0.5 * ((y - s * x) / 0.3).square() for s in (1, -1)], 1), 1)
    truth = log_p - math.log(2 * 0.3 * 3) - 0.5 * math.log(2 * math.pi)
    return 100 + 3 * y, 100 + 3 * x, float(truth.mean())


def test_both_branches_are_kept_in_the_units_of_the_data():
    y, x, _ = two_branches(2_000, 0)
    model = train(y, x, 800, components=3)
    y, x, truth = two_branches(4_000, 10)
    assert truth - 0.1 < nats(model, y, x) < truth + 0.05
    law = model.law(torch.tensor([[106.0]], dtype=torch.float64))
    top = law.modes()[0][0, :2, 0].sort().values.tolist()
    assert top == pytest.approx([94, 106], abs=1)
    made = model.sample(4_000, context=torch.full((4_000, 1), 106.0), rng=generator(3))
    assert 0.4 < float((made > 100).double().mean()) < 0.6


def test_full_covariance_follows_a_turning_ellipse():
    angle = math.pi * torch.rand(1_500, 1, generator=generator(4), dtype=torch.float64)
    noise = numbers(1_500, 2, seed=5) * torch.tensor([1.0, 0.1], dtype=torch.float64)
    c, s = angle.cos(), angle.sin()
    y = torch.cat([c * noise[:, :1] - s * noise[:, 1:], s * noise[:, :1] + c * noise[:, 1:]], 1)
    full, diagonal = (train(y[:1_000], angle[:1_000], 600, components=1, noise=kind) for kind in ("full", "diagonal"))
    entropy = math.log(2 * math.pi * math.e) + math.log(0.1)
    assert -nats(full, y[1_000:], angle[1_000:]) < entropy + 0.2
    assert nats(full, y[1_000:], angle[1_000:]) > nats(diagonal, y[1_000:], angle[1_000:]) + 0.5


def test_the_law_and_the_density_are_one():
    y, x = 100 + numbers(200, 2) * torch.tensor([3.0, 30.0], dtype=torch.float64), numbers(200, 2, seed=1)
    for noise in ("diagonal", "full", "isotropic", "shared", "fixed", "low_rank"):
        model = train(y, x, 20, noise=noise, warp=False, scale=2.0)
        assert torch.allclose(model.law(x).log_prob(y), model.log_prob(y, context=x), atol=1e-4)
        if noise in ("isotropic", "shared"):
            assert torch.allclose(model.law(x).deviations[..., 0], model.law(x).deviations[..., 1])
        if noise == "fixed":
            assert torch.allclose(model.law(x).deviations, torch.tensor(2.0, dtype=torch.float64))


def test_a_missing_value_is_integrated_out_of_full_covariances():
    space = Space((2,), (Column(missing=True),) * 2)
    y, x = numbers(200, 2), numbers(200, 1, seed=1)
    y[::3, 0] = math.nan
    model = train(y, x, 30, space=space, noise="full", warp=False, gaps="ignored")
    part = model.law(x[::3]).marginal([1]).log_prob(y[::3, 1:])
    assert torch.allclose(model.log_prob(y[::3], context=x[::3]), part, atol=1e-4)


def test_steps_of_the_data_score_as_the_mass_of_their_cells():
    space = Space((2,), (Column(resolution=0.5), Column(resolution=1.0)))
    y, x = (numbers(300, 2) * 2).round() / torch.tensor([2.0, 1.0]), numbers(300, 1, seed=1)
    for noise in ("diagonal", "full"):
        model = train(y, x, 60, space=space, noise=noise, warp=False)
        grid = torch.cartesian_prod(torch.arange(-20, 20.5, 0.5), torch.arange(-20, 21.0)).double()
        total = model.log_prob(grid, context=torch.zeros(len(grid), 1, dtype=torch.float64)).exp().sum() * 0.5
        assert float(total) == pytest.approx(1, abs=1e-4)


# --------------------------------------------------------------------------------------------------- folds


def test_a_row_never_teaches_the_member_that_judges_it():
    """The gradient of a member's weights at the rows of its own fold is zero."""
    y, x = numbers(400, 1), numbers(400, 2, seed=1)
    model = build(Space.continuous(1), context_shape=(2,), config=Config(**SMALL), rng=generator(1))
    model._prepare(y, x, generator(2))
    rows, kinds, folds = model._encode_for_training(y), model.kinds, model.folds
    fold = mixture_density._fold(rows[:, :-1], x, folds)  # without the base
    assert (kinds, folds) == (2, 2) and 150 < int((fold == 0).sum()) < 250
    model.train()
    own = (fold == 1).nonzero().squeeze(1)
    loss = model._loss(Turn({ONLY: Batch(x=rows[own], context=x[own])}, partial(generator, 3)))
    weight = model.network.layers[0].weight
    gradient = torch.autograd.grad(loss, weight)[0].flatten(1).abs().sum(1)
    assert [bool(g > 0) for g in gradient] == [True, False, True, False]


def test_equal_rows_share_a_fold_in_any_order():
    rows, x = numbers(50, 3).float(), numbers(50, 2, seed=1)
    order = torch.randperm(50, generator=generator(2))
    fold = mixture_density._fold(rows, x, 4)
    assert torch.equal(mixture_density._fold(rows[order], x[order], 4), fold[order])
    assert len(fold.unique()) == 4 and torch.equal(mixture_density._fold(rows[:1], x[:1], 4), fold[:1])


def test_the_better_way_of_reading_gets_the_weight():
    """Steps of a few values need bins; the slope of a wide plane does not."""
    x = torch.randint(8, (800, 1), generator=generator(1)).double()
    jagged = torch.tensor([0, 9, 1, 7, 2, 9, 0, 5], dtype=torch.float64)[x.long().squeeze(1)][:, None] + 0.1 * numbers(800, 1)
    assert float(train(jagged, x, 300).preference.softmax(0)[1].detach()) > 0.6


def test_bins_are_piecewise_linear_between_quantiles():
    x = torch.tensor([[0.0, 7.0], [1.0, 7.0], [3.0, 7.0], [4.0, 7.0]])
    bins = Bins(2, 2)
    bins.prepare(x)
    assert bins(torch.tensor([[1.0, 7.0], [9.0, 0.0]])).tolist() == [[0.5, 0, 0, 0], [1, 1, 0, 0]]


def test_members_are_apart():
    sees = torch.ones(3, 4, dtype=torch.bool)
    sees[0, 2:] = False
    net, x = Ensemble(sees, (8, 8), 5), torch.randn(6, 4, generator=generator(1)).requires_grad_()
    out = net(x)
    assert out.shape == (3, 6, 5)
    [gradient] = torch.autograd.grad(out[0].square().sum(), x)
    assert bool((gradient[:, 2:] == 0).all()) and bool((gradient[:, :2] != 0).any())


# --------------------------------------------------------------------------------------------------- what cannot break it


@pytest.mark.parametrize("noise", ["diagonal", "full", "isotropic", "shared", "fixed", "low_rank"])
@pytest.mark.parametrize(
    ("y", "x"),
    [
        (1e6 * numbers(64, 2), 1e-6 * numbers(64, 3)),
        (1e-6 * numbers(64, 2), 1e6 * numbers(64, 3)),
        (numbers(1, 2).expand(64, 2), numbers(1, 3).expand(64, 3)),
        (numbers(64, 2) * 0 + 7, numbers(64, 3)),
        (numbers(3, 2), numbers(3, 3)),
        (numbers(64, 40), numbers(64, 3)),
    ],
    ids=["y large", "y small", "equal rows", "constant y", "fewer rows than components", "40 entries"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_loss_and_gradients_are_finite(noise, y, x, dtype):
    config = Config(**SMALL, components=5, noise=noise, warp=False)
    model = build(Space.continuous(y.shape[1]), context_shape=(3,), config=config, rng=generator(1))
    model._prepare(y, x, generator(2))
    model.train()
    rows = model._encode_for_training(y)
    parameters = list(model.parameters())
    optimiser = torch.optim.Adam(parameters, lr=5e-3)
    for _ in range(3):
        with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
            loss = model._loss(Turn({ONLY: Batch(x=rows, context=x)}, partial(generator, 3)))
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        assert torch.isfinite(loss) and all(torch.isfinite(g).all() for g in gradients if g is not None)
        for p, g in zip(parameters, gradients, strict=True):
            p.grad = g
        optimiser.step()


def test_noise_in_training_widens_what_is_told():
    """Of y = x with noise of 0.1: noise on y is told as noise, noise on x as doubt of where x is (Rothfuss et al. 2019)."""
    x = numbers(600, 1)
    y = x + 0.1 * numbers(600, 1, seed=1)
    noises = ({}, {"y_noise": 0.5}, {"x_noise": 0.5})
    plain, of_y, of_x = (train(y, x, 400, components=1, warp=False, **noise) for noise in noises)
    told = [float(model.law(x).deviations.mean().detach()) for model in (plain, of_y, of_x)]
    assert told[0] < 0.2 and told[1] == pytest.approx(math.sqrt(0.5**2 + 0.1**2), rel=0.15) and told[2] > 0.35


def test_inputs_far_outside_give_finite_answers():
    y, x = numbers(100, 1), numbers(100, 1, seed=1)
    model = train(y, x, 20, warp=False)
    far = torch.tensor([[1e12], [-1e12]], dtype=torch.float64)
    assert torch.isfinite(model.law(far).mean).all() and torch.isfinite(model.log_prob(y[:2], context=far)).all()


def test_weights_draw_rows_in_proportion():
    y = torch.cat([numbers(100, 1) - 10, numbers(100, 1) + 10])
    model = build(Space.continuous(1), config=Config(**SMALL, components=2), rng=generator(1))
    weights = torch.cat([torch.ones(100), torch.full((100,), 3.0)]).double()
    for _ in fit(model, Batch(x=y, weights=weights), Recipe(**{**RECIPE, "steps": 400}), rng=generator(2)):
        pass
    assert float((model.sample(4_000, rng=generator(3)) > 0).double().mean()) == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize(
    ("space", "options", "words"),
    [
        (Space.image(1, 8, 8), {}, "images"),
        (Space.table([Column(resolution=1.0, low=0, high=9, atoms=(0.0,))] * 2), {"noise": "full"}, "atoms"),
    ],
)
def test_what_it_cannot_serve_is_refused(space, options, words):
    with pytest.raises(InputError, match=words):
        build(space, config=Config(**options), rng=generator(0))


def test_a_law_with_codes_is_no_mixture_of_gaussians():
    space = Space((1,), (Column(missing=True),))
    with pytest.raises(InputError, match="log_prob and sample"):
        build(space, context_shape=(1,), config=Config(**SMALL), rng=generator(0)).law(torch.zeros(1, 1))
