"""`mixtura run`: from a table or images to a verdict; `--replay` does a run again from its recorded steps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixtura.cli.app import Json
from mixtura.cli.deliver import emit
from mixtura.cli.errors import fail
from mixtura.cli.numbers import format_duration
from mixtura.cli.options import values_of_options, with_options_of_a_run
from mixtura.cli.screen import RunScreen, shown_on
from mixtura.cli.tables import make_console, show_plan, show_study

if TYPE_CHECKING:  # torch and pandas wait until a command needs them: --help is quick
    from mixtura.job.start import Options
    from mixtura.study.study import Study


@with_options_of_a_run(following={"fresh": "dry_run"})
def run(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A table (.csv .tsv .parquet .json .jsonl .npy .npz[:key]), a folder or .zip of images, or penguins, digits."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its time, write nothing.")] = False,
    replay: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Repeat that run from its recorded steps, bit for bit; name its data again."),
    ] = None,
    as_json: Json = False,
    **texts: Any,
) -> None:
    """From a table or images to a verdict. The same command again goes on where it stopped."""
    from mixtura.job.start import Done, Options, conduct, preview

    asked = values_of_options(texts)
    if replay is not None:
        if dry_run:
            fail("--replay: --dry-run was given, but a replay has no plan to show; leave it out")
        _run_again(replay, source, asked, as_json)
        return
    if source is None:
        fail("run: no data was given; name a file, or a bundled example, penguins or digits")
    asked["out"] = asked["out"] or Path("runs") / Path(source.rsplit(":", 1)[0] if ".npz:" in source else source).stem
    options = Options(**asked)
    if dry_run:
        planned = preview(source, options)
        emit(planned, as_json, lambda: show_plan(make_console(stderr=False), planned))
        return
    screen = RunScreen(make_console(stderr=True), options)
    study = None
    _announce_reading(source, options)
    for record in shown_on(conduct(source, options), screen):
        if isinstance(record, Done):
            study = record.study
    if study is None:
        raise RuntimeError("the run ended without a verdict")
    _write_report(options.out)
    for note in _notes_of_outside_samples(study):
        print(f"note: {note}", file=sys.stderr)
    emit(_as_record(study), as_json, lambda: show_study(make_console(stderr=False), study))


def _write_report(folder: Any) -> None:
    """Write the page beside the run, unless a finished run has it already."""
    from mixtura.folder.layout import RunFolder
    from mixtura.report import build

    if not RunFolder(Path(folder)).page_path.exists():
        build(folder)


def _run_again(folder: Path, source: str | None, asked: dict[str, Any], as_json: bool) -> None:
    from mixtura.job.replay import replay

    given = {name: value for name, value in asked.items() if value}
    out = given.pop("out", None) or folder.with_name(folder.name + "-replay")
    study, different = replay(folder, out, source, **given)
    answer = "yes" if not different else f"no, these differ: {', '.join(different)}"
    emit({**_as_record(study), "different": different}, as_json, lambda: print(f"same bits: {answer}"))
    if different:
        raise typer.Exit(1)


def _announce_reading(source: str, options: Options) -> None:
    """Before a large file is read, say how long reading it alone takes."""
    from mixtura.data.tables import seconds_to_read

    seconds, budget = seconds_to_read(source), options.seconds
    if seconds is None:
        return
    line = f"reading {source} alone takes about {format_duration(seconds)}"
    if budget is not None:
        line += f" of the budget of {format_duration(budget)}"
        line += "; give more with --budget, or fewer rows" if seconds > budget / 2 else ""
    print(line, file=sys.stderr)


def _as_record(study: Study) -> dict[str, Any]:
    from dataclasses import asdict

    from mixtura.folder.records import ranked

    columns = study.schema.describe() if study.given is None else study.given.schema.describe() + study.schema.describe()
    return {
        "verdict": {**asdict(study.verdict), "why": study.why},
        "verdicts": {objective: asdict(v) for objective, v in study.verdicts.items()},
        "conditioning": None if study.conditioning is None else asdict(study.conditioning),
        "refinement": None if study.refinement is None else asdict(study.refinement),
        "scores": [asdict(s) for s in ranked(study.scores)],
        "columns": columns,
        "notes": _notes_of_outside_samples(study),
        "folder": None if study.folder is None else str(study.folder),
    }


def _notes_of_outside_samples(study: Study) -> list[str]:
    """Notes about the samples of outside generators, such as values that real rows cannot have."""
    return [f"{s.name}: {s.reason}" for s in study.scores if s.status == "samples only" and s.reason]
