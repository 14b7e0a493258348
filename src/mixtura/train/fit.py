"""Training: one ``fit`` that plays the game of any learner and yields a record a step.

The caller's loop body is the callback system:

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

A learner is trained in stages, each a game of one or more players (``contracts.Stage``). In each the learning rate warms up,
stays, and falls to zero over the last third of its steps. A slice of the rows is never trained on: every ``every`` steps the
stage's stopping loss of it is taken, the best state is kept, a plateau lowers the rate and goes back to the best, and a third
plateau ends the stage (``converged``). A stage without a stopping loss plays all its steps and keeps the moving average.

Every draw follows from one seed, the stage, the step and the player's name, so a player that is added changes no other's draws.
Everything else that decides the bits is in the checkpoint, and a killed run goes on as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mixtura.contracts import ONLY, Batch, Batches, InputError, Learner, Optimiser, Stage, Stream, Turn
from mixtura.ground.machine import remove
from mixtura.ground.rng import generator
from mixtura.train.average import AVERAGE, Average
from mixtura.train.checkpoint import named_if_damaged, part_of, read_checkpoint, save_checkpoint
from mixtura.train.recipe import WARM_UP, Recipe
from mixtura.train.stopping import AT_ONCE, Progress, seconds_to_converge


@dataclass(frozen=True)
class Step:
    """What a training step left behind.

    stage: its name. step: of how many ``steps`` in this stage. losses: of every player that played, the mean over its repeats, by
    phase name, on the rows of this step. validation: the stopping loss of the held-out slice, where it was taken at this step.
    best: the lowest so far in this stage; infinite where none was taken. rate: the learning rate of the recipe. seconds: training
    time so far, over all stages and resumptions. share: of the training that is done, from 0 to 1. finished: this is the last
    record. converged: ended because nothing improved any more. wanted: seconds that convergence would take in all, a guess from
    the curve, where the run ended without it. plan: of every stage that has ended, the steps planned and the step it ended at.
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
    wanted: float | None = None
    plan: tuple[tuple[int, int], ...] = ()

#: rows that a score during training looks at, at most
MOST_CHECKED = 5_000


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
) -> Iterator[Step]:
    """Train ``learner`` in place on rows x in data units, on a batch that holds more than x, or on several by name, each of a
    length of its own; yields a :class:`Step` after every step.

    The learner ends, on the CPU and in evaluation mode, with the state that each stage keeps (see the module). ``checkpoint`` is
    a file: written every so many seconds, taken up if it is there, removed at the end. InputError on data it cannot be trained
    on; FloatingPointError, with the phase and step, on a loss or gradient that is not finite.
    """
    name = name or type(learner).__name__
    data = Batch(x=data) if isinstance(data, Tensor) else data
    several = isinstance(data, Mapping) and len(data) > 0 and all(isinstance(rows, Batch) for rows in data.values())
    if not isinstance(data, Batch) and not several:
        raise InputError(f"{name}: expected rows as a tensor, a Batch or batches by name to train on, got {type(data).__name__}")
    data = learner.check({ONLY: data} if isinstance(data, Batch) else data)
    stages = learner.stages()
    _check_stages(stages, name)
    if recipe.plan is not None and (len(recipe.plan) != len(stages) or min(end for _, end in recipe.plan) < 1):
        raise InputError(f"plan: expected the steps and the end, 1 or more, of each of {len(stages)} stages, got {recipe.plan}")
    share = recipe.held_out if any(stage.stopping_loss for stage in stages) else 0.0
    learnt, held = {}, {}
    for part, rows in data.items():
        # two rows or more to score, or what the usual share of them asks for
        least = min(8, math.ceil(2 / share)) if share else 2
        if len(rows) < least:
            which = "" if part == ONLY else f" in {part!r}"
            raise InputError(f"{name}: expected at least {least} rows to train on{which}, got {len(rows)}")
        order = torch.randperm(len(rows), generator=rng)
        cut = max(2, min(MOST_CHECKED, round(share * len(rows)))) if share else 0
        learnt[part], checked = rows.at(order[cut:]), order[:cut] if cut else order[:MOST_CHECKED]
        held[part] = rows.at(checked)
    learner.prepare(learnt, rng)
    for part, rows in held.items():
        if (weights := rows.get("weights")) is not None:
            if not (weights.any() and cast(Tensor, learnt[part].get("weights")).any()):
                raise InputError(f"{name}: too few rows weigh more than 0 to learn from some and stop by others; give more")
            held[part] = rows.at(torch.multinomial(weights, MOST_CHECKED, True, generator=rng))
    learnt, held = (_on(learner, learner.encode_for_training(part), device) for part in (learnt, held))
    learner.to(device).train()
    training = TrainingState(learner, recipe, int(torch.randint(2**62, (), generator=rng)), name, learnt, held)
    if checkpoint is not None and checkpoint.exists():
        training.restore(checkpoint)
    last_saved = time.monotonic()
    while True:
        record = training.play()
        if record.finished:
            learner.to("cpu").eval()
            yield record
            if checkpoint is not None:
                remove(checkpoint)
            return
        yield record
        if checkpoint is not None and time.monotonic() - last_saved >= checkpoint_every:
            training.save(checkpoint)
            last_saved = time.monotonic()


@dataclass(frozen=True)
class _Moves:
    """An :class:`Optimiser` with nothing left to the recipe."""

    rate: float
    betas: tuple[float, float]
    clip: float
    decay: float


def _settled(asked: Optimiser, recipe: Recipe) -> _Moves:
    rate = recipe.rate if asked.rate is None else asked.rate
    clip = recipe.clip if asked.clip is None else asked.clip
    return _Moves(rate, asked.betas, clip, recipe.decay if asked.decay is None else asked.decay)


def _check_stages(stages: Sequence[Stage], name: str) -> None:
    """InputError on a game that cannot be played: streams are told apart by the names of stages and players."""
    if not stages:
        raise InputError(f"{name}: nothing to train; this model is fitted by fit_closed")
    twice = [name for name, often in Counter(stage.name for stage in stages).items() if often > 1]
    for stage in stages:
        twice += [phase for phase, often in Counter(phase.name for phase in stage.phases).items() if often > 1]
        if not stage.phases or not all(len(phase.parameters) for phase in stage.phases):
            raise InputError(f"{name}: stage {stage.name!r} has no player, or one without parameters; leave it out")
        odd = next((phase for phase in stage.phases if phase.every < 1 or phase.repeats < 1), None)
        if odd is not None:
            told = f"every={odd.every}, repeats={odd.repeats}"
            raise InputError(f"{name}: phase {odd.name!r} plays with {told}, expected 1 or more of each")
    if twice:
        raise InputError(f"{name}: two stages, or two players of one, are called {twice[0]!r}; name each otherwise")


def _on(learner: Learner, data: Batches, device: torch.device | str) -> Batches:
    return {part: rows.to(device) for part, rows in data.items()}


class TrainingState:
    """A game that is being played: its stage, the players' optimisers, the best state so far; :meth:`play` is one step."""

    def __init__(self, learner: Learner, recipe: Recipe, seed: int, name: str, data: Batches, held: Batches) -> None:
        self.learner, self.recipe, self.seed, self.name, self.data, self.held = learner, recipe, seed, name, data, held
        self.stages = learner.stages()
        self._begin(Progress())

    def _begin(self, state: Progress) -> None:
        """Begin the stage that ``state`` names, with the steps planned for it; 0 where its speed has to be seen first."""
        self.state, recipe = state, self.recipe
        self._enter()
        if recipe.plan is not None:
            state.steps = recipe.plan[state.stage][0]
        elif recipe.steps is not None:
            state.steps = max(1, round(recipe.steps * self.stage.share / sum(s.share for s in self.stages)))

    def _enter(self) -> None:
        """The players of the stage that ``state`` names, as they are before its first step."""
        self.stage = stage = self.stages[self.state.stage]
        self.moves = [_settled(phase.optimiser, self.recipe) for phase in stage.phases]
        self.optimisers = [
            torch.optim.AdamW(list(phase.parameters), betas=moves.betas, weight_decay=moves.decay, fused=True)
            for phase, moves in zip(stage.phases, self.moves, strict=True)
        ]
        #: what this stage changes: its parameters, and buffers from the first step that writes to them
        parameters = {id(p): p for phase in stage.phases for p in phase.parameters}
        self.live: dict[str, Tensor] = {f"{i}": p for i, p in enumerate(parameters.values())}
        self.buffers = dict(self.learner.named_buffers())
        # torch counts the writes to a tensor, which is cheaper than to compare it
        self.written = {name: b._version for name, b in self.buffers.items()}
        decay = AVERAGE if stage.stopping_loss is None and self.recipe.average is None else self.recipe.average
        self.average = None if decay is None else Average(self.live, decay)
        self.best = self._snapshot()

    @property
    def _where(self) -> str:
        """Which stage it is, where there are several."""
        return f" of stage {self.stage.name!r}" if len(self.stages) > 1 else ""

    @property
    def _seconds(self) -> float:
        """This stage's part of what the stages before it left."""
        if self.recipe.seconds is None:
            return math.inf
        left = self.recipe.seconds - self.state.before
        return left * self.stage.share / sum(s.share for s in self.stages[self.state.stage :])

    def play(self) -> Step:
        """One step: every player that is due; then the end of the stage, if it has come."""
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
        if state.step == WARM_UP and self.recipe.seconds is not None and not state.steps:
            # the score of the slice costs about as much as its share of rows
            room = 0.9 * self._seconds - state.seconds
            state.steps = min(self.recipe.most_steps, max(2 * WARM_UP, int(WARM_UP * room / max(state.seconds, 1e-9))))
        converged = state.plateau >= self.recipe.plateaus
        over = bool(state.steps) and state.step >= state.steps
        stop_at = self.recipe.plan is not None and state.step == self.recipe.plan[state.stage][1]
        ended = converged or state.seconds >= self._seconds or over or stop_at
        if ended and validation is None and self.stage.stopping_loss is not None:
            validation = self.validate(self.stage.stopping_loss)
        steps, whole = state.steps or WARM_UP, sum(s.share for s in self.stages)
        done = sum(s.share for s in self.stages[: state.stage]) + self.stage.share * (1.0 if ended else state.step / steps)
        seconds = state.before + state.seconds
        record = Step(
            self.stage.name, state.step, steps, losses, self.recipe.rate * scale, seconds, state.best, done / whole, validation
        )  # fmt: skip
        if not ended:
            return record
        self._leave()
        # 0 steps: none were planned yet
        plan, settled = [*state.plan, (state.steps, state.step)], state.settled and converged
        if state.stage + 1 < len(self.stages):
            self._begin(Progress(state.stage + 1, seconds, plan, settled))
            return record
        wanted = None if settled or len(self.stages) > 1 else seconds_to_converge(state)
        return replace(record, best=state.best, finished=True, converged=settled, wanted=wanted, plan=tuple(plan))

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
                    told = f"of shape {tuple(loss.shape)}" if loss.dim() else "that depends on no parameter"
                    raise InputError(f"{self.name}: the loss of phase {phase.name!r} is one {told}, expected a scalar to lower")
                optimiser.zero_grad(set_to_none=True)
                # of several players each keeps to its own parameters; asking for them costs a twentieth of a step
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
        what = "gradient" if math.isfinite(loss) else "loss"
        raise FloatingPointError(
            f"{self.name}: the {what} of phase {phase!r}{self._where} is not finite at step {self.state.step}; most likely a few "
            f"rows lie extremely far from the rest or the learning rate ({rate:g}) is too high: "
            "look at the extremes of each column, or lower the rate"
        )

    def validate(self, stopping_loss: Callable[[Turn], Tensor]) -> float:
        """Score the held-out slice; keep the best state; count plateaus."""
        state = self.state
        if self.average is not None:
            self.average.swap()
        self.learner.eval()
        several, (part, rows) = len(self.held) > 1, next(iter(self.held.items()))
        pieces = [self.held] if several else [{part: rows.at(slice(i, i + AT_ONCE))} for i in range(0, len(rows), AT_ONCE)]
        score, n = 0.0, 0
        for i, piece in enumerate(pieces):
            # its own noise, the same every time, so that scores differ by the learner alone
            turn = Turn(piece, partial(generator, self.seed, self.stage.name, "held out", i))
            with torch.enable_grad():
                loss = stopping_loss(turn)
            if not isinstance(loss, Tensor) or loss.dim():
                told = f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
                raise InputError(f"{self.name}: the stopping loss of stage {self.stage.name!r} is {told}, expected a scalar")
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
            self._return(self.best)
        return score

    def _snapshot(self) -> dict[str, Tensor]:
        return {key: now.detach().clone() for key, now in self.live.items()}

    @torch.no_grad()
    def _return(self, kept: Mapping[str, Tensor]) -> None:
        for tensors in (self.live, {} if self.average is None else self.average.mean):
            for key, tensor in tensors.items():
                tensor.copy_(kept[key])

    def _leave(self) -> None:
        """Leave in the learner what this stage keeps."""
        if self.stage.stopping_loss is None and self.average is not None:
            return self._return(self.average.mean)
        if not math.isfinite(self.state.best):
            raise FloatingPointError(
                f"{self.name}: no finite score on the held-out slice after {self.state.step} steps; "
                "look at the extremes of each column"
            )
        self._return(self.best)

    # ------------------------------------------------------------------------------------- checkpoints

    def save(self, path: Path) -> None:
        """Everything, whole or not at all."""
        tensors = {f"learner.{k}": v for k, v in self.learner.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        # a buffer that moves need not be one that a model keeps
        tensors |= {f"buffer.{k}": v for k, v in self.live.items() if k in self.buffers}
        if self.average is not None:
            tensors |= {f"average.{k}": v for k, v in self.average.mean.items()}
            self.state.averaged = self.average.t
        for o, optimiser in enumerate(self.optimisers):
            for i, p in enumerate(optimiser.param_groups[0]["params"]):
                tensors |= {f"optimiser.{o}.{i}.{k}": v for k, v in optimiser.state.get(p, {}).items()}
        save_checkpoint(path, tensors, self.state)

    def restore(self, path: Path) -> None:
        """Take up where :meth:`save` left off."""
        with named_if_damaged(path, self.name):
            self._take(*read_checkpoint(path))

    def _take(self, tensors: dict[str, Tensor], state: Progress) -> None:
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
