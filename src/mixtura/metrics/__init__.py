"""Metrics take arrays and return a number with its standard error. Each is a function and one line in :data:`TABLE`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from mixtura.contracts import Estimate
from mixtura.metrics import calibration
from mixtura.metrics.classifier import c2st
from mixtura.metrics.diversity import rke, vendi
from mixtura.metrics.frechet import frechet_distance
from mixtura.metrics.kernel import kid, mmd2, same_law
from mixtura.metrics.likelihood import Gain, gain, mean_nats
from mixtura.metrics.marginal import marginal_distance
from mixtura.metrics.neighbours import coverage, density, memorisation, precision, recall
from mixtura.metrics.wasserstein import sliced_wasserstein

__all__ = [
    "Gain",
    "Metric",
    "OF_ANSWERS",
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
    "shown_in",
    "sliced_wasserstein",
    "vendi",
]


#: the arguments of a function of the table (:class:`Metric`)
Takes = Literal["nats", "features", "columns", "copies", "answers", "ranks"]
#: where a metric is shown by default: the model card, the table of the command line (or only that of a wide terminal), the page
Place = Literal["card", "terminal", "wide terminal", "page"]


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    direction: which values are better; None if the best value is a number that the summary names.
    takes: the arguments of the function: "nats" of rows; "features" (real, generated, rng=, and kernel= if ``kernel``);
    "columns" (real, generated in data units, codes=, rng=); "copies" (samples, train, held_out, rng=); "answers" (true targets y
    (n,) and draws (s, n) of the model given the inputs of the same rows); "ranks" (u (n,), as :func:`calibration.pit` returns
    them). title: its heading; by default its name. shown: where it is shown by default.
    """

    name: str
    function: Callable[..., Estimate | Gain]
    summary: str
    direction: Literal["higher", "lower"] | None
    unit: str
    takes: Takes
    title: str = ""
    shown: tuple[Place, ...] = ()
    kernel: bool = False

    @property
    def heading(self) -> str:
        """Its title, or else its name."""
        return self.title or self.name.replace("_", " ")


TABLE: dict[str, Metric] = {
    row.name: row
    for row in (
        Metric("mean_nats", mean_nats, "mean log-density of unseen rows", "higher", "nats", "nats"),
        Metric("gain", gain, "mean log-density of a blend less that of a single model, row by row", "higher", "nats", "nats"),
        Metric(
            "mmd2", mmd2, "how far the samples are from real rows, by a kernel; 0 if the distributions are equal",
            "lower", "MMD²", "features", "MMD²", ("card", "terminal", "page"), kernel=True,
        ),
        Metric("kid", kid, "as MMD², with the cubic kernel of the kernel inception distance", "lower", "MMD²", "features", "KID"),
        Metric(
            "same_law", same_law, "p-value of equal distributions, by permutation; small: they differ", "higher", "p", "features",
            "p of equal distributions", kernel=True,
        ),
        Metric(
            "rke", rke, "effective number of modes, divided by that of real rows; 1: as diverse", "higher", "ratio", "features",
            "RKE",
        ),
        Metric(
            "vendi", vendi, "effective number of different rows, divided by that of real rows; 1: as diverse", "higher", "ratio",
            "features",
        ),
        Metric(
            "frechet", frechet_distance, "squared distance of the fitted Gaussians, with its bias subtracted", "lower",
            "squared units", "features", "Fréchet distance", ("page",),
        ),
        Metric("precision", precision, "share of generated rows among real ones", "higher", "share", "features"),
        Metric("recall", recall, "share of real rows among generated ones", "higher", "share", "features"),
        Metric(
            "density", density, "how densely real rows surround generated ones; 1 if the distributions are equal", "higher",
            "ratio", "features",
        ),
        Metric("coverage", coverage, "share of real rows with a generated row near", "higher", "share", "features"),
        Metric(
            "c2st", c2st, "share of rows that a classifier puts in the right set; ½: it cannot tell them apart", "lower", "share",
            "features", "told apart", ("page",),
        ),
        Metric(
            "sliced_wasserstein", sliced_wasserstein, "squared Wasserstein distance along random lines", "lower", "squared units",
            "features",
        ),
        Metric(
            "marginal_distance", marginal_distance, "mean distance of single columns, in spreads", "lower", "spreads", "columns",
            shown=("page",),
        ),
        Metric(
            "memorisation", memorisation, "share of samples nearest to a training row; ½: no copying, 1: copies", "lower",
            "share", "copies", "memorised", ("card", "terminal", "page"),
        ),
        Metric(
            "crps", calibration.mean_crps, "continuous ranked probability score: how far the draws are from the truth", "lower",
            "of the target", "answers", "CRPS", ("card", "terminal", "page"),
        ),
        Metric(
            "coverage_90", partial(calibration.coverage, level=0.9),
            "share of the rows inside the central 90 % of their draws; 0.9 if calibrated", None, "share", "answers",
            "covered by 90 %", ("card", "terminal", "page"),
        ),
        Metric(
            "width_90", partial(calibration.mean_width, level=0.9),
            "mean width of the 90 % between 19 draws; less is better at equal coverage", None, "of the target", "answers",
            "width of 90 %", ("wide terminal", "page"),
        ),
        Metric(
            "coverage_50", partial(calibration.coverage, level=0.5),
            "share of the rows inside the central 50 % of their draws; 0.5 if calibrated", None, "share", "answers",
            "covered by 50 %",
        ),
        Metric(
            "pit", calibration.pit_distance, "largest distance of the ranks of the rows among their draws from uniform ones",
            "lower", "share", "ranks", "PIT distance",
        ),
    )
}  # fmt: skip

#: the metrics of draws of a model given inputs; the others are metrics of rows and of samples
OF_ANSWERS = tuple(row.name for row in TABLE.values() if row.takes in ("answers", "ranks"))


def shown_in(*places: Place, answers: bool) -> list[Metric]:
    """The metrics shown in one of these places, for a run with targets (``answers``) or for one without."""
    return [row for row in TABLE.values() if set(places) & set(row.shown) and (row.name in OF_ANSWERS) == answers]
