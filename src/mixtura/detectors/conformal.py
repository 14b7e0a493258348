"""What a score means: conformal p-values, thresholds, and a bound on the share of false discoveries.

With scores s_1 … s_m of normal rows that nothing was learnt from, and the score t of a new row,

    p = (1 + #{i: s_i ≥ t}) / (m + 1)

is at most α with probability at most α if the new row is normal too, whatever the detector (Vovk et al. 2005; Bates et al. 2023).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def p_values(calibration: Array, scores: Array) -> Array:
    """(b,) p-values of scores (b,), by those of m calibration rows; the larger a score, the stranger the row."""
    ordered = np.sort(calibration)
    above = len(ordered) - np.searchsorted(ordered, scores, side="left")
    return (1 + above) / (len(ordered) + 1)


def least_level(m: int) -> float:
    """The smallest rate of false alarms that m calibration rows can carry: the smallest p-value."""
    return 1 / (m + 1)


def needed(level: float) -> int:
    """How many calibration rows carry a rate of false alarms."""
    return math.ceil(1 / level - 1 - 1e-9)


def threshold(calibration: Array, level: float) -> float:
    """The largest score that is still normal: p ≤ ``level`` for the scores above it, and for no others. ValueError where there
    are too few calibration rows."""
    ordered = np.sort(calibration)[::-1]
    k = math.floor(level * (len(ordered) + 1) * (1 + 1e-12)) - 1
    if k < 0:
        raise ValueError(f"{len(ordered)} calibration rows carry no rate of false alarms below {least_level(len(ordered)):.2g}")
    return float(ordered[k]) if k < len(ordered) else -math.inf


def discoveries(p: Array, share: float) -> NDArray[np.bool_]:
    """Which of p-values (b,) are called anomalies if at most ``share`` of those called so may be normal, in expectation
    (Benjamini & Hochberg 1995; conformal p-values of one calibration set allow it: Bates et al. 2023, theorem 2)."""
    order = np.argsort(p, kind="stable")
    below = np.flatnonzero(p[order] <= share * np.arange(1, len(p) + 1) / max(1, len(p)))
    found = np.zeros(len(p), dtype=bool)
    if len(below):
        found[order[: below[-1] + 1]] = True
    return found
