"""What the pages show is true: their code runs, their links and names exist."""

from __future__ import annotations

import ast
import doctest
import re
import shlex
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from test_recipes import CONTRIBUTED

import mixtura
from mixtura.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


ROOMS = {path.stem for path in (ROOT / "src/mixtura").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}


def blocks(page: str, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


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


def test_the_page_of_comparisons_does_what_it_says(capsys):
    namespace: dict[str, Any] = {"__name__": "comparison"}
    for block in blocks("docs/compare.md"):
        exec(compile(block, "docs/compare.md", "exec", dont_inherit=True), namespace)
    assert capsys.readouterr().out.startswith("a and b differ (p < 0.001)\n")
    assert list(namespace["r"].log_ratio(namespace["x"]) > 0) == [True, False]


def test_the_page_of_strange_rows_does_what_it_says(capsys):
    [block] = blocks("docs/detect.md")
    exec(compile(block, "docs/detect.md", "exec", dont_inherit=True), {"__name__": "strange"})
    called, p, reason = capsys.readouterr().out.split()
    assert (called, reason) == ("-1", "wage") and p.startswith("0.0055")


# ------------------------------------------------------------------------------------------ every block of every page

#: page → the test file that runs its blocks of Python, or, for the sketches of decision 5, compares them with code that runs
RUN_BY = {
    "CONTRIBUTING.md": "tests/test_recipes.py",
    "README.md": "tests/test_readme.py",
    "docs/arms.md": "tests/arms/test_arms.py",
    "docs/compare.md": "tests/test_docs.py",
    "docs/detect.md": "tests/test_docs.py",
    "docs/contextual.md": "tests/policies/test_contextual.py",
    "docs/decisions/005-training-is-a-game-in-stages.md": "tests/test_docs.py",
    "docs/given.md": "tests/test_tutorials.py",
    "docs/mdn.md": "tests/test_docs.py",
    "docs/own-model.md": "tests/test_docs.py",
    "docs/select.md": "tests/test_docs.py",
    "docs/workers.md": "tests/test_docs.py",
    **{f"docs/tutorials/{path.name}": "tests/test_tutorials.py" for path in (ROOT / "docs/tutorials").glob("*.md")},
}
#: package that the tests do without → how it is installed. The blocks that import it are skipped where it is not installed
MAY_BE_MISSING = {"dask": "pip install dask distributed", "submitit": "pip install submitit"}
#: what the page writes for a cluster → the same on this machine, with few steps
ON_THIS_MACHINE = {
    '"tcp://10.0.0.7:8786"': "n_workers=1, threads_per_worker=1, dashboard_address=None, processes=False",
    '"/shared/logs"': '"logs"',
    '"adult.csv", out="/shared/runs/adult"': '"penguins", steps=2, families=["marginals"], out="run"',
    "workers=16": "workers=2",
}


def imported(block: str) -> set[str]:
    """The packages that a block imports."""
    nodes = list(ast.walk(ast.parse(block)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def test_every_block_of_python_is_run_by_a_test():
    pages = {str(page.relative_to(ROOT)) for page in [ROOT / "README.md", *PAGES] if blocks(str(page))}
    assert pages == set(RUN_BY)
    for page, test in RUN_BY.items():
        told = (ROOT / test).read_text(encoding="utf-8")
        assert Path(page).name in told or Path(page).parent.name in told, f"{test} does not name {page}"


def test_the_only_blocks_that_may_be_skipped_need_a_package_that_the_tests_do_without():
    needing = {}
    for page in RUN_BY:
        for k, block in enumerate(blocks(page)):
            compile(block, page, "exec", dont_inherit=True)
            if packages := imported(block) & set(MAY_BE_MISSING):
                needing[page, k] = packages
    assert needing == {("docs/workers.md", 1): {"dask"}, ("docs/workers.md", 2): {"submitit"}}


@pytest.mark.parametrize(("k", "package"), [(0, None), (1, "dask"), (2, "submitit")])
def test_the_page_of_workers_runs(k, package, tmp_path, monkeypatch):
    block = blocks("docs/workers.md")[k]
    for there, here in ON_THIS_MACHINE.items():
        block = block.replace(there, here)
    if package is not None and find_spec(package) is None:
        pytest.skip(f"block {k} of docs/workers.md needs {package}, which is not installed: {MAY_BE_MISSING[package]}")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "workers"}
    exec(compile(block, "docs/workers.md", "exec", dont_inherit=True), namespace)
    if "client" in namespace:
        namespace["client"].close()
    assert k == 0 or mixtura.load(tmp_path / "run").verdict.rows > 0


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


def shown_commands() -> list[tuple[str, str]]:
    """(page, line) of every command of mixtura in a block of any kind, a word of prose after ``#`` left out."""
    found = []
    for page in [ROOT / "README.md", *PAGES]:
        for block in re.findall(r"^```\w*\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
            found += [(page.name, line) for line in re.findall(r"^(?:\$ |  )?(mixtura [a-z]+ .*)$", block, re.MULTILINE)]
    return found


def test_every_shown_command_has_options_that_exist():
    commands = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    assert len(shown_commands()) > 30
    for page, line in shown_commands():
        _, name, *words = shlex.split(line, comments=True)
        assert name in commands, (page, line)
        options = {option for parameter in commands[name].params for option in (*parameter.opts, *parameter.secondary_opts)}
        asked = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
        assert set(asked) <= options | {"--help"}, (page, line)


def test_names_page_names_what_there_is():
    """A dotted name of the table, ``room.Name``, is an attribute of that room."""
    rooms = "|".join(sorted(ROOMS - {"__init__", "__main__"}))
    text = (ROOT / "docs/names.md").read_text(encoding="utf-8")
    named = re.findall(rf"`((?:{rooms})\.(?!py`)[\w.]+)`", text)
    assert len(named) >= 50
    others = {"concurrent", "torch"}  # not ours
    assert set(re.findall(r"`([a-z]\w*)\.\w[\w.]*`", text)) <= ROOMS | others, "a dotted name begins with a room"
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
