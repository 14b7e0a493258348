"""A point of the simplex and its errors: what solvers, stacking, :func:`mixtura.mix` and :func:`mixtura.select` return."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mixtura.contracts import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Weights:
    """A point of the simplex: K numbers ≥ 0 that add up to one, with a certificate.

    weights:   one number for each model or arm, in order; those that are not used have an exact 0.
    value:     the objective there (stacking: mean nats; a quadratic: w'Qw − 2 linear'w; mix and select: in its own unit).
    gap:       proven upper bound on how far value is from the best possible, in units of what the solver minimised. If the
               number of models is limited, the best possible is over all sets of so many models if ``exact``, else over
               all models.
    exact:     whether the support is proven best; if not, it is the best that a search met.
    names:     of the models or arms, where they have any.
    error:     standard error of value, where it came from samples.
    intervals: 95 % for each weight, by m-out-of-n subsampling; None where there are no samples, or too few.
    """

    weights: tuple[float, ...]
    value: float
    gap: float
    exact: bool = True
    names: tuple[str, ...] = ()
    error: float | None = None
    intervals: tuple[tuple[float, float], ...] | None = None

    @property
    def by_name(self) -> dict[str, float]:
        """Name → weight."""
        return dict(zip(self.names, self.weights, strict=True))

    @property
    def intervals_by_name(self) -> dict[str, tuple[float, float]] | None:
        """Name → interval, or None."""
        return None if self.intervals is None else dict(zip(self.names, self.intervals, strict=True))


def on_the_simplex(start: ArrayLike, k: int) -> Array:
    """Weights (k,) to start from, scaled to add up to one. InputError where they are no k numbers ≥ 0 with one above 0."""
    weights = np.asarray(start, dtype=np.float64)
    if weights.shape != (k,) or not (weights.min() >= 0 and 0 < weights.sum() < np.inf):
        raise InputError(f"start: expected {k} weights ≥ 0, one for each model, got {start!r}; leave it out to start anew")
    return weights / weights.sum()
