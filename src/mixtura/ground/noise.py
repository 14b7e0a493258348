"""How the outputs of a network parameterise a Gaussian mixture, for each kind of covariance: :class:`Noise`."""

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
    """How the raw outputs of a network become the parameters of a mixture of ``components`` Gaussians with ``targets`` entries.

    kind: "diagonal" (a deviation for every component and entry), "full" (a Cholesky factor for every component), "isotropic"
    (one deviation per component), "shared" (one deviation for all components), "fixed" (none: ``scale`` is the deviation),
    "low_rank" (W Wᵀ plus a diagonal, where W has ``rank`` columns). A predicted deviation is floor + elu(r) + 1 of a raw output
    r: exponential below 0, linear above, never less than ``floor``. Entries below a diagonal are the raw outputs themselves. W is
    0 above its diagonal and positive on it: otherwise W and −W would give the same covariance, and a network that switches
    between them as x changes would predict a wrong covariance in between.
    """

    kind: NoiseKind
    components: int
    targets: int
    rank: int = 1
    scale: float = 1.0
    floor: float = 1e-3

    def __post_init__(self) -> None:
        if self.kind not in get_args(NoiseKind):
            raise InputError(f"noise: expected one of {', '.join(get_args(NoiseKind))}, got {self.kind!r}")
        for name in ("components", "targets", "rank"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name}: expected a whole number, 1 or more, got {value!r}")
        for name in ("scale", "floor"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"{name}: expected a number above 0, got {getattr(self, name)!r}")

    @property
    def sizes(self) -> list[int]:
        """How many raw outputs there are of each group: logits, means, deviations, off-diagonal entries."""
        k, d = self.components, self.targets
        deviations = {"isotropic": k, "shared": 1, "fixed": 0}.get(self.kind, k * d)
        off = {"full": k * d * (d - 1) // 2, "low_rank": k * d * self.rank}.get(self.kind, 0)
        return [k, k * d, deviations, off]

    @property
    def width(self) -> int:
        """How many outputs the network needs."""
        return sum(self.sizes)

    def law(self, raw: Tensor, scale: Tensor | None = None) -> MixtureDensity:
        """Raw outputs (*batch, width) → mixtures with batch shape ``batch``, float32 or float64. ``scale`` (targets,): the fixed
        deviations, by default all ``self.scale``. Every number is a valid output, so none is checked; NaN gives NaN nats."""
        k, d = self.components, self.targets
        raw = raw if raw.dtype == torch.float64 else raw.float()
        logits, means, deviations, off = raw.split(self.sizes, -1)
        batch = raw.shape[:-1]
        means = means.reshape(*batch, k, d)
        if self.kind == "fixed":
            held = torch.full_like(means, self.scale) if scale is None else scale.to(means).expand_as(means)
            return MixtureDensity(logits, means, scale=held, validate_args=False)
        predicted = functional.elu(deviations) + 1 + self.floor
        if self.kind in ("isotropic", "shared"):
            return MixtureDensity(logits, means, scale=predicted.unsqueeze(-1).expand(*batch, k, d), validate_args=False)
        predicted = predicted.reshape(*batch, k, d)
        if self.kind == "full":
            tril = torch.diag_embed(predicted)
            i, j = torch.tril_indices(d, d, -1, device=raw.device)
            tril[..., i, j] = off.reshape(*batch, k, d * (d - 1) // 2)
            return MixtureDensity(logits, means, scale_tril=tril, validate_args=False)
        factor = None
        if self.kind == "low_rank":
            factor, own = off.reshape(*batch, k, d, self.rank), torch.eye(d, self.rank, dtype=torch.bool, device=raw.device)
            factor = torch.where(own, functional.elu(factor) + 1, factor.tril(-1))
        return MixtureDensity(logits, means, scale=predicted, factor=factor, validate_args=False)

    def start(self, means: Tensor, scale: float = 1.0) -> Tensor:
        """(width,) raw outputs that give equal weights, ``means`` (K, d) and deviations near ``scale``: the initial bias of the
        last layer. W starts as half of that deviation times the unit matrix."""

        def raw(deviation: float) -> float:
            return math.log(deviation) if deviation < 1 else deviation - 1

        own, off = max(scale - self.floor, 1e-6), torch.zeros(self.sizes[3])
        if self.kind == "low_rank":
            off = raw(own / 2) * torch.eye(self.targets, self.rank).repeat(self.components, 1).reshape(-1)
        return torch.cat([torch.zeros(self.components), means.reshape(-1).float(), torch.full((self.sizes[2],), raw(own)), off])
