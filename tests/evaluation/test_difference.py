"""``compare``: what differs is found, what does not is not, and where is said in words that are true."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import mixtura
from mixtura.contracts import InputError, Note
from mixtura.data import source
from mixtura.evaluation.where import columns_that_differ, regions_that_differ
from mixtura.ground.rng import generator
from mixtura.metrics.classifier import same_law_by_classifier


def people(n: int, seed: int, older: float = 0.0, nurses: float = 0.2) -> pd.DataFrame:
    """Whole ages, a job, a wage with gaps, dates."""
    rng = np.random.default_rng(seed)
    job = rng.choice(["clerk", "driver", "nurse"], n, p=[0.8 - nurses, 0.2, nurses])
    wage = np.where(rng.random(n) < 0.1, np.nan, rng.lognormal(3, 0.4, n).round(2))
    day = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 366, n), "D")
    return pd.DataFrame({"age": rng.normal(40 + older, 10, n).round(), "job": job, "wage": wage, "day": day})


@pytest.fixture(scope="module")
def differing() -> mixtura.Difference:
    return mixtura.compare(people(500, 0), people(700, 1, older=6, nurses=0.4), seed=0)


def test_a_shift_is_found_with_its_size(differing):
    """KL of ages .18 (6/10 squared, halved), of jobs .6 log(.6/.4) + .2 log(.2/.4) = .105; of the rest nothing."""
    assert differing.differ and differing.p < 1e-3 and "differ (p < 0.001)" in differing.verdict
    kl = differing.divergences["kl"]
    assert abs(kl.value - 0.285) < 4 * kl.error + 0.03 and kl.error < 0.06
    assert differing.rows == (500, 700) and not differing.same_rows and differing.shared == 0


def test_the_columns_that_differ_come_first_and_the_others_do_not_differ(differing):
    found = {column.column: column for column in differing.columns}
    assert {c.column for c in differing.columns[:2]} == {"age", "job"}
    assert found["age"].p < 1e-6 and found["job"].p < 1e-6 and found["wage"].p > 0.05 and found["day"].p > 0.05
    assert found["job"].distance == pytest.approx(0.2, abs=0.06) and found["age"].detail.startswith("median ")
    assert "→" in found["job"].detail and found["job"].detail.split(":")[0] in ("clerk", "nurse")


def test_the_shares_of_a_region_are_those_of_the_rows(differing):
    assert differing.regions
    a, b = people(500, 0), people(700, 1, older=6, nurses=0.4)
    for region in differing.regions:
        shares = [_inside(frame, region.rule).mean() for frame in (a, b)]
        assert abs(shares[0] - region.share_a) < 4 * region.error and abs(shares[1] - region.share_b) < 4 * region.error
        assert abs(region.share_a - region.share_b) > 2 * region.error


def _inside(frame: pd.DataFrame, rule: str) -> pd.Series:
    inside = pd.Series(True, frame.index)
    for part in rule.split(" and "):
        name, _, rest = part.partition(" ")
        column = frame[name]
        if rest.startswith(("> ", "≤ ")):
            cut = pd.Timestamp(rest[2:]) if name == "day" else float(rest[2:])
            filled = column.fillna(column.median()) if name == "wage" else column
            inside &= filled > cut if rest.startswith("> ") else filled <= cut
        else:
            answer = {"is missing": column.isna(), "is there": column.notna()}.get(rest)
            level = rest.removeprefix("is ").removeprefix("not ")
            inside &= answer if answer is not None else (column != level if rest.startswith("is not ") else column == level)
    return inside


def test_rows_most_unlike_the_other_set_are_shown(differing):
    (first, times), (second, others) = differing.most_like
    assert 1 <= len(first) <= 5 and list(times) == sorted(times, reverse=True) and min(times) > 1 and min(others) > 1
    assert first["age"].mean() < second["age"].mean()


def test_halves_of_one_set_do_not_differ():
    """Of 12 halvings; benchmarks/compare.py has 200."""
    frame, said = people(400, 3), []
    for seed in range(12):
        order = np.random.default_rng(seed).permutation(400)
        halves = (frame.iloc[order[:200]].reset_index(drop=True), frame.iloc[order[200:]].reset_index(drop=True))
        said.append(mixtura.compare(*halves, method="logistic", seed=seed))
    assert sum(found.differ for found in said) <= 2
    assert any(found.verdict.startswith("no difference found (p = ") for found in said)
    assert all(abs(found.divergences["js"].value) < 4 * found.divergences["js"].error + 0.01 for found in said)


def test_a_file_and_itself_are_the_same_rows(tmp_path):
    people(60, 0).to_csv(tmp_path / "a.csv", index=False)
    found = mixtura.compare(tmp_path / "a.csv", str(tmp_path / "a.csv"), method="logistic")
    assert found.verdict == "a.csv and a.csv are the same rows" and found.same_rows and not found.differ
    assert np.isnan(found.divergences["kl"].value) and "share 60 rows" in found.divergences["kl"].reason


def test_rows_in_both_sets_are_counted():
    a = people(200, 0)
    b = pd.concat([people(200, 1), a.iloc[:40]], ignore_index=True)
    found = mixtura.compare(a, b, method="logistic")
    assert found.shared >= 40 and "rows of b are also in a, more than chance gives" in found.verdict


def test_what_one_set_alone_has_is_a_difference():
    """A level, a gap, a constant that the other set has not."""
    a = pd.DataFrame({"x": np.random.default_rng(0).normal(size=200), "k": ["u"] * 200})
    b = pd.DataFrame({"x": np.random.default_rng(1).normal(size=200), "k": ["u"] * 150 + ["v"] * 50})
    found = mixtura.compare(a, b, method="trees")
    assert found.differ and found.columns[0].column == "k" and found.columns[0].p < 1e-6
    b.loc[:60, "x"] = np.nan
    missing = mixtura.compare(a[["x"]], b[["x"]], method="trees")
    assert missing.columns[0].detail.startswith("missing 0.0% → 30.5%")


def test_images_are_compared_too():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 17, (60, 8, 8)), rng.integers(0, 17, (60, 8, 8))
    b[:, :4] //= 3
    found = mixtura.compare(a.astype(np.uint8), b.astype(np.uint8), method="logistic")
    assert found.differ and found.columns == () and found.regions == () and found.kind.nouns == "images"
    assert found.to_json()["most_like"][0]["rows"] == []


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (people(19, 0), people(50, 1), "a: 19 rows are too few to compare; give 20 or more"),
        (people(50, 0), people(50, 1).drop(columns="job"), "b: no column 'job', which a has"),
        (np.zeros((50, 2)), np.zeros((50, 3)), "b: has 3 columns, a has 2"),
        (np.zeros((30, 8, 8)), people(50, 0), "b: holds a table, expected images as a"),
        (people(50, 0), np.zeros((30, 8, 8)), "b: holds images, expected a table as a"),
        (np.zeros((30, 8, 8)), np.zeros((30, 9, 9)), "b: images of"),
        ("nowhere.csv", people(50, 0), "nowhere.csv"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(a, b, said):
    with pytest.raises(InputError, match=said) as caught:
        mixtura.compare(a, b)
    assert "\n" not in str(caught.value)


def test_an_unknown_method_is_said_before_anything_is_read():
    with pytest.raises(InputError, match="method: 'vw' is unknown"):
        mixtura.compare("nowhere.csv", "nowhere.csv", method="vw")


def test_columns_under_the_null_have_uniform_p_values():
    """The smallest of four adjusted p-values is below .05 in 5 % of all cases."""
    kind = source.learn(source.load(people(4_000, 0)))
    x = kind.encode(people(4_000, 0))
    least, last = [], []
    for seed in range(200):
        some = torch.randperm(4_000, generator=generator(seed))[:600]
        found = columns_that_differ(kind, x[some[:300]], x[some[300:]])
        least.append(found[0].p)
        last.append(found[-1].p)
    assert 0.005 <= np.mean(np.array(least) < 0.05) < 0.11
    assert np.mean(np.array(last) == 1) < 0.9  # the last of four is not multiplied by four (Holm)


@pytest.mark.parametrize("share", [0.5, 0.03])
def test_no_region_is_made_of_noise(share):
    """Labels at random, in equal and in very unequal numbers: a tree finds parts on one half; on the other they are alike."""
    kind = source.learn(source.load(people(800, 0)))
    x, found = kind.encode(people(800, 0)), 0
    for seed in range(60):
        of_a = torch.rand(800, generator=generator(seed)) < share
        found += len(regions_that_differ(kind, x, of_a, seed)) > 0
    assert found <= 7


def test_a_region_that_only_one_set_has_is_found():
    a, b = (pd.DataFrame({"x": np.random.default_rng(s).normal(m, 3, 150)}) for s, m in ((0, 100), (1, 300)))
    found = mixtura.compare(a, b, method="logistic")
    assert found.regions[0].share_a == 1.0 and found.regions[0].share_b == 0.0 and found.regions[0].error > 0
    assert all(np.isfinite(times) for _, each in found.most_like for times in each)


def test_of_many_levels_the_most_frequent_make_regions():
    """30 levels, of which 20 can be asked about: the two frequent ones trade places, the rare ones do not differ."""
    def towns(seed: int, first: float) -> pd.DataFrame:
        shares = np.array([first, 0.6 - first, *[0.4 / 28] * 28])
        names = [f"town {k:02d}" for k in range(30)]
        return pd.DataFrame({"town": np.random.default_rng(seed).choice(names, 1_500, p=shares)})
    found = mixtura.compare(towns(0, 0.45), towns(1, 0.15), method="logistic").regions
    assert {"town is town 00", "town is town 01"} & {region.rule for region in found}


def test_columns_that_are_left_out_are_said():
    rng = np.random.default_rng(0)
    text = [" ".join(rng.choice(list("abcdefghijklmnop"), 9)) for _ in range(400)]
    a, b = (pd.DataFrame({"x": rng.normal(size=200), "said": part}) for part in (text[:200], text[200:]))
    with pytest.warns(Note, match="columns that were not compared: 'said'"):
        found = mixtura.compare(a, b, method="logistic")
    assert list(found.left_out) == ["said"] and list(found.to_json()["left_out"]) == ["said"]


def test_numbers_in_one_set_and_text_in_the_other_are_an_error():
    rng = np.random.default_rng(0)
    a = pd.DataFrame({"x": rng.normal(100, 3, 200), "y": rng.normal(size=200)})
    b = pd.DataFrame({"x": ["high", "low"] * 100, "y": rng.normal(size=200)})
    with pytest.raises(InputError, match="'x'"):
        mixtura.compare(a, b)


def test_what_is_wrong_is_said_of_its_own_file():
    a, b = people(60, 0), people(60, 1)
    b.loc[3, "wage"] = np.inf
    with pytest.raises(InputError, match="row 3"):
        mixtura.compare(a, b)


def test_huge_numbers_are_compared():
    a, b = (pd.DataFrame({"x": np.random.default_rng(s).normal(size=60) * 1e300}) for s in (0, 1))
    assert not mixtura.compare(a, b, method="logistic").differ


def test_the_p_value_of_the_classifier_is_uniform_at_equal_laws_with_ties():
    """Kolmogorov–Smirnov, 120 draws of tied rows (500 in benchmarks/compare.py)."""
    from scipy.stats import kstest

    values = []
    for seed in range(120):
        rng = generator(seed)
        x, y = (torch.randint(0, 3, (n, 2), generator=rng).double() for n in (60, 75))
        values.append(same_law_by_classifier(x, y, rng=rng).value)
    assert kstest(values, "uniform").pvalue > 0.01


def test_the_p_value_of_the_classifier_sees_a_shift():
    rng = generator(0)
    x, y = torch.randn(300, 2, generator=rng), torch.randn(300, 2, generator=rng)
    assert same_law_by_classifier(x, y + 1, rng=rng).value < 1e-6


def test_the_smaller_of_two_p_values_counts_twice(monkeypatch):
    from mixtura.contracts import Estimate
    from mixtura.evaluation import difference

    for name, p in (("same_law", 0.03), ("same_law_by_classifier", 0.4)):
        monkeypatch.setattr(difference, name, lambda *_, p=p, **__: Estimate(p, 0.0, 40))
    x = np.random.default_rng(0).normal(size=(60, 2))
    found = mixtura.compare(x[:30], x[30:], method="gaussian")
    assert found.p == pytest.approx(0.06) and not found.differ
