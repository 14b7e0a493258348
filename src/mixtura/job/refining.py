"""Whether samples of the verdict's choice come nearer to real rows when they are accepted by a learned ratio: :func:`refine`.

Trees learn from fit rows, select rows say how many there are, and report rows say whether it gains, as they do of the verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mixtura.blending.refined import Refined
from mixtura.contracts import Estimate, Model
from mixtura.folder.records import Refinement
from mixtura.ground.kernels import sums
from mixtura.ground.rng import generator
from mixtura.job.comparison import Comparison, divided
from mixtura.job.splits import Splits
from mixtura.job.verdict import pm, sure
from mixtura.metrics.classifier import c2st

#: real rows of a part that are looked at, at most, and as many samples
MOST_ROWS = 10_000
#: report rows that can show a gain, at least
LEAST_MEASURED = 20


def refine(
    name: str, model: Model, x: Tensor, splits: Splits, compare_by: Callable[[list[Tensor]], Comparison],
    features: Callable[[Tensor], Tensor], *, seed: int,
) -> tuple[Refined | None, Refinement]:  # fmt: skip
    """The model that the verdict chose, ``name``, refined, and what that gains; None where trees tell nothing apart. x: all rows
    (n, *shape) in data units. compare_by: samples that trees may learn from → by what samples are compared in MMD². features:
    what the classifier of C2ST looks at."""

    def some(rows: Tensor) -> Tensor:
        return x[rows[torch.randperm(len(rows), generator=generator(seed, "refine", "rows"))[:MOST_ROWS]]]

    def drawn(of: Model, n: int, purpose: str) -> Tensor:
        return of.sample(n, rng=generator(seed, "refine", purpose))

    learn, held, real = some(splits.fit), some(splits.select), some(splits.report)
    if len(real) < LEAST_MEASURED:
        why = f"{len(real)} unseen rows are too few to measure one"
        return None, Refinement(name, 0, False, f"no gain from refining {name}: {why}")
    refined = Refined.learn(model, (learn, held), (drawn(model, len(learn), "learn"), drawn(model, len(held), "hold")))
    if refined is None:
        why = f"on the {len(held):,} select rows, trees that learnt to tell samples from real rows tell nothing"
        return None, Refinement(name, 0, False, f"no gain from refining {name}: {why}")
    before, after = drawn(model, len(real), "before"), drawn(refined, len(real), "after")
    return refined, _measured(name, refined, before, after, real, compare_by, features, seed)


def _measured(
    name: str, refined: Refined, before: Tensor, after: Tensor, real: Tensor,
    compare_by: Callable[[list[Tensor]], Comparison], features: Callable[[Tensor], Tensor], seed: int,
) -> Refinement:  # fmt: skip
    """What samples ``before`` and ``after`` are, beside ``real`` rows that neither the model nor the trees learnt from."""
    compared = compare_by([divided(rows)[0] for rows in (before, after)])
    sets = [compared.features(divided(rows)[1]) for rows in (before, after)]
    pairs = sums([*sets, compared.features(real)], compared.kernel)
    mmd2 = [pairs.mmd2(w, 2) for w in ([1.0, 0.0], [0.0, 1.0])]
    gain = pairs.gain([0.0, 1.0], [1.0, 0.0], 2)
    told = [c2st(features(real), features(x), rng=generator(seed, "refine", "classifier")) for x in (before, after)]
    less = Estimate(told[0].value - told[1].value, math.hypot(told[0].error, told[1].error), len(real))
    delivered = gains(gain, less)
    kept = refined.kept(before)
    both = (("MMD²", mmd2), ("C2ST", told))
    numbers = "; ".join(f"{unit} {pm(a.value, a.error)} → {pm(b.value, b.error)}" for unit, (a, b) in both)
    said = "gain from refining" if delivered else "no gain from refining"
    end = f"; of the rows drawn {kept:.0%} are kept" if delivered else ""
    return Refinement(
        name, refined.trees, delivered, f"{said} {name}: {numbers}, on {len(real):,} unseen rows{end}", len(real), kept,
        mmd2[0].value, mmd2[0].error, mmd2[1].value, mmd2[1].error, gain.value, gain.error,
        told[0].value, told[0].error, told[1].value, told[1].error,
    )  # fmt: skip


def gains(*changes: Estimate) -> bool:
    """Whether one of the changes for the better, of numbers of size 1, is sure, and none for the worse."""
    better, worse = (any(sure(Estimate(sign * c.value, c.error, c.n), 1.0) for c in changes) for sign in (1, -1))
    return better and not worse
