"""Nearest-neighbour metrics: whether samples are copies of training rows, and how well two sets cover one another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mixtura.contracts import Estimate, InputError
from mixtura.metrics.arrays import numbers, pair, rows

Array = NDArray[np.float64]

TILE_ENTRIES = 2**22


def memorisation(
    samples: ArrayLike | Tensor, train: ArrayLike | Tensor, held_out: ArrayLike | Tensor, *, rng: torch.Generator
) -> Estimate:
    """Share of ``samples`` (m, d) whose nearest row is among ``train`` (t, d) rather than ``held_out`` (h, d).

    ½ means that training rows are as far from samples as other rows of the same law, 1 that the samples are copies. Both
    reference sets have min(t, h) rows; the larger one is subsampled with ``rng``, because a larger set would be nearer by its
    size alone. Ties count ½. Distances are Euclidean in the features as given.

    The error is binomial in an effective number of samples, which accounts for the randomness of the samples and of the split
    into train and held-out rows. At equal laws the labels of the 2r reference rows are exchangeable, and samples that share their
    nearest row share its label. With u_j untied samples at row j, a random relabelling has the variance (2r / (2r−1)) (Σ u_j² −
    (Σ u_j)² / 2r) / 4m², which is exact without ties. It is set equal to ¼ / effective number, which is at most m. Two successes
    and two failures are added to the share in p(1 − p) (Agresti & Coull 1998), so that the error is not 0 at a value of 0 or 1.

    Raises InputError on arrays that are not finite (rows, d) with one d.
    """
    given = {"samples": samples, "train": train, "held_out": held_out}
    ours, seen, unseen = (rows(x, name).double().numpy() for name, x in given.items())
    for name, part in (("train", seen), ("held_out", unseen)):
        if part.shape[1] != ours.shape[1]:
            raise InputError(
                f"{name}: expected {ours.shape[1]} features as in samples, got {part.shape[1]}; give the same features of each"
            )
    size = min(len(seen), len(unseen))
    seen, unseen = _subsample(seen, size, rng), _subsample(unseen, size, rng)
    to_seen, nearest_seen = _nearest(ours, seen)
    to_unseen, nearest_unseen = _nearest(ours, unseen)
    m = len(ours)
    tied = to_seen == to_unseen
    value = float(np.mean(np.where(tied, 0.5, to_seen < to_unseen)))
    label = np.where(to_seen < to_unseen, nearest_seen, size + nearest_unseen)
    effective = _effective_number(np.bincount(label[~tied], minlength=2 * size), m)
    share = (value * effective + 2) / (effective + 4)
    return Estimate(value, math.sqrt(share * (1 - share) / effective), m)


def _effective_number(sharing: NDArray[np.intp], m: int) -> float:
    """The effective number of independent labels of ``m`` samples, ``sharing[j]`` of which have reference row j as their
    nearest."""
    spread = float(np.square(sharing - sharing.mean()).sum()) * len(sharing) / (len(sharing) - 1) / m**2
    return 1 / max(spread, 1 / m)


def _subsample(x: Array, size: int, rng: torch.Generator) -> Array:
    if len(x) == size:
        return x
    return x[torch.randperm(len(x), generator=rng, device=rng.device)[:size].cpu().numpy()]


def _nearest(x: Array, reference: Array) -> tuple[Array, NDArray[np.intp]]:
    """(m,) squared distance to, and index of, the nearest row of ``reference``.

    One matrix product for each tile finds the row. The distance is then computed directly, because the rounding of the product
    would break the ties between copies and between integer rows.
    """
    centre = reference.mean(0)
    centred = reference - centre
    half_norms = np.square(centred).sum(1) / 2
    tile = max(1, TILE_ENTRIES // max(reference.shape))
    nearest = [np.argmin(half_norms - (x[i : i + tile] - centre) @ centred.T, 1) for i in range(0, len(x), tile)]
    index = np.concatenate(nearest)
    direct = [np.square(x[i : i + tile] - reference[index[i : i + tile]]).sum(1) for i in range(0, len(x), tile)]
    return np.concatenate(direct), index


# ---------------------------------------------------------------------------------------------- rows in both sets


@dataclass(frozen=True)
class Shared:
    """count: number of rows of one set that are equal to some row of the other. expected, spread: its mean and standard deviation
    if both sets had the same law. same: whether both are the same rows in the same order, beyond chance."""

    count: int
    expected: float
    spread: float
    same: bool

    @property
    def too_many(self) -> bool:
        """Whether the sets share more rows than independent samples would."""
        return self.same or self.count > self.expected + 6 * self.spread


def shared_rows(real: ArrayLike | Tensor, generated: ArrayLike | Tensor) -> Shared:
    """How many rows of ``generated`` (m, d) are also in ``real`` (n, d); NaN equals NaN. Rows of codes and rounded numbers repeat
    by chance: a new row of the law is not in ``real`` with probability f₁/n, whose variance is (f₁ (1 − f₁/n) + 2 f₂)/n², where
    f₁ and f₂ are the numbers of rows that ``real`` holds once and twice (Good 1953, equations 9 and 64)."""
    # −0 equals 0, and every NaN equals every other
    ours, theirs = (np.where(np.isnan(x), np.nan, x + 0.0) for x in (numbers(real, "real"), numbers(generated, "generated")))
    times = Counter(row.tobytes() for row in ours.astype(np.float64))
    n, m = len(ours), len(theirs)
    count = sum(row.tobytes() in times for row in theirs.astype(np.float64))
    once, twice = (sum(t == k for t in times.values()) for k in (1, 2))
    new = once / n
    # the 1 is for laws whose rows rarely repeat, which n rows cannot distinguish from laws whose rows never do
    variance = 1 + m * new * (1 - new) + (m / n) ** 2 * (once * (1 - new) + 2 * twice)
    # log probability of this order of the rows: two constant tables are equal by chance
    chance = sum(t * math.log(t / n) for t in times.values())
    same = np.array_equal(ours, theirs, equal_nan=True) and chance < math.log(1e-6)
    return Shared(count, m * (1 - new), math.sqrt(variance), same)


# ------------------------------------------------------------------------------------ how two sets cover one another

#: rows of each set in a tile of distances
TILE = 1024

#: numbers processed at once where each row is compared with its own few neighbours
CACHE = 2**18

#: extra neighbours that are compared, so that the rounding of a matrix product cannot hide the right one
SPARE = 2


class Manifold(NamedTuple):
    """Four shares (density is a ratio and can exceed 1)."""

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate


def manifold(real: ArrayLike | Tensor, generated: ArrayLike | Tensor, *, k: int = 5) -> Manifold:
    """Improved precision and recall (Kynkäänniemi et al. 2019, equations 1 and 2), density and coverage (Naeem et al. 2020,
    equations 4 and 6) of ``generated`` (m, d) beside ``real`` (n, d).

    r(x) is the distance from a row to the k-th nearest other row of its set, B(x) the ball of that radius, closed: a row at
    the distance r(x) is inside, so that a set and its copy, even of one repeated row, have precision = recall = 1.

        precision   share of generated rows that are in some B(real)
        recall      share of real rows that are in some B(generated)
        density     mean number of B(real) that a generated row is in, over k
        coverage    share of real rows whose B holds a generated row

    On equal laws density is about 1, the others depend on the dimension and on n: read them beside those of held-out rows.

    Distances are float32 matrix products of centred rows, tile by tile; radii, and every pair too near to its radius for
    a product's rounding, are measured again by differences. Memory beyond the rows is O(tile² + n k).

    Errors. A share p of m rows has p(1 − p)/m for the luck of these rows (p drawn towards ½ as in :func:`memorisation`),
    and Σ uᵢ(uᵢ − 1)/m² for that of the rows with the balls, of which row i alone is the reason for uᵢ of the m: what would be
    lost without row i, less the part that is the luck of the m rows. Density has the variance of its mean over generated rows
    and the same for real rows, whose neighbours' balls grow where a row goes.

    Raises InputError on arrays that are not finite (rows, d) with one d, 3 rows or more, or a k that is not 1 … rows − 2.
    """
    x, y = pair(real, generated, least=3)
    least = min(len(x), len(y))
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= least - 2:
        raise InputError(f"k: expected a whole number from 1 to {least - 2} (rows of the smaller set less 2), got {k!r}")
    centre = (x.sum(0, dtype=torch.float64) + y.sum(0, dtype=torch.float64)) / (len(x) + len(y))
    ours, theirs = _Balls.around(x, centre, k), _Balls.around(y, centre, k)
    real_holds, generated_holds, wider = _cross(ours, theirs)
    return Manifold(
        precision=_share(real_holds.by_column, len(x)),
        recall=_share(generated_holds.by_row, len(y)),
        density=_density(real_holds, wider, ours.neighbours),
        coverage=_share(real_holds.by_row, len(y)),
    )


def precision(real: ArrayLike | Tensor, generated: ArrayLike | Tensor, *, rng: torch.Generator, k: int = 5) -> Estimate:
    """Precision of :func:`manifold`, which computes all four metrics at the cost of one; nothing is drawn from ``rng``."""
    return manifold(real, generated, k=k).precision


def recall(real: ArrayLike | Tensor, generated: ArrayLike | Tensor, *, rng: torch.Generator, k: int = 5) -> Estimate:
    """Recall of :func:`manifold`; see :func:`precision`."""
    return manifold(real, generated, k=k).recall


def density(real: ArrayLike | Tensor, generated: ArrayLike | Tensor, *, rng: torch.Generator, k: int = 5) -> Estimate:
    """Density of :func:`manifold`; see :func:`precision`."""
    return manifold(real, generated, k=k).density


def coverage(real: ArrayLike | Tensor, generated: ArrayLike | Tensor, *, rng: torch.Generator, k: int = 5) -> Estimate:
    """Coverage of :func:`manifold`; see :func:`precision`."""
    return manifold(real, generated, k=k).coverage


@dataclass(frozen=True)
class _Balls:
    """Rows with their balls. Radii and norms are half squared distances, for which a tile is one matrix product.

    rows: (n, d) as given. centred: (n, d) float32. half_norms: (n,) float32. neighbours: (n, k), nearest first.
    radii: (n, 2) float64, to the neighbours k and k + 1.
    """

    rows: Tensor
    centred: Tensor
    half_norms: Tensor
    neighbours: Tensor
    radii: Tensor

    @staticmethod
    def around(x: Tensor, centre: Tensor, k: int) -> _Balls:
        centred = (x - centre).float()
        half_norms = centred.square().sum(1) / 2
        candidates = _nearest_others(centred, half_norms, min(k + 1 + SPARE, len(x) - 1))
        at_once = max(1, CACHE // candidates[0].numel() // x.shape[1])
        to_candidates = torch.cat(
            [_half_squares(row[:, None], x[near]) for row, near in zip(x.split(at_once), candidates.split(at_once), strict=True)]
        )
        distance, order = to_candidates.sort(dim=1, stable=True)
        return _Balls(x, centred, half_norms, candidates.gather(1, order)[:, :k], distance[:, k - 1 : k + 1].clone())


def _half_squares(x: Tensor, y: Tensor) -> Tensor:
    """Half squared distances by differences, in the precision of the rows: a pair of rows always has the same one."""
    return (x - y).square_().sum(-1, dtype=torch.float64) / 2


def _half_squares_of_pairs(x: Tensor, y: Tensor, at: Tensor) -> Tensor:
    """:func:`_half_squares` of row at[:, 0] of x and row at[:, 1] of y."""
    return _half_squares(x[at[:, 0]], y[at[:, 1]])


def _tile(x: Tensor, half_x: Tensor, y: Tensor, half_y: Tensor) -> Tensor:
    """(a, b) half squared distances, float32."""
    return torch.addmm(half_y, x, y.T, alpha=-1).add_(half_x[:, None])


def _nearest_others(x: Tensor, half_norms: Tensor, count: int) -> Tensor:
    """(n, count) indices of the nearest other rows of x (n, d). Each pair of blocks needs one tile."""
    n = len(x)
    best, index = torch.full((n, count), math.inf), torch.zeros(n, count, dtype=torch.int64)

    def merge(block: slice, distances: Tensor, first: int) -> None:
        near, at = distances.topk(min(count, distances.shape[1]), 1, largest=False)
        values, places = torch.cat([best[block], near], 1), torch.cat([index[block], at + first], 1)
        best[block], order = values.topk(count, 1, largest=False)
        index[block] = places.gather(1, order)

    for i in _blocks(n):
        for j in _blocks(n):
            if j.start < i.start:
                continue
            distances = _tile(x[i], half_norms[i], x[j], half_norms[j])
            if i == j:
                distances.fill_diagonal_(math.inf)
            else:
                merge(j, distances.T.contiguous(), i.start)
            merge(i, distances, j.start)
    return index


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, min(start + TILE, n)) for start in range(0, n, TILE))


class _Held(NamedTuple):
    """For each row: the number of balls that hold it, or of rows in its ball; and the index of that ball or row if it is one."""

    count: Tensor
    holder: Tensor


class _Inside(NamedTuple):
    by_row: _Held
    by_column: _Held


def _cross(real: _Balls, generated: _Balls) -> tuple[_Inside, _Inside, Tensor]:
    """Which generated rows (columns) are in which real balls (rows); which real rows are in which generated balls; and the number
    of generated rows, up to rounding, that each real ball would hold at radius k + 1, (n,)."""
    n, m = len(real.rows), len(generated.rows)
    rounding = (4 + math.sqrt(real.rows.shape[1])) * torch.finfo(torch.float32).eps
    sums = [(torch.zeros(n, 2, dtype=torch.float64), torch.zeros(m, 2, dtype=torch.float64)) for _ in range(2)]
    wider = torch.zeros(n, dtype=torch.float64)
    for i in _blocks(n):
        for j in _blocks(m):
            distances = _tile(real.centred[i], real.half_norms[i], generated.centred[j], generated.half_norms[j])
            slack = rounding * (real.half_norms[i].max() + generated.half_norms[j].max()).double()
            exact = partial(_half_squares_of_pairs, real.rows[i], generated.rows[j])
            for (by_row, by_column), radius in zip(sums, (real.radii[i, :1], generated.radii[j, 0]), strict=True):
                inside = _inside(distances, radius, slack, exact)
                by_row[i] += inside @ _numbered(j)
                by_column[j] += inside.T @ _numbered(i)
            wider[i] += (distances <= real.radii[i, 1:].float()).sum(1)
    first, second = (_Inside(_Held(*rows.long().T), _Held(*columns.long().T)) for rows, columns in sums)
    return first, second, wider


def _inside(distances: Tensor, radius: Tensor, slack: Tensor, exact: Callable[[Tensor], Tensor]) -> Tensor:
    """(a, b) float32, 1 if ``distances`` ≤ ``radius``. Pairs within ``slack`` of the radius are decided by ``exact``
    distances."""
    surely = distances <= (radius - slack).float()
    unsure = ((distances < (radius + slack).float()) & ~surely).nonzero()
    inside = surely.float()
    for at in unsure.split(TILE):
        limit = radius.expand(distances.shape)[at[:, 0], at[:, 1]]
        # sums of squares in another order may differ by this factor
        inside[at[:, 0], at[:, 1]] = (exact(at) <= limit * (1 + 1e-12)).float()
    return inside


def _numbered(block: slice) -> Tensor:
    """(block, 2) ones and row numbers. A sum over a single ball is 1 and its number, exactly up to 2²⁴ rows."""
    return torch.stack([torch.ones(block.stop - block.start), torch.arange(block.start, block.stop).float()], 1)


def _share(held: _Held, holders: int) -> Estimate:
    """Share of rows that are in at least one ball; ``holders``: the number of balls."""
    n = len(held.count)
    value = float((held.count > 0).double().mean())
    alone = torch.bincount(held.holder[held.count == 1], minlength=holders).double()
    drawn = (value * n + 2) / (n + 4)
    return Estimate(value, math.sqrt(drawn * (1 - drawn) / n + float((alone * (alone - 1)).sum()) / n**2), n)


def _density(inside: _Inside, wider: Tensor, neighbours: Tensor) -> Estimate:
    """Mean number of real balls around a generated row over k; ``wider`` (n,): rows inside each ball at radius k + 1."""
    n, k = neighbours.shape
    per_row, per_ball = inside.by_column.count.double(), inside.by_row.count.double()
    m = len(per_row)
    grown = (wider - per_ball)[:, None].expand(n, k)
    gained = torch.zeros(n, dtype=torch.float64).index_add_(0, neighbours.flatten(), grown.flatten())
    net = per_ball - gained
    balls = float((net - net.mean()).square().sum() - (per_ball + gained).sum())
    error = math.sqrt(float(per_row.var()) / m + max(balls, 0.0) / m**2) / k
    return Estimate(float(per_row.mean()) / k, error, m)
