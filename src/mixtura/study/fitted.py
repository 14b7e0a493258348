"""One model of a run in the person's own terms: frames, or arrays of images, in and out, and ``seed=``."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mixtura.blending.fill import condition
from mixtura.blending.given import draw_given
from mixtura.blending.nats import log_probs
from mixtura.contracts import Conditional, InputError, Model, Note, Watch, density_kind, unwatched
from mixtura.data import dtypes, filling, impossible, source
from mixtura.data.field import Field, refuse_nested
from mixtura.data.inputs import InputColumns
from mixtura.data.kind import Content, DataKind
from mixtura.data.names import named
from mixtura.data.schema import Schema
from mixtura.ground.rng import generator

#: an unknown cell needs at least this many effective proposals to be drawn from importance weights
LEAST_ESS = 5.0
#: a row with a value that is further than this from all values seen, in ranges of them, is not conditioned on
FARTHEST = 1e6
#: rows left unfilled that are named, and values of one that are
NAMED = 5

#: draws behind a prediction: order statistics of 999 are quantiles of thousandths; and how many are held at a time
PREDICTED, HELD_AT_ONCE = 999, 2**15


class FittedModel:
    """A fitted model in the person's own terms: frames (or arrays of images) in and out, ``seed=``.

    proposals: models of the same run that may propose values for missing entries, the best first. given: in a run with targets,
    the columns that they are modelled given; ``schema`` is then that of the targets alone.
    """

    def __init__(
        self, name: str, model: Model, schema: DataKind, proposals: Mapping[str, Conditional] | None = None,
        given: InputColumns | None = None,
    ) -> None:  # fmt: skip
        self.name, self.model, self.schema, self.given = name, model, schema, given
        self._proposals = dict(proposals or {})

    def __repr__(self) -> str:
        return f"<{self.name}: {density_kind(self.model) or 'samples only'}>"

    def sample(self, n: int, seed: int = 0, start: int = 0, given: Any = None, watch: Watch = unwatched) -> Content:
        """n new rows with the columns, types and rounding of the data; images as (n, H, W) or (n, H, W, 3).

        A seed names an endless sequence, and these are its rows start … start + n − 1: drawn at once or in parts, the same to
        float32 rounding.
        In a run with targets instead ``given``, rows of the inputs (anything :func:`mixtura.run` takes): n draws of the targets
        for each, with its inputs and its other columns, one row after the other. Draws replace the targets of these rows.
        """
        for name, number, least in (("n", n, 1), ("start", start, 0)):
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise InputError(f"{name}: expected a whole number of rows, {least} or more, got {number!r}")
        if self.given is not None:
            return self._sample_given(n, given, seed, start)
        if given is not None:
            raise InputError("sample: rows were given, but this run has no targets; leave them out, or run again with --target")
        size = self.schema.block
        blocks = range(start // size, (start + n - 1) // size + 1)
        rows = []
        for block in blocks:
            rows.append(self.model.sample(size, rng=generator(seed, "sample", block)))
            watch(len(rows) / len(blocks))
        return self.schema.decode(torch.cat(rows)[start % size :][:n])

    def rows(self, data: Any) -> Content:
        """Rows that a person gave, of anything :func:`mixtura.run` takes, as this run reads them: a frame or images."""
        return source.rows_like(data, self.schema, None if self.given is None else self.given.schema)

    def score(self, data: Any, seed: int = 0, watch: Watch = unwatched) -> pd.DataFrame:
        """Columns ``nats`` (of every row; of its targets given its inputs, where there are targets) and ``kind`` (exact or
        bound). Higher is likelier."""
        kind = density_kind(self.model)
        if kind is None:
            raise InputError(
                f"{self.name}: it has samples but no density, so it cannot score rows; use --model with a family that has one"
            )
        rows = self.rows(data)
        x = self.schema.encode(rows)
        context = None if self.given is None else self.given.features(self.given.frame(rows))
        for schema in (self.schema, *(() if self.given is None else (self.given.schema,))):
            _note_unseen_values(schema, rows)
        nats, _ = log_probs(self.model, x, context=context, rng=generator(seed, "score"), watch=watch)
        return pd.DataFrame({"nats": nats.numpy(), "kind": kind}, index=rows.index if isinstance(rows, pd.DataFrame) else None)

    def _sample_given(self, n: int, asked: Any, seed: int, start: int) -> pd.DataFrame:
        given = cast(InputColumns, self.given)
        if asked is None:
            said = f"{', '.join(row['column'] for row in self.schema.describe())} given {', '.join(given.names)}"
            raise InputError(f"sample: this run is of {said}; give rows of these inputs (--given FILE)")
        if start:
            raise InputError(f"start: is for runs without targets, got {start}; leave it out, or take another seed")
        rows = given.rows(self.rows(asked))
        _note_unseen_values(given.schema, rows)
        drawn = draw_given(self.model, given.features(rows), n, gaps="kept", rng=generator(seed, "sample"))
        targets = cast(pd.DataFrame, self.schema.decode(drawn.transpose(0, 1).flatten(0, 1)))
        # the person's own columns without the targets, which are drawn
        theirs = rows.drop(columns=[name for name in targets if name in rows])
        return _joined(theirs.loc[theirs.index.repeat(n)].reset_index(drop=True), targets)

    def predict(
        self, data: Any, levels: Sequence[float] = (0.05, 0.5, 0.95), draws: int = PREDICTED, seed: int = 0,
        watch: Watch = unwatched,
    ) -> pd.DataFrame:  # fmt: skip
        """What the targets of rows with these inputs will be, from ``draws`` draws each: of a number its mean and the quantiles
        at ``levels``, columns ``y_mean``, ``y_0.05``, …; of a category the likeliest and its probability, ``y_mode`` and
        ``y_probability``; all after the columns of ``data``, its keys and its targets too. A target that may be missing is
        predicted as if it were there.

        Quantile p is order statistic p (draws + 1), between two of them interpolated: of a law known by its draws, a fresh
        value falls below it with probability p. ``watch`` is called with the share of the rows that is done.

        Raises InputError in a run without targets, and on levels that so many draws do not reach.
        """
        if self.given is None:
            raise InputError("predict: this run has no targets, so there is nothing to predict; run again with --target")
        rows = self.given.rows(self.rows(data))
        if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
            raise InputError(f"draws: expected a whole number, 1 or more, got {draws!r}")
        if not all(min(p, 1 - p) * (draws + 1) >= 1 - 1e-9 for p in levels):
            raise InputError(
                f"levels: expected probabilities from 1/(draws + 1) to draws/(draws + 1), got {list(levels)} with {draws} draws; "
                "raise draws, or leave out the levels near 0 and 1"
            )
        fields = cast(Schema, self.schema).modelled
        twice = next((name for field in fields for name in _predicted_names(field, levels) if name in rows), None)
        if twice is not None:
            raise InputError(f"data: has a column {twice!r}, the name of a column that predictions need; rename it")
        _note_unseen_values(self.given.schema, rows)
        rng, pieces, done = generator(seed, "predict"), [], 0
        for context in self.given.features(rows).split(max(1, HELD_AT_ONCE // draws)):
            drawn = draw_given(self.model, context, draws, rng=rng).numpy()
            pieces.append(pd.concat([_predicted(field, drawn[:, :, j], levels) for j, field in enumerate(fields)], axis=1))
            done += len(context)
            watch(done / len(rows))
        whole = _joined(rows, pd.concat(pieces, ignore_index=True))
        return whole.set_axis(data.index, axis=0) if isinstance(data, pd.DataFrame) else whole

    def impute(self, data: Any, draws: int = 1, seed: int = 0, watch: Watch = unwatched) -> pd.DataFrame:
        """The rows with every missing cell drawn from its conditional law given the rest of its row. Cells that are
        there come back as they were given. A row that cannot be conditioned on, because one of its values lies beyond a wall or
        too far from all values that were learnt from, stays as it is, and a :class:`Note` names it. With several draws the rows
        are repeated, and the first column, ``draw``, numbers them. In a run with targets the cells of targets are filled, not
        those of inputs."""
        if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
            raise InputError(f"draws: expected a whole number, 1 or more, got {draws!r}")
        frame = self.rows(data)
        if not isinstance(self.schema, Schema) or not isinstance(frame, pd.DataFrame):
            raise InputError("impute: images have no missing cells; impute is for tables")
        if draws > 1 and "draw" in frame.columns:
            raise InputError("data: has a column 'draw', the name of the column that numbers the completions; rename it")
        rows = self.schema.matched(frame, "data")
        fields = self.schema.modelled
        for field in fields:
            refuse_nested(_column(rows, field).dropna())
        holes = np.stack([field.gaps(_column(rows, field)) for field in fields], 1)
        asked = np.flatnonzero(holes.any(1))
        ours, given = self._known(rows.iloc[asked])
        if ours.never_seen:
            unseen = "; ".join(ours.never_seen)
            warnings.warn(f"data: these values say nothing about the holes of their rows: {unseen}", Note, stacklevel=2)
        able, context = ~(ours.barred | self.schema.space.beyond(ours.x)).any(1), None
        if self.given is not None and given is not None:
            able &= ~(given.barred | given.lacking).any(1)
            context = self.given.inputs(given.x[able])
        values, filled = ours.x.expand(draws, *ours.x.shape).clone(), torch.zeros(len(asked), dtype=torch.bool)
        if bool(able.any()):
            values[:, able], filled[able] = self._filled(ours.x[able], context, draws, seed, watch)
        left = (~filled).nonzero().squeeze(1)
        if len(left):
            warnings.warn(self._why_left(rows.iloc[asked], left, [ours] if given is None else [ours, given]), Note, stacklevel=2)
        x = values[:, filled].flatten(0, 1)  # only holes are taken from these rows
        drawn = cast(pd.DataFrame, self.schema.decode(x.masked_fill(self.schema.space.unseen(x), 0.0)))
        done = (np.arange(draws)[:, None] * len(rows) + asked[filled.numpy()]).reshape(-1)
        rows, holes = pd.concat([rows] * draws, ignore_index=True), np.tile(holes, (draws, 1))
        new = {
            f.name: filling.fill_column(f, _column(rows, f), holes[:, j], done, _column(drawn, f)) for j, f in enumerate(fields)
        }
        out = rows.assign(**new).set_axis(named(frame).columns, axis=1)
        if draws == 1:
            out = out.set_axis(frame.index, axis=0)
        else:
            out.insert(0, "draw", np.repeat(np.arange(draws), len(frame)))
        return dtypes.keep_stored(out, {**drawn.attrs.get(dtypes.STORED, {}), **frame.attrs.get(dtypes.STORED, {})})

    def _known(self, rows: pd.DataFrame) -> tuple[_Known, _Known | None]:
        """The known entries of rows with holes, and in a run with targets their inputs."""
        ours = _Known.of(cast(Schema, self.schema).modelled, rows)
        if self.given is None:
            return ours, None
        return ours, _Known.of(self.given.schema.modelled, self.given.schema.matched(rows, "given").set_axis(rows.index, axis=0))

    def _filled(self, x: Tensor, context: Tensor | None, draws: int, seed: int, watch: Watch) -> tuple[Tensor, Tensor]:
        """(draws, n, D): rows x (n, D) with their missing entries drawn; and (n,) whether they could be."""
        values, known, rng = x.expand(draws, *x.shape).clone(), ~torch.isnan(x), generator(seed, "impute")
        # where all targets are unknown the model itself draws them: there is nothing to condition on
        whole = torch.zeros(len(x), dtype=torch.bool) if context is None else ~known.any(1)
        if context is not None and bool(whole.any()):
            values[:, whole] = draw_given(self.model, context[whole], draws, gaps="rows", rng=rng)
        able, rest = torch.ones(len(x), dtype=torch.bool), ~whole
        if bool(rest.any()):
            filled = condition(
                self.model, x[rest], known[rest], draws=draws, proposal=next(iter(self._proposals.values()), None),
                context=None if context is None else context[rest], rng=rng, watch=watch,
            )  # fmt: skip
            values[:, rest] = filled.values
            able[rest] = (filled.ess >= LEAST_ESS) & (filled.log_evidence > -math.inf)
        return values, able

    def _why_left(self, rows: pd.DataFrame, left: Tensor, known: Sequence[_Known]) -> str:
        """One sentence that names the ``left`` of the rows with holes that were not filled, and the oddest value of each."""
        fields = [field for k in known for field in k.fields]
        odd = torch.cat([torch.where(k.barred | k.lacking & (i > 0), math.inf, k.distance) for i, k in enumerate(known)], 1)
        said = []
        for i in left[:NAMED].tolist():
            cells = {f.name: rows[f.name].iloc[i] for f in fields}
            present = [name for name, cell in cells.items() if not pd.isna(cell)]
            names = [fields[int(odd[i].argmax())].name] if bool(odd[i].max() > 0) else present[:NAMED]
            told = [f"column {name!r} is {cells[name] if name in present else 'missing'}" for name in names]
            said.append(f"row {rows.index[i]}, {' and '.join(told)}")
        more = f"; and {len(left) - NAMED:,} more" if len(left) > NAMED else ""
        others = [name for name in self._proposals if name != self.name]
        remedy = f"repair them, or try --model {' or '.join(others)}" if others else "repair them"
        return (
            f"{len(left):,} of {len(rows):,} rows with holes are left as they are, because {self.name} cannot be conditioned on "
            f"what they hold: {'; '.join(said)}{more}; {remedy}"
        )


@dataclass(frozen=True)
class _Known:
    """What n rows hold in some columns.

    x: (n, D) as the schema encodes them, NaN where missing. barred: (n, D) bool, entries that no law can be conditioned on: they
    cannot be read, or lie too far from all values seen. lacking: (n, D) bool, missing entries of columns where none was missing.
    distance: (n, D) from the values seen, in ranges of them. never_seen: levels that were never seen, each with its count.
    """

    fields: tuple[Field, ...]
    x: Tensor
    barred: Tensor
    lacking: Tensor
    distance: Tensor
    never_seen: tuple[str, ...]

    @staticmethod
    def of(fields: tuple[Field, ...], rows: pd.DataFrame) -> _Known:
        """The entries of rows that have these columns."""
        x, barred, lacking, distance = (torch.zeros(4, len(rows), len(fields), dtype=torch.float64)).unbind(0)
        never_seen: list[str] = []
        for j, field in enumerate(fields):
            series = _column(rows, field)
            codes, unread = _read(field, series)
            x[:, j], barred[:, j] = torch.from_numpy(codes), torch.from_numpy(unread).double()
            if not field.absent:
                lacking[:, j] = torch.from_numpy(field.gaps(series)).double()
            if field.discrete:
                never_seen += [impossible.counted(*found) for found in impossible.never_seen(field, series, codes)]
                distance[:, j] = torch.where(x[:, j] >= len(field.labels), math.inf, 0.0)
            else:
                width = max(field.high / 2 - field.low / 2, field.resolution, 1e-12 * abs(field.high), 1e-300)
                beyond = torch.maximum(field.low - x[:, j], x[:, j] - field.high).clamp(min=0)
                distance[:, j] = (beyond / width).nan_to_num(nan=0.0)
                barred[:, j] += (distance[:, j] > FARTHEST).double()
        return _Known(fields, x, barred > 0, lacking > 0, distance, tuple(never_seen))


def _column(rows: pd.DataFrame, field: Field) -> pd.Series:
    return cast(pd.Series, rows[field.name])


def _read(field: Field, series: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """(n,) in tensor units, NaN where a cell is missing or holds what the column cannot; and (n,) bool where it is the latter."""
    try:
        return field.encode(series), np.zeros(len(series), dtype=bool)
    except InputError:  # at least one cell cannot be read: each is tried alone
        x, unread = np.full(len(series), np.nan), np.zeros(len(series), dtype=bool)
        for i in range(len(series)):
            try:
                x[i] = field.encode(series.iloc[[i]])[0]
            except InputError:
                unread[i] = True
        return x, unread


def _note_unseen_values(schema: DataKind, rows: Content) -> None:
    """A :class:`Note` of the values that no row could have of those that were learnt from."""
    if said := schema.as_made(rows).told("data", "the rows learnt from"):
        warnings.warn(said, Note, stacklevel=3)
    if not isinstance(schema, Schema) or not isinstance(rows, pd.DataFrame):
        return
    for field in schema.modelled:
        if field.kind == "boolean" and field.name in rows and not {"0", "1"} & set(map(str, field.labels)):
            written = {str(cell) for cell in _column(rows, field).dropna().unique()}
            if written and written <= {"0", "1", "0.0", "1.0"}:
                said = f"data: column {field.name!r} holds 0 and 1, read as {field.labels[0]} and {field.labels[-1]}"
                warnings.warn(said, Note, stacklevel=3)


def _joined(theirs: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """The columns of a person's rows, then the columns that were drawn or predicted for them."""
    stored = {**answers.attrs.get(dtypes.STORED, {}), **theirs.attrs.get(dtypes.STORED, {})}
    return dtypes.keep_stored(pd.concat([theirs, answers], axis=1), stored)


def _predicted_names(field: Field, levels: Sequence[float]) -> list[str]:
    """The names of the columns that :func:`_predicted` makes of a target."""
    made = ("mode", "probability") if field.discrete else ("mean", *(f"{p:g}" for p in levels))
    return [f"{field.name}_{ending}" for ending in made]


def _predicted(field: Field, drawn: np.ndarray, levels: Sequence[float]) -> pd.DataFrame:
    """The predictions of one target, from its draws (s, n) in tensor units."""
    if field.discrete:
        shares = np.stack([(drawn == code).mean(0) for code in range(len(field.labels))])
        made = [field.decode(shares.argmax(0).astype(np.float64)), shares.max(0)]
    else:
        mean = drawn.mean(0) + (field.offset if field.kind == "integer" else 0)
        if field.kind == "datetime":  # a mean of dates is a date, a mean of whole numbers need not be one
            mean = field.decode(mean)
        made = [mean, *(field.decode(np.quantile(drawn, p, axis=0, method="weibull")) for p in levels)]
    return pd.DataFrame(dict(zip(_predicted_names(field, levels), made, strict=True)))
