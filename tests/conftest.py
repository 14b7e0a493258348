"""What every test may ask for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from mixtura.cli.main import main

#: files that take longest: begun first, they do not end last and alone
LONGEST = (
    "test_model", "test_workers", "test_kill", "test_estimators", "test_readme", "test_selector", "test_refits", "test_selection",
    "test_doors", "test_docs", "test_tutorials", "test_recipes", "test_race", "test_truth", "test_energy", "test_on_images",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: k for k, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """``shared_data("tables/adult")``: the path of a real data set, or the test is skipped with the reason."""
    root = Path(os.environ.get("MIXTURA_DATA") or Path(__file__).parents[2] / "shared" / "data")

    def find(name: str) -> Path:
        path = root / name
        if not path.exists():
            pytest.skip(f"no {name} in {root}; set MIXTURA_DATA to the folder with the real data")
        return path

    return find


@pytest.fixture
def width() -> int:
    """Columns of the terminal that :func:`do` writes to."""
    return 80


@pytest.fixture
def do(
    place: Path, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str | list[str]], SimpleNamespace]:
    """``do("sample runs/people -n 3")``: its exit code, out and err, in the folder ``place`` of the test's own file."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("mixtura.cli.work.SOON", 600.0)  # how long a command takes here is the machine's affair

    def do(line: str | list[str]) -> SimpleNamespace:
        capsys.readouterr()
        code = 0
        try:
            main(line.split() if isinstance(line, str) else line)
        except SystemExit as leave:
            code = int(leave.code or 0)
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    return do
