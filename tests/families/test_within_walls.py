"""The mean of pixels given a noisy image lies between the darkest and the brightest level, whatever the network says."""

import torch

from mixtura.contracts import Space
from mixtura.families import diffusion
from mixtura.ground.rng import generator


def test_a_wild_network_cannot_leave_the_levels():
    """Its errors would grow from step to step, to NaN at the end."""
    space, rng = Space.image(1, 8, 8, high=16), generator(0)
    x = torch.randint(0, 17, (40, 1, 8, 8), generator=rng).double()
    model = diffusion.build(space, config=diffusion.suggest(space, 40), rng=rng)
    model._prepare(x, None, rng)
    with torch.no_grad():
        for parameter in model.net.parameters():
            parameter.mul_(3).add_(0.5 * torch.randn(parameter.shape, generator=rng))
    model.eval()
    y = 40 * torch.randn(16, 64, generator=rng)
    with torch.no_grad():
        D, _ = model.denoiser()(y, 40.0)
    levels = model.columns.split(torch.tensor([0.0, 16.0])[:, None].expand(2, 64).reshape(2, 1, 8, 8).double()).values
    assert (levels[0].float() <= D).all() and (levels[1].float() >= D).all()
    made = model.sample(64, rng=generator(1))
    assert torch.isfinite(made).all() and made.min() >= 0 and made.max() <= 16
    assert torch.isfinite(model.log_prob_bound(x[:4], rng=generator(2))).all()


def test_numbers_without_walls_are_not_held():
    model = diffusion.build(Space.continuous(2), config=diffusion.Config(), rng=generator(0))
    model._prepare(torch.randn(50, 2, generator=generator(0)).double(), None, generator(0))
    assert torch.isinf(model.least).all() and torch.isinf(model.most).all()
