"""A stranger's forest: each column given those before it by regression trees, a Gaussian in each leaf; exact, in closed form."""

from __future__ import annotations

import math

import torch
from pydantic import BaseModel
from sklearn.ensemble import RandomForestRegressor
from torch import Tensor, nn

from mixtura.contracts import ClosedForm, Density, InputError, Space
from mixtura.ground.encode import Columns
from mixtura.ground.rng import normal
from mixtura.ground.trees import Forest


class Config(BaseModel):
    """trees: how many for each column. leaf: rows in a leaf at least."""

    trees: int = 8
    leaf: int = 20


class ForestDensity(Density, ClosedForm):
    """p(x) = Π_j mean over trees of N(x_j; μ, σ²) of the leaf that x_<j falls into."""

    def __init__(self, space: Space, config: Config) -> None:
        super().__init__(space)
        self.config, self.columns = config, Columns(space)
        self.forests = nn.ModuleList()
        for j in range(space.dims):
            self.forests.append(Forest.blank(max(j, 1), config.trees, (2,)))

    def fit_closed(self, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
        self.columns.prepare(x)
        values = self.columns.encode(x)
        for j in range(self.space.dims):
            seed = int(torch.randint(2**31, (), generator=rng))
            grown = RandomForestRegressor(self.config.trees, min_samples_leaf=self.config.leaf, random_state=seed)
            inputs, target = self._inputs(values, j), values[:, j]
            forest = Forest.of(grown.fit(inputs.numpy(), target.numpy()))
            where = forest.leaves(inputs).flatten()
            each, zeros = target.repeat_interleave(forest.trees), torch.zeros(len(forest.value), dtype=torch.float64)
            # one row as wide as the column beside those of the leaf
            count = zeros.index_add(0, where, torch.ones_like(each)) + 1
            mean = zeros.index_add(0, where, each) / count
            variance = (zeros.index_add(0, where, (each - mean[where]).square()) + 1) / count
            self.forests[j] = forest.holding(torch.stack([mean, variance], 1))

    def _inputs(self, values: Tensor, j: int) -> Tensor:
        """(n, max(j, 1)) the columns before j."""
        return values[:, :j] if j else torch.zeros(len(values), 1, dtype=torch.float64)

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        values, nats = self.columns.encode(x), self.columns.log_jacobian(x)
        for j, forest in enumerate(self.forests):
            mean, variance = forest.values(self._inputs(values, j)).unbind(2)  # type: ignore[operator]
            each = -0.5 * ((values[:, [j]] - mean).square() / variance + variance.log() + math.log(2 * math.pi))
            nats = nats + torch.logsumexp(each, 1) - math.log(self.config.trees)
        return nats

    def _sample(self, n: int, context: Tensor | None, rng: torch.Generator) -> Tensor:
        values = torch.zeros(n, self.space.dims, dtype=torch.float64)
        for j, forest in enumerate(self.forests):
            which = torch.randint(self.config.trees, (n, 1, 1), generator=rng)
            told = forest.values(self._inputs(values, j))  # type: ignore[operator]
            mean, variance = told.gather(1, which.expand(n, 1, 2)).squeeze(1).unbind(1)
            values[:, j] = mean + variance.sqrt() * normal((n,), rng, mean)
        return self.columns.decode(values)


def suggest(space: Space, rows: int, seconds: float | None = None) -> Config:
    """The only one."""
    return Config()


def build(
    space: Space, *, encoding: Columns | None = None, context_shape: tuple[int, ...] | None = None, config: Config,
    rng: torch.Generator,
) -> ForestDensity:  # fmt: skip
    """An unfitted model; InputError but for plain numbers without a context."""
    if context_shape is not None or not space.plain:
        raise InputError("random_forest: this family models plain numbers without a context; use flow")
    model = ForestDensity(space, config)
    model.columns.adopt(encoding)
    return model
