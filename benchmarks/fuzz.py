"""Odd, damaged and hostile inputs of every kind: does any command end in a traceback, hang, or take the memory?

python benchmarks/fuzz.py [--inputs 20000] [--seed 0] [--kinds csv,ledger] [--only 1234] [--keep DIR]

Every input is made from the seed and its number alone: mutated tables, arrays and images, options, run folders, ledgers, lists
of arms. It is given to a command, played in a worker process. A command that answers ends with code 0, or with code 2 and one
sentence. All else is a finding: an exception, a crash, more than 20 s, more than 2 GB, or a page of text for an error.
`--only N --keep DIR` plays one input again, and leaves its files.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from odd_inputs import KINDS, SOUND, write_sound
from typer.main import get_command

from mixtura.cli import main as cli

cli.app = get_command(cli.app)  # type: ignore[assignment]  # built once, not for every input: that is half the time of a small one

#: seconds and bytes that one input may take; lines and characters of what is said of an error
SECONDS, BYTES, LINES, LETTERS = 20.0, 2 * 2**30, 12, 3_000


@dataclass(frozen=True)
class Finding:
    """What went wrong with an input: of which kind it was, what was played, and what became of it."""

    number: int
    kind: str
    words: list[str]
    what: str


def play(words: list[str]) -> tuple[int, str, str]:
    """A command in this process: its exit code, and what it said."""
    out, said, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        try:
            cli.main(words)
        except SystemExit as leave:
            code = leave.code if isinstance(leave.code, int) else 0 if leave.code is None else 1
    return code, out.getvalue(), said.getvalue()


def prepare(base: Path) -> None:
    """A folder of sound inputs, for ``odd_inputs`` to mutate."""
    base.mkdir(parents=True, exist_ok=True)
    os.chdir(base)
    write_sound()
    for words in SOUND:
        code, _, said = play(words.split())
        if code:
            raise RuntimeError(f"{words}: {said}")


def judged(words: list[str]) -> str:
    """What is wrong with how a command ended; "" if nothing is."""
    try:
        code, _, said = play(words)
    except BaseException as error:  # noqa: BLE001  whatever comes out of a command is the finding
        own = [f for f in traceback.extract_tb(error.__traceback__) if "mixtura" in f.filename]
        where = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "?"
        return f"{type(error).__name__} at {where}: {' '.join(str(error).split())[:200]}"
    if code not in (0, 2):
        return f"ended with code {code}: {said[-200:]}"
    if code == 2 and "too little memory" in said:
        return f"took more than {BYTES / 2**30:.0f} GB: {said[-200:]}"
    lines = said.strip().splitlines()
    if code == 2 and not (lines and lines[-1].startswith("error: ") and len(lines) <= LINES and len(lines[-1]) <= LETTERS):
        return f"an error that is no one sentence, {len(lines)} lines, {len(said)} letters: {said[-200:]!r}"
    return ""


def inputs_of(number: int, seed: int, kinds: list[str]) -> tuple[str, list[str]]:
    """The kind of an input and the words to play it with; its files are made in the current folder."""
    kind = kinds[number % len(kinds)]
    return kind, KINDS[kind](np.random.default_rng([seed, number]))


def _work(numbers: range, seed: int, kinds: list[str], base: Path, pipe: int) -> None:
    """In the worker: play one input after the other, and tell the parent of each before and after."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (pages + BYTES, pages + BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, 2**30))
    os.chdir(base)
    for number in numbers:
        kind, words = inputs_of(number, seed, kinds)
        _tell(pipe, number, kind, words, None)
        _tell(pipe, number, kind, words, judged(words))


def _tell(pipe: int, *what: object) -> None:
    os.write(pipe, (json.dumps(what) + "\n").encode())


def findings(count: int, seed: int, kinds: list[str], base: Path) -> Iterator[Finding | int]:
    """Findings as they come, and the number of every input that has been played. A worker that hangs or dies is replaced."""
    start = 0
    while start < count:
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.close(ours)
                _work(range(start, count), seed, kinds, base, theirs)
                status = 0
            except BaseException:  # noqa: BLE001  a fork must not go on as its parent
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(theirs)
        yield from (told := _Told()).listen(ours)
        os.close(ours)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if told.flying is None and told.last + 1 >= count:
            return
        if told.flying is None:
            raise RuntimeError(f"the worker ended while it made input {told.last + 1} of seed {seed}")
        number, kind, words = told.flying
        ended = "took more than 20 s" if told.silent else f"killed the process (status {status})"
        yield Finding(number, kind, words, ended)
        start = number + 1


class _Told:
    """What a worker said, until it was silent too long or its pipe ended."""

    def __init__(self) -> None:
        self.flying: tuple[int, str, list[str]] | None = None
        self.silent, self.last = False, -1

    def listen(self, pipe: int) -> Iterator[Finding | int]:
        left = b""
        while True:
            if not select.select([pipe], [], [], SECONDS)[0]:
                self.silent = True
                return
            part = os.read(pipe, 2**16)
            if not part:
                return
            *lines, left = (left + part).split(b"\n")
            for line in lines:
                number, kind, words, what = json.loads(line)
                self.flying = (number, kind, words) if what is None else None
                if what is not None:
                    self.last = number
                    yield Finding(number, kind, words, what) if what else number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--only", type=int, help="play this input alone, with its traceback")
    parser.add_argument("--keep", type=Path, help="folder for the files, kept; a temporary one by default")
    asked = parser.parse_args()
    torch.set_num_threads(1)  # the worker is a fork: no other thread may hold a lock then
    warnings.simplefilter("ignore")
    kinds = asked.kinds.split(",")
    with tempfile.TemporaryDirectory() as scratch:
        base = (asked.keep or Path(scratch)).resolve()
        if not (base / "selection" / "selection.json").exists():
            prepare(base)
        os.chdir(base)
        if asked.only is not None:
            kind, words = inputs_of(asked.only, asked.seed, kinds)
            print(f"{kind}: mixtura {' '.join(map(repr, words))}", flush=True)
            cli.main(words)
            return
        began, found, shown = time.monotonic(), Counter[str](), 0
        for done in findings(asked.inputs, asked.seed, kinds, base):
            if isinstance(done, Finding):
                found[done.kind] += 1
                print(f"{done.number} {done.kind}: {done.what}\n    mixtura {' '.join(done.words)[:200]!r}", flush=True)
                print(f"    again: --seed {asked.seed} --kinds {asked.kinds} --only {done.number}", flush=True)
            elif done // 1000 > shown:
                shown = done // 1000
                print(f"{done:,} inputs, {time.monotonic() - began:.0f} s, {found.total()} findings", file=sys.stderr, flush=True)
        os.chdir("/")
    print(
        f"{asked.inputs:,} inputs of {len(kinds)} kinds, seed {asked.seed}: {found.total()} findings, "
        f"{time.monotonic() - began:.0f} s"
    )
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
