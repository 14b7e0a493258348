"""The one door to .npy and .npz files: their headers are checked before anything is allocated, and whatever numpy or zipfile
raises on a damaged or hostile file is an InputError of one sentence.

Rows are taken from a mapped .npy, and from an array inside a .npz as it is unpacked, so that memory is bounded by what is kept.
"""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from mixtura.contracts import InputError

ENDINGS = (".npy", ".npz")
#: an archive may unpack to so many bytes, or to this many times its own size if that is more
MOST_UNPACKED, MOST_TIMES = 4 * 2**30, 50
#: bytes of an array that can only be taken whole: one in a .npz that is stored column by column
MOST_WHOLE = 2**30
_BLOCK = 2**20
_OBJECTS = "{} holds Python objects, which are never loaded; save an array of numbers or text"


@dataclass(frozen=True)
class Stored:
    """An array in a file, not loaded yet.

    name:  of the file, with the key inside it where there is one, to show.
    shape: as its header says, and the size of the file confirms.
    dtype: of what ``take`` gives: in the byte order of this machine.
    take:  sorted positions along the first axis, or None for the whole array → the values.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    take: Callable[[np.ndarray | None], np.ndarray]


def keys(path: Path) -> list[str]:
    """Names of the arrays in a .npz file; "" for the one in a .npy file. Raises InputError for any other file."""
    with opened(path, "a numpy file"), open(path, "rb") as file:
        start = file.read(6)
    if start[:1] == b"\x80":  # of a pickle
        raise InputError(_OBJECTS.format(path.name))
    if path.suffix.lower() == ".npy":
        if start[:4] == b"PK\x03\x04":
            raise InputError(f"{path.name} holds several named arrays, expected one; give it the ending .npz")
        return [""]
    if start == npy.MAGIC_PREFIX:
        raise InputError(f"{path.name} holds one array without a name, expected an archive; give it the ending .npy")
    with opened(path, "a numpy file"), zipfile.ZipFile(path) as archive:
        found = [name.removesuffix(".npy") for name in dict.fromkeys(archive.namelist()) if name.endswith(".npy")]
    if not found:
        raise InputError(f"{path.name} holds 0 arrays, expected one; write it with numpy.savez")
    return found


def stored(path: Path, key: str | None) -> Stored:
    """The array in a .npy file, or the one in a .npz file that ``key`` names (None: its only one): its header only.

    Raises InputError for a file that is neither, or is damaged; for a key that is not there, or is missing where there are
    several; and for an array of Python objects, of records, of more values than there are bytes for, or one that unpacks to
    more than MOST_UNPACKED.
    """
    found = keys(path)
    if path.suffix.lower() == ".npy":
        return _in_npy(path)
    if key is None and len(found) > 1:
        raise InputError(
            f"{path.name} holds {len(found)} arrays ({', '.join(found)}), expected one; say which, as in {path.name}:{found[0]}"
        )
    if key is not None and key not in found:
        raise InputError(f"{path.name} has no array {key!r}; it holds {', '.join(found)}")
    return _in_npz(path, found[0] if key is None else key)


@contextmanager
def opened(path: Path, what: str) -> Iterator[None]:
    """Whatever a library raises on a damaged or hostile file, as an InputError. Nothing but its reading stands inside."""
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


def native(array: np.ndarray) -> np.ndarray:
    """The same values in the byte order of this machine, which pandas and torch need; wider floats as float64."""
    return array.astype(native_dtype(array.dtype), copy=False)


def native_dtype(dtype: np.dtype) -> np.dtype:
    """Of what :func:`native` gives."""
    return np.dtype(np.float64) if dtype.kind == "f" and dtype.itemsize > 8 else dtype.newbyteorder("=")


def check_unpacked(size: int, packed: int, name: str) -> None:
    """InputError where an archive of ``packed`` bytes says that it unpacks to far more: ``size`` bytes."""
    if size > max(MOST_UNPACKED, MOST_TIMES * packed):
        raise InputError(
            f"{name} has {packed:,} bytes and says it unpacks to {size:,}, more than the {MOST_UNPACKED:,} that are read; "
            "write smaller ones"
        )


def _in_npy(path: Path) -> Stored:
    with opened(path, "a numpy file"), open(path, "rb") as file:
        shape, fortran, dtype = _header(file, path.name)
        start, there = file.tell(), path.stat().st_size
    _check_size(shape, dtype, there - start, path.name)

    def take(chosen: np.ndarray | None) -> np.ndarray:
        if math.prod(shape) == 0:  # nothing to map
            whole: np.ndarray = np.empty(shape, dtype)
        else:
            with opened(path, "a numpy file"):
                whole = np.memmap(path, dtype, "r", offset=start, shape=shape, order="F" if fortran else "C")
        return native(whole if chosen is None else np.asarray(whole[chosen]))

    return Stored(path.name, shape, native_dtype(dtype), take)


def _in_npz(path: Path, key: str) -> Stored:
    name = f"{path.name}:{key}"
    with opened(path, "a numpy file"), zipfile.ZipFile(path) as archive:
        member = archive.getinfo(key + ".npy")
        with archive.open(member) as file:
            shape, fortran, dtype = _header(file, name)
            start = file.tell()
    _check_size(shape, dtype, member.file_size - start, name)
    check_unpacked(member.file_size, path.stat().st_size, name)

    def take(chosen: np.ndarray | None) -> np.ndarray:
        rows = np.arange(shape[0] if shape else 1) if chosen is None else chosen
        with opened(path, "a numpy file"), zipfile.ZipFile(path) as again, again.open(member) as file:
            file.read(start)
            if not fortran:
                return native(_rows(file, shape, dtype, rows))
            if member.file_size > MOST_WHOLE:
                raise InputError(
                    f"{name} is stored column by column and has {member.file_size:,} bytes, more than the {MOST_WHOLE:,} "
                    "that are read of such; write numpy.ascontiguousarray of it, or a .npy"
                )
            return native(np.frombuffer(file.read(), dtype, math.prod(shape)).reshape(shape, order="F")[rows])

    return Stored(name, shape, native_dtype(dtype), take)


def _rows(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype, chosen: np.ndarray) -> np.ndarray:
    """Those rows of an array that is unpacked block by block, to its end: its checksum is compared there."""
    total, inner = (shape[0], shape[1:]) if shape else (1, ())
    width = math.prod(inner) * dtype.itemsize
    kept = np.empty((len(chosen), *inner), dtype)
    step = max(1, _BLOCK // max(width, 1))
    for start in range(0, total if width else 0, step):
        rows = min(step, total - start)
        block = np.frombuffer(file.read(rows * width), dtype).reshape(rows, *inner)
        first, last = np.searchsorted(chosen, (start, start + rows))
        kept[first:last] = block[chosen[first:last] - start]
    return kept if shape else kept[0]


#: bytes of a header; numpy reads no more than 10,000
_MOST_HEADER = 2**16


def _header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        start, version = file.tell(), npy.read_magic(file)
        length = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
        if length > _MOST_HEADER:  # numpy makes room for it before it looks
            raise InputError(f"{name} cannot be read as a numpy file (its header claims {length:,} bytes); write it again")
        file.seek(start + npy.MAGIC_LEN)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)  # pyright: ignore[reportArgumentType]
    if dtype.hasobject:
        raise InputError(_OBJECTS.format(name))
    if dtype.names is not None or dtype.kind == "V":
        fields = f"records of {', '.join(dtype.names)}" if dtype.names else f"values of {dtype}"
        raise InputError(f"{name} holds {fields}, expected numbers or text; save its columns as a .csv or .parquet")
    return shape, fortran, dtype


def _check_size(shape: tuple[int, ...], dtype: np.dtype, there: int, name: str) -> None:
    if any(n < 0 for n in shape) or not dtype.itemsize or math.prod(shape) * dtype.itemsize > there:
        raise InputError(
            f"{name} cannot be read as a numpy file (its header says {dtype} of shape {shape}, but {max(there, 0):,} bytes "
            "follow); it may be cut short, so write it again"
        )
