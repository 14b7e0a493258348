"""The laws of single columns given a hidden state: a table of codes, and a Gaussian for the values (:class:`Leaves`).

Column j in state k has a table θ_jk of codes: of a column of levels the levels and "missing", of a numeric column 0 for a value,
its atoms, "missing", and its *frequent values*: steps of a rounded column that several fit rows share. A value that follows the
Gaussian may land in the cell of an atom or of a frequent value too, so that with c the code of x_j and N_jk the mass of its cell
(or the density, where the column is not rounded)

    p(x_j | k) = θ_jk[c] 1{c ≠ 0} + θ_jk[0] N_jk 1{x_j is a number}.

The share of the second term, given c and k, is what EM counts for the Gaussian.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixtura.ground.cells import Parts, log_normal_mass
from mixtura.ground.encode import Columns
from mixtura.ground.latent_tree import draw_of_rows
from mixtura.ground.normal import LOG_SQRT_2PI

#: a value is frequent if this many fit rows share it; a column has at most so many frequent values
FREQUENT_ROWS, MOST_FREQUENT = 5, 1024
#: rows that each frequent value of a state gives up for the Gaussian (absolute discounting, Ney et al. 1994)
DISCOUNT = 0.7
#: weight of the priors of a state, in rows: the frequencies of the codes among all rows; of a Gaussian, the mean 0 and the
#: variance ``PRIOR_VARIANCE`` in standardised units
PRIOR_ROWS, PRIOR_VARIANCE = 1.0, 0.3
#: added to variances, in standardised units; the least weight of a code, in rows
RIDGE, LEAST = 1e-6, 1e-12


class LeafCodes:
    """Where the codes of D columns are in one table of W codes. ``frequent`` (M,): the frequent values as step numbers, one
    numeric column after the other and ascending in each; ``frequent_of`` (M,): their value slots."""

    def __init__(self, columns: Columns, frequent: Tensor, frequent_of: Tensor) -> None:
        self.columns, space, device = columns, columns.space, frequent.device
        self.frequent = [frequent[frequent_of == v].contiguous() for v in range(columns.continuous)]
        #: the codes of each column that are no frequent values, all of them, and the position of the first one, code 0
        self.plain = [columns.cardinalities[columns.code_of[j]] if j in columns.code_of else 1 for j in range(space.dims)]
        more = [len(self.frequent[columns.value_of[j]]) if j in columns.value_of else 0 for j in range(space.dims)]
        self.sizes = [a + b for a, b in zip(self.plain, more, strict=True)]
        ends = torch.tensor(self.sizes).cumsum(0).tolist()
        self.first = [end - size for end, size in zip(ends, self.sizes, strict=True)]
        #: (W,) the column of every code, the position of its code 0, whether it is a frequent value, and whether it is "missing"
        self.column = torch.arange(space.dims, device=device).repeat_interleave(torch.tensor(self.sizes, device=device))
        self.zero = torch.tensor(self.first, device=device)[self.column]
        rank = torch.arange(len(self.column), device=device) - self.zero
        self.is_frequent = rank >= torch.tensor(self.plain, device=device)[self.column]
        self.is_missing = torch.zeros_like(self.is_frequent)
        self.is_missing[[self.first[j] + self.plain[j] - 1 for j, c in enumerate(space.columns) if c.missing]] = True

    def at(self, x: Tensor, parts: Parts) -> Tensor:
        """(n, D) the positions in the table of the codes of rows x, which are also given as parts."""
        at = torch.zeros(len(x), len(self.sizes), dtype=torch.int64, device=x.device)
        at[:, self.columns.coded] = parts.codes
        steps = step_numbers(self.columns, x)
        for v, j in enumerate(self.columns.numeric):
            if len(self.frequent[v]):
                found = torch.searchsorted(self.frequent[v], steps[:, v].contiguous()).clamp(max=len(self.frequent[v]) - 1)
                hit = parts.present[:, v] & (self.frequent[v][found] == steps[:, v])
                at[:, j] = torch.where(hit, self.plain[j] + found, at[:, j])
        return at + torch.tensor(self.first, device=x.device)

    def values(self, at: Tensor, v: int) -> Tensor:
        """(n,) the values in data units of frequent values at these positions; NaN where another code is."""
        j = self.columns.numeric[v]
        rank = at - self.first[j] - self.plain[j]
        if not len(self.frequent[v]):
            return torch.full(rank.shape, torch.nan, dtype=torch.float64, device=at.device)
        value = self.columns.origin[v] + self.frequent[v][rank.clamp(min=0)] * self.columns.resolution[v]
        return torch.where(rank >= 0, value, torch.nan)

    def total(self, of_codes: Tensor) -> Tensor:
        """(W, …) → (D, …), summed over the codes of each column."""
        return of_codes.new_zeros(len(self.sizes), *of_codes.shape[1:]).index_add_(0, self.column, of_codes)


def step_numbers(columns: Columns, x: Tensor) -> Tensor:
    """(n, C) the numbers of the steps that the values of rounded columns are on, counted from the origin of the column."""
    δ = columns.resolution
    raw = columns.space.flat(x)[:, columns.numeric]
    return ((raw - columns.origin) / torch.where(δ > 0, δ, 1.0)).round()


def frequent_values(columns: Columns, x: Tensor, parts: Parts) -> tuple[Tensor, Tensor]:
    """The frequent values of rounded columns among rows x: step numbers (M,) and value slots (M,), as :class:`LeafCodes` takes
    them."""
    found = [torch.zeros(0, dtype=torch.float64, device=x.device)]
    slots = [torch.zeros(0, dtype=torch.int64, device=x.device)]
    steps = step_numbers(columns, x)
    for v in range(columns.continuous):
        if columns.resolution[v] > 0:
            value, rows = steps[parts.present[:, v], v].unique(return_counts=True)
            often = rows.sort(descending=True, stable=True).indices[:MOST_FREQUENT]
            found.append(value[often[rows[often] >= FREQUENT_ROWS]].sort().values)
            slots.append(torch.full((len(found[-1]),), v, device=x.device))
    return torch.cat(found), torch.cat(slots)


@dataclass(frozen=True)
class Cells:
    """The cells in which the Gaussian of a column meets one of its codes, m of them: ``of`` (m,) the positions of the codes,
    ``slot`` (m,) the value slots of their columns, and the cells (m, 1) as in :class:`mixtura.ground.cells.Parts`."""

    of: Tensor
    slot: Tensor
    low: Tensor
    width: Tensor
    open_low: Tensor
    open_high: Tensor

    @staticmethod
    def among(codes: LeafCodes, at: Tensor, parts: Parts) -> Cells:
        """The cells of the atoms and frequent values that some rows hold, taken from these rows."""
        of, slots, rows = [], [], []
        for v, j in enumerate(codes.columns.numeric):
            coded = ((at[:, j] > codes.first[j]) & (parts.present | parts.overlap)[:, v]).nonzero().squeeze(1)
            code, inverse = at[coded, j].unique(return_inverse=True)
            rows.append(torch.zeros_like(code).scatter_(0, inverse, coded))
            of.append(code)
            slots.append(torch.full_like(code, v))
        position, slot = torch.cat([at[:0, 0], *of]), torch.cat([at[:0, 0], *slots])
        row = torch.cat([at[:0, 0], *rows])
        cell = (getattr(parts, name)[row, slot].unsqueeze(1) for name in ("low", "width", "open_low", "open_high"))
        return Cells(position, slot, *cell)


@dataclass(frozen=True)
class Rows:
    """Rows as EM sees them: positions of codes ``at`` (n, D); of the value slots (n, C) values drawn inside their cells, and the
    log width of the cells (0 without one)."""

    at: Tensor
    values: Tensor
    log_width: Tensor

    def __getitem__(self, rows: slice) -> Rows:
        return Rows(self.at[rows], self.values[rows], self.log_width[rows])


@dataclass(frozen=True)
class LeafCounts:
    """Expected counts: ``tables`` (W, K) of codes; ``moments`` (C, 3, K): number, sum and sum of squares of the values that are
    no atoms or frequent values."""

    tables: Tensor
    moments: Tensor


@dataclass(frozen=True)
class Leaves:
    """log_tables (W, K): log θ; means and deviations (C, K) of the Gaussians, in standardised units."""

    codes: LeafCodes
    log_tables: Tensor
    means: Tensor
    deviations: Tensor

    # -------------------------------------------------------------------------------------------- exact

    def log_mass(self, parts: Parts, v: int) -> Tensor:
        """(n, K) log mass of the cells of value slot v (log density where there are none) under the Gaussians."""
        low, width, open_low, open_high = (
            getattr(parts, name)[:, v].unsqueeze(1) for name in ("low", "width", "open_low", "open_high")
        )
        return log_normal_mass(low, width, open_low, open_high, self.means[v], self.deviations[v])

    def log_prob(self, at: Tensor, parts: Parts) -> list[Tensor]:
        """D of (n, K): log p(x_j | Z_j = k), in which a rounded value counts as the mass of its cell."""
        leaves = []
        for j in range(at.shape[1]):
            table = self.log_tables[at[:, j]]
            v = self.codes.columns.value_of.get(j)
            if v is not None:
                value = self.log_tables[self.codes.first[j]] + self.log_mass(parts, v)
                coded = (at[:, j] > self.codes.first[j]).unsqueeze(1)
                number = (parts.present | parts.overlap)[:, [v]]
                both = torch.logaddexp(torch.where(coded, table, -torch.inf), torch.where(number, value, -torch.inf))
                table = torch.where(coded, both, value)
            leaves.append(table)
        return leaves

    def log_observed(self) -> Tensor:
        """(D, K) log probability that an entry is not missing."""
        return torch.log1p(-self.codes.total(torch.where(self.codes.is_missing.unsqueeze(1), self.log_tables.exp(), 0.0)))

    def draw_codes(self, j: int, z: Tensor, rng: torch.Generator, *, observed: bool) -> Tensor:
        """(n,) positions of codes of column j, drawn in the states z (n,); ``observed``: not "missing"."""
        of = slice(self.codes.first[j], self.codes.first[j] + self.codes.sizes[j])
        gone = self.codes.is_missing[of].unsqueeze(1) & observed
        return self.codes.first[j] + draw_of_rows(self.log_tables[of].masked_fill(gone, -torch.inf).T, z, rng)

    # ----------------------------------------------------------------------------------------------- EM

    def by_code(self, cells: Cells) -> tuple[Tensor, Tensor]:
        """(W, K) log p(code | k), in which atoms and frequent values include the Gaussian's mass in their cells; and (m, K) the
        share of that mass in them."""
        value = self.log_tables[self.codes.zero[cells.of]] + log_normal_mass(
            cells.low, cells.width, cells.open_low, cells.open_high, self.means[cells.slot], self.deviations[cells.slot]
        )
        both = torch.logaddexp(self.log_tables[cells.of], value)
        return self.log_tables.index_copy(0, cells.of, both), (value - both).exp()

    def expect(self, rows: Rows, by_code: Tensor) -> list[Tensor]:
        """As :meth:`log_prob` in float32; a value that is no atom or frequent value has the density at a point of its cell times
        its width in the place of the mass of the cell. ``by_code`` (W, K) as the method of that name gives it, in float32."""
        leaves, means, deviations = [], self.means.float(), self.deviations.float()
        constants = self.log_tables[self.codes.first].float() - LOG_SQRT_2PI
        for j in range(rows.at.shape[1]):
            v = self.codes.columns.value_of.get(j)
            if v is None:
                leaves.append(by_code[rows.at[:, j]])
                continue
            plain = self._plain(rows, j)
            z = (rows.values[plain, v].unsqueeze(1) - means[v]) / deviations[v]
            value = z.square_().mul_(-0.5).add_(constants[j] - deviations[v].log()).add_(rows.log_width[plain, v].unsqueeze(1))
            leaves.append(value if isinstance(plain, slice) else by_code[rows.at[:, j]].index_copy_(0, plain, value))
        return leaves

    def _plain(self, rows: Rows, j: int) -> Tensor | slice:
        """The rows whose value in numeric column j is no atom or frequent value."""
        return slice(None) if self.codes.sizes[j] == 1 else (rows.at[:, j] == self.codes.first[j]).nonzero().squeeze(1)

    def count(self, rows: Rows, posterior: Sequence[Tensor]) -> LeafCounts:
        """The expected counts of rows with posteriors p(Z_j = k | row), D of (n, K)."""
        k = posterior[0].shape[1]
        tables = torch.zeros(len(self.log_tables), k, dtype=posterior[0].dtype, device=rows.at.device)
        moments = tables.new_zeros(rows.values.shape[1], 3, k)
        for j, weight in enumerate(posterior):
            v = self.codes.columns.value_of.get(j)
            if v is not None:
                plain = self._plain(rows, j)
                y = rows.values[plain, v]
                moments[v] = torch.stack([torch.ones_like(y), y, y * y]) @ weight[plain]
            if self.codes.sizes[j] == 1:
                tables[self.codes.first[j]] = weight.sum(0)
            else:
                tables.index_add_(0, rows.at[:, j], weight)
        return LeafCounts(tables.double(), moments.double())

    def maximise(self, counts: LeafCounts, cells: Cells, share: Tensor, rates: Tensor) -> Leaves:
        """The M-step: the leaves that fit the counts best, with the priors of ``PRIOR_ROWS`` rows and ``DISCOUNT``. ``share`` (m,
        K): of the counts in each cell, what is the Gaussian's; ``rates`` (W,): the frequencies of the codes of each column."""
        landed = share * counts.tables[cells.of]
        tables = counts.tables.index_add(0, cells.of, -landed).index_add(0, self.codes.zero[cells.of], landed)
        # a value that is uniform inside its cell
        middle, square = cells.low + cells.width / 2, cells.width.square() / 12
        added = torch.stack([landed, landed * middle, landed * (middle.square() + square)], 1)
        number, first, second = counts.moments.index_add(0, cells.slot, added).unbind(1)

        given = torch.where(self.codes.is_frequent.unsqueeze(1), tables.clamp(max=DISCOUNT), 0.0)
        tables = (tables - given).index_add(0, self.codes.zero, given) + PRIOR_ROWS * rates.unsqueeze(1)
        tables = tables.clamp(min=LEAST)
        weight = number + PRIOR_ROWS
        means = first / weight
        spread = (second - 2 * means * first + number * means.square()).clamp(min=0)
        variance = (spread + PRIOR_ROWS * PRIOR_VARIANCE) / weight + RIDGE
        return Leaves(self.codes, (tables / self.codes.total(tables)[self.codes.column]).log(), means, variance.sqrt())


def base_rates(codes: LeafCodes, at: Tensor) -> Tensor:
    """(W,) smoothed frequencies of the codes of each column among all rows."""
    rates = torch.bincount(at.flatten(), minlength=len(codes.column)) + torch.where(codes.is_frequent, 0.0, 0.5).double()
    return rates / codes.total(rates)[codes.column]
