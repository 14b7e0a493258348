""":func:`evaluate`: every metric that compares two sets of rows or images, with its standard error, without a model."""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd
import torch

from mixtura.contracts import Estimate, InputError, Note
from mixtura.data import source
from mixtura.features.space import FeatureSpace
from mixtura.ground.rng import generator
from mixtura.metrics import TABLE
from mixtura.metrics.compare import compare_samples, memorised
from mixtura.metrics.neighbours import shared_rows

#: fewest rows that can be compared
LEAST_ROWS = 20


def evaluate(
    real: Any, generated: Any, *, train: Any = None, features: str | None = None, seed: int = 0, skip_broken: bool = False
) -> pd.DataFrame:
    """Every metric that compares two sets, with its standard error: one row each, columns metric, value, error, n, better
    ("higher" or "lower"), unit, summary, reason (why the value is NaN).

    real, generated: tables or images, anything :func:`mixtura.run` takes; the kinds of columns are guessed from the real rows.
    train: the rows that the generator was trained on; ``real`` must then be rows that it has not seen, and memorisation is added.
    The features and the kernel are fitted on ``train``, or else on a fifth of the real rows, which is then left out, because rows
    that features were fitted on look different from new rows of the same law. Generated rows are measured as they are: unseen
    levels, values off the steps or beyond a wall, and other constants count against them, and a :class:`Note` counts them.
    Another Note says if the sets share more rows than two samples of one law would: a generator that has seen the real rows looks
    better than it is. Raises InputError on data of different kinds, columns or sizes.
    """
    data = source.with_note(source.load(real, seed=seed, skip_broken=skip_broken, name="real"))
    schema = source.learn(data)
    rows = source.rows_like(generated, schema, skip_broken=skip_broken, name="generated")
    schema = schema.strict(rows, name="generated")
    as_made = schema.as_made(rows, name="generated")
    sets = {"real": schema.encode(source.rows_of(data), name=data.name), "generated": as_made.x}
    if train is not None:
        sets["train"] = schema.encode(source.rows_like(train, schema, skip_broken=skip_broken, name="train"), name="train")
    for name, x in sets.items():
        if len(x) < LEAST_ROWS:
            raise InputError(f"{name}: {len(x)} rows are too few to compare; give {LEAST_ROWS} or more")
    if said := as_made.told("generated", "real rows"):
        warnings.warn(said, Note, stacklevel=2)
    x, y = sets["real"], sets["generated"]
    shared = shared_rows(sets["real"].flatten(1), sets["generated"].flatten(1))
    if shared.too_many:
        overlap = f"share {shared.count:,} equal rows, where {shared.expected:.0f} are expected by chance"
        overlap = "are the same rows" if shared.same else overlap
        warnings.warn(
            f"real and generated {overlap}: metrics cannot judge a generator that has seen the real rows; give real rows that it "
            "has not seen",
            Note,
            stacklevel=2,
        )
    if "train" in sets:
        fit = sets["train"]
    else:
        order = torch.randperm(len(x), generator=generator(seed, "fitted on"))
        fit, x = x[order[: len(x) // 5]], x[order[len(x) // 5 :]]
    space = FeatureSpace.of_rows(schema, fit, features, seed=seed)
    found = compare_samples(x, y, space, kernel=space.kernel, codes=space.codes, seed=lambda name: generator(seed, name))
    if "train" in sets:
        found["memorisation"] = memorised(space(y), sets["train"], space(x), space, rng=generator(seed, "memorisation"))
    return pd.DataFrame([_row(name, estimate) for name, estimate in found.items()])


def _row(name: str, estimate: Estimate) -> dict[str, Any]:
    row = TABLE[name]
    return {
        "metric": name, "value": estimate.value, "error": estimate.error, "n": estimate.n, "better": row.direction,
        "unit": row.unit, "summary": row.summary, "reason": estimate.reason,
    }  # fmt: skip
