"""Is a gain that `mix` claims there? How often p < .05 and p < .001 where no mixture is better, and where one is.

    python benchmarks/gains.py [--repetitions 2000] [--objectives rke mmd ...] [--rows 60 200 600 2000] [--laws equal ...]
                               [--features 2 64] [--seconds 600] [--whole]

A repetition draws new samples of both arms and, where it is compared with, a new reference of as many rows, and takes the
p-value of `mixtura.objectives.mixture.gain_of_halves`. No mixture is better than the best arm in

    equal     both arms and the reference N(0, I)
    away      both arms N(0, I), the reference N(0.5, I)
    nested    the arms N(0, I) and N(0, 0.8² I), the reference N(0, I): one arm alone is the best mixture
    spread    the same with 0.3²

the last two for objectives whose best alone is the arm of the reference's law, or the widest: a sum of two that want different
arms, and fld, for which rows nearer the middle fit many features better, may truly gain there. One mixture is better in

    modes     the arms N(±3 e, I) for a unit vector e, the reference half of each.

Wanted of the first: a share of p < .05 of .05 + 2 standard errors at most. Of modes: the same share near 1, where the objective
can tell (a share of a mixture is the mixture of shares, so precision, density and log-likelihood never gain). Rates are ± their
binomial standard error; `at most` is the exact 99.9 % upper bound of the first. A cell stops at --repetitions, or after --seconds
of CPU, or, unless --whole, as soon as that bound is below .05 + 2 standard errors of 2,000 repetitions; it says how many it had.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable

import torch
from scipy import stats
from torch import Tensor

from mixtura.ground.rng import generator
from mixtura.objectives.mixture import gain_of_halves
from mixtura.objectives.terms import parse

Draw = Callable[[int, int, torch.Generator], Tensor]

#: each of them, and sums: of quadratics, of a quadratic and a convex, of convex ones
OBJECTIVES = [
    "rke", "mmd", "kid", "precision", "density", "loglik", "rke+0.2*precision", "mmd+0.1*density", "rke+0.01*cost",
    "frechet", "fld", "vendi", "rke+0.01*frechet", "frechet+0.5*fld", "vendi+precision",
]  # fmt: skip


def normal(shift: float = 0.0, scale: float = 1.0) -> Draw:
    return lambda n, d, rng: shift + scale * torch.randn(n, d, generator=rng, dtype=torch.float64)


def mode(*signs: float) -> Draw:
    """N(±3 e, I), half of each of ``signs``."""

    def draw(n: int, d: int, rng: torch.Generator) -> Tensor:
        x = torch.randn(n, d, generator=rng, dtype=torch.float64)
        x[:, 0] += 3 * torch.tensor(signs)[torch.randint(len(signs), (n,), generator=rng)]
        return x

    return draw


#: law → (arms, reference)
LAWS: dict[str, tuple[tuple[Draw, Draw], Draw]] = {
    "equal": ((normal(), normal()), normal()),
    "away": ((normal(), normal()), normal(0.5)),
    "nested": ((normal(), normal(scale=0.8)), normal()),
    "spread": ((normal(), normal(scale=0.3)), normal()),
    "modes": ((mode(-1), mode(1)), mode(-1, 1)),
}

#: laws in which an arm alone is best for some objectives only
OF_SOME = {"nested", "spread"}
MATCHING_OR_WIDE = {"rke", "mmd", "kid", "frechet", "vendi", "precision", "density", "loglik"}

#: what a rate of .05 may measure in 2,000 repetitions
LIMIT = 0.05 + 2 * math.sqrt(0.05 * 0.95 / 2000)


def at_most(hits: int, runs: int, sure: float = 0.999) -> float:
    """The exact (Clopper-Pearson) upper bound of a rate that was seen ``hits`` times in ``runs``."""
    return 1.0 if hits == runs else float(stats.beta.ppf(sure, hits + 1, runs - hits))


def p_value(objective: str, law: str, n: int, features: int, seed: int) -> float | None:
    """Of one repetition."""
    rng = generator(seed, objective, law, n, features)
    arms, real = LAWS[law]
    samples = {name: draw(n, features, rng) for name, draw in zip("ab", arms, strict=True)}
    wanted = parse(objective, reference=real(n, features, rng), costs=[1.0, 1.0])
    found = gain_of_halves(samples, wanted.ready(list(samples.values()), rng), seed=seed)
    return None if found is None else found[1]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--objectives", nargs="+", default=OBJECTIVES)
    parser.add_argument("--rows", nargs="+", type=int, default=[60, 200])
    parser.add_argument("--laws", nargs="+", choices=LAWS, default=list(LAWS))
    parser.add_argument("--features", nargs="+", type=int, default=[2, 64])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--whole", action="store_true", help="all repetitions, also where the rate is known to be small")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    head = f"{'objective':18} {'law':8} {'features':>8} {'rows':>5} {'runs':>5}"
    print(f"{head}  {'p < .05':>13}  {'p < .001':>15}  at most  too often")
    over = 0
    for objective, law, features, n in itertools.product(asked.objectives, asked.laws, asked.features, asked.rows):
        if law in OF_SOME and objective not in MATCHING_OR_WIDE:
            continue
        found: list[float] = []
        hits, began = 0, time.process_time()
        while len(found) < asked.repetitions and (not found or time.process_time() - began < asked.seconds):
            p = p_value(objective, law, n, features, len(found))
            if p is None:
                break
            found.append(p)
            hits += p < 0.05
            if law != "modes" and not asked.whole and at_most(hits, len(found)) < LIMIT:
                break
        if not found:
            print(f"{objective:18} {law:8} {features:8} {n:5}     0  no p-value is given", flush=True)
            continue
        rates = [sum(p < level for p in found) / len(found) for level in (0.05, 0.001)]
        errors = [math.sqrt(rate * (1 - rate) / len(found)) for rate in rates]
        # the error of a true rate of .05
        wrong = law != "modes" and rates[0] > 0.05 + 2 * math.sqrt(0.05 * 0.95 / len(found))
        over += wrong
        told = f"{rates[0]:6.4f} ± {errors[0]:.4f}  {rates[1]:7.5f} ± {errors[1]:.5f}  {at_most(hits, len(found)):7.4f}"
        print(f"{objective:18} {law:8} {features:8} {n:5} {len(found):5}  {told}  {'yes' if wrong else ''}", flush=True)
    print(f"cells in which no mixture is better and p < .05 more often than in .05 + 2 standard errors: {over}")


if __name__ == "__main__":
    main()
