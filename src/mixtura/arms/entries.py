"""arms.yaml or arms.json → arms. The format is told in docs/arms.md; every mistake is one sentence that names the entry."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Mapping
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
from mixtura.data.texts import text_of

#: longest timeout, s, and most retries: more is a slip of the pen
LONGEST, MOST_RETRIES = 86_400.0, 100


def load_arms(path: Path) -> list[Arm]:
    """The arms listed in a file, in its order. Paths in it are relative to its folder. InputError names the entry."""
    path = Path(path)
    entries = _listed(path)
    arms: list[Arm] = []
    try:
        for number, raw in enumerate(entries, 1):
            arms.append(_arm(raw, number, path, [arm.name for arm in arms]))
    except BaseException:
        for arm in arms:
            arm.close()
        raise
    return arms


def _arm(raw: Any, number: int, path: Path, taken: list[str]) -> Arm:
    where = f"{path.name}, arm {number}"
    try:
        if not isinstance(raw, dict):
            raise InputError(f"expected a mapping such as {{name: a, kind: pool, path: a.npy}}, got {_brief(raw)}; write it so")
        entry = _Entry(raw, path.parent)
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
    try:
        text = text_of(path)
        plain = json.loads(text) if path.suffix.lower() == ".json" else _yaml(text)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({_first_line(error)}); give a list of arms in YAML or JSON") from error
    arms = plain.get("arms") if isinstance(plain, dict) and set(plain) == {"arms"} else None
    if not isinstance(arms, list) or not arms:
        raise InputError(f"{path.name}: expected `arms:` and below it a list of arms, got {_brief(plain)}; see docs/arms.md")
    return arms


def _yaml(text: str) -> Any:
    try:
        import yaml  # pyright: ignore[reportMissingModuleSource, reportMissingImports]
    except ImportError as error:
        raise InputError("reading YAML needs PyYAML; pip install pyyaml, or write the file as arms.json") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise json.JSONDecodeError(" ".join(str(error).split()), "", 0) from error


# ---------------------------------------------------------------------------------------------------- one entry


class _Entry:
    """The options of one arm; each is taken once, with its type, and what nobody took is a mistake."""

    def __init__(self, options: Mapping[Any, Any], folder: Path) -> None:
        self._left, self.folder = dict(options), folder
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
        fits = lambda v: isinstance(v, int | float) and not isinstance(v, bool) and least <= v <= most  # noqa: E731
        return float(self._take(option, default, fits, f"a number, {least:g} to {most:g}"))

    def whole(self, option: str, default: Any, least: int, most: int) -> Any:
        fits = lambda v: isinstance(v, int) and not isinstance(v, bool) and least <= v <= most  # noqa: E731
        return self._take(option, default, fits, f"a whole number, {least:,} to {most:,}")

    def one_of(self, option: str, choices: tuple[str, ...]) -> str:
        return self._take(option, choices[0], lambda v: v in choices, " or ".join(choices))

    def texts(self, option: str) -> list[str]:
        fits = lambda v: isinstance(v, list) and v != [] and all(isinstance(part, str) for part in v)  # noqa: E731
        return self._take(option, ..., fits, "a list of texts (quote what looks like a number)")

    def wholes(self, option: str) -> list[int] | None:
        fits = lambda v: isinstance(v, list) and all(type(part) is int and part > 0 for part in v)  # noqa: E731
        return self._take(option, None, fits, "a list of whole numbers, 1 or more")

    def mapping(self, option: str) -> dict[str, Any]:
        fits = lambda v: isinstance(v, dict) and all(isinstance(key, str) for key in v) and _is_json(v)  # noqa: E731
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
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + " …"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


# -------------------------------------------------------------------------------------------------------- kinds


def _pool(name: str, entry: _Entry) -> Arm:
    given = entry.text("path")
    replacement, seed, cost = entry.truth("replacement"), entry.whole("seed", 0, 0, 2**62), entry.cost()
    return Pool(name, _samples(str(entry.folder / given)), replacement=replacement, seed=seed, cost=cost)


def _samples(path: str) -> NDArray[Any]:
    """(n, …) numbers: numpy arrays of any shape, images as (n, C, H, W), the columns of a table of numbers."""
    from mixtura.data import source
    from mixtura.data.images import Pictures
    from mixtura.data.read import find, numpy_errors

    where, key = find(path)
    if where.suffix.lower() in (".npy", ".npz"):
        with numpy_errors(where):
            return _array(where, key)
    data = source.load(path)
    return data.pixels if isinstance(data, Pictures) else _numbers(data.frame)


def _array(path: Path, key: str | None) -> NDArray[Any]:
    if path.suffix.lower() == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False)
    with np.load(path, allow_pickle=False) as arrays:
        chosen = key or (arrays.files[0] if len(arrays.files) == 1 else "")
        if chosen not in arrays.files:
            raise InputError(f"path: {path.name} holds the arrays {', '.join(arrays.files)}; name one, as in {path.name}:KEY")
        return arrays[chosen]


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
    from mixtura import facade
    from mixtura.data import source

    study = facade.load(entry.path("path", folder=True))
    which, seed, cost = entry.text("model", None), entry.whole("seed", 0, 0, 2**62), entry.cost()
    held = study.best if which is None else study.model(which)
    size = facade.BLOCK_IMAGES if held.schema.space.is_image else facade.BLOCK
    rows: dict[int, NDArray[Any]] = {}  # the block drawn last: a facade draws whole ones

    def draw(number: int) -> NDArray[Any]:
        block, place = divmod(number, size)
        if block not in rows:
            rows.clear()
            rows[block] = source.encode(held.schema, held.sample(size, seed, start=block * size)).numpy()
        return rows[block][place]

    return Function(name, draw, cost=cost, repeatable=True)


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
