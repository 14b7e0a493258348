"""The folder of a selection: what it holds, what it refuses, and who may clear it."""

from __future__ import annotations

import pandas as pd
import pytest

from mixtura.contracts import InputError
from mixtura.folder.selection import SelectionFolder
from mixtura.ledger import Ledger


def test_its_end_is_read_as_it_was_written(tmp_path):
    folder = SelectionFolder(tmp_path)
    with pytest.raises(InputError, match="the selection in it is not finished; the same `mixtura select` command goes on"):
        folder.record()
    folder.write_end({"title": "toy", "gap": 0.5}, pd.DataFrame({"weight a": [1.0]}))
    assert folder.is_finished and folder.record() == {"title": "toy", "gap": 0.5}
    assert folder.weights_path.read_text() == "weight a\n1.0\n"


def test_anything_but_a_selection_is_refused_and_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "notes.txt"):
        SelectionFolder(path).clear()
        with pytest.raises(InputError, match="holds no selection; give another --out"):
            SelectionFolder(path).check()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_it_is_cleared_where_no_ledger_is_open(tmp_path):
    folder = SelectionFolder(tmp_path / "run")
    folder.check()
    ledger = Ledger(folder.ledger_path)
    folder.check()
    with pytest.raises(InputError, match="another selection works in this folder; wait for it, or give another --out"):
        folder.clear()
    ledger.close()
    folder.clear()
    assert not folder.is_begun and [*folder.path.iterdir()] == []
