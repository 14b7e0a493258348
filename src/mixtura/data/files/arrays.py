""".npy and .npz files: arrays of numbers or text, read as tables or images and written from them.

Headers are checked before anything is allocated. Rows are taken from a mapped .npy, and from an array inside a .npz as it is
unpacked, so that memory is bounded by what is kept.
"""

from __future__ import annotations

import hashlib
import math
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
from numpy.lib import format as npy
from pandas.api import types

from mixtura.contracts import InputError
from mixtura.data import dtypes
from mixtura.data.dtypes import EXACT
from mixtura.data.files.door import Door, Levels, OpenTable, reading
from mixtura.data.files.pixels import HowImages, Images, images_of_array
from mixtura.data.files.printed import cannot_hold, float_holds
from mixtura.data.files.text_files import printable
from mixtura.ground.machine import drafted

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
    with reading(path, "a numpy file"), open(path, "rb") as file:
        start = file.read(6)
    if start[:1] == b"\x80":  # of a pickle
        raise InputError(_OBJECTS.format(path.name))
    if path.suffix.lower() == ".npy":
        if start[:4] == b"PK\x03\x04":
            raise InputError(f"{path.name} holds several named arrays, expected one; give it the ending .npz")
        return [""]
    if start == npy.MAGIC_PREFIX:
        raise InputError(f"{path.name} holds one array without a name, expected an archive; give it the ending .npy")
    with reading(path, "a numpy file"), zipfile.ZipFile(path) as archive:
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


def check_unpacked(size: int, packed: int, name: str) -> None:
    """InputError where an archive of ``packed`` bytes says that it unpacks to far more: ``size`` bytes."""
    if size > max(MOST_UNPACKED, MOST_TIMES * packed):
        raise InputError(
            f"{name} has {packed:,} bytes and says it unpacks to {size:,}, more than the {MOST_UNPACKED:,} that are read; "
            "write smaller ones"
        )


def _in_npy(path: Path) -> Stored:
    with reading(path, "a numpy file"), open(path, "rb") as file:
        shape, fortran, dtype = _header(file, path.name)
        start, there = file.tell(), path.stat().st_size
    _check_size(shape, dtype, there - start, path.name)

    def take(chosen: np.ndarray | None) -> np.ndarray:
        if math.prod(shape) == 0:  # nothing to map
            whole: np.ndarray = np.empty(shape, dtype)
        else:
            with reading(path, "a numpy file"):
                whole = np.memmap(path, dtype, "r", offset=start, shape=shape, order="F" if fortran else "C")
        return dtypes.native(whole if chosen is None else np.asarray(whole[chosen]))

    return Stored(path.name, shape, dtypes.native_dtype(dtype), take)


def _in_npz(path: Path, key: str) -> Stored:
    name = f"{path.name}:{key}"
    with reading(path, "a numpy file"), zipfile.ZipFile(path) as archive:
        member = archive.getinfo(key + ".npy")
        with archive.open(member) as file:
            shape, fortran, dtype = _header(file, name)
            start = file.tell()
    _check_size(shape, dtype, member.file_size - start, name)
    check_unpacked(member.file_size, path.stat().st_size, name)

    def take(chosen: np.ndarray | None) -> np.ndarray:
        rows = np.arange(shape[0] if shape else 1) if chosen is None else chosen
        with reading(path, "a numpy file"), zipfile.ZipFile(path) as again, again.open(member) as file:
            file.read(start)
            if not fortran:
                return dtypes.native(_rows(file, shape, dtype, rows))
            if member.file_size > MOST_WHOLE:
                raise InputError(
                    f"{name} is stored column by column and has {member.file_size:,} bytes, more than the {MOST_WHOLE:,} "
                    "that are read of such; write numpy.ascontiguousarray of it, or a .npy"
                )
            return dtypes.native(np.frombuffer(file.read(), dtype, math.prod(shape)).reshape(shape, order="F")[rows])

    return Stored(name, shape, dtypes.native_dtype(dtype), take)


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
        warnings.simplefilter("ignore")  # a header that Python 2 wrote
        start, version = file.tell(), npy.read_magic(file)
        length = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
        if length > _MOST_HEADER:  # numpy allocates memory for the header before it checks it
            raise InputError(f"{name} cannot be read as a numpy file (its header claims {length:,} bytes); write it again")
        file.seek(start + npy.MAGIC_LEN)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
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


# ---------------------------------------------------------------------------------------------------------- tables


def _open_table(path: Path, key: str | None, _: Levels) -> OpenTable:
    array = stored(path, key)
    return table_of_array(array.shape, array.dtype, array.take, array.name)


def table_of_array(
    shape: tuple[int, ...], dtype: np.dtype, take: Callable[[np.ndarray], np.ndarray], name: str
) -> OpenTable:
    """The table of an array of this shape and dtype, of which ``take`` gives the rows. InputError for more axes and for values
    that are neither numbers nor text."""
    if len(shape) not in (1, 2):
        raise InputError(
            f"{name}: expected a table (rows, columns) or images (n, H, W) or (n, H, W, 3), got shape {shape}; reshape it"
        )
    if dtype.kind not in "biufUM":
        raise InputError(f"{name}: expected numbers or text, got an array of {dtype}; convert it to one of these")

    def frame(chosen: np.ndarray) -> pd.DataFrame:
        rows = take(chosen)
        if dtype.kind == "U":
            letters = np.ascontiguousarray(rows).view(np.uint32)
            if ((letters > 0x10FFFF) | (letters >= 0xD800) & (letters < 0xE000)).any():
                raise InputError(f"{name} holds text that is no Unicode, expected letters; it may be damaged, so write it again")
        try:
            return pd.DataFrame(rows)
        except (ValueError, TypeError, OverflowError) as error:  # times beyond those of a frame or without a unit, odd text
            raise InputError(f"{name}: its values of {dtype} cannot be read ({error}); write them as text") from error

    return OpenTable(shape[0], shape[1] if len(shape) == 2 else 1, frame)


_OTHERS = ".csv, .jsonl or .parquet"


def matrix(frame: pd.DataFrame) -> np.ndarray:
    """(n, columns): a table of numbers as an array of one dtype that holds each of them exactly. InputError, naming the
    column, if there is none."""
    columns = [_numbers(column) for _, column in frame.items()]
    common = np.result_type(*{c.dtype for c in columns}) if columns else np.dtype(float)
    for name, column in zip(frame, columns, strict=True):
        if column.dtype.kind in "iu" and common.kind == "f" and len(column) and not _fits(column):
            raise cannot_hold(name, "holds whole numbers past 2^53, which an array of real numbers rounds", _OTHERS)
    return np.stack([c.astype(common) for c in columns], axis=1) if columns else np.empty((len(frame), 0))


def _fits(column: np.ndarray) -> bool:
    return -EXACT <= int(column.min()) and int(column.max()) <= EXACT


def _numbers(column: pd.Series) -> np.ndarray:
    """A column as numbers, NaN where missing. InputError if it holds anything else, or if a float would round them."""
    column = dtypes.dense(dtypes.plain(column))
    column = column.astype(object) if isinstance(column.dtype, pd.CategoricalDtype) else column
    present = column.dropna()
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biuf":
        return column.to_numpy()
    says = types.infer_dtype(present) if types.is_object_dtype(present.dtype) else ""
    numeric = types.is_numeric_dtype(column.dtype) or says in ("integer", "boolean", "floating", "mixed-integer-float", "decimal")
    if not numeric and len(present):
        raise cannot_hold(column.name, "holds no numbers, which is all an array can", _OTHERS)
    exact = [v.item() if isinstance(v, np.generic) else v for v in present]
    if any(isinstance(v, int) and not -(2**63) <= v < 2**63 for v in exact):
        raise cannot_hold(column.name, "holds whole numbers past 2^63, which no array holds", _OTHERS)
    if any((isinstance(v, Decimal) and not float_holds(v)) for v in exact):
        raise cannot_hold(column.name, "holds decimals of more digits than a real number keeps", _OTHERS)
    whole = all(isinstance(v, int) for v in exact)
    if len(present) == len(column):
        return np.array(exact, dtype=np.int64 if whole else np.float64)
    if whole and exact and not all(-EXACT <= v <= EXACT for v in exact):
        raise cannot_hold(column.name, "holds gaps beside whole numbers past 2^53, which an array would round", _OTHERS)
    out = np.full(len(column), np.nan)
    out[column.notna().to_numpy()] = np.array(exact, dtype=np.float64)
    return out


def _write_npy(frame: pd.DataFrame, file: IO[bytes]) -> None:
    np.save(file, matrix(frame), allow_pickle=False)


def _write_npz(frame: pd.DataFrame, file: IO[bytes]) -> None:
    np.savez(file, data=matrix(frame))


# ---------------------------------------------------------------------------------------------------------- images


def _image_keys(path: Path, key: str | None) -> list[str]:
    """Names of the arrays in a .npy (one, "") or .npz file that have 3 or 4 axes."""
    return [name for name in (keys(path) if key is None else [key]) if _axes(path, name) in (3, 4)]


def _axes(path: Path, key: str) -> int:
    try:
        return len(stored(path, key).shape)
    except InputError:
        return 0  # another array of the file may hold the images


def _holds_images(path: Path, key: str | None) -> bool:
    try:
        return bool(_image_keys(path, key))
    except InputError:
        return False  # the reader of tables says what is wrong with the file


def _read_images(path: Path, key: str | None, how: HowImages) -> Images:
    found = _image_keys(path, key)
    if len(found) > 1:
        raise InputError(
            f"{path.name}: holds several arrays of images, {', '.join(found)}; name one, as in {path.name}:{found[0]}"
        )
    array = stored(path, found[0] if found else key)  # without images: what is wrong with the only one is said
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(b"\x1f" + (key or "").encode())
    name = printable(path.name if key is None else f"{path.name}:{key}")
    return images_of_array(array.shape, array.dtype, array.take, name, digest.hexdigest(), how)


def _images_to_npy(images: np.ndarray, path: Path) -> None:
    with drafted(path) as draft, draft.open("wb") as file:
        np.save(file, images, allow_pickle=False)


def _images_to_npz(images: np.ndarray, path: Path) -> None:
    with drafted(path) as draft, draft.open("wb") as file:
        np.savez_compressed(file, images=images)


NPY = Door(
    open_table=_open_table, write_table=_write_npy, holds_images=_holds_images, read_images=_read_images,
    write_images=_images_to_npy, only_numbers=True,
)  # fmt: skip
NPZ = replace(NPY, write_table=_write_npz, write_images=_images_to_npz)
