"""Training steps and samples per second beside zuko used directly, same architecture, in one run.

    python benchmarks/peers.py [--rounds 5]

The peer is the loop a person would write with zuko: standardise, log_prob, backward, fused AdamW. Ours is
`train.fit` with everything it does beside (slices, clipping, scoring, best state). Process CPU time, one thread; the two
alternate and the median of the paired ratios is what counts. Wanted: 0.9 or more of the peer's speed.

flow: zuko.flows.MAF, 6 columns, 4 transforms, 2 x 128. MADE: 16 binary columns, 2 x 256; zuko's is a masked MLP with
Bernoulli heads (zuko.nn.MaskedMLP), ours predicts logits of two levels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import cast

import torch
import zuko

from mixtura.contracts import Model, Space
from mixtura.families import autoregressive, flow
from mixtura.ground.rng import generator
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

STEPS, BATCH, ROWS, DRAWN = 2_000, 256, 10_000, 5_000


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def our_training(model: Model, x: torch.Tensor) -> None:
    for _ in fit(model, x, Recipe(steps=STEPS, batch=BATCH, every=500), rng=generator(0)):
        pass


def peer_training(net: Peer, x: torch.Tensor) -> None:
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, fused=True)
    for _ in range(STEPS):
        loss = -net.log_prob(x[torch.randint(len(x), (BATCH,))]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


class ZukoFlow(torch.nn.Module):
    """zuko's masked autoregressive flow."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.flow = zuko.flows.MAF(columns, transforms=4, hidden_features=(128, 128))

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        return self.flow().log_prob(x)

    @torch.no_grad()
    def sample(self, n: int) -> torch.Tensor:
        return self.flow().sample((n,))


class ZukoMade(torch.nn.Module):
    """A MADE out of zuko's masked MLP."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns, order = columns, torch.arange(columns)
        before = cast(torch.BoolTensor, order[:, None] > order)
        self.net = zuko.nn.MaskedMLP(before, hidden_features=(256, 256), activation=torch.nn.SiLU)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        return -torch.nn.functional.binary_cross_entropy_with_logits(self.net(x), x, reduction="none").sum(1)

    @torch.no_grad()
    def sample(self, n: int) -> torch.Tensor:
        x = torch.zeros(n, self.columns)
        for j in range(self.columns):
            x[:, j] = torch.bernoulli(torch.sigmoid(self.net(x)[:, j]))
        return x


Peer = ZukoFlow | ZukoMade


def compare(name: str, build: Callable[[], Model], x: torch.Tensor, peer: Callable[[], Peer], rounds: int) -> None:
    standard = ((x - x.mean(0)) / x.std(0)).float() if name == "flow" else x.float()
    ours, theirs, our_draws, their_draws = [], [], [], []
    our_training(build(), x[:500])  # both wait for torch's own lazy imports once
    for _ in range(rounds):
        model, net = build(), peer()
        ours.append(seconds(lambda model=model: our_training(model, x)))
        theirs.append(seconds(lambda net=net: peer_training(net, standard)))
        our_draws.append(seconds(lambda model=model: model.sample(DRAWN, rng=generator(0))))
        their_draws.append(seconds(lambda net=net: net.sample(DRAWN)))
    for what, count, mine, peers in (("steps", STEPS, ours, theirs), ("samples", DRAWN, our_draws, their_draws)):
        ratio = median(p / m for p, m in zip(peers, mine, strict=True))
        print(f"{name:6} {what:8} {count / median(mine):10.0f} /s   zuko {count / median(peers):10.0f} /s   ratio {ratio:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    numbers = 100 + 3 * torch.randn(ROWS, 6, generator=generator(0), dtype=torch.float64).cumsum(1)
    bits = (torch.rand(ROWS, 16, generator=generator(1)) < 0.3).double()
    settings = flow.Config(transforms=4, hidden=(128, 128))
    our_flow = partial(flow.build, Space.continuous(6), config=settings)
    compare("flow", lambda: our_flow(rng=generator(0)), numbers, lambda: ZukoFlow(6), rounds)
    our_made = partial(
        autoregressive.build, Space.levels(16, levels=2), config=autoregressive.Config(hidden=(256, 256), orderings=1)
    )
    compare("MADE", lambda: our_made(rng=generator(0)), bits, lambda: ZukoMade(16), rounds)


if __name__ == "__main__":
    main()
