"""``evaluate`` on pairs of sets whose difference is known, and what it says to pairs that cannot be compared."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import mixtura
from mixtura.contracts import InputError, Note
from mixtura.data.guess import guess
from mixtura.features.space import FeatureSpace
from mixtura.ground.rng import generator
from mixtura.metrics import TABLE


def people(n, seed, centre=100.0, red=0.5):
    rng = np.random.default_rng(seed)
    size = rng.normal(centre, 3, n).round(1)
    size[::9] = np.nan
    return pd.DataFrame({"size": size, "colour": rng.choice(["red", "blue"], n, p=[red, 1 - red]), "count": rng.poisson(20, n)})


def blobs(n, seed, level=90):
    """8×8 images in levels 0 … 255, brighter on one side."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(np.linspace(level, 255 - level, 8), 30, (n, 8, 8)), 0, 255).astype(np.uint8)


def values(*given, **options):
    table = mixtura.evaluate(*given, **options).set_index("metric")
    assert np.isfinite(table["value"]).all() and (table["error"] >= 0).all()
    return table


SETS = {
    "table": (people(400, 1), people(300, 2), people(300, 3, centre=106.0, red=0.9)),
    "images": (blobs(400, 1), blobs(250, 2), blobs(250, 3, level=40)),
}


@pytest.mark.parametrize("kind", SETS)
def test_another_law_is_farther_than_the_same_law_by_every_metric(kind):
    real, same, other = SETS[kind]
    near, far = values(real, same), values(real, other)
    compared = [row.name for row in TABLE.values() if row.takes == "features" or (kind == "table" and row.takes == "columns")]
    assert list(near.index) == list(far.index) == compared and len(compared) >= 8
    for name in compared:
        if name in ("vendi", "rke", "precision", "recall", "density"):
            continue  # another law can be as diverse, or lie where the real one is dense
        worse = far.value[name] > near.value[name] if near.better[name] == "lower" else far.value[name] < near.value[name]
        assert worse, name
    assert abs(near.value["mmd2"]) < 4 * near.error["mmd2"] < far.value["mmd2"]
    assert abs(near.value["c2st"] - 0.5) < 4 * near.error["c2st"] and far.value["c2st"] > 0.7


def test_copies_of_the_training_rows_are_memorised():
    train, real = people(300, 4), people(300, 5)
    assert values(real, train.copy(), train=train).value["memorisation"] > 0.9
    assert abs(values(real, people(300, 6), train=train).value["memorisation"] - 0.5) < 0.15


def test_a_file_given_twice_is_named_and_no_good_generator():
    real = people(400, 1)
    with pytest.warns(UserWarning, match="real and generated are the same rows: .* that it has not seen"):
        table = mixtura.evaluate(real, real.copy()).set_index("metric")
    assert np.isnan(table.value["c2st"]) and "depend on one another" in table.reason["c2st"]
    mixed = pd.concat([people(300, 2), real[:200]])
    with pytest.warns(UserWarning, match="share [12][0-9][0-9] equal rows"):
        mixtura.evaluate(real, mixed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (mixtura.evaluate(real, people(300, 2)).reason == "").all()


def test_fewer_rows_than_features_have_no_frechet_distance():
    x = np.random.default_rng(0).normal(size=(160, 60))
    table = mixtura.evaluate(x[:80], x[80:]).set_index("metric")
    assert np.isnan(table.value["frechet"]) and "too few for 60 features" in table.reason["frechet"]


def test_features_can_be_chosen_and_the_seed_repeats_everything():
    real, same, _ = SETS["images"]
    once, again, pixels = (mixtura.evaluate(real, same, features=f, seed=3) for f in ("conv:16", "conv:16", "pixels"))
    pd.testing.assert_frame_equal(once, again)
    assert (once.value != pixels.value).any()


def listed(n, seed):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"i": rng.integers(0, 50, n), "b": rng.random(n) < 0.5, "c": rng.choice(["A", "B", "C"], n), "k": 1})


@pytest.mark.parametrize(
    ("change", "said", "worst"),
    [
        ({"i": lambda f: f.i + 1000}, "", 0.0),
        ({"i": lambda f: f.i - 1000}, "column 'i' below 0", 0.0),
        ({"c": "D"}, "column 'c', level 'D' never seen (300 rows)", 0.3),
        ({"k": 2}, "column 'k', level 2 never seen (300 rows)", 0.3),
        ({"i": lambda f: f.i + 0.3}, "column 'i' off its steps (300 rows)", 1.0),
    ],
)
def test_rows_are_judged_as_they_were_made(change, said, worst):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Note)
        found = mixtura.evaluate(listed(300, 1), listed(300, 2).assign(**change)).set_index("metric").value
    notes = [str(w.message) for w in caught if w.category is Note]
    counted = "generated: 300 of 300 rows have values that real rows cannot have: "
    assert notes == [counted + said] * bool(said) or notes[0].startswith(counted + said)
    assert found["precision"] <= worst
    if worst < 1:
        assert found["same_law"] < 0.01 and found["marginal_distance"] > 0.1


def test_truth_as_numbers_is_the_same_table():
    real, made = listed(300, 1), listed(300, 2)
    as_it_is = mixtura.evaluate(real, made)
    for written in (made.b.astype(int), made.b.astype(str), made.b.astype(int).astype(str)):
        pd.testing.assert_frame_equal(mixtura.evaluate(real, made.assign(b=written)), as_it_is)


@pytest.mark.parametrize(
    ("real", "generated", "said"),
    [
        (SETS["images"][0], SETS["table"][1], "generated"),
        (SETS["table"][0], SETS["images"][1], "holds images, expected a table"),
        (SETS["table"][0], people(300, 2).drop(columns="size"), "no column 'size'"),
        (SETS["images"][0], blobs(20, 1)[:, :6], "8"),
        (SETS["table"][0], people(5, 1), "generated: 5 rows are too few to compare"),
    ],
)
def test_sets_that_cannot_be_compared_are_named(real, generated, said):
    with pytest.raises(InputError, match=said):
        mixtura.evaluate(real, generated)


@pytest.mark.parametrize("seed", range(5))
def test_independent_columns_are_compared_by_the_median_distance(seed):
    """Shuffled columns are of the same law then, and the best of five bandwidths would be one of noise."""
    x = torch.randn(300, 6, generator=generator(seed), dtype=torch.float64)
    schema = guess(pd.DataFrame(x.numpy()))
    features = FeatureSpace.of_rows(schema, x, None, seed=0)
    assert features.kernel.bandwidth == pytest.approx(float(torch.pdist(features(x)).median()), rel=0.1)
    x[:, 1:] = x[:, :1] + 0.1 * x[:, 1:]
    assert FeatureSpace.of_rows(schema, x, None, seed=0).kernel.bandwidth < features.kernel.bandwidth / 2
