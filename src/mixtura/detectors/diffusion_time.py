"""Diffusion time guessed by a network: :class:`GuessedTime`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from mixtura.contracts import Batch, Learner, Phase, Stage, Turn
from mixtura.detectors.detector import Detector, finite
from mixtura.ground import rng as random
from mixtura.ground.nets.coders import perceptron
from mixtura.ground.rng import seeded
from mixtura.train.fit import Recipe, fit

#: classes of noise levels, the lowest and the highest level in standard deviations, and the network
CLASSES, LEVELS, HIDDEN = 7, (0.05, 3.0), (128, 128)
STEPS = 2_000


class _Guess(Learner):
    """Rows (n, d) → (n, ``CLASSES``) log-odds of the level of the noise in them."""

    def __init__(self, inputs: int, rng: torch.Generator) -> None:
        super().__init__()
        with seeded(int(torch.randint(2**62, (), generator=rng))):
            self.net = perceptron(inputs, HIDDEN, CLASSES)

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("level", (Phase("level", tuple(self.parameters()), self._loss),), torch.no_grad()(self._loss)),)

    def _loss(self, turn: Turn) -> Tensor:
        x, (low, high) = turn.x.float(), map(math.log, LEVELS)
        share = random.uniform((len(x),), turn.rng, x)
        noisy = x + (low + (high - low) * share).exp()[:, None] * random.normal(tuple(x.shape), turn.rng, x)
        return nn.functional.cross_entropy(self.net(noisy), (share * CLASSES).long().clamp(max=CLASSES - 1))


class GuessedTime(Detector):
    """The expected noise level of a row, in classes even in its logarithm, by a network that guesses how much noise was added to
    normal rows (DTE-C: Livernoche et al. 2024, section 4)."""

    def __init__(self, steps: int = STEPS) -> None:
        self.steps = steps

    def fit(self, x: Tensor, rng: torch.Generator) -> Self:
        self._net = _Guess(x.shape[1], rng)
        for _ in fit(self._net, Batch(x=x), Recipe(steps=self.steps, rate=1e-3), rng=rng):
            pass
        return self

    @torch.no_grad()
    def score(self, y: Tensor) -> Tensor:
        self._net.eval()
        return finite(torch.softmax(self._net.net(y.float()).double(), 1) @ torch.arange(CLASSES, dtype=torch.float64))

    def state(self) -> Mapping[str, Tensor]:
        return self._net.state_dict()

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        self._net = _Guess(state["net.0.weight"].shape[1], torch.Generator().manual_seed(0))
        self._net.load_state_dict(state)
        return self
