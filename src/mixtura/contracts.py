"""The vocabulary of the library: Space, Learner and its training game, Model and its capabilities.

Longer than 450 lines because it is the vocabulary that every room shares, and it is meant to be read in one sitting.

A :class:`Space` says what one observation is. A :class:`Learner` is anything that can be trained: a game of players
(:class:`Phase`) in one or more :class:`Stage`. A :class:`Model` is a learner that samples a space. The type of a model says what
else it can do (:class:`Density`, :class:`LowerBound`, :class:`Conditional`, ...): callers ask ``isinstance(model, Density)`` and
never find out by a failing call.

Tensors are in **data units**, ``float64``, one row an observation: a real number for a continuous entry,
a code ``0 .. levels-1`` for a discrete one, NaN where a value is missing. Log-densities are in nats with
respect to one base measure per entry, the same for every model: counting measure for levels, atoms and
missingness; Lebesgue measure for a real number; and for a number written in steps of ``resolution`` δ,
log(mass of its cell / δ). That is what makes nats comparable between families.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, final

import torch
from torch import Tensor, nn


class InputError(ValueError):
    """What a person gave cannot be used. The message is one sentence: given, expected, what to do."""


class Note(UserWarning):
    """What a person should know about a result that they get all the same. The message is one sentence."""


@dataclass(frozen=True)
class Estimate:
    """A number, its standard error (NaN where there is none) and how many rows it was measured on. A value of NaN has a
    ``reason``: why there is none."""

    value: float
    error: float
    n: int
    reason: str = ""


#: a callback that receives the share of the work that is done, from 0 to 1
Watch = Callable[[float], object]


def unwatched(share: float) -> None:
    """The default :data:`Watch`: do nothing."""


# ---------------------------------------------------------------------------------------------- spaces


#: a value is on the steps of its column if its distance to the nearest step, in steps, is at most this
ON_STEPS = 1e-6


@dataclass(frozen=True)
class Column:
    """One entry of an observation.

    kind:       "continuous" (a real number) or "levels" (a code 0 .. levels-1).
    levels:     how many codes there are (kind "levels").
    missing:    whether NaN is a possible value; missingness is then a discrete event with a probability.
    resolution: δ > 0 if values are written in steps of δ (origin + integer·δ): they score as cell masses.
    low, high:  walls that no value can pass: 0 for an amount, the darkest and the brightest pixel; infinite where
                there are none. With δ > 0 the walls are values of the column, and their cells end there. The ends of the
                range that was seen are not walls: distributions have tails beyond them.
    atoms:      single values with a probability of their own: values that many rows share (0, a cap) or that lie off the
                steps.
    anchor:     a value that the steps are counted from; None means a wall, or 0 where there is no wall.
    unseen:     the probability of a level that is not among the ``levels``, the same for every model; 0 makes such a level
                impossible.
    """

    kind: Literal["continuous", "levels"] = "continuous"
    levels: int = 0
    missing: bool = False
    resolution: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    atoms: tuple[float, ...] = ()
    anchor: float | None = None
    unseen: float = 0.0

    @property
    def origin(self) -> float:
        """A value that the steps of a rounded column are counted from."""
        if self.anchor is not None:
            return self.anchor
        return next((wall for wall in (self.low, self.high) if math.isfinite(wall)), 0.0)

    def off_steps(self, value: float) -> float:
        """How far a value is from the nearest step, in steps; infinite without steps."""
        k = (value - self.origin) / self.resolution if self.resolution > 0 else math.inf
        return abs(k - round(k)) if math.isfinite(k) else math.inf

    def on_steps(self, value: float) -> bool:
        """Whether a value lies on the steps of a rounded column, up to rounding errors."""
        return self.off_steps(value) <= ON_STEPS

    @property
    def steps(self) -> int:
        """How many values a rounded column with two walls can have; 0 for any other column."""
        closed = self.resolution > 0 and math.isfinite(self.high - self.low)
        return round((self.high - self.low) / self.resolution) + 1 if closed else 0


@dataclass(frozen=True)
class Space:
    """Shape and kind of one observation; ``columns`` has one entry per position of ``shape``, in row-major order."""

    shape: tuple[int, ...]
    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        if math.prod(self.shape) != len(self.columns) or not self.columns:
            needed = math.prod(self.shape)
            raise InputError(
                f"a space of shape {self.shape} needs {needed} columns, got {len(self.columns)}; give one for each entry"
            )

    @staticmethod
    def continuous(*shape: int) -> Space:
        """Real numbers without bounds, resolution or missing values."""
        return Space(shape, (Column(),) * math.prod(shape))

    @staticmethod
    def levels(*shape: int, levels: int) -> Space:
        """Codes 0 .. levels-1."""
        return Space(shape, (Column("levels", levels),) * math.prod(shape))

    @staticmethod
    def table(columns: Iterable[Column]) -> Space:
        """A row of typed columns."""
        columns = tuple(columns)
        return Space((len(columns),), columns)

    @staticmethod
    def image(channels: int, height: int, width: int, *, low: float = 0, high: float = 255, resolution: float = 1) -> Space:
        """Pixels in the levels of the file, low … high in steps of ``resolution``."""
        shape = (channels, height, width)
        return Space(shape, (Column(resolution=resolution, low=low, high=high),) * math.prod(shape))

    @property
    def is_image(self) -> bool:
        """Whether an observation is an array (channels, height, width) of numbers of one and the same kind."""
        c = self.columns[0]
        return len(self.shape) == 3 and c.kind == "continuous" and not c.missing and not c.atoms and set(self.columns) == {c}

    @property
    def plain(self) -> bool:
        """Whether every entry is a real number: no levels, steps, atoms or missing values (walls are allowed)."""
        return not any(c.kind == "levels" or c.resolution > 0 or c.atoms or c.missing for c in self.columns)

    @property
    def dims(self) -> int:
        """Number of entries of one observation."""
        return len(self.columns)

    def flat(self, x: Tensor) -> Tensor:
        """(n, *shape) → (n, dims)."""
        return x.reshape(x.shape[0], self.dims)

    def check(self, x: Tensor, *, name: str = "x") -> Tensor:
        """``x`` as float64 (n, *shape), or an InputError that names the row and the entry.

        Codes ≥ levels and values off the support are accepted: they are valid questions whose probability is 0.
        """
        if not isinstance(x, Tensor):
            raise InputError(f"{name}: expected a torch tensor of shape (n, {_commas(self.shape)}), got {type(x).__name__}")
        if x.dim() != 1 + len(self.shape) or tuple(x.shape[1:]) != self.shape:
            raise InputError(
                f"{name}: expected shape (n, {_commas(self.shape)}), got ({_commas(x.shape)}); give one row per observation"
            )
        if x.is_complex():
            raise InputError(f"{name}: expected real numbers, got {x.dtype}; convert them")
        x = x.to(torch.float64)
        flat = self.flat(x)
        missing_allowed = torch.tensor([c.missing for c in self.columns], device=x.device)
        discrete = torch.tensor([c.kind == "levels" for c in self.columns], device=x.device)
        bad = torch.isinf(flat) | (torch.isnan(flat) & ~missing_allowed)
        _refuse_first(bad, flat, name, "a finite number", "drop or repair the row")
        bad = discrete & ~torch.isnan(flat) & ((flat < 0) | (flat != flat.floor()))
        _refuse_first(bad, flat, name, "a level code 0, 1, 2, …", "encode levels as whole numbers")
        return x

    def outside(self, x: Tensor) -> Tensor:
        """(n,) bool: the rows that no model of this space can produce (an unseen level, or a value beyond a wall)."""
        return self.off(x).any(1)

    def off(self, x: Tensor) -> Tensor:
        """(n, dims) bool: the entries because of which a row is outside."""
        return self.unseen(x) | self.beyond(x)

    def unseen(self, x: Tensor) -> Tensor:
        """(n, dims) bool: the entries whose level is not among the ``levels`` of the column."""
        return self.flat(x) > self._row(x, [c.levels - 1 if c.kind == "levels" else math.inf for c in self.columns])

    def beyond(self, x: Tensor) -> Tensor:
        """(n, dims) bool: the entries beyond a wall."""
        flat, half = self.flat(x), self._row(x, [c.resolution / 2 for c in self.columns])
        low, high = (self._row(x, [getattr(c, wall) for c in self.columns]) for wall in ("low", "high"))
        return (flat < low - half) | (flat > high + half)

    def clamp(self, x: Tensor) -> Tensor:
        """``x`` moved onto the support (NaN stays NaN)."""
        low = self._row(x, [c.low for c in self.columns])
        high = self._row(x, [c.levels - 1 if c.kind == "levels" else c.high for c in self.columns])
        return torch.minimum(torch.maximum(self.flat(x), low), high).reshape(x.shape)

    @staticmethod
    def _row(x: Tensor, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=x.dtype, device=x.device)


def _commas(values: Sequence[int]) -> str:
    return ", ".join(str(int(v)) for v in values)


def _refuse_first(bad: Tensor, x: Tensor, name: str, expected: str, remedy: str) -> None:
    if bad.any():
        row, column = (int(i) for i in bad.nonzero()[0])
        raise InputError(f"{name}: row {row}, column {column} is {float(x[row, column]):g}, expected {expected}; {remedy}")


# ---------------------------------------------------------------------------------------------- models


#: the name of the batch where there is only one
ONLY = "rows"


class Batch:
    """Rows by name, all of one length n: ``x`` (n, *shape) in data units, ``context`` (n, *context_shape), or whatever else a
    learner reads. ``weights`` (n,), if given, weight the rows: minibatches are drawn in proportion to them.

    >>> rows = Batch(x=torch.zeros(5, 2), context=None)
    >>> len(rows), rows.get("context"), rows.at(torch.tensor([0, 1]))["x"].shape
    (5, None, torch.Size([2, 2]))
    """

    def __init__(self, **rows: Tensor | None) -> None:
        self.rows = {name: values for name, values in rows.items() if values is not None}
        lengths = {name: len(values) if isinstance(values, Tensor) and values.dim() else -1 for name, values in self.rows.items()}
        if len(set(lengths.values())) != 1 or -1 in lengths.values():
            found = ", ".join(f"{name} {length if length >= 0 else 'none'}" for name, length in lengths.items()) or "nothing"
            raise InputError(f"batch: expected tensors with the same number of rows, got rows: {found}; give each the same rows")
        weights = self.rows.get("weights")
        valid = weights is None or (weights.dim() == 1 and bool((weights >= 0).all()) and 0 < float(weights.sum()) < math.inf)
        if not valid:
            raise InputError("weights: expected one finite number of 0 or more for each row, and some above 0; repair them")

    def __len__(self) -> int:
        return len(next(iter(self.rows.values())))

    def __getitem__(self, name: str) -> Tensor:
        return self.rows[name]

    def get(self, name: str) -> Tensor | None:
        """The rows of that name, or None."""
        return self.rows.get(name)

    def at(self, index: Tensor | slice) -> Batch:
        """The rows at these positions."""
        pick = (lambda t: t[index]) if isinstance(index, slice) else (lambda t: t.index_select(0, index.to(t.device)))
        return self._map(pick)

    def but(self, **rows: Tensor | None) -> Batch:
        """This batch with some tensors replaced; a name that is None is left out."""
        return Batch(**{**self.rows, **rows})

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        return self._map(lambda t: t.to(device))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch of the changed tensors. It is not validated again: in a small part of a batch all weights may be 0."""
        batch = object.__new__(Batch)
        batch.rows = {name: change(values) for name, values in self.rows.items()}
        return batch


#: the training data of a learner: batches by name, each with its own length; a single batch is called ``ONLY``
Batches = Mapping[str, Batch]
#: gives the generator for a path of names, independent of the generators of all other paths
Stream = Callable[..., torch.Generator]
T = TypeVar("T")


class Turn:
    """One step of a training game, as its players see it: a minibatch of every batch, and a generator for each player.

    All players of a step see the same minibatch and share what :meth:`once` makes. The draws of one player do not change those
    of another: ``rng`` is keyed by (seed, stage, step, phase name, repeat), and each shared value has a stream keyed by its name.
    """

    def __init__(
        self, data: Batches, stream: Stream, player: tuple[str, int] = ("", 0), made: dict[str, Any] | None = None
    ) -> None:
        self.data, self._stream, self._player = data, stream, player
        self._made: dict[str, Any] = {} if made is None else made
        self._rng: torch.Generator | None = None

    @property
    def rng(self) -> torch.Generator:
        """The generator of the player whose loss is being computed."""
        if self._rng is None:
            self._rng = self._stream("phase", *self._player)
        return self._rng

    def of(self, name: str) -> Batch:
        """The minibatch of the batch with this name."""
        if name not in self.data:
            raise InputError(f"no batch is called {name!r}; fit was given {', '.join(self.data)}; use one of these names")
        return self.data[name]

    @property
    def x(self) -> Tensor:
        """(b, …) the rows x of the only batch, as ``encode_for_training`` encoded them."""
        return self.of(ONLY)["x"]

    @property
    def context(self) -> Tensor | None:
        """(b, *context_shape) the contexts of the only batch, if it has any."""
        return self.of(ONLY).get("context")

    def once(self, name: str, make: Callable[[torch.Generator], T]) -> T:
        """The value of ``make(rng)``, such as a rollout: computed when it is first asked for in this step, then shared by all
        players. Two players must not backpropagate through it: the first backward pass frees the graph."""
        if name not in self._made:
            self._made[name] = make(self._stream("once", name))
        return self._made[name]

    def played_by(self, name: str, repeat: int) -> Turn:
        """The same step as another player sees it."""
        return Turn(self.data, self._stream, (name, repeat), self._made)


@dataclass(frozen=True)
class Optimiser:
    """The settings of a player's AdamW optimiser. A rate, clip (of the gradient norm) or weight decay of None is taken from the
    recipe; the warm-up and the final decrease of the recipe scale every rate."""

    rate: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = None
    decay: float | None = None

    def __post_init__(self) -> None:
        good = self.rate is None or 0 < self.rate < math.inf
        if not good or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"optimiser: expected a rate above 0 and betas from 0 to below 1, got {self.rate} and {self.betas}")


@dataclass(frozen=True)
class Phase:
    """One player of a training game: it minimises ``loss(turn)``, a scalar, over ``parameters`` and no others.

    Maximum likelihood has one phase, a GAN two, maximum-entropy inverse reinforcement learning three. The player updates its
    parameters at every ``every``-th step, ``repeats`` times.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    loss: Callable[[Turn], Tensor]
    every: int = 1
    repeats: int = 1
    optimiser: Optimiser = Optimiser()

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", tuple(self.parameters))  # they may be given as a generator


@dataclass(frozen=True)
class Stage:
    """A game that is played to its end before the next stage begins (for example an autoencoder, then an energy).

    phases:        the players, in playing order.
    stopping_loss: a scalar loss(turn) of held-out rows, computed in evaluation mode with gradients enabled. The state with the
                   lowest value is kept, and training ends when the value no longer falls. With a single batch it is called on
                   at most 1,000 rows at a time and averaged; with several batches it sees all held-out rows at once. None: all
                   steps are played, and the moving average of the parameters, and of the buffers that change in place, is kept.
    share:         the part of the learner's steps or seconds that this stage gets, relative to its other stages.
    unit:          the unit of the stopping loss, per row.
    """

    name: str
    phases: Sequence[Phase]
    stopping_loss: Callable[[Turn], Tensor] | None = None
    share: float = 1.0
    unit: str = "nats"


def single_stage(
    name: str, parameters: Iterable[nn.Parameter], loss: Callable[[Turn], Tensor], unit: str = "nats"
) -> tuple[Stage]:
    """One stage with one player, which minimises a loss of rows and stops by the same loss of held-out rows: maximum likelihood
    and similar methods."""
    return (Stage(name, (Phase(name, tuple(parameters), loss),), torch.no_grad()(loss), unit=unit),)


class Learner(nn.Module, ABC):
    """Anything that ``train.fit`` trains: a model, a density ratio, a critic, a joint game of models."""

    #: settings of :class:`mixtura.train.recipe.Recipe` in which this learner differs from its family's row of the TABLE
    recipe: Mapping[str, Any] = {}

    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """The training games, in order. It is also called before ``prepare``."""

    def check(self, data: Batches) -> Batches:
        """The data in the form that this learner needs, or an InputError that names what is wrong. Default: unchanged."""
        return data

    def prepare(self, data: Batches, rng: torch.Generator) -> None:
        """See the fit rows once before training, for example to compute centres and scales. Default: do nothing."""

    def encode_for_training(self, data: Batches) -> Batches:
        """Encode the rows as the phases see them, row by row, once before training. Default: unchanged."""
        return data

    @property
    def device(self) -> torch.device:
        """The device of the parameters and buffers."""
        return next((t.device for t in (*self.parameters(), *self.buffers())), torch.device("cpu"))


class Model(Learner):
    """Something that samples a :class:`Space`, optionally given a context (one context row per sample row).

    A family implements ``_sample``; the public ``sample`` checks arguments and results. A model that is trained by gradients
    offers ``stages``; a model with a closed-form or library fit is a :class:`ClosedForm`.
    """

    def __init__(self, space: Space, context_shape: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.space = space
        self.context_shape = context_shape

    @final
    def sample(self, n: int, *, context: Tensor | None = None, rng: torch.Generator) -> Tensor:
        """(n, *space.shape) float64 in data units. Raises InputError on a bad n or context, and
        FloatingPointError if the model produced a value that is not finite."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise InputError(f"n: expected a whole number of samples, 1 or more, got {n!r}")
        context = self.check_context(context, n)
        with torch.no_grad():
            x = self._sample(n, context, rng).to(torch.float64)
        flat = self.space.flat(x)
        allowed = torch.tensor([c.missing for c in self.space.columns], device=x.device)
        bad = torch.isinf(flat) | (torch.isnan(flat) & ~allowed)
        if bad.any():
            row, column = (int(i) for i in bad.nonzero()[0])
            raise FloatingPointError(
                f"{type(self).__name__} sampled {float(flat[row, column])} at row {row}, column {column}: "
                "its training failed; fit it again with a lower learning rate"
            )
        return x

    @abstractmethod
    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor: ...

    def check(self, data: Batches) -> Batches:
        """One batch with rows ``x`` of the space, and their contexts if the model takes a context."""
        if set(data) != {ONLY} or data[ONLY].get("x") is None:
            raise InputError(f"{type(self).__name__}: expected one batch with rows x to train on, got {', '.join(data)}")
        rows = data[ONLY]
        x = self.space.check(rows["x"], name="training rows")
        return {ONLY: rows.but(x=x, context=self.check_context(rows.get("context"), len(x)))}

    @final
    def prepare(self, data: Batches, rng: torch.Generator) -> None:
        self._prepare(data[ONLY]["x"], data[ONLY].get("context"), rng)

    def _prepare(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        """:meth:`prepare` for rows x (n, *shape) in data units. Default: do nothing."""

    def encode_for_training(self, data: Batches) -> Batches:
        return {name: rows.but(x=self._encode_for_training(rows["x"])) for name, rows in data.items()}

    def _encode_for_training(self, x: Tensor) -> Tensor:
        """Encode rows in data units as the phases of this model see them in ``turn.x``, row by row. Default: ``x``."""
        return x

    def diagnose(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> dict[str, float]:
        """Diagnostics that an expert of the family would read in addition to the score, measured on unseen rows x:
        name → number, in nats unless the name says otherwise. Default: none."""
        return {}

    @final
    def check_context(self, context: Tensor | None, n: int) -> Tensor | None:
        """``context`` if it has the shape that this model needs for ``n`` rows, else an InputError."""
        if self.context_shape is None:
            if context is not None:
                raise InputError(f"context: {type(self).__name__} was built without a context; leave it out")
            return None
        if context is not None and not isinstance(context, Tensor):
            raise InputError(f"context: expected a torch tensor, got {type(context).__name__}; give one row for each sample row")
        if context is None or tuple(context.shape) != (n, *self.context_shape):
            got = "none" if context is None else f"({_commas(context.shape)})"
            raise InputError(f"context: expected ({_commas((n, *self.context_shape))}), one row for each sample row, got {got}")
        flat = context.reshape(n, math.prod(self.context_shape))
        _refuse_first(~torch.isfinite(flat), flat, "context", "a finite number", "drop or repair the row")
        return context


class ClosedForm(Model):
    """A model fitted in closed form or by a library, not by ``train.fit``."""

    def stages(self) -> tuple[Stage, ...]:
        return ()

    @abstractmethod
    def fit_closed(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        """Fit to ``x`` (n, *space.shape) in data units."""


class Density(Model):
    """An exact, normalised log-density."""

    #: whether rows that are outside the space have positive probability (true of the smoothed floor)
    open_support: bool = False

    @final
    def log_prob(self, x: Tensor, *, context: Tensor | None = None) -> Tensor:
        """(n,) nats, float64, with respect to the base measure of the space; −inf beyond a wall. An entry with an unseen level
        contributes log :attr:`Column.unseen`, and the other entries of its row contribute their density without that entry."""
        x = self.space.check(x)
        context = self.check_context(context, x.shape[0])
        if len(x) == 0:
            return x.new_zeros(0)
        return self._log_prob(x, context) if self.open_support else _on_support(self.space, x, context, self._log_prob)

    @abstractmethod
    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor: ...


#: the most rows that one row with unseen levels is expanded into, and the most such rows that are scored at once
MOST_LISTED, LISTED_AT_ONCE = 4_096, 16_384


def _on_support(
    space: Space, x: Tensor, context: Tensor | None, nats: Callable[[Tensor, Tensor | None], Tensor]
) -> Tensor:
    """(n,) nats of rows x (n, *shape), computed with ``nats``, which takes rows on the support. Let U be the unseen entries of a
    row and ε_j their probabilities; the result is log Π_{j ∈ U} ε_j Π_{j ∉ U} (1 − ε_j) Σ_c p(x with the entries U equal to c),
    where c runs over all levels of U, or over the first ``MOST_LISTED`` of them (a smaller sum). −inf beyond a wall."""
    unseen = space.unseen(x)
    ε = torch.tensor([c.unseen for c in space.columns], dtype=x.dtype, device=x.device)
    out = torch.where(unseen, ε.log(), torch.log1p(-ε)).sum(1).masked_fill(space.beyond(x).any(1), -math.inf)
    odd = unseen.any(1) & (out > -math.inf)
    if not odd.any():
        return out + nats(space.clamp(x), context)
    plain = (~odd).nonzero().squeeze(1)
    if len(plain):
        out = out.index_add(0, plain, nats(space.clamp(x[plain]), None if context is None else context[plain]))
    listed = [(row, _listed(space, x[row], unseen[row])) for row in odd.nonzero().squeeze(1).tolist()]
    while listed:
        # as many rows as LISTED_AT_ONCE allows, but at least one
        sizes = [len(rows) for _, rows in listed]
        take = max(1, sum(total <= LISTED_AT_ONCE for total in itertools.accumulate(sizes)))
        numbers, rows = [row for row, _ in listed[:take]], torch.cat([rows for _, rows in listed[:take]])
        at, listed = torch.tensor(numbers, device=x.device), listed[take:]
        repeated = None if context is None else context[at].repeat_interleave(torch.tensor(sizes[:take], device=x.device), 0)
        sums = [torch.logsumexp(part, 0) for part in nats(rows.reshape(-1, *space.shape), repeated).split(sizes[:take])]
        out = out.index_add(0, at, torch.stack(sums))
    return out


def _listed(space: Space, row: Tensor, unseen: Tensor) -> Tensor:
    """(m, dims): copies of the row in which every combination of known levels replaces the unseen ones."""
    at = unseen.nonzero().squeeze(1)
    most = max(1, int(MOST_LISTED ** (1 / len(at))))
    levels = [torch.arange(min(space.columns[j].levels, most), dtype=row.dtype, device=row.device) for j in at.tolist()]
    combinations = torch.cartesian_prod(*levels)
    rows = row.flatten().repeat(len(combinations), 1)
    rows[:, at] = combinations.reshape(len(combinations), -1)
    return rows


class LowerBound(Model):
    """A stochastic lower bound on the log-density: exp of one draw is, in expectation, at most the density."""

    #: why it is a bound: "uniform dequantisation", "importance-weighted" or "variational"
    how: str = "uniform dequantisation"
    #: how many estimates the evaluation averages for each row: more of them tighten the bound and cost more time
    draws: int = 8

    #: as :attr:`Density.open_support`
    open_support: bool = False

    @final
    def log_prob_bound(self, x: Tensor, *, context: Tensor | None = None, draws: int = 8, rng: torch.Generator) -> Tensor:
        """(n,) nats, float64: the log of the mean of ``draws`` unbiased estimates of the density, whose
        expectation is at most log p (Burda et al. 2016, section 3). −inf beyond a wall; unseen levels are treated as in
        :meth:`Density.log_prob`."""
        x = self.space.check(x)
        context = self.check_context(context, x.shape[0])
        if len(x) == 0:
            return x.new_zeros(0)

        def estimate(rows: Tensor, context: Tensor | None) -> Tensor:
            return self._log_prob_bound(rows, context, draws, rng)

        return estimate(x, context) if self.open_support else _on_support(self.space, x, context, estimate)

    @abstractmethod
    def _log_prob_bound(self, x: Tensor, context: Tensor | None, draws: int, rng: torch.Generator) -> Tensor: ...


class Reparameterised(Model):
    """A model of plain numbers whose samples are differentiable in its parameters: in expectation, the gradient of a mean over
    samples equals the gradient of the mean over the distribution, including the gradient in the weights of a mixture."""

    @final
    def draw(self, n: int, *, context: Tensor | None = None, rng: torch.Generator) -> Tensor:
        """(n, dims) samples in the encoding, as standardised values that carry a gradient. InputError on a context of the wrong
        shape."""
        return self._draw(n, self.check_context(context, n), rng)

    @abstractmethod
    def _draw(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor: ...


class CellDensity(Density):
    """A density that knows each entry given all others exactly."""

    @abstractmethod
    def log_conditionals(self, x: Tensor) -> Tensor:
        """(n, dims) log p(x_j | all other entries of the row), in nats, float64, of rows x (n, *shape) in data units. An unseen
        level is worth log :attr:`Column.unseen`, a value beyond a wall −inf; both are left out of what the others are given."""


class Energy(Model):
    """A model whose density is known up to a constant factor."""

    @abstractmethod
    def energy(self, e: Tensor, *, context: Tensor | None = None) -> Tensor:
        """(n,) −log p of encoded rows e (n, width), up to a constant that all rows share; differentiable in e. p is the density
        in the encoding; the log-density in data units is higher by the log-Jacobian."""


class Scored(Model):
    """A model with the score of its noised density."""

    @abstractmethod
    def score(self, y: Tensor, level: float, *, context: Tensor | None = None) -> Tensor:
        """∇_y log p(y), (n, width), where y is an encoded row (codes as the numbers −1 and 1 of ``CodeLayout``) plus normal noise
        of standard deviation ``level``."""


class Latent(Model):
    """A model with a latent code z for every row: p(x) = ∫ p(x | z) p(z) dz, z standard normal with ``latent`` entries."""

    latent: int

    @abstractmethod
    def encode(self, x: Tensor, *, context: Tensor | None = None) -> Tensor:
        """Rows (n, *shape) in data units → (n, latent), the mean of q(z | x)."""

    @abstractmethod
    def decode(self, z: Tensor, *, context: Tensor | None = None, rng: torch.Generator) -> Tensor:
        """Codes (n, latent) → (n, *shape) in data units, a sample of p(x | z)."""


class NoisyDecoder(Latent):
    """A model with a latent code, whose p(x | z) has a density."""

    @abstractmethod
    def log_given(self, x: Tensor, z: Tensor, *, context: Tensor | None = None) -> Tensor:
        """(n,) log p(x | z), nats with respect to the base measure of the space, of rows x (n, *shape) on the support, given
        codes z (n, latent); differentiable in z."""


class Stepwise(Model):
    """A sampler whose path y_T → … → y_0 → x is a Markov chain with known Gaussian steps (Sohl-Dickstein et al. 2015).
    States y are (n, width) in the encoding, with noise."""

    steps: int

    @abstractmethod
    def first(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        """Draw y_T, which is pure noise."""

    @abstractmethod
    def transition(self, y: Tensor, k: int, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of y_{k−1} given y_k = ``y``, for k = T … 1; differentiable in the parameters."""

    @abstractmethod
    def finish(self, y: Tensor, context: Tensor | None, rng: torch.Generator) -> Tensor:
        """y_0 → (n, *shape) in data units, a sample of p(x | y_0)."""

    @abstractmethod
    def respaced(self, steps: int, schedule: str | None = None, *, unit_variance: bool = False) -> Stepwise:
        """The same model, with shared parameters, as a chain with this number of steps, at the noise levels of ``schedule`` if
        one is named. ``transition`` gives the densities of the new chain. ``unit_variance``: divide each state by the standard
        deviation that a row of unit variance has at its noise level."""


@dataclass(frozen=True)
class Conditioned:
    """Samples of the unknown entries given the known ones.

    values:       (draws, n, *shape); known entries are copied bit for bit, and no entry is missing.
    log_evidence: (n,) log p(known entries, and the others are not missing), nats; a blend reweights its models by it.
    ess:          (n,) effective sample size of the proposals that each row was drawn from (infinite when exact).
    """

    values: Tensor
    log_evidence: Tensor
    ess: Tensor


class Conditional(Model):
    """p(some entries | others), given that the unknown entries are observed values (never "missing")."""

    #: as :attr:`Density.open_support`
    open_support: bool = False

    @final
    def condition(
        self, x: Tensor, known: Tensor, *, draws: int = 1, context: Tensor | None = None, rng: torch.Generator
    ) -> Conditioned:
        """Draw the other entries of ``x`` given those that ``known`` (n, *shape), bool, marks. A row with a known value beyond a
        wall has evidence −inf, and is completed as if the value were at the wall. A known entry with an unseen level gives no
        information on the other entries; its evidence is that of :meth:`Density.log_prob`."""
        context = self.check_context(context, len(x))
        seen = torch.where(known, x, torch.zeros_like(x))
        if self.open_support:
            return self._condition(seen, known, draws, context, rng)
        given, unseen = self.space.flat(known), self.space.unseen(seen)
        informative = (given & ~unseen).reshape(known.shape)
        filled = self._condition(torch.where(informative, self.space.clamp(seen), 0.0), informative, draws, context, rng)
        ε = torch.tensor([c.unseen for c in self.space.columns], dtype=x.dtype, device=x.device)
        cost = torch.where(unseen, ε.log(), torch.where(given, torch.log1p(-ε), 0.0)).sum(1)
        evidence = (filled.log_evidence + cost).masked_fill((self.space.beyond(seen) & given).any(1), -math.inf)
        return Conditioned(torch.where(known, x, filled.values), evidence, filled.ess)

    @abstractmethod
    def _condition(self, x: Tensor, known: Tensor, draws: int, context: Tensor | None, rng: torch.Generator) -> Conditioned: ...


def density_kind(model: Model) -> Literal["exact", "bound"] | None:
    """The kind of nats that a model gives: "exact", "bound", or None if it gives none."""
    return "exact" if isinstance(model, Density) else "bound" if isinstance(model, LowerBound) else None
