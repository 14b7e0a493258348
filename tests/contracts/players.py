"""Five learners that the contracts must carry, each a sketch of its paper: enough to play by the paper's rules, no more.

They came before ``train.fit`` as it is: where one of them needed another call, the contract was changed, not the sketch.
Their laws are two-dimensional and their networks small; ``test_game.py`` trains, kills and resumes them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from mixtura.contracts import Batches, Learner, Model, Optimiser, Phase, Space, Stage, Turn
from mixtura.ground.rng import normal, seeded, uniform

ADAM = Optimiser(rate=1e-3, betas=(0.0, 0.9), clip=100.0, decay=0.0)


def net(inputs: int, outputs: int, seed: int, width: int = 32) -> nn.Sequential:
    """A network with two hidden layers, a function of its seed."""
    with seeded(seed):
        return nn.Sequential(
            nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs)
        )  # fmt: skip


def slope(f: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) f and (n, d) ∇f at rows x, both differentiable in the parameters."""
    x = x.detach().requires_grad_()
    value = f(x).squeeze(1)
    return value, torch.autograd.grad(value.sum(), x, create_graph=True)[0]


class WassersteinGan(Model):
    """Wasserstein GAN with gradient penalty (Gulrajani et al. 2017, algorithm 1): a critic D at every step, a generator G at
    every fifth. No loss says when to stop, so the moving average of both stays."""

    def __init__(self, space: Space, seed: int, weightless: bool = False) -> None:
        super().__init__(space)
        self.critic, self.generator, self.weightless = net(space.dims, 1, seed), net(4, space.dims, seed + 1), weightless
        self.extra = net(space.dims, 1, seed + 2)
        self.register_buffer("centre", torch.zeros(space.dims))

    def _prepare(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        self.centre = x.mean(0).float()

    def _encode_for_training(self, x: Tensor) -> Tensor:
        return x.float() - self.centre

    def stages(self) -> tuple[Stage, ...]:
        critic = Phase("critic", tuple(self.critic.parameters()), self._critic, optimiser=ADAM)
        generator = Phase("generator", tuple(self.generator.parameters()), self._generator, every=5, optimiser=ADAM)
        # a player of no weight, who draws from his own stream and moves his own parameters
        idle = Phase("idle", tuple(self.extra.parameters()), lambda turn: 0 * self.extra(normal((8, 2), turn.rng, turn.x)).sum())
        return (Stage("adversarial", (idle, critic, generator) if self.weightless else (critic, generator)),)

    def _critic(self, turn: Turn) -> Tensor:
        real, fake = turn.x, self._made(len(turn.x), turn.rng).detach()
        between = fake + uniform((len(real), 1), turn.rng, real) * (real - fake)
        penalty = (slope(self.critic, between)[1].norm(dim=1) - 1).square().mean()
        return self.critic(fake).mean() - self.critic(real).mean() + 10 * penalty

    def _generator(self, turn: Turn) -> Tensor:
        return -self.critic(self._made(len(turn.x), turn.rng)).mean()

    def _made(self, n: int, rng: torch.Generator) -> Tensor:
        return self.generator(normal((n, 4), rng, self.centre))

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        return (self._made(n, rng) + self.centre).double()


class WeightedRatio(Learner):
    """The network form of variationally weighted kernel density ratios (Park et al., seed 3): log-weights β of the rows lower

        E B²,  B = ∇β·(s₁ − s₂) + ½ (Δp₁/p₁ − Δp₂/p₂),  s = ∇ log p,  Δp/p = Δ log p + |s|²,

    the leading bias of the log-ratio, over the rows of two batches of unlike lengths, each with a Gaussian fitted to it. The
    stopping loss is the loss, and needs ∇β."""

    mean: Tensor
    precision: Tensor

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.beta = net(2, 1, seed)
        self.register_buffer("mean", torch.zeros(2, 2))
        self.register_buffer("precision", torch.eye(2).repeat(2, 1, 1))

    def prepare(self, data: Batches, rng: torch.Generator) -> None:
        both = [data[name]["x"].float() for name in ("one", "two")]
        self.mean.copy_(torch.stack([x.mean(0) for x in both]))
        self.precision.copy_(torch.stack([torch.linalg.inv(x.T.cov()) for x in both]))

    def stages(self) -> tuple[Stage, ...]:
        return (Stage("weights", (Phase("weight", tuple(self.beta.parameters()), self._loss),), self._loss, unit="bias²"),)

    def _loss(self, turn: Turn) -> Tensor:
        x = torch.cat([turn.of(name)["x"].float() for name in ("one", "two")])
        s = torch.einsum("knd,kde->kne", self.mean[:, None] - x, self.precision)
        curved = s.square().sum(2) - self.precision.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
        _, g = slope(self.beta, x)
        return ((g * (s[0] - s[1])).sum(1) + 0.5 * (curved[0] - curved[1])).square().mean()


class ManifoldProjection(Learner):
    """Manifold projection-diffusion recovery (Yoon et al. 2023): an autoencoder, then, with it frozen, an energy whose negatives
    begin at x projected on the manifold with noise and walk by Langevin steps in the latent space."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.encoder, self.decoder, self.energy = net(2, 1, seed), net(1, 2, seed + 1), net(2, 1, seed + 2)

    def stages(self) -> tuple[Stage, ...]:
        ends = (*self.encoder.parameters(), *self.decoder.parameters())
        learn = Phase("energy", tuple(self.energy.parameters()), self._contrast, optimiser=Optimiser(rate=1e-3, clip=1.0))
        return (
            Stage("autoencoder", (Phase("reconstruction", ends, self._error),), self._error, share=1, unit="squared error"),
            Stage("energy", (learn,), share=2),
        )

    def _error(self, turn: Turn) -> Tensor:
        x = turn.x.float()
        return mse_loss(self.decoder(self.encoder(x)), x)

    def _contrast(self, turn: Turn) -> Tensor:
        x = turn.x.float()
        positive, negative = self.energy(x), self.energy(self._negatives(x, turn.rng))
        return (positive - negative).mean() + 0.1 * (positive.square() + negative.square()).mean()

    def _negatives(self, x: Tensor, rng: torch.Generator, steps: int = 3) -> Tensor:
        with torch.no_grad():
            z = self.encoder(x) + 0.3 * normal((len(x), 1), rng, x)
        for _ in range(steps):
            with torch.enable_grad():
                g = slope(nn.Sequential(self.decoder, self.energy), z)[1]
            z = (z - 0.05 * g + 0.1 * normal(tuple(z.shape), rng, z)).detach()
        with torch.no_grad():
            return self.decoder(z)


class DiffusionByEnergy(Model):
    """Diffusion by maximum-entropy inverse reinforcement learning (Yoon et al. 2024, algorithm 1): an energy E, a value V
    of a state and its step, played twice a turn, and a sampler π of T Gaussian steps, all on one rollout of π."""

    def __init__(self, space: Space, seed: int, steps: int = 3) -> None:
        super().__init__(space)
        self.steps, self.energy, self.value, self.policy = steps, net(2, 1, seed), net(3, 1, seed + 1), net(3, 2, seed + 2)
        self.log_sigma = nn.Parameter(torch.full((steps,), -1.0))

    def stages(self) -> tuple[Stage, ...]:
        sampler = (*self.policy.parameters(), self.log_sigma)
        return (
            Stage("irl", (
                Phase("energy", tuple(self.energy.parameters()), self._energy),
                Phase("value", tuple(self.value.parameters()), self._value, repeats=2, optimiser=Optimiser(rate=5e-3)),
                Phase("sampler", sampler, self._sampler, optimiser=Optimiser(rate=1e-3)),
            )),
        )  # fmt: skip

    def _at(self, f: nn.Module, y: Tensor, k: int) -> Tensor:
        return f(torch.cat([y, torch.full((len(y), 1), k / self.steps)], 1))

    def _step(self, y: Tensor, k: int, noise: Tensor) -> Tensor:
        return y + self._at(self.policy, y, k) + self.log_sigma[k].exp() * noise

    def _rollout(self, turn: Turn) -> list[Tensor]:
        """States y_0 … y_T of one path each, made once a turn."""

        def make(rng: torch.Generator) -> list[Tensor]:
            path = [normal((len(turn.x), 2), rng, self.log_sigma)]
            with torch.no_grad():
                for k in range(self.steps):
                    path.append(self._step(path[-1], k, normal((len(turn.x), 2), rng, path[-1])))
            return path

        return turn.once("rollout", make)

    def _energy(self, turn: Turn) -> Tensor:
        real, made = self.energy(turn.x.float()), self.energy(self._rollout(turn)[-1])
        return real.mean() - made.mean() + 0.1 * (real.square() + made.square()).mean()

    def _ahead(self, y: Tensor, k: int) -> Tensor:
        """What is to be paid from y = y_k on: the energy at the end, the value before."""
        return self.energy(y) if k == self.steps else self._at(self.value, y, k)

    def _value(self, turn: Turn) -> Tensor:
        path = self._rollout(turn)
        loss = torch.zeros(())
        for k in range(self.steps):
            with torch.no_grad():  # the entropy of a step is that of its Gaussian, up to a constant
                target = self._ahead(path[k + 1], k + 1) - 2 * self.log_sigma[k]
            loss = loss + mse_loss(self._at(self.value, path[k], k), target)
        return loss

    def _sampler(self, turn: Turn) -> Tensor:
        loss = torch.zeros(())
        for k, y in enumerate(self._rollout(turn)[:-1]):
            next_y = self._step(y, k, normal(tuple(y.shape), turn.rng, y))
            loss = loss + self._ahead(next_y, k + 1).mean() - 2 * self.log_sigma[k]
        return loss

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        y = normal((n, 2), rng, self.log_sigma)
        for k in range(self.steps):
            y = self._step(y, k, normal((n, 2), rng, y))
        return y.double()


class Hierarchy(Learner):
    """Two levels (seed 5): an upper model of many rows; then, with the upper one frozen, the lower model of few rows beside it,
    pulled by feedback to where the upper one puts mass. Both are diagonal Gaussians."""

    def __init__(self) -> None:
        super().__init__()
        self.upper, self.lower = (nn.Parameter(torch.zeros(2, 2)) for _ in range(2))
        self.running = nn.BatchNorm1d(2, affine=False)  # its buffers move in training

    def stages(self) -> tuple[Stage, ...]:
        def alone(turn: Turn) -> Tensor:
            return -_gaussian(self.upper, turn.of("system")["x"].float()).mean()

        def fed_back(turn: Turn) -> Tensor:
            x = turn.of("agent")["x"].float()
            self.running(x)
            mean, log_sd = self.lower
            drawn = mean + log_sd.exp() * normal((64, 2), turn.rng, mean)
            return -_gaussian(self.lower, x).mean() - 0.5 * _gaussian(self.upper.detach(), drawn).mean()

        fast = Optimiser(rate=2e-2)
        upper = Phase("upper", (self.upper,), alone, optimiser=fast)
        lower = Phase("lower", (self.lower,), fed_back, optimiser=fast)
        return (
            Stage("upper", (upper,), torch.no_grad()(alone)),
            Stage("feedback", (lower,), torch.no_grad()(fed_back)),
        )


def _gaussian(parameters: Tensor, x: Tensor) -> Tensor:
    mean, log_sd = parameters
    return (-0.5 * ((x - mean) / log_sd.exp()).square() - log_sd - 0.9189385).sum(1)
