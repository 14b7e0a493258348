"""The head on a recurrent network, on the sequences of benchmarks/sequence.py, whose exact rate is known."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from sequence import LEFT, PERIOD, RATE, SIGMA, TURN, nats, trained, walks

from mixtura.contracts import InputError
from mixtura.ground.nets.heads import MixtureDensityHead
from mixtura.ground.noise import NoiseKind
from mixtura.ground.rng import generator, seeded

KINDS = get_args(NoiseKind)


@pytest.fixture(scope="module")
def walker():
    return trained(2, 800)


def test_a_recurrent_network_learns_the_rate_of_the_world(walker):
    said, error = nats(walker)
    assert RATE - 3 * error < said < RATE + 3 * error + 0.05


def test_one_gaussian_cannot(walker):
    # at a crossing its variance must hold both ways, σ² + 4 · .7 · .3, one step of four
    least = (0.5 * math.log(1 + 4 * LEFT * (1 - LEFT) / SIGMA**2) - TURN) / PERIOD
    assert nats(trained(1, 150))[0] > RATE + least - 0.03
    assert least > 0.3


@pytest.mark.parametrize("temperature", [0.1, 1.0, 1.5])
@torch.no_grad()
def test_temperature_moves_branches_and_spread(walker, temperature):
    law = walker(walks(4_000, 2, generator(2, "crossing")))[0].tempered(temperature)
    aside, ahead = law.sample(rng=generator(3, "dream"))[:, 0].T  # after the first step: the crossing
    share = (1 - LEFT) ** (1 / temperature) / (LEFT ** (1 / temperature) + (1 - LEFT) ** (1 / temperature))
    assert float((aside < 0).float().mean()) == pytest.approx(share, abs=0.04)
    spread = torch.stack([aside - aside.sign(), ahead]).std(1)
    assert spread.tolist() == pytest.approx([SIGMA * math.sqrt(temperature)] * 2, abs=0.015)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("noise", KINDS)
def test_loss_and_gradients_are_finite(noise, dtype, scale):
    rng = generator(0, "finite")
    with seeded(0):
        head = MixtureDensityHead(8, targets=3, components=4, noise=noise).to(dtype)
    hidden = (scale * torch.randn(5, 7, 8, generator=rng)).to(dtype).requires_grad_()
    law = head(hidden)
    assert (law.batch_shape, law.event_shape, law.means.dtype) == ((5, 7), (3,), torch.float32)
    loss = -law.log_prob(scale * torch.randn(5, 7, 3, generator=rng)).mean()
    loss.backward()
    parts = [loss, hidden.grad, *(p.grad for p in head.parameters())]
    assert all(part is not None and bool(part.isfinite().all()) for part in parts)


@pytest.mark.parametrize("batch", [(), (4,), (2, 3), (2, 3, 5)])
@pytest.mark.parametrize("noise", KINDS)
def test_any_number_of_batch_axes_is_one_law_a_place(noise, batch):
    with seeded(1):
        head = MixtureDensityHead(6, targets=2, components=3, noise=noise, scale=0.5).double()
    rng = generator(0, "axes")
    hidden = torch.randn(*batch, 6, dtype=torch.float64, generator=rng)
    y = torch.randn(*batch, 2, dtype=torch.float64, generator=rng)
    together = head(hidden).log_prob(y)
    apart = [head(h).log_prob(v) for h, v in zip(hidden.reshape(-1, 6), y.reshape(-1, 2), strict=True)]
    assert torch.allclose(together.reshape(-1), torch.stack(apart), atol=1e-12)


def test_components_begin_apart_and_as_wide_as_they_say():
    with seeded(0):
        head = MixtureDensityHead(4, targets=2, components=4)
    law = head(torch.zeros(1, 4))
    assert law.means[0, :, 0].tolist() == pytest.approx([-1.5, -0.5, 0.5, 1.5])
    assert torch.allclose(law.weights, torch.full((1, 4), 0.25))
    assert torch.allclose(law.deviations, torch.full((1, 4, 2), 0.75))


@pytest.mark.parametrize(
    ("wrong", "said"), [({"components": 0}, "components"), ({"noise": "round"}, "noise"), ({"floor": 0.0}, "floor")]
)
def test_wrong_settings_are_named(wrong, said):
    with pytest.raises(InputError, match=said):
        MixtureDensityHead(4, **wrong)
