"""Numbers, dates and missing words as people write them: read by one set of rules from every format, and written back alike."""

from __future__ import annotations

import csv
import json

import numpy as np
import pandas as pd
import pytest

from mixtura.contracts import InputError
from mixtura.data import datetimes, numerals, source
from mixtura.data.guess import guess
from mixtura.data.schema import Schema
from mixtura.data.tables import read
from mixtura.job.splits import make_splits

N = 120
ROW = np.arange(N)
RNG = np.random.default_rng(0)
LOGS = np.exp(RNG.normal(5, 2, N))


def german(value: float, decimals: int = 2) -> str:
    return f"{value:,.{decimals}f}".translate(str.maketrans(",.", ".,"))


# what was written: (values, pattern)
WRITTEN = {
    "decimal comma": (["1,5", "12,0", "0,3"], [1.5, 12.0, 0.3], "1234,5"),
    "decimal comma of any length": (["1,5", "12", "0,25"], [1.5, 12.0, 0.25], "1234,5…"),
    "German": (["1.234,50", "0,10", "-12.345.678,00"], [1234.5, 0.1, -12345678.0], "1.234,50"),
    "English": (["1,234.5", "999.0", "-1,000,000.0"], [1234.5, 999.0, -1e6], "1,234.5"),
    "Swiss": (["1'234.50", "999.05"], [1234.5, 999.05], "1'234.50"),
    "French": (["1\u202f234,5", "-0,5"], [1234.5, -0.5], "1\u202f234,5"),
    "thousands alone": (["1,234", "987"], [1234, 987], "1,234"),
    "millions": (["1.234.567", "12.345"], [1234567, 12345], "1.234"),
    "three decimals": (["0,123", "1,500"], [0.123, 1.5], "1234,500"),
    "percent": (["5 %", "100 %"], [5, 100], "1234 %"),
    "percent with decimals": (["5.25%", "0.50%"], [5.25, 0.5], "1234.50%"),
    "dollars": (["$1,234.50", "-$3.25"], [1234.5, -3.25], "$1,234.50"),
    "sign inside": (["$-3.25", "$10.00"], [-3.25, 10.0], "$-1234.50"),
    "euros behind": (["1.234,00 €", "3,50 €"], [1234.0, 3.5], "1.234,50 €"),
    "codes of money": (["EUR 12", "EUR 7"], [12, 7], "EUR 1234"),
    "a true minus": (["\u22125,1", "3,0"], [-5.1, 3.0], "\u22121234,5"),
    "brackets": (["(5.10)", "3.00"], [-5.1, 3.0], "(1234.50)"),
    "always a sign": (["+5", "-3", "0"], [5, -3, 0], "±1234"),
    "a unit": ([f"{k} kg" for k in range(1, 12)], list(range(1, 12)), "1234 kg"),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_numbers_are_read_and_written_back_alike(name):
    texts, values, pattern = WRITTEN[name]
    column = pd.Series(texts)
    read_values = numerals.numbers(column)
    assert read_values is not None and read_values.tolist() == values
    assert numerals.number_pattern(column) == pattern and numerals.Style.of(pattern).pattern == pattern
    assert numerals.write_numbers(read_values, pattern) == texts
    assert numerals.numbers(column, like=pattern).tolist() == values  # pyright: ignore[reportOptionalMemberAccess]


NO_NUMBERS = {
    "postal codes": ["06455", "12345"],
    "telephone": ["555 123 456", "444 222 111"],
    "address": ["192.168.100.200", "10.0.0.1"],
    "two units": ["$5", "€5"],
    "few of a unit": [" 36 months", " 60 months"],
    "levels": ["level 1", "level 2"],
    "ranges": ["1-5", "6-10"],
    "wrong groups": ["1,23,4", "5"],
    "open bracket": ["(5", "3"],
    "dates": ["12.11.2023", "13.11.2023"],
}


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_what_is_no_number(name):
    assert numerals.numbers(pd.Series(NO_NUMBERS[name])) is None


WHY_NOT = {
    "1,234 is either 1234 or 1.234": ["1,234", "5,678"],
    "more than one way, '\\$5' and '€5'": ["$5", "€5", "$7"],
    "'02/03/2023' may have the day or the month first": ["02/03/2023", "04/05/2023"],
    "day first, as in '13/02/2023', and with the month first, as in '02/13/2023'": ["13/02/2023", "02/13/2023"],
    "years of two digits": ["13/02/23", "14/02/23"],
    "month as a word": ["3 Jan 2020", "17 Feb 2021"],
}


@pytest.mark.parametrize("sentence", WHY_NOT)
def test_what_cannot_be_told_is_named(sentence):
    """Never guessed, never an identifier, whether it was guessed, asked for or is the column of times."""
    texts = [WHY_NOT[sentence][k % len(WHY_NOT[sentence])] for k in ROW]
    column = pd.Series(texts, name="v")
    frame = pd.DataFrame({"v": column, "w": LOGS})
    assert numerals.numbers(column) is None and datetimes.instants(column) is None
    field = guess(frame).fields[0]
    assert field.kind == "dropped" and "identifier" not in field.detail
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(field.detail)
    for kind in ("numeric", "datetime"):
        with pytest.raises(InputError, match=f"column 'v' holds .*{sentence}"):
            guess(frame, kinds={"v": kind})
    with pytest.raises(InputError, match=f"--time v: holds .*{sentence}"):
        make_splits(guess(frame).encode(frame), seed=0, times=column)


DATES = {
    "DD.MM.YYYY": ["13.02.2023", "01.03.2023"],
    "D.M.YYYY": ["13.2.2023", "1.12.2023"],
    "DD.MM.YY": ["13.02.23", "01.03.99"],
    "DD/MM/YYYY": ["13/02/2023", "01/03/2023"],
    "DD-MM-YYYY hh:mm": ["13-02-2023 09:30", "01-03-2023 23:59"],
    "MM/DD/YYYY": ["02/13/2023", "03/01/2023"],
    "M/D/YYYY h:mm AM": ["2/13/2023 9:30 AM", "3/1/2023 12:05 AM", "3/1/2023 12:00 PM", "11/1/2023 11:59 PM"],
    "DD.MM.YYYY, hh:mm:ss": ["13.02.2023, 09:30:01", "01.03.2023, 23:59:59"],
    "YYYY.MM.DD": ["2023.02.13", "2023.03.01"],
    "YYYY-MM-DD hh:mm:ss.ff +02:00": ["2023-02-13 01:00:00.25 +02:00", "2023-03-01 00:00:00.50 +02:00"],
    "YYYY-MM-DDThh:mm UTC": ["2023-02-13T01:00 UTC", "2023-03-01T00:00 UTC"],
}


@pytest.mark.parametrize("pattern", DATES)
def test_dates_are_read_and_written_back_alike(pattern):
    texts = DATES[pattern]
    seen = datetimes.instants(pd.Series(texts))
    assert seen is not None and seen.pattern == pattern
    assert datetimes.write_instants(seen.ticks, seen.unit, seen.pattern) == texts
    if pattern[:4] not in ("YYYY", "DD.M") and "h" not in pattern:
        assert pd.Timestamp(int(seen.ticks[0]), unit="s") == pd.Timestamp("2023-02-13")


def test_a_day_first_column_is_day_first_in_every_later_table():
    days = pd.date_range("2023-01-05", periods=N, freq="D")
    frame = pd.DataFrame({"d": days.strftime("%d/%m/%Y"), "w": LOGS})
    learnt = Schema.from_json(json.loads(json.dumps(guess(frame).to_json())))
    assert learnt.fields[0].kind == "datetime"
    pd.testing.assert_frame_equal(learnt.decode(learnt.encode(frame)), frame)
    same = learnt.encode(frame)[:, 0]
    for later in (days, days.strftime("%Y-%m-%d"), days.strftime("%d.%m.%Y"), days.strftime("%Y-%m-%d %H:%M")):
        assert (learnt.encode(frame.assign(d=later))[:, 0] == same).all()
    few = pd.DataFrame({"d": ["03/02/2023"], "w": [1.0]})
    assert float(learnt.encode(few)[0, 0]) == float(learnt.encode(few.assign(d="2023-02-03"))[0, 0])
    with pytest.raises(InputError, match="month first, as in '02/23/2023', learnt with the day first"):
        learnt.encode(few.assign(d="02/23/2023"))


def test_a_style_that_was_learnt_tells_what_a_comma_is():
    frame = pd.DataFrame({"v": [german(v, 3) for v in LOGS], "w": LOGS})
    learnt = guess(frame)
    few = pd.DataFrame({"v": ["1,234", "2,500"], "w": [1.0, 1.0]})
    assert learnt.encode(few)[:, 0].tolist() == [1.234, 2.5]
    assert learnt.encode(few.assign(v=["1.5", "2.25"]))[:, 0].tolist() == [1.5, 2.25]  # plain, in that file
    assert learnt.encode(few.assign(v=[1.5, 2.25]))[:, 0].tolist() == [1.5, 2.25]
    plain = guess(pd.DataFrame({"v": LOGS, "w": LOGS}))
    with pytest.raises(InputError, match="new: column 'v' holds numbers with a comma, and 1,234 is either"):
        plain.encode(few, name="new")


def people() -> pd.DataFrame:
    """One column for each way to write, as text."""
    day = [(1 + k % 28, 1 + k % 12) for k in ROW]
    columns = {
        "amount": [german(v) for v in LOGS],
        "price": [f"${v:,.2f}" for v in LOGS],
        "share": [f"{k % 70} %" for k in ROW],
        "rate": [f"{5 * (k % 4 + 1)}%" for k in ROW],
        "day": [f"{d}.{m}.2023" for d, m in day],
        "slash": [f"{d:02d}/{m:02d}/2023" for d, m in day],
        "blank": [f"{v:.1f}" if k % 7 else " " for k, v in zip(ROW, LOGS, strict=True)],
        "word": [f"{k * 3}" if k % 7 else ("N/A", "none")[k % 2] for k in ROW],
        "when": [f"2023-01-{d:02d}" if k % 5 else "null" for k, (d, _) in zip(ROW, day, strict=True)],
        "truth": [("true", "false", "NA")[k % 3] for k in ROW],
        "code": [f"{k % 17:05d}" for k in ROW],
        "label": [("u", "v")[k % 2] for k in ROW],
    }
    return pd.DataFrame(columns)


KINDS = [
    "numeric", "numeric", "integer", "ordinal", "datetime", "datetime", "numeric", "integer", "datetime", "boolean",
    "categorical", "categorical",
]  # fmt: skip
SAVED = {
    "t.csv": lambda frame, path: frame.to_csv(path, index=False),
    "quoted.csv": lambda frame, path: frame.to_csv(path, index=False, quoting=csv.QUOTE_ALL),
    "excel.csv": lambda frame, path: frame.to_csv(path, index=False, sep=";", encoding="utf-16"),
    "t.tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "t.json": lambda frame, path: frame.to_json(path, orient="records"),
    "t.jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "t.parquet": lambda frame, path: frame.to_parquet(path),
}


@pytest.mark.parametrize("name", SAVED)
def test_the_rules_are_the_same_in_every_format(name, tmp_path):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    frame = people()
    learnt = guess(frame)
    assert [field.kind for field in learnt.fields] == KINDS
    SAVED[name](frame, tmp_path / name)
    seen = read(tmp_path / name).frame
    assert guess(seen).describe() == learnt.describe()
    x = learnt.encode(frame)
    np.testing.assert_array_equal(learnt.encode(seen), x)
    back = learnt.decode(x)
    for column in ("amount", "price", "share", "rate", "day", "slash", "code", "label"):
        assert back[column].tolist() == frame[column].tolist()


def test_numbers_and_words_beside_numbers_in_json(tmp_path):
    records = [{"n": int(k) if k % 5 else str(k), "a": k / 8 if k % 5 else "N/A"} for k in ROW]
    (tmp_path / "m.json").write_text(json.dumps(records))
    n, a = guess(read(tmp_path / "m.json").frame).fields
    assert (n.kind, n.absent, a.kind, a.absent, a.step) == ("integer", 0, "numeric", 24, 125)


def test_offsets_are_instants_wherever_times_are_read():
    local = [f"2024-03-31T0{1 + 2 * (k % 2)}:{k // 2:02d}:00+0{1 + k % 2}:00" for k in ROW]
    utc = pd.to_datetime(pd.Series(local), utc=True)
    mixed = pd.Series([pd.Timestamp(text) for text in local], dtype=object)
    for column in (pd.Series(local), utc, mixed):
        seen = datetimes.instants(column)
        assert seen is not None and seen.aware
        assert (seen.ticks / datetimes.UNITS[seen.unit]).tolist() == [moment.timestamp() for moment in utc]
    x = guess(pd.DataFrame({"w": LOGS})).encode(pd.DataFrame({"w": LOGS}))
    by_text = make_splits(x, seed=0, times=pd.Series(local, name="t"))
    by_time = make_splits(x, seed=0, times=utc.rename("t"))
    assert by_text.report.tolist() == by_time.report.tolist()


@pytest.mark.parametrize(
    ("times", "sentence"),
    [
        (["NA", *map(str, range(N - 1))], "row 0 has no time"),
        ([*map(str, range(N - 1)), " "], f"row {N - 1} has no time"),
        (["soon", *map(str, range(N - 1))], "row 0 holds 'soon'"),
        (["2024-01-01", "2024-01-02 10:00"] * (N // 2), "all written alike"),
    ],
)
def test_a_column_of_times_is_read_by_the_same_rules(times, sentence):
    x = guess(pd.DataFrame({"w": LOGS})).encode(pd.DataFrame({"w": LOGS}))
    with pytest.raises(InputError, match=f"--time t: .*{sentence}"):
        make_splits(x, seed=0, times=pd.Series(times, name="t"))


def test_day_first_times_are_split_in_their_order():
    days = pd.Series(pd.date_range("2023-01-05", periods=N, freq="D"))
    frame = pd.DataFrame({"w": LOGS})
    splits = make_splits(guess(frame).encode(frame), seed=0, times=days.dt.strftime("%d/%m/%Y").rename("t"))
    assert min(splits.report.tolist()) > max(splits.select.tolist()) > max(splits.fit.tolist())


# ------------------------------------------------------------------------------------------------ missing words


COUNTRIES = ["NA", "DE", "FR", "None", ""]


def test_a_level_spelt_like_missing_survives(tmp_path):
    """Namibia is no missing value."""
    frame = pd.DataFrame({"country": [COUNTRIES[k % 5] for k in ROW], "w": LOGS})
    learnt = guess(frame)
    assert set(learnt.fields[0].labels) == set(COUNTRIES) and learnt.fields[0].absent == 0
    frame.to_csv(tmp_path / "t.csv", index=False)
    rows = source.rows_like(tmp_path / "t.csv", learnt)
    assert isinstance(rows, pd.DataFrame)
    np.testing.assert_array_equal(learnt.encode(rows), learnt.encode(frame))
    # where nothing was learnt, the same words are missing, unless they are in quotes
    assert read(tmp_path / "t.csv").frame["country"].isna().tolist() == [k % 5 in (0, 3, 4) for k in ROW]
    quoted = frame.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)
    (tmp_path / "q.csv").write_text(quoted)
    assert read(tmp_path / "q.csv").frame["country"].dropna().unique().tolist() == ["NA", "DE", "FR", "None"]


@pytest.mark.parametrize(
    ("text", "levels", "expected"),
    [
        (['"NA"', "NA", "DE"], (), ["NA", None, "DE"]),  # as R writes them
        (['"NA"', "NA", "DE"], ("NA",), ["NA", None, "DE"]),  # in quotes and without: only those in quotes are the level
        (["NA", "DE", ""], ("NA",), ["NA", "DE", None]),
        (["NA", "DE", ""], ("NA", ""), ["NA", "DE", ""]),
        (['""', "DE", ""], (), ["", "DE", None]),
        (['""', '"DE"', '"NA"'], (), [None, "DE", "NA"]),  # all in quotes: an empty one says nothing
        (['""', '"DE"'], ("",), ["", "DE"]),
        (['"a ""NA"" b"', "null", '"x\n;NA"', '5" NA'], (), ['a "NA" b', None, "x\n;NA", '5" NA']),
        (["   ", "DE"], (), [None, "DE"]),
    ],
)
def test_words_in_quotes_are_text(tmp_path, text, levels, expected):
    (tmp_path / "t.csv").write_text("c;n\n" + "".join(f"{cell};1\n" for cell in text))
    seen = read(tmp_path / "t.csv", levels=lambda name: levels if name == "c" else ()).frame["c"]
    assert [None if pd.isna(v) else v for v in seen] == expected


def test_a_word_is_missing_in_a_later_table_where_it_is_no_level():
    frame = pd.DataFrame({"c": [("u", "v", None)[k % 3] for k in ROW], "n": [None, *range(N - 1)]})
    later = pd.DataFrame({"c": ["NA", "u"], "n": ["null", " "]})
    assert guess(frame).encode(later).isnan().tolist() == [[True, True], [False, True]]


def test_postal_codes_are_codes():
    zips = [f"{v:05d}" for v in RNG.choice(RNG.integers(500, 99999, 300), 1500)]
    codes = pd.DataFrame({"zip": zips, "w": RNG.normal(size=1500)})
    assert "texts are numbers" not in guess(codes).fields[0].detail and "empty" not in guess(codes).fields[0].detail
    kept = guess(codes, kinds={"zip": "categorical"})
    assert kept.decode(kept.encode(codes))["zip"].tolist() == codes["zip"].tolist()


def test_too_many_or_too_long_labels_are_refused(monkeypatch):
    many = pd.DataFrame({"c": [f"id {k}" for k in range(5000)], "w": np.arange(5000) / 7})
    with pytest.raises(InputError, match="'c' has 5,000 levels, more than the 4,096 that can be modelled"):
        guess(many, kinds={"c": "categorical"})
    assert "5,000 levels" in guess(many.astype({"c": "category"})).fields[0].reason
    monkeypatch.setattr("mixtura.data.cells.MOST_CHARACTERS", 1000)
    long = pd.DataFrame({"c": [("x" * 600, "y" * 600)[k % 2] for k in ROW], "w": LOGS})
    assert "1,200 characters, more than the 1,000" in guess(long).fields[0].reason


DAYS = [(1 + k % 12, 1 + k % 28) for k in range(60)]
#: how 60 texts are written → what is said of the column
NAMED = {
    "bounds": ([f"<{k}.5" if k % 3 else f"{k}.5" for k in range(60)], "numbers, some of them bounds, as in '<1.5'"),
    "accounts": ([f"{k}.25-" for k in range(60)], "numbers written in a style that is not read, as in '0.25-'"),
    "brackets": ([f"$({k}.25)" for k in range(60)], "numbers written in a style that is not read, as in '$(0.25)'"),
    "exponents": ([f"{k},5e-3" for k in range(60)], "numbers with an exponent, as in '0,5e-3'"),
    "lakh": ([f"{k + 10},11,145" for k in range(60)], "numbers in groups of two digits, as in '10,11,145'"),
    "units": ([f"{k}.5K" if k % 2 else f"{k}.5M" for k in range(60)], "numbers written in more than one way, '1.5K' and '0.5M'"),
    "times": ([f"{k % 24:02d}:{k:02d}" for k in range(60)], "times of day, or durations, as in '00:00'"),
    "months": ([f"{1990 + k // 12}-{1 + k % 12:02d}" for k in range(60)], "months, as in '1990-01'"),
    "months last": ([f"{1 + k % 12:02d}/{1990 + k // 12}" for k in range(60)], "months, as in '01/1990'"),
    "mail": ([f"Mon, {d:02d} Jan 2{m:03d} 10:00:00 GMT" for m, d in DAYS], "dates with the month as a word, as in 'Mon, 01 Jan"),
    "clock": ([f"{d}.{m}.2020 9:30 Uhr" for m, d in DAYS], "dates written in a style that is not read, as in '1.1."),
    "dashes": ([f"{k}.5" if k % 4 else "-" for k in range(60)], "45 of 60 texts are numbers, but row 0 is '-'"),
    "errors": ([f"{k}.5" if k % 9 else "#DIV/0!" for k in range(60)], "53 of 60 texts are numbers, but row 0 is '#DIV/0!'"),
    "ratios": ([f"{k}/{k + 7}" for k in range(60)], "60 different texts such as '0/7', neither numbers nor dates"),
    "codes": ([f"{k * 997:05d}" for k in range(60)], "60 different texts in 60 rows, codes such as '00000'; --kind"),
}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_nearly_a_number_or_a_date_is_named(name):
    texts, said = NAMED[name]
    field = guess(pd.DataFrame({"c": texts, "n": range(60)})).fields[0]
    assert field.kind == "dropped" and said in field.reason and "identifier" not in field.reason
    assert "1234.5" not in field.reason or name not in ("codes", "times", "months")


@pytest.mark.parametrize(
    "texts",
    [
        [f"{a}{b}" for a in range(1, 31) for b in "ABCDEF"] * 8,  # seats
        [f"{k}-{k + 9}" for k in range(0, 100, 10)] * 6,  # classes of ages
        [f"{k % 9}.{k % 7}.{k % 5}" for k in range(60)] * 20,  # versions
        [f"<{k}" for k in range(12)] * 5,
    ],
)
def test_few_of_many_rows_are_levels_whatever_they_look_like(texts):
    assert guess(pd.DataFrame({"c": texts, "n": range(len(texts))})).fields[0].kind == "categorical"


def test_whole_numbers_that_are_all_days_are_named():
    days = [20200000 + 100 * m + d for m, d in DAYS]
    field = guess(pd.DataFrame({"c": days, "n": range(60)})).fields[0]
    assert field.kind == "dropped" and "whole numbers that are all dates, as 20200101 is" in field.reason
    assert guess(pd.DataFrame({"c": [*days[:-1], 20200230], "n": range(60)})).fields[0].kind == "integer"
    assert guess(pd.DataFrame({"c": days, "n": range(60)}), kinds={"c": "integer"}).fields[0].kind == "integer"


def test_months_and_days_of_one_digit():
    texts = [f"2020-{m}-{d}" for m, d in DAYS]
    seen = datetimes.instants(pd.Series(texts))
    assert seen is not None and seen.pattern == "YYYY-M-D"
    assert datetimes.write_instants(seen.ticks, seen.unit, seen.pattern) == texts


def test_times_of_several_zones_are_instants():
    utc = pd.date_range("2024-01-01", periods=60, freq="h", tz="UTC")
    mixed = [t if k % 2 else t.tz_convert("Europe/Berlin") for k, t in enumerate(utc)]
    schema = guess(pd.DataFrame({"t": pd.Series(mixed, dtype=object), "n": range(60)}))
    again = schema.decode(schema.encode(pd.DataFrame({"t": pd.Series(mixed, dtype=object), "n": range(60)})))
    assert list(again["t"]) == list(utc)
