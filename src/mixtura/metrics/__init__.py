"""Metrics: arrays in, a number and its standard error out; one file and one line in :data:`TABLE` each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mixtura.metrics.likelihood import Estimate, Gain, gain, mean_nats
from mixtura.metrics.neighbours import memorisation

__all__ = ["TABLE", "Estimate", "Gain", "Metric", "gain", "mean_nats", "memorisation"]


@dataclass(frozen=True)
class Metric:
    """One row. ``direction`` says which values are better."""

    name: str
    function: Callable[..., Estimate | Gain]
    summary: str
    direction: Literal["higher", "lower"]
    unit: str


TABLE: dict[str, Metric] = {
    row.name: row
    for row in (
        Metric("mean_nats", mean_nats, "mean log-density of unseen rows", "higher", "nats"),
        Metric("gain", gain, "mean log-density of a blend less that of a single model, row by row", "higher", "nats"),
        Metric("memorisation", memorisation, "share of samples nearest to a training row; ½ is no copying", "lower", "share"),
    )
}
