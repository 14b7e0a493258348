"""What others predict on the UCI regression sets: NGBoost, a deep ensemble, MC dropout, the network of skpro.

    python benchmarks/uci_peers.py --results build/uci [--sets yacht,wine-quality-red] [--splits 20] [--methods NGBoost]

Runs without mixtura, in an environment of its own (uci.py says which). uci.py computes the steps δ in which each y is written,
leaves them in resolution.json beside the results, and prints the table. Every result, one method on one split, is a file of its
own named by what it is the result of; what is there is not computed again, and a run may be stopped and taken up at any moment.

All peers see x and y standardised by the training rows; what they choose, they choose on a fifth of the training rows.

- NGBoost (Duan et al. 2020, section 4): Normal, trees of depth 3. The number of trees is that of the least loss on the held-out
  rows, then all training rows are fitted. Rate .01 and 2,000 trees at most; past 5,000 rows .1 and 200, which is ten times faster
  and on the first splits of kin8nm, power and naval as good (docs/mdn.md).
- Deep ensemble (Lakshminarayanan et al. 2017, section 3): 5 networks of 50 units (protein 100), mean and variance out, 40 epochs
  of batches of 100, no adversarial rows. Adam at .01 or .003, chosen on the held-out rows: at the paper's .1 some fits go astray,
  at .01 all on naval do. Scored twice: as the Gaussian of the mixture's mean and variance, which is the paper's answer, and as
  the mixture.
- MC dropout (Gal & Ghahramani 2016, section 5): 50 units (protein 100), dropout before both layers, batches of 128, Adam at .001,
  4,000 steps but 40 epochs at least and 4,000 at most. Rate of dropout and precision τ are chosen on the held-out rows; the
  answer is the mixture of 1,000 Gaussians of precision τ. The paper's weight decay at its length scale .01 is 2·10⁻⁶ or less on
  these sets, and left out.
- skpro: MDNRegressor as it comes, which is 5 components, layers of 64 and 32, and 1,000 steps on all rows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from real import HOME
from scipy.special import erf, log_ndtr, logsumexp
from torch import Tensor
from torch.nn import functional as F

Array = NDArray[np.float64]

#: number of splits of each set, small sets first
SETS = {
    "yacht": 20, "bostonHousing": 20, "energy": 20, "concrete": 20, "wine-quality-red": 20,
    "kin8nm": 20, "power-plant": 20, "naval-propulsion-plant": 20, "protein-tertiary-structure": 5,
}  # fmt: skip
#: of sets on which no setting was chosen; uci.py writes them
FRESH = {"insurance": 20, "california": 5}
SPLITS = SETS | FRESH
HELD_OUT = 0.2
DISTRIBUTED_AS = {"sklearn": "scikit-learn"}
#: components that a CRPS pairs with one another
PAIRED = 200


# ------------------------------------------------------------------------------------------------ predicted distributions


@dataclass(frozen=True)
class Mixture:
    """n predicted Gaussian mixtures of k components: weight, mean and deviation (n, k), in the units of y (n,)."""

    weight: Array
    mean: Array
    deviation: Array

    def scaled(self, shift: float, scale: float) -> Mixture:
        """The distribution of shift + scale · y."""
        return Mixture(self.weight, shift + scale * self.mean, scale * self.deviation)

    def centre(self) -> Array:
        """(n,) means."""
        return (self.weight * self.mean).sum(1)

    def matched(self) -> Mixture:
        """The Gaussians of the same mean and variance."""
        centre = self.centre()[:, None]
        variance = (self.weight * (self.deviation**2 + (self.mean - centre) ** 2)).sum(1, keepdims=True)
        return Mixture(np.ones_like(centre), centre, np.sqrt(variance))

    def log_density(self, y: Array) -> Array:
        """(n,) nats."""
        z = (y[:, None] - self.mean) / self.deviation
        return logsumexp(-0.5 * z**2 - np.log(self.deviation) - 0.5 * np.log(2 * np.pi), axis=1, b=self.weight)

    def log_mass(self, low: Array, high: Array) -> Array:
        """(n,) log P(low < y < high)."""
        a, b = (low[:, None] - self.mean) / self.deviation, (high[:, None] - self.mean) / self.deviation
        right = a + b > 0  # a difference of tails keeps its digits on the left
        a, b = np.where(right, -b, a), np.where(right, -a, b)
        upper = log_ndtr(b)
        return logsumexp(upper + np.log(-np.expm1(log_ndtr(a) - upper)), axis=1, b=self.weight)

    def crps(self, y: Array) -> Array:
        """(n,) E|Y − y| − ½ E|Y − Y′| (Grimit et al. 2006), in the units of y.

        More than PAIRED components are draws, all alike: PAIRED of them stand for all in the second term.
        """
        near = (self.weight * _absolute(y[:, None] - self.mean, self.deviation)).sum(1)
        some = slice(None, None, -(-self.mean.shape[1] // PAIRED))
        weight, mean, deviation = self.weight[:, some], self.mean[:, some], self.deviation[:, some]
        weight = weight / weight.sum(1, keepdims=True)
        apart = [
            np.einsum("i,j,ij", w, w, _absolute(m[:, None] - m, np.hypot(s[:, None], s)))
            for w, m, s in zip(weight, mean, deviation, strict=True)
        ]
        return near - 0.5 * np.array(apart)


def _absolute(mean: Array, deviation: Array) -> Array:
    """E|X| of a Gaussian."""
    z = mean / deviation
    return deviation * np.sqrt(2 / np.pi) * np.exp(-0.5 * z**2) + mean * erf(z / np.sqrt(2))


def scores(predicted: Mixture, y: Array, resolution: float) -> dict[str, float | None]:
    """Means over the rows: nats of the point density, interval nats log(mass / δ) of the cell of δ around y where y is written
    in steps of δ, rmse of the mean, CRPS."""
    half = resolution / 2
    interval = float((predicted.log_mass(y - half, y + half) - np.log(resolution)).mean()) if resolution else None
    return {
        "nats": float(predicted.log_density(y).mean()),
        "interval": interval,
        "rmse": float(np.sqrt(((predicted.centre() - y) ** 2).mean())),
        "crps": float(predicted.crps(y).mean()),
    }


# ------------------------------------------------------------------------------------------------------------------ peers


class Fitted(NamedTuple):
    """predict: standardised x (n, d) → the rows of the table this method fills; chosen: what the held-out rows decided."""

    predict: Callable[[Array], dict[str, Mixture]]
    chosen: dict[str, float]


class Peer(Protocol):
    """A method with its settings, a dataclass: fits standardised x (n, d) and y (n,)."""

    def fit(self, x: Array, y: Array, seed: int) -> Fitted: ...


def _held_out(n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to fit and rows to choose by."""
    order = np.random.default_rng(seed).permutation(n)
    cut = round(n * HELD_OUT)
    return order[cut:], order[:cut]


@dataclass(frozen=True)
class NGBoost:
    rate: float = 0.01
    trees: int = 2000
    patience: int = 100

    def fit(self, x: Array, y: Array, seed: int) -> Fitted:
        rows, held = _held_out(len(x), seed)
        trial = self._model(self.trees, seed)
        trial.fit(x[rows], y[rows], X_val=x[held], Y_val=y[held], early_stopping_rounds=self.patience)
        trees = int(trial.best_val_loss_itr) + 1
        model = self._model(trees, seed).fit(x, y)

        def predict(x: Array) -> dict[str, Mixture]:
            found = model.pred_dist(x).params
            return {"NGBoost": Mixture(np.ones((len(x), 1)), found["loc"][:, None], found["scale"][:, None])}

        return Fitted(predict, {"trees": trees})

    def _model(self, trees: int, seed: int) -> Any:
        from ngboost import NGBRegressor

        return NGBRegressor(n_estimators=trees, learning_rate=self.rate, random_state=seed, verbose=False)


class Networks:
    """m networks of one hidden layer of ReLU units, side by side; ``dropout`` (m,) is applied before both layers."""

    def __init__(
        self, m: int, inputs: int, units: int, outputs: int, rng: torch.Generator, dropout: Tensor | None = None
    ) -> None:
        uniform = lambda fan, *shape: (2 * torch.rand(m, *shape, generator=rng) - 1) / fan**0.5  # noqa: E731
        self.first, self.first_bias = uniform(inputs, inputs, units), uniform(inputs, 1, units)
        self.second, self.second_bias = uniform(units, units, outputs), uniform(units, 1, outputs)
        self.dropout = None if dropout is None else dropout[:, None, None]
        self.rng = rng
        self.parameters = [p.requires_grad_() for p in (self.first, self.first_bias, self.second, self.second_bias)]

    def __call__(self, x: Tensor) -> Tensor:
        """(m, b, inputs) → (m, b, outputs)."""
        hidden = torch.baddbmm(self.first_bias, self._drop(x), self.first).relu()
        return torch.baddbmm(self.second_bias, self._drop(hidden), self.second)

    def _drop(self, x: Tensor) -> Tensor:
        if self.dropout is None:
            return x
        return x * (torch.rand(x.shape, generator=self.rng) >= self.dropout) / (1 - self.dropout)

    def train(
        self, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor], *, epochs: int, batch: int, rate: float
    ) -> None:
        """Adam on a loss of (m, b, outputs) and (m, b), each network with an order of rows of its own."""
        optimiser = torch.optim.Adam(self.parameters, lr=rate, fused=True)
        m = len(self.first)
        for _ in range(epochs):
            for rows in torch.rand(m, len(x), generator=self.rng).argsort(1).split(batch, dim=1):
                optimiser.zero_grad()
                loss(self(x[rows]), y[rows]).backward()
                optimiser.step()


@dataclass(frozen=True)
class DeepEnsemble:
    units: int = 50
    members: int = 5
    epochs: int = 40
    batch: int = 100
    rates: tuple[float, ...] = (0.01, 0.003)

    def fit(self, x: Array, y: Array, seed: int) -> Fitted:
        rows, held = _held_out(len(x), seed)
        nats = [self._answer(self._train(x[rows], y[rows], r, seed), x[held]).log_density(y[held]).mean() for r in self.rates]
        rate = self.rates[int(np.argmax(nats))]
        nets = self._train(x, y, rate, seed)

        def predict(x: Array) -> dict[str, Mixture]:
            answer = self._answer(nets, x)
            return {"deep ensemble, Gaussian": answer.matched(), "deep ensemble, mixture": answer}

        return Fitted(predict, {"rate": rate})

    def _train(self, x: Array, y: Array, rate: float, seed: int) -> Networks:
        nets = Networks(self.members, x.shape[1], self.units, 2, torch.Generator().manual_seed(seed))

        def loss(out: Tensor, y: Tensor) -> Tensor:
            variance = _variance(out)
            return (0.5 * variance.log() + 0.5 * (y - out[..., 0]) ** 2 / variance).mean(1).sum()

        nets.train(_single(x), _single(y), loss, epochs=self.epochs, batch=self.batch, rate=rate)
        return nets

    def _answer(self, nets: Networks, x: Array) -> Mixture:
        with torch.no_grad():
            out = nets(_single(x).expand(self.members, -1, -1))
        mean, deviation = out[..., 0].T.double().numpy(), _variance(out).sqrt().T.double().numpy()
        return Mixture(np.full(mean.shape, 1 / self.members), mean, deviation)


def _variance(out: Tensor) -> Tensor:
    return F.softplus(out[..., 1]) + 1e-6


def _single(x: Array) -> Tensor:
    return torch.from_numpy(x).float()


@dataclass(frozen=True)
class MonteCarloDropout:
    units: int = 50
    steps: int = 4_000
    fewest: int = 40
    most: int = 4_000
    batch: int = 128
    rate: float = 0.001
    dropout: tuple[float, ...] = (0.005, 0.01, 0.05, 0.1)
    draws: int = 1_000
    trial_draws: int = 100

    def fit(self, x: Array, y: Array, seed: int) -> Fitted:
        rows, held = _held_out(len(x), seed)
        trial = self._train(x[rows], y[rows], self.dropout, seed)
        deviations = np.geomspace(0.001, 1, 61)
        drawn = self._draw(trial, x[held], self.trial_draws)
        nats = np.array([[_equal(means, s).log_density(y[held]).mean() for s in deviations] for means in drawn])
        best, width = np.unravel_index(nats.argmax(), nats.shape)
        deviation = float(deviations[width])
        nets = self._train(x, y, (self.dropout[best],), seed)

        def predict(x: Array) -> dict[str, Mixture]:
            return {"MC dropout": _equal(self._draw(nets, x, self.draws)[0], deviation)}

        return Fitted(predict, {"dropout": self.dropout[best], "deviation": deviation})

    def _train(self, x: Array, y: Array, dropout: tuple[float, ...], seed: int) -> Networks:
        rng = torch.Generator().manual_seed(seed)
        nets = Networks(len(dropout), x.shape[1], self.units, 1, rng, torch.tensor(dropout))
        loss = lambda out, y: ((out[..., 0] - y) ** 2).mean(1).sum()  # noqa: E731
        epochs = min(max(self.steps // -(-len(x) // self.batch), self.fewest), self.most)
        nets.train(_single(x), _single(y), loss, epochs=epochs, batch=self.batch, rate=self.rate)
        return nets

    def _draw(self, nets: Networks, x: Array, draws: int) -> Array:
        """(m, n, draws) outputs."""
        given = _single(x).expand(len(nets.first), -1, -1)
        with torch.no_grad():
            return torch.cat([nets(given) for _ in range(draws)], dim=2).double().numpy()


def _equal(mean: Array, deviation: float) -> Mixture:
    """Components of equal weight and width."""
    return Mixture(np.full(mean.shape, 1 / mean.shape[1]), mean, np.full(mean.shape, deviation))


@dataclass(frozen=True)
class SkproNetwork:
    def fit(self, x: Array, y: Array, seed: int) -> Fitted:
        import pandas as pd
        from skpro.regression.mdn import MDNRegressor

        named = lambda x: pd.DataFrame(x, columns=[f"x{j}" for j in range(x.shape[1])])  # noqa: E731
        model = MDNRegressor(random_state=seed, device="cpu").fit(named(x), pd.DataFrame({"y": y}))

        def predict(x: Array) -> dict[str, Mixture]:
            found = model.predict_proba(named(x))
            weight, mean, deviation = (np.asarray(part, dtype=np.float64) for part in (found.pi, found.mu, found.sigma))
            return {"skpro MDN": Mixture(weight / weight.sum(1, keepdims=True), mean[..., 0], deviation[..., 0])}

        return Fitted(predict, {})


@dataclass(frozen=True)
class Method:
    """rows: what it fills in the table; packages: what it needs; peer: set and number of training rows → with its settings."""

    rows: tuple[str, ...]
    packages: tuple[str, ...]
    peer: Callable[[str, int], Peer]


def _units(name: str) -> int:
    return 100 if name.startswith("protein") else 50


METHODS = {
    "deep ensemble": Method(
        ("deep ensemble, Gaussian", "deep ensemble, mixture"), ("torch",), lambda name, n: DeepEnsemble(_units(name))
    ),
    "MC dropout": Method(("MC dropout",), ("torch",), lambda name, n: MonteCarloDropout(_units(name))),
    "skpro MDN": Method(("skpro MDN",), ("skpro", "torch"), lambda name, n: SkproNetwork()),
    "NGBoost": Method(
        ("NGBoost",), ("ngboost", "sklearn"), lambda name, n: NGBoost() if n <= 5_000 else NGBoost(0.1, 200, 20)
    ),
}


# --------------------------------------------------------------------------------------------------------- data, results


@dataclass(frozen=True)
class Split:
    """x (n, d), y (n,) of the rows to train and to test on, in the units of the data."""

    x: Array
    y: Array
    test_x: Array
    test_y: Array


@dataclass(frozen=True)
class Table:
    """One set with its splits, ``tested`` (splits, n)."""

    name: str
    x: Array
    y: Array
    tested: NDArray[np.bool_] = field(repr=False)

    def split(self, number: int) -> Split:
        test = self.tested[number]
        return Split(self.x[~test], self.y[~test], self.x[test], self.y[test])


def table(name: str, results: Path) -> Table:
    """A set by name; the splits of the nine are those of Hernández-Lobato & Adams (2015), the others lie with the results."""
    home = HOME / "uci_regression" if name in SETS else results
    with np.load(home / f"{name}.npz", allow_pickle=False) as file:
        x, y = file["X"], file["y"]
        return Table(name, x, y, np.unpackbits(file["test_mask_packed"], axis=1)[:, : len(y)].astype(bool))


@dataclass(frozen=True)
class Key:
    """What a result is the result of. ``method`` is a row of the table."""

    method: str
    settings: dict[str, Any]
    set: str
    split: int

    def path(self, results: Path) -> Path:
        """set-split-method-hash.json; deleting a file is how a result is asked for again."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]
        return results / f"{self.set}-{self.split:02d}-{self.method.replace(', ', '-').replace(' ', '-')}-{digest}.json"

    def read(self, results: Path) -> dict[str, Any] | None:
        """The result, if it is there."""
        path = self.path(results)
        return json.loads(path.read_text()) if path.exists() else None

    def write(self, results: Path, result: dict[str, Any]) -> None:
        """All of it or nothing, however the process ends."""
        path = self.path(results)
        unfinished = path.with_suffix(f".{os.getpid()}.part")
        unfinished.write_text(json.dumps(asdict(self) | result, indent=1))
        unfinished.replace(path)


def keys(method: str, name: str, n: int, split: int) -> list[Key]:
    """What ``method`` fills in for one split of the set ``name`` with n training rows."""
    settings = asdict(METHODS[method].peer(name, n))  # type: ignore[call-overload]
    return [Key(row, settings, name, split) for row in METHODS[method].rows]


def measure(method: str, data: Table, number: int, resolution: float, results: Path) -> None:
    """Fit and score, unless the results are there."""
    split = data.split(number)
    wanted = keys(method, data.name, len(split.y), number)
    if all(key.path(results).exists() for key in wanted):
        return
    peer = METHODS[method].peer(data.name, len(split.y))
    centre, scale = split.x.mean(0), split.x.std(0)
    scale = np.where(scale > 1e-9 * np.abs(centre), scale, 1)
    shift, unit = float(split.y.mean()), float(split.y.std())
    began = time.process_time()
    fitted = peer.fit((split.x - centre) / scale, (split.y - shift) / unit, number)
    trained = time.process_time()
    answers = fitted.predict((split.test_x - centre) / scale)
    took = {"fit": trained - began, "predict": time.process_time() - trained}
    versions = {package: version(DISTRIBUTED_AS.get(package, package)) for package in METHODS[method].packages}
    for key in wanted:
        found = scores(answers[key.method].scaled(shift, unit), split.test_y, resolution)
        told = {"scores": found, "resolution": resolution, "seconds": took, "chosen": fitted.chosen, "versions": versions}
        key.write(results, told | {"rows": [len(split.y), len(split.test_y)]})
        print(f"{data.name:28}{number:3}  {line(key.method, found)}{took['fit']:7.1f} s   {fitted.chosen}", flush=True)


def line(method: str, found: dict[str, float | None]) -> str:
    """Scores in a row."""
    return f"{method:26}" + "".join(f"{name} {value:9.4f}   " for name, value in found.items() if value is not None)


def options() -> argparse.ArgumentParser:
    """What uci.py and uci_peers.py are both asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sets", default=",".join(SETS), help="names, with commas between")
    parser.add_argument("--splits", type=int, default=1, help="how many of a set's splits, from the first; 20 are all")
    parser.add_argument("--results", type=Path, default=Path("build/uci"), help="folder of result files")
    return parser


def main() -> None:
    parser = options()
    parser.add_argument("--methods", default=",".join(METHODS))
    asked = parser.parse_args()
    if not (HOME / "uci_regression").is_dir():
        print(f"uci_peers: skipped, no {HOME / 'uci_regression'}; set MIXTURA_DATA")
        return
    steps = asked.results / "resolution.json"
    if not steps.exists():
        print(f"uci_peers: nothing done, {steps} is not there; start benchmarks/uci.py, which writes it")
        return
    resolution = json.loads(steps.read_text())
    torch.set_num_threads(1)
    methods = asked.methods.split(",")
    needed = {package for m in methods for package in METHODS[m].packages}
    if missing := [package for package in sorted(needed) if find_spec(package) is None]:
        print(f"uci_peers: nothing done, {', '.join(missing)} not installed here; uci.py says how to make the environment")
        return
    for name in asked.sets.split(","):
        data = table(name, asked.results)
        for method in methods:
            for number in range(min(asked.splits, SPLITS[name])):
                measure(method, data, number, resolution[name], asked.results)


if __name__ == "__main__":
    main()
