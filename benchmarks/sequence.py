"""A mixture density head on a recurrent network: the next step in a world with crossings, and dreams of it, bold and meek.

    python benchmarks/sequence.py [--updates 2000]

A walker goes ahead, aside at a crossing (left with probability 0.7, else right), ahead, back to where it came from, and so on, by
steps of length 1 ± 0.1. The network is told each step and foretells the next: at a crossing there are two answers, and the way
back asks it to remember. The rate of this world, −log p a step of who knows all of it, is exact. In a dream the network is fed
with what it draws (Ha & Schmidhuber 2018): logits over τ, deviations times √τ. Its figures: the share of turns to the right,
.3^(1/τ) over .3^(1/τ) + .7^(1/τ) if a branch is one component; the spread of steps about ahead, left and right, over .1 √τ; the
share of turns whose way back undoes them. One thread, CPU time.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from torch import Tensor, nn

from mixtura.ground.distributions import MixtureDensity
from mixtura.ground.nets.heads import MixtureDensityHead
from mixtura.ground.rng import generator, seeded

PERIOD, LEFT, SIGMA = 4, 0.7, 0.1
TURN = -(LEFT * math.log(LEFT) + (1 - LEFT) * math.log(1 - LEFT))
#: nats a step: of the noise of two numbers, and of a turn every PERIOD steps; left and right are 20 deviations apart
RATE = math.log(2 * math.pi * math.e * SIGMA**2) + TURN / PERIOD
#: steps of a walk in training, and walks at a time; new walks scored; dreams, and their steps
STEPS, BATCH, SCORED, DREAMS, DREAMT = 25, 64, 4_000, 1_000, 80


def walks(n: int, steps: int, rng: torch.Generator) -> Tensor:
    """Steps made, (n, steps, 2): to the left, ahead."""
    phase, cycle = torch.arange(steps) % PERIOD, torch.arange(steps) // PERIOD
    left = torch.where(torch.rand(n, int(cycle[-1]) + 1, generator=rng) < LEFT, 1.0, -1.0)[:, cycle]
    aside = torch.where(phase == 1, left, torch.where(phase == 3, -left, 0.0))
    ahead = (phase % 2 == 0).float().expand_as(aside)
    return torch.stack([aside, ahead], -1) + SIGMA * torch.randn(n, steps, 2, generator=rng)


class Walker(nn.Module):
    """Steps so far (n, T, 2), and what is remembered of those before → the law of each next one, and what is remembered now."""

    def __init__(self, components: int) -> None:
        super().__init__()
        self.memory = nn.GRU(2, 32, batch_first=True)
        self.head = MixtureDensityHead(32, targets=2, components=components)

    def forward(self, seen: Tensor, before: Tensor | None = None) -> tuple[MixtureDensity, Tensor]:
        hidden, now = self.memory(seen, before)
        return self.head(hidden), now


def trained(components: int, updates: int) -> Walker:
    rng = generator(0, "walks")
    with seeded(0):
        walker = Walker(components)
    optimiser = torch.optim.Adam(walker.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
    for _ in range(updates):
        path = walks(BATCH, STEPS, rng)
        optimiser.zero_grad()
        (-walker(path[:, :-1])[0].log_prob(path[:, 1:]).mean()).backward()
        nn.utils.clip_grad_norm_(walker.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return walker.eval()


@torch.no_grad()
def nats(walker: Walker) -> tuple[float, float]:
    """−log p a step of new walks, and its standard error."""
    path = walks(SCORED, STEPS, generator(1, "new walks"))
    each = -walker(path[:, :-1])[0].log_prob(path[:, 1:]).mean(1)
    return float(each.mean()), float(each.std()) / math.sqrt(SCORED)


@torch.no_grad()
def dreams(walker: Walker, temperature: float) -> Tensor:
    """(DREAMS, DREAMT, 2): a first step of the world, and then what the network draws from what it drew."""
    rng = generator(2, "dreams")
    path = [walks(DREAMS, 1, rng)]
    before = None
    for _ in range(DREAMT - 1):
        law, before = walker(path[-1], before)
        path.append(law.tempered(temperature).sample(rng=rng))
    return torch.cat(path, 1)


def told(path: Tensor, temperature: float) -> str:
    """The three figures of walks or dreams."""
    phase = torch.arange(path.shape[1]) % PERIOD
    aside, back = path[:, phase == 1, 0], path[:, phase == 3, 0]
    off = torch.cat([(aside - aside.sign()).flatten(), path[:, phase == 2].sub(torch.tensor([0.0, 1.0])).flatten()])
    spread = float(off.std()) / (SIGMA * math.sqrt(temperature))
    return f"{float((aside < 0).float().mean()):9.3f}{spread:9.2f}{float((aside.sign() == -back.sign()).float().mean()):9.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="A recurrent network with a mixture density head, and its dreams.")
    parser.add_argument("--updates", type=int, default=2_000, help="training steps")
    updates = parser.parse_args().updates
    torch.set_num_threads(1)
    print(f"−log p a step of {SCORED:,} new walks of {STEPS} steps; the rate of the world is {RATE:.4f}")
    print(f"{'components':12}{'−log p':>18}{'over the rate':>15}{'fit, s':>8}")
    walkers: dict[int, Walker] = {}
    for components in (1, 2, 5):
        began = time.process_time()
        walkers[components] = trained(components, updates)
        spent = time.process_time() - began
        mean, error = nats(walkers[components])
        print(f"{components:<12}{mean:10.4f} ± {error:.4f}{mean - RATE:15.4f}{spent:8.1f}", flush=True)
    print(f"\n{DREAMS:,} dreams of {DREAMT} steps, two components{'right':>9}{'spread':>9}{'undone':>9}{'right by τ':>12}")
    print(f"{'the world':40}{told(walks(DREAMS, DREAMT, generator(3, 'world')), 1.0)}{1 - LEFT:12.3f}")
    for temperature in (0.1, 0.5, 1.0, 1.15, 1.5):
        share = (1 - LEFT) ** (1 / temperature) / (LEFT ** (1 / temperature) + (1 - LEFT) ** (1 / temperature))
        print(f"τ = {temperature:<36}{told(dreams(walkers[2], temperature), temperature)}{share:12.3f}", flush=True)


if __name__ == "__main__":
    main()
