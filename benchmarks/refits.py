"""What it is worth to fit a model again on the select rows too: nats of unseen rows, paired, and the CPU seconds it takes.

    python benchmarks/refits.py [--table california] [--rows 3000] [--seconds 12]

Of a table so many rows are split as a run splits them, and up to 8,000 others score. One model of each family is fitted to the
fit rows. Compared with it are closed fits made anew, on fit and select rows; networks trained anew by the plan of the fit, with
12 % or 5 % of these rows held out; networks that go on from their parameters for a quarter of the steps; and, for comparison, a
network trained for twice the seconds on the fit rows alone. One training seed; errors are over rows.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from real import TABLES

from mixtura.blending.nats import log_probs
from mixtura.contracts import Batch, ClosedForm, Model
from mixtura.families import TABLE
from mixtura.ground.encode import Columns
from mixtura.ground.rng import generator
from mixtura.job.splits import make_splits
from mixtura.job.start import Options, understand
from mixtura.train.fit import Step, fit
from mixtura.train.recipe import Recipe

#: steps of a network that goes on, beside those of its fit
QUARTER = 0.25
FAMILIES = ["autoregressive", "flow", "vae", "circuit", "forest", "gaussian_mixture"]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--table", default="california", choices=sorted(TABLES))
    arguments.add_argument("--rows", type=int, default=3_000)
    arguments.add_argument("--seconds", type=float, default=12.0)
    asked = arguments.parse_args()
    torch.set_num_threads(1)
    frame = TABLES[asked.table]().sample(frac=1, random_state=0).reset_index(drop=True)
    data, schema = understand(frame, Options())
    everything = schema.encode(frame, name=asked.table)
    x, unseen = everything[: asked.rows], everything[asked.rows : asked.rows + 8_000]
    splits = make_splits(x, seed=0)
    fit_rows, (again, held) = x[splits.fit], splits.again(0)
    encoding = Columns(schema.space)
    encoding.prepare(schema.space.clamp(fit_rows))

    def built(name: str) -> Model:
        row = TABLE[name]
        return row.build(schema.space, encoding=encoding, config=row.suggest(schema.space, len(fit_rows), 60.0), rng=generator(1))

    def nats(model: Model) -> torch.Tensor:
        with torch.no_grad():
            return log_probs(model, unseen, context=None, rng=generator(2))[0]

    def timed(work: Callable[[], Step | None]) -> tuple[Step | None, float]:
        began = time.process_time()
        return work(), time.process_time() - began

    def trained(model: Model, rows: torch.Tensor, recipe: Recipe, **more: object) -> tuple[Step | None, float]:
        def work() -> Step | None:
            last = None
            for step in fit(model, Batch(x=rows), recipe, rng=generator(3), **more):  # type: ignore[arg-type]
                last = step
            return last

        return timed(work)

    print(f"{asked.table}: {len(fit_rows):,} fit rows, {len(again):,} of a refit, {len(unseen):,} that score")
    for name in FAMILIES:
        row, model = TABLE[name], built(name)

        def line(way: str, model: Model, seconds: float, before: torch.Tensor) -> None:
            gain = nats(model) - before
            print(f"  {way:44s} {gain.mean():+.3f} ± {gain.std() / len(gain) ** 0.5:.3f}   {seconds:5.1f} s", flush=True)

        if isinstance(model, ClosedForm):
            _, seconds = timed(lambda model=model: model.fit_closed(fit_rows, None, generator(3)))
            before = nats(model.eval())
            print(f"{name:20s} {before.mean():.3f} nats, {seconds:.1f} s")
            other = built(name)
            _, seconds = timed(lambda other=other: other.fit_closed(x[again], None, generator(3)))  # type: ignore[attr-defined]
            line("anew", other.eval(), seconds, before)
            continue
        settings = {**row.recipe, **model.recipe}
        last, seconds = trained(model, fit_rows, Recipe(**{**settings, "seconds": asked.seconds}))
        assert last is not None
        before, begun = nats(model), {key: value.detach().clone() for key, value in model.named_parameters()}
        print(f"{name:20s} {before.mean():.3f} nats, {seconds:.1f} s, {sum(end for _, end in last.plan):,} steps")
        for share in (0.12, 0.05):
            other = built(name)
            _, seconds = trained(other, x[again], Recipe(**{**settings, "plan": last.plan, "held_out": share}))
            line(f"anew, {share:.0%} held out", other, seconds, before)
        other, steps = built(name), max(1, round(QUARTER * sum(end for _, end in last.plan)))
        recipe = Recipe(**{**settings, "steps": steps})
        _, seconds = trained(other, x[again], recipe, held=Batch(x=x[held]), begin_with=begun)
        line("goes on for a quarter of the steps", other, seconds, before)
        other = built(name)
        _, seconds = trained(other, fit_rows, Recipe(**{**settings, "seconds": 2 * asked.seconds}))
        line("fit rows alone, twice the seconds", other, seconds, before)


if __name__ == "__main__":
    main()
