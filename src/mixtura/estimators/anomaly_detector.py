"""Which rows are strange beside normal ones: :class:`AnomalyDetector`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from numbers import Real
from os import PathLike
from typing import Any, NamedTuple, Self, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from mixtura import detectors
from mixtura.contracts import Batch, ClosedForm, Energy, InputError, Model, Note, Space, density_kind
from mixtura.data import source
from mixtura.data.guess import LEAST_ROWS as LEAST_LEARNT
from mixtura.data.images import is_images
from mixtura.data.kind import Content, DataKind
from mixtura.data.schema import Schema
from mixtura.detectors import conformal
from mixtura.detectors.blended import Blended
from mixtura.detectors.detector import LARGEST, Detector
from mixtura.detectors.nats import OfModel
from mixtura.detectors.reasons import OddCells, Reasons
from mixtura.detectors.scale import Scale
from mixtura.estimators.inputs import sklearn_validate, without_times
from mixtura.families import TABLE as FAMILIES
from mixtura.features.space import FeatureSpace
from mixtura.ground.encode import Columns
from mixtura.ground.rng import generator
from mixtura.train.devices import one_thread
from mixtura.train.fit import Recipe, fit

Array = NDArray[np.float64]

#: what "blend" blends: chosen by benchmarks/anomalies.py tune, on sets that it does not report
BLENDED = ("nearest", "gaussian_mixture")
#: fewest rows, and the share of them that calibrates, up to a number of them
LEAST_ROWS, CALIBRATING, MOST_CALIBRATING = 10, 0.3, 2_000
#: the rate of false alarms if none is asked for and the rows carry it
FALSE_ALARMS = 0.05
#: seconds that a family which trains by gradients has
SECONDS = 20.0


def methods() -> list[str]:
    """The names that :class:`AnomalyDetector` takes: "blend", the detectors, and the families that have nats or an energy."""
    return ["blend", *detectors.TABLE, "odd_cells", *(name for name, row in FAMILIES.items() if row.context != "needs")]


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
    that the calibration rows carry. features: as of :func:`mixtura.evaluate`, for detectors that compare features.
    random_state: seed of all draws.

    A part of the rows learns nothing and calibrates: a new normal row is called an anomaly with probability ``false_alarms`` at
    most, whatever the method (:mod:`mixtura.detectors.conformal`). Rows of ``fit`` that are anomalies themselves make it call
    fewer.

    Fitted: ``detectors_``, by name; ``failed_``, name → why a detector of the blend was left out; ``calibration_``, the scores of
    the calibration rows; ``false_alarms_``, the rate in use; ``offset_``; ``n_seen_`` and ``name_``, the number of rows and
    what they are called; ``schema_``, what the columns mean.
    """

    def __init__(
        self, method: str = "blend", *, false_alarms: float | None = None, features: str | None = None, random_state: Any = 0
    ) -> None:
        self.method = method
        self.false_alarms = false_alarms
        self.features = features
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    # ---------------------------------------------------------------------------------------------------- fit

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from normal rows, anything that :func:`mixtura.run` takes; y is ignored. InputError on rows that cannot be used,
        on an unknown method, and where there are too few rows for the rate of false alarms."""
        names = self._names()
        level = self._level()
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
            plain = isinstance(schema, Schema) and self.features is None
            space = Scale(schema.space, learning) if plain else FeatureSpace.of_rows(schema, learning, self.features, seed=seed)
            self.schema_, self._space_, self._learning_, self._seed_ = schema, space, learning, seed
            self.detectors_, self.failed_ = {}, {}
            for name in names:
                self._fit_one(name, alone=len(names) == 1)
            calibrating = self._made(_rows_at(source.rows_of(data), order[:m]), data.name)
            scores = self._scores(calibrating.x)
            self._blended_, self._calibrating_ = Blended(scores), scores.numpy()
            self.calibration_ = self._strangeness(scores, calibration=True).masked_fill(calibrating.gone.any(1), LARGEST).numpy()
        self.false_alarms_ = max(FALSE_ALARMS, conformal.least_level(m)) if level is None else level
        self.n_seen_, self.name_, self._explaining_ = n, data.name, None
        self.offset_ = -conformal.threshold(self.calibration_, self.false_alarms_)
        for name, found in self.detectors_.items():
            for note in found.notes:
                warnings.warn(f"{name}: {note}", Note, stacklevel=2)
        return self

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

    @staticmethod
    def _calibrating(n: int, level: float | None) -> int:
        """How many of n rows calibrate."""
        m = min(MOST_CALIBRATING, math.floor(CALIBRATING * n))
        if level is None:
            return m
        least = conformal.needed(level)
        if least > n // 2:
            raise InputError(
                f"false_alarms: {level:.3g} needs {least:,} calibration rows, but half of the {n:,} rows are {n // 2:,}; give "
                f"more rows, or {conformal.least_level(n // 2):.2g} or more"
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

    def _fit_one(self, name: str, *, alone: bool) -> None:
        rng = generator(self._seed_, "detector", name)
        made = self._make(name)
        try:
            self.detectors_[name] = made.fit(self._seen(made, self._learning_), rng)
        except (InputError, ArithmeticError, ValueError, RuntimeError) as error:
            self.failed_[name] = str(error).splitlines()[0]
            if alone:
                raise error if isinstance(error, InputError) else InputError(f"{name}: {self.failed_[name]}") from error
        if not alone and name == BLENDED[-1] and not self.detectors_:
            raise InputError(f"blend: no detector works on these rows ({'; '.join(self.failed_.values())})")

    def _make(self, name: str) -> Detector:
        if name == "odd_cells":
            return OddCells(_trained("circuit", self.schema_.space))
        return detectors.TABLE[name].make() if name in detectors.TABLE else OfModel(_trained(name, self.schema_.space))

    def _seen(self, detector: Detector, x: Tensor) -> Tensor:
        return x if detector.sees == "rows" else self._space_(x).double()

    def _scores(self, x: Tensor) -> Tensor:
        """(n, J) of rows in tensor units."""
        features = self._space_(x).double() if any(d.sees == "features" for d in self.detectors_.values()) else x
        return torch.stack([d.score(x if d.sees == "rows" else features) for d in self.detectors_.values()], 1)

    def _strangeness(self, scores: Tensor, *, calibration: bool = False) -> Tensor:
        return scores[:, 0] if len(self.detectors_) == 1 else self._blended_(scores, calibration=calibration)

    def _explainer(self) -> Reasons | None:
        """The reasons of the detector of odd cells, which is fitted for them where it is not among the detectors."""
        if not isinstance(self.schema_, Schema):
            return None
        found = self.detectors_.get("odd_cells")
        if found is None:
            try:
                rng = generator(self._seed_, "detector", "odd_cells")
                found = OddCells(_trained("circuit", self.schema_.space)).fit(self._learning_, rng)
            except (InputError, ArithmeticError, ValueError, RuntimeError) as error:
                self.failed_["odd_cells"] = str(error).splitlines()[0]
        return found.reasons if isinstance(found, OddCells) else None

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
        return Rows(torch.where(gone, self._learning_.nanmedian(0).values, x), gone)

    def scored(self, rows: Rows) -> tuple[Array, Array]:
        """(n,) how strange rows are, and (n, J) how strange each detector finds them."""
        with one_thread():
            scores = self._scores(rows.x)
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

    def explain(self, X: Any) -> pd.DataFrame:
        """(n, columns) how strong a reason each cell is: how much less likely, given the rest of its row, than cells of its
        column usually are, where 0 is usual and 1 is what one normal cell in ten reaches (:mod:`mixtura.detectors.reasons`; by
        exact conditionals of a circuit, whatever the method). A cell that is missing where no normal row lacks it is infinite.
        InputError for images, and where no circuit could be fitted."""
        found = self.reasons(self.rows(X))
        return found.set_axis(X.index, axis=0) if isinstance(X, pd.DataFrame) else found

    def reasons(self, rows: Rows) -> pd.DataFrame:
        """:meth:`explain` of rows that are encoded."""
        if self._explaining_ is None:
            with one_thread():
                self._explaining_ = self._explainer()
        if self._explaining_ is None or not isinstance(self.schema_, Schema):
            why = self.failed_.get("odd_cells", "reasons are for tables")
            raise InputError(f"explain: {why}; use decision_function alone")
        with one_thread():
            found = self._explaining_(rows.x).masked_fill(rows.gone, math.inf)
        return pd.DataFrame(found.numpy(), columns=[field.name for field in self.schema_.modelled])


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


def _trained(name: str, space: Space) -> Callable[[Tensor, torch.Generator], tuple[Model, Columns]]:
    """Trains a model of a family on rows in data units; gives it with its encoding. InputError if it gives neither nats nor an
    energy."""

    def train(x: Tensor, rng: torch.Generator) -> tuple[Model, Columns]:
        row, encoding = FAMILIES[name], Columns(space)
        encoding.prepare(x)
        model = row.build(space, encoding=encoding, config=row.suggest(space, len(x), SECONDS), rng=rng)
        if density_kind(model) is None and not isinstance(model, Energy):
            raise InputError(f"method: {name} can only be sampled: it says of no row how strange it is; choose another")
        if isinstance(model, ClosedForm):
            model.fit_closed(x, None, rng)
        else:
            recipe = Recipe(**{**row.recipe, **model.recipe, "seconds": SECONDS})
            for _ in fit(model, Batch(x=x), recipe, rng=rng):
                pass
        return model.eval(), encoding

    return train
