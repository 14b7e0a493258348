"""What a person sees of a plan and of a verdict: tables and the sentences around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mixtura.cli.numbers import format_compact, format_duration, format_number, format_to_error, format_with_error
from mixtura.ground.shown import visible

if TYPE_CHECKING:  # torch and pandas wait until a command needs them: --help is quick
    from rich.console import Console

    from mixtura.folder.records import Score
    from mixtura.job.start import Planned
    from mixtura.study import Study

#: scores shown where no file was asked for
FEW = 8
#: columns of a terminal from which on the leaderboard shows costs too
WIDE = 96


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

    of = "" if planned.rows_total == planned.rows else f" drawn evenly from {planned.rows_total:,}"
    console.print(Text.assemble((visible(planned.name), "bold"), f": {planned.what}{of}"))
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
    spent = f", {format_duration(planned.resumed)} of it spent before" if planned.resumed > 1 else ""
    by_steps = f"{planned.steps:,} steps a fit{_estimate(planned.estimate)}" if planned.steps else "replay"
    bound = f"budget {format_duration(planned.budget)}{spent}" if planned.budget else by_steps
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


def _estimate(seconds: float | None) -> str:
    return "" if seconds is None else f", about {format_duration(seconds)}"


def show_study(console: Console, study: Study) -> None:
    """Print the leaderboard, the verdict and the commands that use the run."""
    console.print()
    if study.given is None:
        _show_board(console, study, ("MMD²", "memorised"), _sample_cells)
    else:
        _show_board(console, study, ("CRPS", "covered", "width")[: 3 if console.width >= WIDE else 2], _prediction_cells)
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

    folder, images = command(study.folder), study.schema.space.is_image
    console.print(f"\neverything is in {study.folder} (report.html, and README.md, the model card); next:", soft_wrap=True)
    commands = [f"report {folder} --open"]
    if study.given is not None:
        commands += [f"predict {folder} new.csv -o predicted.csv", f"sample {folder} --given new.csv -n 10 -o drawn.csv"]
        commands += [f"score {folder} more.csv -o scores.csv"]
    else:
        commands += [f"sample {folder} -n 1000 -o new{getattr(study.schema, 'written', '.csv')}"]
        commands += [f"score {folder} {'more.npz' if images else 'more.csv'} -o scores.csv"] * ("nats" in study.verdicts)
        commands += [f"impute {folder} holes.csv -o filled.csv"] * (not images)
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
        density = format_with_error(s.bits, s.bits_error) if bits else format_with_error(s.nats, s.nats_error)
        exact, bound = (density if s.kind == kind else "" for kind in ("exact", "bound"))
        spent = (format_number(s.seconds, 1), format_number(s.sample_ms, 0))[: len(costs)]
        table.add_row(s.name, exact, bound, *measured(s)[: len(measures)], *spent)
        notes += [n for n in (_convergence_note(s), _latents_note(s), f"{s.name}: {s.reason}" if s.reason else "") if n]
    console.print(table)
    for note in notes:
        console.print(f"  {note}", style="dim")


def _sample_cells(s: Score) -> tuple[str, ...]:
    """What the leaderboard says of a model's samples: MMD², memorisation."""
    mmd = s.metrics.get("mmd2", {"value": None, "error": None})
    return format_to_error(**mmd), format_with_error(s.memorisation, s.memorisation_error, 2)


def _prediction_cells(s: Score) -> tuple[str, ...]:
    """What it says of a model of targets given inputs: CRPS, coverage and width, of the first target that is a number."""
    from mixtura.job.scoring import of_first

    found = of_first(s.metrics)
    crps, covered, width = (found.get(name, {"value": None, "error": None}) for name in ("crps", "coverage_90", "width_90"))
    return format_compact(**crps), format_compact(**covered), format_compact(**width)


def _latents_note(s: Score) -> str:
    """What a model with hidden codes says of them."""
    d = s.diagnosis
    if "rate" not in d:
        return ""
    return (
        f"{s.name}: rate {d['rate']:.1f} + distortion {d['distortion']:.1f} nats; "
        f"{d['active']:.0f} of {d['latents']:.0f} latents in use"
    )


def _convergence_note(s: Score) -> str:
    if s.converged is not False:
        return ""
    known = s.wanted is not None and s.seconds is not None and s.wanted > s.seconds
    return f"{s.name}: not converged" + (f", would need about {format_duration(s.wanted)}" if known else "")
