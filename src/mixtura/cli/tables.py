"""What a person sees of a plan and of a verdict: tables and the sentences around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mixtura.cli.numbers import format_compact, format_duration, format_number, format_to_error, format_with_error
from mixtura.ground.shown import visible

if TYPE_CHECKING:  # torch and pandas wait until a command needs them: --help is quick
    from rich.console import Console

    from mixtura.folder.records import Score
    from mixtura.job.start import Planned
    from mixtura.metrics import Metric, Place
    from mixtura.study.study import Study

#: scores shown where no file was asked for
FEW = 8
#: columns of a terminal from which on the leaderboard shows costs too, and below which its columns stand closer
WIDE, ROOMY = 96, 84


def make_console(*, stderr: bool) -> Console:
    """A rich console on standard output or error that prints any text of the person's data as it is."""
    from rich.console import Console

    class Showing(Console):
        """A console on which no name can steer the terminal."""

        def render_str(self, text: str, **options: Any) -> Any:
            return super().render_str(visible(text), **options)

    return Showing(stderr=stderr, highlight=False, markup=False)  # a column may be named "[/b]"


def show_plan(console: Console, planned: Planned) -> None:
    """Print the columns, the split, the budget and the families of a run."""
    from rich.text import Text

    source = "" if planned.rows_total == planned.rows else f" drawn evenly from {planned.rows_total:,}"
    console.print(Text.assemble((visible(planned.name), "bold"), f": {planned.what}{source}"))
    for reason in planned.skipped[:FEW]:
        console.print(f"left out {reason}", style="dim")
    if len(planned.skipped) > FEW:
        console.print(f"left out {len(planned.skipped) - FEW:,} more files", style="dim")
    _show_columns(console, planned)
    if planned.target is not None and planned.given is not None:
        some = ", ".join(planned.given[:FEW]) + (", …" if len(planned.given) > FEW else "")
        inputs = f"{len(planned.given)} input{'s' * (len(planned.given) != 1)}"
        console.print(f"{', '.join(planned.target)} given {some}: {inputs}", style="bold")
    s = planned.splits
    folds = f", cross-fitted in {s['folds']} folds" if s["folds"] else ""
    duplicates = f"({s['duplicates']:,} duplicates of training rows)"
    console.print(f"split {s['rule']}: {s['fit']:,} fit, {s['select']:,} select{folds}, {s['report']:,} report {duplicates}")
    spent = f", {format_duration(planned.resumed)} of it spent before" if planned.resumed > 1 else ""
    estimate = "" if planned.estimate is None else f", about {format_duration(planned.estimate)}"
    by_steps = f"{planned.steps:,} steps a fit{estimate}" if planned.steps else "replay"
    bound = f"budget {format_duration(planned.budget)}{spent}" if planned.budget else by_steps
    workers = f"{planned.workers} workers" if planned.workers > 1 else "one worker"
    console.print(f"{bound}; {workers}; seed {planned.seed}; {', '.join(planned.families)}")


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


def show_study(console: Console, study: Study) -> None:
    """Print the leaderboard, the verdict and the commands that use the run."""
    console.print()
    _show_board(console, study)
    v = study.verdict
    console.print()
    console.print(v.sentence, style="bold", soft_wrap=True)
    if v.about_refit:
        console.print(v.about_refit, soft_wrap=True, highlight=False)
    if study.refinement is not None:
        console.print(study.refinement.sentence, soft_wrap=True, highlight=False)
    chosen = "weights and best single model were chosen on the select rows"
    console.print(f"objective: {v.unit}, as {study.why}; {chosen}", style="dim", soft_wrap=True)
    for objective, other in study.verdicts.items():
        if objective != study.objective:
            console.print(f"in {other.unit}: {other.sentence}", style="dim", soft_wrap=True)
    meanings = [f"{metric.heading}: {metric.summary}" for metric in _measures(console, study)]
    meanings += ["draw ms: time to draw 1,000 rows"] if console.width >= WIDE else []
    console.print(". ".join(meanings), style="dim", soft_wrap=True)
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


def _show_board(console: Console, study: Study) -> None:
    """The leaderboard: a row for each model, and below it what is to be known of single models."""
    from rich.table import Table

    from mixtura.folder.records import ranked

    bits = any(s.bits is not None for s in study.scores)
    exact_unit, bound_unit = ("bits/dim, exact", "bits/dim ≤") if bits else ("nats, exact", "nats, bound ≥")
    metrics = _measures(console, study)
    costs = ("fit s", "draw ms") if console.width >= WIDE else ()
    table = Table(box=None, pad_edge=False, padding=(0, 1), collapse_padding=console.width < ROOMY, header_style="dim")
    for name in ("model", exact_unit, bound_unit, *(metric.heading for metric in metrics), *costs):
        table.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
    notes = []
    for s in ranked(study.scores):
        if s.status in ("skipped", "failed"):
            notes.append(f"{s.name} {s.status}: {s.reason.removeprefix(s.name + ': ')}")
            table.add_row(s.name, s.status)
            continue
        density = format_with_error(s.bits, s.bits_error) if bits else format_with_error(s.nats, s.nats_error)
        exact, bound = (density if s.kind == kind else "" for kind in ("exact", "bound"))
        spent = (format_number(s.seconds, 1), format_number(s.sample_ms, 0))[: len(costs)]
        table.add_row(s.name, exact, bound, *(_measured(s, metric) for metric in metrics), *spent)
        said = [s.reason, "" if s.refit is None else s.refit.reason]
        notes += [n for n in (_convergence_note(s), _latents_note(s), *(f"{s.name}: {why}" for why in said if why)) if n]
    console.print(table)
    for note in notes:
        console.print(f"  {note}", style="dim")


def _measures(console: Console, study: Study) -> list[Metric]:
    """The columns of the leaderboard beside nats."""
    from mixtura.metrics import shown_in

    wide: tuple[Place, ...] = ("wide terminal",) if console.width >= WIDE else ()
    return shown_in("terminal", *wide, answers=study.given is not None)


def _measured(score: Score, metric: Metric) -> str:
    """A metric of a model; of several targets, of the first that is a number."""
    if metric.takes in ("answers", "ranks"):  # in units of whatever size
        return format_compact(*score.measured(metric.name))
    if metric.takes == "copies":
        return format_with_error(*score.measured(metric.name), 2)
    return format_to_error(*score.measured(metric.name))


def _latents_note(s: Score) -> str:
    """Of a model with latent codes: what they cost, and how many are in use."""
    d = s.diagnosis
    if "rate" not in d:
        return ""
    return (
        f"{s.name}: rate {d['rate']:.1f} + distortion {d['distortion']:.1f} nats; "
        f"{d['active']:.0f} of {d['latents']:.0f} latents in use"
        + (f"; images leave out noise of {d['grain']:.3g} a pixel" if "grain" in d else "")
    )


def _convergence_note(s: Score) -> str:
    if s.converged is not False:
        return ""
    known = s.seconds_to_converge is not None and s.seconds is not None and s.seconds_to_converge > s.seconds
    return f"{s.name}: not converged" + (f", would need about {format_duration(s.seconds_to_converge)}" if known else "")
