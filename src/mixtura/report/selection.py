"""The page of an online selection: the record of its end in its folder → one self-contained file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from mixtura.contracts import InputError
from mixtura.folder.io import plain, write_document
from mixtura.folder.records import digits_of
from mixtura.folder.selection import SelectionFolder
from mixtura.ground.shown import all_visible
from mixtura.report.page import COLOURS, filled


def build(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write the page of a selection to ``output``, by default ``report.html`` in the folder; returns where it is.

    Raises InputError if the folder holds no finished selection, or a damaged one.
    """
    selection = SelectionFolder(Path(folder))
    data = selection.record()
    if isinstance(data, dict) and "contexts" in data:
        raise InputError(
            f"{selection.path}: a selection in contexts has no page; {selection.weights_path} holds the weights at each context"
        )
    try:
        page = render(data)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, TemplateError) as error:
        raise InputError(
            f"{selection.record_path}: damaged ({type(error).__name__}: {error}); the same mixtura select command writes it again"
        ) from error
    path = selection.page_path if output is None else Path(output)
    write_document(path, page)
    return path


def render(data: Mapping[str, Any]) -> str:
    """The page of what :meth:`mixtura.selection.mixture.MixtureSession.record` returned."""
    data = all_visible(plain(data))
    names = [arm["name"] for arm in data["arms"]]
    cheapest = min((arm["cost"] for arm in data["arms"] if arm["cost"]), default=1.0)
    return filled(
        "selection", data, colour=lambda name: f"c{names.index(name) % COLOURS}",
        order=sorted(range(len(names)), key=lambda i: -data["arms"][i]["weight"]),
        ledger=SelectionFolder(Path()).ledger_path.name, digits_of=digits_of, cents=digits_of(cheapest),
    )  # fmt: skip
