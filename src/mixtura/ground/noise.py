"""The covariance of a Gaussian mixture as a network predicts it: :class:`Noise`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from mixtura.contracts import InputError
from mixtura.ground.distributions import MixtureDensity

NoiseKind = Literal["diagonal", "full", "isotropic", "shared", "fixed", "low_rank"]


@dataclass(frozen=True)
class Noise:
    """How a network tells a mixture of ``components`` Gaussians of ``targets`` entries.

    kind: "diagonal" (a deviation for every component and entry), "full" (a Cholesky factor for every component), "isotropic"
    (one deviation a component), "shared" (one for all components), "fixed" (none: ``scale`` is the deviation), "low_rank" (W Wᵀ
    plus a diagonal, W of ``rank`` columns). Every deviation that is told is floor + elu(r) + 1: exponential below, linear above,
    never under ``floor``. Entries below a diagonal are told as they are. W has 0 above its diagonal and positive numbers on it:
    otherwise W and −W would be one covariance, and where a network turns from one to the other over x it loses what is between.
    """

    kind: NoiseKind
    components: int
    targets: int
    rank: int = 1
    scale: float = 1.0
    floor: float = 1e-3

    def __post_init__(self) -> None:
        if self.kind not in get_args(NoiseKind):
            raise InputError(f"noise: {self.kind!r} is none, expected one of {', '.join(get_args(NoiseKind))}")
        for name in ("components", "targets", "rank"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name}: expected a whole number, 1 or more, got {value!r}")
        for name in ("scale", "floor"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"{name}: expected a number above 0, got {getattr(self, name)!r}")

    @property
    def sizes(self) -> list[int]:
        """Raw numbers: logits, means, deviations, what is off the diagonal."""
        k, d = self.components, self.targets
        deviations = {"isotropic": k, "shared": 1, "fixed": 0}.get(self.kind, k * d)
        off = {"full": k * d * (d - 1) // 2, "low_rank": k * d * self.rank}.get(self.kind, 0)
        return [k, k * d, deviations, off]

    @property
    def width(self) -> int:
        """How many numbers the network tells."""
        return sum(self.sizes)

    def law(self, raw: Tensor, scale: Tensor | None = None) -> MixtureDensity:
        """(*batch, width) → mixtures of batch ``batch``, in float32 at least. ``scale`` (targets,): the deviations where they are
        fixed, by default all ``self.scale``. Any number is a parameter, so none is looked at; NaN gives NaN nats."""
        k, d = self.components, self.targets
        raw = raw if raw.dtype == torch.float64 else raw.float()
        logits, means, deviations, off = raw.split(self.sizes, -1)
        batch = raw.shape[:-1]
        means = means.reshape(*batch, k, d)
        if self.kind == "fixed":
            held = torch.full_like(means, self.scale) if scale is None else scale.to(means).expand_as(means)
            return MixtureDensity(logits, means, scale=held, validate_args=False)
        told = functional.elu(deviations) + 1 + self.floor
        if self.kind in ("isotropic", "shared"):
            return MixtureDensity(logits, means, scale=told.unsqueeze(-1).expand(*batch, k, d), validate_args=False)
        told = told.reshape(*batch, k, d)
        if self.kind == "full":
            tril = torch.diag_embed(told)
            i, j = torch.tril_indices(d, d, -1, device=raw.device)
            tril[..., i, j] = off.reshape(*batch, k, d * (d - 1) // 2)
            return MixtureDensity(logits, means, scale_tril=tril, validate_args=False)
        factor = None
        if self.kind == "low_rank":
            factor, own = off.reshape(*batch, k, d, self.rank), torch.eye(d, self.rank, dtype=torch.bool, device=raw.device)
            factor = torch.where(own, functional.elu(factor) + 1, factor.tril(-1))
        return MixtureDensity(logits, means, scale=told, factor=factor, validate_args=False)

    def start(self, means: Tensor, scale: float = 1.0) -> Tensor:
        """(width,) raw numbers of equal weights, ``means`` (K, d) and deviations near ``scale``: a bias to begin with. W
        begins as half that, times the unit matrix."""

        def raw(deviation: float) -> float:
            return math.log(deviation) if deviation < 1 else deviation - 1

        own, off = max(scale - self.floor, 1e-6), torch.zeros(self.sizes[3])
        if self.kind == "low_rank":
            off = raw(own / 2) * torch.eye(self.targets, self.rank).repeat(self.components, 1).reshape(-1)
        return torch.cat([torch.zeros(self.components), means.reshape(-1).float(), torch.full((self.sizes[2],), raw(own)), off])
