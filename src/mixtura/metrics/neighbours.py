"""What the nearest neighbours of generated rows say."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from mixtura.contracts import InputError
from mixtura.metrics.likelihood import Estimate

Array = NDArray[np.float64]

TILE_ENTRIES = 2**22


def memorisation(samples: ArrayLike, train: ArrayLike, held_out: ArrayLike, *, rng: torch.Generator) -> Estimate:
    """Share of ``samples`` (m, d) whose nearest row is among ``train`` (t, d) rather than ``held_out`` (h, d).

    ½ says that the training rows attract no more than other rows of the same law, 1 that samples are copies.
    Both reference sets have min(t, h) rows, the larger one being subsampled with ``rng``: a larger set would
    be nearer by its size alone. Ties count ½. Distances are Euclidean in the features as given.

    The error is binomial in an effective number of samples that holds both the luck of the samples and that
    of which rows came to train and which were held out. On equal laws the labels of the 2r reference rows
    could be dealt again, and samples that share their nearest row share its label: with u_j untied samples
    at row j that deal has variance (2r / (2r−1)) (Σ u_j² − (Σ u_j)² / 2r) / 4m², exactly where nothing ties.
    It is taken as ¼ / effective number, which is at most m. The share in p(1 − p) is drawn towards ½ by two
    successes and two failures (Agresti & Coull 1998), so that the error is not zero at a value of 0 or 1.

    Raises InputError on arrays that are not (rows, d) with one d, or not finite.
    """
    ours, seen, unseen = _check(samples, "samples"), _check(train, "train"), _check(held_out, "held_out")
    for name, rows in (("train", seen), ("held_out", unseen)):
        if rows.shape[1] != ours.shape[1]:
            raise InputError(
                f"{name}: expected {ours.shape[1]} features as in samples, got {rows.shape[1]}; give the same features of each"
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
    """Independent labels behind ``m`` samples, of which ``sharing[j]`` have reference row j as their nearest."""
    spread = float(np.square(sharing - sharing.mean()).sum()) * len(sharing) / (len(sharing) - 1) / m**2
    return 1 / max(spread, 1 / m)


def _subsample(x: Array, size: int, rng: torch.Generator) -> Array:
    if len(x) == size:
        return x
    return x[torch.randperm(len(x), generator=rng, device=rng.device)[:size].cpu().numpy()]


def _nearest(x: Array, reference: Array) -> tuple[Array, NDArray[np.intp]]:
    """(m,) squared distance to, and index of, the nearest row of ``reference``.

    One matrix product a tile finds the row; the distance is then taken directly, since the rounding of the
    product would break the ties that copies and whole numbers make.
    """
    centre = reference.mean(0)
    centred = reference - centre
    half_norms = np.square(centred).sum(1) / 2
    rows = max(1, TILE_ENTRIES // max(reference.shape))
    nearest = [np.argmin(half_norms - (x[i : i + rows] - centre) @ centred.T, 1) for i in range(0, len(x), rows)]
    index = np.concatenate(nearest)
    direct = [np.square(x[i : i + rows] - reference[index[i : i + rows]]).sum(1) for i in range(0, len(x), rows)]
    return np.concatenate(direct), index


def _check(x: ArrayLike, name: str) -> Array:
    array = np.asarray(x, dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        raise InputError(
            f"{name}: expected shape (rows, features) with one of each or more, got {array.shape}; flatten each row to features"
        )
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        row, column = bad[0]
        raise InputError(
            f"{name}: row {row}, column {column} is {array[row, column]}, expected a finite number; encode missing values first"
        )
    return array
