"""Values that recur: in a rounded column some values are repeated more often than a smooth law allows.

People round, and records are copied: wages, prices and survey weights repeat to the last digit. A smooth law gives such a value
what it gives the steps beside it. :class:`Recurring` holds, for a rounded column, bins B of neighbouring steps, and in each bin
the law emp_B of the values that were seen at least twice. Any law p of the column, given whatever comes before it, becomes

    p'(v | before) = P(B | before) [(1 − g_B) emp_B(v) + g_B p(v | before) / P(B | before)],   B the bin of v.

p' sums to one as p does, and it leaves every bin the probability that p gives it: the model decides on the bin, the counts decide
within it. A draw of p' is a draw of p that with probability 1 − g_B is replaced by a draw of emp_B. Beyond the bins p' = p.

g_B, the share of new values, maximises the leave-one-out likelihood of the fit rows, in which a smooth law of the column stands
for p (a kernel density estimate of the standardised values). The row that is left out takes one from the count of its value, so a
value seen twice is no longer a recurring one. On a fine lattice g_B is then the estimate of Good (1953), (N₁ + 2N₂)/n for N_r
values that were seen r times; on a lattice whose counts are smooth it is 1, and the bin is left alone. Counts in emp_B are
discounted by N₁/(N₁ + 2N₂) (Ney et al. 1994), or by more, where that raises the likelihood: on a coarse lattice values come
again by chance.

Wide bins gather more of what recurs, and narrow ones keep more of what the model knows: within a bin, p' does not depend on the
other columns. The width is chosen for each column by the gain in likelihood, less one nat for each bin in use (Akaike 1974),
less the mutual information between the place in the bin and the one other column that tells most about it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

#: how many bins, of about equal probability under the smooth law, are tried for a column
BINS = (4, 16, 64, 256)
#: of those that gain within so many nats of the best, the widest bins are taken
TIE = 0.01
#: a column has bins if they gain this many nats a value, and so many more in all
LEAST_GAIN, LEAST_TOTAL = 0.05, 20.0
#: deviation of the noise that makes the law of the values smooth, and the farthest value, in standardised units
SMOOTH, FARTHEST = 0.15, 40.0
#: the discounts of counts that are tried beside that of Ney et al.
DISCOUNTS = (2.0, 4.0, 8.0, 16.0, 32.0)
#: iterations of EM for the shares of new values
ITERATIONS = 60
#: parts of a bin, levels of another column, other columns, and rows by which the loss of information is measured
PARTS, LEVELS, OTHERS, ROWS = 4, 16, 64, 20_000


@dataclass(frozen=True)
class Repeats:
    """The bins of one column. steps (R,): the recurring values as ascending step numbers; share (R,): their probabilities in
    their bins. edges (B + 1,): bin b holds the steps edges[b] ≤ k < edges[b + 1]. new (B,): g_B."""

    steps: Tensor
    share: Tensor
    edges: Tensor
    new: Tensor


class Recurring(nn.Module):
    """The bins of C columns in a few tensors: those of :class:`Repeats`, one column after the other, where ``new`` has one more
    entry for each column. sizes (C, 2): how many recurring values and edges a column has; 0 where it has no bins."""

    steps: Tensor
    share: Tensor
    edges: Tensor
    new: Tensor
    sizes: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        for name in ("steps", "share", "edges", "new"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.float64))
        self.register_buffer("sizes", torch.zeros(columns, 2, dtype=torch.int64))

    def hold(self, found: Sequence[Repeats | None]) -> None:
        """Keep the bins of every column; None where there are none."""
        kept = [r for r in found if r is not None]
        device = self.steps.device

        def joined(parts: list[Tensor]) -> Tensor:
            return torch.cat([torch.zeros(0, dtype=torch.float64), *parts]).to(device)

        self.steps, self.share = joined([r.steps for r in kept]), joined([r.share for r in kept])
        self.edges = joined([r.edges for r in kept])
        self.new = joined([nn.functional.pad(r.new, (0, 1), value=1.0) for r in kept])
        sizes = [(0, 0) if r is None else (len(r.steps), len(r.edges)) for r in found]
        self.sizes = torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2).to(device)

    def tables(self) -> dict[int, Repeats]:
        """The bins by column, for the columns that have any."""
        if not len(self.edges):
            return {}
        values, edges = (column.tolist() for column in self.sizes.T)
        parts = zip(
            self.steps.split(values), self.share.split(values), self.edges.split(edges), self.new.split(edges), strict=True
        )
        return {c: Repeats(steps, share, e, new[:-1]) for c, (steps, share, e, new) in enumerate(parts) if len(e)}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Load a state with any number of values and bins: the buffers are resized to it."""
        for name in ("steps", "share", "edges", "new"):
            if isinstance(given := state_dict.get(prefix + name), Tensor):
                setattr(self, name, torch.empty_like(given, device=self.steps.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def bin_of(k: Tensor, table: Repeats) -> tuple[Tensor, Tensor]:
    """Step numbers k (n,) → the number of their bin (n,), 0 beyond the bins, and whether they are in a bin, (n,) bool."""
    b = torch.searchsorted(table.edges, k, right=True) - 1
    inside = (b >= 0) & (b < len(table.new))
    return torch.where(inside, b, 0), inside


def look_up(k: Tensor, table: Repeats) -> tuple[Tensor, Tensor]:
    """Step numbers k (n,) → log g_B, and log (1 − g_B) emp_B(k), (n,) each; 0 and −∞ beyond the bins."""
    if not len(table.steps):
        return torch.zeros_like(k), torch.full_like(k, -torch.inf)
    b, inside = bin_of(k, table)
    at = torch.searchsorted(table.steps, k).clamp(max=len(table.steps) - 1)
    new = torch.where(inside, table.new[b], 1.0)
    return new.log(), ((1 - new) * torch.where(table.steps[at] == k, table.share[at], 0.0)).log()


def replaced(k: Tensor, table: Repeats, u: Tensor) -> Tensor:
    """Step numbers k (n,) drawn from p, and uniform numbers u (n,) → step numbers drawn from p'."""
    if not len(table.steps):
        return k
    b, inside = bin_of(k, table)
    new = table.new[b]
    again = inside & (u >= new)
    place = ((u - new) / (1 - new).clamp(min=1e-300)).clamp(0, 1)
    # all bins in one search: the distribution function within bin b runs from b to b + 1
    own = torch.searchsorted(table.edges, table.steps, right=True) - 1
    upto = table.share.cumsum(0)
    first = torch.searchsorted(own, torch.arange(len(table.new) + 1, device=k.device))
    before = nn.functional.pad(upto, (1, 0))[first]
    target = before[b] + place * (before[b + 1] - before[b])
    at = torch.searchsorted(upto, target, right=True)
    at = torch.maximum(torch.minimum(at, first[b + 1] - 1), first[b]).clamp(0, len(table.steps) - 1)
    return torch.where(again, table.steps[at], k)


# ------------------------------------------------------------------------------------------------------------ fitting


def equal_bins(steps: Tensor, upto: Tensor, bins: int) -> Tensor:
    """(B + 1,) edges of at most ``bins`` bins, of about equal probability, halfway between neighbours of the ascending values
    ``steps`` (D,), at which a distribution function is ``upto`` (D,)."""
    number = (upto * bins).long()
    last = (number[1:] != number[:-1]).nonzero().squeeze(1)
    inner = ((steps[last] + steps[last + 1]) / 2).floor() + 1
    return torch.cat([steps[:1], inner, steps[-1:] + 1])


def repeats(steps: Tensor, counts: Tensor, edges: Tensor, smooth: Tensor, discount: float) -> tuple[Repeats, float]:
    """Ascending values ``steps`` (D,), seen ``counts`` (D,) times, and their probabilities ``smooth`` (D,) in their bins under a
    smooth law → the values that were seen at least twice and more than ``discount`` times, with shares in proportion to the
    count less the discount; and the gain in nats a row (see the module)."""
    n, b = counts.double(), torch.searchsorted(edges, steps, right=True) - 1

    def total(each: Tensor) -> Tensor:
        return each.new_zeros(len(edges) - 1).index_add(0, b, each)

    def discounted(n: Tensor) -> Tensor:
        return torch.where(n >= 2, n - discount, 0.0).clamp(min=0)

    again = discounted(n)
    recurring, rows = total(again), total(n)
    left_out = discounted(n - 1)
    left_out = left_out / (recurring[b] - again + left_out).clamp(min=1e-300)
    g = torch.full_like(rows, 0.5)
    for _ in range(ITERATIONS):
        new = g[b] * smooth
        # one more row of a new value keeps g above 0
        g = (total(n * new / (new + (1 - g[b]) * left_out)) + 1) / (rows + 1)
    gain = total(n * ((g[b] * smooth + (1 - g[b]) * left_out) / smooth).log()) - 1
    used = (gain > 0) & (recurring > 0)
    keep = (again > 0) & used[b]
    share = (again / recurring.clamp(min=1e-300)[b])[keep]
    return Repeats(steps[keep], share, edges, torch.where(used, g, 1.0)), float(gain[used].sum() / n.sum())


def find(
    k: Tensor, standardised: Callable[[Tensor], Tensor], others: Sequence[Tensor] = (), apart: Sequence[float] = ()
) -> Repeats | None:
    """The bins of a column with step numbers k (n,), or None where they gain too little.

    standardised: the standardised value of the lower edge of the cell of a step. others: the levels (n,) of other columns.
    apart: the step numbers of atoms, which are in no bin, because a model may give an atom its probability by its law of the
    values around it.
    """
    steps, counts = k.unique(return_counts=True)
    if len(steps) < 2:
        return None
    least = LEAST_GAIN + LEAST_TOTAL / len(k)
    below = _smooth_law((standardised(steps) + standardised(steps + 1)) / 2, counts)
    low, high = below(standardised(steps)), below(standardised(steps + 1))
    cuts = torch.tensor([end for a in apart if steps[0] < a < steps[-1] for end in (a, a + 1)], dtype=k.dtype, device=k.device)
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    discount = once / max(once + 2 * twice, 1)
    tried = []
    for bins in BINS:
        edges = torch.cat([equal_bins(steps, (low + high) / 2, bins), cuts]).unique()
        b = torch.searchsorted(edges, steps, right=True) - 1
        within = ((high - low) / below(standardised(edges)).diff()[b].clamp(min=1e-300)).clamp(1e-12, 1.0)
        found, gain = repeats(steps, counts, edges, within, discount)
        if gain >= least:
            gain -= _information(k[:ROWS], found, others)
        tried.append((gain, edges, within))
    best = max(gain for gain, _, _ in tried)
    if best < least:
        return None
    _, edges, within = next(one for one in tried if one[0] >= best - TIE)
    choices = [repeats(steps, counts, edges, within, d) for d in (discount, *DISCOUNTS)]
    return max(choices, key=lambda choice: choice[1])[0]


def levels_of(values: Tensor) -> list[Tensor]:
    """Values (n, C), NaN where absent → for each column the levels (n,): the numbers of their intervals, of which ``LEVELS`` have
    about equal count, and ``LEVELS`` where absent."""
    levels = []
    for column in values.T:
        seen = column[~column.isnan()][:ROWS]
        cuts = seen.sort().values[torch.arange(1, LEVELS, device=seen.device) * len(seen) // LEVELS] if len(seen) else seen
        level = torch.searchsorted(cuts, column.contiguous(), right=True)
        levels.append(torch.where(column.isnan(), LEVELS, level))
    return levels


def _smooth_law(z: Tensor, counts: Tensor) -> Callable[[Tensor], Tensor]:
    """A smooth distribution function: that of the values z (D,) with normal noise of deviation ``SMOOTH`` added, on a grid."""
    reach = min(float(z.abs().max()) + 1, FARTHEST)
    cells = math.ceil(2 * reach / (SMOOTH / 4))
    at = ((z + reach) / (2 * reach) * cells).clamp(0, cells - 1).long()
    mass = torch.zeros(cells, dtype=torch.float64, device=z.device).index_add(0, at, counts.double())
    offset = torch.arange(-16, 17, dtype=torch.float64, device=z.device) / 4
    kernel = torch.softmax(-0.5 * offset.square(), 0)
    mass = nn.functional.conv1d(mass.reshape(1, 1, -1), kernel.reshape(1, 1, -1), padding=16).flatten() / counts.sum()
    upto = nn.functional.pad(mass.cumsum(0), (1, 0))

    def below(at: Tensor) -> Tensor:
        place = ((at + reach) / (2 * reach) * cells).clamp(0, cells - 1e-9)
        cell = place.long()
        return upto[cell] + (place - cell) * mass[cell]

    return below


def _information(k: Tensor, table: Repeats, others: Sequence[Tensor]) -> float:
    """Nats a row that the most informative other column has about the place of k (n,) in its bin, where the bin is in use:
    Pearson's statistic of independence, less its mean under independence (the degrees of freedom, however small the counts),
    over 2n."""
    b, inside = bin_of(k, table)
    used = inside & (table.new[b] < 1)
    # the parts of a bin: by rank among the rows of the bin
    size = torch.bincount(b, minlength=len(table.new))
    rank = torch.searchsorted(k.sort().values, k)  # equal values have the same rank, so they are in the same part
    part = (rank - (size.cumsum(0) - size)[b]) * PARTS // size[b]
    most = 0.0
    for other in others[:OTHERS]:
        level = other[: len(k)].clamp(max=LEVELS)
        shape = (len(table.new), PARTS, LEVELS + 1)
        count = torch.zeros(shape, dtype=torch.float64, device=k.device)
        count.index_put_((b[used], part[used], level[used]), count.new_ones(int(used.sum())), accumulate=True)
        rows, columns = count.sum(2, keepdim=True), count.sum(1, keepdim=True)
        expected = rows * columns / count.sum((1, 2), keepdim=True).clamp(min=1)
        ratio = torch.where(expected > 0, (count - expected).square() / expected.clamp(min=1e-300), 0.0).sum()
        freedom = ((rows > 0).sum(1) - 1).clamp(min=0) * ((columns > 0).sum(2) - 1).clamp(min=0)
        most = max(most, float(ratio - freedom.sum()) / (2 * len(k)))
    return most
