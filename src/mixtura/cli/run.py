"""`mixtura run`: from a table or images to a verdict; `--replay` does a run again from its recorded steps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixtura.cli.app import Features, Json, Seed, SkipBroken
from mixtura.cli.arguments import parse_bounds, parse_names, parse_pairs
from mixtura.cli.deliver import emit
from mixtura.cli.errors import fail
from mixtura.cli.numbers import format_duration
from mixtura.cli.screen import RunScreen, shown_on
from mixtura.cli.tables import make_console, show_plan, show_study

if TYPE_CHECKING:  # torch and pandas wait until a command needs them: --help is quick
    from mixtura.job.start import Options
    from mixtura.study import Study


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
            fail(f"run --replay: {odd} was given, but a replay asks what the run asked; leave it out")
        # what no folder may bring along is given again
        again = {"features": features, "samples": parse_pairs(samples, "--samples")}
        _run_again(replay, source, out, as_json, {"fresh": fresh, "device": device} | {k: v for k, v in again.items() if v})
        return
    if source is None:
        fail("run: no data was given; name a file, or a bundled example, penguins or digits")
    options = Options(
        budget=budget,
        steps=steps,
        families=parse_names(families, "--families"),
        seed=seed,
        out=out or Path("runs") / Path(source.rsplit(":", 1)[0] if ".npz:" in source else source).stem,
        fresh=fresh,
        split=split,
        group=group,
        time=time_column,
        target=parse_names(target, "--target"),
        columns=parse_names(columns, "--columns"),
        kinds=parse_pairs(kind, "--kind"),
        bounds=parse_bounds(bounds),
        samples=parse_pairs(samples, "--samples"),
        objective=objective,
        features=features,
        skip_broken=skip_broken,
        size=size,
        device=device,
    )
    if dry_run:
        planned = preview(source, options)
        emit(planned, as_json, lambda: show_plan(make_console(stderr=False), planned))
        return
    screen = RunScreen(make_console(stderr=True), options)
    study = None
    _announce_reading(source, options)
    for record in shown_on(conduct(source, options), screen):
        study = getattr(record, "study", study)
    if study is None:
        raise RuntimeError("the run ended without a verdict")
    _write_report(options.out)
    for note in _notes_of_outside_samples(study):
        print(f"note: {note}", file=sys.stderr)
    emit(_as_record(study), as_json, lambda: show_study(make_console(stderr=False), study))


def _write_report(folder: Any) -> None:
    """Write the page beside the run, unless a finished run has it already."""
    from mixtura.report import build

    if not (Path(folder) / "report.html").exists():
        build(folder)


def _run_again(folder: Path, source: str | None, out: Path | None, as_json: bool, options: dict[str, Any]) -> None:
    from mixtura.job.start import replay

    out = out or folder.with_name(folder.name + "-replay")
    study, different = replay(folder, out, source, **options)
    verdict = "yes" if not different else f"no, these differ: {', '.join(different)}"
    emit({**_as_record(study), "different": different}, as_json, lambda: print(f"same bits: {verdict}"))
    if different:
        raise typer.Exit(1)


def _announce_reading(source: str, options: Options) -> None:
    """Of a large file, before it is read, what reading it alone takes."""
    from mixtura.data.read import seconds_to_read

    seconds, budget = seconds_to_read(source), options.seconds
    if seconds is None:
        return
    said = f"reading {source} alone takes about {format_duration(seconds)}"
    if budget is not None:
        said += f" of the budget of {format_duration(budget)}"
        said += "; give more with --budget, or fewer rows" if seconds > budget / 2 else ""
    print(said, file=sys.stderr)


def _as_record(study: Study) -> dict[str, Any]:
    from dataclasses import asdict

    from mixtura.study import ranked

    columns = study.schema.describe() if study.given is None else study.given.schema.describe() + study.schema.describe()
    return {
        "verdict": {**asdict(study.verdict), "why": study.why},
        "verdicts": {objective: asdict(v) for objective, v in study.verdicts.items()},
        "conditioning": None if study.conditioning is None else asdict(study.conditioning),
        "scores": [asdict(s) for s in ranked(study.scores)],
        "columns": columns,
        "notes": _notes_of_outside_samples(study),
        "folder": None if study.folder is None else str(study.folder),
    }


def _notes_of_outside_samples(study: Study) -> list[str]:
    """What is to be known of the samples of outside generators."""
    return [f"{s.name}: {s.reason}" for s in study.scores if s.status == "samples only" and s.reason]
