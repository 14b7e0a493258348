"""Every tutorial is followed from top to bottom: its Python runs, its commands print what it shows.

A ``console`` block holds commands (``$ mixtura …``) and what they print on standard output; without an output nothing is
compared. A ``text`` block is what the Python block above it prints. A block that begins with ``# name.yaml`` is that file.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from test_readme import same_line

from mixtura.cli.main import main

DOCS = Path(__file__).parents[1] / "docs"
TUTORIALS = [*sorted((DOCS / "tutorials").glob("*.md")), DOCS / "given.md"]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def command(line: str) -> None:
    program, *arguments = shlex.split(line.removeprefix("$ "))
    assert program == "mixtura"
    main(arguments)


def compare(printed: str, shown: str, page: str) -> None:
    """Line by line as in the README, without the notes on convergence, which depend on the machine's speed."""
    was, expected = (
        [line for line in text.splitlines() if line.strip() and "converged" not in line] for text in (printed, shown)
    )
    different = [(a, b) for a, b in zip(was, expected, strict=False) if not same_line(a, b)]
    assert len(was) == len(expected) and not different, f"{page} shows {different or shown} but this is printed:\n{printed}"


def follow(text: str, page: str, capsys: pytest.CaptureFixture[str]) -> list[tuple[str, str]]:
    """(shown, printed) of every command and of every Python block that has an output, in order."""
    namespace: dict[str, Any] = {"__name__": page.replace("/", ".")}
    found: list[tuple[str, str]] = []
    printed = ""
    for kind, body in BLOCK.findall(text):
        file = re.match(r"# (\w+\.\w+)\n", body)
        if file:
            Path(file[1]).write_text(body, encoding="utf-8")
        elif kind == "python":
            exec(compile(body, page, "exec", dont_inherit=True), namespace)
            printed = capsys.readouterr().out
        elif kind == "text":
            found.append((body, printed))
        elif kind == "console":
            for part in re.split(r"^(?=\$ )", body, flags=re.MULTILINE)[1:]:
                line, _, shown = part.partition("\n")
                command(line)
                found.append((shown, capsys.readouterr().out))
    return found


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_prints_what_it_shows(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for shown, printed in follow(path.read_text(encoding="utf-8"), path.name, capsys):
        if shown.strip():
            compare(printed, shown, path.name)
