"""Later files are read in the style that a run learnt, also where they alone would say another or none."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

import mixtura
from mixtura.data.guess import guess


def german(values):
    return [f"{v:,.2f} €".replace(",", "X").replace(".", ",").replace("X", ".") for v in values]


def table(n=300):
    rng = np.random.default_rng(0)
    days = pd.Timestamp("2023-01-01") + pd.to_timedelta(rng.integers(0, 360, n), unit="D")
    return pd.DataFrame(
        {
            "cost": german(rng.lognormal(6, 1, n)), "day": days.strftime("%d/%m/%Y"), "n": rng.integers(0, 60, n),
            "share": [f"{v:.0f} %" for v in rng.uniform(0, 99, n)], "yes": rng.random(n) < 0.4,
            "g": rng.choice(["NA", "b", "c"], n),
        }
    )  # fmt: skip


def write(frame, path):
    frame.to_csv(path, index=False, sep=";", quoting=2)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("styles")
    frame = table()
    write(frame, place / "t.csv")
    mixtura.run(place / "t.csv", families=["gaussian_mixture"], steps=5, out=place / "run")
    mixtura.run(place / "t.csv", families=["linear_gaussian"], steps=5, target="n", out=place / "given")
    # days that could be months, and amounts whose dot could be a decimal point
    write(frame[frame.day.str[:2] <= "12"].head(6), place / "days.csv")
    write(frame.head(3).assign(cost=["1.234 €", "12.345 €", "2.222 €"]), place / "amounts.csv")
    return place


@pytest.mark.parametrize("rows", ["days", "amounts"])
@pytest.mark.parametrize("line", ["score run", "predict given", "sample given -n 1 --given", "impute run"])
def test_commands_read_what_is_ambiguous_alone(place, do, line, rows):
    did = do(f"{line} {rows}.csv")
    assert did.code == 0 and "cannot have" not in did.err, did.err


def test_holes_are_filled_in_the_style_of_their_column(place, do):
    gappy = table().head(6).astype(object)
    for row, name in enumerate(gappy):
        gappy.loc[row, name] = None
    write(gappy, place / "h.csv")  # quotes every cell, the empty ones too
    for ending in ("csv", "parquet"):
        did = do(f"impute run h.csv -o o.{ending}")
        assert did.code == 0 and "6 cells filled" in did.out, did.err
        read = pd.read_parquet if ending == "parquet" else partial(pd.read_csv, dtype=str, keep_default_na=False)
        out = read(place / f"o.{ending}")
        kept = gappy.notna()
        assert (out.astype(str).where(kept) == gappy.astype(str).where(kept)).where(kept, True).all(axis=None)
        assert out.cost.str.fullmatch(r"(\d{1,3}\.)*\d{1,3},\d\d €").all() and out.share.str.fullmatch(r"\d+ %").all()
        assert pd.to_datetime(out.day, format="%d/%m/%Y").dt.year.between(2020, 2026).all()
        assert set(out.g) <= {"NA", "b", "c"}


def test_empty_cells_in_quotes_are_named_by_score(place, do):
    write(table().head(2).astype(object).assign(n=[None, 3]), place / "e.csv")
    did = do("score run e.csv")
    assert did.code == 2 and "column 'n', row 0 is missing" in did.err


def test_frames_of_numbers_and_instants_are_the_same_rows(place):
    model, text = mixtura.load(place / "run").best, table().head(20)
    numbers = text.assign(
        cost=[float(v[:-2].replace(".", "").replace(",", ".")) for v in text.cost],
        day=pd.to_datetime(text.day, format="%d/%m/%Y"), share=[float(v[:-2]) for v in text.share],
    )  # fmt: skip
    assert np.array_equal(model.score(numbers), model.score(text))
    out = model.impute(numbers.assign(cost=numbers.cost.where(numbers.n > 20), day=numbers.day.where(numbers.n < 40)))
    assert out.cost.dtype == float and out.day.dtype == numbers.day.dtype and not out.isna().any(axis=None)


def test_dates_that_came_as_numbers_stay(place):
    rows = table().head(4).assign(day=[18.0, None, 19.0, 20.0])
    out = mixtura.load(place / "run").best.impute(rows)
    assert (out.drop(columns="day") == rows.drop(columns="day")).all(axis=None)
    assert out.day[[0, 2, 3]].tolist() == [18, 19, 20] and pd.to_datetime(out.day[1], format="%d/%m/%Y").year in range(2015, 2031)


def test_truth_learnt_as_text_stays_truth(place):
    yes = pd.Series([True, None, False, None], dtype="boolean")
    for given in (yes, yes.astype(object)):
        out = mixtura.load(place / "run").best.impute(table().head(4).assign(yes=given))
        assert out.yes[0] is True or out.yes[0] is np.True_
        assert not out.yes[2] and set(map(type, out.yes)) <= {bool, np.bool_}


def test_rows_as_made_are_read_by_their_patterns():
    schema, frame = guess(table()), table().head(8)
    made = schema.as_made(frame)
    assert torch.equal(made.x, schema.encode(frame)) and made.told("g", "real rows") == ""
    odd = schema.as_made(frame.assign(cost=["12,345 €", *frame.cost[1:]]))
    assert odd.told("g", "real rows").endswith("column 'cost' off its steps (1 row)") and odd.x[0, 0] == 12.345
    assert schema.encode(frame.assign(cost="12,346 €"))[0, 0] == pytest.approx(12.35)
