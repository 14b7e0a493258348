"""`mixtura select`: generators are asked for samples one by one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixtura.cli.app import Features, Json, Seed
from mixtura.cli.deliver import collected_notes, emit
from mixtura.cli.errors import fail
from mixtura.cli.tables import make_console

if TYPE_CHECKING:  # torch and pandas wait until a command needs them: --help is quick
    from rich.console import Console


def select(
    arms: Annotated[Path, typer.Argument(metavar="ARMS.yaml", help="The generators, and how to ask them (docs/arms.md).")],
    objective: Annotated[str, typer.Option(help="As for mix, quadratic terms only: mmd, rke+0.2*precision.")] = "rke",
    reference: Annotated[str | None, typer.Option(help="Real rows or images.")] = None,
    pulls: Annotated[int, typer.Option(min=1, help="Samples to ask for in all.")] = 1000,
    out: Annotated[Path | None, typer.Option(help="Folder of the selection; runs/NAME by default.")] = None,
    policy: Annotated[
        str, typer.Option(help="Who chooses: variance_ucb, cab, ogd, greedy, uniform, … (docs/select.md).")
    ] = "variance_ucb",
    bandwidth: Annotated[float | None, typer.Option(help="Of Gaussian kernels; from the first samples by default.")] = None,
    features: Features = None,
    stop: Annotated[float | None, typer.Option(help="Stop as soon as the excess loss is at most this.")] = None,
    certified: Annotated[bool, typer.Option("--certified", help="By a proven bound, which takes far more pulls.")] = False,
    seed: Seed = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over in a folder that holds a selection.")] = False,
    as_json: Json = False,
) -> None:
    """Ask generators for samples one by one: their best mixture with the fewest. The same command goes on where it stopped."""
    from dataclasses import asdict

    from mixtura import selection as sessions
    from mixtura.arms import load_arms
    from mixtura.folder.store import write_json
    from mixtura.ground import machine
    from mixtura.mixing import gain_of_halves, real_rows
    from mixtura.report import selection

    out = out or Path("runs") / arms.stem
    if fresh and (out / sessions.LEDGER).exists():
        machine.clear(out, last=sessions.LEDGER)
    if out.exists() and not out.is_dir() or out.is_dir() and any(out.iterdir()) and not (out / sessions.LEDGER).exists():
        fail(f"{out}: the folder is not empty and holds no selection; give another --out")
    mode = "certified" if certified else "asymptotic"
    with collected_notes():
        real, columns = (None, None) if reference is None else real_rows(reference, seed=seed)
        listed = load_arms(arms, columns)
    session = sessions.begin(
        listed, out, objective, reference=real, name=reference,
        extractor=features, bandwidth=bandwidth, policy=policy, seed=seed, pulls=pulls,
        stop=None if stop is None else sessions.Stop(stop, mode),
    )  # fmt: skip
    began = time.monotonic()
    try:
        _show_rounds(make_console(stderr=True), session.conduct(), pulls)
        found = session.finish()
        record = session.record(found, arms.stem, time.monotonic() - began)
        judged = gain_of_halves(session.samples(), session.selector.objective, seed=seed)
    finally:
        session.close()
    gain = None if judged is None else {**asdict(judged[0]), "p_value": judged[1]}
    write_json(out / "selection.json", {**record, "gain": gain})
    selection.build(out)
    result = {**asdict(found), "sentence": found.sentence, "gain": gain, "folder": str(out)}
    emit(result, as_json, lambda: _show_selection(make_console(stderr=False), found, gain, out))


def _show_rounds(console: Console, rounds: Iterator[Any], pulls: int) -> None:
    """A line that moves on a terminal, a line every twentieth elsewhere; failures at once."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    shown = 0
    with Progress(
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} samples"), BarColumn(), TimeRemainingColumn(),
        TextColumn("{task.description}"), console=console, disable=not console.is_terminal, transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=pulls)
        for r in rounds:
            if r.status != "told":
                console.print(f"{r.arm}: {r.status}, {r.reason.removeprefix(r.arm + ': ')}", soft_wrap=True, highlight=False)
            bar.update(task, completed=r.pulls)
            if r.value is None:
                continue
            said = f"{r.value.value:.4g} ± {r.value.error:.2g}"
            bar.update(task, description=said)
            if not console.is_terminal and r.pulls - shown >= pulls / 20:
                shown = r.pulls
                console.print(f"{r.pulls:,} samples: {said}, best alone {r.single[0]} {r.single[1].value:.4g}", highlight=False)


def _show_selection(console: Console, found: Any, gain: dict[str, Any] | None, out: Path) -> None:
    from rich.table import Table

    from mixtura.simplex.intervals import p_in_words

    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for name in ("arm", "samples", "weight", "95 % interval", ""):
        table.add_column(name, justify="left" if name in ("arm", "") else "right", no_wrap=name != "")
    for name, weight in sorted(found.weights.items(), key=lambda item: -item[1]):
        counts = found.counts[name]
        low, high = (found.intervals or {}).get(name, (None, None))
        lost = ", ".join(f"{counts[status]} {status}" for status in ("failed", "unknown") if counts[status])
        note = found.closed.get(name, "") and f"closed: {found.closed[name]}" or lost
        table.add_row(name, f"{counts['told']:,}", f"{weight:.3f}", "" if low is None else f"{low:.2f} – {high:.2f}", note)
    console.print(table)
    console.print()
    console.print(found.sentence, style="bold", soft_wrap=True)
    if gain is not None:
        told = f"{gain['value']:+.3g} ± {gain['error']:.2g} {found.unit} ({p_in_words(gain['p_value'])})"
        console.print(f"gain over any one arm on halves that chose nothing: {told}", style="dim", soft_wrap=True)
    for c in found.certificates:
        wanted = f"; it would take about {c.wanted:,.0f} samples" if c.wanted and c.wanted > found.pulls else ""
        console.print(f"{c.mode}: at most {c.excess:.3g} above the least loss{wanted}", style="dim", soft_wrap=True)
    spent = f", cost {found.spent:,.6g}" if found.spent else ""
    console.print(f"{found.why}{spent}; sums of {found.sums}", style="dim", soft_wrap=True)
    console.print(f"everything is in {out} (report.html, ledger.sqlite)", style="dim", soft_wrap=True)
