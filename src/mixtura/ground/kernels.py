"""Kernels that know their bound, and one pass over all pairs of rows that every kernel sum comes from.

:func:`sums` takes any number of sets and visits each pair of rows once, a tile at a time: one matrix product gives the
x·y of a tile, the kernel turns them into its values in place, and row sums are added up in float64. Memory does not grow
with the square of the rows. What is kept, :class:`KernelSums`, is enough for the maximum mean discrepancy

    MMD²(P, Q) = E k(X, X′) − 2 E k(X, Y) + E k(Y, Y′)                    (Gretton et al. 2012, lemma 6)

of any mixture of the sets against any of them, as a V-statistic (to optimise) and as a U-statistic with its delete-one
jackknife error (to report).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mixtura.contracts import Estimate, InputError

Array = NDArray[np.float64]

#: rows a side of a tile: 4 MB of float32 stay in the cache between the product, the kernel and the sums
TILE = 1024
#: a Gaussian is never taken below exp of this, 2e-35: exp is 30 to 90 times slower where its result is not a normal float32
SMALLEST_EXPONENT = -80.0
#: bandwidths whose inverse square is a float32, as tiles are, and whose square is a number; what that is, for a message
SMALLEST, LARGEST = 1e-19, 1e150
BANDWIDTH = f"a number from {SMALLEST:g} to {LARGEST:g}"
#: rows that a median distance is taken from
MEDIAN_ROWS = 2_000
#: entries of one chunk of monomials
CHUNK_ENTRIES = 2**20


# --------------------------------------------------------------------------------------------------------- kernels


class Kernel(ABC):
    """k(x, y) of two rows of features, a function of x·y, |x|² and |y|².

    bound: the largest value of k(x, x), which bounds |k| everywhere; inf where there is none.
    centred: whether k(x + c, y + c) = k(x, y). Rows are then centred before they are multiplied, because |x|² − 2 x·y + |y|²
    loses its digits where the mean is far from 0.
    """

    bound: float = math.inf
    centred: bool = False

    @abstractmethod
    def fill(self, tile: Tensor, x: Tensor, y: Tensor, xx: Tensor, yy: Tensor) -> None:
        """Write k(x_i, y_j) into ``tile`` (n, m), for x (n, d), y (m, d) and their squared lengths xx (n,), yy (m,)."""

    @abstractmethod
    def diagonal(self, xx: Tensor) -> Tensor:
        """(n,) k(x, x) of rows with squared lengths xx (n,)."""

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """(n, m) float64 k(x_i, y_j) of sets small enough that all pairs fit in memory."""
        centre = _centre((x, y), self)
        a, b = (z.double() if centre is None else z.double() - centre for z in (x, y))
        values = torch.empty(len(a), len(b), dtype=torch.float64, device=a.device)
        self.fill(values, a, b, a.square().sum(1), b.square().sum(1))
        return values


@dataclass(frozen=True)
class Gaussian(Kernel):
    """k(x, y) = exp(−|x − y|² / 2s²) with s = ``bandwidth``, in units of the features."""

    bandwidth: float

    bound = 1.0
    centred = True

    def __post_init__(self) -> None:
        if not SMALLEST <= self.bandwidth <= LARGEST:
            raise InputError(f"bandwidth: expected {BANDWIDTH}, got {self.bandwidth}; try median_bandwidth")

    @property
    def squared(self) -> Gaussian:
        """k², again a Gaussian."""
        return Gaussian(self.bandwidth / math.sqrt(2))

    def fill(self, tile: Tensor, x: Tensor, y: Tensor, xx: Tensor, yy: Tensor) -> None:
        h = 0.5 / self.bandwidth**2
        torch.addmm((-h * xx).to(tile.dtype)[:, None], x, y.T, alpha=2 * h, out=tile)
        # rounding can put a pair that all but coincides above the bound
        tile.sub_((h * yy).to(tile.dtype)).clamp_(min=SMALLEST_EXPONENT, max=0).exp_()

    def diagonal(self, xx: Tensor) -> Tensor:
        return torch.ones_like(xx)


@dataclass(frozen=True)
class Cubic(Kernel):
    """k(x, y) = (x·y / d + 1)³ with d = ``dims``, the kernel of KID (Bińkowski et al. 2018, section 4). It has no bound, and
    rows far from 0 lose digits: then take the sums in float64."""

    dims: int

    def fill(self, tile: Tensor, x: Tensor, y: Tensor, xx: Tensor, yy: Tensor) -> None:
        torch.addmm(tile.new_ones(1), x, y.T, alpha=1 / self.dims, out=tile).pow_(3)

    def diagonal(self, xx: Tensor) -> Tensor:
        return (xx / self.dims + 1).pow(3)


@dataclass(frozen=True)
class Cosine(Kernel):
    """k(x, y) = x·y / (|x| |y|), for rows that are not 0."""

    bound = 1.0

    def fill(self, tile: Tensor, x: Tensor, y: Tensor, xx: Tensor, yy: Tensor) -> None:
        torch.mm(x, y.T, out=tile)
        tile.div_(xx.sqrt().to(tile.dtype)[:, None]).div_(yy.sqrt().to(tile.dtype)).clamp_(-1, 1)

    def diagonal(self, xx: Tensor) -> Tensor:
        return torch.ones_like(xx)


def median_bandwidth(x: Tensor, rng: torch.Generator) -> float:
    """The median distance between two different rows of ``x`` (n, d), in its units: the usual first choice of a bandwidth
    (Gretton et al. 2012, section 8), here of at most ``MEDIAN_ROWS`` rows drawn with ``rng``.

    Equal rows are left out, since data with many repeats would have a median of 0. It is 1 where all rows are equal.
    """
    x = x[torch.randperm(len(x), generator=rng, device=rng.device)[:MEDIAN_ROWS].to(x.device)].double()
    x = x - x.mean(0)
    xx = x.square().sum(1)
    squares = torch.addmm(xx[:, None] + xx, x, x.T, alpha=-2)
    pairs = squares[torch.ones_like(squares, dtype=torch.bool).triu_(1)]
    # below this a squared distance is the rounding of |x|²
    apart = pairs[pairs > 1e-13 * xx.max()]
    return math.sqrt(float(apart.median())) if len(apart) else 1.0


# ------------------------------------------------------------------------------------------------------------ sums


@dataclass(frozen=True)
class KernelSums:
    """What is left of all pairs of rows of sets 0, 1, …; every number float64.

    row_sums:  row_sums[a][b] (n_a,) = Σ_j k(x_i, y_j), x_i in set a, y_j over all of set b (i itself included where a = b).
    diagonals: diagonals[a] (n_a,) = k(x_i, x_i).
    """

    row_sums: tuple[tuple[Tensor, ...], ...]
    diagonals: tuple[Tensor, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of every set."""
        return tuple(len(d) for d in self.diagonals)

    def others(self, a: int, b: int) -> Tensor:
        """(n_a,) row sums of block (a, b) without the pairs of a row with itself."""
        return self.row_sums[a][b] - self.diagonals[a] if a == b else self.row_sums[a][b]

    def block(self, a: int, b: int, *, unbiased: bool) -> float:
        """Mean of k over the pairs of a row of set a and one of set b, the same number as of b and a. ``unbiased``: without a
        row's pair with itself.

        Raises InputError where that leaves no pair.
        """
        n, m = self.sizes[a], self.sizes[b]
        if not (unbiased and a == b):
            # a tile summed by rows and by columns rounds to two numbers
            return (float(self.row_sums[a][b].sum()) + float(self.row_sums[b][a].sum())) / (2 * n * m)
        if n < 2:
            raise InputError(f"set {a}: expected 2 rows or more, got {n}; give more rows")
        return float(self.others(a, a).sum()) / (n * (n - 1))

    def quadratic(self, reference: int) -> tuple[Array, Array, float]:
        """Q (K, K), b (K,), c of MMD²(w) = w'Qw − 2 b'w + c, where w weighs all sets but ``reference``, in their order.

        It is the V-form: the squared length of a mean embedding, hence never negative. Q is symmetric to the bit, and positive
        semidefinite up to the rounding of the sums. Each of its diagonal blocks is too large by about E k(X, X) / n, so optimise
        it and report :meth:`mmd2`.
        """
        blocks = self._blocks(unbiased=False)
        sets = [a for a in range(len(self.sizes)) if a != reference]
        return blocks[np.ix_(sets, sets)], blocks[sets, reference], float(blocks[reference, reference])

    def mmd2(self, w: ArrayLike, reference: int) -> Estimate:
        """Unbiased MMD² between the mixture Σ w_a (set a) and set ``reference``, with its delete-one jackknife error.

        w: one weight for each set but ``reference``, in their order. Two rows of different sets are independent, so off-diagonal
        blocks use all pairs and only diagonal ones leave out i = j (Gretton et al. 2012, equation 3, for mixtures). Where the
        laws are equal it is about 0, above or below; a jackknife then counts the variance of the statistic twice, but its law
        is skewed, and ± 2 errors cover about 95 %. Just off equality they cover 90 %.

        Raises InputError on a wrong number of weights or a set of fewer than 3 rows.
        """
        u = self._signed(w, reference)
        return self._estimate(np.outer(u, u), reference)

    def gain(self, w: ArrayLike, v: ArrayLike, reference: int) -> Estimate:
        """How much nearer to set ``reference`` the mixture w is than v: MMD²(v) − MMD²(w), unbiased, and the jackknife error of
        that difference, smaller than those of its terms because both see the same rows. Raises as :meth:`mmd2`."""
        near, far = self._signed(w, reference), self._signed(v, reference)
        return self._estimate(np.outer(far, far) - np.outer(near, near), reference)

    def _signed(self, w: ArrayLike, reference: int) -> Array:
        """u with u'Bu = MMD²(w) over the blocks B: the weights, and −1 at the reference."""
        weights = np.asarray(w, dtype=np.float64)
        if weights.shape != (len(self.sizes) - 1,):
            raise InputError(
                f"w: expected {len(self.sizes) - 1} weights, one for each set but the reference, got shape {weights.shape}; "
                "leave the reference out"
            )
        return np.insert(weights, reference, -1.0)

    def _estimate(self, coefficients: Array, reference: int) -> Estimate:
        """θ = Σ_ab C_ab B_ab over the unbiased blocks, C symmetric, and its jackknife error.

        The sets are independent, so their jackknife variances add up (Arvesen 1969). Without row i of set a, θ is less by
        2 (C_aa r_i / (n−1)(n−2) + Σ_b≠a C_ab R_ab,i / (n−1) m_b) and a constant, with r_i the row sum without k(x_i, x_i).
        """
        self._need_rows(3)
        variance = 0.0
        for a, n in enumerate(self.sizes):
            moved = sum(
                coefficients[a, b] / ((n - 1) * (n - 2 if a == b else m)) * self.others(a, b) for b, m in enumerate(self.sizes)
            )
            variance += 4 * (n - 1) ** 2 / n * float(torch.as_tensor(moved).var())
        value = float((coefficients * self._blocks(unbiased=True)).sum())
        return Estimate(value, math.sqrt(variance), self.sizes[reference])

    def _blocks(self, *, unbiased: bool) -> Array:
        k = range(len(self.sizes))
        return np.array([[self.block(a, b, unbiased=unbiased) for b in k] for a in k])

    def _need_rows(self, least: int) -> None:
        for a, n in enumerate(self.sizes):
            if n < least:
                raise InputError(f"set {a}: expected {least} rows or more, got {n}; give more rows")


def sums(sets: Sequence[Tensor], kernel: Kernel, *, dtype: torch.dtype = torch.float32) -> KernelSums:
    """Row sums of ``kernel`` over all pairs of rows of ``sets``, each (n_a, d) with finite numbers.

    Time is that of n² d multiplications, n the rows of all sets together: half of all pairs, the other half by symmetry.
    Memory is a few tiles beyond the sets. Products are taken in ``dtype`` of rows minus their grand mean where the kernel
    does not change by that, and added up in float64: float32 sums agree with float64 ones to about 1e-7, unless the
    bandwidth is hundreds of times smaller than the spread of the rows. The cubic kernel has a way that takes no pairs at all,
    through third moments in float64, which is used where it is the shorter one.

    Raises InputError on sets that are empty or have different numbers of features.
    """
    _check(sets)
    if isinstance(kernel, Cubic) and _moments_are_shorter(sets):
        return _sums_by_moments(sets, kernel)
    rows = _Rows(sets, _centre(sets, kernel), dtype)
    row_sums = [[torch.zeros(len(x), dtype=torch.float64, device=x.device) for _ in sets] for x in sets]
    scratch = torch.empty(TILE * TILE, dtype=dtype, device=sets[0].device)
    parts = list(_parts(sets))
    for i, left in enumerate(parts):
        x, xx = rows.take(left, 0)
        for right in parts[i:]:
            y, yy = rows.take(right, 1)
            tile = scratch[: len(x) * len(y)].view(len(x), len(y))
            kernel.fill(tile, x, y, xx, yy)
            if left == right:
                tile.fill_diagonal_(0)
            else:
                row_sums[right.of][left.of][right.rows] += tile.sum(0)
            row_sums[left.of][right.of][left.rows] += tile.sum(1)
    diagonals = tuple(kernel.diagonal(xx) for xx in rows.squares)
    for a, diagonal in enumerate(diagonals):
        row_sums[a][a] += diagonal
    return KernelSums(tuple(tuple(row) for row in row_sums), diagonals)


class _Part(NamedTuple):
    """At most TILE rows of set ``of``."""

    of: int
    rows: slice


def _parts(sets: Sequence[Tensor]) -> Iterator[_Part]:
    for a, x in enumerate(sets):
        edges = np.linspace(0, len(x), math.ceil(len(x) / TILE) + 1).astype(int)
        yield from (_Part(a, slice(int(i), int(j))) for i, j in zip(edges, edges[1:], strict=False))


class _Rows:
    """Rows of the sets, less ``centre`` and in the precision of the products, a part at a time; squared lengths of all."""

    def __init__(self, sets: Sequence[Tensor], centre: Tensor | None, dtype: torch.dtype) -> None:
        self.sets, self.centre, self.dtype = sets, centre, dtype
        self._scratch = [torch.empty(TILE, sets[0].shape[1], dtype=dtype, device=sets[0].device) for _ in range(2)]
        self.squares = [torch.empty(len(x), dtype=torch.float64, device=x.device) for x in sets]
        for part in _parts(sets):
            rows = self._ready(part, 0)
            self.squares[part.of][part.rows] = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).square()

    def take(self, part: _Part, side: int) -> tuple[Tensor, Tensor]:
        """Rows (n, d) of ``part``, good until that side takes another, and their squared lengths (n,)."""
        return self._ready(part, side), self.squares[part.of][part.rows]

    def _ready(self, part: _Part, side: int) -> Tensor:
        x = self.sets[part.of][part.rows]
        if self.centre is None:
            return x.to(self.dtype)
        return torch.sub(x, self.centre.to(x.dtype), out=self._scratch[side][: len(x)])


def _centre(sets: Sequence[Tensor], kernel: Kernel) -> Tensor | None:
    """(d,) the mean of all rows, which need not be exact, only near; None where ``kernel`` would notice a shift."""
    if not kernel.centred:
        return None
    sizes = sets[0].new_tensor([len(x) for x in sets], dtype=torch.float64)
    return (sizes / sizes.sum()) @ torch.stack([x.mean(0).double() for x in sets])


def _check(sets: Sequence[Tensor]) -> None:
    if not sets:
        raise InputError("sets: expected one set of rows or more, got none; give a tensor (rows, features)")
    for a, x in enumerate(sets):
        if x.dim() != 2 or x.numel() == 0 or x.shape[1] != sets[0].shape[1]:
            raise InputError(
                f"set {a}: expected shape (rows, features) with one of each or more and the features of set 0, "
                f"got {tuple(x.shape)}; give the same features of each set"
            )


# --------------------------------------------------------------------------------------- the cubic kernel by moments


def _moments_are_shorter(sets: Sequence[Tensor]) -> bool:
    """n D³ (1 + K) multiplications and additions with D = d + 1, measured to be four times as slow as the n² d of the tiles."""
    wide = sets[0].shape[1] + 1
    return 4 * (1 + len(sets)) * wide**3 < sum(len(x) for x in sets) * (wide - 1)


def _sums_by_moments(sets: Sequence[Tensor], kernel: Cubic) -> KernelSums:
    """With z = (x / √d, 1), k(x, y) is (z·z′)³ = Σ_pqr z_p z_q z_r z′_p z′_q z′_r: row sums follow from the third moments of
    each set, of which p ≤ q are enough."""
    wide = sets[0].shape[1] + 1
    p, q = torch.triu_indices(wide, wide, device=sets[0].device)
    often = torch.where(p == q, 1.0, 2.0).double()
    step = max(1, CHUNK_ENTRIES // len(p))

    def chunks(x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in x.double().split(step):
            z = torch.cat([rows / math.sqrt(kernel.dims), rows.new_ones(len(rows), 1)], 1)
            yield z, z[:, p] * z[:, q]

    moments = torch.cat([sum((zz.T @ z for z, zz in chunks(x)), torch.zeros(())) for x in sets], 1) * often[:, None]
    row_sums = []
    for x in sets:
        each = [((zz @ moments).view(len(z), len(sets), wide) * z[:, None]).sum(2) for z, zz in chunks(x)]
        row_sums.append(tuple(torch.cat(each).T.contiguous()))
    diagonals = tuple(kernel.diagonal(x.double().square().sum(1)) for x in sets)
    return KernelSums(tuple(row_sums), diagonals)
