"""The regressor passes scikit-learn's checks, is correct on known distributions, and refuses input it cannot use."""

from __future__ import annotations

import math
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.utils.estimator_checks import check_estimator

from mixtura import InputError, MixtureDensityRegressor

QUICK = {"steps": 400, "members": 4, "hidden": (32,), "random_state": 0}


def bend(n, seed):
    """y = 5 sin x + (1 + ½ cos x) ε around 100, the deviation known."""
    r = np.random.default_rng(seed)
    x = r.uniform(-3, 3, (n, 1))
    deviation = 1 + 0.5 * np.cos(x[:, 0])
    mean = 100 + 5 * np.sin(x[:, 0])
    return x, mean + deviation * r.standard_normal(n), mean, deviation


@pytest.fixture(scope="module")
def bent():
    x, y, *_ = bend(4_000, 0)
    return MixtureDensityRegressor(2, **QUICK | {"steps": 1_500}).fit(x, y)


# --------------------------------------------------------------------------------------------------- scikit-learn


@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks():
    check_estimator(MixtureDensityRegressor(steps=40))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks_as_it_comes():
    check_estimator(MixtureDensityRegressor())


def test_order_and_repetition_of_rows_do_not_matter():
    x, y, *_ = bend(60, 1)
    times = np.arange(60) % 3
    weighed = MixtureDensityRegressor(**QUICK | {"steps": 50}).fit(x, y, sample_weight=times)
    repeated = MixtureDensityRegressor(**QUICK | {"steps": 50}).fit(np.repeat(x, times, 0)[::-1], np.repeat(y, times)[::-1])
    assert repeated.predict(x) == pytest.approx(weighed.predict(x), rel=1e-5)
    unweighed = MixtureDensityRegressor(**QUICK | {"steps": 50}).fit(x, y).predict(x)
    assert np.abs(unweighed / weighed.predict(x) - 1).max() > 1e-3


def test_the_same_seed_gives_the_same_bits():
    x, y, *_ = bend(100, 1)
    first, second = (MixtureDensityRegressor(**QUICK | {"steps": 50}).fit(x, y) for _ in range(2))
    assert np.array_equal(first.log_prob(x, y), second.log_prob(x, y))
    assert np.array_equal(first.sample(x, 3, random_state=1), second.sample(x, 3, random_state=1))


# --------------------------------------------------------------------------------------------------- what it says


def test_nats_are_near_the_truth_in_the_units_of_y(bent):
    x, y, mean, deviation = bend(10_000, 7)
    truth = stats.norm(mean, deviation).logpdf(y).mean()
    assert truth - 0.03 < bent.score(x, y) < truth + 0.01
    assert np.abs(bent.predict(x) - mean).mean() < 0.15
    assert np.abs(bent.predict_std(x) / deviation - 1).mean() < 0.1


def test_ranks_are_uniform_where_the_truth_is(bent):
    """The Kolmogorov–Smirnov distance of 2,000 ranks beside that of the true distribution function."""
    x, y, mean, deviation = bend(2_000, 8)
    ours, true = (stats.kstest(u, "uniform") for u in (bent.cdf(x, y), stats.norm(mean, deviation).cdf(y)))
    assert true.pvalue > 0.05 and ours.pvalue > 0.01 and ours.statistic < true.statistic + 0.03


def test_intervals_cover_what_they_say(bent):
    x, y, *_ = bend(10_000, 9)
    ends = bent.predict_interval(x, 0.9)
    assert abs(((ends[:, 0] <= y) & (y <= ends[:, 1])).mean() - 0.9) < 0.015


def test_quantiles_rise_and_invert(bent):
    x, *_ = bend(200, 10)
    q = [0.001, 0.05, 0.5, 0.95, 0.999]
    y = bent.predict_quantile(x, q)
    assert y.shape == (200, 5) and (np.diff(y, axis=1) > 0).all()
    for j, level in enumerate(q):
        assert np.abs(bent.cdf(x, y[:, j]) - level).max() < 1e-6
    assert bent.predict_quantile(x, 0.5) == pytest.approx(y[:, 2], rel=1e-6)


@pytest.mark.filterwarnings("ignore:the network has")
def test_conformal_intervals_hold_where_the_network_is_wrong():
    """Of a network told a deviation three times too small, plain intervals hold far too little, conformal ones what they say."""
    x, y, *_ = bend(4_000, 2)
    wrong = {"noise": "fixed", "scale": 0.3, "components": 1}
    fitted = MixtureDensityRegressor(**QUICK | wrong, calibration=0.5).fit(x, y)
    plain = MixtureDensityRegressor(**QUICK | wrong).fit(x, y)
    x, y, *_ = bend(10_000, 11)
    inside = [((e[:, 0] <= y) & (y <= e[:, 1])).mean() for e in (m.predict_interval(x, 0.9) for m in (fitted, plain))]
    # of 2,000 calibration rows the coverage has a deviation of 0.7 points, of 10,000 test rows 0.3
    assert abs(inside[0] - 0.9) < 0.025 and inside[1] < 0.75


def test_rows_without_weight_calibrate_nothing():
    x, y, *_ = bend(200, 3)
    weights = np.arange(200) % 2
    m = MixtureDensityRegressor(**QUICK | {"steps": 30}, calibration=0.4).fit(x, y, sample_weight=weights)
    same = MixtureDensityRegressor(**QUICK | {"steps": 30}, calibration=0.4).fit(x, np.where(weights > 0, y, 1e6), weights)
    assert m._calibrated_ is not None and same._calibrated_ is not None and len(m._calibrated_[0]) == 40
    assert same._calibrated_[0] == pytest.approx(m._calibrated_[0], abs=1e-5)


def test_copies_of_a_row_stay_on_one_side_and_weigh_what_they_are():
    x, y, *_ = bend(100, 3)
    settings = QUICK | {"steps": 30, "calibration": 0.4}
    repeated = MixtureDensityRegressor(**settings).fit(np.repeat(x, 5, 0), np.repeat(y, 5))
    weighed = MixtureDensityRegressor(**settings).fit(x, y, np.full(100, 5.0))
    assert repeated._calibrated_ is not None and len(repeated._calibrated_[0]) == 40
    assert repeated.predict_interval(x) == pytest.approx(weighed.predict_interval(x), rel=1e-5)
    once = MixtureDensityRegressor(**settings).fit(x, y)
    assert once._calibrated_ is not None
    ranks = np.sort(once._calibrated_[0][:, 0])
    reach = 0.5 - once.cdf(x, once.predict_interval(x, 0.5)[:, 0])
    assert reach == pytest.approx(np.full(100, ranks[20]), abs=1e-5)  # the ⌈41 · 0.5⌉-th


def test_calibration_rows_are_not_trained_on():
    x, y, *_ = bend(200, 3)
    first = MixtureDensityRegressor(**QUICK | {"steps": 30}, calibration=0.4).fit(x, y)
    assert first._calibrated_ is not None and first._calibrated_[0].shape == (80, 1)
    lone = MixtureDensityRegressor(**QUICK | {"steps": 30}, calibration=0.02).fit(x, y)  # too few for 90 %: the whole line
    assert np.isinf(lone.predict_interval(x[:3], 0.9)).all()


def test_several_targets_and_every_shape():
    r = np.random.default_rng(0)
    x = r.normal(size=(300, 3))
    y = np.stack([100 + 3 * x[:, 0] + r.normal(size=300), r.choice([-5, 5], 300) + x[:, 1]], 1)
    m = MixtureDensityRegressor(3, noise="full", **QUICK | {"steps": 150}).fit(x, y)
    assert m.predict(x).shape == m.cdf(x, y).shape == m.predict_std(x).shape == (300, 2) and m.log_prob(x, y).shape == (300,)
    assert m.predict_quantile(x, [0.1, 0.9]).shape == (300, 2, 2) and m.predict_quantile(x, 0.1).shape == (300, 2)
    assert m.predict_interval(x).shape == (300, 2, 2) and m.predict_modes(x).shape[::2] == (300, 2)
    assert m.sample(x, 7).shape == (7, 300, 2) and m.distribution(x).batch_shape == (300,)
    gaps = y.copy()
    gaps[:, 0] = np.nan
    part = m.distribution(x).marginal([1]).log_prob(torch.as_tensor(y[:, 1:])).numpy()
    assert np.allclose(m.log_prob(x, gaps), part, atol=1e-4)


def test_missing_targets_are_learnt_around():
    r = np.random.default_rng(1)
    x = r.normal(size=(600, 1))
    y = np.concatenate([x + 0.1 * r.normal(size=(600, 1)), -x + 0.1 * r.normal(size=(600, 1))], 1)
    y[r.random((600, 2)) < 0.4] = np.nan
    m = MixtureDensityRegressor(2, **QUICK).fit(x, y)
    grid = np.array([[-1.0], [1.0]])
    assert np.abs(m.predict(grid) - np.concatenate([grid, -grid], 1)).max() < 0.15


def test_whole_numbers_are_masses_and_draws_are_whole():
    r = np.random.default_rng(2)
    x = r.normal(size=(500, 1))
    y = r.poisson(np.exp(1 + 0.5 * x[:, 0]))
    m = MixtureDensityRegressor(**QUICK).fit(x, y)
    assert m.resolution_.tolist() == [1.0]
    grid = np.arange(-40, 120)
    mass = np.exp(m.log_prob(np.zeros((len(grid), 1)), grid))
    assert mass.sum() == pytest.approx(1, abs=1e-6) and mass.max() < 0.5
    draws = m.sample(x[:5], 20)
    assert np.array_equal(draws, np.rint(draws))


@pytest.fixture(scope="module")
def counted():
    r = np.random.default_rng(2)
    x = r.uniform(-2, 2, (2_000, 1))
    return MixtureDensityRegressor(**QUICK | {"steps": 800}).fit(x, r.poisson(np.exp(0.3 + 0.5 * x[:, 0])))


def test_answers_about_counts_are_those_of_the_counts(counted):
    """Within a cell the density may be anywhere; what is told of a count must not depend on where."""
    at = np.array([[-1.0], [0.0], [1.5]])
    grid = np.arange(-30, 60)
    mass = np.exp(np.stack([counted.log_prob(np.repeat(row[None], len(grid), 0), grid) for row in at]))
    below = np.cumsum(mass, 1)
    for v in (0.0, 0.4, 2.0):
        assert counted.cdf(at, np.full(3, v)) == pytest.approx(below[:, int(v) + 30], abs=1e-6)
    for q in (0.05, 0.5, 0.93):
        assert np.array_equal(counted.predict_quantile(at, q), [grid[np.searchsorted(b, q)] for b in below])
    mean = mass @ grid
    assert counted.predict(at) == pytest.approx(mean, abs=1e-5)
    assert counted.predict_std(at) == pytest.approx(np.sqrt(mass @ grid**2 - mean**2), abs=1e-5)
    draws = counted.sample(at, 20_000, random_state=0)[..., 0]
    assert draws.mean(0) == pytest.approx(mean, abs=0.05)


def test_intervals_of_counts_hold_what_they_say(counted):
    r = np.random.default_rng(3)
    x = r.uniform(-2, 2, (10_000, 1))
    y = r.poisson(np.exp(0.3 + 0.5 * x[:, 0]))
    low, high = counted.predict_interval(x, 0.9).T
    mean = np.exp(0.3 + 0.5 * x[:, 0])
    truth = ((stats.poisson.ppf(0.05, mean) <= y) & (y <= stats.poisson.ppf(0.95, mean))).mean()
    assert abs(((low <= y) & (y <= high)).mean() - truth) < 0.015  # .97: of counts an interval holds more than 90 %


@pytest.mark.filterwarnings("ignore:the network has")
def test_conformal_intervals_of_counts_hold_what_they_say():
    r = np.random.default_rng(4)
    x = r.uniform(-2, 2, (14_000, 1))
    y = r.poisson(np.exp(0.3 + 0.5 * x[:, 0]))
    wrong = {"noise": "fixed", "scale": 0.2, "components": 1, "calibration": 0.5, "steps": 200}
    m = MixtureDensityRegressor(**QUICK | wrong).fit(x[:4_000], y[:4_000])
    low, high = m.predict_interval(x[4_000:], 0.9).T
    held = ((low <= y[4_000:]) & (y[4_000:] <= high)).mean()
    assert 0.89 < held < 0.97 and np.array_equal(low, np.rint(low))


def test_rounding_does_not_depend_on_the_precision_of_y_or_where_its_steps_lie():
    x, y, *_ = bend(300, 6)
    y = y.round(1)
    for stored in ("f4", "f8"):
        assert MixtureDensityRegressor(**QUICK | {"steps": 5}).fit(x, y.astype(stored)).resolution_ == [0.1]
    half = MixtureDensityRegressor(**QUICK | {"steps": 50}).fit(x, np.floor(y) + 0.5)
    for answer in (half.predict_quantile(x, 0.3), half.sample(x, 3), half.predict_interval(x)):
        assert np.array_equal(answer % 1, np.full(answer.shape, 0.5))


def test_a_rare_event_is_no_failure():
    r = np.random.default_rng(5)
    x = r.normal(size=(1_500, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m = MixtureDensityRegressor(**QUICK).fit(x, (r.random(1_500) < 0.02).astype(float))
    assert m.score(x, (r.random(1_500) < 0.02).astype(float)) > -0.2


def test_a_full_covariance_on_a_line_is_said():
    r = np.random.default_rng(6)
    x, y = r.normal(size=(300, 1)), r.normal(size=300)
    with pytest.warns(UserWarning, match="at the floor"):
        m = MixtureDensityRegressor(2, noise="full", floor=0.05, resolution=0, **QUICK).fit(x, np.stack([y, y], 1))
    assert m.diagnosis_["at floor"] > 0.5


def test_nearly_dependent_targets_with_gaps_can_be_learnt():
    r = np.random.default_rng(7)
    x, h = r.normal(size=(400, 1)), r.standard_t(2, size=(400, 1))
    y = h * [1.0, 2.0, -1.0] + 1e-3 * r.normal(size=(400, 3))
    y[r.random(y.shape) < 0.2] = np.nan
    for noise in ("full", "low_rank"):
        m = MixtureDensityRegressor(2, noise=noise, resolution=0, **QUICK | {"steps": 150}).fit(x, y)
        assert np.isfinite(m.log_prob(x, y)).all()


def test_the_best_of_several_fits_is_kept():
    x, y, *_ = bend(200, 7)
    several = MixtureDensityRegressor(**QUICK | {"steps": 60}, n_init=3).fit(x, y)
    one = MixtureDensityRegressor(**QUICK | {"steps": 60}).fit(x, y)
    best = [max(nats for _, nats in m.history_) for m in (several, one)]
    assert best[0] >= best[1] and several.model_.config == one.model_.config


@pytest.mark.parametrize("unit", [1e-30, 1e-14, 1.0, 1e9])
def test_units_of_y_and_x_do_not_matter(unit):
    x, y, *_ = bend(300, 9)
    x, y = 1e13 + 5e3 * x, y - 100
    m, plain = (MixtureDensityRegressor(**QUICK).fit(x, u * y) for u in (unit, 1.0))
    # members learn from folds that a hash of the bits of the standardised rows makes, and their last bits depend on the unit and
    # on the processor: the two fits are two draws of the folds. A fit blind to x is 1.3 nats away, one in another unit 20
    assert m.score(x, unit * y) + math.log(unit) == pytest.approx(plain.score(x, y), abs=0.3)
    assert min(plain.score(x, y), m.score(x, unit * y) + math.log(unit)) > -1.8


def test_numbers_may_lie_backwards_or_be_read_only(bent):
    x, y, *_ = bend(50, 10)
    fixed = x.copy()
    fixed.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(bent.predict(fixed), bent.predict(x))
    assert bent.predict(x[::-1]) == pytest.approx(bent.predict(x)[::-1], rel=1e-6)
    assert bent.score(x[::-1], y[::-1]) == pytest.approx(bent.score(x, y), abs=1e-5)
    assert bent.predict_quantile(x, np.array([0.1, 0.9])[::-1]).shape == (50, 2)


def test_a_refused_fit_leaves_the_last_one_as_it_was():
    x, y, *_ = bend(100, 11)
    m = MixtureDensityRegressor(**QUICK | {"steps": 20}).fit(x, y)
    before = m.predict_interval(x)
    with pytest.raises(InputError, match="noise"):
        m.set_params(noise="odd").fit(np.ones((100, 4)), np.round(y))
    assert np.array_equal(m.predict_interval(x), before)


def test_rows_without_any_y_do_not_count_in_a_score(bent):
    x, y, *_ = bend(20, 12)
    gaps = np.append(y, math.nan)
    assert bent.score(np.append(x, [[0.0]], 0), gaps) == pytest.approx(bent.score(x, y))


def test_who_reads_bins_is_said():
    x, y, *_ = bend(60, 8)
    of = lambda **o: MixtureDensityRegressor(**QUICK | {"steps": 10} | o).fit(x, y).diagnosis_["plain"]  # noqa: E731
    assert of(members=5) == of(members=1) == 0 and of(members=5, bins=0) == 1 and 0 < of() < 1


def test_a_single_network_and_cold_draws():
    r = np.random.default_rng(3)
    x = r.normal(size=(600, 1))
    y = np.where(r.random(600) < 0.8, 5.0, -5.0) + 0.5 * r.normal(size=600)
    m = MixtureDensityRegressor(2, **QUICK | {"members": 1, "bins": 0}).fit(x, y)
    warm, cold = (m.sample(x[:1], 4_000, temperature=t, random_state=0)[:, 0, 0] for t in (1, 0.25))
    odds = 4.0**4
    assert (warm > 0).mean() == pytest.approx(0.8, abs=0.05) and (cold > 0).mean() == pytest.approx(odds / (1 + odds), abs=0.03)
    assert cold[cold > 0].std() / warm[warm > 0].std() == pytest.approx(0.5, abs=0.05)


# --------------------------------------------------------------------------------------------------- kept


def test_saved_and_loaded_is_the_same(bent, tmp_path):
    x, y, *_ = bend(50, 12)
    bent.save(tmp_path / "kept")
    for again in (MixtureDensityRegressor.load(tmp_path / "kept"), pickle.loads(pickle.dumps(bent))):
        assert np.array_equal(again.log_prob(x, y), bent.log_prob(x, y))
        assert np.array_equal(again.predict_interval(x), bent.predict_interval(x))
    assert {p.suffix for p in (tmp_path / "kept").iterdir()} == {".json", ".safetensors"}
    with pytest.raises(InputError, match="estimator.json"):
        MixtureDensityRegressor.load(tmp_path)
    (tmp_path / "kept" / "estimator.json").write_text("{}")
    with pytest.raises(InputError, match="holds no MixtureDensityRegressor"):
        MixtureDensityRegressor.load(tmp_path / "kept")


# --------------------------------------------------------------------------------------------------- what it complains of


@pytest.mark.parametrize(
    ("options", "y", "words"),
    [
        ({}, lambda r, x: np.full(len(x), 7.0), "constant"),
        ({"resolution": 0, "floor": 0.05}, lambda r, x: r.choice([0.0, 1.0], len(x)), "floor"),
        ({"noise": "fixed", "scale": 50.0}, lambda r, x: r.standard_normal(len(x)), "X does not help to predict y"),
    ],
    ids=["constant", "repeated", "nothing to learn"],
)
def test_a_degenerate_fit_is_said(options, y, words):
    r = np.random.default_rng(4)
    x = r.normal(size=(200, 2))
    with pytest.warns(UserWarning, match=words):
        MixtureDensityRegressor(**QUICK | options).fit(x, y(r, x))


def test_a_row_that_is_far_off_is_named():
    x, y, *_ = bend(500, 5)
    y[321] = 1e6
    with pytest.warns(UserWarning, match=r"y: row 321 is 1e\+06, far from the other rows") as said:
        MixtureDensityRegressor(**QUICK | {"steps": 40}).fit(x, y)
    assert len(said) == 1
    with pytest.warns(UserWarning, match="row 321 .* in entry 1"):
        MixtureDensityRegressor(**QUICK | {"steps": 5}).fit(x, np.stack([x[:, 0], y], 1))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("n", [2, 3, 4, 7])
@pytest.mark.parametrize("members", [1, 2, 8])
def test_few_rows_are_enough_and_repeated_ones_count_once(n, members):
    x, y, *_ = bend(n, 5)
    m = MixtureDensityRegressor(**QUICK | {"steps": 30, "members": members}).fit(x, y)
    assert np.isfinite(m.score(x, y))
    again = MixtureDensityRegressor(**QUICK | {"steps": 30, "members": members}).fit(np.repeat(x, 100, 0), np.repeat(y, 100))
    assert np.isfinite(again.predict(x)).all()


def test_the_distribution_function_is_told_on_the_whole_line(bent, counted):
    ends = [-math.inf, math.inf]
    for m in (bent, counted):
        assert m.cdf([[0.0], [1.0]], ends) == pytest.approx([0, 1], abs=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_a_frame_that_can_be_fitted_can_be_scored():
    x, y, *_ = bend(40, 5)
    frame = pd.DataFrame({"a": pd.array(y, dtype="Float64"), "b": pd.array(np.round(9 * y), dtype="Int64")})
    frame.iloc[3, 0] = frame.iloc[5, 1] = pd.NA
    plain = frame.to_numpy(dtype=float, na_value=math.nan)
    m = MixtureDensityRegressor(**QUICK | {"steps": 20}).fit(x, frame)
    assert m.score(x, frame) == pytest.approx(m.score(x, plain))


def test_a_good_fit_says_nothing():
    x, y, *_ = bend(500, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MixtureDensityRegressor(**QUICK).fit(x, y)


X = np.random.default_rng(6).normal(size=(30, 2))
TIMES = np.arange("2020-01-01", "2020-01-31", dtype="M8[D]")


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: MixtureDensityRegressor(0).fit(X, X[:, 0]), "components"),
        (lambda: MixtureDensityRegressor(noise="round").fit(X, X[:, 0]), "noise"),
        (lambda: MixtureDensityRegressor(calibration=1.0).fit(X, X[:, 0]), "calibration"),
        (lambda: MixtureDensityRegressor(resolution="fine").fit(X, X[:, 0]), "resolution"),
        (lambda: MixtureDensityRegressor(**QUICK | {"steps": 5}).fit(X, X[:, 0]).predict_quantile(X, []), "q: expected"),
        (lambda: MixtureDensityRegressor(**QUICK | {"steps": 5}).fit(X, X[:, 0]).predict_interval(X, [0.5, 0.9]), "level"),
        (lambda: MixtureDensityRegressor(**QUICK | {"steps": 5}).fit(X, X[:, 0]).sample(X, temperature="a"), "temperature"),
        (lambda: MixtureDensityRegressor(**QUICK | {"steps": 5}).fit(X, X[:, 0]).score(X, X[:, 0], X[:, 1]), "[Nn]egative"),
        (lambda: MixtureDensityRegressor(calibration="a").fit(X, X[:, 0]), "calibration"),
        (lambda: MixtureDensityRegressor(resolution=None).fit(X, X[:, 0]), "resolution"),
        (lambda: MixtureDensityRegressor(batch=0).fit(X, X[:, 0]), "batch: expected a whole number"),
        (lambda: MixtureDensityRegressor(steps=2.5).fit(X, X[:, 0]), "steps: expected a whole number"),
        (lambda: MixtureDensityRegressor(rate=math.nan).fit(X, X[:, 0]), "rate: expected a number above 0"),
        (lambda: MixtureDensityRegressor(n_init=0).fit(X, X[:, 0]), "n_init: expected"),
        (lambda: MixtureDensityRegressor().fit(X, X * [1.0, math.nan]), "entry 1 has 0 values to train on"),
        (lambda: MixtureDensityRegressor().fit(X, X[:9, 0]), "one for each row of X, got 9"),
        (lambda: MixtureDensityRegressor().fit(X, TIMES), "y: expected numbers, got times"),
        (lambda: MixtureDensityRegressor().fit(X, TIMES - TIMES[0]), "y: expected numbers, got times"),
        (lambda: MixtureDensityRegressor().fit(X, pd.DataFrame({"a": X[:, 0], "t": TIMES})), "y: expected numbers, got times"),
        (lambda: MixtureDensityRegressor().fit(X, pd.Series(TIMES).astype(object)), "y: expected numbers, got something else"),
        (lambda: MixtureDensityRegressor().fit(pd.DataFrame({"t": TIMES}), X[:, 0]), "X: expected numbers, got times"),
        (lambda: MixtureDensityRegressor().fit(X, 1e200 * X), "y: the largest number is .* in another unit"),
        (lambda: MixtureDensityRegressor().fit(0 * X, 0 * X[:, 0]), "all 30 rows with a weight and a y are equal"),
        (lambda: MixtureDensityRegressor().fit(X, np.full(30, math.nan)), "give more rows"),
        (lambda: MixtureDensityRegressor().fit(X, np.full(30, math.inf)), "infinity"),
        (lambda: MixtureDensityRegressor().fit(np.full((30, 2), math.nan), X[:, 0]), "NaN"),
        (lambda: MixtureDensityRegressor().fit(X, ["a"] * 30), "could not convert"),
        (lambda: MixtureDensityRegressor(**QUICK | {"steps": 5}).fit(X, X[:, 0]).log_prob(X, X), "one row for each"),
        (lambda: MixtureDensityRegressor(**QUICK | {"steps": 5}).fit(X, X[:, 0]).predict_interval(X, 90), "level"),
        (lambda: MixtureDensityRegressor(**QUICK | {"steps": 5}).fit(X, X[:, 0]).predict_quantile(X, 50), "between 0 and 1"),
        (lambda: MixtureDensityRegressor(**QUICK | {"steps": 5}).fit(X, X[:, 0]).sample(X, 0), "1 or more"),
        (lambda: MixtureDensityRegressor(**QUICK | {"steps": 5}).fit(X, X[:, 0]).predict_modes(X, least=2), "least"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_used_is_one_sentence(ask, words):
    with pytest.raises(ValueError, match=words) as caught:
        ask()
    assert "\n" not in str(caught.value).strip() or "NaN" in words
