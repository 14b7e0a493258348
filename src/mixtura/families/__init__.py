"""Families: each is one file and one row of :data:`TABLE`.

The module of a row offers ``Config`` (a frozen pydantic model), ``suggest(space, rows, seconds=None) -> Config``
(the configuration for a number of fit rows and the seconds of the run) and
``build(space, *, encoding=None, context_shape=None, config, rng) -> Model``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from mixtura.contracts import Model
from mixtura.families import (
    autoregressive,
    boltzmann,
    circuit,
    diffusion,
    energy,
    flow,
    forest,
    gaussian_mixture,
    kde,
    linear_gaussian,
    marginals,
    mixture_density,
    quantile,
    vae,
)

__all__ = ["TABLE", "Family", "with_role"]

#: what a family is used for in addition to being a candidate. "floor": no row is impossible under it, so every blend includes it,
#: and gains are measured from it. "proposal": its models condition on any entries of a row, and propose the missing entries for
#: models that cannot draw them themselves. "on request": it is no candidate unless it is named, because its models have no nats
#: to be ranked by and others draw better samples in the time that a run has.
Role = Literal["floor", "proposal", "on request"]


@dataclass(frozen=True)
class Family:
    """One row of the TABLE.

    build: raises InputError, with the reason, if the family cannot model a space. recipe: settings of its training that differ
    from the defaults of ``train.recipe.Recipe``. context: whether its models take a context; families that need one are used only
    where columns are modelled given others. fit: "closed": by a formula or a library, in the time that takes; "trained": by
    gradients, in the time that is given. roles: what else the family is used for. part_on_images: its part of the training time
    where models are judged by samples of images, relative to the others (measured: docs/images.md).
    """

    name: str
    config: type[BaseModel]
    suggest: Callable[..., BaseModel]
    build: Callable[..., Model]
    summary: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    context: Literal["never", "may", "needs"] = "never"
    fit: Literal["closed", "trained"] = "trained"
    roles: tuple[Role, ...] = ()
    part_on_images: float = 1.0


TABLE: dict[str, Family] = {
    row.name: row
    for row in (
        Family(
            "marginals",
            marginals.Config,
            marginals.suggest,
            marginals.build,
            "independent columns, the baseline for every other family",
            context="may",
            fit="closed",
            roles=("floor", "proposal"),
        ),
        Family(
            "circuit",
            circuit.Config,
            circuit.suggest,
            circuit.build,
            "a tree of hidden codes, one for each column (a hidden Chow-Liu tree)",
            fit="closed",
            roles=("proposal",),
        ),
        Family(
            "gaussian_mixture",
            gaussian_mixture.Config,
            gaussian_mixture.suggest,
            gaussian_mixture.build,
            "a mixture of Gaussians, with probabilities of the codes in each component",
            fit="closed",
            roles=("proposal",),
        ),
        Family(
            "kde",
            kde.Config,
            kde.suggest,
            kde.build,
            "a kernel per row, bandwidths by leave-one-out likelihood",
            kde.RECIPE,
            roles=("proposal",),
        ),
        Family(
            "forest",
            forest.Config,
            forest.suggest,
            forest.build,
            "boosted trees, each column given the columns before it",
            context="may",
            fit="closed",
        ),
        Family(
            "flow",
            flow.Config,
            flow.suggest,
            flow.build,
            "a normalising flow of the values given the codes (zuko)",
            context="may",
        ),
        Family(
            "autoregressive",
            autoregressive.Config,
            autoregressive.suggest,
            autoregressive.build,
            "each column given the columns before it (MADE, PixelCNN)",
            autoregressive.RECIPE,
            context="may",
        ),
        Family("vae", vae.Config, vae.suggest, vae.build, "a variational auto-encoder (normal latent codes)", vae.RECIPE, "may"),
        Family(
            "diffusion",
            diffusion.Config,
            diffusion.suggest,
            diffusion.build,
            "a diffusion model, a chain of Gaussian steps from noise to data",
            diffusion.RECIPE,
            "may",
            part_on_images=6.0,
        ),
        Family(
            "energy",
            energy.Config,
            energy.suggest,
            energy.build,
            "a network as an energy, by noise contrast, contrastive divergence or score matching",
            energy.RECIPE,
            roles=("on request",),
        ),
        Family(
            "boltzmann",
            boltzmann.Config,
            boltzmann.suggest,
            boltzmann.build,
            "a Boltzmann machine of levels: hidden units, or couplings between columns (Ising)",
            boltzmann.RECIPE,
            roles=("on request",),
        ),
        Family(
            "mixture_density",
            mixture_density.Config,
            mixture_density.suggest,
            mixture_density.build,
            "networks that predict the parameters of a Gaussian mixture",
            mixture_density.RECIPE,
            "needs",
        ),
        Family(
            "linear_gaussian",
            linear_gaussian.Config,
            linear_gaussian.suggest,
            linear_gaussian.build,
            "a linear regression with Gaussian residuals",
            context="needs",
            fit="closed",
        ),
        Family(
            "quantile",
            quantile.Config,
            quantile.suggest,
            quantile.build,
            "a quantile regression forest",
            context="needs",
            fit="closed",
        ),
    )
}


def with_role(role: Role) -> list[str]:
    """The names of the families that have a role, the best first: the floor, whose columns are independent, comes last."""
    return sorted((name for name, row in TABLE.items() if role in row.roles), key=lambda name: "floor" in TABLE[name].roles)
