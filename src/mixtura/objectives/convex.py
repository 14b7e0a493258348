"""Losses of a mixture that are convex in its weights but not quadratic, for :func:`mixtura.simplex.convex.minimise_convex`.

Each is built once from the samples of all arms; each evaluation then costs one factorisation or one matrix product.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import get_lapack_funcs
from scipy.optimize import minimize_scalar
from torch import Tensor

from mixtura.contracts import InputError
from mixtura.ground.kernels import Kernel

Array = NDArray[np.float64]

(pivoted_cholesky,) = get_lapack_funcs(("pstrf",), dtype=np.float64)

#: eigenvalues are raised by this, relative to their mean: the derivative of a root or a logarithm has no bound at 0, and f stays
#: convex with exactly the gradient that is given
RAISED = 1e-14

#: eigenvalues under this, relative to the largest, belong to directions that no arm has
NO_DIRECTION = 1e-15

#: rows of all arms together that an entropy is taken of
ENTROPY_ROWS = 2_000

#: samples of one arm and reference rows that a bandwidth is fitted on
BANDWIDTH_ROWS = 1_000

#: bandwidths tried first, a geometric ladder down from the root mean square distance, of this ratio
LADDER, RATIO = 24, 0.75

#: entries of a tile of distances
TILE_ENTRIES = 2**22


class Convex(ABC):
    """A convex, differentiable f of the weights a (m,) ≥ 0, Σa = 1."""

    @abstractmethod
    def value_and_gradient(self, a: ArrayLike) -> tuple[float, Array]:
        """f(a) and ∇f(a) (m,). The gradient is up to a common constant, which does not matter on the simplex."""

    def value(self, a: ArrayLike) -> float:
        """f(a)."""
        return self.value_and_gradient(a)[0]

    def gradient(self, a: ArrayLike) -> Array:
        """∇f(a) (m,)."""
        return self.value_and_gradient(a)[1]


class FrechetOfMixture(Convex):
    """Fréchet distance between the Gaussians that fit the mixture and the reference, in squared data units.

    Arm i has mean μ_i and covariance S_i, the mixture μ = Σ a_i μ_i and S = Σ a_i (S_i + (μ_i − μ)(μ_i − μ)'). With means
    measured from that of the reference, W'W its covariance and M_i = S_i + μ_i μ_i',

        f(a) = Σ a_i tr M_i + tr W'W − 2 tr T^½,        T = W S W',
        ∂f/∂a_i = tr M_i − tr T^−½ W (S_i + (μ_i − μ)(μ_i − μ)') W'        (up to a common number).

    f is convex: S is concave in a, and S → tr (W S W')^½ is concave and increasing. W is the reference's triangular root, or its
    rows where they are fewer than its features, and T is kept on the directions that arms have: it is no larger than features,
    reference rows or samples in all. Covariances have n − 1 in their denominators, so that f at a corner is the distance of that
    arm. Eigenvalues of T are raised by 1e-14 of their mean, a matter of 1e-7 where an arm lacks directions that another has.

    samples: (n_i, d) of each arm, 2 rows or more. reference: (r, d). Raises InputError on other shapes or numbers not finite.
    """

    def __init__(self, samples: Sequence[Tensor], reference: Tensor) -> None:
        arms = _arms(samples, least=2)
        real = _rows(reference, "reference", least=2, features=arms[0].shape[1])
        mean = real.mean(0)
        centred = (real - mean) / math.sqrt(len(real) - 1)
        root = centred if len(real) <= real.shape[1] else torch.linalg.qr(centred, mode="r").R
        shifted = [x - mean for x in arms]
        means = torch.stack([x.mean(0) for x in shifted])
        spreads = [(x - mu) / math.sqrt(len(x) - 1) for x, mu in zip(shifted, means, strict=True)]
        self._total = np.array([float(x.square().sum() + mu.square().sum()) for x, mu in zip(spreads, means, strict=True)])
        self._of_real = float(centred.square().sum())
        basis = _directions([x @ root.T for x in spreads], (means - means.mean(0)) @ root.T)
        to_basis = root.T @ basis
        self._means = means @ to_basis
        self._spreads = torch.stack([(z := x @ to_basis).T @ z for x in spreads])
        self._raised = RAISED * float(self._spreads.diagonal(dim1=1, dim2=2).mean()) if self._spreads.numel() else 0.0

    def value_and_gradient(self, a: ArrayLike) -> tuple[float, Array]:
        weights = _weights(a, len(self._total))
        between = self._means - weights @ self._means
        form = torch.tensordot(weights, self._spreads, 1) + between.T @ (weights[:, None] * between)
        eigenvalues, vectors = torch.linalg.eigh(form)
        roots = (eigenvalues.clamp(min=0) + self._raised).sqrt()
        inverse = (vectors / roots) @ vectors.T
        moved = (self._spreads * inverse).sum((1, 2)) + ((between @ inverse) * between).sum(1)
        value = float(weights.numpy() @ self._total) + self._of_real - 2 * float(roots.sum())
        return value, self._total - moved.numpy()


def _directions(spreads: Sequence[Tensor], between: Tensor) -> Tensor:
    """(p, q) orthonormal basis of the directions that arms have, from rows (n_i, p) and differences of means (m, p)."""
    rows = torch.cat([*spreads, between])
    if len(rows) < rows.shape[1]:
        vectors, singular, _ = torch.linalg.svd(rows.T, full_matrices=False)
        return vectors[:, singular.square() > NO_DIRECTION * singular.square().max()]
    eigenvalues, vectors = torch.linalg.eigh(rows.T @ rows)
    return vectors[:, eigenvalues > NO_DIRECTION * eigenvalues[-1]]


class Entropy(Convex):
    """Negative von Neumann entropy, nats, of the mixture's kernel operator ρ = Σ a_i ρ_i, which is −log of its Vendi score
    (Friedman & Dieng 2023).

        f(a) = tr ρ log ρ,        ∂f/∂a_i = tr ρ_i log ρ + 1,        ρ_i = mean over samples x of arm i of φ(x) φ(x)'

    with k(x, y) = φ(x)·φ(y) and k(x, x) = 1. A pivoted Cholesky factorisation of all k has φ in its rows, as many numbers as the
    kernel has directions. Eigenvalues are raised by 1e-14 of their mean, below 1e-10 nats in all.

    samples: (n_i, d) of each arm; above 2,000 rows in all a share of each arm, drawn with ``rng``. kernel: with k(x, x) = 1, as
    Gaussian and Cosine. Raises InputError on other shapes, numbers that are not finite, another kernel, and on a row of zeros
    under the cosine.
    """

    def __init__(self, samples: Sequence[Tensor], kernel: Kernel, *, rng: torch.Generator) -> None:
        arms = _subsampled(_arms(samples, least=1), ENTROPY_ROWS, rng)
        rows = torch.cat(arms)
        if not bool((kernel.diagonal(rows.square().sum(1)) == 1).all()):
            raise InputError(f"kernel: expected k(x, x) = 1 as of a Gaussian or cosine kernel, got {kernel}; choose one of these")
        values = kernel(rows, rows)
        if not bool(torch.isfinite(values).all()):
            raise InputError("samples: a row of zeros has no direction for the cosine kernel; drop it, or take a Gaussian kernel")
        # the products of the same pair can round to two numbers
        values = (values + values.T) / 2
        values.fill_diagonal_(1)
        lower, order, rank, _ = pivoted_cholesky(values.numpy(), lower=1, tol=RAISED)
        features = np.zeros((len(rows), rank))
        features[order - 1] = np.tril(lower)[:, :rank]
        self._features = torch.from_numpy(features)
        self._sizes = torch.tensor([len(x) for x in arms])
        self._raised = RAISED / len(rows)

    def value_and_gradient(self, a: ArrayLike) -> tuple[float, Array]:
        weights = _weights(a, len(self._sizes))
        each = (weights / self._sizes).repeat_interleave(self._sizes)
        eigenvalues, vectors = torch.linalg.eigh(self._features.T @ (each[:, None] * self._features))
        raised = eigenvalues.clamp(min=0) + self._raised
        per_row = (self._features @ vectors).square() @ raised.log()
        gradient = [float(part.mean()) + 1 for part in per_row.split(self._sizes.tolist())]
        return float(raised @ raised.log()), np.array(gradient)


class FldLikelihood(Convex):
    """Negative mean log-likelihood, nats, of reference rows y under a mixture of Gaussians around the samples (the density of
    Jiralerspong et al. 2023, section 3, with one bandwidth an arm):

        f(a) = −mean_y log Σ_i a_i p_i(y),        p_i(y) = mean over samples x of arm i of N(y; x, h_i² I).

    h_i is the one under which every second row of the reference is likeliest; f is of the rows between. For fixed bandwidths
    this is stacking: ``mixtura.stack(f.log_probs)`` is its exact optimum.

    log_probs: (r', m) log p_i(y). bandwidths: (m,) in units of the features.
    samples: (n_i, d) of each arm; bandwidths are fitted on a share of many, drawn with ``rng``. reference: (r, d), 4 rows or
    more. Raises InputError on other shapes or numbers not finite.
    """

    def __init__(self, samples: Sequence[Tensor], reference: Tensor, *, rng: torch.Generator) -> None:
        arms = _arms(samples, least=1)
        real = _rows(reference, "reference", least=4, features=arms[0].shape[1])
        seen, scored = real[1::2], real[::2]
        fitted = [_subsampled([x], BANDWIDTH_ROWS, rng)[0] for x in arms]
        self.bandwidths = tuple(_bandwidth(x, seen[:BANDWIDTH_ROWS]) for x in fitted)
        columns = [_log_density(scored, x, h) for x, h in zip(arms, self.bandwidths, strict=True)]
        self.log_probs: Array = torch.stack(columns, 1).numpy()
        self._top = self.log_probs.max(1)
        self._likelihoods = np.exp(self.log_probs - self._top[:, None])

    def value_and_gradient(self, a: ArrayLike) -> tuple[float, Array]:
        mixed = self._likelihoods @ _weights(a, self._likelihoods.shape[1]).numpy()
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return -float(np.mean(np.log(mixed) + self._top)), -(self._likelihoods / mixed[:, None]).mean(0)


def _bandwidth(x: Tensor, y: Tensor) -> float:
    """The likeliest h for rows y around centres x: the best of a ladder, then the best between its neighbours."""
    squares = _squares(y, x)
    widest = math.sqrt(float(squares.mean()) / x.shape[1]) or 1.0

    def loss(log_h: float) -> float:
        return -float(_log_mean(squares, math.exp(log_h), x.shape[1]).mean())

    ladder = [math.log(widest) + i * math.log(RATIO) for i in range(-1, LADDER)]
    best = min(ladder, key=loss)
    found = minimize_scalar(loss, bounds=(best + math.log(RATIO), best - math.log(RATIO)), method="bounded")
    return math.exp(float(found.x))


def _log_density(y: Tensor, x: Tensor, h: float) -> Tensor:
    """(r,) log mean_j N(y; x_j, h² I)."""
    tile = max(1, TILE_ENTRIES // len(x))
    return torch.cat([_log_mean(_squares(part, x), h, x.shape[1]) for part in y.split(tile)])


def _squares(y: Tensor, x: Tensor) -> Tensor:
    centre = x.mean(0)
    return torch.cdist(y - centre, x - centre).square()


def _log_mean(squares: Tensor, h: float, dims: int) -> Tensor:
    return (squares / (-2 * h * h)).logsumexp(1) - math.log(squares.shape[1]) - dims / 2 * math.log(2 * math.pi * h * h)


def _arms(samples: Sequence[Tensor], *, least: int) -> list[Tensor]:
    if len(samples) == 0:
        raise InputError("samples: expected one set or more, got none; give a tensor (rows, features) of each arm")
    first = torch.as_tensor(samples[0])
    features = first.shape[1] if first.dim() == 2 else 0
    return [_rows(x, f"samples of arm {i}", least=least, features=features) for i, x in enumerate(samples)]


def _rows(x: Tensor, name: str, *, least: int, features: int) -> Tensor:
    rows = torch.as_tensor(x).detach().to("cpu", torch.float64)
    if rows.dim() != 2 or rows.shape[1] != features or features == 0 or len(rows) < least:
        raise InputError(
            f"{name}: expected {least} rows or more, all sets with the same features, got shape {tuple(rows.shape)}; "
            "give a tensor (rows, features)"
        )
    finite = torch.isfinite(rows).all(1)
    if not bool(finite.all()):
        raise InputError(f"{name}: row {int((~finite).nonzero()[0])} is not finite; encode or drop missing values first")
    return rows


def _subsampled(arms: Sequence[Tensor], rows: int, rng: torch.Generator) -> list[Tensor]:
    """About ``rows`` rows at most, the same share of each arm."""
    share = rows / sum(len(x) for x in arms)
    if share >= 1:
        return list(arms)
    kept = [max(1, int(share * len(x))) for x in arms]
    return [x[torch.randperm(len(x), generator=rng, device=rng.device)[:n].cpu()] for x, n in zip(arms, kept, strict=True)]


def _weights(a: ArrayLike, m: int) -> Tensor:
    array = np.asarray(a, dtype=np.float64)
    if array.shape != (m,):
        raise InputError(f"a: expected {m} weights, one for each arm, got shape {array.shape}")
    return torch.from_numpy(np.ascontiguousarray(array))
