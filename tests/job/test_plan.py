"""Splits are disjoint and complete, keep their promise (groups, time, as given) and depend on the seed alone."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch

from mixtura.contracts import InputError
from mixtura.ground.rng import generator
from mixtura.job.options import choose_families, parse_budget
from mixtura.job.splits import CROSS_FIT_BELOW, FOLDS, MOST_HELD, make_splits


def table(n):
    return torch.randn(n, 2, generator=generator(0), dtype=torch.float64)


def column(values, name="when"):
    return pd.Series(values, name=name)


def ways(n):
    """Every way to split n rows."""
    days = pd.date_range("2020-01-01", periods=n, freq="D")
    return {
        "at random": {},
        "groups": {"groups": column([f"house {i % 17}" for i in range(n)])},
        "groups with gaps": {"groups": column([None if i % 5 == 0 else i % 11 for i in range(n)])},
        "times": {"times": column(days[::-1])},
        "times as text": {"times": column(days.strftime("%Y-%m-%d"))},
        "times as numbers": {"times": column([(i * 7919) % n for i in range(n)])},
        "given": {"given": column([("fit", "Select ", "test")[i % 3] for i in range(n)])},
    }


WAYS = list(ways(20))


def parts(splits):
    return {"fit": splits.fit, "select": splits.select, "report": splits.report}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("n", [20, 101, 3000])
def test_parts_are_disjoint_complete_and_of_the_seed(way, n):
    splits, again, other = (make_splits(table(n), seed=seed, **ways(n)[way]) for seed in (1, 1, 2))
    assert torch.equal(torch.cat([splits.fit, splits.select, splits.report]).sort().values, torch.arange(n))
    assert min(len(part) for part in parts(splits).values()) >= 2
    assert all(torch.equal(a, b) for a, b in zip(parts(splits).values(), parts(again).values(), strict=True))
    assert not torch.equal(splits.fit, other.fit)  # at least the order in which rows are learnt


@pytest.mark.parametrize("n", [100, 3000, 60_000])
def test_shares(n):
    splits = make_splits(table(n), seed=0)
    held = min(MOST_HELD, round(0.2 * n))
    assert len(splits.select) == pytest.approx(held, abs=1) and len(splits.report) == pytest.approx(held, abs=1)


def test_groups_stay_whole():
    n = 1000
    groups = ways(n)["groups"]["groups"]
    splits = make_splits(table(n), seed=3, groups=groups)
    seen = [set(groups.iloc[part.tolist()]) for part in parts(splits).values()]
    assert not (seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2])
    assert "when" in splits.rule


@pytest.mark.parametrize("sizes", [(900, 50, 50), (50, 900, 50), (990, 5, 5), (334, 333, 333)])
@pytest.mark.parametrize("seed", range(6))
def test_groups_of_any_size_leave_no_part_empty(sizes, seed):
    groups = column([g for g, size in enumerate(sizes) for _ in range(size)])
    splits = make_splits(table(len(groups)), seed=seed, groups=groups)
    assert all(len(part) > 0 for part in parts(splits).values())


@pytest.mark.parametrize("way", ["times", "times as text", "times as numbers"])
def test_the_newest_rows_report(way):
    n = 500
    times = ways(n)[way]["times"]
    stamps = pd.to_datetime(times) if "numbers" not in way else times
    splits = make_splits(table(n), seed=0, times=times)
    fit, select, report = (stamps.iloc[part.tolist()] for part in parts(splits).values())
    assert fit.max() < select.min() and select.max() < report.min()
    assert "newest" in splits.rule


def test_given_parts_are_kept():
    words = ["train", "fit", "Training", " valid", "val", "select", "test", "report", "REPORT"] * 10
    splits = make_splits(table(90), seed=0, given=column(words, "part"))
    assert [sorted(set(p % 9 for p in part.tolist())) for part in parts(splits).values()] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert splits.rule == "given by part"


@pytest.mark.parametrize(
    ("n", "way", "folds"),
    [
        (round(CROSS_FIT_BELOW / 0.8) - 10, "at random", FOLDS),
        (round(CROSS_FIT_BELOW / 0.8) + 10, "at random", 0),
        (100, "groups", 0),
        (100, "times", 0),
    ],
)
def test_few_rows_are_cross_fitted(n, way, folds):
    splits = make_splits(table(n), seed=0, **ways(n)[way])
    assert splits.folds == folds
    assert torch.equal(splits.training, torch.cat([splits.fit, splits.select]) if folds else splits.fit)


def test_folds_leave_every_row_out_once():
    splits = make_splits(table(123), seed=0)
    folds = [splits.fold(k) for k in range(splits.folds)]
    assert torch.equal(torch.cat([left for _, left in folds]).sort().values, torch.arange(len(splits.training)))
    for learn, left in folds:
        assert torch.equal(torch.cat([learn, left]).sort().values, torch.arange(len(splits.training)))
        assert abs(len(left) - len(splits.training) / splits.folds) < 1


def test_repeated_rows_are_counted():
    """Rows i and i + 50 are equal, a gap equals a gap; the count is that of a brute-force search."""
    x = table(50).repeat(2, 1)
    x[[3, 53, 7], 0] = math.nan
    splits = make_splits(x, seed=5)
    known = {str(x[i].tolist()) for i in torch.cat([splits.fit, splits.select]).tolist()}
    want = sum(str(x[i].tolist()) in known for i in splits.report.tolist())
    assert splits.duplicates == want > 0
    assert make_splits(table(100), seed=5).duplicates == 0


@pytest.mark.parametrize(
    ("n", "options", "named"),
    [
        (0, {}, "0 rows cannot be split"),
        (1, {}, "1 row cannot be split"),
        (19, {}, "at least 20"),
        (30, {"groups": column([0, 1] * 15)}, "2 groups cannot be split in three"),
        (30, {"times": column([None, *range(29)])}, "row 0 has no time"),
        (30, {"times": column(["2020-01-01"] * 29 + ["soon"])}, "row 29 holds 'soon'"),
        (30, {"given": column(["fit", "select", "lost"] * 10)}, "row 2 holds 'lost'"),
        (30, {"given": column(["fit", "select"] * 15)}, "report part has 0 rows"),
        (30, {"given": column(["fit"] * 15 + ["select"] * 14 + ["test"])}, "report part has 1 row"),
        (30, {"given": column(["fit"] * 15 + ["select"] * 13 + ["test"] * 2)}, "report part has 2 rows, expected 3 or more"),
        (30, {"times": column(range(30)), "groups": column(range(30))}, "--group and --time: give one way"),
    ],
)
def test_wrong_splits_are_named(n, options, named):
    with pytest.raises(InputError, match=named):
        make_splits(table(n), seed=0, **options)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60s", 60), ("5m", 300), ("5 min", 300), ("1.5h", 5400), (" 90 ", 90), (45, 45), (2.5, 2.5), (".5h", 1800), ("1", 1)],
)
def test_budgets(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "soon", "-5s", "0", "0.5s", "5 days", "1e3", "nan", "inf", "5m 3s", "1h30", math.nan, math.inf, -1, True, None]
)
def test_wrong_budgets_are_named(text):
    with pytest.raises(InputError, match="^budget: .*write 60s, 5m or 1h"):
        parse_budget(text)


FAMILIES = {"marginals": "may", "flow": "may", "kde": "never", "line": "needs"}


@pytest.mark.parametrize(
    ("asked", "given", "want"),
    [
        (None, False, ["marginals", "flow", "kde"]),
        (None, True, ["marginals", "flow", "line"]),
        (["kde", "flow"], False, ["marginals", "flow", "kde"]),
        (["kde"], False, ["marginals", "kde"]),
        (["line"], True, ["marginals", "line"]),
        (["marginals"], False, ["marginals"]),
    ],
)
def test_families_stand_in_the_order_of_the_table_with_the_floor(asked, given, want):
    assert choose_families(asked, FAMILIES, given=given) == want


@pytest.mark.parametrize(
    ("asked", "given", "named"),
    [
        (["gan"], False, "'gan' is not among marginals, flow, kde, line"),
        ([], False, "none was named; choose from marginals, flow, kde$"),
        (["line"], False, "line models columns given others: name them with --target"),
        (["flow", "kde"], True, "kde cannot model columns given others; choose from marginals, flow, line"),
    ],
)
def test_wrong_families_are_named(asked, given, named):
    with pytest.raises(InputError, match=named):
        choose_families(asked, FAMILIES, given=given)
