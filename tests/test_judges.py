"""The law and the judges of benchmarks/known_law.py and benchmarks/tables.py tell the truth."""

from __future__ import annotations

import judges
import numpy as np
import pandas as pd
import pytest
import rivals
from known_law import STEP, Law
from scipy import stats


def test_the_known_law_has_mass_one():
    """By importance sampling from wide independent columns, to 4 standard errors."""
    rng, n = np.random.default_rng(0), 200_000
    z, log_income, t = 2.5 * rng.standard_t(5, n), 7.5 + 1.2 * rng.standard_t(5, n), 3.5 * rng.standard_t(5, n)
    temp, visits = np.round((20 + t) / STEP) * STEP, rng.geometric(0.12, n) - 1
    frame = pd.DataFrame(
        {
            "plan": rng.choice(["basic", "plus", "team"], n), "region": rng.choice(list("nesw"), n), "length": 100 + 3 * z,
            "income": np.exp(log_income), "temp": temp, "visits": visits, "paid": rng.choice(["no", "yes"], n),
        }
    )  # fmt: skip
    cell = stats.t.cdf((temp - 20 + STEP / 2) / 3.5, 5) - stats.t.cdf((temp - 20 - STEP / 2) / 3.5, 5)
    proposal = (
        stats.t.logpdf(z / 2.5, 5) - np.log(2.5 * 3) + stats.t.logpdf((log_income - 7.5) / 1.2, 5) - np.log(1.2) - log_income
        + np.log(cell / STEP) + stats.geom.logpmf(visits + 1, 0.12) - np.log(3 * 4 * 2)
    )  # fmt: skip
    with np.errstate(divide="ignore"):  # far proposals have no mass in float64
        weights = np.exp(Law.nats(frame) - proposal)
    assert weights.mean() == pytest.approx(1, abs=4 * weights.std() / n**0.5)
    assert weights.std() / n**0.5 < 0.05


def test_the_known_law_is_that_of_its_samples():
    """A law q that it could be mistaken for has mass one under it: E q/p = 1, q with income 5 % larger, visits two more."""
    frame = Law.sample(200_000, 0)
    moved = frame.assign(income=frame["income"] / 1.05)
    ratio = np.exp(Law.nats(moved) - Law.nats(frame)) / 1.05
    assert ratio.mean() == pytest.approx(1, abs=4 * ratio.std() / len(ratio) ** 0.5)
    assert ratio.std() / len(ratio) ** 0.5 < 0.01


def table(n: int, seed: int, tie: float) -> pd.DataFrame:
    """Two numbers with this correlation, and the sign of the first as a label."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n)
    y = tie * x + (1 - tie**2) ** 0.5 * rng.standard_normal(n)
    return pd.DataFrame({"x": x, "y": y, "sign": np.where(x > 0, "up", "down")})


def test_judges_see_no_difference_between_equal_laws_and_the_one_there_is():
    test, same, independent = table(1_000, 0, 0.9), table(1_000, 1, 0.9), table(1_000, 2, 0.0)
    value, error = judges.c2st(test, same, ["sign"], 0)
    assert abs(value - 0.5) < 4 * error + 0.02
    assert judges.c2st(test, independent, ["sign"], 0)[0] > 0.75
    assert max(judges.margins(test, independent, ["sign"]).values()) < 0.08
    correlation, _ = judges.pairs(test, independent, ["sign"])
    assert correlation == pytest.approx(stats.spearmanr(test["x"], test["y"])[0], abs=0.1)
    assert judges.tstr(test, same, ["sign"], "y", True, 800, 0)[0] > 0.7
    assert judges.tstr(test, independent, ["sign"], "y", True, 800, 0)[0] < 0.1


def test_rows_that_are_copied_are_found():
    train, test = table(800, 0, 0.5), table(800, 1, 0.5)
    assert judges.copying(train, test, train, ["sign"])[0] == pytest.approx(1, abs=0.02)
    value, error = judges.copying(train, test, table(800, 2, 0.5), ["sign"])
    assert abs(value - 0.5) < 4 * error + 0.01
    same = np.random.default_rng(0).standard_normal((2, 500))
    assert abs(judges.membership(same[0], same[1])[0] - 0.5) < 0.1


@pytest.mark.parametrize("name", ["smote", "copula"])
def test_own_rivals_keep_margins_and_labels(name):
    train = table(600, 0, 0.8).assign(count=lambda f: (f["x"] * 3).round())
    train.loc[::10, "y"] = np.nan
    new, _ = rivals.TABLE[name](train, ["sign"], 900, 1.0, 0)
    assert list(new) == list(train) and len(new) == 900
    assert set(new["sign"]) <= {"up", "down"} and (new["count"] % 1 == 0).all()
    assert abs(float(new["y"].isna().mean()) - 0.1) < 0.04
    assert abs(new["x"].mean() - train["x"].mean()) < 0.15
    assert stats.spearmanr(new["x"], new["count"])[0] > 0.9
