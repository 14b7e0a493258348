"""Policies: arrays in, :class:`Weights` out; one file and one line in :data:`TABLE` each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mixtura.select.simplex import Weights, stack

__all__ = ["TABLE", "Selection", "Weights", "stack"]


@dataclass(frozen=True)
class Selection:
    """One row: what chooses the weights, from which array, in one line."""

    name: str
    function: Callable[..., Weights]
    summary: str


TABLE: dict[str, Selection] = {
    row.name: row
    for row in (Selection("stacking", stack, "the blend of densities with the most nats on held-out rows, with a certificate"),)
}
