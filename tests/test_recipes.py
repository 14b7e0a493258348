"""The recipes of CONTRIBUTING.md, followed word by word in a copy of the repository: the file, its line in the TABLE, its test.

Nothing else is written. Then the tests of the recipe run, the conformance tests of the room and the rules of the house find the
newcomer by its line, and the command line offers it.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: room → name of the newcomer's file, name of its row
RECIPES = {"families": ("logistic", "logistic"), "metrics": ("outliers", "outliers"), "policies": ("drawn", "drawn")}


def contributed() -> dict[str, str]:
    """Path (or ``in TABLE of`` path) in the first line of a block of CONTRIBUTING.md → the text below it."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return {head.removeprefix("# "): body for head, _, body in (block.partition("\n") for block in blocks)}


CONTRIBUTED = contributed()


def add_to_table(path: Path, line: str) -> None:
    """Write the import below the other imports of ``path``, and the row behind the last row of its TABLE."""
    module, (import_, row) = ast.parse(path.read_text(encoding="utf-8")), ast.parse(line).body
    assert isinstance(import_, ast.ImportFrom) and isinstance(row, ast.Expr)
    [table] = [node for node in ast.walk(module) if isinstance(node, ast.DictComp)]
    rows = table.generators[0].iter.elts
    last_import = max(node.end_lineno or 0 for node in module.body if isinstance(node, ast.Import | ast.ImportFrom))
    lines = path.read_text(encoding="utf-8").encode().splitlines()
    at, column = rows[-1].end_lineno - 1, rows[-1].end_col_offset  # in bytes
    lines[at] = lines[at][:column] + f", {ast.unparse(row)}".encode() + lines[at][column:]
    lines.insert(last_import, ast.unparse(import_).encode())
    path.write_bytes(b"\n".join(lines) + b"\n")


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """A copy of the repository in which the three recipes were followed."""
    copy = tmp_path_factory.mktemp("house")
    for folder in ("src", "tests", "benchmarks"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "runs"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for path, text in CONTRIBUTED.items():
        if path.startswith("in TABLE of "):
            add_to_table(copy / path.removeprefix("in TABLE of "), text)
        else:
            assert not (copy / path).exists()
            (copy / path).write_text(text, encoding="utf-8")
    return copy


def python(house: Path, *words: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd or house, env=os.environ | {"PYTHONPATH": str(house / "src"), "COLUMNS": "80"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_recipe_is_a_file_a_line_and_a_test():
    assert max(len(line) for text in CONTRIBUTED.values() for line in text.splitlines()) <= 130
    for room, (stem, _) in RECIPES.items():
        steps = {f"src/mixtura/{room}/{stem}.py", f"in TABLE of src/mixtura/{room}/__init__.py", f"tests/{room}/test_{stem}.py"}
        assert {path for path in CONTRIBUTED if f"/{room}/" in path} == steps


def test_the_copy_is_what_is_tested(house):
    printed = python(house, "-c", "import mixtura; print(mixtura.__file__)")
    assert Path(printed.strip()) == house / "src/mixtura/__init__.py"


def test_its_own_tests_the_conformance_and_the_rules_pass(house):
    own = [f"tests/{room}/test_{stem}.py" for room, (stem, _) in RECIPES.items()]
    named = ["contracts/test_model", "metrics/test_arrays", "policies/test_bandit", "test_architecture"]
    chosen = "logistic or outliers or drawn or house or table_keeps or keeps_its_doors or no_module"
    files = [*own, *(f"tests/{name}.py" for name in named)]
    printed = python(house, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", *files, "-k", chosen)
    for room, (_, row) in RECIPES.items():
        conformance = [line for line in printed.splitlines() if line.startswith("PASSED") and row in line.partition("[")[2]]
        assert conformance, f"no conformance test found {row} of {room}"
    assert "SKIPPED" not in printed


@pytest.mark.skipif(find_spec("ruff") is None, reason="ruff is not installed; `make check` installs it")
def test_its_files_pass_the_lint(house):
    python(house, "-m", "ruff", "check", *(path for path in CONTRIBUTED if not path.startswith("in TABLE of ")))


ARMS = "arms:\n  - {name: near, kind: pool, path: near.npy}\n  - {name: wide, kind: pool, path: wide.npy}\n"
COMMANDS = """
import numpy as np
from mixtura.cli.main import main
rng = np.random.default_rng(0)
np.save("near.npy", rng.normal(size=(60, 2)))
np.save("wide.npy", 3 * rng.normal(size=(60, 2)))
main(["run", "penguins", "--families", "logistic", "--out", "run"])
main(["report", "run"])
main(["evaluate", "near.npy", "wide.npy"])
main(["select", "arms.yaml", "--objective", "rke", "--bandwidth", "1", "--pulls", "20", "--policy", "drawn"])
"""


def test_the_command_line_offers_it(house, tmp_path):
    (tmp_path / "arms.yaml").write_text(ARMS)
    printed = python(house, "-c", COMMANDS, cwd=tmp_path)
    row = next(line for line in printed.splitlines() if line.startswith("logistic "))
    assert -30 < float(row.split()[1]) < -18  # nats a row of penguins
    share = next(line for line in printed.splitlines() if line.startswith("outliers "))
    assert 0.3 < float(share.split()[1]) < 0.9 and "share" in share
    assert "after 20 samples" in printed and (tmp_path / "run/report.html").stat().st_size > 10_000


TABLE_WITH_GAPS = """
import numpy as np
import pandas as pd
import mixtura
rng = np.random.default_rng(0)
hours = np.where(rng.random(60) < 0.3, 40, rng.integers(20, 61, 60)).astype(float)
hours[::9] = np.nan
frame = pd.DataFrame({"x": rng.normal(100, 3, 60), "hours": hours, "colour": rng.choice(["red", "blue"], 60)})
study = mixtura.run(frame, families=["logistic"], out="run")
row = study.leaderboard.set_index("name").loc["logistic"]
assert (row["status"], row["kind"]) == ("fitted", "exact") and np.isfinite(row["nats"])
loaded = mixtura.load("run").model("logistic")
assert loaded.score(frame).equals(study.model("logistic").score(frame))
assert abs(loaded.sample(2_000)["x"].mean() - 100) < 1
"""


def test_the_family_takes_part_in_a_run_of_a_table_with_gaps(house, tmp_path):
    python(house, "-c", TABLE_WITH_GAPS, cwd=tmp_path)
