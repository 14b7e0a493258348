"""What a person names: a file, an array inside one, or an example."""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path

from mixtura.contracts import InputError
from mixtura.data import examples


def named_path(source: str) -> tuple[Path, str | None]:
    """What ``source`` names, there or not: an example, a path, or ``file.npz:key`` as a path and its key."""
    if source in examples.names():
        return examples.path(source), None
    front, key = source.rpartition(".npz:")[::2]
    return (Path(f"{front}.npz"), key) if front else (Path(source), None)


def find(source: str) -> tuple[Path, str | None]:
    """As :func:`named_path`. Raises InputError, with what is named nearly so, if it is not there."""
    path, key = named_path(source)
    if not path.exists():
        raise InputError(
            f"no file {source!r}{_nearest(path)}; give the path of a table or an example ({', '.join(examples.names())})"
        )
    return path, key


def _nearest(path: Path) -> str:
    near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    found = difflib.get_close_matches(path.name, [*near, *examples.names()], n=2, cutoff=0.6)
    return f" (close: {', '.join(found)})" if found else ""


def hash_file(path: Path, key: str | None) -> str:
    """sha256 of a file, and of the key inside it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(b"" if key is None else key.encode())
    return digest.hexdigest()
