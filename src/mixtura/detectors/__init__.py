"""Anomaly detectors: how strange rows are, beside normal ones.

A detector is a class with ``fit`` and ``score``, and one line in :data:`TABLE`. Every family of models that has nats or an energy
is a detector too (:class:`mixtura.detectors.nats.OfModel`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from mixtura.detectors import library, mpdr
from mixtura.detectors.contrast import Contrast
from mixtura.detectors.detector import Detector
from mixtura.detectors.diffusion_time import GuessedTime
from mixtura.detectors.neighbours import DiffusionTime, Neighbours

__all__ = ["Method", "TABLE"]


@dataclass(frozen=True)
class Method:
    """One line of the table."""

    name: str
    make: Callable[[], Detector]
    summary: str


TABLE: dict[str, Method] = {
    row.name: row
    for row in (
        Method("nearest", partial(Neighbours, 1), "the distance to the nearest row"),
        Method("knn", Neighbours, "the mean distance to the five nearest rows"),
        Method("dte", DiffusionTime, "the time that rows would have to diffuse, by the nearest of them"),
        Method("dte-c", GuessedTime, "the same time, guessed by a network"),
        Method(
            "isolation_forest", partial(library.OfLibrary, library.isolation_forest), "how few random cuts isolate a row"
        ),
        Method(
            "lof", partial(library.OfLibrary, library.local_outlier_factor, library.MOST_ROWS),
            "the density of the neighbours beside that of the row (local outlier factor)",
        ),
        Method(
            "ocsvm", partial(library.OfLibrary, library.one_class_svm, library.MOST_ROWS_OF_KERNEL),
            "the distance from a region that holds most rows (one-class SVM)",
        ),
        Method("uniform", Contrast, "the density ratio of evenly spread rows to these, by trees"),
        Method("autoencoder", mpdr.autoencoder, "the reconstruction error of an autoencoder"),
        Method("mpdr", mpdr.Recovery, "an energy learnt by manifold recovery: a reconstruction error (MPDR-R)"),
        Method("mpdr-s", mpdr.scalar, "an energy learnt by manifold recovery: a network (MPDR-S)"),
    )
}  # fmt: skip
