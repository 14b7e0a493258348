"""The steps that the numbers of a column are written in, and the values that hold a share of its rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mixtura.contracts import ON_STEPS
from mixtura.data.field import Field

#: values off the steps of their column that are kept as atoms, at most
MOST_APART = 64
#: of the values of a column that is written in steps, at least this share lies on them
SHARE_ON_STEPS = 0.999
#: a value with more than this share of the rows that also holds this many times the median value's rows is an atom
SHARE_OF_ATOM, STANDING_OUT = 0.02, 10

#: distinct values are cut into this many parts; the step of a part without exceptions is a candidate for the column
_PARTS = 32


def lattice(values: np.ndarray, stored: np.dtype) -> tuple[int, int, int] | None:
    """(decimals, step, origin): ``SHARE_ON_STEPS`` of the values are (origin + k·step) / 10^decimals for a whole k, with the
    largest such step and the fewest decimals; None if there is none of at most 6 decimals.

    A float counts as written with d decimals if it is the float nearest to that decimal *in the precision
    it was stored in*: the float32 nearest to 0.1 is written 0.1.
    """
    significand = 2.0 ** (np.finfo(stored).nmant + 1)
    distinct, counts = np.unique(values, return_counts=True)
    for decimals in range(7):
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.rint(distinct * 10.0**decimals)
            on = (scaled / 10.0**decimals).astype(stored) == distinct.astype(stored)
        on &= np.abs(scaled) <= significand  # beyond, every float is whole
        if _most(counts[on], counts[~on]):
            return decimals, *steps(scaled[on].astype(np.int64), counts[on], counts[~on])
    return None


def steps(distinct: np.ndarray, counts: np.ndarray, odd: np.ndarray | tuple[()] = ()) -> tuple[int, int]:
    """(step, origin): of distinct ascending whole numbers that occur so often, ``SHARE_ON_STEPS`` are origin + k·step, with the
    largest such step. origin is the least of them. ``odd``: how often others occur, which lie off the steps for certain."""
    parts = min(_PARTS, len(distinct) // 4)
    # parts of neighbouring values, so that a value off the steps changes the step of its own part alone
    found = {step_of(part) for part in np.array_split(distinct, parts)} if parts > 1 else set()
    for step in sorted(found, reverse=True):
        residues = ((distinct - distinct[0]) % step).astype(np.int64)
        values, at = np.unique(residues, return_inverse=True)
        kept = at == np.bincount(at, weights=counts).argmax()
        if kept.sum() > 1 and _most(counts[kept], np.concatenate([counts[~kept], odd])):
            return step_of(distinct[kept]), int(distinct[kept][0])
    return step_of(distinct), int(distinct[0])


def _most(on: np.ndarray, off: np.ndarray) -> bool:
    """Whether nearly all cells are on the steps. on (k,), off (m,): how often each value on and off the steps occurs. Values
    off the steps must also be few among the values, or among all cells but those of the commonest: where nearly all are 0,
    the others say what the steps are. A value that will be an atom wherever it lies, such as a cap one above the steps, is no
    evidence against them, if such values are few among the values."""
    if len(off) == 0:
        return True
    if len(on) == 0:
        return False
    atom = (off > SHARE_OF_ATOM * (on.sum() + off.sum())) & (off >= STANDING_OUT * np.median(on))
    if 10 * len(off) <= len(on) and atom.any():
        return _most(on, off[~atom])
    if off.sum() > (1 - SHARE_ON_STEPS) * (on.sum() + off.sum()):
        return False
    return 10 * len(off) <= len(on) or off.sum() <= (1 - SHARE_ON_STEPS) * (on.sum() - on.max())


def step_of(sorted_values: np.ndarray) -> int:
    """Greatest common divisor of the differences of distinct whole numbers (1 for a single number)."""
    return int(np.gcd.reduce(np.diff(sorted_values))) if len(sorted_values) > 1 else 1


def with_range_and_atoms(
    field: Field, values: np.ndarray, on_steps: np.ndarray, stored: np.dtype = np.dtype(np.float64)  # noqa: B008
) -> Field:
    """``field`` with its range and its atoms. Atoms are the values with more than 2 % of the rows that also stand out from the
    others, the commonest values off the steps (in the precision they are ``stored`` in), and values on a wall of a column without
    steps. values, on_steps: (n,) the cells in tensor units as they are, and moved to the nearest step."""
    apart = np.zeros(len(values), dtype=bool)
    if field.step:
        apart = (np.abs(values - on_steps) > ON_STEPS * field.resolution) & (values.astype(stored) != on_steps.astype(stored))
    odd, often = np.unique(values[apart], return_counts=True)
    kept = odd[np.argsort(-often, kind="stable")[:MOST_APART]]
    moved = apart & ~np.isin(values, kept)
    values = np.where(apart & ~moved, values, on_steps)
    distinct, counts = np.unique(values, return_counts=True)
    standing_out = STANDING_OUT * float(np.median(counts)) if field.step else 3
    atom = (counts > SHARE_OF_ATOM * (len(values) + field.absent)) & ((counts >= standing_out) | _piled(field, distinct, counts))
    most = sorted(np.flatnonzero(atom), key=lambda i: -counts[i])[:8]
    walls = [] if field.step else [wall for wall in (field.floor, field.ceiling) if wall in (distinct[0], distinct[-1])]
    atoms = sorted({*(float(distinct[i]) for i in most), *map(float, kept), *(float(wall) for wall in walls if wall is not None)})
    return replace(field, low=float(distinct[0]), high=float(distinct[-1]), atoms=tuple(atoms), moved=int(moved.sum()))


def _piled(field: Field, distinct: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(k,) bool: the values of a column in steps that hold far more rows than the median value and than each of the two steps on
    either side, as a cap does: three times as many, and three standard errors more."""
    if not field.step:
        return np.zeros(len(distinct), dtype=bool)
    k = np.rint((distinct - distinct[0]) / field.resolution)
    beside = np.full(len(distinct), float(np.median(counts)))
    for shift in (-2, -1, 1, 2):
        at = np.searchsorted(k, k + shift).clip(max=len(k) - 1)
        beside = np.maximum(beside, np.where(k[at] == k + shift, counts[at], 0))
    return counts >= 3 * beside + 3 * np.sqrt(3 * beside + 1)
