"""Metrics: arrays in, a number and its standard error out; one file and one line in :data:`TABLE` each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mixtura.metrics.classifier import c2st
from mixtura.metrics.diversity import rke, vendi
from mixtura.metrics.frechet import frechet_distance
from mixtura.metrics.kernel import kid, mmd2, same_law
from mixtura.metrics.likelihood import Estimate, Gain, gain, mean_nats
from mixtura.metrics.marginal import marginal_distance
from mixtura.metrics.neighbours import coverage, density, memorisation, precision, recall
from mixtura.metrics.wasserstein import sliced_wasserstein

__all__ = [
    "Estimate",
    "Gain",
    "Metric",
    "TABLE",
    "c2st",
    "coverage",
    "density",
    "frechet_distance",
    "gain",
    "kid",
    "marginal_distance",
    "mean_nats",
    "memorisation",
    "mmd2",
    "precision",
    "recall",
    "rke",
    "same_law",
    "sliced_wasserstein",
    "vendi",
]


@dataclass(frozen=True)
class Metric:
    """One row. ``direction`` says which values are better; ``takes`` what the function is given: "nats" of rows,
    "features" (real, generated, rng=), "columns" (the same in data units, codes=), "copies" (samples, train, held_out, rng=)."""

    name: str
    function: Callable[..., Estimate | Gain]
    summary: str
    direction: Literal["higher", "lower"]
    unit: str
    takes: Literal["nats", "features", "columns", "copies"]


TABLE: dict[str, Metric] = {
    row.name: row
    for row in (
        Metric("mean_nats", mean_nats, "mean log-density of unseen rows", "higher", "nats", "nats"),
        Metric("gain", gain, "mean log-density of a blend less that of a single model, row by row", "higher", "nats", "nats"),
        Metric(
            "memorisation", memorisation, "share of samples nearest to a training row; ½: no copying", "lower", "share", "copies"
        ),
        Metric("mmd2", mmd2, "unbiased squared distance of the two laws under a Gaussian kernel", "lower", "MMD²", "features"),
        Metric("kid", kid, "unbiased MMD² under the cubic kernel, over all pairs", "lower", "MMD²", "features"),
        Metric("same_law", same_law, "p-value of equal laws, by permutation; small: they differ", "higher", "p", "features"),
        Metric("rke", rke, "modes in effect over those of real rows; 1: as diverse", "higher", "ratio", "features"),
        Metric("vendi", vendi, "different rows in effect over those of real rows; 1: as diverse", "higher", "ratio", "features"),
        Metric(
            "frechet", frechet_distance, "distance of the fitted Gaussians, bias taken away", "lower", "squared units", "features"
        ),
        Metric("precision", precision, "share of generated rows among real ones", "higher", "share", "features"),
        Metric("recall", recall, "share of real rows among generated ones", "higher", "share", "features"),
        Metric(
            "density", density, "how densely real rows surround generated ones; 1 on equal laws", "higher", "ratio", "features"
        ),
        Metric("coverage", coverage, "share of real rows with a generated row near", "higher", "share", "features"),
        Metric("c2st", c2st, "share a classifier tells apart; ½: it cannot", "lower", "share", "features"),
        Metric(
            "sliced_wasserstein", sliced_wasserstein, "squared transport along random lines", "lower", "squared units", "features"
        ),
        Metric(
            "marginal_distance", marginal_distance, "mean distance of single columns, in spreads", "lower", "spreads", "columns"
        ),
    )
}
