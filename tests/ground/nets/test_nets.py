"""A masked network sees only earlier inputs, and the layout of codes loses nothing."""

from __future__ import annotations

import pytest
import torch

from mixtura.ground.nets.masked import CodeLayout, MaskedNet, Walk
from mixtura.ground.rng import generator, seeded


def net_of(inputs, outputs, hidden, context=0):
    with seeded(1):
        net = MaskedNet(torch.tensor(inputs), torch.tensor(outputs), hidden, context)
        for parameter in net.parameters():  # direct connections and biases start at zero
            parameter.data += 0.3 * torch.randn_like(parameter)
    return net.eval()


LAYOUTS = {
    "columns in order": ([0, 1, 2], [0, 1, 2], (16,), 0),
    "blocks": ([0, 0, 1, 2, 2, 2], [0, 0, 1, 1, 2, 2], (24, 24), 0),
    "another ordering": ([2, 0, 1], [2, 2, 0, 1], (16, 16), 0),
    "context": ([0, 1], [0, 1], (16, 16), 3),
    "narrower than its input": (list(range(8)), list(range(8)), (4,), 0),
    "one column": ([0], [0], (8,), 0),
    "one column and a context": ([0], [0, 0], (8, 8), 2),
    "no hidden layer": ([0, 1, 2], [0, 1, 2], (), 1),
}


@pytest.mark.parametrize(("inputs", "outputs", "hidden", "context"), LAYOUTS.values(), ids=LAYOUTS)
def test_the_jacobian_is_zero_exactly_where_it_must_be(inputs, outputs, hidden, context):
    net = net_of(inputs, outputs, hidden, context)
    x = torch.randn(1, len(inputs) + context, generator=generator(2))
    jacobian = torch.autograd.functional.jacobian(net, x)[0, :, 0]
    before = torch.tensor(inputs + [-1] * context)
    sees = before[None, :] < torch.tensor(outputs)[:, None]
    assert torch.equal(jacobian != 0, sees)


@pytest.mark.parametrize(("inputs", "outputs", "hidden", "context"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_walk_through_the_positions_gives_the_outputs_of_one_pass(inputs, outputs, hidden, context):
    """Inputs appear one position after the other, and each position is asked before its own are there."""
    net = net_of(inputs, outputs, hidden, context)
    whole = torch.randn(5, len(inputs) + context, generator=generator(3))
    x = torch.zeros_like(whole)
    x[:, len(inputs) :] = whole[:, len(inputs) :]
    walk, want = Walk(net, x), net(whole)
    for position in range(max(outputs) + 1):
        rows = [slice(i, i + 1) for i, p in enumerate(outputs) if p == position]
        for row, got in zip(rows, walk.outputs(position, rows), strict=True):
            torch.testing.assert_close(got, want[:, row])
        here = [i for i, p in enumerate(inputs) if p == position]
        x[:, here] = whole[:, here]


def test_training_keeps_the_mask():
    net = net_of(*LAYOUTS["blocks"]).train()
    for layer in (*net.layers, net.head):
        layer.weight.data *= layer.mask
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        net(torch.randn(8, 6, generator=generator(4))).square().sum().backward()
        optimiser.step()
    assert all(not (layer.weight * (1 - layer.mask)).any() for layer in (*net.layers, net.head))
    x = torch.randn(8, 6, generator=generator(5))
    torch.testing.assert_close(net(x), net.eval()(x))


SIZES = [(3,), (2,), (2, 2, 2), (4, 4), (2, 3, 2), (1, 2, 5), (1, 1), (1,), ()]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_levels_of_every_code_share_its_probability(sizes):
    layout = CodeLayout(sizes)
    out = 3 * torch.randn(1, layout.width, generator=generator(6))
    for s, k in enumerate(sizes):
        codes = torch.zeros(k, len(sizes), dtype=torch.int64)
        codes[:, s] = torch.arange(k)
        chosen = layout.log_chosen(out.expand(k, -1), codes)[:, s]
        assert chosen.exp().sum().item() == pytest.approx(1, abs=1e-6)
        torch.testing.assert_close(chosen, torch.log_softmax(layout.logits(s, out[:, layout.blocks[s]]), 1)[0])
    assert layout.log_chosen(out, torch.zeros(1, len(sizes), dtype=torch.int64)).shape == (1, len(sizes))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_codes_enter_alone_as_they_enter_together(sizes):
    layout = CodeLayout(sizes)
    codes = torch.cartesian_prod(*(torch.arange(k) for k in sizes)).reshape(-1, len(sizes)) if sizes else torch.zeros(3, 0).long()
    together = layout.inputs(codes)
    assert together.shape == (len(codes), layout.width) == (len(codes), len(layout.positions(torch.arange(len(sizes)))))
    if sizes:
        assert len(together.unique(dim=0)) == len(codes)  # nothing is lost
    for s in range(len(sizes)):
        torch.testing.assert_close(layout.input(s, codes[:, s]), together[:, layout.blocks[s]])
