"""The page of an online selection: ``selection.json`` in its folder → one self-contained file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from mixtura.contracts import InputError
from mixtura.folder.io import plain, read_json, write_document
from mixtura.folder.records import digits_of
from mixtura.ground.shown import all_visible
from mixtura.report.page import COLOURS, filled


def build(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write the page of a selection to ``output``, by default ``report.html`` in the folder; returns where it is.

    Raises InputError if the folder holds no finished selection, or a damaged one.
    """
    out = Path(folder)
    if not (out / "selection.json").exists():
        raise InputError(f"{out}: the selection in it is not finished; the same `mixtura select` command goes on with it")
    data = read_json(out / "selection.json")
    if isinstance(data, dict) and "contexts" in data:
        raise InputError(f"{out}: a selection in contexts has no page; {out / 'weights.csv'} holds the weights at each context")
    try:
        page = render(data)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, TemplateError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{out}/selection.json: damaged ({reason}); the same mixtura select command writes it again") from error
    path = out / "report.html" if output is None else Path(output)
    write_document(path, page)
    return path


def render(data: Mapping[str, Any]) -> str:
    """The page of what :meth:`mixtura.selection.mixture.MixtureSession.record` returned."""
    data = all_visible(plain(data))
    names = [arm["name"] for arm in data["arms"]]
    return filled(
        "selection", data, colour=lambda name: f"c{names.index(name) % COLOURS}",
        order=sorted(range(len(names)), key=lambda i: -data["arms"][i]["weight"]),
        digits_of=digits_of, cents=digits_of(min((a["cost"] for a in data["arms"] if a["cost"]), default=1.0)),
    )  # fmt: skip
