"""A stranger's energy: E(e) = ½|e|² + a network, learnt by denoising score matching (Vincent 2011), sampled by Langevin steps."""

from __future__ import annotations

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from mixtura.contracts import Energy, InputError, Space, Stage, Turn, single_stage
from mixtura.ground.encode import Columns
from mixtura.ground.mcmc import Langevin
from mixtura.ground.rng import normal, seeded


class Config(BaseModel):
    """noise: deviation, in the encoding, of the noise that rows are learnt with. steps: of Langevin's, to a sample."""

    noise: float = 0.3
    steps: int = 60


class EnergyModel(Energy):
    """Of plain numbers, in the encoding."""

    def __init__(self, space: Space, config: Config, rng: torch.Generator) -> None:
        super().__init__(space)
        self.config, self.columns = config, Columns(space)
        with seeded(int(torch.randint(2**62, (), generator=rng))):
            self.net = nn.Sequential(nn.Linear(space.dims, 32), nn.SiLU(), nn.Linear(32, 1, bias=False))

    def _prepare(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        self.columns.prepare(x)

    def _encode_for_training(self, x: Tensor) -> Tensor:
        return self.columns.encode(x).float()

    def energy(self, e: Tensor, *, context: Tensor | None = None) -> Tensor:
        return 0.5 * e.square().sum(1) + self.net(e.float()).squeeze(1).to(e)

    def stages(self) -> tuple[Stage, ...]:
        (stage,) = single_stage("score matching", self.parameters(), self._loss, unit="squared error")
        # its stopping loss needs gradients in the rows
        return (Stage(stage.name, stage.phases, self._loss, unit=stage.unit),)

    def _loss(self, turn: Turn) -> Tensor:
        noise = normal(tuple(turn.x.shape), turn.rng, turn.x)
        y = (turn.x + self.config.noise * noise).requires_grad_()
        slope = torch.autograd.grad(self.energy(y).sum(), y, create_graph=True)[0]
        return (self.config.noise * slope - noise).square().mean()

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        kernel = Langevin(0.1)
        with torch.enable_grad():
            state = kernel.init(normal((n, self.space.dims), rng, torch.empty(0)).double(), self.energy)
            for _ in range(self.config.steps):
                state, _ = kernel.step(rng, state, self.energy)
        return self.columns.decode(state.position)


def suggest(space: Space, rows: int, seconds: float | None = None) -> Config:
    """The only one."""
    return Config()


def build(
    space: Space, *, encoding: Columns | None = None, context_shape: tuple[int, ...] | None = None, config: Config,
    rng: torch.Generator,
) -> EnergyModel:  # fmt: skip
    """An untrained model; InputError but for plain numbers without a context."""
    if context_shape is not None or not space.plain:
        raise InputError("energy: this family models plain numbers without a context; use flow")
    model = EnergyModel(space, config, rng)
    model.columns.adopt(encoding)
    return model
