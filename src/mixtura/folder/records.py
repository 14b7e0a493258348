"""What the files of a run folder hold: frozen records, one for each kind of file or line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from mixtura.data.kind import DataKind
from mixtura.data.schema import Schema


@dataclass(frozen=True)
class Refit:
    """A model, or the verdict's choice, fitted again on fit and select rows, as it is delivered: ``value`` ± ``error`` on the
    report rows, and its ``gain`` ± ``gain_error`` there over what the scores and the verdict were measured of. reason: why a
    model was not fitted again, or is delivered as it was; then there are no numbers."""

    reason: str = ""
    value: float | None = None
    error: float | None = None
    gain: float | None = None
    gain_error: float | None = None

    @property
    def delivered(self) -> bool:
        """Whether what is delivered was fitted again."""
        return not self.reason


@dataclass(frozen=True)
class Score:
    """One row of the leaderboard. Numbers are None where they do not apply.

    status: "fitted", "skipped" (cannot serve, see reason), "failed" (see reason) or "samples only".
    nats: mean log-density of a report row, "exact" or "bound" by kind, with its standard error; mc_error is what
    sampling the bound adds; how: what the number is ("cell masses", "uniform dequantisation", …). bits: of images, bits
    per dimension, −(nats + D log δ) / (D log 2). memorisation: ½ = none, 1 = copies. seconds: of training. sample_ms: to
    draw 1,000 rows. converged and seconds_to_converge: whether training ended by itself,
    and the seconds it would have taken.
    metrics: the samples compared with the report rows, by the names of ``metrics.TABLE``. diagnosis: numbers by which the
    family describes its model. refit: of a model that the verdict speaks of, its fit on fit and select rows.
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
    seconds_to_converge: float | None = None
    how: str = ""
    bits: float | None = None
    bits_error: float | None = None
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    diagnosis: Mapping[str, float] = field(default_factory=dict)
    refit: Refit | None = None

    @property
    def is_delivered_refitted(self) -> bool:
        """Whether the model that is delivered was fitted again, on select rows too."""
        return self.refit is not None and self.refit.delivered

    @property
    def has_samples(self) -> bool:
        """Whether there is a model, or rows of an outside generator, behind it."""
        return self.status in ("fitted", "samples only")

    def measured(self, metric: str) -> tuple[float | None, float | None]:
        """Value and standard error of a metric, by its name in the table; None where it was not measured. Of several targets
        these are of the first that is a number."""
        if metric == "memorisation":
            return self.memorisation, self.memorisation_error
        found = next((value for name, value in self.metrics.items() if name.partition(":")[0] == metric), {})
        return found.get("value"), found.get("error")


@dataclass(frozen=True)
class Verdict:
    """What to use, by how much and how sure.

    objective: "nats" or "mmd"; unit says the gain's. choice: "blend" or the best single model, ``best``. kind: weakest kind
    in the comparison ("exact", "bound", or "samples"). weights, with ``gap``, a bound on how far from optimal they are, as
    constants, on the select rows. gain ± error: of the blend over the best single model on ``rows`` unseen rows; trimmed:
    without the 1 % of rows that differ most (nats only). value ± value_error: the choice's own score on those rows. refit: the
    choice as it is delivered, in the same unit; None where none of its models was fitted again, or it was not measured so.
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
    refit: Refit | None = None

    @property
    def about_refit(self) -> str:
        """What is delivered, in one sentence; empty where that is the choice as it was measured."""
        if self.refit is None:
            return ""
        r = self.refit
        digits, said = digits_of(r.gain_error), "What is delivered was fitted again, on the select rows too"
        if r.gain is None or r.gain_error is None or not math.isfinite(r.gain):
            return f"{said}; how much it gains on these {self.rows:,} is undefined, some are impossible under it"
        more = "less" if (r.gain < 0) == (self.objective == "nats") else "more"
        return f"{said}: {abs(r.gain):.{digits}f} ± {r.gain_error:.{digits}f} {self.unit} {more} on the same {self.rows:,}"


@dataclass(frozen=True)
class Conditioning:
    """What a run with targets adds to its verdict, measured on the report rows.

    worth ± worth_error: nats a row by which the choice exceeds the floor, which ignores the inputs; None where it has none.
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


@dataclass(frozen=True)
class Refinement:
    """What refining the verdict's choice does to its samples, measured on ``rows`` report rows: MMD² and the share of rows that a
    classifier puts on the right side (C2ST), of samples as they are (``before``) and refined (``after``); gain ± gain_error: of
    MMD², before − after. kept: the share of rows drawn that is kept. trees: how many decide it, 0 where rows that they had not
    learnt from said that they tell nothing apart; then there are no other numbers. delivered: whether samples come refined.
    """

    model: str
    trees: int
    delivered: bool
    sentence: str
    rows: int = 0
    kept: float | None = None
    mmd2_before: float | None = None
    mmd2_before_error: float | None = None
    mmd2_after: float | None = None
    mmd2_after_error: float | None = None
    gain: float | None = None
    gain_error: float | None = None
    c2st_before: float | None = None
    c2st_before_error: float | None = None
    c2st_after: float | None = None
    c2st_after_error: float | None = None


@dataclass(frozen=True)
class Verdicts:
    """What verdict.json holds. objective: the one the run speaks of, and ``why``. duplicates: report rows that a training row
    equals in every column. verdicts: by objective. conditioning: only of a run with targets. refinement: only of a run that was
    asked to refine."""

    objective: str
    why: str
    duplicates: int
    verdicts: Mapping[str, Verdict]
    conditioning: Conditioning | None = None
    refinement: Refinement | None = None


@dataclass(frozen=True)
class RunSchema:
    """What schema.json holds: the schema of all columns, and the names of the targets, none where all columns are modelled
    together. ``modelled``: the schema of what models sample. ``inputs``: that of the columns they are given, None where there
    are no targets."""

    whole: DataKind
    target: tuple[str, ...]
    modelled: DataKind
    inputs: Schema | None


@dataclass(frozen=True)
class DataRecord:
    """Which data a run was made from: ``rows`` of ``rows_total`` were read."""

    name: str
    fingerprint: str
    rows: int
    rows_total: int


@dataclass(frozen=True)
class Environment:
    """What, with the options and the data, decides the bits of a run."""

    torch: str
    threads: int
    device: str


@dataclass(frozen=True)
class RunConfig:
    """What config.json holds. format: of the folder. mixtura: the version that wrote it. source: the path or name that the data
    were read from, None where they were given in memory. asked: the options that decide the result, as plain data."""

    format: int
    mixtura: str
    source: str | None
    data: DataRecord
    asked: dict[str, Any]
    same_bits: Environment


@dataclass(frozen=True)
class SavedState:
    """What state.json holds. elapsed: seconds that the run has had. units: of each fit (model/fold or model/all) what a replay
    needs. failures: of each model that failed its ``status`` and ``reason``, and ``again`` where the fault may have passed."""

    elapsed: float
    units: dict[str, dict[str, Any]]
    failures: dict[str, dict[str, Any]]

    @property
    def to_be_tried_again(self) -> list[str]:
        """Models whose faults may have passed: the same command fits them again."""
        return [name for name, failure in self.failures.items() if failure.get("again")]


@dataclass(frozen=True)
class RowNumbers:
    """Numbers (n,) int64 of the rows of the data that fit, select and report."""

    fit: Tensor
    select: Tensor
    report: Tensor


@dataclass(frozen=True)
class Nats:
    """Log-densities (n,) of the select rows and of the report rows, by model."""

    select: Mapping[str, Tensor]
    report: Mapping[str, Tensor]


@dataclass(frozen=True)
class BlendQuadratic:
    """MMD²(w) = w'Qw − 2 b'w + c of the blend of the models in ``names`` with weights w, on ``rows`` report rows, in U-form.
    weights: those that were chosen, with their gap. features: what rows were compared by."""

    unit: str
    names: list[str]
    Q: list[list[float]]
    b: list[float]
    c: float
    weights: list[float]
    gap: float
    rows: int
    features: str


@dataclass(frozen=True)
class Gallery:
    """What the report shows, in data units: unseen real rows (n, *shape); samples of each model, and the training row nearest to
    each of the first of them. In a run with targets instead the inputs ``asked`` (n, D) of the real rows."""

    real: Tensor
    samples: Mapping[str, Tensor]
    nearest: Mapping[str, Tensor]
    asked: Tensor | None = None


@dataclass(frozen=True)
class Calibration:
    """Ranks (n,) of true targets among the draws of each model: model → target → ranks, NaN where a truth is missing. rows: the
    numbers of the report rows they are of."""

    rows: Tensor
    ranks: Mapping[str, Mapping[str, Tensor]]


def ranked(scores: Sequence[Score]) -> list[Score]:
    """Exact densities by nats, then bounds by nats, then the rest: kinds are never ranked among one another."""
    order = {"exact": 0, "bound": 1, None: 2}
    return sorted(scores, key=lambda s: (order[s.kind], _loss(s.nats), s.name))


def _loss(nats: float | None) -> float:
    return math.inf if nats is None or math.isnan(nats) else -nats


def digits_of(error: float | None) -> int:
    """Decimals that show two digits of an error, between 2 and 7."""
    if error is None or not math.isfinite(error) or error <= 0:
        return 3
    return min(7, max(2, 1 - math.floor(math.log10(error))))
