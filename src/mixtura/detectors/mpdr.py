"""Manifold projection-diffusion recovery (Yoon et al. 2023): :class:`Recovery`, an energy that learns to tell rows from what lies
near their manifold.

An autoencoder (f_e, f_d) learns the manifold first, and is frozen. For a row x, with σ ~ U(a, b) and Proj the projection onto the
unit sphere (or the identity),

    z̃ = Proj(f_e(x) + σ ε)                                                   the row, diffused along the manifold
    z ← Proj(z − η_z g + ν_z ξ),   g = ∇H / |∇H|,   H(z) = E(f_d(z)) + λ |f_e(f_d(z)) − z̃|² / 2σ²      ``latent_steps`` times
    x⁻ ← x⁻ − η_x ∇[E(x⁻) + λ |f_e(x⁻) − z̃|² / 2σ²] + ν_x ξ,   from x⁻ = f_d(z)                        ``visible_steps`` times

and the energy descends along mean E(x) − mean E(x⁻), the gradient of the recovery likelihood, in which log Z cancels. E is a
network with one output ("scalar", MPDR-S), or the reconstruction error of a second autoencoder that begins as the first
("reconstruction", MPDR-R); both are held near 0 by a penalty. With several autoencoders the rows of a batch are shared among
them. Lengths are of standardised rows of d entries. An energy that averages over entries has a gradient of order 1/d, so η_x is
``visible_size`` · d; the noise of a whole step has the length ``visible_noise``, so ν_x is that over √d.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self, cast

import torch
from torch import Tensor, nn

from mixtura.contracts import Batch, Learner, Phase, Stage, Turn
from mixtura.detectors.detector import Detector, finite
from mixtura.ground import rng as random
from mixtura.ground.nets.coders import Autoencoder, perceptron
from mixtura.ground.rng import seeded
from mixtura.train.fit import Recipe, fit

#: an energy that lifts rows with noise of one standard deviation by less than this has learnt nothing
FLAT = 0.01
#: a batch whose samples have an energy this many deviations above the mean of the last ``WINDOW`` has diverged: it is left out
DIVERGED, WINDOW = 6.0, 1_000
#: the least number of batches that a deviation is computed from, and the share of diverged ones that is said
LEAST_SEEN, SAID = 50, 0.01


@dataclass(frozen=True)
class Settings:
    """energy: "scalar" or "reconstruction". latent: entries of z of each autoencoder, one or several. sphere: whether z lies on
    the unit sphere. hidden: widths of encoder, decoder and energy. steps: of training, (autoencoder, energy). noise: a and b.
    latent_steps, latent_size, latent_noise: of the chain in z, η_z and ν_z. visible_steps, visible_size, visible_noise: of that
    in x, η_x / d and ν_x √d. recovery: λ. penalty: γ of E(x)² + E(x⁻)², or of the reconstruction error of x⁻ squared. rate: the
    learning rate."""

    energy: Literal["scalar", "reconstruction"] = "reconstruction"
    latent: tuple[int, ...] = (3,)
    sphere: bool = True
    hidden: tuple[int, ...] = (128, 128)
    steps: tuple[int, int] = (1_500, 2_000)
    noise: tuple[float, float] = (0.1, 1.0)
    latent_steps: int = 0
    latent_size: float = 0.1
    latent_noise: float = 0.02
    visible_steps: int = 10
    visible_size: float = 1 / 80
    visible_noise: float = 0.08
    recovery: float = 1e-4
    penalty: float = 1.0
    rate: float = 1e-3
    batch: int = 128


class Game(Learner):
    """Autoencoders, then an energy."""

    begun: Tensor

    def __init__(self, entries: int, settings: Settings, rng: torch.Generator) -> None:
        super().__init__()
        self.settings, self.left_out, self.seen = settings, 0, 0
        self._recent: deque[float] = deque(maxlen=WINDOW)
        with seeded(int(torch.randint(2**62, (), generator=rng))):
            make = (Autoencoder(entries, k, settings.hidden, settings.sphere) for k in settings.latent)
            self.manifolds = nn.ModuleList(make)
            self.net = perceptron(entries, settings.hidden, 1) if settings.energy == "scalar" else None
            widest = Autoencoder(entries, max(settings.latent), settings.hidden, settings.sphere)
            self.second = widest if self.net is None else None
        self.factor = nn.Parameter(torch.ones(()))
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))

    def energy(self, x: Tensor) -> Tensor:
        """(n, d) → (n,)."""
        if self.net is not None:
            return self.factor * self.net(x)[:, 0]
        return self.factor.square() * cast(Autoencoder, self.second).error(x)

    def stages(self) -> tuple[Stage, ...]:
        first, second = self.settings.steps
        manifold = Phase("manifold", tuple(self.manifolds.parameters()), self._manifold)
        of_energy = cast(nn.Module, self.net if self.net is not None else self.second)
        energy = Phase("energy", (*of_energy.parameters(), self.factor), self._contrast)
        stages = Stage("manifold", (manifold,), torch.no_grad()(self._manifold), share=first, unit="squared error"), Stage(
            "energy", (energy,), None, share=second, unit="energy"
        )
        return stages if second else stages[:1]

    def _manifold(self, turn: Turn) -> Tensor:
        errors = [cast(Autoencoder, ae).error(turn.x.float()).mean() for ae in self.manifolds]
        return torch.stack(errors).mean()

    def _contrast(self, turn: Turn) -> Tensor:
        if not self.begun:
            self._begin()
        x, settings = turn.x.float(), self.settings
        negatives = torch.cat([
            self.recovered(part, cast(Autoencoder, ae), turn.rng)
            for part, ae in zip(x.chunk(len(self.manifolds)), self.manifolds, strict=False)
        ])  # fmt: skip
        here, there = self.energy(x), self.energy(negatives)
        if self._diverged(float(there.detach().mean())):
            return 0.0 * here.mean()
        if settings.energy == "scalar":
            return here.mean() - there.mean() + settings.penalty * (here.square().mean() + there.square().mean())
        return here.mean() - there.mean() + settings.penalty * there.square().mean()

    def _begin(self) -> None:
        """The second autoencoder begins as the widest of the first."""
        if self.second is not None:
            widest = max(range(len(self.manifolds)), key=lambda k: self.settings.latent[k])
            self.second.load_state_dict(cast(nn.Module, self.manifolds[widest]).state_dict())
        self.begun.fill_(True)

    def _diverged(self, energy: float) -> bool:
        self.seen += 1
        recent = torch.tensor([*self._recent]) if len(self._recent) >= LEAST_SEEN else None
        if not math.isfinite(energy) or (recent is not None and energy > float(recent.mean() + DIVERGED * recent.std())):
            self.left_out += 1
            return True
        self._recent.append(energy)
        return False

    def recovered(self, x: Tensor, ae: Autoencoder, rng: torch.Generator) -> Tensor:
        """x⁻ (n, d) of rows x, without a gradient."""
        s, (low, high) = self.settings, self.settings.noise
        σ = low + (high - low) * random.uniform((len(x), 1), rng, x)
        with torch.no_grad():
            z = ae.encode(x)
            target = ae.project(z + σ * random.normal(tuple(z.shape), rng, z))

        def pull(codes: Tensor) -> Tensor:
            return s.recovery * ((codes - target).square().sum(1, keepdim=True) / (2 * σ**2)).sum()

        z = target
        for _ in range(s.latent_steps):
            with torch.enable_grad():
                z = z.requires_grad_()
                y = ae.decoder(z)
                g = torch.autograd.grad(self.energy(y).sum() + pull(ae.encode(y)), z)[0]
            z = z.detach()
            if s.sphere:
                g = g - (g * z).sum(1, keepdim=True) * z
            kick = s.latent_noise * random.normal(tuple(z.shape), rng, z)
            z = ae.project(z - s.latent_size * nn.functional.normalize(g, dim=1) + kick)
        size, noise = s.visible_size * x.shape[1], s.visible_noise / math.sqrt(x.shape[1])
        with torch.no_grad():
            y = ae.decoder(z)
        for _ in range(s.visible_steps):
            with torch.enable_grad():
                y = y.requires_grad_()
                g = torch.autograd.grad(self.energy(y).sum() + pull(ae.encode(y)), y)[0]
            y = y.detach() - size * g + noise * random.normal(tuple(y.shape), rng, y)
        return y


class OfGame(Detector):
    """A game that is trained and kept; ``settings`` by default those of :class:`Settings`."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = Settings() if settings is None else settings

    def fit(self, x: Tensor, rng: torch.Generator) -> Self:
        self.game = Game(x.shape[1], self.settings, rng)
        recipe = Recipe(steps=sum(self.settings.steps), rate=self.settings.rate, batch=self.settings.batch)
        for _ in fit(self.game, Batch(x=x), recipe, rng=rng):
            pass
        self.game.eval()
        return self

    def state(self) -> Mapping[str, Tensor]:
        return self.game.state_dict()

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        entries = state["manifolds.0.encoder.0.weight"].shape[1]
        self.game = Game(entries, self.settings, torch.Generator().manual_seed(0))
        self.game.load_state_dict(state)
        self.game.eval()
        return self


class Recovery(OfGame):
    """E(y); no chain is needed to score."""

    def fit(self, x: Tensor, rng: torch.Generator) -> Self:
        super().fit(x, rng)
        self.notes = self._notes(x, rng)
        return self

    def _notes(self, x: Tensor, rng: torch.Generator) -> tuple[str, ...]:
        some = x[torch.randperm(len(x), generator=rng)[:1_000]].float()
        noisy = some + random.normal(tuple(some.shape), rng, some)
        with torch.no_grad():  # not beside recovered rows: once all is learnt these have the energy of rows
            lifted = float((self.game.energy(noisy) - self.game.energy(some)).mean())
        notes = []
        if lifted < FLAT:
            notes.append(f"noise lifts the energy of rows by {lifted:.2g} only: nothing was learnt; raise the steps or the rate")
        if self.game.left_out > SAID * self.game.seen:
            notes.append(
                f"{self.game.left_out:,} of {self.game.seen:,} batches diverged and were left out; lower visible_size or rate"
            )
        return tuple(notes)

    @torch.no_grad()
    def score(self, y: Tensor) -> Tensor:
        return finite(self.game.energy(y.float()))


class Reconstruction(OfGame):
    """The reconstruction error of the first autoencoder alone, the control of MPDR."""

    @torch.no_grad()
    def score(self, y: Tensor) -> Tensor:
        return finite(cast(Autoencoder, self.game.manifolds[0]).error(y.float()))


def scalar() -> Recovery:
    """MPDR-S."""
    return Recovery(Settings(energy="scalar", steps=(1_500, 6_000)))


def autoencoder() -> Reconstruction:
    """An autoencoder by itself."""
    return Reconstruction(Settings(steps=(1_500, 0)))
