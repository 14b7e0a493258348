"""Tables that come with the package.

penguins: 344 penguins of three species, 8 columns, some cells missing (Horst, Hill and Gorman 2020,
          palmerpenguins, CC0).
"""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent / "examples"


def names() -> tuple[str, ...]:
    """What :func:`mixtura.data.read` takes in place of a path."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.csv")))


def path(name: str) -> Path:
    """The file of the example ``name``, one of :func:`names`."""
    return _FOLDER / f"{name}.csv"
