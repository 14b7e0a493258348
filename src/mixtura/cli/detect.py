"""`mixtura detect`: which rows are strange beside normal ones, how sure that is, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixtura.cli.app import Features, Json, Output, Seed
from mixtura.cli.deliver import check_output, collected_notes, emit
from mixtura.cli.errors import fail
from mixtura.cli.tables import make_console
from mixtura.cli.work import at_work
from mixtura.ground.shown import visible

if TYPE_CHECKING:  # torch and pandas wait until a command needs them: --help is quick
    from rich.console import Console

    from mixtura.estimators.detection import Detection

#: rows that are shown
FEW = 10


def detect(
    normal: Annotated[str, typer.Argument(metavar="NORMAL", help="Normal rows or images, or mostly so; or the folder of a run.")],
    suspects: Annotated[str, typer.Argument(metavar="SUSPECTS", help="Rows or images of the same kind.")],
    method: Annotated[str, typer.Option(help="blend, a detector, or a family of models (docs/detect.md).")] = "blend",
    false_alarms: Annotated[
        str | None, typer.Option(metavar="SHARE", help="Of normal rows, the share that may be called strange: 1%, 5% by default.")
    ] = None,
    trim: Annotated[
        str, typer.Option(metavar="SHARE", help="Leave out this share of NORMAL, the strangest: as many as may be anomalies.")
    ] = "0",
    anomalies: Annotated[str | None, typer.Option(metavar="FILE", help="A few known anomalies, to weigh detectors by.")] = None,
    features: Features = None,
    output: Output = None,
    page: Annotated[Path | None, typer.Option(help="A page of it; by default beside --output, with the ending .html.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Which rows are strange beside normal ones? Scores, p-values, a threshold with its rate of false alarms, and reasons."""
    from mixtura.data.source import write
    from mixtura.estimators.detection import detect as find
    from mixtura.estimators.detection import share_of
    from mixtura.report import detection

    check_output(output, arrays=False)
    page = page if page is not None or output is None else output.with_suffix(".html")
    if page is not None and (page.suffix != ".html" or page.is_dir() or not page.parent.is_dir()):
        fail(f"{page}: expected a file with the ending .html in a folder that exists; name one")
    level = None if false_alarms is None else share_of(false_alarms)
    left_out = 0.0 if trim.strip() in ("0", "0%") else share_of(trim, "--trim")
    with collected_notes() as notes, at_work(f"learning {normal}, then scoring {suspects}"):
        found = find(
            normal, suspects, method=method, false_alarms=level, trim=left_out, anomalies=anomalies, features=features,
            seed=seed,
        )  # fmt: skip
    record = found.to_json()
    if output is not None:
        with at_work(f"writing {output.name}"):
            write(found.scores, output)
    if page is not None:
        detection.build(record, page, found.pictures and (found.pictures.images, found.pictures.maps))
    record |= {
        "notes": notes, "output": None if output is None else str(output), "page": None if page is None else str(page)
    }  # fmt: skip
    emit(record, as_json, lambda: _show(make_console(stderr=False), found, output, page))


def _show(console: Console, found: Detection, output: Path | None, page: Path | None) -> None:
    from rich.table import Table

    (a, b), (n, m) = map(visible, found.names), found.rows
    console.print(f"{a}: {n:,} {found.nouns}; {b}: {m:,}", soft_wrap=True)
    console.print(visible(found.verdict), style="bold", soft_wrap=True)
    if found.discoveries:
        console.print(f"{found.discoveries:,} of them stand out among all: at most 10 % of these are normal", soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="dim")
    cells = ("least likely cells (1: as one in ten)",) if found.columns else ()
    for name in ("row", "strangeness", "p", *cells):
        table.add_column(name, justify="left" if "cells" in name else "right", no_wrap="cells" not in name)
    for each in found.strangest[:FEW]:
        why = ", ".join(f"{r.column} = {r.value} ({r.strength:.1f})" for r in each.reasons)
        told = f"{each.row:,}", f"{each.strangeness:.3f}", f"{each.p:.4f}", visible(why)
        table.add_row(*told[: 3 + len(cells)])
    console.print(table)
    even = len({*found.weights.values()}) == 1
    parts = ", ".join(name if even else f"{found.weights[name]:.2f} {name}" for name in found.parts)
    by = f"by {found.method}: {parts}; calibrated on {found.calibration:,} {found.nouns} of {a}"
    console.print(by, style="dim", soft_wrap=True)
    for name, why in found.failed.items():
        console.print(f"{name} left out: {visible(why)}", style="dim", soft_wrap=True)
    for title, path in (("scores", output), ("page", page)):
        if path is not None:
            console.print(f"{title}: {path}", soft_wrap=True)
