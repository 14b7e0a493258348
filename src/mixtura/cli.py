"""The command line: argv → the functions of the same names. What a person sees on screen is here and nowhere else.

Results go to standard output, everything on the way to standard error. A wrong input is one sentence and exit code 2.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:  # torch and pandas wait until a command needs them: --help is quick
    import pandas as pd
    from rich.console import Console

    from mixtura.facade import Study
    from mixtura.judge import Score
    from mixtura.study import Options, Planned

#: "the words on the command line are wrong": typer's own class, which older versions take from click
WrongUsage: Any = typer.BadParameter.__mro__[1]
INTERRUPTED = 130
#: scores shown where no file was asked for
FEW = 8

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
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write: .csv .tsv .parquet .json .jsonl .npy .npz")]


# ------------------------------------------------------------------------------------------------------- commands


@app.command()
def run(
    source: Annotated[
        str | None, typer.Argument(help="A .csv .tsv .parquet .json .jsonl .npy .npz[:key] file, or the example penguins.")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Time for the whole run: 60s (the default), 5m, 1h.")] = None,
    steps: Annotated[int | None, typer.Option(help="Instead of a budget: training steps of every fit.")] = None,
    families: Annotated[
        str | None, typer.Option(help="Comma-separated; all by default. Marginals, the floor, always join.")
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
    columns: Annotated[str | None, typer.Option(help="Comma-separated columns to model; all by default.")] = None,
    kind: Annotated[list[str] | None, typer.Option(metavar="COL=KIND", help="Overrule a guess: age=integer. Repeatable.")] = None,
    samples: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="Samples of an outside generator. Repeatable.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    replay: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Do that run again from its recorded steps; same bits.")
    ] = None,
    as_json: Json = False,
) -> None:
    """From a table to a verdict. The same command again goes on where it stopped."""
    from mixtura.study import Options, conduct, preview

    if replay is not None:
        asked = {
            "--budget": budget,
            "--steps": steps,
            "--families": families,
            "--seed": seed,
            "--split": split,
            "--group": group,
            "--time": time_column,
            "--columns": columns,
            "--kind": kind,
            "--samples": samples,
            "--dry-run": dry_run,
        }
        odd = next((flag for flag, value in asked.items() if value), None)
        if odd is not None:
            _say(f"run --replay: {odd} was given, but a replay asks what the run asked; leave it out")
        _replay(replay, source, out, fresh, device, as_json)
        return
    if source is None:
        _say("run: no data was given; name a file, or the bundled example penguins")
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
        columns=_listed(columns, "--columns"),
        kinds=_pairs(kind, "--kind"),
        samples=_pairs(samples, "--samples"),
        device=device,
    )
    if dry_run:
        planned = preview(source, options)
        _emit(planned, as_json, lambda: _show_plan(_console(stderr=False), planned))
        return
    screen = _Screen(_console(stderr=True), options)
    study = None
    for record in _watched(conduct(source, options), screen):
        study = getattr(record, "study", study)
    if study is None:
        raise RuntimeError("the run ended without a verdict")
    _emit(_summary(study), as_json, lambda: _show_study(_console(stderr=False), study))


@app.command()
def sample(
    folder: Folder,
    n: Annotated[int, typer.Option("-n", "--rows", help="How many rows.")] = 1000,
    output: Output = None,
    model: Model = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """New rows, with the columns, types and rounding of the data."""
    _can_write(output)
    chosen = _chosen(folder, model)
    _deliver(chosen.sample(n, seed=seed), output, as_json, {"model": chosen.name, "seed": seed})


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
    from mixtura.data.read import read
    from mixtura.metrics.likelihood import mean_nats

    _can_write(output)
    chosen = _chosen(folder, model)
    scores = chosen.score(read(data).frame, seed=seed)
    mean = mean_nats(scores["nats"].to_numpy())
    about = {"model": chosen.name, "mean_nats": mean.value, "error": mean.error, "kind": str(scores["kind"].iloc[0])}
    said = f"mean {mean.value:.3f} ± {mean.error:.3f} nats a row ({about['kind']}), {mean.n:,} rows"
    _deliver(scores, output, as_json, about, said, at_most=FEW)


@app.command()
def impute(
    folder: Folder,
    data: Annotated[str, typer.Argument(metavar="FILE")],
    output: Output = None,
    draws: Annotated[int, typer.Option(help="Completions of every row; a column `draw` numbers them.")] = 1,
    model: Model = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fill missing cells by draws from their law given the rest of the row."""
    from mixtura.data.read import read

    _can_write(output)
    chosen = _chosen(folder, model)
    frame = read(data).frame
    filled = chosen.impute(frame, draws=draws, seed=seed)
    holes = int(chosen.schema.encode(frame, holes=True).isnan().sum())
    _deliver(
        filled,
        output,
        as_json,
        {"model": chosen.name, "cells_filled": holes, "draws": draws},
        f"{holes:,} cells filled by {chosen.name}",
    )


# --------------------------------------------------------------------------------------------------------- running


def _replay(folder: Path, source: str | None, out: Path | None, fresh: bool, device: str, as_json: bool) -> None:
    from mixtura.study import replay

    out = out or folder.with_name(folder.name + "-replay")
    study, different = replay(folder, out, source, fresh=fresh, device=device)
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
        from mixtura.study import Judged, Planned, Progress

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
        for record in records:
            screen.show(record)
            yield record
    finally:
        screen.close()


# --------------------------------------------------------------------------------------------------------- showing


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False)  # a column may be named "[/b]"


def _show_plan(console: Console, planned: Planned) -> None:
    from rich.table import Table
    from rich.text import Text

    of = "" if planned.rows_total == planned.rows else f" drawn evenly from {planned.rows_total:,}"
    console.print(Text.assemble((planned.name, "bold"), f": {planned.rows:,} rows{of}, {len(planned.columns)} columns"))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("column", "kind", "detail"):
        table.add_column(name, overflow="ellipsis", no_wrap=name != "detail")
    shown = planned.columns if len(planned.columns) <= 40 else planned.columns[:20]
    for column in shown:
        table.add_row(column["column"], column["kind"], column["detail"])
    console.print(table)
    if len(shown) < len(planned.columns):
        console.print(f"… and {len(planned.columns) - len(shown):,} more columns", style="dim")
    s = planned.splits
    crossed = f", cross-fitted in {s['folds']} folds" if s["folds"] else ""
    twins = f"({s['duplicates']:,} with a twin)"
    console.print(f"split {s['rule']}: {s['fit']:,} fit, {s['select']:,} select{crossed}, {s['report']:,} report {twins}")
    spent = f", {_clock(planned.resumed)} of it spent before" if planned.resumed > 1 else ""
    by_steps = f"{planned.steps:,} steps a fit{_about(planned.estimate)}" if planned.steps else "replay"
    bound = f"budget {_clock(planned.budget)}{spent}" if planned.budget else by_steps
    console.print(f"{bound}; seed {planned.seed}; {', '.join(planned.families)}")


def _about(seconds: float | None) -> str:
    return "" if seconds is None else f", about {_clock(seconds)}"


def _show_study(console: Console, study: Study) -> None:
    from rich.table import Table

    from mixtura.facade import ranked

    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("model", "nats, exact", "nats, bound ≥", "memorisation", "fit s", "draw ms"):
        table.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
    notes = []
    for s in ranked(study.scores):
        if s.status in ("skipped", "failed"):
            notes.append(f"{s.name} {s.status}: {s.reason.removeprefix(s.name + ': ')}")
            table.add_row(s.name, s.status)
            continue
        nats, copied = _with_error(s.nats, s.nats_error), _with_error(s.memorisation, s.memorisation_error, 2)
        exact, bound = (nats if s.kind == kind else "" for kind in ("exact", "bound"))
        table.add_row(s.name, exact, bound, copied, _number(s.seconds, 1), _number(s.sample_ms, 0))
        notes += [n for n in (_unconverged(s), f"{s.name}: {s.reason}" if s.reason else "") if n]
    console.print()
    console.print(table)
    for note in notes:
        console.print(f"  {note}", style="dim")
    v = study.verdict
    console.print()
    console.print(v.sentence, style="bold", soft_wrap=True)
    chosen = "weights and best single model were chosen on the select rows"
    console.print(f"objective: {v.objective}; {chosen}", style="dim", soft_wrap=True)
    console.print("memorisation: ½ none, 1 copies; draw ms: 1,000 rows", style="dim", soft_wrap=True)
    if study.folder is None:
        return
    console.print(f"\neverything is in {study.folder} (model card: {study.folder}/README.md); next:", soft_wrap=True)
    console.print(f"  mixtura sample {study.folder} -n 1000 -o new.csv", soft_wrap=True)
    console.print(f"  mixtura score {study.folder} more.csv -o scores.csv", soft_wrap=True)
    console.print(f"  mixtura impute {study.folder} holes.csv -o filled.csv", soft_wrap=True)


def _unconverged(s: Score) -> str:
    if s.converged is not False:
        return ""
    known = s.wanted is not None and s.seconds is not None and s.wanted > s.seconds
    return f"{s.name}: not converged" + (f", would need about {_clock(s.wanted)}" if known else "")


def _number(value: float | None, digits: int) -> str:
    return "" if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def _with_error(value: float | None, error: float | None, digits: int = 3) -> str:
    known = value is not None and error is not None and math.isfinite(error)
    return _number(value, digits) + (f" ± {error:.{digits}f}" if known else "")


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# ---------------------------------------------------------------------------------------------------- in and out


def _summary(study: Study) -> dict[str, Any]:
    from dataclasses import asdict

    from mixtura.facade import ranked

    return {
        "verdict": asdict(study.verdict),
        "scores": [asdict(s) for s in ranked(study.scores)],
        "columns": study.schema.describe(),
        "folder": None if study.folder is None else str(study.folder),
    }


def _emit(result: Any, as_json: bool, show: Callable[[], None]) -> None:
    if not as_json:
        show()
        return
    from dataclasses import asdict, is_dataclass

    from mixtura.folder import plain

    record = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
    print(json.dumps(plain(record), ensure_ascii=False, allow_nan=False))


def _deliver(
    frame: pd.DataFrame, output: Path | None, as_json: bool, about: dict[str, Any], said: str = "", at_most: int | None = None
) -> None:
    """Write the frame, or show it (at most so many rows); one object with --json, all rows in it where there is no file."""
    from mixtura.data.read import write

    if output is not None:
        write(frame, output)
    shown = None if output is not None else str(frame.to_json(orient="records", date_format="iso", double_precision=15))

    def show() -> None:
        if output is not None:
            print(*filter(None, [said, f"{len(frame):,} rows written to {output}"]), sep="\n")
            return
        if said:  # rows that go into a pipe are not mixed with words
            print(said, file=sys.stdout if at_most else sys.stderr)
        print(frame.head(at_most or len(frame)).to_csv(index=False), end="")
        if at_most and len(frame) > at_most:
            print(f"… {len(frame) - at_most:,} more rows; -o scores.csv writes them all")

    _emit(
        {**about, "rows": len(frame), "output": None if output is None else str(output), "data": json.loads(shown or "null")},
        as_json,
        show,
    )


def _can_write(output: Path | None) -> None:
    """Refuse a path that cannot be written before any work is done."""
    if output is None:
        return
    from mixtura.data.read import WRITERS

    if output.suffix.lower() not in WRITERS:
        _say(f"{output}: cannot write {output.suffix or 'a file without an ending'}; use one of {', '.join(WRITERS)}")
    if output.is_dir():
        _say(f"{output}: is a folder, expected a file; name a file in it")
    if not output.parent.is_dir():
        _say(f"{output}: there is no folder {output.parent}; make it first")


def _chosen(folder: Path, model: str | None) -> Any:
    from mixtura.facade import load

    study = load(folder)
    return study.best if model is None else study.model(model)


def _listed(text: str | None, flag: str) -> list[str] | None:
    if text is None:
        return None
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        _say(f"{flag} {text!r}: no name was given; write them with commas between, or leave {flag} out for all")
    return names


def _pairs(items: list[str] | None, flag: str) -> dict[str, str]:
    pairs = [item.split("=", 1) for item in items or []]
    for pair in pairs:
        if len(pair) != 2 or not all(pair):
            example = "age=integer" if flag == "--kind" else "gan=gan.csv"
            _say(f"{flag} {'='.join(pair)}: expected NAME=VALUE, as in {flag} {example}")
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
    except ValueError as error:
        from mixtura.contracts import InputError

        if not isinstance(error, InputError):
            raise
        _say(str(error))


def _say(sentence: str) -> NoReturn:
    print("error: " + " ".join(sentence.split()), file=sys.stderr)
    sys.exit(2)


def _stop() -> NoReturn:
    print("stopped; the same command goes on from here", file=sys.stderr)
    sys.exit(INTERRUPTED)


def main(argv: list[str] | None = None) -> None:
    """Run a command; exits with 0, 1 (a replay differs), 2 (an input cannot be used) or 130 (interrupted)."""
    with _one_sentence():
        code = app(args=argv, prog_name="mixtura", standalone_mode=False)
        if code == INTERRUPTED:  # newer typer answers the interrupt itself
            _stop()
        if code:
            sys.exit(code)
