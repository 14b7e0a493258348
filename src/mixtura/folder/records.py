"""What a run folder keeps of a model, of a verdict and of what it was given: frozen records, one of each kind of line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Score:
    """One row of the leaderboard. Numbers are None where they do not apply.

    status: "fitted", "skipped" (cannot serve, see reason), "failed" (see reason) or "samples only".
    nats: mean log-density of a report row, "exact" or "bound" by kind, with its standard error; mc_error is what
    sampling the bound adds; how: what the number is ("cell masses", "uniform dequantisation", …). bits: of images, bits
    per dimension, −(nats + D log δ) / (D log 2). memorisation: ½ = none, 1 = copies. seconds: of training. sample_ms: to
    draw 1,000 rows. converged and wanted: whether training ended by itself, and the seconds it would have taken.
    metrics: what the samples are like beside the report rows, by the names of ``metrics.TABLE``. diagnosis: what the
    family says of itself.
    """

    name: str
    status: Literal["fitted", "skipped", "failed", "samples only"]
    reason: str = ""
    kind: Literal["exact", "bound"] | None = None
    nats: float | None = None
    nats_error: float | None = None
    mc_error: float | None = None
    rows: int = 0
    memorisation: float | None = None
    memorisation_error: float | None = None
    seconds: float | None = None
    seconds_error: float | None = None
    sample_ms: float | None = None
    sample_ms_error: float | None = None
    steps: int | None = None
    converged: bool | None = None
    wanted: float | None = None
    how: str = ""
    bits: float | None = None
    bits_error: float | None = None
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    diagnosis: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What to use, by how much and how sure.

    objective: "nats" or "mmd"; unit says the gain's. choice: "blend" or the best single model, ``best``. kind: weakest kind
    in the comparison ("exact", "bound", or "samples"). weights, with ``gap``, a bound on how far from optimal they are, as
    constants, on the select rows. gain ± error: of the blend over the best single model on ``rows`` unseen rows; trimmed:
    without the 1 % of rows that differ most (nats only). value ± value_error: the choice's own score on those rows.
    """

    objective: str
    unit: str
    choice: str
    best: str
    kind: str
    weights: dict[str, float]
    gap: float
    gain: float | None
    error: float | None
    trimmed: float | None
    trimmed_error: float | None
    value: float | None
    value_error: float | None
    rows: int
    sentence: str


@dataclass(frozen=True)
class Conditioning:
    """What a run with targets says beside its verdict, measured on the report rows.

    worth ± worth_error: nats a row that the choice has over marginals, which ignore the inputs; None where there are none.
    gate: where the blend's weights depend on the inputs, how (``mixture.Gate.plain`` of the models in ``names``); its shares
    are then averages over the report rows. gate_gain ± gate_error: nats a row of such weights over constant ones. calibration:
    of the choice, by the names of :func:`mixtura.job.scoring.calibrate`.
    """

    target: list[str]
    given: list[str]
    worth: float | None
    worth_error: float | None
    gate: Mapping[str, Any] | None
    gate_gain: float | None
    gate_error: float | None
    calibration: Mapping[str, Mapping[str, Any]]


def digits_of(error: float | None) -> int:
    """Decimals that show two digits of an error, between 2 and 7."""
    if error is None or not math.isfinite(error) or error <= 0:
        return 3
    return min(7, max(2, 1 - math.floor(math.log10(error))))
