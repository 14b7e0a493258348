"""One fit: what all fits of a run share (:class:`Material`), how a model is built (:class:`Candidate`), and its training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mixtura.contracts import Batch, ClosedForm, InputError, Model, Space
from mixtura.families import TABLE
from mixtura.ground.encode import Columns
from mixtura.ground.rng import child_seed, generator, seeded
from mixtura.job.splits import Splits
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

#: seconds between two reports of a fit
REPORT_EVERY = 0.2


class Moment(NamedTuple):
    """How far one fit is: ``done`` of 1, the best validation nats so far, seconds left, and what else is to be said."""

    done: float
    validation: float | None = None
    left: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Material:
    """What all fits of a run share. x (n, …): the rows of the data that models sample, in data units; context (n, …): what they
    are given, or None. encoding: one for all models and folds, of the rows that any of them learns from, never of the report
    rows. samples: how many samples of every model are kept for the choice of weights, 0 where none are. seconds: the planned
    budget, which chooses the size of models; None by steps."""

    space: Space
    x: Tensor
    context: Tensor | None
    splits: Splits
    encoding: Columns
    seed: int
    samples: int
    seconds: float | None
    device: torch.device

    def context_of(self, rows: Tensor) -> Tensor | None:
        """The context of some rows."""
        return None if self.context is None else self.context[rows]

    @property
    def context_shape(self) -> tuple[int, ...] | None:
        """Of one row."""
        return None if self.context is None else tuple(self.context.shape[1:])


@dataclass(frozen=True)
class Candidate:
    """A model to fit: a family of the table, or a callable of the person's own, Space → Model (with targets: Space, context
    shape → Model)."""

    name: str
    own: Callable[..., Model] | None = None

    @property
    def recipe(self) -> Mapping[str, Any]:
        """What its training wants otherwise than ``Recipe`` has it."""
        return {} if self.own is not None else TABLE[self.name].recipe

    def build(self, material: Material, n: int, rng: torch.Generator) -> Model:
        """The untrained model for n rows. InputError, with the reason, where it cannot serve the space."""
        space, shape = material.space, material.context_shape
        if self.own is None:
            row = TABLE[self.name]
            settings = row.suggest(space, n, material.seconds)
            return row.build(space, encoding=material.encoding, context_shape=shape, config=settings, rng=rng)
        with seeded(child_seed(int(torch.randint(2**62, (), generator=rng)), "own")):
            model = self.own(space) if shape is None else self.own(space, shape)
        if not isinstance(model, Model):
            raise InputError(f"models: expected a callable Space → mixtura.Model, got {type(model).__name__}")
        if model.context_shape != shape:
            raise InputError(
                f"models: expected a model built with context shape {shape}, got one with {model.context_shape}; "
                "with --target your callable takes the Space and that shape"
            )
        return model


@dataclass(frozen=True)
class Length:
    """How long to train, by one of: ``plan``, the steps of a run to repeat; ``steps``; ``seconds``. ``pause``: after how many
    seconds to pause; ``stop``: end a fit that was paused where it is."""

    plan: tuple[tuple[int, int], ...] | None = None
    steps: int | None = None
    seconds: float | None = None
    pause: float | None = None
    stop: bool = False

    def recipe(self, settings: Mapping[str, Any]) -> Recipe:
        """The recipe of these settings for this length."""
        if self.plan is not None:
            return Recipe(**{**settings, "plan": self.plan})
        if self.steps is not None:
            return Recipe(**{**settings, "steps": min(self.steps, settings.get("most_steps", self.steps))})
        return Recipe(**{**settings, "seconds": self.seconds})


class Again(NamedTuple):
    """What a model is fitted again from: as it was ``fitted``, from whose parameters its training goes on, and the numbers of
    rows that are ``held`` out of both fits. A closed fit begins anew."""

    fitted: Model
    held: Tensor


class Fitted(NamedTuple):
    """A trained model; of its fit the steps, the seconds and whether it converged, as plain data; the training records."""

    model: Model
    entry: dict[str, Any]
    history: list[dict[str, Any]]


class Paused(NamedTuple):
    """A fit that was paused: the model in its best state so far, the step, the seconds so far, and (step, nats a row of the
    held-out rows) of every validation; no curve where its stopping loss is in other units than nats."""

    model: Model
    step: int
    seconds: float
    curve: list[tuple[int, float]]


def fit_model(
    candidate: Candidate, material: Material, unit: str, rows: Tensor, length: Length, checkpoint: Path,
    again: Again | None = None,
) -> Generator[Moment, None, Fitted | Paused]:  # fmt: skip
    """Fit one model to the rows with these numbers. ``unit``: the name of the fit, from which its draws follow. A checkpoint that
    is there is taken up, so that a fit that was killed ends with the bits of one that was not. ``again``: of a model that is
    fitted again to other rows."""
    rng = generator(material.seed, unit)
    x, context = material.x[rows], material.context_of(rows)
    goes_on = again is not None and not isinstance(again.fitted, ClosedForm)
    if goes_on:  # whatever is drawn when it is built, such as the order of the entries, is as it was
        model = candidate.build(material, len(material.splits.training), generator(material.seed, f"{candidate.name}/all"))
    else:
        model = candidate.build(material, len(x), rng)
    began = time.monotonic()
    if isinstance(model, ClosedForm):
        yield Moment(0.0, note="fitting")
        model.fit_closed(x, context, rng)
        return Fitted(model.eval(), {"plan": None, "seconds": time.monotonic() - began, "converged": True}, [])
    if not model.stages():
        raise InputError(
            f"{candidate.name}: it offers neither stages to train nor fit_closed; a model of your own needs one of them"
        )
    recipe = length.recipe({**candidate.recipe, **model.recipe})
    unit_of = {stage.name: stage.unit for stage in model.stages()}
    shown, entry, history = 0.0, {}, []
    learnt, held, begun = Batch(x=x, context=context), None, None
    if again is not None:
        held = Batch(x=material.x[again.held], context=material.context_of(again.held))
        begun = dict(again.fitted.named_parameters())
    for step in fit(
        model, learnt, recipe, rng=rng, device=material.device, checkpoint=checkpoint, name=candidate.name, pause=length.pause,
        stop=length.stop, held=held, begin_with=begun,
    ):  # fmt: skip
        if step.paused:
            in_nats = unit_of[step.stage] == "nats"
            return Paused(model, step.step, step.seconds, [(at, -loss) for at, loss in step.curve] if in_nats else [])
        if step.validation is not None:
            history.append({"model": candidate.name, "fit": unit, **asdict(step)})
        if step.finished:
            entry = {"plan": [list(stage) for stage in step.plan], "seconds": step.seconds, "converged": step.converged}
            entry |= {"seconds_to_converge": step.seconds_to_converge, "best": step.best}
        now = time.monotonic()
        if now - shown > REPORT_EVERY or step.finished:
            shown = now
            left = step.seconds * (1 / step.share - 1)
            reached = -step.best if unit_of[step.stage] == "nats" and math.isfinite(step.best) else None
            yield Moment(step.share, reached, left)
        if step.finished:
            break  # before its checkpoint is removed: the caller does so when the model is scored
    return Fitted(model, entry, history)
