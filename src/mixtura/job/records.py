"""The records that a run yields: :class:`Planned`, :class:`Progress` and :class:`Judged` of each model, :class:`Done`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mixtura.study.study import Study


@dataclass(frozen=True)
class Planned:
    """The first record: what the data are and what will be done. what: the data in a few words. workers: how many models are
    trained at the same time; 1 means one after the other, in this process. estimate: seconds that the run will take, where they
    are known. resumed: seconds of earlier sittings. ``target``, ``given``: names of columns, of a run with targets."""

    name: str
    what: str
    rows: int
    rows_total: int
    skipped: list[str]
    columns: list[dict[str, str]]
    splits: dict[str, Any]
    families: list[str]
    budget: float | None
    steps: int | None
    seed: int
    folder: str | None
    estimate: float | None
    resumed: float
    workers: int = 1
    target: list[str] | None = None
    given: list[str] | None = None


@dataclass(frozen=True)
class Progress:
    """A model is being trained: ``done`` of 1, the latest validation nats, the seconds left of the fits of this model that run
    now. With several workers, records of several models alternate."""

    name: str
    done: float
    validation: float | None
    left: float | None
    note: str = ""


@dataclass(frozen=True)
class Judged:
    """A model has been fitted and scored on the select rows, or not (see status and reason)."""

    name: str
    status: str
    reason: str
    select_nats: float | None


@dataclass(frozen=True)
class Done:
    """The last record."""

    study: Study


Record = Planned | Progress | Judged | Done


