"""The vocabulary of the house: Space, Model and its capabilities, Phase.

A :class:`Space` says what one observation is. A :class:`Model` samples it. What else a model can do is
told by its type (:class:`Density`, :class:`LowerBound`, :class:`Conditional`), so callers ask
``isinstance(model, Density)`` and nothing is discovered by failing.

Tensors are in **data units**, ``float64``, one row an observation: a real number for a continuous entry,
a code ``0 .. levels-1`` for a discrete one, NaN where a value is missing. Log-densities are in nats with
respect to one base measure per entry, the same for every model: counting measure for levels, atoms and
missingness; Lebesgue measure for a real number; and for a number written in steps of ``resolution`` δ,
log(mass of its cell / δ). That is what makes nats comparable between families.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn


class InputError(ValueError):
    """What a person gave cannot be used. The message is one sentence: given, expected, what to do."""


# ---------------------------------------------------------------------------------------------- spaces


@dataclass(frozen=True)
class Column:
    """One entry of an observation.

    kind:       "continuous" (a real number) or "levels" (a code 0 .. levels-1).
    levels:     how many codes there are (kind "levels").
    missing:    whether NaN is a possible value; missingness is then a discrete event with a probability.
    resolution: δ > 0 if values are written in steps of δ (low + integer·δ): they score as cell masses.
    low, high:  the support. With δ > 0 the cells at both ends are open-ended (they hold the tails), so
                that clipping a sample to the support is exact. Without δ they are only a description.
    atoms:      values that hold a share of the rows of their own (0, a cap); each has a probability.
    """

    kind: Literal["continuous", "levels"] = "continuous"
    levels: int = 0
    missing: bool = False
    resolution: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    atoms: tuple[float, ...] = ()

    @property
    def steps(self) -> int:
        """How many values a rounded column with two ends can have; 0 for any other."""
        closed = self.resolution > 0 and math.isfinite(self.high - self.low)
        return round((self.high - self.low) / self.resolution) + 1 if closed else 0


@dataclass(frozen=True)
class Space:
    """Shape and kind of one observation; ``columns`` has one entry per cell of ``shape``, row-major."""

    shape: tuple[int, ...]
    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        if math.prod(self.shape) != len(self.columns) or not self.columns:
            raise InputError(f"a space of shape {self.shape} needs {math.prod(self.shape)} columns, got {len(self.columns)}")

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
        """Pixels in the file's own levels, low … high in steps of ``resolution``."""
        shape = (channels, height, width)
        return Space(shape, (Column(resolution=resolution, low=low, high=high),) * math.prod(shape))

    @property
    def is_image(self) -> bool:
        """Whether an observation is (channels, height, width) of numbers all of one kind."""
        c = self.columns[0]
        return len(self.shape) == 3 and c.kind == "continuous" and not c.missing and not c.atoms and set(self.columns) == {c}

    @property
    def dims(self) -> int:
        """Number of entries of one observation."""
        return len(self.columns)

    def flat(self, x: Tensor) -> Tensor:
        """(n, *shape) → (n, dims)."""
        return x.reshape(x.shape[0], self.dims)

    def check(self, x: Tensor, *, name: str = "x") -> Tensor:
        """``x`` as float64 (n, *shape), or an InputError that names the row and the entry.

        Codes ≥ levels and values off the support pass: they are possible questions with probability 0.
        """
        if not isinstance(x, Tensor):
            raise InputError(f"{name}: expected a torch tensor of shape (n, {_commas(self.shape)}), got {type(x).__name__}")
        if x.dim() != 1 + len(self.shape) or tuple(x.shape[1:]) != self.shape:
            raise InputError(
                f"{name}: expected shape (n, {_commas(self.shape)}), got ({_commas(x.shape)}); give one row per observation"
            )
        if x.is_complex():
            raise InputError(f"{name}: expected real numbers, got {x.dtype}")
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
        """(n,) bool: rows that no model of this space can produce (unseen level, value off the support)."""
        return self.off(x).any(1)

    def off(self, x: Tensor) -> Tensor:
        """(n, dims) bool: the entries that put a row outside."""
        flat = self.flat(x)
        levels = [c.levels - 1 if c.kind == "levels" else math.inf for c in self.columns]
        top = torch.tensor(levels, dtype=x.dtype, device=x.device)
        low, high, half = self._support(x)
        return (flat > top) | (flat < low - half) | (flat > high + half)

    def clamp(self, x: Tensor) -> Tensor:
        """``x`` moved onto the support (NaN stays NaN)."""
        flat = self.flat(x)
        top = torch.tensor(
            [c.levels - 1 if c.kind == "levels" else math.inf for c in self.columns], dtype=x.dtype, device=x.device
        )
        low, high, _ = self._support(x)
        return torch.minimum(torch.minimum(torch.maximum(flat, low), high), top).reshape(x.shape)

    def _support(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rounded = [c.resolution > 0 for c in self.columns]
        low = [c.low if r else -math.inf for c, r in zip(self.columns, rounded, strict=True)]
        high = [c.high if r else math.inf for c, r in zip(self.columns, rounded, strict=True)]
        half = [c.resolution / 2 for c in self.columns]
        as_row = lambda values: torch.tensor(values, dtype=x.dtype, device=x.device)  # noqa: E731
        return as_row(low), as_row(high), as_row(half)

    def to_json(self) -> dict[str, Any]:
        """Plain data; infinities become None."""

        def plain(c: Column) -> dict[str, Any]:
            d = asdict(c)
            return d | {k: None if math.isinf(d[k]) else d[k] for k in ("low", "high")} | {"atoms": list(c.atoms)}

        return {"shape": list(self.shape), "columns": [plain(c) for c in self.columns]}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Space:
        """The inverse of :meth:`to_json`."""

        def column(d: dict[str, Any]) -> Column:
            low = -math.inf if d["low"] is None else float(d["low"])
            high = math.inf if d["high"] is None else float(d["high"])
            return Column(
                d["kind"], int(d["levels"]), bool(d["missing"]), float(d["resolution"]), low, high, tuple(map(float, d["atoms"]))
            )

        return Space(tuple(map(int, data["shape"])), tuple(column(d) for d in data["columns"]))


def _commas(values: Sequence[int]) -> str:
    return ", ".join(str(int(v)) for v in values)


def _refuse_first(bad: Tensor, x: Tensor, name: str, expected: str, remedy: str) -> None:
    if bad.any():
        row, column = (int(i) for i in bad.nonzero()[0])
        raise InputError(f"{name}: row {row}, column {column} is {float(x[row, column]):g}, expected {expected}; {remedy}")


# ---------------------------------------------------------------------------------------------- models


@dataclass(frozen=True)
class Phase:
    """One player of the training game: it lowers ``loss(x, context, rng)`` by moving ``parameters``.

    Maximum likelihood has one phase, a GAN two. ``every=m`` plays it at every m-th step. ``unit``: of the loss, a row.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    loss: Callable[[Tensor, Tensor | None, torch.Generator], Tensor]
    every: int = 1
    unit: str = "nats"


class Model(nn.Module, ABC):
    """Something that samples a :class:`Space`, optionally given a context (one context row per sample row).

    A family writes ``_sample``; the public ``sample`` checks. A model that learns by gradient offers
    ``phases``; one with a closed-form or library fit is a :class:`ClosedForm`.
    """

    #: what this model's training wants otherwise than its family's row of the TABLE has it (see train.Recipe)
    recipe: Mapping[str, Any] = {}

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
                "its training went wrong; fit it again with a lower learning rate"
            )
        return x

    @abstractmethod
    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor: ...

    @abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """The players of the training game, in playing order."""

    def prepare(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        """Look at the fit rows once before training (centres, scales). Default: nothing."""

    def feed(self, x: Tensor) -> Tensor:
        """Data units → what this model's phases are fed, row by row, done once before training. Default: ``x``."""
        return x

    def diagnose(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> dict[str, float]:
        """What the family's experts would look at beside the score, measured on unseen rows x: name → number, in nats
        unless the name says otherwise. Default: nothing."""
        return {}

    @final
    def check_context(self, context: Tensor | None, n: int) -> Tensor | None:
        """``context`` if it fits this model and ``n`` rows, else an InputError."""
        if self.context_shape is None:
            if context is not None:
                raise InputError(f"context: {type(self).__name__} was built without a context; leave it out")
            return None
        if context is not None and not isinstance(context, Tensor):
            raise InputError(f"context: expected a torch tensor, got {type(context).__name__}; give one row for each sample row")
        if context is None or tuple(context.shape) != (n, *self.context_shape):
            got = "none" if context is None else f"({_commas(context.shape)})"
            raise InputError(f"context: expected ({_commas((n, *self.context_shape))}), one row for each sample row, got {got}")
        flat = context.reshape(n, -1)
        _refuse_first(~torch.isfinite(flat), flat, "context", "a finite number", "drop or repair the row")
        return context

    @property
    def device(self) -> torch.device:
        """Where the model's numbers live."""
        return next((t.device for t in (*self.parameters(), *self.buffers())), torch.device("cpu"))


class ClosedForm(Model):
    """A model fitted in closed form or by a library, not by ``train.fit``."""

    def phases(self) -> tuple[Phase, ...]:
        return ()

    @abstractmethod
    def fit_closed(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        """Fit to ``x`` (n, *space.shape) in data units."""


class Density(Model):
    """An exact, normalised log-density."""

    #: whether the model gives positive probability to what the space calls outside (the smoothed floor)
    open_support: bool = False

    @final
    def log_prob(self, x: Tensor, *, context: Tensor | None = None) -> Tensor:
        """(n,) nats, float64, with respect to the base measure of the space. −inf off the support."""
        x = self.space.check(x)
        context = self.check_context(context, x.shape[0])
        if len(x) == 0:
            return x.new_zeros(0)
        if self.open_support:
            return self._log_prob(x, context)
        outside = self.space.outside(x)
        return self._log_prob(self.space.clamp(x), context).masked_fill(outside, -math.inf)

    @abstractmethod
    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor: ...


class LowerBound(Model):
    """A stochastic lower bound on the log-density: exp of one draw is an unbiased estimate of a density, or falls short."""

    #: what makes it a bound: "uniform dequantisation", "importance-weighted", "variational"
    how: str = "uniform dequantisation"
    #: estimates behind one call of a judge: more tighten the bound, and cost
    draws: int = 8

    #: as :attr:`Density.open_support`
    open_support: bool = False

    @final
    def log_prob_bound(self, x: Tensor, *, context: Tensor | None = None, draws: int = 8, rng: torch.Generator) -> Tensor:
        """(n,) nats, float64: log of the mean of ``draws`` unbiased estimates of the density, whose
        expectation is at most log p (Burda et al. 2016, section 3). −inf off the support."""
        x = self.space.check(x)
        context = self.check_context(context, x.shape[0])
        if len(x) == 0:
            return x.new_zeros(0)
        if self.open_support:
            return self._log_prob_bound(x, context, draws, rng)
        outside = self.space.outside(x)
        return self._log_prob_bound(self.space.clamp(x), context, draws, rng).masked_fill(outside, -math.inf)

    @abstractmethod
    def _log_prob_bound(self, x: Tensor, context: Tensor | None, draws: int, rng: torch.Generator) -> Tensor: ...


class Latent(Model):
    """A model with a hidden code z for every row: p(x) = ∫ p(x | z) p(z) dz, z standard normal of ``latent`` numbers."""

    latent: int

    @abstractmethod
    def encode(self, x: Tensor, *, context: Tensor | None = None) -> Tensor:
        """Rows (n, *shape) in data units → (n, latent), the mean of q(z | x)."""

    @abstractmethod
    def decode(self, z: Tensor, *, context: Tensor | None = None, rng: torch.Generator) -> Tensor:
        """Codes (n, latent) → (n, *shape) in data units, a draw of p(x | z)."""


class Stepwise(Model):
    """A sampler whose path y_T → … → y_0 → x is a Markov chain with known Gaussian steps (Sohl-Dickstein et al. 2015).
    States y are (n, …) in the model's own standardised units."""

    steps: int

    @abstractmethod
    def first(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        """y_T, pure noise."""

    @abstractmethod
    def transition(self, y: Tensor, k: int, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of y_{k−1} given y_k = ``y``, for k = T … 1; differentiable in the parameters."""

    @abstractmethod
    def finish(self, y: Tensor, context: Tensor | None, rng: torch.Generator) -> Tensor:
        """y_0 → (n, *shape) in data units, a draw of p(x | y_0)."""


@dataclass(frozen=True)
class Conditioned:
    """Draws of the unknown entries given the known ones.

    values:       (draws, n, *shape); known entries are copied bit for bit, no entry is missing.
    log_evidence: (n,) log p(known entries, and the others not missing), nats: a component's claim on a row.
    ess:          (n,) effective number of the proposals behind each row's draws (infinite when exact).
    """

    values: Tensor
    log_evidence: Tensor
    ess: Tensor


class Conditional(Model):
    """p(some entries | others), the unknown ones being observed values (never "missing")."""

    #: as :attr:`Density.open_support`
    open_support: bool = False

    @final
    def condition(
        self, x: Tensor, known: Tensor, *, draws: int = 1, context: Tensor | None = None, rng: torch.Generator
    ) -> Conditioned:
        """``known`` (n, *shape) bool marks the entries of ``x`` to condition on; others are ignored. A row whose known
        entries lie off the support has evidence −inf, and draws as if they stood at its edge."""
        context = self.check_context(context, len(x))
        seen = torch.where(known, x, torch.zeros_like(x))
        off = self.space.off(seen) & self.space.flat(known)
        inside = seen if self.open_support else torch.where(known, self.space.clamp(seen), seen)
        filled = self._condition(inside, known, draws, context, rng)
        if self.open_support:
            return filled
        evidence = filled.log_evidence.masked_fill(off.any(1), -math.inf)
        return Conditioned(torch.where(known, x, filled.values), evidence, filled.ess)

    @abstractmethod
    def _condition(self, x: Tensor, known: Tensor, draws: int, context: Tensor | None, rng: torch.Generator) -> Conditioned: ...


def density_kind(model: Model) -> Literal["exact", "bound"] | None:
    """Which column of nats a model belongs in."""
    return "exact" if isinstance(model, Density) else "bound" if isinstance(model, LowerBound) else None
