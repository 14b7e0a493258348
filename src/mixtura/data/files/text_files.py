"""Text files: which of the common encodings a file has, or where it is cut short or mixes two."""

from __future__ import annotations

import codecs
import warnings
from pathlib import Path

from mixtura.contracts import InputError, Note
from mixtura.data.files.door import reading

#: endings of files that can be read and are not text files
_BINARY = (".parquet", ".npy", ".npz", ".zip")
_AT_ONCE = 2**20

#: the first bytes of a file that name its encoding; those of UTF-32 begin like those of UTF-16
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

#: bytes that Windows-1252 leaves undefined
_NO_LETTER = bytes([0x81, 0x8D, 0x8F, 0x90, 0x9D])


def encoding_of(path: Path) -> str:
    """The encoding of a text file: UTF-8, UTF-16 or UTF-32 if every byte fits it, else Windows-1252, or Latin-1 if it has bytes
    that Windows-1252 leaves undefined. The file is read block by block.

    Raises InputError for binary data, for a file that is cut inside a letter, and,
    naming the line, for a stray byte in a file that is UTF-8 elsewhere: as Windows-1252 all its other letters would be wrong.
    """
    with reading(path, "text"), path.open("rb") as file:
        head = file.read(2**16)
        name = next((name for mark, name in _MARKS if head.startswith(mark)), None) or _without_mark(path, head)
        file.seek(0)
        decoder = codecs.getincrementaldecoder(name)()
        try:
            while block := file.read(_AT_ONCE):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            if name.startswith("utf-8"):
                return _not_utf8(path, _other_than_utf8(path, name))
            raise InputError(
                f"{path.name} begins as {name.upper()}, but cannot be read as that ({error.reason}); it may be cut short, "
                "so write it again, as UTF-8 at best"
            ) from error
    return name


def _not_utf8(path: Path, name: str) -> str:
    said = "Windows-1252" if name == "cp1252" else "Latin-1"
    warnings.warn(
        f"{path.name} is no UTF-8 and is read as {said}; where its letters come out wrong, write it again as UTF-8",
        Note, stacklevel=2,
    )  # fmt: skip
    return name


def printable(name: str) -> str:
    """The name of a file as text, with escapes for bytes that are no text."""
    return name.encode(errors="backslashreplace").decode()


def text_of(path: Path) -> str:
    """A text file in one piece. InputError as :func:`encoding_of`."""
    return path.read_text(encoding=encoding_of(path))


def _without_mark(path: Path, head: bytes) -> str:
    if b"\0" not in head:
        return "utf-8"
    # Latin letters have a zero as their second byte of two, or as their first
    first, second = (part.count(0) / max(1, len(part)) for part in (head[::2], head[1::2]))
    if second > 0.4 and first < 0.02:
        return "utf-16-le"
    if first > 0.4 and second < 0.02:
        return "utf-16-be"
    raise InputError(
        f"{path.name} holds binary data, expected text; give it the ending of its format, such as {', '.join(_BINARY)}"
    )


def _other_than_utf8(path: Path, name: str) -> str:
    """Windows-1252 or Latin-1. InputError if other letters of the file are valid UTF-8, which is hardly a coincidence."""
    first, right, undefined = None, False, False
    with path.open("rb") as file:
        for line, content in enumerate(file, 1):
            if content.isascii():
                continue
            others = [c for c in content.decode("utf-8", errors="surrogateescape") if c > "\x7f"]
            stray = [c for c in others if "\udc80" <= c <= "\udcff"]
            if stray and first is None:
                first = line, ord(stray[0]) - 0xDC00
            right = right or len(stray) < len(others)
            undefined = undefined or any(byte in content for byte in _NO_LETTER)
    if first is not None and (right or name == "utf-8-sig"):
        raise InputError(
            f"{path.name}: line {first[0]} holds the byte 0x{first[1]:02X}, which is no letter of UTF-8, though others in the "
            "file are; repair that line, or write the file again in one encoding"
        )
    return "latin-1" if undefined else "cp1252"
