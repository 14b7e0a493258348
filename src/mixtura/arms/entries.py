"""arms.yaml or arms.json → arms. docs/arms.md describes the format; every mistake is one sentence that names the entry."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixtura.arms.arm import Arm, Function, Pool
from mixtura.arms.process import LIMIT, TIMEOUT, Command, program
from mixtura.arms.web import Service
from mixtura.contracts import InputError
from mixtura.data.files.text_files import text_of
from mixtura.data.names import aligned, header

#: longest timeout, s, and most retries: more is a slip of the pen
LONGEST, MOST_RETRIES = 86_400.0, 100
#: bytes and values of a list of arms, those behind an alias counted every time that it is used
MOST_BYTES, MOST_VALUES = 2**20, 100_000


#: the folder of a run and the name of a model in it, or None for the best → the fitted model
OpenModel = Callable[[Path, str | None], Any]


def load_arms(path: Path, columns: list[str] | None = None, *, open_model: OpenModel | None = None) -> list[Arm]:
    """The arms listed in a file, in its order. Paths in it are relative to its folder. Tables give their columns in the order
    of ``columns``, by default in that of the first with a header. ``open_model`` opens the arms of kind ``model``:
    ``mixtura.selection.start.open_model`` does. InputError names the entry."""
    path = Path(path)
    entries = _listed(path)
    arms: list[Arm] = []
    order = _Order(columns)
    try:
        for number, raw in enumerate(entries, 1):
            arms.append(_arm(raw, number, path, [arm.name for arm in arms], order, open_model))
    except BaseException:
        for arm in arms:
            arm.close()
        raise
    return arms


class _Order:
    """The columns of every table of an arms file, in their order: as they were asked for, or as the first has them."""

    def __init__(self, columns: list[str] | None) -> None:
        self.columns, self.of = columns, "the reference"

    def of_table(self, frame: pd.DataFrame, name: str) -> pd.DataFrame:
        """The table in this order. InputError where it lacks a column."""
        if self.columns is None:
            self.columns, self.of = header(frame), f"the table of arm {name!r}"
        return aligned(frame, self.columns, name=name, like=self.of)


def _arm(raw: Any, number: int, path: Path, taken: list[str], order: _Order, open_model: OpenModel | None) -> Arm:
    where = f"{path.name}, arm {number}"
    try:
        if not isinstance(raw, dict):
            raise InputError(f"expected a mapping such as {{name: a, kind: pool, path: a.npy}}, got {_brief(raw)}; write it so")
        entry = _Entry(raw, path.parent, order, open_model)
        name = entry.text("name")
        where = f"{path.name}, arm {name!r}"
        if name in taken:
            raise InputError("the name is taken by an arm above; give each its own")
        if len(name) > 100 or not name.isprintable() or name != name.strip() or not name:
            raise InputError("a name is 1 to 100 printable characters without a space at either end; shorten it")
        kind = entry.text("kind")
        if kind not in KINDS:
            raise InputError(f"kind {kind!r} is none{_meant(kind, KINDS)}, expected one of {', '.join(KINDS)}; choose one")
        arm = KINDS[kind](name, entry)
        entry.nothing_left(kind)
        return arm
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _listed(path: Path) -> list[Any]:
    plain = _read(path)
    _refuse_huge(plain, path)
    arms = plain.get("arms") if isinstance(plain, dict) and set(plain) == {"arms"} else None
    if not isinstance(arms, list) or not arms:
        raise InputError(f"{path.name}: expected `arms:` and below it a list of arms, got {_brief(plain)}; see docs/arms.md")
    return arms


def _read(path: Path) -> Any:
    """What is written in it. A scalar that is no date, number or binary raises what the constructor of its type raises."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path.name} is larger than {MOST_BYTES // 2**20} MiB, too much for a list of arms; give the list")
        text = text_of(path)
        return json.loads(text, object_pairs_hook=_once) if path.suffix.lower() == ".json" else _yaml(text)
    except InputError:
        raise
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        said = _brief_text(_first_line(error), 200)
        raise InputError(f"{path}: cannot be read ({said}); give a list of arms in YAML or JSON") from error


def _refuse_huge(plain: Any, path: Path) -> None:
    """A few lines of aliases of aliases stand for more values than any machine holds, and one of itself for no end of them."""
    left, count = [plain], 0
    while left:
        value = left.pop()
        count += 1
        if count > MOST_VALUES:
            raise InputError(f"{path.name}: stands for more than {MOST_VALUES:,} values, aliases counted; write out fewer")
        left += [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []


def _once(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    """A mapping of these; ValueError where a key comes twice."""
    once: dict[Any, Any] = {}
    for name, value in pairs:
        if name in once:
            raise ValueError(f"{name!r} is given twice in one entry")
        once[name] = value
    return once


def _yaml(text: str) -> Any:
    try:
        import yaml  # pyright: ignore[reportMissingModuleSource, reportMissingImports]
    except ImportError as error:
        raise InputError("reading YAML needs PyYAML; pip install pyyaml, or write the file as arms.json") from error

    class Loader(yaml.SafeLoader):
        """With every key of a mapping once, where yaml takes the last."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            _once([(name, None) for name in names])
            return super().construct_mapping(node, deep)

    try:
        return Loader(text).get_single_data()
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


# ---------------------------------------------------------------------------------------------------- one entry


class _Entry:
    """The options of one arm; each is taken once, with its type, and what nobody took is a mistake."""

    def __init__(self, options: Mapping[Any, Any], folder: Path, order: _Order, open_model: OpenModel | None) -> None:
        self._left, self.folder, self.order, self.open_model = dict(options), folder, order, open_model
        self._known: list[str] = []

    def _take(self, option: str, default: Any, fits: Callable[[Any], bool], expected: str) -> Any:
        self._known.append(option)
        if option not in self._left:
            if default is ...:
                raise InputError(f"{option}: missing, expected {expected}; add it")
            return default
        value = self._left.pop(option)
        if not fits(value):
            raise InputError(f"{option}: expected {expected}, got {_brief(value)}; change it")
        return value

    def text(self, option: str, default: Any = ...) -> Any:
        return self._take(option, default, lambda v: isinstance(v, str), "text (quote it if it looks like a number)")

    def truth(self, option: str) -> bool:
        return self._take(option, False, lambda v: isinstance(v, bool), "true or false")

    def number(self, option: str, default: Any, least: float, most: float) -> float:
        def fits(v: Any) -> bool:
            return isinstance(v, int | float) and not isinstance(v, bool) and least <= v <= most

        return float(self._take(option, default, fits, f"a number, {least:g} to {most:g}"))

    def whole(self, option: str, default: Any, least: int, most: int) -> Any:
        def fits(v: Any) -> bool:
            return isinstance(v, int) and not isinstance(v, bool) and least <= v <= most

        return self._take(option, default, fits, f"a whole number, {least:,} to {most:,}")

    def one_of(self, option: str, choices: tuple[str, ...]) -> str:
        return self._take(option, choices[0], lambda v: v in choices, " or ".join(choices))

    def texts(self, option: str) -> list[str]:
        def fits(v: Any) -> bool:
            return isinstance(v, list) and v != [] and all(isinstance(part, str) for part in v)

        return self._take(option, ..., fits, "a list of texts (quote what looks like a number)")

    def wholes(self, option: str) -> list[int] | None:
        def fits(v: Any) -> bool:
            return isinstance(v, list) and all(type(part) is int and part > 0 for part in v)

        return self._take(option, None, fits, "a list of whole numbers, 1 or more")

    def mapping(self, option: str) -> dict[str, Any]:
        def fits(v: Any) -> bool:
            return isinstance(v, dict) and all(isinstance(key, str) for key in v) and _is_json(v)

        return self._take(option, {}, fits, "a mapping of names to numbers, texts and lists of them")

    def path(self, option: str, *, folder: bool = False) -> Path:
        where = self.folder / self.text(option)
        if not (where.is_dir() if folder else where.exists()):
            raise InputError(f"{option}: there is no {'folder' if folder else 'file or folder'} {where}; correct the path")
        return where.resolve()

    def environment(self, option: str) -> dict[str, str]:
        """A mapping of texts in which ${NAME} stands for an environment variable."""
        return {key: _filled(value, option) for key, value in self.mapping(option).items()}

    def terms(self) -> dict[str, Any]:
        """What every arm that can fail has."""
        return {
            "cost": self.cost(), "timeout": self.number("timeout", TIMEOUT, 0.01, LONGEST),
            "retries": self.whole("retries", 0, 0, MOST_RETRIES), "limit": self.whole("limit", LIMIT, 1, 2**34),
        }  # fmt: skip

    def promises(self) -> dict[str, bool]:
        """What only its owner knows of a foreign program."""
        return {"takes_key": self.truth("takes_key"), "repeatable": self.truth("repeatable")}

    def cost(self) -> float:
        return self.number("cost", 0.0, 0.0, 1e12)

    def nothing_left(self, kind: str) -> None:
        for option in self._left:
            known = ", ".join(self._known)
            raise InputError(f"{option}: no option of kind {kind}{_meant(str(option), self._known)}; it has {known}")


def _filled(value: Any, option: str) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise InputError(f"{option}: expected texts of one line, got {_brief(value)}; change it")

    def look_up(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise InputError(f"{option}: the environment has no variable {match[1]}; set it before the run")
        return os.environ[match[1]]

    return re.sub(r"\$\{(\w+)\}", look_up, value)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _meant(word: str, among: Any) -> str:
    near = difflib.get_close_matches(word, list(among), 1)
    return f" (is it {near[0]}?)" if near else ""


def _brief(value: Any) -> str:
    try:
        return _brief_text(repr(value))
    except ValueError:  # Python writes out no whole number of more than 4,300 digits
        return "a number of thousands of digits"


def _brief_text(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[:most] + " …"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# -------------------------------------------------------------------------------------------------------- kinds


def _pool(name: str, entry: _Entry) -> Arm:
    given = entry.text("path")
    replacement, seed, cost = entry.truth("replacement"), entry.whole("seed", 0, 0, 2**62), entry.cost()
    return Pool(name, _samples(name, str(entry.folder / given), entry.order), replacement=replacement, seed=seed, cost=cost)


def _samples(name: str, path: str, order: _Order) -> NDArray[Any]:
    """(n, …) numbers: numpy arrays of any shape, images as (n, C, H, W), the columns of a table of numbers."""
    from mixtura.data import source
    from mixtura.data.files import arrays
    from mixtura.data.files.pixels import Images
    from mixtura.data.paths import find

    where, key = find(path)
    if where.suffix.lower() in arrays.ENDINGS:
        return arrays.stored(where, key).take(None)
    data = source.load(path)
    return data.pixels if isinstance(data, Images) else _numbers(order.of_table(data.frame, name))


def _numbers(frame: pd.DataFrame) -> NDArray[np.float64]:
    values = frame.apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = (int(i) for i in bad[0])
        raise InputError(
            f"path: row {row}, column {frame.columns[column]!r} is {_brief(frame.iat[row, column])}, expected a finite number; "
            "drop or encode it"
        )
    return values


def _model(name: str, entry: _Entry) -> Arm:
    folder = entry.path("path", folder=True)
    if entry.open_model is None:
        raise InputError("kind 'model' needs open_model, which opens the model of a run folder; give it to load_arms")
    model, seed, cost = entry.text("model", None), entry.whole("seed", 0, 0, 2**62), entry.cost()
    held = entry.open_model(folder, model)
    size = held.schema.block
    columns = _numeric(held.schema)
    if columns is not None:
        columns = [*entry.order.of_table(pd.DataFrame(columns=columns), name).columns]
    rows: dict[int, NDArray[Any]] = {}  # the block drawn last: a fitted model draws whole ones

    def draw(number: int) -> NDArray[Any]:
        block, place = divmod(number, size)
        if block not in rows:
            rows.clear()
            drawn = held.sample(size, seed, start=block * size)
            if columns is not None and isinstance(drawn, pd.DataFrame):
                rows[block] = drawn[columns].apply(pd.to_numeric).to_numpy(np.float64)
            else:
                rows[block] = held.schema.encode(drawn).numpy()
        return rows[block][place]

    return Function(name, draw, cost=cost, repeatable=True)


def _numeric(schema: Any) -> list[str] | None:
    """The columns of a table of numbers; None of images, and where some are codes."""
    from mixtura.data.schema import Schema

    if not isinstance(schema, Schema):
        return None
    fields = [field for field in schema.fields if field.kind != "dropped"]
    numbers = (f.kind in ("numeric", "integer") or f.labels and all(isinstance(v, int | float) for v in f.labels) for f in fields)
    return [field.name for field in fields] if all(numbers) else None


def _python(name: str, entry: _Entry) -> Arm:
    target = entry.text("function")
    if not re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", target):
        raise InputError(f"function: expected module:function, got {target!r}; write it so")
    options = entry.mapping("options")
    return program(name, target, folder=entry.folder.resolve(), options=options, **entry.terms(), **entry.promises())


def _command(name: str, entry: _Entry) -> Arm:
    argv = entry.texts("command")
    # a program that lies beside the file is meant, not one of that name elsewhere
    beside = entry.folder / argv[0]
    first = str(beside.resolve()) if "/" in argv[0] and beside.exists() else argv[0]
    return Command(
        name, [first, *argv[1:]], folder=entry.folder.resolve(), persistent=entry.truth("persistent"),
        **entry.terms(), **entry.promises(),
    )  # fmt: skip


def _http(name: str, entry: _Entry) -> Arm:
    url, headers, body = entry.text("url"), entry.environment("headers"), entry.mapping("body")
    return Service(name, url, headers=headers, body=body, **entry.terms(), **entry.promises())


def _local(function: str, package: str, name: str, entry: _Entry, options: Mapping[str, Any]) -> Arm:
    if find_spec(package) is None:
        raise InputError(f"needs {package}; pip install {package}")
    given = {"name": name} | {option: value for option, value in options.items() if value not in (None, {})}
    return program(name, f"mixtura.arms.local:{function}", options=given, repeatable=True, **entry.terms())


def _onnx(name: str, entry: _Entry) -> Arm:
    options = {"path": str(entry.path("path")), "shape": entry.wholes("shape"),
               "noise": entry.one_of("noise", ("normal", "uniform")), "inputs": entry.mapping("inputs")}  # fmt: skip
    return _local("onnx", "onnxruntime", name, entry, options)


def _diffusers(name: str, entry: _Entry) -> Arm:
    options = {"path": str(entry.path("path", folder=True)), "prompt": entry.text("prompt", None),
               "steps": entry.whole("steps", None, 1, 10_000), "device": entry.text("device", "cpu"),
               "settings": entry.mapping("settings")}  # fmt: skip
    return _local("diffusers", "diffusers", name, entry, options)


def _transformers(name: str, entry: _Entry) -> Arm:
    options = {"path": str(entry.path("path", folder=True)), "embed": str(entry.path("embed", folder=True)),
               "prompt": entry.text("prompt"), "max_new_tokens": entry.whole("max_new_tokens", 64, 1, 2**20),
               "device": entry.text("device", "cpu"), "settings": entry.mapping("settings")}  # fmt: skip
    return _local("transformers", "transformers", name, entry, options)


KINDS: dict[str, Callable[[str, _Entry], Arm]] = {
    "pool": _pool, "model": _model, "python": _python, "command": _command, "http": _http, "onnx": _onnx, "diffusers": _diffusers,
    "transformers": _transformers,
}  # fmt: skip
