"""Energy-based model: any network f as an energy, by a table of losses.

    p(e) ∝ N(e; μ, Σ) exp(−f(e)),    E(e) = ½ (e − μ)ᵀ Σ⁻¹ (e − μ) + f(e)

over encoded rows e, with μ and Σ the mean and the covariance of the fit rows, Σ widened: the Gaussian makes the density
integrable, is the noise of noise-contrastive estimation, and is where sampling starts. Codes are relaxed: their indicators carry
normal noise of deviation ``Config.noise``, so the model has no nats in data units. It is sampled by sequential Monte Carlo from
the Gaussian to E, with MALA moves (``ground/annealing.py``); a relaxed code becomes its largest level.

``LOSSES`` holds what f is trained by:

- "nce": noise-contrastive estimation, rows against draws of the Gaussian (Gutmann & Hyvärinen 2010); f is −log of the ratio, so
  the energy is nearly normalised.
- "cd": contrastive divergence, samples from a few steps of MALA that begin at rows (Hinton 2002).
- "pcd": the same with chains that go on from step to step, some begun anew (Tieleman 2008; Du & Mordatch 2019).
- "dsm": denoising score matching of rows with noise (Vincent 2011). "ssm": sliced score matching (Song et al. 2019). Both are
  blind to the weights of parts that lie far apart (Wenliang & Kanagawa 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mixtura.contracts import Energy, InputError, Phase, Space, Stage, Turn
from mixtura.ground import losses
from mixtura.ground import rng as random
from mixtura.ground.annealing import PILOT, anneal, between, by_mala, sigmoidal
from mixtura.ground.encode import Columns
from mixtura.ground.mcmc import Mala, init
from mixtura.ground.nets.coders import perceptron
from mixtura.ground.rng import seeded


class Config(BaseModel):
    """loss: a name of ``LOSSES``. hidden: widths of the layers of f. waves: sines and cosines of random directions that f sees
    beside the row (Tancik et al. 2020): without them a smooth network learns narrow modes hardly at all. noise: deviation of the
    noise on the indicators of codes, and of all entries for "dsm", in standardised units. wider: factor of the covariance of the
    Gaussian. steps: MALA steps of "cd" and "pcd". chains: of "pcd". anew: share of them that begins anew at each step. penalty:
    γ of "cd" and "pcd". temperatures: steps from the Gaussian to the energy in sampling."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    loss: Literal["nce", "cd", "pcd", "dsm", "ssm"] = "nce"
    hidden: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = (128, 128)
    waves: int = Field(default=32, ge=0, le=8192)
    noise: float = Field(default=0.2, gt=0, le=1)
    wider: float = Field(default=1.5, ge=1, le=100)
    steps: int = Field(default=10, ge=1, le=1000)
    chains: int = Field(default=1024, ge=2)
    anew: float = Field(default=0.05, ge=0, le=1)
    penalty: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    temperatures: int = Field(default=60, ge=2, le=100_000)


RECIPE = {"rate": 1e-3, "batch": 256, "every": 50, "average": 0.998}
#: deviation of the angular frequencies, of a row of one entry
FREQUENCY = 2.8
#: the most entries of an encoded row: the Gaussian has a full covariance
MOST_ENTRIES = 1_024
#: added to the variances of the Gaussian, in standardised units
RIDGE = 0.05
#: the least chains that are sampled at once, so that weights can be compared, and moves at the end
LEAST_CHAINS, LAST_MOVES = 256, 20
#: the step size of "cd" and "pcd" at first, and the acceptance that it is kept near
FIRST_STEP, ACCEPTANCE = 0.1, 0.6


class EnergyModel(Energy):
    """f by a perceptron on encoded rows."""

    directions: Tensor
    mean: Tensor
    root: Tensor
    chains: Tensor
    step_size: Tensor

    def __init__(self, space: Space, config: Config, rng: torch.Generator) -> None:
        super().__init__(space)
        self.config, self.columns = config, Columns(space)
        width = self.columns.width
        with seeded(int(torch.randint(2**62, (), generator=rng))):
            self.net = perceptron(width + 2 * config.waves, config.hidden, 1)
        directions = torch.randn(width, config.waves, generator=rng)
        self.register_buffer("directions", FREQUENCY / math.sqrt(width) * directions)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("root", torch.eye(width))
        # the bits of float32 positions as integers: positions must not be averaged as parameters are
        self.register_buffer("chains", torch.zeros(config.chains if config.loss == "pcd" else 0, width).view(torch.int32))
        self.register_buffer("step_size", torch.tensor(FIRST_STEP))

    # ---------------------------------------------------------------------------------------------------- training

    def _prepare(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        self.columns.prepare(x)
        rows = self._relaxed(self.columns.encode(x), rng)
        self.mean = rows.mean(0).float()
        covariance = torch.cov(rows.T).reshape(len(self.mean), -1) + RIDGE * torch.eye(len(self.mean), dtype=rows.dtype)
        # contiguous: the bits of a product depend on the layout, and a file keeps none
        self.root = torch.linalg.cholesky(self.config.wider * covariance).float().contiguous()
        self.chains = self._noise(len(self.chains), rng).view(torch.int32)

    def _encode_for_training(self, x: Tensor) -> Tensor:
        return self.columns.encode(x).float()

    def _relaxed(self, e: Tensor, rng: torch.Generator) -> Tensor:
        """Encoded rows with noise on the indicators of codes."""
        codes = sum(self.columns.cardinalities)
        noise = self.config.noise * random.normal((len(e), codes), rng, e)
        return torch.cat([e[:, :codes] + noise, e[:, codes:]], 1)

    def stages(self) -> tuple[Stage, ...]:
        loss = LOSSES[self.config.loss]
        phase = Phase("energy", tuple(self.net.parameters()), lambda turn: loss(self, self._relaxed(turn.x, turn.rng), turn))
        stopping = None if self.config.loss in ("cd", "pcd") else phase.loss
        return (Stage("energy", (phase,), stopping, unit="loss"),)

    # ------------------------------------------------------------------------------------------------ energy, samples

    def energy(self, e: Tensor, *, context: Tensor | None = None) -> Tensor:
        """(n,) −log p of encoded rows e (n, width), codes relaxed, up to a constant that is near 0 after "nce"."""
        return self._base(e) + self._f(e)

    def _base(self, e: Tensor) -> Tensor:
        """−log N(e; μ, Σ), with its constant."""
        z = torch.linalg.solve_triangular(self.root, (e.float() - self.mean).T, upper=False)
        constant = self.root.diagonal().log().sum() + len(self.mean) / 2 * math.log(2 * math.pi)
        return z.square().sum(0) / 2 + constant

    def _f(self, e: Tensor) -> Tensor:
        angles = e.float() @ self.directions
        return self.net(torch.cat([e.float(), angles.sin(), angles.cos()], 1))[:, 0]

    def _noise(self, n: int, rng: torch.Generator) -> Tensor:
        """(n, width) draws of the Gaussian."""
        return self.mean + random.normal((n, len(self.mean)), rng, self.mean) @ self.root.T

    def walk(self, e: Tensor, steps: int, rng: torch.Generator) -> Tensor:
        """``steps`` of MALA from encoded rows e; the step size goes on from call to call, by the acceptance."""
        state = init(e, self.energy)
        for _ in range(steps):
            state, info = Mala(float(self.step_size)).step(rng, state, self.energy)
            self.step_size.mul_(math.exp(0.1 * (float(info.acceptance.mean()) - ACCEPTANCE)))
        return state.position

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        start = self._noise(max(n, LEAST_CHAINS), rng)
        betas = sigmoidal(self.config.temperatures)
        path = between(self._base, self.energy)
        move = by_mala(self._noise(PILOT, rng), path, betas, rng)
        found = anneal(start, path, move, betas, redraw=rng).x
        for _ in range(LAST_MOVES):  # apart copies that were drawn several times
            found = move(found, 1.0)
        order = torch.randperm(len(found), generator=rng)[:n]
        return self.columns.decode(found[order].double())


# ---------------------------------------------------------------------------------------------------------------- losses
# each takes the model, encoded rows and the turn


def _nce(model: EnergyModel, e: Tensor, turn: Turn) -> Tensor:
    return losses.noise_contrast(-model._f(e), -model._f(model._noise(len(e), turn.rng)))


def _cd(model: EnergyModel, e: Tensor, turn: Turn) -> Tensor:
    samples = model.walk(e, model.config.steps, turn.rng)
    return losses.contrast(model._f(e), model._f(samples), model.config.penalty)


def _pcd(model: EnergyModel, e: Tensor, turn: Turn) -> Tensor:
    kept = model.chains.view(torch.float32)
    chosen = torch.randperm(len(kept), generator=turn.rng)[: len(e)]
    anew = torch.rand(len(chosen), 1, generator=turn.rng) < model.config.anew
    begin = torch.where(anew, model._noise(len(chosen), turn.rng), kept[chosen])
    samples = model.walk(begin, model.config.steps, turn.rng)
    model.chains[chosen] = samples.view(torch.int32)
    return losses.contrast(model._f(e[: len(samples)]), model._f(samples), model.config.penalty)


def _dsm(model: EnergyModel, e: Tensor, turn: Turn) -> Tensor:
    return losses.denoising_score_matching(model.energy, e, model.config.noise, turn.rng)


def _ssm(model: EnergyModel, e: Tensor, turn: Turn) -> Tensor:
    return losses.sliced_score_matching(model.energy, e, turn.rng)


LOSSES: dict[str, Callable[[EnergyModel, Tensor, Turn], Tensor]] = {
    "nce": _nce, "cd": _cd, "pcd": _pcd, "dsm": _dsm, "ssm": _ssm,
}  # fmt: skip


def suggest(space: Space, rows: int, seconds: float | None = None) -> Config:
    """The default; wider networks for rows of many entries."""
    return Config(hidden=(128, 128) if space.dims <= 50 else (512, 256))


def build(
    space: Space, *, encoding: Columns | None = None, context_shape: tuple[int, ...] | None = None, config: Config,
    rng: torch.Generator,
) -> EnergyModel:  # fmt: skip
    """An energy over encoded rows. InputError for contexts, and for rows of more than 1,024 encoded entries."""
    if context_shape is not None:
        raise InputError("energy: it takes no context; use autoregressive or flow")
    model = EnergyModel(space, config, rng)
    if model.columns.width > MOST_ENTRIES:
        raise InputError(f"energy: {model.columns.width:,} encoded entries are more than the {MOST_ENTRIES:,} of this family")
    model.columns.adopt(encoding)
    return model
