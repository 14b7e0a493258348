"""The scikit-learn face of density ratios: units, kinds of columns, seeds, what cannot be used."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

import mixtura
from mixtura import DensityRatio
from mixtura.contracts import InputError, Note


def table(n: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    """A number of mean 100 and deviation 3, a level, a number with gaps."""
    rng = np.random.default_rng(seed)
    gaps = np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n))
    return pd.DataFrame({"x": rng.normal(100 + shift, 3, n), "k": rng.choice(["a", "b"], n, p=[0.5, 0.5]), "gaps": gaps})


@pytest.fixture(scope="module")
def fitted() -> DensityRatio:
    return DensityRatio(random_state=0).fit(table(600, 0), table(900, 1, 3.0))


def test_the_ratio_is_in_the_units_of_the_rows(fitted):
    """log N(x; 100, 9) − log N(x; 103, 9) = (101.5 − x)/3."""
    x = pd.DataFrame({"x": [95.0, 101.5, 108.0], "k": ["a", "b", "a"], "gaps": [np.nan, 0.5, -0.5]})
    assert np.abs(fitted.log_ratio(x) - (101.5 - x["x"]) / 3).max() < 0.5
    assert fitted.method_ == "logistic"


def test_the_posterior_is_that_of_the_prior(fitted):
    x = table(50, 7)
    odds = np.exp(fitted.log_ratio(x))
    assert np.allclose(fitted.posterior(x, prior=0.2), 0.2 * odds / (0.2 * odds + 0.8))


def test_divergences_have_errors_and_are_near_the_truth(fitted):
    """KL = ½ (3/3)²."""
    for name in ("kl", "reverse_kl"):
        found = fitted.divergence(name)
        assert abs(found.value - 0.5) < 4 * found.error and 0.01 < found.error < 0.1
    assert fitted.divergence(1.0).value == fitted.divergence("kl_bound").value


def test_every_method_that_was_tried_is_in_the_scores(fitted):
    assert fitted.scores_.loc[0, "method"] == fitted.method_ and fitted.scores_["score"].is_monotonic_decreasing
    assert (fitted.scores_["score"].dropna() > -5).all() and len(fitted.scores_) >= 4


def test_equal_laws_have_no_divergence():
    found = DensityRatio(random_state=0).fit(table(300, 0), table(300, 1)).divergence("js")
    assert abs(found.value) < 3 * found.error + 0.005


def test_arrays_images_and_files_are_taken(tmp_path):
    rng = np.random.default_rng(0)
    p, q = rng.normal(size=(200, 2)).astype(np.float16), rng.normal(1, 1, size=(2, 200)).T
    r = DensityRatio("logistic", random_state=0).fit(p, q)
    assert np.isfinite(r.log_ratio(q[:5])).all()
    pd.DataFrame({"x": p[:, 0]}).to_csv(tmp_path / "p.csv", index=False)
    pd.DataFrame({"x": q[:, 0]}).to_csv(tmp_path / "q.csv", index=False)
    assert DensityRatio("gaussian").fit(tmp_path / "p.csv", str(tmp_path / "q.csv")).divergence("kl").value > 0.2
    images = rng.integers(0, 17, (2, 40, 8, 8)).astype(np.uint8)
    of_images = DensityRatio("logistic").fit(images[0], images[1] // 2)
    assert np.isfinite(of_images.log_ratio(images[0][:3])).all()


def test_far_rows_are_said_to_be_far(fitted):
    x = pd.DataFrame({"x": [100.0, 1e6], "k": ["a", "z"], "gaps": [0.0, 0.0]})
    with pytest.warns(Note, match="1 of 2 rows are far from all rows of p and q"):
        values = fitted.log_ratio(x)
    assert np.isfinite(values).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted.log_ratio(table(200, 11))


def test_same_seed_same_bits_and_clones():
    p, q, x = table(80, 0), table(80, 1, 2.0), table(10, 2)
    first = DensityRatio("trees", random_state=3).fit(p, q)
    again = clone(first).fit(p, q)
    assert np.array_equal(first.log_ratio(x), again.log_ratio(x))
    assert first.get_params() == {"method": "trees", "features": None, "random_state": 3}
    assert isinstance(first, mixtura.DensityRatio)


@pytest.mark.parametrize(
    ("p", "q", "said"),
    [
        (table(9, 0), table(50, 1), "p: expected 10 rows or more, got 9"),
        (table(50, 0), table(50, 1)[["x"]], "q: no column 'k', which p has"),
        (np.zeros((0, 2)), np.zeros((50, 2)), "p"),
        (table(50, 0).assign(x=np.inf), table(50, 0), "infinite|inf"),
        ("none.csv", table(50, 0), "none.csv"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(p, q, said):
    with pytest.raises(InputError, match=said) as caught:
        DensityRatio().fit(p, q)
    assert "\n" not in str(caught.value)


def test_a_wrong_method_prior_or_divergence_is_named(fitted):
    with pytest.raises(InputError, match="method: 'x' is unknown"):
        DensityRatio("x").fit(table(50, 0), table(50, 1))
    with pytest.raises(InputError, match="prior: expected a share between 0 and 1"):
        fitted.posterior(table(5, 0), prior=1.0)
    with pytest.raises(InputError, match="divergence: expected one of kl"):
        fitted.divergence("js2")
    with pytest.raises(InputError, match="features: expected the name of features"):
        DensityRatio("knn", features=3).fit(table(50, 0), table(50, 1))


def test_an_array_of_more_columns_is_refused():
    p, q = (np.random.default_rng(seed).normal(size=(60, 3)) for seed in (0, 1))
    found = DensityRatio("gaussian").fit(p, q)
    assert found.log_ratio(p).shape == (60,)
    with pytest.raises(InputError, match="x: has 4 columns, learnt from 3"):
        found.log_ratio(np.c_[p, p[:, 0]])
    with pytest.raises(InputError, match="x: no column 'x2'"):
        found.log_ratio(p[:, :2])


def test_the_same_rows_have_no_divergence():
    """The copy of a row that is left out is in the other sample; a classifier that learns it is wrong about the row."""
    rows = table(300, 0)
    assert abs(DensityRatio("trees").fit(rows, rows).divergence("js").value) < 0.01


def test_before_fit_there_is_no_ratio():
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        DensityRatio().log_ratio(table(5, 0))
    with pytest.raises(NotFittedError):
        DensityRatio().divergence()


def test_constant_columns_and_one_kind_of_row(fitted):
    """Nothing differs: a ratio of 1."""
    p, q = pd.DataFrame({"x": [1.0] * 30 + [2.0]}), pd.DataFrame({"x": [1.0] * 30 + [2.0]})
    found = DensityRatio(random_state=0).fit(p, q)
    assert abs(found.divergence("js").value) < 0.05 and math.isfinite(found.log_ratio(p)[0])
