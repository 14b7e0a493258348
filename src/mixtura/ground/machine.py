"""Faults of the machine (a full disk, too little memory), files that are written whole or not at all, and live processes.

A fault of the machine is temporary. It says nothing about the family, file or sample at hand, which must not be marked as failed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mixtura.contracts import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

#: parts of the RuntimeError messages with which torch reports, on any device, too little memory or no thread available
_TOO_LITTLE = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed", "can't start new thread")
#: suffixes of a draft, and of an old folder that is set aside while its draft takes its place; the name holds the process
_DRAFT, _ASIDE = ".draft", ".aside"
_OWNED = re.compile(r"\.(\d+@\w*)\.\d+(\.draft|\.aside)$")
_number = itertools.count()


class CannotWrite(InputError):
    """A file cannot be written because of the disk, a quota or permissions. Whatever was there before is unchanged."""


def out_of_memory(error: BaseException) -> bool:
    """Whether this error means too little memory."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _TOO_LITTLE)
    )


def passes(error: BaseException | None) -> bool:
    """Whether an error, or the error it was raised from, is a fault of the machine, so that another attempt may succeed."""
    return error is not None and (isinstance(error, OSError) or out_of_memory(error) or passes(error.__cause__))


# ---------------------------------------------------------------------------------------------------------- files


def write(path: Path, content: bytes | str) -> None:
    """Write a file with this content; its folder is created if needed. Raises CannotWrite as :func:`drafted` does."""
    write_together({path: content})


def write_together(files: Mapping[Path, bytes | str]) -> None:
    """Write files that belong together: none takes its place before all are on the disk. Raises CannotWrite as :func:`drafted`
    does."""
    with contextlib.ExitStack() as drafts:
        for path, content in files.items():
            draft = drafts.enter_context(drafted(path))
            with _naming(path):
                draft.write_bytes(content.encode() if isinstance(content, str) else content)
                _to_disk(draft)


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """Yield the path of a draft next to ``path``, to be written as a file or a folder. At the end the draft replaces ``path``;
    after an error the draft is removed and ``path`` is unchanged. Drafts of ``path`` that killed processes left are removed.

    Raises CannotWrite, which names ``path``, for an OSError inside the context or while the draft replaces ``path``.
    """
    place = Path(os.path.realpath(path))  # a link is kept, and its target is replaced
    if place.exists() and not (place.is_file() or place.is_dir()):
        raise CannotWrite(f"{path}: is a device or a pipe, expected a file or a folder; write to a file and pass that on")
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
    except OSError as error:  # its own message would name the draft
        reason = error.strerror or error
        raise CannotWrite(f"{path}: cannot be written ({reason}); check the path and the space on the disk") from error


def is_draft(path: Path) -> bool:
    """Whether a file or folder is a draft of :func:`drafted`: one that is being written, or one that a killed process left."""
    return path.name.startswith(".") and _OWNED.search(path.name) is not None


def _sweep(place: Path) -> None:
    for left in list(place.parent.iterdir()):
        owned = _OWNED.search(left.name)
        if owned is None or left.name[: owned.start()] != f".{place.name}" or alive(owned[1]):
            continue
        if owned[2] == _ASIDE and not place.exists():  # the process was killed after setting it aside: put it back
            os.rename(left, place)
        else:
            _remove(left)


def _to_disk(draft: Path) -> None:
    """Flush a draft to the disk: a full disk may only report its error then."""
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
    aside = draft.with_suffix(_ASIDE)  # no single system call replaces one folder by another
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


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """An empty folder that is removed at the end, for work that keeps nothing."""
    with tempfile.TemporaryDirectory(prefix="mixtura-") as folder:
        yield Path(folder)


def read(path: Path) -> bytes:
    """The content of a file."""
    return path.read_bytes()


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    path.unlink(missing_ok=True)


def clear(folder: Path, *, last: str) -> None:
    """Remove what is in a folder, and its file ``last`` last, so that the folder can still be recognised if the process is
    killed. The folder itself stays: whoever holds it (:func:`held`) holds it on."""
    for path in folder.iterdir():
        if path.name != last and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != last:
            path.unlink()
    (folder / last).unlink(missing_ok=True)


@contextmanager
def held(folder: Path, *, shared: bool = False) -> Iterator[bool]:
    """Inside, no other process holds this folder, which is made if it is not there; False where one does already. ``shared``:
    others may hold it too, if they share it. The system lets go of it when this process ends, however it ends. Always True where
    the system or the disk has no such locks. CannotWrite as :func:`drafted`."""
    with _naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield True
        return
    lock, alone = os.open(folder, os.O_RDONLY), True
    try:
        with contextlib.suppress(OSError):  # a disk without locks
            try:
                fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                alone = False
        yield alone
    finally:
        os.close(lock)


# ------------------------------------------------------------------------------------------------------ processes


def this_process() -> str:
    """A name of this process that no other process of this machine has, before or after."""
    return f"{os.getpid()}@{_birth(os.getpid())}"


def alive(owner: str) -> bool:
    """Whether the process that ``owner`` names still runs; its start time is compared, as its number may have been reused."""
    pid, _, birth = owner.partition("@")
    return pid.isdigit() and _birth(int(pid)) == birth


def _birth(pid: int) -> str:
    """When a process started, in clock ticks since the machine booted; "runs" where the system does not say; "" if it ended."""
    try:
        with Path(f"/proc/{pid}/stat").open() as stat:
            fields = stat.read().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]  # a zombie counts as ended
    except (OSError, IndexError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except OSError:
            return "runs"
        return "runs"
