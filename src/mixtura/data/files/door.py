"""The door to a kind of file: its reader, its writer, and the one place that catches what its library raises."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from mixtura.contracts import InputError
from mixtura.data.files.pixels import HowImages, Images

#: a column's name → the words that are text there
Levels = Callable[[str], Collection[str]]

#: cells of a table that are held at a time while a file is gone through
BLOCK_CELLS = 500_000


@dataclass(frozen=True)
class OpenTable:
    """A table whose rows can be taken: how many there are, and ``take``: sorted positions → those rows. bytes: of its text, if
    it is text."""

    rows: int
    columns: int
    take: Callable[[np.ndarray], pd.DataFrame]
    bytes: int = 0


@dataclass(frozen=True)
class Door:
    """What can be done with files of one ending; None where the format cannot do it. All raise InputError.

    open_table:   path, the key of an array inside it or None, the words that are text → the table.
    write_table:  table, binary file.
    read_lines:   lines of text: goes through them, to see how fast this machine reads such a file.
    holds_images: path, key → whether it holds images, by its header.
    read_images:  path, key, how → the images.
    write_images: images (n, H, W) or (n, H, W, 3), path: all of it or nothing.
    check_images: lowest and highest level, step, channels, path: raises where images cannot be written there.
    check_library: raises where a library that it needs is not installed.
    only_numbers: whether its tables hold numbers alone, and no names of columns.
    """

    open_table: Callable[[Path, str | None, Levels], OpenTable] | None = None
    write_table: Callable[[pd.DataFrame, IO[bytes]], object] | None = None
    read_lines: Callable[[list[str]], object] | None = None
    holds_images: Callable[[Path, str | None], bool] | None = None
    read_images: Callable[[Path, str | None, HowImages], Images] | None = None
    write_images: Callable[[np.ndarray, Path], None] | None = None
    check_images: Callable[[float, float, float, int, Path], None] | None = None
    check_library: Callable[[], object] | None = None
    only_numbers: bool = False


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turns whatever a library raises on a damaged or hostile file into an InputError. Nothing but its reading stands inside."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except PermissionError as error:
        raise InputError(f"{path.name}: this account may not read it; change its permissions") from error
    except Exception as error:  # fuzzed files raise some twenty types, as tokenize.TokenError
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(
            f"{path.name} cannot be read as {what} ({said}); it may be cut short or of another format, so write it again"
        ) from error


def pick(items: Iterator[Any], chosen: np.ndarray) -> Iterator[Any]:
    """The items at sorted positions; what follows the last is not read."""
    wanted = iter(chosen.tolist())
    want = next(wanted, None)
    for position, item in enumerate(items):
        if position == want:
            yield item
            want = next(wanted, None)
            if want is None:
                return
