"""What a machine may refuse, room on the disk or memory, and files that are written whole or not at all.

Such a fault passes. It is no property of the family, the file or the sample that met it, and nobody may be condemned for it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mixtura.contracts import InputError

#: how torch says that there is too little memory or that no thread can be had: a RuntimeError, of whatever device
_TOO_LITTLE = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed", "can't start new thread")
#: endings of a draft and of what is set aside while a folder takes its place; in their names, whose they are
_DRAFT, _ASIDE = ".draft", ".aside"
_OWNED = re.compile(r"\.(\d+@\w*)\.\d+(\.draft|\.aside)$")
_number = itertools.count()


class CannotWrite(InputError):
    """The disk, a quota or permissions refuse a file. What was there before is there still."""


def out_of_memory(error: BaseException) -> bool:
    """Whether this fault is too little memory."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _TOO_LITTLE)
    )


def passes(error: BaseException | None) -> bool:
    """Whether a fault, or the one that it was raised from, is the machine's: what met it may succeed another time."""
    return error is not None and (isinstance(error, OSError) or out_of_memory(error) or passes(error.__cause__))


# ---------------------------------------------------------------------------------------------------------- files


def write(path: Path, content: bytes | str) -> None:
    """A file of this content, in a folder that is made if it is not there. CannotWrite as :func:`drafted`."""
    write_together({path: content})


def write_together(files: Mapping[Path, bytes | str]) -> None:
    """Files that belong to one another: none takes its place before all are on the disk. CannotWrite as :func:`drafted`."""
    with contextlib.ExitStack() as drafts:
        for path, content in files.items():
            draft = drafts.enter_context(drafted(path))
            with _naming(path):
                draft.write_bytes(content.encode() if isinstance(content, str) else content)
                _to_disk(draft)


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """Inside, a draft beside ``path``, to be written as a file or as a folder. Afterwards it is what ``path`` names, or, if
    anything went wrong, it is gone and ``path`` is as it was. Drafts that killed processes left of ``path`` are removed.

    Raises CannotWrite, which names ``path``, for an OSError inside or in taking the place.
    """
    place = Path(os.path.realpath(path))  # a link stays, and what it names is replaced
    if place.exists() and not (place.is_file() or place.is_dir()):
        raise CannotWrite(f"{path}: is a device or a pipe, expected a file or a folder; write a file and hand that on")
    draft = place.with_name(f".{place.name}.{this_process()}.{next(_number)}{_DRAFT}")
    try:
        with _naming(path):
            place.parent.mkdir(parents=True, exist_ok=True)
            _sweep(place)
            yield draft
            _to_disk(draft)
            _take_place(draft, place)
    finally:
        _remove(draft)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # it would name the draft
        reason = error.strerror or error
        raise CannotWrite(f"{path}: cannot be written ({reason}); check the path and the space on the disk") from error


def is_draft(path: Path) -> bool:
    """Whether a file or folder is what :func:`drafted` left when it was killed, or writes just now."""
    return path.name.startswith(".") and _OWNED.search(path.name) is not None


def _sweep(place: Path) -> None:
    for left in list(place.parent.iterdir()):
        owned = _OWNED.search(left.name)
        if owned is None or left.name[: owned.start()] != f".{place.name}" or alive(owned[1]):
            continue
        if owned[2] == _ASIDE and not place.exists():  # killed between setting it aside and taking its place
            os.rename(left, place)
        else:
            _remove(left)


def _to_disk(draft: Path) -> None:
    """Until the bytes are on the disk, a full one may not have spoken."""
    for path in (*(draft.iterdir() if draft.is_dir() else ()), draft):
        held = os.open(path, os.O_RDONLY)
        try:
            os.fsync(held)
        finally:
            os.close(held)


def _take_place(draft: Path, place: Path) -> None:
    if not (draft.is_dir() and place.is_dir()):
        os.replace(draft, place)
        return
    aside = draft.with_suffix(_ASIDE)  # the system has no one step for two folders
    os.rename(place, aside)
    try:
        os.rename(draft, place)
    except OSError:
        os.rename(aside, place)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def read(path: Path) -> bytes:
    """The content of a file."""
    return path.read_bytes()


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    path.unlink(missing_ok=True)


def clear(folder: Path, *, last: str) -> None:
    """Remove a folder, ``last`` the last of its files: if it is killed in between, the folder can still be told by that."""
    for path in folder.iterdir():
        if path.name != last and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != last:
            path.unlink()
    shutil.rmtree(folder)


# ------------------------------------------------------------------------------------------------------ processes


def this_process() -> str:
    """A name of this process that no other process of this machine ever has."""
    return f"{os.getpid()}@{_birth(os.getpid())}"


def alive(owner: str) -> bool:
    """Whether the process that ``owner`` names still runs: its number can be another process's by now."""
    pid, _, birth = owner.partition("@")
    return pid.isdigit() and _birth(int(pid)) == birth


def _birth(pid: int) -> str:
    """When a process began, in ticks since the machine did, or "runs" where the system does not say; "" if it is gone."""
    try:
        with Path(f"/proc/{pid}/stat").open() as stat:
            fields = stat.read().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]  # a killed process whose parent has not looked is gone
    except (OSError, IndexError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except OSError:
            return "runs"
        return "runs"
