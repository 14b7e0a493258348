"""What the pages show is true: their code runs, their examples join the house, their links and names exist."""

from __future__ import annotations

import ast
import doctest
import re
import shlex
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_architecture import SOURCE_RULES, Source

import mixtura
from mixtura import families, metrics, policies

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TABLES = {"families": families, "metrics": metrics, "policies": policies}


def blocks(page: str, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def contributed() -> dict[str, str]:
    """Path (or ``in TABLE of`` path) in the first line of a block of CONTRIBUTING.md → the text below it."""
    return {head.removeprefix("# "): body for head, _, body in (block.partition("\n") for block in blocks("CONTRIBUTING.md"))}


CONTRIBUTED = contributed()
RECIPES = [("families", "logistic"), ("metrics", "wins"), ("policies", "drawn")]


def build_from(path: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that a block would be if it were saved under its path."""
    name = path.removeprefix("src/").removesuffix(".py").replace("/", ".")
    module = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(CONTRIBUTED[path], path, "exec", dont_inherit=True), module.__dict__)
    return module


@pytest.fixture
def join(monkeypatch):
    """Follow steps 1 and 2 of a recipe: the file, and its line in the TABLE."""

    def follow(package: str, stem: str) -> ModuleType:
        module = build_from(f"src/mixtura/{package}/{stem}.py", monkeypatch)
        line = CONTRIBUTED[f"in TABLE of src/mixtura/{package}/__init__.py"]
        row = eval(line, {**vars(TABLES[package]), **vars(module), stem: module})
        assert row.name not in TABLES[package].TABLE and row.summary
        monkeypatch.setitem(TABLES[package].TABLE, row.name, row)
        monkeypatch.setattr(TABLES[package], stem, module, raising=False)
        return module

    return follow


@pytest.mark.parametrize(("package", "stem"), RECIPES)
def test_a_recipe_passes_its_own_tests(package, stem, join, monkeypatch):
    join(package, stem)
    tests = vars(build_from(f"tests/{package}/test_{stem}.py", monkeypatch))
    written = [value for name, value in tests.items() if name.startswith("test_")]
    assert written
    for test in written:
        marks = getattr(test, "pytestmark", [])
        for case in marks[0].args[1] if marks else [()]:
            test(*(case if isinstance(case, tuple) else (case,)))


@pytest.mark.parametrize(("package", "stem"), RECIPES)
def test_a_recipe_keeps_the_rules_of_the_house(package, stem):
    path = f"{package}/{stem}.py"
    source = Source(PurePosixPath(path), CONTRIBUTED[f"src/mixtura/{path}"])
    assert [breach for rule in SOURCE_RULES for breach in rule(source)] == []
    assert max(map(len, source.text.splitlines())) <= 130


def test_the_family_of_the_recipe_joins_a_run_by_its_line(join, tmp_path):
    join("families", "logistic")
    rng = np.random.default_rng(0)
    hours = np.where(rng.random(60) < 0.3, 40, rng.integers(20, 61, 60)).astype(float)
    hours[::9] = np.nan
    frame = pd.DataFrame({"x": rng.normal(100, 3, 60), "hours": hours, "colour": rng.choice(["red", "blue"], 60)})
    study = mixtura.run(frame, families=["logistic"], out=tmp_path / "run")
    row = study.leaderboard.set_index("name").loc["logistic"]
    assert (row["status"], row["kind"]) == ("fitted", "exact") and np.isfinite(row["nats"])
    loaded = mixtura.load(tmp_path / "run").model("logistic")
    assert loaded.score(frame).equals(study.model("logistic").score(frame))
    assert abs(loaded.sample(2_000)["x"].mean() - 100) < 1


def test_own_model_page_does_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = "docs/own-model.md"
    namespace: dict[str, Any] = {"__name__": "own_model"}
    for block in blocks(page):
        exec(compile(block, page, "exec", dont_inherit=True), namespace)
    shown = capsys.readouterr().out
    assert "use laplace" in shown and "samples only" in shown and "models={'laplace': Laplace}" in shown
    assert len([line for line in blocks(page)[0].splitlines() if line.strip()]) <= 30
    found = namespace["again"].model("laplace").model
    assert np.allclose(found.location.detach(), [10, -1], atol=0.4)
    assert np.allclose(found.log_scale.exp().detach(), [2, 0.5], rtol=0.2)
    command = shlex.split(blocks(page, "sh")[0])
    assert command[0] == "mixtura"
    try:
        import_module("mixtura.cli.main").main(command[1:])
    except SystemExit as leave:
        assert not leave.code
    assert "gan" in capsys.readouterr().out


def test_the_page_of_mixture_density_networks_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "mdn"}
    for block in blocks("docs/mdn.md"):
        exec(compile(block, "docs/mdn.md", "exec", dont_inherit=True), namespace)
    modes = namespace["mdn"].predict_modes(namespace["at"])
    assert abs(modes[0, 0] - 0.04) < 0.04 and np.isfinite(modes[1]).sum() >= 2


def test_the_page_of_selection_does_what_it_says(capsys):
    [block] = blocks("docs/select.md")
    namespace: dict[str, Any] = {"__name__": "selection"}
    exec(compile(block, "docs/select.md", "exec", dont_inherit=True), namespace)
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "{'left': 0.3, 'right': 0.7, 'far': 0.0}" and f"# {first}\n" in block
    left, right, far = namespace["selector"].weights.weights
    assert abs(left - 0.3) < 0.15 and abs(right - 0.7) < 0.15 and far < 0.1


SHOWN = [p for p in sorted((ROOT / "src").rglob("*.py")) if ">>>" in p.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.stem)
def test_the_examples_of_docstrings_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
    done = doctest.testmod(import_module(name), verbose=False)
    assert done.attempted > 0 and done.failed == 0


def test_every_example_of_a_docstring_is_one_that_runs():
    """Written with ``>>>``, and none skipped: an indented block after ``::`` is executed by nobody."""
    assert len(SHOWN) >= 3
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                assert not re.search(r"::\s*$|SKIP|```", text, re.MULTILINE), f"{path.name}: {text[:60]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_exist(page):
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+?)\)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    named = re.findall(r"`((?:src|tests|docs|benchmarks)/[\w/.*-]+|\w+(?:/\w+)?\.py)`", text)
    places = (ROOT, ROOT / "src" / "mixtura")
    assert [name for name in named if name not in CONTRIBUTED and not any(any(p.glob(name)) for p in places)] == []


def test_names_page_names_what_there_is():
    """A dotted name of the table, ``room.Name``, is an attribute of that room."""
    rooms = "contracts|ground|train|job|study|simplex|objectives|policies|blending|metrics|features|folder"
    named = re.findall(rf"`((?:{rooms})\.[\w.]+)`", (ROOT / "docs/names.md").read_text(encoding="utf-8"))
    assert len(named) >= 10
    for dotted in named:
        room, *rest = dotted.split(".")
        found = import_module(f"mixtura.{room}")
        for name in rest:
            path = getattr(found, "__name__", "")
            if hasattr(found, "__path__") and find_spec(f"{path}.{name}"):
                import_module(f"{path}.{name}")
            fields = getattr(found, "__dataclass_fields__", {})
            assert hasattr(found, name) or name in fields, dotted
            found = getattr(found, name, None)


def test_the_sketches_of_the_contracts_are_those_that_are_tested():
    shown = blocks("docs/decisions/005-training-is-a-game-in-stages.md")
    lines = set((ROOT / "tests/contracts/players.py").read_text().splitlines())
    assert len(shown) == 5 and [line for block in shown for line in block.splitlines() if line not in lines] == []
