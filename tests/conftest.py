"""What every test may ask for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


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
