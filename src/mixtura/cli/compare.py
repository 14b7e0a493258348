"""`mixtura compare`: are two sets the same, how far apart are they, and where do they differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixtura.cli.app import Features, Json, Seed, SkipBroken
from mixtura.cli.arguments import parse_pairs
from mixtura.cli.deliver import collected_notes, emit
from mixtura.cli.errors import fail
from mixtura.cli.numbers import format_to_error
from mixtura.cli.tables import make_console
from mixtura.cli.work import at_work
from mixtura.ground.shown import visible

if TYPE_CHECKING:  # torch and pandas wait until a command needs them: --help is quick
    from rich.console import Console

    from mixtura.evaluation import Difference

#: columns that are shown
FEW = 8


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Rows or images.")],
    b: Annotated[str, typer.Argument(metavar="B", help="More of the same kind.")],
    method: Annotated[str | None, typer.Option(help="How the density ratio is learnt; by default the best of several.")] = None,
    features: Features = None,
    kind: Annotated[
        list[str] | None, typer.Option(metavar="COL=KIND", help="Kind of a column, not the guess: age=integer. Repeatable.")
    ] = None,
    skip_broken: SkipBroken = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A page of it, FILE.html.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Are two sets of one law? p-values, KL, and the columns, regions and rows in which they differ."""
    from mixtura.evaluation import compare as compare_sets
    from mixtura.report import comparison

    if output is not None and (output.suffix != ".html" or output.is_dir() or not output.parent.is_dir()):
        fail(f"{output}: expected a file with the ending .html in a folder that exists; name one")
    kinds = parse_pairs(kind, "--kind")
    with collected_notes() as notes, at_work(f"comparing {a} with {b}"):
        found = compare_sets(a, b, method=method, features=features, kinds=kinds, seed=seed, skip_broken=skip_broken)
    record = found.to_json()
    if output is not None:
        comparison.build(record, output)
    record |= {"notes": notes, "output": None if output is None else str(output)}
    emit(record, as_json, lambda: _show(make_console(stderr=False), found, output))


def _show(console: Console, found: Difference, output: Path | None) -> None:
    from rich.table import Table

    (a, b), (n, m) = map(visible, found.names), found.rows
    console.print(f"{a}: {n:,} {found.kind.nouns}; {b}: {m:,}")
    console.print(visible(found.verdict), style="bold", soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "value", "p"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    tests, nats = found.tests, found.divergences
    rows = [("MMD²", tests["mmd2"], _p(tests["mmd2_p"].value)), ("told apart", tests["c2st"], _p(tests["c2st_p"].value))]
    rows += [(f"KL of {a} from {b}", nats["kl"], ""), (f"KL of {b} from {a}", nats["reverse_kl"], "")]
    rows += [("Jensen–Shannon", nats["js"], "")]
    for name, estimate, p in rows:
        table.add_row(name, format_to_error(estimate.value, estimate.error), p)
    console.print(table)
    for why in dict.fromkeys(estimate.reason for _, estimate, _ in rows if estimate.reason):
        console.print(why, style="dim", soft_wrap=True)
    if found.columns:
        columns = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("column", "distance", "p", "a → b"):
            columns.add_column(name, justify="right" if name in ("distance", "p") else "left", no_wrap=name != "a → b")
        for column in found.columns[:FEW]:
            columns.add_row(column.column, f"{column.distance:.3f}", _p(column.p), column.detail)
        console.print(columns)
        if len(found.columns) > FEW:
            console.print(f"… and {len(found.columns) - FEW:,} more columns", style="dim")
    for region in found.regions:
        shares = f"{region.share_a:.1%} → {region.share_b:.1%}"
        console.print(f"{region.rule}: {shares} of the {found.kind.nouns} (± {region.error:.1%})", soft_wrap=True)
    said = f"divergences in nats by {found.method}, at rows it has not learnt from; ± is one standard error"
    console.print(said, style="dim", soft_wrap=True)
    if output is not None:
        console.print(f"page: {output}", soft_wrap=True)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
