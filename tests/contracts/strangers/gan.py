"""A stranger's family that only samples: a GAN with a gradient penalty on real rows (Mescheder et al. 2018)."""

from __future__ import annotations

import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.nn.functional import softplus

from mixtura.contracts import InputError, Optimiser, Phase, Reparameterised, Space, Stage, Turn
from mixtura.ground.encode import Columns
from mixtura.ground.rng import normal, seeded


class Config(BaseModel):
    """width: of the hidden layers."""

    width: int = 32


class Gan(Reparameterised):
    """G(z) = z + a network of z, so that it begins as a standard normal law of the encoding."""

    def __init__(self, space: Space, config: Config, rng: torch.Generator) -> None:
        super().__init__(space)
        self.config, self.columns, d = config, Columns(space), space.dims
        with seeded(int(torch.randint(2**62, (), generator=rng))):
            self.generator = nn.Sequential(nn.Linear(d, config.width), nn.SiLU(), nn.Linear(config.width, d))
            self.critic = nn.Sequential(nn.Linear(d, config.width), nn.SiLU(), nn.Linear(config.width, 1))

    def _prepare(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        self.columns.prepare(x)

    def _encode_for_training(self, x: Tensor) -> Tensor:
        return self.columns.encode(x).float()

    def stages(self) -> tuple[Stage, ...]:
        moves = Optimiser(betas=(0.0, 0.99), decay=0.0)
        critic = Phase("critic", tuple(self.critic.parameters()), self._critic, optimiser=moves)
        generator = Phase("generator", tuple(self.generator.parameters()), self._generator, optimiser=moves)
        return (Stage("game", (critic, generator)),)

    def _critic(self, turn: Turn) -> Tensor:
        real, made = turn.x.clone().requires_grad_(), self._made(len(turn.x), turn.rng).detach()
        said = self.critic(real)
        slope = torch.autograd.grad(said.sum(), real, create_graph=True)[0]
        return softplus(-said).mean() + softplus(self.critic(made)).mean() + 0.5 * slope.square().sum(1).mean()

    def _generator(self, turn: Turn) -> Tensor:
        return softplus(-self.critic(self._made(len(turn.x), turn.rng))).mean()

    def _made(self, n: int, rng: torch.Generator) -> Tensor:
        z = normal((n, self.space.dims), rng, next(self.parameters()))
        return z + self.generator(z)

    def _draw(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        return self._made(n, rng)

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        return self.columns.decode(self._made(n, rng).double())


def suggest(space: Space, rows: int, seconds: float | None = None) -> Config:
    """The only one."""
    return Config()


def build(
    space: Space, *, encoding: Columns | None = None, context_shape: tuple[int, ...] | None = None, config: Config,
    rng: torch.Generator,
) -> Gan:  # fmt: skip
    """An untrained model; InputError but for plain numbers without a context."""
    if context_shape is not None or not space.plain:
        raise InputError("gan: this family models plain numbers without a context; use flow")
    model = Gan(space, config, rng)
    model.columns.adopt(encoding)
    return model
