"""The entry point: argv → the functions of the same names. What a person sees on screen is in this room and nowhere else.

Results go to standard output, everything on the way to standard error. A wrong input is one sentence and exit code 2.
"""

from __future__ import annotations

import io
import sys
import warnings
from typing import Any

from mixtura.cli.app import app
from mixtura.cli.compare import compare
from mixtura.cli.deliver import show_note
from mixtura.cli.detect import detect
from mixtura.cli.errors import INTERRUPTED, errors_in_one_sentence, stop, termination_is_an_interrupt
from mixtura.cli.evaluate import evaluate
from mixtura.cli.mix import mix
from mixtura.cli.run import run
from mixtura.cli.select import select
from mixtura.cli.use import impute, predict, report, sample, score

for command in (run, sample, score, predict, impute, evaluate, compare, detect, report, mix, select):  # in the order of --help
    app.command()(command)


def main(argv: list[str] | None = None) -> None:
    """Run a command; exits with 0, 1 (a replay differs), 2 (an input cannot be used) or 130 (interrupted)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that the terminal lacks, such as ≥, must not end a command
            stream.reconfigure(errors="replace")
    shown = warnings.showwarning

    def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
        from mixtura.contracts import Note

        if issubclass(category, Note):
            show_note(message)
        else:
            shown(message, category, *where, **more)

    with errors_in_one_sentence(), termination_is_an_interrupt(), warnings.catch_warnings():
        warnings.showwarning = show
        code = app(args=argv, prog_name="mixtura", standalone_mode=False)
        if code == INTERRUPTED:  # newer typer answers the interrupt itself
            stop()
        sys.stdout.flush()  # an error such as a full disk is only raised here
        if code:
            sys.exit(code)
