"""A probabilistic circuit for mixed columns: a tree of hidden codes, with exact density, marginals and conditionals.

    p(x) = Σ_z p(z_r) Π_{j ≠ r} p(z_j | z_π(j)) Π_j p(x_j | z_j)

Every column has a hidden code with K states; the codes form the Chow–Liu tree of the columns (a hidden Chow–Liu tree, Liu & Van
den Broeck 2021). A mixture of K products of independent columns is the special case in which all codes of a row are equal; EM
starts from one, found by k-means. The laws p(x_j | z_j) are those of :mod:`mixtura.ground.leaves`, the sum over z is exact
(:mod:`mixtura.ground.latent_tree`), and so is the sum over any entries: the rest of a row is completed by exact draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mixtura.contracts import CellDensity, ClosedForm, Conditional, Conditioned, InputError, Space
from mixtura.ground import rng as random
from mixtura.ground.cells import Parts
from mixtura.ground.em import first_labels
from mixtura.ground.encode import Columns
from mixtura.ground.latent_tree import LatentTree, TreeCounts, Upward, chow_liu, discretise, mutual_information
from mixtura.ground.leaves import Cells, LeafCodes, LeafCounts, Leaves, Rows, base_rates, frequent_values


class Config(BaseModel):
    """states: the most states of a code that are tried (1, 2, 4, …); held-out rows choose. rows: the most rows that are fitted.
    passes: the most passes of EM over these rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    states: int = Field(default=64, ge=1)
    rows: int = Field(default=20_000, ge=1)
    passes: int = Field(default=30, ge=1)


#: the most columns: each costs some operations a pass, however few the rows
MOST_COLUMNS = 256
#: the number of states is chosen on fits of at most so many rows and passes
CHOOSING_ROWS, CHOOSING_PASSES = 8_000, 10
#: EM stops when a pass gains less than this many nats a row
PROGRESS = 2e-3
#: k-means sees at most so many rows
STARTING_ROWS = 5_000
#: the share of a row that is spread over all states at the start, so that no state of a code excludes another
SPREAD = 0.1
#: prior rows of every state of a parent: the states of the child have their overall frequencies
PRIOR_EDGES = 1.0
#: the share of a run's seconds that a fit may take, and its cost with all that is tried, as measured: seconds for each pass and
#: column, and for each pass, column, row and (state + ``OVERHEAD``)
SHARE, SECONDS_A_COLUMN, SECONDS_AN_ENTRY, OVERHEAD = 0.1, 3e-4, 2e-8, 8
#: what is tried however short the time; rows are left out before fewer states than ``FEW_STATES`` are tried
LEAST_PASSES, LEAST_ROWS, FEWEST_STATES, FEW_STATES = 8, 1_000, 4, 16
#: the most entries of (rows, columns, states) that are worked on at a time
TILE_ENTRIES = 2**22


@dataclass(frozen=True)
class _State:
    """The parameters."""

    tree: LatentTree
    leaves: Leaves


class Circuit(CellDensity, Conditional, ClosedForm):
    """A tree of hidden codes; fitted by EM, without gradients."""

    order: Tensor
    parent: Tensor
    log_root: Tensor
    log_edges: Tensor
    log_tables: Tensor
    means: Tensor
    deviations: Tensor
    frequent: Tensor
    frequent_of: Tensor

    def __init__(self, space: Space, config: Config) -> None:
        super().__init__(space)
        self.config = config
        self.columns = Columns(space)
        d, c = space.dims, self.columns.continuous
        real, whole = torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
        self.register_buffer("order", torch.arange(d))
        self.register_buffer("parent", torch.arange(d) - 1)
        self.register_buffer("log_root", torch.zeros(1, dtype=torch.float64))
        self.register_buffer("log_edges", torch.zeros(d, 1, 1, dtype=torch.float64))
        self.register_buffer("frequent", real)
        self.register_buffer("frequent_of", whole)
        sizes = torch.tensor(LeafCodes(self.columns, real, whole).sizes)
        self.register_buffer("log_tables", -sizes.double().log().repeat_interleave(sizes).unsqueeze(1))
        self.register_buffer("means", torch.zeros(c, 1, dtype=torch.float64))
        self.register_buffer("deviations", torch.ones(c, 1, dtype=torch.float64))

    def _state(self) -> _State:
        tree = LatentTree(self.order.tolist(), self.parent.tolist(), self.log_root, self.log_edges)
        codes = LeafCodes(self.columns, self.frequent, self.frequent_of)
        return _State(tree, Leaves(codes, self.log_tables, self.means, self.deviations))

    # ----------------------------------------------------------------------------------------- fitting

    @torch.no_grad()
    def fit_closed(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        """Find the tree, choose the number of states on a held-out seventh of the rows, then fit all rows."""
        self.columns.prepare(x)
        x = x[torch.randperm(len(x), generator=rng)[: self.config.rows].to(x.device)]
        parts = self.columns.split(x)
        order, parent = chow_liu(mutual_information(*discretise(self.columns, parts)))
        self.order, self.parent = torch.tensor(order, device=x.device), torch.tensor(parent, device=x.device)
        self.frequent, self.frequent_of = frequent_values(self.columns, x, parts)
        codes = LeafCodes(self.columns, self.frequent, self.frequent_of)
        fit = _Em(self.columns, codes, order, parent, x, parts, rng)
        state = fit.run(self._choose(fit, len(x)), slice(None), self.config.passes)
        self.log_root, self.log_edges = state.tree.log_root, state.tree.log_edges
        self.log_tables, self.means, self.deviations = state.leaves.log_tables, state.leaves.means, state.leaves.deviations

    def _choose(self, fit: _Em, n: int) -> int:
        """The number of states with the most nats on the held-out rows."""
        held = n // 7
        best, worse = (-math.inf, 1), 0
        for k in _powers_of_two(min(self.config.states, max(1, n // 10))) if held else []:
            state = fit.run(k, slice(held, held + CHOOSING_ROWS), CHOOSING_PASSES)
            score = fit.score(state, slice(0, held))
            worse = 0 if score > best[0] + 1e-3 else worse + 1
            best = max(best, (score, k))
            if worse == 2:
                break
        return best[1]

    # ----------------------------------------------------------------------------------------- density

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        state, parts = self._state(), self.columns.split(x)
        nats = [state.tree.upward(leaf).log_evidence for _, leaf in self._tiles(state, x, parts)]
        return torch.cat(nats) + parts.log_base

    def log_conditionals(self, x: Tensor) -> Tensor:
        """As :class:`CellDensity` has it."""
        x = self.space.check(x)
        odd, unseen = self.space.off(x), self.space.unseen(x)
        state, rows = self._state(), self.space.clamp(x)
        parts, found = self.columns.split(rows), []
        for at, leaf in self._tiles(state, rows, parts):
            leaf = [torch.where(odd[at, j, None], 0.0, leaf[j]) for j in range(self.space.dims)]
            found.append(state.tree.upward(leaf).log_conditionals(leaf))
        ε = torch.tensor([column.unseen for column in self.space.columns], dtype=x.dtype)
        nats = torch.cat(found).index_add(1, torch.tensor(self.columns.numeric, dtype=torch.int64), parts.base)
        return torch.where(unseen, ε.log(), (nats + torch.log1p(-ε)).masked_fill(odd, -math.inf))

    def _tiles(self, state: _State, x: Tensor, parts: Parts) -> Iterator[tuple[slice, list[Tensor]]]:
        """(rows, leaves) of a few rows at a time."""
        tile = max(1, TILE_ENTRIES // (self.space.dims * len(self.log_root)))
        at = state.leaves.codes.at(x, parts)
        for i in range(0, len(x), tile):
            rows = slice(i, i + tile)
            yield rows, state.leaves.log_prob(at[rows], parts[rows])

    # ---------------------------------------------------------------------------------------- sampling

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        state = self._state()
        return self._draw(state.leaves, state.tree.sample(n, rng), rng, observed=False)

    def _condition(self, x: Tensor, known: Tensor, draws: int, context: Tensor | None, rng: torch.Generator) -> Conditioned:
        """Hidden codes are drawn given the known entries, from the root down; then each of the other entries given its code and
        that it is not missing."""
        state, flat = self._state(), known.reshape(len(x), -1)
        filled = self.columns.blank(x, known)
        parts = self.columns.split(filled)
        observed = state.leaves.log_observed()
        evidence, states = [], []
        for rows, leaf in self._tiles(state, filled, parts):
            leaf = [torch.where(flat[rows, j, None], leaf[j], observed[j]) for j in range(self.space.dims)]
            up = state.tree.upward(leaf)
            evidence.append(up.log_evidence)
            states.append(up.sample(draws, rng))
        drawn = self._draw(state.leaves, torch.cat(states, 1).flatten(0, 1), rng, observed=True)
        values = torch.where(known, x, drawn.unflatten(0, (draws, len(x))))
        claim = torch.cat(evidence) + torch.where(flat[:, self.columns.numeric], parts.base, 0.0).sum(1)
        return Conditioned(values, claim, torch.full_like(claim, math.inf))

    def _draw(self, law: Leaves, z: Tensor, rng: torch.Generator, *, observed: bool) -> Tensor:
        """Rows (n, *shape) in data units given their states z (n, D); ``observed``: without missing values."""
        columns, n = self.columns, len(z)
        at = torch.stack([law.draw_codes(j, z[:, j], rng, observed=observed) for j in range(self.space.dims)], 1)
        codes = torch.zeros(n, len(columns.coded), dtype=torch.int64, device=z.device)
        for s, j in enumerate(columns.coded):
            rank = at[:, j] - law.codes.first[j]
            codes[:, s] = torch.where(rank < law.codes.plain[j], rank, 0)
        values = random.normal((n, columns.continuous), rng, self.means)
        for v, j in enumerate(columns.numeric):
            values[:, v] = self.means[v, z[:, j]] + self.deviations[v, z[:, j]] * values[:, v]
        x = self.space.flat(columns.join(codes, values))
        for v, j in enumerate(columns.numeric):
            frequent = law.codes.values(at[:, j], v)
            x[:, j] = torch.where(torch.isnan(frequent), x[:, j], frequent)
        return x.reshape(n, *self.space.shape)


class _Em:
    """EM on the rows of a fit; what its fits with several numbers of states share."""

    def __init__(
        self, columns: Columns, codes: LeafCodes, order: list[int], parent: list[int], x: Tensor, parts: Parts,
        rng: torch.Generator,
    ) -> None:  # fmt: skip
        at = codes.at(x, parts)
        values, _ = columns.dequantise(parts, rng)
        width = torch.where(parts.present & (parts.width > 0), parts.width, 1.0)
        self.columns, self.codes, self.order, self.parent, self.parts = columns, codes, order, parent, parts
        self.rows, self.rates = Rows(at, values.float(), width.log().float()), base_rates(codes, at)
        self.cells = Cells.among(codes, at, parts)
        self.seed = int(torch.randint(2**31, (), generator=rng))

    def run(self, k: int, of: slice, passes: int) -> _State:
        """The fit with k states to some of the rows."""
        state, last = self._start(k, of), -math.inf
        for _ in range(passes):
            by_code, share = state.leaves.by_code(self.cells)
            found, nats = [], 0.0
            for up, rows, tree in self._upward(state, by_code, self.rows[of]):
                found.append(_Counts(tree, state.leaves.count(rows, up.downward(tree))))
                nats += float(up.log_evidence.double().sum())
            state = self._maximise(state.leaves, reduce(_Counts.plus, found), share)
            if nats - last < PROGRESS * len(self.rows.at[of]):
                break
            last = nats
        return state

    def score(self, state: _State, of: slice) -> float:
        """Mean nats of some of the rows, up to a constant that all numbers of states share."""
        nats = [up.log_evidence for up, *_ in self._upward(state, state.leaves.by_code(self.cells)[0], self.rows[of])]
        return float(torch.cat(nats).double().mean())

    def _upward(self, state: _State, by_code: Tensor, rows: Rows) -> Iterator[tuple[Upward, Rows, TreeCounts]]:
        """Messages, a few rows at a time and in float32; with empty counts of the same shape."""
        d, k = len(self.order), len(state.tree.log_root)
        by_code, tile = by_code.float(), max(1, TILE_ENTRIES // (d * k))
        for i in range(0, len(rows.at), tile):
            few = rows[i : i + tile]
            counts = TreeCounts(by_code.new_zeros(k), by_code.new_zeros(d, k, k))
            yield state.tree.upward(state.leaves.expect(few, by_code)), few, counts

    def _start(self, k: int, of: slice) -> _State:
        """All codes of a row are its cluster by k-means, but for the share ``SPREAD``."""
        parts, rows = self.parts[of][:STARTING_ROWS], self.rows[of][:STARTING_ROWS]
        labels = first_labels(parts.values, parts.present, self.columns.indicators(parts.codes).double(), k, self.seed)
        share = torch.nn.functional.one_hot(labels, k).float() * (1 - SPREAD) + SPREAD / k
        d, c = len(self.order), self.columns.continuous
        ones = torch.ones(c, k, dtype=torch.float64, device=share.device)
        alike = Leaves(self.codes, self.rates.log().unsqueeze(1).expand(-1, k), 0 * ones, ones)
        tree = TreeCounts(share.sum(0), (share.T @ share).expand(d, k, k))
        return self._maximise(alike, _Counts(tree, alike.count(rows, [share] * d)), alike.by_code(self.cells)[1])

    def _maximise(self, before: Leaves, counts: _Counts, share: Tensor) -> _State:
        root, edges = counts.tree.root.double(), counts.tree.edges.double()
        child = edges.sum(1, keepdim=True) + 1e-2 / len(root)
        edges = edges + PRIOR_EDGES * child / child.sum(2, keepdim=True)
        root = root + 1 / len(root)
        tree = LatentTree(self.order, self.parent, (root / root.sum()).log(), (edges / edges.sum(2, keepdim=True)).log())
        return _State(tree, before.maximise(counts.leaves, self.cells, share, self.rates))


@dataclass(frozen=True)
class _Counts:
    """Expected counts of the hidden codes and of the laws of the columns."""

    tree: TreeCounts
    leaves: LeafCounts

    def plus(self, other: _Counts) -> _Counts:
        """The counts of the rows of both."""
        return _Counts(
            TreeCounts(self.tree.root + other.tree.root, self.tree.edges + other.tree.edges),
            LeafCounts(self.leaves.tables + other.leaves.tables, self.leaves.moments + other.leaves.moments),
        )


def _powers_of_two(most: int) -> list[int]:
    return [2**i for i in range(most.bit_length())]


def suggest(space: Space, rows: int, seconds: float | None = None) -> Config:
    """The configuration for this number of fit rows and this time: about a tenth of the seconds go to the fit, as measured; first
    fewer states are tried, then fewer rows are used."""
    default, d = Config(), space.dims
    if seconds is None:
        return default
    share = SHARE * seconds
    passes = min(default.passes, max(LEAST_PASSES, round(share / (SECONDS_A_COLUMN * d))))
    entries = share / (SECONDS_AN_ENTRY * d * passes)  # rows × (states + OVERHEAD)
    used = min(rows, default.rows, max(LEAST_ROWS, round(entries / (FEW_STATES + OVERHEAD))))
    most = min(default.states, max(FEWEST_STATES, entries / used - OVERHEAD))
    return Config(rows=used, states=2 ** round(math.log2(most)), passes=passes)


def build(
    space: Space, *, encoding: Columns | None = None, context_shape: tuple[int, ...] | None = None, config: Config,
    rng: torch.Generator,
) -> Circuit:  # fmt: skip
    """An unfitted model; InputError with a context, for images, and on more than ``MOST_COLUMNS`` columns."""
    if context_shape is not None:
        raise InputError("circuit: this family takes no context; use autoregressive or flow")
    if space.is_image:
        raise InputError("circuit: this family models tables, not images; use autoregressive or gaussian_mixture")
    if space.dims > MOST_COLUMNS:
        raise InputError(
            f"circuit: {space.dims:,} columns are more than the {MOST_COLUMNS:,} this family can model; use gaussian_mixture"
        )
    model = Circuit(space, config)
    model.columns.adopt(encoding)
    return model
