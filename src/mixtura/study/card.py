"""The model card of a run: :func:`card`."""

from __future__ import annotations

import math

from mixtura.folder.records import digits_of, ranked
from mixtura.ground.shown import markdown
from mixtura.metrics import shown_in
from mixtura.study.study import Study


def card(study: Study, name: str, rule: str, duplicates: int) -> str:
    """The model card of a run on the data ``name``, as Markdown: the verdict, how it was measured, the leaderboard. ``rule``: how
    the rows were split. ``duplicates``: report rows that a training row equals in every column."""
    v = study.verdict
    about = f"Objective: {v.unit} ({markdown(study.why)}), measured on {v.rows:,} rows that were not used for "
    about += f"any choice (split {markdown(rule)}). "
    if v.trimmed is not None:
        about += f"Gain without the 1 % of rows that differ most: {_with_error(v.trimmed, v.trimmed_error)} {v.unit}. "
    about += f"Weights are optimal to {v.gap:.1e} on the select rows."
    others = [other.sentence for objective, other in study.verdicts.items() if objective != study.objective]
    shown = shown_in("card", answers=study.given is not None)
    titles = " | ".join(["model", "nats (exact)", "nats (bound)", *(row.title for row in shown), "training, s"])
    lines = [
        f"# {markdown(name)}: a mixtura run", "", f"**{markdown(v.sentence)}**", "",
        *([f"{markdown(v.about_refit)}.", ""] if v.about_refit else []),
        *([f"{markdown(study.refinement.sentence)}.", ""] if study.refinement else []), about, "",
        *[f"By the other objective: {markdown(sentence)}." for sentence in others], "",
        f"| {titles} |", "|---" * (4 + len(shown)) + "|",
    ]  # fmt: skip
    for s in ranked(study.scores):
        if not s.has_samples:
            lines.append(f"| {markdown(s.name)} | {s.status}: {markdown(s.reason)} |" + " |" * (2 + len(shown)))
            continue
        nats = _with_error(s.nats, s.nats_error)
        exact, bound = (nats if s.kind == kind else "" for kind in ("exact", "bound"))
        seconds = "" if s.seconds is None else f"{s.seconds:.1f}"
        cells = [markdown(s.name), exact, bound, *(_with_error(*s.measured(row.name)) for row in shown), seconds]
        lines.append(f"| {' | '.join(cells)} |")
    verbs = ("sample", "score", "impute") if study.given is None else ("predict", "sample --given", "score")
    lines += [
        "", "".join(f"{row.title}: {row.summary}. " for row in shown).rstrip(), "",
        f"{duplicates:,} of the {v.rows:,} report rows equal a training row in every column.", "",
        f"Use: {', '.join(f'`mixtura {verb}`' for verb in verbs)} on this folder, or `mixtura.load(folder)` in Python.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    digits = digits_of(error)
    return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if error is not None and math.isfinite(error) else "")
