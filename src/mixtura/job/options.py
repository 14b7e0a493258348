"""The one table of what a run can be asked: :class:`Options`, for ``mixtura.run``, the command line and replays.

An option is declared once, as a field of :class:`Options`: its name, its type and default in Python, and an :class:`Option`
that says what it is for, how the command line writes it and what a replay does with it. Nothing heavy is imported before an
option is checked: the command line reads the table before it knows whether torch is needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_origin, get_type_hints

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from mixtura.contracts import Model, Space

#: how the command line writes a value: names with commas between, pairs NAME=VALUE, bounds COL=LOW:HIGH; the last three may be
#: repeated
Written = Literal["text", "integer", "switch", "path", "names", "pairs", "bounds"]
#: "recorded": the option decides the result, and a replay takes it from the run folder. "given again": it decides the result,
#: but opens a file or calls code, which no run folder may name: a replay is given it again. "free": it does not decide the result
AtReplay = Literal["recorded", "given again", "free"]
#: how the command line writes a value → what is expected in Python, for a message
EXPECTED: dict[Written, str] = {
    "text": "text", "integer": "a whole number", "switch": "True or False", "path": "a path",
    "names": "a name or a list of names", "pairs": "a mapping of names to texts",
    "bounds": "{column: (low, high)}, with None for no end",
}  # fmt: skip


@dataclass(frozen=True)
class Option:
    """A row of the table. ``flag``: its name on the command line, None where only Python can give it; ``least`` and ``most``
    bound an integer, ``metavar`` stands for the value in ``--help``. ``python``: what is expected in Python, where ``written``
    does not say it."""

    help: str
    flag: str | None = None
    written: Written = "text"
    metavar: str | None = None
    least: int | None = None
    most: int | None = None
    replay: AtReplay = "recorded"
    python: str | None = None

    @property
    def expected(self) -> str:
        """What a value in Python is, for a message."""
        if self.python is None and self.written == "integer" and self.least is not None:
            return f"a whole number, {f'{self.least} or more' if self.most is None else f'{self.least} to {self.most:,}'}"
        return self.python or EXPECTED[self.written]


def option(default: Any, flag: str | None, help: str, **row: Any) -> Any:
    """A field of :class:`Options` with its row of the table. The default ``dict`` means an empty one."""
    metadata = {"option": Option(help, flag, **row)}
    return field(default_factory=dict, metadata=metadata) if default is dict else field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Options:
    """What a run can be asked: the arguments of ``mixtura.run``, and the options of ``mixtura run``."""

    budget: str | float | None = option(
        None, "--budget", "Time for the whole run: 60s (the default), 5m, 1h.",
        python="a time such as 60s, 5m or 1h, or a number of seconds",
    )  # fmt: skip
    steps: int | None = option(
        None, "--steps", "Instead of a budget: training steps of every fit.", written="integer",
        python="a whole number, 1 or more",
    )  # fmt: skip
    families: Sequence[str] | None = option(
        None, "--families", "Comma-separated; by default all that have nats. Marginals, the floor, are always fitted.",
        written="names"
    )
    seed: int = option(0, "--seed", "Same seed, same bits.", written="integer", least=0)
    out: str | Path | None = option(None, "--out", "Run folder; runs/NAME by default.", written="path", replay="free")
    fresh: bool = option(False, "--fresh", "Start over in a folder that holds a run.", written="switch", replay="free")
    split: str | None = option(
        None, "--split", "Column that says fit, select or report for each row.", metavar="COL", python="the name of one column"
    )
    group: str | None = option(
        None, "--group", "Keep rows of one group in one part.", metavar="COL", python="the name of one column"
    )
    time: str | None = option(
        None, "--time", "Fit on the oldest rows, report on the newest.", metavar="COL", python="the name of one column"
    )
    #: in Python, a single text is one column
    target: Sequence[str] | None = option(
        None, "--target", "Comma-separated columns to model given the others: p(y given x).", written="names", metavar="COLS"
    )
    columns: Sequence[str] | None = option(
        None, "--columns", "Comma-separated columns to model; all by default.", written="names"
    )
    kinds: Mapping[str, str] = option(
        dict, "--kind", "Kind of a column, instead of the guess: age=integer. Repeatable.", written="pairs", metavar="COL=KIND",
        python="{column: kind}, such as {'age': 'integer'}",
    )  # fmt: skip
    #: in Python, column → (low, high), None for an end that there is not
    bounds: Mapping[str, Sequence[float | None]] = option(
        dict, "--bounds", "Lowest and highest possible value of a column: age=0:120. Repeatable.", written="bounds",
        metavar="COL=LOW:HIGH",
    )  # fmt: skip
    models: Mapping[str, Callable[[Space], Model]] = option(
        dict, None, "Models of your own: a name to a callable that makes a Model for a Space.", replay="given again",
        python="{name: a callable that makes a Model for a Space}",
    )  # fmt: skip
    #: in Python, name → a file or a frame
    samples: Mapping[str, Any] = option(
        dict, "--samples", "Samples of an outside generator. Repeatable.", written="pairs", metavar="NAME=FILE",
        replay="given again", python="{name: a file or a frame}, such as {'gan': 'gan.csv'}",
    )  # fmt: skip
    objective: str | None = option(
        None, "--objective", "What the verdict compares: nats or mmd; by default what suits the data.", python="nats or mmd"
    )
    features: str | None = option(
        None, "--features", "Features by which samples are compared: pixels, pca:64, conv:256, or a local .onnx network.",
        replay="given again", python="pixels, pca:64, conv:256, or the path of an .onnx network",
    )  # fmt: skip
    skip_broken: bool = option(
        False, "--skip-broken", "Leave out image files that cannot be read, and name them.", written="switch"
    )
    size: int | None = option(None, "--size", "Resize images to so many pixels a side.", written="integer", least=1, most=4096)
    refine: bool = option(
        False, "--refine", "Accept samples of the choice by a learned ratio to real rows, where that gains.", written="switch"
    )
    device: str = option("auto", "--device", "auto, cpu or cuda.", replay="free", python="auto, cpu or cuda")
    workers: int | None = option(
        None, "--workers", "Models that are trained at the same time, one core each; the cores there are by default.",
        written="integer", least=1, replay="free",
    )  # fmt: skip
    ray: str | None = option(
        None, "--ray", "Train on a Ray cluster: auto, or its address.", metavar="ADDRESS", replay="free",
        python="auto, or the address of a Ray cluster",
    )  # fmt: skip
    executor: Executor | None = option(
        None, None, "In Python, who trains the models: any concurrent.futures.Executor.", replay="free",
        python="a concurrent.futures.Executor",
    )  # fmt: skip
    stops: Mapping[str, Mapping[str, Any]] | None = option(
        None, None, "Recorded steps that a replay repeats.", replay="free", python="the recorded steps of each fit"
    )

    def __post_init__(self) -> None:
        from mixtura.contracts import InputError

        self._conform()
        if self.steps is not None and self.budget is not None:
            raise InputError("budget and steps: give one of them; steps makes every fit take so many steps")
        if self.ray is not None and self.executor is not None:
            raise InputError("ray and executor: give one of them; both say who trains the models")
        odd = next((name for name in (*self.models, *self.samples) if Path(name).name != name), None)
        if odd is not None:
            raise InputError(f"models: the name {odd!r} cannot be a file name; give your model another name")
        if self.objective not in (None, "nats", "mmd"):
            raise InputError(f"objective: expected nats or mmd, got {self.objective!r}; leave it out for what suits the data")
        odd = next((name for name, ends in self.bounds.items() if len(ends) != 2), None)
        if odd is not None:
            raise InputError(f"bounds: expected (low, high) for {odd!r}, None for no end, got {self.bounds[odd]!r}")
        self._check_target()

    def _conform(self) -> None:
        """Make every option a value of its annotation: whole numbers of numpy become those of Python, and a single name becomes a
        list. InputError for an option that is none."""
        from concurrent.futures import Executor

        from mixtura.contracts import InputError, Model, Space
        from mixtura.ground.arguments import conform, shown

        annotations = get_type_hints(Options, localns={"Executor": Executor, "Model": Model, "Space": Space})
        for name, row in TABLE.items():
            given = value = getattr(self, name)
            if name == "features" and isinstance(given, Path):
                value = str(given)
            elif given is None and get_origin(annotations[name]) is Mapping:
                value = {}
            try:
                value = conform(value, annotations[name])
            except TypeError:
                raise InputError(f"{name}: expected {row.expected}, got {shown(given)}") from None
            least, most = 1 if name == "steps" else row.least, row.most
            beyond = isinstance(value, int) and (least is not None and value < least or most is not None and value > most)
            if beyond:
                raise InputError(f"{name}: expected {row.expected}, got {shown(given)}")
            object.__setattr__(self, name, value)

    def _check_target(self) -> None:
        from mixtura.contracts import InputError

        if self.target is None:
            return
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise InputError(f"--target: expected one column or more, each once, got {list(self.targets)}; name them once")
        for name in ("split", "group", "time"):
            if getattr(self, name) in self.targets:
                flag, column = TABLE[name].flag, getattr(self, name)
                raise InputError(f"--target: {column!r} is the column of {flag} too; a column is one or the other")
        left_out = next((name for name in self.targets if self.columns is not None and name not in self.columns), None)
        if left_out is not None:
            raise InputError(f"--columns: leaves out {left_out!r}, which --target asks for; name it there too")
        # a run with targets compares nats: there is no second set of rows with the same inputs to compare samples with
        comparing = {
            "--objective mmd": self.objective == "mmd", "--samples": self.samples, "--features": self.features,
            "--refine": self.refine,
        }  # fmt: skip
        odd = next((flag for flag, given in comparing.items() if given), None)
        if odd is not None:
            raise InputError(f"{odd}: compares samples, but with --target densities are compared; leave it out")

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns that are modelled given the others; none where all are modelled together."""
        return tuple(self.target or ())

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
        from mixtura.data.source import load

        special = {
            "budget": self.planned_seconds,
            "target": list(self.targets),
            "models": sorted(self.models),
            "samples": {name: load(source).fingerprint for name, source in self.samples.items()},
        }
        deciding = [name for name, row in TABLE.items() if row.replay != "free" and (name != "target" or self.targets)]
        return {name: special[name] if name in special else _plain(getattr(self, name)) for name in deciding}


#: option → its row of the table, in the order of ``mixtura run --help``
TABLE: dict[str, Option] = {f.name: f.metadata["option"] for f in fields(Options)}
Options.__doc__ = "\n".join([f"{Options.__doc__}\n", *(f"{name}: {row.help}" for name, row in TABLE.items())])


def make_options(given: Mapping[str, Any]) -> Options:
    """The options by name. InputError for a name that no option has."""
    from mixtura.contracts import InputError
    from mixtura.ground.arguments import nearest

    odd = next((name for name in given if name not in TABLE), None)
    if odd is not None:
        raise InputError(f"{odd}: a run has no such option; use {nearest(odd, TABLE)}")
    return Options(**given)


def options_of_record(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a replay takes from what :meth:`Options.asked` recorded. KeyError, TypeError, ValueError if damaged."""
    kept = {name: asked[name] for name, row in TABLE.items() if row.replay == "recorded" and (name in asked or name != "target")}
    kept["budget"] = None if asked["steps"] is not None else asked["budget"]
    Options(**kept)
    return kept


def check_replay(given: Mapping[str, Any]) -> None:
    """InputError for an option that a replay takes from the run folder, and for one that is not as :class:`Options` expects."""
    from mixtura.contracts import InputError

    odd = next((row.flag for name, row in TABLE.items() if row.replay == "recorded" and name in given), None)
    if odd is not None:
        raise InputError(f"--replay: {odd} was given, but a replay asks what the run asked; leave it out")
    make_options(given)


def _plain(value: Any) -> Any:
    """Mappings as dictionaries, other collections as lists."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, Iterable) and not isinstance(value, str) else value


def parse_budget(budget: str | float) -> float:
    """ "60s", "5m", "1.5h" or a number of seconds → seconds. InputError otherwise."""
    from mixtura.contracts import InputError
    from mixtura.ground.arguments import shown

    units = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(s|m|min|h|)\s*", str(budget))
    seconds = float(found[1]) * units[found[2]] if found else 0.0
    if not 1 <= seconds < math.inf:
        raise InputError(f"budget: {shown(budget)} is no time of a second or more; write 60s, 5m or 1h")
    return seconds


def choose_families(asked: Sequence[str] | None, table: Mapping[str, str], *, given: bool = False) -> list[str]:
    """The asked family names in the order of the table; by default all that can serve, but those on request. The floor always
    joins.

    ``table``: name → whether the family takes a context ("never", "may", "needs"); ``given``: whether there is one."""
    from mixtura.contracts import InputError
    from mixtura.families import with_role

    able = [name for name, context in table.items() if context != ("never" if given else "needs")]
    if asked is None:
        return [name for name in able if name not in with_role("on request")]
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
