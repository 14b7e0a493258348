"""Ratios of two kernel density estimates with one bandwidth, and their variational weighting (Yoon et al. 2023).

    p̂_α(y) = (1/n) Σ_i α(p_i) K_h(y − p_i),    q̂_α alike, with the same α;    K_h Gaussian

Without weights (α = 1) the estimate of the ratio is biased. With β = log α, d = ∇log p − ∇log q and v = Δp/p − Δq/q, where
Δp/p = Δlog p + |∇log p|², the leading term of the bias of log p̂_α − log q̂_α is h² B,

    B = ∇β·d + v/2,

so that weights with a small B remove it; what is left falls as h⁴. Three ways to find them:

- analytic: B vanishes for two Gaussians of one covariance Σ with β = ½ (y − μ̄)ᵀ Σ⁻¹ (y − μ̄), μ̄ the mean of the two means.
- model: d and v of one Gaussian fitted to each sample; β a sum of kernels with the least mean B² at the rows.
- score: d and v of a network trained on each sample by sliced score matching; β a network with the least mean B².

The released code of the paper has the sign of |∇log p|² in v wrong where scores are learnt; for equal covariances that cannot be
seen (tests/ratio/test_kernel_densities.py shows it on one dimension).
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable, Iterator
from typing import Any, Self, cast

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from mixtura.contracts import Batch, Learner, Phase, Stage, Turn
from mixtura.ground.kernels import median_bandwidth
from mixtura.ground.losses import sliced_score_matching
from mixtura.ground.nets.coders import perceptron
from mixtura.ground.rng import seeded
from mixtura.ratio.gaussian import fitted
from mixtura.ratio.ratio import Ratio
from mixtura.train.fit import Recipe, fit

#: the share of the rows of each sample that the bandwidth is chosen on, the fewest and the most, and the range that is searched
BANDWIDTH_SHARE, BANDWIDTH_ROWS, RANGE = 0.25, (50, 1_000), (0.02, 5.0)
#: pairs of a tile
TILE = 2**20
#: of the model-based weights: kernels of each sample, ridge of the weights, and variance added to those of the Gaussians
BASIS, RIDGE, WIDER = 400, 0.1, 0.1
#: of the networks: hidden widths and steps
HIDDEN, STEPS = (128, 128), 1_500

#: β of rows (n, d) → (n,)
LogWeight = Callable[[Tensor], Tensor]


def unweighted(p: Tensor, q: Tensor, rng: torch.Generator) -> LogWeight:
    """β = 0: plain kernel density estimates."""
    return lambda y: torch.zeros(len(y), dtype=torch.float64)


class KernelDensities(Ratio):
    """log p̂_α − log q̂_α; ``weigh`` finds β from the rows of both samples."""

    def __init__(self, weigh: Callable[[Tensor, Tensor, torch.Generator], LogWeight] = unweighted) -> None:
        self.weigh = weigh

    def fit(self, p: Tensor, q: Tensor, rng: torch.Generator) -> Self:
        self._rows = p, q
        self.bandwidth = shared_bandwidth(p, q, rng)
        weight = self.weigh(p, q, rng)
        self._log_weights = weight(p), weight(q)
        return self

    def log_ratio(self, y: Tensor) -> Tensor:
        return self._log_density(y, 0) - self._log_density(y, 1)

    def left_out(self) -> tuple[Tensor, Tensor]:
        """log r at its own rows, each without its own kernel. The bandwidth, one number, and β have seen it."""
        p, q = self._rows
        at_p = self._log_density(p, 0, itself=True) - self._log_density(p, 1)
        return at_p, self._log_density(q, 0) - self._log_density(q, 1, itself=True)

    def _log_density(self, y: Tensor, sample: int, *, itself: bool = False) -> Tensor:
        """log p̂_α (b,) up to a constant of both samples. ``itself``: y are the rows of the sample."""
        rows, log_weights = self._rows[sample], self._log_weights[sample]
        found = [
            torch.logsumexp(tile + log_weights, 1)
            for tile in _log_kernels(y, rows, self.bandwidth, itself=itself)
        ]
        return torch.cat(found) - math.log(len(rows) - itself)


def _log_kernels(y: Tensor, rows: Tensor, bandwidth: float, *, itself: bool) -> Iterator[Tensor]:
    """Tiles (b, n) of −|y_i − x_j|²/2h², −∞ where i = j if y are the rows themselves."""
    step = max(1, TILE // len(rows))
    for i in range(0, len(y), step):
        tile = torch.cdist(y[i : i + step], rows, compute_mode="use_mm_for_euclid_dist").square_().mul_(-0.5 / bandwidth**2)
        if itself:
            tile.diagonal(i).fill_(-math.inf)
        yield tile


def shared_bandwidth(p: Tensor, q: Tensor, rng: torch.Generator) -> float:
    """The h with the largest mean leave-one-out log-likelihood of both samples (Duin 1976), by a bounded search over log h. As in
    the paper a quarter of the rows choose it: it is then wider than is best without weights, whose bias falls as h², and near
    what is best with weights, whose bias falls as h⁴. Equal rows are kept once: copies would make h vanish."""
    squares, (fewest, most) = [], BANDWIDTH_ROWS
    for rows in (p, q):
        chosen = min(max(round(BANDWIDTH_SHARE * len(rows)), fewest), most)
        some = torch.unique(rows[torch.randperm(len(rows), generator=rng)[:chosen]], dim=0)
        squares.append((torch.cdist(some, some).square(), some.shape[1]))

    def loss(log_h: float) -> float:
        total = 0.0
        for square, d in squares:
            if len(square) > 1:
                tile = (square * (-0.5 * math.exp(-2 * log_h))).fill_diagonal_(-math.inf)
                total -= float(torch.logsumexp(tile, 1).mean()) - d * log_h
        return total

    bounds = tuple(map(math.log, RANGE))
    return math.exp(cast(Any, minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 0.02})).x)


def analytic(p: Tensor, q: Tensor, rng: torch.Generator) -> LogWeight:
    """β of two Gaussians of one covariance, from the means and the pooled covariance of the rows."""
    centred = torch.cat([p - p.mean(0), q - q.mean(0)])
    pooled = fitted(centred)
    middle = (p.mean(0) + q.mean(0)) / 2

    def weight(y: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(pooled.scale_tril, (y - middle).T, upper=False).square().sum(0) / 2

    return weight


def model_based(p: Tensor, q: Tensor, rng: torch.Generator) -> LogWeight:
    """β(y) = Σ_m w_m k(y, b_m) with the least mean B² at the rows, plus a ridge on w. With G_mi = d(y_i)·∇k(y_i, b_m),

    w = −(2 G Gᵀ/N + λ I)⁻¹ G v/N.
    """
    rows, basis = torch.cat([p, q]), torch.cat([p[:BASIS], q[:BASIS]])
    laws, scores, curvatures = [fitted(sample, WIDER) for sample in (p, q)], [], []
    for law in laws:
        score = -torch.linalg.solve(law.covariance_matrix, (rows - law.mean).T).T
        scores.append(score)
        curvatures.append(score.square().sum(1) - law.precision_matrix.trace())
    apart, v = scores[0] - scores[1], curvatures[0] - curvatures[1]
    width = median_bandwidth(rows, rng)
    second, first = torch.zeros(len(basis), len(basis), dtype=torch.float64), torch.zeros(len(basis), dtype=torch.float64)
    for some in torch.arange(len(rows)).split(4_096):
        y, d = rows[some], apart[some]
        # d·∇k(y, b) = k (d·b − d·y)/ℓ²: products of matrices, and no array (rows, basis, columns)
        slopes = _kernel(y, basis, width) * (d @ basis.T - (d * y).sum(1, keepdim=True)) / width**2
        second += slopes.T @ slopes
        first += slopes.T @ v[some]
    n = len(rows)
    ridge = RIDGE * torch.eye(len(basis), dtype=torch.float64)
    w = -torch.linalg.solve(2 * second / n + ridge, first / n)

    def weight(y: Tensor) -> Tensor:
        return torch.cat([_kernel(part, basis, width) @ w for part in y.split(4_096)])

    return weight


def _kernel(x: Tensor, y: Tensor, width: float) -> Tensor:
    return torch.cdist(x, y).square().mul_(-0.5 / width**2).exp_()


def by_scores(p: Tensor, q: Tensor, rng: torch.Generator) -> LogWeight:
    """β a network with the least mean B², from networks of log p and log q trained by sliced score matching."""
    scores, curvatures, rows = [], [], torch.cat([p, q]).float()
    for sample in (p, q):
        energy = _Energy(sample.shape[1], rng)
        _train(energy, Batch(x=sample.float()), rng)
        score, laplacian = (torch.cat(parts) for parts in zip(*map(energy.score, rows.split(512)), strict=True))
        scores.append(score)
        curvatures.append(laplacian + score.square().sum(1))
    weight = _Weight(p.shape[1], rng)
    _train(weight, Batch(x=rows, apart=scores[0] - scores[1], curved=curvatures[0] - curvatures[1]), rng)

    @torch.no_grad()
    def of_rows(y: Tensor) -> Tensor:
        return torch.cat([weight(part.float()) for part in y.split(4_096)]).double()

    return of_rows


def _train(learner: Learner, data: Batch, rng: torch.Generator) -> None:
    for _ in fit(learner, data, Recipe(steps=STEPS, rate=1e-3, every=25, decay=1e-3), rng=rng):
        pass


class _Field(Learner, ABC):
    """A function (n, d) → (n,) by a perceptron."""

    def __init__(self, inputs: int, rng: torch.Generator) -> None:
        super().__init__()
        with seeded(int(torch.randint(2**62, (), generator=rng))):
            self.net = perceptron(inputs, HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[:, 0]

    def _stage(self, name: str, loss: Callable[[Turn], Tensor]) -> tuple[Stage, ...]:
        return (Stage(name, (Phase(name, tuple(self.parameters()), loss),), loss, unit="loss"),)


class _Energy(_Field):
    """−log p up to a constant, trained by sliced score matching."""

    def stages(self) -> tuple[Stage, ...]:
        return self._stage("score", lambda turn: sliced_score_matching(self, turn.x, turn.rng))

    def score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """∇log p (n, d) and Δ log p (n,) at rows (n, d)."""
        one = torch.func.grad(lambda row: -self(row[None])[0])
        with torch.no_grad():
            curvature = torch.vmap(torch.func.jacfwd(one))(x)
            return torch.vmap(one)(x), curvature.diagonal(dim1=1, dim2=2).sum(1)


class _Weight(_Field):
    """β, trained to the least mean B²."""

    def stages(self) -> tuple[Stage, ...]:
        return self._stage("weight", self._bias)

    def _bias(self, turn: Turn) -> Tensor:
        rows = turn.of("rows")
        x = rows["x"].detach().requires_grad_()
        (slope,) = torch.autograd.grad(self(x).sum(), x, create_graph=True)
        return ((slope * rows["apart"]).sum(1) + rows["curved"] / 2).square().mean()
