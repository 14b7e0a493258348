"""Data that comes with the package.

penguins: 344 penguins of three species, 8 columns, some cells missing (Horst, Hill and Gorman 2020,
          palmerpenguins, CC0).
digits:   1,797 handwritten digits of 8×8 pixels in levels 0 … 16 (Alpaydin and Kaynak 1998, optical recognition of
          handwritten digits, test part, UCI, CC BY 4.0).
"""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent / "examples"


def names() -> tuple[str, ...]:
    """What a run takes in place of a path."""
    return tuple(sorted(path.stem for path in _FOLDER.iterdir() if path.suffix in (".csv", ".npz")))


def path(name: str) -> Path:
    """The file of the example ``name``, one of :func:`names`."""
    return next(path for path in _FOLDER.iterdir() if path.stem == name)
