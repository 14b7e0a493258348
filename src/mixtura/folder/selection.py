"""The folder of an online selection, which the command line, the report and later sittings share. :class:`SelectionFolder` knows
its files.

    ledger.sqlite     every pull; written first
    selection.json    the end of the selection: all that the report shows; written last
    weights.csv       the weights at each context, of a selection in contexts
    report.html       the page, written by the command line
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mixtura.contracts import InputError
from mixtura.data import source
from mixtura.folder.io import read_json, write_json
from mixtura.ground import machine


@dataclass(frozen=True)
class SelectionFolder:
    """The files of one selection."""

    path: Path

    @property
    def ledger_path(self) -> Path:
        """The first file of a selection."""
        return self.path / "ledger.sqlite"

    @property
    def record_path(self) -> Path:
        """The last file of a selection."""
        return self.path / "selection.json"

    @property
    def weights_path(self) -> Path:
        """The weights at each context."""
        return self.path / "weights.csv"

    @property
    def page_path(self) -> Path:
        """Where the report stands by default."""
        return self.path / "report.html"

    @property
    def is_begun(self) -> bool:
        """Whether there is a ledger."""
        return self.ledger_path.exists()

    @property
    def is_finished(self) -> bool:
        """Whether there is a record of the end."""
        return self.record_path.exists()

    def record(self) -> Any:
        """The end of the selection as plain data. InputError where it is not finished, or damaged."""
        if not self.is_finished:
            raise InputError(
                f"{self.path}: the selection in it is not finished; the same `mixtura select` command goes on with it"
            )
        return read_json(self.record_path)

    def write_end(self, record: Mapping[str, Any], weights: pd.DataFrame | None) -> None:
        """The end of the selection as plain data; ``weights``: a row for each context, where there are contexts."""
        if weights is not None:
            source.write(weights, self.weights_path)
        write_json(self.record_path, record)

    def check(self) -> None:
        """InputError where the folder holds anything but a selection."""
        if self.path.exists() and not self.path.is_dir() or self.path.is_dir() and any(self.path.iterdir()) and not self.is_begun:
            raise InputError(f"{self.path}: the folder is not empty and holds no selection; give another --out")

    def clear(self) -> None:
        """Delete the files of the selection, if there is one. InputError where a process works on it: an open ledger holds its
        folder."""
        if not self.is_begun:
            return
        with machine.held(self.path) as alone:
            if not alone:
                raise InputError(f"{self.path}: another selection works in this folder; wait for it, or give another --out")
            machine.clear(self.path, last=self.ledger_path.name)
