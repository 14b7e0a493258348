"""Which rows are strange beside normal ones: :class:`AnomalyDetector`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from mixtura import detectors
from mixtura.contracts import InputError, Note
from mixtura.data import source
from mixtura.data.guess import LEAST_ROWS as LEAST_LEARNT
from mixtura.data.images import is_images
from mixtura.data.kind import Content, DataKind
from mixtura.data.schema import Schema
from mixtura.detectors import conformal
from mixtura.detectors.blended import Blended, MixedNats, learnt_weights
from mixtura.detectors.detector import LARGEST
from mixtura.detectors.reasons import OddCells
from mixtura.detectors.replaced import Replaced, maps
from mixtura.estimators.inputs import sklearn_validate, without_times
from mixtura.estimators.panel import ODD_CELLS, Panel, strangest_left_out
from mixtura.families import TABLE as FAMILIES
from mixtura.ground.rng import generator
from mixtura.train.devices import one_thread

if TYPE_CHECKING:
    from mixtura.estimators.pyod import OfPyod

Array = NDArray[np.float64]

#: what "blend" blends: chosen by benchmarks/anomalies.py tune, on sets that it does not report
BLENDED = ("nearest", "gaussian_mixture")
#: fewest rows, and the share of them that calibrates, up to a number of them
LEAST_ROWS, CALIBRATING, MOST_CALIBRATING = 10, 0.3, 2_000
#: the rate of false alarms if none is asked for and the rows carry it
FALSE_ALARMS = 0.05
#: where there are known anomalies, the share of the rows that weighs detectors by them, and the fewest and the most of these rows
WEIGHING, LEAST_WEIGHING, MOST_WEIGHING = 0.2, 10, 1_000
#: normal images beside which others are explained, at most
SHOWN_BESIDE = 2_000


def methods() -> list[str]:
    """The names that :class:`AnomalyDetector` takes: "blend", the detectors, and the families that have nats or an energy."""
    return ["blend", *detectors.TABLE, ODD_CELLS, *(name for name, row in FAMILIES.items() if row.context != "needs")]


class Rows(NamedTuple):
    """x: (n, *shape) rows in tensor units, nothing missing that is there in all normal rows. gone: (n, d) bool, the cells where
    it was."""

    x: Tensor
    gone: Tensor

    def at(self, some: NDArray[np.int64]) -> Rows:
        """Some of the rows."""
        return Rows(self.x[some], self.gone[some])


class AnomalyDetector(OutlierMixin, BaseEstimator):
    """How strange rows are beside normal ones: tables with mixed columns and missing values, arrays, or images.

        d = AnomalyDetector().fit(normal_rows)
        d.predict(rows)            # −1 for an anomaly, 1 for a normal row
        d.p_value(rows)            # the share of normal rows that are at least as strange: the rate of false alarms at that row
        d.explain(rows)            # for every cell, how much less likely it is than such cells usually are

    method: a name of :func:`methods`. "blend" combines the p-values of several detectors of different kinds; a family of
    models is −log p. false_alarms: the share of normal rows that :meth:`predict` may call anomalies; by default 5 %, or the least
    that the calibration rows carry. trim: the share of the rows of ``fit`` that is left out, the strangest: as
    many as may be anomalies. features: as of :func:`mixtura.evaluate`, for detectors that compare features. random_state: seed of
    all draws.

    A part of the rows learns nothing and calibrates: a new normal row is called an anomaly with probability ``false_alarms`` at
    most, whatever the method (:mod:`mixtura.detectors.conformal`). Rows of ``fit`` that are anomalies themselves make it call
    fewer; a ``trim`` that is larger than their share makes it call more.

    Fitted: ``detectors_``, by name; ``failed_``, name → why a detector of the blend was left out; ``weights_``, name → its
    weight, 1 on average; ``calibration_``, the scores of the calibration rows; ``false_alarms_``, the rate in use; ``offset_``;
    ``n_seen_`` and ``name_``, the number of rows and what they are called; ``schema_``, what the columns mean.
    """

    def __init__(
        self, method: str = "blend", *, false_alarms: float | None = None, trim: float = 0.0,
        features: str | None = None, random_state: Any = 0,
    ) -> None:  # fmt: skip
        self.method = method
        self.false_alarms = false_alarms
        self.trim = trim
        self.features = features
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    # ---------------------------------------------------------------------------------------------------- fit

    def fit(self, X: Any, y: Any = None, *, anomalies: Any = None) -> Self:
        """Learn from normal rows, anything that :func:`mixtura.run` takes; y is ignored. anomalies: a few rows that are known to
        be anomalies; detectors that find them weigh more in the blend. InputError on rows that cannot be used, on an unknown
        method, and where there are too few rows for the rate of false alarms."""
        names, level, trimmed = self._names(), self._level(), self._trimmed()
        seed = int(check_random_state(self.random_state).randint(2**31))
        data = source.with_note(source.load(self._checked(X, reset=True), seed=seed, name="X"))
        n = len(source.rows_of(data))
        if n < LEAST_ROWS:
            width = f", n_features = {data.frame.shape[1]}" if isinstance(data, source.Table) else ""
            raise InputError(f"X: {n} rows are too few, expected {LEAST_ROWS} or more (n_samples = {n}{width}); give more rows")
        m = self._calibrating(n, level)
        order = torch.randperm(n, generator=generator(seed, "calibrate")).numpy()
        # what columns mean is learnt without the calibration rows, too: a level that only they have is new in them
        schema, learning = _learnt(data, order[m:])
        with one_thread():
            panel_of = self._panels(schema, names, seed)
            if trimmed:
                learning = strangest_left_out(panel_of, learning, trimmed, generator(seed, "trim"))
            self.schema_, self._normal_, self.weights_ = schema, learning, dict.fromkeys(names, 1.0)
            if anomalies is not None and len(names) > 1:
                self._weigh(anomalies, panel_of)
            self._panel_ = panel_of(learning)
            calibrating = self._made(_rows_at(source.rows_of(data), order[:m]), data.name)
            scores = self._panel_.scores(calibrating.x)
            if trimmed:
                few = self._strangeness(scores, calibration=True, among=scores).masked_fill(calibrating.gone.any(1), LARGEST)
                kept = few.argsort()[: m - math.floor(trimmed * m)].sort().values
                scores, calibrating = scores[kept], calibrating.at(kept.numpy())
        self._calibrate(scores, calibrating.gone.any(1), level)
        self.n_seen_, self.name_ = n, data.name
        for name, found in self.detectors_.items():
            for note in found.notes:
                warnings.warn(f"{name}: {note}", Note, stacklevel=2)
        return self

    def _panels(self, schema: DataKind, names: list[str], seed: int) -> Callable[[Tensor], Panel]:
        return lambda x: Panel(schema, x, self.features, seed).fit(names)

    def _calibrate(self, scores: Tensor, odd: Tensor, level: float | None, blended: Blended | MixedNats | None = None) -> None:
        """Blend, by default by :class:`Blended`, and threshold by the scores (m, J) of rows that nothing was learnt from; odd
        (m,): those that cannot be scored."""
        self.detectors_, self.failed_ = self._panel_.detectors, self._panel_.failed
        self.weights_ = {name: self.weights_[name] for name in self.detectors_}
        self._explaining_, self._calibrating_, self._odd_ = None, scores.numpy(), odd.numpy()
        self._blended_ = blended or Blended(scores, torch.tensor([*self.weights_.values()], dtype=torch.float64))
        self.calibration_ = self._strangeness(scores, calibration=True).masked_fill(odd, LARGEST).numpy()
        least = conformal.least_level(len(scores))
        self.false_alarms_ = max(FALSE_ALARMS, least) if level is None else level
        self.offset_ = -conformal.threshold(self.calibration_, self.false_alarms_)

    def _weigh(self, anomalies: Any, panel_of: Callable[[Tensor], Panel]) -> None:
        """The weights of the detectors, by anomalies and rows that a panel has not learnt from."""
        known = self._made(source.rows_like(self._checked(anomalies, reset=False), self.schema_, name="anomalies"), "anomalies")
        few = min(MOST_WEIGHING, max(LEAST_WEIGHING, int(WEIGHING * len(self._normal_))))
        if few > len(self._normal_) // 2:
            raise InputError(f"anomalies: {len(self._normal_)} rows to learn from are too few to weigh detectors; leave them out")
        panel = panel_of(self._normal_[few:])
        normal, strange = panel.scores(self._normal_[:few]), panel.scores(known.x)
        strange = strange.masked_fill(known.gone.any(1)[:, None], LARGEST)
        beside = Blended(normal)
        weights = learnt_weights(beside.terms(normal, calibration=True), beside.terms(strange))
        self.weights_ |= dict(zip(panel.detectors, weights.tolist(), strict=True))

    def _names(self) -> list[str]:
        if self.method == "blend":
            return [*BLENDED]
        if not isinstance(self.method, str) or self.method not in methods():
            raise InputError(f"method: {self.method!r} is unknown, expected one of {', '.join(methods())}; choose one of these")
        return [self.method]

    def _level(self) -> float | None:
        level = self.false_alarms
        if level is None:
            return None
        if isinstance(level, bool) or not isinstance(level, Real) or not 0 < level < 1:
            raise InputError(f"false_alarms: expected a share above 0 and below 1, got {level!r}")
        return float(level)

    def _trimmed(self) -> float:
        share = self.trim
        if isinstance(share, bool) or not isinstance(share, Real) or not 0 <= share < 0.5:
            raise InputError(f"trim: expected a share, 0 or above and below 0.5, got {share!r}")
        return float(share)

    def _calibrating(self, n: int, level: float | None) -> int:
        """How many of n rows calibrate, with those of them that are left out."""
        kept = 1 - self._trimmed()
        m = min(math.ceil(MOST_CALIBRATING / kept), math.floor(CALIBRATING * n))
        if level is None:
            return m
        least = math.ceil(conformal.needed(level) / kept)
        if least > n // 2:
            raise InputError(
                f"false_alarms: {level:.3g} needs {least:,} calibration rows, but half of the {n:,} rows are {n // 2:,}; give "
                f"more rows, or {conformal.least_level(math.ceil(kept * (n // 2))):.2g} or more"
            )
        return max(m, least)

    def _checked(self, X: Any, *, reset: bool) -> Any:
        """Arrays as scikit-learn checks them; what else a person gives as it is."""
        if isinstance(X, pd.DataFrame):
            if reset or "feature_names_in_" in vars(self):  # a detector of a file knows its columns by its schema
                sklearn_validate(self, X, reset=reset, skip_check_array=True)
            return X
        if isinstance(X, str | PathLike) or is_images(X):
            return X
        checked = sklearn_validate(self, without_times(X, "X"), dtype="numeric", ensure_all_finite="allow-nan", reset=reset)
        return np.asarray(checked)

    def _strangeness(self, scores: Tensor, *, calibration: bool = False, among: Tensor | None = None) -> Tensor:
        """(n, J) → (n,); ``among``: scores (m, J) that p-values are told by, those of the calibration rows by default."""
        if scores.shape[1] == 1:
            return scores[:, 0]
        return (self._blended_ if among is None else Blended(among))(scores, calibration=calibration)

    # ---------------------------------------------------------------------------------------------------- scores

    def rows(self, X: Any, name: str = "X") -> Rows:
        """Rows that a person gave, called ``name`` in messages, as the detectors see them. InputError for rows that are not of
        the kind of the normal ones."""
        check_is_fitted(self, "offset_")
        return self._made(source.rows_like(self._checked(X, reset=False), self.schema_, name=name), name)

    def _made(self, content: Content, name: str) -> Rows:
        if not isinstance(self.schema_, Schema):
            x = self.schema_.as_made(content, name=name).x.double()
            return Rows(x, torch.zeros(len(x), self.schema_.space.dims, dtype=torch.bool))
        x = self.schema_.as_made(content, name=name, holes=True).x.double()
        never = torch.tensor([not column.missing for column in self.schema_.space.columns])
        gone = torch.isnan(x) & never
        return Rows(torch.where(gone, self._normal_.nanmedian(0).values, x), gone)

    def scored(self, rows: Rows) -> tuple[Array, Array]:
        """(n,) how strange rows are, and (n, J) how strange each detector finds them."""
        with one_thread():
            scores = self._panel_.scores(rows.x)
        odd = rows.gone.any(1)
        found = self._strangeness(scores).masked_fill(odd, LARGEST)
        return found.numpy(), scores.masked_fill(odd[:, None], LARGEST).numpy()

    def score_samples(self, X: Any) -> Array:
        """(n,) how normal rows are: minus their strangeness. A row with a missing cell where no normal row has one is as strange
        as can be."""
        return -self.scored(self.rows(X))[0]

    def decision_function(self, X: Any) -> Array:
        """(n,) below 0 for anomalies: ``score_samples − offset_``."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """(n,) −1 for an anomaly, 1 for a normal row."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_value(self, X: Any) -> Array:
        """(n,) p-values: of a normal row, at most α with probability α."""
        return conformal.p_values(self.calibration_, self.scored(self.rows(X))[0])

    def alone(self, scores: Array) -> dict[str, NDArray[np.bool_]]:
        """Detector → (n,) the rows that it would call anomalies by itself, at the same rate of false alarms, from the scores
        (n, J) of :meth:`scored`."""
        each = zip(self.detectors_, self._calibrating_.T, scores.T, strict=True)
        return {name: conformal.p_values(ours, theirs) <= self.false_alarms_ for name, ours, theirs in each}

    # ---------------------------------------------------------------------------------------------------- reasons

    def explain(self, X: Any) -> pd.DataFrame | Array:
        """(n, columns) how strong a reason each cell is, where 0 is usual and 1 is what one normal cell in ten reaches: how much
        less likely, given the rest of its row, than cells of its column usually are, by exact conditionals of a circuit, whatever
        the method (:mod:`mixtura.detectors.reasons`). Where no circuit can be fitted: how much less strange the row becomes
        without that cell (:mod:`mixtura.detectors.replaced`). A cell that is missing where no normal row lacks it is infinite.

        Of images (n, H, W): how much less strange an image becomes without the patches that hold a pixel."""
        found = self.reasons(self.rows(X))
        return found.set_axis(X.index, axis=0) if isinstance(X, pd.DataFrame) and isinstance(found, pd.DataFrame) else found

    def reasons(self, rows: Rows) -> pd.DataFrame | Array:
        """:meth:`explain` of rows that are encoded."""
        with one_thread():
            if not isinstance(self.schema_, Schema):
                return maps(self._score_again, rows.x, self._normal_[:SHOWN_BESIDE]).numpy()
            if self._explaining_ is None:
                self._explaining_ = self._explainer()
            found = self._explaining_(rows.x).masked_fill(rows.gone, math.inf)
        return pd.DataFrame(found.numpy(), columns=[field.name for field in self.schema_.modelled])

    def _score_again(self, x: Tensor) -> Tensor:
        return self._strangeness(self._panel_.scores(x))

    def _explainer(self) -> Callable[[Tensor], Tensor]:
        """Reasons by the detector of odd cells, which is fitted for them where it is not among the detectors."""
        found = self.detectors_.get(ODD_CELLS)
        if found is None:
            try:
                beside = Panel(self.schema_, self._normal_, None, self._panel_.seed).fit([ODD_CELLS])
                found = beside.detectors[ODD_CELLS]
            except InputError:
                return Replaced(self._score_again, self._normal_)
        return cast(OddCells, found).reasons

    # ---------------------------------------------------------------------------------------------- other libraries

    def to_pyod(self) -> OfPyod:
        """This detector with the names and the signs of PyOD: the larger a score, the stranger; 1 for an anomaly, 0 for a normal
        row."""
        from mixtura.estimators.pyod import OfPyod

        check_is_fitted(self, "offset_")
        return OfPyod(self)

    def save(self, folder: str | Path) -> None:
        """Write the fitted detector to a folder, as JSON and safetensors, without pickle, with the rows that were learnt from.
        ``random_state`` is saved if it is a number. InputError for the detector of a run, which its folder holds."""
        from mixtura.estimators.kept import save

        check_is_fitted(self, "offset_")
        save(self, Path(folder))

    @classmethod
    def of_run(
        cls, folder: str | Path, method: str = "blend", *, false_alarms: float | None = None, random_state: int = 0
    ) -> Self:  # fmt: skip
        """The models of a finished run, as a detector that is fitted: strangeness is −log p, of the verdict's choice in nats
        ("blend") or of one model. The report rows of the run calibrate, by the nats that the folder holds; the models are those
        that these nats are of, before they were fitted again. Nothing is learnt, and no row of the data is needed. InputError
        where the folder holds no finished run, and where no model has a density."""
        from mixtura.estimators.of_run import of_run

        return of_run(cls, folder, method, false_alarms, random_state)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The inverse of :meth:`save`; InputError on a folder that holds something else."""
        from mixtura.estimators.kept import load

        return load(cls, Path(folder))


def _rows_at(content: Content, at: NDArray[np.int64]) -> Content:
    return content.iloc[at].reset_index(drop=True) if isinstance(content, pd.DataFrame) else content[at]


def _learnt(data: source.Data, at: NDArray[np.int64]) -> tuple[DataKind, Tensor]:
    """What the columns of the rows ``at`` mean, and these rows in tensor units. Fewer rows than that takes are seen twice."""
    content = _rows_at(source.rows_of(data), at)
    if not isinstance(content, pd.DataFrame):
        schema = source.learn(replace(cast(Any, data), pixels=content))
        return schema, schema.encode(content, name="X").double()
    twice = pd.concat([content] * math.ceil(LEAST_LEARNT / len(content)), ignore_index=True)
    schema = source.learn(replace(cast(Any, data), frame=twice))
    return schema, schema.encode(content, name="X").double()
