"""What a run may be asked: :class:`Options`, the arguments of ``mixtura.run``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixtura.contracts import InputError, Model, Space
from mixtura.data.source import load


@dataclass(frozen=True)
class Options:
    """What a run may be asked; the arguments of ``mixtura.run``. ``models`` maps a name to a callable Space → Model of
    your own, ``samples`` a name to a file or frame of an outside generator's samples. ``objective``: "nats" or "mmd", by
    default what suits the data; ``bounds`` maps a column of numbers to (low, high), where its values end, None where they do
    not; ``features``: what samples are compared by (features.py). ``target``: columns to model given
    the others. ``stops`` replays recorded steps. Who fits the models, which does not change the result: ``workers`` at a time, by
    default as many as there are cores; ``ray``, "auto" or the address of a Ray cluster; ``executor``, any
    ``concurrent.futures.Executor``."""

    budget: str | float | None = None
    steps: int | None = None
    families: Sequence[str] | None = None
    seed: int = 0
    out: str | Path | None = None
    fresh: bool = False
    split: str | None = None
    group: str | None = None
    time: str | None = None
    target: str | Sequence[str] | None = None
    columns: Sequence[str] | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    bounds: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    models: Mapping[str, Callable[[Space], Model]] = field(default_factory=dict)
    samples: Mapping[str, Any] = field(default_factory=dict)
    objective: str | None = None
    features: str | None = None
    skip_broken: bool = False
    size: int | None = None
    device: str = "auto"
    stops: Mapping[str, Mapping[str, Any]] | None = None
    workers: int | None = None
    ray: str | None = None
    executor: Any = None

    def __post_init__(self) -> None:
        if self.steps is not None and (isinstance(self.steps, bool) or self.steps < 1):
            raise InputError(f"steps: expected a whole number, 1 or more, got {self.steps!r}")
        if self.steps is not None and self.budget is not None:
            raise InputError("budget and steps: give one of them; steps makes every fit take so many steps")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise InputError(f"seed: expected a whole number, 0 or more, got {self.seed!r}")
        if self.workers is not None and (isinstance(self.workers, bool) or not isinstance(self.workers, int) or self.workers < 1):
            raise InputError(f"workers: expected a whole number, 1 or more, got {self.workers!r}")
        if self.ray is not None and self.executor is not None:
            raise InputError("ray and executor: give one of them; both say who fits the models")
        odd = next((name for name in (*self.models, *self.samples) if Path(name).name != name), None)
        if odd is not None:
            raise InputError(f"models: the name {odd!r} cannot be a file name; give your model another name")
        if self.objective not in (None, "nats", "mmd"):
            raise InputError(f"objective: {self.objective!r} is none, expected nats or mmd; leave it out for what suits the data")
        odd = next((name for name, ends in self.bounds.items() if isinstance(ends, str) or len(ends) != 2), None)
        if odd is not None:
            raise InputError(f"bounds: of {odd!r}, expected (low, high), None for an end there is not; got {self.bounds[odd]!r}")
        self._check_target()

    def _check_target(self) -> None:
        if self.target is None:
            return
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise InputError(f"--target: expected one column or more, each once, got {list(self.targets)}; name them once")
        for flag, column in (("--split", self.split), ("--group", self.group), ("--time", self.time)):
            if column in self.targets:
                raise InputError(f"--target: {column!r} is the column of {flag} too; a column is one or the other")
        left_out = next((name for name in self.targets if self.columns is not None and name not in self.columns), None)
        if left_out is not None:
            raise InputError(f"--columns: leaves out {left_out!r}, which --target asks for; name it there too")
        # a conditional run speaks of nats: there is no second set of rows with the same inputs to compare samples with
        beside = {"--objective mmd": self.objective == "mmd", "--samples": self.samples, "--features": self.features}
        odd = next((flag for flag, given in beside.items() if given), None)
        if odd is not None:
            raise InputError(f"{odd}: compares samples, and with --target densities given the inputs are compared; leave it out")

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns that are modelled given the others; none where all are modelled together."""
        return () if self.target is None else (self.target,) if isinstance(self.target, str) else tuple(self.target)

    @property
    def planned_seconds(self) -> float | None:
        """The budget in seconds; None for a run by steps."""
        return None if self.steps is not None else parse_budget(60.0 if self.budget is None else self.budget)

    @property
    def seconds(self) -> float | None:
        """The seconds that bound this run; None where steps do, given or replayed."""
        return None if self.stops is not None else self.planned_seconds

    def asked(self) -> dict[str, Any]:
        """What decides the result, as plain data: two runs that agree in it are the same run."""
        families = None if self.families is None else list(self.families)
        columns = None if self.columns is None else list(self.columns)
        samples = {name: load(source).fingerprint for name, source in self.samples.items()}
        return {
            "budget": self.planned_seconds, "steps": self.steps, "families": families, "seed": self.seed,
            "split": self.split, "group": self.group, "time": self.time, "columns": columns,
            "kinds": dict(self.kinds), "bounds": {column: list(ends) for column, ends in self.bounds.items()},
            "models": sorted(self.models), "samples": samples, "objective": self.objective,
            "features": self.features, "skip_broken": self.skip_broken, "size": self.size,
            **({"target": list(self.targets)} if self.targets else {}),
        }  # fmt: skip


def parse_budget(budget: str | float) -> float:
    """ "60s", "5m", "1.5h" or a number of seconds → seconds. InputError otherwise."""
    units = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(s|m|min|h|)\s*", str(budget))
    seconds = float(found[1]) * units[found[2]] if found else 0.0
    if seconds < 1:
        raise InputError(f"budget: {budget!r} is no time of a second or more; write 60s, 5m or 1h")
    return seconds


def choose_families(asked: Sequence[str] | None, table: Mapping[str, str], *, given: bool = False) -> list[str]:
    """The asked family names in the order of the table; all that can serve by default. The floor always joins.

    ``table``: name → whether the family takes a context ("never", "may", "needs"); ``given``: whether there is one."""
    from mixtura.families import with_role  # torch comes with it, and the command line reads the options without

    able = [name for name, context in table.items() if context != ("never" if given else "needs")]
    if asked is None:
        return able
    unknown = [name for name in asked if name not in table]
    if unknown:
        raise InputError(f"families: {unknown[0]!r} is not among {', '.join(table)}; choose from these")
    if not asked:
        raise InputError(f"families: none was named; choose from {', '.join(able)}")
    unable = [name for name in asked if name not in able]
    if unable:
        why = "cannot model columns given others" if given else "models columns given others: name them with --target"
        raise InputError(f"families: {unable[0]} {why}; choose from {', '.join(able)}")
    return [name for name in able if name in asked or name in with_role("floor")]
