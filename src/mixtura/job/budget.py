"""Who gets how many seconds: the share of a fit in the budget of its run, the end of a run, what a run by steps will take."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixtura.contracts import Batch, ClosedForm
from mixtura.ground.rng import generator
from mixtura.job.fitting import Candidate, Material
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

#: of the budget: what the end of a run takes (metrics, files; with targets, draws for given inputs), what refining the choice
#: adds to it, what scoring and sampling a model is thought to take before it has been measured, and what a fit takes beside its
#: steps (preparing, looks)
ENDING, ENDING_WITH_TARGETS, REFINING, SCORING, PREPARING = 0.16, 0.22, 0.14, 0.04, 0.01
#: in a run of minutes the end takes hardly longer than in one of so many seconds, and at least this part of its share is kept
LONG, LEAST_ENDING = 60.0, 0.4
#: seconds a fit has at least, however late it begins
LEAST_SHARE = 0.2
#: steps and rows of the fits that tell what a run by steps will take
TIMED_STEPS, TIMED_ROWS = 20, 2_000
#: workers are started where a run has more seconds than this, or would take more alone: a worker imports torch for 2 to 4 s
WORTH_WORKERS = 20.0
#: on one core, roughly: seconds of a step of training, and of a closed fit for each entry of the table
SECONDS_A_STEP, SECONDS_AN_ENTRY = 0.005, 5e-6


def ending(seconds: float | None, *, refine: bool) -> float:
    """The share of a budget that is kept for the end of a run without targets."""
    part = LEAST_ENDING + (1 - LEAST_ENDING) * LONG / (seconds or math.inf)
    return (ENDING + REFINING * refine) * min(1.0, part)


@dataclass(frozen=True)
class Budget:
    """How a run divides its seconds. seconds: of the whole run; infinite where it goes by steps. ending: the share kept for
    what follows the fits. workers: fits at the same time. folds: of cross-fitting, each of which is a fit beside the final one.
    timed: the models that train for a share, in the order of their fits; a closed fit takes the time it takes. growth: of the
    rows of a refit beside those of its fit, 0 where there are none. parts: of models that have more time than the others, the
    part of each relative to 1."""

    seconds: float
    ending: float
    workers: int
    folds: int
    timed: Sequence[str]
    growth: float
    parts: Mapping[str, float] = field(default_factory=dict)

    def share(
        self, begun: Collection[str], units: Mapping[str, Mapping[str, Any]], failed: Collection[str], elapsed: float,
        name: str = "", leading: Collection[str] = (),
    ) -> float:  # fmt: skip
        """Seconds for the next timed fit, of the model ``name``: those that are left, divided among the timed fits to come,
        evenly or by :attr:`parts`.

        begun: the fits that were begun in this sitting or are done. A worker that is free now takes one of every ``workers`` fits
        to come, so that the last ones end in time whatever the other workers do."""
        folds = [*map(str, range(self.folds)), "all"]
        coming = [model for model in self.timed if model not in failed]
        fits = [f"{model}/{fold}" for model in coming for fold in folds if f"{model}/{fold}" not in begun]
        left = self.left(units, failed, elapsed, leading, name)
        if self.parts:
            return max(LEAST_SHARE, left * self._part(name, coming, [fit.rpartition("/")[0] for fit in fits]))
        return max(LEAST_SHARE, left / math.ceil(max(1, len(fits)) / self.workers))

    def _part(self, name: str, models: Sequence[str], fits: Sequence[str]) -> float:
        """Of the time that is left the share of the next fit, of the model ``name``; ``fits``: the models of the fits to come.

        Of several workers a model has one to itself if its part of the time of all of them is as much, and the others share the
        workers that are left."""
        if self.workers == 1:
            return self.part(name) / sum(map(self.part, fits))
        alone = self.with_a_worker(models)
        if name in alone:
            return 1.0
        return 1 / math.ceil(sum(model not in alone for model in fits) / max(1, self.workers - len(alone)))

    def part(self, name: str) -> float:
        """Of the time of training, relative to the others."""
        return self.parts.get(name, 1.0)

    def with_a_worker(self, models: Sequence[str]) -> list[str]:
        """Those of these models that have a worker to themselves."""
        if not self.parts or self.workers == 1:
            return []
        whole = sum(map(self.part, models))
        return [name for name in models if self.part(name) * self.workers >= whole]

    def left(
        self, units: Mapping[str, Mapping[str, Any]], failed: Collection[str], elapsed: float, leading: Collection[str] = (),
        name: str = "",
    ) -> float:  # fmt: skip
        """Seconds that are left for timed fits when all scoring and the refits are paid. units: what is known of each fit.
        leading: models whose refits will be wanted, as far as is known; for those of other closed fits no time is kept. name: the
        model that asks; one with a worker to itself does not wait until the others are scored."""
        coming = [model for model in self.timed if model not in failed]
        unscored = [model for model in coming if "scoring" not in units.get(f"{model}/all", {})]
        # report rows are scored at the end, one model after the other, as many as select rows were or (cross-fitted) fewer
        owed = sum(entry["scoring"] for entry in units.values() if "scoring" in entry)
        guess = SCORING * self.seconds
        # a model that is worth more time than others takes more to sample and to score, too
        scores_in = {m: units.get(f"{m}/all", {}).get("scores_in", guess * max(1.0, self.part(m) / 2)) for m in unscored}
        alone = self.with_a_worker(coming)
        # its refit is worth waiting for, and is scored as its fit was
        again = sum(units.get(f"{m}/all", {}).get("scoring", scores_in.get(m, 0.0)) for m in alone) if self.growth else 0.0
        beside = scores_in.get(name, 0.0) if name in alone else sum(scores_in.values())
        owed += beside + (sum(scores_in.values()) + again) / self.workers
        hopeful = {unit: entry for unit, entry in units.items() if "scoring" in entry and not entry.get("stopped")}
        kept = [entry for unit, entry in hopeful.items() if entry["plan"] or unit.rpartition("/")[0] in leading]
        owed += (sum(self.of_refit(entry) for entry in kept) + PREPARING * self.seconds * len(unscored)) / self.workers
        return ((1 - self.ending) * self.seconds - elapsed - owed) / max(1.0, self.growth)

    def of_refit(self, entry: Mapping[str, Any]) -> float:
        """Seconds that the refit of a model takes, by what is known of its fit. A network trains on, for as many steps as there
        are more rows."""
        return entry["seconds"] * (max(0.0, self.growth - 1) if entry["plan"] else self.growth)

    def left_for_refits(self, scoring: Sequence[float], elapsed: float) -> float:
        """Seconds until the models should be fitted again, where scoring each of them on the report rows takes ``scoring``."""
        return (1 - self.ending) * self.seconds - elapsed - sum(scoring) / self.workers

    def share_again(self, name: str, units: Mapping[str, Mapping[str, Any]]) -> float:
        """Seconds for a fit of a model that is tried again: when the others have had theirs nothing may be left, so it has what
        its fits had."""
        had = [u["share"] for key, u in units.items() if key.startswith(f"{name}/") and u.get("share") is not None]
        return had[0] if had else (1 - self.ending) * self.seconds / (max(1, len(self.timed)) * (self.folds + 1))


def guess_seconds(material: Material, trained: int, closed: int, steps: int) -> float:
    """A rough guess of the seconds that a run by steps takes on one core, without timing anything: enough to decide whether to
    start workers."""
    entries = len(material.splits.fit) * material.space.dims
    return (material.splits.folds + 1) * (trained * steps * SECONDS_A_STEP + closed * entries * SECONDS_AN_ENTRY)


def estimate_seconds(material: Material, candidates: Sequence[Candidate], steps: int) -> float:
    """Seconds that fits by steps will take one after the other, from timing a few steps of every model on a few rows."""
    few = material.splits.fit[:TIMED_ROWS]
    total, rows, context = 0.0, material.x[few], material.context_of(few)
    for candidate in candidates:
        began = time.monotonic()
        try:
            model = candidate.build(material, len(rows), generator(0))
            if isinstance(model, ClosedForm):
                model.fit_closed(rows, context, generator(0))
                total += (time.monotonic() - began) * min(10, len(material.splits.fit) / len(rows))
            else:
                recipe = Recipe(**{**candidate.recipe, **model.recipe, "steps": TIMED_STEPS})
                steps_of = fit(model, Batch(x=rows, context=context), recipe, rng=generator(0), device=material.device)
                spent = [step.seconds for step in steps_of]
                total += (spent[-2] - spent[4]) / (len(spent) - 6) * min(steps, recipe.most_steps)
        except Exception:  # a family that fails here is reported when it is its turn
            continue
    return total * (material.splits.folds + 1)
