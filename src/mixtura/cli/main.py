"""The command line: argv → the functions of the same names. What a person sees on screen is here and nowhere else.

Results go to standard output, everything on the way to standard error. A wrong input is one sentence and exit code 2.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:  # torch and pandas wait until a command needs them: --help is quick
    import pandas as pd
    from rich.console import Console

    from mixtura.folder.records import Score
    from mixtura.job.start import Options, Planned
    from mixtura.study import Study

#: "the words on the command line are wrong": typer's own class, which older versions take from click
WrongUsage: Any = typer.BadParameter.__mro__[1]
INTERRUPTED = 130
#: seconds after which work says that it is one, and between two lines where no terminal shows it moving
SOON, LATER = 1.5, 30.0
#: letters of an error
SAID = 1_200
#: scores shown where no file was asked for
FEW = 8
#: columns of a terminal from which on the leaderboard shows costs too
WIDE = 96

app = typer.Typer(
    name="mixtura",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Which generative model, or which blend of models, is best on rows never seen?",
)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output (docs/cli-json.md).")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same bits.")]
Folder = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `mixtura run` wrote.")]
Model = Annotated[str | None, typer.Option(help="One model of the run, or blend; the verdict's choice by default.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write: .csv .tsv .parquet .json .jsonl")]
Numbers = Annotated[
    Path | None, typer.Option("--output", "-o", help="File to write: .csv .tsv .parquet .json .jsonl; of numbers alone .npy .npz")
]
Rows = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="File to write: those of predict; images to .npz .npy .zip or a folder"),
]
Features = Annotated[
    str | None, typer.Option(help="What samples are compared by: pixels, pca:64, conv:256, or a local .onnx network.")
]
SkipBroken = Annotated[bool, typer.Option("--skip-broken", help="Leave out image files that cannot be read, and name them.")]


# ------------------------------------------------------------------------------------------------------- commands


@app.command()
def run(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A table (.csv .tsv .parquet .json .jsonl .npy .npz[:key]), a folder or .zip of images, or penguins, digits."
        ),
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Time for the whole run: 60s (the default), 5m, 1h.")] = None,
    steps: Annotated[int | None, typer.Option(help="Instead of a budget: training steps of every fit.")] = None,
    families: Annotated[
        list[str] | None, typer.Option(help="Comma-separated; all by default. Marginals, the floor, always join.")
    ] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Run folder; runs/NAME by default.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over in a folder that holds a run.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its time, write nothing.")] = False,
    split: Annotated[str | None, typer.Option(metavar="COL", help="Column that says fit, select or report for each row.")] = None,
    group: Annotated[str | None, typer.Option(metavar="COL", help="Keep rows of one group in one part.")] = None,
    time_column: Annotated[
        str | None, typer.Option("--time", metavar="COL", help="Fit on the oldest rows, report on the newest.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(metavar="COLS", help="Comma-separated columns to model given the others: p(y given x).")
    ] = None,
    columns: Annotated[list[str] | None, typer.Option(help="Comma-separated columns to model; all by default.")] = None,
    kind: Annotated[list[str] | None, typer.Option(metavar="COL=KIND", help="Overrule a guess: age=integer. Repeatable.")] = None,
    bounds: Annotated[
        list[str] | None, typer.Option(metavar="COL=LOW:HIGH", help="Where the values of a column end: age=0:120. Repeatable.")
    ] = None,
    samples: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="Samples of an outside generator. Repeatable.")
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="What the verdict speaks of: nats or mmd; by default what suits the data.")
    ] = None,
    features: Features = None,
    skip_broken: SkipBroken = False,
    size: Annotated[int | None, typer.Option(min=1, max=4096, help="Resize images to so many pixels a side.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    replay: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Do that run again from its recorded steps; same bits. Name its data again."),
    ] = None,
    as_json: Json = False,
) -> None:
    """From a table or images to a verdict. The same command again goes on where it stopped."""
    from mixtura.job.start import Options, conduct, preview

    if replay is not None:
        asked = {
            "--budget": budget,
            "--steps": steps,
            "--families": families,
            "--seed": seed,
            "--split": split,
            "--group": group,
            "--time": time_column,
            "--target": target,
            "--columns": columns,
            "--kind": kind,
            "--bounds": bounds,
            "--objective": objective,
            "--skip-broken": skip_broken,
            "--size": size,
            "--dry-run": dry_run,
        }
        odd = next((flag for flag, value in asked.items() if value), None)
        if odd is not None:
            _say(f"run --replay: {odd} was given, but a replay asks what the run asked; leave it out")
        # what no folder may bring along is given again
        again = {"features": features, "samples": _pairs(samples, "--samples")}
        _replay(replay, source, out, as_json, {"fresh": fresh, "device": device} | {k: v for k, v in again.items() if v})
        return
    if source is None:
        _say("run: no data was given; name a file, or a bundled example, penguins or digits")
    options = Options(
        budget=budget,
        steps=steps,
        families=_listed(families, "--families"),
        seed=seed,
        out=out or Path("runs") / Path(source.rsplit(":", 1)[0] if ".npz:" in source else source).stem,
        fresh=fresh,
        split=split,
        group=group,
        time=time_column,
        target=_listed(target, "--target"),
        columns=_listed(columns, "--columns"),
        kinds=_pairs(kind, "--kind"),
        bounds=_ends(bounds),
        samples=_pairs(samples, "--samples"),
        objective=objective,
        features=features,
        skip_broken=skip_broken,
        size=size,
        device=device,
    )
    if dry_run:
        planned = preview(source, options)
        _emit(planned, as_json, lambda: _show_plan(_console(stderr=False), planned))
        return
    screen = _Screen(_console(stderr=True), options)
    study = None
    _say_reading(source, options)
    for record in _watched(conduct(source, options), screen):
        study = getattr(record, "study", study)
    if study is None:
        raise RuntimeError("the run ended without a verdict")
    _report(options.out)
    for note in _of_outside(study):
        print(f"note: {note}", file=sys.stderr)
    _emit(_summary(study), as_json, lambda: _show_study(_console(stderr=False), study))


@app.command()
def sample(
    folder: Folder,
    n: Annotated[int | None, typer.Option("-n", "--rows", help="How many rows: 1000; with --given, 1 for each of its.")] = None,
    given: Annotated[
        str | None, typer.Option(metavar="FILE", help="Of a run with --target: rows of its inputs, which stand beside the draws.")
    ] = None,
    output: Rows = None,
    model: Model = None,
    seed: Seed = 0,
    start: Annotated[int, typer.Option(min=0, help="Go on with the seed's sequence after so many rows.")] = 0,
    as_json: Json = False,
) -> None:
    """New rows, with the columns, types and rounding of the data; or new images."""
    from mixtura.study import load

    study = load(folder)
    images = study.schema.pictured
    if images and output is None:
        _say("sample: images do not fit a terminal; give a file with -o, as in -o new.npz, new.zip or a folder")
    _can_write(output, images=images)
    if output is not None:
        study.schema.check_output(output)
    chosen = study.best if model is None else study.model(model)
    rows: Any = None
    read: list[str] = []
    if given is not None and study.given is not None:
        with _noted() as read, _at_work(f"reading {given}"):
            rows = chosen.rows(given)
    targets = [row["column"] for row in study.schema.describe()]
    _can_hold(output, study, None if rows is None else rows.drop(columns=targets, errors="ignore"))
    about = {"model": chosen.name, "seed": seed, "start": start}
    n = n if n is not None else 1000 if given is None else 1
    with _noted() as notes, _at_work(f"sampling {chosen.name}") as watch:
        made = chosen.sample(n, seed=seed, start=start, given=given if rows is None else rows, watch=watch)
    _deliver(made, output, as_json, about | {"notes": read + notes})


@app.command()
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

    _can_write(output, arrays=False)
    chosen = _with_density(folder, model)
    with _noted() as notes, _at_work(f"scoring {data} by {chosen.name}") as watch:
        scores = chosen.score(data, seed=seed, watch=watch)
    nats, kind = scores["nats"].to_numpy(), str(scores["kind"].iloc[0])
    beyond = (nats == -math.inf).nonzero()[0]
    mean = mean_nats(nats[nats > -math.inf]) if len(beyond) < len(nats) else None
    said = "" if mean is None else f"mean {mean.value:.3f} ± {mean.error:.3f} nats a row ({kind}), {mean.n:,} rows"
    if len(beyond):
        said += "; " * bool(said) + f"{len(beyond):,} that {chosen.name} holds impossible (-inf), the first is row {beyond[0]}"
    about = {"model": chosen.name, "mean_nats": mean and mean.value, "error": mean and mean.error, "kind": kind}
    _deliver(scores, output, as_json, about | {"impossible": len(beyond), "notes": notes}, said, at_most=FEW)


@app.command()
def predict(
    folder: Folder,
    data: Annotated[str, typer.Argument(metavar="FILE", help="Rows with the inputs of a run made with --target.")],
    output: Numbers = None,
    interval: Annotated[float, typer.Option(help="Share of the truths between the two quantiles that are given.")] = 0.9,
    draws: Annotated[int, typer.Option(help="Draws behind every row; fewer are faster.")] = 999,
    model: Model = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """What the targets of rows will be: mean and quantiles of numbers, the likeliest category and its probability."""
    from mixtura.study import load

    if not 0 < interval < 1:
        _say(f"--interval {interval}: expected a share between 0 and 1, as in 0.9")
    _can_write(output)
    study = load(folder)
    chosen = study.best if model is None else study.model(model)
    tail = round((1 - interval) / 2, 10)
    with _noted() as read, _at_work(f"reading {data}"):
        rows = chosen.rows(data)
    _can_hold(output, study, rows)
    with _noted() as notes, _at_work(f"predicting {data} by {chosen.name}") as watch:
        predicted = chosen.predict(rows, levels=(tail, 0.5, round(1 - tail, 10)), draws=draws, seed=seed, watch=watch)
    about = {"model": chosen.name, "interval": interval, "draws": draws, "notes": read + notes}
    _deliver(predicted, output, as_json, about, at_most=FEW)


@app.command()
def impute(
    folder: Folder,
    data: Annotated[str, typer.Argument(metavar="FILE")],
    output: Numbers = None,
    draws: Annotated[int, typer.Option(help="Completions of every row; a column `draw` numbers them.")] = 1,
    model: Model = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fill missing cells by draws from their law given the rest of the row."""
    _can_write(output)
    chosen = _with_density(folder, model)
    with _noted() as read, _at_work(f"reading {data}"):
        frame = chosen.rows(data)
    _can_hold(output, chosen, frame)
    with _noted() as notes, _at_work(f"filling {data} by {chosen.name}") as watch:
        filled = chosen.impute(frame, draws=draws, seed=seed, watch=watch)
    left = chosen.schema.gaps(filled.drop(columns="draw") if draws > 1 else filled) // draws
    holes = chosen.schema.gaps(frame) - left
    said = f"{holes:,} cells filled by {chosen.name}" + (f", {left:,} left empty" if left else "")
    about = {"model": chosen.name, "cells_filled": holes, "cells_left": left, "draws": draws, "notes": read + notes}
    _deliver(filled, output, as_json, about, said)


@app.command()
def evaluate(
    real: Annotated[str, typer.Argument(metavar="REAL", help="Rows or images the generator has not seen.")],
    generated: Annotated[str, typer.Argument(metavar="GENERATED", help="Rows or images it made.")],
    train: Annotated[str | None, typer.Option(help="What it learnt from: then memorisation is measured too.")] = None,
    features: Features = None,
    skip_broken: SkipBroken = False,
    output: Output = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Every metric that compares two sets, with its standard error. No model needed."""
    from mixtura.evaluation import evaluate as compare

    _can_write(output, arrays=False)
    with _noted() as notes, _at_work(f"comparing {generated} with {real}"):
        table = compare(real, generated, train=train, features=features, seed=seed, skip_broken=skip_broken)
    if output is not None or as_json:
        _deliver(table, output, as_json, {"real": real, "generated": generated, "notes": notes})
    else:
        _show_metrics(_console(stderr=False), table)


@app.command()
def report(
    folder: Folder,
    open_page: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write it; RUN/report.html by default.")] = None,
    as_json: Json = False,
) -> None:
    """One self-contained page of a finished run, to look at offline or to send."""
    import webbrowser

    from mixtura.report import build, selection
    from mixtura.selection import LEDGER
    from mixtura.study import load

    if any((folder / name).exists() for name in ("selection.json", LEDGER)):
        page = selection.build(folder, output)
    else:
        load(folder)  # says what is wrong with a folder that holds no finished run
        page = build(folder, output)
    _emit({"report": str(page), "bytes": page.stat().st_size}, as_json, lambda: print(_visible(str(page))))
    if open_page and not webbrowser.open(page.resolve().as_uri()):
        print(_visible(f"no browser was found; open {page} yourself"), file=sys.stderr)


@app.command()
def mix(
    samples: Annotated[list[str], typer.Argument(metavar="SAMPLES...", help="One file, FILE.npz:KEY, or folder a generator.")],
    objective: Annotated[
        str, typer.Option(help="Terms with + between: rke, mmd, kid, precision, density, loglik, cost, frechet, vendi, fld.")
    ] = "rke",
    reference: Annotated[str | None, typer.Option(help="Real rows or images, which most terms compare with.")] = None,
    bandwidth: Annotated[float | None, typer.Option(help="Of Gaussian kernels; the median distance by default.")] = None,
    features: Features = None,
    costs: Annotated[str | None, typer.Option(help="What a sample of each costs, in order: 1,2.5,0.")] = None,
    at_most: Annotated[float | None, typer.Option(help="What a sample of the mixture may cost on average.")] = None,
    cap: Annotated[float | None, typer.Option(help="The largest weight allowed.")] = None,
    floor: Annotated[float | None, typer.Option(help="The least weight of each.")] = None,
    size: Annotated[int | None, typer.Option(help="At most so many generators in use.")] = None,
    pareto: Annotated[str | None, typer.Option(help="Scales of the last term, one mixture each: 0,0.1,0.5.")] = None,
    skip_broken: SkipBroken = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """The best mixture of generators, from samples at hand: weights, value, gap, intervals."""
    from dataclasses import asdict

    from mixtura import mixing as blending

    names = [blending.name_of(path) for path in samples]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        _say(f"mix: two generators would be called {twice!r}; rename a file, or take keys of one .npz")
    options: dict[str, Any] = {"reference": reference, "bandwidth": bandwidth, "features": features, "seed": seed}
    options |= {"costs": _numbers(costs, "--costs"), "at_most": at_most, "cap": cap, "floor": floor, "size": size}
    named = dict(zip(names, samples, strict=True))
    with _noted() as notes, _at_work("mixing"):
        if pareto is None:
            found = blending.mix(named, objective, skip_broken=skip_broken, **options)
        else:
            table = blending.pareto(named, objective, _numbers(pareto, "--pareto") or [], skip_broken=skip_broken, **options)
    if pareto is not None:
        _deliver(table, None, as_json, {"objective": objective, "notes": notes})
        return
    _emit({**asdict(found), "notes": notes}, as_json, lambda: _show_optimum(_console(stderr=False), found))


@app.command()
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
        _say(f"{out}: the folder is not empty and holds no selection; give another --out")
    mode = "certified" if certified else "asymptotic"
    with _noted():
        real, columns = (None, None) if reference is None else real_rows(reference, seed=seed)
        listed = load_arms(arms, columns)
    session = sessions.begin(
        listed, out, objective, reference=real, name=reference,
        extractor=features, bandwidth=bandwidth, policy=policy, seed=seed, pulls=pulls,
        stop=None if stop is None else sessions.Stop(stop, mode),
    )  # fmt: skip
    began = time.monotonic()
    try:
        _watch_rounds(_console(stderr=True), session.conduct(), pulls)
        found = session.finish()
        record = session.record(found, arms.stem, time.monotonic() - began)
        judged = gain_of_halves(session.samples(), session.selector.objective, seed=seed)
    finally:
        session.close()
    gain = None if judged is None else {**asdict(judged[0]), "p_value": judged[1]}
    write_json(out / "selection.json", {**record, "gain": gain})
    selection.build(out)
    result = {**asdict(found), "sentence": found.sentence, "gain": gain, "folder": str(out)}
    _emit(result, as_json, lambda: _show_selected(_console(stderr=False), found, gain, out))


# --------------------------------------------------------------------------------------------------------- running


def _watch_rounds(console: Console, rounds: Iterator[Any], pulls: int) -> None:
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


def _show_optimum(console: Console, o: Any) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for name in ("generator", "samples", "weight", "95 % interval"):
        table.add_column(name, justify="left" if name == "generator" else "right", no_wrap=True)
    for name, weight in sorted(o.weights.items(), key=lambda item: -item[1]):
        low, high = (o.intervals or {}).get(name, (None, None))
        table.add_row(name, f"{o.samples[name]:,}", f"{weight:.3f}", "" if low is None else f"{low:.2f} – {high:.2f}")
    console.print(table)
    console.print()
    console.print(o.sentence, style="bold", soft_wrap=True)
    better = "higher" if o.higher else "lower"
    value = f"{_to_two_digits(o.value, o.error)} {o.unit}, {better} is better; gap {o.gap:.1g}"
    console.print(f"{o.objective}: {value}", soft_wrap=True)
    console.print(f"best alone: {o.best} with {_to_two_digits(o.best_value, o.best_error)}", soft_wrap=True)
    if len(o.terms) > 1:
        parts = ", ".join(f"{name} {_to_two_digits(value, error)}" for name, (value, error) in o.terms.items())
        console.print(f"of which {parts}", soft_wrap=True)
    for a, b in o.flat[:3]:
        console.print(f"flat: all weight of {a} could go to {b}, as far as these samples tell", style="dim", soft_wrap=True)
    if not o.exact:
        console.print("so few of so many were searched, not enumerated: a better set may exist", style="dim", soft_wrap=True)
    width = "" if o.bandwidth is None else f", bandwidth {o.bandwidth:.4g}"
    console.print(f"features {o.features}{width}; the gain is of halves that chose nothing", style="dim", soft_wrap=True)


def _show_selected(console: Console, found: Any, gain: dict[str, Any] | None, out: Path) -> None:
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


def _report(folder: Any) -> None:
    """Write the page beside the run, unless a finished run has it already."""
    from mixtura.report import build

    if not (Path(folder) / "report.html").exists():
        build(folder)


def _replay(folder: Path, source: str | None, out: Path | None, as_json: bool, options: dict[str, Any]) -> None:
    from mixtura.job.start import replay

    out = out or folder.with_name(folder.name + "-replay")
    study, different = replay(folder, out, source, **options)
    verdict = "yes" if not different else f"no, these differ: {', '.join(different)}"
    _emit({**_summary(study), "different": different}, as_json, lambda: print(f"same bits: {verdict}"))
    if different:
        raise typer.Exit(1)


class _Screen:
    """What is shown on standard error while a run lasts: a live table on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console, options: Options) -> None:
        self.console, self.options = console, options
        self.rows: dict[str, dict[str, Any]] = {}
        self.live: Any = None

    def show(self, record: Any) -> None:
        """Take one record in."""
        from mixtura.job.start import Judged, Planned, Progress

        if isinstance(record, Planned):
            _show_plan(self.console, record)
            self.rows = {name: {"done": 0.0} for name in record.families}
            if self.console.is_terminal:
                from rich.live import Live

                self.live = Live(self._table(), console=self.console, refresh_per_second=8)
                self.live.start()
        elif isinstance(record, Progress):
            row = self.rows.setdefault(record.name, {"done": 0.0})
            if row["done"] == 0 and "begun" not in row:
                row["begun"] = time.monotonic()
                if self.live is None:
                    self.console.print(f"{record.name}: training", highlight=False)
            row |= {"done": record.done, "nats": record.validation, "left": record.left, "note": record.note}
        elif isinstance(record, Judged):
            row = self.rows.setdefault(record.name, {})
            row |= {"done": 1.0, "left": None, "status": record.status, "note": record.reason, "nats": record.select_nats}
            if self.live is None:
                fitted = f"{_number(record.select_nats, 3)} nats on the select rows"
                said = fitted if record.status == "fitted" else f"{record.status}, {record.reason}"
                self.console.print(f"{record.name}: {said}")
        if self.live is not None:
            self.live.update(self._table())

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self.live is not None:
            self.live.stop()

    def _table(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="dim")
        for name, justify in (("model", "left"), ("", "left"), ("nats", "right"), ("left", "right"), ("", "left")):
            table.add_column(name, justify=justify, no_wrap=name != "" or justify == "right")  # type: ignore[arg-type]
        for name, row in self.rows.items():
            bar = ProgressBar(total=1, completed=row.get("done", 0.0), width=20)
            table.add_row(name, bar, _number(row.get("nats"), 3), _clock(row.get("left")), row.get("note", ""))
        return table


def _watched(records: Iterator[Any], screen: _Screen) -> Iterator[Any]:
    try:
        with _at_work("reading"):  # the first record comes when the data is understood
            first = next(records, None)
        for record in itertools.chain([] if first is None else [first], records):
            screen.show(record)
            yield record
    finally:
        screen.close()


@contextmanager
def _at_work(what: str) -> Iterator[Callable[[float], object]]:
    """What takes so long is said after ``SOON`` seconds: on a terminal a line that moves, elsewhere one line, and another as
    seldom as every ``LATER`` seconds. What is yielded takes the share that is done, of work that knows it."""
    console, over, began, shares = _console(stderr=True), threading.Event(), time.monotonic(), [0.0]

    def said() -> str:
        share, gone = shares[-1], time.monotonic() - began
        return f"{what}: " + (f"{share:.0%}, {_clock(gone / share - gone)} left" if share else f"{_clock(gone)} so far")

    def watch() -> None:
        if over.wait(SOON):
            return
        if not console.is_terminal:
            console.print(said())
            while not over.wait(LATER):
                console.print(said())
            return
        with console.status(said()) as status:
            while not over.wait(0.25):
                status.update(said())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield shares.append
    finally:
        over.set()
        watcher.join()


def _say_reading(source: str, options: Options) -> None:
    """Of a large file, before it is read, what reading it alone takes."""
    from mixtura.data.tables import seconds_to_read

    seconds, budget = seconds_to_read(source), options.seconds
    if seconds is None:
        return
    said = f"reading {source} alone takes about {_clock(seconds)}"
    if budget is not None:
        said += f" of the budget of {_clock(budget)}"
        said += "; give more with --budget, or fewer rows" if seconds > budget / 2 else ""
    print(said, file=sys.stderr)


# --------------------------------------------------------------------------------------------------------- showing


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    class Showing(Console):
        """A console on which no name can steer the terminal."""

        def render_str(self, text: str, **options: Any) -> Any:
            return super().render_str(_visible(text), **options)

    return Showing(stderr=stderr, highlight=False, markup=False)  # a column may be named "[/b]"


def _visible(text: str) -> str:
    from mixtura.ground.shown import visible

    return visible(text)


def _show_plan(console: Console, planned: Planned) -> None:
    from rich.text import Text

    of = "" if planned.rows_total == planned.rows else f" drawn evenly from {planned.rows_total:,}"
    console.print(Text.assemble((_visible(planned.name), "bold"), f": {planned.what}{of}"))
    for reason in planned.skipped[:FEW]:
        console.print(f"left out {reason}", style="dim")
    if len(planned.skipped) > FEW:
        console.print(f"left out {len(planned.skipped) - FEW:,} more files", style="dim")
    _show_columns(console, planned)
    if planned.target is not None and planned.given is not None:
        some = ", ".join(planned.given[:FEW]) + (", …" if len(planned.given) > FEW else "")
        told = f"{len(planned.given)} input{'s' * (len(planned.given) != 1)}"
        console.print(f"{', '.join(planned.target)} given {some}: {told}", style="bold")
    s = planned.splits
    crossed = f", cross-fitted in {s['folds']} folds" if s["folds"] else ""
    twins = f"({s['duplicates']:,} with a twin)"
    console.print(f"split {s['rule']}: {s['fit']:,} fit, {s['select']:,} select{crossed}, {s['report']:,} report {twins}")
    spent = f", {_clock(planned.resumed)} of it spent before" if planned.resumed > 1 else ""
    by_steps = f"{planned.steps:,} steps a fit{_about(planned.estimate)}" if planned.steps else "replay"
    bound = f"budget {_clock(planned.budget)}{spent}" if planned.budget else by_steps
    console.print(f"{bound}; seed {planned.seed}; {', '.join(planned.families)}")


def _show_columns(console: Console, planned: Planned) -> None:
    from rich.table import Table

    if planned.columns and planned.columns[0]["kind"] == "images":
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("column", "kind", "detail"):
        table.add_column(name, overflow="ellipsis", no_wrap=name != "detail")
    shown = planned.columns if len(planned.columns) <= 40 else planned.columns[:20]
    for column in shown:
        table.add_row(column["column"], column["kind"], column["detail"])
    console.print(table)
    if len(shown) < len(planned.columns):
        console.print(f"… and {len(planned.columns) - len(shown):,} more columns", style="dim")


def _about(seconds: float | None) -> str:
    return "" if seconds is None else f", about {_clock(seconds)}"


def _show_study(console: Console, study: Study) -> None:
    console.print()
    if study.given is None:
        _show_board(console, study, ("MMD²", "memorised"), _of_samples)
    else:
        _show_board(console, study, ("CRPS", "covered", "width")[: 3 if console.width >= WIDE else 2], _of_answers)
    v = study.verdict
    console.print()
    console.print(v.sentence, style="bold", soft_wrap=True)
    chosen = "weights and best single model were chosen on the select rows"
    console.print(f"objective: {v.unit}, as {study.why}; {chosen}", style="dim", soft_wrap=True)
    for objective, other in study.verdicts.items():
        if objective != study.objective:
            console.print(f"in {other.unit}: {other.sentence}", style="dim", soft_wrap=True)
    told = "; draw ms: 1,000 rows" if console.width >= WIDE else ""
    meant = (
        "MMD²: 0 for equal laws; memorised: ½ none, 1 copies"
        if study.given is None
        else "CRPS: in the target's units, lower is better; covered: share inside the 90 % intervals, 0.9 if calibrated"
    )
    console.print(f"{meant}{told}", style="dim", soft_wrap=True)
    if study.folder is not None:
        _show_next(console, study)


def _show_next(console: Console, study: Study) -> None:
    from mixtura.ground.shown import command

    folder, schema = command(study.folder), study.schema
    console.print(f"\neverything is in {study.folder} (report.html, and README.md, the model card); next:", soft_wrap=True)
    commands = [f"report {folder} --open"]
    if study.given is not None:
        commands += [f"predict {folder} new.csv -o predicted.csv", f"sample {folder} --given new.csv -n 10 -o drawn.csv"]
        commands += [f"score {folder} more.csv -o scores.csv"]
    else:
        commands += [f"sample {folder} -n 1000 -o new{schema.written}"]
        commands += [f"score {folder} {schema.more} -o scores.csv"] * ("nats" in study.verdicts)
        commands += [f"impute {folder} holes.csv -o filled.csv"] * schema.fillable
    for line in commands:
        console.print(f"  mixtura {line}", soft_wrap=True)


def _show_board(console: Console, study: Study, measures: tuple[str, ...], measured: Callable[[Score], tuple[str, ...]]) -> None:
    from rich.table import Table

    from mixtura.study import ranked

    bits = any(s.bits is not None for s in study.scores)
    exact_unit, bound_unit = ("bits/dim, exact", "bits/dim ≤") if bits else ("nats, exact", "nats, bound ≥")
    costs = ("fit s", "draw ms") if console.width >= WIDE else ()
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for name in ("model", exact_unit, bound_unit, *measures, *costs):
        table.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
    notes = []
    for s in ranked(study.scores):
        if s.status in ("skipped", "failed"):
            notes.append(f"{s.name} {s.status}: {s.reason.removeprefix(s.name + ': ')}")
            table.add_row(s.name, s.status)
            continue
        density = _with_error(s.bits, s.bits_error) if bits else _with_error(s.nats, s.nats_error)
        exact, bound = (density if s.kind == kind else "" for kind in ("exact", "bound"))
        spent = (_number(s.seconds, 1), _number(s.sample_ms, 0))[: len(costs)]
        table.add_row(s.name, exact, bound, *measured(s)[: len(measures)], *spent)
        notes += [n for n in (_unconverged(s), _collapsed(s), f"{s.name}: {s.reason}" if s.reason else "") if n]
    console.print(table)
    for note in notes:
        console.print(f"  {note}", style="dim")


def _of_samples(s: Score) -> tuple[str, ...]:
    """What the leaderboard says of a model's samples: MMD², memorisation."""
    mmd = s.metrics.get("mmd2", {"value": None, "error": None})
    return _to_two_digits(**mmd), _with_error(s.memorisation, s.memorisation_error, 2)


def _of_answers(s: Score) -> tuple[str, ...]:
    """What it says of a model of targets given inputs: CRPS, coverage and width, of the first target that is a number."""
    from mixtura.job.scoring import of_first

    found = of_first(s.metrics)
    crps, covered, width = (found.get(name, {"value": None, "error": None}) for name in ("crps", "coverage_90", "width_90"))
    return _compact(**crps), _compact(**covered), _compact(**width)


def _compact(value: float | None, error: float | None, **_: Any) -> str:
    """To two digits of the error, in units of whatever size."""
    known = error is not None and math.isfinite(error) and error > 0
    return _with_error(value, error, max(0, 1 - math.floor(math.log10(error))) if known else 3)  # type: ignore[arg-type]


def _collapsed(s: Score) -> str:
    """What a model with hidden codes says of them."""
    d = s.diagnosis
    if "rate" not in d:
        return ""
    return (
        f"{s.name}: rate {d['rate']:.1f} + distortion {d['distortion']:.1f} nats; "
        f"{d['active']:.0f} of {d['latents']:.0f} latents in use"
    )


def _show_metrics(console: Console, table: pd.DataFrame) -> None:
    from rich.table import Table

    told = console.width >= WIDE
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("metric", "value", "better", "unit", *(["what it is"] if told else [])):
        shown.add_column(name, justify="right" if name == "value" else "left", no_wrap=name != "what it is")
    for row in table.to_dict("records"):
        cells = (row["metric"], _to_two_digits(row["value"], row["error"]), row["better"], row["unit"])
        shown.add_row(*cells, *([row["summary"]] if told else []))
    console.print(shown)
    for row in table.to_dict("records"):
        if not row["reason"]:
            continue
        console.print(f"{row['metric']}: {row['reason']}", style="dim")
    console.print("± is one standard error" + ("" if told else "; a wider terminal says what each is"), style="dim")


def _unconverged(s: Score) -> str:
    if s.converged is not False:
        return ""
    known = s.wanted is not None and s.seconds is not None and s.wanted > s.seconds
    return f"{s.name}: not converged" + (f", would need about {_clock(s.wanted)}" if known else "")


def _number(value: float | None, digits: int) -> str:
    if value is None or math.isnan(value):
        return ""
    return f"{value:,.{digits}f}" if abs(value) < 1e9 else f"{value:.3e}"


def _with_error(value: float | None, error: float | None, digits: int = 3) -> str:
    known = value is not None and error is not None and math.isfinite(error)
    return _number(value, digits) + (f" ± {_number(error, digits)}" if known else "")


def _to_two_digits(value: float | None = None, error: float | None = None, **_: Any) -> str:
    from mixtura.folder.records import digits_of

    return _with_error(value, error, digits_of(error))


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# ---------------------------------------------------------------------------------------------------- in and out


def _summary(study: Study) -> dict[str, Any]:
    from dataclasses import asdict

    from mixtura.study import ranked

    columns = study.schema.describe() if study.given is None else study.given.schema.describe() + study.schema.describe()
    return {
        "verdict": {**asdict(study.verdict), "why": study.why},
        "verdicts": {objective: asdict(v) for objective, v in study.verdicts.items()},
        "conditioning": None if study.conditioning is None else asdict(study.conditioning),
        "scores": [asdict(s) for s in ranked(study.scores)],
        "columns": columns,
        "notes": _of_outside(study),
        "folder": None if study.folder is None else str(study.folder),
    }


def _of_outside(study: Study) -> list[str]:
    """What is to be known of the samples of outside generators."""
    return [f"{s.name}: {s.reason}" for s in study.scores if s.status == "samples only" and s.reason]


def _emit(result: Any, as_json: bool, show: Callable[[], None]) -> None:
    if not as_json:
        show()
        return
    from dataclasses import asdict, is_dataclass

    record = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
    print(_json(record))


def _json(record: Any) -> str:
    from mixtura.data.files.printed import json_text
    from mixtura.folder.store import plain

    return _in_reach(json_text(plain(record)))


def _in_reach(text: str) -> str:
    """JSON as it is, or, where the stream takes ASCII alone, say, with escapes, which are as exact."""
    if (sys.stdout.encoding or "utf-8").lower().startswith("utf"):
        return text
    return re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], text)


def _deliver(
    rows: Any, output: Path | None, as_json: bool, about: dict[str, Any], said: str = "", at_most: int | None = None
) -> None:
    """Write rows, or show them (at most so many); one object with --json, all rows in it where there is no file, as a .json
    file has them."""
    import pandas as pd

    from mixtura.data.files.delimited import csv_lines
    from mixtura.data.files.json_records import json_rows
    from mixtura.data.source import write

    if output is not None:
        with _at_work(f"writing {output.name}"):
            write(rows, output)
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(index=range(len(rows)))
    if as_json:
        told = _json({**about, "rows": len(frame), "output": None if output is None else str(output)})
        data = "null" if output is not None else _in_reach(f"[{', '.join(json_rows(frame))}]")
        print(f'{told[:-1]}, "data": {data}}}')
        return
    if output is not None:
        kind = "rows" if isinstance(rows, pd.DataFrame) else "images"
        print(*map(_visible, filter(None, [said, f"{len(frame):,} {kind} written to {output}"])), sep="\n")
        return
    if said:  # rows that go into a pipe are not mixed with words
        print(_visible(said), file=sys.stdout if at_most else sys.stderr)
    seen = _visible if sys.stdout.isatty() else str
    for line in csv_lines(frame.head(at_most or len(frame))):
        print(seen(line), end="")
    if at_most and len(frame) > at_most:
        print(f"… {len(frame) - at_most:,} more rows; -o FILE.csv writes them all")


def _note(message: Any) -> None:
    print(_visible(f"note: {message}"), file=sys.stderr)


@contextmanager
def _noted() -> Iterator[list[str]]:
    """What is to be known of a result, on standard error; in the list for --json."""
    from mixtura.contracts import Note

    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Note)
        yield notes
    for warning in caught:
        if issubclass(warning.category, Note):
            notes.append(str(warning.message))
            _note(warning.message)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _can_write(output: Path | None, *, images: bool = False, arrays: bool = True) -> None:
    """Refuse a path that cannot be written before any work is done."""
    if output is None:
        return
    from mixtura.data.files import TABLE

    doors = {e: d for e, d in TABLE.items() if (d.write_images if images else d.write_table) and (arrays or not d.only_numbers)}
    known = tuple(doors)
    if output.suffix.lower() not in known:
        shown = f"{', '.join(filter(None, known))}{' or a folder' if images else ''}"
        _say(f"{output}: cannot write {output.suffix or 'a file without an ending'}; use one of {shown}")
    if output.is_dir() and not (images and output.suffix == ""):
        _say(f"{output}: is a folder, expected a file; name a file in it")
    if not output.parent.is_dir():
        _say(f"{output}: there is no folder {output.parent}; make it first")
    if (check_library := doors[output.suffix.lower()].check_library) is not None:
        check_library()


def _can_hold(output: Path | None, made: Any, own: Any = None) -> None:
    """Refuse an array before anything is computed if columns that ``made``, a study or a model, makes are no numbers, or those
    of the person's ``own`` rows that stand beside."""
    from mixtura.data.files import TABLE
    from mixtura.data.files.arrays import matrix

    if output is None:
        return
    made.schema.check_output(output)
    if own is not None and TABLE[output.suffix.lower()].only_numbers:
        matrix(own)


def _with_density(folder: Path, model: str | None) -> Any:
    from mixtura.study import load

    study = load(folder)
    return study.density if model is None else study.model(model)


def _listed(texts: list[str] | None, flag: str) -> list[str] | None:
    """Names with commas between, of an option that may be repeated; a name with a comma in quotes, as in a CSV file."""
    if not texts:
        return None
    names = [part.strip() for row in csv.reader(texts, skipinitialspace=True) for part in row if part.strip()]
    if not names:
        _say(f"{flag} {','.join(texts)!r}: no name was given; write them with commas between, or leave {flag} out for all")
    return names


def _numbers(text: str | None, flag: str) -> list[float] | None:
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        _say(f"{flag} {text!r}: expected numbers with commas between, as in 1,2.5,0")


def _ends(bounds: list[str] | None) -> dict[str, tuple[float | None, float | None]]:
    """COL=LOW:HIGH, either of which may be left out."""
    ends = {}
    for column, said in _pairs(bounds, "--bounds").items():
        try:
            low, high = (float(end) if end.strip() else None for end in said.split(":"))
        except ValueError:
            _say(f"--bounds {column}={said}: expected {column}=LOW:HIGH, as in {column}=0:120, {column}=0: or {column}=:120")
        ends[column] = (low, high)
    return ends


def _pairs(items: list[str] | None, flag: str) -> dict[str, str]:
    # a column may have "=" in its name, a path in its own
    pairs = [item.split("=", 1) if flag == "--samples" else item.rsplit("=", 1) for item in items or []]
    for pair in pairs:
        if len(pair) != 2 or not all(pair):
            example = "age=integer" if flag == "--kind" else "gan=gan.csv"
            _say(f"{flag} {'='.join(pair)}: expected NAME=VALUE, as in {flag} {example}")
    twice = next((name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i])), None)
    if twice is not None:
        _say(f"{flag}: {twice!r} is given twice; give it once")
    return {name: value for name, value in pairs}


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Errors of the person's making become one sentence and exit code 2; bugs keep their traceback."""
    try:
        yield
    except WrongUsage as error:
        context = getattr(error, "ctx", None)
        _say(f"{error.format_message().rstrip('.')}; see {context.command_path if context else 'mixtura'} --help")
    except (KeyboardInterrupt, typer.Abort):
        _stop()
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        _say(f"{error.filename or 'file'}: {error.strerror or error}; check the path and the space on the disk")
    except FloatingPointError as error:  # a model gave what is no number, and says so in a sentence
        _say(str(error))
    except ValueError as error:
        from mixtura.contracts import InputError

        if not isinstance(error, InputError):
            raise
        _say(str(error))
    except (MemoryError, RuntimeError) as error:
        from mixtura.ground.machine import out_of_memory

        if not out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        _say(f"too little memory ({reason}); free some, or ask for less; run and select go on where they stopped")


def _say(sentence: str) -> NoReturn:
    """A name or a cell may be a megabyte: then the middle is left out, not what to do."""
    said = " ".join(sentence.split())
    said = said if len(said) <= SAID else f"{said[: SAID * 3 // 4]} … {said[-SAID // 4 :]}"
    print(_visible(f"error: {said}"), file=sys.stderr)
    sys.exit(2)


def _stop() -> NoReturn:
    print("stopped; the same command goes on from here", file=sys.stderr)
    # Where the interrupt fell inside an exec of a string (a dataclass being made during an import), CPython
    # marks it as unhandled, and `python -m` would end by the signal, not by this code: any exec wipes the mark.
    exec("")
    sys.exit(INTERRUPTED)


def main(argv: list[str] | None = None) -> None:
    """Run a command; exits with 0, 1 (a replay differs), 2 (an input cannot be used) or 130 (interrupted)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # no letter that the terminal lacks, ≥ say, ends a command
            stream.reconfigure(errors="replace")
    shown = warnings.showwarning

    def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
        from mixtura.contracts import Note

        if issubclass(category, Note):
            _note(message)
        else:
            shown(message, category, *where, **more)

    with _one_sentence(), warnings.catch_warnings():
        warnings.showwarning = show
        code = app(args=argv, prog_name="mixtura", standalone_mode=False)
        if code == INTERRUPTED:  # newer typer answers the interrupt itself
            _stop()
        sys.stdout.flush()  # a full disk is heard of now, or by nobody
        if code:
            sys.exit(code)
