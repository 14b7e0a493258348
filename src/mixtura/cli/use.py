"""What is done with a finished run: `mixtura sample`, `score`, `predict`, `impute` and `report`."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mixtura.cli.app import Folder, Json, Model, Numbers, Output, Rows, Seed
from mixtura.cli.deliver import check_array, check_output, collected_notes, deliver, emit
from mixtura.cli.errors import fail
from mixtura.cli.tables import FEW
from mixtura.cli.work import at_work
from mixtura.ground.shown import visible


def sample(
    folder: Folder,
    n: Annotated[
        int | None, typer.Option("-n", "--rows", help="How many rows: 1000 by default, or with --given 1 for each row of it.")
    ] = None,
    given: Annotated[
        str | None, typer.Option(metavar="FILE", help="For a run with --target: rows of its inputs; the draws stand beside them.")
    ] = None,
    output: Rows = None,
    model: Model = None,
    seed: Seed = 0,
    start: Annotated[int, typer.Option(min=0, help="Leave out so many rows at the start of the seed's sequence.")] = 0,
    as_json: Json = False,
) -> None:
    """New rows, with the columns, types and rounding of the data; or new images."""
    from mixtura.study.study import load

    study = load(folder)
    images = study.schema.pictured
    if images and output is None:
        fail("sample: images do not fit a terminal; give a file with -o, as in -o new.npz, new.zip or a folder")
    check_output(output, images=images)
    if output is not None:
        study.schema.check_output(output)
    chosen = study.sampler if model is None else study.model(model)
    rows: Any = None
    read: list[str] = []
    if given is not None and study.given is not None:
        with collected_notes() as read, at_work(f"reading {given}"):
            rows = chosen.rows(given)
    targets = [row["column"] for row in study.schema.describe()]
    check_array(output, study, None if rows is None else rows.drop(columns=targets, errors="ignore"))
    about = {"model": chosen.name, "seed": seed, "start": start}
    n = n if n is not None else 1000 if given is None else 1
    with collected_notes() as notes, at_work(f"sampling {chosen.name}") as watch:
        made = chosen.sample(n, seed=seed, start=start, given=given if rows is None else rows, watch=watch)
    deliver(made, output, as_json, about | {"notes": read + notes})


def score(
    folder: Folder,
    data: Annotated[str, typer.Argument(metavar="FILE")],
    output: Output = None,
    model: Model = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Log-density of every row in nats, with its kind: exact or bound. Higher is likelier."""
    from mixtura.metrics.likelihood import mean_nats

    check_output(output, arrays=False)
    chosen = _model_with_density(folder, model)
    with collected_notes() as notes, at_work(f"scoring {data} by {chosen.name}") as watch:
        scores = chosen.score(data, seed=seed, watch=watch)
    nats, kind = scores["nats"].to_numpy(), str(scores["kind"].iloc[0])
    impossible = (nats == -math.inf).nonzero()[0]
    mean = mean_nats(nats[nats > -math.inf]) if len(impossible) < len(nats) else None
    sentences = [] if mean is None else [f"mean {mean.value:.3f} ± {mean.error:.3f} nats a row ({kind}), {mean.n:,} rows"]
    if len(impossible):
        rows = f"{len(impossible):,} row{'s' * (len(impossible) > 1)}"
        sentences.append(f"{rows} impossible under {chosen.name} (-inf), the first is row {impossible[0]}")
    about = {"model": chosen.name, "mean_nats": mean and mean.value, "error": mean and mean.error, "kind": kind}
    deliver(scores, output, as_json, about | {"impossible": len(impossible), "notes": notes}, "; ".join(sentences), at_most=FEW)


def predict(
    folder: Folder,
    data: Annotated[str, typer.Argument(metavar="FILE", help="Rows with the inputs of a run made with --target.")],
    output: Numbers = None,
    interval: Annotated[float, typer.Option(help="Share of true values between the two quantiles that are given.")] = 0.9,
    draws: Annotated[int, typer.Option(help="Draws from the model for every row; fewer are faster.")] = 999,
    model: Model = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Predict the targets of rows: mean and quantiles of numbers, the likeliest category and its probability."""
    from mixtura.study.study import load

    if not 0 < interval < 1:
        fail(f"--interval {interval}: expected a share between 0 and 1, as in 0.9")
    check_output(output)
    study = load(folder)
    chosen = study.best if model is None else study.model(model)
    tail = round((1 - interval) / 2, 10)
    with collected_notes() as read, at_work(f"reading {data}"):
        rows = chosen.rows(data)
    check_array(output, study, rows)
    with collected_notes() as notes, at_work(f"predicting {data} by {chosen.name}") as watch:
        predicted = chosen.predict(rows, levels=(tail, 0.5, round(1 - tail, 10)), draws=draws, seed=seed, watch=watch)
    about = {"model": chosen.name, "interval": interval, "draws": draws, "notes": read + notes}
    deliver(predicted, output, as_json, about, at_most=FEW)


def impute(
    folder: Folder,
    data: Annotated[str, typer.Argument(metavar="FILE")],
    output: Numbers = None,
    draws: Annotated[int, typer.Option(help="Completions of every row; a column `draw` numbers them.")] = 1,
    model: Model = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fill missing cells with draws from their distribution given the rest of the row."""
    check_output(output)
    chosen = _model_with_density(folder, model)
    with collected_notes() as read, at_work(f"reading {data}"):
        frame = chosen.rows(data)
    check_array(output, chosen, frame)
    with collected_notes() as notes, at_work(f"filling {data} by {chosen.name}") as watch:
        filled = chosen.impute(frame, draws=draws, seed=seed, watch=watch)
    left = chosen.schema.gaps(filled.drop(columns="draw") if draws > 1 else filled) // draws
    holes = chosen.schema.gaps(frame) - left
    summary = f"{holes:,} cells filled by {chosen.name}" + (f", {left:,} left empty" if left else "")
    about = {"model": chosen.name, "cells_filled": holes, "cells_left": left, "draws": draws, "notes": read + notes}
    deliver(filled, output, as_json, about, summary)


def report(
    folder: Folder,
    open_page: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write it; RUN/report.html by default.")] = None,
    as_json: Json = False,
) -> None:
    """One self-contained page of a finished run, to look at offline or to send."""
    import webbrowser

    from mixtura.folder.selection import SelectionFolder
    from mixtura.report import build, selection
    from mixtura.study.study import load

    selected = SelectionFolder(folder)
    if selected.is_begun or selected.is_finished:
        page = selection.build(folder, output)
    else:
        load(folder)  # says what is wrong with a folder that holds no finished run
        page = build(folder, output)
    emit({"report": str(page), "bytes": page.stat().st_size}, as_json, lambda: print(visible(str(page))))
    if open_page and not webbrowser.open(page.resolve().as_uri()):
        print(visible(f"no browser was found; open {page} yourself"), file=sys.stderr)


def _model_with_density(folder: Path, model: str | None) -> Any:
    from mixtura.study.study import load

    study = load(folder)
    return study.density if model is None else study.model(model)
