"""The rules of the house, executed: who imports whom, and what happens only at the edge.

Every rule of :mod:`rules` is also shown texts that break it and texts that keep it.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path, PurePosixPath
from types import FunctionType, ModuleType
from typing import Any

import pytest
import rooms
import torch
from rooms import BEYOND_THE_DESIGN, DOORS, FOR_EVERYONE, SRC, Source, doors_of, opens, sources
from rules import (
    ASKED_FOR,
    PLACES,
    QUIET,
    SOURCE_RULES,
    a_file_is_short_or_says_why,
    a_room_says_its_idea,
    backward_is_called_once_in_train,
    broad_excepts_say_why,
    calls,
    capabilities_are_types,
    draws_name_their_generator,
    families_never_import_one_another,
    few_places_reach_outside,
    files_are_touched_at_the_edge,
    imports_are_written_out,
    lambdas_have_no_names,
    nothing_is_asserted,
    nothing_is_pickled,
    only_the_command_line_prints,
    rooms_keep_their_doors,
    uses,
    warnings_are_notes,
    weights_are_drawn_seeded,
)
from torch import nn

#: rooms with a TABLE, those of the design that are not there yet too
WITH_TABLE = ("families", "metrics", "policies", "ratio", "detectors", "joint")
THERE = ("families", "metrics", "policies", "ratio", "detectors")

TESTS = Path(__file__).parent

#: tests that belong to no single room → what they ask
ACROSS_ROOMS = {
    "contracts/strangers": "models that a person writes outside of the library",
    "test_answers": "answers with a target, from a file to a fitted model",
    "test_architecture": "this file",
    "test_odd_arrays": "arrays of any type in mix, evaluate and select",
    "test_bad_input": "every message about an input",
    "test_docs": "the examples of the pages",
    "test_doors": "every door through which data comes in",
    "test_every_table": "tables of every kind, from a file to a verdict",
    "test_holes": "cells without a value, from a file to a verdict",
    "test_judges": "the known law and the judges of the benchmarks",
    "test_messages": "messages that belong to no room",
    "test_portable": "other processors",
    "test_readme": "the README",
    "test_recipes": "the recipes of CONTRIBUTING",
    "test_round_trip": "files through a run and back",
    "test_site": "the pages of the site",
    "test_styles": "the ways in which files write their cells",
    "test_tails": "densities far from the data, in every family",
    "test_target": "runs with a target",
    "test_tutorials": "the tutorials of the site",
    "test_uci": "a benchmark's arithmetic",
}

METHODS = (FunctionType, property, classmethod, staticmethod)


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


SOURCES = sources()
PATHS = [source.path for source in SOURCES]


def _module(path: PurePosixPath) -> ModuleType:
    return import_module(".".join(("mixtura", *path.with_suffix("").parts)).removesuffix(".__init__"))


@pytest.mark.parametrize("rule", [rule for rule in SOURCE_RULES if rule is not rooms_keep_their_doors])
def test_the_house_keeps(rule):
    assert [f"{s.path}, {breach}" for s in SOURCES for breach in rule(s)] == []


@pytest.mark.parametrize("name", QUIET)
def test_a_quiet_layer_draws_nothing(name):
    before, layer = torch.get_rng_state(), getattr(nn, name)
    for arguments in ((), (2,), (2, 2), (1, (1, 1)), (torch.ones(2),)):
        with contextlib.suppress(TypeError, ValueError):
            layer(*arguments)
            break
    else:
        raise AssertionError(f"no arguments for {name}")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_house_is_looked_at():
    assert {"__init__", "contracts", "ground", "train"} <= {source.room for source in SOURCES}


@pytest.mark.parametrize("rule", [promised_names_exist, public_methods_are_documented])
@pytest.mark.parametrize("path", PATHS, ids=str)
def test_a_module_keeps(rule, path):
    assert rule(_module(path)) == []


@pytest.mark.parametrize("room", THERE)
def test_a_table_keeps(room):
    table = import_module(f"mixtura.{room}").TABLE
    assert len(table) > 2
    assert rows_are_documented(import_module(f"mixtura.{room}")) == []


def test_every_table_is_looked_at():
    tables = {path.parts[0] for path in PATHS if path.name == "__init__.py" and hasattr(_module(path), "TABLE")}
    assert tables == {*THERE} == {room for room in WITH_TABLE if (SRC / room).is_dir()}


def test_no_module_has_the_name_of_a_public_name():
    """``mixtura.select`` would be the module once that is imported, and the function before."""
    packages = [_module(path) for path in PATHS if path.name == "__init__.py"]
    clashes, public = [], import_module("mixtura")
    for path in PATHS:
        _module(path)
    for package in packages:
        at = PurePosixPath(*package.__name__.split(".")[1:])
        below = {path.relative_to(at).parts[0].removesuffix(".py") for path in PATHS if at in path.parents}
        clashes += [f"{package.__name__}.{name}" for name in getattr(package, "__all__", ()) if name in below]
    assert clashes == []
    assert [name for name in public.__all__ if isinstance(getattr(public, name), ModuleType)] == []


def test_what_is_asked_for_is_still_asked():
    asked = {
        (source.room, call.args[1].value)
        for source in SOURCES
        for name, call in calls(source)
        if name == "getattr" and len(call.args) > 2 and hasattr(call.args[1], "value")
    }
    assert {*ASKED_FOR} <= asked


@pytest.mark.parametrize(("things", "place"), [(things, place) for things, places in PLACES.items() for place in places])
def test_a_place_that_reaches_outside_does(things, place):
    assert [breach for s in SOURCES if place in (s.room, str(s.path)) for breach in uses(s, *things)]


def test_the_tests_mirror_the_rooms():
    inside = [path.relative_to(TESTS) for path in TESTS.rglob("test_*.py")]
    folders = {path.parent.as_posix() for path in inside} - {"."}
    strange = [f for f in folders if not ((SRC / f).is_dir() or (SRC / f"{f}.py").is_file())]
    alone = {path.stem for path in inside if len(path.parts) == 1}
    strange += [stem for stem in alone if not (SRC / f"{stem.removeprefix('test_')}.py").is_file()]
    assert sorted({*strange} - {*ACROSS_ROOMS}) == []
    assert [name for name in ACROSS_ROOMS if not ((TESTS / f"{name}.py").is_file() or (TESTS / name).is_dir())] == []


# ------------------------------------------------------------------------------------------------- its doors


def test_every_room_keeps_its_doors():
    assert [f"{s.path}, line {line}: {target}" for s in SOURCES for line, target in rooms.outside(s)] == []


@pytest.mark.parametrize(("room", "door"), list(BEYOND_THE_DESIGN))
def test_a_door_beyond_the_design_is_needed(room, door):
    assert not any(opens(other, door) for other in (room, *DOORS[room])), "the design has it"
    assert [target for s in SOURCES if s.room == room for _, target in s.ours if opens(door, target)], "nobody goes through"


def test_no_door_leads_upwards():
    doors = [(room, door) for room in DOORS for door in doors_of(room) if door.partition(".")[0] != room]
    assert [edge for edge in doors if rooms.upwards((edge[0], edge[1].partition(".")[0]))] == []
    assert all(door.partition(".")[0] in DOORS for _, door in doors)
    assert [edge for edge in doors if edge[1].partition(".")[0] in ("cli", "report") and edge[0] not in ("cli", "__main__")] == []


def test_only_a_contract_is_for_everyone():
    assert all(opens("contracts", door) for door in FOR_EVERYONE)


def test_the_script_of_the_rooms_finds_none_outside():
    ran = _script()
    assert ran.returncode == 0, ran.stdout
    assert "job          -> train" in ran.stdout
    assert "outside the doors: 0 edges, 0 names; upwards: 0 edges" in ran.stdout
    assert " 0 edges in a cycle" in ran.stdout


def test_the_script_of_the_rooms_shows_a_commit():
    if not (TESTS.parent / ".git").exists():
        pytest.skip("these sources are no git repository")
    ran = _script("HEAD")
    assert ran.returncode == 0, ran.stderr
    assert "families     -> contracts" in ran.stdout


def _script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TESTS / "rooms.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONIOENCODING": "utf-8"})


@pytest.mark.parametrize(
    ("path", "text", "goes"),
    [
        ("train/fit.py", "from mixtura import study", ("train", "study")),
        ("study.py", "def f():\n    from .cli import main", ("study", "cli")),
        ("ground/rng.py", "if TYPE_CHECKING:\n    from ..metrics import TABLE", ("ground", "metrics")),
    ],
)
def test_an_edge_upwards_is_seen(path, text, goes):
    (edge,) = rooms.edges([Source(PurePosixPath(path), text)])
    assert edge == goes and rooms.upwards(edge) and not rooms.upwards(edge[::-1])


def test_a_cycle_is_seen():
    assert rooms.cyclic([("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")]) == [("a", "b"), ("b", "c"), ("c", "a")]


# --------------------------------------------------------------------------------- every rule can fail


NN = "from torch import nn\n"
SEEDED = f"from mixtura.ground.rng import seeded\n{NN}"
TRY = "try:\n    f()\n"

BAD_SOURCES = [
    (rooms_keep_their_doors, "train.py", "from mixtura.families import flow"),
    (rooms_keep_their_doors, "train.py", "def f():\n    if True:\n        import mixtura.data.read"),
    (rooms_keep_their_doors, "train.py", "from mixtura import study"),
    (rooms_keep_their_doors, "train.py", "from . import scoring"),
    (rooms_keep_their_doors, "train.py", "import mixtura"),
    (rooms_keep_their_doors, "data/read.py", "from ..nets import MLP"),
    (rooms_keep_their_doors, "metrics/likelihood.py", "from mixtura.contracts import InputError, Model"),
    (rooms_keep_their_doors, "folder/models.py", "from mixtura.families import flow"),
    (rooms_keep_their_doors, "study.py", "from mixtura.cli import main"),
    (rooms_keep_their_doors, "report/page.py", "from mixtura import cli"),
    (rooms_keep_their_doors, "attic.py", ""),
    (families_never_import_one_another, "families/flow.py", "from mixtura.families.kde import Config"),
    (families_never_import_one_another, "families/flow.py", "from mixtura.families import kde"),
    (families_never_import_one_another, "families/flow.py", "def f():\n    from . import kde"),
    (imports_are_written_out, "job/splits.py", "import importlib\nimportlib.import_module('mixtura.cli.main')"),
    (imports_are_written_out, "job/splits.py", "__import__('mixtura.cli.main')"),
    (imports_are_written_out, "job/splits.py", "from importlib import import_module as load\nload(name)"),
    (imports_are_written_out, "job/splits.py", "exec('import mixtura.cli.main')"),
    (imports_are_written_out, "job/splits.py", "import runpy\nrunpy.run_module('mixtura.cli.main')"),
    (imports_are_written_out, "job/splits.py", "import sys\nmain = sys.modules['mixtura.cli.main']"),
    (imports_are_written_out, "job/splits.py", "from sys import modules as loaded\nloaded[name]"),
    (a_file_is_short_or_says_why, "train/fit.py", "'''One loop.'''\n" + "x = 1\n" * 450),
    (a_file_is_short_or_says_why, "train/fit.py", "'''One loop.\n\nLonger than 400 lines because.'''\n" + "x = 1\n" * 450),
    (a_room_says_its_idea, "simplex/__init__.py", ""),
    (a_room_says_its_idea, "simplex/__init__.py", "'''simplex'''"),
    (a_room_says_its_idea, "ledger.py", "'''Every pull,\nkept.'''"),
    (backward_is_called_once_in_train, "ground/nets/heads.py", "loss(x).backward()"),
    (backward_is_called_once_in_train, "train/fit.py", "a.backward()\nb.backward()"),
    (backward_is_called_once_in_train, "train/fit.py", ""),
    (backward_is_called_once_in_train, "joint/hierarchy.py", "step = loss.backward\nstep()"),
    (backward_is_called_once_in_train, "joint/hierarchy.py", "from torch import autograd\nautograd.backward(loss)"),
    (backward_is_called_once_in_train, "joint/hierarchy.py", "getattr(loss, 'backward')()"),
    (only_the_command_line_prints, "study.py", "print(1)"),
    (only_the_command_line_prints, "study.py", "from rich import print as say\nsay(1)"),
    (only_the_command_line_prints, "study.py", "say = print\nsay(1)"),
    (only_the_command_line_prints, "study.py", "import sys\nsys.stdout.write('1')"),
    (only_the_command_line_prints, "study.py", "from sys import stderr as out\nout.write('1')"),
    (only_the_command_line_prints, "study.py", "import sys\nout = sys\nout.stderr.write('1')"),
    (only_the_command_line_prints, "study.py", "import logging\nlogging.getLogger().info('1')"),
    (only_the_command_line_prints, "study.py", "from tqdm import tqdm"),
    (only_the_command_line_prints, "study.py", "import typer\ntyper.echo('1')"),
    (only_the_command_line_prints, "study.py", "from click import echo"),
    (only_the_command_line_prints, "study.py", "import os\nos.write(1, b'1')"),
    (only_the_command_line_prints, "folder/io.py", "open(2, 'w')"),
    (few_places_reach_outside, "study.py", "import subprocess"),
    (few_places_reach_outside, "job/workers.py", "import subprocess"),
    (few_places_reach_outside, "train/fit.py", "from multiprocessing import Process"),
    (few_places_reach_outside, "arms/web.py", "from subprocess import run"),
    (few_places_reach_outside, "study.py", "import os\nos.system('ls')"),
    (few_places_reach_outside, "study.py", "from os import popen as p\np('ls')"),
    (few_places_reach_outside, "study.py", "import os\ngetattr(os, 'popen')('ls')"),
    (few_places_reach_outside, "data/read.py", "import urllib.request\nurllib.request.urlopen(url)"),
    (few_places_reach_outside, "data/read.py", "import urllib\nurllib.request.urlopen(url)"),
    (few_places_reach_outside, "data/read.py", "from urllib.request import urlopen"),
    (few_places_reach_outside, "arms/process.py", "import requests"),
    (few_places_reach_outside, "arms/entries.py", "from http import client"),
    (few_places_reach_outside, "features/extractors.py", "import torch\ntorch.hub.load(repository, name)"),
    (few_places_reach_outside, "ground/rng.py", "import os\nseed = os.urandom(8)"),
    (few_places_reach_outside, "job/start.py", "import secrets"),
    (few_places_reach_outside, "selection/start.py", "from uuid import uuid4"),
    (few_places_reach_outside, "job/portrait.py", "from PIL import Image\nImage.fromarray(x).save(path)"),
    (warnings_are_notes, "study.py", "import warnings\nwarnings.warn('a')"),
    (warnings_are_notes, "study.py", "from warnings import warn\nwarn('a', UserWarning, stacklevel=2)"),
    (warnings_are_notes, "study.py", "import warnings as w\nw.warn('a', category=DeprecationWarning)"),
    (
        warnings_are_notes, "study.py",
        "import warnings\nfrom functools import partial\nsay = partial(warnings.warn, category=UserWarning)",
    ),  # fmt: skip
    (files_are_touched_at_the_edge, "job/scoring.py", "open('x')"),
    (files_are_touched_at_the_edge, "job/scoring.py", "path.open()"),
    (files_are_touched_at_the_edge, "job/scoring.py", "import h5py"),
    (files_are_touched_at_the_edge, "job/scoring.py", "from mmap import mmap"),
    (files_are_touched_at_the_edge, "job/scoring.py", "import numpy as np\nnp.memmap('x')"),
    (files_are_touched_at_the_edge, "job/scoring.py", "(path / 'x').write_text('')"),
    (files_are_touched_at_the_edge, "job/scoring.py", "path.write_bytes(b'')"),
    (files_are_touched_at_the_edge, "job/scoring.py", "path.read_text()"),
    (files_are_touched_at_the_edge, "job/scoring.py", "import shutil\nshutil.rmtree(path)"),
    (files_are_touched_at_the_edge, "job/scoring.py", "from shutil import rmtree as r\nr(path)"),
    (files_are_touched_at_the_edge, "job/scoring.py", "import shutil as s\n(remove := s.rmtree)(path)"),
    (
        files_are_touched_at_the_edge, "job/scoring.py",
        "import shutil\ndef f():\n    def g():\n        return shutil.copy(a, b)\n    return g",
    ),  # fmt: skip
    (files_are_touched_at_the_edge, "job/scoring.py", "path.unlink()"),
    (files_are_touched_at_the_edge, "job/scoring.py", "def f():\n    import os\n    os.unlink(path)"),
    (files_are_touched_at_the_edge, "job/scoring.py", "from os import remove\nlist(map(remove, paths))"),
    (files_are_touched_at_the_edge, "job/scoring.py", "path.parent.mkdir(parents=True)"),
    (files_are_touched_at_the_edge, "job/scoring.py", "import os\nos.makedirs(path)"),
    (files_are_touched_at_the_edge, "job/scoring.py", "path.rename(other)"),
    (files_are_touched_at_the_edge, "job/scoring.py", "path.replace(other)"),
    (files_are_touched_at_the_edge, "job/scoring.py", "import os\nos.replace(a, b)"),
    (files_are_touched_at_the_edge, "job/scoring.py", "path.touch()"),
    (files_are_touched_at_the_edge, "job/scoring.py", "path.rmdir()"),
    (files_are_touched_at_the_edge, "job/scoring.py", "remove = path.unlink\nremove()"),
    (files_are_touched_at_the_edge, "job/scoring.py", "getattr(path, 'unlink')()"),
    (files_are_touched_at_the_edge, "job/scoring.py", "frame.to_csv('x.csv')"),
    (files_are_touched_at_the_edge, "job/scoring.py", "frame.to_csv(path_or_buf=path)"),
    (files_are_touched_at_the_edge, "job/scoring.py", "frame.to_parquet(path)"),
    (files_are_touched_at_the_edge, "job/scoring.py", "frame.to_json(path)"),
    (files_are_touched_at_the_edge, "job/scoring.py", "frame.to_pickle(path)"),
    (files_are_touched_at_the_edge, "job/scoring.py", "import pandas as pd\npd.read_csv('x.csv')"),
    (files_are_touched_at_the_edge, "job/scoring.py", "import numpy as np\nnp.save('x', a)"),
    (files_are_touched_at_the_edge, "job/scoring.py", "from numpy import savez\nsavez('x', a=a)"),
    (files_are_touched_at_the_edge, "job/scoring.py", "import numpy\nnumpy.savez_compressed('x', a=a)"),
    (files_are_touched_at_the_edge, "job/scoring.py", "import numpy as np\nn = np\nn.load('x')"),
    (files_are_touched_at_the_edge, "job/scoring.py", "figure.savefig('x.png')"),
    (files_are_touched_at_the_edge, "job/scoring.py", "from safetensors.torch import save_file\nsave_file({}, 'x')"),
    (files_are_touched_at_the_edge, "job/scoring.py", "import sqlite3\nsqlite3.connect('x')"),
    (files_are_touched_at_the_edge, "job/scoring.py", "from sqlite3 import connect"),
    (files_are_touched_at_the_edge, "job/scoring.py", "import tempfile\ntempfile.mkdtemp()"),
    (files_are_touched_at_the_edge, "job/scoring.py", "from tempfile import TemporaryDirectory as T\nT()"),
    (files_are_touched_at_the_edge, "job/scoring.py", "import zipfile\nzipfile.ZipFile('x')"),
    (files_are_touched_at_the_edge, "job/scoring.py", "array.tofile('x')"),
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
    (draws_name_their_generator, "ground/nets/heads.py", "import torch\nt = torch\nt.manual_seed(0)"),
    (draws_name_their_generator, "ground/nets/heads.py", "import torch\ndraw = torch.randn\ndraw(3)"),
    (draws_name_their_generator, "ground/nets/heads.py", "import torch\ntorch.randn(3, generator=None)"),
    (draws_name_their_generator, "ground/nets/heads.py", "x.bernoulli()"),
    (draws_name_their_generator, "ground/nets/heads.py", "weights.multinomial(3, True)"),
    (draws_name_their_generator, "ground/nets/heads.py", "weights.multinomial(3, generator=None)"),
    (
        draws_name_their_generator, "ground/nets/heads.py",
        "from torch.nn import functional as F\nF.scaled_dot_product_attention(q, k, v, dropout_p=0.1)",
    ),  # fmt: skip
    (
        draws_name_their_generator, "ground/nets/heads.py",
        "from torch.nn.functional import scaled_dot_product_attention as attend\nattend(q, k, v, None, p)",
    ),  # fmt: skip
    (draws_name_their_generator, "ground/nets/heads.py", "torch.distributions.Normal(0, 1).rsample((3,))"),
    (draws_name_their_generator, "ground/nets/heads.py", "torch.distributions.Normal(0, 1).sample((3,))"),
    (draws_name_their_generator, "ground/nets/heads.py", "frame.sample(10)"),
    (draws_name_their_generator, "ground/nets/heads.py", "frame.sample(frac=1, random_state=None)"),
    (draws_name_their_generator, "ground/nets/heads.py", "import torch\ntorch.nn.functional.dropout(x, 0.1)"),
    (draws_name_their_generator, "ground/nets/heads.py", NN + "self.drop = nn.Dropout(0.1)"),
    (draws_name_their_generator, "ground/nets/heads.py", "from torch.nn import functional as F\nF.gumbel_softmax(x)"),
    (
        draws_name_their_generator, "ground/nets/heads.py",
        "from torch.utils.data import DataLoader\nDataLoader(rows, shuffle=True)",
    ),  # fmt: skip
    (draws_name_their_generator, "ground/nets/heads.py", "import numpy as np\nnp.random.default_rng(None)"),
    (draws_name_their_generator, "ground/nets/heads.py", "import numpy as np\nf = np.random.normal\nf()"),
    (draws_name_their_generator, "ground/nets/heads.py", "from scipy import stats\nstats.norm.rvs(size=3)"),
    (
        draws_name_their_generator, "ground/nets/heads.py",
        "from scipy.optimize import differential_evolution\ndifferential_evolution(f, bounds)",
    ),  # fmt: skip
    (draws_name_their_generator, "ground/nets/heads.py", "from sklearn.cluster import KMeans\nKMeans(3)"),
    (
        draws_name_their_generator, "ground/nets/heads.py",
        "from sklearn.mixture import GaussianMixture as G\nG(3, random_state=None)",
    ),  # fmt: skip
    (
        draws_name_their_generator, "ground/nets/heads.py",
        "from sklearn import ensemble\nensemble.RandomForestRegressor(**settings)",
    ),  # fmt: skip
    (
        draws_name_their_generator, "ground/nets/heads.py",
        "from sklearn.model_selection import train_test_split\ntrain_test_split(x)",
    ),  # fmt: skip
    (weights_are_drawn_seeded, "job/scoring.py", NN + "net = nn.Linear(3, 3)"),
    (
        weights_are_drawn_seeded, "job/scoring.py",
        "import torch\ndef f():\n    return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3))",
    ),  # fmt: skip
    (weights_are_drawn_seeded, "job/scoring.py", "from torch.nn import Embedding as E\nE(3, 3)"),
    (weights_are_drawn_seeded, "job/scoring.py", "from mixtura.ground.nets.coders import perceptron\nperceptron(3, [8], 1)"),
    (
        weights_are_drawn_seeded, "job/scoring.py",
        "from mixtura.ground.nets import coders\ncoders.ImageEncoder((1, 8, 8), [8], 2)",
    ),  # fmt: skip
    (weights_are_drawn_seeded, "job/scoring.py", "import zuko\nzuko.flows.NSF(3)"),
    (weights_are_drawn_seeded, "metrics/classifier.py", NN + "layer = nn.Linear\nlayer(3, 3)"),
    (weights_are_drawn_seeded, "metrics/classifier.py", NN + "layers = map(nn.Linear, widths, widths[1:])"),
    (weights_are_drawn_seeded, "metrics/classifier.py", NN + "class Net(nn.LSTM): ...\nNet(3, 3)"),
    (weights_are_drawn_seeded, "metrics/classifier.py", "torch.empty(3).uniform_(-1, 1)"),
    (weights_are_drawn_seeded, "metrics/classifier.py", "x.normal_()"),
    (weights_are_drawn_seeded, "metrics/classifier.py", "x.random_(0, 3)"),
    (weights_are_drawn_seeded, "metrics/classifier.py", "x.bernoulli_(0.5)"),
    (weights_are_drawn_seeded, "metrics/classifier.py", "x.exponential_()"),
    (weights_are_drawn_seeded, "metrics/classifier.py", "x.normal_(generator=None)"),
    (weights_are_drawn_seeded, "metrics/classifier.py", NN + "nn.init.kaiming_normal_(w)"),
    (weights_are_drawn_seeded, "metrics/classifier.py", "from torch.nn.init import normal_ as fill\nfill(w)"),
    (weights_are_drawn_seeded, "metrics/classifier.py", "fill = x.normal_\nfill()"),
    (weights_are_drawn_seeded, "families/flow.py", SEEDED + "with seeded(0):\n    pass\nnn.Linear(3, 3)"),
    (weights_are_drawn_seeded, "families/flow.py", SEEDED + "with seeded(0):\n    build = lambda: nn.Linear(3, 3)\nbuild()"),
    (weights_are_drawn_seeded, "families/flow.py", NN + "with seeded(0):\n    nn.Linear(3, 3)"),
    (
        weights_are_drawn_seeded, "families/flow.py",
        SEEDED + "def _net():\n    return nn.Linear(3, 3)\nwith seeded(0):\n    a = _net()\nb = _net()",
    ),  # fmt: skip
    (
        weights_are_drawn_seeded, "ground/nets/heads.py",
        "class Head:\n    def forward(self, x):\n        return x + x.clone().normal_()",
    ),  # fmt: skip
    (nothing_is_pickled, "folder/io.py", "def f():\n    import pickle"),
    (nothing_is_pickled, "folder/io.py", "from joblib import dump"),
    (nothing_is_pickled, "folder/io.py", "array.dump(path)"),
    (nothing_is_pickled, "folder/io.py", "text = array.dumps()"),
    (nothing_is_pickled, "folder/io.py", "import torch\ntorch.load('x')"),
    (nothing_is_pickled, "folder/io.py", "from torch import save\nsave({}, 'x')"),
    (nothing_is_pickled, "features.py", "import torch\ntorch.export.load('x.pt2')"),
    (nothing_is_pickled, "features.py", "from torch import jit\njit.load('x.pt')"),
    (nothing_is_pickled, "arms/entries.py", "import yaml\nyaml.load(text)"),
    (nothing_is_pickled, "data/read.py", "import pandas as pd\npd.read_pickle('x')"),
    (nothing_is_pickled, "data/read.py", "import numpy as np\nnp.load('x', allow_pickle=True)"),
    (nothing_is_asserted, "job/splits.py", "def f(x):\n    assert x"),
    (capabilities_are_types, "job/scoring.py", "hasattr(model, 'log_prob')"),
    (capabilities_are_types, "job/scoring.py", "from builtins import hasattr as h\nh(model, 'log_prob')"),
    (capabilities_are_types, "job/scoring.py", "getattr(model, 'log_prob', None)"),
    (capabilities_are_types, "job/scoring.py", "getattr(model, name, None)"),
    (capabilities_are_types, "job/scoring.py", "list(filter(lambda m: hasattr(m, 'energy'), models))"),
    (capabilities_are_types, "job/scoring.py", "def energy(self):\n    raise NotImplementedError"),
    (capabilities_are_types, "job/scoring.py", "E = NotImplementedError\ndef energy(self):\n    raise E('not here')"),
    (capabilities_are_types, "job/scoring.py", "if 'energy' in dir(model):\n    f()"),
    (capabilities_are_types, "job/scoring.py", "def energy(self):\n    raise NotImplementedError('not here')"),
    (broad_excepts_say_why, "job/scoring.py", TRY + "except Exception:\n    pass"),
    (broad_excepts_say_why, "job/scoring.py", TRY + "except:\n    pass"),
    (broad_excepts_say_why, "job/scoring.py", "import contextlib\nwith contextlib.suppress(Exception):\n    f()"),
    (broad_excepts_say_why, "job/scoring.py", "from contextlib import suppress\nwith suppress(OSError, BaseException):\n    f()"),
    (broad_excepts_say_why, "job/scoring.py", TRY + "except (ValueError, BaseException) as error:\n    g(error)"),
    (broad_excepts_say_why, "job/scoring.py", TRY + "except Exception:  # noqa: BLE001\n    pass"),
    (lambdas_have_no_names, "job/scoring.py", "double = lambda x: 2 * x"),
    (lambdas_have_no_names, "job/scoring.py", "self.double = lambda x: 2 * x"),
    (lambdas_have_no_names, "job/scoring.py", "double: Callable = lambda x: 2 * x"),
    (lambdas_have_no_names, "job/scoring.py", "f(double := lambda x: 2 * x)"),
    (lambdas_have_no_names, "job/scoring.py", "a, b = lambda: 1, lambda: 2"),
    (lambdas_have_no_names, "job/scoring.py", "x = 1  # noqa: E731"),
]

GOOD_SOURCES = [
    (rooms_keep_their_doors, "metrics/likelihood.py", "from mixtura.contracts import InputError\nfrom .neighbours import near"),
    (rooms_keep_their_doors, "folder/models.py", "from mixtura.families import TABLE"),
    (rooms_keep_their_doors, "cli.py", "from mixtura import report, study"),
    (rooms_keep_their_doors, "families/gaussian_mixture.py", "from sklearn import mixture"),
    (families_never_import_one_another, "families/__init__.py", "from mixtura.families import flow, kde"),
    (backward_is_called_once_in_train, "train/fit.py", "loss.backward()"),
    (only_the_command_line_prints, "train.py", "'''print(1)'''"),
    (only_the_command_line_prints, "arms/process.py", "import os\nos.write(self.pipe, b'1')"),
    (few_places_reach_outside, "arms/process.py", "import subprocess"),
    (few_places_reach_outside, "arms/web.py", "import http.client\nimport socket"),
    (few_places_reach_outside, "arms/entries.py", "from urllib.parse import urlsplit"),
    (few_places_reach_outside, "arms/worker.py", "requests = queue.Queue()\nrequests.get()"),
    (few_places_reach_outside, "report/figures.py", "from PIL import Image"),
    (few_places_reach_outside, "job/start.py", "import os\nos.environ['A']"),
    (files_are_touched_at_the_edge, "data/read.py", "path.open()"),
    (draws_name_their_generator, "families/vae.py", "import torch\ntorch.randn(3, generator=g)"),
    (draws_name_their_generator, "families/vae.py", "weights.multinomial(3, generator=g)"),
    (draws_name_their_generator, "families/vae.py", "import numpy as np\nnp.random.default_rng(0).multinomial(9, p)"),
    (
        draws_name_their_generator, "families/vae.py",
        "from torch.nn import functional as F\nF.scaled_dot_product_attention(q, k, v, dropout_p=0.0)",
    ),  # fmt: skip
    (draws_name_their_generator, "ground/nets/heads.py", "from mixtura import rng as random\nrandom.normal(shape, g, x)"),
    (draws_name_their_generator, "train.py", "import torch\ntorch.cuda.is_available()"),
    (draws_name_their_generator, "ground/rng.py", "import torch\ntorch.default_generator.manual_seed(0)"),
    (draws_name_their_generator, "job/splits.py", "import numpy as np\nnp.random.default_rng(0)"),
    (nothing_is_pickled, "folder/io.py", "from safetensors.torch import load, save\nload(save({}))"),
    (nothing_is_pickled, "data/read.py", "import numpy as np\nnp.load('x', allow_pickle=False)"),
    (nothing_is_pickled, "folder/io.py", "import json\njson.dumps(x)\nconfig.model_dump()"),
    (only_the_command_line_prints, "cli/screen.py", "import sys\nsys.stdout.write('1')"),
    (imports_are_written_out, "cli/screen.py", "model.eval()\nexec('')"),
    (a_file_is_short_or_says_why, "train/fit.py", "'''One loop.'''\n" + "x = 1\n" * 449),
    (a_file_is_short_or_says_why, "train/fit.py", "'''One loop.\n\nLonger than 450 lines because x.\n'''\n" + "x = 1\n" * 450),
    (a_room_says_its_idea, "simplex/__init__.py", "'''The best point.\n\nAnd more'''"),
    (a_room_says_its_idea, "simplex/convex.py", ""),
    (backward_is_called_once_in_train, "metrics/frechet.py", "link.backward.T"),
    (
        warnings_are_notes, "study.py",
        "import warnings\nfrom mixtura.contracts import Note as N\nwarnings.warn('a', N, stacklevel=2)",
    ),  # fmt: skip
    (warnings_are_notes, "study.py", "import warnings\nwarnings.simplefilter('ignore')"),
    (
        warnings_are_notes, "study.py",
        "import warnings\nfrom functools import partial\nfrom mixtura.contracts import Note\n"
        "say = partial(warnings.warn, category=Note)",
    ),  # fmt: skip
    (files_are_touched_at_the_edge, "job/scoring.py", "text.replace('a', 'b')"),
    (files_are_touched_at_the_edge, "job/scoring.py", "replace(config, width=3)"),
    (files_are_touched_at_the_edge, "job/scoring.py", "frame.rename(columns=names)"),
    (files_are_touched_at_the_edge, "job/scoring.py", "schema.to_json()"),
    (files_are_touched_at_the_edge, "job/scoring.py", "frame.to_csv()"),
    (files_are_touched_at_the_edge, "job/scoring.py", "view.open"),
    (files_are_touched_at_the_edge, "job/scoring.py", "import os\nos.environ['A']"),
    (files_are_touched_at_the_edge, "job/scoring.py", "from mixtura.folder import io\nio.write_json(path, x)"),
    (files_are_touched_at_the_edge, "ground/machine.py", "import shutil\nshutil.rmtree(path)"),
    (files_are_touched_at_the_edge, "folder/io.py", "path.unlink()"),
    (draws_name_their_generator, "families/vae.py", "model.sample(3, rng=rng)"),
    (draws_name_their_generator, "families/vae.py", "held.sample(3, seed)"),
    (draws_name_their_generator, "families/vae.py", "frame.sample(3, random_state=seed)"),
    (draws_name_their_generator, "families/vae.py", "from sklearn.cluster import KMeans\nKMeans(3, random_state=seed)"),
    (draws_name_their_generator, "families/vae.py", "from sklearn.preprocessing import StandardScaler\nStandardScaler()"),
    (draws_name_their_generator, "families/vae.py", "from scipy import stats\nstats.norm.rvs(size=3, random_state=g)"),
    (draws_name_their_generator, "families/vae.py", "from sklearn.utils import check_random_state\ncheck_random_state(seed)"),
    (weights_are_drawn_seeded, "families/flow.py", SEEDED + "with seeded(0):\n    nn.Sequential(nn.Linear(3, 3))"),
    (
        weights_are_drawn_seeded, "families/flow.py",
        SEEDED + "with no_grad(), seeded(0):\n    net = [nn.Conv2d(a, b, 3) for a, b in sizes]",
    ),  # fmt: skip
    (
        weights_are_drawn_seeded, "families/flow.py",
        SEEDED + "def _net():\n    return nn.Linear(3, 3)\nwith seeded(0):\n    a = _net()",
    ),  # fmt: skip
    (weights_are_drawn_seeded, "families/flow.py", "x.uniform_(-1, 1, generator=rng)"),
    (weights_are_drawn_seeded, "families/flow.py", NN + "nn.init.zeros_(w)\nnn.Parameter(w)\nnn.functional.silu(x)"),
    (weights_are_drawn_seeded, "families/flow.py", "x.fill_(0)"),
    (weights_are_drawn_seeded, "families/flow.py", NN + "isinstance(layer, nn.Linear)"),
    (
        weights_are_drawn_seeded, "ground/nets/heads.py",
        NN + "class Head(nn.Module):\n    def __init__(self):\n        self.net = nn.Linear(3, 3)",
    ),  # fmt: skip
    (weights_are_drawn_seeded, "ground/nets/heads.py", NN + "def perceptron():\n    return nn.Linear(3, 3)"),
    (capabilities_are_types, "job/scoring.py", "getattr(parts, 'values')"),
    (capabilities_are_types, "job/scoring.py", "isinstance(model, Density)"),
    (capabilities_are_types, "job/scoring.py", "def __add__(self, other):\n    return NotImplemented"),
    (capabilities_are_types, "data/cells.py", TRY + "except (ValueError, NotImplementedError):\n    pass"),
    (capabilities_are_types, "data/images.py", "getattr(image, 'n_frames', 1)"),
    (broad_excepts_say_why, "job/scoring.py", TRY + "except ValueError:\n    pass"),
    (broad_excepts_say_why, "job/scoring.py", "import contextlib\nwith contextlib.suppress(OSError):\n    f()"),
    (
        broad_excepts_say_why, "job/scoring.py",
        "import contextlib\nwith contextlib.suppress(Exception):  # a foreign function raises anything\n    f()",
    ),  # fmt: skip
    (broad_excepts_say_why, "job/scoring.py", TRY + "except Exception:  # a foreign function raises anything\n    pass"),
    (broad_excepts_say_why, "job/scoring.py", TRY + "except BaseException:\n    g()\n    raise"),
    (
        broad_excepts_say_why, "job/scoring.py",
        TRY + "except Exception:  # noqa: BLE001  a foreign function raises anything\n    pass",
    ),  # fmt: skip
    (lambdas_have_no_names, "job/scoring.py", "sorted(x, key=lambda y: -y)"),
    (lambdas_have_no_names, "job/scoring.py", "TABLE = {'a': lambda x: x}"),
    (lambdas_have_no_names, "job/scoring.py", "def double(x):\n    return 2 * x"),
    (nothing_is_asserted, "job/splits.py", "if not x:\n    raise InputError('x')"),
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


def test_every_rule_is_shown_a_bad_text_and_a_good_one():
    assert {rule for rule, *_ in (*BAD_SOURCES, *BAD_MODULES)} == {*SOURCE_RULES, *MODULE_RULES}
    assert {rule for rule, *_ in (*GOOD_SOURCES, *GOOD_MODULES)} == {*SOURCE_RULES, *MODULE_RULES}
