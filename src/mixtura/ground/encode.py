"""The encoding: a reversible map, with its log-Jacobian, from rows of typed columns to codes and standardised values.

Families do not see data units. :class:`Columns` splits a row x into discrete codes s and real values y,

    p(x) = p(s) · p(y | s) · exp(log_base),

and ``log_base`` holds the log-Jacobians and the widths of the cells, so that nats are comparable between families. A numeric
column with atoms or missing values has a code (0 "a value", then the atoms, then "missing"); its value is *absent* from y
unless that code is 0. In a rounded column a value can also land in the cell of an atom a on the lattice: the mass of that cell
is P(a) + P(0)·mass, the mass of the atom plus that of the values in its cell (:attr:`Columns.overlaps`).

A column with a wall is transformed ("bent") so that the wall lies at infinity. Every distribution of y is then a distribution
of x with all of its mass inside the wall: no density has to be truncated, and no sample has to be moved onto the wall. With
ℓ(t) = log(e^t − 1), which is close to t for large t and to log t near 0, and a scale c,

    y = c ℓ((x − a)/c)  for a wall a below,   −c ℓ((b − x)/c)  for a wall b above,   the sum of both between two walls.

A small c changes x only near the wall; a large c is a logarithm (between two walls, a logit). If x is exponential with mean c,
y is logistic.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from mixtura.contracts import Column, Space
from mixtura.ground import rng as random
from mixtura.ground.bend import from_nearer, soft_exp, soft_log
from mixtura.ground.cells import Parts, RecurringBins
from mixtura.ground.codes import column_codes, column_values, count_codes, is_atom
from mixtura.ground.recurring import Recurring, bin_of, find, levels_of, look_up, replaced

#: kinds of warp; the last three are bends at a wall below, above, and on both sides
IDENTITY, ASINH, ABOVE, BELOW, BETWEEN = range(5)

#: the scales c of a bend that are tried, in medians of the distance from the wall; the last one is a logarithm
BENDS = (1 / 64, 1 / 16, 1 / 4, 1.0, 4.0, 1e9)

#: a wall is ignored if all fit rows are further from it than this many of their standard deviations: no density reaches it
FAR_WALL = 100.0

#: the cell at a wall extends to −∞; where a finite end is needed, it is this share of a step from the wall
CELL_END = 1 / 8

#: a less simple warp is chosen only if it raises the Gaussian log-likelihood of a column by this many nats a row
WARP_GAIN = 0.1

#: magnitudes from 2^-ORDINARY to 2^ORDINARY need no rescaling; the largest float64
ORDINARY, LARGEST = 330, torch.finfo(torch.float64).max


class Columns(nn.Module):
    """The encoding: the map between rows of a :class:`Space` and :class:`Parts`, or vectors. ``prepare`` fits it to the fit
    rows. Models that ``adopt`` the same encoding share it, so that one model can read the encoded samples of another."""

    resolution: Tensor
    origin: Tensor
    lowest: Tensor
    highest: Tensor
    missing_at: Tensor
    first: Tensor
    warp: Tensor
    shift: Tensor
    stretch: Tensor
    inner: Tensor
    centre: Tensor
    scale: Tensor
    unit: Tensor

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space, self.adopted = space, False
        columns = space.columns
        self.numeric = [j for j, c in enumerate(columns) if c.kind == "continuous"]
        self.coded = [j for j, c in enumerate(columns) if c.kind == "levels" or c.atoms or c.missing]
        self.cardinalities = tuple(count_codes(columns[j]) for j in self.coded)
        ends = torch.tensor(self.cardinalities, dtype=torch.int64).cumsum(0)
        missing = [bool(columns[j].missing) for j in self.coded]
        # (S,) the position of the first indicator of each code, and the positions of the indicators of "missing"
        self.register_buffer("first", ends - torch.tensor(self.cardinalities, dtype=torch.int64), persistent=False)
        self.register_buffer("missing_at", ends[torch.tensor(missing, dtype=torch.bool)] - 1, persistent=False)
        self.code_of = {j: s for s, j in enumerate(self.coded)}
        self.value_of = {j: c for c, j in enumerate(self.numeric)}
        numeric = [columns[j] for j in self.numeric]
        #: (code slot, value slot) of every rounded column with atoms
        self.overlaps = [
            (self.code_of[j], self.value_of[j]) for j in self.numeric if columns[j].atoms and columns[j].resolution > 0
        ]
        #: (code slot, value slot, code) of every atom off the lattice of its column: no other value lands in its cell
        self.apart = [
            (self.code_of[j], self.value_of[j], 1 + a)
            for j in self.numeric
            for a, atom in enumerate(columns[j].atoms)
            if columns[j].resolution > 0 and not columns[j].on_steps(atom)
        ]

        def row(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64)

        self.register_buffer("resolution", row([c.resolution for c in numeric]), persistent=False)
        self.register_buffer("origin", row([c.origin for c in numeric]), persistent=False)
        self.register_buffer("lowest", row([c.low for c in numeric]), persistent=False)
        self.register_buffer("highest", row([c.high for c in numeric]), persistent=False)
        self.register_buffer("warp", torch.zeros(len(numeric), dtype=torch.int64))
        self.register_buffer("shift", torch.zeros(len(numeric), dtype=torch.float64))
        self.register_buffer("stretch", torch.ones(len(numeric), dtype=torch.float64))
        self.register_buffer("inner", torch.ones(len(numeric), dtype=torch.float64))
        self.register_buffer("centre", torch.zeros(len(numeric), dtype=torch.float64))
        self.register_buffer("scale", torch.ones(len(numeric), dtype=torch.float64))
        # a power of two that values are divided by first, where they are so large or small that squares would overflow
        self.register_buffer("unit", torch.ones(len(numeric), dtype=torch.float64))
        self.recurring = Recurring(len(numeric))

    @property
    def width(self) -> int:
        """The number of entries of an encoded row."""
        return sum(self.cardinalities) + self.continuous

    def adopt(self, encoding: Columns | None) -> None:
        """Copy the map of another encoding, unless it is None; ``prepare`` then does nothing."""
        if encoding is not None:
            for name, value in encoding.named_buffers(recurse=False):
                self.get_buffer(name).copy_(value)
            self.adopted = True

    def encode(self, x: Tensor) -> Tensor:
        """Rows (n, *shape) in data units → (n, ``width``) float64: an indicator of every level of every code, then the
        standardised values, 0 where absent. Differentiable in the values. A point between the indicators of two levels is a
        relaxed code, which has no nats."""
        parts = self.split(x)
        return torch.cat([self.indicators(parts.codes).to(parts.values), parts.values], 1)

    def decode(self, encoded: Tensor) -> Tensor:
        """The inverse of :meth:`encode`, (n, *shape): a relaxed code becomes its largest level, a value its nearest step."""
        indicators, values = encoded.split([self.width - self.continuous, self.continuous], 1)
        groups = indicators.split(list(self.cardinalities), 1) if self.coded else ()
        codes = [group.argmax(1) for group in groups]
        return self.join(torch.stack(codes, 1) if codes else indicators.long(), values)

    def log_jacobian(self, x: Tensor) -> Tensor:
        """(n,) log |d values / dx| of the values that are present: log p(x) minus the log-density of the values."""
        parts = self.split(x)
        raw = torch.where(parts.present, self.space.flat(x)[:, self.numeric], self._anywhere())
        return torch.where(parts.present, self._forward(raw)[1], 0.0).sum(1)

    @property
    def continuous(self) -> int:
        """C, the number of continuous columns."""
        return len(self.numeric)

    def indicators(self, codes: Tensor) -> Tensor:
        """(n, S) codes → (n, Σ cardinalities) float32, one group of indicators for each code."""
        out = torch.zeros(len(codes), sum(self.cardinalities), device=codes.device)
        return out.scatter_(1, codes + self.first, 1.0) if self.coded else out

    @property
    def rounded(self) -> bool:
        """Whether any column is written in steps."""
        return bool((self.resolution > 0).any())

    def prepare(self, x: Tensor, *, warp: bool = True) -> None:
        """Choose warp, centre and scale of each numeric column from fit rows (n, *shape) in data units, unless an encoding was
        adopted."""
        if self.adopted:
            return
        flat = self.space.flat(x)
        if self.space.is_image:
            self._prepare_image(x)
            return
        for c, j in enumerate(self.numeric):
            values = flat[:, j]
            values = values[~torch.isnan(values) & ~is_atom(values, self.space.columns[j])]
            if len(values) == 0:
                continue
            self._prepare_one(c, values, self.space.columns[j], warp)

    def _prepare_image(self, x: Tensor) -> None:
        """Set one centre and scale per channel: pixels that hardly vary are not magnified, and neighbours stay comparable."""
        channels = x.transpose(0, 1).flatten(1)
        scale = channels.std(1, correction=0).clamp(min=max(self.space.columns[0].resolution, 1e-12))
        each = self.space.dims // self.space.shape[0]
        self.centre, self.scale = channels.mean(1).repeat_interleave(each), scale.repeat_interleave(each)

    def _prepare_one(self, c: int, values: Tensor, column: Column, warp: bool) -> None:
        """Choose the warp with the highest Gaussian likelihood; any but the first must gain more than ``WARP_GAIN`` nats."""
        _, exponent = math.frexp(float(values.abs().max()))
        self.unit[c] = unit = math.ldexp(1.0, exponent - 1) if abs(exponent) > ORDINARY else 1.0
        if unit != 1:
            values = values / unit
            column = replace(column, resolution=column.resolution / unit, low=column.low / unit, high=column.high / unit)
        options = self._options(values, column) if warp else [(IDENTITY, 0.0, 1.0)]
        a, b = (wall / unit for wall in self._walls(c))
        gaps = torch.cat([values - a, b - values])
        gaps = gaps[(gaps > 0) & torch.isfinite(gaps)]
        self.inner[c] = float(gaps.min()) / 2 if len(gaps) else 1.0
        scores = []
        for self.warp[c], self.shift[c], self.stretch[c] in options:
            y, log_slope = self._bend(values, c)
            score = float(log_slope.mean()) - math.log(max(float(y.std(correction=0)), 1e-300))
            scores.append(score - WARP_GAIN * bool(scores) if math.isfinite(score) else -math.inf)
        self.warp[c], self.shift[c], self.stretch[c] = options[max(range(len(options)), key=scores.__getitem__)]
        y, log_slope = self._bend(values, c)
        # a column that hardly varies is not magnified beyond its resolution or its floating-point precision
        floor = max(column.resolution * float(log_slope.mean().exp()), float(y.abs().max()) * 1e-12, 1e-300)
        self.centre[c], self.scale[c] = y.mean(), max(float(y.std(correction=0)), floor)

    @staticmethod
    def _options(values: Tensor, column: Column) -> list[tuple[int, float, float]]:
        """The warps (kind, shift, stretch) that are tried for a column: bends at its walls, or an asinh for long tails."""
        δ = column.resolution
        from_low, from_high = values - (column.low - δ / 2), (column.high + δ / 2) - values
        far = FAR_WALL * max(float(values.std(correction=0)), δ)
        near = float(from_low.min()) <= far, float(from_high.min()) <= far
        if any(near):
            kind = BETWEEN if all(near) else ABOVE if near[0] else BELOW
            distance = torch.minimum(from_low, from_high).clamp(min=1e-300).median()
            return [(kind, 0.0, float(distance) * bend) for bend in BENDS]
        options = [(IDENTITY, 0.0, 1.0)]
        quartiles = torch.quantile(values[:100_000], torch.tensor([0.25, 0.5, 0.75], dtype=values.dtype, device=values.device))
        spread = float(quartiles[2] - quartiles[0])
        return options + [(ASINH, float(quartiles[1]), spread)] * (len(values) >= 20 and spread > 0)

    def find_recurring(self, x: Tensor, context: Tensor | None = None) -> None:
        """After ``prepare``: find the values that recur in the rounded columns of fit rows (n, *shape) in data units. They are
        not part of what is adopted: another model may be fitted to the rows that this one is scored on."""
        if self.space.is_image or not self.rounded:
            return
        parts = self.split(x)
        numbers = torch.where(parts.present, parts.values, math.nan)
        if context is not None:
            numbers = torch.cat([numbers, context.flatten(1).double()], 1)
        told = list(zip(self.coded, parts.codes.T, strict=True))
        told += itertools.zip_longest(self.numeric, levels_of(numbers))  # those of the context belong to no column
        found = []
        for v, j in enumerate(self.numeric):
            column, here = self.space.columns[j], parts.present[:, v]
            if column.resolution == 0:
                found.append(None)
                continue
            atoms = [round((a - column.origin) / column.resolution) for a in column.atoms if column.on_steps(a)]
            k = self.step_number(self.space.flat(x)[here, j], v)
            found.append(find(k, partial(self.edge, v), [level[here] for i, level in told if i != j], atoms))
        self.recurring.hold(found)

    def edge(self, v: int, k: Tensor) -> Tensor:
        """(n,) standardised values of the lower edges of the cells of steps k (n,) of value slot v."""
        edge, (a, b), margin = self.origin[v] + (k - 0.5) * self.resolution[v], self._walls(v), CELL_END * self.resolution[v]
        return self._forward(torch.minimum(torch.maximum(edge, a + margin), b - margin), v)[0]

    def step_number(self, raw: Tensor, at: slice | int = slice(None)) -> Tensor:
        """Numbers in data units → step numbers, counted from the origin of their rounded column."""
        return ((raw - self.origin[at]) / self.resolution[at]).round()

    def _bins(self, raw: Tensor) -> RecurringBins | None:
        """The bins of recurring values that hold numbers (n, C) in data units; beyond the bins, the cells of the numbers."""
        tables = self.recurring.tables()
        if not tables:
            return None
        low, high = raw.clone(), raw.clone()
        new, repeat = torch.zeros_like(raw), torch.full_like(raw, -math.inf)
        for v, table in tables.items():
            k = self.step_number(raw[:, v], v)
            b, inside = bin_of(k, table)
            new[:, v], repeat[:, v] = look_up(k, table)
            for end, step in ((low, table.edges[b]), (high, table.edges[b + 1] - 1)):
                end[:, v] = torch.where(inside, self.origin[v] + step * self.resolution[v], raw[:, v])
        at = torch.tensor(list(tables), device=raw.device)
        first, last = self._forward(self._cell(low)[0])[0], self._forward(self._cell(high)[1])[0]
        open_low, open_high = self._open(low)[0], self._open(high)[1]
        return RecurringBins(at, *(t[:, at] for t in (first, last - first, open_low, open_high, new, repeat)))

    def _open(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Whether the cells of rounded values are at the lower and at the upper wall, and include everything beyond."""
        return raw <= self.lowest + self.resolution / 4, raw >= self.highest - self.resolution / 4

    def redraw(self, values: Tensor, v: int, draw: Callable[[], Tensor]) -> Tensor:
        """Sampled standardised values (n,) of value slot v → those of the lattice points that they are rounded to, or of values
        that recur. ``draw`` gives (n,) uniform numbers; it is called only where values recur."""
        table = self.recurring.tables().get(v)
        if table is None:
            return self.settle(values, v)
        k = self.step_number(self.round(self.raw(values.double(), v), v), v)
        k = replaced(k, table, draw().to(k))
        return self._forward(self.round(self.origin[v] + k * self.resolution[v], v), v)[0]

    def redraw_all(self, values: Tensor, rng: torch.Generator) -> Tensor:
        """:meth:`redraw` of all value slots (n, C) in which values recur."""
        tables = self.recurring.tables()
        values = values.double().clone() if tables else values
        for v in tables:
            values[:, v] = self.redraw(values[:, v], v, partial(random.uniform, (len(values),), rng, values))
        return values

    def split(self, x: Tensor, *, recurring: bool = False) -> Parts:
        """(n, *shape) float64 in data units → Parts, with the bins of recurring values if they are asked for. Rows must be on the
        support (``Space.clamp``)."""
        flat = self.space.flat(x)
        codes = torch.zeros(len(flat), len(self.coded), dtype=torch.int64, device=flat.device)
        for s, j in enumerate(self.coded):
            codes[:, s] = column_codes(flat[:, j], self.space.columns[j])
        raw = flat[:, self.numeric]
        missing = torch.isnan(raw)
        present = ~missing
        for c, j in enumerate(self.numeric):
            if j in self.code_of:
                present[:, c] = codes[:, self.code_of[j]] == 0
        δ = self.resolution
        rounded = δ > 0
        overlap = rounded & ~missing & ~present
        for s, v, code in self.apart:
            overlap[:, v] &= codes[:, s] != code
        cell = present | overlap
        safe = torch.where(cell, raw, self._anywhere())
        values, log_slope = self._forward(safe)
        low, high = (self._forward(edge)[0] for edge in self._cell(safe))
        base = torch.where(
            rounded, torch.where(missing, 0.0, -torch.where(rounded, δ, 1.0).log()), torch.where(present, log_slope, 0.0)
        )
        return Parts(
            codes=codes,
            values=torch.where(present, values, 0.0),
            present=present,
            overlap=overlap,
            low=torch.where(cell, torch.where(rounded, low, values), 0.0),
            width=torch.where(cell & rounded, high - low, 0.0),
            open_low=rounded & cell & self._open(raw)[0],
            open_high=rounded & cell & self._open(raw)[1],
            base=base,
            bins=self._bins(safe) if recurring else None,
        )

    def _cell(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The lower and upper edges of the cells of rounded values, in data units; at a bent wall, just inside the wall."""
        δ = self.resolution
        low, high = raw - δ / 2, raw + δ / 2
        bent_low, bent_high = (self.warp == ABOVE) | (self.warp == BETWEEN), (self.warp == BELOW) | (self.warp == BETWEEN)
        a, b = self._walls()
        low = torch.where(bent_low, torch.maximum(low, a + CELL_END * δ), low)
        return low, torch.where(bent_high, torch.minimum(high, b - CELL_END * δ), high)

    def join(self, codes: Tensor, values: Tensor) -> Tensor:
        """The inverse of :meth:`split`: (n, S) codes and (n, C) values → (n, *shape) float64 in data units,
        with rounded columns on their lattice and inside their support."""
        x = torch.zeros(len(codes), self.space.dims, dtype=torch.float64, device=codes.device)
        raw = self.round(self.raw(values.double()))
        for c, j in enumerate(self.numeric):
            x[:, j] = raw[:, c]
        for s, j in enumerate(self.coded):
            x[:, j] = column_values(codes[:, s], x[:, j], self.space.columns[j])
        return x.reshape(len(x), *self.space.shape)

    def round(self, raw: Tensor, at: slice | int = slice(None)) -> Tensor:
        """Move real numbers in data units, (n, C) or one column ``at`` (n,), to their lattice and inside the walls."""
        δ, origin = self.resolution[at], self.origin[at]
        step = torch.where(δ > 0, δ, 1.0)
        lattice = origin + ((raw - origin) / step).round() * step
        return torch.minimum(torch.maximum(torch.where(δ > 0, lattice, raw), self.lowest[at]), self.highest[at])

    def settle(self, values: Tensor, at: slice | int = slice(None)) -> Tensor:
        """Sampled standardised values → the standardised values of the lattice points that they are rounded to."""
        return self._forward(self.round(self.raw(values.double(), at), at), at)[0]

    def recode(self, v: int, values: Tensor) -> Tensor:
        """(n,) standardised values of value slot v → their codes after rounding: 0, or the code of the atom they landed on."""
        return column_codes(self.round(self.raw(values, v), v), self.space.columns[self.numeric[v]])

    def blank(self, x: Tensor, known: Tensor) -> Tensor:
        """``x`` with a valid placeholder in every entry that is not known, so that it can be split."""
        placeholder = torch.zeros(self.space.dims, dtype=torch.float64, device=x.device)
        placeholder[self.numeric] = self.round(self._anywhere())
        return torch.where(known, x, placeholder.reshape(self.space.shape))

    def unbent(self, apart: Tensor) -> Tensor:
        """Differences (n, C) in data units → in standardised units, by the slope at the centre of the fit rows: beyond a wall the
        bend is not defined."""
        slope = self._forward(self._anywhere())[1].exp()
        return torch.where(apart == 0, 0.0, apart * slope)

    def unpack(self, packed: Tensor) -> Parts:
        """The inverse of :meth:`mixtura.ground.cells.Parts.pack`."""
        s, c = len(self.coded), self.continuous
        codes, values, present, overlap, low, width, open_low, open_high, base = packed.split([s, *[c] * 8], 1)
        return Parts(codes.long(), values, present > 0, overlap > 0, low, width, open_low > 0, open_high > 0, base)

    def dequantise(self, parts: Parts, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Values drawn uniformly inside their cells (n, C), and Σ log width (n,), for which
        E log p(value) + Σ log width ≤ log mass (Theis et al. 2016, section 3.1; Jensen)."""
        u = random.uniform(tuple(parts.low.shape), rng, parts.low)
        cell = parts.present & (parts.width > 0)
        y = torch.where(cell, parts.low + u * parts.width, parts.values)
        return y, torch.where(cell, parts.width, 1.0).log().sum(1)

    def _anywhere(self) -> Tensor:
        """A point of the support of each column, used where a value is absent."""
        return self.raw(torch.zeros_like(self.centre))

    def _walls(self, at: slice | int = slice(None)) -> tuple[Tensor, Tensor]:
        """The walls a and b: the outer edges of the cells of the lowest and the highest value."""
        return self.lowest[at] - self.resolution[at] / 2, self.highest[at] + self.resolution[at] / 2

    def _bend(self, raw: Tensor, at: slice | int = slice(None)) -> tuple[Tensor, Tensor]:
        """y(x) and log dy/dx, where x is divided by ``unit`` and y is not yet standardised."""
        kind, shift, c = self.warp[at], self.shift[at], self.stretch[at]
        y, slope = raw, torch.zeros_like(raw)
        if (kind == ASINH).any():
            t = (raw - shift) / c
            y = torch.where(kind == ASINH, t.asinh(), y)
            slope = torch.where(kind == ASINH, -0.5 * torch.log1p(t * t) - c.log(), slope)
        if (kind > ASINH).any():
            a, b = (wall / self.unit[at] for wall in self._walls(at))
            # a value on the wall, where there is no density, is moved inside, nearer to the wall than all fit rows
            u, v = (torch.where(gap > 0, gap, self.inner[at]) / c for gap in (raw - a, b - raw))
            (above, up), (below, down) = soft_log(u), soft_log(v)
            y = torch.where(kind == ABOVE, c * above, torch.where(kind == BELOW, -c * below, y))
            slope = torch.where(kind == ABOVE, up, torch.where(kind == BELOW, down, slope))
            y = torch.where(kind == BETWEEN, c * (above - below), y)
            slope = torch.where(kind == BETWEEN, torch.logaddexp(up, down), slope)
        return y, slope

    def _forward(self, raw: Tensor, at: slice | int = slice(None)) -> tuple[Tensor, Tensor]:
        """Numbers in data units → standardised values, and the log of the slope."""
        y, slope = self._bend(raw / self.unit[at], at)
        return (y - self.centre[at]) / self.scale[at], slope - self.scale[at].log() - self.unit[at].log()

    def raw(self, values: Tensor, at: slice | int = slice(None)) -> Tensor:
        """Standardised values, (n, C) or one column ``at`` (n,) → real numbers in data units, not rounded."""
        kind, shift, c = self.warp[at], self.shift[at], self.stretch[at]
        y = values * self.scale[at] + self.centre[at]
        x = y
        if (kind == ASINH).any():
            # e^709 is about the largest float64
            x = torch.where(kind == ASINH, shift + c * y.clamp(-700, 700).sinh(), x)
        if (kind > ASINH).any():
            a, b = (wall / self.unit[at] for wall in self._walls(at))
            z = y / c
            x = torch.where(kind == ABOVE, a + c * soft_exp(z), torch.where(kind == BELOW, b - c * soft_exp(-z), x))
            if (kind == BETWEEN).any():
                t = c * from_nearer(-z.abs(), torch.where(kind == BETWEEN, (b - a) / c, 1.0))
                x = torch.where(kind == BETWEEN, torch.where(z < 0, a + t, b - t), x)
        # stay within the range of float64
        return (x * self.unit[at]).clamp(-LARGEST, LARGEST)
