"""Training: :func:`fit` trains any learner and yields one record per step.

There are no callbacks; the body of the caller's loop takes their place:

>>> import torch
>>> from mixtura import Batch, Space
>>> from mixtura.ground.rng import generator
>>> from mixtura.families.vae import Config, build
>>> from mixtura.train.fit import Recipe, fit
>>> rows = Batch(x=torch.randn(100, 2, generator=generator(0)).double())
>>> model = build(Space.continuous(2), config=Config(), rng=generator(1))
>>> for step in fit(model, rows, Recipe(steps=3), rng=generator(2)):
...     print(step.step, step.losses["evidence"] > 0)
1 True
2 True
3 True

A learner is trained in stages, each a game of one or more players (``contracts.Stage``). In each stage the learning rate warms
up, stays constant, and falls to zero over the last third of the steps. A slice of the rows is never trained on: every ``every``
steps the stopping loss of the stage is computed on it, and the best state is kept. A plateau lowers the rate and returns to the
best state; the third plateau ends the stage (``converged``). A stage without a stopping loss plays all its steps and keeps the
moving average.

Every draw is determined by one seed, the stage, the step and the name of the player, so adding a player does not change the
draws of the others. The checkpoint holds everything else that the results depend on, so a killed run continues with the same
bits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mixtura.contracts import ONLY, Batch, Batches, InputError, Learner, Stream, Turn
from mixtura.ground.machine import remove
from mixtura.ground.rng import generator
from mixtura.train.average import AVERAGE, Average
from mixtura.train.checkpoint import named_if_damaged, part_of, read_checkpoint, save_checkpoint, set_parameters
from mixtura.train.players import check_stages, with_defaults
from mixtura.train.recipe import WARM_UP, Recipe
from mixtura.train.stopping import AT_ONCE, StageProgress, seconds_to_converge

#: the most rows of the held-out slice
MOST_CHECKED = 5_000


@dataclass(frozen=True)
class Step:
    """The record of one training step.

    stage: the name of the stage. step: the number of the step, out of ``steps`` in this stage. losses: phase name → loss on the
    rows of this step, the mean over repeats, for every player that played. validation: the stopping loss of the held-out slice,
    if it was computed at this step. best: the lowest one so far in this stage, infinite if there is none. rate: the learning rate
    of the recipe. seconds: training time so far, over all stages and resumptions. share: how much of the training is done, from
    0 to 1. finished: whether this is the last record. converged: whether training ended because nothing improved any more.
    seconds_to_converge: if it did not, the predicted total seconds until convergence, if any. plan: for every stage that has
    ended, the steps planned and the step at which it ended. paused: whether this is the last record for now. curve: of a paused
    fit, (step, stopping loss) of every validation.
    """

    stage: str
    step: int
    steps: int
    losses: Mapping[str, float]
    rate: float
    seconds: float
    best: float
    share: float
    validation: float | None = None
    finished: bool = False
    converged: bool = False
    seconds_to_converge: float | None = None
    plan: tuple[tuple[int, int], ...] = ()
    paused: bool = False
    curve: tuple[tuple[int, float], ...] = ()


def fit(
    learner: Learner,
    data: Tensor | Batch | Batches,
    recipe: Recipe,
    *,
    rng: torch.Generator,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    checkpoint_every: float = 5.0,
    name: str | None = None,
    pause: float | None = None,
    stop: bool = False,
    held: Batch | None = None,
    begin_with: Mapping[str, Tensor] | None = None,
) -> Iterator[Step]:
    """Train ``learner`` in place on ``data``: rows x in data units, or one batch, or several batches by name, each with its own
    length. Yields a :class:`Step` after every step.

    At the end the learner has the state that each stage keeps (see the module), on the CPU and in evaluation mode.
    ``checkpoint`` is a file: it is written every ``checkpoint_every`` seconds, restored if it exists at the start, and removed at
    the end. ``name`` is the learner's name in messages. InputError on data that the learner cannot be trained on;
    FloatingPointError, with the phase and step, on a loss or gradient that is not finite.

    A learner of one stage that trains for seconds can be paused: at the first validation after ``pause`` seconds of training, the
    second at the earliest, but not in the last third of the steps, the checkpoint is written, the learner has the best state so
    far, and the record says ``paused``. Called again, with more seconds or fewer, the fit goes on from the checkpoint; with
    ``stop`` it ends there, if it was paused. Either way ``plan`` repeats it.

    ``held``: rows to compute the stopping loss on, instead of a slice of a single batch ``data``, all of which is then trained
    on. ``begin_with``: parameters by name, those of a learner of the same kind that was trained before, to go on from; the
    buffers are those of these rows. InputError where their names or shapes are others.
    """
    name = name or type(learner).__name__
    data = Batch(x=data) if isinstance(data, Tensor) else data
    several = isinstance(data, Mapping) and len(data) > 0 and all(isinstance(rows, Batch) for rows in data.values())
    if not isinstance(data, Batch) and not several:
        raise InputError(f"{name}: expected rows as a tensor, a Batch or batches by name to train on, got {type(data).__name__}")
    data = learner.check({ONLY: data} if isinstance(data, Batch) else data)
    stages = learner.stages()
    check_stages(stages, name)
    if recipe.plan is not None and (len(recipe.plan) != len(stages) or min(end for _, end in recipe.plan) < 1):
        raise InputError(f"plan: expected the steps and the end, 1 or more, of each of {len(stages)} stages, got {recipe.plan}")
    share = recipe.held_out if held is None and any(stage.stopping_loss for stage in stages) else 0.0
    learnt, checked = {}, {}
    for part, rows in data.items():
        # enough rows for a held-out slice of two
        least = min(8, math.ceil(2 / share)) if share else 2
        if len(rows) < least:
            where = "" if part == ONLY else f" in {part!r}"
            raise InputError(f"{name}: expected at least {least} rows to train on{where}, got {len(rows)}; give more rows")
        order = torch.randperm(len(rows), generator=rng)
        cut = max(2, min(MOST_CHECKED, round(share * len(rows)))) if share else 0
        learnt[part], checked[part] = rows.at(order[cut:]), rows.at(order[:cut] if cut else order[:MOST_CHECKED])
    if held is not None:
        checked = dict(learner.check({ONLY: held}))
    learner.prepare(learnt, rng)
    if begin_with is not None:
        set_parameters(learner, begin_with, name)
    for part, rows in checked.items():
        if (weights := rows.get("weights")) is not None:
            if not (weights.any() and cast(Tensor, learnt[part].get("weights")).any()):
                raise InputError(f"{name}: too few rows have a weight above 0 to train on some and hold others out; give more")
            checked[part] = rows.at(torch.multinomial(weights, MOST_CHECKED, True, generator=rng))
    learnt, checked = (_on(learner, learner.encode_for_training(part), device) for part in (learnt, checked))
    learner.to(device).train()
    training = TrainingState(learner, recipe, int(torch.randint(2**62, (), generator=rng)), name, learnt, checked)
    training.pause = math.inf if pause is None else pause
    if checkpoint is not None and checkpoint.exists():
        training.restore(checkpoint)
    last_saved = time.monotonic()
    stop = stop and training.may_pause
    while True:
        record = training.end_here() if stop else training.play()
        if record.finished:
            learner.to("cpu").eval()
            yield record
            if checkpoint is not None:
                remove(checkpoint)
            return
        if checkpoint is not None and record.seconds >= training.pause and training.may_pause:
            training.save(checkpoint)
            training.keep_best()
            learner.to("cpu").eval()
            yield replace(record, paused=True, curve=tuple(training.state.curve))
            return
        yield record
        if checkpoint is not None and time.monotonic() - last_saved >= checkpoint_every:
            training.save(checkpoint)
            last_saved = time.monotonic()


def _on(learner: Learner, data: Batches, device: torch.device | str) -> Batches:
    return {part: rows.to(device) for part, rows in data.items()}


class TrainingState:
    """A training run in progress: its stage, the optimisers of the players, the best state so far. :meth:`play` is one step."""

    def __init__(self, learner: Learner, recipe: Recipe, seed: int, name: str, data: Batches, held: Batches) -> None:
        self.learner, self.recipe, self.seed, self.name, self.data, self.held = learner, recipe, seed, name, data, held
        self.stages, self.pause = learner.stages(), math.inf
        self._begin(StageProgress())

    def _begin(self, state: StageProgress) -> None:
        """Begin the stage number ``state.stage`` and plan its steps; 0 steps mean that its speed has to be measured first."""
        self.state, recipe = state, self.recipe
        self._enter()
        if recipe.plan is not None:
            state.steps = recipe.plan[state.stage][0]
        elif recipe.steps is not None:
            state.steps = max(1, round(recipe.steps * self.stage.share / sum(s.share for s in self.stages)))

    def _enter(self) -> None:
        """Set up the players of stage number ``state.stage``, as they are before its first step."""
        self.stage = stage = self.stages[self.state.stage]
        self.moves = [with_defaults(phase.optimiser, self.recipe) for phase in stage.phases]
        self.optimisers = [
            torch.optim.AdamW(list(phase.parameters), betas=moves.betas, weight_decay=moves.decay, fused=True)
            for phase, moves in zip(stage.phases, self.moves, strict=True)
        ]
        # what this stage changes: its parameters, and each buffer from the first step that writes to it
        parameters = {id(p): p for phase in stage.phases for p in phase.parameters}
        self.live: dict[str, Tensor] = {f"{i}": p for i, p in enumerate(parameters.values())}
        self.buffers = dict(self.learner.named_buffers())
        # torch counts the writes to a tensor; comparing the counts is cheaper than comparing the values
        self.written = {name: b._version for name, b in self.buffers.items()}
        decay = AVERAGE if stage.stopping_loss is None and self.recipe.average is None else self.recipe.average
        self.average = None if decay is None else Average(self.live, decay)
        self.best = self._snapshot()

    @property
    def _stage_for_message(self) -> str:
        """The name of the stage for messages, if there are several."""
        return f" of stage {self.stage.name!r}" if len(self.stages) > 1 else ""

    @property
    def _seconds(self) -> float:
        """The time for this stage: its share of the time that the stages before it left."""
        if self.recipe.seconds is None:
            return math.inf
        left = self.recipe.seconds - self.state.before
        return left * self.stage.share / sum(s.share for s in self.stages[self.state.stage :])

    def play(self) -> Step:
        """Play one step with every player that is due, and end the stage if it is over."""
        state, began = self.state, time.monotonic()
        state.step += 1
        warm = min(1.0, state.step / WARM_UP)
        left = (state.steps - state.step + 1) / (state.steps / 3) if state.steps else 1.0
        scale = state.factor * warm * min(1.0, left)
        losses = self._players(scale)
        for key, buffer in self.buffers.items():
            if key not in self.live and buffer._version != self.written[key]:
                self.live[key], self.best[key] = buffer, buffer.clone()
        if self.average is not None:
            self.average.update()
        validation = None
        due = state.step % self.recipe.every == 0 or state.step == state.steps
        if due and self.stage.stopping_loss is not None:
            validation = self.validate(self.stage.stopping_loss)
        state.seconds += time.monotonic() - began
        if due or (state.step == WARM_UP and not state.steps):
            self._plan()
            state.pace.append((state.step, state.seconds))
        converged = state.plateau >= self.recipe.plateaus
        over = bool(state.steps) and state.step >= state.steps
        stop_at = self.recipe.plan is not None and state.step == self.recipe.plan[state.stage][1]
        ended = converged or (state.seconds >= self._seconds and not self._pauses_next) or over or stop_at
        if ended and validation is None and self.stage.stopping_loss is not None:
            validation = self.validate(self.stage.stopping_loss)
        record = self._record(losses, self.recipe.rate * scale, validation, ended)
        return self._end_stage(record, converged) if ended else record

    def _plan(self) -> None:
        """Plan as many steps as the seconds allow, again and again until the learning rate begins to fall: up to there it does
        not depend on their number, so a fit that is planned anew has the bits of one that was planned so from the start."""
        state = self.state
        if self.recipe.seconds is not None and (not state.steps or 3 * state.step <= 2 * state.steps):
            # before the first validation a tenth is left for it: it costs about as much as its share of the rows
            seconds = self._seconds * (1.0 if state.curve else 0.9)
            least = max(2 * WARM_UP, self._least_steps, math.ceil(1.5 * state.step))
            state.steps = min(self.recipe.most_steps, max(least, int(state.steps_until(seconds))))

    def _record(self, losses: Mapping[str, float], rate: float, validation: float | None, ended: bool) -> Step:
        state, stages = self.state, self.stages
        steps, whole = state.steps or WARM_UP, sum(s.share for s in stages)
        done = sum(s.share for s in stages[: state.stage]) + self.stage.share * (1.0 if ended else state.step / steps)
        seconds = state.before + state.seconds
        return Step(self.stage.name, state.step, steps, losses, rate, seconds, state.best, done / whole, validation)

    @property
    def may_pause(self) -> bool:
        """Whether this step is a validation, and the learning rate has not begun to fall (see :meth:`_plan`)."""
        state = self.state
        timed = self.recipe.seconds is not None and len(self.stages) == 1
        return timed and len(state.curve) > 1 and state.curve[-1][0] == state.step and 3 * state.step <= 2 * state.steps

    @property
    def _least_steps(self) -> int:
        """So that the learning rate has not fallen yet, nor will at the next validation, if that is to be a pause."""
        validations = self.state.step // self.recipe.every
        return math.ceil(1.5 * (max(2, validations + 1) if self._pauses_next else validations) * self.recipe.every)

    @property
    def _pauses_next(self) -> bool:
        """Whether the next validation is to be a pause, even where the seconds end before."""
        return self.state.seconds >= self.pause

    def end_here(self) -> Step:
        """End a fit that was paused, at its last validation."""
        return self._end_stage(self._record({}, self.recipe.rate * self.state.factor, self.state.curve[-1][1], True), False)

    def _end_stage(self, record: Step, converged: bool) -> Step:
        """Keep the state of the stage; begin the next, or give the last record."""
        state, seconds = self.state, record.seconds
        self.keep_best()
        # 0 steps: none were planned yet
        plan, settled = [*state.plan, (state.steps, state.step)], state.settled and converged
        if state.stage + 1 < len(self.stages):
            self._begin(StageProgress(state.stage + 1, seconds, plan, settled))
            return record
        longer = None if settled or len(self.stages) > 1 else seconds_to_converge(state)
        return replace(record, best=state.best, finished=True, converged=settled, seconds_to_converge=longer, plan=tuple(plan))

    def _players(self, scale: float) -> dict[str, float]:
        state, stage = self.state, self.stage
        stream = partial(generator, self.seed, stage.name, state.step)
        turn = Turn({part: self._minibatch(part, rows, stream) for part, rows in self.data.items()}, stream)
        losses = {}
        alone = len(stage.phases) == len(self.stages) == 1
        for phase, moves, optimiser in zip(stage.phases, self.moves, self.optimisers, strict=True):
            if state.step % phase.every:
                continue
            total = 0.0
            for repeat in range(phase.repeats):
                loss = phase.loss(turn.played_by(phase.name, repeat))
                if not loss.requires_grad or loss.dim():
                    got = f"has shape {tuple(loss.shape)}" if loss.dim() else "depends on no parameter"
                    raise InputError(f"{self.name}: the loss of phase {phase.name!r} {got}, expected a scalar to minimise")
                optimiser.zero_grad(set_to_none=True)
                # with several players each gets gradients for its own parameters only; this costs a twentieth of a step
                loss.backward(inputs=None if alone else list(phase.parameters))
                gradients = [p.grad for p in phase.parameters if p.grad is not None]
                norm, value = float(nn.utils.get_total_norm(gradients)), float(loss.detach())
                self._check(phase.name, moves.rate, value, norm)
                if norm > moves.clip:
                    nn.utils.clip_grads_with_norm_(phase.parameters, moves.clip, torch.tensor(norm))
                optimiser.param_groups[0]["lr"] = moves.rate * scale
                optimiser.step()
                total += value
            losses[phase.name] = total / phase.repeats
        return losses

    def _minibatch(self, part: str, rows: Batch, stream: Stream) -> Batch:
        rng, size, weights = stream("minibatch", part), min(self.recipe.batch, len(rows)), rows.get("weights")
        if weights is None:
            return rows.at(torch.randint(len(rows), (size,), generator=rng))
        return rows.at(torch.multinomial(weights.cpu(), size, True, generator=rng))

    def _check(self, phase: str, rate: float, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        quantity = "gradient" if math.isfinite(loss) else "loss"
        raise FloatingPointError(
            f"{self.name}: the {quantity} of phase {phase!r}{self._stage_for_message} is not finite at step {self.state.step}; "
            f"most likely a few rows lie extremely far from the rest or the learning rate ({rate:g}) is too high: "
            "look at the extremes of each column, or lower the rate"
        )

    def validate(self, stopping_loss: Callable[[Turn], Tensor]) -> float:
        """Compute the stopping loss on the held-out slice, keep the best state, and count plateaus."""
        state = self.state
        if self.average is not None:
            self.average.swap()
        self.learner.eval()
        several, (part, rows) = len(self.held) > 1, next(iter(self.held.items()))
        pieces = [self.held] if several else [{part: rows.at(slice(i, i + AT_ONCE))} for i in range(0, len(rows), AT_ONCE)]
        score, n = 0.0, 0
        for i, piece in enumerate(pieces):
            # the same noise at every validation, so that only the learner changes the score
            turn = Turn(piece, partial(generator, self.seed, self.stage.name, "held out", i))
            with torch.enable_grad():
                loss = stopping_loss(turn)
            if not isinstance(loss, Tensor) or loss.dim():
                got = f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
                raise InputError(f"{self.name}: the stopping loss of stage {self.stage.name!r} is {got}, expected a scalar")
            size = 1 if several else len(piece[part])
            score, n = score + float(loss.detach()) * size, n + size
        score /= n
        if state.note(score):
            self.best = self._snapshot()
        if self.average is not None:
            self.average.swap()
        self.learner.train()
        if state.stale >= self.recipe.patience:
            state.begin_anew()
            self._set_live(self.best)
        return score

    def _snapshot(self) -> dict[str, Tensor]:
        return {key: now.detach().clone() for key, now in self.live.items()}

    @torch.no_grad()
    def _set_live(self, kept: Mapping[str, Tensor]) -> None:
        for tensors in (self.live, {} if self.average is None else self.average.mean):
            for key, tensor in tensors.items():
                tensor.copy_(kept[key])

    def keep_best(self) -> None:
        """Set the learner to the state that this stage keeps so far."""
        if self.stage.stopping_loss is None and self.average is not None:
            return self._set_live(self.average.mean)
        if not math.isfinite(self.state.best):
            raise FloatingPointError(
                f"{self.name}: no finite score on the held-out slice after {self.state.step} steps; "
                "look at the extremes of each column"
            )
        self._set_live(self.best)

    # ------------------------------------------------------------------------------------- checkpoints

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        tensors = {f"learner.{k}": v for k, v in self.learner.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        # a buffer that changes may be missing from the state_dict
        tensors |= {f"buffer.{k}": v for k, v in self.live.items() if k in self.buffers}
        if self.average is not None:
            tensors |= {f"average.{k}": v for k, v in self.average.mean.items()}
            self.state.averaged = self.average.t
        for o, optimiser in enumerate(self.optimisers):
            for i, p in enumerate(optimiser.param_groups[0]["params"]):
                tensors |= {f"optimiser.{o}.{i}.{k}": v for k, v in optimiser.state.get(p, {}).items()}
        save_checkpoint(path, tensors, self.state)

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint of :meth:`save`."""
        with named_if_damaged(path, self.name):
            self._load(*read_checkpoint(path))
        if self.may_pause:
            self._plan()

    def _load(self, tensors: dict[str, Tensor], state: StageProgress) -> None:
        self.learner.load_state_dict(part_of(tensors, "learner."))
        self.state = state
        self._enter()
        best = part_of(tensors, "best.")
        self.live |= {key: self.buffers[key] for key in best if key not in self.live}
        self.best = {key: best[key].to(now.device) for key, now in self.live.items()}
        with torch.no_grad():
            for key, kept in part_of(tensors, "buffer.").items():
                self.buffers[key].copy_(kept)
        self.written = {key: b._version for key, b in self.buffers.items()}
        if self.average is not None:
            mean = part_of(tensors, "average.")
            self.average.mean = {key: mean[key].to(now.device) for key, now in self.live.items()}
            self.average.t = state.averaged
        for o, optimiser in enumerate(self.optimisers):
            for i, p in enumerate(optimiser.param_groups[0]["params"]):
                held: dict[str, Any] = part_of(tensors, f"optimiser.{o}.{i}.")
                if held:
                    optimiser.state[p] = {k: v if k == "step" else v.to(p.device) for k, v in held.items()}
