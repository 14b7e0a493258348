"""A model with a density, a bound or an energy as a detector: :class:`OfModel`."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from mixtura.blending.nats import log_probs
from mixtura.contracts import Energy, InputError, Model, density_kind
from mixtura.detectors.detector import Detector, finite
from mixtura.ground.encode import Columns
from mixtura.ground.rng import generator

#: rows that are scored at a time
TILE = 4_096


class OfModel(Detector):
    """−log p(y) in nats of a density or a bound, or the energy of the encoded row, which is −log p up to a constant.

    ``train(x, rng)`` gives the fitted model, and for an energy the encoding that it reads.
    """

    sees: ClassVar[Literal["features", "rows"]] = "rows"

    def __init__(self, train: Callable[[Tensor, torch.Generator], tuple[Model, Columns]]) -> None:
        self.train = train

    def fit(self, x: Tensor, rng: torch.Generator) -> Self:
        return self.hold(*self.train(x, rng))

    def hold(self, model: Model, encoding: Columns) -> Self:
        """This detector, of a model that is fitted already."""
        if density_kind(model) is None and not isinstance(model, Energy):
            raise InputError(f"{type(model).__name__} can only be sampled: it says of no row how strange it is")
        self.model, self.encoding = model.eval(), encoding
        return self

    @torch.no_grad()
    def score(self, y: Tensor) -> Tensor:
        model = self.model
        if density_kind(model) is None and isinstance(model, Energy):
            encoded = self.encoding.encode(model.space.clamp(y))
            return finite(torch.cat([model.energy(part) for part in encoded.split(TILE)]))
        # always the same draws for a bound: a row scored twice has one score
        nats, _ = log_probs(model, y, rng=generator(0, "detector"))
        return finite(-nats)
