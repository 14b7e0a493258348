"""`mixtura select`: generators are asked for samples one by one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixtura.cli.app import Features, Json, Reference, Seed
from mixtura.cli.deliver import emit
from mixtura.cli.tables import make_console

if TYPE_CHECKING:  # torch and pandas wait until a command needs them: --help is quick
    from rich.console import Console

    from mixtura.folder.selection import SelectionFolder
    from mixtura.selection.records import Selected, SelectedByContext


def select(
    arms: Annotated[Path, typer.Argument(metavar="ARMS.yaml", help="The generators, and how to ask them (docs/arms.md).")],
    objective: Annotated[str, typer.Option(help="As for mix, quadratic terms only: mmd, rke+0.2*precision.")] = "rke",
    reference: Reference = None,
    pulls: Annotated[int, typer.Option(min=1, help="Samples to ask for in all.")] = 1000,
    out: Annotated[Path | None, typer.Option(help="Folder of the selection; runs/NAME by default.")] = None,
    policy: Annotated[
        str, typer.Option(help="Who chooses: variance_ucb, cab, ogd, greedy, uniform, … (docs/select.md).")
    ] = "variance_ucb",
    bandwidth: Annotated[float | None, typer.Option(help="Of Gaussian kernels; from the first samples by default.")] = None,
    features: Features = None,
    stop: Annotated[float | None, typer.Option(help="Stop as soon as the excess loss is at most this.")] = None,
    certified: Annotated[bool, typer.Option("--certified", help="By a proven bound, which takes far more pulls.")] = False,
    contexts: Annotated[
        str | None, typer.Option(help="Table of contexts, one a row: the best weights at each (docs/contextual.md).")
    ] = None,
    reach: Annotated[
        float | None, typer.Option(help="How far one context speaks of another, in deviations of the columns of numbers.")
    ] = None,
    seed: Seed = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over in a folder that holds a selection.")] = False,
    as_json: Json = False,
) -> None:
    """Ask generators for samples one by one: their best mixture with the fewest. The same command goes on where it stopped."""
    from mixtura.folder.selection import SelectionFolder
    from mixtura.report import selection
    from mixtura.selection.records import SelectedByContext
    from mixtura.selection.start import conduct

    out = out or Path("runs") / arms.stem
    options: dict[str, Any] = {"reference": reference, "pulls": pulls, "out": out, "policy": policy, "bandwidth": bandwidth}
    options |= {"features": features, "stop": stop, "certified": certified, "contexts": contexts, "reach": reach}
    found = _show_rounds(make_console(stderr=True), conduct(arms, objective, seed=seed, fresh=fresh, **options), pulls)
    if isinstance(found, SelectedByContext):
        show = partial(_show_contexts, make_console(stderr=False), found, SelectionFolder(out))
    else:
        selection.build(out)
        show = partial(_show_selection, make_console(stderr=False), found, SelectionFolder(out))
    emit({**found.record(), "folder": str(out)}, as_json, show)


def _show_rounds(console: Console, records: Iterator[Any], pulls: int) -> Any:
    """The end of a selection. On the way a line that moves on a terminal, a line every twentieth elsewhere; failures at once."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from mixtura.selection.records import Round

    shown = 0
    with Progress(
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} samples"), BarColumn(), TimeRemainingColumn(),
        TextColumn("{task.description}"), console=console, disable=not console.is_terminal, transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=pulls)
        for r in records:
            if not isinstance(r, Round):
                return r
            if r.status != "told":
                console.print(f"{r.arm}: {r.status}, {r.reason.removeprefix(r.arm + ': ')}", soft_wrap=True, highlight=False)
            bar.update(task, completed=r.pulls)
            if r.value is None or r.single is None:
                continue
            said = f"{r.value.value:.4g} ± {r.value.error:.2g}"
            bar.update(task, description=said)
            if not console.is_terminal and r.pulls - shown >= pulls / 20:
                shown = r.pulls
                console.print(f"{r.pulls:,} samples: {said}, best alone {r.single[0]} {r.single[1].value:.4g}", highlight=False)
    raise RuntimeError("the selection ended without a result")


def _show_selection(console: Console, found: Selected, folder: SelectionFolder) -> None:
    from rich.table import Table

    from mixtura.simplex.intervals import p_in_words

    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for name in ("arm", "samples", "weight", "95 % interval", ""):
        table.add_column(name, justify="left" if name in ("arm", "") else "right", no_wrap=name != "")
    for name, weight in sorted(found.by_name.items(), key=lambda item: -item[1]):
        counts = found.counts[name]
        low, high = (found.intervals_by_name or {}).get(name, (None, None))
        lost = ", ".join(f"{counts[status]} {status}" for status in ("failed", "unknown") if counts[status])
        note = found.closed.get(name, "") and f"closed: {found.closed[name]}" or lost
        table.add_row(name, f"{counts['told']:,}", f"{weight:.3f}", "" if low is None else f"{low:.2f} – {high:.2f}", note)
    console.print(table)
    console.print()
    console.print(found.sentence, style="bold", soft_wrap=True)
    if found.gain is not None and found.p_value is not None:
        gain = f"{found.gain.value:+.3g} ± {found.gain.error:.2g} {found.unit} ({p_in_words(found.p_value)})"
        console.print(f"gain over any one arm on halves that chose nothing: {gain}", style="dim", soft_wrap=True)
    for c in found.certificates:
        wanted = f"; it would take about {c.wanted:,.0f} samples" if c.wanted and c.wanted > found.pulls else ""
        console.print(f"{c.mode}: at most {c.excess:.3g} above the least loss{wanted}", style="dim", soft_wrap=True)
    spent = f", cost {found.spent:,.6g}" if found.spent else ""
    console.print(f"{found.why}{spent}; sums of {found.sums}", style="dim", soft_wrap=True)
    files = f"{folder.page_path.name}, {folder.ledger_path.name}"
    console.print(f"everything is in {folder.path} ({files})", style="dim", soft_wrap=True)


def _show_contexts(console: Console, found: SelectedByContext, folder: SelectionFolder) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for name in ("arm", "samples", "mean weight", ""):
        table.add_column(name, justify="left" if name in ("arm", "") else "right", no_wrap=name != "")
    for name, weight in sorted(found.mean_weights.items(), key=lambda item: -item[1]):
        note = f"closed: {found.closed[name]}" if name in found.closed else ""
        table.add_row(name, f"{found.counts[name]['told']:,}", f"{weight:.3f}", note)
    console.print(table)
    console.print()
    console.print(found.sentence, style="bold", soft_wrap=True)
    spent = f", cost {found.spent:,.6g}" if found.spent else ""
    console.print(f"{found.why}{spent}", style="dim", soft_wrap=True)
    files = f"{folder.weights_path.name}: a row for each context; {folder.ledger_path.name}"
    console.print(f"everything is in {folder.path} ({files})", style="dim", soft_wrap=True)
