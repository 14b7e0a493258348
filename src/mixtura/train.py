"""Training: one ``fit`` that plays the phases of any model and yields a record a step.

The caller's loop body is the callback system:

>>> import torch
>>> from mixtura import Space
>>> from mixtura.rng import generator
>>> from mixtura.families.vae import Config, build
>>> from mixtura.train import Recipe, fit
>>> x = torch.randn(100, 2, generator=generator(0)).double()
>>> model = build(Space.continuous(2), config=Config(), rng=generator(1))
>>> for step in fit(model, x, Recipe(steps=3), rng=generator(2)):
...     print(step.step, step.loss > 0)
1 True
2 True
3 True

The learning rate warms up, stays, and falls to zero over the last third of ``steps``. A slice of the rows is
never trained on: every ``every`` steps it is scored, the best state is kept, a plateau lowers the rate and
goes back to the best, and a third plateau ends the run (``converged``). Everything that decides the bits,
the generator included, is in the checkpoint, so a killed run goes on as if nothing had happened.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mixtura.contracts import InputError, Model
from mixtura.machine import write
from mixtura.rng import generator


@dataclass(frozen=True)
class Step:
    """What a training step left behind.

    loss: nats a row of the fit rows in this step (the mean over phases played). validation: nats a row of the
    held-out slice, where it was scored at this step. best: the lowest so far. rate: the learning rate.
    seconds: training time so far, over all resumptions. finished: this is the last record.
    converged: ended because nothing improved any more. wanted: seconds that convergence would take in all, a
    guess from the curve, where the run ended without it.
    """

    step: int
    steps: int
    loss: float
    rate: float
    seconds: float
    best: float
    validation: float | None = None
    finished: bool = False
    converged: bool = False
    wanted: float | None = None


@dataclass(frozen=True)
class Recipe:
    """How to train. steps: the plan, which shapes the learning rate. stop_at: end there, mid-plan (a replay). seconds: instead
    of ``steps``, plan as many as fit, measured over the first ``WARM_UP`` steps; the run also ends when they are over.
    patience: validations without progress before the rate falls. average: decay of the exponential moving average of the
    parameters (scored and kept in place of the last ones), or None. held_out: the share of the rows that is scored and not
    trained on; 0 for a model whose loss in evaluation leaves rows out itself."""

    steps: int | None = None
    seconds: float | None = None
    stop_at: int | None = None
    batch: int = 256
    rate: float = 2e-3
    decay: float = 1e-5
    clip: float = 5.0
    every: int = 50
    patience: int = 6
    plateaus: int = 3
    average: float | None = None
    held_out: float = 0.12
    most_steps: int = 200_000

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise InputError("fit: give either steps or seconds, not both and not neither")
        for name, value in (("steps", 1 if self.steps is None else self.steps), ("batch", self.batch)):
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
                raise InputError(f"{name}: expected a whole number, 1 or more, got {value!r}")
        if not (isinstance(self.rate, Real) and 0 < self.rate < math.inf):
            raise InputError(f"rate: expected a number above 0, got {self.rate!r}")


#: rows that a score during training looks at, at most
MOST_CHECKED = 5_000
#: steps at the full warm-up; also those over which the speed is measured
WARM_UP = 20
#: a score must fall by this many nats to count as progress
PROGRESS = 1e-3


class Average:
    """Exponential moving average of parameters, θ̄ ← d θ̄ + (1 − d) θ with d = min(decay, (1 + t)/(10 + t))."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay, self.t = parameters, decay, 0
        self.mean = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take one step's parameters in."""
        self.t += 1
        d = min(self.decay, (1 + self.t) / (10 + self.t))
        get_ema_multi_avg_fn(d)(self.mean, [p.detach() for p in self.parameters], self.t)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average with the live parameters; twice is nothing."""
        for p, mean in zip(self.parameters, self.mean, strict=True):
            held = p.detach().clone()
            p.copy_(mean)
            mean.copy_(held)


@dataclass
class _Progress:
    """Everything scalar that a checkpoint holds."""

    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    best: float = math.inf
    stale: int = 0
    plateau: int = 0
    factor: float = 1.0
    averaged: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch and for scikit-learn's libraries inside: measured, two fight over small matrices (a mixture fit takes
    ten times as long) and no family gains; and the bits do not depend on the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


def choose_device(name: str = "auto") -> torch.device:
    """ "auto" is the accelerator torch finds, else the CPU. InputError if the named one is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device: {name!r} is no torch device; use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device: {name!r} was asked for, but torch sees no CUDA device here; use auto or cpu")
    return device


def fit(
    model: Model,
    x: Tensor,
    recipe: Recipe,
    *,
    context: Tensor | None = None,
    weights: Tensor | None = None,
    rng: torch.Generator,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    checkpoint_every: float = 5.0,
    name: str | None = None,
) -> Iterator[Step]:
    """Train ``model`` on rows x (n, *shape) in data units, in place; yields a :class:`Step` after every step. ``weights`` (n,)
    draw rows in proportion.

    The model ends, on the CPU and in evaluation mode, with the parameters that scored best on the held-out
    slice. ``checkpoint`` is a file: written every so many seconds, taken up if it is there, removed at the end.
    FloatingPointError, with the phase and step, on a loss or gradient that is not finite.
    """
    name = name or type(model).__name__
    x = model.space.check(x, name="training rows")
    context = model.check_context(context, len(x))
    # two rows or more to score, or what the usual share of them asks for
    least = min(8, math.ceil(2 / recipe.held_out)) if recipe.held_out else 2
    if len(x) < least:
        raise InputError(f"{name}: expected at least {least} rows to train on, got {len(x)}")
    order = torch.randperm(len(x), generator=rng)
    held = max(2, min(MOST_CHECKED, round(recipe.held_out * len(x)))) if recipe.held_out else 0
    model.prepare(x[order[held:]], None if context is None else context[order[held:]], rng)
    model.to(device)
    checked, learnt = order[:held] if held else order[:MOST_CHECKED], order[held:]
    if weights is not None:
        checked = checked[torch.multinomial(weights[checked], MOST_CHECKED, True, generator=rng)]
    check, check_context = _fed(model, x, context, checked, device)
    rows, rows_context = _fed(model, x, context, learnt, device)
    game = _Game(model, recipe, rng, name, None if weights is None else weights[learnt])
    if checkpoint is not None and checkpoint.exists():
        game.restore(checkpoint)
    state, last_saved = game.state, time.monotonic()
    while True:
        began = time.monotonic()
        loss, rate = game.play(rows, rows_context)
        validation = None
        if state.step % recipe.every == 0 or state.step == state.steps:
            validation = game.validate(check, check_context)
        state.seconds += time.monotonic() - began
        if state.step == WARM_UP and recipe.seconds is not None and not state.steps:
            # the score of the slice costs about as much as its share of rows
            room = 0.9 * recipe.seconds - state.seconds
            state.steps = min(recipe.most_steps, max(2 * WARM_UP, int(WARM_UP * room / state.seconds)))
        converged = state.plateau >= recipe.plateaus
        late = recipe.seconds is not None and state.seconds >= recipe.seconds
        over = state.steps and state.step >= state.steps or state.step == recipe.stop_at
        finished = bool(converged or late or over)
        if finished and validation is None:
            validation = game.validate(check, check_context)
        record = Step(state.step, state.steps or WARM_UP, loss, rate, state.seconds, state.best, validation, finished, converged)
        if finished:
            game.finish()
            model.to("cpu").eval()
            yield replace(record, best=state.best, wanted=None if converged else _wanted(state))
            if checkpoint is not None:
                checkpoint.unlink(missing_ok=True)
            return
        yield record
        if checkpoint is not None and time.monotonic() - last_saved >= checkpoint_every:
            game.save(checkpoint)
            last_saved = time.monotonic()


def _fed(
    model: Model, x: Tensor, context: Tensor | None, rows: Tensor, device: torch.device | str
) -> tuple[Tensor, Tensor | None]:
    fed = model.cpu().feed(x[rows]).to(device)
    model.to(device)
    return fed, None if context is None else context[rows].to(device)


class _Game:
    """The state of a training run, and the moves."""

    def __init__(self, model: Model, recipe: Recipe, rng: torch.Generator, name: str, weights: Tensor | None) -> None:
        self.model, self.recipe, self.rng, self.name, self.weights = model, recipe, rng, name, weights
        self.phases = model.phases()
        if not self.phases:
            raise InputError(f"{name}: nothing to train; this model is fitted by fit_closed")
        self.parameters = list({id(p): p for phase in self.phases for p in phase.parameters}.values())
        self.optimisers = [
            torch.optim.AdamW(list(phase.parameters), lr=recipe.rate, weight_decay=recipe.decay, fused=True)
            for phase in self.phases
        ]
        self.average = Average(self.parameters, recipe.average) if recipe.average is not None else None
        self.state = _Progress(steps=recipe.steps or 0)
        self.best = [p.detach().clone() for p in self.parameters]
        # validation draws its own noise, the same every time, so that scores differ by the model alone
        self.validation_seed = int(torch.randint(2**62, (), generator=rng))
        model.train()

    def play(self, rows: Tensor, context: Tensor | None) -> tuple[float, float]:
        """One step: every phase that is due. Returns the mean loss and the learning rate."""
        state, recipe = self.state, self.recipe
        state.step += 1
        rate = recipe.rate * state.factor * self._schedule()
        losses = []
        for phase, optimiser in zip(self.phases, self.optimisers, strict=True):
            if state.step % phase.every:
                continue
            size = min(recipe.batch, len(rows))
            if self.weights is None:
                pick = torch.randint(len(rows), (size,), generator=self.rng).to(rows.device)
            else:
                pick = torch.multinomial(self.weights, size, True, generator=self.rng).to(rows.device)
            beside = None if context is None else context.index_select(0, pick)
            loss = phase.loss(rows.index_select(0, pick), beside, self.rng)
            optimiser.zero_grad(set_to_none=True)
            # of several phases each keeps to its own parameters; asking for them costs a twentieth of a step
            loss.backward(inputs=list(phase.parameters) if len(self.phases) > 1 else None)
            gradients = [p.grad for p in phase.parameters if p.grad is not None]
            norm = float(nn.utils.get_total_norm(gradients))
            losses.append(float(loss.detach()))
            self._check(phase.name, losses[-1], norm)
            if norm > recipe.clip:
                nn.utils.clip_grads_with_norm_(phase.parameters, recipe.clip, torch.tensor(norm))
            optimiser.param_groups[0]["lr"] = rate
            optimiser.step()
        if self.average is not None:
            self.average.update()
        return sum(losses) / max(len(losses), 1), rate

    def _schedule(self) -> float:
        state = self.state
        warm = min(1.0, state.step / WARM_UP)
        left = (state.steps - state.step + 1) / (state.steps / 3) if state.steps else 1.0
        return warm * min(1.0, left)

    def _check(self, phase: str, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        what = "gradient" if math.isfinite(loss) else "loss"
        raise FloatingPointError(
            f"{self.name}: the {what} of phase {phase!r} is not finite at step {self.state.step}; most likely a few rows lie "
            f"extremely far from the rest or the learning rate ({self.recipe.rate:g}) is too high: "
            "look at the extremes of each column, or lower the rate"
        )

    @torch.no_grad()
    def validate(self, rows: Tensor, context: Tensor | None) -> float:
        """Score the held-out slice; keep the best state; count plateaus."""
        state = self.state
        if self.average is not None:
            self.average.swap()
        self.model.eval()
        rng = generator(self.validation_seed)
        pieces = [
            (
                float(self.phases[0].loss(rows[i : i + 1000], None if context is None else context[i : i + 1000], rng)),
                len(rows[i : i + 1000]),
            )
            for i in range(0, len(rows), 1000)
        ]
        score = sum(loss * n for loss, n in pieces) / len(rows)
        state.curve.append((state.step, score))
        if score < state.best - PROGRESS:
            state.stale = 0
        else:
            state.stale += 1
        if score < state.best:
            state.best = score
            self.best = [p.detach().clone() for p in self.parameters]
        if self.average is not None:
            self.average.swap()
        self.model.train()
        if state.stale >= self.recipe.patience:
            state.stale, state.plateau, state.factor = 0, state.plateau + 1, state.factor * 0.3
            self._restore_best()
        return score

    def _restore_best(self) -> None:
        for p, kept in zip(self.parameters, self.best, strict=True):
            p.data.copy_(kept)
        if self.average is not None:
            for mean, kept in zip(self.average.mean, self.best, strict=True):
                mean.copy_(kept)

    def finish(self) -> None:
        """Leave the best state in the model."""
        if not math.isfinite(self.state.best):
            raise FloatingPointError(
                f"{self.name}: no finite score on the held-out slice after {self.state.step} steps; "
                "look at the extremes of each column"
            )
        self._restore_best()

    # ------------------------------------------------------------------------------------- checkpoints

    def save(self, path: Path) -> None:
        """Everything, whole or not at all."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"best.{i}": v for i, v in enumerate(self.best)}
        if self.average is not None:
            tensors |= {f"average.{i}": v for i, v in enumerate(self.average.mean)}
            self.state.averaged = self.average.t
        for o, optimiser in enumerate(self.optimisers):
            for i, p in enumerate(optimiser.param_groups[0]["params"]):
                tensors |= {f"optimiser.{o}.{i}.{k}": v for k, v in optimiser.state.get(p, {}).items()}
        tensors["rng"] = self.rng.get_state()
        whole = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, {"state": json.dumps(asdict(self.state))})
        write(path, whole)

    def restore(self, path: Path) -> None:
        """Take up where :meth:`save` left off."""
        content = path.read_bytes()
        try:
            tensors = load(content)
            size = int.from_bytes(content[:8], "little")
            state = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["state"])
            self._take(tensors, _Progress(**(state | {"curve": [tuple(p) for p in state["curve"]]})))
        except (KeyError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError, SafetensorError) as error:
            raise InputError(
                f"{path}: not a checkpoint of this {self.name} ({type(error).__name__}); remove it or start over with --fresh"
            ) from error

    def _take(self, tensors: dict[str, Tensor], state: _Progress) -> None:
        self.state = state
        self.model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        self.best = [tensors[f"best.{i}"].to(p.device) for i, p in enumerate(self.parameters)]
        if self.average is not None:
            self.average.mean = [tensors[f"average.{i}"].to(p.device) for i, p in enumerate(self.parameters)]
            self.average.t = state.averaged
        for o, optimiser in enumerate(self.optimisers):
            for i, p in enumerate(optimiser.param_groups[0]["params"]):
                prefix = f"optimiser.{o}.{i}."
                held: dict[str, Any] = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
                if held:
                    optimiser.state[p] = {k: v if k == "step" else v.to(p.device) for k, v in held.items()}
        self.rng.set_state(tensors["rng"])


def _wanted(state: _Progress) -> float | None:
    """Seconds a converged run would take: the gain of each doubling of the steps shrinks by a constant ratio,
    followed until a doubling brings less than 0.01 nats. None where the curve is too short to tell."""
    scores = dict(state.curve)
    steps = sorted(scores)
    if len(steps) < 4:
        return None
    best = lambda until: min(v for s, v in scores.items() if s <= until)  # noqa: E731
    last = steps[-1]
    gain, before = best(last / 2) - best(last), best(max(last / 4, steps[0])) - best(last / 2)
    if gain <= 0.01:
        return state.seconds
    ratio = min(0.7, max(0.2, gain / before)) if before > 0 else 0.7
    doublings = math.ceil(math.log(0.01 / gain) / math.log(ratio))
    return state.seconds * 2 ** min(doublings, 12)
