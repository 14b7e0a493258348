"""Rows as they were made: nothing moved, and what real rows cannot have counted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from mixtura.contracts import InputError, Note
from mixtura.data.cells import codes
from mixtura.data.guess import guess
from mixtura.data.images import ImageSchema
from mixtura.data.names import aligned, header


def table(n=200, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "count": rng.integers(0, 50, n), "size": rng.normal(50, 9, n).round(1), "colour": rng.choice(["red", "blue"], n),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, n), unit="D"), "kind": 7,
        }
    )  # fmt: skip


SCHEMA = guess(table())


def test_rows_of_the_same_law_are_encoded_as_ever_and_nothing_is_said():
    for rows in (table(seed=1), table(seed=1).astype(str), table(seed=1).astype({"size": "float32"})):
        made = SCHEMA.as_made(rows)
        assert torch.equal(made.x, SCHEMA.encode(rows)) and made.told("g", "real rows") == ""


@pytest.mark.parametrize(
    ("column", "value", "said", "entry"),
    [
        ("count", 7.3, "column 'count' off its steps (3 rows)", 7.3),
        ("count", -4, "column 'count' below 0, where its values end (3 rows)", -4.0),
        ("count", 1007, "", 1007.0),  # far from what was seen, but possible
        ("size", 50.123, "column 'size' off its steps (3 rows)", 50.123),
        ("colour", "octarine", "column 'colour', level 'octarine' never seen (3 rows)", 2.0),
        ("day", pd.Timestamp("2024-03-01 12:00"), "column 'day' off its steps (3 rows)", None),
    ],
)
def test_what_was_made_is_kept_and_counted(column, value, said, entry):
    rows = table(seed=1).astype({column: object})
    rows.loc[:2, column] = value
    if column == "day":
        rows["day"] = pd.to_datetime(rows["day"])
    made = SCHEMA.as_made(rows)
    assert made.told("g", "real rows") == (said and f"g: 3 of 200 rows have values that real rows cannot have: {said}")
    field = next(f for f in SCHEMA.modelled if f.name == column)
    held = made.x[:3, SCHEMA.modelled.index(field)] + (field.offset if column == "count" else 0)
    if entry is not None:
        assert held.tolist() == pytest.approx([entry] * 3)
    else:
        assert torch.allclose(held % 1, torch.tensor(0.5, dtype=torch.float64))


def test_levels_beyond_the_first_few_are_counted_together():
    made = SCHEMA.as_made(table(seed=1).assign(colour=[f"c{i % 10}" for i in range(200)]))
    assert "7 more levels never seen (140 rows)" in made.kinds[-1] and made.rows.all()


def test_a_constant_that_differs_is_a_column_that_differs():
    assert SCHEMA.strict(table(seed=1)) == SCHEMA and SCHEMA.wrong_constant(table(seed=1).astype(str)) is None
    other = table(seed=1).assign(kind=[8, *[7] * 199])
    said = SCHEMA.wrong_constant(other)
    assert said == "column 'kind', level 8 never seen (1 row), where the data is always 7"
    wider = SCHEMA.strict(other)
    assert len(wider.modelled) == len(SCHEMA.modelled) + 1 and wider.as_made(other).x[:2, -1].tolist() == [1.0, 0.0]
    empty = guess(table().assign(kind=None))
    assert empty.wrong_constant(other) is not None and empty.strict(other).as_made(other).rows.all()


def test_pixels_between_and_beyond_their_levels():
    schema = ImageSchema(1, 2, 2, 0.0, 16.0, 1.0, "float64")
    pixels = np.full((3, 2, 2), 5.0)
    pixels[0, 0, 0], pixels[1, 1, 1] = 5.4, 300.0
    made = schema.as_made(pixels)
    assert made.x[0, 0, 0, 0] == 5.4 and made.x[1, 0, 1, 1] == 300
    assert made.kinds == ("pixels beyond their levels 0..16 (1 row)", "pixels between their levels 0..16 (1 row)")


@pytest.mark.parametrize("labels", [(False, True), ("False", "True"), ("false", "true"), (0, 1)])
def test_truth_is_0_and_1_however_it_is_written(labels):
    for written in ([True, False], ["True", "False"], ["true", "false"], [1, 0], ["1", "0"], [1.0, 0.0]):
        assert codes(pd.Series(written), labels).tolist() == [1, 0], written
    assert codes(pd.Series(["2", "maybe"]), labels).tolist() == [2, 2]


def test_only_truth_is_0_and_1():
    assert codes(pd.Series(["1", "0"]), ("no", "yes")).tolist() == [2, 2]
    assert codes(pd.Series([True]), (0, 3)).tolist() == [2]


def test_columns_are_found_by_name_and_without_a_header_by_position():
    frame = pd.DataFrame({"b": [1], "a": [2], "z": [3]})
    with pytest.warns(Note, match="g: column 'z', which real has not, left out"):
        assert aligned(frame, ["a", "b"], name="g", like="real").iloc[0].tolist() == [2, 1]
    with pytest.raises(InputError, match="g: no column 'c', which real has; it has b, a, z"):
        aligned(frame, ["a", "c"], name="g", like="real")
    bare = pd.DataFrame([[1, 2]], columns=["x0", "x1"])
    assert header(bare) is None and aligned(bare, ["a", "b"], name="g", like="real") is bare
