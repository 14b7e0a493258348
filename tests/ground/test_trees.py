"""Forests as tensors equal those of scikit-learn, bit for bit, and files that hold no forest are refused."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.tree import DecisionTreeRegressor

from mixtura.contracts import InputError
from mixtura.ground.trees import Forest, _unrounded

torch.set_num_threads(1)
NAMES = ("feature", "threshold", "missing_left", "left", "roots", "value", "baseline", "width")


def table(n=600, seed=0, missing=0.15):
    """Real numbers, whole numbers, a constant, numbers that differ only beyond float32, and ones that are nearly all missing."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 5))
    X[:, 1] = X[:, 1].round()
    X[:, 2] = 7.0
    X[:, 3] = 1 + 1e-9 * X[:, 3].round(1)
    y = 2 * X[:, 0] * X[:, 1] + 1e9 * (X[:, 3] - 1) + rng.standard_normal(n)
    X[rng.random(X.shape) < missing] = np.nan
    X[7:, 4] = np.nan
    return X, y


def at_thresholds(forest, X):
    """Rows of X with an entry moved to a threshold of the forest, or to its neighbour in float64 or float32."""
    rng, feature = np.random.default_rng(1), forest.feature.numpy()
    threshold = forest.threshold.numpy()
    inner = np.flatnonzero(np.isfinite(threshold))
    if not len(inner):
        return X
    rows = X[rng.integers(len(X), size=4 * len(inner))]
    t = threshold[inner]
    single = t.astype(np.float32)
    near = [t, np.nextafter(t, np.inf), single.astype(float), np.nextafter(single, np.float32(-np.inf)).astype(float)]
    for k, values in enumerate(near):
        rows[np.arange(len(inner)) + k * len(inner), feature[inner]] = values
    return np.concatenate([X, rows])


def same_partition(ours, theirs):
    """Whether two names of leaves (n, T) part the rows alike in every tree."""
    pairs = [np.unique(np.stack([a, b]), axis=1).shape[1] for a, b in zip(ours.T, theirs.T, strict=True)]
    return pairs == [len(np.unique(a)) for a in ours.T] == [len(np.unique(b)) for b in theirs.T]


def chain(n=60):
    """A table whose tree is a chain: every split takes the greatest number away."""
    x = np.arange(n, dtype=float)[:, None]
    return x, 4.0 ** np.arange(n)


GROWN = {
    "tree": lambda X, y: DecisionTreeRegressor(random_state=0).fit(X, y),
    "forest": lambda X, y: RandomForestRegressor(9, random_state=0).fit(X, y),
    "extra": lambda X, y: ExtraTreesRegressor(9, random_state=0).fit(np.nan_to_num(X), y),
    "two targets": lambda X, y: RandomForestRegressor(5, random_state=0).fit(X, np.stack([y, -y * y], 1)),
    "one node": lambda X, y: RandomForestRegressor(3, min_samples_leaf=len(X)).fit(X, y),
    "complete": lambda X, y: RandomForestRegressor(4, random_state=0).fit(np.nan_to_num(X), y),
}


@pytest.mark.parametrize("kind", GROWN)
def test_rows_come_to_the_leaves_of_the_library_and_leave_with_its_prediction(kind):
    X, y = table()
    model = GROWN[kind](X, y)
    forest = Forest.of(model)
    rows = at_thresholds(forest, table(400, seed=1)[0])
    if kind == "extra" or kind == "complete":
        rows = np.concatenate([np.nan_to_num(rows), rows] if kind == "complete" else [np.nan_to_num(rows)])
    x = torch.as_tensor(rows)
    theirs = model.apply(rows).reshape(len(rows), -1)
    assert same_partition(forest.leaves(x).numpy(), theirs)
    assert torch.equal(forest.values(x), forest.value[forest.leaves(x)])
    np.testing.assert_array_equal(forest.predict(x)[:, 0].numpy() / forest.trees, model.predict(rows))


def boosted(kind, X, y):
    if kind == "classes":
        return HistGradientBoostingClassifier(max_iter=12, random_state=0).fit(X, np.digitize(y, [-1.0, 0.5]))
    if kind == "halves":
        return HistGradientBoostingClassifier(max_iter=12, random_state=0).fit(X, y > 0)
    return HistGradientBoostingRegressor(max_iter=1 if kind == "one node" else 25, random_state=0, **HIST.get(kind, {})).fit(X, y)


HIST = {
    "regression": {},
    "deep": {"max_leaf_nodes": None, "min_samples_leaf": 1, "learning_rate": 1.0},
    "one node": {"min_samples_leaf": 1000},
    "quantile": {"loss": "quantile", "quantile": 0.3},
}


@pytest.mark.parametrize("kind", [*HIST, "classes", "halves"])
def test_boosted_trees_sum_to_the_raw_prediction_of_the_library(kind):
    X, y = table(1500)
    model = boosted(kind, X, y)
    forest = Forest.of(model)
    rows = at_thresholds(forest, table(400, seed=1)[0])
    # the library takes infinite inputs here, and so a leaf must stay one
    rows[:5, 0], rows[5:10, 0], rows[10:20, 1] = np.inf, -np.inf, -np.inf
    got, want = forest.predict(torch.as_tensor(rows)).numpy(), model._raw_predict(rows)
    np.testing.assert_array_equal(got, want)
    if kind in HIST:
        np.testing.assert_array_equal(got[:, 0], model.predict(rows))
    else:
        np.testing.assert_array_equal(got.reshape(model.decision_function(rows).shape), model.decision_function(rows))
    if kind == "one node":
        assert len(forest.left) == 1
    known, where = model._bin_mapper.make_known_categories_bitsets()
    steps = [predictor.predict(rows, known, where, 1) for of_round in model._predictors for predictor in of_round]
    np.testing.assert_array_equal(forest.values(torch.as_tensor(rows)).numpy(), np.stack(steps, 1))


def test_the_tables_ask_the_hard_questions():
    """Nodes that send NaN either way, and a split of NaN from all numbers."""
    X, y = table(1500)
    X[:, 1] = np.where(y > 0, np.nan, 3.0)
    for forest in (Forest.of(RandomForestRegressor(5, random_state=0).fit(X, y)), Forest.of(boosted("regression", X, y))):
        inner = forest.left != torch.arange(len(forest.left))
        assert {True, False} == set(forest.missing_left[inner].tolist())
    model = RandomForestRegressor(5, random_state=0).fit(X, y)
    forest = Forest.of(model)
    inner = forest.left != torch.arange(len(forest.left))
    assert torch.isinf(forest.threshold[inner]).any()
    np.testing.assert_array_equal(forest.predict(torch.as_tensor(X))[:, 0].numpy() / 5, model.predict(X))


def test_a_chain_deeper_than_thirty_is_walked_to_its_end():
    x, y = chain()
    model = DecisionTreeRegressor(random_state=0).fit(x, y)
    assert model.get_depth() > 30
    np.testing.assert_array_equal(Forest.of(model).predict(torch.as_tensor(x))[:, 0].numpy(), model.predict(x))


def test_a_threshold_without_rounding_parts_numbers_as_the_library_does_after_rounding():
    rng = np.random.default_rng(0)
    single = np.concatenate([
        rng.standard_normal(500), rng.standard_normal(500) * 1e-44, 10.0 ** rng.uniform(-45, 38, 500),
        [0.0, -0.0, 1.0, -1.0, 2.0**-149, -(2.0**-149), 1.9e38, -1.9e38],
    ]).astype(np.float32)  # fmt: skip
    above = np.nextafter(single, np.float32(np.inf)).astype(float)
    middle = (single.astype(float) + above) / 2
    for t in (single.astype(float), middle, np.nextafter(middle, np.inf), np.nextafter(single.astype(float), -np.inf)):
        limit = _unrounded(t)
        for x in (middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf), single.astype(float), above, limit):
            for value in (x, np.nextafter(x, np.inf)):
                np.testing.assert_array_equal(value <= limit, value.astype(np.float32) <= t)
    assert _unrounded(np.array([np.inf]))[0] == np.inf
    most = float(np.finfo(np.float32).max)
    with np.errstate(over="ignore"):
        for x in (most, most * (1 + 2**-26), 1e300, -most, -most * (1 + 2**-26), -1e300):
            for t in (most, -most, 1e39, -1e39):
                assert (x <= _unrounded(np.array([t]))[0]) == (float(np.float32(x)) <= t)


def test_single_precision_rows_and_no_rows_at_all():
    forest, X = small(), torch.as_tensor(table(50, seed=2)[0])
    assert torch.equal(forest.leaves(X.float()), forest.leaves(X.float().double()))
    assert forest.leaves(X[:0]).shape == (0, 4) and forest.values(X[:0]).shape == (0, 4)
    assert forest.predict(X[:0]).shape == (0, 1)
    for i in range(3):
        assert torch.equal(forest.leaves(X[i : i + 1])[0], forest.leaves(X)[i])


def test_tiles_change_nothing(monkeypatch):
    forest, X = small(), torch.as_tensor(table(333, seed=2)[0])
    whole = forest.leaves(X)
    monkeypatch.setattr("mixtura.ground.trees.TILE_ENTRIES", 40)
    assert torch.equal(forest.leaves(X), whole)


@pytest.mark.parametrize("shape", [(3, 4), (3, 6), (5,), (3, 5, 1)])
def test_a_wrong_width_is_named(shape):
    for ask in (small().leaves, small().values, small().predict):
        with pytest.raises(InputError, match=r"x: expected shape \(n, 5\)"):
            ask(torch.zeros(*shape))
        with pytest.raises(InputError, match=r"x: expected shape \(n, 5\), .* got ndarray"):
            ask(np.zeros((3, 5)))


# ------------------------------------------------------------------------------------------- forests of forests


@cache
def small():
    X, y = table(300)
    return Forest.of(RandomForestRegressor(4, max_leaf_nodes=9, random_state=0).fit(X, y))


def test_joined_forests_are_one_beside_the_other():
    X, y = table(800)
    parts = [Forest.of(boosted(kind, X, y)) for kind in ("regression", "quantile", "one node")]
    joined, x = Forest.join(parts), torch.as_tensor(X)
    assert torch.equal(joined.values(x), torch.cat([f.values(x) for f in parts], 1))
    torch.testing.assert_close(joined.predict(x), torch.stack([f.predict(x) for f in parts]).sum(0), rtol=1e-12, atol=1e-12)
    assert torch.equal(Forest.join(parts[:1]).predict(x), parts[0].predict(x))


@pytest.mark.parametrize("other", [lambda: Forest.blank(4), lambda: Forest.blank(5, 4, (2,)), None])
def test_forests_of_another_shape_are_not_joined(other):
    with pytest.raises(InputError, match="to join, got (width|none)"):
        Forest.join([small(), other()] if other else [])


def test_leaves_hold_what_they_are_given():
    forest, x = small(), torch.as_tensor(table(20)[0])
    number = torch.arange(len(forest.value), dtype=torch.float64)
    held = forest.holding(torch.stack([number, -number, 2 * number], 1))
    assert held.values(x).shape == (20, 4, 3) and torch.equal(held.values(x)[..., 2], 2 * forest.leaves(x).double())
    assert torch.equal(held.predict(x)[:, 0, 1], -forest.leaves(x).double().sum(1))
    with pytest.raises(InputError, match="one row for each leaf"):
        forest.holding(number[1:])


# ------------------------------------------------------------------------------------------------ states


def test_a_state_is_all_there_is_of_a_forest():
    X, y = table(800)
    x = torch.as_tensor(X)
    for forest in (small(), Forest.of(boosted("classes", X, y)), Forest.of(GROWN["two targets"](X, y))):
        again = Forest.blank(1)
        again.load_state_dict(forest.state_dict())
        assert set(forest.state_dict()) == set(NAMES)
        assert torch.equal(again.predict(x), forest.predict(x)) and torch.equal(again.leaves(x), forest.leaves(x))
        # what was loaded is a copy
        again.value.add_(1)
        assert not torch.equal(again.predict(x), forest.predict(x))
    inside = torch.nn.ModuleDict({"f": Forest.blank(1)})
    inside.load_state_dict({f"f.{name}": tensor for name, tensor in small().state_dict().items()})
    assert torch.equal(inside["f"].predict(x), small().predict(x))


def edited(name, change):
    state = {key: tensor.clone() for key, tensor in small().state_dict().items()}
    state[name] = change(state[name])
    return state


def entry(i, value):
    def change(tensor):
        tensor[i] = value
        return tensor

    return change


HOSTILE = {
    "a child beyond the last": ("left", entry(0, 2**31 - 1)),
    "a right child beyond the last": ("left", lambda t: entry(0, len(t) - 1)(t)),
    "a child before the first": ("left", entry(0, -5)),
    "a circle": ("left", entry(2, 0)),
    "an inner node that stays": ("left", entry(0, 0)),
    "a leaf that moves": ("left", lambda t: entry(-4, len(t) - 2)(t)),
    "a leaf that sends NaN away": ("missing_left", entry(-1, False)),
    "a threshold that is none": ("threshold", entry(0, float("nan"))),
    "a leaf with a threshold": ("threshold", entry(-1, 0.0)),
    "a column that is not there": ("feature", entry(0, 5)),
    "a column before the first": ("feature", entry(0, -1)),
    "a root that is no node": ("roots", entry(1, 10**6)),
    "no trees": ("roots", lambda t: t[:0]),
    "too few thresholds": ("threshold", lambda t: t[1:]),
    "no nodes": ("left", lambda t: t[:0]),
    "too few leaves": ("value", lambda t: t[1:]),
    "values of another shape": ("value", lambda t: t[:, None]),
    "values without an axis": ("value", lambda t: t[0]),
    "no baseline": ("baseline", lambda t: t[:0]),
    "three classes of four trees": ("baseline", lambda t: t.expand(3).clone()),
    "another dtype": ("left", lambda t: t.double()),
    "another number of axes": ("roots", lambda t: t[None]),
    "a negative width": ("width", lambda t: -t),
    "a narrow width": ("width", lambda t: t - 4),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_what_is_no_forest_is_refused_however_it_comes(how):
    state = edited(*HOSTILE[how])
    with pytest.raises(InputError, match="^a forest: "):
        Forest(**state)
    with pytest.raises(InputError, match="^a forest: "):
        Forest.blank(1).load_state_dict(state)
    # a run folder sets buffers one by one
    forest = Forest.blank(5)
    for name, tensor in state.items():
        setattr(forest, name, tensor)
    with pytest.raises(InputError, match="^a forest: "):
        forest.leaves(torch.zeros(2, 5))


def test_a_state_with_a_name_too_few_is_refused():
    state = small().state_dict()
    del state["left"]
    with pytest.raises(InputError, match="'left' is unexpected or missing"):
        Forest(**state)
    with pytest.raises(RuntimeError, match="left"):
        Forest.blank(1).load_state_dict(state)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (lambda X, y: GradientBoostingRegressor(n_estimators=2).fit(np.nan_to_num(X), y), "got GradientBoostingRegressor"),
        (lambda X, y: None, "got NoneType"),
        (lambda X, y: RandomForestRegressor(), "no trees yet"),
        (lambda X, y: HistGradientBoostingRegressor(categorical_features=[1]).fit(np.abs(X), y), "splits by categories"),
    ],
)
def test_what_cannot_be_taken_over_is_refused(model, named):
    with pytest.raises(InputError, match=f"^a forest: .*{named}"):
        Forest.of(model(*table(200)))
