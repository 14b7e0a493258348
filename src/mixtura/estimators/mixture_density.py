"""A mixture density network as a scikit-learn regressor: :class:`MixtureDensityRegressor`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import ValidationError
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from torch import Tensor

from mixtura.contracts import Batch, InputError, Note, Space
from mixtura.estimators.arithmetic import conformal_quantile, gaussian_nats, moments_of_rounded
from mixtura.estimators.inputs import (
    Array,
    far_row,
    merge_equal_rows,
    sklearn_validate,
    target_numbers,
    target_space,
    target_steps,
    without_times,
    writable,
)
from mixtura.families import mixture_density
from mixtura.families.mixture_density import MixtureDensityNetwork
from mixtura.folder.io import as_json, as_safetensors, read_json, read_tensors
from mixtura.ground.distributions import MixtureDensity
from mixtura.ground.machine import write_together
from mixtura.ground.rng import generator
from mixtura.train.devices import choose_device, one_thread
from mixtura.train.fit import Step, fit
from mixtura.train.recipe import Recipe

#: warn about a fit with more than this share of weight on deviations at the floor
AT_FLOOR = 0.01

#: training epochs, and the least and the most steps
EPOCHS, STEPS = 60, (3_000, 15_000)

#: from this number of rows on, overfitting is less likely: training continues longer before the rate is lowered
MANY, PATIENT = 5_000, {"patience": 24}

#: rows that are predicted at once, and values that are drawn at once
TILE, DRAWN = 4_096, 2**16

#: tolerance for rounding errors at the edge of a cell, in steps
TOLERANCE = 1e-6

#: from this number of rows on, a single network holds out the usual share of them
LEAST_HELD_OUT = 8


class MixtureDensityRegressor(RegressorMixin, BaseEstimator):
    """Regression that predicts a distribution: a mixture density network (Bishop 1994) for p(y | x), with any number of modes.

    X is (n, features) of numbers, y is (n,) or (n, d). Both are standardised inside; all results are in the units of y, and nats
    are with respect to these units. A NaN in y is a missing entry: it is integrated out.

    components: number of Gaussians of each network.
    noise: their covariances: "diagonal", "full", "isotropic", "shared" (one isotropic deviation for all components), "fixed" (the
        deviation ``scale``, in units of y), "low_rank" (``rank`` directions plus a diagonal).
    members: number of networks that are trained at once and blended. If it is even and 4 or more, half of them also see every
        input through ``bins``; otherwise all do. 1 means a single network, which is less reliable.
    hidden: widths of their layers. steps: the most training steps, each on ``batch`` rows at learning rate ``rate``; by default
        60 epochs, but 3,000 to 15,000 steps. Training ends earlier when the likelihood of rows that a member was not trained on
        stops rising. n_init: number of fits with new initial weights; the best one on such rows is kept.
    x_noise, y_noise: deviations of noise added in training, in standardised units (Rothfuss et al. 2019).
    floor: the least deviation, in standard deviations of y.
    resolution: the step δ in which y is written. A value then scores as log(mass of its cell / δ); otherwise a network could
        raise the density of repeated values without limit. All results but those of :meth:`predict_modes` and
        :meth:`distribution` are then of the rounded y. "auto" finds the step; 0 means that y has no steps.
    calibration: the share of the distinct rows that is not trained on, but makes :meth:`predict_interval` conformal; 0 for none.

    Fitted: ``n_features_in_``, ``model_`` (the network, a ``mixtura.Density``), ``resolution_`` (d,), ``n_iter_``, ``history_``
    (steps and nats per row on unseen rows), ``diagnosis_``. ``score`` is the mean log-likelihood in nats: higher is better. It
    can be positive or negative, because a density can exceed 1.
    """

    n_features_in_: int
    feature_names_in_: Array

    def __init__(
        self, components: int = 5, *, noise: str = "diagonal", rank: int = 1, scale: float = 1.0, members: int = 8,
        hidden: Sequence[int] = (64, 64), bins: int = 16, steps: int | None = None, batch: int = 128, rate: float = 5e-3,
        n_init: int = 1, x_noise: float = 0.0, y_noise: float = 0.0, floor: float = 1e-3, resolution: str | float = "auto",
        calibration: float = 0.0, device: str = "cpu", random_state: Any = None,
    ) -> None:  # fmt: skip
        self.components = components
        self.noise = noise
        self.rank = rank
        self.scale = scale
        self.members = members
        self.hidden = hidden
        self.bins = bins
        self.steps = steps
        self.batch = batch
        self.rate = rate
        self.n_init = n_init
        self.x_noise = x_noise
        self.y_noise = y_noise
        self.floor = floor
        self.resolution = resolution
        self.calibration = calibration
        self.device = device
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.regressor_tags.poor_score = True  # the score is in nats, not R²
        return tags

    # ---------------------------------------------------------------------------------------------------- fit

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train on X (n, features) and y (n,) or (n, d); ``sample_weight`` (n,) says how many times each row counts. Equal rows
        become one row with the sum of their weights, and the order of the rows does not matter. InputError if the numbers cannot
        be used; an earlier fit is then unchanged."""
        before = dict(vars(self))
        try:
            return self._fit(X, y, sample_weight)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    def _fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None) -> Self:
        X = np.asarray(sklearn_validate(self, without_times(X, "X"), dtype=np.float64, ensure_min_samples=2))
        if y is None:
            raise InputError("y: requires y to be passed, but the target y is None; give one row for each of X")
        stored = np.asarray(without_times(y, "y")).dtype
        y = target_numbers(y)
        if len(y) != len(X):
            raise InputError(f"y: expected {len(X)} rows, one for each row of X, got {len(y)}")
        self._flat_ = y.ndim == 1
        y = y.reshape(len(y), -1)
        weights = np.asarray(_check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True))
        if not isinstance(self.calibration, Real) or not 0 <= self.calibration < 1:
            raise InputError(f"calibration: expected a share of the rows, 0 or more and below 1, got {self.calibration!r}")
        for name in ("n_init", "batch"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
                raise InputError(f"{name}: expected a whole number, 1 or more, got {value!r}")
        state = check_random_state(self.random_state)
        seed = int(state.randint(2**31))
        given, far = len(X), partial(far_row, y, weights)
        X, y, weights = merge_equal_rows(X, y, weights)
        if len(X) < 2:
            raise InputError(f"X and y: all {given} rows with a weight and a y are equal, expected 2 that differ; give more rows")
        held = state.permutation(len(X)) < round(self.calibration * len(X))
        known = [values[~np.isnan(values)] for values in y[~held].T]
        if min(map(len, known)) < 2:
            entry = min(range(len(known)), key=lambda j: len(known[j]))
            raise InputError(
                f"y: entry {entry} has {len(known[entry])} values to train on, expected 2 or more ({len(X)} rows differ, and "
                f"{held.sum()} of them are held out for calibration); give more rows"
            )
        self.resolution_, self._origin_ = np.array([target_steps(values, self.resolution, stored) for values in known]).T
        self._learn(X[~held], y[~held], weights[~held], generator(seed))
        self._warn_if_poor(y[~held], weights[~held], far(self.resolution_, self.floor))
        # the distances of the calibration rows from the median, in probability (m, d), and their weights (m,)
        self._calibrated_ = (self._ranked(X[held], y[held]), weights[held]) if held.any() else None
        return self

    def _config(self, rows: int) -> mixture_density.Config:
        names = ("components", "noise", "rank", "scale", "members", "hidden", "bins", "x_noise", "y_noise", "floor")
        try:
            asked = mixture_density.Config(**{name: getattr(self, name) for name in names}, warp=False, gaps="ignored")
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(f"{first['loc'][0]}: {first['msg'].lower()}, got {first['input']!r}; give another value") from error
        return asked.model_copy(update={"bins": min(asked.bins, mixture_density.suggest(Space.continuous(1), rows).bins)})

    def _learn(self, X: Array, y: Array, weights: Array, rng: torch.Generator) -> None:
        """Fit ``n_init`` times with new initial weights, and keep the best network."""
        best = math.inf
        for _ in range(self.n_init):
            model = mixture_density.build(
                target_space(self.resolution_), context_shape=(X.shape[1],), config=self._config(len(X)), rng=rng
            )
            records, diagnosis = self._train(model, torch.as_tensor(X), torch.as_tensor(y), weights, rng)
            if records[-1].best < best or best == math.inf:
                best, self.model_, self.diagnosis_, self.n_iter_ = records[-1].best, model, diagnosis, records[-1].step
                self.history_ = [(step.step, -step.validation) for step in records if step.validation is not None]

    def _train(
        self, model: MixtureDensityNetwork, X: Tensor, y: Tensor, weights: Array, rng: torch.Generator
    ) -> tuple[list[Step], dict[str, float]]:
        steps = min(max(EPOCHS * len(X) // self.batch, STEPS[0]), STEPS[1]) if self.steps is None else self.steps
        asked = {"steps": steps, "batch": self.batch, "rate": self.rate} | (PATIENT if len(X) >= MANY else {})
        if self.members == 1 and len(X) < LEAST_HELD_OUT:  # hold out two rows, or none if there are too few
            asked["held_out"] = 2 / len(X) if len(X) >= 4 else 0.0
        recipe = Recipe(**{**mixture_density.RECIPE, **model.recipe, **asked})
        uneven = None if (weights == weights[0]).all() else torch.as_tensor(weights)
        device, name = choose_device(self.device), type(self).__name__
        with one_thread(), torch.enable_grad():
            records = list(fit(model, Batch(x=y, context=X, weights=uneven), recipe, rng=rng, device=device, name=name))
            some = torch.randperm(len(X), generator=rng)[:2_000]
            return records, model.diagnose(y[some], X[some], rng)

    def _warn_if_poor(self, y: Array, weights: Array, far: str) -> None:
        """Warn about a poor fit; ``far`` is the message about a row that is far from the others, if there is one."""
        warn = partial(warnings.warn, category=Note, stacklevel=4)
        if far:
            warn(far)
            return
        constant = np.nanmin(y, 0) == np.nanmax(y, 0)
        if constant.any():
            warn(f"y is constant in entry {int(constant.argmax())}: there is nothing to learn")
            return
        nats = max(nats for _, nats in self.history_)
        plain = sum(gaussian_nats(values, weights, δ) for values, δ in zip(y.T, self.resolution_, strict=True))
        if nats < plain - 0.05:
            warn(
                f"the network has {nats:.3f} nats a row on unseen rows, but one Gaussian without X has {plain:.3f}: "
                "X does not help to predict y, or training failed; try fewer components, a lower rate or more rows"
            )
        if self.diagnosis_["at floor"] > AT_FLOOR and self.noise != "fixed":
            warn(
                f"{self.diagnosis_['at floor']:.0%} of the weight is on deviations at the floor ({self.floor:g} of that of y): "
                "y has repeated values, or is a function of X; give its resolution, or a higher floor"
            )

    # ---------------------------------------------------------------------------------------------------- the density

    @torch.no_grad()
    def distribution(self, X: ArrayLike) -> MixtureDensity:
        """p(y | x) for every row of X as a torch distribution with batch shape (n,) and event shape (d,): mixtures of members ·
        components Gaussians, in units of y, float64. If y is written in steps, this is the density before rounding."""
        return self._law(self._rows(X))

    def _law(self, X: Array) -> MixtureDensity:
        self.model_.eval()
        with torch.no_grad():
            return self.model_.law(torch.as_tensor(X))

    def _rows(self, X: ArrayLike) -> Array:
        check_is_fitted(self, "model_")
        return writable(sklearn_validate(self, without_times(X, "X"), dtype=np.float64, reset=False))

    def _in_tiles(self, X: Array, compute: Callable[[MixtureDensity, slice], Tensor], tile: int = TILE) -> Array:
        """``compute`` applied to the distributions of the rows, a tile of rows at a time."""
        with one_thread():
            tiles = [slice(i, i + tile) for i in range(0, len(X), tile)]
            return np.concatenate([compute(self._law(X[t]), t).numpy() for t in tiles])

    def _targets(self, X: Array, y: ArrayLike, *, infinite: bool = False) -> Array:
        d = len(self.resolution_)
        y = writable(target_numbers(y, infinite=infinite))
        y = y.reshape(len(y), -1)
        if y.shape != (len(X), d):
            raise InputError(f"y: expected shape ({len(X)}, {d}), one row for each of X, got {y.shape}")
        return y

    def _shaped(self, of_entries: Array) -> Array:
        """(…, d) → (…) if y was given as (n,)."""
        return of_entries[..., 0] if self._flat_ else of_entries

    def log_prob(self, X: ArrayLike, y: ArrayLike) -> Array:
        """(n,) nats of y given X, in the units of y. For an entry written in steps δ this is log(mass of its cell / δ); with full
        covariances, given the rounded entries before it. NaN entries are integrated out."""
        X = self._rows(X)
        self.model_.eval()
        y = self._targets(X, y)
        with one_thread(), torch.no_grad():
            return self.model_.log_prob(torch.as_tensor(y), context=torch.as_tensor(X)).numpy()

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """The mean nats of the rows with any y; higher is better. InputError if no row has a y and a weight above 0."""
        nats = self.log_prob(X, y)
        weights = np.asarray(_check_sample_weight(sample_weight, nats, dtype=np.float64, ensure_non_negative=True))
        weights = weights * ~np.isnan(target_numbers(y).reshape(len(nats), -1)).all(1)
        if not weights.any():
            raise InputError("y: no row has a value and a weight above 0; give at least one such row to score")
        return float(np.average(nats, weights=weights))

    def cdf(self, X: ArrayLike, y: ArrayLike) -> Array:
        """The marginal P(Y ≤ y | x) of every entry, of the shape of y; 0 at −inf, 1 at inf."""
        X = self._rows(X)
        return self._shaped(self._cdf(X, self._cell_of(self._targets(X, y, infinite=True))[1]))

    def _cdf(self, X: Array, y: Array) -> Array:
        return self._in_tiles(X, lambda law, t: law.cdf(torch.as_tensor(y[t])))

    def _cell_of(self, y: Array) -> tuple[Array, Array]:
        """The edges of the cell of the largest step ≤ y, for entries written in steps; y itself for the others."""
        δ = np.where(self.resolution_ > 0, self.resolution_, 1.0)
        low = self._origin_ + (np.floor((y - self._origin_) / δ + TOLERANCE) - 0.5) * δ
        return np.where(self.resolution_ > 0, low, y), np.where(self.resolution_ > 0, low + δ, y)

    def _rounded(self, y: Array, shift: float = 0.0) -> Array:
        """The values rounded to their steps, after a ``shift`` in steps; the upper edge of a cell belongs to the cell."""
        δ = np.where(self.resolution_ > 0, self.resolution_, 1.0)
        return np.where(self.resolution_ > 0, self._origin_ + np.ceil((y - self._origin_) / δ - 0.5 + shift) * δ, y)

    # ---------------------------------------------------------------------------------------------------- predictions

    def predict(self, X: ArrayLike) -> Array:
        """The mean of p(y | x), of the shape of y."""
        return self._shaped(self._in_tiles(self._rows(X), lambda law, _: self._moments(law)[0]))

    def predict_std(self, X: ArrayLike) -> Array:
        """The standard deviation of p(y | x), of the shape of y."""
        return self._shaped(self._in_tiles(self._rows(X), lambda law, _: self._moments(law)[1].sqrt()))

    def _moments(self, law: MixtureDensity) -> tuple[Tensor, Tensor]:
        """Mean and variance (n, d) of y, after rounding where y is written in steps."""
        mean, variance = law.mean, law.variance
        for j, (δ, origin) in enumerate(zip(self.resolution_, self._origin_, strict=True)):
            if δ > 0:
                at = origin + δ * torch.round((mean[:, j] - origin) / δ)
                first, second = moments_of_rounded(law.weights, (law.means[..., j] - at[:, None]) / δ, law.deviations[..., j] / δ)
                mean[:, j], variance[:, j] = at + δ * first, δ**2 * (second - first**2)
        return mean, variance

    def predict_quantile(self, X: ArrayLike, q: float | Sequence[float]) -> Array:
        """The marginal q-quantile of every entry, the least y with P(Y ≤ y | x) ≥ q: of the shape of y, with a second axis for q
        if several are given."""
        levels = torch.as_tensor(writable(np.atleast_1d(np.asarray(q, dtype=np.float64))))
        if levels.dim() != 1 or not len(levels):
            raise InputError(f"q: expected one probability or a list of them, got shape {tuple(levels.shape)}")
        found = self._rounded(self._quantiles(X, levels.unsqueeze(1).expand(-1, len(self.resolution_))), -TOLERANCE)
        return self._shaped(found if np.ndim(q) else found[:, 0])

    def _quantiles(self, X: ArrayLike, levels: Tensor) -> Array:
        """(n, levels, d) quantiles of the density, before rounding, at levels (levels, d)."""
        return self._in_tiles(self._rows(X), lambda law, _: torch.stack([law.icdf(level) for level in levels], 1))

    def predict_interval(self, X: ArrayLike, level: float = 0.9) -> Array:
        """The central interval that holds ``level`` of the probability, or more if y is written in steps: (n, 2), or (n, 2, d) if
        y is (n, d).

        With ``calibration`` the interval is conformal: (½ − r, ½ + r) in probability, where r is the ⌈(m + 1) level⌉-th smallest
        |F(y|x) − ½| of the m rows held out (Chernozhukov et al. 2021, section 2). On average over x it holds ``level`` of new
        rows, however good the network is. With weights, r is the weighted quantile at (1 + 1/m) level.
        """
        if not isinstance(level, Real) or not 0 < level < 1:
            raise InputError(f"level: expected a probability between 0 and 1, got {level!r}")
        check_is_fitted(self, "model_")
        half = np.full(len(self.resolution_), level / 2)
        if self._calibrated_ is not None:
            ranks, weights = self._calibrated_
            half = np.array([conformal_quantile(of_entry, weights, level) for of_entry in ranks.T])
        ends = self._quantiles(X, torch.as_tensor(np.stack([0.5 - half, 0.5 + half]).clip(0, 1)))
        return self._shaped(np.stack([self._rounded(ends[:, 0], -TOLERANCE), self._rounded(ends[:, 1], TOLERANCE)], 1))

    def _ranked(self, X: Array, y: Array) -> Array:
        """How far a central interval must reach from the median, in probability, to hold y: |F(y | x) − ½|, at the nearer edge of
        a cell."""
        low, high = (self._cdf(X, end) for end in self._cell_of(y))
        return np.maximum(np.maximum(0.5 - high, low - 0.5), 0.0)

    def predict_modes(self, X: ArrayLike, *, least: float = 0.1) -> Array:
        """The local maxima of p(y | x), highest first: (n, modes), or (n, modes, d), NaN where a row has fewer. Maxima lower than
        ``least`` times the highest are left out, because a component of very small weight can have a maximum of its own."""
        if not 0 <= least <= 1:
            raise InputError(f"least: expected a share of the highest maximum, between 0 and 1, got {least!r}")
        depth = math.log(least) if least else -math.inf

        def high(law: MixtureDensity, _: slice) -> Tensor:
            modes, height = law.modes()
            return modes.masked_fill((height < height[:, :1] + depth).unsqueeze(-1), math.nan)

        modes = self._in_tiles(self._rows(X), high, tile=256)
        most = int((~np.isnan(modes[..., 0])).sum(1).max())
        return self._shaped(modes[:, :most])

    def sample(self, X: ArrayLike, n: int = 100, *, temperature: float = 1.0, random_state: Any = None) -> Array:
        """(n, rows, d): n samples of y for every row of X, rounded if y is written in steps. ``temperature`` τ divides the logits
        and multiplies the variances: below 1, samples concentrate on the likeliest branch."""
        X = self._rows(X)
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
            raise InputError(f"n: expected a whole number of samples, 1 or more, got {n!r}")
        if not isinstance(temperature, Real) or not 0 < temperature < math.inf:
            raise InputError(f"temperature: expected a number above 0, got {temperature!r}; 1 changes nothing")
        rng = generator(int(check_random_state(random_state).randint(2**31)), "sample")

        def draw(law: MixtureDensity, _: Any) -> Tensor:
            return law.tempered(temperature).sample((int(n),), rng=rng).movedim(0, 1)

        return self._rounded(self._in_tiles(X, draw, tile=max(1, DRAWN // int(n)))).swapaxes(0, 1)

    # ---------------------------------------------------------------------------------------------------- saving

    def save(self, folder: str | Path) -> None:
        """Write the fitted estimator to a folder, as JSON and safetensors, without pickle. ``random_state`` is not saved."""
        check_is_fitted(self, "model_")
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file, expected a folder; give another path")
        arrays: dict[str, Tensor] = {f"model.{k}": v for k, v in self.model_.state_dict().items()}
        arrays |= {"resolution": torch.as_tensor(self.resolution_), "origin": torch.as_tensor(self._origin_)}
        if self._calibrated_ is not None:
            arrays |= dict(zip(("ranks", "weights"), map(torch.as_tensor, self._calibrated_), strict=True))
        parameters = {k: v.item() if isinstance(v, np.generic) else v for k, v in self.get_params().items()}
        parameters |= {"random_state": None, "hidden": [int(width) for width in self.hidden], "device": str(self.device)}
        record = {
            "parameters": parameters, "features": self.n_features_in_, "flat": self._flat_, "steps": self.n_iter_,
            "history": self.history_, "diagnosis": self.diagnosis_, "names": list(getattr(self, "feature_names_in_", ())),
            "config": self.model_.config.model_dump(mode="json"),
        }  # fmt: skip
        tensors = {folder / "estimator.safetensors": as_safetensors(arrays)}
        write_together({**tensors, folder / "estimator.json": as_json(record)})

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The inverse of :meth:`save`; InputError on a folder that holds something else."""
        folder = Path(folder)
        if not (folder / "estimator.json").is_file():
            raise InputError(f"{folder}: holds no estimator.json, so no MixtureDensityRegressor; save one there first")
        try:
            kept, arrays = read_json(folder / "estimator.json"), read_tensors(folder / "estimator.safetensors")
            made = cls(**kept["parameters"] | {"hidden": tuple(kept["parameters"]["hidden"])})
            made.n_features_in_, made._flat_, made.n_iter_ = int(kept["features"]), bool(kept["flat"]), int(kept["steps"])
            made.history_ = [(int(step), float(nats)) for step, nats in kept["history"]]
            made.diagnosis_ = {name: float(value) for name, value in kept["diagnosis"].items()}
            if kept["names"]:
                made.feature_names_in_ = np.array(kept["names"], dtype=object)
            made.resolution_, made._origin_ = arrays["resolution"].numpy(), arrays["origin"].numpy()
            made._calibrated_ = (arrays["ranks"].numpy(), arrays["weights"].numpy()) if "ranks" in arrays else None
            config = mixture_density.Config(**kept["config"])
            made.model_ = mixture_density.build(
                target_space(made.resolution_), context_shape=(made.n_features_in_,), config=config, rng=generator(0)
            )
            made.model_.load_state_dict({k.removeprefix("model."): v for k, v in arrays.items() if k.startswith("model.")})
            made.model_.eval()
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            why = "damaged" if isinstance(error, InputError) else type(error).__name__
            raise InputError(f"{folder}: holds no MixtureDensityRegressor ({why}); save one there again") from error
        return made
