"""`mixtura evaluate`: every metric that compares two sets of rows or images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mixtura.cli.app import Features, Json, Output, Seed, SkipBroken
from mixtura.cli.deliver import check_output, collected_notes, deliver
from mixtura.cli.numbers import format_to_error
from mixtura.cli.tables import WIDE, make_console
from mixtura.cli.work import at_work

if TYPE_CHECKING:  # torch and pandas wait until a command needs them: --help is quick
    import pandas as pd
    from rich.console import Console


def evaluate(
    real: Annotated[str, typer.Argument(metavar="REAL", help="Rows or images that the generator has not seen.")],
    generated: Annotated[str, typer.Argument(metavar="GENERATED", help="Rows or images that it made.")],
    train: Annotated[str | None, typer.Option(help="Rows or images it was trained on, to measure memorisation too.")] = None,
    features: Features = None,
    skip_broken: SkipBroken = False,
    output: Output = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Every metric that compares two sets, with its standard error. No model needed."""
    from mixtura.evaluation import evaluate as compare

    check_output(output, arrays=False)
    with collected_notes() as notes, at_work(f"comparing {generated} with {real}"):
        table = compare(real, generated, train=train, features=features, seed=seed, skip_broken=skip_broken)
    if output is not None or as_json:
        deliver(table, output, as_json, {"real": real, "generated": generated, "notes": notes})
    else:
        _show_metrics(make_console(stderr=False), table)


def _show_metrics(console: Console, table: pd.DataFrame) -> None:
    from rich.table import Table

    wide = console.width >= WIDE
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("metric", "value", "better", "unit", *(["what it is"] if wide else [])):
        shown.add_column(name, justify="right" if name == "value" else "left", no_wrap=name != "what it is")
    for row in table.to_dict("records"):
        cells = (row["metric"], format_to_error(row["value"], row["error"]), row["better"], row["unit"])
        shown.add_row(*cells, *([row["summary"]] if wide else []))
    console.print(shown)
    for row in table.to_dict("records"):
        if row["reason"]:
            console.print(f"{row['metric']}: {row['reason']}", style="dim")
    console.print("± is one standard error" + ("" if wide else "; a wider terminal also shows what each metric is"), style="dim")
