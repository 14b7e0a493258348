"""Text out of a person's files, a name of a column or of a file, made safe where it is shown: on a screen, in Markdown, in a
command to paste."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

#: what steers a terminal or turns text around, and halves of characters; not the line feed and the tab
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
#: marks of Markdown; an underscore inside a word is none
_MARKS = re.compile(r"[\\`*\[\]<>|~&$]|:(?=//)|(?<![^\W_])_|_(?![^\W_])")


def visible(text: str) -> str:
    """``text`` with escapes, such as ``\\x1b`` and ``\\u202e``, for the characters that would not be seen but work."""
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


def all_visible(data: Any) -> Any:
    """Plain data with each text of it, keys too, made :func:`visible`."""
    if isinstance(data, Mapping):
        return {visible(str(key)): all_visible(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [all_visible(value) for value in data]
    return visible(data) if isinstance(data, str) else data


def markdown(text: str) -> str:
    """``text`` as Markdown that reads as it stands, in one line."""
    return _MARKS.sub(lambda found: "\\" + found[0], visible(" ".join(text.split())))


def command(*words: Any) -> str:
    """Words as a line that a shell takes for these very words."""
    return " ".join(map(_quoted, map(str, words)))


def _quoted(word: str) -> str:
    if not _UNSEEN.search(word) and "\n" not in word:
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return "$'" + _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", escaped) + "'"


def kind_of(column: str, kind: str) -> str:
    """The option that overrules the guess of what a column is."""
    return command("--kind", f"{column}={kind}")
