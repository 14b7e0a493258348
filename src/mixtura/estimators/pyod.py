"""A detector under the names of PyOD: :class:`OfPyod`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

if TYPE_CHECKING:
    from mixtura.estimators.anomaly_detector import AnomalyDetector


class OfPyod:
    """What code written for PyOD's detectors asks of one: larger scores are stranger, an anomaly is 1 and a normal row 0.

    ``decision_scores_`` and ``labels_`` are those of the calibration rows, which nothing was learnt from, and ``contamination``
    is the rate of false alarms among them.
    """

    def __init__(self, detector: AnomalyDetector) -> None:
        self.detector = detector

    @property
    def contamination(self) -> float:
        """The share of normal rows that are called anomalies, at most."""
        return self.detector.false_alarms_

    @property
    def threshold_(self) -> float:
        """Scores above it are anomalies."""
        return -self.detector.offset_

    @property
    def decision_scores_(self) -> NDArray[np.float64]:
        """(m,) of the calibration rows."""
        return self.detector.calibration_

    @property
    def labels_(self) -> NDArray[np.int64]:
        """(m,) of the calibration rows."""
        return (self.decision_scores_ > self.threshold_).astype(np.int64)

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from other normal rows, with the same settings."""
        self.detector = cast("AnomalyDetector", clone(self.detector)).fit(X)
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """(n,) how strange rows are."""
        return -self.detector.score_samples(X)

    def predict(self, X: Any) -> NDArray[np.int64]:
        """(n,) 1 for an anomaly, 0 for a normal row."""
        return (self.decision_function(X) > self.threshold_).astype(np.int64)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """(n, 2) one minus the p-value of a row in the second column, the p-value in the first: how sure one can be, not how many
        anomalies there are."""
        p = self.detector.p_value(X)
        return np.stack([p, 1 - p], 1)
