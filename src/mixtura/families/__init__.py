"""Families: one file and one line in :data:`TABLE` each.

A row's module offers ``Config`` (a frozen pydantic model), ``suggest(space, rows, seconds=None) -> Config``
(for so many fit rows and a run of so many seconds) and
``build(space, *, context_shape=None, config, rng) -> Model``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from mixtura.contracts import Model
from mixtura.families import autoregressive, diffusion, flow, gaussian_mixture, kde, marginals, vae

__all__ = ["TABLE", "Family"]


@dataclass(frozen=True)
class Family:
    """One row. ``build`` raises InputError, with the reason, where the family cannot serve a space; ``recipe`` holds
    what its training wants otherwise than ``train.Recipe`` has it."""

    name: str
    config: type[BaseModel]
    suggest: Callable[..., BaseModel]
    build: Callable[..., Model]
    summary: str
    recipe: Mapping[str, Any] = field(default_factory=dict)


TABLE: dict[str, Family] = {
    row.name: row
    for row in (
        Family("marginals", marginals.Config, marginals.suggest, marginals.build, "independent columns: the floor to beat"),
        Family(
            "gaussian_mixture",
            gaussian_mixture.Config,
            gaussian_mixture.suggest,
            gaussian_mixture.build,
            "Gaussians with a table a code",
        ),
        Family("kde", kde.Config, kde.suggest, kde.build, "a kernel on every row, bandwidths by leave-one-out", kde.RECIPE),
        Family("flow", flow.Config, flow.suggest, flow.build, "normalising flow of the values given the codes (zuko)"),
        Family(
            "autoregressive",
            autoregressive.Config,
            autoregressive.suggest,
            autoregressive.build,
            "one column after the other (MADE)",
        ),
        Family("vae", vae.Config, vae.suggest, vae.build, "a hidden normal code behind every row", vae.RECIPE),
        Family(
            "diffusion",
            diffusion.Config,
            diffusion.suggest,
            diffusion.build,
            "a chain of Gaussian steps from noise to data",
            diffusion.RECIPE,
        ),
    )
}
