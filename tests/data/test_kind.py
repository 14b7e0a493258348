"""Tables and images answer the same questions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from mixtura.contracts import InputError
from mixtura.data import source
from mixtura.data.kind import DataKind

WORDS = pd.DataFrame({"n": np.arange(40) * 3, "word": ["a", "b"] * 20})
PIXELS = np.arange(40 * 4 * 3, dtype=np.uint8).reshape(40, 4, 3)
KINDS = [source.learn(source.load(given)) for given in (WORDS, PIXELS)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_question_is_answered(kind):
    questions = [name for name in DataKind.__annotations__ if not name.startswith("_")]
    assert len(questions) > 10 and all(hasattr(kind, name) for name in questions)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_is_plain_data_and_comes_back(kind):
    assert source.from_json(kind.to_json()) == kind


@pytest.mark.parametrize(("kind", "rows"), [*zip(KINDS, (WORDS, PIXELS), strict=True)], ids=["table", "images"])
def test_rows_are_encoded_and_decoded(kind, rows):
    x = kind.encode(rows)
    assert x.dtype == torch.float64 and tuple(x.shape[1:]) == kind.space.shape
    back = kind.decode(x)
    assert back.equals(rows) if isinstance(rows, pd.DataFrame) else np.array_equal(back, rows)
    assert not kind.as_made(rows).rows.any() and kind.strict(rows).space == kind.space and kind.wrong_constant(rows) is None


def test_the_data_in_a_few_words():
    table, images = KINDS
    assert table.summary(4_000) == "4,000 rows, 2 columns"
    assert images.summary(4_000) == "4,000 images 3x4, levels 0..255"


def test_how_many_rows_are_held_out_depends_on_the_budget():
    table, images = KINDS
    assert [table.looked_at(s) for s in (None, 1, 60, 1e6)] == [(3_000, 1_000), (1_000, 1_000), (3_000, 1_000), (5_000, 1_000)]
    assert [images.looked_at(s) for s in (None, 1, 60, 1e6)] == [(300, 300), (100, 100), (300, 300), (1_000, 1_000)]


def test_an_array_holds_no_words(tmp_path):
    KINDS[0].check_output(tmp_path / "new.csv")
    with pytest.raises(InputError, match=r"column 'word' holds no numbers.*use \.csv, \.jsonl or \.parquet"):
        KINDS[0].check_output(tmp_path / "new.npy")
