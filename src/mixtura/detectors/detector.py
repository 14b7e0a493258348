"""What every detector has in common: :class:`Detector`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

#: a score is kept within these limits: a row that a density rules out has no larger one
LARGEST = 1e30


class Detector(ABC):
    """How strange rows are, learnt from rows that are normal, or mostly so.

    sees: "features", rows (n, d) float64 on comparable scales; or "rows", (n, *shape) float64 in data units, NaN where a value
    is missing. notes: what a person should know about this fit, one sentence each.
    """

    sees: ClassVar[Literal["features", "rows"]] = "features"
    notes: tuple[str, ...] = ()

    @abstractmethod
    def fit(self, x: Tensor, rng: torch.Generator) -> Self:
        """Learn from normal rows x, two or more."""

    @abstractmethod
    def score(self, y: Tensor) -> Tensor:
        """(b, …) → (b,) float64, the larger the stranger, within ±``LARGEST``."""

    def state(self) -> Mapping[str, Tensor] | None:
        """The tensors that :meth:`restore` makes the same detector from; None: fit it again to the same rows, with the same
        seed."""
        return None

    def restore(self, state: Mapping[str, Tensor]) -> Self:
        """This detector, unfitted, with the tensors of :meth:`state`."""
        raise TypeError(f"{type(self).__name__} has no state of its own: fit it again")


def finite(score: Tensor) -> Tensor:
    """A score within the limits."""
    return score.double().nan_to_num(nan=LARGEST, posinf=LARGEST, neginf=-LARGEST).clamp(-LARGEST, LARGEST)


def some(x: Tensor, most: int, rng: torch.Generator) -> Tensor:
    """At most so many of the rows, drawn at random."""
    return x if len(x) <= most else x[torch.randperm(len(x), generator=rng)[:most]]
