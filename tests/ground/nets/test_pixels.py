"""A pixel network sees only earlier values in raster and channel order, and its walk equals its forward pass."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mixtura.ground.nets.pixels import CausalConv, PixelNet, PixelWalk
from mixtura.ground.rng import generator, seeded

torch.set_num_threads(1)
SHAPES = {
    "grey": ((1, 5, 4), 6, (1, 2), 0),
    "colour": ((3, 4, 3), 6, (1,), 0),
    "two channels and a context": ((2, 3, 4), 8, (2, 1), 3),
    "one pixel": ((3, 1, 1), 3, (1,), 0),
    "one row, no block": ((1, 1, 6), 4, (), 2),
}
every_shape = pytest.mark.parametrize(("shape", "width", "dilations", "context"), SHAPES.values(), ids=SHAPES)


def net_of(shape, width, dilations, context, outputs=2):
    with seeded(1):
        net = PixelNet(shape, width, dilations, outputs, context)
        for p in net.parameters():  # some start at zero
            p.data += 0.4 * torch.randn_like(p)
    return net.eval()


def order_of(shape):
    """(C, H, W) → the place of every value in the order of the walk."""
    channels, height, breadth = shape
    return torch.arange(height * breadth * channels).reshape(height, breadth, channels).permute(2, 0, 1)


def side_of(context, n):
    return torch.randn(n, context, generator=generator(2)) if context else None


@every_shape
def test_an_output_depends_on_no_value_from_its_own_on(shape, width, dilations, context):
    net = net_of(shape, width, dilations, context)
    x = torch.randn(1, *shape, generator=generator(3))
    jacobian = torch.autograd.functional.jacobian(lambda image: net(image, side_of(context, 1)), x)
    sees = jacobian.abs().amax((0, 2, 3)).flatten(1) > 0
    order = order_of(shape).flatten()
    before = order[None, :] < order[:, None]
    assert not (sees & ~before).any()
    channels, height, breadth = shape
    pixel = torch.arange(height * breadth).repeat(channels)
    row, column = pixel // breadth, pixel % breadth
    # no blind spot among the nearest: left, above, above right, and the channels below at the same pixel
    near = before & ((row[:, None] - row).abs() <= 1) & ((column[:, None] - column).abs() <= 1)
    assert (sees | ~near).all()


@every_shape
def test_a_walk_gives_the_outputs_of_one_pass(shape, width, dilations, context):
    net, n = net_of(shape, width, dilations, context), 5
    x, side = torch.randn(n, *shape, generator=generator(4)), side_of(context, n)
    whole = net(x, side).reshape(n, *shape, -1)
    walk = PixelWalk(net, n, side)
    channels, height, breadth = shape
    for i, j, c in itertools.product(range(height), range(breadth), range(channels)):
        torch.testing.assert_close(walk.outputs(c, i, j), whole[:, c, i, j], rtol=1e-5, atol=1e-5)
        walk.set(c, i, j, x[:, c, i, j])


@pytest.mark.parametrize(("reach", "dilation", "strict"), [(0, 1, False), (1, 1, True), (1, 2, False), (3, 1, True)])
def test_a_layer_is_the_sum_over_the_taps_it_may_use(reach, dilation, strict):
    """Against a loop over pixels, taps and channels."""
    with seeded(5):
        layer = CausalConv(4, 6, 2, reach=reach, dilation=dilation, strict=strict)
        layer.bias.data.normal_()
    x = torch.randn(1, 4, 4, 5, generator=generator(6))
    want = layer.bias.detach().reshape(1, 6, 1, 1).repeat(1, 1, 4, 5)
    for i, j, dy, dx in itertools.product(range(4), range(5), range(-reach, 1), range(-reach, reach + 1)):
        y, z = i + dilation * dy, j + dilation * dx
        if y < 0 or not 0 <= z < 5 or (dy == 0 and dx > 0):
            continue
        for o, c in itertools.product(range(6), range(4)):
            if dy == dx == 0 and not (c // 2 < o // 3 if strict else c // 2 <= o // 3):
                continue
            want[0, o, i, j] += layer.weight[o, c, dy + reach, dx + reach].detach() * x[0, c, y, z]
    torch.testing.assert_close(layer(x), want)


def test_all_steps_of_a_walk_together_multiply_no_more_than_one_pass():
    """Counted by torch; a naive walk would take a pass a value."""
    shape, n = (3, 6, 6), 2
    net = net_of(shape, 12, (1, 2), 0, outputs=4)
    with FlopCounterMode(display=False) as one_pass:
        net(torch.zeros(n, *shape))
    with FlopCounterMode(display=False) as walked:
        walk = PixelWalk(net, n)
        for i, j, c in itertools.product(range(6), range(6), range(3)):
            walk.outputs(c, i, j)
            walk.set(c, i, j, torch.zeros(n))
    assert 0 < walked.get_total_flops() <= one_pass.get_total_flops()
