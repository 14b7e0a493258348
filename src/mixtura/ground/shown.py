"""Make text from a person's files (names of columns and files) safe to show: in a terminal, in Markdown, in a shell command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

#: characters that control a terminal or the direction of text, and lone surrogates; except line feed and tab
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
#: characters with a meaning in Markdown; an underscore inside a word has none
_MARKS = re.compile(r"[\\`*\[\]<>|~&$]|:(?=//)|(?<![^\W_])_|_(?![^\W_])")


def visible(text: str) -> str:
    """``text`` with escapes, such as ``\\x1b`` and ``\\u202e``, in place of invisible characters that have an effect."""
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


def all_visible(data: Any) -> Any:
    """The same plain data with :func:`visible` applied to every string in it, keys included."""
    if isinstance(data, Mapping):
        return {visible(str(key)): all_visible(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [all_visible(value) for value in data]
    return visible(data) if isinstance(data, str) else data


def markdown(text: str) -> str:
    """``text`` on one line, escaped so that Markdown shows it literally."""
    return _MARKS.sub(lambda found: "\\" + found[0], visible(" ".join(text.split())))


def command(*words: Any) -> str:
    """One line that a shell splits into exactly these words."""
    return " ".join(map(_quoted, map(str, words)))


def _quoted(word: str) -> str:
    if not _UNSEEN.search(word) and "\n" not in word:
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return "$'" + _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", escaped) + "'"


def kind_of(column: str, kind: str) -> str:
    """The command-line option that overrides the guessed kind of a column."""
    return command("--kind", f"{column}={kind}")
