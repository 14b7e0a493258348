"""Boosted trees, one column after the other, with an exact density of mixed columns.

    p(x) = (1/R) Σ_r Π_j p(x_j | x_before j in ordering r)

Each column is a choice among *options*: the levels of a code, or bins of neighbouring values; "missing" and atoms off the lattice
are options of their own. A balanced binary tree divides the options of a column into halves, the halves into quarters, and so on
(nested dichotomies, Frank & Kramer 2004). At every node boosted trees (Friedman 2001; HistGradientBoosting of scikit-learn) say
with which probability a row, given its columns before, goes to the upper half; p(option) is the product along the path:

    p(upper | x_before) = (n σ(F(x_before)) + 5 p₀) / (n + 5),      p₀ = (n_upper + 1) / (n + 2) of the n rows at the node.

Within a bin of a rounded column a value has the law of ``ground.recurring``: the share of its count among the recurring values of
the bin with probability 1 − g, and the mass of its cell under a uniform law with probability g. The first and the last bin have
no outer end: their law is exponential, so a value beyond the range seen costs finitely many nats. Bins are intervals of
standardised values, in which walls lie at infinity, so all probability is inside the walls.

The trees read columns in data units, levels as their codes, missing values as NaN. They are kept as tensors (``ground.trees``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor
from torch.nn import functional

from mixtura.contracts import ClosedForm, Density, InputError, Space
from mixtura.ground import rng as random
from mixtura.ground.cells import Parts
from mixtura.ground.codes import column_values, count_codes
from mixtura.ground.dichotomies import BIN_ROWS, Tree, decays, divide, inner_ends, log_smooth, smooth_quantile
from mixtura.ground.encode import Columns
from mixtura.ground.recurring import Recurring, Repeats, bin_of, look_up, repeats, replaced
from mixtura.ground.rng import generator
from mixtura.ground.trees import Forest


class Config(BaseModel):
    """orderings: R, the first of which is that of the table. rounds, rate, leaves: of the boosted trees of a node. bins: the most
    bins of a column. rows: the most rows that are fitted."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    orderings: int = Field(default=1, ge=1, le=16)
    rounds: int = Field(default=60, ge=1, le=1_000)
    rate: float = Field(default=0.1, gt=0, le=1)
    leaves: int = Field(default=8, ge=2, le=256)
    bins: int = Field(default=64, ge=2, le=1_024)
    rows: int = Field(default=100_000, ge=2)


#: the most columns
MOST_COLUMNS = 128
#: with fewer rows, or with fewer on one side, a node has its base rate; with fewer rows than the last number, a few small trees
LEAST_ROWS, LEAST_SIDE, FEW_ROWS = 60, 10, 400
FEW_ROUNDS, FEW_LEAVES = 12, 4
#: pseudo-rows at the base rate
PRIOR_ROWS = 5.0
#: the share of a run's seconds that its fits may take; below so many rows a run cross-fits, and there are so many fits
SHARE, CROSS_FIT_BELOW, FITS = 0.15, 1_000, 6
#: rows that are scored or drawn at once
TILE = 8_192


class BoostedTrees(Density, ClosedForm):
    """Exact density of typed columns, each given those before it."""

    cuts: Tensor
    cut_sizes: Tensor
    decay: Tensor
    place: Tensor
    place_sizes: Tensor
    split: Tensor
    child: Tensor
    node_sizes: Tensor
    base: Tensor
    count: Tensor
    first: Tensor
    rounds: Tensor
    offset: Tensor

    def __init__(self, space: Space, context_shape: tuple[int, ...] | None, config: Config) -> None:
        super().__init__(space, context_shape)
        self.config = config
        self.columns = Columns(space)
        self.given = math.prod(context_shape) if context_shape else 0
        #: the codes of each column that are options of their own: all levels; of a number, those that lie off its lattice
        self.apart = [self._codes_apart(j) for j in range(space.dims)]
        # the orderings depend on the configuration only, so a loaded model has those it was fitted in
        rest = [torch.randperm(space.dims, generator=generator(r, "ordering")).tolist() for r in range(1, config.orderings)]
        self.orderings: list[list[int]] = [list(range(space.dims)), *rest]
        self.forest = Forest.blank(self.given + space.dims)
        self.bins = Recurring(self.columns.continuous)

        def empty(*shape: int, whole: bool = False) -> Tensor:
            return torch.zeros(*shape, dtype=torch.int64 if whole else torch.float64)

        # of the values of each numeric column: the inner ends of its bins, and the scales of the first and the last bin
        self.register_buffer("cuts", empty(0))
        self.register_buffer("cut_sizes", empty(self.columns.continuous, whole=True))
        self.register_buffer("decay", empty(self.columns.continuous, 2))
        # the trees over options, column after column
        self.register_buffer("place", empty(0, whole=True))
        self.register_buffer("place_sizes", empty(space.dims, whole=True))
        self.register_buffer("split", empty(0, whole=True))
        self.register_buffer("child", empty(0, 2, whole=True))
        self.register_buffer("node_sizes", empty(space.dims, whole=True))
        # of every node: p₀ and n; in each ordering its trees in the forest, and where their sum starts
        self.register_buffer("base", empty(0))
        self.register_buffer("count", empty(0))
        self.register_buffer("first", empty(config.orderings, 0, whole=True))
        self.register_buffer("rounds", empty(config.orderings, 0, whole=True))
        self.register_buffer("offset", empty(config.orderings, 0))

    def _codes_apart(self, j: int) -> list[int]:
        column, v = self.space.columns[j], self.columns.value_of.get(j)
        if v is None:
            return list(range(column.levels + column.missing))
        atoms = [1 + a for a, atom in enumerate(column.atoms) if column.resolution == 0 or not column.on_steps(atom)]
        return atoms + [1 + len(column.atoms)] * column.missing

    # ------------------------------------------------------------------------------------------------------ fitting

    def fit_closed(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        """Find bins, divide the options of every column, and boost trees at every node; O(rows · columns²) for each ordering."""
        self.columns.prepare(x)
        chosen = torch.randperm(len(x), generator=rng)[: self.config.rows].to(x.device)
        x, context = x[chosen], None if context is None else context[chosen]
        parts, inputs = self.columns.split(x), self._inputs(x, context)
        self._find_bins(x, parts)
        options = self._options(x, parts)
        counts = [torch.bincount(options[:, j], minlength=self._count_options(j)).tolist() for j in range(self.space.dims)]
        self._hold_trees([divide(count, len(apart)) for count, apart in zip(counts, self.apart, strict=True)])
        visits = [self._visits(j, options[:, j]) for j in range(self.space.dims)]
        self._rate(visits)
        self._boost(inputs, visits, rng)

    def _inputs(self, x: Tensor, context: Tensor | None) -> Tensor:
        """(n, given + dims) what the trees read: context and columns in data units."""
        flat = self.space.flat(x)
        return flat if context is None else torch.cat([context.flatten(1).double(), flat], 1)

    def _find_bins(self, x: Tensor, parts: Parts) -> None:
        """The bins of every numeric column, and the recurring values in them."""
        cuts, tables = [], []
        for v, j in enumerate(self.columns.numeric):
            here, rounded = self._on_bins(parts, v), float(self.columns.resolution[v]) > 0
            values = self.columns.step_number(self.space.flat(x)[here, j], v) if rounded else parts.values[here, v]
            steps, counts = values.unique(return_counts=True)
            inner = inner_ends(steps, counts, self.config.bins, rounded)
            cut = self.columns.edge(v, inner) if rounded else inner
            middle = (self.columns.edge(v, steps) + self.columns.edge(v, steps + 1)) / 2 if rounded else steps
            self.decay[v] = decays(middle, counts.double(), cut)
            cuts.append(cut)
            tables.append(self._repeats(v, steps, counts, inner, cut) if rounded and len(steps) else None)
        self.cut_sizes = torch.tensor([len(cut) for cut in cuts], dtype=torch.int64)
        self.cuts = torch.cat([self.cuts[:0], *cuts])
        self.bins.hold(tables)

    def _repeats(self, v: int, steps: Tensor, counts: Tensor, inner: Tensor, cut: Tensor) -> Repeats:
        """The recurring values of a rounded column in its bins, the first and the last of which have no outer end."""
        edges = functional.pad(inner, (1, 1), value=math.inf)
        edges[0] = -math.inf
        b = torch.searchsorted(edges, steps, right=True) - 1
        low, high = self.columns.edge(v, steps), self.columns.edge(v, steps + 1)
        closed = torch.zeros_like(b, dtype=torch.bool)
        smooth = log_smooth(low, high - low, closed, closed, b, cut, self.decay[v]).exp().clamp(1e-12, 1.0)
        once, twice = int((counts == 1).sum()), int((counts == 2).sum())
        return repeats(steps, counts, edges, smooth, once / max(once + 2 * twice, 1))[0]

    def _on_bins(self, parts: Parts, v: int) -> Tensor:
        """(n,) bool: whether the entry is a value in the bins of value slot v: present, or an atom on the lattice."""
        return parts.present[:, v] | parts.overlap[:, v]

    def _count_options(self, j: int) -> int:
        v = self.columns.value_of.get(j)
        return len(self.apart[j]) + (0 if v is None else int(self.cut_sizes[v]) + 1)

    def _options(self, x: Tensor, parts: Parts) -> Tensor:
        """(n, dims) the number of the option of each entry: first the codes apart, then the bins."""
        out = torch.zeros(len(parts.codes), self.space.dims, dtype=torch.int64, device=parts.codes.device)
        cuts, tables, flat = self._cuts(), self.bins.tables(), self.space.flat(x)
        for j in range(self.space.dims):
            s, v = self.columns.code_of.get(j), self.columns.value_of.get(j)
            if s is not None:
                number = torch.zeros(self.columns.cardinalities[s], dtype=torch.int64, device=out.device)
                number[self.apart[j]] = torch.arange(len(self.apart[j]), device=out.device)
                out[:, j] = number[parts.codes[:, s]]
            if v is not None:
                if v in tables:
                    k = torch.where(self._on_bins(parts, v), self.columns.step_number(flat[:, j], v), 0.0)
                    b = bin_of(k, tables[v])[0]
                else:
                    b = torch.searchsorted(cuts[v], (parts.low[:, v] + parts.width[:, v] / 2).contiguous(), right=True)
                out[:, j] = torch.where(self._on_bins(parts, v), len(self.apart[j]) + b, out[:, j])
        return out

    def _cuts(self) -> list[Tensor]:
        return list(self.cuts.split(self.cut_sizes.tolist()))

    def _hold_trees(self, trees: Sequence[Tree]) -> None:
        self.place_sizes = torch.tensor([len(t.place) for t in trees])
        self.node_sizes = torch.tensor([len(t.split) for t in trees])
        self.place, self.split, self.child = (
            torch.cat([getattr(t, name) for t in trees]) for name in ("place", "split", "child")
        )

    def _trees(self) -> list[Tree]:
        """The trees of all columns. Nodes are numbered within their column."""
        places, nodes = self.place.split(self.place_sizes.tolist()), self.node_sizes.tolist()
        parts = zip(places, self.split.split(nodes), self.child.split(nodes), strict=True)
        return [Tree(*part) for part in parts]

    def _visits(self, j: int, option: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each node of column j the rows that come to it, and whether they go to its upper child."""
        tree, visits = self._trees()[j], {}
        waiting = [(0, torch.arange(len(option)))] if len(tree.split) else []
        for node, rows in waiting:
            upper = tree.place[option[rows]] >= tree.split[node]
            visits[node] = (rows, upper)
            for side, child in ((~upper, int(tree.child[node, 0])), (upper, int(tree.child[node, 1]))):
                if child >= 0:
                    waiting.append((child, rows[side]))
        return [visits[node] for node in range(len(tree.split))]

    def _rate(self, visits: Sequence[Sequence[tuple[Tensor, Tensor]]]) -> None:
        sides = [upper.double() for of_column in visits for _, upper in of_column]
        self.count = torch.tensor([float(len(side)) for side in sides], dtype=torch.float64)
        self.base = torch.tensor([(float(side.sum()) + 1) / (len(side) + 2) for side in sides], dtype=torch.float64)

    def _boost(self, inputs: Tensor, visits: Sequence[Sequence[tuple[Tensor, Tensor]]], rng: torch.Generator) -> None:
        """Boost the trees of every node in every ordering."""
        X, shape = inputs.cpu().numpy(), (len(self.orderings), len(self.base))
        start = [0, *self.node_sizes.cumsum(0).tolist()]
        self.first, self.rounds = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
        self.offset, forests, trees = torch.zeros(shape, dtype=torch.float64), [], 0
        for r, ordering in enumerate(self.orderings):
            for position, j in enumerate(ordering):
                reads = [*range(self.given), *(self.given + i for i in ordering[:position])]
                for node, (rows, upper) in enumerate(visits[j]):
                    seed = int(torch.randint(2**31, (), generator=rng))
                    grown = _grown(X[rows.numpy()][:, reads], upper.numpy(), self.config, seed) if reads else None
                    if grown is not None:
                        at, forest = (r, start[j] + node), Forest.of(grown)
                        self.offset[at], self.first[at], self.rounds[at] = forest.baseline[0], trees, forest.trees
                        forests.append(forest.holding(forest.value).read_columns(reads, inputs.shape[1]))
                        trees += forest.trees
        # the last tree has the value 0: rows at nodes with fewer rounds than others read it
        self.forest = Forest.join([*forests, Forest.blank(inputs.shape[1])])

    # ------------------------------------------------------------------------------------------------------ using it

    def _upper(self, r: int, inputs: Tensor, node: Tensor) -> Tensor:
        """(n,) p(upper child) of rows at nodes (n,), numbered over all columns, in ordering r."""
        first, rounds = self.first[r, node], self.rounds[r, node]
        number = torch.arange(int(rounds.max()) if len(rounds) else 0, device=node.device)
        trees = torch.where(number < rounds.unsqueeze(1), first.unsqueeze(1) + number, self.forest.trees - 1)
        raw = self.offset[r, node] + self.forest.sum_of(inputs, trees)
        n, base = self.count[node], self.base[node]
        boosted = (n * torch.sigmoid(raw) + PRIOR_ROWS * base) / (n + PRIOR_ROWS)
        return torch.where(rounds > 0, boosted, base)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        tiles = [slice(i, i + TILE) for i in range(0, len(x), TILE)]
        return torch.cat([self._tile(x[t], None if context is None else context[t]) for t in tiles])

    def _tile(self, x: Tensor, context: Tensor | None) -> Tensor:
        parts, inputs = self.columns.split(x), self._inputs(x, context)
        options = self._options(x, parts)
        shared = parts.log_base + self._log_within(x, parts, options)
        trees = self._trees()
        nats = [
            torch.stack([self._log_option(r, j, tree, options[:, j], inputs) for j, tree in enumerate(trees)]).sum(0)
            for r in range(len(self.orderings))
        ]
        return torch.logsumexp(torch.stack(nats), 0) - math.log(len(nats)) + shared

    def _log_option(self, r: int, j: int, tree: Tree, option: Tensor, inputs: Tensor) -> Tensor:
        """(n,) log p(option of column j | columns before) in ordering r."""
        nats, place = inputs.new_zeros(len(option)), tree.place[option]
        rows, node = torch.arange(len(option), device=option.device), torch.zeros_like(option)
        start = int(self.node_sizes[:j].sum())
        while len(tree.split) and len(rows):
            p = self._upper(r, inputs[rows], start + node)
            upper = place[rows] >= tree.split[node]
            nats[rows] += torch.where(upper, p, 1 - p).log()
            node = tree.child[node, upper.long()]
            rows, node = rows[node >= 0], node[node >= 0]
        return nats

    def _log_within(self, x: Tensor, parts: Parts, options: Tensor) -> Tensor:
        """(n,) Σ log mass, or density, of the values in their bins."""
        nats, tables, flat = torch.zeros_like(parts.log_base), self.bins.tables(), self.space.flat(x)
        for (v, j), cut in zip(enumerate(self.columns.numeric), self._cuts(), strict=True):
            here = self._on_bins(parts, v)
            b = (options[:, j] - len(self.apart[j])).clamp(min=0)
            smooth = log_smooth(
                parts.low[:, v], parts.width[:, v], parts.open_low[:, v], parts.open_high[:, v], b, cut, self.decay[v]
            )
            if v in tables:
                k = torch.where(here, self.columns.step_number(flat[:, j], v), 0.0)
                new, repeat = look_up(k, tables[v])
                smooth = torch.logaddexp(smooth + new, repeat)
            nats = nats + torch.where(here, smooth, 0.0)
        return nats

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        ordering = torch.randint(len(self.orderings), (n,), generator=rng).to(self.device)
        x = torch.zeros(n, self.space.dims, dtype=torch.float64, device=self.device)
        for r in range(len(self.orderings)):
            for rows in (ordering == r).nonzero().squeeze(1).split(TILE):
                x[rows] = self._draw(r, len(rows), None if context is None else context[rows], rng)
        return x.reshape(n, *self.space.shape)

    def _draw(self, r: int, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        """(n, dims) rows in data units, drawn column by column in ordering r."""
        flat = torch.zeros(n, self.space.dims, dtype=torch.float64, device=self.device)
        inputs, trees = self._inputs(flat.reshape(n, *self.space.shape), context).clone(), self._trees()
        for j in self.orderings[r]:
            inputs[:, self.given + j] = self._drawn(j, self._draw_option(r, j, trees[j], inputs, rng), rng)
        return inputs[:, self.given :]

    def _draw_option(self, r: int, j: int, tree: Tree, inputs: Tensor, rng: torch.Generator) -> Tensor:
        """(n,) options of column j, each drawn given the columns before."""
        node = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)
        if not len(tree.split):
            return node
        start = int(self.node_sizes[:j].sum())
        while len(rows := (node >= 0).nonzero().squeeze(1)):
            u = random.uniform((len(rows),), rng, inputs)
            upper = u < self._upper(r, inputs[rows], start + node[rows])
            node[rows] = tree.child[node[rows], upper.long()]
        return -1 - node

    def _drawn(self, j: int, option: Tensor, rng: torch.Generator) -> Tensor:
        """(n,) entries of column j in data units, drawn within their options."""
        column, v, apart = self.space.columns[j], self.columns.value_of.get(j), len(self.apart[j])
        values = torch.zeros(len(option), dtype=torch.float64, device=option.device)
        if v is not None:
            u = random.uniform((len(option),), rng, values).clamp(1e-12, 1 - 1e-12)
            y = smooth_quantile(u, (option - apart).clamp(min=0), self._cuts()[v], self.decay[v])
            values = self.columns.round(self.columns.raw(y, v), v)
            table = self.bins.tables().get(v)
            if table is not None:
                k = replaced(self.columns.step_number(values, v), table, random.uniform((len(option),), rng, values))
                values = self.columns.round(self.columns.origin[v] + k * self.columns.resolution[v], v)
        codes = torch.tensor([*self.apart[j], 0], device=option.device)[option.clamp(max=apart)]
        return column_values(codes, values, column)


def _grown(X: NDArray[np.float64], upper: NDArray[np.bool_], config: Config, seed: int) -> Any:
    """Boosted trees that tell the upper from the lower rows, or None where either are too few."""
    n = len(X)
    if n < LEAST_ROWS or min(upper.sum(), n - upper.sum()) < LEAST_SIDE:
        return None
    few, X = n < FEW_ROWS, np.where(np.isnan(X).all(0), 0.0, X)  # scikit-learn cannot read a column without numbers
    model = cast(Any, HistGradientBoostingClassifier)(  # whose annotations allow no bool here
        max_iter=min(config.rounds, FEW_ROUNDS) if few else config.rounds,
        max_leaf_nodes=min(config.leaves, FEW_LEAVES) if few else config.leaves,
        learning_rate=config.rate,
        early_stopping=not few,
        random_state=seed,
    )
    return model.fit(X, upper)


def suggest(space: Space, rows: int, seconds: float | None = None) -> Config:
    """The configuration for this number of fit rows and this time (a minute if it is not given): as many orderings, four at most,
    as can be fitted in a ``SHARE`` of it; if one takes longer, fewer rows."""
    room, cost = SHARE * (60 if seconds is None else seconds), _seconds(space, rows)
    room /= FITS if rows < CROSS_FIT_BELOW else 1
    if cost <= room:
        return Config(orderings=min(4, int(room / cost)))
    return Config(rows=max(2_000, round(rows * room / cost)))


def _seconds(space: Space, rows: int) -> float:
    """About how long the fit of one ordering takes: so much for each node, and for each row, input and round, as measured."""
    total, config = 0.0, Config()
    for j, column in enumerate(space.columns):
        options = count_codes(column) + (column.kind == "continuous") * min(config.bins, max(2, rows // BIN_ROWS))
        nodes = min(options, rows / LEAST_ROWS)
        total += 0.015 * nodes + 3e-9 * math.log2(options + 1) * rows * (j + 1) * config.rounds
    return max(total, 1e-3)


def build(
    space: Space, *, encoding: Columns | None = None, context_shape: tuple[int, ...] | None = None, config: Config,
    rng: torch.Generator,
) -> BoostedTrees:  # fmt: skip
    """An unfitted model; InputError for images, and on more than ``MOST_COLUMNS`` columns."""
    if space.is_image:
        raise InputError("forest: images have too many entries for trees; use autoregressive")
    if space.dims > MOST_COLUMNS:
        raise InputError(f"forest: {space.dims:,} columns are more than the {MOST_COLUMNS} this family can model; use flow")
    model = BoostedTrees(space, context_shape, config)
    model.columns.adopt(encoding)
    return model
