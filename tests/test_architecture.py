"""The rules of the house, executed: who imports whom, and what happens only at the edge.

A rule takes a source and returns what breaks it, one sentence each. Every rule is also shown a text that breaks it.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path, PurePosixPath
from types import FunctionType, ModuleType
from typing import Any

import pytest

SRC = Path(__file__).parents[1] / "src" / "mixtura"

#: room → what it may import: a room, or a module or name of it
DOORS: dict[str, tuple[str, ...]] = {
    "__init__": (),
    "contracts": (),
    "ground": ("contracts",),
    "families": ("contracts", "ground"),
    "blending": ("contracts", "ground"),
    "train": ("contracts", "ground.rng", "ground.machine"),
    "ratio": ("contracts", "ground", "train", "blending"),
    "detectors": ("contracts", "ground", "train", "blending", "ratio"),
    "joint": ("contracts", "ground", "train", "metrics", "blending", "ratio"),
    "metrics": ("ground.kernels", "ground.rng"),
    "simplex": ("ground.kernels", "ground.rng", "metrics"),
    "objectives": ("ground.kernels", "ground.rng", "metrics", "simplex"),
    "policies": ("ground.kernels", "ground.rng", "metrics", "objectives", "simplex"),
    "data": ("contracts", "ground.encode", "ground.inputs", "ground.machine", "ground.shown"),
    "features": ("contracts", "ground", "data"),
    "ledger": ("ground.machine", "ground.rng"),
    "arms": ("ground", "data", "study"),
    "folder": ("contracts", "ground", "data", "features", "families.TABLE", "metrics.TABLE"),
}
DOORS["study"] = ("contracts", "ground", "folder", "blending", "data", "metrics", "job")
DOORS["job"] = tuple(room for room in DOORS if room not in ("__init__", "arms", "ledger"))
DOORS["mixing"] = ("contracts", "ground", "objectives", "simplex", "policies", "data", "features", "metrics", "study")
DOORS["selection"] = (*DOORS["mixing"], "arms", "ledger")
DOORS["evaluation"] = (*DOORS["mixing"], "job")
DOORS["improving"] = (*DOORS["mixing"], "joint", "train", "families", "blending")
DOORS["estimators"] = tuple(room for room in DOORS if room != "__init__")
DOORS["report"] = ("contracts", "ground", "folder", "metrics", "data", "study", "job")
DOORS["cli"] = tuple(DOORS)
DOORS["__main__"] = ("cli",)

#: how any room tells a person that their input cannot be used, or what to know of a result
FOR_EVERYONE = ("contracts.InputError", "contracts.Note")

MAY_TOUCH_FILES = ("cli", "data", "ledger", "report")

#: files that are written whole or not at all
MACHINE = PurePosixPath("ground/machine.py")
#: explicit generators, and the one place that forks the global one
RNG = PurePosixPath("ground/rng.py")

PICKLERS = ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")
UNPICKLERS = (*(f"torch.{name}" for name in ("load", "save", "export.load", "jit.load", "package.PackageImporter")), "yaml.load")

SEEDINGS = ("manual_seed", "seed", "set_rng_state")
GLOBAL_STATE = ("torch.random.", "torch.default_generator", *(f"torch.{where}{f}" for where in ("", "cuda.") for f in SEEDINGS))
DRAWS = ("rand", "randn", "randint", "randperm", "normal", "multinomial", "bernoulli", "poisson")
TORCH_DRAWS = tuple(f"torch.{draw}{like}" for draw in DRAWS for like in ("", "_like"))
NUMPY_GENERATORS = ("default_rng", "Generator", "SeedSequence", "PCG64", "Philox")

METHODS = (FunctionType, property, classmethod, staticmethod)


@dataclass(frozen=True)
class Source:
    """A text and its path below ``src/mixtura``."""

    path: PurePosixPath
    text: str

    @property
    def room(self) -> str:
        return self.path.parts[0].removesuffix(".py")

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        return tuple(ast.walk(ast.parse(self.text)))

    @cached_property
    def imports(self) -> tuple[tuple[int, str, str], ...]:
        """(line, full dotted name, local name) of each import at any depth, relative ones resolved."""
        return tuple(self._imports())

    def _imports(self) -> Iterator[tuple[int, str, str]]:
        package = ("mixtura", *self.path.parent.parts)
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for name in node.names:
                    yield node.lineno, name.name, name.asname or name.name
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) + 1 - node.level] if node.level else ()
                base = ".".join((*above, *filter(None, [node.module])))
                for name in node.names:
                    yield node.lineno, f"{base}.{name.name}", name.asname or name.name

    @cached_property
    def calls(self) -> tuple[tuple[str, ast.Call], ...]:
        """(full dotted name, call): ``np.random.seed(0)`` is numpy.random.seed, ``f(x).backward()`` is ?.backward."""
        return tuple((self.dotted(node.func), node) for node in self.nodes if isinstance(node, ast.Call))

    def dotted(self, node: ast.AST) -> str:
        if isinstance(node, ast.Name):
            return next((full for _, full, local in self.imports if local == node.id), node.id)
        return f"{self.dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else "?"

    def calls_ending(self, *endings: str) -> list[str]:
        return [_at(call, f"{name}(") for name, call in self.calls if name.rpartition(".")[2] in endings]


def _at(node: ast.AST, what: str) -> str:
    return f"line {getattr(node, 'lineno', '?')}: {what}"


def _opens(door: str, target: str) -> bool:
    return target == door or target.startswith(f"{door}.")


def _ours(source: Source) -> Iterator[tuple[int, str]]:
    for line, full, _ in source.imports:
        if _opens("mixtura", full):
            yield line, full.removeprefix("mixtura").removeprefix(".") or "the whole package"


# ------------------------------------------------------------------------------- rules about a source text


def rooms_keep_their_doors(source: Source) -> list[str]:
    if source.room not in DOORS:
        return [f"no doors are written for the room {source.room}"]
    doors = (source.room, *DOORS[source.room], *FOR_EVERYONE)
    return [f"line {line}: imports {target}" for line, target in _ours(source) if not any(_opens(door, target) for door in doors)]


def families_never_import_one_another(source: Source) -> list[str]:
    if source.room != "families" or source.path.name == "__init__.py":
        return []
    return [f"line {line}: imports {target}" for line, target in _ours(source) if _opens("families", target)]


def imports_are_written_out(source: Source) -> list[str]:
    """An import by a computed name would be a door that no reader and no rule sees."""
    return [] if source.room == "__init__" else source.calls_ending("import_module", "__import__")


def backward_is_called_once_in_train(source: Source) -> list[str]:
    found = source.calls_ending("backward")
    if source.path != PurePosixPath("train/fit.py"):
        return found
    return [] if len(found) == 1 else [f"{len(found)} calls of .backward(, expected 1"]


def only_the_command_line_prints(source: Source) -> list[str]:
    return [] if source.room == "cli" else source.calls_ending("print")


def files_are_touched_at_the_edge(source: Source) -> list[str]:
    if source.room in MAY_TOUCH_FILES or source.path == MACHINE:
        return []
    return source.calls_ending("open", "write_text", "write_bytes")


def draws_name_their_generator(source: Source) -> list[str]:
    return [_at(call, f"{name}(") for name, call in source.calls if _draws_globally(name, call, source.path)]


def _draws_globally(name: str, call: ast.Call, path: PurePosixPath) -> bool:
    seeded = bool(call.args or call.keywords)
    if name.startswith(GLOBAL_STATE):
        return path != RNG
    if name in TORCH_DRAWS:
        return "generator" not in {k.arg for k in call.keywords}
    if name.startswith("numpy.random."):
        return not seeded or name.removeprefix("numpy.random.") not in NUMPY_GENERATORS
    return name.startswith("random.") and not (name == "random.Random" and seeded)


def nothing_is_pickled(source: Source) -> list[str]:
    imported = [f"line {line}: {full}" for line, full, _ in source.imports if full.split(".")[0] in PICKLERS]
    called = [_at(call, name) for name, call in source.calls if name in UNPICKLERS or name.endswith("_pickle")]
    keywords = [keyword for _, call in source.calls for keyword in call.keywords if keyword.arg == "allow_pickle"]
    return imported + called + [_at(k.value, "allow_pickle") for k in keywords if ast.unparse(k.value) != "False"]


def nothing_is_asserted(source: Source) -> list[str]:
    """``python -O`` drops asserts, and nobody learns from one what to do."""
    return [_at(node, "assert") for node in source.nodes if isinstance(node, ast.Assert)]


SOURCE_RULES = (
    rooms_keep_their_doors,
    families_never_import_one_another,
    imports_are_written_out,
    backward_is_called_once_in_train,
    only_the_command_line_prints,
    files_are_touched_at_the_edge,
    draws_name_their_generator,
    nothing_is_pickled,
    nothing_is_asserted,
)


# ------------------------------------------------------------------------------ rules about a loaded module


def promised_names_exist(module: ModuleType) -> list[str]:
    return [name for name in getattr(module, "__all__", ()) if not hasattr(module, name)]


def public_methods_are_documented(module: ModuleType) -> list[str]:
    """An override may leave it to the method that it overrides, which a linter of one file cannot see (D102)."""
    classes = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
    methods = [(c, name) for c in classes for name, value in vars(c).items() if isinstance(value, METHODS)]
    public = [(c, name) for c, name in methods if not name.startswith("_") and not c.__name__.startswith("_")]
    return [f"{c.__name__}.{name}" for c, name in public if not any(_doc(base, name) for base in c.__mro__)]


def _doc(cls: type, name: str) -> str | None:
    return getattr(vars(cls).get(name), "__doc__", None)


def rows_are_documented(module: ModuleType) -> list[str]:
    table: Mapping[str, Any] = module.TABLE
    return [name for name, row in table.items() if not row.summary.strip()]


MODULE_RULES = (promised_names_exist, public_methods_are_documented, rows_are_documented)


# ------------------------------------------------------------------------------------------- the house


SOURCES = [Source(PurePosixPath(path.relative_to(SRC)), path.read_text(encoding="utf-8")) for path in sorted(SRC.rglob("*.py"))]


@pytest.mark.parametrize("rule", SOURCE_RULES)
def test_the_house_keeps(rule):
    assert [f"{source.path}, {breach}" for source in SOURCES for breach in rule(source)] == []


def test_the_house_is_looked_at():
    assert {"__init__", "contracts", "ground", "train"} <= {source.room for source in SOURCES}


@pytest.mark.parametrize("rule", [promised_names_exist, public_methods_are_documented])
@pytest.mark.parametrize("path", [source.path for source in SOURCES], ids=str)
def test_a_module_keeps(rule, path):
    assert rule(import_module(".".join(("mixtura", *path.with_suffix("").parts)).removesuffix(".__init__"))) == []


@pytest.mark.parametrize("package", ["families", "metrics", "policies"])
def test_a_table_keeps(package):
    assert rows_are_documented(import_module(f"mixtura.{package}")) == []


# --------------------------------------------------------------------------------- every rule can fail


BAD_SOURCES = [
    (rooms_keep_their_doors, "train.py", "from mixtura.families import flow"),
    (rooms_keep_their_doors, "train.py", "def f():\n    if True:\n        import mixtura.data.read"),
    (rooms_keep_their_doors, "train.py", "from mixtura import study"),
    (rooms_keep_their_doors, "train.py", "from . import scoring"),
    (rooms_keep_their_doors, "train.py", "import mixtura"),
    (rooms_keep_their_doors, "data/read.py", "from ..nets import MLP"),
    (rooms_keep_their_doors, "metrics/likelihood.py", "from mixtura.contracts import InputError, Model"),
    (rooms_keep_their_doors, "folder/store.py", "from mixtura.families import flow"),
    (rooms_keep_their_doors, "study.py", "from mixtura.cli import main"),
    (rooms_keep_their_doors, "report/page.py", "from mixtura import cli"),
    (rooms_keep_their_doors, "attic.py", ""),
    (families_never_import_one_another, "families/flow.py", "from mixtura.families.kde import Config"),
    (families_never_import_one_another, "families/flow.py", "from mixtura.families import kde"),
    (families_never_import_one_another, "families/flow.py", "def f():\n    from . import kde"),
    (imports_are_written_out, "job/splits.py", "import importlib\nimportlib.import_module('mixtura.cli.main')"),
    (imports_are_written_out, "job/splits.py", "__import__('mixtura.cli.main')"),
    (backward_is_called_once_in_train, "ground/nets/heads.py", "loss(x).backward()"),
    (backward_is_called_once_in_train, "train/fit.py", "a.backward()\nb.backward()"),
    (backward_is_called_once_in_train, "train/fit.py", ""),
    (only_the_command_line_prints, "study.py", "print(1)"),
    (only_the_command_line_prints, "study.py", "from rich import print as say\nsay(1)"),
    (files_are_touched_at_the_edge, "job/scoring.py", "open('x')"),
    (files_are_touched_at_the_edge, "job/scoring.py", "path.open()"),
    (files_are_touched_at_the_edge, "job/scoring.py", "(path / 'x').write_text('')"),
    (files_are_touched_at_the_edge, "job/scoring.py", "path.write_bytes(b'')"),
    (draws_name_their_generator, "ground/nets/heads.py", "import torch\ntorch.manual_seed(0)"),
    (draws_name_their_generator, "ground/nets/heads.py", "from torch import manual_seed as f\nf(0)"),
    (draws_name_their_generator, "ground/nets/heads.py", "import torch\ntorch.cuda.manual_seed_all(0)"),
    (draws_name_their_generator, "ground/nets/heads.py", "import torch\ntorch.default_generator.manual_seed(0)"),
    (draws_name_their_generator, "ground/nets/heads.py", "import torch\ntorch.randn(3)"),
    (draws_name_their_generator, "ground/nets/heads.py", "import torch\ntorch.rand_like(x)"),
    (draws_name_their_generator, "ground/nets/heads.py", "import numpy as np\nnp.random.seed(0)"),
    (draws_name_their_generator, "ground/nets/heads.py", "import numpy as np\nnp.random.randn(3)"),
    (draws_name_their_generator, "ground/nets/heads.py", "import numpy as np\nnp.random.default_rng()"),
    (draws_name_their_generator, "ground/nets/heads.py", "import random\nrandom.shuffle(x)"),
    (draws_name_their_generator, "ground/nets/heads.py", "from random import gauss\ngauss(0, 1)"),
    (nothing_is_pickled, "folder/store.py", "def f():\n    import pickle"),
    (nothing_is_pickled, "folder/store.py", "from joblib import dump"),
    (nothing_is_pickled, "folder/store.py", "import torch\ntorch.load('x')"),
    (nothing_is_pickled, "folder/store.py", "from torch import save\nsave({}, 'x')"),
    (nothing_is_pickled, "features.py", "import torch\ntorch.export.load('x.pt2')"),
    (nothing_is_pickled, "features.py", "from torch import jit\njit.load('x.pt')"),
    (nothing_is_pickled, "arms/entries.py", "import yaml\nyaml.load(text)"),
    (nothing_is_pickled, "data/read.py", "import pandas as pd\npd.read_pickle('x')"),
    (nothing_is_pickled, "data/read.py", "import numpy as np\nnp.load('x', allow_pickle=True)"),
    (nothing_is_asserted, "job/splits.py", "def f(x):\n    assert x"),
]

GOOD_SOURCES = [
    (rooms_keep_their_doors, "metrics/likelihood.py", "from mixtura.contracts import InputError\nfrom .neighbours import near"),
    (rooms_keep_their_doors, "folder/store.py", "from mixtura.families import TABLE"),
    (rooms_keep_their_doors, "cli.py", "from mixtura import report, study"),
    (rooms_keep_their_doors, "families/gaussian_mixture.py", "from sklearn import mixture"),
    (families_never_import_one_another, "families/__init__.py", "from mixtura.families import flow, kde"),
    (backward_is_called_once_in_train, "train/fit.py", "loss.backward()"),
    (only_the_command_line_prints, "train.py", "'''print(1)'''"),
    (files_are_touched_at_the_edge, "data/read.py", "path.open()"),
    (draws_name_their_generator, "families/vae.py", "import torch\ntorch.randn(3, generator=g)"),
    (draws_name_their_generator, "ground/nets/heads.py", "from mixtura import rng as random\nrandom.normal(shape, g, x)"),
    (draws_name_their_generator, "train.py", "import torch\ntorch.cuda.is_available()"),
    (draws_name_their_generator, "ground/rng.py", "import torch\ntorch.default_generator.manual_seed(0)"),
    (draws_name_their_generator, "job/splits.py", "import numpy as np\nnp.random.default_rng(0)"),
    (nothing_is_pickled, "folder/store.py", "from safetensors.torch import load, save\nload(save({}))"),
    (nothing_is_pickled, "data/read.py", "import numpy as np\nnp.load('x', allow_pickle=False)"),
]

GOOD_MODULES = [
    (promised_names_exist, "__all__ = ['later']\ndef __getattr__(name): return 1"),
    (public_methods_are_documented, "class A:\n    def f(self): 'Told.'\nclass B(A):\n    def f(self): ..."),
    (rows_are_documented, "from types import SimpleNamespace as Row\nTABLE = {'flow': Row(summary='told')}"),
]

BAD_MODULES = [
    (promised_names_exist, "__all__ = ['here', 'gone']\nhere = 1"),
    (public_methods_are_documented, "class Flow:\n    def encode(self): ..."),
    (public_methods_are_documented, "class Flow:\n    @property\n    def device(self): ..."),
    (rows_are_documented, "from types import SimpleNamespace as Row\nTABLE = {'flow': Row(summary=' ')}"),
]


@pytest.mark.parametrize(("rule", "path", "text"), BAD_SOURCES)
def test_a_rule_sees_a_bad_source(rule, path, text):
    assert rule(Source(PurePosixPath(path), text))


@pytest.mark.parametrize(("rule", "path", "text"), GOOD_SOURCES)
def test_a_rule_leaves_a_good_source_alone(rule, path, text):
    assert rule(Source(PurePosixPath(path), text)) == []


@pytest.mark.parametrize(("rule", "text", "kept"), [(*m, False) for m in BAD_MODULES] + [(*m, True) for m in GOOD_MODULES])
def test_a_rule_tells_a_bad_module_from_a_good_one(rule, text, kept):
    module = ModuleType("tiny")
    exec(text, module.__dict__)
    assert (rule(module) == []) is kept


def test_every_rule_is_shown_a_bad_text():
    assert {rule for rule, *_ in (*BAD_SOURCES, *BAD_MODULES)} == {*SOURCE_RULES, *MODULE_RULES}
