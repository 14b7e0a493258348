"""Rows as codes, values and cells (:class:`Parts`), and the mass that a logistic or normal distribution gives to each cell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mixtura.ground.normal import LOG_SQRT_2PI


@dataclass(frozen=True)
class RecurringBins:
    """The bins in which values recur (``ground.recurring``), of the value slots ``at`` (c,): low, width, open_low and open_high
    (n, c) as those of a cell; log_new and log_repeat (n, c): log g_B and log (1 − g_B) emp_B(v)."""

    at: Tensor
    low: Tensor
    width: Tensor
    open_low: Tensor
    open_high: Tensor
    log_new: Tensor
    log_repeat: Tensor

    def __getitem__(self, rows: Tensor | slice) -> RecurringBins:
        return RecurringBins(self.at, *(getattr(self, name)[rows] for name in OF_BINS))

    def among(self, seen: Tensor) -> RecurringBins | None:
        """The same of the slots ``seen`` (m,) only, which are numbered 0 to m − 1; None where none of them has bins."""
        here, place = (self.at.unsqueeze(1) == seen).nonzero(as_tuple=True)
        return RecurringBins(place, *(getattr(self, name)[:, here] for name in OF_BINS)) if len(here) else None

    def mixed(self, of_cell: Tensor, of_bin: Tensor) -> Tensor:
        """log p' of values, whose cells and bins have these log masses, (n, c, …) each."""
        trailing = (1,) * (of_cell.dim() - self.low.dim())
        new, repeat = (t.reshape(*t.shape, *trailing) for t in (self.log_new, self.log_repeat))
        return torch.logaddexp(of_cell + new, of_bin + repeat)


OF_BINS = ("low", "width", "open_low", "open_high", "log_new", "log_repeat")


@dataclass(frozen=True)
class Parts:
    """n rows as S codes and C standardised values; the cell of a value is [low, low + width].

    codes:     (n, S) int64.
    values:    (n, C), 0 where absent.
    present:   (n, C) bool.
    overlap:   (n, C) bool: the value is absent because the row holds an atom, and a value can also land in the cell
               (low, width) of that atom.
    low:       (n, C) lower edge of the cell (the value itself where the column is not rounded).
    width:     (n, C) width of the cell, 0 where the column is not rounded.
    open_low:  (n, C) bool: the cell is at the lower wall and includes everything below; open_high: everything above.
    base:      (n, C) nats to add to log p(codes, values), in which a rounded value counts as the *mass* of its cell.
    bins:      the bins of recurring values, or None where there are none or they were not asked for.
    """

    codes: Tensor
    values: Tensor
    present: Tensor
    overlap: Tensor
    low: Tensor
    width: Tensor
    open_low: Tensor
    open_high: Tensor
    base: Tensor
    bins: RecurringBins | None = None

    @property
    def log_base(self) -> Tensor:
        """(n,) the base of the whole row."""
        return self.base.sum(1)

    def pack(self) -> Tensor:
        """(n, S + 8C) float32, for training; ``encode.Columns.unpack`` is the inverse."""
        return torch.cat([getattr(self, name).float() for name in OF_PARTS], 1)

    def __getitem__(self, rows: Tensor | slice) -> Parts:
        parts = {name: getattr(self, name)[rows] for name in OF_PARTS}
        return Parts(**parts, bins=None if self.bins is None else self.bins[rows])

    def among(self, seen: Tensor) -> Parts:
        """The same with the value slots ``seen`` (m,) only."""
        narrowed = {name: getattr(self, name)[:, seen] for name in OF_PARTS[1:]}
        return Parts(self.codes, **narrowed, bins=None if self.bins is None else self.bins.among(seen))


OF_PARTS = ("codes", "values", "present", "overlap", "low", "width", "open_low", "open_high", "base")


def log_recurring_mass(parts: Parts, law: Callable[[Parts | RecurringBins, Tensor | slice], Tensor]) -> Tensor:
    """(n, C, …) log mass of each cell where values recur (``ground.recurring``). ``law`` (cells, at) gives the log mass of cells
    (n, c) of the value slots ``at`` without recurring values."""
    of_cell = law(parts, slice(None))
    if parts.bins is None:
        return of_cell
    at = parts.bins.at
    return of_cell.index_copy(1, at, parts.bins.mixed(of_cell[:, at], law(parts.bins, at)))


def log_logistic_mass(parts: Parts | RecurringBins, location: Tensor, log_scale: Tensor) -> Tensor:
    """The log mass of each cell, or the log density where there is no cell, under logistic distributions.

    ``location`` and ``log_scale`` broadcast against (n, C, …); parts are (n, C). With a = (low − μ)/s,
    b = a + width/s:  log(σ(b) − σ(a)) = log σ(b) + log σ(−a) + log(1 − e^{a−b}), exact in both tails.
    """

    def expand(t: Tensor) -> Tensor:
        return t.reshape(*t.shape, *(1,) * (location.dim() - t.dim()))

    inverse = torch.exp(-log_scale)
    a = (expand(parts.low) - location) * inverse
    left = nn.functional.logsigmoid(-a)
    cell = expand(parts.width > 0)
    # compute only what some value needs: in training the rest would be half of the cost
    some, every = bool(cell.any()), bool(cell.all())
    density = left if every else 2 * left + a - log_scale  # log σ(a) = log σ(−a) + a
    if not some:
        return density
    width = expand(parts.width) * inverse
    safe = width if every else torch.where(cell, width, 1.0)
    right = nn.functional.logsigmoid(a + safe)
    open_low, open_high = expand(parts.open_low), expand(parts.open_high)
    inner = torch.where(open_low | open_high, 0.0, torch.log(-torch.expm1(-safe.clamp(min=1e-30))))
    mass = torch.where(open_low, 0.0, left) + torch.where(open_high, 0.0, right) + inner
    return mass if every else torch.where(cell, mass, density)


def log_normal_mass(low: Tensor, width: Tensor, open_low: Tensor, open_high: Tensor, location: Tensor, scale: Tensor) -> Tensor:
    """Like :func:`log_logistic_mass`, for Gaussians. All arguments broadcast and should be float64."""
    a = (low - location) / scale
    w = width / scale
    cell = width > 0
    safe = torch.where(cell, w, 1.0)
    b = a + safe
    # work in the left tail, where log Φ has relative precision
    flip = a + b > 0
    left, right = torch.where(flip, -b, a), torch.where(flip, -a, b)
    log_left, log_right = torch.special.log_ndtr(left), torch.special.log_ndtr(right)
    wide = log_right + torch.log(-torch.expm1((log_left - log_right).clamp(max=-1e-300)))
    middle = (a + b) / 2
    narrow = -0.5 * middle**2 - LOG_SQRT_2PI + safe.log() + torch.log1p((middle**2 - 1) * safe**2 / 24)
    # second-order midpoint rule: for these widths the difference would cancel, and the error of the rule is below 1e-9
    inner = torch.where((safe < 1e-2) & (safe * middle.abs() < 1e-2), narrow, wide)
    mass = torch.where(open_low, torch.special.log_ndtr(b), torch.where(open_high, torch.special.log_ndtr(-a), inner))
    mass = torch.where(open_low & open_high, 0.0, mass)
    density = -0.5 * a**2 - LOG_SQRT_2PI - scale.log()
    return torch.where(cell, mass, density)
