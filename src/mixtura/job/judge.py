"""Models to scores: nats on unseen rows with their kind and errors, what their samples are like, memorisation, cost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, Literal

import torch
from torch import Tensor

from mixtura.contracts import Column, Density, InputError, LowerBound, Model, Space, Watch, unwatched
from mixtura.ground.encode import Columns
from mixtura.metrics import TABLE, calibration
from mixtura.metrics.likelihood import Estimate
from mixtura.metrics.neighbours import Manifold, manifold, memorisation

#: independent repetitions of a sampled bound, and of one on more entries than LARGE
REPEATS, REPEATS_OF_LARGE, LARGE = 4, 2, 1_024
TILE = 2_048
#: rows a side that every metric can do with
ENOUGH = 7
#: metrics that ask whether two laws differ, by a kernel fitted for that
KERNELLED = ("mmd2", "same_law")
#: central intervals whose coverage is measured, by name; of the widest the width is told too
INTERVALS = {"coverage_50": 0.5, "coverage_90": 0.9}


@dataclass(frozen=True)
class OfAnswers:
    """What is measured of a model's answers. better: None where the best is a number that the summary names."""

    summary: str
    better: Literal["higher", "lower"] | None
    unit: str


#: what :func:`calibrate` measures, by name, in the order that it is told in
OF_ANSWERS = {
    "crps": OfAnswers("continuous ranked probability score: how far the draws are from the truth", "lower", "of the target"),
    "coverage_90": OfAnswers("share of the rows inside the central 90 % of their draws; 0.9 if calibrated", None, "share"),
    "width_90": OfAnswers("mean width of the 90 % between 19 draws; less is better at equal coverage", None, "of the target"),
    "coverage_50": OfAnswers("share of the rows inside the central 50 % of their draws; 0.5 if calibrated", None, "share"),
    "pit": OfAnswers("largest distance of the ranks of the rows among their draws from uniform ones", "lower", "share"),
}
#: rows of context that are drawn for at a time; how many times as many rows may be drawn because some were missing, for entries
#: one by one and for whole rows, and how often one of them
DRAWN_AT_ONCE, REDRAWS, REDRAWS_OF_ROWS, ATTEMPTS = 2**15, 4, 100, 100
#: standard deviations from which on a value is just far: the kernels square it in float32
FURTHEST = 1e6
#: memorisation looks at no more rows than this of each kind
MOST_COMPARED = 2_000


@dataclass(frozen=True)
class Score:
    """One row of the leaderboard. Numbers are None where they do not apply.

    status: "fitted", "skipped" (cannot serve, see reason), "failed" (see reason) or "samples only".
    nats: mean log-density of a report row, "exact" or "bound" by kind, with its standard error; mc_error is what
    sampling the bound adds; how: what the number is ("cell masses", "uniform dequantisation", …). bits: of images, bits
    per dimension, −(nats + D log δ) / (D log 2). memorisation: ½ = none, 1 = copies. seconds: of training. sample_ms: to
    draw 1,000 rows. converged and wanted: whether training ended by itself, and the seconds it would have taken.
    metrics: what the samples are like beside the report rows, by the names of ``metrics.TABLE``. diagnosis: what the
    family says of itself.
    """

    name: str
    status: Literal["fitted", "skipped", "failed", "samples only"]
    reason: str = ""
    kind: Literal["exact", "bound"] | None = None
    nats: float | None = None
    nats_error: float | None = None
    mc_error: float | None = None
    rows: int = 0
    memorisation: float | None = None
    memorisation_error: float | None = None
    seconds: float | None = None
    seconds_error: float | None = None
    sample_ms: float | None = None
    sample_ms_error: float | None = None
    steps: int | None = None
    converged: bool | None = None
    wanted: float | None = None
    how: str = ""
    bits: float | None = None
    bits_error: float | None = None
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    diagnosis: Mapping[str, float] = field(default_factory=dict)


@torch.no_grad()
def log_probs(
    model: Model, x: Tensor, *, context: Tensor | None = None, rng: torch.Generator, watch: Watch = unwatched
) -> tuple[Tensor, float]:
    """(n,) nats of rows x in data units, and the Monte-Carlo error of their mean (0 where exact).

    A bound is estimated ``REPEATS`` times; the log of the mean is the tighter bound that is returned. ``watch`` is told the share
    that is done.
    """
    if isinstance(model, Density):
        times, nats_of = 1, model.log_prob
    elif isinstance(model, LowerBound):
        times = REPEATS if model.space.dims <= LARGE else REPEATS_OF_LARGE
        nats_of = partial(model.log_prob_bound, draws=model.draws, rng=rng)
    else:
        raise TypeError(f"{type(model).__name__} has no density")
    tiles = [i for _ in range(times) for i in range(0, len(x), TILE)]
    pieces = []
    for i in tiles:
        pieces.append(nats_of(x[i : i + TILE], context=_rows(context, i)))
        watch(len(pieces) / len(tiles))
    if times == 1:
        return torch.cat(pieces), 0.0
    repeats = torch.cat(pieces).reshape(times, -1)
    means = repeats.mean(1)
    error = float(means.std()) / math.sqrt(times) if torch.isfinite(means).all() else math.nan
    return torch.logsumexp(repeats, 0) - math.log(times), error


def sound(nats: Tensor, model: Model) -> Tensor:
    """The (n,) nats of a model, which are numbers or −inf; FloatingPointError, with the row, where one is NaN or +inf."""
    broken = (torch.isnan(nats) | (nats == math.inf)).nonzero()
    if len(broken):
        row = int(broken[0])
        raise FloatingPointError(
            f"{type(model).__name__} gives row {row} a log-density of {float(nats[row])}: "
            "its training went wrong; fit it again with a lower learning rate"
        )
    return nats


def _rows(context: Tensor | None, i: int) -> Tensor | None:
    return None if context is None else context[i : i + TILE]


def bits_per_dimension(nats: Estimate, space: Space) -> Estimate | None:
    """Bits per dimension of images in levels of step δ: −(nats + D log δ) / (D log 2); None for anything else."""
    δ = space.columns[0].resolution
    if not space.is_image or δ == 0:
        return None
    unit = space.dims * math.log(2)
    return Estimate(-(nats.value + space.dims * math.log(δ)) / unit, nats.error / unit, nats.n)


def plain_features(x: Tensor, columns: Columns) -> Tensor:
    """Rows (n, *shape) in data units as standardised values beside indicators of every code, scaled so that two different
    codes are as far apart as one standard deviation; (n, d) float64. ``columns`` was prepared on the fit rows.

    Nothing is moved onto the support, so that a maker of impossible rows is told by them. A level never seen is as far from
    every level as they are from one another: with the k corners e_c/√2 of a group, t (1, …, 1) is a regular simplex for
    t = (√2 − √(2 + 2k)) / 2k. A value beyond a wall is as far from it as it would be where no wall is, and one further than
    ``FURTHEST`` standard deviations counts as no further.
    """
    flat, unseen, numeric = columns.space.flat(x), columns.space.unseen(x), columns.numeric
    there = columns.space.flat(columns.space.clamp(x)).masked_fill(unseen, 0.0)
    parts = columns.split(there)
    beyond = columns.unbent((flat - there)[:, numeric].nan_to_num(nan=0.0))
    indicators = columns.indicators(parts.codes).double() / math.sqrt(2)
    for j, first, k in zip(columns.coded, columns.first.tolist(), columns.cardinalities, strict=True):
        indicators[unseen[:, j], first : first + k] = (math.sqrt(2) - math.sqrt(2 + 2 * k)) / (2 * k)
    return torch.cat([(parts.values + beyond).clamp(-FURTHEST, FURTHEST), indicators], 1)


def memorised(
    samples: Tensor, train: Tensor, unseen: Tensor, look: Callable[[Tensor], Tensor], *, rng: torch.Generator
) -> Estimate:
    """Memorisation of ``samples`` against training and unseen rows; at most ``MOST_COMPARED`` of each. ``samples`` and ``unseen``
    are (n, d) features; ``train``, which may be many, rows (n, *shape) in data units, of which ``look`` sees those compared."""
    pick = lambda x: x[torch.randperm(len(x), generator=rng)[:MOST_COMPARED]]  # noqa: E731
    made, learnt, fresh = pick(samples), look(pick(train)), pick(unseen)
    return memorisation(made.numpy(), learnt.numpy(), fresh.numpy(), rng=rng)


def appraise(
    real: Tensor,
    generated: Tensor,
    look: Callable[[Tensor], Tensor],
    *,
    kernel: Any,
    codes: Tensor | None,
    seed: Callable[[str], torch.Generator],
) -> dict[str, Estimate]:
    """Every metric of the table that compares two sets: of rows (n, *shape) in data units, seen as features by ``look``
    (with ``kernel`` where a kernel tells whether two laws differ), and, where ``codes`` (dims,) says which columns of a
    table are codes, column by column. ``seed``: name → generator. Of sets below ``ENOUGH`` rows a metric that wants more is not
    measured."""
    seen = look(real), look(generated)
    together = cache(lambda: manifold(*seen)._asdict())  # one pass gives all four
    found = {}
    for row in TABLE.values():
        try:
            if row.name in Manifold._fields:
                found[row.name] = together()[row.name]
            elif row.takes == "features":
                options = {"kernel": kernel} if row.name in KERNELLED else {}
                found[row.name] = row.function(*seen, rng=seed(row.name), **options)
            elif row.takes == "columns" and codes is not None:
                found[row.name] = row.function(real.flatten(1), generated.flatten(1), codes=codes, rng=seed(row.name))
        except InputError:
            if min(len(real), len(generated)) >= ENOUGH:
                raise
    return {name: value for name, value in found.items() if isinstance(value, Estimate)}


@torch.no_grad()
def answers(
    model: Model, context: Tensor, draws: int, *, gaps: Literal["entries", "rows", "kept"] = "entries", rng: torch.Generator
) -> Tensor:
    """(draws, n, *shape) rows in data units: so many for each row of the context (n, …).

    gaps: what becomes of missing entries. Each is drawn again on its own ("entries", for whoever looks at one column at a
    time), or its whole row is ("rows"), or they are "kept". Where ``ATTEMPTS``, or ``REDRAWS`` times as many rows as were asked
    for, are not enough, an entry takes that of another draw of its row; it stays missing only where it is so in all of them.
    """
    asked = context.repeat(draws, *(1,) * (context.dim() - 1))
    x = model.space.flat(_drawn(model, asked, rng))
    # one draw of a row cannot take another's entry: it may be tried as often as an attempt allows
    times = {"kept": 0, "entries": REDRAWS, "rows": REDRAWS_OF_ROWS}[gaps]
    left = times * max(len(asked), ATTEMPTS // 4 * len(context))
    gone = torch.isnan(x).any(1).nonzero().squeeze(1)
    for _ in range(ATTEMPTS):  # a row whose targets are nearly always missing is not waited for
        gone = gone[torch.isnan(x[gone]).any(1)][:left]
        if len(gone) == 0:
            break
        again = model.space.flat(_drawn(model, asked[gone], rng))
        x[gone] = again if gaps == "rows" else torch.where(torch.isnan(x[gone]), again, x[gone])
        left -= len(gone)
    x = x.reshape(draws, len(context), -1)
    if gaps != "kept":
        x = _borrowed(x)
    return x.reshape(draws, len(context), *model.space.shape)


def _borrowed(x: Tensor) -> Tensor:
    """Draws (s, n, D) whose missing entries are those of other draws, in turn."""
    gone = torch.isnan(x)
    if not gone.any():
        return x
    present_first = gone.to(torch.uint8).argsort(dim=0, stable=True)
    turn = torch.arange(len(x), device=x.device)[:, None, None] % (~gone).sum(0).clamp(min=1)
    return torch.where(gone, x.gather(0, present_first.gather(0, turn)), x)


def _drawn(model: Model, context: Tensor, rng: torch.Generator) -> Tensor:
    pieces = context.split(DRAWN_AT_ONCE)
    return torch.cat([model.sample(len(piece), context=piece, rng=rng) for piece in pieces])


def calibrate(
    y: Tensor, draws: Tensor, space: Space, names: Sequence[str], *, rng: torch.Generator
) -> tuple[dict[str, Estimate], dict[str, Tensor]]:
    """Whether ``draws`` (s, n, D) of the targets mean what they say, by the truth y (n, D) of their rows, in data units: the
    entries of ``OF_ANSWERS`` for each numeric entry of the space, with its name behind a colon where there are several; and,
    by name, the (n,) ranks (metrics/calibration.py ``pit``), NaN where a truth is missing. ``pit`` has no standard error.

    Rows whose truth is missing, or whose draws are, say nothing here.
    """
    numeric = [j for j, c in enumerate(space.columns) if c.kind == "continuous"]
    found: dict[str, Estimate] = {}
    ranks: dict[str, Tensor] = {}
    for j in numeric:
        true, drawn = (_on_lattice(v[..., j], space.columns[j]) for v in (y, draws))
        there = ~(torch.isnan(true) | torch.isnan(drawn).any(0))
        if not there.any():
            continue
        true, drawn = true[there], drawn[:, there]
        u = torch.full((len(y),), math.nan, dtype=torch.float64)
        u[there] = torch.from_numpy(calibration.pit(true, drawn, rng=rng))
        apart = calibration.pit_uniformity(u[there])
        of_column = {"crps": calibration.average(calibration.crps(true, drawn))}
        of_column |= {name: calibration.coverage(true, drawn, level) for name, level in INTERVALS.items()}
        of_column |= {"width_90": calibration.sharpness(drawn, 0.9), "pit": Estimate(apart.distance, math.nan, apart.n)}
        ranks[names[j]] = u
        found |= {name if len(numeric) == 1 else f"{name}:{names[j]}": of_column[name] for name in OF_ANSWERS}
    return found, ranks


def of_first(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Of the metrics of a score the entries of ``OF_ANSWERS`` for its first numeric target; none where no target is one."""
    first: dict[str, Mapping[str, Any]] = {}
    for name, value in metrics.items():
        first.setdefault(name.partition(":")[0], value)
    return {name: value for name, value in first.items() if name in OF_ANSWERS}


def _on_lattice(values: Tensor, column: Column) -> Tensor:
    """Rounded values at the very floats of their lattice, so that equal ones are equal."""
    if column.resolution == 0:
        return values
    origin = column.low if math.isfinite(column.low) else 0.0
    return origin + column.resolution * ((values - origin) / column.resolution).round()


def timed_sample(model: Model, n: int, *, rng: torch.Generator) -> tuple[Tensor, float]:
    """n rows, and the milliseconds of process time that 1,000 took."""
    began = time.process_time()
    x = model.sample(n, rng=rng)
    return x, (time.process_time() - began) * 1e6 / n
